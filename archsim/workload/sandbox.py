"""Reads HDF5 files without trusting them: a damaged file ends in a WorkloadError, never in a crash.

Byte damage can make the HDF5 library loop, allocate without end or die of a segmentation fault, so
files are opened only in a process of their own (`hdf5_worker`), which is started at the first read,
kept warm, and dies with this one. Content comes back as JSON and plain arrays, never as pickle.
Entry points: `read_hdf5`, and `read_hdf5_file` where attributes matter.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from archsim.errors import WorkloadError

WALL_LIMIT_S = 20
_GRACE_S = 5
_WORKER = Path(__file__).with_name("hdf5_worker.py")
_TIME_SIGNALS = {getattr(signal, name, None) for name in ("SIGALRM", "SIGXCPU")} - {None}


@dataclass(frozen=True)
class Unreadable:
    """A dataset that is neither numbers nor text, or lies outside the file."""

    what: str


Hdf5Value: TypeAlias = "dict[str, Hdf5Value] | str | list[Any] | np.ndarray | Unreadable"
Hdf5Tree: TypeAlias = "dict[str, Hdf5Value]"


@dataclass(frozen=True)
class Hdf5File:
    """Content of a file, and the attributes of its groups and datasets by path (`/` is the root)."""

    tree: Hdf5Tree
    attributes: dict[str, Hdf5Tree]


class Hdf5Reader:
    """A warm process that reads HDF5 files one after the other.

    Args:
        script: What the process runs; it speaks the protocol of `hdf5_worker`.
        wall_limit_s: Time for one file, in whole seconds.
    """

    def __init__(self, script: Path = _WORKER, wall_limit_s: int = WALL_LIMIT_S) -> None:
        self._script = script
        self._wall_limit_s = wall_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the reader, None before the first read."""
        return self._process.pid if self._process else None

    def read(self, path: Path) -> Hdf5Tree:
        """Read a whole file, without attributes.

        Returns:
            Groups as dicts; datasets as str, nested lists of str, numeric arrays or `Unreadable`.

        Raises:
            WorkloadError: No such file, not HDF5, damaged, too large, or reading it takes too long.
        """
        return self.read_file(path).tree

    def read_file(self, path: Path) -> Hdf5File:
        """Read a whole file with the attributes of everything in it; see `read`."""
        check_readable(path)
        with self._lock, tempfile.TemporaryDirectory(prefix="archsim-") as folder:
            ending = self._ask(path, folder)
            result = Path(folder) / "tree.json"
            if ending != {"exit": 0} or not result.is_file():
                raise WorkloadError(f"{path}: {self._why(ending)}")
            content = json.loads(result.read_text())
            if "fault" in content:
                raise WorkloadError(f"{path}: {_fault_text(content)}")
            with np.load(Path(folder) / "arrays.npz", allow_pickle=False) as arrays:
                found: dict[str, Hdf5Tree] = {}
                return Hdf5File(_decode(content["tree"], dict(arrays), "", found), found)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the process; the next read starts a new one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _ask(self, path: Path, folder: str) -> dict[str, int]:
        request = {"path": str(path.absolute()), "folder": folder, "wall_s": self._wall_limit_s}
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._wall_limit_s + _GRACE_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = b""
        except BaseException:
            # An answer left in the pipe would be taken for that of the next request.
            self.close()
            raise
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
        if reply:
            return dict(json.loads(reply))
        status = process.wait()
        self.close()
        if timed_out:
            return {"timeout": 1}
        return {"signal": -status} if status < 0 else {"exit": status or 1}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # forked since the start: the pipes belong to the other process
            self._process = None
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._owner = os.getpid()
            self._process = _start(self._script)
            atexit.register(self.close)
        return self._process

    def _why(self, ending: dict[str, int]) -> str:
        number = ending.get("signal")
        if "timeout" in ending or number in _TIME_SIGNALS:
            return f"reading it took longer than {self._wall_limit_s} s; the file is damaged or far too large"
        if number is not None and number == getattr(signal, "SIGKILL", None):
            return f"reading it was stopped by the system (signal {number}), probably for want of memory"
        if number is not None:
            return f"reading it crashed the HDF5 library (signal {number}); the file is damaged"
        return f"the process that reads HDF5 files failed (exit status {ending.get('exit')}); is h5py installed?"


def check_readable(path: Path) -> None:
    """Raise a WorkloadError unless `path` is a regular file that may be read."""
    try:
        if not path.is_file():
            raise WorkloadError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        if not os.access(path, os.R_OK):
            raise WorkloadError(f"{path}: may not be read; check its permissions")
    except OSError as err:
        raise WorkloadError(f"{path}: {err.strerror}") from err


def _start(script: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # "::" keeps the library from loading filter plugins that a file asks for.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"},
        start_new_session=True,  # Ctrl-C belongs to this process
    )


def _fault_text(content: dict[str, str]) -> str:
    if content["fault"] == "format":
        return "not an HDF5 file; a NIR network is HDF5, as nir.write makes it"
    if content["fault"] == "memory":
        return "reading it needs more than 4 GiB of memory; the file is damaged or far too large"
    return f"damaged or truncated; the HDF5 library says: {content['text']}"


def _decode(value: list[Any], arrays: dict[str, np.ndarray], path: str, attributes: dict[str, Hdf5Tree]) -> Hdf5Value:
    """The value of a tagged list; what attributes it carries are put into `attributes`."""
    tag, content, *carried = value
    if carried:
        attributes[path or "/"] = {name: _decode(item, arrays, "", {}) for name, item in carried[0].items()}
    if tag == "group":
        return {name: _decode(item, arrays, f"{path}/{name}", attributes) for name, item in content.items()}
    if tag == "array":
        return arrays[content]
    return Unreadable(content) if tag == "other" else content


_shared_reader = Hdf5Reader()


def read_hdf5(path: Path) -> Hdf5Tree:
    """Read a whole HDF5 file through the reader that this process keeps; see `Hdf5Reader.read`."""
    return _shared_reader.read(path)


def read_hdf5_file(path: Path) -> Hdf5File:
    """The same with attributes; see `Hdf5Reader.read_file`."""
    return _shared_reader.read_file(path)

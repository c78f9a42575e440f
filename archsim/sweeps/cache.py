"""Work that several points need, done once: a folder of arrays named by the hash of what determines them.

Processes share it. Who comes first computes while the others wait; the lock is the operating system's, so it is free
again when its holder dies. What was not used for longest goes when the folder grows beyond its limit. An entry that
cannot be read is computed again, and one that cannot be kept is used all the same: the cache changes no result.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsim.sweeps.store import write_whole

Arrays = Mapping[str, np.ndarray]
DEFAULT_LIMIT_MIB = 2048


@dataclass(frozen=True)
class Cache:
    """A folder of entries and the bytes that they may take together."""

    folder: Path
    limit_bytes: int

    def arrays(self, kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Arrays of a key, made where they are not there yet.

        Args:
            kind: What they are, a plain word.
            key: Hash of everything that determines them.
            make: Computes them.
        """
        path = self.folder / f"{kind}-{key}.npz"
        found = _read(path)
        if found is not None:
            return found
        with self._lock(f"{kind}-{key[:2]}"):
            found = _read(path)
            if found is not None:
                return found
            made = make()
            self._keep(path, made)
            return made

    def _keep(self, path: Path, arrays: Arrays) -> None:
        stream = io.BytesIO()
        np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        data = stream.getvalue()
        if len(data) > self.limit_bytes:
            return
        with suppress(OSError):
            self._make_room(len(data))
            write_whole(path, data)

    def _make_room(self, n_bytes: int) -> None:
        """Delete entries, least recently used first, until `n_bytes` more fit."""
        entries = []
        for entry in self.folder.glob("*.npz"):
            with suppress(FileNotFoundError):
                status = entry.stat()
                entries.append((status.st_mtime_ns, status.st_size, entry))
        excess = n_bytes + sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size, entry in sorted(entries):
            if excess <= 0:
                return
            entry.unlink(missing_ok=True)
            excess -= size

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        try:
            import fcntl  # not on Windows, where processes compute the same twice

            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / f"{name}.lock").open("wb")
        except (ImportError, OSError):
            yield
            return
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _read(path: Path) -> Arrays | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        os.utime(path)  # used just now
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return arrays

"""The folder of a sweep: one record per point, written whole or not at all, and found again by the point's key.

    DIR/sweep.json          the sweep file as it was read, which makes the folder a sweep's
    DIR/points/ab/KEY.json  one record: status, figures or error
    DIR/cache/              work shared between points; may be deleted
    DIR/sweep.parquet, DIR/sweep.csv, DIR/report.html, DIR/report.md

A record says nothing about when, where or how fast it was made: equal points have equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from archsim.errors import ConfigError
from archsim.sweeps.identity import RECORD_FORMAT
from archsim.version import VERSION

SWEEP_FILE = "sweep.json"
LOCK_FILE = ".lock"
FORMAT_VERSION = 1
OK, FAILED = "ok", "failed"

Record = dict[str, Any]
"""`format_version`, `archsim_version`, `key`, `status` (`ok` | `failed`), `summary` or None, `error` or None."""


@dataclass(frozen=True)
class Store:
    """Records of a folder."""

    folder: Path

    def read(self, key: str) -> Record | None:
        """Record of a point; None where there is none, or what lies in its place is not one."""
        try:
            record = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        is_mine = isinstance(record, dict) and record.get("key") == key and record.get("status") in (OK, FAILED)
        return record if is_mine and record.get("format_version") == RECORD_FORMAT else None

    def write(self, record: Record) -> None:
        """Keep a record, on disk before this returns.

        Raises:
            ConfigError: It cannot be written; what was kept before stays.
        """
        path = self._path(record["key"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
        except OSError as err:
            raise ConfigError(
                f"{self.folder}: a record cannot be written ({err.strerror}). All earlier records are whole; "
                "make room or the folder writable, and run the same command again to go on."
            ) from err

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, made if missing, for one sweep at a time; the lock is gone when its holder dies.

        Raises:
            ConfigError: The folder cannot be written, holds something else, or another sweep is at work in it.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: is a file; a sweep needs a folder. Choose another -o.")
        if self.folder.is_dir() and not is_sweep(self.folder) and any(self.folder.glob("[!.]*")):
            raise ConfigError(f"{self.folder}: holds files, but no sweep; choose another -o, or empty it")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / LOCK_FILE).open("wb")
        except OSError as err:
            raise ConfigError(f"{self.folder}: cannot be written ({err.strerror}). Choose another -o.") from err
        with stream:
            if not _lock(stream):
                raise ConfigError(f"{self.folder}: another sweep is at work in this folder; wait for it, or stop it")
            for left_over in self.folder.glob("**/.*.part"):
                left_over.unlink()
            yield

    def describe(self, sweep: dict[str, Any]) -> None:
        """Make the folder that of a sweep.

        Args:
            sweep: `sweep`, the content of the sweep file, and `folder`, where the files that it names lie.

        Raises:
            ConfigError: The folder cannot be written.
        """
        text = json.dumps({"format_version": FORMAT_VERSION, "archsim_version": VERSION, **sweep}, indent=1)
        try:
            write_whole(self.folder / SWEEP_FILE, text.encode() + b"\n")
        except OSError as err:
            raise ConfigError(f"{self.folder}: cannot be written ({err.strerror}). Choose another -o.") from err

    def description(self) -> dict[str, Any]:
        """What `describe` wrote.

        Raises:
            ConfigError: The folder is no sweep's, or that of another format.
        """
        path = self.folder / SWEEP_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise ConfigError(f"{self.folder}: not the folder of a sweep ({err})") from err
        version = found.get("format_version") if isinstance(found, dict) else None
        if version != FORMAT_VERSION:
            raise ConfigError(f"{path}: sweep of format {version!r}; this archsim reads {FORMAT_VERSION}")
        if not isinstance(found.get("folder"), str) or not isinstance(found.get("sweep"), dict):
            raise ConfigError(f"{path}: is damaged; run archsim sweep again, which keeps all records")
        return dict(found)

    def _path(self, key: str) -> Path:
        return self.folder / "points" / key[:2] / f"{key}.json"


def success(key: str, summary: dict[str, Any]) -> Record:
    """Record of a point that was simulated."""
    return _record(key, OK, summary, None)


def failure(key: str, error: str) -> Record:
    """Record of a point that could not be."""
    return _record(key, FAILED, None, error)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole, and on disk, or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with staging.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, path)
    except OSError:
        with suppress(OSError):
            staging.unlink()
        raise


def _lock(stream: BinaryIO) -> bool:
    """Take the lock of an open file; False where another process has it."""
    try:
        import fcntl  # not on Windows, where nothing keeps two sweeps apart
    except ImportError:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _record(key: str, status: str, summary: dict[str, Any] | None, error: str | None) -> Record:
    return {
        "format_version": RECORD_FORMAT,
        "archsim_version": VERSION,
        "key": key,
        "status": status,
        "summary": summary,
        "error": error,
    }

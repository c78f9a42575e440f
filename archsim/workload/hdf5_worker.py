"""The process that opens HDF5 files, so that a damaged one can crash or hang only itself.

Runs as a script and imports nothing of archsim. Each line on stdin is a JSON request
`{"path", "folder", "wall_s"}`; the answer is a JSON line `{"exit": status}` or `{"signal": number}`,
and the content lies in `folder/tree.json` and `folder/arrays.npz` as plain data. Every file is read
in a forked process of its own, with limits on time and memory. Ends when stdin closes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MAX_MEMORY_BYTES = 4 << 30
MAX_DATA_BYTES = 2 << 30
MAX_ENTRIES = 200_000
MAX_DEPTH = 32
MAX_ATTRIBUTE_BYTES = 4096


class _Walk:
    """Copies groups and datasets into tagged lists; arrays are kept apart under numbered keys.

    Tags: `["group", {name: value}]`, `["text", str]`, `["texts", nested lists]`,
    `["array", key]`, `["other", what it is]`. Groups and datasets with attributes carry them as a
    third element, `{name: value}`. Links out of the file are never followed.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.n_bytes = 0
        self.n_entries = 0

    def group(self, group: h5py.Group, depth: int = 0) -> list[Any]:
        """Copy a group and everything in it."""
        if depth > MAX_DEPTH:
            raise ValueError(f"groups are nested more than {MAX_DEPTH} deep")
        members = {name: self._member(group, name, depth) for name in group}
        return ["group", members, *self._attributes(group)]

    def _member(self, group: h5py.Group, name: str, depth: int) -> list[Any]:
        self._count_entry()
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return ["other", "a link"]
        item = group[name]
        if isinstance(item, h5py.Group):
            return self.group(item, depth + 1)
        if isinstance(item, h5py.Dataset):
            return [*self._dataset(item), *self._attributes(item)]
        return ["other", "a named type"]

    def _attributes(self, item: h5py.Group | h5py.Dataset) -> list[dict[str, Any]]:
        """The attributes as a list of one dict, or of none where there are none."""
        found: dict[str, Any] = {}
        for name in item.attrs:
            self._count_entry()
            try:
                found[name] = self._attribute(item.attrs, name)
            except TypeError:  # a type that numpy does not have
                found[name] = ["other", "of an unknown type"]
        return [found] if found else []

    def _attribute(self, attributes: h5py.AttributeManager, name: str) -> list[Any]:
        entry = attributes.get_id(name)
        if np.prod(entry.shape, dtype=np.float64) * entry.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
            return ["other", f"more than {MAX_ATTRIBUTE_BYTES} bytes"]
        names = h5py.check_enum_dtype(entry.dtype)
        value = attributes[name]
        if isinstance(value, str | bytes):
            return _texts(value)
        if h5py.check_string_dtype(entry.dtype) is not None:
            return _texts(np.asarray(value))
        if names and np.ndim(value) == 0:
            return ["text", next((word for word, code in names.items() if code == value), str(value))]
        return self._array(np.asarray(value))

    def _count_entry(self) -> None:
        self.n_entries += 1
        if self.n_entries > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} entries")

    def _dataset(self, dataset: h5py.Dataset) -> list[Any]:
        if dataset.shape is None:
            return ["other", "empty"]
        if dataset.external or dataset.is_virtual:
            return ["other", "stored outside the file"]
        self.n_bytes += dataset.size * dataset.dtype.itemsize
        if self.n_bytes > MAX_DATA_BYTES:
            raise ValueError(f"more than {MAX_DATA_BYTES >> 30} GiB of data")
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return _texts(dataset[()])
        if dataset.dtype.kind not in "biuf":
            return ["other", f"of type {dataset.dtype}"]
        return self._array(np.asarray(dataset[()]))

    def _array(self, array: np.ndarray) -> list[Any]:
        if array.dtype.kind not in "biuf":
            return ["other", f"of type {array.dtype}"]
        key = f"a{len(self.arrays)}"
        self.arrays[key] = array
        return ["array", key]


def _texts(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return ["texts", _decode(value.tolist())]
    return ["text", _decode(value)]


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def read_tree(path: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Read a whole HDF5 file: its tagged tree and the arrays that the tree names."""
    walk = _Walk()
    with h5py.File(path, "r", locking=False) as file:
        return walk.group(file), walk.arrays


def answer(path: str, folder: Path) -> None:
    """Read one file and leave its content, or the fault found, in `folder`."""
    try:
        if not h5py.is_hdf5(path):
            content: dict[str, Any] = {"fault": "format", "text": "not an HDF5 file"}
        else:
            tree, arrays = read_tree(path)
            np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
            content = {"tree": tree}
    except MemoryError:
        content = {"fault": "memory", "text": ""}
    except Exception as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        content = {"fault": "damaged", "text": (text.splitlines() or [type(error).__name__])[0]}
    (folder / "tree.json").write_text(json.dumps(content))


def answer_in_fork(path: str, folder: Path, wall_s: int) -> dict[str, int]:
    """Run `answer` in a forked process with limits; returns how that process ended."""
    pid = os.fork()
    if pid == 0:
        try:
            _limit(wall_s)
            answer(path, folder)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"exit": os.waitstatus_to_exitcode(status)}


def _limit(wall_s: int) -> None:
    import resource  # exists only where fork does

    # Without a handler SIGALRM ends the process even inside a loop of the C library.
    signal.alarm(wall_s)
    limits = ((resource.RLIMIT_AS, MAX_MEMORY_BYTES), (resource.RLIMIT_CPU, wall_s), (resource.RLIMIT_CORE, 0))
    for kind, value in limits:
        with suppress(ValueError, OSError):  # some systems refuse single limits
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def serve() -> None:
    """Answer requests until stdin closes."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        path, folder = request["path"], Path(request["folder"])
        if hasattr(os, "fork"):
            ending = answer_in_fork(path, folder, request["wall_s"])
        else:
            answer(path, folder)
            ending = {"exit": 0}
        sys.stdout.buffer.write(json.dumps(ending).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()

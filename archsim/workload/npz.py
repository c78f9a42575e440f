"""Reads `.npz` and `.npy` files without trusting them: no pickle, no unbounded memory, one clear message.

Sizes come from the archive's directory and are checked before anything is unpacked.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.sandbox import check_readable

MAX_BYTES = 2 << 30
_NUMBERS = "biuf"
_RECORDS = "V"
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError, SyntaxError, TokenError)


def read_npz(path: Path, text_keys: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read every array of an archive.

    Args:
        path: The archive.
        text_keys: Keys that may hold a short text (numpy's `str`) instead of numbers.

    Returns:
        Numeric arrays (bool, integer, float) by key; texts as arrays of kind U.

    Raises:
        WorkloadError: Not an archive, truncated, above 2 GiB unpacked, or an array of something
            other than numbers.
    """
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_members(path, archive, text_keys)
    except _DAMAGE as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise WorkloadError(f"{path}: not a complete .npz archive ({reason}); was it truncated?") from err


def _read_members(path: Path, archive: zipfile.ZipFile, text_keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise WorkloadError(f"{path}: unpacks to {total / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB are read")
    arrays: dict[str, np.ndarray] = {}
    for member in members:
        key = member.filename.removesuffix(".npy")
        if key == member.filename or key in arrays:
            raise WorkloadError(f"{path}: unexpected entry {member.filename!r}; an .npz holds every key once, as .npy")
        with archive.open(member) as stream:
            kinds = _NUMBERS + "U" if key in text_keys else _NUMBERS
            arrays[key] = _read_array(f"{path}: key {key!r}", stream, member.file_size, kinds)
    return arrays


def read_npy_columns(path: Path) -> dict[str, np.ndarray]:
    """Read a structured `.npy` array, such as Tonic's events, as one numeric array per field.

    Raises:
        WorkloadError: Truncated, above 2 GiB, or not an array of records of plain numbers.
    """
    check_readable(path)
    n_bytes = path.stat().st_size
    if n_bytes > MAX_BYTES:
        raise WorkloadError(f"{path}: holds {n_bytes / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB are read")
    try:
        with path.open("rb") as stream:
            records = _read_array(f"{path}: the array", stream, n_bytes, _RECORDS)
    except _DAMAGE as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise WorkloadError(f"{path}: not a complete .npy array ({reason}); was it truncated?") from err
    if records.ndim != 1:
        raise WorkloadError(f"{path}: its records have shape {records.shape}; events are one list, one record each")
    return {name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()}


def _read_array(where: str, stream: IO[bytes], n_bytes: int, kinds: str) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise WorkloadError(f"{where} is a .npy array of version {version[0]}.{version[1]}, which is not for numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns before it gives up on a damaged header
        shape, is_fortran, dtype = read_header[version](stream)
    if dtype.hasobject:
        raise WorkloadError(f"{where} holds Python objects (pickle), which archsim never loads; save plain numbers")
    _check_type(where, dtype, kinds)
    size = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > n_bytes:
        raise WorkloadError(f"{where} says its shape is {shape}, more than its {n_bytes} bytes hold; it is damaged")
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    stream.read()  # to the end, where zipfile compares the checksum
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _check_type(where: str, dtype: np.dtype, kinds: str) -> None:
    if dtype.kind not in kinds:
        allowed = "records with the fields x, y, t and p" if kinds == _RECORDS else "bool, integer or float numbers"
        raise WorkloadError(f"{where} is of type {_clip(str(dtype))}; it must hold {allowed}")
    for name in dtype.names or ():
        if dtype[name].kind not in _NUMBERS:
            raise WorkloadError(f"{where} has a field {name!r} of type {_clip(str(dtype[name]))}; it must be numbers")
    if dtype.kind == "V" and not dtype.names:
        raise WorkloadError(f"{where} is of type {dtype}, bytes without meaning; it must hold records with fields")


def _clip(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."

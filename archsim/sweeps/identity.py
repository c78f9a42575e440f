"""What determines a point, as one SHA-256: equal keys are equal points, whatever file or axis they came from.

The key covers every resolved hardware key, the cost library, the content of the workload (weights, input, settings),
samples, chips, seed and the version of archsim; file names and places are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from archsim.errors import ConfigError
from archsim.hardware.reader import load_library
from archsim.hardware.systolic import AnyHardware
from archsim.sweeps.axes import Value
from archsim.version import VERSION
from archsim.workload.model import Workload

RECORD_FORMAT = 1
_PLACES = {"source", "request"}
"""Fields that say where something came from, not what it is."""


@dataclass(frozen=True)
class Base:
    """A chip before a point's values are laid over it, ready to be hashed often."""

    values: dict[str, Any]
    library_hash: str


def base_of(hardware: AnyHardware) -> Base:
    """What `point_key` needs of a chip."""
    return Base(hardware.model_dump(), digest(hardware.library.model_dump()))


def point_key(base: Base, values: Mapping[str, Value], workload_hash: str, samples: int, chips: int, seed: int) -> str:
    """Key of a point: 64 hexadecimal digits.

    The hardware's keys are laid over, not validated, which is quick; what they mean is checked when the point runs.

    Args:
        base: The chip before the point's values are laid over it.
        values: Hardware keys with values.
        workload_hash: `content_hash` of the workload with the point's settings.
        samples: Samples whose timing is simulated.
        chips: Chips whose accuracy is evaluated.
        seed: Seed of everything random.
    """
    resolved = laid_over(base.values, values)
    return digest(
        {
            "archsim": VERSION,
            "format": RECORD_FORMAT,
            "hardware": resolved,
            "costs": _library_hash(resolved["costs"], base),
            "workload": workload_hash,
            "samples": samples,
            "chips": chips,
            "seed": seed,
        }
    )


def digest(data: Any) -> str:
    """SHA-256 of plain data as JSON with sorted keys; 250 and 250.0 are the same number."""
    return hashlib.sha256(json.dumps(_canonical(data), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def content_hash(workload: Workload) -> str:
    """SHA-256 of everything in a workload but its place."""
    found = hashlib.sha256()
    _feed(found, workload)
    return found.hexdigest()


def laid_over(values: Mapping[str, Any], changes: Mapping[str, Value]) -> dict[str, Any]:
    """Nested values with some of them, named by dotted paths, replaced; the original stays as it is."""
    result = dict(values)
    for dotted, value in changes.items():
        node, parts = result, dotted.split(".")
        for part in parts[:-1]:
            below = node.get(part)
            node[part] = dict(below) if isinstance(below, Mapping) else {}
            node = node[part]
        node[parts[-1]] = value
    return result


def _library_hash(name: Any, base: Base) -> str:
    """Hash of the prices that a point is computed with; of a library that does not exist, its name."""
    if name == base.values["costs"]:
        return base.library_hash
    try:
        return digest(load_library(str(name)).model_dump())
    except ConfigError:
        return str(name)


def _canonical(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _canonical(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_canonical(item) for item in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def _feed(found: Any, data: Any) -> None:
    """Hash data piece by piece, each with its kind and length, so that no two structures give the same bytes."""
    if is_dataclass(data):
        names = [item.name for item in fields(data) if item.name not in _PLACES]
        found.update(f"object {type(data).__name__} {len(names)};".encode())
        for name in names:
            found.update(f"{name};".encode())
            _feed(found, getattr(data, name))
    elif isinstance(data, np.ndarray):
        found.update(f"array {data.dtype.str} {data.shape};".encode())
        found.update(np.ascontiguousarray(data).data)
    elif isinstance(data, Mapping):
        found.update(f"mapping {len(data)};".encode())
        for key in sorted(data):
            _feed(found, key)
            _feed(found, data[key])
    elif isinstance(data, list | tuple):
        found.update(f"list {len(data)};".encode())
        for item in data:
            _feed(found, item)
    else:
        text = repr(data)
        found.update(f"{type(data).__name__} {len(text)} {text};".encode())

"""The fields of NIR nodes as checked numbers; each fault names the node and the field.

Files write the same parameter as Python int, 0-d array, tuple or full array; all are accepted.
"""

from __future__ import annotations

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.network import Shape
from archsim.workload.nir_graph import NirNode, with_article
from archsim.workload.sandbox import Unreadable

Pair = tuple[int, int]
_LARGEST = 2**28


def numbers(node: NirNode, field: str) -> np.ndarray:
    """A required numeric field: finite and not empty; float32 stays, everything else is float64."""
    value = node.fields.get(field)
    if value is None:
        raise WorkloadError(f"node '{node.name}' ({node.type}) has no {field}")
    if not isinstance(value, np.ndarray):
        what = value.what if isinstance(value, Unreadable) else "a group" if isinstance(value, dict) else "text"
        raise WorkloadError(f"node '{node.name}': {field} is {what}; it must be numbers")
    if value.size == 0:
        raise WorkloadError(f"node '{node.name}': {field} is empty, shape {value.shape}")
    array = np.asarray(value, dtype=np.float32 if value.dtype == np.float32 else np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(array)))
    if n_bad:
        raise WorkloadError(f"node '{node.name}': {field} holds {n_bad} values that are NaN or infinite")
    return array


def integers(node: NirNode, field: str) -> list[int]:
    """A required field of whole numbers, flat."""
    array = numbers(node, field).ravel()
    if array.size > 8 or np.any(array != np.floor(array)) or np.any(np.abs(array) > _LARGEST):
        raise WorkloadError(f"node '{node.name}': {field} is {_short(array)}; it must be a few whole numbers")
    return [int(value) for value in array]


def pair(node: NirNode, field: str, minimum: int, default: int | None = None) -> Pair:
    """A field for height and width, written as one number or two."""
    if default is not None and field not in node.fields:
        return default, default
    values = integers(node, field)
    if len(values) > 2 or min(values) < minimum:
        allowed = f"one or two whole numbers of at least {minimum}"
        raise WorkloadError(f"node '{node.name}': {field} is {values}; it must be {allowed}")
    return values[0], values[-1]


def extent(node: NirNode, field: str, minimum: int, default: int) -> Pair:
    """The same of a convolution: Conv1d has one number, along the width; across its height the default holds."""
    if node.type != "Conv1d" or field not in node.fields:
        return pair(node, field, minimum, default)
    values = integers(node, field)
    if len(values) > 1 or values[0] < minimum:
        allowed = f"one whole number of at least {minimum}"
        raise WorkloadError(f"node '{node.name}': {field} is {values}; it must be {allowed}")
    return default, values[0]


def conv_padding(node: NirNode, kernel: Pair, stride: Pair) -> Pair:
    """Padding of a convolution: numbers, or the words 'same' and 'valid'."""
    word = node.fields.get("padding")
    if not isinstance(word, str):
        return extent(node, "padding", 0, 0)
    if word == "valid":
        return 0, 0
    if word != "same":
        raise WorkloadError(f"node '{node.name}': padding is {word!r}; words are 'same' and 'valid'")
    if stride != (1, 1) or kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise WorkloadError(
            f"node '{node.name}': padding 'same' with kernel {kernel[0]} x {kernel[1]} and stride {stride[0]} x "
            f"{stride[1]} pads unevenly; only odd kernels with stride 1 are supported"
        )
    return kernel[0] // 2, kernel[1] // 2


def require_ones(node: NirNode, field: str) -> None:
    """Refuse values other than 1, such as of dilation."""
    if field in node.fields and any(value != 1 for value in integers(node, field)):
        values = integers(node, field)
        found = values[0] if len(values) == 1 else values
        raise WorkloadError(f"node '{node.name}' ({node.type}) has {field} {found}; only {field} 1 is supported")


def per_neuron(node: NirNode, field: str, shape: Shape, feeder: str, default: float | None = None) -> np.ndarray:
    """A neuron parameter, broadcastable to (channel, height, width), float64.

    One value is shared by all neurons; as many values as channels are one per channel; else there is
    one per neuron, in channel-major order. A leading batch axis of length 1 is dropped.
    """
    if default is not None and field not in node.fields:
        return np.full((1, 1, 1), default)
    array = numbers(node, field).astype(np.float64)
    what = "values" if node.type == "Scale" else "neurons"
    n_neurons = shape[0] * shape[1] * shape[2]
    if array.size == 1:
        return array.reshape(1, 1, 1)
    if array.size == n_neurons:
        return array.reshape(shape)
    if array.size == shape[0] and array.shape[-1] in (1, shape[0]):
        return array.reshape(shape[0], 1, 1)
    if array.ndim == 3 and all(size in (1, full) for size, full in zip(array.shape, shape, strict=True)):
        return array
    raise WorkloadError(
        f"node '{node.name}' is {with_article(node.type)} with {array.size} {what} ({field}) "
        f"but receives {n_neurons} values from '{feeder}'"
    )


def per_channel(values: np.ndarray) -> np.ndarray | None:
    """The same factors with one value per channel, shape (1 or channel, 1, 1); None where positions differ."""
    first = values[:, :1, :1]
    return first if np.array_equal(np.broadcast_to(first, values.shape), values) else None


def positive(node: NirNode, field: str, values: np.ndarray) -> np.ndarray:
    """The values, all of which must be above zero."""
    if values.min() <= 0:
        raise WorkloadError(f"node '{node.name}': {field} is {values.min():g}; it must be above 0")
    return values


def check_size(node: NirNode, shape: Shape) -> None:
    """Refuse maps that no chip and no memory holds, before anything allocates them."""
    if shape[0] * shape[1] * shape[2] > _LARGEST:
        raise WorkloadError(f"node '{node.name}' makes {describe(shape)} values; at most {_LARGEST} are supported")


def describe(shape: Shape) -> str:
    """A shape as people write it: `64` for a vector, else `16 x 8 x 8`."""
    return str(shape[0]) if shape[1:] == (1, 1) else " x ".join(str(size) for size in shape)


def _short(array: np.ndarray) -> str:
    return f"{array.size} numbers" if array.size > 8 else str(array.tolist())

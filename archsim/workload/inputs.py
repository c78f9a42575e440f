"""What enters a network: images and spike recordings from `.npz` files, checked and made integer.

Keys of a file:

- `images` (sample, channel, height, width) or (sample, feature): direct coding, the same frame at
  every timestep. Integers are used as they are. Floats are quantised to 8 bits: without negative
  values to 0..255, else to the two's complement range -127..127; the step becomes `scale`.
- `spikes` (step, ...) or (sample, step, ...): counts per neuron and timestep.
- `t`, `neuron` and optionally `count`, `sample` (one entry per event), `n_steps`, `n_neurons`: the
  same as a list of events; neurons are numbered channel-major.
- optional `labels` (sample,), `scale`, and `calibration_images` or `calibration_spikes`.

Entry points: `read_input`, and `generators.generate_input` for synthetic spikes.
"""

from __future__ import annotations

import difflib
from math import isfinite, prod
from pathlib import Path

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.model import InputData
from archsim.workload.network import Network, Shape
from archsim.workload.npz import MAX_BYTES, read_npz

KEYS = (
    "images", "spikes", "t", "neuron", "count", "sample", "n_steps", "n_neurons",
    "labels", "scale", "calibration_images", "calibration_spikes",
)  # fmt: skip
_EVENT_KEYS = ("neuron", "count", "sample", "n_steps", "n_neurons")
_FORMS = "one of 'images', 'spikes', or 't' with 'neuron'"
_LARGEST = 2**31 - 1
_FLOAT_LEVELS = {"unsigned": 255, "signed": 127}

Arrays = dict[str, np.ndarray]


def read_input(path: Path, network: Network) -> tuple[InputData, InputData | None]:
    """Read an `.npz` file for a network.

    Returns:
        The input with its labels, and the calibration input (None when the file has none), which has
        the coding and the scale of the input.

    Raises:
        WorkloadError: The file is damaged, its keys or shapes are wrong, or a value cannot enter
            hardware; the message names file, key and the first offending value.
    """
    if path.suffix != ".npz":
        raise WorkloadError(f"{path}: not an input; it must be an .npz file or a generator such as poisson:0.1")
    arrays = read_npz(path)
    try:
        return _from_arrays(arrays, network)
    except WorkloadError as fault:
        raise WorkloadError(f"{path}: {fault}") from None


def _from_arrays(arrays: Arrays, network: Network) -> tuple[InputData, InputData | None]:
    _check_keys(arrays)
    shape = network.input_shape
    scale = _scalar(arrays, "scale", 1.0)
    if not (isfinite(scale) and scale > 0):
        raise WorkloadError(f"'scale' is {scale:g}; it must be a finite number above 0")
    if "images" in arrays:
        images = _images(arrays["images"], "images", shape)
        step, top = _float_step(images)
        values = _integer_images(images, "images", step, top)
        key = "calibration_images"
        rest = arrays.get(key)
        calibration = None if rest is None else _integer_images(_images(rest, key, shape), key, step, top)
        scale, coding = scale * step, "direct"
    else:
        values = _spikes(arrays["spikes"], "spikes", shape) if "spikes" in arrays else _events(arrays, shape)
        rest = arrays.get("calibration_spikes")
        calibration = None if rest is None else _spikes(rest, "calibration_spikes", shape)
        coding = "spikes"
    labels = _labels(arrays, len(values), network)
    return (
        InputData(values, scale, labels, coding),  # type: ignore[arg-type]
        None if calibration is None else InputData(calibration, scale, None, coding),  # type: ignore[arg-type]
    )


def _check_keys(arrays: Arrays) -> None:
    for key in arrays:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, 1)
            advice = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(KEYS)}"
            raise WorkloadError(f"unknown key {key!r}; {advice}")
    found = [key for key in ("images", "spikes", "t") if key in arrays]
    if len(found) != 1:
        has = " and ".join(repr(key) for key in found) if found else ", ".join(map(repr, arrays)) or "no keys"
        raise WorkloadError(f"holds {has}; it must hold {_FORMS}")
    stray = next((key for key in _EVENT_KEYS if key in arrays and "t" not in arrays), None)
    if stray:
        raise WorkloadError(f"{stray!r} belongs to events ('t' with 'neuron') but the file holds {found[0]!r}")
    if "t" in arrays and "neuron" not in arrays:
        raise WorkloadError("holds 't' without 'neuron'; events need both")
    other = "calibration_spikes" if found == ["images"] else "calibration_images"
    if other in arrays:
        raise WorkloadError(f"{other!r} does not go with {found[0]!r}; calibration has the coding of the input")


def _images(array: np.ndarray, key: str, shape: Shape) -> np.ndarray:
    """Images as (sample, 1, channel, height, width) of their own number type."""
    if not any(array.shape[1:] == form for form in _forms(shape)) and not _is_vector(shape, array.shape[1:]):
        raise WorkloadError(f"{key!r} has shape {array.shape}; this network needs {_wanted('sample', shape)}")
    if array.size == 0:
        raise WorkloadError(f"{key!r} is empty, shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise WorkloadError(f"{key!r} holds {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite")
    return array.reshape(len(array), 1, *shape)


def _float_step(images: np.ndarray) -> tuple[float, int | None]:
    """Step and largest code with which float images are quantised; (1.0, None) for integers."""
    if images.dtype.kind != "f":
        return 1.0, None
    top = _FLOAT_LEVELS["signed" if images.min() < 0 else "unsigned"]
    return (float(np.abs(images).max()) / top or 1.0), top


def _integer_images(images: np.ndarray, key: str, step: float, top: int | None) -> np.ndarray:
    if top is None:
        return _whole(images, key)
    lowest = -top if top == _FLOAT_LEVELS["signed"] else 0
    codes = np.clip(np.rint(images.astype(np.float64) / step), lowest, top)
    return codes.astype(np.int8 if lowest else np.uint8)


def _spikes(array: np.ndarray, key: str, shape: Shape) -> np.ndarray:
    """Spike counts as (sample, step, channel, height, width) integers."""
    n_leading = _leading_axes(array.shape, shape)
    if n_leading is None:
        raise WorkloadError(f"{key!r} has shape {array.shape}; this network needs {_wanted('step', shape)}")
    if array.size == 0:
        raise WorkloadError(f"{key!r} is empty, shape {array.shape}")
    counts = _whole(array, key)
    if counts.min() < 0:
        raise WorkloadError(f"{key!r} holds {counts.min()}; spike counts cannot be negative")
    return counts.reshape(-1, array.shape[n_leading - 1], *shape)


def _leading_axes(found: tuple[int, ...], shape: Shape) -> int | None:
    """Number of axes before the frame: 1 (step) or 2 (sample, step); None if the frame does not fit."""
    for form in _forms(shape):
        n_leading = len(found) - len(form)
        if n_leading in (1, 2) and found[n_leading:] == form:
            return n_leading
    return 1 if len(found) > 1 and _is_vector(shape, found[1:]) else None


def _events(arrays: Arrays, shape: Shape) -> np.ndarray:
    """Dense counts (sample, step, channel, height, width) of a list of events; doubles add up."""
    columns = {key: _column(arrays, key) for key in ("t", "neuron", "count", "sample") if key in arrays}
    steps, neurons = columns["t"], columns["neuron"]
    n_neurons = prod(shape)
    declared = _scalar(arrays, "n_neurons", n_neurons)
    if declared != n_neurons:
        raise WorkloadError(f"'n_neurons' is {declared:g} but layer 'input' has {n_neurons} neurons")
    outside = np.flatnonzero((neurons < 0) | (neurons >= n_neurons))
    if outside.size:
        where = f"neuron index {neurons[outside[0]]} at step {steps[outside[0]]}"
        raise WorkloadError(f"{where} is outside layer 'input' ({n_neurons} neurons, 0..{n_neurons - 1})")
    samples = columns.get("sample", np.zeros_like(steps))
    n_steps = _extent(arrays, "n_steps", steps, "step")
    n_samples = max(_extent({}, "", samples, "sample"), arrays["labels"].size if "labels" in arrays else 1)
    if n_samples * n_steps * n_neurons * 4 > MAX_BYTES:
        size = f"{n_samples} samples x {n_steps} steps x {n_neurons} neurons"
        raise WorkloadError(f"{size} are more than {MAX_BYTES >> 30} GiB of counts; is 't' in timesteps?")
    counts = columns.get("count", np.ones_like(steps))
    if counts.size and counts.min() < 0:
        raise WorkloadError(f"'count' holds {counts.min()}; spike counts cannot be negative")
    if counts.sum() > _LARGEST:
        raise WorkloadError(f"'count' sums to {counts.sum()} spikes; at most {_LARGEST} are supported")
    dense = np.zeros((n_samples, n_steps, n_neurons), np.int32)
    np.add.at(dense, (samples, steps, neurons), counts)
    return dense.reshape(n_samples, n_steps, *shape)


def _column(arrays: Arrays, key: str) -> np.ndarray:
    array, n_events = arrays[key], arrays["t"].size
    if array.ndim != 1 or array.size != n_events:
        raise WorkloadError(f"{key!r} has shape {array.shape} but 't' has {n_events} entries; one entry per event")
    return _whole(array, key).astype(np.int64)


def _extent(arrays: Arrays, key: str, indices: np.ndarray, word: str) -> int:
    """Declared or least number of steps or samples that the indices need."""
    declared = _scalar(arrays, key, float(indices.max(initial=-1)) + 1)
    if declared < 1 or declared != int(declared):
        raise WorkloadError(f"has {declared:g} {word}s; it must be at least 1 (set 'n_steps' when there are no events)")
    extent = int(declared)
    outside = indices[(indices < 0) | (indices >= extent)]
    if outside.size:
        raise WorkloadError(f"{word} {outside[0]} is outside the recording ({extent} {word}s, 0..{extent - 1})")
    return extent


def _whole(array: np.ndarray, key: str) -> np.ndarray:
    """The same values as integers of at most 32 bits."""
    if array.dtype.kind == "f":
        broken = array[~(array == np.floor(array))] if array.size else array
        if broken.size:
            raise WorkloadError(f"{key!r} holds {broken.flat[0]:g}; its values must be whole numbers")
    if array.size and (array.max() > _LARGEST or array.min() < -_LARGEST):
        raise WorkloadError(f"{key!r} holds values beyond 32 bits")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    is_small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
    return array.astype(array.dtype.newbyteorder("=") if is_small else np.int32)


def _labels(arrays: Arrays, n_samples: int, network: Network) -> np.ndarray | None:
    if "labels" not in arrays:
        return None
    labels = _whole(arrays["labels"], "labels").astype(np.int64)
    if labels.shape != (n_samples,):
        raise WorkloadError(f"'labels' has shape {labels.shape} for {n_samples} samples; it must be ({n_samples},)")
    n_classes = prod(network.layers[-1].out_shape)
    if labels.min() < 0 or labels.max() >= n_classes:
        wrong = labels[(labels < 0) | (labels >= n_classes)][0]
        raise WorkloadError(f"'labels' holds {wrong} but the network has {n_classes} outputs (0..{n_classes - 1})")
    return labels


def _scalar(arrays: Arrays, key: str, default: float) -> float:
    value = arrays.get(key)
    if value is None:
        return default
    if value.size != 1 or not isfinite(float(value.item())):
        raise WorkloadError(f"{key!r} has shape {value.shape}; it must be one finite number")
    return float(value.item())


def _forms(shape: Shape) -> list[tuple[int, ...]]:
    """Ways to write one frame: full, flat, without axes of length 1."""
    full: tuple[int, ...] = shape
    return [full, (prod(full),), tuple(size for size in full if size > 1)]


def _is_vector(shape: Shape, frame: tuple[int, ...]) -> bool:
    return shape[1:] == (1, 1) and prod(frame) == shape[0]


def _wanted(axis: str, shape: Shape) -> str:
    sizes = ", ".join(str(size) for size in (shape[:1] if shape[1:] == (1, 1) else shape))
    lead = "(sample, " if axis == "sample" else "(step, "
    flat = "" if shape[1:] == (1, 1) else f" or {lead}{prod(shape)})"
    return f"{lead}{sizes}){flat}" + ("" if axis == "sample" else ", with or without a sample axis in front")

"""What enters a network: images, spikes and event recordings from files, checked and made integer.

Keys of an `.npz` file:

- `images` (sample, channel, height, width) or (sample, feature): by default direct coding, the same
  frame at every timestep. Integers are used as they are. Floats are quantised to 8 bits: without
  negative values to 0..255, else to the two's complement range -127..127; the step becomes `scale`.
  The setting `encoding` turns images into spikes instead, see `encoders`.
- `spikes` (step, ...) or (sample, step, ...): counts per neuron and timestep.
- `t`, `neuron` and optionally `count`, `sample` (one entry per event), `n_steps`, `n_neurons`: the
  same as a list of events, `t` in timesteps; neurons are numbered channel-major.
- `x`, `y`, `t`, `p` and optionally `sample`, `t_unit` (s, ms, us, ns; us by default), `n_steps`: events of a
  camera, binned to timesteps; see `recordings`.
- optional `labels` (sample,), `scale`, and `calibration_images` or `calibration_spikes`.

A structured `.npy` array with fields x, y, t, p (microseconds) is such events too; HDF5 files are NIRData or SONATA.
Entry points: `read_input`, and `generators.generate_input` for synthetic spikes.
"""

from __future__ import annotations

import difflib
from math import prod
from pathlib import Path

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.encoders import encode_images
from archsim.workload.hdf5_recordings import hdf5_events
from archsim.workload.input_arrays import (
    LARGEST,
    Arrays,
    Events,
    dense,
    extent,
    image_frames,
    leading_axes,
    scalar,
    wanted,
    whole,
)
from archsim.workload.model import InputData, WorkloadSettings
from archsim.workload.network import Network, Shape
from archsim.workload.npz import read_npy_columns, read_npz
from archsim.workload.recordings import CAMERA_KEYS, camera_events
from archsim.workload.sandbox import check_readable, read_hdf5_file

KEYS = (
    "images", "spikes", "t", "neuron", "count", "sample", "n_steps", "n_neurons", "x", "y", "p", "t_unit",
    "labels", "scale", "calibration_images", "calibration_spikes",
)  # fmt: skip
_EVENT_KEYS = ("neuron", "count", "sample", "n_steps", "n_neurons", "x", "y", "p", "t_unit")
_CAMERA_ONLY = ("x", "y", "p", "t_unit")
_FORMS = "one of 'images', 'spikes', or 't' with 'neuron' or with 'x', 'y', 'p'"
_FLOAT_LEVELS = {"unsigned": 255, "signed": 127}
_SUFFIXES = {".npz": "npz", ".npy": "npy", ".h5": "hdf5", ".hdf5": "hdf5", ".nir": "hdf5"}
_SIGNATURES = {b"PK": "npz", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5"}
_KINDS = "an .npz, .npy or HDF5 file (.h5, .nir) or a generator such as poisson:0.1"

_DEFAULTS = WorkloadSettings()


def read_input(
    path: Path,
    network: Network,
    settings: WorkloadSettings = _DEFAULTS,
    timesteps: int | None = None,
    seed: int = 0,
) -> tuple[InputData, InputData | None]:
    """Read a file of images, spikes or events for a network.

    Args:
        path: File; its first bytes say what it is, or its suffix where they are damaged.
        network: Network that the input must fit.
        settings: `timestep_s` bins recordings, `encoding` and its parameters turn images into spikes.
        timesteps: Steps to run; `rate` and `latency` need it, recordings must have as many.
        seed: Seed of `rate`.

    Returns:
        The input with its labels, and the calibration input (None when the file has none), which has
        the coding and the scale of the input.

    Raises:
        WorkloadError: The file is damaged, its keys or shapes are wrong, or a value cannot enter
            hardware; the message names file, key and the first offending value.
    """
    kind = _kind(path)
    if kind == "npz":
        content = read_npz(path, text_keys=("t_unit",))
    elif kind == "npy":
        content = read_npy_columns(path)
    else:
        file = read_hdf5_file(path)
    try:
        if kind == "hdf5":
            events = hdf5_events(file, network.input_shape, settings.timestep_s)
            values = _binned(events, network.input_shape, settings, timesteps)
            return _without_encoding(InputData(values), settings), None
        if kind == "npy":
            _check_fields(content)
        return _from_arrays(content, network, settings, timesteps, seed)
    except WorkloadError as fault:
        raise WorkloadError(f"{path}: {fault}") from None


def _kind(path: Path) -> str:
    """What a file is: npz, npy or hdf5."""
    by_name = _SUFFIXES.get(path.suffix.lower())
    if by_name is not None or path.is_file():
        check_readable(path)
        with path.open("rb") as stream:
            start = stream.read(8)
        for signature, kind in _SIGNATURES.items():
            if start.startswith(signature):
                return kind
    if by_name is None:
        raise WorkloadError(f"{path}: not an input; it must be {_KINDS}")
    if by_name == "hdf5":
        raise WorkloadError(f"{path}: not an HDF5 file, although its name ends in {path.suffix}")
    return by_name


def _from_arrays(
    arrays: Arrays, network: Network, settings: WorkloadSettings, timesteps: int | None, seed: int
) -> tuple[InputData, InputData | None]:
    _check_keys(arrays)
    scale = scalar(arrays, "scale", 1.0)
    if scale <= 0:
        raise WorkloadError(f"'scale' is {scale:g}; it must be a finite number above 0")
    if "images" in arrays:
        if settings.encoding == "direct":
            data, calibration = _direct(arrays, network.input_shape, scale)
        else:
            encoded = encode_images(arrays, network.input_shape, settings, timesteps, seed)
            data, calibration = InputData(encoded[0], scale), InputData(encoded[1], scale) if encoded[1:] else None
    else:
        data, calibration = _given_spikes(arrays, network.input_shape, scale, settings, timesteps)
        _without_encoding(data, settings)
    labels = _labels(arrays, data.n_samples, network)
    return InputData(data.values, data.scale, labels, data.coding), calibration


def _given_spikes(
    arrays: Arrays, shape: Shape, scale: float, settings: WorkloadSettings, timesteps: int | None
) -> tuple[InputData, InputData | None]:
    """Spikes that the file holds as such, dense or as events."""
    if "spikes" in arrays:
        values = _spikes(arrays["spikes"], "spikes", shape)
    elif "neuron" in arrays:
        values = dense(_listed_events(arrays, shape), shape, "is 't' in timesteps?")
    else:
        values = _binned(camera_events(arrays, shape, settings.timestep_s), shape, settings, timesteps)
    rest = arrays.get("calibration_spikes")
    calibration = None if rest is None else InputData(_spikes(rest, "calibration_spikes", shape), scale)
    return InputData(values, scale), calibration


def _binned(events: Events, shape: Shape, settings: WorkloadSettings, timesteps: int | None) -> np.ndarray:
    """Dense counts of a recording, no longer than is asked for."""
    width = f"{settings.timestep_s:g} s (workload.timestep_s)"
    if timesteps is not None and timesteps > events.n_steps:
        raise WorkloadError(f"the recording has {events.n_steps} bins of {width}; {timesteps} were asked for")
    advice = f"a bin is {width}; use a longer one, or fewer --timesteps"
    return dense(events.first_steps(timesteps), shape, advice)


def _without_encoding(data: InputData, settings: WorkloadSettings) -> InputData:
    """The same spikes; an encoding asked for would have nothing to encode."""
    if settings.encoding != "direct":
        what = f"workload.encoding is {settings.encoding!r}, which turns images into spikes"
        raise WorkloadError(f"{what}, but the file holds spikes already; leave it at 'direct'")
    return data


def _direct(arrays: Arrays, shape: Shape, scale: float) -> tuple[InputData, InputData | None]:
    """Images as integers that enter at every timestep."""
    images = image_frames(arrays["images"], "images", shape)
    step, top = _float_step(images)
    data = InputData(_integer_images(images, "images", step, top), scale * step, None, "direct")
    rest = arrays.get("calibration_images")
    if rest is None:
        return data, None
    codes = _integer_images(image_frames(rest, "calibration_images", shape), "calibration_images", step, top)
    return data, InputData(codes, data.scale, None, "direct")


def _check_fields(columns: Arrays) -> None:
    stray = next((name for name in columns if name not in CAMERA_KEYS), None)
    if stray is not None:
        raise WorkloadError(f"unknown field {stray!r}; events have the fields x, y, t and p")


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
        raise WorkloadError(f"{stray!r} belongs to events (with 't') but the file holds {found[0]!r}")
    is_camera = "x" in arrays or "y" in arrays
    if "t" in arrays and "neuron" not in arrays and not is_camera:
        raise WorkloadError("holds 't' without 'neuron'; events need both, or 'x', 'y' and 'p'")
    stray = next((key for key in _CAMERA_ONLY if key in arrays), None) if "neuron" in arrays else None
    stray = stray or next((key for key in ("count", "n_neurons") if is_camera and key in arrays), None)
    if stray:
        raise WorkloadError(f"{stray!r} does not go with {'neuron' if 'neuron' in arrays else 'x'!r}")
    other = "calibration_spikes" if found == ["images"] else "calibration_images"
    if other in arrays:
        raise WorkloadError(f"{other!r} does not go with {found[0]!r}; calibration has the coding of the input")


def _float_step(images: np.ndarray) -> tuple[float, int | None]:
    """Step and largest code with which float images are quantised; (1.0, None) for integers."""
    if images.dtype.kind != "f":
        return 1.0, None
    top = _FLOAT_LEVELS["signed" if images.min() < 0 else "unsigned"]
    return (float(np.abs(images).max()) / top or 1.0), top


def _integer_images(images: np.ndarray, key: str, step: float, top: int | None) -> np.ndarray:
    if top is None:
        return whole(images, key)
    lowest = -top if top == _FLOAT_LEVELS["signed"] else 0
    codes = np.clip(np.rint(images.astype(np.float64) / step), lowest, top)
    return codes.astype(np.int8 if lowest else np.uint8)


def _spikes(array: np.ndarray, key: str, shape: Shape) -> np.ndarray:
    """Spike counts as (sample, step, channel, height, width) integers."""
    n_leading = leading_axes(array.shape, shape)
    if n_leading is None:
        raise WorkloadError(f"{key!r} has shape {array.shape}; this network needs {wanted('step', shape)}")
    if array.size == 0:
        raise WorkloadError(f"{key!r} is empty, shape {array.shape}")
    counts = whole(array, key)
    if counts.min() < 0:
        raise WorkloadError(f"{key!r} holds {counts.min()}; spike counts cannot be negative")
    return counts.reshape(-1, array.shape[n_leading - 1], *shape)


def _listed_events(arrays: Arrays, shape: Shape) -> Events:
    """Events whose neurons and timesteps are given as numbers."""
    columns = {key: _column(arrays, key) for key in ("t", "neuron", "count", "sample") if key in arrays}
    steps, neurons = columns["t"], columns["neuron"]
    n_neurons = prod(shape)
    declared = scalar(arrays, "n_neurons", n_neurons)
    if declared != n_neurons:
        raise WorkloadError(f"'n_neurons' is {declared:g} but layer 'input' has {n_neurons} neurons")
    outside = np.flatnonzero((neurons < 0) | (neurons >= n_neurons))
    if outside.size:
        where = f"neuron index {neurons[outside[0]]} at step {steps[outside[0]]}"
        raise WorkloadError(f"{where} is outside layer 'input' ({n_neurons} neurons, 0..{n_neurons - 1})")
    samples = columns.get("sample", np.zeros_like(steps))
    n_steps = extent(scalar(arrays, "n_steps", 0) if "n_steps" in arrays else None, steps, "step")
    n_labelled = arrays["labels"].size if "labels" in arrays else 1
    n_samples = max(extent(None, samples, "sample") if samples.size else 1, n_labelled)
    counts = columns.get("count", np.ones_like(steps))
    if counts.size and counts.min() < 0:
        raise WorkloadError(f"'count' holds {counts.min()}; spike counts cannot be negative")
    if counts.sum() > LARGEST:
        raise WorkloadError(f"'count' sums to {counts.sum()} spikes; at most {LARGEST} are supported")
    return Events(samples, steps, neurons, counts, n_samples, n_steps)


def _column(arrays: Arrays, key: str) -> np.ndarray:
    array, n_events = arrays[key], arrays["t"].size
    if array.ndim != 1 or array.size != n_events:
        raise WorkloadError(f"{key!r} has shape {array.shape} but 't' has {n_events} entries; one entry per event")
    return whole(array, key).astype(np.int64)


def _labels(arrays: Arrays, n_samples: int, network: Network) -> np.ndarray | None:
    if "labels" not in arrays:
        return None
    labels = whole(arrays["labels"], "labels").astype(np.int64)
    if labels.shape != (n_samples,):
        raise WorkloadError(f"'labels' has shape {labels.shape} for {n_samples} samples; it must be ({n_samples},)")
    n_classes = prod(network.layers[-1].out_shape)
    if labels.min() < 0 or labels.max() >= n_classes:
        wrong = labels[(labels < 0) | (labels >= n_classes)][0]
        raise WorkloadError(f"'labels' holds {wrong} but the network has {n_classes} outputs (0..{n_classes - 1})")
    return labels

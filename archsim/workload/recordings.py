"""Event recordings as spikes per timestep: how times are binned, and the events of cameras (x, y, t, p).

Bin k holds the times `k * timestep_s <= t < (k + 1) * timestep_s`, doubles add up, and times count from the
start of the recording. Texts raised here do not name the file: `inputs.read_input` puts it in front.
Entry points: `camera_events`, and `bin_times` for the formats of `hdf5_recordings`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.input_arrays import LARGEST, Arrays, Events, extent, scalar, whole
from archsim.workload.network import Shape

UNITS = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}
CAMERA_KEYS = ("x", "y", "t", "p")

Place = Callable[[int], str]
"""Words for the event with a given index, for messages."""


def bin_times(times: np.ndarray, unit: str, timestep_s: float, place: Place) -> np.ndarray:
    """The timestep of each event.

    Whole times are binned exactly. A fractional time within rounding error (4 units in the last
    place of its type) of the edge of a bin belongs to the bin that starts there, since 0.3 s of
    0.1 s steps is the third edge although 0.3 / 0.1 is below 3 in binary.

    Args:
        times: Times from the start of the recording, integer or float, one per event.
        unit: What they count: a key of `UNITS`.
        timestep_s: Length of a bin in seconds.
        place: Words for an event.

    Raises:
        WorkloadError: A time is negative, not finite, or so late that it cannot be counted from the start.
    """
    ratio = UNITS[unit] / Fraction(repr(float(timestep_s)))
    finite = np.isfinite(times)
    refuse_first(~(finite & (times >= 0)), place, lambda i: f"t is {times[i]:g} {unit}; it must be a time from 0 on")
    with np.errstate(over="ignore"):
        late = times.astype(np.float64) / (timestep_s / float(UNITS[unit]))
    advice = "times count from the start of the recording"
    is_late = (late > LARGEST) | (times.astype(np.float64) >= 2.0**63)
    refuse_first(is_late, place, lambda i: f"t is {times[i]:g} {unit}, bin {late[i]:.3g}; {advice}")
    if times.dtype.kind != "f" and ratio.numerator * ratio.denominator < 2**62:
        whole_periods, rest = np.divmod(times.astype(np.int64), ratio.denominator)
        return whole_periods * ratio.numerator + rest * ratio.numerator // ratio.denominator
    precision = max(np.finfo(np.result_type(times.dtype, np.float16)).eps, np.finfo(np.float64).eps)
    edge = np.rint(late)
    is_edge = np.abs(late - edge) <= 4 * precision * np.maximum(late, 1.0)
    return np.where(is_edge, edge, np.floor(late)).astype(np.int64)


def camera_events(arrays: Arrays, shape: Shape, timestep_s: float) -> Events:
    """Bin events of a camera; the sensor is the network's input, polarity its channel.

    Args:
        arrays: `x`, `y`, `t` and, for inputs of several channels, `p`, one entry per event; optional
            `sample` (index per event), `t_unit` (text, by default us) and `n_steps`.
        shape: Input of the network, (channel, height, width).
        timestep_s: Length of a bin in seconds.
    """
    columns: Arrays = {key: _column(arrays, key) for key in ("x", "y", "p", "sample") if key in arrays}
    missing = next((key for key in ("x", "y", "t") if key not in arrays), None)
    if missing is None and "p" not in arrays and shape[0] > 1:
        missing = "p"
    if missing:
        has = ", ".join(repr(key) for key in arrays)
        raise WorkloadError(
            f"events need {missing!r}; events of {shape[0]} channels have x, y, t and p, these have {has}"
        )
    n_events = arrays["t"].size
    merge = "; leave p out to count both polarities alike" if shape[0] == 1 else ""
    for key, axis, name in (("x", 2, "width"), ("y", 1, "height"), ("p", 0, "channels")):
        what = f"{name} of the network's input{merge if key == 'p' else ''}"
        _check_range(columns.get(key, np.zeros(0, np.int64)), key, shape[axis], what)
    steps = bin_times(times_column(arrays["t"]), _unit(arrays), timestep_s, event_place)
    zeros = np.zeros(n_events, np.int64)
    neurons = (columns.get("p", zeros) * shape[1] + columns["y"]) * shape[2] + columns["x"]
    samples = columns.get("sample", zeros)
    declared = scalar(arrays, "n_steps", 0) if "n_steps" in arrays else None
    n_labelled = arrays["labels"].size if "labels" in arrays else 1
    n_samples = max(extent(None, samples, "sample") if n_events else 1, n_labelled)
    return Events(samples, steps, neurons, np.ones_like(steps), n_samples, extent(declared, steps, "step"))


def _unit(arrays: Arrays) -> str:
    value = arrays.get("t_unit")
    if value is None:
        return "us"
    if value.dtype.kind != "U" or value.size != 1 or str(value.item()) not in UNITS:
        shown = repr(str(value.item())[:20]) if value.size == 1 else f"of shape {value.shape}"
        raise WorkloadError(f"'t_unit' is {shown}; units are {', '.join(map(repr, UNITS))}")
    return str(value.item())


def _column(arrays: Arrays, key: str) -> np.ndarray:
    array, n_events = arrays[key], arrays["t"].size if "t" in arrays else arrays[key].size
    if array.ndim != 1 or array.size != n_events:
        raise WorkloadError(f"{key!r} has shape {array.shape} but 't' has {n_events} entries; one entry per event")
    return whole(array, key).astype(np.int64)


def times_column(array: np.ndarray) -> np.ndarray:
    """The times as they are, one number per event."""
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise WorkloadError(f"times are {array.dtype} of shape {array.shape}; they must be one number per event")
    return array


def _check_range(values: np.ndarray, key: str, size: int, what: str) -> None:
    outside = np.flatnonzero((values < 0) | (values >= size))
    if outside.size:
        i = outside[0]
        raise WorkloadError(f"event {i}: {key} is {values[i]}; it must be from 0 to {size - 1}, the {what}")


def check_neurons(neurons: np.ndarray, shape: Shape, place: Place) -> None:
    """Refuse neurons that the input of a network does not have."""
    n = prod(shape)
    layer = f"layer 'input' ({n} neurons, 0..{n - 1})"
    is_outside = (neurons < 0) | (neurons >= n)
    refuse_first(is_outside, place, lambda i: f"neuron index {neurons[i]} is outside {layer}")


def refuse_first(is_wrong: np.ndarray, place: Place, words: Callable[[int], str]) -> None:
    """Refuse the first event that is marked wrong, with words on what is wrong about it."""
    wrong = np.flatnonzero(is_wrong)
    if wrong.size:
        raise WorkloadError(f"{place(int(wrong[0]))}: {words(int(wrong[0]))}")


def event_place(index: int) -> str:
    """Words for an event of a plain list."""
    return f"event {index}"

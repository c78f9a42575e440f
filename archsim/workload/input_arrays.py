"""What readers of inputs share: whole numbers, the shapes a frame may have, and dense counts of events.

Texts raised here do not name the file: `inputs.read_input` puts it in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.network import Shape
from archsim.workload.npz import MAX_BYTES

LARGEST = 2**31 - 1

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Events:
    """Spikes as a list: one entry per event in each of the four int64 arrays, in any order.

    `neurons` are numbered channel-major within the input; doubles add up.
    """

    samples: np.ndarray
    steps: np.ndarray
    neurons: np.ndarray
    counts: np.ndarray
    n_samples: int
    n_steps: int

    def first_steps(self, n_steps: int | None) -> Events:
        """The same without what lies behind the first `n_steps` steps; None keeps everything."""
        if n_steps is None or n_steps >= self.n_steps:
            return self
        kept = self.steps < n_steps
        samples, steps, neurons, counts = self.samples[kept], self.steps[kept], self.neurons[kept], self.counts[kept]
        return Events(samples, steps, neurons, counts, self.n_samples, n_steps)


def dense(events: Events, shape: Shape, advice: str) -> np.ndarray:
    """Counts of shape (sample, step, channel, height, width), int32; `advice` ends the message on too many."""
    n_neurons = prod(shape)
    if events.n_samples * events.n_steps * n_neurons * 4 > MAX_BYTES:
        size = f"{events.n_samples} samples x {events.n_steps} steps x {n_neurons} neurons"
        raise WorkloadError(f"{size} are more than {MAX_BYTES >> 30} GiB of counts; {advice}")
    counts = np.zeros((events.n_samples, events.n_steps, n_neurons), np.int32)
    np.add.at(counts, (events.samples, events.steps, events.neurons), events.counts)
    return counts.reshape(events.n_samples, events.n_steps, *shape)


def whole(array: np.ndarray, key: str) -> np.ndarray:
    """The same values as integers of at most 32 bits."""
    if array.dtype.kind == "f":
        broken = array[~(array == np.floor(array))] if array.size else array
        if broken.size:
            raise WorkloadError(f"{key!r} holds {broken.flat[0]:g}; its values must be whole numbers")
    if array.size and (array.max() > LARGEST or array.min() < -LARGEST):
        raise WorkloadError(f"{key!r} holds values beyond 32 bits")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    is_small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
    return array.astype(array.dtype.newbyteorder("=") if is_small else np.int32)


def scalar(arrays: Arrays, key: str, default: float) -> float:
    """The one finite number under a key."""
    value = arrays.get(key)
    if value is None:
        return default
    if value.size != 1 or not isfinite(float(value.item())):
        raise WorkloadError(f"{key!r} has shape {value.shape}; it must be one finite number")
    return float(value.item())


def extent(declared: float | None, indices: np.ndarray, word: str) -> int:
    """Declared or least number of steps or samples that the indices need."""
    size = float(indices.max(initial=-1)) + 1 if declared is None else declared
    if size < 1 or size != int(size):
        raise WorkloadError(f"has {size:g} {word}s; it must be at least 1 (set 'n_steps' when there are no events)")
    n_places = int(size)
    outside = indices[(indices < 0) | (indices >= size)]
    if outside.size:
        raise WorkloadError(f"{word} {outside[0]} is outside the recording ({n_places} {word}s, 0..{n_places - 1})")
    return n_places


def forms(shape: Shape) -> list[tuple[int, ...]]:
    """Ways to write one frame: full, flat, without axes of length 1."""
    full: tuple[int, ...] = shape
    return [full, (prod(full),), tuple(size for size in full if size > 1)]


def leading_axes(found: tuple[int, ...], shape: Shape) -> int | None:
    """Number of axes before the frame: 1 (step) or 2 (sample, step); None if the frame does not fit."""
    for form in forms(shape):
        n_leading = len(found) - len(form)
        if n_leading in (1, 2) and found[n_leading:] == form:
            return n_leading
    return 1 if len(found) > 1 and is_vector(shape, found[1:]) else None


def is_vector(shape: Shape, frame: tuple[int, ...]) -> bool:
    """Whether a frame of any shape holds the values of a vector."""
    return shape[1:] == (1, 1) and prod(frame) == shape[0]


def wanted(axis: str, shape: Shape) -> str:
    """The shapes that are accepted, as people write them; `axis` is what comes before a frame."""
    sizes = ", ".join(str(size) for size in (shape[:1] if shape[1:] == (1, 1) else shape))
    lead = "(sample, " if axis == "sample" else "(step, "
    flat = "" if shape[1:] == (1, 1) else f" or {lead}{prod(shape)})"
    return f"{lead}{sizes}){flat}" + ("" if axis == "sample" else ", with or without a sample axis in front")


def image_frames(array: np.ndarray, key: str, shape: Shape) -> np.ndarray:
    """Images as (sample, 1, channel, height, width) of their own number type."""
    if not any(array.shape[1:] == form for form in forms(shape)) and not is_vector(shape, array.shape[1:]):
        raise WorkloadError(f"{key!r} has shape {array.shape}; this network needs {wanted('sample', shape)}")
    check_values(array, key)
    return array.reshape(len(array), 1, *shape)


def check_values(array: np.ndarray, key: str) -> None:
    """Refuse arrays that are empty or hold something that is no number."""
    if array.size == 0:
        raise WorkloadError(f"{key!r} is empty, shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise WorkloadError(f"{key!r} holds {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite")

"""Turns images into spikes: as random spikes, as one early or late spike, or as changes between frames.

Every encoder is a pure function of plain arrays; `encode_images` chooses by the setting `encoding` and checks
what the file holds. `direct` needs no encoder: the image itself enters at every timestep.
Source of `rate`, `latency`, `delta`: Eshraghian et al., "Training Spiking Neural Networks Using
Lessons From Deep Learning", Proceedings of the IEEE 111(9), 2023, section on input encoding.
"""

from __future__ import annotations

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.input_arrays import Arrays, check_values, image_frames, leading_axes, wanted
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Shape
from archsim.workload.npz import MAX_BYTES


def encode_images(
    arrays: Arrays, shape: Shape, settings: WorkloadSettings, timesteps: int | None, seed: int
) -> list[np.ndarray]:
    """Images of a file as spikes, and its calibration images where it has any.

    Args:
        arrays: `images` and optionally `calibration_images`, which count against the same full scale;
            (sample, channel, height, width), for `delta` sequences of them with steps behind the samples.
        shape: Input of the network, (channel, height, width).
        settings: `encoding`, not `direct`, with `encoding_max` and `delta_threshold`.
        timesteps: Length of `rate` and `latency`; `delta` is as long as its frames.
        seed: Seed of `rate`.

    Returns:
        Spikes of each, uint8, shape (sample, step, channel, height, width).

    Raises:
        WorkloadError: A shape does not fit, a value is negative where it cannot be, a length or the
            threshold is missing, or the signal falls and the network has no channel for it.
    """
    keys = [key for key in ("images", "calibration_images") if key in arrays]
    if settings.encoding == "delta":
        return [_changes(arrays[key], key, shape, settings.delta_threshold) for key in keys]
    images = [_bright_images(arrays[key], key, shape, settings.encoding) for key in keys]
    full_scale = settings.encoding_max or float(images[0].max()) or 1.0
    if timesteps is None:
        raise WorkloadError(f"encoding {settings.encoding!r} has no length of its own; give --timesteps")
    if settings.encoding == "latency":
        return [encode_latency(part, timesteps, full_scale) for part in images]
    return [encode_rate(part, timesteps, full_scale, seed, stream) for stream, part in enumerate(images)]


def encode_rate(images: np.ndarray, n_timesteps: int, full_scale: float, seed: int, stream: int = 0) -> np.ndarray:
    """Spike in each timestep with probability min(image / full_scale, 1), independently.

    Sample i is the same whatever the number of samples; the same seed gives the same spikes.

    Args:
        images: Values of at least 0, shape (sample, channel, height, width).
        n_timesteps: Timesteps to draw.
        full_scale: Image value that spikes in every timestep, above 0.
        seed: Seed of the draws.
        stream: Keeps the draws for different purposes of one seed apart.

    Returns:
        Spikes 0 or 1, uint8, shape (sample, step, channel, height, width).
    """
    _check_size(images.shape, n_timesteps)
    spikes = np.empty((len(images), n_timesteps, *images.shape[1:]), np.uint8)
    children = np.random.SeedSequence(seed, spawn_key=(stream,)).spawn(len(images))
    for sample, (image, child) in enumerate(zip(images, children, strict=True)):
        source, probability = np.random.default_rng(child), image / full_scale
        for step in range(n_timesteps):  # one step at a time: random numbers take eight times the memory of spikes
            spikes[sample, step] = source.random(image.shape) < probability
    return spikes


def encode_latency(images: np.ndarray, n_timesteps: int, full_scale: float) -> np.ndarray:
    """Spike once, the earlier the brighter; a value of zero never spikes.

        step = round((1 - min(image / full_scale, 1)) * (n_timesteps - 1)),   ties to even

    Args:
        images: Values of at least 0, shape (sample, channel, height, width).
        n_timesteps: Timesteps; the faintest values spike in the last one.
        full_scale: Image value that spikes at step 0, above 0.

    Returns:
        Spikes 0 or 1, uint8, shape (sample, step, channel, height, width).

    Source: linear latency code of the paper above, as snnTorch's `spikegen.latency` has it with
    linear and normalize set.
    """
    _check_size(images.shape, n_timesteps)
    spikes = np.zeros((len(images), n_timesteps, *images.shape[1:]), np.uint8)
    for image, out in zip(images, spikes, strict=True):
        late = 1.0 - np.minimum(image / full_scale, 1.0)
        steps = np.rint(late * (n_timesteps - 1)).astype(np.int64)
        np.put_along_axis(out, steps[None], (image > 0)[None], axis=0)
    return spikes


def encode_delta(frames: np.ndarray, threshold: float) -> np.ndarray:
    """Spike where the signal changed by at least a threshold since the frame before.

    The first frame has none before it and is silent. The comparison is exact in float64.

    Args:
        frames: Signal, shape (sample, step, channel, height, width).
        threshold: Smallest change that spikes, above 0, in the unit of the frames.

    Returns:
        1 where the signal rose, -1 where it fell, else 0; int8, the shape of the frames.

    Source: delta modulation of the paper above; snnTorch's `spikegen.delta` with padding and off_spike set.
    """
    _check_size(frames.shape, 1)
    changes = np.zeros(frames.shape, np.int8)
    for sample, out in zip(frames, changes, strict=True):
        for step in range(1, len(sample)):
            change = sample[step].astype(np.float64) - sample[step - 1]
            out[step] = (change >= threshold).astype(np.int8) - (change <= -threshold)
    return changes


def split_polarity(changes: np.ndarray) -> np.ndarray:
    """Signed spikes on two sets of channels: falls in the first, rises in the second, as event cameras count.

    Args:
        changes: -1, 0 or 1, shape (sample, step, channel, height, width).

    Returns:
        Spikes 0 or 1, uint8, shape (sample, step, 2 * channel, height, width).
    """
    return np.concatenate([changes < 0, changes > 0], axis=2).astype(np.uint8)


def _bright_images(array: np.ndarray, key: str, shape: Shape, encoding: str) -> np.ndarray:
    """Images without negative values, shape (sample, channel, height, width)."""
    images = image_frames(array, key, shape)[:, 0]
    if images.min() < 0:
        raise WorkloadError(f"{key!r} holds {images.min():g}; encoding {encoding!r} needs values of at least 0")
    return images


def _changes(array: np.ndarray, key: str, shape: Shape, threshold: float | None) -> np.ndarray:
    """Delta spikes of a sequence of frames, on as many channels as the network has or as half of them."""
    if threshold is None:
        raise WorkloadError("encoding 'delta' needs workload.delta_threshold, the smallest change that spikes")
    half = (shape[0] // 2, *shape[1:])
    n_leading, frame = leading_axes(array.shape, shape), shape
    if n_leading is None and shape[0] % 2 == 0:
        n_leading, frame = leading_axes(array.shape, half), half
    if n_leading is None:
        allowed = wanted("step", shape) + (f"; or {wanted('step', half)}" if shape[0] % 2 == 0 else "")
        raise WorkloadError(f"{key!r} has shape {array.shape}; encoding 'delta' needs {allowed}")
    check_values(array, key)
    changes = encode_delta(array.reshape(-1, array.shape[n_leading - 1], *frame), threshold)
    if frame == half:
        return split_polarity(changes)
    falls = np.argwhere(changes < 0)
    if falls.size:
        where = f"falls by at least {threshold:g} at step {falls[0, 1]} of sample {falls[0, 0]}"
        advice = f"falls need channels of their own, a network input of {2 * shape[0]} channels"
        raise WorkloadError(f"{key!r} {where}; {advice}")
    return changes.astype(np.uint8)


def _check_size(shape: tuple[int, ...], n_timesteps: int) -> None:
    n_values = int(np.prod(shape, dtype=np.float64)) * n_timesteps
    if n_values > MAX_BYTES:
        size = f"{' x '.join(map(str, shape))} values x {n_timesteps} timesteps"
        raise WorkloadError(f"{size} are more than {MAX_BYTES >> 30} GiB of spikes")

"""Turns images into spikes: as random spikes, as one early or late spike, or as changes between frames.

Every encoder is a pure function of plain arrays; `inputs.read_input` chooses by the setting
`encoding` and checks shapes. `direct` needs no encoder: the image itself enters at every timestep.
Source of `rate`, `latency`, `delta`: Eshraghian et al., "Training Spiking Neural Networks Using
Lessons From Deep Learning", Proceedings of the IEEE 111(9), 2023, section on input encoding.
"""

from __future__ import annotations

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.npz import MAX_BYTES


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


def _check_size(shape: tuple[int, ...], n_timesteps: int) -> None:
    n_values = int(np.prod(shape, dtype=np.float64)) * n_timesteps
    if n_values > MAX_BYTES:
        size = f"{' x '.join(map(str, shape))} values x {n_timesteps} timesteps"
        raise WorkloadError(f"{size} are more than {MAX_BYTES >> 30} GiB of spikes")

"""The folds of a layer on a systolic array, one by one: when they run, what they hold, which inputs are not zero.

Everything is a numpy array with one entry per fold and timestep, in the order in which the array runs them: phase,
column block, position block, depth block, timestep. A phase is a sample, or with timesteps outermost a
timestep of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.activity import LayerActivity
from archsim.errors import MappingError
from archsim.mapping import ArrayLayer


@dataclass(frozen=True)
class Folds:
    """Folds of a layer over a whole run."""

    shape: tuple[int, int, int, int, int]
    """Phases, column blocks, position blocks, depth blocks, timesteps that follow each other."""
    step: np.ndarray
    """Timestep."""
    sample: np.ndarray
    cols: np.ndarray
    """Filters."""
    positions: np.ndarray
    """Output positions."""
    depth: np.ndarray
    """Weights per filter."""
    depth_index: np.ndarray
    """Depth block; the last one completes the sums."""
    labels: np.ndarray
    """Number of the fold among all folds of all timesteps, as the event log counts."""
    nonzero: np.ndarray
    """Pairs of position and weight whose input is not zero, over all passes."""

    @property
    def number(self) -> int:
        """Folds over the run."""
        return len(self.step)

    @property
    def completes(self) -> np.ndarray:
        """Which folds complete sums, bool."""
        return self.depth_index == self.shape[3] - 1

    @property
    def phase(self) -> np.ndarray:
        """Phase of every fold."""
        return np.arange(self.number) // (self.number // self.shape[0])


def layer_folds(layer: ArrayLayer, values: LayerActivity, pass_bits: int, batched_steps: int) -> Folds:
    """All folds of a layer over a run.

    Args:
        layer: How it is cut.
        values: What it receives.
        pass_bits: Bits of an input that a PE takes at a time.
        batched_steps: Timesteps that follow each other in a fold.
    """
    n_samples, n_steps = values.inputs.shape[:2]
    n_phases = n_samples * n_steps // batched_steps
    shape = (n_phases, layer.n_col_blocks, layer.n_blocks, layer.n_depth_blocks, batched_steps)
    phase, col, block, deep, step = (index.ravel() for index in np.indices(shape))
    frame = phase * batched_steps + step
    fold = (col * layer.n_blocks + block) * layer.n_depth_blocks + deep
    counts = nonzero_inputs(layer, values, pass_bits)
    return Folds(
        shape,
        frame % n_steps,
        frame // n_steps,
        _sizes(layer.layer.out_channels, layer.cols)[col],
        _sizes(layer.positions, layer.block)[block],
        _sizes(layer.depth, layer.depth_block)[deep],
        deep,
        frame * layer.n_folds + fold,
        counts[frame, block, deep],
    )


def passes_of(values: LayerActivity, pass_bits: int) -> int:
    """Cycles that a PE takes for one input value."""
    return -(-values.input_bits // pass_bits)


def nonzero_inputs(layer: ArrayLayer, values: LayerActivity, pass_bits: int) -> np.ndarray:
    """Pairs of position and weight whose input is not zero, shape (frame, position block, depth block), int64.

    A value of several passes counts once for every pass in which any of its bits is set.
    """
    spec = layer.layer
    n_passes = passes_of(values, pass_bits)
    frames = values.inputs.reshape(-1, *spec.in_shape).astype(np.int64)
    is_set = np.zeros(frames.shape, np.int64)
    for number in range(n_passes):
        is_set += (frames >> (number * pass_bits)) & ((1 << pass_bits) - 1) != 0
    margin = [(0, 0), (0, 0), *((size, size) for size in spec.padding)]
    is_set = np.pad(is_set, margin)
    _, height, width = spec.conv_shape
    starts = np.arange(0, layer.positions, layer.block)
    by_weight = []
    for y in range(spec.kernel[0]):
        for x in range(spec.kernel[1]):
            rows = slice(y, y + spec.stride[0] * (height - 1) + 1, spec.stride[0])
            cols = slice(x, x + spec.stride[1] * (width - 1) + 1, spec.stride[1])
            seen = is_set[:, :, rows, cols].reshape(*is_set.shape[:2], -1)
            by_weight.append(np.add.reduceat(seen, starts, axis=2))
    in_order = np.concatenate(by_weight, axis=1)  # (frame, weight: y, x, channel; position block)
    in_blocks = np.add.reduceat(in_order, np.arange(0, layer.depth, layer.depth_block), axis=1)
    return in_blocks.swapaxes(1, 2)


@dataclass(frozen=True)
class Tiles:
    """What DRAM brings for folds: bits of every tile, and the first and the last fold that needs it."""

    bits: np.ndarray
    first: np.ndarray
    last: np.ndarray
    pass_number: np.ndarray
    """Which run through the data the tile belongs to: tiles of one are neighbours in DRAM."""


def weight_tiles(folds: Folds, layer: ArrayLayer, weight_bits: int) -> Tiles:
    """The weights of a column block, for every phase."""
    n_phases, n_cols = folds.shape[:2]
    per_tile = folds.number // (n_phases * n_cols)
    first = np.arange(n_phases * n_cols) * per_tile
    return Tiles(
        layer.depth * folds.cols[first] * weight_bits,
        first,
        first + per_tile - 1,
        np.repeat(np.arange(n_phases), n_cols),
    )


def input_tiles(folds: Folds, layer: ArrayLayer, value_bits: int, capacity_bits: int) -> Tiles:
    """Input rows that a position block needs and the one before did not, of all timesteps that follow each other.

    A map that fits in the buffer is brought once per phase, others once for every column block.
    """
    n_phases, n_cols, n_blocks, n_deep, n_steps = folds.shape
    low, high = _input_rows(layer)
    channels, _, width = layer.layer.in_shape
    row_bits = channels * width * value_bits * n_steps
    begin = np.maximum(low, np.concatenate([[0], high[:-1]]))
    n_rows = np.maximum(high - begin, 0)
    new = np.flatnonzero(n_rows)
    last_block = np.searchsorted(low, high[new] - 1, side="right") - 1
    is_kept = int(n_rows.sum()) * row_bits <= capacity_bits
    n_passes = n_phases if is_kept else n_phases * n_cols
    inner = n_deep * n_steps
    per_pass = folds.number // n_passes
    base = (np.arange(n_passes) * per_pass)[:, None]
    until = (n_cols - 1) * n_blocks if is_kept else 0
    return Tiles(
        np.tile(n_rows[new] * row_bits, n_passes),
        (base + new * inner).ravel(),
        (base + (until + last_block + 1) * inner - 1).ravel(),
        np.repeat(np.arange(n_passes), len(new)),
    )


def _input_rows(layer: ArrayLayer) -> tuple[np.ndarray, np.ndarray]:
    """First input row of every position block, and the one behind its last."""
    spec = layer.layer
    _, width = spec.conv_shape[1:]
    first = np.arange(0, layer.positions, layer.block)
    last = np.minimum(first + layer.block, layer.positions) - 1
    low = np.maximum(first // width * spec.stride[0] - spec.padding[0], 0)
    high = np.minimum(last // width * spec.stride[0] - spec.padding[0] + spec.kernel[0], spec.in_shape[1])
    return low, np.maximum.accumulate(np.maximum(high, low))


def fetch_positions(tiles: Tiles, folds: Folds, capacity_bits: int, name: str, what: str) -> np.ndarray:
    """Line-buffer position of every tile: its fetch may begin once as many folds are over as it lies behind the last.

    A tile is fetched while the one before it is in use, into room that earlier tiles have left.

    Args:
        tiles: What is fetched.
        folds: Folds over the run; their number is the capacity of the line buffer.
        capacity_bits: Bits that the buffer holds.
        name: Layer, for the message.
        what: Key of the buffer and what it must hold, for the message.

    Raises:
        MappingError: What a fold needs at once does not fit.
    """
    n_steps = folds.shape[4]
    held = np.cumsum(tiles.bits)
    kept_from = np.searchsorted(held, held - capacity_bits, side="left")  # tiles from here on fit together
    kept_from = np.where(held <= capacity_bits, 0, kept_from + 1)
    freed = np.concatenate([[0], np.maximum.accumulate(tiles.last) + 1])[kept_from]
    short = np.flatnonzero(freed > tiles.first)
    if len(short):
        advice = ", or lower mapping.batch_timesteps" if n_steps > 1 else ""
        worst = max(_bits_in_use(tiles, int(number)) for number in short)
        raise MappingError(
            f"layer '{name}' needs {worst} bits of {what} at once, which holds {capacity_bits}. "
            f"Raise it to {-(-worst // 8192)} KiB at least{advice}."
        )
    in_use = np.concatenate([[0], tiles.first[:-1]])
    needed = np.maximum(freed, in_use)
    return np.where(needed > 0, folds.number + needed - 1, 0)


def _bits_in_use(tiles: Tiles, number: int) -> int:
    """Bits of a tile and of all earlier ones that its first fold still needs."""
    in_use = tiles.last[: number + 1] >= tiles.first[number]
    return int(tiles.bits[: number + 1][in_use].sum())


def _sizes(total: int, block: int) -> np.ndarray:
    """Sizes of the blocks that a total is cut into, int64."""
    starts = np.arange(0, total, block)
    return np.minimum(block, total - starts)

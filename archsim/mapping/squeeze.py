"""What pruning left empty is squeezed out of crossbars: empty rows of a column block, or empty columns of a PE.

Rows: a row is one input value of the unrolled kernel; every column block gets crossbars of only the rows that it uses.
Which rows a crossbar holds is then no longer a range, so each PE keeps an index table: for every row in use, which
value of the window drives it.

Columns: the crossbars of a PE share their columns (they share bit lines, or the codes of equal columns are added), so
the band of rows over which a column may be empty is what the PE holds. Each PE packs the columns in use to the
left. A column block grows until some band fills the columns of its crossbars, and has no PE for a band without any.
Where the sums of a PE belong is no longer their order, so the accumulator of the column block keeps an index table
per PE: for every column in use, which output of the block it adds to.

Source: the squeeze of crossbar-aware pruned layers with row (XRS) and column (XCS) sparsity of Bhattacharjee et al.,
DATE 2022 (arXiv 2201.05229); index tables after its description. Their places and the growth are assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from archsim.hardware.models import Hardware
from archsim.mapping.model import CrossbarRows, LayerMapping, PePlace, Segment
from archsim.units import bits_for
from archsim.workload.network import Layer

RowBlocks = tuple[tuple[CrossbarRows, ...], ...]
"""Crossbars of every row block."""
ColBlocks = tuple[tuple[int, int], ...]
"""Output channels of every column block: (first, last + 1)."""
Outputs = Mapping[tuple[int, int], tuple[int, ...]]
"""Output channels with columns in a PE, by its row block and column block."""


def squeezed_rows(hardware: Hardware, layer: Layer, col_blocks: ColBlocks) -> tuple[RowBlocks, list[list[int]]]:
    """Row blocks of a layer, each of one column block, and which of them feed every column block.

    Rows are unrolled kernel position by position; one is empty where its weights to all channels of the column
    block are zero. A column block without any weight keeps its first row.
    """
    weights = _weights(layer)
    size, per_pe = hardware.tile.pe.crossbar.rows, hardware.tile.pe.crossbars
    blocks: list[tuple[CrossbarRows, ...]] = []
    feeding = []
    for first, last in col_blocks:
        used = np.moveaxis(weights[first:last] != 0, 1, -1).any(0)
        used[0, 0, 0] |= not used.any()
        rows = [(y, x, int(c)) for y, x in product(*map(range, layer.kernel)) for c in np.flatnonzero(used[y, x])]
        crossbars = [_segments(rows[start : start + size]) for start in range(0, len(rows), size)]
        parts = [tuple(crossbars[start : start + per_pe]) for start in range(0, len(crossbars), per_pe)]
        feeding.append(list(range(len(blocks), len(blocks) + len(parts))))
        blocks += parts
    return tuple(blocks), feeding


def fed_outputs(layer: Layer, rows: RowBlocks) -> np.ndarray:
    """Which output channels every row block feeds with any weight, bool, shape (row_block, out_channel)."""
    weights = _weights(layer)
    fed = np.zeros((len(rows), layer.out_channels), bool)
    for index, block in enumerate(rows):
        for y, x, first, last in (segment for crossbar in block for segment in crossbar):
            fed[index] |= (weights[:, first:last, y, x] != 0).any(1)
    return fed


def extended_blocks(fed: np.ndarray, width: int, n_shared: int) -> ColBlocks:
    """Column blocks that are as wide as the fullest band allows.

    Args:
        fed: Which output channels every band feeds, bool, shape (band, out_channel).
        width: Output channels that the columns of a crossbar hold.
        n_shared: Channels that share a neuron unit, and therefore a column block; `width` at most.
    """
    blocks, first, filled = [], 0, np.zeros(len(fed), np.int64)
    for start in range(0, fed.shape[1], n_shared):
        more = fed[:, start : start + n_shared].sum(1)
        if (filled + more > width).any():
            blocks.append((first, start))
            first, filled = start, np.zeros_like(filled)
        filled = filled + more
    return (*blocks, (first, fed.shape[1]))


def blocks_in_use(rows: RowBlocks, cols: ColBlocks, fed: np.ndarray) -> tuple[RowBlocks, list[list[int]], Outputs]:
    """Row blocks that feed any column block, which feed each one, and the output channels that they feed there.

    A column block without any weight keeps the first column of the first row block.
    """
    fed = fed.copy()
    for first, last in cols:
        fed[0, first] |= not fed[:, first:last].any()
    kept = np.flatnonzero(fed.any(1))
    outputs = {
        (row, col): tuple(int(channel) for channel in first + np.flatnonzero(fed[band, first:last]))
        for row, band in enumerate(kept)
        for col, (first, last) in enumerate(cols)
        if fed[band, first:last].any()
    }
    feeding = [[row for row in range(len(kept)) if (row, col) in outputs] for col in range(len(cols))]
    return tuple(rows[band] for band in kept), feeding, outputs


def table_bits(layer: LayerMapping, pe: PePlace) -> int:
    """Bits of the index table of a PE: an input of the window per row, an output of the block per column.

    0 where nothing is squeezed. Bias rows need no index.
    """
    if layer.squeeze == "columns":
        first, last = layer.col_blocks[pe.col_block]
        return layer.width_of(pe) * bits_for(last - first - 1)
    if layer.squeeze == "none":
        return 0
    channels, height, width = layer.n_channels, *layer.layer.kernel
    rows = sum(
        last - first for held in layer.row_blocks[pe.row_block] for _, _, first, last in held if first < channels
    )
    return rows * bits_for(channels * height * width - 1)


def _weights(layer: Layer) -> np.ndarray:
    weights = layer.full_weights
    assert weights is not None, "checked by check_combinations"
    return weights


def _segments(rows: list[tuple[int, int, int]]) -> CrossbarRows:
    """Rows as (kernel_y, kernel_x, channel), neighbours put together."""
    segments: list[Segment] = []
    for y, x, channel in rows:
        if segments and segments[-1][:2] == (y, x) and segments[-1][3] == channel:
            segments[-1] = (y, x, segments[-1][2], channel + 1)
        else:
            segments.append((y, x, channel, channel + 1))
    return tuple(segments)

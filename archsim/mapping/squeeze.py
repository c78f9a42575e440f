"""What pruning left empty is squeezed out of crossbars: empty rows of a column block, or empty columns of a PE.

Rows: a row is one input value of the unrolled kernel; every column block gets crossbars of only the rows that it uses.
Which rows a crossbar holds is then no longer a range, so each PE keeps an index table: for every row in use, which
value of the window drives it.

Columns: the crossbars of a PE share their columns (they share bit lines, or the codes of equal columns are added), so
the band of rows over which a column may be empty is what the PE holds. Each PE packs the columns in use to the
left. Column blocks become so wide that few PEs are needed; they have none for a band without columns in use, and
several where these fill more than one. Where the sums of a PE belong is no longer their order, so the accumulator of
the column block keeps an index table per PE: for every column in use, which output of the block it adds to.

Source: the squeeze of crossbar-aware pruned layers with row (XRS) and column (XCS) sparsity of Bhattacharjee et al.,
DATE 2022 (arXiv 2201.05229); index tables after its description. Where these are and how wide column blocks become
are assumptions.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np

from archsim.hardware.models import Hardware
from archsim.mapping.model import CrossbarRows, LayerMapping, Mapping, PePlace, Segment
from archsim.units import bits_for
from archsim.workload.network import Layer

RowBlocks = tuple[tuple[CrossbarRows, ...], ...]
"""Crossbars of every row block."""
ColBlocks = tuple[tuple[int, int], ...]
"""Output channels of every column block: (first, last + 1)."""
Outputs = dict[tuple[int, int], tuple[int, ...]]
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


def fewest_pes(fed: np.ndarray, width: int, n_shared: int, in_one_pe: bool = False) -> ColBlocks:
    """Column blocks whose bands take fewest PEs, found by dynamic programming; among equals, wide ones at the end.

    No block has more columns than one that is not squeezed, a full crossbar in every band: its accumulator
    would have more to add.

    Args:
        fed: Which output channels every band feeds, bool, shape (band, out_channel).
        width: Output channels that the columns of a crossbar hold.
        n_shared: Channels that share a neuron unit, and therefore a column block; `width` at most.
        in_one_pe: Whether the columns of a band must fit in one PE, as where they share a reference column.
    """
    n_bands, n_outputs = fed.shape
    ends = np.minimum(np.arange(0, n_outputs + n_shared, n_shared), n_outputs)
    before = np.pad(fed.cumsum(1).T, ((1, 0), (0, 0)))[ends]
    total = before.sum(1)
    n_pes, start = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    for end in range(1, len(ends)):
        first = min(int(np.searchsorted(total, total[end] - n_bands * width)), end - 1)
        by_band = -(-(before[end] - before[first:end]) // width)
        first += int((by_band.max(1) > 1).sum()) if in_one_pe else 0
        here = np.maximum(by_band.sum(1), 1)[first - end :]
        best = int(np.argmin(n_pes[first:end] + here))
        start[end], n_pes[end] = first + best, n_pes[first + best] + here[best]
    blocks, end = [], len(ends) - 1
    while end:
        blocks.append((int(ends[start[end]]), int(ends[end])))
        end = int(start[end])
    return tuple(reversed(blocks))


def packed_columns(rows: RowBlocks, cols: ColBlocks, fed: np.ndarray, width: int) -> tuple[RowBlocks, Outputs]:
    """Row blocks that feed any column block, and the output channels that each of them feeds there.

    A row block comes once more where its columns fill more than one PE. A column block without any weight keeps the
    first column of the first row block.
    """
    fed = fed.copy()
    for first, last in cols:
        fed[0, first] |= not fed[:, first:last].any()
    kept: list[tuple[CrossbarRows, ...]] = []
    outputs: Outputs = {}
    for band, block in enumerate(rows):
        used = [[first + int(channel) for channel in np.flatnonzero(fed[band, first:last])] for first, last in cols]
        for start in range(0, max(map(len, used)), width):
            outputs |= {
                (len(kept), col): tuple(channels[start : start + width])
                for col, channels in enumerate(used)
                if len(channels) > start
            }
            kept.append(block)
    return tuple(kept), outputs


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


def index_tables(mapping: Mapping) -> dict[str, int]:
    """Bits of index tables by path, the most that any round needs: of rows in the PE, of columns in the home tile."""
    bits: dict[tuple[str, int], int] = defaultdict(int)
    for view in [view for layer in mapping.layers if layer.squeeze != "none" for view in layer.views]:
        for pe in view.pes:
            holder = pe.path if view.squeeze == "rows" else f"tile{view.home_tile(pe.col_block)}"
            bits[f"{holder}.index_table", pe.round] += table_bits(view, pe)
    found: dict[str, int] = {}
    for (path, _), size in bits.items():
        found[path] = max(found.get(path, 0), size)
    return found


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

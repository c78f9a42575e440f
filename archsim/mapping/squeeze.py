"""Rows that pruning left empty are squeezed out: every column block gets crossbars of only the rows that it uses.

A row is one input value of the unrolled kernel. Which rows a crossbar holds is then no longer a range, so each
PE keeps an index table: for every row in use, which value of the window drives it.

Source: the squeeze of crossbar-aware pruned layers with row sparsity (XRS) of Bhattacharjee et al., DATE 2022
(arXiv 2201.05229); index tables after its description, their place in the PE is an assumption.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from archsim.hardware.models import Hardware
from archsim.mapping.model import CrossbarRows, LayerMapping, Segment
from archsim.units import bits_for
from archsim.workload.network import Layer


def squeezed_rows(
    hardware: Hardware, layer: Layer, col_blocks: tuple[tuple[int, int], ...]
) -> tuple[tuple[tuple[CrossbarRows, ...], ...], list[list[int]]]:
    """Row blocks of a layer, each of one column block, and which of them feed every column block.

    Rows are unrolled kernel position by position; one is empty where its weights to all channels of the column
    block are zero. A column block without any weight keeps its first row.
    """
    weights = layer.full_weights
    assert weights is not None, "checked by check_combinations"
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


def table_bits(layer: LayerMapping, row_block: int) -> int:
    """Bits of the index table of a PE that holds a row block; 0 where rows are ranges. Bias rows need no index."""
    if not layer.is_squeezed:
        return 0
    channels, height, width = layer.n_channels, *layer.layer.kernel
    rows = sum(last - first for held in layer.row_blocks[row_block] for _, _, first, last in held if first < channels)
    return rows * bits_for(channels * height * width - 1)


def _segments(rows: list[tuple[int, int, int]]) -> CrossbarRows:
    """Rows as (kernel_y, kernel_x, channel), neighbours put together."""
    segments: list[Segment] = []
    for y, x, channel in rows:
        if segments and segments[-1][:2] == (y, x) and segments[-1][3] == channel:
            segments[-1] = (y, x, segments[-1][2], channel + 1)
        else:
            segments.append((y, x, channel, channel + 1))
    return tuple(segments)

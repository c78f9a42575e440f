"""Where biases go that are stored in cells: one more row, always driven, in a row block of every column block.

A bias row is a segment whose channel lies behind the layer's input channels: the first such row is
channel C of C input channels, the next one (channel groups may need several) C + 1. The biases of
a column block are in the bias row of its lowest-numbered row block that has one.
"""

from __future__ import annotations

from archsim.hardware.models import Hardware
from archsim.mapping.model import CrossbarRows, Segment
from archsim.workload.network import Layer

Blocks = list[list[CrossbarRows]]


def add_bias_rows(
    hardware: Hardware, layer: Layer, row_blocks: tuple[tuple[CrossbarRows, ...], ...], feeding: list[list[int]]
) -> tuple[tuple[tuple[CrossbarRows, ...], ...], list[list[int]]]:
    """Give every column block a bias row.

    It takes a free row of a crossbar; where there is none, a crossbar more of a PE; where all PEs are full, a PE
    of its own, which is then a further row block.

    Args:
        hardware: The chip.
        layer: The layer with biases, as its rows see it.
        row_blocks: Its crossbars, by row block.
        feeding: Row blocks of every column block.

    Returns:
        Row blocks and what feeds every column block, bias rows included.
    """
    blocks = [list(block) for block in row_blocks]
    holders: set[int] = set()
    extra: int | None = None
    fed: list[list[int]] = []
    for feeders in feeding:
        if not holders & set(feeders):
            channel = layer.in_shape[0] + len(holders)
            if _add_to_any(hardware, blocks, feeders, channel, holders) is None:
                if extra is None:
                    extra = len(blocks)
                    blocks.append([((0, 0, channel, channel + 1),)])
                    holders.add(extra)
                feeders = [*feeders, extra]
        fed.append(feeders)
    return tuple(tuple(block) for block in blocks), fed


def _add_to_any(hardware: Hardware, blocks: Blocks, feeders: list[int], channel: int, holders: set[int]) -> int | None:
    """Add a bias row to one of the feeding row blocks; returns which, or None if all are full."""
    pe = hardware.tile.pe
    for index in feeders:
        for number, rows in enumerate(blocks[index]):
            if sum(last - first for _, _, first, last in rows) < pe.crossbar.rows:
                blocks[index][number] = (*rows, _beside(rows[0], channel))
                holders.add(index)
                return index
    for index in feeders:
        if len(blocks[index]) < pe.crossbars:
            blocks[index].append((_beside(blocks[index][0][0], channel),))
            holders.add(index)
            return index
    return None


def _beside(segment: Segment, channel: int) -> Segment:
    """A bias row at the kernel position of other rows."""
    return (segment[0], segment[1], channel, channel + 1)

"""Cuts every layer into crossbars: row blocks, which are the rows of a PE, and column blocks of output channels.

Layout `kernel_position` (SpikeSim, arXiv 2210.12899): one crossbar per kernel position and block
of input channels; a PE holds the kernel positions of one channel block, and further whole channel
blocks as long as they fit (so a fully connected layer fills its PEs). Only a kernel with more
positions than the PE has crossbars spans several PEs. Layout `dense` (ISAAC, ISCA 2016): the kernel
is unrolled to one long column of rows, which fills crossbar after crossbar. What pruning left empty
need not be there: see `squeeze`, which unrolls layers like the dense layout. Entry: `cut_layers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from archsim.hardware.models import Hardware
from archsim.mapping.bias import add_bias_rows
from archsim.mapping.model import CrossbarRows, Segment, Squeeze
from archsim.mapping.rules import channels_per_crossbar, has_bias_row, is_digital, over_map, streamed_map
from archsim.mapping.squeeze import (
    ColBlocks,
    Outputs,
    RowBlocks,
    fed_outputs,
    fewest_pes,
    packed_columns,
    squeezed_rows,
)
from archsim.workload.network import Layer, Network, Shape


@dataclass(frozen=True)
class Cut:
    """A layer in crossbars, before PEs and tiles are assigned."""

    layer: Layer
    rows: RowBlocks
    cols: ColBlocks
    feeding: list[list[int]]
    """Row blocks that feed each column block."""
    squeeze: Squeeze
    streamed_map: Shape | None
    outputs: Outputs = field(default_factory=dict)
    """Output channels of a row block and column block, where those that it does not feed are left out."""


def cut_layers(hardware: Hardware, network: Network) -> dict[str, Cut]:
    """Every layer on crossbars by name."""
    layers = [layer for layer in network.layers if not is_digital(hardware.mapping, layer)]
    if hardware.mapping.squeeze != "columns":
        return {layer.name: _cut(hardware, network, layer) for layer in layers}
    return _cut_columns(hardware, network, layers)


def _cut(hardware: Hardware, network: Network, layer: Layer) -> Cut:
    """A layer whose columns are all there."""
    shape = streamed_map(hardware.mapping, network, layer)
    on_rows, cols = _on_rows(layer, shape), col_blocks(hardware, layer)
    squeeze: Squeeze = "rows" if hardware.mapping.squeeze == "rows" and layer.kind != "product" else "none"
    if squeeze == "rows":
        rows, feeding = squeezed_rows(hardware, on_rows, cols)
    else:
        rows = row_blocks(hardware, on_rows, shape is not None)
        feeding = [_feeding(on_rows, rows, block) for block in cols]
    if has_bias_row(hardware.mapping, layer):
        rows, feeding = add_bias_rows(hardware, on_rows, rows, feeding)
    return Cut(layer, rows, cols, feeding, squeeze, shape)


def _cut_columns(hardware: Hardware, network: Network, layers: list[Layer]) -> dict[str, Cut]:
    """Layers without the columns that they do not use.

    Layers whose sums are added have the same column blocks, so that their accumulators meet; next to one that
    does not hold weights in cells these are as wide as a crossbar.
    """
    cuts, fed = {}, {}
    for layer in layers:
        cuts[layer.name] = _cut(hardware, network, layer)
        if layer.kind != "product":
            cut = cuts[layer.name]
            fed[layer.name] = fed_outputs(_on_rows(layer, cut.streamed_map), cut.rows)
    for name, used in fed.items():
        cut, together = cuts[name], joined(network, name)
        cols, width = cut.cols, channels_per_crossbar(hardware, cut.layer)
        if together <= fed.keys():
            bands = np.concatenate([fed[other] for other in sorted(together)])
            has_reference = hardware.reference_cols > 0
            cols = fewest_pes(bands, width, hardware.chip.neuron.shared_channels, has_reference)
        rows, outputs = packed_columns(cut.rows, cols, used, width)
        feeding = [[row for row in range(len(rows)) if (row, col) in outputs] for col in range(len(cols))]
        cuts[name] = replace(cut, rows=rows, cols=cols, feeding=feeding, outputs=outputs, squeeze="columns")
    return cuts


def joined(network: Network, name: str) -> set[str]:
    """The layer of this name and all whose sums are added to its own, or to theirs."""
    found, fresh = {name}, [name]
    while fresh:
        layer = fresh.pop()
        beside = {other.name for other in network.layers if layer in other.adds} | set(network.layer(layer).adds)
        fresh += beside - found
        found |= beside
    return found


def _on_rows(layer: Layer, shape: Shape | None) -> Layer:
    """A layer as its rows see it; `shape` is the map of a streamed one."""
    return layer if shape is None else over_map(layer, shape)


def row_blocks(hardware: Hardware, layer: Layer, is_streamed: bool) -> RowBlocks:
    """Crossbars of one column block, grouped by the PE that holds them; bias rows come later.

    `layer` is the layer as its rows see it. The map of a streamed layer is unrolled with either layout.
    """
    per_pe = hardware.tile.pe.crossbars
    if hardware.mapping.layout == "dense" or hardware.mapping.squeeze == "columns" or is_streamed:
        crossbars = _dense_crossbars(hardware, layer)
        return tuple(tuple(crossbars[first : first + per_pe]) for first in range(0, len(crossbars), per_pe))
    rows, channels = hardware.tile.pe.crossbar.rows, layer.in_shape[0]
    spans = [(first, min(first + rows, channels)) for first in range(0, channels, rows)]
    kernel = _kernel_positions(layer)
    if len(kernel) > per_pe:
        parts = [kernel[first : first + per_pe] for first in range(0, len(kernel), per_pe)]
        return tuple(tuple(((*position, *span),) for position in part) for span in spans for part in parts)
    spans_per_pe = per_pe // len(kernel)
    return tuple(
        tuple(((*position, *span),) for span in spans[first : first + spans_per_pe] for position in kernel)
        for first in range(0, len(spans), spans_per_pe)
    )


def _dense_crossbars(hardware: Hardware, layer: Layer) -> list[CrossbarRows]:
    """The unrolled rows, channel group by group and kernel position by position, cut wherever a crossbar is full."""
    free = size = hardware.tile.pe.crossbar.rows
    per_group = layer.in_shape[0] // layer.groups
    crossbars: list[list[Segment]] = [[]]
    for group, position in product(range(layer.groups), _kernel_positions(layer)):
        first, end = group * per_group, (group + 1) * per_group
        while first < end:
            if free == 0:
                crossbars.append([])
                free = size
            last = min(first + free, end)
            crossbars[-1].append((*position, first, last))
            free -= last - first
            first = last
    return [tuple(segments) for segments in crossbars]


def _kernel_positions(layer: Layer) -> list[tuple[int, int]]:
    return list(product(range(layer.kernel[0]), range(layer.kernel[1])))


def col_blocks(hardware: Hardware, layer: Layer) -> ColBlocks:
    """Output channels of each column block; channels that share neuron units stay together."""
    width = channels_per_crossbar(hardware, layer) // hardware.chip.neuron.shared_channels
    width *= hardware.chip.neuron.shared_channels
    return tuple((first, min(first + width, layer.out_channels)) for first in range(0, layer.out_channels, width))


def _feeding(layer: Layer, rows: RowBlocks, col_block: tuple[int, int]) -> list[int]:
    """Row blocks that feed a column block: all of them unless channel groups keep them apart."""

    def feeds(block: tuple[CrossbarRows, ...]) -> bool:
        return any(layer.connects((first, last), col_block) for rows in block for _, _, first, last in rows)

    return [index for index, block in enumerate(rows) if feeds(block)]

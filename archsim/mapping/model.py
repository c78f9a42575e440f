"""The result of mapping, as frozen data: what a crossbar holds and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from archsim.hardware.models import Hardware
from archsim.mapping.rules import cols_per_value, over_map
from archsim.workload.network import Layer, Network, Shape

Segment = tuple[int, int, int, int]
"""Neighbouring rows of a crossbar: (kernel_y, kernel_x, first input channel, last input channel + 1).
Channels behind the layer's last are bias rows, which are always driven."""
CrossbarRows = tuple[Segment, ...]
"""Rows of one crossbar, in order; one segment of inputs with the kernel-position layout, several with the dense one."""
Squeeze = Literal["none", "rows", "columns"]
"""What is left out of crossbars because pruning left it empty; see `squeeze`."""
Unit = Literal["pe", "mac", "product_unit"]
"""What computes: crossbars of a PE, a digital MAC unit (weights), a digital product unit (no weights)."""


def positions_of(rows: CrossbarRows) -> set[tuple[int, int]]:
    """Kernel positions, or positions of a streamed map, that a crossbar has rows of."""
    return {(y, x) for y, x, _, _ in rows}


@dataclass(frozen=True)
class PePlace:
    """One PE: the crossbars of one row block, with the columns of one column block; or a digital unit."""

    row_block: int
    col_block: int
    tile: int
    pe: int
    copy: int = 0
    unit: Unit = "pe"
    round: int = 0
    """When it is this PE's turn to hold these weights, where several share it in time (mapping.overflow: reload)."""
    outputs: tuple[int, ...] | None = None
    """Output channels that have columns here, in their order; None for all of the column block."""

    @property
    def path(self) -> str:
        """Name used in logs, tables and messages."""
        return f"tile{self.tile}.{self.unit}{self.pe}"


@dataclass(frozen=True)
class LayerMapping:
    """One layer cut into row blocks (inputs of a PE) and column blocks (outputs of a PE)."""

    layer: Layer
    row_blocks: tuple[tuple[CrossbarRows, ...], ...]
    col_blocks: tuple[tuple[int, int], ...]
    """Output channels of each column block: (first, last + 1)."""
    pes: tuple[PePlace, ...]
    """Ordered by copy, column block, row block; blocks that channel groups keep apart have no PE. A digital layer has
    one row block without crossbars, and a MAC unit per column block."""
    n_copies: int = 1
    """Copies of the layer: copy j serves the output positions whose number modulo n_copies is j."""
    copy: int = 0
    """Which copy this is, where it is one of `views`."""
    squeeze: Squeeze = "none"
    """`rows`: each column block has row blocks of its own, without the rows that it does not use; `columns`: each PE
    has the columns of those output channels only that its rows feed."""
    streamed_map: Shape | None = None
    """Map whose positions a fully connected layer takes one by one; its rows are then ordered by position, channels
    within, and a segment's kernel position is a position of the map. None where a frame is read at once."""

    @cached_property
    def views(self) -> tuple[LayerMapping, ...]:
        """The copies, round by round, each with its own PEs only."""
        parts = sorted({(pe.round, pe.copy) for pe in self.pes})
        return tuple(
            replace(self, pes=tuple(pe for pe in self.pes if (pe.round, pe.copy) == part), copy=part[1])
            for part in parts
        )

    @cached_property
    def rounds(self) -> tuple[int, ...]:
        """Rounds in which the layer has PEs, ascending."""
        return tuple(sorted({pe.round for pe in self.pes}))

    def in_round(self, number: int) -> LayerMapping:
        """The layer with its PEs of one round only."""
        return replace(self, pes=tuple(pe for pe in self.pes if pe.round == number))

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Column blocks that have PEs; all of them unless this is the layer in one of several rounds."""
        return tuple(sorted({pe.col_block for pe in self.pes}))

    @property
    def is_digital(self) -> bool:
        """Whether MAC units or a product unit compute the layer instead of crossbars."""
        return self.pes[0].unit != "pe"

    @property
    def has_weights_in_cells(self) -> bool:
        """Whether crossbars hold weights of the layer, not an operand that is computed."""
        return not self.is_digital and self.layer.kind != "product"

    @property
    def n_pes(self) -> int:
        """PEs that hold weights of the layer."""
        return 0 if self.is_digital else len(self.pes)

    @property
    def row_layer(self) -> Layer:
        """The layer as its rows see it: a streamed one as a convolution with a kernel of the map's size."""
        return self.layer if self.streamed_map is None else over_map(self.layer, self.streamed_map)

    @property
    def n_channels(self) -> int:
        """Input channels that segments count; those behind them are bias rows."""
        return (self.streamed_map or self.layer.in_shape)[0]

    @property
    def n_bias_rows(self) -> int:
        """Bias rows, in different row blocks; 0 where biases are added digitally."""
        segments = (segment for block in self.row_blocks for rows in block for segment in rows)
        return sum(first >= self.n_channels for _, _, first, _ in segments)

    def n_reads(self, row_block: int) -> int:
        """Reads of a row block's crossbars per output position and input bit: one, or one per streamed position."""
        return sum(1 if self.streamed_map is None else len(positions_of(rows)) for rows in self.row_blocks[row_block])

    @property
    def n_stored(self) -> int:
        """Weights and biases, or values of an operand, that cells of one copy hold."""
        if self.is_digital:
            return 0
        if self.squeeze != "none":
            rows = [sum(last - first for held in block for _, _, first, last in held) for block in self.row_blocks]
            return sum(rows[pe.row_block] * self.width_of(pe) for pe in self.pes if pe.copy == self.pes[0].copy)
        return self.layer.n_synapses + (self.layer.out_channels if self.n_bias_rows else 0)

    @property
    def n_crossbars(self) -> int:
        """Crossbars that hold weights of the layer."""
        return sum(len(self.row_blocks[pe.row_block]) for pe in self.pes)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles that the layer occupies, ascending."""
        return tuple(sorted({pe.tile for pe in self.pes}))

    def outputs_of(self, pe: PePlace) -> Sequence[int]:
        """Output channels that a PE delivers sums of, in the order of its columns."""
        return range(*self.col_blocks[pe.col_block]) if pe.outputs is None else pe.outputs

    def width_of(self, pe: PePlace) -> int:
        """Output channels that a PE delivers sums of."""
        return len(self.outputs_of(pe))

    def home_tile(self, col_block: int) -> int:
        """Tile that accumulates a column block and holds its neurons."""
        return self.pes_of(col_block)[0].tile

    def pes_of(self, col_block: int) -> tuple[PePlace, ...]:
        """The PEs of a column block, one per row block that feeds it."""
        return self._pes_by_block[col_block]

    @cached_property
    def _pes_by_block(self) -> dict[int, tuple[PePlace, ...]]:
        found: dict[int, list[PePlace]] = {}
        for pe in self.pes:
            found.setdefault(pe.col_block, []).append(pe)
        return {block: tuple(pes) for block, pes in found.items()}


@dataclass(frozen=True)
class Mapping:
    """A network on a chip."""

    hardware: Hardware
    network: Network
    layers: tuple[LayerMapping, ...]
    n_tiles: int
    """Tiles on the chip, used or not."""
    mesh_width: int
    mesh_height: int
    nodes: tuple[int, ...]
    """Mesh node of every tile, counted row by row."""
    has_static_input: bool = False
    """Whether the workload is known to have the same input at every timestep; asked for digital first layers only."""

    @property
    def n_rounds(self) -> int:
        """Turns in which the layers use the tiles; 1 where the chip holds all weights."""
        return 1 + max(layer.rounds[-1] for layer in self.layers)

    @property
    def n_crossbars(self) -> int:
        """Crossbars that hold weights, in any round."""
        most: dict[str, int] = {}
        for layer in self.layers:
            for pe in layer.pes:
                most[pe.path] = max(most.get(pe.path, 0), len(layer.row_blocks[pe.row_block]))
        return sum(most.values())

    @property
    def n_pes(self) -> int:
        """PEs that hold weights, in any round."""
        return len({pe.path for layer in self.layers if not layer.is_digital for pe in layer.pes})

    @property
    def n_tiles_used(self) -> int:
        """Tiles that compute a layer."""
        return len({tile for layer in self.layers for tile in layer.tiles})

    @property
    def cell_utilisation(self) -> float:
        """Cells that hold a slice of a weight, bias or operand, as a fraction of those of crossbars in use, if any.

        With several rounds, of the crossbars of all rounds.
        """
        crossbar, in_use = self.hardware.tile.pe.crossbar, sum(layer.n_crossbars for layer in self.layers)
        used = sum(item.n_stored * item.n_copies * cols_per_value(self.hardware, item.layer) for item in self.layers)
        return used / max(in_use * crossbar.rows * crossbar.cols, 1)

    def layer(self, name: str) -> LayerMapping:
        """The mapping of the layer called `name`."""
        return next(item for item in self.layers if item.layer.name == name)

    def consumers(self, name: str) -> tuple[LayerMapping, ...]:
        """Layers that read what the layer called `name` (or `input`) emits."""
        return tuple(item for item in self.layers if name in item.layer.sources)

    def is_output(self, layer: Layer) -> bool:
        """Whether the layer's output leaves the chip: nobody uses it within the same timestep."""
        readers = [item for item in self.consumers(layer.name) if not item.layer.delayed]
        return layer.neuron.kind != "none" and not readers and not self.joiners(layer.name)

    def joiners(self, name: str) -> tuple[LayerMapping, ...]:
        """Layers at whose neurons the output of the layer called `name` is added."""
        return tuple(item for item in self.layers if name in item.layer.adds)

"""The result of mapping, as frozen data: what a crossbar holds and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from archsim.hardware.models import Hardware
from archsim.workload.network import Layer, Network

CrossbarRows = tuple[int, int, int, int]
"""Rows of one crossbar: (kernel_y, kernel_x, first input channel, last input channel + 1)."""


@dataclass(frozen=True)
class PePlace:
    """One PE: the crossbars of one row block, with the columns of one column block."""

    row_block: int
    col_block: int
    tile: int
    pe: int

    @property
    def path(self) -> str:
        """Name used in logs, tables and messages."""
        return f"tile{self.tile}.pe{self.pe}"


@dataclass(frozen=True)
class LayerMapping:
    """One layer cut into row blocks (inputs of a PE) and column blocks (outputs of a PE)."""

    layer: Layer
    row_blocks: tuple[tuple[CrossbarRows, ...], ...]
    col_blocks: tuple[tuple[int, int], ...]
    """Output channels of each column block: (first, last + 1)."""
    pes: tuple[PePlace, ...]
    """Ordered by column block, then row block."""

    @property
    def n_crossbars(self) -> int:
        """Crossbars that hold weights of the layer."""
        return len(self.col_blocks) * sum(len(block) for block in self.row_blocks)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles that the layer occupies, ascending."""
        return tuple(sorted({pe.tile for pe in self.pes}))

    def home_tile(self, col_block: int) -> int:
        """Tile that accumulates a column block and holds its neurons."""
        return self.pes[col_block * len(self.row_blocks)].tile

    def pe(self, row_block: int, col_block: int) -> PePlace:
        """The PE of a row block and column block."""
        return self.pes[col_block * len(self.row_blocks) + row_block]


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

    @property
    def n_crossbars(self) -> int:
        """Crossbars that hold weights."""
        return sum(layer.n_crossbars for layer in self.layers)

    @property
    def n_pes(self) -> int:
        """PEs that hold weights."""
        return sum(len(layer.pes) for layer in self.layers)

    @property
    def n_tiles_used(self) -> int:
        """Tiles that hold weights."""
        return len({tile for layer in self.layers for tile in layer.tiles})

    @property
    def cell_utilisation(self) -> float:
        """Cells that hold a weight slice, as a fraction of the cells of the crossbars in use."""
        crossbar = self.hardware.tile.pe.crossbar
        used = sum(layer.layer.n_weights for layer in self.layers) * self.hardware.cols_per_weight
        return used / (self.n_crossbars * crossbar.rows * crossbar.cols)

    def layer(self, name: str) -> LayerMapping:
        """The mapping of the layer called `name`."""
        return next(item for item in self.layers if item.layer.name == name)

    def tile_position(self, tile: int) -> tuple[int, int]:
        """Mesh coordinates (x, y) of a tile: a snake from the top left, so neighbours in number are neighbours."""
        y, x = divmod(tile, self.mesh_width)
        return (x if y % 2 == 0 else self.mesh_width - 1 - x), y

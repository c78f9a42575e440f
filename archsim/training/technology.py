"""What a crossbar technology makes of the weights of a layer, differentiable: the hardware in the training loop.

A weight w is stored as the difference of two cells, `g_off + max(+-w, 0) / full_scale * (g_on - g_off)`. The
circuit around the cells is solved by `analog.wires` (exact, and in closed form where wires are ideal), or taken
as a product of two voltage dividers. Gradients pass through devices and circuit to the weights.

Entry points: `Technology`, `Technology.of` for a hardware file's chip, and `WeightNoise`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.arrays import TYPICAL_ACTIVITY, wires_of
from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed, cell_conductances, wanted
from archsim.analog.read_noise import noise_variance
from archsim.analog.wires import effective_conductance
from archsim.errors import ConfigError, WorkloadError
from archsim.hardware.devices import PRESETS, DevicePhysics
from archsim.hardware.models import Hardware
from archsim.training.net import Cells, Weighted, rolled, unrolled
from archsim.training.surrogate import straight_through
from archsim.units import ceil_div

DEVICE = PRESETS["rram-20k-200k"]
IDEAL_WIRES = Wires()


@dataclass(frozen=True)
class Technology:
    """Devices, wires and size of the crossbars that hold a network."""

    device: DevicePhysics = DEVICE
    wires: Wires = IDEAL_WIRES
    rows: int | None = None
    """Rows of a crossbar; None: one crossbar holds all rows of a layer."""
    cols: int | None = None
    """Columns of a crossbar; None: as many as the layer asks for."""
    signed: Literal["differential_arrays", "differential"] = "differential_arrays"
    """Positive and negative cells in arrays of their own, or in neighbouring columns of one array."""
    layout: Literal["dense", "kernel_position"] = "dense"
    """How a convolution is unrolled to rows: all kernel positions one behind the other, or each cut on its own."""
    unused_cells: Literal["g_min", "open"] = "g_min"
    """Cells beside the weights of a crossbar that is not full."""
    circuit: Literal["exact", "product"] = "exact"
    """`exact`: nodal analysis; `product`: every cell loses `1 / (1 + r_driver rowsum)` and `1 / (1 + r_sense colsum)`,
    as if its row and its column were the only lines."""
    gradient: Literal["full", "straight_through"] = "full"
    """Whether gradients pass through devices and circuit, or weights get the gradient of what they became."""

    def __post_init__(self) -> None:
        if self.device.is_ideal or self.device.nonlinearity != "off":
            raise ConfigError(
                "training needs linear devices with resistances; "
                "choose device.preset: rram-20k-200k, say, or device.nonlinearity: off"
            )
        if self.circuit == "product" and (self.wires.r_wire_row_ohm > 0 or self.wires.r_wire_col_ohm > 0):
            raise ConfigError(
                "circuit: product knows drivers and sense inputs, not wires; set r_wire_row_ohm and r_wire_col_ohm "
                "to 0, or circuit: exact"
            )

    @classmethod
    def of(cls, hardware: Hardware) -> Self:
        """The crossbars of a chip, with weights of full precision in one cell each.

        Raises:
            ConfigError: Its cells are ideal or nonlinear, its gates are driven, or it stores signs in another way.
        """
        crossbar = hardware.tile.pe.crossbar
        if crossbar.signed not in ("differential", "differential_arrays") or crossbar.inputs != "rows":
            raise ConfigError(
                f"a Technology knows tile.pe.crossbar.signed: differential and differential_arrays with inputs: rows, "
                f"not {crossbar.signed} with {crossbar.inputs}; set both, or train an imported network with OnChip"
            )
        return cls(
            device=crossbar.device.physics,
            wires=wires_of(hardware),
            rows=crossbar.rows,
            cols=crossbar.cols // (2 if crossbar.signed == "differential_arrays" else 1),
            signed=crossbar.signed,
            layout=hardware.mapping.layout,
            unused_cells=hardware.mapping.unused_cells,
        )

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """What the cells of a layer multiply inputs with, on one chip.

        Args:
            layer: Its weights; those beyond its `full_scale` are clipped.
            name: Stream of the layer's random draws.
            chip: Which chip.

        Raises:
            WorkloadError: The layer has channel groups.
        """
        if layer.groups > 1:
            raise WorkloadError(
                f"a Technology cuts whole matrices, not those of {layer.groups} channel groups; put the chip itself in "
                "the loop with OnChip"
            )
        matrix, shape = unrolled(layer.weight), layer.weight.shape
        n_parts = shape[2:].numel() if self.layout == "kernel_position" else 1
        found, variance = self.effective(matrix.unflatten(0, (n_parts, -1)), layer.full_scale, name, chip)
        weight = rolled(found.flatten(0, 1), shape)
        if self.gradient == "straight_through":
            weight = straight_through(layer.weight, weight)
        return Cells(weight, None if variance is None else rolled(variance.flatten(0, 1), shape))

    def effective(
        self, matrices: Tensor, full_scale: float | None, name: str, chip: ChipSeed
    ) -> tuple[Tensor, Tensor | None]:
        """Effective matrices, and the variance that read noise adds per driven row, both shaped like `matrices`.

        Args:
            matrices: Weights that are cut into crossbars each on its own, shape (part, row, col).
            full_scale: Weight of the on conductance; None: the largest.
            name: Stream of the draws.
            chip: Which chip.
        """
        scale = matrices.detach().abs().max().clamp(min=1e-12) if full_scale is None else full_scale
        shape = matrices.shape[-2:]
        g = self.conductances(matrices / scale, name, chip)
        weight_per_siemens = scale / (self.device.g_on_s - self.device.g_off_s)
        matrix = self._assembled(self._differences(self._solved(g)), shape) * weight_per_siemens
        if self.device.read_noise_sigma_rel == 0:
            return matrix, None
        cells = g.detach()
        variance = noise_variance(cells, self.device.read_noise_sigma_rel * cells, self.wires, TYPICAL_ACTIVITY)
        return matrix, self._assembled(self._sums(variance), shape) * weight_per_siemens**2

    def conductances(self, shares: Tensor, name: str, chip: ChipSeed) -> Tensor:
        """Conductances of all crossbars in siemens, shape (crossbar, row, physical col).

        Args:
            shares: Weights as a share of the full scale, shape (part, row, col).
            name: Stream of the draws.
            chip: Which chip.
        """
        tiles = self._tiles(shares)
        used = self._tiles(torch.ones_like(shares))
        levels = self._signs(tiles.clamp(0, 1), (-tiles).clamp(0, 1))
        g = cell_conductances(levels, 1, self.device, chip, name)
        if self.device.levels is not None or self.device.levels_us:  # steps have no gradient of their own
            g = straight_through(wanted(levels, 1, self.device), g)
        return g if self.unused_cells == "g_min" else g * self._signs(used, used)

    def shortfalls(self, shares: Tensor, name: str, chip: ChipSeed) -> Tensor:
        """Share of its current that every column loses with all rows driven; arguments as for `conductances`.

        Its mean is the non-ideality factor, NF.
        """
        with torch.no_grad():
            g = self.conductances(shares, name, chip)
            return (1.0 - self._solved(g).sum(-2) / g.sum(-2)).flatten()

    def _solved(self, g: Tensor) -> Tensor:
        """Effective conductances in siemens."""
        if self.circuit == "exact":
            return effective_conductance(g, **asdict(self.wires))
        rows = 1.0 + self.wires.r_driver_ohm * g.sum(-1, keepdim=True)
        cols = 1.0 + self.wires.r_sense_ohm * g.sum(-2, keepdim=True)
        return g / rows / cols

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and weights per row of a crossbar."""
        cols = self.cols if self.cols is None or self.signed == "differential_arrays" else self.cols // 2
        return self.rows or shape[-2], cols or shape[-1]

    def _tiles(self, matrices: Tensor) -> Tensor:
        """Matrices cut to crossbars; spare rows lie farthest from the sense inputs, spare columns from the drivers."""
        height, width = self._size(matrices.shape)
        n_down, n_across = ceil_div(matrices.shape[-2], height), ceil_div(matrices.shape[-1], width)
        spare = (0, n_across * width - matrices.shape[-1], 0, n_down * height - matrices.shape[-2])
        grid = functional.pad(matrices, spare).unflatten(-1, (n_across, width)).unflatten(1, (n_down, height))
        tiles = grid.permute(0, 1, 3, 2, 4)
        last = tiles[:, -1:].roll(spare[3], dims=-2)
        return torch.cat([tiles[:, :-1], last], 1).flatten(0, 2)

    def _assembled(self, tiles: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The reverse of `_tiles`, for matrices of a shape (row, col)."""
        height, width = self._size(shape)
        n_down, n_across = ceil_div(shape[-2], height), ceil_div(shape[-1], width)
        grid = tiles.unflatten(0, (-1, n_down, n_across))
        last = grid[:, -1:].roll(shape[-2] - n_down * height, dims=-2)
        whole = torch.cat([grid[:, :-1], last], 1).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
        return whole[:, : shape[-2], : shape[-1]]

    def _signs(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Two cells per weight: in crossbars of their own, or in neighbouring columns."""
        if self.signed == "differential_arrays":
            return torch.cat([positive, negative])
        return torch.stack([positive, negative], -1).flatten(-2)

    def _parts(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The reverse of `_signs`."""
        if self.signed == "differential_arrays":
            positive, negative = cells.chunk(2)
            return positive, negative
        return cells[..., 0::2], cells[..., 1::2]

    def _differences(self, cells: Tensor) -> Tensor:
        positive, negative = self._parts(cells)
        return positive - negative

    def _sums(self, cells: Tensor) -> Tensor:
        positive, negative = self._parts(cells)
        return positive + negative


@dataclass(frozen=True)
class WeightNoise:
    """Weights with normal noise of `sigma_rel` times the largest one, drawn anew for every chip.

    The technology-independent way to harden a network. Source: Joshi et al., Nature Communications 11:2473, 2020.
    """

    sigma_rel: float

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """Noisy weights of a layer."""
        noise = torch.randn(layer.weight.shape, generator=chip.generator(name, "weight noise"))
        return Cells(layer.weight + self.sigma_rel * layer.weight.detach().abs().max() * noise)

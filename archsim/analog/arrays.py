"""From levels to what a driven row really adds to each column: devices and wires of every crossbar of a layer.

A crossbar of linear devices is a linear circuit, so it is solved once, when it is programmed; every read
is then a product with the matrix found here. Entry: `effective_cells`.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed, cell_conductances, wanted
from archsim.analog.gated import gated_currents
from archsim.analog.nonlinear import Curve, calibrated_conductance, nonlinear_currents
from archsim.analog.read_noise import noise_variance
from archsim.analog.solved import solve
from archsim.hardware.models import Hardware

CHUNK_CELLS = 1 << 20
"""Cells solved at a time."""
CACHE_BYTES = 1 << 29
"""Programmed layers kept for the next run that writes the same ones, in bytes."""

TYPICAL_ACTIVITY = 0.2
"""Share of driven rows that read noise and chord conductances are found for (assumption); both depend on it weakly."""
N_TYPICAL_READS = 8
"""Reads that chord conductances are averaged over."""

Progress = Callable[[int, int], None]
"""Called with crossbars done and crossbars in all."""


@dataclass(frozen=True)
class ArrayPlace:
    """Where one crossbar of a layer gets its cells from."""

    row_block: int
    crossbar: int
    col_block: int
    rows: Tensor
    """Rows of the layer's flattened cells, int64, in the order of the word lines."""
    cols: Tensor
    """Physical columns of the layer, int64, in the order of the bit lines."""
    shape: tuple[int, int]
    """Word lines and bit lines of the whole array."""

    @property
    def spot(self) -> tuple[Tensor, Tensor]:
        """Index of the array's cells in the layer's flattened ones."""
        return self.rows.unsqueeze(1), self.cols


@dataclass(frozen=True)
class ExactArray:
    """A crossbar without an effective matrix (nonlinear cells, driven gates), with what is needed to solve a read."""

    place: ArrayPlace
    g: Tensor
    """Conductances at small voltage in siemens, (row, col), unused cells included."""
    drivers: Tensor
    """What every row gets of the voltage it should have, (row,)."""
    rows: slice
    """Rows in use."""
    cols: slice
    """Columns in use."""
    step_s: float
    """Conductance of one level."""

    def drawn_s(self, driven: Tensor, hardware: Hardware) -> Tensor:
        """Current of all columns, used or not, per volt on the source lines, float64, (read,)."""
        return _gated(self.g.double(), self._on_all_rows(driven.double()), hardware).sum(-1)

    def _on_all_rows(self, driven: Tensor) -> Tensor:
        rows = torch.zeros(len(driven), self.g.shape[0], dtype=driven.dtype)
        rows[:, self.rows] = driven
        return rows

    def sums(self, driven: Tensor, hardware: Hardware) -> Tensor:
        """Column sums of reads in levels, shape (read, col), for driven rows of shape (read, row)."""
        crossbar = hardware.tile.pe.crossbar
        rows = self._on_all_rows(driven.float())
        if crossbar.inputs == "gates":
            currents, volts = _gated(self.g, rows, hardware), 1.0
        else:
            assert crossbar.v_read_v is not None, "checked when the file was read"
            volts = crossbar.v_read_v
            currents = nonlinear_currents(self.g, rows * volts * self.drivers, wires_of(hardware), curve_of(hardware))
        return currents[:, self.cols] / (volts * self.step_s)


@dataclass(frozen=True)
class EffectiveCells:
    """What the crossbars of a layer add to their columns, per driven row, in units of one cell level."""

    cells: Tensor
    """Shape of the layer's cells, (..., physical col), float32."""
    offset: float = 0.0
    """What a cell of level 0 adds nominally; the digital part subtracts it for every driven row."""
    noise_variance: Tensor | None = None
    """Variance that a driven row adds to each column at every read, same shape; None without read noise."""
    input_conductance_s: tuple[tuple[Tensor, ...], ...] = ()
    """Per row block and crossbar the summed input conductance of all its columns, float64, (row, row)."""
    energy_shares: Tensor | None = None
    """Share of each column block in a row block's input conductance, shape (row_block, col_block)."""
    nf: float | None = None
    """Non-ideality factor, mean over the crossbars' columns with all rows driven; see `_shortfalls`."""
    exact: tuple[ExactArray, ...] = ()
    """Crossbars of which every read is solved as a circuit of its own; then `cells` only bounds what they deliver."""

    def drawn_s(self, row_block: int, crossbar: int, driven: Tensor, hardware: Hardware) -> Tensor:
        """What driven rows of a crossbar draw per squared volt in siemens, (read,), for rows of shape (read, row)."""
        if hardware.tile.pe.crossbar.inputs == "rows":
            conductance = self.input_conductance_s[row_block][crossbar]
            return ((driven @ conductance) * driven).sum(-1)
        spot = (row_block, crossbar)
        mine = [array for array in self.exact if (array.place.row_block, array.place.crossbar) == spot]
        return torch.stack([array.drawn_s(driven, hardware) for array in mine]).sum(0)


def largest_level(hardware: Hardware) -> int:
    """Level that the on resistance stands for."""
    return int(2**hardware.tile.pe.crossbar.bits_per_cell - 1)


def effective_cells(
    levels: Tensor,
    places: Sequence[ArrayPlace],
    hardware: Hardware,
    chip: ChipSeed,
    name: str,
    progress: Progress | None = None,
    write: int = 0,
) -> EffectiveCells:
    """Program the crossbars of a layer and solve their circuits.

    Args:
        levels: Wanted levels, float32, shape (..., physical col); flattened to (row, physical col) for `places`.
        places: The crossbars; every row and column of `levels` lies in one of them where it is used.
        hardware: The chip.
        chip: Which chip; draws are the same for the same chip and layer name.
        name: Name of the layer.
        progress: Called after every batch of crossbars.
        write: Number of the write, for cells that are written several times.

    Returns:
        The layer's effective cells; the levels as they are where the device is ideal.
    """
    physics = hardware.tile.pe.crossbar.device.physics
    if physics.is_ideal:
        return EffectiveCells(levels)
    # What is kept must not depend on who asked first.
    chip = chip if hardware.tile.pe.crossbar.differs_from_chip_to_chip else ChipSeed()
    key = _key(levels, places, hardware, chip, name, write)
    found = _cache.get(key)
    if found is None:
        found = _solve(levels, places, hardware, chip, name, progress, write)
        _cache.put(key, found)
    elif progress is not None:
        progress(len(places), len(places))
    return found


@dataclass(frozen=True)
class _Batch:
    """Crossbars of one size that are solved together."""

    places: Sequence[ArrayPlace]
    shape: tuple[int, int]
    stream: str
    """Name of the batch's random numbers."""

    def used(self, index: int) -> tuple[slice, slice]:
        """Rows and columns in use: those next to the sense inputs and to the drivers."""
        place = self.places[index]
        return slice(self.shape[0] - len(place.rows), self.shape[0]), slice(0, len(place.cols))


def _solve(
    levels: Tensor,
    places: Sequence[ArrayPlace],
    hardware: Hardware,
    chip: ChipSeed,
    name: str,
    progress: Progress | None,
    write: int,
) -> EffectiveCells:
    physics = hardware.tile.pe.crossbar.device.physics
    step_s = (physics.g_on_s - physics.g_off_s) / largest_level(hardware)
    flat = levels.flatten(0, -2)
    cells, conductance, shortfalls, done = torch.zeros_like(flat), _InputConductance(), list[Tensor](), 0
    variance = torch.zeros_like(flat) if physics.read_noise_sigma_rel > 0 else None
    exact: list[ExactArray] = []
    for batch in _batches(places, hardware, name):
        wanted_levels = torch.zeros(len(batch.places), *batch.shape)
        for index, place in enumerate(batch.places):
            wanted_levels[index][batch.used(index)] = flat[place.spot]
        g = cell_conductances(wanted_levels, largest_level(hardware), physics, chip, batch.stream, write)
        solved = _circuits(g, hardware, chip, batch.stream)
        ideal = wanted(wanted_levels, largest_level(hardware), physics)
        for index, place in enumerate(batch.places):
            rows, cols = batch.used(index)
            cells[place.spot] = (solved.matrix[index, rows, cols] / step_s).to(cells.dtype)
            if solved.has_matrix:
                together = solved.matrix[index, rows, cols].sum(0)
            else:
                driven = torch.zeros(batch.shape[0])
                driven[rows] = 1.0
                together = _gated(g[index], driven, hardware)[cols]
            shortfalls.append(_shortfalls(together, ideal[index, rows, cols].sum(0)))
            if variance is not None and solved.variance is not None:
                variance[place.spot] = (solved.variance[index, rows, cols] / step_s**2).to(cells.dtype)
            if solved.inputs is not None:
                conductance.add(place, solved.inputs[index, rows, rows])
            elif hardware.tile.pe.crossbar.v_read_v is not None:
                conductance.weigh(place, float(g[index].sum()))
            if physics.nonlinearity == "exact" or not solved.has_matrix:
                factors = driver_factors(hardware, chip, batch.stream, g)[index]
                exact.append(ExactArray(place, g[index], factors, rows, cols, step_s))
        done += len(batch.places)
        if progress is not None:
            progress(done, len(places))
    return EffectiveCells(
        cells=cells.view_as(levels),
        offset=physics.g_off_s / step_s,
        noise_variance=None if variance is None else variance.view_as(levels),
        input_conductance_s=conductance.by_block(),
        energy_shares=conductance.shares(),
        nf=float(torch.cat(shortfalls).mean()),
        exact=tuple(exact),
    )


def _batches(places: Sequence[ArrayPlace], hardware: Hardware, name: str) -> Iterator[_Batch]:
    """Crossbars grouped by size: whole arrays, or their used part where cells beside it are open."""
    alike: dict[tuple[int, int], list[ArrayPlace]] = defaultdict(list)
    for place in places:
        is_open = hardware.mapping.unused_cells == "open"
        used = (len(place.rows), len(place.cols))
        alike[used if is_open else place.shape].append(place)
    for shape, group in alike.items():
        size = max(1, CHUNK_CELLS // (shape[0] * shape[1]))
        for first in range(0, len(group), size):
            yield _Batch(group[first : first + size], shape, f"{name}/{shape[0]}x{shape[1]}/{first}")


@dataclass(frozen=True)
class _Circuits:
    """Solved crossbars of a batch, in siemens, per volt that a row is meant to have."""

    matrix: Tensor
    """Current of every column per row, (crossbar, row, col)."""
    inputs: Tensor | None
    """Current of every row per row, (crossbar, row, row); None where no energy is asked for."""
    variance: Tensor | None
    """Variance of every column's current per row, siemens squared; None without read noise."""
    has_matrix: bool = True
    """Whether `matrix` is what reads deliver; else it is what they can deliver at most."""


def _circuits(g: Tensor, hardware: Hardware, chip: ChipSeed, stream: str) -> _Circuits:
    """Solve the crossbars; nonlinear cells are replaced by their mean chord conductance here."""
    crossbar, physics = hardware.tile.pe.crossbar, hardware.tile.pe.crossbar.device.physics
    energetic, wires = crossbar.v_read_v is not None, wires_of(hardware)
    if crossbar.inputs == "gates":
        noise = _read_variance(g, hardware)
        return _Circuits(g, None, noise, has_matrix=False)
    g = g.double() if energetic else g
    trim: Tensor | float = 1.0
    if physics.nonlinearity != "off":
        assert crossbar.v_read_v is not None, "checked when the file was read"
        generator = chip.generator(stream, "typical reads")
        spikes = torch.rand(len(g), N_TYPICAL_READS, g.shape[1], generator=generator) < TYPICAL_ACTIVITY
        g, trim = calibrated_conductance(g, spikes.to(g.dtype) * crossbar.v_read_v, wires, curve_of(hardware))
    matrix, inputs = solve(g, wires, input_conductance=energetic)
    variance = _read_variance(g, hardware)
    if crossbar.driver_sigma_rel > 0:
        factors = driver_factors(hardware, chip, stream, g)
        matrix = matrix * factors.unsqueeze(-1)
        inputs = None if inputs is None else inputs * factors.unsqueeze(-1) * factors.unsqueeze(-2)
        variance = None if variance is None else variance * factors.square().unsqueeze(-1)
    return _Circuits(matrix * trim, inputs, variance)


def _read_variance(g: Tensor, hardware: Hardware) -> Tensor | None:
    """What read noise adds to a column's variance per driven row; None without it."""
    sigma_rel = hardware.tile.pe.crossbar.device.physics.read_noise_sigma_rel
    return noise_variance(g, sigma_rel * g, wires_of(hardware), TYPICAL_ACTIVITY) if sigma_rel > 0 else None


def _gated(g: Tensor, gates: Tensor, hardware: Hardware) -> Tensor:
    """Column currents per volt on the source lines, with the gates of driven rows open."""
    crossbar = hardware.tile.pe.crossbar
    return gated_currents(g, gates, 1.0, crossbar.r_wire_col_ohm, crossbar.r_sense_ohm)


def wires_of(hardware: Hardware) -> Wires:
    """What lies around the cells of a chip's crossbars."""
    crossbar = hardware.tile.pe.crossbar
    return Wires(
        crossbar.r_driver_ohm,
        crossbar.r_wire_row_ohm,
        crossbar.r_wire_col_ohm,
        crossbar.r_sense_ohm,
        crossbar.drive == "both_sides",
        crossbar.sense == "both_sides",
    )


def curve_of(hardware: Hardware) -> Curve:
    """I-V curve of a chip's cells."""
    v0 = hardware.tile.pe.crossbar.device.physics.nonlinearity_v0_v
    assert v0 is not None, "checked when the file was read"
    return Curve("sinh", v0)


def driver_factors(hardware: Hardware, chip: ChipSeed, stream: str, g: Tensor) -> Tensor:
    """What every row gets of the voltage it should have, shape (crossbar, row), in the dtype of `g`; never below 0."""
    sigma = hardware.tile.pe.crossbar.driver_sigma_rel
    drawn = torch.randn(g.shape[:-1], generator=chip.generator(stream, "drivers"), dtype=torch.float64)
    return (1.0 + sigma * drawn).clamp(min=0).to(g.dtype)


class _InputConductance:
    """Sums what the columns of each crossbar row group draw; every column block is fed by the same rows."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._blocks: dict[tuple[int, int], float] = defaultdict(float)

    def add(self, place: ArrayPlace, inputs: Tensor) -> None:
        spot = (place.row_block, place.crossbar)
        self._sums[spot] = self._sums[spot] + inputs if spot in self._sums else inputs
        self.weigh(place, float(inputs.sum()))

    def weigh(self, place: ArrayPlace, drawn: float) -> None:
        """Count what an array draws with all rows driven for the share of its column block."""
        self._blocks[place.row_block, place.col_block] += drawn

    def by_block(self) -> tuple[tuple[Tensor, ...], ...]:
        """Per row block its crossbars' sums, in order."""
        blocks: dict[int, list[Tensor]] = defaultdict(list)
        for spot in sorted(self._sums):
            blocks[spot[0]].append(self._sums[spot])
        return tuple(tuple(blocks[block]) for block in sorted(blocks))

    def shares(self) -> Tensor | None:
        """What part of a row block's conductance each column block has, float64, (row_block, col_block).

        Zero where a row block has no conductance at all, as with open cells only.
        """
        if not self._blocks:
            return None
        parts = torch.zeros(*(1 + max(spot[axis] for spot in self._blocks) for axis in (0, 1)), dtype=torch.float64)
        for spot, part in self._blocks.items():
            parts[spot] = part
        return parts / parts.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _shortfalls(found: Tensor, ideal: Tensor) -> Tensor:
    """(I_ideal - I) / I_ideal of every column, from the currents with all rows driven.

    Source: non-ideality factor as in RxNN and GENIEx, averaged over columns.
    """
    return 1.0 - found.double() / ideal.double()


class _Cache:
    """Programmed layers by content, the least used dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[str, EffectiveCells] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> EffectiveCells | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, cells: EffectiveCells) -> None:
        self._kept[key] = cells
        self._bytes += _n_bytes(cells)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _n_bytes(self._kept.popitem(last=False)[1])


def _n_bytes(cells: EffectiveCells) -> int:
    noise = [] if cells.noise_variance is None else [cells.noise_variance]
    conductances = [y for block in cells.input_conductance_s for y in block] + [array.g for array in cells.exact]
    tensors = [cells.cells, *noise, *conductances]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _key(
    levels: Tensor, places: Sequence[ArrayPlace], hardware: Hardware, chip: ChipSeed, name: str, write: int
) -> str:
    """Hash of everything that decides the effective cells of a layer."""
    crossbar, physics = hardware.tile.pe.crossbar, hardware.tile.pe.crossbar.device.physics
    circuit = (
        crossbar.rows,
        crossbar.cols,
        crossbar.inputs,
        crossbar.v_read_v,
        crossbar.r_driver_ohm,
        crossbar.r_wire_row_ohm,
        crossbar.r_wire_col_ohm,
        crossbar.r_sense_ohm,
        crossbar.drive,
        crossbar.sense,
        crossbar.driver_sigma_rel,
        crossbar.bits_per_cell,
        hardware.mapping.unused_cells,
    )
    where = [(item.row_block, item.crossbar, item.col_block, item.shape) for item in places]
    digest = sha256(repr((physics, circuit, chip, name, write, where, levels.shape)).encode())
    digest.update(levels.contiguous().numpy().tobytes())
    for place in places:
        digest.update(place.rows.numpy().tobytes() + place.cols.numpy().tobytes())
    return digest.hexdigest()


_cache = _Cache(CACHE_BYTES)

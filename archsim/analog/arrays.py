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

from archsim.analog.devices import ChipSeed, cell_conductances, wanted
from archsim.analog.wires import effective_conductance
from archsim.hardware.models import Hardware

CHUNK_CELLS = 1 << 20
"""Cells solved at a time."""
CACHE_BYTES = 1 << 29
"""Programmed layers kept for the next run that writes the same ones, in bytes."""

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
    cols: slice
    """Physical columns of the layer."""


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
) -> EffectiveCells:
    """Program the crossbars of a layer and solve their circuits.

    Args:
        levels: Wanted levels, float32, shape (..., physical col); flattened to (row, physical col) for `places`.
        places: The crossbars; every row and column of `levels` lies in one of them where it is used.
        hardware: The chip.
        chip: Which chip; draws are the same for the same chip and layer name.
        name: Name of the layer.
        progress: Called after every batch of crossbars.

    Returns:
        The layer's effective cells; the levels as they are where the device is ideal.
    """
    physics = hardware.tile.pe.crossbar.device.physics
    if physics.is_ideal:
        return EffectiveCells(levels)
    key = _key(levels, places, hardware, chip if physics.draws_chips else ChipSeed(), name)
    found = _cache.get(key)
    if found is None:
        found = _solve(levels, places, hardware, chip, name, progress)
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
        return slice(self.shape[0] - len(place.rows), self.shape[0]), slice(0, place.cols.stop - place.cols.start)


def _solve(
    levels: Tensor,
    places: Sequence[ArrayPlace],
    hardware: Hardware,
    chip: ChipSeed,
    name: str,
    progress: Progress | None,
) -> EffectiveCells:
    physics = hardware.tile.pe.crossbar.device.physics
    step_s = (physics.g_on_s - physics.g_off_s) / largest_level(hardware)
    flat = levels.flatten(0, -2)
    cells, conductance, shortfalls, done = torch.zeros_like(flat), _InputConductance(), list[Tensor](), 0
    for batch in _batches(places, hardware, name):
        wanted_levels = torch.zeros(len(batch.places), *batch.shape)
        for index, place in enumerate(batch.places):
            wanted_levels[index][batch.used(index)] = flat[place.rows, place.cols]
        g = cell_conductances(wanted_levels, largest_level(hardware), physics, chip, batch.stream)
        matrix, inputs = _circuit(g, hardware, chip, batch.stream)
        ideal = wanted(wanted_levels, largest_level(hardware), physics)
        for index, place in enumerate(batch.places):
            rows, cols = batch.used(index)
            cells[place.rows, place.cols] = (matrix[index, rows, cols] / step_s).to(cells.dtype)
            shortfalls.append(_shortfalls(matrix[index, rows, cols], ideal[index, rows, cols]))
            if inputs is not None:
                conductance.add(place, inputs[index, rows, rows])
        done += len(batch.places)
        if progress is not None:
            progress(done, len(places))
    return EffectiveCells(
        cells=cells.view_as(levels),
        offset=physics.g_off_s / step_s,
        input_conductance_s=conductance.by_block(),
        energy_shares=conductance.shares(),
        nf=float(torch.cat(shortfalls).mean()),
    )


def _batches(places: Sequence[ArrayPlace], hardware: Hardware, name: str) -> Iterator[_Batch]:
    """Crossbars grouped by size: whole arrays, or their used part where cells beside it are open."""
    crossbar = hardware.tile.pe.crossbar
    alike: dict[tuple[int, int], list[ArrayPlace]] = defaultdict(list)
    for place in places:
        is_open = hardware.mapping.unused_cells == "open"
        used = (len(place.rows), place.cols.stop - place.cols.start)
        alike[used if is_open else (crossbar.rows, crossbar.cols)].append(place)
    for shape, group in alike.items():
        size = max(1, CHUNK_CELLS // (shape[0] * shape[1]))
        for first in range(0, len(group), size):
            yield _Batch(group[first : first + size], shape, f"{name}/{shape[0]}x{shape[1]}/{first}")


def _circuit(g: Tensor, hardware: Hardware, chip: ChipSeed, stream: str) -> tuple[Tensor, Tensor | None]:
    """Current of every column per volt wanted on a row, and of every row where energies are asked for."""
    crossbar = hardware.tile.pe.crossbar
    energetic = crossbar.v_read_v is not None
    drivers = torch.ones(g.shape[:-1], dtype=g.dtype)
    if crossbar.driver_sigma_rel > 0:
        generator = chip.generator(stream, "drivers")
        drivers += crossbar.driver_sigma_rel * torch.randn(g.shape[:-1], generator=generator, dtype=g.dtype)
    solved = effective_conductance(
        g.double() if energetic else g,
        crossbar.r_driver_ohm,
        crossbar.r_wire_row_ohm,
        crossbar.r_wire_col_ohm,
        crossbar.r_sense_ohm,
        input_conductance=energetic,
        double_drive=crossbar.drive == "both_sides",
        double_sense=crossbar.sense == "both_sides",
    )
    if isinstance(solved, Tensor):
        return solved * drivers.unsqueeze(-1), None
    matrix, inputs = solved
    return matrix * drivers.unsqueeze(-1), inputs * drivers.unsqueeze(-1) * drivers.unsqueeze(-2)


class _InputConductance:
    """Sums what the columns of each crossbar row group draw; every column block is fed by the same rows."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._blocks: dict[tuple[int, int], float] = defaultdict(float)

    def add(self, place: ArrayPlace, inputs: Tensor) -> None:
        spot = (place.row_block, place.crossbar)
        self._sums[spot] = self._sums[spot] + inputs if spot in self._sums else inputs
        self._blocks[place.row_block, place.col_block] += float(inputs.sum())

    def by_block(self) -> tuple[tuple[Tensor, ...], ...]:
        """Per row block its crossbars' sums, in order."""
        blocks: dict[int, list[Tensor]] = defaultdict(list)
        for spot in sorted(self._sums):
            blocks[spot[0]].append(self._sums[spot])
        return tuple(tuple(blocks[block]) for block in sorted(blocks))

    def shares(self) -> Tensor | None:
        """What part of a row block's conductance each column block has, float64, (row_block, col_block)."""
        if not self._blocks:
            return None
        parts = torch.zeros(*(1 + max(spot[axis] for spot in self._blocks) for axis in (0, 1)), dtype=torch.float64)
        for spot, part in self._blocks.items():
            parts[spot] = part
        return parts / parts.sum(1, keepdim=True)


def _shortfalls(found: Tensor, ideal: Tensor) -> Tensor:
    """(I_ideal - I) / I_ideal of every column with all rows driven.

    Source: non-ideality factor as in RxNN and GENIEx, averaged over columns.
    """
    return (1.0 - found.double().sum(0) / ideal.double().sum(0)).flatten()


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
    tensors = [cells.cells, *(y for block in cells.input_conductance_s for y in block)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _key(levels: Tensor, places: Sequence[ArrayPlace], hardware: Hardware, chip: ChipSeed, name: str) -> str:
    """Hash of everything that decides the effective cells of a layer."""
    crossbar, physics = hardware.tile.pe.crossbar, hardware.tile.pe.crossbar.device.physics
    circuit = (
        crossbar.rows,
        crossbar.cols,
        crossbar.v_read_v is None,
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
    where = [(item.row_block, item.crossbar, item.col_block, item.cols.start, item.cols.stop) for item in places]
    digest = sha256(repr((physics, circuit, chip, name, where, levels.shape)).encode())
    digest.update(levels.contiguous().numpy().tobytes())
    for place in places:
        digest.update(place.rows.numpy().tobytes())
    return digest.hexdigest()


_cache = _Cache(CACHE_BYTES)

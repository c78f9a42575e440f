"""Crossbars of a PE: what a token drives and reads, and what zero-skip leaves out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import Movement
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


@dataclass(frozen=True)
class PeLoad:
    """Work of one PE, token by token; arrays of int64, one entry per token.

    A slice is one bit of the inputs: a read of every crossbar, a conversion of every column, a
    shift-add. With zero-skip, reads of crossbars without a driven row do not happen, nor does a
    slice none of whose crossbars is read.
    """

    n_tokens: int
    n_crossbars: int | np.ndarray
    """Crossbars that have rows of the token."""
    n_columns: int
    active_rows: np.ndarray
    reads: np.ndarray
    """Crossbar reads done, over all slices; the column mux multiplies them."""
    slices: np.ndarray
    serial_rows: np.ndarray
    """Driven rows of the crossbar with most of them, over all slices."""
    code_bits: np.ndarray | None = None
    """Bits that the conversions of one column resolve; None: all of them."""
    conversion_cycles: np.ndarray | None = None
    """Cycles of one turn of the mux, slice after slice; None: of whole conversions."""
    power_w: np.ndarray | None = None
    """Power that the driven rows draw in this PE, summed over the slices; None: the cost library's read energy."""

    @classmethod
    def of(
        cls,
        hardware: Hardware,
        n_crossbars: int | np.ndarray,
        n_columns: int,
        n_bits: int,
        active_rows: np.ndarray,
        active_reads: np.ndarray,
        active_slices: np.ndarray,
        serial_rows: np.ndarray,
    ) -> PeLoad:
        """Apply the chip's zero-skip policy to what the inputs would drive."""
        n_tokens = len(active_rows)
        if hardware.tile.pe.crossbar.zero_skip:
            reads, slices = active_reads.astype(np.int64), active_slices.astype(np.int64)
        else:
            reads = np.broadcast_to(np.asarray(n_crossbars, np.int64) * n_bits, (n_tokens,))
            slices = np.full(n_tokens, n_bits, np.int64)
        rows = (active_rows.astype(np.int64), reads, slices, serial_rows.astype(np.int64))
        return cls(n_tokens, n_crossbars, n_columns, *rows)

    def mux_steps(self, hardware: Hardware) -> int:
        """Turns of the column multiplexer that cover the columns in use."""
        return ceil_div(self.n_columns, hardware.tile.pe.adcs_per_bank)


def read_actions(hardware: Hardware, pe: str, load: PeLoad) -> tuple[Action, ...]:
    """Drive the rows and read the array; rows stay driven while the mux goes round.

    Selecting rows one by one takes a cycle each, side by side in the crossbars (`crossbar.row_drive: serial`).

    Where the circuit's power is known, the read costs that power times the time for which rows are
    driven: settling, and whole conversions too (also where they stop early, an assumption) unless stages
    overlap (then the columns must be held, an assumption). Where crossbars of swapped polarity need it, driven rows
    are counted in the time of the read (assumption), in every PE: whether its own are swapped is not known here.
    """
    crossbar = hardware.tile.pe.crossbar
    drive = priced_action(
        hardware,
        f"{pe}.row_driver",
        ("row_driver", "drive"),
        load.n_tokens,
        duration_ps=cycles_ps(load.serial_rows, hardware.chip.clock_mhz) if crossbar.row_drive == "serial" else 0,
        count=load.active_rows,
        rows=load.active_rows,
    )
    read = priced_action(
        hardware,
        f"{pe}.crossbar",
        ("crossbar", "read"),
        load.n_tokens,
        duration_ps=cycles_ps(crossbar.read_cycles * load.slices, hardware.chip.clock_mhz),
        count=load.reads,
        repeats=load.mux_steps(hardware),
        rows=load.active_rows,
    )
    if load.power_w is not None:
        pe_model = hardware.tile.pe
        converting = 0 if pe_model.pipelined else load.mux_steps(hardware) * pe_model.adc.cycles_per_conversion
        driven_s = (crossbar.read_cycles + converting) * 1e-6 / hardware.chip.clock_mhz
        read = replace(read, energy_pj=load.power_w * driven_s * 1e12)
    if not hardware.counts_rows:
        return drive, read
    rows = load.active_rows
    count = priced_action(hardware, f"{pe}.row_counter", ("row_counter", "count"), load.n_tokens, count=rows, rows=rows)
    return drive, count, read


def write_action(hardware: Hardware, pe: str, n_tokens: int, n_rows: int, n_cols: int) -> Action:
    """Write the cells of `n_rows` rows with `n_cols` columns in use, row by row, all columns at once.

    The PE writes one row of one of its crossbars at a time, with one pulse (assumption).
    """
    n_cells = n_rows * n_cols
    return priced_action(
        hardware,
        f"{pe}.crossbar",
        ("crossbar", "write"),
        n_tokens,
        duration_ps=cycles_ps(n_rows * hardware.row_write_cycles, hardware.chip.clock_mhz),
        count=n_cells,
        bits=n_cells * hardware.tile.pe.crossbar.bits_per_cell,
        movement=Movement(pe, f"{pe}.crossbar", "weights", "crossbar"),
    )

"""ADC bank of a PE and its column multiplexer, then shift-and-add.

`column_merge: analog`: the crossbars of the PE share bit lines, each column is converted once per
slice. `digital`: every crossbar has its own bank, each of its columns is converted and the codes
of equal columns are added.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from archsim.components.crossbar import PeLoad
from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.hardware.models import Hardware


def resolved_bits(hardware: Hardware, holds_operand: bool = False) -> np.ndarray | None:
    """Bits that an early-stopping conversion resolves, by the driven rows that it sees; None without early stop.

    A code stands for one level or more, so `n` driven rows reach no code above `n * largest level`, and
    the bits above `ceil(log2(n * largest level + 1))` are known to be zero. A conversion of nothing takes one
    comparison, or does not happen where such reads are skipped.

    Source: the bound follows from the range rules of `analog.converters`, whose codes are whole levels.
    """
    pe = hardware.tile.pe
    if not pe.adc.early_stop:
        return None
    largest_level = hardware.largest_operand_level if holds_operand else hardware.largest_level
    most_rows = pe.crossbar.rows * (pe.crossbars if pe.column_merge == "analog" else 1)
    largest_codes = np.arange(most_rows + 1) * largest_level
    bits = np.clip(np.frexp(largest_codes)[1], 1, pe.adc.bits)
    bits[0] = 0 if pe.crossbar.zero_skip else 1
    return bits


def conversion_cycles(hardware: Hardware, bits: np.ndarray) -> np.ndarray:
    """Chip cycles of conversions that resolve `bits` bits, in proportion to a whole one (assumption), rounded up."""
    adc = hardware.tile.pe.adc
    return -(-bits * adc.cycles_per_conversion // adc.bits)


def convert_actions(hardware: Hardware, pe: str, load: PeLoad) -> tuple[Action, Action]:
    """Select and convert the columns in use; banks of a PE work side by side.

    Energy of a conversion that stops early is that of a whole one times its share of the bits, as in
    successive approximation with equal comparisons (assumption; skipped top bits save more).
    """
    adc = hardware.tile.pe.adc
    converted = load.slices if hardware.tile.pe.column_merge == "analog" else load.reads
    conversions = converted * load.n_columns
    each = adc.cycles_per_conversion * load.slices if load.conversion_cycles is None else load.conversion_cycles
    cycles = load.mux_steps(hardware) * each
    convert = priced_action(
        hardware,
        f"{pe}.adc",
        ("adc", "convert"),
        load.n_tokens,
        duration_ps=cycles_ps(cycles, hardware.chip.clock_mhz),
        count=conversions,
        bits=conversions * adc.bits,
    )
    if load.code_bits is not None:
        convert = replace(convert, energy_pj=convert.energy_pj * load.code_bits / np.maximum(converted * adc.bits, 1))
    select = priced_action(
        hardware,
        f"{pe}.mux",
        ("mux", "select"),
        load.n_tokens,
        count=conversions,
    )
    return convert, select


def shift_add_actions(hardware: Hardware, pe: str, load: PeLoad) -> tuple[Action, Action]:
    """Combine codes of slices, cells and signs: two operations per column, a buffer write per mux step.

    A third operation adds what driven rows of crossbars with swapped polarity add too little; it is charged to every
    column of a chip that counts driven rows.
    """
    operations = 3 if hardware.counts_rows else 2
    path = f"{pe}.shift_add"
    write = priced_action(
        hardware,
        path,
        ("shift_add", "write_temp"),
        load.n_tokens,
        duration_ps=cycles_ps(hardware.tile.pe.shift_add_cycles * load.slices, hardware.chip.clock_mhz),
        count=load.mux_steps(hardware) * load.slices,
    )
    subtract = priced_action(
        hardware, path, ("shift_add", "subtract"), load.n_tokens, count=operations * load.n_columns * load.slices
    )
    return write, subtract

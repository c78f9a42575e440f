"""ADC bank of a PE and its column multiplexer, then shift-and-add.

`column_merge: analog`: the crossbars of the PE share bit lines, each column is converted once per
slice. `digital`: every crossbar has its own bank, each of its columns is converted and the codes
of equal columns are added.
"""

from __future__ import annotations

from archsim.components.crossbar import PeLoad
from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.hardware.models import Hardware


def convert_actions(hardware: Hardware, pe: str, load: PeLoad) -> tuple[Action, Action]:
    """Select and convert the columns in use; banks of a PE work side by side."""
    adc = hardware.tile.pe.adc
    converted = load.slices if hardware.tile.pe.column_merge == "analog" else load.reads
    conversions = converted * load.n_columns
    cycles = load.mux_steps(hardware) * adc.cycles_per_conversion * load.slices
    convert = priced_action(
        hardware,
        f"{pe}.adc",
        ("adc", "convert"),
        load.n_tokens,
        duration_ps=cycles_ps(cycles, hardware.chip.clock_mhz),
        count=conversions,
        bits=conversions * adc.bits,
    )
    select = priced_action(
        hardware,
        f"{pe}.mux",
        ("mux", "select"),
        load.n_tokens,
        count=conversions,
    )
    return convert, select


def shift_add_actions(hardware: Hardware, pe: str, load: PeLoad) -> tuple[Action, Action]:
    """Combine codes of slices, cells and signs: two operations per column, a buffer write per mux step."""
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
        hardware, path, ("shift_add", "subtract"), load.n_tokens, count=2 * load.n_columns * load.slices
    )
    return write, subtract

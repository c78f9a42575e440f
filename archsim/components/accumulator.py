"""Accumulator of a tile: adds the partial sums of a column block's row blocks."""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.hardware.models import Hardware


def add_action(
    hardware: Hardware, tile: str, n_tokens: int, n_values: int | np.ndarray, n_outputs: int | np.ndarray
) -> Action:
    """Add `n_values` values of `n_outputs` outputs: the first of every output is stored, the others are added.

    Outputs of which no value arrives do not count: their vectors are silent (`tile.silent_sums: flag`) or leave them
    out (`mapping.squeeze: columns`). A running sum stores its first vector of a frame and then adds one at a time
    (two values per output: sum and vector).
    """
    accumulator = hardware.tile.accumulator
    additions = n_values - n_outputs
    return priced_action(
        hardware,
        f"{tile}.accumulator",
        ("accumulator", "add"),
        n_tokens,
        duration_ps=cycles_ps(-(-additions // accumulator.lanes), hardware.chip.clock_mhz),
        count=additions,
        bits=n_values * accumulator.bits,
    )


def index_action(
    hardware: Hardware, tile: str, n_tokens: int, n_tables: int | np.ndarray, bits: int | np.ndarray
) -> Action:
    """Read the index tables of the squeezed vectors that arrive, in the cycles of the additions (assumption)."""
    return priced_action(hardware, f"{tile}.index_table", ("index_table", "read"), n_tokens, count=n_tables, bits=bits)

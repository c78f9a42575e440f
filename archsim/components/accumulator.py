"""Accumulator of a tile: adds the partial sums of a column block's row blocks."""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.hardware.models import Hardware


def add_action(hardware: Hardware, tile: str, n_tokens: int, n_vectors: int | np.ndarray, n_outputs: int) -> Action:
    """Add `n_vectors` vectors of `n_outputs` values: one addition fewer than vectors, per output.

    Nothing is added where no vector or one is there: the others are silent (`tile.silent_sums: flag`).
    A running sum stores its first vector of a frame (one vector) and then adds one at a time (two: sum and vector).
    """
    accumulator = hardware.tile.accumulator
    additions = np.maximum(n_vectors - 1, 0) * n_outputs
    return priced_action(
        hardware,
        f"{tile}.accumulator",
        ("accumulator", "add"),
        n_tokens,
        duration_ps=cycles_ps(-(-additions // accumulator.lanes), hardware.chip.clock_mhz),
        count=additions,
        bits=n_vectors * n_outputs * accumulator.bits,
    )

"""Accumulator of a tile: adds the partial sums of a column block's row blocks."""

from __future__ import annotations

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


def add_action(hardware: Hardware, tile: str, n_tokens: int, n_vectors: int, n_outputs: int) -> Action:
    """Add `n_vectors` vectors of `n_outputs` values: one addition fewer than vectors, per output."""
    accumulator = hardware.tile.accumulator
    additions = (n_vectors - 1) * n_outputs
    return priced_action(
        hardware,
        f"{tile}.accumulator",
        ("accumulator", "add"),
        n_tokens,
        duration_ps=cycles_ps(ceil_div(additions, accumulator.lanes), hardware.chip.clock_mhz),
        count=additions,
        bits=n_vectors * n_outputs * accumulator.bits,
    )

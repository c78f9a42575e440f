"""H-tree of a tile: carries a PE's column sums to the accumulator, one PE at a time."""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import Movement
from archsim.hardware.models import Hardware


def transfer_action(hardware: Hardware, tile: str, pe: str, n_tokens: int, bits: int | np.ndarray) -> Action:
    """Move sums of that many bits."""
    cycles = -(-bits // hardware.tile.htree.bits_per_cycle)
    return priced_action(
        hardware,
        f"{tile}.htree",
        ("htree", "transfer"),
        n_tokens,
        duration_ps=cycles_ps(cycles, hardware.chip.clock_mhz),
        bits=bits,
        movement=Movement(pe, tile, "partial_sums", "htree"),
    )

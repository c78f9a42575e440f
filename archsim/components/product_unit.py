"""Products of two activities: the digital unit of a tile, and loading an operand into crossbars.

The unit takes one token of the source at a time. Of every non-zero value it reads the operand's row,
bit by bit, and adds the value, shifted, to one sum per lane where the bit is one; zeros cost nothing.
Exact, so it has no counterpart in `analog`. Source: assumption, an output-stationary array of adders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import Movement
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


@dataclass(frozen=True)
class ProductLoad:
    """Work of a unit, token by token; arrays of int64, one entry per token."""

    n_tokens: int
    token_bits: int
    """Bits of one token of the source."""
    row_bits: int
    """Bits of the operand that meet one value of a token."""
    active_values: np.ndarray
    """Values of the token that are not zero."""
    additions: np.ndarray
    """Operand bits that are one, over the rows of all active values."""


def multiply_actions(hardware: Hardware, tile: str, unit: str, load: ProductLoad) -> tuple[Action, ...]:
    """Fetch a token, read the operand's rows of its active values, add them up.

    A lane takes a bit of the operand per cycle, as far as the tile buffer delivers them; a token without spikes
    takes the cycle in which that is found out.
    """
    clock_mhz, buffer = hardware.chip.clock_mhz, f"{tile}.buffer"
    width = hardware.tile.pe.fetch_bits_per_cycle
    row_cycles = ceil_div(load.row_bits, min(width, hardware.tile.product_unit.lanes))
    return (
        _load_action(hardware, buffer, Movement(buffer, unit, "spikes", "tile_buffer"), load.n_tokens, load.token_bits),
        # the rows stream through the adders, so reading them takes no time of its own
        _load_action(
            hardware,
            buffer,
            Movement(buffer, unit, "weights", "tile_buffer"),
            load.n_tokens,
            load.active_values * load.row_bits,
        ).without_duration(),
        priced_action(
            hardware,
            unit,
            ("product_unit", "accumulate"),
            load.n_tokens,
            duration_ps=cycles_ps(np.maximum(load.active_values * row_cycles, 1), clock_mhz),
            count=load.additions,
        ),
    )


def load_operand_action(hardware: Hardware, tile: str, pe: str, n_tokens: int, n_values: int) -> Action:
    """Read the part of an operand that a PE will write to its crossbars, at the PE's fetch width."""
    movement = Movement(f"{tile}.buffer", pe, "weights", "tile_buffer")
    return _load_action(hardware, f"{tile}.buffer", movement, n_tokens, n_values * hardware.mapping.operand_bits)


def _load_action(hardware: Hardware, buffer: str, movement: Movement, n_tokens: int, bits: int | np.ndarray) -> Action:
    """Read bits from the tile buffer; an access is as wide as the row registers of a PE."""
    pe = hardware.tile.pe
    accesses, cycles = (-(-np.asarray(bits) // n) for n in (pe.crossbars * pe.crossbar.rows, pe.fetch_bits_per_cycle))
    return priced_action(
        hardware,
        buffer,
        ("tile_buffer", "read"),
        n_tokens,
        duration_ps=cycles_ps(cycles, hardware.chip.clock_mhz),
        count=accesses,
        bits=bits,
        movement=movement,
    )

"""Digital MAC unit of a tile: computes a first layer exactly, from weights in an SRAM of its own.

A unit serves one column block, one output position at a time: `lanes` products with their additions
per chip cycle. Every product is computed, zeros and padding too. Reading the tile buffer and the
weights takes no time of its own, because both can run ahead of the products (assumption).
"""

from __future__ import annotations

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import Movement
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


def multiply_actions(
    hardware: Hardware, tile: str, path: str, n_tokens: int, n_inputs: int, input_bits: int, n_products: int
) -> tuple[Action, Action, Action]:
    """Read `n_inputs` values and the weight of every product, then multiply and add."""
    weights = f"{path}.weights"
    return (
        priced_action(
            hardware,
            f"{tile}.buffer",
            ("tile_buffer", "read"),
            n_tokens,
            bits=n_inputs * input_bits,
            movement=Movement(f"{tile}.buffer", path, "inputs", "tile_buffer"),
        ),
        priced_action(
            hardware,
            weights,
            ("mac_weights", "read"),
            n_tokens,
            bits=n_products * hardware.mapping.weight_bits,
            movement=Movement(weights, path, "weights", "tile_buffer"),
        ),
        priced_action(
            hardware,
            path,
            ("mac", "multiply_add"),
            n_tokens,
            duration_ps=cycles_ps(ceil_div(n_products, hardware.tile.mac.lanes), hardware.chip.clock_mhz),
            count=n_products,
        ),
    )

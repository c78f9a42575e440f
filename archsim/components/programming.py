"""Weights that come during a run: their fetch from off chip, and the control of rounds that use the same crossbars.

Writing the cells is `crossbar.write_action`.
"""

from __future__ import annotations

from archsim.components.netlist import Action, constant
from archsim.components.pricing import cycles_ps
from archsim.eventlog import Movement
from archsim.hardware.models import Hardware
from archsim.units import ceil_div

PORT = "weights"
"""Component through which weights come on chip."""


def fetch_action(hardware: Hardware, layer: str, n_tokens: int, bits: int) -> Action:
    """Fetch the weights of one PE from off chip, where the chip has no DRAM.

    They come at the width of the global buffer, and the memory they come from costs no energy (assumptions).
    """
    cycles = ceil_div(bits, hardware.chip.global_buffer.bits_per_cycle)
    return Action(
        PORT,
        "fetch",
        constant(int(cycles_ps(cycles, hardware.chip.clock_mhz)), n_tokens),
        constant(1, n_tokens),
        constant(bits, n_tokens),
        constant(0.0, n_tokens, float),
        Movement("off_chip", layer, "weights", "dram"),
    )


def control_action(name: str, n_tokens: int) -> Action:
    """A signal to or from all PEs of a round; it takes neither time nor energy (assumption)."""
    nothing = constant(0, n_tokens)
    return Action("rounds", name, nothing, constant(1, n_tokens), nothing, constant(0.0, n_tokens, float))

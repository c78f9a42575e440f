"""Input and output port of the chip: global buffer to NoC, and back."""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import DataClass, Movement
from archsim.hardware.models import Hardware


def output_action(hardware: Hardware, n_tokens: int, bits: int | np.ndarray) -> Action:
    """Write one output position of one column block to the global buffer."""
    movement = Movement("output", "global_buffer", "spikes", "global_buffer")
    return _access(hardware, "output", "write", n_tokens, bits, movement)


def stage_write_action(
    hardware: Hardware, name: str, data_class: DataClass, n_tokens: int, bits: int | np.ndarray
) -> Action:
    """Stage one position of one column block."""
    movement = Movement(name, "global_buffer", data_class, "global_buffer")
    return _access(hardware, "global_buffer", "write", n_tokens, bits, movement)


def stage_read_action(hardware: Hardware, name: str, data_class: DataClass, n_tokens: int, bits: int) -> Action:
    """Read one position that waits in the global buffer, all channels that a port serves."""
    return _access(hardware, name, "read", n_tokens, bits, Movement("global_buffer", name, data_class, "global_buffer"))


def _access(
    hardware: Hardware, port: str, name: str, n_tokens: int, bits: int | np.ndarray, movement: Movement
) -> Action:
    cycles = -(-np.asarray(bits) // hardware.chip.global_buffer.bits_per_cycle)
    duration_ps = cycles_ps(cycles, hardware.chip.clock_mhz)
    return priced_action(
        hardware, port, ("global_buffer", name), n_tokens, duration_ps=duration_ps, bits=bits, movement=movement
    )

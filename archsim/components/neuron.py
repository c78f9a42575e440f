"""Neuron module, of a tile or the chip, and its V_mem port; and the pooling of the spikes it fires.

Every neuron of a token is updated, spikes or not, because it leaks and has a bias. A batch of
`lanes` neurons reads its potentials, is updated, and writes them back, one after the other, on one
V_mem port: as wide as the lanes, or of `v_mem_bits_per_cycle`.
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import Level, Movement
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


def update_actions(
    hardware: Hardware, module: str, n_tokens: int, n_neurons: int, state_words: int = 1, shared_channels: int = 1
) -> tuple[Action, Action, Action]:
    """Read the state, update, write it back, for the neurons of one output position and column block.

    `state_words` is 2 where the synapse has a current of its own: twice the bits, twice the accesses.
    Where channels share a unit it reads and writes one potential, and takes an update per channel in between;
    each costs the energy of a whole update, although the leak is in the first one only (assumption, an upper bound).
    """
    neuron, clock_mhz = hardware.chip.neuron, hardware.chip.clock_mhz
    n_units, in_turn = ceil_div(n_neurons, shared_channels), min(n_neurons, shared_channels)
    batches = ceil_div(n_units, neuron.lanes)
    bits = n_units * neuron.v_mem_bits * state_words
    access_ps = cycles_ps(_access_cycles(hardware, bits, batches * state_words), clock_mhz)
    path, memory = f"{module}.neuron", f"{module}.v_mem"
    read = priced_action(
        hardware,
        memory,
        ("v_mem", "read"),
        n_tokens,
        duration_ps=access_ps,
        count=n_units,
        bits=bits,
        movement=Movement(memory, path, "v_mem", _level(hardware)),
    )
    update = priced_action(
        hardware,
        path,
        ("neuron", "update"),
        n_tokens,
        duration_ps=cycles_ps(batches * in_turn * neuron.cycles_per_update, clock_mhz),
        count=n_neurons,
    )
    write = priced_action(
        hardware,
        memory,
        ("v_mem", "write"),
        n_tokens,
        duration_ps=access_ps,
        count=n_units,
        bits=bits,
        movement=Movement(path, memory, "v_mem", _level(hardware)),
    )
    return read, update, write


def _level(hardware: Hardware) -> Level:
    """Memories of the chip's own module count with the chip's other memory."""
    return "tile_buffer" if hardware.chip.neuron.level == "tile" else "global_buffer"


def _access_cycles(hardware: Hardware, bits: int, by_lanes: int) -> int:
    """Cycles that the V_mem port takes for some bits; `by_lanes` where it is as wide as the lanes."""
    width = hardware.chip.neuron.v_mem_bits_per_cycle
    return by_lanes if width == "auto" else ceil_div(bits, width)


def current_actions(
    hardware: Hardware, module: str, block: str, n_tokens: tuple[int, int], n_neurons: int
) -> tuple[Action, Action]:
    """Keep weighted sums in V_mem memory (tokens of the first timestep), and read them back (tokens of every one).

    Each column block has ports of its own for both, parts that can be busy at the same time.
    """
    bits = n_neurons * hardware.tile.accumulator.bits
    cycles = _access_cycles(hardware, bits, ceil_div(n_neurons, hardware.chip.neuron.lanes))
    access_ps = cycles_ps(cycles, hardware.chip.clock_mhz)
    memory, path = f"{module}.v_mem", f"{module}.neuron"
    kept, read = (
        priced_action(
            hardware,
            f"{memory}.{block}.{port}",
            ("v_mem", name),
            number,
            duration_ps=access_ps,
            count=n_neurons,
            bits=bits,
            movement=Movement(source, destination, "v_mem", _level(hardware)),
        )
        for port, name, number, source, destination in (
            ("keep", "write", n_tokens[0], path, memory),
            ("current", "read", n_tokens[1], memory, path),
        )
    )
    return kept, read


def pool_action(hardware: Hardware, module: str, n_tokens: int, n_channels: int) -> Action:
    """Add one position's spikes to the running sums of its window: one cycle."""
    return priced_action(
        hardware,
        f"{module}.pooling",
        ("pooling", "add"),
        n_tokens,
        duration_ps=cycles_ps(1, hardware.chip.clock_mhz),
        count=n_channels,
    )


def pool_emits(conv_hw: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """Which positions of a frame complete a pooling window, in raster order, bool.

    Windows complete in raster order too, so the k-th completion is the k-th pooled position.
    """
    completes = [
        (np.arange(size) >= k - 1) & ((np.arange(size) - (k - 1)) % s == 0)
        for size, k, s in zip(conv_hw, kernel, stride, strict=True)
    ]
    return (completes[0][:, None] & completes[1]).ravel()

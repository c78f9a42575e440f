"""Parts of a systolic array: what a fold takes and costs in the array, its scratchpads, neuron units and buffers.

A fold streams `streamed` operands through R rows and C columns of PEs, skewed by a cycle from PE to PE. With outputs
stationary, positions and filters are fixed and weights stream; the sums leave through the rows. With weights
stationary, R cycles load them, then positions stream. Either takes

    2 R + C + streamed - 2 cycles.

Source: SCALE-Sim (Samajdar et al., ISPASS 2020), runtime of one fold; R less where weights stay from the timestep
before.
Every PE toggles in every cycle of a fold; accumulators and weight scratchpads only where the input is not zero (SATA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from archsim.components.netlist import Action, constant
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import DataClass, Movement
from archsim.hardware.systolic import SystolicArray

ARRAY = "pe_array"
SCRATCHPADS = "pe_array.scratchpads"
NEURON = "pe_array.neuron"
POOLING = "pooling"
OUTPUT = "output"
WEIGHTS, INPUTS, OUTPUTS = "weight_buffer", "ifmap_buffer", "ofmap_buffer"
READ_PORTS = {WEIGHTS: f"{WEIGHTS}.read", INPUTS: f"{INPUTS}.read", OUTPUTS: f"{OUTPUTS}.psums"}
"""Ports by which the array reaches the buffers while the others fill or empty them (assumption: two ports)."""
STATE_PORT = f"{OUTPUTS}.v_mem"
"""Port by which the neuron units reach the potentials in the output buffer."""


def fold_cycles(rows: int, cols: int, streamed: ArrayLike) -> np.ndarray:
    """Cycles of a fold, from the first operand's entry to the last sum's exit.

    Args:
        rows: Rows of the array.
        cols: Columns of the array.
        streamed: Operands that pass every PE, int64 of any shape.

    Source: SCALE-Sim, see the module.
    """
    return 2 * rows + cols + np.asarray(streamed) - 2


@dataclass(frozen=True)
class FoldLoad:
    """What the folds of a lane do; arrays have one entry per fold, int64."""

    streamed: np.ndarray
    """Operands that pass every PE."""
    preloaded: np.ndarray
    """Whether the weights are there from the fold before, bool."""
    accumulates: np.ndarray
    """Operations on inputs that are not zero."""
    weight_bits: np.ndarray
    input_bits: np.ndarray
    psum_bits_in: np.ndarray
    """Partial sums read from the output buffer."""
    psum_bits_out: np.ndarray
    """Partial sums written to it."""
    input_class: DataClass


def fold_actions(hardware: SystolicArray, load: FoldLoad) -> tuple[Action, ...]:
    """Actions of the array for a lane of folds: buffers that hold it up, then the fold itself.

    A buffer moves its operands while they stream; it holds the array by as much as it takes longer.
    """
    array, n_folds = hardware.array, len(load.streamed)
    cycles = fold_cycles(array.rows, array.cols, load.streamed) - np.where(load.preloaded, array.rows, 0)
    streams = (
        (WEIGHTS, "read", load.weight_bits, Movement(WEIGHTS, ARRAY, "weights", "global_buffer")),
        (INPUTS, "read", load.input_bits, Movement(INPUTS, ARRAY, load.input_class, "global_buffer")),
        (OUTPUTS, "read", load.psum_bits_in, Movement(OUTPUTS, ARRAY, "partial_sums", "global_buffer")),
        (OUTPUTS, "write", load.psum_bits_out, Movement(ARRAY, OUTPUTS, "partial_sums", "global_buffer")),
    )
    actions, waited = [], np.zeros(n_folds, np.int64)
    for buffer, name, bits, movement in streams:
        if bits.any():
            held = np.maximum(-(-bits // hardware.buffers.bits_per_cycle) - load.streamed - waited, 0)
            waited = waited + held
            duration_ps = cycles_ps(held, hardware.chip.clock_mhz)
            action = buffer_action(hardware, buffer, name, bits, movement, duration_ps)
            actions.append(action.at(READ_PORTS[buffer]))
    pe, toggles = array.pe, cycles * array.n_pes
    spads = pe.input_spad_bytes + pe.psum_spad_bytes
    duration_ps = cycles_ps(cycles, hardware.chip.clock_mhz)
    mac = f"{pe.mac}_mac"
    fold = priced_action(hardware, ARRAY, (mac, "cycle"), n_folds, duration_ps=duration_ps, count=toggles)
    return (
        *actions,
        fold,
        priced_action(hardware, ARRAY, (mac, "accumulate"), n_folds, count=load.accumulates),
        priced_action(hardware, SCRATCHPADS, ("scratchpad", "access"), n_folds, count=toggles * spads),
        replace(
            priced_action(
                hardware,
                SCRATCHPADS,
                ("scratchpad", "access"),
                n_folds,
                count=load.accumulates * pe.weight_spad_bytes,
            ),
            name="access_weights",
        ),
        priced_action(hardware, NEURON, (pe.neuron, "cycle"), n_folds, count=toggles),
    )


def update_action(hardware: SystolicArray, neurons: np.ndarray) -> Action:
    """Update the neurons of a fold, int64 per fold, as many side by side as there are PEs."""
    turns = -(-neurons // hardware.array.n_pes)
    duration_ps = cycles_ps(turns * hardware.chip.neuron.cycles_per_update, hardware.chip.clock_mhz)
    entry = (hardware.array.pe.neuron, "update")
    return priced_action(hardware, NEURON, entry, len(neurons), duration_ps=duration_ps, count=neurons)


def pooling_action(hardware: SystolicArray, spikes: np.ndarray) -> Action:
    """Add spikes to the running sums of their windows while they pass, in no time (assumption)."""
    return priced_action(hardware, POOLING, ("pooling", "add"), len(spikes), count=spikes)


def buffer_action(
    hardware: SystolicArray,
    buffer: str,
    name: str,
    bits: np.ndarray,
    movement: Movement,
    duration_ps: np.ndarray | None = None,
) -> Action:
    """Read or write bits of a global buffer; by default for as long as its width takes."""
    if duration_ps is None:
        duration_ps = cycles_ps(-(-bits // hardware.buffers.bits_per_cycle), hardware.chip.clock_mhz)
    return priced_action(
        hardware, buffer, (buffer, name), len(bits), duration_ps=duration_ps, bits=bits, movement=movement
    )


def output_action(bits: np.ndarray) -> Action:
    """The output port: what it passes on is there; costs nothing."""
    n = len(bits)
    return Action(OUTPUT, "write", constant(0, n), constant(1, n), bits, constant(0.0, n, np.float64))


def passing_action(n_folds: int) -> Action:
    """Sums without neurons pass the neuron units as they are; costs nothing."""
    zero = constant(0, n_folds)
    return Action(NEURON, "pass", zero, constant(1, n_folds), zero, constant(0.0, n_folds, np.float64))


def parts(hardware: SystolicArray) -> list[tuple[str, str, float, float]]:
    """Path, kind, area in um2 and leakage in mW of every part; DRAM is not on the chip, and the port has no area."""
    pe, n_pes = hardware.array.pe, hardware.array.n_pes
    spad_bytes = pe.input_spad_bytes + pe.weight_spad_bytes + pe.psum_spad_bytes
    made_of = (
        (ARRAY, "pe_array", f"{pe.mac}_mac", n_pes),
        (SCRATCHPADS, "scratchpad", "scratchpad", n_pes * spad_bytes),
        (NEURON, "neuron", pe.neuron, n_pes),
        (WEIGHTS, WEIGHTS, WEIGHTS, 1),
        (INPUTS, INPUTS, INPUTS, 1),
        (OUTPUTS, OUTPUTS, OUTPUTS, 1),
        (POOLING, "pooling", "pooling", hardware.array.cols),
    )
    library = hardware.library
    sizes = [
        (
            path,
            kind,
            number * library.area_um2(entry, **hardware.cost_parameters(entry)),
            number * library.leakage_mw(entry, **hardware.cost_parameters(entry)),
        )
        for path, kind, entry, number in made_of
    ]
    ports = [(path, kind, 0.0, 0.0) for kind, path in (*READ_PORTS.items(), (OUTPUTS, STATE_PORT))]
    return [*sizes, *ports, ("dram", "dram", 0.0, 0.0), (OUTPUT, "output", 0.0, 0.0)]

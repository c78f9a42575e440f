"""Membrane potentials that V_mem has no room for: kept in DRAM, fetched for every update and written back.

A column block's potentials spill together. Between DRAM and a tile they travel the NoC. They are read at the
first timestep too, where they hold what the neurons begin with.
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action, LineBuffer, Target, Wire
from archsim.engine import dram, geometry
from archsim.engine.construction import Construction
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping
from archsim.mapping.placement import IO_NODE, has_chip_neurons


def is_spilled(build: Construction, layer: LayerMapping, block: int) -> bool:
    """Whether a column block's potentials are in DRAM."""
    return (layer.layer.name, layer.copy, block) in build.spilled_states


def add_update(build: Construction, layer: LayerMapping, block: int, inbox: int, update: Action, bits: int) -> int:
    """Connect the updates of a column block with its potentials in DRAM.

    Args:
        build: The netlist under construction.
        layer: The layer.
        block: The column block.
        inbox: Latch with its sums.
        update: The update of one token.
        bits: Bits of a token's potentials.

    Returns:
        The latch behind the updates, which gets every token.
    """
    name, module = build.block_name(layer, block), update.component
    index = _add_memory(build, layer, block)
    tokens = build.tokens(layer, build.every_frame)
    at = (layer.layer.name, tokens.positions, tokens.steps, tokens.number, bits)
    fetched = Stream(f"{name}.v_mem.fetch", *at, "v_mem", "dram", module, tokens.labels)
    stored = Stream(f"{name}.v_mem.store", *at, "v_mem", module, "dram", tokens.labels)
    state = dram.add_read(build, fetched, (index, 0))
    back = dram.add_write(build, stored, module, (Target("buffer", index),))
    if not has_chip_neurons(build.hardware, layer.layer):
        node = build.mapping.nodes[layer.home_tile(block)]
        arrived, leaving = (build.channel(f"{name}.v_mem.{what}") for what in ("arrived", "leaving"))
        build.transport.send(fetched, state, IO_NODE, [Arrival(node, Target("channel", arrived))])
        build.transport.send(stored, leaving, node, [Arrival(IO_NODE, back)])
        state, back = arrived, Target("channel", leaving)
    updated = build.channel(f"{name}.updated")
    lane = build.layer_lane(f"{name}.neuron", layer, (update,), inputs=(inbox, state), output=updated)
    lane.wires, lane.reserves = (Wire(back, update.duration_ps),), (back,)
    build.shared(module).lanes.append(lane)
    return updated


def _add_memory(build: Construction, layer: LayerMapping, block: int) -> int:
    """The potentials of a column block as positions: a token needs what was written one timestep before it."""
    per_frame = len(geometry.copy_tokens(layer))
    frame, position = np.divmod(np.arange(build.n_frames * per_frame), per_frame)
    is_first = build.step_of[frame] == 0
    need = np.where(is_first, frame * per_frame - 1 - per_frame, (frame - 1) * per_frame + position)
    need = np.maximum(need, -1)
    n_tokens = len(need)  # it counts what was written and is never full
    name = f"dram.{build.block_name(layer, block)}.v_mem"
    build.netlist.buffers.append(
        LineBuffer(name, layer.layer.name, n_tokens, 1, 1, need, np.arange(n_tokens) + per_frame)
    )
    return len(build.netlist.buffers) - 1

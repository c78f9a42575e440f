"""Sums of a sample's first timestep, kept in V_mem memory for the neurons of every timestep."""

from __future__ import annotations

import numpy as np

from archsim.components import neuron
from archsim.components.netlist import LineBuffer, Target, Wire
from archsim.engine import geometry
from archsim.engine.construction import Construction
from archsim.mapping import LayerMapping


def add_current_store(build: Construction, layer: LayerMapping, block: int, inbox: int, module: str) -> int:
    """Connect the store of one column block behind a latch; returns the latch behind the store.

    `module` is the path of what the store is a part of, a tile or the chip.
    """
    hardware, netlist, name = build.hardware, build.netlist, build.block_name(layer, block)
    path = f"{module}.v_mem"
    first, last = layer.col_blocks[block]
    once = len(geometry.copy_tokens(layer))
    position = np.arange(once)
    need = (build.sample_of[:, None] * once + position).ravel()
    last_frame = np.searchsorted(build.sample_of, np.arange(build.activity.n_samples), side="right") - 1
    last_use = (last_frame[:, None] * once + position).ravel()
    index, target = len(netlist.buffers), Target("buffer", len(netlist.buffers))
    netlist.buffers.append(LineBuffer(f"{path}.{name}.current", layer.layer.name, once, 1, 1, need, last_use))
    of_first, of_all = build.tokens(layer, build.first_frames), build.tokens(layer, build.every_frame)
    write, read = neuron.current_actions(hardware, module, name, (of_first.number, of_all.number), last - first)
    lane = build.layer_lane(f"{name}.keep", layer, (write,), of_first, inputs=(inbox,))
    lane.wires, lane.reserves = (Wire(target, 0),), (target,)
    netlist.server(f"{path}.{name}.keep", "shared", lane)
    outbox = build.channel(f"{path}.{name}.current.out")
    lane = build.layer_lane(f"{name}.current", layer, (read,), reader=(index, 0), release_after=1, output=outbox)
    netlist.server(f"{path}.{name}.current", "private", lane)
    return outbox

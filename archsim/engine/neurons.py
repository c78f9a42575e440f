"""From a column block's sums to its spikes: kept sums, neuron module and pooling, in the home tile or on the chip.

With `chip.neuron.level: chip` one module serves all tiles. It sits at the node of the input and
output port (assumption: beside the global buffer); sums travel there, and spikes leave from there.
"""

from __future__ import annotations

import numpy as np

from archsim.components import neuron
from archsim.components.netlist import Target
from archsim.engine import geometry
from archsim.engine.construction import Construction, Frames
from archsim.engine.current_store import add_current_store
from archsim.engine.spilled_state import add_update, is_spilled
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping, Mapping
from archsim.mapping.placement import IO_NODE, has_chip_neurons
from archsim.mapping.rules import shared_channels


def add_neurons(build: Construction, layer: LayerMapping, block: int, summed: int) -> int:
    """Connect the neurons of a column block behind the latch with its sums; returns the latch behind them."""
    if has_chip_neurons(build.hardware, layer.layer):
        summed = _send_sums(build, layer, block, summed)
    if build.read_frames(layer) != build.every_frame:
        summed = add_current_store(build, layer, block, summed, module(build.mapping, layer, block))
    fired = _add_updates(build, layer, block, summed)
    return fired if layer.layer.pool is None else _add_pooling(build, layer, block, fired)


def module(mapping: Mapping, layer: LayerMapping, block: int) -> str:
    """Path of what a column block's neuron module is a part of: its home tile, or the chip."""
    return "chip" if has_chip_neurons(mapping.hardware, layer.layer) else f"tile{layer.home_tile(block)}"


def origin(mapping: Mapping, layer: LayerMapping, block: int) -> int:
    """Mesh node from which a column block's output leaves."""
    return IO_NODE if has_chip_neurons(mapping.hardware, layer.layer) else mapping.nodes[layer.home_tile(block)]


def emitted_frames(build: Construction, layer: LayerMapping) -> Frames:
    """Frames of which a layer sends anything: of a readout only those of the last timestep, unless each is judged."""
    if layer.layer.neuron.kind == "accumulate" and build.activity.exits is None:
        return Frames(build.activity.n_samples, (build.activity.n_timesteps - 1, 1))
    return build.every_frame


def _send_sums(build: Construction, layer: LayerMapping, block: int, summed: int) -> int:
    """Carry a column block's sums to the chip's neuron module; returns the latch before it."""
    name, (first, last) = build.block_name(layer, block), layer.col_blocks[block]
    tokens = build.tokens(layer, build.read_frames(layer))
    inbox = build.channel(f"chip.{name}.sums")
    stream = Stream(
        f"{name}.sums",
        layer.layer.name,
        tokens.positions,
        tokens.steps,
        tokens.number,
        (last - first) * build.hardware.tile.accumulator.bits,
        "partial_sums",
        layer.layer.name,
        "chip.neuron",
        tokens.labels,
    )
    home = build.mapping.nodes[layer.home_tile(block)]
    build.transport.send(stream, summed, home, [Arrival(IO_NODE, Target("channel", inbox))])
    return inbox


def _add_updates(build: Construction, layer: LayerMapping, block: int, inbox: int) -> int:
    spec, hardware, path = layer.layer, build.hardware, module(build.mapping, layer, block)
    name, (first, last) = build.block_name(layer, block), layer.col_blocks[block]
    fired = build.channel(f"{path}.{name}.{'out' if spec.pool is None else 'fired'}")
    n_tokens = build.tokens(layer, build.every_frame).number
    shared = shared_channels(hardware, spec)
    updates = neuron.update_actions(hardware, path, n_tokens, last - first, spec.neuron.state_words, shared)
    if is_spilled(build, layer, block):
        bits, _ = geometry.state_bits(build.mapping, layer, block)
        updated = add_update(build, layer, block, inbox, updates[1], bits // len(geometry.copy_tokens(layer)))
        lane = build.layer_lane(f"{name}.fire", layer, (), inputs=(updated,), output=fired)
        build.netlist.server(lane.name, "private", lane)
    else:
        lane = build.layer_lane(f"{name}.neuron", layer, updates, inputs=(inbox,), output=fired)
        build.shared(f"{path}.neuron").lanes.append(lane)
    if emitted_frames(build, layer) != build.every_frame:
        lane.emit = _last_step_only(build, layer)
    elif spec.pool is None:
        lane.emit = build.emission.sends(layer, block)
    return fired


def _add_pooling(build: Construction, layer: LayerMapping, block: int, fired: int) -> int:
    spec, path = layer.layer, module(build.mapping, layer, block)
    assert spec.pool is not None, "asked for layers that pool only"
    name, (first, last) = build.block_name(layer, block), layer.col_blocks[block]
    outbox = build.channel(f"{path}.{name}.out")
    frames = emitted_frames(build, layer)
    tokens = build.tokens(layer, frames)
    pool = neuron.pool_action(build.hardware, path, tokens.number, last - first)
    pooling = build.layer_lane(f"{name}.pooling", layer, (pool,), inputs=(fired,), output=outbox)
    completes = neuron.pool_emits((spec.conv_shape[1], spec.conv_shape[2]), spec.pool.kernel, spec.pool.stride)
    pooling.n_tokens = tokens.number
    pooling.steps = frames.steps
    completes = completes[geometry.copy_tokens(layer)]
    pooling.emit = np.tile(completes, tokens.number // len(completes))
    sends = build.emission.sends(layer, block)
    if sends is not None:
        pooling.emit[np.flatnonzero(pooling.emit)[~sends]] = False
    build.shared(f"{path}.pooling").lanes.append(pooling)
    return outbox


def _last_step_only(build: Construction, layer: LayerMapping) -> np.ndarray:
    is_last = build.step_of == build.activity.n_timesteps - 1
    return np.repeat(is_last, len(geometry.copy_tokens(layer)))

"""Builds the netlist of a crossbar chip from a mapping and what its network does.

Path of a token: input port, NoC, tile line buffer, PE (fetch, row drive and read, conversion,
shift-and-add), H-tree, accumulator where a column block has several row blocks, neuron module,
pooling, NoC to the next layer's tiles, and at last the output port. Entry: `build_netlist`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsim.activity import Activity, LayerActivity, ReadActivity, read_activity
from archsim.components import (
    accumulator,
    adc,
    chip_ports,
    crossbar,
    htree,
    line_buffer,
    neuron,
    noc,
)
from archsim.components.line_buffer import Window
from archsim.components.netlist import (
    UNBOUNDED,
    Action,
    ComponentInfo,
    Lane,
    LineBuffer,
    Netlist,
    Server,
    Target,
    Wire,
)
from archsim.errors import MappingError
from archsim.eventlog import DataClass
from archsim.hardware import rollup
from archsim.mapping import LayerMapping, Mapping, PePlace
from archsim.units import bits_for
from archsim.workload.network import INPUT, Shape

IO_NODE = 0
"""Mesh node of the input and output port: the corner of tile 0 (assumption)."""


def build_netlist(mapping: Mapping, activity: Activity) -> Netlist:
    """Connect every part that the mapping uses, with service times and energies from the activity.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    check_buffers(mapping)
    return _Builder(mapping, activity).build()


def check_buffers(mapping: Mapping) -> None:
    """Check what can be checked before anything has run: line buffers and V_mem stores.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    for layer in mapping.layers:
        line_buffer.capacity(mapping.hardware, layer.layer.name, _window(mapping, layer))
    available = mapping.hardware.chip.neuron.v_mem_kib
    for tile, bits in _v_mem_bits(mapping).items():
        if available != "auto" and bits > available * 8192:
            raise MappingError(
                f"chip.neuron.v_mem_kib is {available}; tile {tile} holds neurons with {bits} bits of membrane "
                f"potential and needs {bits / 8192:.4g} KiB. Raise it or set it to auto."
            )


@dataclass(frozen=True)
class _Stream:
    """Tokens that travel together: who sends them, how many per frame, how wide."""

    name: str
    layer: str
    positions: int
    steps: tuple[int, int]
    n_tokens: int
    bits: int
    data_class: DataClass
    source: str
    destination: str


@dataclass(frozen=True)
class _Arrival:
    """One destination of a stream: its mesh node, where it ends, what storing it costs."""

    node: int
    target: Target
    stores: tuple[Action, ...] = ()


class _Builder:
    """State of one construction: the netlist so far and the servers that several lanes share."""

    def __init__(self, mapping: Mapping, activity: Activity) -> None:
        self.mapping = mapping
        self.hardware = mapping.hardware
        self.activity = activity
        self.n_frames = activity.n_samples * activity.n_timesteps
        self.all_steps = (0, activity.n_timesteps)
        self.netlist = Netlist()
        self.shared: dict[str, Server] = {}
        self.buffers: dict[tuple[str, int], int] = {}
        self.buffer_bits: dict[int, int] = {}
        self.v_mem_bits = _v_mem_bits(mapping)

    def build(self) -> Netlist:
        for layer in self.mapping.layers:
            self._add_line_buffers(layer)
        self._add_input_port()
        for layer in self.mapping.layers:
            self._add_layer(layer)
        self.netlist.components = self._parts()
        return self.netlist

    # Layer geometry and activity

    def _window(self, layer: LayerMapping) -> Window:
        return _window(self.mapping, layer)

    def _source_shape(self, layer: LayerMapping) -> Shape:
        return _source_shape(self.mapping, layer)

    def _input_bits(self, layer: LayerMapping) -> int:
        if self.hardware.mapping.input_coding == "binary":
            return 1
        return self.activity.layers[layer.layer.name].input_bits

    def _output_bits(self, layer: LayerMapping) -> int:
        """Width of one value on the wire: what the next layer reads, or what the output port stores."""
        following = self._following(layer)
        if following is not None:
            return self._input_bits(following)
        if layer.layer.neuron.kind == "accumulate":
            return self.hardware.chip.neuron.v_mem_bits
        pool = layer.layer.pool
        largest = int(self.activity.layers[layer.layer.name].spikes.max(initial=0))
        return bits_for(largest * (math.prod(pool.kernel) if pool else 1))

    def _following(self, layer: LayerMapping) -> LayerMapping | None:
        return next((item for item in self.mapping.layers if item.layer.source == layer.layer.name), None)

    def _reads(self, layer: LayerMapping) -> ReadActivity:
        spec, values = layer.layer, self.activity.layers[layer.layer.name]
        return read_activity(
            _driven(values, self.hardware.mapping.input_coding),
            self._input_bits(layer),
            layer.row_blocks,
            spec.stride,
            spec.padding,
            spec.conv_shape[1:],
        )

    # Line buffers and the flows that fill them

    def _add_line_buffers(self, layer: LayerMapping) -> None:
        window = self._window(layer)
        capacity = line_buffer.capacity(self.hardware, layer.layer.name, window)
        need = line_buffer.needed_positions(window, self.n_frames)
        last_use = line_buffer.last_uses(window, self.n_frames)
        for tile in layer.tiles:
            sources = self._sources(layer, tile)
            n_readers = sum(pe.tile == tile for pe in layer.pes)
            self.buffers[layer.layer.name, tile] = len(self.netlist.buffers)
            self.netlist.buffers.append(
                LineBuffer(f"tile{tile}.buffer", layer.layer.name, capacity, len(sources), n_readers, need, last_use)
            )
            channels = sum(last - first for first, last in self._source_blocks(layer, sources))
            self.buffer_bits[tile] = capacity * channels * self._input_bits(layer)

    def _sources(self, layer: LayerMapping, tile: int) -> list[int]:
        """Column blocks of the layer before that a tile needs; the input port is block 0."""
        if layer.layer.source == INPUT:
            return [0]
        _, height, width = self._source_shape(layer)
        features = height * width if layer.layer.kind == "linear" else 1
        blocks = {pe.row_block for pe in layer.pes if pe.tile == tile}
        spans = {(first, last) for block in blocks for _, _, first, last in layer.row_blocks[block]}
        needed = [(first // features, (last - 1) // features) for first, last in spans]
        before = self.mapping.layer(layer.layer.source)
        return [
            index
            for index, (first, last) in enumerate(before.col_blocks)
            if any(first <= high and low < last for low, high in needed)
        ]

    def _source_blocks(self, layer: LayerMapping, sources: list[int]) -> list[tuple[int, int]]:
        if layer.layer.source == INPUT:
            return [(0, self.mapping.network.input_shape[0])]
        before = self.mapping.layer(layer.layer.source)
        return [before.col_blocks[index] for index in sources]

    def _arrivals(self, layer: LayerMapping, block: int, stream: _Stream) -> list[_Arrival]:
        arrivals = []
        for tile in layer.tiles:
            sources = self._sources(layer, tile)
            if block in sources:
                target = Target("buffer", self.buffers[layer.layer.name, tile], sources.index(block))
                store = line_buffer.write_action(
                    self.hardware, f"tile{tile}.buffer", stream.source, stream.data_class, stream.n_tokens, stream.bits
                )
                arrivals.append(_Arrival(tile, target, (store,)))
        return arrivals

    def _add_input_port(self) -> None:
        channels, height, width = self.mapping.network.input_shape
        positions = height * width
        for layer in self.mapping.layers:
            if layer.layer.source != INPUT:
                continue
            bits = channels * self._input_bits(layer)
            self._require_global_buffer(bits * positions)
            stream = _Stream(
                INPUT, INPUT, positions, self.all_steps, self.n_frames * positions, bits, "inputs", INPUT,
                layer.layer.name,
            )  # fmt: skip
            outbox = self._channel("input.out")
            action = chip_ports.input_action(self.hardware, stream.n_tokens, bits)
            lane = self._lane(stream, (action,), output=outbox)
            self.netlist.input_lanes.append(lane)
            self.netlist.server("input", "private", lane)
            self._send(stream, outbox, IO_NODE, self._arrivals(layer, 0, stream))

    def _require_global_buffer(self, frame_bits: int) -> None:
        capacity = self.hardware.chip.global_buffer.kib * 8192
        if frame_bits > capacity:
            raise MappingError(
                f"one input frame of network '{self.mapping.network.name}' has {frame_bits} bits; "
                f"chip.global_buffer.kib {self.hardware.chip.global_buffer.kib} holds {capacity}. "
                f"Raise it to {-(-frame_bits // 8192)}."
            )

    # One layer: PEs to neurons

    def _add_layer(self, layer: LayerMapping) -> None:
        reads = self._reads(layer)
        joins = [self._add_block(layer, block) for block in range(len(layer.col_blocks))]
        readers: dict[int, int] = {}
        for pe in layer.pes:
            reader = readers.get(pe.tile, 0)
            readers[pe.tile] = reader + 1
            outbox = self._add_pe(layer, pe, reads, reader)
            self._add_htree_lane(layer, pe, outbox, joins[pe.col_block][pe.row_block])

    def _add_pe(self, layer: LayerMapping, pe: PePlace, reads: ReadActivity, reader: int) -> int:
        hardware, path, block = self.hardware, pe.path, layer.row_blocks[pe.row_block]
        first, last = layer.col_blocks[pe.col_block]
        n_bits = self._input_bits(layer)
        load = crossbar.PeLoad.of(
            hardware,
            len(block),
            (last - first) * hardware.cols_per_weight,
            n_bits,
            reads.active_rows[:, pe.row_block],
            reads.active_reads[:, pe.row_block],
            reads.active_slices[:, pe.row_block],
        )
        data_class: DataClass = "inputs" if layer.layer.source == INPUT else "spikes"
        fetch = line_buffer.read_actions(
            hardware, f"tile{pe.tile}.buffer", path, data_class, load.n_tokens, load.n_crossbars, n_bits
        )
        stages = {
            "fetch": fetch,
            "crossbar": crossbar.read_actions(hardware, path, load),
            "adc": adc.convert_actions(hardware, path, load),
            "shift_add": adc.shift_add_actions(hardware, path, load),
        }
        source = (self.buffers[layer.layer.name, pe.tile], reader)
        outbox = self._channel(f"{path}.out")
        if not hardware.tile.pe.pipelined:
            actions = tuple(action for stage in stages.values() for action in stage)
            lane = self._layer_lane(path, layer, actions, reader=source, release_after=len(fetch), output=outbox)
            self.netlist.server(path, "private", lane)
            return outbox
        inbox: int | None = None
        for name, actions in stages.items():
            output = outbox if name == "shift_add" else self._channel(f"{path}.{name}.out")
            lane = self._layer_lane(
                f"{path}.{name}",
                layer,
                actions,
                inputs=() if inbox is None else (inbox,),
                reader=source if inbox is None else None,
                release_after=len(actions) if inbox is None else 0,
                output=output,
            )
            self.netlist.server(f"{path}.{name}", "private", lane)
            inbox = output
        return outbox

    def _add_htree_lane(self, layer: LayerMapping, pe: PePlace, outbox: int, join: int) -> None:
        tile, home = f"tile{pe.tile}", layer.home_tile(pe.col_block)
        first, last = layer.col_blocks[pe.col_block]
        action = htree.transfer_action(self.hardware, tile, pe.path, self._n_tokens(layer), last - first)
        output = join if home == pe.tile else self._channel(f"{pe.path}.egress")
        lane = self._layer_lane(f"{pe.path}.htree", layer, (action,), inputs=(outbox,), output=output)
        self._shared(f"{tile}.htree").lanes.append(lane)
        if home == pe.tile:
            return
        bits = (last - first) * self.hardware.tile.accumulator.bits
        stream = _Stream(
            f"{pe.path}.partial_sums", layer.layer.name, self._window(layer).n_outputs, self.all_steps,
            self._n_tokens(layer), bits, "partial_sums", layer.layer.name, layer.layer.name,
        )  # fmt: skip
        self._send(stream, output, pe.tile, [_Arrival(home, Target("channel", join))])

    def _add_block(self, layer: LayerMapping, block: int) -> list[int]:
        """Accumulator, neuron, pooling and departure of one column block; returns its join slots."""
        spec, hardware = layer.layer, self.hardware
        home = layer.home_tile(block)
        tile, name = f"tile{home}", f"{spec.name}.block{block}"
        first, last = layer.col_blocks[block]
        width, n_tokens = last - first, self._n_tokens(layer)
        joins = [self._channel(f"{tile}.{name}.row{row}") for row in range(len(layer.row_blocks))]
        inbox = joins[0]
        if len(joins) > 1:
            inbox = self._channel(f"{tile}.{name}.sums")
            add = accumulator.add_action(hardware, tile, n_tokens, len(joins), width)
            lane = self._layer_lane(f"{name}.accumulate", layer, (add,), inputs=tuple(joins), output=inbox)
            self._shared(f"{tile}.accumulator").lanes.append(lane)
        outbox = self._channel(f"{tile}.{name}.out")
        is_readout = spec.neuron.kind == "accumulate"
        updates = neuron.update_actions(hardware, tile, n_tokens, width)
        fired = outbox if spec.pool is None else self._channel(f"{tile}.{name}.fired")
        lane = self._layer_lane(f"{name}.neuron", layer, updates, inputs=(inbox,), output=fired)
        if is_readout:
            lane.emit = self._last_step_only(layer)
        self._shared(f"{tile}.neuron").lanes.append(lane)
        if spec.pool is not None:
            pool = neuron.pool_action(hardware, tile, lane.n_emitted, width)
            pooling = self._layer_lane(f"{name}.pooling", layer, (pool,), inputs=(fired,), output=outbox)
            completes = neuron.pool_emits((spec.conv_shape[1], spec.conv_shape[2]), spec.pool.kernel, spec.pool.stride)
            pooling.n_tokens = lane.n_emitted
            pooling.emit = np.tile(completes, lane.n_emitted // len(completes))
            self._shared(f"{tile}.pooling").lanes.append(pooling)
        self._depart(layer, block, outbox, is_readout)
        return joins

    def _depart(self, layer: LayerMapping, block: int, outbox: int, is_readout: bool) -> None:
        first, last = layer.col_blocks[block]
        n_timesteps = self.activity.n_timesteps
        steps = (n_timesteps - 1, 1) if is_readout else self.all_steps
        positions = layer.layer.out_shape[1] * layer.layer.out_shape[2]
        following = self._following(layer)
        stream = _Stream(
            f"{layer.layer.name}.block{block}",
            layer.layer.name,
            positions,
            steps,
            self.activity.n_samples * steps[1] * positions,
            (last - first) * self._output_bits(layer),
            "spikes",
            layer.layer.name,
            following.layer.name if following else "output",
        )
        home = layer.home_tile(block)
        if following is not None:
            self._send(stream, outbox, home, self._arrivals(following, block, stream))
            return
        inbox = self._channel(f"output.block{block}")
        action = chip_ports.output_action(self.hardware, stream.n_tokens, stream.bits)
        lane = self._lane(stream, (action,), inputs=(inbox,))
        self.netlist.output_lanes.append(lane)
        self._shared("output").lanes.append(lane)
        self._send(stream, outbox, home, [_Arrival(IO_NODE, Target("channel", inbox))])

    def _last_step_only(self, layer: LayerMapping) -> np.ndarray:
        frames = np.arange(self.n_frames) % self.activity.n_timesteps == self.activity.n_timesteps - 1
        return np.repeat(frames, self._window(layer).n_outputs)

    # NoC

    def _send(self, stream: _Stream, outbox: int, node: int, arrivals: Sequence[_Arrival]) -> None:
        """Carry a stream from a node to its destinations, whose slots are reserved before injection."""
        if self.hardware.chip.noc.detail == "ideal":
            self._send_ideal(stream, outbox, node, arrivals)
        else:
            self._send_packets(stream, outbox, node, arrivals)

    def _send_ideal(self, stream: _Stream, outbox: int, node: int, arrivals: Sequence[_Arrival]) -> None:
        hardware, mesh_width = self.hardware, self.mapping.mesh_width
        origin = self._node(node)
        tree = noc.multicast_tree(origin, [self._node(arrival.node) for arrival in arrivals], mesh_width)
        transfer = noc.ideal_action(
            hardware, origin, len(tree.links), stream.n_tokens, stream.bits, stream.source, stream.destination,
            stream.data_class,
        )  # fmt: skip
        wires = tuple(
            Wire(
                arrival.target,
                noc.zero_load_ps(
                    hardware, len(noc.xy_route(origin, self._node(arrival.node), mesh_width)), stream.bits
                ),
            )
            for arrival in arrivals
        )
        stores = tuple(action for arrival in arrivals for action in arrival.stores)
        lane = self._lane(stream, (transfer, *stores), inputs=(outbox,), wires=wires, reserves=_targets(arrivals))
        self.netlist.server(f"noc.{stream.name}", "shared", lane)

    def _send_packets(self, stream: _Stream, outbox: int, node: int, arrivals: Sequence[_Arrival]) -> None:
        hardware, origin = self.hardware, self._node(node)
        by_node = {self._node(arrival.node): arrival for arrival in arrivals}
        tree = noc.multicast_tree(origin, list(by_node), self.mapping.mesh_width)
        inboxes = [self.netlist.channel(f"noc.router{at}.{port}.{stream.name}", UNBOUNDED) for at, port in tree.links]

        def wires_to(parent: int, delay_ps: int) -> tuple[Wire, ...]:
            return tuple(Wire(Target("channel", inboxes[child]), delay_ps) for child in tree.children(parent))

        what = (stream.n_tokens, stream.bits, stream.source, stream.destination, stream.data_class)
        inject = self._lane(
            stream,
            (noc.inject_action(hardware, origin, *what),),
            inputs=(outbox,),
            wires=wires_to(-1, noc.injection_delay_ps(hardware)),
            reserves=_targets(arrivals),
        )
        self._shared(f"noc.router{origin}.inject").lanes.append(inject)
        for index, link in enumerate(tree.links):
            hop = noc.hop_action(hardware, link, *what)
            if link[1] == noc.EJECT:
                arrival = by_node[link[0]]
                wires: tuple[Wire, ...] = (Wire(arrival.target, noc.ejection_delay_ps(hardware, stream.bits)),)
                actions = (hop, *arrival.stores)
            else:
                wires, actions = wires_to(index, noc.hop_delay_ps(hardware)), (hop,)
            lane = self._lane(stream, actions, inputs=(inboxes[index],), wires=wires)
            self._shared(f"noc.router{link[0]}.{link[1]}").lanes.append(lane)

    def _node(self, tile: int) -> int:
        x, y = self.mapping.tile_position(tile)
        return y * self.mapping.mesh_width + x

    # Small pieces

    def _channel(self, name: str) -> int:
        return self.netlist.channel(name, self.hardware.tile.pe.latch_depth)

    def _shared(self, name: str) -> Server:
        if name not in self.shared:
            self.shared[name] = self.netlist.server(name, "shared")
        return self.shared[name]

    def _n_tokens(self, layer: LayerMapping) -> int:
        return self.n_frames * self._window(layer).n_outputs

    def _layer_lane(
        self,
        name: str,
        layer: LayerMapping,
        actions: tuple[Action, ...],
        inputs: tuple[int, ...] = (),
        reader: tuple[int, int] | None = None,
        release_after: int = 0,
        output: int | None = None,
    ) -> Lane:
        return Lane(
            name,
            layer.layer.name,
            self._n_tokens(layer),
            self._window(layer).n_outputs,
            self.all_steps,
            actions,
            inputs,
            reader,
            release_after,
            output,
        )

    def _lane(
        self,
        stream: _Stream,
        actions: tuple[Action, ...],
        inputs: tuple[int, ...] = (),
        output: int | None = None,
        wires: tuple[Wire, ...] = (),
        reserves: tuple[Target, ...] = (),
    ) -> Lane:
        return Lane(
            stream.name,
            stream.layer,
            stream.n_tokens,
            stream.positions,
            stream.steps,
            actions,
            inputs,
            output=output,
            wires=wires,
            reserves=reserves,
        )

    def _parts(self) -> list[ComponentInfo]:
        """Every part with its area and leakage; parts that serve and have none are listed too."""
        parts: list[ComponentInfo] = []
        for tile in range(self.mapping.n_tiles):
            bits = (self.buffer_bits.get(tile, 0), self.v_mem_bits.get(tile, 0))
            parts += [
                ComponentInfo(f"tile{tile}.{part.path}", part.kind, part.area_um2, part.leakage_mw)
                for part in rollup.tile_parts(self.hardware, *bits)
            ]
        n_nodes = self.mapping.mesh_width * self.mapping.mesh_height
        parts += [
            ComponentInfo(part.path, part.kind, part.area_um2, part.leakage_mw)
            for part in rollup.chip_parts(self.hardware, n_nodes)
        ]
        known = {part.path for part in parts}
        for lane in self.netlist.lanes():
            for action in lane.actions:
                if action.component not in known:
                    known.add(action.component)
                    kind = "link" if action.component.startswith("noc.") else "port"
                    parts.append(ComponentInfo(action.component, kind, 0.0, 0.0))
        return parts


def _targets(arrivals: Sequence[_Arrival]) -> tuple[Target, ...]:
    return tuple(arrival.target for arrival in arrivals)


def _driven(values: LayerActivity, input_coding: str) -> np.ndarray:
    """Values as the rows see them: with binary coding anything above zero is one spike."""
    return (values.inputs > 0).astype(np.uint8) if input_coding == "binary" else values.inputs


def _window(mapping: Mapping, layer: LayerMapping) -> Window:
    spec = layer.layer
    _, height, width = _source_shape(mapping, layer)
    if spec.kind == "linear":
        return Window((height, width), (1, 1), None)
    return Window((height, width), spec.conv_shape[1:], spec.kernel, spec.stride, spec.padding)


def _source_shape(mapping: Mapping, layer: LayerMapping) -> Shape:
    source = layer.layer.source
    return mapping.network.input_shape if source == INPUT else mapping.network.layer(source).out_shape


def _v_mem_bits(mapping: Mapping) -> dict[int, int]:
    """Bits of membrane potential that each tile stores: of the neurons of its column blocks."""
    bits: dict[int, int] = {}
    for layer in mapping.layers:
        n_positions = _window(mapping, layer).n_outputs
        for block, (first, last) in enumerate(layer.col_blocks):
            home = layer.home_tile(block)
            n_neurons = (last - first) * n_positions
            bits[home] = bits.get(home, 0) + n_neurons * mapping.hardware.chip.neuron.v_mem_bits
    return bits

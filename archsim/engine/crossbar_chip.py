"""Builds the netlist of a crossbar chip from a mapping and what its network does.

Path of a token: input port, NoC, tile line buffer, PE (fetch, row drive and read, conversion,
shift-and-add), H-tree, accumulator where a column block has several row blocks, neuron module,
pooling, NoC to the next layer's tiles, and at last the output port. Entry: `build_netlist`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.activity import Activity, LayerActivity, ReadActivity, read_activity
from archsim.components import accumulator, adc, chip_ports, crossbar, htree, line_buffer, neuron
from archsim.components.line_buffer import Window
from archsim.components.netlist import Action, ComponentInfo, Lane, LineBuffer, Netlist, Server, Target, Wire
from archsim.engine import geometry
from archsim.engine.emission import Emission, Source
from archsim.engine.transport import Arrival, Stream, Transport
from archsim.errors import MappingError
from archsim.eventlog import DataClass
from archsim.hardware import rollup
from archsim.mapping import LayerMapping, Mapping, PePlace
from archsim.mapping.placement import IO_NODE
from archsim.workload.network import INPUT


def build_netlist(mapping: Mapping, activity: Activity) -> Netlist:
    """Connect every part that the mapping uses, with service times and energies from the activity.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    geometry.check_buffers(mapping)
    return _Builder(mapping, activity).build()


@dataclass(frozen=True)
class _Frames:
    """How many frames a lane serves, and of which timesteps of a sample they are: (first, number)."""

    number: int
    steps: tuple[int, int]


class _Builder:
    """State of one construction: the netlist so far and the servers that several lanes share."""

    def __init__(self, mapping: Mapping, activity: Activity) -> None:
        self.mapping = mapping
        self.hardware = mapping.hardware
        self.activity = activity
        self.n_frames = activity.n_samples * activity.n_timesteps
        self.all_steps = (0, activity.n_timesteps)
        self.every_frame = _Frames(self.n_frames, self.all_steps)
        self.first_frames = _Frames(activity.n_samples, (0, 1))
        self.netlist = Netlist()
        self.shared: dict[str, Server] = {}
        self.buffers: dict[tuple[str, int, int], int] = {}
        self.buffer_bits: dict[int, int] = {}
        self.v_mem_bits = geometry.v_mem_bits(mapping)
        self.stages: dict[str, int] = {}
        self.emission = Emission(mapping, activity)
        self.global_buffer_bits = 0
        self.skip_slots: dict[tuple[str, int, str], int] = {}
        self.transport = Transport(mapping, self.netlist)

    def build(self) -> Netlist:
        copies = [view for layer in self.mapping.layers for view in layer.views]
        for layer in copies:
            self._add_line_buffers(layer)
            self._add_skip_buffers(layer)
        self._add_input_port()
        for layer in self.mapping.layers:
            reads = self._reads(layer)
            for view in layer.views:
                self._add_layer(view, reads)
        self.netlist.components = self._parts()
        return self.netlist

    # Layer geometry and activity

    def _window(self, layer: LayerMapping) -> Window:
        return geometry.window(self.mapping, layer)

    def _reads(self, layer: LayerMapping) -> ReadActivity:
        spec, values = layer.layer, self.activity.layers[layer.layer.name]
        inputs = _driven(values, self.hardware.mapping.input_coding)
        if geometry.is_read_once(self.mapping, layer):
            inputs = self._only_frame(layer, inputs)
        return read_activity(
            inputs,
            self.emission.input_bits(layer),
            layer.row_blocks,
            spec.stride,
            spec.padding,
            spec.conv_shape[1:],
        )

    def _only_frame(self, layer: LayerMapping, inputs: np.ndarray) -> np.ndarray:
        """The frame that enters at every timestep, shape (sample, 1, channel, height, width)."""
        if self.activity.kind != "assumed" and (inputs != inputs[:, :1]).any():
            raise MappingError(
                f"mapping.first_layer is once, but the input of layer '{layer.layer.name}' differs from timestep to "
                "timestep. Set mapping.first_layer: repeat, or give images with workload.encoding: direct."
            )
        return inputs[:, :1]

    # Line buffers and the flows that fill them

    def _add_line_buffers(self, layer: LayerMapping) -> None:
        mapping = self.mapping
        capacity = geometry.buffer_capacity(mapping, layer)
        n_frames = self._read_frames(layer).number
        need, last_use = geometry.needs_and_uses(mapping, layer, n_frames, self.activity.n_timesteps)
        for tile in layer.tiles:
            sources = self._sources(layer, tile)
            n_readers = sum(pe.tile == tile for pe in layer.pes)
            covers: tuple[np.ndarray | None, ...] = ()
            if layer.layer.source != INPUT and not geometry.is_staged(mapping, layer):
                covers = self.emission.covers(mapping.layer(layer.layer.source), sources)
            name = layer.layer.name
            self.buffers[name, layer.copy, tile] = len(self.netlist.buffers)
            self.netlist.buffers.append(
                LineBuffer(f"tile{tile}.buffer", name, capacity, len(sources), n_readers, need, last_use, covers)
            )
            self._store_bits(tile, capacity * self._source_channels(layer, sources) * self.emission.input_bits(layer))

    def _add_skip_buffers(self, layer: LayerMapping) -> None:
        """Slots at the layer's home tiles for what joins its sums."""
        for joining in layer.layer.adds:
            capacity = geometry.join_capacity(self.mapping, layer, joining)
            value_bits = self.emission.output_bits(self.mapping.layer(joining))
            for block, (first, last) in enumerate(layer.col_blocks):
                home = layer.home_tile(block)
                name = f"tile{home}.{layer.layer.name}.block{block}.{joining}"
                self.skip_slots[layer.layer.name, block, joining] = self.netlist.channel(name, capacity)
                self._store_bits(home, capacity * (last - first) * value_bits)

    def _store_bits(self, tile: int, bits: int) -> None:
        self.buffer_bits[tile] = self.buffer_bits.get(tile, 0) + bits

    def _sources(self, layer: LayerMapping, tile: int) -> list[Source]:
        """Who sends what a tile needs: column blocks of the copies of the layer before; a port sends as block 0."""
        if layer.layer.source == INPUT or geometry.is_staged(self.mapping, layer):
            return [Source(0, 0)]
        _, height, width = geometry.source_shape(self.mapping, layer)
        features = height * width if layer.layer.kind == "linear" else 1
        blocks = {pe.row_block for pe in layer.pes if pe.tile == tile}
        spans = {(first, last) for block in blocks for rows in layer.row_blocks[block] for _, _, first, last in rows}
        needed = [(first // features, (last - 1) // features) for first, last in spans]
        before = self.mapping.layer(layer.layer.source)
        return [
            Source(block, copy)
            for block, (first, last) in enumerate(before.col_blocks)
            if any(first <= high and low < last for low, high in needed)
            for copy in range(before.n_copies)
        ]

    def _source_channels(self, layer: LayerMapping, sources: list[Source]) -> int:
        """Channels that a tile keeps of what its layer reads."""
        if layer.layer.source == INPUT or geometry.is_staged(self.mapping, layer):
            return geometry.source_shape(self.mapping, layer)[0]
        blocks = self.mapping.layer(layer.layer.source).col_blocks
        return sum(blocks[block][1] - blocks[block][0] for block in {source.block for source in sources})

    def _arrivals(self, layer: LayerMapping, source: Source, stream: Stream) -> list[Arrival]:
        """Line buffers of all copies of a layer that take a stream from one source."""
        arrivals = []
        for view in layer.views:
            for tile in view.tiles:
                sources = self._sources(view, tile)
                if source in sources:
                    buffer = self.buffers[view.layer.name, view.copy, tile]
                    target = Target("buffer", buffer, sources.index(source))
                    arrivals.append(self._stored(stream, tile, target))
        return arrivals

    def _stored(self, stream: Stream, tile: int, target: Target) -> Arrival:
        store = line_buffer.write_action(
            self.hardware, f"tile{tile}.buffer", stream.source, stream.data_class, stream.n_tokens, stream.bits
        )
        return Arrival(self.mapping.nodes[tile], target, (store,))

    def _add_input_port(self) -> None:
        channels, height, width = self.mapping.network.input_shape
        positions, readers = height * width, self.mapping.consumers(INPUT)
        bits = channels * max(self.emission.input_bits(layer) for layer in readers)
        self._require_global_buffer(bits * positions)
        destination = ", ".join(layer.layer.name for layer in readers)
        frames = self._read_frames(readers[0])
        n_tokens = frames.number * positions
        stream = Stream(INPUT, INPUT, positions, frames.steps, n_tokens, bits, "inputs", INPUT, destination)
        outbox = self._channel("input.out")
        lane = stream.lane((chip_ports.input_action(self.hardware, n_tokens, bits),), output=outbox)
        self.netlist.input_lanes.append(lane)
        self.netlist.server("input", "private", lane)
        arrivals = [arrival for layer in readers for arrival in self._arrivals(layer, Source(0, 0), stream)]
        self.transport.send(stream, outbox, IO_NODE, arrivals)

    def _require_global_buffer(self, bits: int) -> None:
        """Take room for frames in the global buffer: the network's input, and whatever is staged."""
        self.global_buffer_bits += bits
        kib = self.hardware.chip.global_buffer.kib
        if self.global_buffer_bits > kib * 8192:
            raise MappingError(
                f"the frames that network '{self.mapping.network.name}' keeps in the global buffer have "
                f"{self.global_buffer_bits} bits or more; chip.global_buffer.kib {kib} holds {kib * 8192}. "
                f"Raise it to {-(-self.global_buffer_bits // 8192)} at least."
            )

    # One layer: PEs to neurons

    def _add_layer(self, layer: LayerMapping, reads: ReadActivity) -> None:
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
        n_bits = self.emission.input_bits(layer)
        mine = self._labels(layer, self._read_frames(layer))
        rows = (reads.active_rows, reads.active_reads, reads.active_slices)
        load = crossbar.PeLoad.of(
            hardware,
            len(block),
            (last - first) * hardware.cols_per_weight,
            n_bits,
            *(counts[slice(None) if mine is None else mine, pe.row_block] for counts in rows),
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
        source = (self.buffers[layer.layer.name, layer.copy, pe.tile], reader)
        outbox = self._channel(f"{path}.out")
        if not hardware.tile.pe.pipelined:
            actions = tuple(action for stage in stages.values() for action in stage)
            frames = self._read_frames(layer)
            lane = self._layer_lane(path, layer, actions, frames, (), source, len(fetch), outbox)
            self.netlist.server(path, "private", lane)
            return outbox
        inbox: int | None = None
        for name, actions in stages.items():
            output = outbox if name == "shift_add" else self._channel(f"{path}.{name}.out")
            lane = self._layer_lane(
                f"{path}.{name}",
                layer,
                actions,
                self._read_frames(layer),
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
        frames = self._read_frames(layer)
        n_tokens = self._n_tokens(layer, frames)
        action = htree.transfer_action(self.hardware, tile, pe.path, n_tokens, last - first)
        output = join if home == pe.tile else self._channel(f"{pe.path}.egress")
        lane = self._layer_lane(f"{pe.path}.htree", layer, (action,), frames, inputs=(outbox,), output=output)
        self._shared(f"{tile}.htree").lanes.append(lane)
        if home == pe.tile:
            return
        bits = (last - first) * self.hardware.tile.accumulator.bits
        name, sums = layer.layer.name, f"{pe.path}.partial_sums"
        positions, labels = self._window(layer).n_outputs, self._labels(layer, frames)
        stream = Stream(sums, name, positions, frames.steps, n_tokens, bits, "partial_sums", name, name, labels)
        arrivals = [Arrival(self.mapping.nodes[home], Target("channel", join))]
        self.transport.send(stream, output, self.mapping.nodes[pe.tile], arrivals)

    def _add_block(self, layer: LayerMapping, block: int) -> dict[int, int]:
        """Accumulator, neurons, pooling and departure of one column block; returns the join slot of each row block."""
        spec, hardware = layer.layer, self.hardware
        home = layer.home_tile(block)
        tile, name = f"tile{home}", self._name(layer, block)
        first, last = layer.col_blocks[block]
        width, frames = last - first, self._read_frames(layer)
        n_tokens = self._n_tokens(layer, frames)
        depth = geometry.main_join_capacity(self.mapping, layer)
        joins = {
            pe.row_block: self.netlist.channel(f"{tile}.{name}.row{pe.row_block}", depth) for pe in layer.pes_of(block)
        }
        vectors = [*joins.values(), *(self.skip_slots[spec.name, block, joining] for joining in spec.adds)]
        summed = vectors[0]
        if len(vectors) > 1:
            summed = self._channel(f"{tile}.{name}.sums")
            add = accumulator.add_action(hardware, tile, n_tokens, len(vectors), width)
            lane = self._layer_lane(f"{name}.accumulate", layer, (add,), frames, inputs=tuple(vectors), output=summed)
            self._shared(f"{tile}.accumulator").lanes.append(lane)
        if frames != self.every_frame:
            summed = self._add_current_store(layer, block, summed)
        outbox = summed if spec.neuron.kind == "none" else self._add_neurons(layer, block, summed)
        self._depart(layer, block, outbox)
        return joins

    def _add_neurons(self, layer: LayerMapping, block: int, inbox: int) -> int:
        """Neuron updates and pooling of one column block; returns the latch behind them."""
        spec, hardware = layer.layer, self.hardware
        tile, name = f"tile{layer.home_tile(block)}", self._name(layer, block)
        first, last = layer.col_blocks[block]
        outbox = self._channel(f"{tile}.{name}.out")
        fired = outbox if spec.pool is None else self._channel(f"{tile}.{name}.fired")
        n_tokens = self._n_tokens(layer, self.every_frame)
        updates = neuron.update_actions(hardware, tile, n_tokens, last - first, spec.neuron.state_words)
        lane = self._layer_lane(f"{name}.neuron", layer, updates, inputs=(inbox,), output=fired)
        if spec.neuron.kind == "accumulate":
            lane.emit = self._last_step_only(layer)
        elif spec.pool is None:
            lane.emit = self.emission.sends(layer, block)
        self._shared(f"{tile}.neuron").lanes.append(lane)
        if spec.pool is not None:
            pool = neuron.pool_action(hardware, tile, lane.n_emitted, last - first)
            pooling = self._layer_lane(f"{name}.pooling", layer, (pool,), inputs=(fired,), output=outbox)
            completes = neuron.pool_emits((spec.conv_shape[1], spec.conv_shape[2]), spec.pool.kernel, spec.pool.stride)
            pooling.n_tokens = lane.n_emitted
            pooling.steps = self._emitted_steps(layer)
            completes = completes[geometry.copy_tokens(layer)]
            pooling.emit = np.tile(completes, lane.n_emitted // len(completes))
            sends = self.emission.sends(layer, block)
            if sends is not None:
                pooling.emit[np.flatnonzero(pooling.emit)[~sends]] = False
            self._shared(f"{tile}.pooling").lanes.append(pooling)
        return outbox

    def _add_current_store(self, layer: LayerMapping, block: int, inbox: int) -> int:
        """Keep the sums of a sample's first timestep for the neurons of every timestep; returns the latch behind."""
        hardware, name = self.hardware, self._name(layer, block)
        path = f"tile{layer.home_tile(block)}.v_mem"
        first, last = layer.col_blocks[block]
        once, n_timesteps = len(geometry.copy_tokens(layer)), self.activity.n_timesteps
        position, frame = np.arange(once), np.arange(self.n_frames)
        need = ((frame // n_timesteps)[:, None] * once + position).ravel()
        last_frame = np.arange(self.activity.n_samples) * n_timesteps + n_timesteps - 1
        last_use = (last_frame[:, None] * once + position).ravel()
        index, target = len(self.netlist.buffers), Target("buffer", len(self.netlist.buffers))
        self.netlist.buffers.append(LineBuffer(f"{path}.{name}.current", layer.layer.name, once, 1, 1, need, last_use))
        n_first, n_all = self._n_tokens(layer, self.first_frames), self._n_tokens(layer, self.every_frame)
        write, read = neuron.current_actions(hardware, f"tile{layer.home_tile(block)}", (n_first, n_all), last - first)
        lane = self._layer_lane(f"{name}.keep", layer, (write,), self.first_frames, inputs=(inbox,))
        lane.wires, lane.reserves = (Wire(target, 0),), (target,)
        self.netlist.server(f"{path}.{name}.keep", "shared", lane)
        outbox = self._channel(f"{path}.{name}.current.out")
        lane = self._layer_lane(f"{name}.current", layer, (read,), reader=(index, 0), release_after=1, output=outbox)
        self.netlist.server(f"{path}.{name}.current", "private", lane)
        return outbox

    def _emitted_steps(self, layer: LayerMapping) -> tuple[int, int]:
        """Timesteps of which a layer sends anything: a readout only of the last."""
        return (self.activity.n_timesteps - 1, 1) if layer.layer.neuron.kind == "accumulate" else self.all_steps

    def _depart(self, layer: LayerMapping, block: int, outbox: int) -> None:
        """Send a column block's output to whoever reads or adds it, or to the output port."""
        name = layer.layer.name
        labels = self.emission.sent(layer, block)
        _first, _last = layer.col_blocks[block]
        steps = self._emitted_steps(layer)
        positions = layer.layer.out_shape[1] * layer.layer.out_shape[2]
        consumers, joiners = self.mapping.consumers(name), self.mapping.joiners(name)
        is_output = self.mapping.is_output(layer.layer)
        stream = Stream(
            self._name(layer, block),
            name,
            positions,
            steps,
            self.activity.n_samples * steps[1] * positions if labels is None else len(labels),
            self.emission.packet_bits(layer, block, labels),
            "partial_sums" if layer.layer.neuron.kind == "none" else "spikes",
            name,
            ", ".join([item.layer.name for item in (*consumers, *joiners)] + ["output"] * is_output),
            labels,
        )
        streamed = [item for item in consumers if not geometry.is_staged(self.mapping, item)]
        arrivals = [arrival for item in streamed for arrival in self._arrivals(item, Source(block, layer.copy), stream)]
        if len(streamed) < len(consumers):
            arrivals.append(self._staged(layer, block, stream))
        for item in joiners:
            slot = Target("channel", self.skip_slots[item.layer.name, block, name])
            arrivals.append(self._stored(stream, item.home_tile(block), slot))
        if is_output:
            inbox = self._channel(f"output.{stream.name}")
            lane = stream.lane(
                (chip_ports.output_action(self.hardware, stream.n_tokens, stream.bits),), inputs=(inbox,)
            )
            self.netlist.output_lanes.append(lane)
            self._shared("output").lanes.append(lane)
            arrivals.append(Arrival(IO_NODE, Target("channel", inbox)))
        self.transport.send(stream, outbox, self.mapping.nodes[layer.home_tile(block)], arrivals)

    # Staging of whole frames

    def _staged(self, layer: LayerMapping, block: int, stream: Stream) -> Arrival:
        """Where a column block's frames wait in the global buffer; the port that reads them comes with the first."""
        name = layer.layer.name
        if name not in self.stages:
            self.stages[name] = self._add_stage(layer)
        write = chip_ports.stage_write_action(self.hardware, name, stream.n_tokens, stream.bits)
        source = block * layer.n_copies + layer.copy
        return Arrival(IO_NODE, Target("buffer", self.stages[name], source), (write,))

    def _add_stage(self, layer: LayerMapping) -> int:
        name, mapping = layer.layer.name, self.mapping
        channels, height, width = layer.layer.out_shape
        positions = height * width
        n_tokens, bits = self.n_frames * positions, channels * self.emission.output_bits(layer)
        batch = geometry.staged_frames(mapping, self.activity.n_timesteps) * positions
        self._require_global_buffer(bits * batch)
        tokens = np.arange(n_tokens, dtype=np.int64)
        sources = [Source(block, copy) for block in range(len(layer.col_blocks)) for copy in range(layer.n_copies)]
        index = len(self.netlist.buffers)
        self.netlist.buffers.append(
            LineBuffer(
                f"global_buffer.{name}",
                name,
                batch,
                len(sources),
                1,
                (tokens // batch + 1) * batch - 1,
                tokens,
                self.emission.covers(mapping.layer(name), sources),
            )
        )
        readers = [item for item in mapping.consumers(name) if geometry.is_staged(mapping, item)]
        destination = ", ".join(item.layer.name for item in readers)
        port = f"global_buffer.{name}.read"
        stream = Stream(port, name, positions, self.all_steps, n_tokens, bits, "spikes", port, destination)
        outbox = self._channel(f"{port}.out")
        lane = stream.lane((chip_ports.stage_read_action(self.hardware, port, n_tokens, bits),), output=outbox)
        lane.reader, lane.release_after = (index, 0), 1
        self.netlist.server(port, "private", lane)
        arrivals = [arrival for item in readers for arrival in self._arrivals(item, Source(0, 0), stream)]
        self.transport.send(stream, outbox, IO_NODE, arrivals)
        return index

    def _last_step_only(self, layer: LayerMapping) -> np.ndarray:
        frames = np.arange(self.n_frames) % self.activity.n_timesteps == self.activity.n_timesteps - 1
        return np.repeat(frames, self._window(layer).n_outputs)

    # Small pieces

    def _channel(self, name: str) -> int:
        return self.netlist.channel(name, self.hardware.tile.pe.latch_depth)

    def _shared(self, name: str) -> Server:
        if name not in self.shared:
            self.shared[name] = self.netlist.server(name, "shared")
        return self.shared[name]

    def _read_frames(self, layer: LayerMapping) -> _Frames:
        """Frames of which a layer's crossbars are read: all, or a sample's first where it is read once."""
        return self.first_frames if geometry.is_read_once(self.mapping, layer) else self.every_frame

    def _n_tokens(self, layer: LayerMapping, frames: _Frames) -> int:
        return frames.number * len(geometry.copy_tokens(layer))

    def _labels(self, layer: LayerMapping, frames: _Frames) -> np.ndarray | None:
        """Positions (over all frames) that a copy serves; None where it serves all."""
        return None if layer.n_copies == 1 else geometry.copy_labels(layer, frames.number)

    def _name(self, layer: LayerMapping, block: int) -> str:
        copy = f".copy{layer.copy}" if layer.n_copies > 1 else ""
        return f"{layer.layer.name}.block{block}{copy}"

    def _layer_lane(
        self,
        name: str,
        layer: LayerMapping,
        actions: tuple[Action, ...],
        frames: _Frames | None = None,
        inputs: tuple[int, ...] = (),
        reader: tuple[int, int] | None = None,
        release_after: int = 0,
        output: int | None = None,
    ) -> Lane:
        frames = frames or self.every_frame
        return Lane(
            name,
            layer.layer.name,
            self._n_tokens(layer, frames),
            self._window(layer).n_outputs,
            frames.steps,
            actions,
            inputs,
            reader,
            release_after,
            output,
            labels=self._labels(layer, frames),
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
                    kind = "v_mem" if action.component.endswith(".current") else kind
                    parts.append(ComponentInfo(action.component, kind, 0.0, 0.0))
        return parts


def _driven(values: LayerActivity, input_coding: str) -> np.ndarray:
    """Values as the rows see them: with binary coding anything above zero is one spike."""
    return (values.inputs > 0).astype(np.uint8) if input_coding == "binary" else values.inputs

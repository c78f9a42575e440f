"""Builds the netlist of a crossbar chip from a mapping and what its network does.

Path of a token: input port, NoC, tile line buffer, PE (fetch, row drive and read, conversion,
shift-and-add), H-tree, accumulator where a column block has several row blocks, neuron module,
pooling, NoC to the next layer's tiles, and at last the output port. Entry: `build_netlist`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from archsim.activity import Activity, LayerActivity, ReadActivity, read_activity
from archsim.components import adc, chip_ports, crossbar, htree, line_buffer, mac
from archsim.components.netlist import Action, ComponentInfo, LineBuffer, Netlist, Target
from archsim.engine import dram, geometry, global_buffer, neurons, partial_sums
from archsim.engine.construction import Construction, Frames
from archsim.engine.dynamic_products import add_product_unit, rewrite_actions
from archsim.engine.emission import Source
from archsim.engine.intake import Intake
from archsim.engine.judging import Judging, number_frames
from archsim.engine.neurons import add_neurons
from archsim.engine.rounds import Rounds
from archsim.engine.staging import Staging, together
from archsim.engine.streaming import add_running_sum, emits, passing_by
from archsim.engine.transport import Arrival, Stream
from archsim.errors import MappingError
from archsim.eventlog import DataClass
from archsim.hardware import rollup
from archsim.mapping import LayerMapping, Mapping, PePlace
from archsim.mapping.placement import IO_NODE
from archsim.mapping.rules import cols_of
from archsim.mapping.squeeze import index_tables, table_bits
from archsim.workload.network import INPUT


def build_netlist(mapping: Mapping, activity: Activity) -> Netlist:
    """Connect every part that the mapping uses, with service times and energies from the activity.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    geometry.check_buffers(mapping)
    return _Builder(mapping, activity).build_all()


Stages = dict[str, tuple[Action, ...]]
"""Actions of each stage of a PE, in the order in which a token passes them."""


class _Builder:
    """Connects layers between their line buffers and their readers."""

    def __init__(self, mapping: Mapping, activity: Activity) -> None:
        self.mapping = mapping
        self.hardware = mapping.hardware
        self.activity = activity
        self.build = Construction(mapping, activity)
        self.netlist = self.build.netlist
        self.intake = Intake(self.build)
        self.rounds = Rounds(self.build)
        self.staging = Staging(self.build, self.intake, self.rounds)
        self.judging = Judging(self.build)

    def build_all(self) -> Netlist:
        for view in [view for layer in self.mapping.layers for view in layer.views]:
            self.intake.add(view)
        self._add_input_ports()
        for layer in self.mapping.layers:
            reads = None if layer.is_digital else self._reads(layer)
            for view in layer.views:
                self._add_layer(view, reads)
        self.rounds.connect()
        self.netlist.components = self._parts()
        number_frames(self.build)
        return self.netlist

    def _reads(self, layer: LayerMapping) -> ReadActivity:
        spec, values = layer.layer, self.activity.layers[layer.layer.name]
        inputs = _driven(values, self.hardware.mapping.input_coding)
        frames = slice(None)
        if geometry.is_read_once(self.mapping, layer):
            frames = self.build.step_of == 0
            inputs = self._only_frame(layer, inputs)
        reads = read_activity(
            inputs.reshape(*inputs.shape[:2], *layer.row_layer.in_shape),
            self.build.emission.input_bits(layer),
            layer.row_blocks,
            spec.stride,
            spec.padding,
            spec.conv_shape[1:] if layer.streamed_map is None else layer.streamed_map[1:],
            layer.streamed_map is not None,
            adc.resolved_bits(self.hardware, spec.kind == "product"),
            self.hardware.tile.pe.column_merge == "analog",
        )
        return replace(reads, power_w=self._read_power_w(layer, values, frames))

    def _read_power_w(
        self, layer: LayerMapping, values: LayerActivity, frames: slice | np.ndarray
    ) -> np.ndarray | None:
        """Power of the reads of some frames, shape (token, row_block); None: by cost library."""
        if values.read_power_w is None:
            return None
        by_frame = values.read_power_w.reshape(self.build.n_frames, -1, len(layer.row_blocks))
        return by_frame[frames].reshape(-1, len(layer.row_blocks))

    def _only_frame(self, layer: LayerMapping, inputs: np.ndarray) -> np.ndarray:
        """The frame that enters at every timestep, shape (sample, 1, channel, height, width)."""
        frames = inputs.reshape(self.build.n_frames, *inputs.shape[2:])
        first = frames[self.build.step_of == 0]
        if self.activity.kind != "assumed" and (frames != first[self.build.sample_of]).any():
            raise MappingError(
                f"mapping.first_layer is once, but the input of layer '{layer.layer.name}' differs from timestep to "
                "timestep. Set mapping.first_layer: repeat, or give images with workload.encoding: direct."
            )
        return first[:, None]

    def _add_input_ports(self) -> None:
        """The input port, and further ones for readers of the input that cannot share it; see `staging.together`."""
        mapping, readers = self.mapping, self.mapping.consumers(INPUT)
        channels, height, width = mapping.network.input_shape
        bits = channels * max(self.build.emission.input_bits(layer) for layer in readers)
        n_ports = 0
        for number in range(mapping.n_rounds):
            mine = [item.in_round(number) for item in readers if number in item.rounds]
            streaming = [item for item in mine if not geometry.is_staged(mapping, item)]
            groups = [group for group in (streaming, *together([i for i in mine if i not in streaming])) if group]
            for group in groups:
                name = INPUT if group == groups[0] else f"global_buffer.{INPUT}.read.{group[0].layer.name}"
                self._add_input_port(name, group, bits)
            n_ports += len(groups)
        kept = geometry.staged_frames(mapping, self.activity.n_timesteps) if n_ports > 1 else 1
        if self.hardware.chip.dram.input == "load":
            kept = n_ports  # every port loads its own frames, one at a time
        self.build.require_global_buffer(kept * bits * height * width)

    def _add_input_port(self, name: str, readers: list[LayerMapping], bits: int) -> None:
        """A port that reads the input for layers in one round."""
        build, frames = self.build, self.build.read_frames(readers[0])
        _, height, width = self.mapping.network.input_shape
        positions = height * width
        destination = ", ".join(layer.layer.name for layer in readers)
        n_tokens = frames.number * positions
        stream = Stream(name, INPUT, positions, frames.steps, n_tokens, bits, "inputs", name, destination)
        action = chip_ports.stage_read_action(self.hardware, name, "inputs", n_tokens, bits)
        reader = self._add_input_buffer(stream, frames, readers[0].rounds[0])
        lane, outbox = global_buffer.add_read(build, stream, action, reader)
        if name == INPUT:
            self.netlist.input_lanes.append(lane)
        arrivals = [arrival for layer in readers for arrival in self.intake.arrivals(layer, Source(0, 0), stream)]
        build.transport.send(stream, outbox, IO_NODE, arrivals)

    def _add_input_buffer(self, stream: Stream, frames: Frames, number: int) -> tuple[int, int] | None:
        """What an input port waits for: answers, or its round and the DRAM that the input comes from; None: nothing."""
        has_rounds, is_loaded = self.rounds.number > 1, self.hardware.chip.dram.input == "load"
        if self.judging.is_awaited:
            return self.judging.add_gate(stream), 0
        if not has_rounds and not is_loaded:
            return None
        index, tokens = len(self.netlist.buffers), np.arange(stream.n_tokens)
        covers = (
            *([None] if is_loaded else ()),
            *([self.rounds.opened(frames, stream.positions)] if has_rounds else ()),
        )
        capacity = stream.positions if is_loaded else stream.n_tokens
        buffer = LineBuffer(f"global_buffer.{stream.name}", INPUT, capacity, len(covers), 1, tokens, tokens, covers)
        self.netlist.buffers.append(buffer)
        if is_loaded:
            dram.add_load(self.build, stream, Target("buffer", index))
        if has_rounds:
            self.rounds.opens(number, Target("buffer", index, len(covers) - 1))
        return index, 0

    # One layer: PEs or digital units to neurons

    def _add_layer(self, layer: LayerMapping, reads: ReadActivity | None) -> None:
        joins = {block: self._add_block(layer, block, reads) for block in layer.blocks}
        readers: dict[int, int] = {}
        stages: dict[tuple[int, int, int], Stages] = {}
        for pe in layer.pes:
            reader, join = readers.get(pe.tile, 0), joins[pe.col_block][pe.row_block]
            readers[pe.tile] = reader + 1
            if pe.unit == "product_unit":
                add_product_unit(self.build, self.intake, layer, pe, join)
            elif reads is None:
                self._add_mac(layer, pe, reader, join)
            else:
                alike = self._alike(layer, pe)
                if alike not in stages:
                    stages[alike] = self._stages(layer, pe, reads)
                outbox = self._add_pe(layer, pe, stages[alike], reader)
                self._add_htree_lane(layer, pe, reads, outbox, join)

    def _add_mac(self, layer: LayerMapping, unit: PePlace, reader: int, join: int) -> None:
        """A MAC unit; it sits beside the neurons, so its sums take no H-tree."""
        spec, tokens = layer.layer, self.build.read_tokens(layer)
        block = layer.col_blocks[unit.col_block]
        actions = mac.multiply_actions(
            self.hardware,
            f"tile{unit.tile}",
            unit.path,
            tokens.number,
            spec.n_inputs_of(block),
            self.build.emission.input_bits(layer),
            spec.n_weights_of(block),
        )
        source = (self.intake.buffer(layer, unit.tile), reader)
        lane = self.build.layer_lane(unit.path, layer, actions, tokens, (), source, len(actions), join)
        self.netlist.server(unit.path, "private", lane)

    def _stages(self, layer: LayerMapping, pe: PePlace, reads: ReadActivity) -> Stages:
        """Actions of a PE's stages, of components and movements that `_placed` names."""
        hardware = self.hardware
        n_bits = self.build.emission.input_bits(layer)
        passing, mine = self.build.read_tokens(layer), self.build.row_tokens(layer, pe.row_block)
        rows = (reads.active_rows, reads.active_reads, reads.active_slices, reads.serial_rows)
        served = slice(None) if mine.labels is None else mine.labels
        load = crossbar.PeLoad.of(
            hardware,
            geometry.crossbars_read(layer, pe.row_block, mine.number),
            cols_of(hardware, layer.layer, layer.width_of(pe)),
            n_bits,
            *(counts[served, pe.row_block] for counts in rows),
        )
        if reads.code_bits is not None and reads.slice_bits is not None:
            cycles = adc.conversion_cycles(hardware, reads.slice_bits[served, pe.row_block]).sum(axis=-1)
            load = replace(load, code_bits=reads.code_bits[served, pe.row_block], conversion_cycles=cycles)
        shares = self.activity.layers[layer.layer.name].energy_shares
        if reads.power_w is not None and shares is not None:
            load = replace(load, power_w=reads.power_w[served, pe.row_block] * shares[pe.row_block, pe.col_block])
        data_class: DataClass = "inputs" if layer.layer.source == INPUT else "spikes"
        size = (load.n_tokens, load.n_crossbars, n_bits, load.active_rows)
        table = table_bits(layer, pe) if layer.squeeze == "rows" else 0
        indices = (line_buffer.index_action(hardware, "", load.n_tokens, table, n_bits),) if table else ()
        stages: Stages = {
            "fetch": (*line_buffer.read_actions(hardware, "", "", data_class, *size), *indices),
            "crossbar": crossbar.read_actions(hardware, "", load),
            "adc": adc.convert_actions(hardware, "", load),
            "shift_add": adc.shift_add_actions(hardware, "", load),
        }
        passed = ("fetch",) if hardware.tile.pe.pipelined else tuple(stages)
        return stages | {name: passing_by(stages[name], passing, mine) for name in passed}

    def _alike(self, layer: LayerMapping, pe: PePlace) -> tuple[int, int, int]:
        """Key of the PEs that do the same: of one row block and width, and column block where power is known."""
        has_power = self.activity.layers[layer.layer.name].energy_shares is not None
        return pe.row_block, layer.width_of(pe), pe.col_block if has_power else 0

    def _add_pe(self, layer: LayerMapping, pe: PePlace, stages: Stages, reader: int) -> int:
        path, stages = pe.path, _placed(stages, pe)
        if layer.layer.kind == "product":
            loading, writing = rewrite_actions(self.build, layer, pe)
            stages |= {"fetch": (loading, *stages["fetch"]), "crossbar": (writing, *stages["crossbar"])}
        passing, mine = self.build.read_tokens(layer), self.build.row_tokens(layer, pe.row_block)
        source, fetch = (self.intake.buffer(layer, pe.tile), reader), stages["fetch"]
        outbox = self.build.channel(f"{path}.out")
        if not self.hardware.tile.pe.pipelined:
            actions = tuple(action for stage in stages.values() for action in stage)
            lane = self.build.layer_lane(path, layer, actions, passing, (), source, len(fetch), outbox)
            lane.emit = emits(passing, mine)
            self.netlist.server(path, "private", lane)
            return outbox
        inbox = self.build.channel(f"{path}.fetch.out")
        lane = self.build.layer_lane(f"{path}.fetch", layer, fetch, passing, (), source, len(fetch), inbox)
        lane.emit = emits(passing, mine)
        self.netlist.server(f"{path}.fetch", "private", lane)
        for name in ("crossbar", "adc", "shift_add"):
            output = outbox if name == "shift_add" else self.build.channel(f"{path}.{name}.out")
            lane = self.build.layer_lane(f"{path}.{name}", layer, stages[name], mine, (inbox,), output=output)
            self.netlist.server(f"{path}.{name}", "private", lane)
            inbox = output
        return outbox

    def _add_htree_lane(self, layer: LayerMapping, pe: PePlace, reads_of: ReadActivity, outbox: int, join: int) -> None:
        build, tile, home = self.build, f"tile{pe.tile}", layer.home_tile(pe.col_block)
        reads, tokens = build.row_tokens(layer, pe.row_block), build.tokens(layer, build.read_frames(layer))
        bits: int | np.ndarray = layer.width_of(pe) * self.hardware.tile.accumulator.bits
        silent = partial_sums.silent_tokens(build, layer, pe.row_block, reads_of)
        if silent is not None:
            bits = np.where(silent, 1, bits)
        action = htree.transfer_action(self.hardware, tile, pe.path, reads.number, bits)
        output = join if home == pe.tile else build.channel(f"{pe.path}.egress")
        summed = output if reads.number == tokens.number else build.channel(f"{pe.path}.positions")
        lane = build.layer_lane(f"{pe.path}.htree", layer, (action,), reads, inputs=(outbox,), output=summed)
        build.shared(f"{tile}.htree").lanes.append(lane)
        self.rounds.sends_sums(pe.round, lane)
        if summed != output:
            add_running_sum(build, layer, pe, summed, output)
        if home == pe.tile:
            return
        name, sums = layer.layer.name, f"{pe.path}.partial_sums"
        at = (tokens.positions, tokens.steps, tokens.number)
        stream = Stream(sums, name, *at, bits, "partial_sums", name, name, tokens.labels)
        arrivals = [Arrival(self.mapping.nodes[home], Target("channel", join))]
        build.transport.send(stream, output, self.mapping.nodes[pe.tile], arrivals)

    def _add_block(self, layer: LayerMapping, block: int, reads: ReadActivity | None) -> dict[int, int]:
        """Accumulator, neurons, pooling and departure of one column block; returns the join slot of each row block."""
        build = self.build
        tile, name = f"tile{layer.home_tile(block)}", build.block_name(layer, block)
        depth = geometry.main_join_capacity(self.mapping, layer)
        joins = {
            pe.row_block: self.netlist.channel(f"{tile}.{name}.row{pe.row_block}", depth) for pe in layer.pes_of(block)
        }
        vectors = [*joins.values(), *self.intake.skip_slots(layer, block)]
        summed = vectors[0]
        if len(vectors) > 1 or layer.squeeze == "columns":
            summed = build.channel(f"{tile}.{name}.sums")
            actions = partial_sums.accumulate_actions(build, layer, block, reads, len(vectors) - len(joins))
            tokens = build.tokens(layer, build.read_frames(layer))
            lane = build.layer_lane(f"{name}.accumulate", layer, actions, tokens, inputs=tuple(vectors), output=summed)
            build.shared(f"{tile}.accumulator").lanes.append(lane)
        has_state = layer.layer.neuron.has_state
        self._depart(layer, block, add_neurons(build, layer, block, summed) if has_state else summed)
        return joins

    def _depart(self, layer: LayerMapping, block: int, outbox: int) -> None:
        """Send a column block's output to whoever reads or adds it, or to the output port."""
        name, build = layer.layer.name, self.build
        labels = build.emission.sent(layer, block)
        frames = neurons.emitted_frames(build, layer)
        positions = layer.layer.out_shape[1] * layer.layer.out_shape[2]
        consumers, joiners = self.mapping.consumers(name), self.mapping.joiners(name)
        is_output = self.mapping.is_output(layer.layer)
        stream = Stream(
            build.block_name(layer, block),
            name,
            positions,
            frames.steps,
            frames.number * positions if labels is None else len(labels),
            build.emission.packet_bits(layer, block, labels),
            "partial_sums" if layer.layer.neuron.kind == "none" else "spikes",
            name,
            ", ".join([item.layer.name for item in (*consumers, *joiners)] + ["output"] * is_output),
            labels,
        )
        streamed = [item for item in consumers if not geometry.is_staged(self.mapping, item)]
        source = Source(block, layer.copy)
        arrivals = [arrival for item in streamed for arrival in self.intake.arrivals(item, source, stream)]
        arrivals += self.staging.arrivals(layer, block, stream)
        streamed = [item for item in joiners if not geometry.is_staged(self.mapping, item)]
        arrivals += [self.intake.joining(item, block, stream) for item in streamed]
        if is_output:
            action = chip_ports.output_action(self.hardware, stream.n_tokens, stream.bits)
            lane, target = global_buffer.add_write(build, stream, action, self.judging.gates(layer, block))
            self.netlist.output_lanes.append(lane)
            arrivals.append(Arrival(IO_NODE, target))
        build.transport.send(stream, outbox, neurons.origin(self.mapping, layer, block), arrivals)

    def _parts(self) -> list[ComponentInfo]:
        """Every part with its area and leakage; parts that serve and have none are listed too."""
        parts: list[ComponentInfo] = []
        v_mem_bits = geometry.v_mem_bits(self.mapping)
        for tile in range(self.mapping.n_tiles):
            bits = (self.build.stored_bits(tile), v_mem_bits.get(tile, 0))
            parts += [
                ComponentInfo(f"tile{tile}.{part.path}", part.kind, part.area_um2, part.leakage_mw)
                for part in rollup.tile_parts(self.hardware, *bits)
            ]
        for layer in self.mapping.layers:
            if layer.is_digital:
                for unit in layer.pes:
                    n_weights = layer.layer.n_weights_of(layer.col_blocks[unit.col_block])
                    parts += [
                        ComponentInfo(part.path, part.kind, part.area_um2, part.leakage_mw)
                        for part in rollup.unit_parts(self.hardware, unit.path, n_weights)
                    ]
        for path, size in index_tables(self.mapping).items():
            part = rollup.table_part(self.hardware, path, size)
            parts.append(ComponentInfo(part.path, part.kind, part.area_um2, part.leakage_mw))
        n_routers = self.build.transport.topology.n_routers
        parts += [
            ComponentInfo(part.path, part.kind, part.area_um2, part.leakage_mw)
            for part in rollup.chip_parts(self.hardware, n_routers, v_mem_bits.get(geometry.CHIP, 0))
        ]
        known = {part.path for part in parts}
        for lane in self.netlist.lanes():
            for action in lane.actions:
                if action.component not in known:
                    known.add(action.component)
                    kind = "link" if action.component.startswith("noc.") else "port"
                    kind = "v_mem" if action.component.endswith((".keep", ".current")) else kind
                    parts.append(ComponentInfo(action.component, kind, 0.0, 0.0))
        return parts


def _placed(stages: Stages, pe: PePlace) -> Stages:
    """The actions of alike PEs as those of one of them; arrays are shared."""
    read, *others = stages["fetch"]
    assert read.movement is not None, "a read from the tile buffer moves bits"
    buffer = f"tile{pe.tile}.buffer"
    placed = {
        name: tuple(action.at(f"{pe.path}{action.component}") for action in actions) for name, actions in stages.items()
    }
    movement = replace(read.movement, source=buffer, destination=pe.path)
    latches = (action.at(f"{pe.path}{action.component}") for action in others)
    return placed | {"fetch": (read.at(buffer, movement), *latches)}


def _driven(values: LayerActivity, input_coding: str) -> np.ndarray:
    """Values as the rows see them: with binary coding anything above zero is one spike."""
    return (values.inputs > 0).astype(np.uint8) if input_coding == "binary" else values.inputs

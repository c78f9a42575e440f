"""Builds the netlist of a systolic array from a mapping and what its network does.

Layers run one after the other; see `array_folds` for the order of folds. For every fold: DRAM brings the weights of
its filters and the input rows that it needs into the global buffers, while the fold before runs; the array computes;
the neuron units update, with potentials and shortcuts that DRAM brings where the PEs do not keep them; spikes pass the
output buffer and the pooling and go to DRAM, from where the next layer reads them. Entry: `build_array_netlist`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.components import dram, systolic
from archsim.components.netlist import UNBOUNDED, Action, ComponentInfo, Lane, LineBuffer, Netlist, Server, Target, Wire
from archsim.components.systolic import INPUTS, OUTPUT, OUTPUTS, WEIGHTS, FoldLoad, buffer_action
from archsim.engine.array_folds import (
    Folds,
    Tiles,
    fetch_positions,
    input_tiles,
    layer_folds,
    passes_of,
    weight_tiles,
)
from archsim.eventlog import DataClass, Movement
from archsim.hardware.systolic import SystolicArray
from archsim.mapping import ArrayLayer, ArrayMapping
from archsim.workload.network import INPUT

_LATCH_DEPTH = 2
"""Folds that wait between array, neuron units, output buffer and DRAM (assumption: double registers)."""


def build_array_netlist(mapping: ArrayMapping, activity: Activity) -> Netlist:
    """Connect DRAM, buffers, array and neuron units for every layer, with times and energies from the activity.

    Raises:
        MappingError: A buffer does not hold what a fold needs.
    """
    return _Builder(mapping, activity).build_all()


@dataclass(frozen=True)
class _Part:
    """A layer under construction: its folds and those that complete sums."""

    layer: ArrayLayer
    values: LayerActivity
    folds: Folds
    complete: np.ndarray
    """Numbers of the folds that complete sums, int64."""
    neurons: np.ndarray
    """Outputs of each of them."""
    step: np.ndarray
    last_step: int

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.layer.name

    @property
    def n_phases(self) -> int:
        """Samples, or timesteps of samples."""
        return self.folds.shape[0]

    @property
    def phase(self) -> np.ndarray:
        """Phase of every output."""
        return self.folds.phase[self.complete]


class _Builder:
    """Adds layer after layer, each waiting for the one before."""

    def __init__(self, mapping: ArrayMapping, activity: Activity) -> None:
        self.mapping = mapping
        self.hardware: SystolicArray = mapping.hardware
        self.activity = activity
        self.netlist = Netlist()
        self.servers: dict[str, Server] = {}
        self.gates: list[list[Target]] = [[] for _ in mapping.layers]
        """Line buffers that learn when a layer has run its phase."""
        state_bits = sum(item.layer.n_neurons * item.layer.neuron.state_words for item in mapping.layers)
        self.potentials_fit = (
            state_bits * self.hardware.chip.neuron.v_mem_bits <= self.hardware.buffers.ofmap_kib * 8192 // 2
        )

    def build_all(self) -> Netlist:
        parts = [self._part(layer) for layer in self.mapping.layers]
        written = [self._add_layer(number, part) for number, part in enumerate(parts)]
        for lane, gates in zip(written, self.gates, strict=True):
            lane.wires += tuple(Wire(target, lane.actions[-1].duration_ps[lane.emit]) for target in gates)
            lane.reserves += tuple(gates)
        self.netlist.components = [ComponentInfo(*each) for each in systolic.parts(self.hardware)]
        return self.netlist

    def _part(self, layer: ArrayLayer) -> _Part:
        values = self.activity.layers[layer.layer.name]
        steps = min(self.mapping.batched_steps, self.activity.n_timesteps)
        folds = layer_folds(layer, values, self.hardware.array.pe.input_bits, steps)
        complete = np.flatnonzero(folds.completes)
        neurons = (folds.positions * folds.cols)[complete]
        return _Part(layer, values, folds, complete, neurons, folds.step[complete], self.activity.n_timesteps - 1)

    def _shared(self, name: str) -> Server:
        if name not in self.servers:
            self.servers[name] = self.netlist.server(name, "shared")
        return self.servers[name]

    def _lane(self, name: str, part: _Part, actions: tuple[Action, ...], folds: np.ndarray) -> Lane:
        """A lane whose tokens are folds of these numbers."""
        return Lane(
            name,
            part.name,
            len(folds),
            part.layer.n_folds,
            (0, self.activity.n_timesteps),
            actions,
            labels=part.folds.labels[folds],
        )

    # What a layer waits for

    def _gate(self, number: int, part: _Part, phase: np.ndarray) -> tuple[int, int]:
        """Reader of a line buffer: tokens of a phase wait until the layer before has run it.

        The first layer waits until the last has run the phase before.
        """
        need = phase if number else phase - 1
        index, positions = len(self.netlist.buffers), np.arange(part.n_phases)
        last_use = np.maximum(np.searchsorted(need, positions, side="right") - 1, 0)
        buffer = LineBuffer(f"{part.name}.gate{index}", part.name, part.n_phases, 1, 1, need, last_use)
        self.netlist.buffers.append(buffer)
        self.gates[number - 1].append(Target("buffer", index))
        return index, 0

    def _add_fetch(self, number: int, part: _Part, tiles: Tiles, key: str, target: Target) -> None:
        """Fetch tiles from DRAM into a global buffer, each as soon as there is room for it."""
        name = {WEIGHTS: "weight_kib", INPUTS: "ifmap_kib"}[key]
        capacity_bits = getattr(self.hardware.buffers, name) * 8192
        data_class: DataClass = "weights" if key == WEIGHTS else self._input_class(part.layer)
        positions = fetch_positions(tiles, part.folds, capacity_bits, part.name, f"buffers.{name}")
        read = dram.access_action(
            self.hardware, "read", tiles.bits, tiles.pass_number, Movement("dram", key, data_class, "dram")
        )
        lane = self._lane(f"{part.name}.{key}.fetch", part, (read,), tiles.first)
        lane.reader, lane.release_after = self._gate(number, part, part.folds.phase[tiles.first]), 1
        fetched = self.netlist.channel(f"{part.name}.{key}.fetched", UNBOUNDED)  # room in the buffer is reserved
        lane.wires = (Wire(Target("channel", fetched), read.duration_ps + dram.latency_ps(self.hardware)),)
        lane.reserves, lane.sent_positions = (target,), positions
        self._shared(dram.COMPONENT).lanes.append(lane)
        if not number:
            self.netlist.input_lanes.append(lane)
        write = buffer_action(
            self.hardware, key, "write", tiles.bits, Movement("dram", key, data_class, "global_buffer")
        )
        lane = self._lane(f"{part.name}.{key}.fill", part, (write,), tiles.first)
        lane.inputs, lane.wires = (fetched,), (Wire(target, write.duration_ps),)
        self._shared(f"{key}.fill").lanes.append(lane)

    def _add_side_input(self, number: int, part: _Part, name: str, bits: np.ndarray, data_class: DataClass) -> int:
        """Fetch what joins the sums of a fold at its neurons; returns the channel that it comes through."""
        read = dram.access_action(
            self.hardware, "read", bits, part.phase, Movement("dram", OUTPUTS, data_class, "dram")
        )
        lane = self._lane(f"{part.name}.{name}.fetch", part, (read,), part.complete)
        lane.reader, lane.release_after = self._gate(number, part, part.phase), 1
        channel = self.netlist.channel(f"{part.name}.{name}", self.hardware.chip.dram.queue_depth)
        lane.wires = (Wire(Target("channel", channel), read.duration_ps + dram.latency_ps(self.hardware)),)
        lane.reserves = (Target("channel", channel),)
        self._shared(dram.COMPONENT).lanes.append(lane)
        return channel

    # One layer: DRAM to array to neurons to DRAM

    def _add_layer(self, number: int, part: _Part) -> Lane:
        """Add a layer; returns the lane that writes its output to DRAM, which sends its last token of a phase."""
        buffers, folds = self.hardware.buffers, part.folds
        inputs = input_tiles(folds, part.layer, self._value_bits(part.values), buffers.ifmap_kib * 8192)
        weights = weight_tiles(folds, part.layer, self.hardware.mapping.weight_bits)
        index, every = len(self.netlist.buffers), np.arange(folds.number)
        covers = tuple(np.append(tiles.first, folds.number) for tiles in (inputs, weights))
        operands = LineBuffer(f"{part.name}.operands", part.name, folds.number, 2, 1, every, every, covers)
        self.netlist.buffers.append(operands)
        self._add_fetch(number, part, inputs, INPUTS, Target("buffer", index, 0))
        self._add_fetch(number, part, weights, WEIGHTS, Target("buffer", index, 1))
        sums = self.netlist.channel(f"{part.name}.sums", 1)
        lane = self._lane(f"{part.name}.folds", part, systolic.fold_actions(self.hardware, self._load(part)), every)
        lane.reader, lane.release_after = (index, 0), len(lane.actions)
        lane.output, lane.emit = sums, folds.completes
        self._shared(systolic.ARRAY).lanes.append(lane)
        return self._add_output(number, part, self._add_neurons(number, part, sums))

    def _load(self, part: _Part) -> FoldLoad:
        array, folds = self.hardware.array, part.folds
        passes = passes_of(part.values, array.pe.input_bits)
        is_stationary = array.dataflow == "weight_stationary"
        streamed = (folds.positions if is_stationary else folds.depth) * passes
        stays = np.zeros(folds.number, bool)
        if is_stationary:
            stays = np.arange(folds.number) % folds.shape[4] > 0
        sums = folds.positions * folds.cols * array.pe.psum_bits if is_stationary else np.zeros(folds.number, np.int64)
        return FoldLoad(
            streamed,
            stays,
            folds.nonzero * folds.cols,
            folds.depth * folds.cols * self.hardware.mapping.weight_bits * ~stays,
            folds.positions * folds.depth * passes * array.pe.input_bits,
            sums * (folds.depth_index > 0),
            sums * ~folds.completes,
            self._input_class(part.layer),
        )

    def _add_neurons(self, number: int, part: _Part, sums: int) -> int:
        """Neuron units with what joins there; returns the channel of their outputs."""
        spec, inputs = part.layer.layer, [sums]
        for name in spec.adds:
            added = self.mapping.network.layer(name)
            is_sum = added.neuron.kind == "none"
            bits = part.neurons * (self.hardware.array.pe.psum_bits if is_sum else self._emitted_bits(name))
            inputs.append(self._add_side_input(number, part, name, bits, "partial_sums" if is_sum else "spikes"))
        outbox = self.netlist.channel(f"{part.name}.updated", _LATCH_DEPTH)
        lane = self._lane(f"{part.name}.update", part, (), part.complete)
        wires = [Target("channel", outbox)]
        if spec.neuron.has_state:
            (reading, writing), (coming, going) = self._state_bits(part)
            lane.actions = (systolic.update_action(self.hardware, part.neurons),)
            if self.potentials_fit:
                reading, writing = reading + coming, writing + going
            elif coming.any() or going.any():
                inputs.append(self._add_side_input(number, part, "v_mem", coming, "v_mem"))
                stored = self.netlist.channel(f"{part.name}.v_mem.write", _LATCH_DEPTH)
                wires.append(Target("channel", stored))
                self._add_store(part, "v_mem", going, "v_mem", systolic.NEURON, stored)
            if reading.any() or writing.any():
                lane.actions = (
                    self._state_action("read", reading, Movement(OUTPUTS, systolic.NEURON, "v_mem", "global_buffer")),
                    *lane.actions,
                    self._state_action("write", writing, Movement(systolic.NEURON, OUTPUTS, "v_mem", "global_buffer")),
                )
        else:
            lane.actions = (systolic.passing_action(len(part.complete)),)
        lane.inputs, lane.reserves = tuple(inputs), tuple(wires)
        lane.wires = tuple(Wire(target, lane.service_ps) for target in wires)
        self._shared(systolic.NEURON).lanes.append(lane)
        return outbox

    def _state_bits(self, part: _Part) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Bits of potentials that each fold reads and writes: between timesteps that follow each other, and others.

        With outputs stationary the PEs keep the former. The first timestep starts from rest, and nobody needs
        potentials after the last.
        """
        spec, n_batched = part.layer.layer, part.folds.shape[4]
        bits = part.neurons * self.hardware.chip.neuron.v_mem_bits * spec.neuron.state_words
        leaves_pes = self.hardware.array.dataflow == "weight_stationary"
        reads, writes = part.step > 0, part.step < part.last_step
        begins, ends = part.step % n_batched == 0, part.step % n_batched == n_batched - 1
        inside = bits * (reads & ~begins & leaves_pes), bits * (writes & ~ends & leaves_pes)
        return inside, (bits * (reads & begins), bits * (writes & ends))

    def _state_action(self, name: str, bits: np.ndarray, movement: Movement) -> Action:
        return buffer_action(self.hardware, OUTPUTS, name, bits, movement).at(systolic.STATE_PORT)

    def _add_output(self, number: int, part: _Part, outbox: int) -> Lane:
        """Output buffer, pooling and the way to DRAM."""
        spec = part.layer.layer
        raw = part.neurons * self._raw_bits(part)
        data_class: DataClass = "partial_sums" if spec.neuron.kind == "none" else "spikes"
        movement = Movement(systolic.NEURON, OUTPUTS, data_class, "global_buffer")
        actions = [buffer_action(self.hardware, OUTPUTS, "write", raw, movement)]
        if spec.pool is not None:
            actions.append(systolic.pooling_action(self.hardware, part.neurons))
        lane = self._lane(f"{part.name}.{OUTPUTS}.write", part, tuple(actions), part.complete)
        ready = self.netlist.channel(f"{part.name}.ready", _LATCH_DEPTH)
        lane.inputs, lane.output = (outbox,), ready
        self._shared(f"{OUTPUTS}.fill").lanes.append(lane)
        bits = self._pooled_bits(part, raw)
        lane = self._add_store(part, "output", bits, data_class, OUTPUTS, ready)
        lane.emit = np.append(part.phase[1:] != part.phase[:-1], True)
        if number == len(self.mapping.layers) - 1:
            leaving = self.netlist.channel(OUTPUT, _LATCH_DEPTH)
            lane.output = leaving
            last = np.flatnonzero(lane.emit)
            port = self._lane(OUTPUT, part, (systolic.output_action(bits[last]),), part.complete[last])
            port.inputs = (leaving,)
            self.netlist.server(OUTPUT, "private", port)
            self.netlist.output_lanes.append(port)
        return lane

    def _add_store(
        self, part: _Part, name: str, bits: np.ndarray, data_class: DataClass, source: str, inbox: int
    ) -> Lane:
        """Write to DRAM what comes through a channel."""
        movement = Movement(source, "dram", data_class, "dram")
        write = dram.access_action(self.hardware, "write", bits, part.phase, movement)
        lane = self._lane(f"{part.name}.{name}.store", part, (write,), part.complete)
        lane.inputs = (inbox,)
        self._shared(dram.COMPONENT).lanes.append(lane)
        return lane

    # Bits of values

    def _input_class(self, layer: ArrayLayer) -> DataClass:
        return "inputs" if layer.layer.source == INPUT else "spikes"

    def _value_bits(self, values: LayerActivity) -> int:
        """Bits of an input value in memory: whole passes."""
        pass_bits = self.hardware.array.pe.input_bits
        return passes_of(values, pass_bits) * pass_bits

    def _emitted_bits(self, name: str) -> int:
        """Bits of a value that a layer emits behind its pooling: as wide as who reads it takes it, else as it is."""
        readers = [item for item in self.mapping.layers if item.layer.source == name]
        emitted = self.mapping.network.layer(name).emitted(self.activity.layers[name].spikes)
        own = LayerActivity(emitted, emitted)
        return max([self._value_bits(self.activity.layers[item.layer.name]) for item in readers] or [own.input_bits])

    def _raw_bits(self, part: _Part) -> np.ndarray:
        """Bits of each output before pooling, per fold: spikes, sums, or potentials after the last timestep."""
        spec = part.layer.layer
        if spec.neuron.fires:
            spikes = LayerActivity(part.values.spikes, part.values.spikes)
            return np.full(len(part.complete), self._value_bits(spikes))
        if spec.neuron.kind == "none":
            return np.full(len(part.complete), self.hardware.array.pe.psum_bits)
        return np.where(part.step == part.last_step, self.hardware.array.pe.psum_bits, 0)

    def _pooled_bits(self, part: _Part, raw: np.ndarray) -> np.ndarray:
        """Bits that go to DRAM: whole maps behind the pooling, in step with the folds."""
        spec = part.layer.layer
        if not spec.neuron.fires:
            return raw
        channels, height, width = spec.out_shape
        per_step = channels * height * width * self._emitted_bits(spec.name)
        frame = part.folds.labels[part.complete] // part.layer.n_folds
        done = np.zeros(len(raw), np.int64)
        order = np.argsort(frame, kind="stable")
        through = np.cumsum(part.neurons[order])
        per_frame = int(part.neurons.sum()) // (int(frame.max()) + 1)
        done[order] = (through * per_step) // per_frame
        before = np.zeros(len(raw), np.int64)
        before[order] = np.concatenate([[0], done[order][:-1]])
        return done - before

"""Schedules that stage frames: random networks against pipelined runs, laws of the log and closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache

import numpy as np
import pandas as pd
import pytest
from test_crossbar_chip import activity, arrays, linear, mlp, neuron, random_network, random_overrides
from test_servers import Explained

from archsim.activity import Activity, LayerActivity
from archsim.components.netlist import UNBOUNDED, Lane, Netlist, Target
from archsim.components.trace import ExecutionTrace
from archsim.engine import tables
from archsim.engine.conservation import check_trace
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.log import build_log
from archsim.engine.metrics import SynapticOps, synaptic_ops
from archsim.engine.samples import sample_latencies_ps
from archsim.engine.simpy_execution import execute
from archsim.errors import MappingError
from archsim.eventlog import EventLog
from archsim.hardware.reader import load_hardware
from archsim.mapping import Mapping, map_network
from archsim.workload.network import INPUT, Layer, Network, Pool

pytestmark = pytest.mark.many_seeds

SEEDS = range(60)
STAGED = ("layer_by_layer", "tick_batched")


# Random networks whose layers read what the layers before emitted


@dataclass
class Simulated:
    """A checked run with its log; tables are made when asked for."""

    mapping: Mapping
    activity: Activity
    netlist: Netlist
    trace: ExecutionTrace
    log: EventLog

    @cached_property
    def components(self) -> pd.DataFrame:
        return tables.component_table(self.netlist, self.trace, self.log).set_index("component")

    @property
    def ops(self) -> dict[str, SynapticOps]:
        return synaptic_ops(self.mapping.network, self.activity)

    @cached_property
    def layers(self) -> pd.DataFrame:
        return tables.layer_table(self.mapping, self.activity, self.log, self.ops).set_index("layer")

    @cached_property
    def movement(self) -> pd.DataFrame:
        return tables.movement_table(self.log)

    @property
    def latencies_ps(self) -> list[int]:
        return sample_latencies_ps(self.log, self.activity.n_samples).tolist()

    @property
    def n_frames(self) -> int:
        return self.activity.n_samples * self.activity.n_timesteps


def conv(name: str, source: str, shape: tuple, out: int, kernel: int = 3, pool: Pool | None = None, **fields) -> Layer:
    """A square convolution that keeps the size of its map."""
    sizes = ((kernel, kernel), (1, 1), (kernel // 2, kernel // 2))
    layer = Layer(name, "conv2d", source, shape, out, *sizes, None, None, neuron(), pool)
    return replace(layer, **fields)


def flowing(network: Network, samples: int, steps: int, seed: int, rate: float, high: int = 1) -> Activity:
    """Random spikes that fit together: every layer reads what its source emitted, at the timestep before if delayed."""
    rng, frames = np.random.default_rng(seed), (samples, steps)
    shape = (*frames, *network.input_shape)
    fired = {
        layer.name: (rng.random((*frames, *layer.conv_shape)) < rate).astype(np.int64)
        * (layer.neuron.kind not in ("accumulate", "none"))
        for layer in network.layers
    }
    emitted = {layer.name: layer.emitted(fired[layer.name]) for layer in network.layers}
    emitted[INPUT] = rng.integers(1, high + 1, shape) * (rng.random(shape) < rate)
    layers = {}
    for layer in network.layers:
        inputs = emitted[layer.source].reshape(*frames, *layer.in_shape)
        if layer.delayed:
            inputs = np.concatenate([np.zeros_like(inputs[:, :1]), inputs[:, :-1]], axis=1)
        layers[layer.name] = LayerActivity(inputs, fired[layer.name])
    return Activity(layers, samples, steps, "recorded")


def simulate(network: Network, values: Activity, overrides: dict) -> Simulated:
    """Map, build, execute, check, log."""
    mapping = map_network(load_hardware("demo", overrides), network)
    netlist = build_netlist(mapping, values)
    trace = execute(netlist)
    check_trace(netlist, trace)
    return Simulated(mapping, values, netlist, trace, build_log(netlist, trace))


@lru_cache
def flow_case(seed: int) -> tuple[Network, dict, Activity]:
    """Random chain of layers, sometimes with a second reader of one of them, a chip and an activity."""
    rng = np.random.default_rng(seed)
    network, overrides = random_network(rng), random_overrides(rng)
    if len(network.layers) > 1 and rng.random() < 0.4:
        read = network.layers[int(rng.integers(len(network.layers) - 1))]
        side = linear("side", read.name, int(np.prod(read.out_shape)), int(rng.integers(1, 9)))
        network = replace(network, layers=(*network.layers[:-1], side, network.layers[-1]))
    overrides["mapping.share_tiles"] = bool(rng.random() < 0.3)
    overrides["mapping.placement"] = "traffic" if rng.random() < 0.15 else "snake"
    overrides["mapping.layout"] = str(rng.choice(["kernel_position", "dense"]))
    sizes = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    rate = float(rng.choice([0.0, 0.05, 0.3, 1.0]))
    return network, overrides, flowing(network, *sizes, seed, rate, int(rng.integers(1, 4)))


@cache
def flow(seed: int, *policy: tuple[str, str | int]) -> Simulated:
    """A random case, run with some keys of the chip set otherwise."""
    network, overrides, values = flow_case(seed)
    return simulate(network, values, overrides | dict(policy))


def staged(seed: int, schedule: str) -> Simulated:
    return flow(seed, ("mapping.schedule", schedule))


def unfinished(each: Simulated) -> list[str]:
    """Lanes with a token that never started or never left."""
    pairs = zip(each.netlist.lanes(), each.trace.lanes, strict=True)
    return [lane.name for lane, one in pairs if (one.start_ps < 0).any() or (one.leave_ps < one.start_ps).any()]


def work(each: Simulated) -> pd.DataFrame:
    """What the values alone decide, layer by layer."""
    columns = ["crossbar_reads", "skipped_reads", "adc_conversions", "neuron_updates", "spikes_in", "spikes_out"]
    return each.layers[["tokens", *columns, "activation_sparsity"]]


def pe_energy(each: Simulated) -> dict[tuple[str, str], float]:
    """Dynamic energy per layer and stage of its PEs, rounded once, so the same in any order of services."""
    log, found = each.log, {}
    stages = [path.rpartition(".")[2] if ".pe" in path else "" for path in log.components]
    for index, layer in enumerate(log.layers):
        mine = log["layer"] == index
        for stage in {*stages} - {""}:
            codes = [code for code, name in enumerate(stages) if name == stage]
            rows = mine & np.isin(log["component"], codes) & ~log.is_leakage
            if rows.any():
                found[layer, stage] = math.fsum(log["energy_pj"][rows])
    return found


class ExplainedStreams(Explained):
    """Knows streams that leave positions out: silent ones, and those that other copies serve."""

    def __init__(self, each: Simulated) -> None:
        super().__init__(each.netlist, each.trace)
        self.mapping = each.mapping
        self.senders = {wire.target: lane for lane, _ in self.pairs.values() for wire in lane.wires}

    def known(self, index: int, source: int) -> np.ndarray:
        """Since when every position that a source serves has been known: a packet at or behind it is there."""
        target, n_positions = Target("buffer", index, source), len(self.netlist.buffers[index].last_use)
        lane, arrived = self.senders[target], self.entered["buffer", index, source]
        n_copies = next((item.n_copies for item in self.mapping.layers if item.layer.name == lane.layer), 1)
        copy = int(lane.name.split(".copy")[1]) if ".copy" in lane.name else None
        positions = np.arange(n_positions)
        if copy is not None:
            positions = positions[positions % lane.positions % n_copies == copy]
        known = np.full(n_positions, -1)
        known[positions] = arrived[np.searchsorted(sent_by(lane), positions)]
        return np.maximum.accumulate(known)

    def data(self, lane: Lane) -> np.ndarray:
        if not lane.reader:
            return super().data(lane)
        index, buffer = lane.reader[0], self.netlist.buffers[lane.reader[0]]
        known = np.max([self.known(index, source) for source in range(buffer.n_sources)], axis=0)
        return np.where(buffer.need >= 0, known[buffer.need], -1)

    def slots(self, lane: Lane, is_shared: bool) -> np.ndarray:
        emits = np.ones(lane.n_tokens, bool) if lane.emit is None else lane.emit
        free = np.full(lane.n_tokens, -1)
        targets = [*lane.reserves] if is_shared else []
        targets += [Target("channel", lane.output)] if lane.output is not None else []
        for target in targets:
            numbers = np.arange(int(emits.sum()))
            if target.kind == "channel":
                capacity, freed = self.netlist.channels[target.index].capacity, self.taken[target.index]
            else:
                buffer, numbers = self.netlist.buffers[target.index], sent_by(lane)
                capacity, fetched = buffer.capacity, self.fetched[target.index]
                never = np.iinfo(np.int64).max  # positions of the last timestep, which a delayed layer never needs
                after = [np.append(at, never)[np.minimum(buffer.last_use, len(at))] for at in fetched]
                freed = np.maximum.accumulate(np.max(after, axis=0))
            if capacity != UNBOUNDED:
                mine = np.where(numbers >= capacity, freed[np.maximum(numbers - capacity, 0)], -1)
                free[emits] = np.maximum(free[emits], mine)
        return np.maximum.accumulate(free)  # a token that sends nothing waits behind one that does


def sent_by(lane: Lane) -> np.ndarray:
    """Position of every token that a lane sends, over all frames."""
    return np.arange(lane.n_emitted) if lane.sent_positions is None else lane.sent_positions


# Laws


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_leaves(seed, schedule):
    assert unfinished(staged(seed, schedule)) == []


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("seed", SEEDS[:16])
def test_every_time_follows_from_its_constraints(seed, schedule):
    assert ExplainedStreams(staged(seed, schedule)).faults() == []


def by_frame(each: Simulated, rows: np.ndarray, column: str, pick: np.ufunc, schedule: str) -> np.ndarray:
    """First or last time of some rows for every frame, or for every sample where samples are staged whole."""
    frame = each.log["sample"][rows].astype(int)
    if schedule == "layer_by_layer":
        frame = frame * each.activity.n_timesteps + each.log["timestep"][rows]
    n = each.activity.n_samples if schedule == "tick_batched" else each.n_frames
    times = np.full(n, 0 if pick is np.maximum else np.iinfo(np.int64).max)
    pick.at(times, frame, each.log[column][rows])
    return times


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_layer_starts_behind_the_whole_frames_of_the_layer_before(seed, schedule):
    each = staged(seed, schedule)
    log, early = each.log, []
    for item in each.mapping.layers:
        if item.layer.source != INPUT:
            mine, before = (log["layer"] == log.layers.index(name) for name in (item.layer.name, item.layer.source))
            stored = log.rows_of("global_buffer") & before & log.actions_of("write")
            starts = by_frame(each, mine & log.actions_of("latch"), "start_ps", np.minimum, schedule)
            delivered = by_frame(each, stored, "leave_ps", np.maximum, schedule)
            early += [item.layer.name] * bool((starts <= delivered).any() or not stored.any())
    assert early == []


@pytest.mark.parametrize("seed", SEEDS)
def test_schedules_change_no_count_and_no_energy_of_a_pe(seed):
    plain = flow(seed)
    for schedule in STAGED:
        pd.testing.assert_frame_equal(work(staged(seed, schedule)), work(plain), check_exact=True)
        assert pe_energy(staged(seed, schedule)) == pe_energy(plain)


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_one_timestep_makes_both_schedules_the_same(seed):
    network, overrides, values = flow_case(seed)
    first = {name: LayerActivity(one.inputs[:, :1], one.spikes[:, :1]) for name, one in values.layers.items()}
    once = replace(values, layers=first, n_timesteps=1)
    traces = [simulate(network, once, overrides | {"mapping.schedule": schedule}).trace for schedule in STAGED]
    assert arrays(traces[0]) == arrays(traces[1])


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("seed", SEEDS)
def test_staging_makes_no_sample_faster(seed, schedule):
    pairs = zip(flow(seed).latencies_ps, staged(seed, schedule).latencies_ps, strict=True)
    assert [(plain, staged_ps) for plain, staged_ps in pairs if staged_ps < plain] == []


# Closed forms


def value_bits(each: Simulated, name: str) -> int:
    """Bits of a value that readers take: of the largest count, one where rows see only zero and one."""
    values = [each.activity.layers[item.layer.name].inputs for item in each.mapping.consumers(name)]
    is_binary = each.mapping.hardware.mapping.input_coding == "binary"
    return 1 if is_binary else max(1, max(int(inputs.max()) for inputs in values).bit_length())


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_staged_bit_is_written_once_and_read_once(seed, schedule):
    each = staged(seed, schedule)
    expected = []
    for item in each.mapping.layers:
        name, (channels, height, width) = item.layer.name, item.layer.out_shape
        if each.mapping.consumers(name):
            n, bits = each.n_frames * height * width, channels * value_bits(each, name)
            expected.append((name, "global_buffer", n * len(item.col_blocks), n * bits))
            expected.append(("global_buffer", f"global_buffer.{name}.read", n, n * bits))
    table = each.movement
    ports = ["input", "output"]
    is_staging = (table["level"] == "global_buffer") & ~table["source"].isin(ports) & ~table["destination"].isin(ports)
    found = table[is_staging][["source", "destination", "packets", "bits"]]
    assert sorted(found.itertuples(index=False, name=None)) == sorted(expected)


@pytest.mark.parametrize(("schedule", "batch"), [("layer_by_layer", 1), ("tick_batched", 3)])
def test_a_stage_adds_a_trip_to_the_buffer_a_write_a_read_and_a_trip_back(schedule, batch):
    """One position per frame and endless links; room for a frame is there once the one before it was read.

    What finds no room waits at the port; the third frame finds the tile's line buffer full.
    """
    network, chip = mlp(4, 4, 4), {"chip.noc.detail": "ideal", "mapping.schedule": schedule}
    log = simulate(network, activity(network, 1, 3, rate=1.0), chip).log
    there, back = 2000 * (4 + 2), 2000 * (2 * 4 + 2)  # tile 0 is at the port's router, tile 1 one link away
    fired = log["leave_ps"][log.rows_of("tile0.v_mem") & log.actions_of("write")]
    read = log["start_ps"][log.rows_of("global_buffer.fc1.read")]
    first = fired[batch - 1 :: batch]
    room = np.concatenate([[0], read[batch - 1 : -1 : batch] + 2000])
    latch = log["start_ps"][log.rows_of("tile1.pe0.fetch")]
    found = [read[::batch].tolist(), latch[::batch][:2].tolist()]
    assert found == [(np.maximum(first + there, room) + 2000).tolist(), (read[::batch][:2] + 2000 + back).tolist()]


# Refusals


@pytest.mark.parametrize(("schedule", "staged_bits"), [("layer_by_layer", 8192), ("tick_batched", 3 * 8192)])
def test_a_global_buffer_below_its_frames_is_refused_with_what_it_needs(schedule, staged_bits):
    layers = (conv("wide", INPUT, (1, 32, 32), 8, 1), conv("last", "wide", (8, 32, 32), 1, 1))
    network, bits = Network("maps", (1, 32, 32), layers), 1024 + staged_bits
    chip = {"chip.global_buffer.kib": 1, "mapping.schedule": schedule}
    with pytest.raises(MappingError) as caught:
        simulate(network, flowing(network, 1, 3, 0, 0.5), chip)
    assert str(caught.value) == (
        f"the frames that network 'maps' keeps in the global buffer have {bits} bits or more; "
        f"chip.global_buffer.kib 1 holds 8192. Raise it to {-(-bits // 8192)} at least, or choose a "
        "chip.dram.kind that takes what is staged."
    )


def test_the_buffer_that_the_message_asks_for_is_enough():
    layers = (conv("wide", INPUT, (1, 32, 32), 8, 1), conv("last", "wide", (8, 32, 32), 1, 1))
    network = Network("maps", (1, 32, 32), layers)
    mapping = map_network(load_hardware("demo", {"chip.global_buffer.kib": 2, "mapping.schedule": STAGED[0]}), network)
    assert build_netlist(mapping, flowing(network, 1, 1, 0, 0.5)).buffers[-1].capacity >= 1


def joining(kind: str) -> Network:
    """A shortcut around a layer, or weights from a layer back to itself."""
    stem = conv("stem", INPUT, (2, 4, 4), 4)
    if kind == "shortcut":
        inner = conv("inner", "stem", (4, 4, 4), 4)
        return Network("res", (2, 4, 4), (stem, inner, conv("sum", "inner", (4, 4, 4), 4, adds=("stem",))))
    back = conv("back", "state", (4, 4, 4), 4, delayed=True, neuron=neuron("none"))
    return Network("loop", (2, 4, 4), (stem, back, conv("state", "stem", (4, 4, 4), 4, adds=("back",))))

"""Critical paths: by hand, edge by edge against brute force, and against what changing a service does."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import test_crossbar_chip as crossbar
from random_netlists import Growth
from test_rounds import chip as reloaded_chip
from test_schedules import flow, flowing, simulate
from test_servers import lane, pipeline, random_sharing, sink, source
from tiny_result import tiny_result

import archsim
from archsim.analysis.critical_path import co_critical, latency_stack
from archsim.components.netlist import UNBOUNDED, LineBuffer, Netlist, Target, Wire
from archsim.components.trace import ExecutionTrace
from archsim.engine import compiled_execution, simpy_execution
from archsim.engine.critical_path import COLUMNS, Walk
from archsim.engine.path import Path, Point
from archsim.engine.samples import sample_latencies_ps
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError, SimulationError
from archsim.eventlog import ARBITER, CAUSES, CREDIT, DATA, SERVER

pytestmark = pytest.mark.many_seeds

EXECUTIONS = (simpy_execution.execute, compiled_execution.execute)


def found(netlist: Netlist) -> list[tuple[str, int, int, str, str]]:
    """The path to the last leave of a netlist: component, start, duration, cause, what else binds."""
    trace = simpy_execution.execute(netlist)
    last = max(range(len(trace.lanes)), key=lambda number: trace.lanes[number].leave_ps.max())
    walk = Walk(netlist, trace)
    path = walk.back(Point(last, netlist.lanes()[last].n_tokens - 1, True), 0).segments(walk.names)
    path["cause"] = [CAUSES[code] for code in path["cause"]]
    return list(
        path[["component", "start_ps", "duration_ps", "cause", "co_component"]].itertuples(index=False, name=None)
    )


# By hand


def test_one_token_passes_a_chain_and_the_path_is_the_chain():
    assert found(pipeline([[2], [5], [3]], [1, 1])) == [
        ("stage0", 0, 2, "data", ""),
        ("stage1", 2, 5, "data", ""),
        ("stage2", 7, 3, "data", ""),
    ]


def test_a_bottleneck_holds_the_path_for_all_its_tokens():
    path = found(pipeline([[1] * 9, [7] * 9, [2] * 9], [2, 2]))
    stages = [("stage0", 0, 1, "data", ""), ("stage1", 1, 7, "data", "")]
    stages += [("stage1", 1 + 7 * number, 7, "server", "") for number in range(1, 9)]
    assert path == [*stages, ("stage2", 64, 2, "data", "")]


def test_a_full_latch_leads_to_whoever_empties_it():
    """Stage 0 cannot leave before 12, when stage 1 takes its second token after ten picoseconds with the first."""
    assert found(pipeline([[2, 2, 2, 2], [10, 1, 1, 1]], [1])) == [
        ("stage0", 0, 2, "data", ""),
        ("stage1", 2, 10, "data", ""),
        ("stage0", 12, 2, "server", "stage1"),
        ("stage1", 14, 1, "data", ""),
    ]


def test_equal_stages_bind_together():
    assert found(pipeline([[3, 3, 3], [3, 3, 3]], [2])) == [
        ("stage0", 0, 3, "data", ""),
        ("stage0", 3, 3, "server", ""),
        ("stage0", 6, 3, "server", "stage1"),
        ("stage1", 9, 3, "data", ""),
    ]


def test_a_join_takes_its_last_input_and_names_the_one_that_came_with_it():
    netlist = Netlist()
    inputs = [source(netlist, name, [at]) for name, at in (("early", 5), ("late", 9), ("later", 9))]
    sink(netlist, "join", [4], *inputs)
    assert found(netlist) == [("late", 0, 9, "data", "later"), ("join", 9, 4, "data", "")]


def test_a_wire_is_a_segment_of_its_own():
    netlist = Netlist()
    inbox, far = source(netlist, "source", [4]), netlist.channel("far", UNBOUNDED)
    netlist.server("link", "shared", lane("link", [50], inputs=(inbox,), wires=(Wire(Target("channel", far), 8),)))
    sink(netlist, "far", [90], far)
    netlist_path = found(netlist)
    assert netlist_path == [("source", 0, 4, "data", ""), ("link", 4, 8, "data", ""), ("far", 12, 90, "data", "")]


def test_a_stream_that_waits_for_another_on_a_bus_leads_to_it():
    netlist = Netlist()
    inboxes = [source(netlist, "a", [1]), source(netlist, "b", [2])]
    shared = netlist.server("bus", "shared")
    for index, inbox in enumerate(inboxes):
        out = netlist.channel(f"out{index}", UNBOUNDED)
        shared.lanes.append(lane(f"bus{index}", [10], inputs=(inbox,), output=out))
        sink(netlist, f"sink{index}", [0], out)
    assert found(netlist) == [("a", 0, 1, "data", ""), ("bus0", 1, 10, "data", ""), ("bus1", 11, 10, "arbiter", "")]


def test_room_in_a_line_buffer_comes_from_the_fetch_of_its_reader():
    netlist = Netlist()
    inbox = source(netlist, "source", [0, 0, 0])
    netlist.buffers.append(LineBuffer("buffer", "layer", 1, 1, 1, np.arange(3), np.arange(3)))
    target = Target("buffer", 0)
    link = lane("link", [1] * 3, inputs=(inbox,), wires=(Wire(target, 2),), reserves=(target,))
    netlist.server("link", "shared", link)
    netlist.server("pe", "private", lane("pe", [20] * 3, reader=(0, 0), release_after=1))
    travels = [("link", 0, 2, "data", "")]
    travels += [part for at in (2, 24) for part in (("pe", at, 20, "data", ""), ("link", at + 20, 2, "data", ""))]
    assert found(netlist) == [*travels, ("pe", 46, 20, "data", "")]


# Every edge against brute force


class Constraints:
    """What every start and leave waited for, replayed token by token: times and points."""

    def __init__(self, netlist: Netlist, trace: ExecutionTrace) -> None:
        self.netlist, self.lanes, self.times = netlist, netlist.lanes(), trace.lanes
        self.came, self.taken, self.fetched = defaultdict(list), defaultdict(list), defaultdict(list)
        for number, each in enumerate(self.lanes):
            sent = 0
            for token in range(each.n_tokens):
                start, leave = int(self.times[number].start_ps[token]), int(self.times[number].leave_ps[token])
                begin = Point(number, token, False)
                for channel in each.inputs:
                    self.taken[channel].append((start, begin))
                if each.reader:
                    fetch = int(each.fetch_ps[token])
                    self.fetched[each.reader[0], token].append((start + fetch, begin))
                if each.emit is None or each.emit[token]:
                    if each.output is not None:
                        self.came["channel", each.output, 0].append((leave, Point(number, token, True)))
                    for wire in each.wires:
                        delay = wire.delay_ps[sent] if isinstance(wire.delay_ps, np.ndarray) else wire.delay_ps
                        key = (wire.target.kind, wire.target.index, wire.target.source)
                        self.came[key].append((start + int(delay), begin))
                    sent += 1

    def of(self, point: Point) -> dict[int, set[tuple[int, Point]]]:
        """By logged cause (server stands for arbiter too): what had to happen before a point."""
        each, times = self.lanes[point.lane], self.times[point.lane]
        server = next(server for server in self.netlist.servers if any(one is each for one in server.lanes))
        is_shared = server.policy == "shared"
        if point.is_leave:
            end = int(times.start_ps[point.token] + each.service_ps[point.token])
            waits = {SERVER: {(end, Point(point.lane, point.token, False))}, CREDIT: set()}
            return waits if is_shared else waits | {CREDIT: self._slots(each, point.token, is_shared)}
        before = (
            {(int(times.leave_ps[point.token - 1]), Point(point.lane, point.token - 1, True))} if point.token else {}
        )
        waits = {DATA: self._inputs(each, point.token), CREDIT: set(), SERVER: set(before)}
        if is_shared:
            now = int(times.start_ps[point.token])
            waits[CREDIT] = self._slots(each, point.token, is_shared)
            for number, other in enumerate(self.lanes):
                if any(other is one for one in server.lanes):
                    leaves = self.times[number].leave_ps
                    waits[SERVER] |= {(now, Point(number, at, True)) for at in np.flatnonzero(leaves == now).tolist()}
        return waits

    def _inputs(self, each, token: int) -> set[tuple[int, Point]]:
        inputs = {self.came["channel", channel, 0][token] for channel in each.inputs}
        if each.reader and (need := int(self.netlist.buffers[each.reader[0]].need[token])) >= 0:
            buffer = self.netlist.buffers[each.reader[0]]
            for number in range(buffer.n_sources):
                covered = buffer.covered(number).tolist()
                deliveries = self.came["buffer", each.reader[0], number]
                if covered[0] <= need:
                    inputs.add(next(one for one, after in zip(deliveries, covered[1:], strict=True) if after > need))
            if not inputs:
                inputs.add(min(self.came["buffer", each.reader[0], number][0] for number in range(buffer.n_sources)))
        return inputs

    def _slots(self, each, token: int, is_shared: bool) -> set[tuple[int, Point]]:
        if each.emit is not None and not each.emit[token]:
            return set()
        sent = token if each.emit is None else int(each.emit[:token].sum())
        places = list(each.reserves) if is_shared else []
        slots = set()
        for place in places + ([] if each.output is None else [Target("channel", each.output)]):
            if place.kind == "channel":
                capacity = self.netlist.channels[place.index].capacity
                if capacity != UNBOUNDED and sent >= capacity:
                    slots.add(self.taken[place.index][sent - capacity])
            else:
                buffer = self.netlist.buffers[place.index]
                position = sent if each.sent_positions is None else int(each.sent_positions[sent])
                if position >= buffer.capacity:
                    last = max(buffer.last_use[: position - buffer.capacity + 1].tolist())
                    slots |= set(self.fetched[place.index, last])
        return slots


def faults(netlist: Netlist, trace: ExecutionTrace, path: Path, until_ps: int) -> list[object]:
    """Steps of a path that brute force does not know, that another cause was logged for, or that leave a gap."""
    known, wrong = Constraints(netlist, trace), []
    for point, origin in zip(path.points, path.points[1:], strict=False):
        times = trace.lanes[point.lane]
        now = int((times.leave_ps if point.is_leave else times.start_ps)[point.token])
        logged = int((times.leave_cause if point.is_leave else times.start_cause)[point.token])
        waits = known.of(point)
        tight = {cause: {one for at, one in events if at == now} for cause, events in waits.items()}
        late = [at for events in waits.values() for at, _ in events if at > now]
        rule = next((cause for cause in (DATA, CREDIT, SERVER) if tight.get(cause)), None)
        if late or origin not in tight[rule] or rule != (SERVER if logged == ARBITER else logged):
            wrong.append((point, origin, now, logged))
    segments = path.segments(Walk(netlist, trace).names)
    ends = (segments["start_ps"] + segments["duration_ps"]).tolist()
    wrong += [end for end, after in zip(ends, segments["start_ps"][1:], strict=False) if end != after]
    first = path.points[0]
    length = int(trace.lanes[first.lane].leave_ps[first.token]) - until_ps
    return wrong + ["sum"] * (int(segments["duration_ps"].sum()) != max(length, 0))


def paths_are_explained(netlist: Netlist, trace: ExecutionTrace) -> None:
    """Check the paths to the last token of some lanes, back to the beginning or back to half of it."""
    walk, lanes = Walk(netlist, trace), netlist.lanes()
    for number, each in list(enumerate(lanes))[-1 :: -max(1, len(lanes) // 6)]:
        last = Point(number, each.n_tokens - 1, True)
        until_ps = int(trace.lanes[number].leave_ps[-1]) // 2 if number % 4 == 3 else 0
        assert faults(netlist, trace, walk.back(last, until_ps), until_ps) == []


@pytest.mark.parametrize("seed", range(100))
def test_every_edge_of_random_netlists_is_explained(seed):
    netlist = Growth(seed).grow()
    try:
        trace = EXECUTIONS[seed % 2](netlist)
    except SimulationError:
        pytest.skip("this netlist deadlocks")
    paths_are_explained(netlist, trace)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_every_edge_of_a_shared_system_is_explained(seed, depth):
    netlist = random_sharing(seed, depth)
    paths_are_explained(netlist, simpy_execution.execute(netlist))


# What a path means


def random_pipeline(seed: int) -> tuple[list[list[int]], list[int]]:
    rng = np.random.default_rng(seed)
    n_stages, n_tokens = int(rng.integers(2, 6)), int(rng.integers(2, 30))
    services = rng.choice([1, 2, 3, 4, 30], (n_stages, n_tokens), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    return services.tolist(), rng.integers(1, 4, n_stages - 1).tolist()


def run_and_path(services: list[list[int]], depths: list[int]) -> tuple[int, set[tuple[int, int]]]:
    """When the last token leaves, and the (stage, token) of all services on the path to it."""
    netlist = pipeline(services, depths)
    trace = simpy_execution.execute(netlist)
    last = Point(len(services) - 1, len(services[0]) - 1, True)
    walk = Walk(netlist, trace)
    segments = walk.back(last, 0).segments(walk.names)
    return trace.end_ps, set(zip(segments["lane"].tolist(), segments["token"].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_a_longer_service_on_the_path_lengthens_a_private_pipeline_by_exactly_as_much(seed):
    services, depths = random_pipeline(seed)
    end_ps, path = run_and_path(services, depths)
    stage, token = sorted(path)[seed % len(path)]
    services[stage][token] += 7
    assert run_and_path(services, depths)[0] == end_ps + 7


@pytest.mark.parametrize("seed", range(40))
def test_without_the_services_off_the_path_a_private_pipeline_takes_as_long(seed):
    services, depths = random_pipeline(seed)
    end_ps, path = run_and_path(services, depths)
    kept = [
        [time if (stage, token) in path else 0 for token, time in enumerate(row)] for stage, row in enumerate(services)
    ]
    assert run_and_path(kept, depths)[0] == end_ps


# Chips


@pytest.mark.parametrize("seed", range(0, 30, 5))
def test_every_edge_of_a_random_chip_is_explained(seed):
    each = crossbar.case(seed)
    walk = Walk(each.netlist, each.trace)
    assert faults(each.netlist, each.trace, walk.path(0), walk.injection_ps(0)) == []


@pytest.mark.parametrize("policy", [("mapping.schedule", "tick_batched"), ("mapping.replication", 2)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_every_edge_of_schedules_and_copies_is_explained(seed, policy):
    each = flow(seed, policy)
    walk = Walk(each.netlist, each.trace)
    assert faults(each.netlist, each.trace, walk.path(0), walk.injection_ps(0)) == []


@pytest.mark.parametrize("schedule", ["tick_batched", "layer_by_layer"])
def test_paths_through_written_crossbars_are_explained_and_sum_to_the_latency(schedule):
    network = crossbar.mlp(4, 4, 4)
    each = simulate(network, flowing(network, 2, 3, 0, 0.5), reloaded_chip(1, schedule))
    walk = Walk(each.netlist, each.trace)
    paths = [walk.path(sample) for sample in range(2)]
    assert [faults(each.netlist, each.trace, path, walk.injection_ps(n)) for n, path in enumerate(paths)] == [[], []]
    sums = [path.segments(walk.names)["duration_ps"].sum() for path in paths]
    assert sums == sample_latencies_ps(each.log, 2).tolist()


@pytest.mark.parametrize("schedule", ["pipelined", "layer_by_layer", "tick_batched"])
@pytest.mark.parametrize("workload", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("chip", ["demo", "spikesim-rram-64", "isaac-rram-128"])
def test_paths_of_shipped_runs_sum_to_the_latency_of_every_sample(chip, workload, schedule):
    loaded = archsim.load_workload(workload)
    mapping = archsim.map_network(archsim.load_hardware(chip, {"mapping.schedule": schedule}), loaded)
    activity = crossbar.activity(loaded.network, 3, loaded.n_timesteps)
    result = simulate_activity(mapping, loaded, activity, engine="compiled")
    sums = [int(archsim.critical_path(result, sample)["duration_ps"].sum()) for sample in range(3)]
    assert sums == sample_latencies_ps(result.log, 3).tolist()


@pytest.fixture(scope="module")
def vgg9():
    return archsim.simulate(archsim.load_hardware("spikesim-rram-64"), archsim.load_workload("vgg9-cifar10"))


def test_the_path_of_vgg9_sums_to_its_latency_and_names_the_converters_of_the_first_layer(vgg9):
    stack = latency_stack(vgg9)
    assert stack["duration_ps"].sum() == vgg9.summary["latency_ps"]
    assert tuple(stack.loc[0, ["kind", "layer", "cause"]]) == ("adc", "conv1", "server")
    assert stack["share"].sum() == pytest.approx(1)


def test_a_path_survives_writing_and_reading(vgg9, tmp_path):
    loaded = archsim.Result.load(vgg9.write(tmp_path / "run"))
    assert archsim.critical_path(loaded).equals(archsim.critical_path(vgg9))
    assert loaded.queues.equals(vgg9.queues)


def test_pairs_that_bind_together_are_summed():
    result = tiny_result()
    rows = [("a", "b", 0, 3), ("b", "a", 3, 1), ("a", "b", 4, 4)]
    path = [(0, name, "serve", "first", 0, "data", start, length, other) for name, other, start, length in rows]
    result.paths = pd.DataFrame(path, columns=list(COLUMNS))
    assert co_critical(result) == [("a", "b", 7), ("b", "a", 1)]


# Faults of whoever asks


def test_a_sample_that_was_not_simulated_is_refused():
    with pytest.raises(ConfigError) as caught:
        archsim.critical_path(tiny_result(), 3)
    assert str(caught.value) == ("sample 3 is not in this result; it has sample 0 only. Simulate more with --samples.")


def test_a_result_without_paths_says_so(tmp_path):
    with pytest.raises(ConfigError) as caught:
        archsim.critical_path(archsim.Result.load(tiny_result().write(tmp_path / "old")))
    assert str(caught.value) == (
        "this result was written without critical paths (no critical_path.parquet in its folder). "
        "Run the simulation again."
    )


def test_a_time_without_a_cause_is_a_fault_of_the_simulator():
    netlist = pipeline([[2, 2], [3, 3]], [1])
    trace = simpy_execution.execute(netlist)
    trace.lanes[1].start_ps[1] += 1
    with pytest.raises(SimulationError, match=r"^stage1: token 1 leaves at 8 ps without a cause$"):
        Walk(netlist, trace).back(Point(1, 1, True), 0)

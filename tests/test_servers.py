"""Servers and channels: hand-made netlists against hand-made times, recurrences and brute force."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from archsim.components.netlist import UNBOUNDED, Action, Lane, LineBuffer, Netlist, Server, Target, Wire, constant
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.engine.conservation import check_trace
from archsim.engine.simpy_execution import execute
from archsim.errors import SimulationError
from archsim.eventlog import ARBITER, CAUSES, CREDIT, DATA, SERVER


def lane(name: str, service: list[int], **wiring) -> Lane:
    """A lane of one action whose tokens take the given times."""
    n = len(service)
    action = Action(
        name, "serve", np.array(service, np.int64), constant(1, n), constant(0, n), constant(0, n, np.float64)
    )
    return Lane(name, "layer", n, n, (0, 1), (action,), **wiring)


def pipeline(services: list[list[int]], depths: list[int]) -> Netlist:
    """Private stages in a row; depths[j] tokens fit between stage j and the next."""
    netlist = Netlist()
    inbox: tuple[int, ...] = ()
    for stage, service in enumerate(services):
        output = netlist.channel(f"latch{stage}", depths[stage]) if stage < len(depths) else None
        netlist.server(f"stage{stage}", "private", lane(f"stage{stage}", service, inputs=inbox, output=output))
        inbox = () if output is None else (output,)
    return netlist


def source(netlist: Netlist, name: str, arrivals: list[int]) -> int:
    """A private server that puts a token into an endless channel at each of the given times."""
    channel = netlist.channel(f"{name}.out", UNBOUNDED)
    netlist.server(name, "private", lane(name, np.diff(arrivals, prepend=0).tolist(), output=channel))
    return channel


def sink(netlist: Netlist, name: str, service: list[int], *inputs: int) -> Lane:
    """A private server at the end of one or more channels."""
    return netlist.server(name, "private", lane(name, service, inputs=inputs)).lanes[0]


def times(netlist: Netlist) -> list[tuple[list[int], list[int], str, str]]:
    """Start, leave and the first letters of the causes (data, credit, server, arbiter), lane by lane."""
    trace = execute(netlist)
    check_trace(netlist, trace)
    return [
        (one.start_ps.tolist(), one.leave_ps.tolist(), letters(one.start_cause), letters(one.leave_cause))
        for one in trace.lanes
    ]


def letters(causes: np.ndarray) -> str:
    return "".join(CAUSES[cause][0] for cause in causes)


# Private servers


def test_one_stage_serves_back_to_back():
    assert times(pipeline([[5, 7, 3]], [])) == [([0, 5, 12], [5, 12, 15], "dss", "sss")]


def test_two_stages_behind_an_endless_latch_never_block():
    assert times(pipeline([[2, 2, 2], [5, 1, 1]], [UNBOUNDED])) == [
        ([0, 2, 4], [2, 4, 6], "dss", "sss"),
        ([2, 7, 8], [7, 8, 9], "dss", "sss"),
    ]


def test_a_full_latch_of_one_blocks_after_service():
    assert times(pipeline([[2, 2, 2, 2], [10, 1, 1, 1]], [1])) == [
        ([0, 2, 4, 12], [2, 4, 12, 14], "dsss", "sscs"),
        ([2, 12, 13, 14], [12, 13, 14, 15], "dssd", "ssss"),
    ]


def test_a_latch_of_two_blocks_one_token_later():
    assert times(pipeline([[2, 2, 2, 2], [10, 1, 1, 1]], [2])) == [
        ([0, 2, 4, 6], [2, 4, 6, 12], "dsss", "sssc"),
        ([2, 12, 13, 14], [12, 13, 14, 15], "dsss", "ssss"),
    ]


def test_blocking_propagates_through_three_stages():
    assert times(pipeline([[1] * 5, [1] * 5, [4] * 5], [1, 1])) == [
        ([0, 1, 2, 3, 4], [1, 2, 3, 4, 6], "dssss", "ssssc"),
        ([1, 2, 3, 6, 10], [2, 3, 6, 10, 14], "dddss", "ssccc"),
        ([2, 6, 10, 14, 18], [6, 10, 14, 18, 22], "dssss", "sssss"),
    ]


def test_a_slot_that_comes_free_as_the_service_ends_is_a_credit():
    assert times(pipeline([[2, 2, 2], [4, 4, 4]], [1]))[0] == ([0, 2, 4], [2, 4, 6], "dss", "ssc")


def test_services_of_no_time_pass_in_the_same_instant():
    assert times(pipeline([[3, 0, 0], [0, 0, 0]], [1])) == [
        ([0, 3, 3], [3, 3, 3], "dss", "scc"),
        ([3, 3, 3], [3, 3, 3], "ddd", "sss"),
    ]


def recurrence(services: list[list[int]], depths: list[int]) -> list[tuple[list[int], list[int], str, str]]:
    """Max-plus recurrence of a blocking tandem, token by token."""
    n_stages, n_tokens = len(services), len(services[0])
    start, leave = np.full((2, n_stages, n_tokens), -1, np.int64)
    causes = [["", ""] for _ in range(n_stages)]
    for n in range(n_tokens):
        for j in range(n_stages):
            before = leave[j, n - 1] if n else -1
            arrival = leave[j - 1, n] if j else -1
            start[j, n] = max(arrival, before, 0)
            end = start[j, n] + services[j][n]
            depth = depths[j] if j < n_stages - 1 else UNBOUNDED
            slot = start[j + 1, n - depth] if depth and n >= depth else -1
            leave[j, n] = max(end, slot)
            causes[j][0] += "d" if arrival >= before else "s"
            causes[j][1] += "c" if slot >= end else "s"
    return [(start[j].tolist(), leave[j].tolist(), *causes[j]) for j in range(n_stages)]


@pytest.mark.parametrize("seed", range(100))
def test_random_pipelines_follow_the_recurrence(seed):
    rng = np.random.default_rng(seed)
    n_stages, n_tokens = int(rng.integers(1, 6)), int(rng.integers(1, 60))
    heavy = rng.random((n_stages, n_tokens)) < 0.05
    services = (rng.integers(0, 9, (n_stages, n_tokens)) * np.where(heavy, 25, 1)).tolist()
    depths = rng.integers(1, 4, n_stages - 1).tolist()
    assert times(pipeline(services, depths)) == recurrence(services, depths)


def test_a_join_waits_for_its_last_input():
    netlist = Netlist()
    inputs = [source(netlist, "early", [1, 2, 30]), source(netlist, "late", [5, 20, 21])]
    sink(netlist, "join", [4, 4, 4], *inputs)
    assert times(netlist)[2] == ([5, 20, 30], [9, 24, 34], "ddd", "sss")


def test_a_join_frees_all_its_inputs_at_its_start():
    netlist = Netlist()
    slow, fast = netlist.channel("slow", 1), netlist.channel("fast", 1)
    netlist.server("a", "private", lane("a", [10, 10, 10], output=slow))
    netlist.server("b", "private", lane("b", [1, 1, 1], output=fast))
    sink(netlist, "join", [2, 2, 2], slow, fast)
    assert times(netlist)[1] == ([0, 1, 10], [1, 10, 20], "dss", "scc")


def test_tokens_without_output_leave_a_full_latch_alone():
    netlist = Netlist()
    latch = netlist.channel("latch", 1)
    pooling = lane("pooling", [1] * 6, output=latch, emit=np.array([0, 1, 0, 1, 0, 1], bool))
    netlist.server("pooling", "private", pooling)
    sink(netlist, "sink", [20, 1, 1], latch)
    assert times(netlist) == [
        ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 22], "dsssss", "sssssc"),
        ([2, 22, 23], [22, 23, 24], "dss", "sss"),
    ]


# Shared servers


def bus(*arrivals: list[int], service: int = 10) -> Netlist:
    """Sources that share one server, each with an endless channel behind it."""
    netlist = Netlist()
    inboxes = [source(netlist, f"source{index}", at) for index, at in enumerate(arrivals)]
    shared = netlist.server("bus", "shared")
    for index, (inbox, at) in enumerate(zip(inboxes, arrivals, strict=True)):
        out = netlist.channel(f"out{index}", UNBOUNDED)
        shared.lanes.append(lane(f"bus{index}", [service] * len(at), inputs=(inbox,), output=out))
        sink(netlist, f"sink{index}", [0] * len(at), out)
    return netlist


def bus_lanes(netlist: Netlist) -> list[tuple]:
    """Start, causes and predecessors of the lanes of the server called bus."""
    trace = execute(netlist)
    check_trace(netlist, trace)
    found = [trace.of(netlist, each) for server in netlist.servers if server.name == "bus" for each in server.lanes]
    return [(one.start_ps.tolist(), letters(one.start_cause), one.predecessor.tolist()) for one in found]


def test_a_shared_server_grants_the_oldest_first():
    assert bus_lanes(bus([1, 30], [3], [2])) == [
        ([1, 31], "da", [-1, 2]),
        ([21], "a", [1]),
        ([11], "a", [0]),
    ]


def test_a_shared_server_grants_the_lowest_lane_among_equals():
    assert bus_lanes(bus([4, 5], [4])) == [([4, 24], "da", [-1, 1]), ([14], "a", [0])]


def test_waiting_for_the_own_lane_is_server_and_for_another_is_arbiter():
    assert bus_lanes(bus([1, 2, 3], [4])) == [([1, 11, 21], "dss", [-1, -1, -1]), ([31], "a", [2])]


def test_data_wins_a_tie_with_the_end_of_the_service_before():
    assert bus_lanes(bus([0, 10], [20])) == [([0, 10], "dd", [-1, -1]), ([20], "d", [-1])]


def narrow_bus(depth: int) -> Netlist:
    """Two lanes on a bus: the first one's destination is slow, the second one's is not."""
    netlist = Netlist()
    inboxes = [source(netlist, "a", [0, 1, 2]), source(netlist, "b", [3, 4])]
    outboxes = [netlist.channel("slow", depth), netlist.channel("fast", depth)]
    lanes = [
        lane("bus0", [5] * 3, inputs=(inboxes[0],), output=outboxes[0]),
        lane("bus1", [5] * 2, inputs=(inboxes[1],), output=outboxes[1]),
    ]
    netlist.server("bus", "shared", *lanes)
    sink(netlist, "slow_sink", [100, 100, 100], outboxes[0])
    sink(netlist, "fast_sink", [1, 1], outboxes[1])
    return netlist


def test_no_grant_without_a_free_slot_and_a_younger_lane_goes_first():
    assert bus_lanes(narrow_bus(1)) == [([0, 5, 105], "dcc", [-1, -1, -1]), ([10, 15], "ac", [1, -1])]


def test_a_deeper_latch_lets_the_bus_run_ahead_by_one_token():
    assert bus_lanes(narrow_bus(2)) == [([0, 5, 10], "dss", [-1, -1, -1]), ([15, 20], "as", [2, -1])]


def test_tokens_without_output_need_no_slot_on_a_shared_server():
    netlist = Netlist()
    inbox, latch = source(netlist, "source", [0, 0, 0, 0]), netlist.channel("latch", 1)
    emit = np.array([0, 1, 0, 1], bool)
    netlist.server("bus", "shared", lane("bus0", [2] * 4, inputs=(inbox,), output=latch, emit=emit))
    sink(netlist, "sink", [50, 50], latch)
    assert bus_lanes(netlist) == [([0, 2, 4, 6], "dsss", [-1, -1, -1, -1])]


def test_a_cut_through_wire_leaves_at_the_grant():
    netlist = Netlist()
    inbox = source(netlist, "source", [0, 0])
    near, far = netlist.channel("near", UNBOUNDED), netlist.channel("far", UNBOUNDED)
    wires = (Wire(Target("channel", near), 3), Wire(Target("channel", far), 8))
    netlist.server("link", "shared", lane("link", [5, 5], inputs=(inbox,), wires=wires))
    sink(netlist, "near", [0, 0], near)
    sink(netlist, "far", [0, 0], far)
    assert [start for start, *_ in times(netlist)] == [[0, 0], [0, 5], [3, 8], [8, 13]]


def random_sharing(seed: int, depth: int) -> Netlist:
    """Producers with heavy-tailed service, one bus, a join per pair of them, one shared exit."""
    rng = np.random.default_rng(seed)
    netlist, n_tokens = Netlist(), 40
    shared, exits = netlist.server("bus", "shared"), netlist.server("exit", "shared")
    joins = netlist.server("join", "shared")
    for group in range(int(rng.integers(1, 4))):
        slots = [netlist.channel(f"slot{group}.{row}", depth) for row in range(int(rng.integers(2, 4)))]
        for row, slot in enumerate(slots):
            name, latch = f"pe{group}.{row}", netlist.channel(f"latch{group}.{row}", depth)
            service = rng.choice([0, 1, 1, 2, 30], n_tokens).tolist()
            netlist.server(name, "private", lane(name, service, output=latch))
            shared.lanes.append(lane(f"bus{group}.{row}", [2] * n_tokens, inputs=(latch,), output=slot))
        sums, out = netlist.channel(f"sums{group}", depth), netlist.channel(f"out{group}", depth)
        adds = rng.integers(0, 4, n_tokens).tolist()
        joins.lanes.append(lane(f"join{group}", adds, inputs=tuple(slots), output=sums))
        exits.lanes.append(lane(f"exit{group}", [1] * n_tokens, inputs=(sums,), output=out))
        sink(netlist, f"sink{group}", rng.choice([0, 1, 20], n_tokens).tolist(), out)
    return netlist


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_a_shared_bus_before_a_join_drains(seed, depth):
    netlist = random_sharing(seed, depth)
    trace = execute(netlist)
    check_trace(netlist, trace)
    assert [name for name, one in zip(netlist.lanes(), trace.lanes, strict=True) if (one.leave_ps < 0).any()] == []


@pytest.mark.parametrize("seed", range(10))
def test_a_shared_server_serves_one_token_at_a_time(seed):
    netlist = random_sharing(seed, 2)
    trace = execute(netlist)
    found = [trace.of(netlist, each) for each in netlist.servers[0].lanes]
    start = np.concatenate([one.start_ps for one in found])
    leave = np.concatenate([one.leave_ps for one in found])
    order = np.lexsort((leave, start))
    assert (start[order][1:] >= leave[order][:-1]).all()


@pytest.mark.parametrize("seed", range(10))
def test_the_order_in_which_servers_were_added_does_not_matter(seed):
    netlist = random_sharing(seed, 1 + seed % 2)
    lanes, before = netlist.lanes(), execute(netlist)
    order = np.random.default_rng(seed).permutation(len(netlist.servers))
    netlist.servers = [netlist.servers[index] for index in order]
    after = execute(netlist)
    pairs = zip(lanes, before.lanes, strict=True)
    assert [each.name for each, one in pairs if rows(one) != rows(after.of(netlist, each))] == []


def rows(trace: LaneTrace) -> list[list[int]]:
    """Everything that a trace holds, as lists."""
    return [getattr(trace, item.name).tolist() for item in fields(trace)]


# Every time explained by its constraints


class Explained:
    """Checks each start and leave of a trace against the channels, buffers and services around it."""

    def __init__(self, netlist: Netlist, trace: ExecutionTrace) -> None:
        self.netlist = netlist
        self.pairs = {id(lane): (lane, one) for lane, one in zip(netlist.lanes(), trace.lanes, strict=True)}
        self.entered: dict[tuple[str, int, int], np.ndarray] = {}
        self.taken: dict[int, np.ndarray] = {}
        self.fetched: dict[int, list[np.ndarray]] = {}
        for lane, one in self.pairs.values():
            sent = np.ones(lane.n_tokens, bool) if lane.emit is None else lane.emit
            if lane.output is not None:
                self.entered["channel", lane.output, 0] = one.leave_ps[sent]
            for wire in lane.wires:
                key = (wire.target.kind, wire.target.index, wire.target.source)
                self.entered[key] = one.start_ps[sent] + wire.delay_ps
            for channel in lane.inputs:
                self.taken[channel] = one.start_ps
            if lane.reader:
                self.fetched.setdefault(lane.reader[0], []).append(one.start_ps + lane.fetch_ps)

    def data(self, lane: Lane) -> np.ndarray:
        """Since when the input of every token has been there; -1 for sources."""
        arrived = [self.entered["channel", channel, 0] for channel in lane.inputs]
        if lane.reader:
            buffer = self.netlist.buffers[lane.reader[0]]
            parts = [self.entered["buffer", lane.reader[0], source] for source in range(buffer.n_sources)]
            arrived.append(np.max(parts, axis=0)[buffer.need])
        return np.max([np.full(lane.n_tokens, -1), *arrived], axis=0)

    def slots(self, lane: Lane, is_shared: bool) -> np.ndarray:
        """Since when every slot that a token takes has been free; -1 for from the beginning."""
        sent = np.ones(lane.n_tokens, bool) if lane.emit is None else lane.emit
        free = np.full(lane.n_tokens, -1)
        targets = list(lane.reserves) if is_shared else []
        if lane.output is not None:
            targets.append(Target("channel", lane.output))
        for target in targets:
            if target.kind == "channel":
                capacity, freed = self.netlist.channels[target.index].capacity, self.taken[target.index]
            else:
                buffer = self.netlist.buffers[target.index]
                capacity = buffer.capacity
                freed = np.max([at[buffer.last_use] for at in self.fetched[target.index]], axis=0)
            if capacity != UNBOUNDED:
                mine = np.full(int(sent.sum()), -1)
                mine[capacity:] = freed[: max(0, len(mine) - capacity)]
                free[sent] = np.maximum(free[sent], mine)
        return free

    def faults(self) -> list[str]:
        """Lanes and servers whose times are not what their constraints say."""
        found = []
        for server in self.netlist.servers:
            if server.policy == "private":
                found += self._private(server.lanes[0])
            else:
                found += self._shared(server)
        return found

    def _private(self, lane: Lane) -> list[str]:
        one, data = self.pairs[id(lane)][1], self.data(lane)
        before = np.concatenate([[-1], one.leave_ps[:-1]])
        end, slot = one.start_ps + lane.service_ps, self.slots(lane, False)
        sent = np.ones(lane.n_tokens, bool) if lane.emit is None else lane.emit
        waits = sent & (slot >= end)
        checks = {
            "start": one.start_ps == np.maximum(0, np.maximum(data, before)),
            "leave": one.leave_ps == np.where(sent, np.maximum(end, slot), end),
            "start cause": one.start_cause == np.where(data >= before, DATA, SERVER),
            "leave cause": one.leave_cause == np.where(waits, CREDIT, SERVER),
        }
        return [f"{lane.name}: {what}" for what, right in checks.items() if not right.all()]

    def _shared(self, server: Server) -> list[str]:
        """Grants in order: (start, leave, lane, arrival, ready, cause, predecessor) of every token."""
        grants, found = [], []
        for number, lane in enumerate(server.lanes):
            one, data = self.pairs[id(lane)][1], self.data(lane)
            slots = self.slots(lane, True)
            columns = (one.start_ps, one.leave_ps, np.full(len(data), number), data, np.maximum(data, slots))
            grants += zip(*(c.tolist() for c in (*columns, slots, one.start_cause, one.predecessor)), strict=True)
            if (one.leave_ps != one.start_ps + lane.service_ps).any():
                found.append(f"{lane.name}: leave")
        grants.sort(key=lambda grant: (grant[0], grant[1]))
        busy_since = -1
        for number, (start, leave, lane, arrival, ready, slot, cause, predecessor) in enumerate(grants):
            before = grants[number - 1] if number else (-1, -1, -1)
            if start != before[1]:
                busy_since = start
            if start < ready or start < before[1]:
                found.append(f"{server.name}: grant {number} is early")
            if busy_since > ready:
                found.append(f"{server.name}: idle before grant {number}")
            waited = SERVER if before[2] == lane else ARBITER
            right = DATA if arrival == start else CREDIT if slot == start else waited
            if cause != right or predecessor != (number - 1 if right == ARBITER else -1):
                found.append(f"{server.name}: cause of grant {number}")
            heads: dict[int, tuple[int, int, int]] = {}
            for later in grants[number + 1 :]:
                heads.setdefault(later[2], (later[3], later[2], later[4]))
                if len(heads) == len(server.lanes) or later[0] > leave + 10**6:
                    break
            heads.pop(lane, None)
            if any(head[2] < start and head[:2] < (arrival, lane) for head in heads.values()):
                found.append(f"{server.name}: grant {number} was not the oldest")
        return found


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_every_time_of_a_shared_system_follows_from_its_constraints(seed, depth):
    netlist = random_sharing(seed, depth)
    assert Explained(netlist, execute(netlist)).faults() == []


# Deadlock


def test_a_cycle_of_channels_is_named():
    netlist = Netlist()
    there, back = netlist.channel("there", 1), netlist.channel("back", 1)
    netlist.server("ping", "private", lane("ping", [1, 1], inputs=(back,), output=there))
    netlist.server("pong", "shared", lane("pong", [1, 1, 1], inputs=(there,), output=back))
    with pytest.raises(SimulationError) as caught:
        execute(netlist)
    assert str(caught.value) == (
        "no progress after t = 0 ps: 5 services never finished; these wait for each other: ping -> pong -> ping"
    )


def test_a_line_buffer_below_its_window_is_a_named_cycle():
    netlist = Netlist()
    inbox = source(netlist, "source", [1, 2, 3, 4])
    netlist.buffers.append(LineBuffer("buffer", "layer", 2, 1, 1, np.array([2, 3]), np.array([0, 1, 1, 1])))
    target = Target("buffer", 0)
    link = lane("link", [1] * 4, inputs=(inbox,), wires=(Wire(target, 5),), reserves=(target,))
    netlist.server("link", "shared", link)
    netlist.server("pe", "private", lane("pe", [1, 1], reader=(0, 0), release_after=1))
    with pytest.raises(SimulationError) as caught:
        execute(netlist)
    assert str(caught.value) == (
        "no progress after t = 7 ps: 4 services never finished; these wait for each other: link -> pe -> link"
    )


def test_a_join_fed_crosswise_is_a_named_cycle():
    """The first producer fills its own latch before it feeds the one that the join misses."""
    netlist = Netlist()
    left, right = netlist.channel("left", 1), netlist.channel("right", 1)
    relay = netlist.channel("relay", 1)
    netlist.server("a", "private", lane("a", [1] * 4, output=left))
    netlist.server("b", "private", lane("b", [1] * 4, inputs=(relay,), output=right))
    netlist.server("join", "private", lane("join", [1] * 4, inputs=(left, right), output=relay))
    with pytest.raises(SimulationError, match=r"these wait for each other: join -> b -> join$"):
        execute(netlist)


# Statistics of channels


def occupancy(entered: np.ndarray, left: np.ndarray, end_ps: int) -> np.ndarray:
    """Tokens in a channel during each picosecond, counted one by one."""
    at = np.arange(end_ps)
    return ((entered[:, None] <= at) & (at < left[:, None])).sum(axis=0)


@pytest.mark.parametrize("seed", range(10))
def test_channels_count_what_brute_force_counts(seed):
    rng = np.random.default_rng(seed)
    services = rng.choice([1, 2, 3, 15], (3, 50)).tolist()
    trace = execute(pipeline(services, [2, UNBOUNDED]))
    counts = [
        occupancy(before.leave_ps, after.start_ps, trace.end_ps)
        for before, after in zip(trace.lanes, trace.lanes[1:], strict=False)
    ]
    assert [item.occupancy_integral_ps for item in trace.channels] == [int(count.sum()) for count in counts]


@pytest.mark.parametrize("seed", range(10))
def test_a_latch_never_holds_more_than_its_depth(seed):
    netlist = random_sharing(seed, 2)
    trace = execute(netlist)
    bounded = [(one.peak, spec) for one, spec in zip(trace.channels, netlist.channels, strict=True) if spec.capacity]
    assert [spec.name for peak, spec in bounded if not 1 <= peak <= spec.capacity] == []

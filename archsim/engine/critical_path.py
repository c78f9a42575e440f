"""Why a run takes as long as it does: the critical path of every sample, walked back through the trace.

The walk begins at a sample's last departure from the output port and asks at every start and leave
what it waited for: input that came then, a slot that came free then, or the end of the service before.
What holds at the same instant is a tie: data before credit before server or arbiter, then the lowest
component, then the lowest token. It ends at the sample's injection. Services on the way are segments,
action by action; so are delays of wires and router pipelines. Nothing lies between segments, so they
sum to the latency. The work is proportional to the path (and to the services of shared parts that it
passes, whose order is looked up once).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archsim.components.netlist import UNBOUNDED, Lane, LineBuffer, Netlist, Server, Target, Wire
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.engine.lane_times import NOBODY, LaneTimes
from archsim.engine.path import DELAY, NOT_TIED, Parts, Path, Point
from archsim.errors import SimulationError
from archsim.eventlog import CAUSES, CREDIT
from archsim.units import format_time

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("sample", "component", "action", "layer", "timestep", "cause", "start_ps", "duration_ps", "co_component")

_DATA_RANK, _CREDIT_RANK, _SERVER_RANK = range(3)


class Edge(NamedTuple):
    """Something that a point waited for; ordered by the rule for ties."""

    rank: int
    component: int
    token: int
    origin: Point
    segments: Parts = ()
    """What lies between the origin and the point."""


@dataclass(frozen=True)
class _Uses:
    """Services of several lanes, in order of their starts and, as each takes time, of their leaves."""

    start_ps: np.ndarray
    leave_ps: np.ndarray
    lane: np.ndarray
    token: np.ndarray

    @classmethod
    def of(cls, numbers: list[int], times: Sequence[LaneTrace]) -> _Uses:
        """Services of the lanes of these numbers."""
        start_ps = np.concatenate([times[number].start_ps for number in numbers])
        leave_ps = np.concatenate([times[number].leave_ps for number in numbers])
        lane = np.repeat(numbers, [len(times[number].start_ps) for number in numbers])
        token = np.concatenate([np.arange(len(times[number].start_ps)) for number in numbers])
        order = np.lexsort((lane, leave_ps, start_ps))
        return cls(start_ps[order], leave_ps[order], lane[order], token[order])

    def at(self, time_ps: int, by_leave: bool) -> list[Point]:
        """Leaves, or starts, of that time."""
        times = self.leave_ps if by_leave else self.start_ps
        first, end = np.searchsorted(times, [time_ps, time_ps + 1])
        return [Point(int(self.lane[at]), int(self.token[at]), by_leave) for at in range(first, end)]


def path_table(netlist: Netlist, trace: ExecutionTrace, n_samples: int) -> pd.DataFrame:
    """Critical paths of all samples, each in order of time.

    Columns: `sample`, `component`, `action`, `layer`, `timestep`, `cause` (why the service started no earlier),
    `start_ps`, `duration_ps`, `co_component` (a part that would bind at once if this segment were shorter; empty
    if there is none). The durations of a sample sum to its latency.
    """
    import pandas as pd  # heavy, loaded with the first table

    walk = Walk(netlist, trace)
    return pd.concat([_frame(walk, sample) for sample in range(n_samples)], ignore_index=True)


def _frame(walk: Walk, sample: int) -> pd.DataFrame:
    import pandas as pd  # heavy, loaded with the first table

    found = walk.path(sample).segments(walk.names)
    lanes, tokens, timestep = found["lane"].to_numpy(), found["token"].to_numpy(), np.zeros(len(found), np.int64)
    used, which = np.unique(lanes, return_inverse=True)
    for index, number in enumerate(used.tolist()):
        mine = which == index
        timestep[mine] = timesteps_of(walk.lanes[number], tokens[mine])
    layers = np.array([walk.lanes[number].layer for number in used.tolist()], object)
    found["sample"], found["timestep"] = sample, timestep
    found["layer"] = pd.Series(layers[which], dtype="str")
    found["cause"] = pd.Series(np.array(CAUSES, object)[found["cause"]], dtype="str")
    return found[list(COLUMNS)]


def timesteps_of(lane: Lane, tokens: np.ndarray) -> np.ndarray:
    """Timesteps to which tokens of a lane belong."""
    labels = tokens if lane.labels is None else lane.labels[tokens]
    return lane.steps[0] + labels // lane.positions % lane.steps[1]


class Walk:
    """Walks back through an execution."""

    def __init__(self, netlist: Netlist, trace: ExecutionTrace) -> None:
        self.netlist = netlist
        self.lanes = netlist.lanes()
        self.trace = trace
        self._servers = [server for server in netlist.servers for _ in server.lanes]
        self._first: dict[int, int] = {}
        self._fed: dict[tuple[int, int], tuple[int, Wire | None]] = {}
        self._takers: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}
        self._codes = {part.path: code for code, part in enumerate(netlist.components)}
        for number, lane in enumerate(self.lanes):
            self._first.setdefault(id(self._servers[number]), number)
            if lane.output is not None:
                self._fed[lane.output, _CHANNEL] = number, None
            for wire in lane.wires:
                self._fed[_key(wire.target)] = number, wire
            for channel in lane.inputs:
                self._takers[channel] = number
            if lane.reader:
                self._readers.setdefault(lane.reader[0], []).append(number)
            for action in lane.actions:
                self._codes.setdefault(action.component, len(self._codes))
        self._times: dict[int, LaneTimes] = {}
        self._last_use: dict[int, np.ndarray] = {}
        self._ends: dict[int, np.ndarray] = {}
        self._link_uses: dict[tuple[int, bool], _Uses] = {}
        self.names = list(self._codes)
        """Components by their numbers."""

    def times(self, number: int) -> LaneTimes:
        """Times of a lane."""
        if number not in self._times:
            self._times[number] = LaneTimes(self.lanes[number], self.trace.lanes[number], self._codes)
        return self._times[number]

    def injection_ps(self, sample: int) -> int:
        """When the first input of a sample was served."""
        starts = []
        for number in self._numbers(self.netlist.input_lanes):
            first, end = tokens_of(self.lanes[number], sample)
            starts += [self.times(number).start_ps[first]] if end > first else []
        return min(starts)

    def departure(self, sample: int) -> Point:
        """The last leave of a sample's answer at the output port."""
        found, exits = [], self.netlist.exits
        for number in self._numbers(self.netlist.output_lanes):
            first, end = tokens_of(self.lanes[number], sample)
            if exits is not None:
                end = first + int(
                    np.searchsorted(timesteps_of(self.lanes[number], np.arange(first, end)), exits[sample])
                )
            if end > first:
                times = self.times(number)
                found.append((-times.leave_ps[end - 1], times.first_component, end - 1, number))
        _, _, token, number = min(found)
        return Point(number, token, True)

    def path(self, sample: int) -> Path:
        """The critical path of a sample.

        Raises:
            SimulationError: A time has no cause: a fault of the simulator.
        """
        return self.back(self.departure(sample), self.injection_ps(sample))

    def back(self, point: Point, until_ps: int) -> Path:
        """Walk from a point back to a time; the segment that holds that time is clipped."""
        path, tied = Path(point, until_ps), NOT_TIED
        now_ps = self._time_ps(point)
        while now_ps > until_ps:
            edges = self.edges(point)
            if not edges:
                raise SimulationError(
                    f"{self.lanes[point.lane].name}: token {point.token} "
                    f"{'leaves' if point.is_leave else 'starts'} at {format_time(now_ps)} without a cause"
                )
            edge = edges[0]
            if len(edges) > 1 and tied == NOT_TIED:
                others = (each.component for each in edges if each.component not in (edge.component, NOBODY))
                tied = next(others, NOT_TIED)
            point = edge.origin
            path.add(point, edge.segments, now_ps, self.times(point.lane).cause[point.token], tied)
            then_ps = max(self._time_ps(point), until_ps)
            if then_ps < now_ps:
                now_ps, tied = then_ps, NOT_TIED
        return path

    def edges(self, point: Point) -> list[Edge]:
        """What a point waited for to its last moment, by the rule for ties."""
        found = list(self._of_leave(point) if point.is_leave else self._of_start(point))
        return sorted(found) if len(found) > 1 else found

    def _of_leave(self, point: Point) -> Iterator[Edge]:
        """A service's own end, and for a private server the slot behind it."""
        times, token = self.times(point.lane), point.token
        leave_ps, output = times.leave_ps[token], times.lane.output
        if output is not None and self._servers[point.lane].policy == "private":
            number = times.output_number(token)
            if number is not None:
                yield from self._slots(Target("channel", output), number, number, leave_ps)
        parts = times.parts(token)
        if times.start_ps[token] + parts.duration_ps == leave_ps:
            yield Edge(_SERVER_RANK, parts.component, token, Point(point.lane, token, False), parts.segments)

    def _of_start(self, point: Point) -> Iterator[Edge]:
        times, token = self.times(point.lane), point.token
        lane, start_ps = times.lane, times.start_ps[token]
        number = times.input_number(token)
        if number is not None:
            for channel in lane.inputs:
                yield from self._arrivals((channel, _CHANNEL), number, start_ps)
        if lane.reader:
            yield from self._completions(lane.reader[0], token, start_ps)
        if token and times.leave_ps[token - 1] == start_ps:
            yield self._end(Point(point.lane, token - 1, True))
        if self._servers[point.lane].policy == "private":
            return
        if lane.passage is not None:
            yield from self._links(point, start_ps)
        if lane.takes is None:
            number = times.output_number(token)
        if number is not None:
            position = number if lane.sent_positions is None else int(lane.sent_positions[number])
            for target in lane.reserves:
                yield from self._slots(target, number, position, start_ps)
            if lane.output is not None:
                yield from self._slots(Target("channel", lane.output), number, number, start_ps)
        before = self._ended_at(self._servers[point.lane], start_ps) if lane.passage is None else None
        if before is not None:
            yield self._end(before)

    def _links(self, point: Point, at_ps: int) -> Iterator[Edge]:
        """Services of a router that held a link on either side until that instant, or a virtual channel of it, and
        those of the next router that gave a slot back."""
        lane = self.lanes[point.lane]
        passage = lane.passage
        assert passage is not None, "the caller looked"
        link, component = self.netlist.links[passage.exit], lane.actions[0].component
        is_head = point.token == 0 or self._is_tail(Point(point.lane, point.token - 1, True))
        held = [(passage.exit, True, link.reuse_ps)]
        if passage.entry is not None:
            held.append((passage.entry, False, self.netlist.links[passage.entry].next_ps))
        for index, is_exit, turn_ps in held:
            uses = self._uses_of_link(index, is_exit)
            for before in uses.at(at_ps, by_leave=True):
                yield self._end(before)
            for before in uses.at(at_ps - turn_ps, by_leave=True) if is_head and turn_ps else ():
                if self._is_tail(before):
                    yield self._end(before)._replace(segments=((component, DELAY, turn_ps),))
        if self.times(point.lane).cause[point.token] == CREDIT and link.depth != UNBOUNDED:
            for taker in self._uses_of_link(passage.exit, False).at(at_ps - link.credit_ps, by_leave=False):
                credit = ((component, DELAY, link.credit_ps),)
                yield Edge(_CREDIT_RANK, self.times(taker.lane).first_component, taker.token, taker, credit)

    def _is_tail(self, point: Point) -> bool:
        passage = self.lanes[point.lane].passage
        return passage is None or passage.tails is None or bool(passage.tails[point.token])

    def _uses_of_link(self, link: int, is_exit: bool) -> _Uses:
        """Services that send over a link, or that take out of its buffer."""
        if (link, is_exit) not in self._link_uses:
            numbers = [
                number
                for number, lane in enumerate(self.lanes)
                if lane.passage and (lane.passage.exit if is_exit else lane.passage.entry) == link
            ]
            self._link_uses[link, is_exit] = _Uses.of(numbers, self.trace.lanes)
        return self._link_uses[link, is_exit]

    def _end(self, before: Point) -> Edge:
        """The server was busy until the leave of a service before."""
        return Edge(_SERVER_RANK, self.times(before.lane).parts(before.token).component, before.token, before)

    def _arrivals(self, place: tuple[int, int], number: int, at_ps: int) -> Iterator[Edge]:
        """What came into a channel or line buffer as its `number`-th token, if it came at that time."""
        feeder, wire = self._fed[place]
        times = self.times(feeder)
        token = times.token_sent(number)
        if wire is None:
            if times.leave_ps[token] == at_ps:
                yield Edge(_DATA_RANK, times.parts(token).component, token, Point(feeder, token, True))
            return
        delay_ps = int(wire.delay_ps[number]) if isinstance(wire.delay_ps, np.ndarray) else wire.delay_ps
        if times.start_ps[token] + delay_ps == at_ps:
            component = times.lane.actions[0].component
            travel = ((component, DELAY, delay_ps),)
            yield Edge(_DATA_RANK, self._codes[component], token, Point(feeder, token, False), travel)

    def _completions(self, index: int, token: int, at_ps: int) -> Iterator[Edge]:
        """Sources whose delivery completed the last position that a token of a reader needs."""
        buffer = self.netlist.buffers[index]
        need = int(buffer.need[token])
        if need < 0:
            return
        numbers = []
        for source in range(buffer.n_sources):
            covers = buffer.covers[source] if buffer.covers else None
            numbers.append(need if covers is None else int(np.searchsorted(covers, need, side="right")) - 1)
        by_first_delivery = max(numbers) < 0  # what nobody delivers is there when anything is
        for source, number in enumerate(numbers):
            if number >= 0 or by_first_delivery:
                yield from self._arrivals((index, source), max(number, 0), at_ps)

    def _slots(self, target: Target, number: int, position: int, at_ps: int) -> Iterator[Edge]:
        """Who gave free, at that time, the slot that the `number`-th output took."""
        if target.kind == "buffer":
            yield from self._released(target.index, position, at_ps)
            return
        capacity = self.netlist.channels[target.index].capacity
        if capacity == UNBOUNDED or number < capacity:
            return
        taker = self._takers[target.index]
        times = self.times(taker)
        token = times.taker(number - capacity)
        if times.start_ps[token] == at_ps:
            yield Edge(_CREDIT_RANK, times.first_component, token, Point(taker, token, False))

    def _released(self, index: int, position: int, at_ps: int) -> Iterator[Edge]:
        """Readers that fetched the last token that needs what `position` took the place of."""
        buffer = self.netlist.buffers[index]
        if position < buffer.capacity:
            return
        token = int(self._uses(index, buffer)[position - buffer.capacity])
        for reader in self._readers[index]:
            times = self.times(reader)
            fetch = times.parts(token, times.lane.release_after)
            if times.start_ps[token] + fetch.duration_ps == at_ps:
                yield Edge(_CREDIT_RANK, times.first_component, token, Point(reader, token, False), fetch.segments)

    def _uses(self, index: int, buffer: LineBuffer) -> np.ndarray:
        if index not in self._last_use:
            self._last_use[index] = np.maximum.accumulate(buffer.last_use)
        return self._last_use[index]

    def _ended_at(self, server: Server, at_ps: int) -> Point | None:
        """The service that took time on a shared server until that instant; there is at most one."""
        if id(server) not in self._ends:
            self._ends[id(server)] = self._ends_of(server)
        leave, lane, token = self._ends[id(server)]
        at = int(np.searchsorted(leave, at_ps))
        return Point(int(lane[at]), int(token[at]), True) if at < len(leave) and leave[at] == at_ps else None

    def _ends_of(self, server: Server) -> np.ndarray:
        """Leave, lane and token of a shared server's services that took time, in order of their leaves."""
        first = self._first[id(server)]
        leaves, lanes, tokens = [], [], []
        for number in range(first, first + len(server.lanes)):
            times = self.trace.lanes[number]
            lasting = np.flatnonzero(times.leave_ps > times.start_ps)
            leaves.append(times.leave_ps[lasting])
            lanes.append(np.full(len(lasting), number))
            tokens.append(lasting)
        ends = np.stack([np.concatenate(parts) for parts in (leaves, lanes, tokens)])
        return ends[:, np.argsort(ends[0], kind="stable")]

    def _numbers(self, lanes: list[Lane]) -> list[int]:
        wanted = set(map(id, lanes))
        return [number for number, lane in enumerate(self.lanes) if id(lane) in wanted]

    def _time_ps(self, point: Point) -> int:
        times = self.times(point.lane)
        return (times.leave_ps if point.is_leave else times.start_ps)[point.token]


_CHANNEL = -1
"""Stands for the source where a place is a channel: tokens come into (channel, -1) or (line buffer, source)."""


def _key(target: Target) -> tuple[int, int]:
    return target.index, target.source if target.kind == "buffer" else _CHANNEL


def tokens_of(lane: Lane, sample: int) -> tuple[int, int]:
    """First token of a sample in a lane, and the one behind its last."""
    per_sample = lane.positions * lane.steps[1]
    bounds = [sample * per_sample, (sample + 1) * per_sample]
    if lane.labels is None:
        return min(bounds[0], lane.n_tokens), min(bounds[1], lane.n_tokens)
    first, end = np.searchsorted(lane.labels // per_sample, [sample, sample + 1]).tolist()
    return first, end

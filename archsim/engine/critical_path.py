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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archsim.components.netlist import UNBOUNDED, Lane, LineBuffer, Netlist, Server, Target, Wire
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.errors import SimulationError
from archsim.eventlog import CAUSES, CREDIT, DATA
from archsim.units import format_time

if TYPE_CHECKING:
    import pandas as pd

DELAY = "delay"
"""Action of a segment in which nobody serves: a token is on a wire or in a router's pipeline."""

COLUMNS = ("sample", "component", "action", "layer", "timestep", "cause", "start_ps", "duration_ps", "co_component")

_DATA_RANK, _CREDIT_RANK, _SERVER_RANK = range(3)

_NOBODY = 1 << 30
"""Component of a lane without actions, which only passes requests on; behind all others in a tie."""


class Point(NamedTuple):
    """The start or the leave of a service."""

    lane: int
    token: int
    is_leave: bool


class Edge(NamedTuple):
    """Something that a point waited for; ordered by the rule for ties."""

    rank: int
    component: int
    token: int
    origin: Point
    segments: tuple[tuple[str, str, int], ...] = ()
    """Component, action and duration of what lies between the origin and the point, in order of time."""


class Segment(NamedTuple):
    """A part of a path; `lane` and `token` say whose service or delay it is."""

    component: str
    action: str
    lane: int
    token: int
    cause: int
    start_ps: int
    duration_ps: int
    co_component: str
    """A part that had to end at the same instant as this segment; empty if there was none."""


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


@dataclass
class Path:
    """A walk from a departure back to the injection: points and segments, latest first."""

    points: list[Point] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def path_table(netlist: Netlist, trace: ExecutionTrace, n_samples: int) -> pd.DataFrame:
    """Critical paths of all samples, each in order of time.

    Columns: `sample`, `component`, `action`, `layer`, `timestep`, `cause` (why the service started no earlier),
    `start_ps`, `duration_ps`, `co_component` (a part that would bind at once if this segment were shorter; empty
    if there is none). The durations of a sample sum to its latency.
    """
    import pandas as pd  # heavy, loaded with the first table

    walk = Walk(netlist, trace)
    rows: list[tuple[object, ...]] = []
    for sample in range(n_samples):
        for part in reversed(walk.path(sample).segments):
            lane = walk.lanes[part.lane]
            cause = CAUSES[part.cause]
            names = (sample, part.component, part.action, lane.layer, timestep_of(lane, part.token), cause)
            rows.append((*names, part.start_ps, part.duration_ps, part.co_component))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("component", "action", "layer", "cause", "co_component"):
        frame[name] = frame[name].astype(str)
    return frame.astype({name: np.int64 for name in ("sample", "timestep", "start_ps", "duration_ps")})


def timestep_of(lane: Lane, token: int) -> int:
    """Timestep to which a token of a lane belongs."""
    label = token if lane.labels is None else int(lane.labels[token])
    return lane.steps[0] + label // lane.positions % lane.steps[1]


class Walk:
    """Walks back through an execution."""

    def __init__(self, netlist: Netlist, trace: ExecutionTrace) -> None:
        self.netlist = netlist
        self.lanes = netlist.lanes()
        self.times = trace.lanes
        self._servers = [server for server in netlist.servers for _ in server.lanes]
        self._fed: dict[Target, tuple[int, Wire | None]] = {}
        self._takers: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}
        self._codes = {part.path: code for code, part in enumerate(netlist.components)}
        for number, lane in enumerate(self.lanes):
            if lane.output is not None:
                self._fed[Target("channel", lane.output)] = number, None
            for wire in lane.wires:
                self._fed[wire.target] = number, wire
            for channel in lane.inputs:
                self._takers[channel] = number
            if lane.reader:
                self._readers.setdefault(lane.reader[0], []).append(number)
            for action in lane.actions:
                self._codes.setdefault(action.component, len(self._codes))
        self._sent: dict[int, np.ndarray] = {}
        self._last_use: dict[int, np.ndarray] = {}
        self._ends: dict[int, np.ndarray] = {}
        self._link_uses: dict[tuple[int, bool], _Uses] = {}
        self._names = list(self._codes)

    def injection_ps(self, sample: int) -> int:
        """When the first input of a sample was served."""
        starts = []
        for number in self._numbers(self.netlist.input_lanes):
            first, end = tokens_of(self.lanes[number], sample)
            starts += [int(self.times[number].start_ps[first])] if end > first else []
        return min(starts)

    def departure(self, sample: int) -> Point:
        """The last leave of a sample at the output port."""
        found = []
        for number in self._numbers(self.netlist.output_lanes):
            first, end = tokens_of(self.lanes[number], sample)
            if end > first:
                leave_ps = int(self.times[number].leave_ps[end - 1])
                found.append((-leave_ps, self._code(number), end - 1, number))
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
        path, tied = Path([point]), ""
        now_ps = self._time_ps(point)
        while now_ps > until_ps:
            edges = self.edges(point)
            if not edges:
                raise SimulationError(
                    f"{self.lanes[point.lane].name}: token {point.token} "
                    f"{'leaves' if point.is_leave else 'starts'} at {format_time(now_ps)} without a cause"
                )
            edge = edges[0]
            others = (each.component for each in edges[1:] if each.component not in (edge.component, _NOBODY))
            tied = tied or next((self._names[component] for component in others), "")
            origin = edge.origin
            cause = int(self.times[origin.lane].start_cause[origin.token])
            for component, action, duration_ps in reversed(edge.segments):
                if duration_ps and now_ps > until_ps:
                    start_ps = max(now_ps - duration_ps, until_ps)
                    co_component = tied if tied != component else ""
                    why = DATA if action == DELAY else cause
                    path.segments.append(
                        Segment(component, action, *origin[:2], why, start_ps, now_ps - start_ps, co_component)
                    )
                    now_ps, tied = start_ps, ""
            point = origin
            path.points.append(point)
        return path

    def edges(self, point: Point) -> list[Edge]:
        """What a point waited for to its last moment, by the rule for ties."""
        return sorted(self._of_leave(point) if point.is_leave else self._of_start(point))

    def _of_leave(self, point: Point) -> Iterator[Edge]:
        """A service's own end, and for a private server the slot behind it."""
        lane, times, token = self.lanes[point.lane], self.times[point.lane], point.token
        leave_ps = int(times.leave_ps[token])
        if self._servers[point.lane].policy == "private" and lane.output is not None:
            number = self._output_number(point)
            if number is not None:
                yield from self._slots(Target("channel", lane.output), number, number, leave_ps)
        parts = self._actions(lane, token, len(lane.actions))
        if int(times.start_ps[token]) + sum(part[2] for part in parts) == leave_ps:
            yield Edge(_SERVER_RANK, self._code_of(parts), token, Point(point.lane, token, False), parts)

    def _of_start(self, point: Point) -> Iterator[Edge]:
        lane, token = self.lanes[point.lane], point.token
        start_ps = int(self.times[point.lane].start_ps[token])
        number = self._input_number(point)
        if number is not None:
            for channel in lane.inputs:
                yield from self._arrivals(Target("channel", channel), number, start_ps)
        if lane.reader:
            yield from self._completions(lane.reader[0], token, start_ps)
        if token and int(self.times[point.lane].leave_ps[token - 1]) == start_ps:
            yield self._end(Point(point.lane, token - 1, True))
        if self._servers[point.lane].policy == "private":
            return
        if lane.passage is not None:
            yield from self._links(point, start_ps)
        number = self._output_number(point) if lane.takes is None else number
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
        if int(self.times[point.lane].start_cause[point.token]) == CREDIT and link.depth != UNBOUNDED:
            for taker in self._uses_of_link(passage.exit, False).at(at_ps - link.credit_ps, by_leave=False):
                credit = ((component, DELAY, link.credit_ps),)
                yield Edge(_CREDIT_RANK, self._code(taker.lane), taker.token, taker, credit)

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
            self._link_uses[link, is_exit] = _Uses.of(numbers, self.times)
        return self._link_uses[link, is_exit]

    def _input_number(self, point: Point) -> int | None:
        """Which token of its inputs a service takes; None if it takes none."""
        takes = self.lanes[point.lane].takes
        if takes is None:
            return point.token
        return int(np.count_nonzero(takes[: point.token])) if takes[point.token] else None

    def _end(self, before: Point) -> Edge:
        """The server was busy until the leave of a service before."""
        lane = self.lanes[before.lane]
        code = self._code_of(self._actions(lane, before.token, len(lane.actions)))
        return Edge(_SERVER_RANK, code, before.token, before)

    def _arrivals(self, target: Target, number: int, at_ps: int) -> Iterator[Edge]:
        """What came into a channel or line buffer as its `number`-th token, if it came at that time."""
        feeder, wire = self._fed[target]
        token = self._token_sent(feeder, number)
        times, lane = self.times[feeder], self.lanes[feeder]
        if wire is None:
            if int(times.leave_ps[token]) == at_ps:
                code = self._code_of(self._actions(lane, token, len(lane.actions)))
                yield Edge(_DATA_RANK, code, token, Point(feeder, token, True))
            return
        delay_ps = int(wire.delay_ps[number]) if isinstance(wire.delay_ps, np.ndarray) else wire.delay_ps
        if int(times.start_ps[token]) + delay_ps == at_ps:
            component = lane.actions[0].component
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
                yield from self._arrivals(Target("buffer", index, source), max(number, 0), at_ps)

    def _slots(self, target: Target, number: int, position: int, at_ps: int) -> Iterator[Edge]:
        """Who gave free, at that time, the slot that the `number`-th output took."""
        if target.kind == "buffer":
            yield from self._released(target.index, position, at_ps)
            return
        capacity = self.netlist.channels[target.index].capacity
        if capacity == UNBOUNDED or number < capacity:
            return
        taker, token = self._takers[target.index], number - capacity
        if (takes := self.lanes[taker].takes) is not None:
            token = int(np.flatnonzero(takes)[token])
        if int(self.times[taker].start_ps[token]) == at_ps:
            yield Edge(_CREDIT_RANK, self._code(taker), token, Point(taker, token, False))

    def _released(self, index: int, position: int, at_ps: int) -> Iterator[Edge]:
        """Readers that fetched the last token that needs what `position` took the place of."""
        buffer = self.netlist.buffers[index]
        if position < buffer.capacity:
            return
        token = int(self._uses(index, buffer)[position - buffer.capacity])
        for reader in self._readers[index]:
            lane = self.lanes[reader]
            fetch = self._actions(lane, token, lane.release_after)
            if int(self.times[reader].start_ps[token]) + sum(part[2] for part in fetch) == at_ps:
                yield Edge(_CREDIT_RANK, self._code(reader), token, Point(reader, token, False), fetch)

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
        leaves, lanes, tokens = [], [], []
        for number in self._numbers(server.lanes):
            times = self.times[number]
            lasting = np.flatnonzero(times.leave_ps > times.start_ps)
            leaves.append(times.leave_ps[lasting])
            lanes.append(np.full(len(lasting), number))
            tokens.append(lasting)
        ends = np.stack([np.concatenate(parts) for parts in (leaves, lanes, tokens)])
        return ends[:, np.argsort(ends[0], kind="stable")]

    def _output_number(self, point: Point) -> int | None:
        """How many tokens of the lane left before this one; None if this one produces nothing."""
        emit = self.lanes[point.lane].emit
        if emit is None:
            return point.token
        return int(np.searchsorted(self._tokens_sent(point.lane), point.token)) if emit[point.token] else None

    def _token_sent(self, lane: int, number: int) -> int:
        return number if self.lanes[lane].emit is None else int(self._tokens_sent(lane)[number])

    def _tokens_sent(self, lane: int) -> np.ndarray:
        if lane not in self._sent:
            emit = self.lanes[lane].emit
            assert emit is not None, "asked for lanes with a mask only"
            self._sent[lane] = np.flatnonzero(emit)
        return self._sent[lane]

    def _actions(self, lane: Lane, token: int, n_actions: int) -> tuple[tuple[str, str, int], ...]:
        """Component, name and duration of the first actions of a service."""
        return tuple(
            (action.component, action.name, int(action.duration_ps[token])) for action in lane.actions[:n_actions]
        )

    def _code_of(self, parts: tuple[tuple[str, str, int], ...]) -> int:
        """Number of the component that is at work when a service ends."""
        working = [name for name, _, duration_ps in parts if duration_ps] or [name for name, _, _ in parts[-1:]]
        return self._codes[working[-1]] if working else _NOBODY

    def _code(self, lane: int) -> int:
        return self._code_of(self._actions(self.lanes[lane], 0, 1))

    def _numbers(self, lanes: list[Lane]) -> list[int]:
        wanted = set(map(id, lanes))
        return [number for number, lane in enumerate(self.lanes) if id(lane) in wanted]

    def _time_ps(self, point: Point) -> int:
        times = self.times[point.lane]
        return int((times.leave_ps if point.is_leave else times.start_ps)[point.token])


def tokens_of(lane: Lane, sample: int) -> tuple[int, int]:
    """First token of a sample in a lane, and the one behind its last."""
    per_sample = lane.positions * lane.steps[1]
    bounds = [sample * per_sample, (sample + 1) * per_sample]
    if lane.labels is None:
        return min(bounds[0], lane.n_tokens), min(bounds[1], lane.n_tokens)
    first, end = np.searchsorted(lane.labels, bounds).tolist()
    return first, end

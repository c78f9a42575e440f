"""Executes a netlist with the compiled kernel: equal times, causes and counts as the SimPy execution, sooner.

Entry: `execute`. It writes the netlist into the kernel's tables, runs the kernel, and cuts its arrays
into traces. A netlist that gets stuck is run again with SimPy, whose error names what waits for what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from archsim.components.netlist import Action, Lane, Netlist, Policy, Target, Wire, require_executable
from archsim.components.trace import NO_PREDECESSOR, ChannelStatistics, ExecutionTrace, LaneTrace
from archsim.engine import kernel, simpy_execution
from archsim.engine import machine as tables
from archsim.engine.kernel import NONE
from archsim.engine.machine import Machine
from archsim.engine.pool import Place, Pool
from archsim.errors import SimulationError

Progress = Callable[[float], None]

_LARGEST_TABLE = 1 << 16
_LANE_COLUMNS = (
    "service",
    "service_step",
    "emit",
    "positions",
    "inputs",
    "n_inputs",
    "reserves",
    "n_reserves",
    "server",
    "policy",
    "output",
)
_POLICIES: dict[Policy, int] = {"private": kernel.PRIVATE, "shared": kernel.SHARED, "router": kernel.ROUTER}


def execute(netlist: Netlist, progress: Progress | None = None) -> ExecutionTrace:
    """Run a netlist to the end.

    Args:
        netlist: What to run.
        progress: Called with 1 at the end; there is nothing to wait for in between.

    Returns:
        Times and causes of every service, and what the channels counted.

    Raises:
        SimulationError: Tokens are left waiting for each other.
    """
    require_executable(netlist)
    machine = _Tables(netlist).machine()
    kernel.run(machine)
    if machine.clock[0].is_faulty or (machine.lanes.n_started < machine.lanes.n_tokens).any():
        simpy_execution.execute(netlist, progress)
        raise SimulationError("the compiled engine got stuck where SimPy did not; run with --engine simpy")
    if progress:
        progress(1.0)
    return _trace(machine)


def _trace(machine: Machine) -> ExecutionTrace:
    ends = np.cumsum(machine.lanes.n_tokens, dtype=np.int64)
    arrays = (
        machine.start_ps,
        machine.leave_ps,
        machine.start_cause,
        machine.leave_cause,
        machine.predecessor,
    )
    lanes = [
        LaneTrace(*(array[end - n : end] for array in arrays))
        for end, n in zip(ends.tolist(), machine.lanes.n_tokens.tolist(), strict=True)
    ]
    channels = [
        ChannelStatistics(peak, integral)
        for peak, integral in zip(machine.channels.peak.tolist(), machine.channels.integral.tolist(), strict=True)
    ]
    return ExecutionTrace(lanes, channels, int(machine.clock[0].now_ps))


class _Tables:
    """Writes a netlist into the kernel's tables, one part after the other."""

    def __init__(self, netlist: Netlist) -> None:
        self.netlist = netlist
        self.all_lanes = netlist.lanes()
        self.numbers, self.emits = Pool(np.int64), Pool(np.bool_)
        self.wires: list[tuple[int, Wire]] = [
            (number, wire) for number, lane in enumerate(self.all_lanes) for wire in lane.wires
        ]
        self.first_source = _starts(buffer.n_sources for buffer in netlist.buffers)
        self.first_reader = _starts(buffer.n_readers for buffer in netlist.buffers)
        self.tokens = _starts(lane.n_tokens for lane in self.all_lanes)

    def machine(self) -> Machine:
        """Tables at the beginning of time, with room for the trace."""
        n_tokens, n_lanes = self.tokens[-1], len(self.all_lanes)
        n_positions = sum(len(buffer.last_use) for buffer in self.netlist.buffers)
        n_virtual = sum(link.virtual_channels for link in self.netlist.links)
        n_events = n_lanes + len(self.wires) + 3 * n_virtual
        n_servers = len(self.netlist.servers)
        table = min(_LARGEST_TABLE, 1 << max(8, n_events.bit_length()))
        lanes, servers, channels = self._lanes(), self._servers(), self._channels()
        links, virtual = self._links()
        self._fill_routers(lanes, servers, links)
        buffers, sources, readers, wires = self._buffers(), self._sources(), self._readers(), self._wires()
        clock = _records(tables.CLOCK, 1)
        clock.current = NONE
        return Machine(
            lanes=lanes,
            servers=servers,
            channels=channels,
            links=links,
            virtual=virtual,
            buffers=buffers,
            sources=sources,
            readers=readers,
            wires=wires,
            numbers=self.numbers.array(),
            emits=self.emits.array(),
            arrivals=np.empty(int(channels.ring_size.sum(dtype=np.int64)), np.int64),
            slot_ps=np.full(int((links.depth * links.n_channels).sum()), NONE, np.int64),
            queue_lane=np.empty(int(virtual.queue_size.sum(dtype=np.int64)), np.int32),
            queue_packet=np.empty(int(virtual.queue_size.sum(dtype=np.int64)), np.int32),
            sent_channel=np.empty(n_tokens if len(links) else 0, np.int8),
            complete_ps=np.empty(n_positions, np.int64),
            released_ps=np.empty(n_positions, np.int64),
            start_ps=np.full(n_tokens, NONE, np.int64),
            leave_ps=np.full(n_tokens, NONE, np.int64),
            start_cause=np.zeros(n_tokens, np.int8),
            leave_cause=np.zeros(n_tokens, np.int8),
            predecessor=np.full(n_tokens, NO_PREDECESSOR, np.int64),
            ready_ps=np.empty(n_lanes, np.int64),
            ready_lane=np.empty(n_lanes, np.int32),
            events=_records(tables.EVENT, n_events),
            table=np.full(table, NONE, np.int32),
            time_ps=np.empty(n_events + 1, np.int64),
            time_event=np.empty(n_events + 1, np.int32),
            woken=np.empty(n_lanes, np.int32),
            asking=np.empty(n_servers, np.int32),
            chosen=np.empty(n_servers + n_lanes, np.int32),
            candidates=np.empty(n_lanes, np.int32),
            planned=np.empty(3 * n_virtual, np.int32),
            planned_ps=np.empty(3 * n_virtual, np.int64),
            clock=clock,
        )

    def _lanes(self) -> np.recarray:
        rows = _records(tables.LANE, len(self.all_lanes))
        rows.tokens = self.tokens[:-1]
        rows.data_ps = rows.credit_ps = rows.end_ps = rows.leave_ps = NONE
        rows.n_tokens = [lane.n_tokens for lane in self.all_lanes]
        rows.n_wires = [len(lane.wires) for lane in self.all_lanes]
        rows.first_wire = np.cumsum(rows.n_wires) - rows.n_wires
        rows.buffer = NONE
        columns: dict[str, list[int]] = {name: [] for name in _LANE_COLUMNS}
        for index, server in enumerate(self.netlist.servers):
            for lane in server.lanes:
                for column, value in zip(columns.values(), self._lane(lane, index, server.policy), strict=True):
                    column.append(value)
        for name, column in columns.items():
            rows[name] = column
        for row, lane in zip(rows, self.all_lanes, strict=True):
            if lane.reader is not None:
                row.fetch, row.fetch_step = self._duration(lane.actions[: lane.release_after])
                row.buffer, row.reader = lane.reader[0], self.first_reader[lane.reader[0]] + lane.reader[1]
        return rows

    def _lane(self, lane: Lane, server: int, policy: Policy) -> tuple[int, ...]:
        """What `_LANE_COLUMNS` hold; a lane at a time, as writing single fields of records is slow."""
        places = [self._place(target) for target in lane.reserves]
        if policy == "shared" and lane.output is not None:
            places.append(lane.output)
        return (
            *self._duration(lane.actions),
            NONE if lane.emit is None else self.emits.dense(lane.emit),
            NONE if lane.sent_positions is None else self.numbers.dense(lane.sent_positions),
            self.numbers.list(list(lane.inputs)),
            len(lane.inputs),
            self.numbers.list(places),
            len(places),
            server,
            _POLICIES[policy],
            NONE if lane.output is None else lane.output,
        )

    def _duration(self, actions: tuple[Action, ...]) -> Place:
        """Time that actions take together, token by token; stored once for lanes that share their arrays."""
        total = self.numbers.constant(0)
        for action in actions:
            total = self.numbers.plus(total, self.numbers.add(action.duration_ps))
        return total

    def _place(self, target: Target) -> int:
        return target.index if target.kind == "channel" else len(self.netlist.channels) + target.index

    def _servers(self) -> np.recarray:
        rows = _records(tables.SERVER_STATE, len(self.netlist.servers))
        rows.first_lane = _starts(len(server.lanes) for server in self.netlist.servers)[:-1]
        rows.last_lane = NONE
        rows.policy = [_POLICIES[server.policy] for server in self.netlist.servers]
        return rows

    def _channels(self) -> np.recarray:
        rows = _records(tables.CHANNEL, len(self.netlist.channels))
        rows.capacity = [channel.capacity for channel in self.netlist.channels]
        rows.consumer = rows.producer = rows.heads = NONE
        reserved = np.zeros(len(rows), bool)
        consumer, tokens, ring_size = rows.consumer, rows.consumer_tokens, rows.ring_size
        for number, lane in enumerate(self.all_lanes):
            for channel in lane.inputs:
                consumer[channel], tokens[channel] = number, self.tokens[number]
                if (takes := lane.takes) is not None:
                    rows.heads[channel] = self.numbers.list(np.flatnonzero(takes).tolist())
            for target in lane.reserves:
                if target.kind == "channel":
                    rows.producer[target.index], reserved[target.index] = number, True
            if lane.output is not None:
                rows.producer[lane.output], reserved[lane.output] = number, True
                ring_size[lane.output] = lane.n_emitted
        for number, wire in self.wires:
            if wire.target.kind == "channel":
                ring_size[wire.target.index] = self.all_lanes[number].n_emitted
        bounded = reserved & (rows.capacity > 0)
        rows.ring_size[bounded] = np.minimum(rows.ring_size, rows.capacity)[bounded]
        rows.ring = np.cumsum(rows.ring_size, dtype=np.int64) - rows.ring_size
        return rows

    def _links(self) -> tuple[np.recarray, np.recarray]:
        """Links and their virtual channels, all empty and free."""
        specs = self.netlist.links
        rows = _records(tables.LINK, len(specs))
        rows.free_ps = rows.read_free_ps = rows.flit_ps = rows.before_ps = NONE
        rows.sent_by = rows.read_by = rows.before_by = NONE
        rows.sender = rows.receiver = NONE
        for name in ("reuse_ps", "next_ps", "credit_ps", "depth", "packets"):
            rows[name] = [getattr(link, name) for link in specs]
        rows.n_channels = [link.virtual_channels for link in specs]
        rows.first_channel = _starts(rows.n_channels)[:-1]
        rows.last = rows.n_channels - 1
        n_packets = np.zeros(len(specs), np.int64)
        for lane in self.all_lanes:
            if lane.passage is not None:
                n_packets[lane.passage.exit] += np.count_nonzero(lane.passage.heads(lane.n_tokens))
        virtual = _records(tables.VIRTUAL, int(rows.n_channels.sum()))
        virtual.link = np.repeat(np.arange(len(specs)), rows.n_channels)
        depth = rows.depth[virtual.link]
        virtual.reuse_ps = virtual.next_ps = virtual.freed_by = virtual.left_by = NONE
        virtual.n_freed = virtual.n_credited = depth
        virtual.slots = _starts(depth)[:-1]
        most = n_packets[virtual.link]
        virtual.queue_size = np.maximum(np.where(depth > 0, np.minimum(depth, most), most), 1)
        virtual.queue = _starts(virtual.queue_size)[:-1]
        return rows, virtual

    def _fill_routers(self, lanes: Any, servers: Any, links: Any) -> None:
        """Which way lanes go through routers, which lanes feed which, and what each router looks at."""
        lanes.entry = lanes.exit = lanes.feeder = lanes.tails = lanes.last_service = lanes.next_ps = NONE
        on_way = [(number, lane, lane.passage) for number, lane in enumerate(self.all_lanes) if lane.passage]
        takers = {
            Target("channel", lane.inputs[0]): number for number, lane, passage in on_way if passage.entry is not None
        }
        entries: list[dict[int, None]] = [{} for _ in self.netlist.servers]
        sources: list[list[int]] = [[] for _ in self.netlist.servers]
        entry, leaves, tails, feeder = lanes.entry, lanes.exit, lanes.tails, lanes.feeder
        first_branch, n_branches, sender, receiver = lanes.branches, lanes.n_branches, links.sender, links.receiver
        for (number, lane, passage), server in zip(
            on_way, lanes.server[[item[0] for item in on_way]].tolist(), strict=True
        ):
            leaves[number] = passage.exit
            sender[passage.exit] = server
            if passage.tails is not None:
                tails[number] = self.emits.dense(passage.tails)
            if passage.entry is None:
                sources[server].append(number)
            else:
                entry[number] = passage.entry
                receiver[passage.entry] = server
                entries[server].setdefault(passage.entry)
            branches = [takers[wire.target] for wire in lane.wires if wire.target in takers]
            first = self.numbers.list(branches)
            for branch in branches:
                first_branch[branch], n_branches[branch], feeder[branch] = first, len(branches), number
        for row, comes_by, begins in zip(servers, entries, sources, strict=True):
            row.entries, row.n_entries = self.numbers.list(list(comes_by)), len(comes_by)
            row.sources, row.n_sources = self.numbers.list(begins), len(begins)

    def _buffers(self) -> np.recarray:
        rows = _records(tables.BUFFER, len(self.netlist.buffers))
        senders: list[list[int]] = [[] for _ in rows]
        for number, lane in enumerate(self.all_lanes):
            for target in lane.reserves:
                if target.kind == "buffer":
                    senders[target.index].append(number)
        rows.first_source, rows.first_reader = self.first_source[:-1], self.first_reader[:-1]
        rows.times = _starts(len(buffer.last_use) for buffer in self.netlist.buffers)[:-1]
        for row, buffer, lanes in zip(rows, self.netlist.buffers, senders, strict=True):
            row.need, row.last_use = self.numbers.dense(buffer.need), self.numbers.dense(buffer.last_use)
            row.n_positions, row.capacity = len(buffer.last_use), buffer.capacity
            row.n_sources, row.n_readers = buffer.n_sources, buffer.n_readers
            row.senders, row.n_senders = self.numbers.list(lanes), len(lanes)
            covered = [0 if covers is None else int(covers[0]) for covers in buffer.covers] or [0] * buffer.n_sources
            row.covered = min(covered)
            row.n_slowest = covered.count(row.covered)
            row.n_latest = buffer.n_readers
        return rows

    def _sources(self) -> np.recarray:
        rows = _records(tables.SOURCE, self.first_source[-1])
        rows.covers = NONE
        for first, buffer in zip(self.first_source, self.netlist.buffers, strict=False):
            for number, covers in enumerate(buffer.covers):
                if covers is not None:
                    rows[first + number].covers = self.numbers.dense(covers)
                    rows[first + number].covered = covers[0]
        return rows

    def _readers(self) -> np.recarray:
        rows = _records(tables.READER, self.first_reader[-1])
        rows.lane = NONE
        for number, lane in enumerate(self.all_lanes):
            if lane.reader is not None:
                rows.lane[self.first_reader[lane.reader[0]] + lane.reader[1]] = number
        return rows

    def _wires(self) -> np.recarray:
        rows = _records(tables.WIRE, len(self.wires))
        rows.channel = rows.buffer = NONE
        rows.lane = [number for number, _ in self.wires]
        add, constant = self.numbers.add, self.numbers.constant
        delays = [
            add(wire.delay_ps) if isinstance(wire.delay_ps, np.ndarray) else constant(wire.delay_ps)
            for _, wire in self.wires
        ]
        rows.delay, rows.delay_step = zip(*delays, strict=True) if delays else ((), ())
        channel, buffer, source = rows.channel, rows.buffer, rows.source
        for number, (_, wire) in enumerate(self.wires):
            if wire.target.kind == "channel":
                channel[number] = wire.target.index
            else:
                buffer[number] = wire.target.index
                source[number] = self.first_source[wire.target.index] + wire.target.source
        return rows


def _records(dtype: np.dtype, n: int) -> Any:
    """A table of zeros whose columns are attributes."""
    return np.zeros(n, dtype).view(np.recarray)


def _starts(sizes: Iterable[int]) -> list[int]:
    """Where parts begin that are laid end to end, and where the last one ends."""
    return [0, *np.cumsum(np.fromiter(sizes, np.int64)).tolist()]

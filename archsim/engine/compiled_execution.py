"""Executes a netlist with the compiled kernel: equal times, causes and counts as the SimPy execution, sooner.

Entry: `execute`. It writes the netlist into the kernel's tables, runs the kernel, and cuts its arrays
into traces. A netlist that gets stuck is run again with SimPy, whose error names what waits for what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from archsim.components.netlist import Lane, Netlist, Target, Wire, require_executable
from archsim.components.trace import NO_PREDECESSOR, ChannelStatistics, ExecutionTrace, LaneTrace
from archsim.engine import kernel, simpy_execution
from archsim.engine.kernel import NONE, Machine
from archsim.errors import SimulationError

Progress = Callable[[float], None]

_LARGEST_TABLE = 1 << 16


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


class _Pool:
    """Arrays laid end to end; one that is given twice is stored once."""

    def __init__(self, dtype: type) -> None:
        self.dtype = dtype
        self.size = 0
        self._parts: list[np.ndarray] = []
        self._known: dict[tuple[int, int, int], int] = {}

    def add(self, values: np.ndarray) -> int:
        """Where a list begins in the pool."""
        view = values.__array_interface__
        key = (view["data"][0], len(values), values.strides[0])
        if key not in self._known:
            self._known[key] = self.size
            self._parts.append(values)
            self.size += len(values)
        return self._known[key]

    def add_new(self, values: list[int]) -> int:
        """Where a list that nobody shares begins in the pool."""
        self._parts.append(np.array(values, self.dtype))
        self.size += len(values)
        return self.size - len(values)

    def array(self) -> np.ndarray:
        """Everything that was added."""
        return np.concatenate(self._parts, dtype=self.dtype) if self._parts else np.zeros(0, self.dtype)


class _Tables:
    """Writes a netlist into the kernel's tables, one part after the other."""

    def __init__(self, netlist: Netlist) -> None:
        self.netlist = netlist
        self.all_lanes = netlist.lanes()
        self.numbers, self.emits = _Pool(np.int64), _Pool(np.bool_)
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
        n_events = n_lanes + len(self.wires)
        n_servers = len(self.netlist.servers)
        table = min(_LARGEST_TABLE, 1 << max(8, n_events.bit_length()))
        lanes, servers, channels = self._lanes(), self._servers(), self._channels()
        buffers, sources, readers, wires = self._buffers(), self._sources(), self._readers(), self._wires()
        clock = _records(kernel.CLOCK, 1)
        clock.current = NONE
        return Machine(
            lanes=lanes,
            servers=servers,
            channels=channels,
            buffers=buffers,
            sources=sources,
            readers=readers,
            wires=wires,
            numbers=self.numbers.array(),
            emits=self.emits.array(),
            arrivals=np.empty(int(channels.ring_size.sum(dtype=np.int64)), np.int64),
            complete_ps=np.empty(n_positions, np.int64),
            released_ps=np.empty(n_positions, np.int64),
            start_ps=np.full(n_tokens, NONE, np.int64),
            leave_ps=np.full(n_tokens, NONE, np.int64),
            start_cause=np.zeros(n_tokens, np.int8),
            leave_cause=np.zeros(n_tokens, np.int8),
            predecessor=np.full(n_tokens, NO_PREDECESSOR, np.int64),
            ready_ps=np.empty(n_lanes, np.int64),
            ready_lane=np.empty(n_lanes, np.int32),
            events=_records(kernel.EVENT, n_events),
            table=np.full(table, NONE, np.int32),
            time_ps=np.empty(n_events + 1, np.int64),
            time_event=np.empty(n_events + 1, np.int32),
            woken=np.empty(n_lanes, np.int32),
            asking=np.empty(n_servers, np.int32),
            chosen=np.empty(n_servers, np.int32),
            clock=clock,
        )

    def _lanes(self) -> np.recarray:
        rows = _records(kernel.LANE, len(self.all_lanes))
        rows.tokens = self.tokens[:-1]
        rows.data_ps = rows.credit_ps = rows.end_ps = rows.leave_ps = NONE
        rows.n_tokens = [lane.n_tokens for lane in self.all_lanes]
        rows.n_wires = [len(lane.wires) for lane in self.all_lanes]
        rows.first_wire = np.cumsum(rows.n_wires) - rows.n_wires
        number = 0
        for index, server in enumerate(self.netlist.servers):
            for lane in server.lanes:
                self._fill_lane(rows[number], lane, index, server.policy == "shared")
                number += 1
        return rows

    def _fill_lane(self, row: np.record, lane: Lane, server: int, is_shared: bool) -> None:
        places = [self._place(target) for target in lane.reserves]
        if is_shared and lane.output is not None:
            places.append(lane.output)
        row.service, row.service_step = self._times(lane.service_ps)
        row.emit = NONE if lane.emit is None else self.emits.add(lane.emit)
        row.positions = NONE if lane.sent_positions is None else self.numbers.add(lane.sent_positions)
        row.inputs, row.n_inputs = self.numbers.add_new(list(lane.inputs)), len(lane.inputs)
        row.reserves, row.n_reserves = self.numbers.add_new(places), len(places)
        row.server, row.is_shared = server, is_shared
        row.output = NONE if lane.output is None else lane.output
        row.buffer = NONE
        if lane.reader is not None:
            row.fetch, row.fetch_step = self._times(lane.fetch_ps)
            row.buffer, row.reader = lane.reader[0], self.first_reader[lane.reader[0]] + lane.reader[1]

    def _times(self, values: np.ndarray) -> tuple[int, int]:
        """Where times per token begin, and how far apart they are: 0 where all are equal."""
        if len(values) and (values == values[0]).all():
            return self.numbers.add_new([int(values[0])]), 0
        return self.numbers.add(values), 1

    def _place(self, target: Target) -> int:
        return target.index if target.kind == "channel" else len(self.netlist.channels) + target.index

    def _servers(self) -> np.recarray:
        rows = _records(kernel.SERVER_STATE, len(self.netlist.servers))
        rows.first_lane = _starts(len(server.lanes) for server in self.netlist.servers)[:-1]
        rows.last_lane = NONE
        return rows

    def _channels(self) -> np.recarray:
        rows = _records(kernel.CHANNEL, len(self.netlist.channels))
        rows.capacity = [channel.capacity for channel in self.netlist.channels]
        rows.consumer = rows.producer = NONE
        reserved = np.zeros(len(rows), bool)
        for number, lane in enumerate(self.all_lanes):
            for channel in lane.inputs:
                rows.consumer[channel], rows.consumer_tokens[channel] = number, self.tokens[number]
            for target in lane.reserves:
                if target.kind == "channel":
                    rows.producer[target.index], reserved[target.index] = number, True
            if lane.output is not None:
                rows.producer[lane.output], reserved[lane.output] = number, True
                rows.ring_size[lane.output] = lane.n_emitted
        for number, wire in self.wires:
            if wire.target.kind == "channel":
                rows.ring_size[wire.target.index] = self.all_lanes[number].n_emitted
        bounded = reserved & (rows.capacity > 0)
        rows.ring_size[bounded] = np.minimum(rows.ring_size, rows.capacity)[bounded]
        rows.ring = np.cumsum(rows.ring_size, dtype=np.int64) - rows.ring_size
        return rows

    def _buffers(self) -> np.recarray:
        rows = _records(kernel.BUFFER, len(self.netlist.buffers))
        senders: list[list[int]] = [[] for _ in rows]
        for number, lane in enumerate(self.all_lanes):
            for target in lane.reserves:
                if target.kind == "buffer":
                    senders[target.index].append(number)
        rows.first_source, rows.first_reader = self.first_source[:-1], self.first_reader[:-1]
        rows.times = _starts(len(buffer.last_use) for buffer in self.netlist.buffers)[:-1]
        for row, buffer, lanes in zip(rows, self.netlist.buffers, senders, strict=True):
            row.need, row.last_use = self.numbers.add(buffer.need), self.numbers.add(buffer.last_use)
            row.n_positions, row.capacity = len(buffer.last_use), buffer.capacity
            row.n_sources, row.n_readers = buffer.n_sources, buffer.n_readers
            row.senders, row.n_senders = self.numbers.add_new(lanes), len(lanes)
            covered = [0 if covers is None else int(covers[0]) for covers in buffer.covers] or [0] * buffer.n_sources
            row.covered = min(covered)
            row.n_slowest = covered.count(row.covered)
            row.n_latest = buffer.n_readers
        return rows

    def _sources(self) -> np.recarray:
        rows = _records(kernel.SOURCE, self.first_source[-1])
        rows.covers = NONE
        for first, buffer in zip(self.first_source, self.netlist.buffers, strict=False):
            for number, covers in enumerate(buffer.covers):
                if covers is not None:
                    rows[first + number].covers = self.numbers.add(covers)
                    rows[first + number].covered = covers[0]
        return rows

    def _readers(self) -> np.recarray:
        rows = _records(kernel.READER, self.first_reader[-1])
        rows.lane = NONE
        for number, lane in enumerate(self.all_lanes):
            if lane.reader is not None:
                rows.lane[self.first_reader[lane.reader[0]] + lane.reader[1]] = number
        return rows

    def _wires(self) -> np.recarray:
        rows = _records(kernel.WIRE, len(self.wires))
        rows.channel = rows.buffer = NONE
        for row, (number, wire) in zip(rows, self.wires, strict=True):
            row.lane = number
            if isinstance(wire.delay_ps, np.ndarray):
                row.delay, row.delay_step = self._times(wire.delay_ps)
            else:
                row.delay = self.numbers.add_new([wire.delay_ps])
            if wire.target.kind == "channel":
                row.channel = wire.target.index
            else:
                row.buffer = wire.target.index
                row.source = self.first_source[wire.target.index] + wire.target.source
        return rows


def _records(dtype: np.dtype, n: int) -> Any:
    """A table of zeros whose columns are attributes."""
    return np.zeros(n, dtype).view(np.recarray)


def _starts(sizes: Iterable[int]) -> list[int]:
    """Where parts begin that are laid end to end, and where the last one ends."""
    return [0, *np.cumsum(np.fromiter(sizes, np.int64)).tolist()]

"""Laws that every run must obey; a violation is a bug in the simulator and ends the run.

Tokens in equal tokens out on every channel, a server serves one token at a time, a part with several
servers is in one of them at a time, a line buffer never
holds more than its capacity and no token is fetched before its input is there, the waiting that
channels counted themselves equals the waiting in the trace (Little's law: the occupancy integral is
the sum of all waits), and parts sum to totals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from archsim.components.netlist import Lane, LineBuffer, Netlist, Server, Target
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.errors import SimulationError
from archsim.units import format_time


def check_trace(netlist: Netlist, trace: ExecutionTrace) -> None:
    """Check times, tokens and waits of an execution.

    Raises:
        SimulationError: A law is broken; the message names the part and both numbers.
    """
    times = dict(zip(map(id, netlist.lanes()), trace.lanes, strict=True))
    ends = _Ends()
    for server in netlist.servers:
        _check_server(server, [times[id(lane)] for lane in server.lanes])
        for lane in server.lanes:
            ends.add(lane, times[id(lane)])
    for part in netlist.parts():
        _check_part(part, [times[id(lane)] for lane in part.lanes])
    for index, channel in enumerate(netlist.channels):
        _check_channel(channel.name, ends, index, trace.channels[index].occupancy_integral_ps)
    for index, buffer in enumerate(netlist.buffers):
        _check_buffer(buffer, ends, index)


def check_totals(totals: dict[str, float], energy_pj: float) -> None:
    """Check that each table's energies sum to the log's total within 1e-12 of it.

    Raises:
        SimulationError: A table's sum differs.
    """
    for name, total in totals.items():
        if abs(total - energy_pj) > 1e-12 * abs(energy_pj):
            raise SimulationError(
                f"energies of the {name} table sum to {total!r} pJ, those of the log to {energy_pj!r} pJ"
            )


@dataclass
class _Ends:
    """When tokens entered and left every place where they wait, from the lanes on both sides."""

    entered: dict[Target, np.ndarray] = field(default_factory=dict)
    sent: dict[Target, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Positions of a line buffer that were sent, and when."""
    left: dict[int, np.ndarray] = field(default_factory=dict)
    fetches: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, lane: Lane, times: LaneTrace) -> None:
        emitted = slice(None) if lane.emit is None else lane.emit
        taking = slice(None) if lane.takes is None else lane.takes
        for index in lane.inputs:
            self.left[index] = times.start_ps[taking]
        if lane.reader:
            self.fetches[lane.reader] = (times.start_ps, times.start_ps + lane.fetch_ps)
        if lane.output is not None:
            self.entered[Target("channel", lane.output)] = times.leave_ps[emitted]
        for wire in lane.wires:
            self.entered[wire.target] = times.start_ps[emitted] + wire.delay_ps
        n_sent = lane.n_emitted if lane.takes is None else int(np.count_nonzero(lane.takes))
        positions = np.arange(n_sent) if lane.sent_positions is None else lane.sent_positions
        for target in lane.reserves:
            self.sent[target] = (positions, times.start_ps[emitted if lane.takes is None else taking])


def _check_server(server: Server, traces: list[LaneTrace]) -> None:
    in_order = all((one.start_ps[:1] >= 0).all() and (one.start_ps[1:] >= one.start_ps[:-1]).all() for one in traces)
    too_short = any(
        (one.leave_ps < one.start_ps + lane.service_ps).any() for lane, one in zip(server.lanes, traces, strict=True)
    )
    start, leave = _in_order_of_start(traces)
    overlap = server.policy != "router" and (start[1:] < leave[:-1]).any()  # links of routers are parts
    if overlap or too_short or not in_order:
        raise SimulationError(f"{server.name}: services that start before 0, overlap, end too early or change order")


def _in_order_of_start(traces: list[LaneTrace]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and leaves of services of several lanes; those of one lane are in order as they are."""
    if len(traces) == 1:
        return traces[0].start_ps, traces[0].leave_ps
    start, leave = (
        np.concatenate(times) for times in zip(*((one.start_ps, one.leave_ps) for one in traces), strict=True)
    )
    order = np.lexsort((leave, start))
    return start[order], leave[order]


def _check_part(part: Server, traces: list[LaneTrace]) -> None:
    """Servers of one part never serve at the same time; what takes no time, such as a position passing by, may."""
    start, leave = _in_order_of_start(traces)
    lasting = leave > start
    if (start[lasting][1:] < leave[lasting][:-1]).any():
        raise SimulationError(f"{part.name}: serves in two roles at once, such as two rounds")


def _check_channel(name: str, ends: _Ends, index: int, counted_ps: int) -> None:
    entered, left = ends.entered.get(Target("channel", index)), ends.left.get(index)
    if entered is None or left is None:
        raise SimulationError(f"{name}: a channel without two ends")
    if len(entered) != len(left):
        raise SimulationError(f"{name}: {len(entered)} tokens entered and {len(left)} left")
    waited_ps = int((left - entered).sum())
    if waited_ps != counted_ps:
        raise SimulationError(
            f"{name}: tokens waited {format_time(waited_ps)} by the trace, {format_time(counted_ps)} by the "
            "channel's own count"
        )


def _check_buffer(buffer: LineBuffer, ends: _Ends, index: int) -> None:
    """Inputs are there when they are fetched, and a position is sent only once there is room for it."""
    targets = [Target("buffer", index, source) for source in range(buffer.n_sources)]
    n_positions = len(buffer.last_use)
    complete = np.zeros(n_positions, np.int64)
    for source, target in enumerate(targets):
        covers, entered = buffer.covered(source), ends.entered[target]
        if len(entered) != len(covers) - 1 or covers[-1] < n_positions:
            raise SimulationError(f"{buffer.name}: a source did not cover each of {n_positions} positions")
        duty = np.arange(covers[0], n_positions)
        complete[duty] = np.maximum(complete[duty], entered[np.searchsorted(covers[1:], duty, side="right")])
    complete = np.maximum.accumulate(complete)
    released = np.zeros(len(buffer.need), np.int64)
    for reader in range(buffer.n_readers):
        start, fetched = ends.fetches[index, reader]
        waits = buffer.need >= 0
        if (start[waits] < complete[buffer.need[waits]]).any():
            raise SimulationError(f"{buffer.name}: a token was fetched before its input was there")
        released = np.maximum(released, fetched)
    last_use = np.maximum.accumulate(buffer.last_use)
    for target in targets:
        positions, at = ends.sent[target]
        later = positions >= buffer.capacity
        freed_by = last_use[positions[later] - buffer.capacity]
        if (freed_by >= len(released)).any() or (at[later] < released[freed_by]).any():
            raise SimulationError(f"{buffer.name}: a position was sent before there was room for it")

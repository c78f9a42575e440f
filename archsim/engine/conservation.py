"""Laws that every run must obey; a violation is a bug in the simulator and ends the run.

Tokens in equal tokens out on every lane, packets received equal packets sent times fan-out, time
never runs backwards, the waiting that channels counted themselves equals the waiting in the trace
(Little's law: the occupancy integral is the sum of all waits), and parts sum to totals.
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Lane, Netlist
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.errors import SimulationError
from archsim.units import format_time


def check_trace(netlist: Netlist, trace: ExecutionTrace) -> None:
    """Check times, tokens and waits of an execution.

    Raises:
        SimulationError: A law is broken; the message names the lane or channel and both numbers.
    """
    lanes = netlist.lanes()
    entered: dict[int, np.ndarray] = {}
    left: dict[int, np.ndarray] = {}
    for lane, times in zip(lanes, trace.lanes, strict=True):
        _check_times(lane, times)
        for index in lane.inputs:
            left[index] = times.start_ps
        for index, at in _entries(lane, times):
            entered[index] = at
    for index, channel in enumerate(netlist.channels):
        if index not in entered or index not in left:
            raise SimulationError(f"{channel.name}: a channel without two ends")
        if len(entered[index]) != len(left[index]):
            raise SimulationError(f"{channel.name}: {len(entered[index])} tokens entered and {len(left[index])} left")
        waited = int((left[index] - entered[index]).sum())
        counted = trace.channels[index].occupancy_integral_ps
        if waited != counted:
            raise SimulationError(
                f"{channel.name}: tokens waited {format_time(waited)} by the trace, {format_time(counted)} "
                "by the channel's own count"
            )


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


def _check_times(lane: Lane, times: LaneTrace) -> None:
    service = lane.service_ps
    if len(times.start_ps) and (
        times.start_ps.min() < 0
        or (times.leave_ps < times.start_ps + service).any()
        or (times.start_ps[1:] < times.start_ps[:-1]).any()
    ):
        raise SimulationError(f"{lane.name}: services that start before 0, overlap their past or end too early")


def _entries(lane: Lane, times: LaneTrace) -> list[tuple[int, np.ndarray]]:
    """Channels that a lane feeds, and when each of its emitted tokens gets there."""
    sent = slice(None) if lane.emit is None else lane.emit
    entries = [(lane.output, times.leave_ps[sent])] if lane.output is not None else []
    for wire in lane.wires:
        if wire.target.kind == "channel":
            entries.append((wire.target.index, times.start_ps[sent] + wire.delay_ps))
    return entries

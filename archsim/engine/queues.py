"""How long tokens wait for each component, and how many wait at a time.

A token waits in an input latch from its arrival until the service that takes it starts, and at a line
buffer from the moment its inputs are complete. Percentiles of waits are over tokens, those of depths
over time; both are of the nearest rank, so each is a value that occurred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from archsim.components.netlist import Lane, Netlist, Server, Target
from archsim.components.trace import ExecutionTrace, LaneTrace

if TYPE_CHECKING:
    import pandas as pd


def queue_table(netlist: Netlist, trace: ExecutionTrace) -> pd.DataFrame:
    """One row per component that tokens can wait for.

    Columns: `component`; `n_waits`, tokens times the latches that they came through; `wait_mean_ps`, `wait_p50_ps`,
    `wait_p95_ps`, `wait_max_ps`; `depth_mean`, `depth_p50`, `depth_p95`, `depth_peak`, tokens waiting at a time in all
    inputs of the component together, over the whole run; what waits for no longer than an instant does not count.
    Mean depth times the length of the run is the sum of the waits (Little's law).
    """
    import pandas as pd  # heavy, loaded with the first table

    waits = waits_of(netlist, trace)
    return pd.DataFrame([_row(name, *found, trace.end_ps) for name, found in waits.items()], columns=_COLUMNS)


def waits_of(netlist: Netlist, trace: ExecutionTrace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Begin and end (int64 ps) of every wait for every component that is waited for, in order of the parts list."""
    paths = {part.path for part in netlist.components}
    waits: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    arrivals = _Arrivals(netlist, trace)
    times = dict(zip(map(id, netlist.lanes()), trace.lanes, strict=True))
    for server in netlist.parts():
        component = named_component(server, paths)
        for lane in server.lanes:
            found = arrivals.waits(lane, times[id(lane)])
            if component is not None:
                waits.setdefault(component, []).extend(found)
    order = {part.path: code for code, part in enumerate(netlist.components)}
    names = sorted((name for name, found in waits.items() if found), key=lambda name: order.get(name, len(order)))
    return {name: _joined(waits[name]) for name in names}


_COLUMNS = ["component", "n_waits", *(f"wait_{name}_ps" for name in ("mean", "p50", "p95", "max"))]
_COLUMNS += [f"depth_{name}" for name in ("mean", "p50", "p95", "peak")]


def named_component(server: Server, paths: set[str]) -> str | None:
    """The part that gives a server its name, else the first one at work in it; None where nobody is."""
    acting = [action.component for lane in server.lanes for action in lane.actions[:1]]
    return server.name if server.name in paths else next(iter(acting), None)


class _Arrivals:
    """When tokens came to every latch and line buffer."""

    def __init__(self, netlist: Netlist, trace: ExecutionTrace) -> None:
        self.netlist = netlist
        self._entered: dict[Target, np.ndarray] = {}
        for lane, times in zip(netlist.lanes(), trace.lanes, strict=True):
            emitted = slice(None) if lane.emit is None else lane.emit
            if lane.output is not None:
                self._entered[Target("channel", lane.output)] = times.leave_ps[emitted]
            for wire in lane.wires:
                self._entered[wire.target] = times.start_ps[emitted] + wire.delay_ps

    def waits(self, lane: Lane, times: LaneTrace) -> list[tuple[np.ndarray, np.ndarray]]:
        """Beginnings and ends of the waits in every input of a lane."""
        taking = slice(None) if lane.takes is None else lane.takes
        found = [(self._entered[Target("channel", index)], times.start_ps[taking]) for index in lane.inputs]
        if lane.reader:
            need = self.netlist.buffers[lane.reader[0]].need
            complete = np.concatenate([self._complete(lane.reader[0]), [0]])
            found.append((complete[np.where(need < 0, -1, need)], times.start_ps))
        return found

    def _complete(self, index: int) -> np.ndarray:
        """When all sources had delivered a position of a line buffer, for every position."""
        buffer = self.netlist.buffers[index]
        positions = np.arange(len(buffer.last_use))
        deliveries = [self._entered[Target("buffer", index, source)] for source in range(buffer.n_sources)]
        first_ps = min(int(entered[0]) for entered in deliveries)  # what nobody delivers is there when anything is
        complete = np.full(len(positions), first_ps, np.int64)
        for source, entered in enumerate(deliveries):
            number = np.searchsorted(buffer.covered(source), positions, side="right")
            complete = np.maximum(complete, np.concatenate([[first_ps], entered])[number])
        return complete


def _joined(waits: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([begin for begin, _ in waits]), np.concatenate([end for _, end in waits])


def _row(component: str, begin: np.ndarray, end: np.ndarray, run_ps: int) -> dict[str, Any]:
    waited = end - begin
    ranks = [_rank(share, len(waited)) for share in (0.5, 0.95)]
    middle = np.partition(waited, ranks)[ranks].tolist() if len(waited) else [0, 0]
    depths = _depths(begin, end, run_ps)
    return {
        "component": component,
        "n_waits": len(waited),
        "wait_mean_ps": float(waited.mean()) if len(waited) else 0.0,
        "wait_p50_ps": middle[0],
        "wait_p95_ps": middle[1],
        "wait_max_ps": int(waited.max(initial=0)),
        "depth_mean": int(waited.sum()) / max(run_ps, 1),
        "depth_p50": _weighted(depths, 0.5),
        "depth_p95": _weighted(depths, 0.95),
        "depth_peak": len(depths) - 1,
    }


def _rank(share: float, n: int) -> int:
    """Index of the nearest rank among n sorted values."""
    return max(int(np.ceil(share * n)) - 1, 0)


def _depths(begin: np.ndarray, end: np.ndarray, run_ps: int) -> np.ndarray:
    """Picoseconds of the run during which 0, 1, 2, ... tokens waited, int64."""
    lasting = end > begin
    begin, end = begin[lasting], end[lasting]
    times = np.concatenate([[0], begin, end, [run_ps]])
    change = np.repeat([0, 1, -1, 0], [1, len(begin), len(end), 1])
    order = np.argsort(times, kind="stable")  # merges what is in order already
    waiting, spent = np.cumsum(change[order])[:-1], np.diff(times[order])
    depths = np.zeros(int(waiting[spent > 0].max(initial=0)) + 1, np.int64)
    np.add.at(depths, waiting[spent > 0], spent[spent > 0])
    return depths


def _weighted(depths: np.ndarray, share: float) -> int:
    """Fewest tokens that are not exceeded for a share of the time."""
    return int(np.searchsorted(np.cumsum(depths), share * depths.sum()))

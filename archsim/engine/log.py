"""Expands an execution trace to the event log: one row per service and action, plus leakage.

The trace holds when; the netlist's arrays hold how much. A service of several actions becomes as
many rows, one after the other: all but the last leave when they end, and all but the first start
when their data, the action before, is there.
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import Action, Lane, Netlist
from archsim.components.trace import NO_PREDECESSOR, ExecutionTrace, LaneTrace
from archsim.eventlog import DATA, LEAK, SERVER, EventLog, Movement

_NOWHERE = -1


class _Names:
    """Codes for names in order of first use."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._codes = {name: code for code, name in enumerate(names)}

    def code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]


def build_log(netlist: Netlist, trace: ExecutionTrace) -> EventLog:
    """All services of a run as an event log."""
    components = _Names([part.path for part in netlist.components])
    actions, layers = _Names([LEAK]), _Names([""])
    movements: list[Movement] = []
    movement_codes: dict[Movement, int] = {}
    blocks: list[dict[str, np.ndarray]] = []
    for lane, times in zip(netlist.lanes(), trace.lanes, strict=True):
        labels = _labels(lane)
        for rows, action in _services(lane, times):
            code = _NOWHERE
            if action.movement is not None:
                code = movement_codes.setdefault(action.movement, len(movements))
                if code == len(movements):
                    movements.append(action.movement)
            blocks.append(
                rows
                | labels
                | {
                    "component": _same(components.code(action.component), lane, np.int32),
                    "action": _same(actions.code(action.name), lane, np.int32),
                    "layer": _same(layers.code(lane.layer), lane, np.int32),
                    "count": action.count,
                    "bits": action.bits,
                    "energy_pj": action.energy_pj,
                    "movement": _moved(action, code, lane),
                }
            )
    blocks.append(_leakage(netlist, trace.end_ps))
    columns = {
        name: np.concatenate([block[name] for block in blocks]).astype(dtype, copy=False)
        for name, dtype in EventLog.COLUMNS
    }
    order = np.lexsort((columns["start_ps"], columns["component"]))
    columns = {name: column[order] for name, column in columns.items()}
    return EventLog(columns, components.names, actions.names, layers.names, movements)


def _services(lane: Lane, times: LaneTrace) -> list[tuple[dict[str, np.ndarray], Action]]:
    """Rows of each action of a lane: start, service, leave, causes, predecessor."""
    rows = []
    start = times.start_ps
    last = len(lane.actions) - 1
    for index, action in enumerate(lane.actions):
        end = start + action.duration_ps
        row = {
            "start_ps": start,
            "service_ps": action.duration_ps,
            "leave_ps": times.leave_ps if index == last else end,
            "start_cause": _same(DATA, lane, np.int8) if index else times.start_cause,
            "leave_cause": times.leave_cause if index == last else _same(SERVER, lane, np.int8),
            "predecessor": _same(NO_PREDECESSOR, lane, np.int64) if index else times.predecessor,
        }
        rows.append((row, action))
        start = end
    return rows


def _labels(lane: Lane) -> dict[str, np.ndarray]:
    """Sample, timestep and position of every token of a lane."""
    tokens = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
    frame, token = np.divmod(tokens, lane.positions)
    sample, step = np.divmod(frame, lane.steps[1])
    return {
        "sample": sample.astype(np.int32),
        "timestep": (step + lane.steps[0]).astype(np.int32),
        "token": token.astype(np.int32),
    }


def _leakage(netlist: Netlist, end_ps: int) -> dict[str, np.ndarray]:
    """One row per leaking component over the whole run; 1 mW for 1 ps is 1e-3 pJ."""
    leaking = [(code, part) for code, part in enumerate(netlist.components) if part.leakage_mw > 0]
    n = len(leaking)
    block: dict[str, np.ndarray] = {name: np.full(n, _NOWHERE, dtype) for name, dtype in EventLog.COLUMNS}
    nothing = np.zeros(n, np.int64)
    return block | {
        "start_ps": nothing,
        "service_ps": nothing,
        "leave_ps": np.full(n, end_ps, np.int64),
        "component": np.array([code for code, _ in leaking], np.int32),
        "action": nothing,
        "layer": nothing,
        "count": np.ones(n, np.int64),
        "bits": nothing,
        "energy_pj": np.array([part.leakage_mw * end_ps * 1e-3 for _, part in leaking], np.float64),
        "start_cause": np.full(n, DATA, np.int8),
        "leave_cause": np.full(n, SERVER, np.int8),
    }


def _moved(action: Action, code: int, lane: Lane) -> np.ndarray:
    codes = _same(code, lane, np.int32)
    if action.moves is not None:
        codes[~action.moves] = _NOWHERE
    return codes


def _same(value: int, lane: Lane, dtype: type) -> np.ndarray:
    return np.full(lane.n_tokens, value, dtype)

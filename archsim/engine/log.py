"""Expands an execution trace to the event log: one row per service and action, plus leakage.

The trace holds when; the netlist's arrays hold how much. A service of several actions becomes as
many rows, one after the other: all but the last leave when they end, and all but the first start
when their data, the action before, is there.

A large run has more rows than memory should hold, so a log is kept as blocks. A block stands for the
rows of one action of one lane and points into the arrays of the trace and of the netlist; rows are
worked out when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archsim.components.netlist import Netlist
from archsim.components.trace import NO_PREDECESSOR, ExecutionTrace
from archsim.engine.pool import Pool
from archsim.eventlog import DATA, LEAK, SERVER, EventLog, LazyColumns, Totals

_NOWHERE = -1
_ROWS_PER_CHUNK = 1 << 16

_CODES = ("component", "action", "layer", "movement")
_ORDER = ("is_first", "is_last")
"""Whether an action begins a service, and whether it ends it."""
_FRAMES = ("positions", "first_step", "n_steps", "is_labelled")
_LISTS = ("before", "after", "duration", "count", "bits", "energy", "label", "moves")
"""Lists in pools, one value per token: time of a service until the action begins and until it ends, its
own time, its amounts, numbers of tokens where a lane does not serve all, and whether the movement counts."""
_BLOCK = ("n_rows", "tokens", *_CODES, *_ORDER, *_FRAMES, *(f"{n}{end}" for n in _LISTS for end in ("", "_step")))


class _Names:
    """Codes for names in order of first use."""

    def __init__(self, names: list[Any]) -> None:
        self.names = names
        self._codes = {name: code for code, name in enumerate(names)}

    def code(self, name: object) -> int:
        code = self._codes.setdefault(name, len(self.names))
        if code == len(self.names):
            self.names.append(name)
        return code


def build_log(netlist: Netlist, trace: ExecutionTrace) -> EventLog:
    """All services of a run as an event log."""
    components, actions, layers = _Names([part.path for part in netlist.components]), _Names([LEAK]), _Names([""])
    movements = _Names([])
    integers, energies = Pool(np.int64), Pool(np.float64)
    zero, one = integers.constant(0), integers.constant(1)
    blocks: list[tuple[int, ...]] = []
    tokens = 0
    for lane in netlist.lanes():
        label = zero if lane.labels is None else integers.add(lane.labels)
        frames = (lane.positions, *lane.steps, lane.labels is not None)
        before, last = zero, len(lane.actions) - 1
        layer = layers.code(lane.layer)
        for index, action in enumerate(lane.actions if lane.n_tokens else ()):
            movement = _NOWHERE if action.movement is None else movements.code(action.movement)
            codes = (components.code(action.component), actions.code(action.name), layer, movement)
            duration = integers.add(action.duration_ps)
            amounts = (*integers.add(action.count), *integers.add(action.bits), *energies.add(action.energy_pj))
            moves = one if action.moves is None else integers.add(action.moves)
            where = (lane.n_tokens, tokens, *codes, index == 0, index == last, *frames)
            after = integers.plus(before, duration) if index < last else zero
            blocks.append((*where, *before, *after, *duration, *amounts, *label, *moves))
            before = after
        tokens += lane.n_tokens
    n_services = len(blocks)
    for code, part in enumerate(netlist.components):
        if part.leakage_mw > 0:
            # 1 mW for 1 ps is 1e-3 pJ
            energy = energies.constant(part.leakage_mw * trace.end_ps * 1e-3)
            where = (1, 0, code, 0, 0, _NOWHERE, False, False, 1, 0, 1, False)
            blocks.append((*where, *zero, *zero, *zero, *one, *zero, *energy, *zero, *one))
    columns = _Blocks(blocks, n_services, integers.array(), energies.array(), trace)
    return EventLog(columns, components.names, actions.names, layers.names, movements.names)


class _Blocks(LazyColumns):
    """The rows of all blocks, sorted by component and start. Leakage has a block of one row per leaking part."""

    def __init__(
        self,
        blocks: list[tuple[int, ...]],
        n_services: int,
        integers: np.ndarray,
        energies: np.ndarray,
        trace: ExecutionTrace,
    ) -> None:
        table = np.array(blocks, np.int64).reshape(-1, len(_BLOCK))
        self._of = {name: np.ascontiguousarray(column) for name, column in zip(_BLOCK, table.T, strict=True)}
        self._n_services = n_services
        self._integers, self._energies = integers, energies
        self._end_ps = trace.end_ps
        names = ("start_ps", "leave_ps", "start_cause", "leave_cause", "predecessor")
        self._trace = {name: trace.joined(name) for name in names}
        self._sorted = np.argsort(self._of["component"], kind="stable")
        self._components = self._of["component"][self._sorted]
        self._ends = np.concatenate([[0], np.cumsum(self._of["n_rows"][self._sorted])])
        self.n_rows = int(self._ends[-1])
        self._chunks = self._boundaries()
        self._latest: tuple[int, _Rows] | None = None
        self._single: dict[str, np.ndarray] = {}

    def parts(self, names: Sequence[str], rows: slice) -> list[np.ndarray]:
        first, last, _ = rows.indices(self.n_rows)
        columns = [np.empty(max(last - first, 0), dict(EventLog.COLUMNS)[name]) for name in names]
        starts = self._ends[self._chunks]
        chunks = range(int(np.searchsorted(starts, first, "right")) - 1, int(np.searchsorted(starts, last)))
        for chunk in chunks if last > first else ():
            begin, end = max(int(starts[chunk]), first), min(int(starts[chunk + 1]), last)
            mine = self._rows_of(chunk).part(begin - int(starts[chunk]), end - int(starts[chunk]))
            for name, column in zip(names, columns, strict=True):
                column[begin - first : end - first] = self._values(name, mine)
        return columns

    def span(self, component: int) -> slice:
        first, last = self._ends[np.searchsorted(self._components, [component, component + 1])]
        return slice(int(first), int(last))

    def totals(self) -> Totals:
        is_mixed = self._of["moves_step"] > 0
        plain, mixed = np.flatnonzero(~is_mixed), np.flatnonzero(is_mixed)
        n_rows, begin = self._of["n_rows"], np.zeros(len(plain), np.int64)
        ones, ends = _Rows(plain, plain, begin), _Rows(plain, plain, n_rows[plain] - 1)
        component, action, layer, movement = (self._values(name, ones) for name in _CODES)
        of_plain = Totals(
            component=component,
            action=action,
            layer=layer,
            movement=movement,
            n_rows=n_rows[plain],
            n_moving=self._sums("bits", self._integers, plain, np.count_nonzero),
            count=self._sums("count", self._integers, plain),
            bits=self._sums("bits", self._integers, plain),
            service_ps=self._sums("duration", self._integers, plain),
            energy_pj=self._sums("energy", self._energies, plain),
            first_start_ps=self._values("start_ps", ones),
            last_leave_ps=self._values("leave_ps", ends),
        )
        block = np.repeat(mixed, n_rows[mixed])
        token = np.arange(len(block)) - np.repeat(np.cumsum(n_rows[mixed]) - n_rows[mixed], n_rows[mixed])
        rows = _Rows(mixed, block, token)
        return of_plain.and_those_of({name: self._values(name, rows) for name, _ in EventLog.COLUMNS})

    def _sums(
        self, name: str, pool: np.ndarray, blocks: np.ndarray, total: Callable[[np.ndarray], Any] = np.sum
    ) -> np.ndarray:
        """Sum of a list of each block, or what else adds up; each list that blocks share is summed once."""
        lists = np.column_stack([self._of[column][blocks] for column in (name, f"{name}_step", "n_rows")])
        shared, which = np.unique(lists, axis=0, return_inverse=True)
        sums = [total(pool[at : at + n]) if step else total(pool[at : at + 1]) * n for at, step, n in shared.tolist()]
        return np.array(sums, np.float64 if pool is self._energies else np.int64)[which.ravel()]

    def _boundaries(self) -> np.ndarray:
        """Where chunks begin among the sorted blocks: whole components, some 2^16 rows each; and the end."""
        codes = self._components
        begins = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.zeros(0, np.int64)
        chunk = self._ends[begins] // _ROWS_PER_CHUNK
        return np.append(begins[np.append(True, chunk[1:] != chunk[:-1])] if len(begins) else begins, len(codes))

    def _rows_of(self, chunk: int) -> _Rows:
        """Rows of a chunk, in their order."""
        if self._latest is None or self._latest[0] != chunk:
            blocks = self._sorted[self._chunks[chunk] : self._chunks[chunk + 1]].astype(np.int32)
            n_rows, component = self._of["n_rows"][blocks], self._of["component"][blocks]
            block = np.repeat(blocks, n_rows)
            token = np.arange(len(block)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
            _, which, n_alike = np.unique(component, return_inverse=True, return_counts=True)
            mixed = np.flatnonzero(np.repeat(n_alike[which] > 1, n_rows))
            of_mixed = _Rows(blocks, block[mixed], token[mixed])
            order = np.lexsort((self._values("start_ps", of_mixed), self._of["component"][of_mixed.block]))
            block[mixed], token[mixed] = of_mixed.block[order], of_mixed.token[order]
            self._latest = chunk, _Rows(blocks, block, token)
        return self._latest[1]

    def _values(self, name: str, rows: _Rows) -> np.ndarray:
        """Column `name` of some rows."""
        block = rows.block
        if name == "movement":
            return np.where(self._at(self._integers, "moves", rows), self._of[name][block], _NOWHERE)
        if name in _CODES:
            return self._of[name][block]
        if name in ("count", "bits"):
            return self._at(self._integers, name, rows)
        if name == "service_ps":
            return self._at(self._integers, "duration", rows)
        if name == "energy_pj":
            return self._at(self._energies, "energy", rows)
        if name in ("timestep", "token", "sample"):
            return self._but_leakage(self._label(name, rows), block, _NOWHERE)
        if rows.number is None:
            rows.number = self._of["tokens"][block] + rows.token
        if name == "start_ps":
            start = self._trace[name][rows.number] + self._at(self._integers, "before", rows)
            return self._but_leakage(start, block, 0)
        if name == "leave_ps":
            end = self._trace["start_ps"][rows.number] + self._at(self._integers, "after", rows)
            leave = np.where(self._of["is_last"][block], self._trace[name][rows.number], end)
            return self._but_leakage(leave, block, self._end_ps)
        at_end, otherwise = {
            "start_cause": ("is_first", DATA),
            "predecessor": ("is_first", NO_PREDECESSOR),
            "leave_cause": ("is_last", SERVER),
        }[name]
        return np.where(self._of[at_end][block], self._trace[name][rows.number], otherwise)

    def _at(self, pool: np.ndarray, name: str, rows: _Rows) -> np.ndarray:
        """Values of a list of each block; most lists are one value for all tokens."""
        first, step = self._of[name], self._of[f"{name}_step"]
        if step[rows.blocks].any():
            return pool[first[rows.block] + step[rows.block] * rows.token]
        if name not in self._single:
            self._single[name] = pool[first]
        return self._single[name][rows.block]

    def _label(self, name: str, rows: _Rows) -> np.ndarray:
        """Number of a token in its frame, and of the frame in its sample, and the sample."""
        block = rows.block
        if rows.label is None:
            number = rows.token
            if self._of["is_labelled"][rows.blocks].any():
                labels = self._at(self._integers, "label", rows)
                number = np.where(self._of["is_labelled"][block], labels, number)
            positions, n_steps = self._of["positions"][block], self._of["n_steps"][block]
            frame = _quotient(number, positions)
            sample = _quotient(frame, n_steps)
            step = frame - sample * n_steps + self._of["first_step"][block]
            rows.label = {"token": number - frame * positions, "timestep": step, "sample": sample}
        return rows.label[name]

    def _but_leakage(self, values: np.ndarray, block: np.ndarray, leakage: int) -> np.ndarray:
        """Values of services, and another one for the rows of leakage."""
        values[block >= self._n_services] = leakage
        return values


@dataclass
class _Rows:
    """Some rows of the log: token `token` of block `block`, and what several columns of them need."""

    blocks: np.ndarray
    """Blocks that have such rows, each once; others may be among them."""
    block: np.ndarray
    token: np.ndarray
    number: np.ndarray | None = None
    """Numbers of the services in the trace."""
    label: dict[str, np.ndarray] | None = None

    def part(self, first: int, last: int) -> _Rows:
        """Neighbouring ones of these rows."""
        whole = last - first == len(self.block)
        return self if whole else _Rows(self.blocks, self.block[first:last], self.token[first:last])


def _quotient(number: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Whole part of `number / by`, exact below 2^52 and several times faster than integer division."""
    return ((number + 0.5) / by).astype(np.int64)

"""The event log in blocks: rows, parts, totals and file against the services worked out one by one."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
import test_crossbar_chip as chip
from test_replication import flow_case, simulate

import archsim
from archsim import eventlog
from archsim.analysis import breakdown
from archsim.components.netlist import Netlist
from archsim.components.trace import NO_PREDECESSOR, ExecutionTrace
from archsim.engine import log as engine_log
from archsim.engine import simpy_execution
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.log import build_log
from archsim.engine.pool import Place, Pool
from archsim.eventlog import DATA, LEAK, SERVER, EventLog

SEEDS = (0, 1, 2, 3, 5, 6)
NAMES = [name for name, _ in EventLog.COLUMNS]


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    """Chunks and row groups so small that every log has many, with borders at different rows."""
    monkeypatch.setattr(engine_log, "_ROWS_PER_CHUNK", 64)
    monkeypatch.setattr(eventlog, "_ROWS_PER_GROUP", 100)


def case(seed: int) -> tuple[Netlist, ExecutionTrace]:
    """A random chip: as it is, with copies of its layers, or with packets that travel flit by flit."""
    if seed % 3 == 0:
        run = chip.case(seed)
        return run.netlist, run.trace
    network, overrides, values = flow_case(seed)
    policy = {"mapping.replication": 2} if seed % 3 == 1 else {"chip.noc.detail": "flit"}
    each = simulate(network, values, overrides | policy)
    return each.netlist, each.trace


def test_the_cases_hold_what_makes_rows_differ():
    lanes = [lane for seed in SEEDS for lane in case(seed)[0].lanes()]
    actions = [action for lane in lanes for action in lane.actions]
    assert any(lane.labels is not None for lane in lanes)
    assert any(action.moves is not None for action in actions)
    assert any(len(lane.actions) > 2 for lane in lanes)


def services(netlist: Netlist, trace: ExecutionTrace) -> list[tuple]:
    """Every row of the log as a tuple of names and numbers, one by one, in file order."""
    found = []
    paths = [part.path for part in netlist.components]
    for lane, one in zip(netlist.lanes(), trace.lanes, strict=True):
        for action in lane.actions:
            for token in range(lane.n_tokens):
                found.append(service(lane, one, action, token, paths.index(action.component)))
    for code, part in enumerate(netlist.components):
        if part.leakage_mw:
            energy = part.leakage_mw * trace.end_ps * 1e-3
            where = (code, part.path, LEAK, "", None, -1, -1, -1)
            found.append((*where, 0, 0, trace.end_ps, 1, 0, energy, DATA, SERVER, NO_PREDECESSOR))
    return sorted(found, key=lambda row: (row[0], row[8]))


def service(lane, one, action, token: int, component: int) -> tuple:
    index = next(number for number, other in enumerate(lane.actions) if other is action)
    start = int(one.start_ps[token] + sum(other.duration_ps[token] for other in lane.actions[:index]))
    is_last = index == len(lane.actions) - 1
    end = int(one.leave_ps[token]) if is_last else start + int(action.duration_ps[token])
    number = token if lane.labels is None else int(lane.labels[token])
    frame, position = divmod(number, lane.positions)
    sample, step = divmod(frame, lane.steps[1])
    return (
        *(component, action.component, action.name, lane.layer),
        action.movement if action.moves is None or action.moves[token] else None,
        *(step + lane.steps[0], position, sample),
        *(start, int(action.duration_ps[token]), end),
        *(int(action.count[token]), int(action.bits[token]), float(action.energy_pj[token])),
        int(one.start_cause[token]) if index == 0 else DATA,
        int(one.leave_cause[token]) if is_last else SERVER,
        int(one.predecessor[token]) if index == 0 else NO_PREDECESSOR,
    )


def rows_of(log: EventLog) -> list[tuple]:
    """The rows of a log in the form of `services`."""
    order = ("timestep", "token", "sample", "start_ps", "service_ps", "leave_ps", "count", "bits", "energy_pj")
    numbers = zip(*(log[name].tolist() for name in (*order, "start_cause", "leave_cause", "predecessor")), strict=True)
    codes = zip(*(log[name].tolist() for name in ("component", "action", "layer", "movement")), strict=True)
    return [
        (
            *(component, log.components[component], log.actions[action], log.layers[layer]),
            log.movements[movement] if movement >= 0 else None,
            *row,
        )
        for (component, action, layer, movement), row in zip(codes, numbers, strict=True)
    ]


def stored(log: EventLog) -> EventLog:
    """The same log with all of its rows at hand."""
    return EventLog({name: log[name] for name in NAMES}, log.components, log.actions, log.layers, log.movements)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_service_is_a_row_in_order_of_component_and_start(seed):
    netlist, trace = case(seed)
    assert rows_of(build_log(netlist, trace)) == services(netlist, trace)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_is_that_part_of_the_column(seed):
    log = build_log(*case(seed))
    rng = np.random.default_rng(seed)
    for name in NAMES:
        first, last = sorted(rng.integers(0, len(log) + 1, 2))
        found = log.parts([name], slice(first, last))[0]
        assert (found.dtype, found.tolist()) == (log[name].dtype, log[name][first:last].tolist())


def grouped(log: EventLog) -> dict[tuple[int, ...], list]:
    """Totals of a log by component, action, layer and movement, whatever it is split into."""
    found: dict[tuple[int, ...], list] = {}
    columns = (getattr(log.totals, item.name).tolist() for item in fields(log.totals))
    for *key, n_rows, n_moving, count, bits, service_ps, energy, start, end in zip(*columns, strict=True):
        sums = found.setdefault(tuple(key), [0, 0, 0, 0, 0, 0.0, start, end])
        for index, value in enumerate((n_rows, n_moving, count, bits, service_ps, energy)):
            sums[index] += value
        sums[6:] = [min(sums[6], start), max(sums[7], end)]
    return {key: [*sums[:5], pytest.approx(sums[5], rel=1e-12), *sums[6:]] for key, sums in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_totals_of_blocks_are_the_totals_of_rows(seed):
    log = build_log(*case(seed))
    of_rows = {key: [*sums[:5], sums[5].expected, *sums[6:]] for key, sums in grouped(stored(log)).items()}
    assert of_rows == grouped(log)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_file_holds_the_rows(seed, tmp_path):
    log = build_log(*case(seed))
    log.write(tmp_path / "events.parquet")
    again = EventLog.read(tmp_path / "events.parquet")
    assert rows_of(again) == rows_of(log)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_is_the_same_however_few_rows_are_worked_out_at_once(seed, tmp_path, monkeypatch):
    files = []
    for n_rows in (1, 64, 1 << 16):
        monkeypatch.setattr(engine_log, "_ROWS_PER_CHUNK", n_rows)
        build_log(*case(seed)).write(tmp_path / str(n_rows))
        files.append((tmp_path / str(n_rows)).read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_log_streams_to_its_file_and_never_is_in_memory(tmp_path):
    workload = archsim.load_workload("digits-cnn")
    mapping = archsim.map_network(archsim.load_hardware("spikesim-rram-64"), workload)
    activity = chip.activity(workload.network, 2, workload.n_timesteps)
    netlist = build_netlist(mapping, activity)
    log = build_log(netlist, simpy_execution.execute(netlist))
    in_memory = sum(np.dtype(dtype).itemsize for _, dtype in EventLog.COLUMNS) * len(log)
    log.write(tmp_path / "once")  # what is loaded or made at first use stays out of the measurement
    tracemalloc.start()
    log.write(tmp_path / "again")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < in_memory / 4


@pytest.mark.parametrize("seed", SEEDS)
def test_services_of_a_component_leave_out_its_leakage(seed):
    log = build_log(*case(seed))
    for form in (log, stored(log)):
        for name in (*log.components[:20], "stranger"):
            found = [column.tolist() for column in form.services_of(name, "start_ps", "token")]
            rows = form.rows_of(name)
            assert found == [form["start_ps"][rows].tolist(), form["token"][rows].tolist()]


def union(intervals: list[tuple[int, int]]) -> int:
    """Time that intervals cover together."""
    covered, reached = 0, 0
    for start, end in sorted(intervals):
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered


@pytest.mark.parametrize("seed", SEEDS)
def test_the_busiest_unit_is_the_busiest_of_all(seed):
    log = build_log(*case(seed))
    start, service_ps = log["start_ps"].tolist(), log["service_ps"].tolist()
    component = log["component"].tolist()
    for layer in log.layers[1:]:
        mine = (log["layer"] == log.layers.index(layer)) & ~log.is_leakage
        intervals: dict[str, list[tuple[int, int]]] = {}
        for row in np.flatnonzero(mine):
            unit = breakdown.unit_of(log.components[component[row]])
            intervals.setdefault(unit, []).append((start[row], start[row] + service_ps[row]))
        busy = {unit: union(found) for unit, found in intervals.items()}
        found = breakdown.busiest_unit(log, layer)
        assert (found.name, found.busy_ps) == (max(busy, key=lambda unit: busy[unit]), busy[found.name])


# Pools


def test_a_pool_keeps_arrays_once_and_constants_as_one_entry():
    pool, values = Pool(np.int64), np.array([3, 4])
    same = np.broadcast_to(np.int64(7), (5,))
    places = [pool.add(values), pool.add(same), pool.add(values), pool.constant(7), pool.add(np.array([3, 4]))]
    assert places == [Place(0, 1), Place(2, 0), Place(0, 1), Place(2, 0), Place(3, 1)]
    assert pool.array().tolist() == [3, 4, 7, 3, 4]


def test_sums_in_a_pool_are_made_once_and_zero_makes_none():
    pool = Pool(np.int64)
    one, two, zero = pool.add(np.array([1, 2])), pool.constant(10), pool.constant(0)
    places = [pool.plus(one, two), pool.plus(one, two), pool.plus(zero, one), pool.plus(two, zero), pool.plus(two, two)]
    assert pool.array()[places[0].first :][:2].tolist() == [11, 12]
    assert places[1:] == [places[0], one, two, pool.constant(20)]

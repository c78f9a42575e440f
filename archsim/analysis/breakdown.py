"""Where energy, time and bits of a run went: small tables computed from its result.

Energies are in pJ and for the whole run, all samples. Sums of each table equal the totals of the
summary to 1e-12. Names stay as they are in the result; the report makes them presentable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from archsim.eventlog import EventLog, Level
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

NO_LAYER = ""
"""Layer of what belongs to the whole chip, as in the event log."""

_PE = re.compile(r"^(.*\.pe\d+)\.[^.]+$")


@dataclass(frozen=True)
class Load:
    """How long something worked, ps."""

    name: str
    busy_ps: int


def energy_by_kind(result: Result) -> pd.DataFrame:
    """Energy and area per kind of component, most energy first.

    Columns: `kind`, `n_components`, `energy_dynamic_pj`, `energy_leakage_pj`, `energy_pj`, `area_um2`.
    """
    columns = ["energy_dynamic_pj", "energy_leakage_pj", "area_um2"]
    grouped = result.components.groupby("kind", sort=True)
    frame = grouped[columns].sum()
    frame.insert(0, "n_components", grouped.size())
    frame.insert(3, "energy_pj", frame["energy_dynamic_pj"] + frame["energy_leakage_pj"])
    return frame.sort_values("energy_pj", ascending=False, kind="stable").reset_index()


def energy_by_layer_and_kind(result: Result) -> pd.DataFrame:
    """Dynamic energy in pJ, layers (rows, in order of data flow) by kinds of component (columns).

    Row `NO_LAYER` appears where services of no layer cost energy. Leakage belongs to no layer and
    is left out: `energy_by_kind` has it.
    """
    import pandas as pd  # heavy, loaded with the first table

    log = result.log
    kind_of = dict(zip(result.components["component"].astype(str), result.components["kind"], strict=True))
    kinds = sorted(set(kind_of.values()))
    kind_codes = np.array([kinds.index(kind_of[name]) for name in log.components], np.int64)
    totals, dynamic = log.totals, log.totals.action != log.leak
    cells = totals.layer[dynamic].astype(np.int64) * len(kinds) + kind_codes[totals.component[dynamic]]
    sums = np.bincount(cells, weights=totals.energy_pj[dynamic], minlength=len(log.layers) * len(kinds))
    table = pd.DataFrame(sums.reshape(len(log.layers), len(kinds)), index=log.layers, columns=kinds)
    named = [str(name) for name in result.layers["layer"]]
    others = [name for name in log.layers if name not in named and (name != NO_LAYER or table.loc[name].any())]
    return table.reindex(named + others, fill_value=0.0)


def latency_by_layer(result: Result) -> pd.DataFrame:
    """When each layer works, and what in it works longest; one row per layer that did anything.

    Columns: `layer`, `kind`, `first_start_ps`, `last_leave_ps`, `busiest_component` with its `busy_ps`
    and `utilisation`, `busiest_unit` with its `unit_busy_ps` and `unit_utilisation`. A unit is a whole
    PE, busy while any of its parts is, or a component outside PEs. Utilisation is relative to the
    layer's window from first start to last leave, and counts work for this layer only.
    """
    if "latency_by_layer" not in result.kept:
        result.kept["latency_by_layer"] = _latency_by_layer(result)
    return result.kept["latency_by_layer"].copy()


def _latency_by_layer(result: Result) -> pd.DataFrame:
    import pandas as pd  # heavy, loaded with the first table

    rows = []
    totals = result.log.totals
    for layer in result.layers.itertuples():
        mine = _groups_of(result.log, str(layer.layer))
        if not len(mine):
            continue
        start, end = int(totals.first_start_ps[mine].min()), int(totals.last_leave_ps[mine].max())
        window = max(end - start, 1)
        component, unit = (find(result.log, str(layer.layer)) for find in (busiest_component, busiest_unit))
        rows.append(
            {
                "layer": str(layer.layer),
                "kind": layer.kind,
                "first_start_ps": start,
                "last_leave_ps": end,
                "busiest_component": component.name,
                "busy_ps": component.busy_ps,
                "utilisation": component.busy_ps / window,
                "busiest_unit": unit.name,
                "unit_busy_ps": unit.busy_ps,
                "unit_utilisation": unit.busy_ps / window,
            }
        )
    return pd.DataFrame(rows)


def movement_by_level_and_class(result: Result) -> pd.DataFrame:
    """Packets, bits, bit-hops and energy per level (farthest from the crossbars first) and class."""
    order = {level: index for index, level in enumerate(get_args(Level))}
    columns = ["packets", "bits", "bit_hops", "energy_pj"]
    frame = result.movement.groupby(["level", "class"], sort=True)[columns].sum().reset_index()
    return frame.sort_values("level", key=lambda levels: levels.map(order), kind="stable").reset_index(drop=True)


def activity_profile(log: EventLog, layer: str, unit: str, end_ps: int, n_bins: int) -> np.ndarray:
    """Fraction of time that a unit works for a layer, in `n_bins` equal bins from 0 to `end_ps`."""
    acting = [log.components[code] for code in np.unique(log.totals.component[_groups_of(log, layer)])]
    starts, ends = _busy_intervals(log, layer, [name for name in acting if unit_of(name) == unit])
    edges = np.linspace(0.0, float(end_ps), n_bins + 1)
    if not len(starts):
        return np.zeros(n_bins)
    times = np.column_stack([starts, ends]).ravel()
    worked = np.column_stack([np.cumsum(ends - starts) - (ends - starts), np.cumsum(ends - starts)]).ravel()
    covered = np.interp(edges, times, worked)
    return np.clip(np.diff(covered) / max(end_ps / n_bins, 1e-300), 0.0, 1.0)


def busiest_component(log: EventLog, layer: str) -> Load:
    """The component with most service time for a layer; the first of equals."""
    busy = _service_ps(log, layer)
    code = int(busy.argmax())
    return Load(log.components[code], int(busy[code]))


def busiest_unit(log: EventLog, layer: str) -> Load:
    """The PE, or component outside PEs, that works longest for a layer; the first of equals.

    Parts of a PE that work at the same time count once, so a unit works no longer than its parts together:
    units are looked at from the largest such sum down, until no other can win.
    """
    busy = _service_ps(log, layer)
    parts: dict[str, list[int]] = {}
    for code in np.unique(log.totals.component[_groups_of(log, layer)]):
        parts.setdefault(unit_of(log.components[code]), []).append(int(code))
    units = sorted(parts, key=lambda unit: (-busy[parts[unit]].sum(), parts[unit][0]))
    found = units[0]
    longest = -1
    for unit in units:
        if busy[parts[unit]].sum() <= longest:
            break
        starts, ends = _busy_intervals(log, layer, [log.components[code] for code in parts[unit]])
        works = int((ends - starts).sum())
        if works > longest or (works == longest and parts[unit] < parts[found]):
            found, longest = unit, works
    return Load(found, longest)


def unit_of(component: str) -> str:
    """The PE that a component is a part of, else the component itself."""
    match = _PE.match(component)
    return match.group(1) if match else component


def _groups_of(log: EventLog, layer: str) -> np.ndarray:
    """Indices of the groups of services for a layer (`EventLog.totals`); none if the log does not know it."""
    if layer not in log.layers:
        return np.zeros(0, np.int64)
    return np.flatnonzero((log.totals.layer == log.layers.index(layer)) & (log.totals.action != log.leak))


def _service_ps(log: EventLog, layer: str) -> np.ndarray:
    """Service time of every component for a layer."""
    mine = _groups_of(log, layer)
    busy = np.zeros(len(log.components), np.int64)
    np.add.at(busy, log.totals.component[mine], log.totals.service_ps[mine])
    return busy


def _busy_intervals(log: EventLog, layer: str, components: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint intervals in order of time that together cover what components do for a layer: starts, ends in ps."""
    if not components:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    columns = [log.services_of(name, "layer", "start_ps", "service_ps") for name in components]
    of, start, service = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    working = (of == log.layers.index(layer)) & (service > 0)
    start, end = start[working], (start + service)[working]
    if not len(start):
        return start, end
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    opens = np.r_[True, start[1:] > reach[:-1]]
    closes = np.r_[opens[1:], True]
    return start[opens], reach[closes]

"""Which entries of the cost library a run used, how much of its energy and area rests on each, and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archsim.analysis.configuration import setting
from archsim.analysis.critical_path import kinds_of
from archsim.result import Result
from archsim.units import format_number

if TYPE_CHECKING:
    import pandas as pd

ASSUMPTION = "assumption"
"""Kind of an entry that nobody published."""

_PRICED_AS = {"link": "router", "input": "global_buffer", "port": "global_buffer"}
"""Kinds of components that use the entries of another one: links those of their router, ports those of the memory."""
_CHOSEN_BY = {
    "dram": ("hardware.chip.dram.kind", "dram_{}"),
    "pe_array": ("hardware.array.pe.mac", "{}_mac"),
    "neuron": ("hardware.array.pe.neuron", "{}"),
}
"""Kinds whose entries a key of the chip chooses, and how these are named."""


def used_entries(result: Result) -> pd.DataFrame:
    """One row per entry of the cost library that this run used, most energy first, then most area.

    Columns: `entry` (component and action, `area` or `leakage`), `value` of the library with its unit and what it is
    per, `node_nm`, `kind` (of source), `source`; `energy_pj` and `area_um2` of the run that rest on it. Where the
    library has no entry of that name, `value` to `source` are None: such a part costs what its owner says.
    """
    import pandas as pd  # heavy, loaded with the first table

    columns = ["entry", "value", "node_nm", "kind", "source", "energy_pj", "area_um2"]
    frame = pd.DataFrame([*_energies(result), *_sizes(result)], columns=columns)
    # several kinds of components may share an entry
    sums = frame.groupby("entry", sort=False).agg({"energy_pj": "sum", "area_um2": "sum"})
    frame = frame.drop_duplicates("entry").drop(columns=["energy_pj", "area_um2"]).merge(sums, on="entry")
    return frame.sort_values(["energy_pj", "area_um2"], ascending=False, kind="stable").reset_index(drop=True)[columns]


def _energies(result: Result) -> list[tuple[Any, ...]]:
    """Actions that cost energy."""
    log, totals = result.log, result.log.totals
    kind_of = kinds_of(result)
    sums: dict[tuple[str, str], float] = {}
    for component, action, energy in zip(totals.component, totals.action, totals.energy_pj, strict=True):
        key = (kind_of.get(log.components[component], ""), log.actions[action])
        sums[key] = sums.get(key, 0.0) + float(energy)
    rows = []
    for (kind, action), energy in sums.items():
        if energy > 0:
            is_leakage = action == "leak"
            costs = _costs(result, kind)
            entry = costs.get("leakage") if is_leakage else _action_of(costs, action)
            name = f"{_priced_as(result, kind)}.{'leakage' if is_leakage else action}"
            rows.append((name, *_words(entry), energy, 0.0))
    return rows


def _sizes(result: Result) -> list[tuple[Any, ...]]:
    areas = result.components.groupby("kind", sort=True)["area_um2"].sum()
    return [
        (f"{_priced_as(result, str(kind))}.area", *_words(_costs(result, str(kind)).get("area")), 0.0, float(area))
        for kind, area in areas.items()
        if area > 0
    ]


def _costs(result: Result, kind: str) -> Mapping[str, Any]:
    found = setting(result, f"cost_library.components.{_priced_as(result, kind)}")
    return found if isinstance(found, Mapping) else {}


def _priced_as(result: Result, kind: str) -> str:
    """The component of the cost library that prices a kind of components."""
    key, name = _CHOSEN_BY.get(kind, ("", ""))
    chosen = setting(result, key)
    return _PRICED_AS.get(kind, kind) if chosen is None else name.format(chosen)


def _action_of(costs: Mapping[str, Any], action: str) -> object:
    """The entry of an action; accesses of different memories in one part share one (`access_weights`: `access`)."""
    actions = costs.get("actions") or {}
    return actions.get(action, actions.get(action.split("_")[0]))


def _words(entry: object) -> tuple[str | None, float | None, str | None, str | None]:
    """Value, node, kind and source of an entry of the library."""
    if not isinstance(entry, Mapping):
        return None, None, None, None
    units = {"energy_pj": "pJ", "area_um2": "um2", "leakage_mw": "mW"}
    key = next((name for name in units if name in entry), None)
    value = (
        None if key is None else f"{format_number(float(entry[key]))} {units[key]} per {entry.get('per', 'instance')}"
    )
    at = entry.get("at")
    if value is not None and isinstance(at, Mapping) and at:
        value += f" at {', '.join(f'{name} {float(size):g}' for name, size in at.items())}"
    return value, entry.get("node_nm"), entry.get("kind"), entry.get("source")

"""What limits a run and what to change first, as data: findings from the critical path and from tried changes.

A finding is about one resource (or two that bind together), and its gain is that of a real simulation
of the changed chip. Findings of single resources come first, by gain; then changes of the whole chip or
of several resources at once, which always help and say less about what is short.
"""

from __future__ import annotations

import math
from typing import Any

from archsim.analysis.critical_path import co_critical, kinds_of, latency_stack
from archsim.analysis.what_if import JOIN, resource_of
from archsim.result import Result

_LEAST_GAIN = 0.01
"""Latency that a change must save for a finding."""
_SEVERITIES = ((0.2, "high"), (0.05, "medium"), (0.0, "low"))
"""Least gain of each severity: assumptions about what deserves attention."""
_BROAD = ("the whole chip", "PEs", "reads of silence", "copies of layers")
"""Resources that are everything, or many parts at once."""


def findings(result: Result) -> list[dict[str, Any]]:
    """Findings of a run whose changes were tried (`result.changes`), most important first; none without changes.

    Each has `id`, `severity` (`high` from 20 % of the latency, `medium` from 5 %, `low`), `resource`, `evidence` (from
    the critical path of sample 0: share of the latency, layer and cause where most of it is, and a pair that binds
    together), `suggestion` (the change), `expected_gain` (the share on the critical path: an upper bound),
    `verified_gain` (of the latency, by simulation), `energy_gain` and `area_gain`.

    Raises:
        ConfigError: The result has no path.
    """
    if result.changes is None:
        return []
    best: dict[str, dict[str, Any]] = {}
    for row in result.changes.to_dict("records"):
        gain, resource = row["latency_gain"], row["resource"]
        if gain is not None and not math.isnan(gain) and resource:
            known = best.get(resource)
            if gain >= _LEAST_GAIN and (known is None or gain > known["latency_gain"]):
                best[resource] = row
    singles = {name: row["latency_gain"] for name, row in best.items() if JOIN not in name}
    found = []
    for resource, row in best.items():
        parts = resource.split(JOIN)
        if len(parts) > 1 and row["latency_gain"] < max(singles.get(part, 0.0) for part in parts) + _LEAST_GAIN:
            continue  # nothing that one of them alone does not do
        found.append(_finding(result, row))
    return sorted(found, key=_order)


def _order(finding: dict[str, Any]) -> tuple[int, float, str]:
    parts = finding["resource"].split(JOIN)
    rank = 2 if any(part in _BROAD for part in parts) else 1 if len(parts) > 1 else 0
    return rank, -finding["verified_gain"], finding["id"]


def _finding(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    gain, bound = float(row["latency_gain"]), row["share_on_critical_path"]
    return {
        "id": "latency:" + ",".join(part.split(": ")[0] for part in row["change"].split(JOIN)),
        "severity": next(name for least, name in _SEVERITIES if gain >= least),
        "resource": row["resource"],
        "evidence": _evidence(result, row["change"]),
        "suggestion": row["change"],
        "expected_gain": None if bound is None or math.isnan(bound) else float(bound),
        "verified_gain": gain,
        "energy_gain": float(row["energy_gain"]),
        "area_gain": float(row["area_gain"]),
    }


def _evidence(result: Result, change: str) -> dict[str, Any]:
    """Where on the critical path of sample 0 the resource of a change is."""
    keys = [part.split(": ")[0] for part in change.split(JOIN)]
    kinds = {kind for key in keys for kind in resource_of(key)[1]}
    stack = latency_stack(result)
    mine = stack[stack["kind"].isin(kinds)] if kinds else stack
    evidence: dict[str, Any] = {"share": float(mine["share"].sum())}
    if len(mine):
        evidence |= {"layer": str(mine.iloc[0]["layer"]), "cause": str(mine.iloc[0]["cause"])}
        evidence["share_in_layer"] = float(mine["share"][mine["layer"] == evidence["layer"]].sum())
    pair = next((item for item in co_critical(result) if kinds_of(result).get(item[0]) in kinds), None)
    if pair is not None:
        evidence |= {"binds_with": list(pair[:2]), "binds_ps": pair[2]}
    return evidence

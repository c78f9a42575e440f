"""What limits a run and what to change first, as data: findings from the critical path and from tried changes.

A finding is about one resource (or two that bind together), and its gain is that of a simulation with the
change. Findings of single resources come first, by gain; then changes of the whole chip or
of several resources at once, which always help and say less about what is short.
"""

from __future__ import annotations

import math
from typing import Any

from archsim.analysis.candidates import COPIES, JOIN, resource_of
from archsim.analysis.critical_path import co_critical, critical_path, kinds_of, latency_stack
from archsim.result import Result

_LEAST_GAIN = 0.01
"""Latency that a change must save for a finding."""
_SEVERITIES = ((0.2, "high"), (0.05, "medium"), (0.0, "low"))
"""Least gain of each severity: assumptions about what deserves attention."""
_BROAD = ("the whole chip", "PEs", "reads of silence", "copies of layers", "copies of one layer")
"""Resources that are everything, or many parts at once."""


def findings(result: Result) -> list[dict[str, Any]]:
    """Findings of a run whose changes were tried (`result.changes`), most important first; none without changes.

    Each has `id`, `severity` (`high` from 20 % of the latency, `medium` from 5 %, `low`), `resource`, `evidence` (from
    the critical path of sample 0: `share` of the latency, which bounds the gain; layer, component and cause where most
    of it is; a pair that binds together), `suggestion` (the change), `expected_gain` of the latency (predicted by a run
    with the changed service), `verified_gain` (by a full simulation of the changed chip, network mapped anew; null
    where it was not made), `energy_gain` and `area_gain` (verified if there is that, else predicted).

    Raises:
        ConfigError: The result has no path.
    """
    if result.changes is None:
        return []
    best: dict[str, dict[str, Any]] = {}
    for row in result.changes.to_dict("records"):
        gain, resource = best_known(row, "latency"), row["resource"]
        if gain is None or gain < _LEAST_GAIN or not resource:
            continue
        if resource not in best or gain > gain_of(best[resource]):
            best[resource] = row
    singles = {name: gain_of(row) for name, row in best.items() if JOIN not in name}
    found = []
    for resource, row in best.items():
        parts = resource.split(JOIN)
        if len(parts) > 1 and gain_of(row) < max(singles.get(part, 0.0) for part in parts) + _LEAST_GAIN:
            continue  # nothing that one of them alone does not do
        binds_jointly = len(parts) > 1 and max(singles.get(part, 0.0) for part in parts) < gain_of(row) / 2
        found.append((_rank(parts, binds_jointly), _finding(result, row)))
    return [finding for _, finding in sorted(found, key=lambda item: (item[0], -saved(item[1]), item[1]["id"]))]


def n_anomalies(result: Result) -> int:
    """How many tried changes make nothing slower and the run longer."""
    return 0 if result.changes is None else sum(value is True for value in result.changes["anomaly"].tolist())


def best_known(row: dict[str, Any], figure: str) -> float | None:
    """What a tried change saves of `latency`, `energy` or `area`: verified, else predicted, else None."""
    values = (row[f"{figure}_gain"], row[f"predicted_{figure}_gain"])
    return next((float(value) for value in values if value is not None and not math.isnan(value)), None)


def gain_of(row: dict[str, Any]) -> float:
    """The latency that a change saves whose gain is known."""
    gain = best_known(row, "latency")
    assert gain is not None, "rows without a gain were left out"
    return gain


def _rank(parts: list[str], binds_jointly: bool) -> int:
    """Order of findings about resources: single ones and pairs that bind together, other pairs, broad ones."""
    if any(part in _BROAD for part in parts):
        return 2
    return 0 if len(parts) == 1 or binds_jointly else 1


def saved(finding: dict[str, Any]) -> float:
    """The latency that a finding's change saves: verified, or expected where it was not."""
    gain = finding["verified_gain"]
    return float(finding["expected_gain"] if gain is None else gain)


def _finding(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    gain = gain_of(row)
    expected, verified = row["predicted_latency_gain"], row["latency_gain"]
    return {
        "id": "latency:" + ",".join(part.split(": ")[0] for part in row["change"].split(JOIN)),
        "severity": next(name for least, name in _SEVERITIES if gain >= least),
        "resource": row["resource"],
        "evidence": _evidence(result, row["change"]),
        "suggestion": row["change"],
        "expected_gain": _known(expected),
        "verified_gain": _known(verified),
        "energy_gain": best_known(row, "energy"),
        "area_gain": best_known(row, "area"),
    }


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _evidence(result: Result, change: str) -> dict[str, Any]:
    """Where on the critical path of sample 0 the resource of a change is."""
    keys = [part.split(": ")[0] for part in change.split(JOIN)]
    kinds = {kind for key in keys for kind in resource_of(key)[1]}
    stack, path, kind_of = latency_stack(result), critical_path(result), kinds_of(result)
    layers = {key.removeprefix(f"{COPIES[1]}.") for key in keys if key.startswith(f"{COPIES[1]}.")}
    mine = stack[stack["kind"].isin(kinds)] if kinds else stack
    mine = mine[mine["layer"].isin(layers)] if layers and len(keys) == 1 else mine
    evidence: dict[str, Any] = {"share": float(mine["share"].sum())}
    if len(mine):
        evidence |= {"layer": str(mine.iloc[0]["layer"]), "cause": str(mine.iloc[0]["cause"])}
        evidence["share_in_layer"] = float(mine["share"][mine["layer"] == evidence["layer"]].sum())
        there = path[path["component"].map(kind_of).isin(mine["kind"]) & (path["layer"] == evidence["layer"])]
        longest = there.groupby("component", sort=True)["duration_ps"].sum()
        evidence["component"] = str(longest.idxmax())
    pair = next((item for item in co_critical(result) if kind_of.get(item[0]) in kinds), None)
    if pair is not None:
        evidence |= {"binds_with": list(pair[:2]), "binds_ps": pair[2]}
    return evidence

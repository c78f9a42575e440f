"""Two runs beside each other: which keys differ, which figures, and in which component and layer the difference is.

Only the files of the runs are needed, so they may be of different chips, platforms, networks and versions: kinds of
component and layers are matched by name, and what only one run has counts as nothing in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import RootModel

from archsim.analysis.critical_path import latency_stack
from archsim.analysis.repeat import read_config
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

LEAKAGE = "leakage, whole chip"
"""Stands among the layers for energy that belongs to none."""

FIGURES = (
    *("latency_ps", "latency_per_timestep_ps", "throughput_samples_per_s", "energy_per_sample_pj", "power_mw"),
    *("area_um2", "edp_pj_s", "tops_per_w", "tops_per_mm2", "accuracy_ideal", "accuracy_raw", "accuracy_calibrated"),
    *("n_timesteps", "mean_timesteps", "energy_wasted_pj"),
    *("synaptic_ops", "effective_acs", "effective_macs", "activation_sparsity"),
    *("n_crossbars", "n_pes", "n_tiles", "cell_utilisation"),
)
"""Keys of the summary that are compared."""

_HOW_LOADED = ("workload.request", "workload.source")
"""Keys that say where the workload came from, not what it is."""


def compare(before: Result, after: Result) -> dict[str, Any]:
    """What differs between two runs, as data.

    Returns:
        `before` and `after` (`hardware`, `workload`, `n_samples` of each); `keys`: hardware, cost and workload keys
        that differ, hardware first; `figures`: entries of the summary with a value in either run; `latency_by_kind`
        and `latency_by_layer`: time on the critical path of sample 0, ps; `energy_by_kind` and `energy_by_layer`, pJ
        per sample; `area_by_kind`, um2. All are lists of `name`, `before`, `after`; those about parts also have
        `difference` (after - before), which sums to that of the whole, the largest first. Paths are empty where a
        run has none.

    Raises:
        ConfigError: A run's configuration cannot be read.
    """
    return {
        "before": _identity(before),
        "after": _identity(after),
        "keys": _keys(before, after),
        "figures": _figures(before.summary, after.summary),
        **{f"latency_by_{part}": _parts(_path(before, part), _path(after, part)) for part in ("kind", "layer")},
        "energy_by_kind": _parts(_energy_by_kind(before), _energy_by_kind(after)),
        "energy_by_layer": _parts(_energy_by_layer(before), _energy_by_layer(after)),
        "area_by_kind": _parts(_area_by_kind(before), _area_by_kind(after)),
    }


def _identity(result: Result) -> dict[str, Any]:
    return {key: result.summary[key] for key in ("hardware", "workload", "n_samples")}


def _keys(before: Result, after: Result) -> list[dict[str, Any]]:
    """Keys whose values differ; None where a run does not have a key."""
    old, new = (dict(_flat(read_config(each.config, RootModel[dict[str, Any]]).root)) for each in (before, after))
    return [
        {"name": key, "before": old.get(key), "after": new.get(key)}
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not key.startswith(_HOW_LOADED)
    ]


def _flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys of nested sections with their values; the hardware's keys stand without their section's name."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, "" if not before and key == "hardware" else f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _figures(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = [key for key in FIGURES if old.get(key) is not None or new.get(key) is not None]
    return [{"name": key, "before": old.get(key), "after": new.get(key)} for key in known]


def _path(result: Result, part: str) -> dict[str, float]:
    """Time on the critical path of sample 0 by kind of component, or by layer."""
    return {} if result.paths is None else _sums(latency_stack(result), part, "duration_ps")


def _energy_by_kind(result: Result) -> dict[str, float]:
    parts = result.components
    energy = parts["energy_dynamic_pj"] + parts["energy_leakage_pj"]
    return _per_sample(result, _sums(parts.assign(energy_pj=energy), "kind", "energy_pj"))


def _energy_by_layer(result: Result) -> dict[str, float]:
    leakage = {LEAKAGE: float(result.components["energy_leakage_pj"].sum())}
    return _per_sample(result, _sums(result.layers, "layer", "energy_pj") | leakage)


def _area_by_kind(result: Result) -> dict[str, float]:
    return _sums(result.components, "kind", "area_um2")


def _sums(frame: pd.DataFrame, by: str, column: str) -> dict[str, float]:
    sums = frame.groupby(by, sort=False)[column].sum()
    return dict(zip(sums.index.astype(str), sums.tolist(), strict=True))


def _per_sample(result: Result, sums: dict[str, float]) -> dict[str, float]:
    return {name: value / int(result.summary["n_samples"]) for name, value in sums.items()}


def _parts(old: dict[str, float], new: dict[str, float]) -> list[dict[str, Any]]:
    """Parts of both runs that are anything, by what they differ."""
    rows = [
        {
            "name": name,
            "before": old.get(name, 0),
            "after": new.get(name, 0),
            "difference": new.get(name, 0) - old.get(name, 0),
        }
        for name in dict.fromkeys([*old, *new])
    ]
    return sorted((row for row in rows if row["before"] or row["after"]), key=lambda row: -abs(row["difference"]))

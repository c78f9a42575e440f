"""What a change of the chip would do: predicted for every candidate, verified for the best.

The share of the critical path that a change touches is an upper bound of what it can gain, and never the
prediction: other resources bind as soon as one is faster. Predictions are simulations too, of the same
mapping (`archsim.analysis.prediction`); a verified figure is that of the changed chip with the network
mapped anew and, where a change can alter values, run anew.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsim.activity import Activity
from archsim.analysis.candidates import (
    COPIES,
    EVERYTHING,
    JOIN,
    SINGLE_RESOURCES,
    Change,
    default_changes,
    keeps_values,
    resource_of,
    resource_of_kind,
)
from archsim.analysis.critical_path import co_critical, critical_path, kinds_of
from archsim.analysis.prediction import Prediction, changed_mapping, predict
from archsim.engine.simulation import Origin, simulate_activity
from archsim.errors import ConfigError, MappingError
from archsim.hardware.reader import change_hardware
from archsim.hardware.systolic import AnyHardware
from archsim.inference import infer
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from archsim.mapping import AnyMapping

Progress = Callable[[str, float], None]

FIGURES = ("latency", "energy", "area")
COLUMNS = (
    *("change", "resource", "share_on_critical_path"),
    *(f"predicted_{name}_gain" for name in FIGURES),
    *("latency_ps", "latency_gain", "energy_pj", "energy_gain", "area_um2", "area_gain"),
    *("accuracy_raw", "values", "anomaly", "note"),
)

_N_VERIFIED = 5
"""Candidates, best first, whose gain is verified where the prediction is not already exact."""
_LEAST_SHARE = 0.01
"""Part of the latency that a pair must bind to be changed jointly."""
_MOST_PAIRS = 2
"""Pairs that bind together and are changed jointly."""


def what_if(
    result: Result, changes: Change | Sequence[Change] | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Predict what changes of the chip would do, and simulate the changed chip.

    Args:
        result: A run of this process (`archsim.simulate`), or `archsim.repeat_run` of a loaded one.
        changes: A change is hardware keys with new values, such as `{"tile.pe.adc.cols_per_adc": 4}`; several keys
            of a change are changed together. None: `default_changes`, then the best of what binds together, jointly;
            of these only the best are verified where that takes another simulation.
        progress: Called with the fraction of changes that are done.

    Returns:
        One row per change: `change` in words; `resource` it is about; `share_on_critical_path`, the part of sample 0's
        latency spent in that resource, an upper bound of the gain that is missing where none can be told;
        `predicted_latency_gain`, `predicted_energy_gain`, `predicted_area_gain`: 1 - new / old, negative where the
        change costs, missing where the change maps the network otherwise; `latency_ps`, `energy_pj` (per sample),
        `area_um2` and their gains, verified, missing where they were not; `accuracy_raw`; `values`: `kept`, or
        `recomputed` where the change can alter them; `anomaly`: whether the predicted run takes longer although nothing
        in it is slower (`archsim.analysis.anomalies`), missing where there is no prediction; `note`: why a change
        cannot be made.

    Raises:
        ConfigError: A key or value is not possible, the result was loaded from files, or it has no path.
    """
    import pandas as pd  # heavy, loaded with the first table

    if result.origin is None:
        raise ConfigError(
            "this result was loaded from files, which hold no spikes, so it cannot be simulated with changes; "
            "use the result of archsim.simulate or archsim.repeat_run, or the command archsim report"
        )
    hardware = result.origin.mapping.hardware
    if changes is not None:
        listed = [changes] if isinstance(changes, Mapping) else list(changes)
        for change in listed:
            change_hardware(hardware, change)
        tried = _tried(result, listed, "what if", progress)
        _verify(result, tried, len(tried), progress)
    else:
        tried = _tried(result, default_changes(result), "what if", progress)
        _verify(result, tried, _N_VERIFIED, progress)
        joint = _tried(result, _joint(result, tried), "what if, jointly", progress)
        _verify(result, joint, len(joint), progress)
        tried += joint
    return pd.DataFrame([each.row for each in tried], columns=list(COLUMNS))


class _Tried:
    """A change with its row of the table, and the mapping of the changed chip until the change is verified."""

    def __init__(self, change: Change, row: dict[str, Any]) -> None:
        self.change, self.row = change, row
        self.unverified: AnyMapping | None = None

    @property
    def gain(self) -> float:
        """Latency saved: verified, else predicted, else nothing."""
        gains = (self.row["latency_gain"], self.row["predicted_latency_gain"])
        return next((gain for gain in gains if gain is not None), -1.0)


def _tried(result: Result, changes: Sequence[Change], phase: str, progress: Progress | None) -> list[_Tried]:
    tried = []
    for number, change in enumerate(changes):
        if progress:
            progress(phase, number / len(changes))
        tried.append(_predicted(result, change))
    return tried


def _predicted(result: Result, change: Change) -> _Tried:
    """A change with its prediction, which is verified already if it is exact."""
    origin: Origin = result.origin
    hardware = origin.mapping.hardware
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["change"] = JOIN.join(change_words(hardware, key, value) for key, value in change.items())
    row["resource"] = JOIN.join(dict.fromkeys(name for key in change if (name := resource_of(key)[0])))
    row["share_on_critical_path"] = _share(result, change)
    row["values"] = "kept" if keeps_values(hardware, change) else "recomputed"
    each = _Tried(change, row)
    try:
        changed = changed_mapping(origin, change)
        prediction = predict(result, change, changed)
    except (ConfigError, MappingError) as err:
        row["note"] = str(err)
        return each
    if prediction is not None:
        row |= {f"predicted_{name}": gain for name, gain in _gains(result, prediction).items()}
        row["anomaly"] = prediction.is_anomaly
    if prediction is not None and prediction.is_exact and row["values"] == "kept":
        _fill(result, row, prediction, result.summary["accuracy_raw"])
    else:
        each.unverified = changed
    return each


def _verify(result: Result, tried: Sequence[_Tried], n_most: int, progress: Progress | None) -> None:
    """Simulate the changed chip for the best of what is not verified."""
    open_ones = [each for each in tried if each.unverified is not None]
    best = sorted(tried, key=lambda each: -each.gain)[:n_most]
    chosen = [each for each in open_ones if each in best]
    for number, each in enumerate(chosen):
        if progress:
            progress("verification", number / len(chosen))
        origin: Origin = result.origin
        mapping, seed = each.unverified, int(result.summary["seed"])
        assert mapping is not None, "chosen among those that have one"
        activity: Activity = origin.activity
        if each.row["values"] == "recomputed":
            activity = infer(mapping, origin.workload, activity.n_samples, seed)
        summary = simulate_activity(mapping, origin.workload, activity, seed).summary
        latency_ps, energy_pj, area_um2 = (summary[key] for key in ("latency_ps", "energy_per_sample_pj", "area_um2"))
        _fill(result, each.row, Prediction(latency_ps, energy_pj, area_um2, True), summary["accuracy_raw"])
    for each in open_ones:
        each.unverified = None


def _fill(result: Result, row: dict[str, Any], found: Prediction, accuracy_raw: float | None) -> None:
    """Enter verified figures."""
    row |= {"latency_ps": found.latency_ps, "energy_pj": found.energy_pj, "area_um2": found.area_um2}
    row |= {**_gains(result, found), "accuracy_raw": accuracy_raw}


def _gains(result: Result, found: Prediction) -> dict[str, float | None]:
    """What is saved of the old latency, energy and area."""
    old = [result.summary[key] for key in ("latency_ps", "energy_per_sample_pj", "area_um2")]
    new = (found.latency_ps, found.energy_pj, found.area_um2)
    pairs = zip(FIGURES, old, new, strict=True)
    return {f"{name}_gain": 1 - after / before if before else None for name, before, after in pairs}


def _share(result: Result, change: Change) -> float | None:
    """Part of the first sample's critical path that is spent in what a change is about."""
    resources = [resource_of(key) for key in change]
    if any(name == EVERYTHING for name, _ in resources):
        return 1.0
    if not all(kinds for _, kinds in resources):
        return None
    path, kind_of = critical_path(result), kinds_of(result)
    touched = path["component"].map(kind_of).isin([kind for _, kinds in resources for kind in kinds])
    copied = [set(value) for key, value in change.items() if key == COPIES[1] and isinstance(value, Mapping)]
    if copied and len(change) == 1:
        touched &= path["layer"].isin(set().union(*copied))
    latency_ps = int(path["duration_ps"].sum())
    return int(path["duration_ps"][touched].sum()) / latency_ps if latency_ps else None


def _joint(result: Result, tried: Sequence[_Tried]) -> list[Change]:
    """The best changes of resources that bind together, of the two with most of the path, and of the two best."""
    best: dict[str, _Tried] = {}
    for each in tried:
        name = each.row["resource"]
        if name != EVERYTHING and each.row["note"] is None and (name not in best or each.gain > best[name].gain):
            best[name] = each
    by_gain = sorted((name for name in best if best[name].gain > 0), key=lambda name: -best[name].gain)
    shares = {name: best[name].row["share_on_critical_path"] or 0.0 for name in best if name in SINGLE_RESOURCES}
    by_share = sorted((name for name in shares if shares[name] >= _LEAST_SHARE), key=lambda name: -shares[name])
    others = [name for name in by_gain[1:] if not (_adds_copies(best[name]) and _adds_copies(best[by_gain[0]]))]
    pairs = [*_binding(result, best), by_share[:2], [*by_gain[:1], *others[:1]]]
    wanted = dict.fromkeys(tuple(sorted(pair, key=list(best).index)) for pair in pairs if len(pair) == 2)
    return [{**best[first].change, **best[second].change} for first, second in wanted]


def _binding(result: Result, names: Container[str]) -> list[list[str]]:
    """Pairs of resources of which parts bind at the same time, the longest first, among some names."""
    kinds, latency_ps = kinds_of(result), int(critical_path(result)["duration_ps"].sum())
    pairs = []
    for one, other, duration_ps in co_critical(result):
        pair = [resource_of_kind(kinds[part]) for part in (one, other)]
        if duration_ps >= _LEAST_SHARE * latency_ps and pair[0] != pair[1] and all(name in names for name in pair):
            pairs.append(sorted(pair))
    return list({tuple(pair): pair for pair in pairs}.values())[:_MOST_PAIRS]


def _adds_copies(each: _Tried) -> bool:
    return any(key in COPIES for key in each.change)


def change_words(hardware: AnyHardware, key: str, value: object) -> str:
    """A key with its present and its new value; of a table only the entries that change."""
    present: Any = hardware
    for part in key.split("."):
        present = present.get(part, 1) if isinstance(present, Mapping) else getattr(present, part)
    if isinstance(value, Mapping):
        changed = {name: new for name, new in value.items() if present.get(name) != new}
        return ", ".join(f"{key}.{name}: {present.get(name, 1)} -> {new}" for name, new in changed.items())
    return f"{key}: {_text(present)} -> {_text(value)}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

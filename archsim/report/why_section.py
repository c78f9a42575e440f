"""Section of the report on what limits the run: verdict, latency stack, pairs that bind together, tried changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archsim.analysis.critical_path import co_critical, latency_stack
from archsim.analysis.findings import best_known, findings, n_anomalies, saved
from archsim.report import charts
from archsim.report.charts import OTHER, Bar
from archsim.report.page import Bullets, Chart, Part, Section, Table, Text
from archsim.report.text import is_missing, kind_label, layer_label, percent, plain, share, shorten, time_scale
from archsim.result import Result
from archsim.units import format_time

if TYPE_CHECKING:
    import pandas as pd

_N_PARTS = 12
"""Rows of the latency stack that are listed."""
_N_PAIRS = 3
_STACK_TEXT = (
    "The critical path of sample 0: from its last output back to its injection, always to what came last. Its "
    "segments sum to the latency exactly, so a part that is not on it gains nothing by being faster."
)
_CHANGES_TEXT = (
    "Every change below was made and simulated with the network where it is (predicted); the best were simulated again "
    "with the network mapped anew (verified). The share on the critical path is an upper bound of what a change of its "
    "resource can save, not an estimate."
)
_ANOMALIES_TEXT = (
    "Anomalies: {}. So many of these changes make nothing slower and yet the run longer. A shared part grants its "
    "oldest request first, so a faster part can let another stream through before the one that matters."
)
_CAUSES = {
    "data": "its input came last",
    "server": "the part was busy with the token before",
    "arbiter": "the part was busy with another stream",
    "credit": "there was no room behind it",
}


def why(result: Result) -> Section:
    """What limits the run, as far as its files say."""
    question = "What limits it, and what to change first?"
    if result.paths is None:
        text = "This result was written without critical paths. Run the simulation again to see what limits it."
        return Section("why", question, (Text(text),))
    first, *others = sentences(result)
    parts: list[Part] = [Text(first, "strong"), *map(Text, others), Text(_STACK_TEXT), _stack(result)]
    parts += [Text(sentence) for sentence in _pairs(result)]
    if result.changes is not None:
        parts += [Text(_CHANGES_TEXT), *_changes(result.changes)]
        parts += [Text(_ANOMALIES_TEXT.format(number))] if (number := n_anomalies(result)) else []
    return Section("why", question, tuple(parts))


def sentences(result: Result) -> tuple[str, ...]:
    """What limits the run and what to change first, in one or two sentences."""
    stack, found = latency_stack(result), findings(result)
    of_sample = "" if result.summary["n_samples"] == 1 else " of sample 0"
    latency = format_time(int(stack["duration_ps"].sum())) + of_sample
    top = stack.iloc[0]
    if not found:
        tried = "No tried change saves 1 %" if result.changes is not None else "Changes of the chip were not tried"
        return (
            f"{percent(top['share'])} of the latency of {latency} is spent in {kind_label(top['kind'])} of "
            f"{layer_label(top['layer'])}, where no service started earlier because {_CAUSES[top['cause']]}.",
            tried + ("." if result.changes is not None else " (archsim report does it)."),
        )
    first, most = found[0], max(found, key=saved)
    evidence = first["evidence"]
    where = (
        f", {percent(evidence['share_in_layer'])} in {layer_label(evidence['layer'])}" if "layer" in evidence else ""
    )
    spent = f"{percent(evidence['share'])} of the latency of {latency} is spent in {plain(first['resource'])}{where}."
    change = f"First change: {_saving(first)}."
    return (spent, change) if most is first else (spent, change, f"Most of all does {_saving(most)}.")


def _saving(finding: dict[str, Any]) -> str:
    effects = _effect(finding["energy_gain"], "energy") + _effect(finding["area_gain"], "area")
    return f"{_arrow(finding['suggestion'])}, which in simulation saves {percent(saved(finding))} of it{effects}"


def _arrow(change: str) -> str:
    """A change with arrows that a line cannot be broken in."""
    return plain(change).replace(" -> ", "\N{NO-BREAK SPACE}→ ")


def _effect(gain: float, what: str) -> str:
    if abs(gain) < 0.0005:
        return ""
    return f", {percent(abs(gain))} {'less' if gain > 0 else 'more'} {what}"


def _stack(result: Result) -> Chart:
    """The critical path of sample 0 by layer, kind of component and cause."""
    stack = latency_stack(result)
    total = int(stack["duration_ps"].sum())
    scale = time_scale([float(stack["duration_ps"].max())])
    by_kind = stack.groupby("kind", sort=True)["duration_ps"].sum().sort_values(ascending=False, kind="stable")
    kinds = [str(kind) for kind in by_kind.index]
    shown = kinds[: charts.N_COLOURS]
    palette = {**charts.colours(shown), OTHER: "c-other"}
    order = [str(name) for name in result.layers["layer"]]
    order += [name for name in dict.fromkeys(stack["layer"].astype(str)) if name not in order]
    sums = stack.groupby("layer")["duration_ps"].sum()
    bars = []
    for layer in order:
        if layer not in sums.index:
            continue
        mine = stack[stack["layer"] == layer].groupby("kind")["duration_ps"].sum()
        parts = [(kind, float(mine.get(kind, 0))) for kind in shown]
        parts.append((OTHER, float(mine.sum()) - sum(value for _, value in parts)))
        value = f"{scale.text(sums[layer])} {scale.unit}, {share(sums[layer], total)}"
        segments = charts.stacked(parts, palette.__getitem__, float(sums.max()), _tooltip(layer_label(layer)))
        bars.append(Bar(layer_label(layer), value, segments))
    cells = tuple(
        (
            kind_label(row["kind"]),
            layer_label(row["layer"]),
            f"{row['cause']}: {_CAUSES[row['cause']]}",
            scale.text(row["duration_ps"]),
            percent(row["share"]),
        )
        for row in stack.head(_N_PARTS).to_dict("records")
    )
    rest = int(stack["duration_ps"].iloc[_N_PARTS:].sum())
    if rest:
        cells += (("all others", "", "", scale.text(rest), share(rest, total)),)
    head = ("kind of component", "layer", "why it started no earlier", f"time [{scale.unit}]", "share")
    foot = ("sum, the latency", "", "", scale.text(total), share(total, total))
    table = Table("Critical path of sample 0", head, cells, n_text=3, foot=foot)
    legend = [(kind_label(kind), palette[kind]) for kind in shown]
    legend += [(OTHER, palette[OTHER])] if len(kinds) > len(shown) else []
    return Chart("What takes the time", tuple(legend), tuple(bars), table)


def _pairs(result: Result) -> tuple[str, ...]:
    """Parts that bind at the same time, the longest first, as far as it is a hundredth of the latency."""
    least_ps = latency_stack(result)["duration_ps"].sum() / 100
    return tuple(
        f"{shorten(first)} and {shorten(second)} bind together for {format_time(duration_ps)}: making only one of them "
        "faster gains nothing there."
        for first, second, duration_ps in co_critical(result)[:_N_PAIRS]
        if duration_ps >= least_ps
    )


def _changes(changes: pd.DataFrame) -> list[Part]:
    """Every tried change with what it does, and those that cannot be made with the reason."""
    rows = changes.to_dict("records")
    possible = sorted(
        (row for row in rows if is_missing(row["note"])), key=lambda row: _sort_key(best_known(row, "latency"))
    )
    cells = tuple(
        (
            _arrow(row["change"]),
            shorten(row["resource"]),
            percent(row["share_on_critical_path"]),
            _signed(row["predicted_latency_gain"]),
            _signed(row["latency_gain"]),
            *(_signed(best_known(row, name)) for name in ("energy", "area")),
        )
        for row in possible
    )
    head = (
        *("change", "resource", "on the path (bound)", "latency saved, predicted", "latency saved, verified"),
        *("energy saved", "area saved"),
    )
    refused = tuple(
        f"{_arrow(row['change'])} is not possible: {plain(row['note']).removeprefix('--set ')}"
        for row in rows
        if not is_missing(row["note"])
    )
    return [Table("Changes of the chip", head, cells, n_text=2), *([Bullets(refused)] if refused else [])]


def _sort_key(gain: float | None) -> float:
    return 2.0 if gain is None or is_missing(gain) else -gain


def _signed(gain: float | None) -> str:
    if gain is None or is_missing(gain):
        return percent(None)
    return percent(gain) if gain >= 0 else f"−{percent(-gain, 1 if gain < -0.001 else 3)}"


def _tooltip(label: str) -> Callable[[str, float], str]:
    return lambda kind, value: f"{label}, {OTHER if kind == OTHER else kind_label(kind)}: {format_time(value)}"

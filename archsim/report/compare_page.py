"""The comparison of two runs as a page: verdict first, then keys, figures, and where time, energy and area differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archsim.report.page import Page, Part, Section, Table, Text
from archsim.report.text import (
    DASH,
    Scale,
    area_scale,
    energy_scale,
    is_missing,
    kind_label,
    layer_label,
    percent,
    plain,
    shorten,
    time_scale,
)
from archsim.units import format_area, format_energy, format_number, format_time

_MOST_KEYS = 40
_MOST_PARTS = 12
_KEYS_IN_WORDS = 3
_SAME = 5e-4
"""Relative difference below which a figure counts as unchanged in words."""

_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_ps": ("Latency", format_time),
    "latency_per_timestep_ps": ("Latency per timestep", format_time),
    "throughput_samples_per_s": ("Throughput [samples/s]", format_number),
    "energy_per_sample_pj": ("Energy per inference", format_energy),
    "power_mw": ("Mean power [mW]", format_number),
    "area_um2": ("Area", format_area),
    "edp_pj_s": ("Energy-delay product [pJ s]", format_number),
    "tops_per_w": ("Energy efficiency [TOPS/W]", format_number),
    "tops_per_mm2": ("Compute density [TOPS/mm2]", format_number),
    "accuracy_ideal": ("Accuracy, ideal", percent),
    "accuracy_raw": ("Accuracy, raw", percent),
    "accuracy_calibrated": ("Accuracy, calibrated", percent),
    "n_timesteps": ("Timesteps", format_number),
    "mean_timesteps": ("Timesteps until decided", format_number),
    "energy_wasted_pj": ("Energy wasted behind decisions, whole run", format_energy),
    "synaptic_ops": ("Synaptic operations, dense", format_number),
    "effective_acs": ("Effective accumulates", format_number),
    "effective_macs": ("Effective multiply-accumulates", format_number),
    "activation_sparsity": ("Activation sparsity", percent),
    "n_crossbars": ("Crossbars", format_number),
    "n_pes": ("PEs", format_number),
    "n_tiles": ("Tiles", format_number),
    "cell_utilisation": ("Cell utilisation", percent),
}
"""Name and form of the figures that are compared."""

_VERDICTS = (
    ("latency_ps", "time", format_time),
    ("energy_per_sample_pj", "energy", format_energy),
    ("area_um2", "area", format_area),
)


def compare_page(found: Mapping[str, Any], labels: tuple[str, str]) -> Page:
    """A comparison (`archsim.analysis.compare.compare`) as a page.

    Args:
        found: What differs.
        labels: What the two runs are called, such as their folders.
    """
    names = tuple(shorten(label) for label in labels)
    sections = [
        _section("keys", "What was changed?", _keys(found["keys"], names)),
        _section("figures", "Which figures differ?", [_figures(found["figures"], names)]),
        _section("time", "Where does the time differ?", _time(found, names)),
        _section("energy", "Where does the energy differ?", _energy(found, names)),
        _section(
            "area",
            "Where does the area differ?",
            [_parts("Area by kind of component", found["area_by_kind"], kind_label, area_scale, names)],
        ),
    ]
    return Page(f"{names[1]} compared with {names[0]}", " ".join(verdict(found, labels)), tuple(sections))


def verdict(found: Mapping[str, Any], labels: tuple[str, str]) -> tuple[str, ...]:
    """What differs most, in sentences."""
    figures = {row["name"]: (row["before"], row["after"]) for row in found["figures"]}
    clauses = [_clause(*figures[key], what, form) for key, what, form in _VERDICTS if key in figures]
    sentences = [f"{shorten(labels[1])} takes {', '.join(clauses)} (compared with {shorten(labels[0])})."]
    if found["before"]["workload"] != found["after"]["workload"]:
        pair = (found["before"]["workload"], found["after"]["workload"])
        sentences.append(f"The networks differ: {shorten(pair[0])} and {shorten(pair[1])}.")
    sentences.append(_key_words(found["keys"]))
    for what, unit in (("latency", format_time), ("energy", format_energy)):
        words = _most(found[f"{what}_by_kind"], found[f"{what}_by_layer"], what, unit)
        if words:
            sentences.append(words)
    return tuple(sentences)


def _clause(before: float, after: float, what: str, form: Callable[[float], str]) -> str:
    if is_missing(before) or is_missing(after) or not before:
        return f"{DASH} {what}"
    change = after / before - 1
    if abs(change) < _SAME:
        return f"as much {what} ({form(after)})"
    amount = (
        f"{format_number(after / before, 3)} times the {what}"
        if change >= 1
        else f"{percent(abs(change))} {'more' if change > 0 else 'less'} {what}"
    )
    return f"{amount} ({form(before)} → {form(after)})"


def _key_words(keys: Sequence[Mapping[str, Any]]) -> str:
    if not keys:
        return "No key differs."
    kinds = next((row for row in keys if row["name"] == "kind"), None)
    if kinds is not None:
        platforms = (str(kinds[side]).replace("_", " ") for side in ("before", "after"))
        return f"The chips are of different kinds: {' and '.join(map(plain, platforms))}."
    if len(keys) > _KEYS_IN_WORDS:
        return f"{len(keys)} keys differ."
    changes = (f"{plain(row['name'])}: {_value(row['before'])} → {_value(row['after'])}" for row in keys)
    return f"Changed: {'; '.join(changes)}."


def _most(
    kinds: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]], what: str, form: Callable[[float], str]
) -> str:
    """The kind of component and the layer in which most of a difference is."""
    if not kinds or not kinds[0]["difference"]:
        return ""
    places = [f"{kind_label(kinds[0]['name'])} ({_signed(kinds[0]['difference'], form)})"]
    if layers and layers[0]["difference"]:
        places.append(f"{layer_label(layers[0]['name'])} ({_signed(layers[0]['difference'], form)})")
    return f"Most of the {what} differs in {' and in '.join(places)}."


def _signed(value: float, form: Callable[[float], str]) -> str:
    return f"{'+' if value > 0 else '−'}{form(abs(value))}"


def _section(anchor: str, question: str, parts: Sequence[Part]) -> Section:
    return Section(anchor, question, tuple(parts))


def _keys(keys: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> list[Part]:
    """Keys that both runs have; of the others, which chips of different kinds have many of, only how many there are."""
    if not keys:
        return [Text("No key of hardware, costs or workload differs.")]
    shared = [row for row in keys if row["before"] is not None and row["after"] is not None]
    shown = (shared if any(row["name"] == "kind" for row in keys) else list(keys))[:_MOST_KEYS]
    rows = tuple((plain(row["name"]), _value(row["before"]), _value(row["after"])) for row in shown)
    parts: list[Part] = [Table("Keys that differ", ("key", *names), rows, n_text=3)]
    if len(shown) < len(keys):
        parts.append(Text(f"{len(keys) - len(shown)} more keys differ; the comparison as JSON has all.", "soft"))
    return parts


def _value(value: object) -> str:
    return DASH if value is None else shorten(str(value).lower() if isinstance(value, bool) else value)


def _figures(figures: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> Table:
    rows = []
    for row in figures:
        name, form = _FIGURES[row["name"]]
        values = [DASH if is_missing(row[side]) else form(row[side]) for side in ("before", "after")]
        rows.append((name, *values, _ratio(row["before"], row["after"])))
    return Table("Figures", ("figure", *names, "ratio"), tuple(rows))


def _ratio(before: float | None, after: float | None) -> str:
    if before is None or after is None or is_missing(before) or is_missing(after) or not before:
        return DASH
    return format_number(after / before)


def _time(found: Mapping[str, Any], names: tuple[str, ...]) -> list[Part]:
    if not found["latency_by_kind"]:
        return [Text("A run was written without critical paths.")]
    text = "Time on the critical path of sample 0; its parts sum to the latency, and the differences to the difference."
    return [
        Text(text, "soft"),
        _parts("Critical path by kind of component", found["latency_by_kind"], kind_label, time_scale, names),
        _parts("Critical path by layer", found["latency_by_layer"], layer_label, time_scale, names),
    ]


def _energy(found: Mapping[str, Any], names: tuple[str, ...]) -> list[Part]:
    return [
        _parts("Energy per inference by kind of component", found["energy_by_kind"], kind_label, energy_scale, names),
        _parts("Energy per inference by layer", found["energy_by_layer"], layer_label, energy_scale, names),
    ]


def _parts(
    caption: str,
    rows: Sequence[Mapping[str, Any]],
    label: Callable[[object], str],
    scale_of: Callable[[Sequence[float]], Scale],
    names: tuple[str, ...],
) -> Table:
    """Parts with their differences, the largest first, and the sum of all."""
    figures = [[float(row[side]) for side in ("before", "after", "difference")] for row in rows]
    shown = [(label(row["name"]), values) for row, values in zip(rows, figures, strict=True)][:_MOST_PARTS]
    if len(rows) > _MOST_PARTS:
        shown.append((f"{len(rows) - _MOST_PARTS} others", _sum(figures[_MOST_PARTS:])))
    shown.append(("sum", _sum(figures)))
    scale = scale_of([value for _, values in shown for value in values])
    cells = [
        (name, scale.text(old), scale.text(new), _signed_text(scale, change)) for name, (old, new, change) in shown
    ]
    head = (f"[{scale.unit}]", *names, "difference")
    return Table(f"{caption}, {scale.unit}", head, tuple(cells[:-1]), foot=cells[-1])


def _sum(figures: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(row[side] for row in figures) for side in range(3)]


def _signed_text(scale: Scale, value: float) -> str:
    return f"−{scale.text(-value)}" if value < 0 else f"+{scale.text(value)}" if value > 0 else "0"

"""Sections of the report on energy: by layer, by kind of component, by movement of data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from archsim.analysis import breakdown
from archsim.report import charts
from archsim.report.charts import OTHER, Bar
from archsim.report.page import Chart, Section, Table, Text
from archsim.report.text import (
    area_scale,
    energy_scale,
    kind_label,
    layer_label,
    plain,
    share,
)
from archsim.result import Result
from archsim.units import format_energy, format_number

if TYPE_CHECKING:
    pass


def energy_by_layer(result: Result) -> Section:
    """Energy per layer, stacked by kind of component; leakage is a row of its own."""
    by_kind = breakdown.energy_by_kind(result)
    matrix = breakdown.energy_by_layer_and_kind(result)
    kinds = [str(kind) for kind in by_kind.loc[by_kind["energy_pj"] > 0, "kind"]]
    leakage = dict(zip(by_kind["kind"].astype(str), by_kind["energy_leakage_pj"], strict=True))
    rows = [(layer_label(name), _folded(dict(values), kinds)) for name, values in matrix.iterrows()]
    rows.append(("leakage, whole chip", _folded(leakage, kinds)))
    total = float(result.summary["energy_pj"])
    shown = [*kinds[: charts.N_COLOURS], *([OTHER] if len(kinds) > charts.N_COLOURS else [])]
    sums = [(label, math.fsum(parts.values())) for label, parts in rows]
    scale = energy_scale([value for _, value in sums])
    cells = tuple(
        (label, *(scale.text(parts[kind]) for kind in shown), scale.text(energy), share(energy, total))
        for (label, parts), (_, energy) in zip(rows, sums, strict=True)
    )
    foot = (math.fsum(parts[kind] for _, parts in rows) for kind in shown)
    table = Table(
        f"Energy of layers by kind of component, {scale.unit}",
        (f"layer [{scale.unit}]", *(_kind_or_other(kind) for kind in shown), "sum", "share"),
        cells,
        foot=("sum", *(scale.text(value) for value in foot), scale.text(total), share(total, total)),
    )
    palette = _palette(kinds)
    full = max(value for _, value in sums)
    bars = tuple(
        Bar(
            label,
            f"{scale.text(energy)} {scale.unit}, {share(energy, total)}",
            charts.stacked(list(parts.items()), palette.__getitem__, full, _energy_tooltip(label, energy)),
        )
        for (label, parts), (_, energy) in zip(rows, sums, strict=True)
    )
    layer, most = max(sums[:-1], key=lambda item: item[1], default=("", 0.0))
    text = (
        f"{_run_words(result)} {format_energy(total)}. Of the layers {layer} takes most: {format_energy(most)} "
        f"({share(most, total)}), without leakage, which belongs to the chip and not to a layer: "
        f"{format_energy(sums[-1][1])} ({share(sums[-1][1], total)})."
    )
    legend = tuple((_kind_or_other(kind), palette[kind]) for kind in shown)
    question = "Which layer takes the energy?"
    return Section("energy_layer", question, (Text(text), Chart(question, legend, bars, table)))


def energy_by_kind(result: Result) -> Section:
    """Dynamic energy and leakage per kind of component."""
    frame = breakdown.energy_by_kind(result)
    total = float(result.summary["energy_pj"])
    rows = frame.to_dict("records")
    scale = energy_scale([row["energy_pj"] for row in rows])
    area, whole_area = area_scale([row["area_um2"] for row in rows]), float(frame["area_um2"].sum())
    palette = {"dynamic": "c0", "leakage": "c1"}
    full = max((row["energy_pj"] for row in rows), default=0.0)
    bars = tuple(
        Bar(
            kind_label(row["kind"]),
            f"{scale.text(row['energy_pj'])} {scale.unit}, {share(row['energy_pj'], total)}",
            charts.stacked(
                [(name, row[f"energy_{name}_pj"]) for name in palette],
                palette.__getitem__,
                full,
                _part_tooltip(kind_label(row["kind"])),
            ),
        )
        for row in rows
        if row["energy_pj"] > 0
    )
    columns = ("energy_dynamic_pj", "energy_leakage_pj", "energy_pj")
    cells = tuple(
        (
            kind_label(row["kind"]),
            format_number(int(row["n_components"])),
            *(scale.text(row[name]) for name in columns),
            share(row["energy_pj"], total),
            area.text(row["area_um2"]),
            share(row["area_um2"], whole_area),
        )
        for row in rows
    )
    energies = (f"{name} [{scale.unit}]" for name in ("dynamic", "leakage", "energy"))
    head = ("kind of component", "components", *energies, "share", f"area [{area.unit}]", "share of area")
    sums = (scale.text(float(frame[name].sum())) for name in columns)
    n_components = format_number(int(sum(row["n_components"] for row in rows)))
    foot = ("sum", n_components, *sums, share(total, total), area.text(whole_area), share(whole_area, whole_area))
    leakage = float(result.summary["energy_leakage_pj"])
    text = f"Leakage is {share(leakage, total)} of the energy; it runs for the whole length of the run, used or not."
    table = Table("Energy and area by kind of component", head, cells, foot=foot)
    question = "Which kind of component takes the energy?"
    return Section("energy_kind", question, (Text(text), Chart(question, tuple(palette.items()), bars, table)))


def _folded(values: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """The values of the kinds that have a colour, and the sum of all others."""
    shown = kinds[: charts.N_COLOURS]
    rest = math.fsum(value for kind, value in values.items() if kind not in shown)
    return {**{kind: float(values.get(kind, 0.0)) for kind in shown}, OTHER: rest}


def _palette(kinds: Sequence[str]) -> dict[str, str]:
    return {**charts.colours(kinds[: charts.N_COLOURS]), OTHER: "c-other"}


def _kind_or_other(kind: str) -> str:
    return OTHER if kind == OTHER else kind_label(kind)


def _energy_tooltip(label: str, total: float) -> Callable[[str, float], str]:
    return lambda kind, value: f"{label}, {_kind_or_other(kind)}: {format_energy(value)} ({share(value, total)})"


def _part_tooltip(label: str, name_of: Callable[[str], str] = plain) -> Callable[[str, float], str]:
    return lambda name, value: f"{label}, {name_of(name)}: {format_energy(value)}"


def _run_words(result: Result) -> str:
    n_samples = result.summary["n_samples"]
    return "One inference takes" if n_samples == 1 else f"The run of {n_samples} inferences takes"

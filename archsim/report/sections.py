"""What each section of the report says: texts, bars and table cells, computed from a result.

Everything here is plain data; the template decides how it looks and escapes every string.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archsim.analysis import breakdown
from archsim.report import charts
from archsim.report.charts import OTHER, Bar, Tick
from archsim.report.text import (
    DASH,
    Scale,
    area_scale,
    bit_scale,
    energy_scale,
    is_missing,
    kind_label,
    percent,
    plain,
    share,
    shorten,
    time_scale,
)
from archsim.result import Result
from archsim.units import format_energy, format_number, format_time

if TYPE_CHECKING:
    import pandas as pd

_N_STATES = 12
_N_COMPONENTS = 15
_N_COMPONENTS_FOLDED = 300
_N_BINS = 100

_STATES = (("busy", "c2"), ("blocked", "c5"), ("starved", "c4"), ("idle", "c-none"))
_CLASSES = ("spikes", "partial_sums", "inputs", "weights", "v_mem")
_CLASS_LABELS = {"partial_sums": "partial sums", "v_mem": "membrane potentials"}
_LEVEL_LABELS = {
    "dram": "DRAM",
    "global_buffer": "global buffer",
    "noc": "NoC",
    "htree": "H-trees",
    "tile_buffer": "tile buffers",
    "pe": "PEs",
    "crossbar": "crossbars",
}


@dataclass(frozen=True)
class Table:
    """Head, rows and perhaps a line of totals; the first `n_text` columns are text, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1
    foot: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart with what it says in words, its legend as (name, colour class), and perhaps the same as a table."""

    text: str
    legend: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    table: Table | None = None
    ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class ComponentSection:
    """The most expensive components, the others to unfold, and how many did nothing."""

    text: str
    table: Table
    rest: Table
    left_out: str


def verdict(result: Result) -> str:
    """The run in one sentence."""
    summary = result.summary
    kinds = breakdown.energy_by_kind(result)
    clauses = [
        f"One inference of {shorten(summary['workload'])} takes {format_time(summary['latency_ps'])} and "
        f"{format_energy(summary['energy_per_sample_pj'])} on {shorten(summary['hardware'])}"
    ]
    if summary["energy_pj"] > 0:
        top = kinds.iloc[0]
        leakage = summary["energy_leakage_pj"] / summary["energy_pj"]
        clauses.append(
            f"{percent(top['energy_pj'] / summary['energy_pj'], 0)} of the energy goes into {kind_label(top['kind'])}"
            + (f", and {percent(leakage, 0)} of the total is leakage" if leakage >= 0.1 else "")
        )
    return "; ".join([*clauses, _accuracy_clause(summary)]) + "."


def _accuracy_clause(summary: Mapping[str, Any]) -> str:
    best = _chip_accuracy(summary)
    if best is None:
        return "its accuracy is not known"
    clause = f"{percent(best)} of {summary['n_accuracy_samples']} test samples are right"
    ideal = summary["accuracy_ideal"]
    return clause if ideal is None else f"{clause} (ideal {percent(ideal)})"


def _chip_accuracy(summary: Mapping[str, Any]) -> float | None:
    calibrated = summary.get("accuracy_calibrated")
    return summary.get("accuracy_raw") if calibrated is None else calibrated


def accuracy(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What the three accuracies are, and how far they can be trusted."""
    ideal, best, n_samples = summary.get("accuracy_ideal"), _chip_accuracy(summary), summary.get("n_accuracy_samples")
    if ideal is None or best is None or not n_samples:
        return ("This run has no accuracy: the workload has no labels, or no weights to compute values with.",)
    calibrated = summary.get("accuracy_calibrated")
    of_chip = f"{percent(summary['accuracy_raw'])} are right on this chip as it is (raw)"
    if calibrated is not None:
        of_chip += f", and {percent(calibrated)} with digital gains after the converters (calibrated)"
    error = math.sqrt(best * (1 - best) / n_samples)
    return (
        f"Of {n_samples} test samples the network in floating point gets {percent(ideal)} right (ideal); {of_chip}.",
        f"The chip changes accuracy by {100 * (best - ideal):+.1f} percentage points. One figure from {n_samples} "
        f"samples has a standard error of {100 * error:.1f} points.",
    )


def layers(result: Result) -> Table:
    """Size and work of every layer."""
    rows = []
    for layer in result.layers.to_dict("records"):
        reads, skipped = int(layer["crossbar_reads"]), int(layer["skipped_reads"])
        counts = ("n_neurons", "n_crossbars", "n_pes", "n_tiles", "spikes_in", "spikes_out")
        rows.append(
            (
                shorten(layer["layer"]),
                plain(layer["kind"]),
                *(format_number(int(layer[name])) for name in counts),
                percent(layer["activation_sparsity"]),
                format_number(reads),
                share(skipped, reads + skipped),
                format_number(int(layer["adc_conversions"])),
                percent(layer["error_rel"]),
            )
        )
    sizes = ("neurons", "crossbars", "PEs", "tiles")
    work = ("spikes in", "spikes out", "silent", "crossbar reads", "reads skipped", "ADC conversions", "relative error")
    head = ("layer", "kind", *sizes, *work)
    return Table("Size and work of every layer", head, tuple(rows), n_text=2)


def energy_by_layer(result: Result) -> Chart:
    """Energy per layer, stacked by kind of component; leakage is a row of its own."""
    by_kind = breakdown.energy_by_kind(result)
    matrix = breakdown.energy_by_layer_and_kind(result)
    kinds = [str(kind) for kind in by_kind.loc[by_kind["energy_pj"] > 0, "kind"]]
    leakage = dict(zip(by_kind["kind"].astype(str), by_kind["energy_leakage_pj"], strict=True))
    rows = [(_layer_label(name), _folded(dict(values), kinds)) for name, values in matrix.iterrows()]
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
    return Chart(text, tuple((_kind_or_other(kind), palette[kind]) for kind in shown), bars, table)


def energy_by_kind(result: Result) -> Chart:
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
    return Chart(text, tuple(palette.items()), bars, table)


def latency_by_layer(result: Result) -> Chart:
    """When each layer works, how much of the time, and what in it works longest."""
    frame = breakdown.latency_by_layer(result)
    end_ps = max(int(result.log["leave_ps"].max(initial=0)), 1)
    scale = time_scale([end_ps])
    bars, cells = [], []
    for row in frame.to_dict("records"):
        label, start, end = _layer_label(row["layer"]), row["first_start_ps"], row["last_leave_ps"]
        fractions = breakdown.activity_profile(result.log, row["layer"], row["busiest_unit"], end_ps, _N_BINS)
        tooltip = (
            f"{label}: {format_time(start)} to {format_time(end)}; {plain(row['busiest_unit'])} works "
            f"{percent(row['unit_utilisation'])} of it"
        )
        frame_of_layer = charts.window(start, end, end_ps, tooltip)
        value = f"{scale.text(start)} – {scale.text(end)} {scale.unit}"
        bars.append(Bar(label, value, (frame_of_layer, *charts.profile(fractions, "c0"))))
        cells.append(
            (
                label,
                plain(row["kind"]),
                shorten(row["busiest_component"]),
                shorten(row["busiest_unit"]),
                *(scale.text(value) for value in (start, end, end - start, row["busy_ps"])),
                percent(row["utilisation"]),
                percent(row["unit_utilisation"]),
            )
        )
    times = (f"{name} [{scale.unit}]" for name in ("first start", "last leave", "window", "component busy"))
    names = ("layer", "kind", "busiest component", "busiest PE or part")
    head = (*names, *times, "component utilisation", "PE utilisation")
    table = Table("First start, last leave and busiest component of every layer", head, tuple(cells), n_text=4)
    n_samples = result.summary["n_samples"]
    which = "" if n_samples == 1 else f" over all {n_samples} samples"
    text = (
        f"The frame spans first start to last leave of a layer{which}; the stronger the fill, the larger the share of "
        "time in which its busiest PE (or part outside PEs) works. Utilisation is work for the layer over the length "
        "of its window."
    )
    if len(frame):
        most = frame.loc[frame["unit_utilisation"].idxmax()]
        text += (
            f" The fullest is {shorten(most['busiest_unit'])}: it works {percent(most['unit_utilisation'])} of the "
            f"window of {_layer_label(most['layer'])}."
        )
    legend = (("first start to last leave", "frame c-none"), ("busiest PE or part works", "c0"))
    return Chart(text, legend, tuple(bars), table, charts.time_ticks(end_ps, _tick_text(scale)))


def movement(result: Result) -> Chart:
    """Bits, bit-hops and energy per level and class of data."""
    frame = breakdown.movement_by_level_and_class(result)
    total, moved = float(result.summary["energy_pj"]), math.fsum(frame["energy_pj"])
    scale = energy_scale(list(frame["energy_pj"]))
    bits, hops = bit_scale(list(frame["bits"])), bit_scale(list(frame["bit_hops"]))
    cells = tuple(
        (
            _level_label(row["level"]),
            _class_label(row["class"]),
            format_number(int(row["packets"])),
            bits.text(row["bits"]),
            hops.text(row["bit_hops"]),
            scale.text(row["energy_pj"]),
            f"{row['energy_pj'] / row['bits']:.3f}" if row["bits"] else DASH,
            share(row["energy_pj"], total),
        )
        for row in frame.to_dict("records")
    )
    amounts = (f"bits [{bits.unit}]", f"bit-hops [{hops.unit}]", f"energy [{scale.unit}]")
    head = ("level", "class", "packets", *amounts, "energy per bit [pJ]", "share of all energy")
    sums = (bits.text(frame["bits"].sum()), hops.text(frame["bit_hops"].sum()), scale.text(moved))
    foot = ("sum", "", format_number(int(frame["packets"].sum())), *sums, "", share(moved, total))
    present = [name for name in dict.fromkeys([*_CLASSES, *frame["class"]]) if (frame["class"] == name).any()]
    palette = charts.colours(list(dict.fromkeys([*_CLASSES, *present])))
    levels = frame.groupby("level", sort=False)["energy_pj"].sum()
    full = float(levels.max()) if len(levels) else 0.0
    bars = tuple(
        Bar(
            _level_label(level),
            f"{scale.text(energy)} {scale.unit}, {share(energy, total)}",
            charts.stacked(
                _class_energies(frame, level),
                palette.__getitem__,
                full,
                _part_tooltip(_level_label(level), _class_label),
            ),
        )
        for level, energy in levels.items()
    )
    text = (
        f"Moving bits takes {format_energy(moved)}, {share(moved, total)} of all energy. A bit-hop is one bit over one "
        "link or through one port; the energy is that of the service that moves it, without leakage."
    )
    table = Table("Data movement by level and class", head, cells, n_text=2, foot=foot)
    return Chart(text, tuple((_class_label(name), palette[name]) for name in present), bars, table)


def states(result: Result) -> Chart:
    """What the busiest components do with their time."""
    frame = result.components[result.components["busy_ps"] > 0]
    frame = frame.sort_values("busy_ps", ascending=False, kind="stable").head(_N_STATES)
    palette = dict(_STATES)
    bars = []
    for row in frame.to_dict("records"):
        parts = [(name, float(row[f"{name}_ps"])) for name, _ in _STATES]
        full = math.fsum(value for _, value in parts)
        label = shorten(row["component"])
        tooltip = _state_tooltip(label, full)
        bars.append(
            Bar(label, f"{percent(row['utilisation'])} busy", charts.stacked(parts, palette.__getitem__, full, tooltip))
        )
    text = (
        "Blocked: it holds or expects work but there is no room behind it, or its PE is still held. Starved: it waits "
        "for data. Idle: before its first and after its last service. In a PE that is not pipelined the stages take "
        "turns, so a stage starves while the others work; the utilisation of the whole PE stands above."
    )
    return Chart(text, _STATES, tuple(bars))


def components(result: Result) -> ComponentSection:
    """Components by energy: the first few, the rest to unfold, those that did nothing only counted."""
    frame = result.components
    energy = frame["energy_dynamic_pj"] + frame["energy_leakage_pj"]
    frame = frame.assign(energy_pj=energy).sort_values("energy_pj", ascending=False, kind="stable")
    active = frame[(frame["energy_pj"] > 0) | (frame["n_actions"] > 0)].to_dict("records")
    total = float(result.summary["energy_pj"])
    scale = energy_scale([row["energy_pj"] for row in active])
    area = area_scale([row["area_um2"] for row in active])
    energies = (f"energy [{scale.unit}]", "share", f"dynamic [{scale.unit}]", f"leakage [{scale.unit}]")
    head = ("component", "kind", *energies, "actions", "utilisation", "peak queue", f"area [{area.unit}]")
    rows = tuple(_component_cells(row, scale, area, total) for row in active[:_N_COMPONENTS_FOLDED])
    top = math.fsum(row["energy_pj"] for row in active[:_N_COMPONENTS])
    first, rest = rows[:_N_COMPONENTS], rows[_N_COMPONENTS:]
    text = f"The first {len(first)} of {len(frame)} components take {share(top, total)} of the energy."
    folded = f"{len(rest)} more components"
    return ComponentSection(
        text,
        Table("Components by energy", head, first, n_text=2),
        Table(folded, head, rest, n_text=2),
        _left_out(len(active) - len(rows), len(frame) - len(active)),
    )


def limits(result: Result) -> tuple[str, ...]:
    """What the model leaves out, as far as it is known from the result."""
    moved = result.movement
    sentences = [
        "Energy, service times and area are counts of actions times the entries of a cost library. The result is as "
        "good as these entries; supply droop, temperature and variation between chips are not part of it. Control "
        "logic, clock trees and pads cost something only where the library has an entry for them.",
        "Timing is that of services, finite buffers and shared resources, one output position of a layer at a time. "
        "Nothing below that, such as settling inside a converter, is simulated in time.",
    ]
    if not (moved["class"] == "weights").any():
        sentences.append(
            "Weights are on the crossbars before the run begins: writing them takes neither time nor energy here."
        )
    if not (moved["level"] == "dram").any():
        sentences.append("Nothing comes from or goes to a DRAM in this run; the host and its link are not included.")
    return tuple(sentences)


def provenance(summary: Mapping[str, Any]) -> Table:
    """What this run was, so that somebody can do it again."""
    fields = (
        ("hardware", "hardware"),
        ("workload", "workload"),
        ("samples simulated in time", "n_samples"),
        ("timesteps", "n_timesteps"),
        ("seed", "seed"),
        ("engine", "engine"),
        ("services in the event log", "n_services"),
        ("archsim version", "archsim_version"),
        ("format version of the files", "format_version"),
    )
    rows = tuple((name, _fact(summary.get(key))) for name, key in fields)
    return Table("Provenance", ("what", "value"), rows, n_text=2)


def _fact(value: object) -> str:
    if is_missing(value):
        return DASH
    return format_number(value) if isinstance(value, int) else plain(value)


def _component_cells(row: Mapping[str, Any], scale: Scale, area: Scale, total: float) -> tuple[str, ...]:
    return (
        shorten(row["component"]),
        plain(row["kind"]),
        scale.text(row["energy_pj"]),
        share(row["energy_pj"], total),
        scale.text(row["energy_dynamic_pj"]),
        scale.text(row["energy_leakage_pj"]),
        format_number(int(row["n_actions"])),
        percent(row["utilisation"]),
        format_number(int(row["peak_queue"])),
        area.text(row["area_um2"]),
    )


def _left_out(n_small: int, n_unused: int) -> str:
    parts = [f"{n_small} that take less"] if n_small else []
    if n_unused:
        parts.append(f"{n_unused} that neither did nor cost anything")
    return f"Not listed here, but in components.csv: {' and '.join(parts)}." if parts else ""


def _folded(values: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """The values of the kinds that have a colour, and the sum of all others."""
    shown = kinds[: charts.N_COLOURS]
    rest = math.fsum(value for kind, value in values.items() if kind not in shown)
    return {**{kind: float(values.get(kind, 0.0)) for kind in shown}, OTHER: rest}


def _palette(kinds: Sequence[str]) -> dict[str, str]:
    return {**charts.colours(kinds[: charts.N_COLOURS]), OTHER: "c-other"}


def _kind_or_other(kind: str) -> str:
    return OTHER if kind == OTHER else kind_label(kind)


def _layer_label(name: object) -> str:
    return "no layer" if name == breakdown.NO_LAYER else shorten(name)


def _level_label(level: object) -> str:
    return _LEVEL_LABELS.get(str(level), plain(level))


def _class_label(data_class: object) -> str:
    return _CLASS_LABELS.get(str(data_class), plain(data_class))


def _class_energies(frame: pd.DataFrame, level: object) -> list[tuple[str, float]]:
    rows = frame[frame["level"] == level]
    return [(str(name), float(energy)) for name, energy in zip(rows["class"], rows["energy_pj"], strict=True)]


def _energy_tooltip(label: str, total: float) -> Callable[[str, float], str]:
    return lambda kind, value: f"{label}, {_kind_or_other(kind)}: {format_energy(value)} ({share(value, total)})"


def _part_tooltip(label: str, name_of: Callable[[str], str] = plain) -> Callable[[str, float], str]:
    return lambda name, value: f"{label}, {name_of(name)}: {format_energy(value)}"


def _state_tooltip(label: str, full: float) -> Callable[[str, float], str]:
    return lambda state, value: f"{label}, {state}: {format_time(value)} ({share(value, full)})"


def _tick_text(scale: Scale) -> Callable[[float], str]:
    return lambda time: "0" if time == 0 else f"{format_number(time / scale.factor)} {scale.unit}"


def _run_words(result: Result) -> str:
    n_samples = result.summary["n_samples"]
    return "One inference takes" if n_samples == 1 else f"The run of {n_samples} inferences takes"

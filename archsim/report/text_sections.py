"""Sections of the report in words and tables: verdict, accuracy, layers, components, limits, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archsim.analysis import breakdown
from archsim.report.page import Figures, Folded, Part, Section, Table, Text
from archsim.report.terminal import headline_meanings, headline_rows
from archsim.report.text import (
    Scale,
    area_scale,
    energy_scale,
    is_missing,
    kind_label,
    percent,
    plain,
    points,
    share,
    shorten,
)
from archsim.result import Result
from archsim.units import format_energy, format_number, format_time

_N_COMPONENTS = 15
_N_COMPONENTS_FOLDED = 300


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


def headline(result: Result) -> Section:
    """The figures that papers print, and what each of them counts."""
    values = zip(headline_rows(result.summary), headline_meanings(), strict=True)
    rows = tuple((name, value, meaning) for (name, value), meaning in values)
    dashes = Text("A dash stands where a figure does not apply to this run.", "soft")
    return Section("headline", "Is this design any good?", (Figures(rows), dashes))


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


def accuracy(result: Result) -> Section:
    """What the three accuracies are, how far they can be trusted, and how they spread over chips."""
    parts: list[Part] = [Text(sentence) for sentence in _accuracies(result.summary)]
    spread = _chips(result)
    return Section("accuracy", "How right are the answers?", tuple(parts + ([spread] if spread is not None else [])))


def _accuracies(summary: Mapping[str, Any]) -> tuple[str, ...]:
    ideal, best, n_samples = summary.get("accuracy_ideal"), _chip_accuracy(summary), summary.get("n_accuracy_samples")
    if ideal is None or best is None or not n_samples:
        return ("This run has no accuracy: the workload has no labels, or no weights to compute values with.",)
    calibrated = summary.get("accuracy_calibrated")
    of_chip = f"{percent(summary['accuracy_raw'])} are right on this chip as it is (raw)"
    if calibrated is not None:
        of_chip += f", and {percent(calibrated)} with digital gains after the converters (calibrated)"
    error = math.sqrt(best * (1 - best) / n_samples)
    n_chips = summary.get("n_chips") or 1
    several = (
        () if n_chips < 2 else (f"Raw and calibrated are means over {n_chips} chips, each with cells of its own.",)
    )
    return (
        f"Of {n_samples} test samples the network in floating point gets {percent(ideal)} right (ideal); {of_chip}.",
        f"The chip changes accuracy by {100 * (best - ideal):+.1f} percentage points. One figure from {n_samples} "
        f"samples has a standard error of {100 * error:.1f} points.",
        *several,
    )


def _chips(result: Result) -> Table | None:
    """How accuracy spreads from chip to chip; None with less than two chips."""
    kinds = [kind for kind in ("raw", "calibrated") if not is_missing(result.summary.get(f"accuracy_{kind}_std"))]
    rows = []
    for kind in kinds:
        each, of = result.chips[f"accuracy_{kind}"].dropna(), f"accuracy_{kind}"
        figures = (result.summary[f"{of}_{name}"] for name in ("p05", "p50", "p95"))
        values = (each.min(), *figures, each.max())
        rows.append(
            (kind, percent(result.summary[of]), points(result.summary[f"{of}_std"]), *(percent(x) for x in values))
        )
    head = ("accuracy", "mean", "standard deviation", "worst chip", "5 %", "median", "95 %", "best chip")
    return Table(f"Accuracy over {result.summary['n_chips']} chips", head, tuple(rows)) if rows else None


def layers(result: Result) -> Section:
    """Size and work of every layer."""
    rows = []
    has_nf = bool(result.layers["nf"].notna().any())
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
                *((percent(layer["nf"]),) if has_nf else ()),
            )
        )
    sizes = ("neurons", "crossbars", "PEs", "tiles")
    work = ("spikes in", "spikes out", "silent", "crossbar reads", "reads skipped", "ADC conversions", "relative error")
    head = ("layer", "kind", *sizes, *work, *(("NF",) if has_nf else ()))
    table = Table("Size and work of every layer", head, tuple(rows), n_text=2)
    meaning = (
        "Silent: neurons and timesteps without a spike. Reads skipped: crossbar reads without an active row. Relative "
        "error: RMS of the layer's weighted sums on this chip against ideal ones of the same inputs, over all samples."
    )
    if has_nf:
        meaning += (
            " NF, non-ideality factor: what columns lose of their current, 1 - I / I_ideal, mean over the layer's "
            "columns with all rows driven."
        )
    return Section("layers", "What does each layer hold and do?", (table, Text(meaning, "soft")))


def components(result: Result) -> Section:
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
    parts: list[Part] = [Text(text), Table("Components by energy", head, first, n_text=2)]
    if rest:
        folded = f"{len(rest)} more components"
        instead = f"{folded} that take less are in components.csv."
        parts.append(Folded(folded, (Table(folded, head, rest, n_text=2),), instead))
    left_out = _left_out(len(active) - len(rows), len(frame) - len(active))
    if left_out:
        parts.append(Text(left_out, "soft"))
    return Section("components", "Which components cost the most?", tuple(parts))


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

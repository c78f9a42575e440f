"""Sections of the report on activity: timestep by timestep, and how few rows of the crossbars are driven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from archsim.analysis import profiles
from archsim.analysis.configuration import setting
from archsim.report import charts, drawing
from archsim.report.charts import Bar, Tick
from archsim.report.drawing import Shape
from archsim.report.page import Chart, Part, Picture, Section, Table, Text
from archsim.report.text import DASH, energy_scale, layer_label, percent, share, time_scale
from archsim.result import Result
from archsim.units import format_energy, format_number, format_time

if TYPE_CHECKING:
    import pandas as pd

_ROW_PX = 96
_PLOT_PX = 60
_N_LABELS = 8
_N_ROWS_LISTED = 200


def timesteps(result: Result) -> Section | None:
    """Spikes, time and energy of every timestep; None where there is only one."""
    sample = profiles.longest_sample(result)
    frame = profiles.timestep_profile(result, sample)
    if len(frame) < 2:
        return None
    question = "Does every timestep cost the same?"
    measures: list[tuple[str, Sequence[float], str, Callable[[float], str]]] = [
        ("time since the one before was done", list(frame["done_ps"]), "c0", format_time),
        ("dynamic energy", list(frame["energy_pj"]), "c1", format_energy),
    ]
    if frame["spikes"].notna().all():
        measures.insert(0, ("spikes of all layers", list(frame["spikes"]), "c2", format_number))
    shapes = [
        shape
        for row, (name, values, colour, text) in enumerate(measures)
        for shape in _columns(name, values, colour, text, row * _ROW_PX)
    ]
    height = len(measures) * _ROW_PX + 16
    shapes += _step_labels(len(frame), height - 4)
    picture = Picture("Spikes, time and energy of every timestep", (), height, tuple(shapes), _step_table(frame))
    n_samples = result.summary["n_samples"]
    all_of_them = f"energy and spikes of all {n_samples} samples"
    which = "" if n_samples == 1 else f" Times are those of sample {sample}, {all_of_them}."
    least, most = float(frame["energy_pj"].min()), float(frame["energy_pj"].max())
    slowest = int(frame["done_ps"].argmax())
    text = (
        f"The slowest is timestep {slowest}: {format_time(int(frame['done_ps'].max()))}; the dynamic energy of a "
        f"timestep is between {format_energy(least)} and {format_energy(most)}. Timesteps overlap in a pipelined "
        f"chip, so a timestep's time counts from when the one before was done.{which}"
    )
    return Section("timesteps", question, (Text(text), picture))


def _columns(name: str, values: Sequence[float], colour: str, text: Callable[[float], str], top: float) -> list[Shape]:
    """A row of columns, one per value, over a base line, with what the tallest stands for."""
    most = max(max(values), 0)
    wide = 100 / len(values)
    base = top + _ROW_PX - 8
    shapes: list[Shape] = [drawing.label(0, top + 14, f"{name}, at most {text(most)}")]
    for step, value in enumerate(values):
        if value > 0:
            tall = _PLOT_PX * value / most
            tip = f"timestep {step}, {name}: {text(value)}"
            shapes.append(drawing.box(step * wide + wide * 0.1, base - tall, wide * 0.8, tall, colour, tip))
    return [*shapes, drawing.stroke((0, base), (100, base), "axis")]


def _step_labels(n_steps: int, y: float) -> list[Shape]:
    every = -(-n_steps // _N_LABELS)
    return [
        drawing.label((step + 0.5) * 100 / n_steps, y, f"{'timestep ' if step == 0 else ''}{step}", "middle", soft=True)
        for step in range(0, n_steps, every)
    ]


def _step_table(frame: pd.DataFrame) -> Table:
    time = time_scale(list(frame["last_leave_ps"]))
    energy = energy_scale(list(frame["energy_pj"]))
    names = (f"first start [{time.unit}]", f"last leave [{time.unit}]", f"since the one before [{time.unit}]")
    rows = tuple(
        (
            str(row["timestep"]),
            *(time.text(row[name]) for name in ("first_start_ps", "last_leave_ps", "done_ps")),
            energy.text(row["energy_pj"]),
            DASH if row["spikes"] is None else format_number(int(row["spikes"])),
        )
        for row in frame.head(_N_ROWS_LISTED).to_dict("records")
    )
    head = ("timestep", *names, f"dynamic energy [{energy.unit}]", "spikes")
    first = "" if len(frame) <= _N_ROWS_LISTED else f", the first {_N_ROWS_LISTED}"
    return Table(f"Time, energy and spikes of every timestep{first}", head, rows)


def sparsity(result: Result) -> Section:
    """Rows driven per crossbar read of every layer, and what skipped reads saved."""
    question = "Does the chip make use of silence?"
    found = profiles.active_rows(result)
    if not found:
        return Section("sparsity", question, (Text("No rows of crossbars were driven in this run."),))
    known = setting(result, "hardware.tile.pe.crossbar.rows")
    n_rows = max([len(counts) - 1 for counts in found.values()] + ([known] if isinstance(known, int) else []))
    bars, cells = [], []
    layers = result.layers.set_index(result.layers["layer"].astype(str))
    for name, counts in found.items():
        n_reads, driven = int(counts.sum()), counts @ np.arange(len(counts))
        mean = float(driven) / max(n_reads, 1)
        p50, p95 = (int(np.searchsorted(np.cumsum(counts), part * n_reads)) for part in (0.5, 0.95))
        skipped = int(layers.loc[name, "skipped_reads"])
        bars.append(Bar(layer_label(name), f"{mean:.1f} rows on average", _strip(counts, n_rows, layer_label(name))))
        cells.append(
            (
                layer_label(name),
                format_number(n_reads),
                share(skipped, n_reads + skipped),
                f"{mean:.2f}",
                *map(str, (p50, p95, len(counts) - 1)),
                percent(mean / n_rows),
            )
        )
    head = ("layer", "reads", "reads skipped", "mean rows", "median", "95 %", "most", f"mean of {n_rows}")
    table = Table("Rows driven per crossbar read", head, tuple(cells))
    marks = [round(n_rows * part / 4) for part in range(5)]
    anchors = ("start", "middle", "middle", "middle", "end")
    ticks = tuple(
        Tick(charts.number(100 * (mark + 0.5) / (n_rows + 1)), str(mark), anchor)
        for mark, anchor in zip(marks, anchors, strict=True)
    )
    chart = Chart(question, (("share of reads, most in a layer is full", "c0"),), tuple(bars), table, ticks, "rows")
    texts: list[Part] = [Text(_saved(result)), Text(_ROWS_TEXT, "soft"), chart]
    return Section("sparsity", question, tuple(texts))


_ROWS_TEXT = (
    "Rows driven per read of a crossbar, from none to all of them: the darker, the more reads. Reads of one service of "
    "a PE share its driven rows as evenly as they can. Many columns are converted for few driven rows where the fill "
    "stays left."
)


def _saved(result: Result) -> str:
    """What reads without an active row would have cost, had they not been skipped: at the mean of the others."""
    reads, skipped = (int(result.layers[name].sum()) for name in ("crossbar_reads", "skipped_reads"))
    if not skipped:
        return (
            "No read was skipped: a crossbar without an active row is read and converted like any other, or there was "
            "none (tile.pe.crossbar.zero_skip)."
        )
    kinds = result.components.groupby("kind")["energy_dynamic_pj"].sum()
    of_reads = sum(float(kinds.get(kind, 0.0)) for kind in ("crossbar", "adc", "mux", "shift_add"))
    saved = of_reads * skipped / max(reads, 1)
    return (
        f"{format_number(skipped)} of {format_number(reads + skipped)} reads ({share(skipped, reads + skipped)}) had "
        f"no active row and were skipped. At the mean energy of the others, reading and converting them would have "
        f"taken {format_energy(saved)} more, {share(saved, float(result.summary['energy_pj']))} of the run's energy "
        "(an estimate: reads of silence take less than others where the circuit's energy is known)."
    )


def _strip(counts: np.ndarray, n_rows: int, name: str) -> tuple[charts.Segment, ...]:
    full = np.zeros(n_rows + 1)
    full[: len(counts)] = counts
    frame = charts.window(0, 1, 1, f"{name}: {format_number(int(counts.sum()))} reads")
    return (frame, *charts.profile(full / max(full.max(), 1), "c0"))

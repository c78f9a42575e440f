"""Sections of the report on time: when layers work, what the busiest components do."""

from __future__ import annotations

import math
from collections.abc import Callable

from archsim.analysis import breakdown
from archsim.report import charts
from archsim.report.charts import Bar
from archsim.report.page import Chart, Section, Table, Text
from archsim.report.text import (
    Scale,
    layer_label,
    percent,
    plain,
    share,
    shorten,
    time_scale,
)
from archsim.result import Result
from archsim.units import format_number, format_time

_N_STATES = 12
_N_BINS = 100
_STATES = (("busy", "c2"), ("blocked", "c5"), ("starved", "c4"), ("idle", "c-none"))


def latency_by_layer(result: Result) -> Section:
    """When each layer works, how much of the time, and what in it works longest."""
    frame = breakdown.latency_by_layer(result)
    end_ps = max(int(result.log.totals.last_leave_ps.max(initial=0)), 1)
    scale = time_scale([end_ps])
    bars, cells = [], []
    for row in frame.to_dict("records"):
        label, start, end = layer_label(row["layer"]), row["first_start_ps"], row["last_leave_ps"]
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
            f"window of {layer_label(most['layer'])}."
        )
    legend = (("first start to last leave", "frame c-none"), ("busiest PE or part works", "c0"))
    question = "When does each layer work?"
    chart = Chart(question, legend, tuple(bars), table, charts.time_ticks(end_ps, _tick_text(scale)))
    return Section("latency", question, (Text(text), chart))


def states(result: Result) -> Section:
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
    question = "Are the busiest components busy, blocked or starved?"
    return Section("states", question, (Text(text), Chart(question, _STATES, tuple(bars))))


def _state_tooltip(label: str, full: float) -> Callable[[str, float], str]:
    return lambda state, value: f"{label}, {state}: {format_time(value)} ({share(value, full)})"


def _tick_text(scale: Scale) -> Callable[[float], str]:
    return lambda time: "0" if time == 0 else f"{format_number(time / scale.factor)} {scale.unit}"

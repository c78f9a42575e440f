"""Section of the report on data movement: which class of data moves where, in bits and in energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from archsim.analysis import breakdown
from archsim.eventlog import Level
from archsim.report import charts, drawing
from archsim.report.drawing import Shape
from archsim.report.page import Part, Picture, Section, Table, Text
from archsim.report.text import DASH, bit_scale, energy_scale, plain, share
from archsim.result import Result
from archsim.units import format_energy, format_number

if TYPE_CHECKING:
    import pandas as pd

_CLASSES = ("spikes", "partial_sums", "inputs", "weights", "v_mem")
_CLASS_LABELS = {"partial_sums": "partial sums", "v_mem": "membrane potentials"}
_LEVEL_LABELS: dict[Level, str] = {
    "dram": "DRAM",
    "global_buffer": "global buffer",
    "noc": "NoC",
    "htree": "H-trees",
    "tile_buffer": "tile buffers",
    "pe": "PEs",
    "crossbar": "crossbars",
}
_GAP_PX = 20.0
"""Between two ends of ribbons, so that their labels do not touch."""
_FLOW_PX = 180.0
"""All ribbons together."""
_EDGE = 1.2
"""Width of the bars at both ends, percent."""


def movement(result: Result) -> Section:
    """Bits, bit-hops and energy per level and class of data."""
    question = "How much data moves, and at what cost?"
    frame = breakdown.movement_by_level_and_class(result)
    if frame.empty:
        return Section("movement", question, (Text("No bits were moved in this run."),))
    total, moved = float(result.summary["energy_pj"]), math.fsum(frame["energy_pj"])
    text = (
        f"Moving bits takes {format_energy(moved)}, {share(moved, total)} of all energy. A bit-hop is one bit over one "
        "link or through one port; the energy is that of the service that moves it, without leakage. Ribbons lead from "
        "the class of data to the level of the hierarchy where it moves."
    )
    bits, energy = bit_scale(list(frame["bits"])), energy_scale(list(frame["energy_pj"]))
    parts: list[Part] = [Text(text)]
    for column, title, words in (
        ("bits", "What moves where, in bits", lambda value: f"{bits.text(value)} {bits.unit}"),
        ("energy_pj", "What moving it costs, in energy", lambda value: f"{energy.text(value)} {energy.unit}"),
    ):
        if frame[column].sum() > 0:
            parts.append(_flow(title, frame, column, words))
    return Section("movement", question, (*parts, _table(frame, total)))


def _flow(title: str, frame: pd.DataFrame, column: str, words: Callable[[float], str]) -> Picture:
    """Ribbons from classes to levels, as wide as a column of the table says."""
    total = float(frame[column].sum())
    present = [name for name in _CLASSES if name in set(frame["class"])]
    present += sorted(set(frame["class"]) - set(present))
    palette = charts.colours(present)
    levels = list(dict.fromkeys(frame["level"]))
    scale = _FLOW_PX / total
    height = _FLOW_PX + _GAP_PX * max(len(present), len(levels)) + 24.0
    left = _places([float(frame.loc[frame["class"] == name, column].sum()) * scale for name in present], height)
    right = _places([float(frame.loc[frame["level"] == name, column].sum()) * scale for name in levels], height)
    starts, ends = dict(zip(present, left, strict=True)), dict(zip(levels, right, strict=True))
    shapes: list[Shape] = [
        drawing.label(0, 12, "class of data", soft=True),
        drawing.label(100, 12, "level", "end", soft=True),
    ]
    for row in frame.sort_values(["class", "level"], key=_order(present, levels), kind="stable").to_dict("records"):
        wide = float(row[column]) * scale
        if wide <= 0:
            continue
        tip = f"{_class_label(row['class'])}, {_level_label(row['level'])}: {words(row[column])} "
        start, end = starts[row["class"]], ends[row["level"]]
        starts[row["class"]], ends[row["level"]] = start + wide, end + wide
        edges = (start, start + wide), (end, end + wide)
        shapes.append(drawing.ribbon(*edges, palette[row["class"]], f"{tip}({share(row[column], total)})"))
    for names, places, name_of, x in ((present, left, _class_label, 0.0), (levels, right, _level_label, 100.0 - _EDGE)):
        key = "class" if x == 0 else "level"
        for name, top in zip(names, places, strict=True):
            amount = float(frame.loc[frame[key] == name, column].sum())
            colour = palette[name] if x == 0 else "c-other"
            shapes.append(drawing.box(x, top, _EDGE, max(amount * scale, 1.0), colour))
            middle, said = top + amount * scale / 2 + 4, f"{name_of(name)} {share(amount, total)}"
            shapes.append(drawing.label(2.5, middle, said) if x == 0 else drawing.label(97.5, middle, said, "end"))
    return Picture(title, (), round(height), tuple(shapes), None)


def _places(widths: Sequence[float], height: float) -> list[float]:
    """Upper edges of bars of the given heights in pixels, with even gaps, below the heads."""
    gap = (height - 24.0 - sum(widths)) / len(widths)
    tops, top = [], 24.0 + gap / 2
    for wide in widths:
        tops.append(top)
        top += wide + gap
    return tops


def _order(classes: Sequence[str], levels: Sequence[str]) -> Callable[[pd.Series], pd.Series]:
    rank = {name: index for names in (classes, levels) for index, name in enumerate(names)}
    return lambda column: column.map(rank)


def _table(frame: pd.DataFrame, total: float) -> Table:
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
    moved = math.fsum(frame["energy_pj"])
    sums = (bits.text(float(frame["bits"].sum())), hops.text(float(frame["bit_hops"].sum())), scale.text(moved))
    foot = ("sum", "", format_number(int(frame["packets"].sum())), *sums, DASH, share(moved, total))
    return Table("Data movement by level and class", head, cells, n_text=2, foot=foot)


def _level_label(level: object) -> str:
    return {str(key): label for key, label in _LEVEL_LABELS.items()}.get(str(level), plain(level))


def _class_label(data_class: object) -> str:
    return _CLASS_LABELS.get(str(data_class), plain(data_class))

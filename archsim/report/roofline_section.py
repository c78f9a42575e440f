"""Section of the report on ceilings: what every layer does per second, and what each kind of component allows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from archsim.analysis import bounds
from archsim.report import charts, drawing
from archsim.report.drawing import Anchor, Shape
from archsim.report.page import Picture, Section, Table, Text
from archsim.report.text import DASH, kind_label, layer_label, percent, shorten
from archsim.result import Result
from archsim.units import format_number

if TYPE_CHECKING:
    import pandas as pd

_TOP, _BOTTOM = 18.0, 300.0
_LEFT, _RIGHT = 18.0, 96.0
_DRAWN_IN_PAPERS = ("adc", "crossbar", "link", "dram")
_FARTHEST = 30.0
"""A ceiling this many times as high as the layer's lowest is not drawn."""
_LETTER = 1.9
"""Width of a letter in percent of the picture on a phone, where it is widest."""
_DOT = 1.4
"""Radius of a dot in percent of the picture there."""
_TEXT = (
    "One dot per layer: synaptic operations (dense) per byte moved for it, and per second between its first start and "
    "its last leave. The marks above a dot are its lowest ceilings: the same operations over the time that the busiest "
    "component of a kind works for this layer. No schedule lifts a layer above its lowest mark; a dot on it means that "
    "this kind of component never rests, a dot far below that the layer waits for others."
)


def roofline(result: Result) -> Section | None:
    """Operations per byte and per second of every layer below its ceilings; None where operations are not known."""
    points = bounds.roofline(result)
    if points is None or points.empty:
        return None
    question = "Which ceiling is each layer under?"
    ceilings = _ceilings(points, bounds.layer_bounds(result))
    kinds = [str(kind) for kind in ceilings.groupby("kind")["near"].max().sort_values(ascending=False).index]
    shown = kinds[: charts.N_COLOURS]
    palette = charts.colours(shown)
    lowest = ceilings.loc[ceilings.groupby("layer")["near"].idxmax()].set_index("layer")
    close = ceilings["near"] * _FARTHEST >= ceilings["layer"].map(lowest["near"])
    near = ceilings[ceilings["kind"].isin(shown) & close]
    first = lowest["near"].idxmax()
    text = (
        f"Nearest to its ceiling is {layer_label(first)}: {shorten(lowest.loc[first, 'component'])} works for it "
        f"{percent(lowest.loc[first, 'near'])} of its time. "
    )
    shapes = _axes(points, near) + _marks(points, near, palette)
    legend = tuple((f"ceiling of {kind_label(kind)}", palette[kind]) for kind in shown)
    picture = Picture(
        "Operations per second over operations per byte",
        legend,
        round(_BOTTOM) + 40,
        tuple(shapes),
        _table(points, ceilings, lowest),
    )
    return Section("roofline", question, (Text(text + _TEXT), picture))


def _ceilings(points: pd.DataFrame, layer_bounds: pd.DataFrame) -> pd.DataFrame:
    """Operations per second that each kind allows each layer, and how near the layer is to it (1: it is there)."""
    frame = layer_bounds.merge(points, on="layer")
    frame["ceiling"] = frame["synaptic_ops"] / (frame["busy_ps"] * 1e-12)
    frame["near"] = frame["ops_per_s"] / frame["ceiling"]
    return frame


class _Axes:
    """Logarithmic axes around the dots and marks, whole decades."""

    def __init__(self, x: list[float], y: list[float]) -> None:
        self.x_from, self.x_to = _decades(x)
        self.y_from, self.y_to = _decades(y)

    def x(self, value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (math.log10(value) - self.x_from) / (self.x_to - self.x_from)

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (math.log10(value) - self.y_from) / (self.y_to - self.y_from)


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _of(points: pd.DataFrame, near: pd.DataFrame) -> _Axes:
    return _Axes(list(points["ops_per_byte"]), [*points["ops_per_s"], *near["ceiling"]])


def _axes(points: pd.DataFrame, near: pd.DataFrame) -> list[Shape]:
    axes = _of(points, near)
    shapes: list[Shape] = []
    for power in range(axes.y_from, axes.y_to + 1):
        y = axes.y(10.0**power)
        shapes += [
            drawing.stroke((0, y), (100, y), "grid"),
            drawing.label(0, y - 4, _power(power, "SOP/s"), soft=True),
        ]
    for power in range(axes.x_from, axes.x_to + 1):
        x = axes.x(10.0**power)
        shapes += [drawing.stroke((x, _TOP), (x, _BOTTOM), "grid")]
        shapes.append(drawing.label(x, _BOTTOM + 18, _power(power, ""), "middle", soft=True))
    return [*shapes, drawing.label(50, _BOTTOM + 36, "synaptic operations per byte moved", "middle", soft=True)]


def _marks(points: pd.DataFrame, near: pd.DataFrame, palette: dict[str, str]) -> list[Shape]:
    axes = _of(points, near)
    shapes: list[Shape] = []
    labels: list[Shape] = []
    for point in points.to_dict("records"):
        x, y, name = axes.x(point["ops_per_byte"]), axes.y(point["ops_per_s"]), layer_label(point["layer"])
        mine = near[near["layer"] == point["layer"]].to_dict("records")
        if mine:
            shapes.append(drawing.stroke((x, y), (x, min(axes.y(row["ceiling"]) for row in mine)), "grid"))
        for row in mine:
            tip = f"{name}, ceiling of {kind_label(row['kind'])} ({shorten(row['component'])}): {_rate(row['ceiling'])}"
            mark = axes.y(row["ceiling"])
            shapes.append(drawing.stroke((x - 1.2, mark), (x + 1.2, mark), palette[row["kind"]], 3, title=tip))
        tip = f"{name}: {_rate(point['ops_per_s'])} at {format_number(point['ops_per_byte'])} SOP/byte"
        labels.append(drawing.dot(x, y, 5, "ink", tip))
    return [*shapes, *labels, *_names(points, axes)]


def _names(points: pd.DataFrame, axes: _Axes) -> list[Shape]:
    """Names below their dots, or beside them where another dot or name is; left out where all places are taken."""
    taken: list[tuple[float, float, float]] = []
    for point in points.to_dict("records"):
        x, y = axes.x(point["ops_per_byte"]), axes.y(point["ops_per_s"])
        taken.append((x - _DOT, x + _DOT, y + 4))
    labels: list[Shape] = []
    for point in points.to_dict("records"):
        x, y, name = axes.x(point["ops_per_byte"]), axes.y(point["ops_per_s"]), shorten(point["layer"], 14)
        wide = len(name) * _LETTER
        places: tuple[tuple[float, float, Anchor], ...] = (
            (x, y + 18, "middle"),
            (x - 1.5, y + 4, "end"),
            (x + 1.5, y + 4, "start"),
            (x, y + 32, "middle"),
        )
        for at, below, anchor in places:
            left = at - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
            free = all(left >= end or left + wide <= first or abs(below - row) > 13 for first, end, row in taken)
            if free and left >= 0 and left + wide <= 100:
                taken.append((left, left + wide, below))
                labels.append(drawing.label(at, below, name, anchor))
                break
    return labels


def _table(points: pd.DataFrame, ceilings: pd.DataFrame, lowest: pd.DataFrame) -> Table:
    """What layers do, and their ceilings: those of the resources that papers draw, and the lowest of all."""
    known = {(row["layer"], row["kind"]): row["ceiling"] for row in ceilings.to_dict("records")}
    kinds = [kind for kind in _DRAWN_IN_PAPERS if kind in set(ceilings["kind"])]
    rows = tuple(
        (
            layer_label(point["layer"]),
            *_lowest(lowest, point["layer"]),
            format_number(point["ops_per_byte"]),
            _giga(point["ops_per_s"]),
            *(_giga(known.get((point["layer"], kind))) for kind in kinds),
        )
        for point in points.to_dict("records")
    )
    head = ("layer", "lowest ceiling", "of", "reached", "SOP per byte", "GSOP/s")
    caption = "Operations and ceilings of every layer; ceilings in GSOP/s"
    return Table(caption, (*head, *(kind_label(kind) for kind in kinds)), rows, n_text=3)


def _lowest(lowest: pd.DataFrame, layer: str) -> tuple[str, str, str]:
    """Rate, component and nearness of a layer's lowest ceiling."""
    if layer not in lowest.index:
        return DASH, "", DASH
    row: Any = lowest.loc[layer]
    return _giga(row["ceiling"]), shorten(row["component"]), percent(row["near"])


def _giga(per_second: float | None) -> str:
    return DASH if per_second is None else format_number(per_second / 1e9)


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(power: int, unit: str) -> str:
    text = {0: "1", 1: "10"}.get(power, f"10{str(power).translate(_SUPERSCRIPTS)}")
    return f"{text} {unit}".strip()


def _rate(per_second: float) -> str:
    return f"{_giga(per_second)} GSOP/s"

"""Pictures of a sweep: points over two objectives, and lines through keys and objectives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from archsim.report import drawing
from archsim.report.drawing import Anchor, Shape
from archsim.report.page import Picture
from archsim.report.text import plain, shorten
from archsim.sweeps.findings import Outcome, figure, short_names, value_text, words

_TOP, _BOTTOM = 24.0, 320.0
_LEFT, _RIGHT = 3.0, 97.0
_N_TICKS = 4
_MOST_DOTS = 3000
"""Dots of points that are not on the front; more make the file large and show nothing new."""
_MOST_LINES = 400
FRONT, KNEE, OTHERS = "c0", "c5", "c-other"


def scatter(outcome: Outcome, x_name: str, y_name: str) -> Picture:
    """All rated points over two objectives; those of the front and its knee stand out, bars are standard deviations."""
    rated, front = outcome.rated, outcome.front
    on_front = set(front["point"])
    others = rated[~rated["point"].isin(on_front)]
    step = -(-len(others) // _MOST_DOTS) or 1
    x_axis, y_axis = _Scale(rated[x_name].to_numpy(float)), _Scale(rated[y_name].to_numpy(float))

    def place(row: dict[str, float]) -> tuple[float, float]:
        return x_axis.at(row[x_name], _LEFT, _RIGHT), y_axis.at(row[y_name], _BOTTOM, _TOP)

    shapes: list[Shape] = []
    for value in y_axis.ticks:
        y = y_axis.at(value, _BOTTOM, _TOP)
        shapes += [drawing.stroke((0, y), (100, y), "grid"), drawing.label(0, y - 4, figure(y_name, value), soft=True)]
    for number, value in enumerate(x_axis.ticks):
        x = x_axis.at(value, _LEFT, _RIGHT)
        anchor: Anchor = "start" if number == 0 else "end" if number == len(x_axis.ticks) - 1 else "middle"
        shapes += [drawing.stroke((x, _TOP), (x, _BOTTOM), "grid")]
        shapes.append(drawing.label(x, _BOTTOM + 18, figure(x_name, value), anchor, soft=True))
    shapes.append(drawing.label(50, _BOTTOM + 36, words(x_name), "middle", soft=True))
    shapes.append(drawing.label(0, 12, words(y_name), soft=True))
    for row in others.iloc[::step].to_dict("records"):
        shapes.append(drawing.dot(*place(row), 3, OTHERS, _tip(outcome, row)))
    spread = f"{y_name}_std"
    for number, row in reversed(list(enumerate(front.to_dict("records")))):  # the knee last, above the others
        x, y = place(row)
        if row.get(spread) is not None and row[spread] > 0:
            low, high = (y_axis.at(row[y_name] + sign * row[spread], _BOTTOM, _TOP) for sign in (-1, 1))
            shapes.append(drawing.stroke((x, min(low, _BOTTOM)), (x, max(high, 0)), FRONT, 1.5))
        shapes.append(drawing.dot(x, y, 4.5, FRONT if number else KNEE, _tip(outcome, row)))
    legend = (("knee of the front", KNEE), ("Pareto front", FRONT), ("other points", OTHERS))
    title = words(y_name)
    caption = f"{title[:1].upper()}{title[1:]} over {words(x_name)}, every point"
    return Picture(caption, legend, round(_BOTTOM) + 40, tuple(shapes), None)


def parallel_coordinates(outcome: Outcome) -> Picture:
    """One line per point through its keys and objectives; those of the front stand out."""
    rated = outcome.rated
    keys = [key for key in outcome.space.keys if rated[key].nunique() > 1]
    names = short_names(outcome.space.keys)
    columns = [*keys, *outcome.objectives]
    heights = np.stack([_heights(rated[name].tolist()) for name in columns], axis=1)
    across = np.linspace(_LEFT, _RIGHT, len(columns)) if len(columns) > 1 else np.array([50.0])
    on_front = rated["point"].isin(outcome.front["point"]).to_numpy()
    knee = int(outcome.front["point"].iloc[0])
    shapes: list[Shape] = [drawing.stroke((x, _TOP), (x, _BOTTOM), "axis") for x in across.tolist()]
    others, best = np.flatnonzero(~on_front), np.flatnonzero(on_front)
    best = best[np.argsort(rated["point"].to_numpy()[best] == knee, kind="stable")]  # the knee last, above the others
    drawn = [*others[:: -(-len(others) // _MOST_LINES) or 1].tolist(), *best.tolist()]
    for index in drawn:
        row = rated.iloc[index]
        is_knee, front = int(row["point"]) == knee, bool(on_front[index])
        colour = KNEE if is_knee else FRONT if front else OTHERS
        width, opacity = (3.0, 1.0) if is_knee else (1.5, 0.8) if front else (1.0, 0.35)
        for left, right in pairwise(range(len(columns))):
            ends = [(float(across[at]), _y(heights[index, at])) for at in (left, right)]
            shapes.append(drawing.stroke(ends[0], ends[1], colour, width, opacity, _tip(outcome, row) if front else ""))
    for number, name in enumerate(columns):
        x, anchor = float(across[number]), _anchor(number, len(columns))
        low, high = _ends(rated[name].tolist())
        title = shorten(names[name].rsplit(".", 1)[-1] if name in keys else words(name), 18)
        row_of_title = _BOTTOM + (34 if number % 2 else 50)
        shapes.append(drawing.label(x, _TOP - 8, _cell(name, high, name in keys), anchor, soft=True))
        shapes.append(drawing.label(x, _BOTTOM + 16, _cell(name, low, name in keys), anchor, soft=True))
        shapes.append(drawing.label(x, row_of_title, title, anchor))
    legend = (("knee of the front", KNEE), ("Pareto front", FRONT), ("other points", OTHERS))
    caption = "Every line is a point; smaller values are lower down"
    return Picture(caption, legend, round(_BOTTOM) + 60, tuple(shapes), None)


class _Scale:
    """A linear axis a little wider than its values."""

    def __init__(self, values: np.ndarray) -> None:
        low, high = float(values.min()), float(values.max())
        margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
        self.low, self.high = low - margin, high + margin
        self.ticks = np.linspace(low, high, _N_TICKS).tolist() if high > low else [low]

    def at(self, value: float, start: float, end: float) -> float:
        return start + (end - start) * (value - self.low) / (self.high - self.low)


def _heights(values: Sequence[object]) -> np.ndarray:
    """Places of values on an axis, 0..1: numbers by size, words by order."""
    numbers = _numbers(values)
    low, high = numbers.min(), numbers.max()
    return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)


def _numbers(values: Sequence[object]) -> np.ndarray:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, np.float64)
    order = {name: index for index, name in enumerate(sorted({str(value) for value in values}))}
    return np.array([order[str(value)] for value in values], np.float64)


def _ends(values: Sequence[object]) -> tuple[object, object]:
    numbers = _numbers(values)
    return values[int(numbers.argmin())], values[int(numbers.argmax())]


def _cell(name: str, value: Any, is_key: bool) -> str:
    return shorten(value_text(value) if is_key else figure(name, value), 12)


def _y(height: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * float(height)


def _anchor(number: int, total: int) -> Anchor:
    return "start" if number == 0 else "end" if number == total - 1 else "middle"


def _tip(outcome: Outcome, row: object) -> str:
    figures = ", ".join(f"{words(name)} {figure(name, row[name])}" for name in outcome.objectives)  # type: ignore[index]
    return plain(f"point {row['point']}: {outcome.design(row)}; {figures}")  # type: ignore[index]

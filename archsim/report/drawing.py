"""Pictures as plain data: shapes at a place across the page in percent of its width and down it in pixels.

So a picture stretches with the page while its lines and letters keep their size, and one drawing serves a phone, a
screen and paper. Colours are classes (`charts.colours`), so light and dark mode choose them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from archsim.report.charts import number

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    x: str
    y: str
    width: str
    height: str
    colour: str
    title: str = ""
    opacity: str = ""
    kind: ClassVar[str] = "box"


@dataclass(frozen=True)
class Dot:
    """A filled circle, radius in pixels."""

    x: str
    y: str
    radius: str
    colour: str
    title: str = ""
    kind: ClassVar[str] = "dot"


@dataclass(frozen=True)
class Stroke:
    """A straight line of a colour class, `grid` or `axis`; width in pixels."""

    x1: str
    y1: str
    x2: str
    y2: str
    colour: str
    width: str = "1"
    opacity: str = ""
    title: str = ""
    kind: ClassVar[str] = "stroke"


@dataclass(frozen=True)
class Label:
    """Text whose baseline is at `y`; a `fine` one is left out on a phone, where it would lie on others."""

    x: str
    y: str
    text: str
    anchor: Anchor = "start"
    soft: bool = False
    fine: bool = False
    kind: ClassVar[str] = "label"


@dataclass(frozen=True)
class Ribbon:
    """A band from the left edge of the picture to the right one; its outline is in percent across, pixels down."""

    path: str
    colour: str
    title: str
    kind: ClassVar[str] = "ribbon"


Shape = Box | Dot | Stroke | Label | Ribbon


def box(x: float, y: float, width: float, height: float, colour: str, title: str = "", opacity: float = 1.0) -> Box:
    """A rectangle from numbers."""
    shown = "" if opacity == 1.0 else number(opacity)
    return Box(number(x), number(y), number(width), number(height), colour, title, shown)


def dot(x: float, y: float, radius: float, colour: str, title: str = "") -> Dot:
    """A circle from numbers."""
    return Dot(number(x), number(y), number(radius), colour, title)


def stroke(
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    width: float = 1.0,
    opacity: float = 1.0,
    title: str = "",
) -> Stroke:
    """A line from numbers."""
    shown = "" if opacity == 1.0 else number(opacity)
    (x1, y1), (x2, y2) = start, end
    return Stroke(number(x1), number(y1), number(x2), number(y2), colour, number(width), shown, title)


def label(x: float, y: float, text: str, anchor: Anchor = "start", soft: bool = False, fine: bool = False) -> Label:
    """A text from numbers."""
    return Label(number(x), number(y), text, anchor, soft, fine)


def ribbon(left: tuple[float, float], right: tuple[float, float], colour: str, title: str) -> Ribbon:
    """A band whose ends reach from the first to the second pixel of `left` and of `right`."""
    (top, bottom), (end_top, end_bottom) = (tuple(map(number, edge)) for edge in (left, right))
    path = f"M0 {top}C50 {top} 50 {end_top} 100 {end_top}V{end_bottom}C50 {end_bottom} 50 {bottom} 0 {bottom}Z"
    return Ribbon(path, colour, title)

"""What a report is made of, as plain data: a page of sections, each a question and the parts that answer it.

`archsim.report.html` and `archsim.report.markdown` write the same page; they know the kinds of parts and nothing of
what a section is about. All texts are data: names in them may come from anybody's file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from archsim.report.charts import Bar, Tick
from archsim.report.drawing import Shape


@dataclass(frozen=True)
class Text:
    """A paragraph; `strong` for what a section says first, `soft` for what explains."""

    text: str
    tone: Literal["plain", "strong", "soft"] = "plain"
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    """Sentences that stand side by side."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Figures:
    """Single figures as (name, value with unit, what exactly is counted)."""

    rows: tuple[tuple[str, str, str], ...]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Table:
    """Head, rows and perhaps a line of totals; the first `n_text` columns are text, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1
    foot: tuple[str, ...] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Chart:
    """Rows of bars with a legend as (name, colour class) and perhaps an axis with ticks.

    In Markdown the table stands for it; without one, the labels and values of the bars do.
    """

    caption: str
    legend: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    table: Table | None = None
    ticks: tuple[Tick, ...] = ()
    axis: str = "time"
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Picture:
    """A drawing of a given height in pixels, with its legend, and perhaps the table of its numbers to unfold.

    In Markdown the table stands for it; one without leaves its numbers to the table of the picture below it.
    """

    caption: str
    legend: tuple[tuple[str, str], ...]
    height: int
    shapes: tuple[Shape, ...]
    table: Table | None
    max_width: int | None = None
    """Pixels that the drawing needs no more than; without, it is as wide as the page."""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Code:
    """A file, letter by letter."""

    text: str
    language: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Folded:
    """Parts that a page shows when asked for; Markdown has nothing to unfold and says `instead` where they are."""

    caption: str
    parts: tuple[Part, ...]
    instead: str
    kind: ClassVar[str] = "folded"


Part = Text | Bullets | Figures | Table | Chart | Picture | Code | Folded


@dataclass(frozen=True)
class Section:
    """A question and what answers it, in order."""

    id: str
    """Anchor: lower case letters and underscores."""
    question: str
    parts: tuple[Part, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Its tables, those that stand for charts and pictures included."""
        found = (part if isinstance(part, Table) else getattr(part, "table", None) for part in self.parts)
        return tuple(table for table in found if table is not None)


@dataclass(frozen=True)
class Page:
    """A whole report: what it is about, the answer in a sentence or two, and the sections."""

    title: str
    verdict: str
    sections: tuple[Section, ...]
    topics: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Topics with the ids of their sections, for a table of contents in lines; without, it is a list."""

"""What a section of the report is made of: tables and charts, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from archsim.report.charts import Bar, Tick


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
class WhySection:
    """What limits the run: a verdict, pairs that bind together, the latency stack, and the changes that were tried."""

    verdict: str
    pairs: tuple[str, ...]
    stack: Chart | None
    changes: Table | None = None


@dataclass(frozen=True)
class ComponentSection:
    """The most expensive components, the others to unfold, and how many did nothing."""

    text: str
    table: Table
    rest: Table
    left_out: str

"""Bar charts as plain data: percentages of the width, colour classes, texts.

The template draws them as SVG that stretches with the page, while labels are ordinary text beside
it, so nothing is clipped or shrunk on a phone. Colours are classes, so light and dark mode choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

OTHER = "other"
N_COLOURS = 7
"""Colours of the palette beside the grey of `OTHER`."""


@dataclass(frozen=True)
class Segment:
    """A rectangle: left edge and width in percent of the chart, colour class, opacity, tooltip."""

    left: str
    width: str
    colour: str
    title: str = ""
    opacity: str = ""


@dataclass(frozen=True)
class Bar:
    """One row of a chart."""

    label: str
    value: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on the time axis."""

    left: str
    label: str
    anchor: str


def colours(names: Sequence[str]) -> dict[str, str]:
    """Colour class of each name: one each for the first ones, `c-other` for the rest."""
    return {name: f"c{index}" if index < N_COLOURS else "c-other" for index, name in enumerate(names)}


def stacked(
    parts: Sequence[tuple[str, float]], colour_of: Callable[[str], str], full: float, text: Callable[[str, float], str]
) -> tuple[Segment, ...]:
    """Segments side by side, each as long as its part of `full`; parts of nothing are left out."""
    segments = []
    position = 0.0
    for name, value in parts:
        if value > 0 and full > 0:
            segments.append(
                Segment(number(100 * position / full), number(100 * value / full), colour_of(name), text(name, value))
            )
            position += value
    return tuple(segments)


def window(start: float, end: float, full: float, title: str) -> Segment:
    """The time between `start` and `end`, as a frame to draw a profile in."""
    return Segment(number(100 * start / full), number(100 * (end - start) / full), "frame", title)


def profile(fractions: np.ndarray, colour: str, levels: int = 8) -> tuple[Segment, ...]:
    """Strip whose opacity follows `fractions` (0..1, equal bins); neighbours of one level are merged."""
    steps = np.ceil(np.asarray(fractions) * levels - 1e-9).astype(int)
    bounds = np.flatnonzero(np.r_[True, steps[1:] != steps[:-1], True])
    bin_width = 100 / len(steps)
    return tuple(
        Segment(
            number(first * bin_width), number((last - first) * bin_width), colour, opacity=number(steps[first] / levels)
        )
        for first, last in pairwise(bounds.tolist())
        if steps[first] > 0
    )


def time_ticks(end_ps: float, text: Callable[[float], str], n_most: int = 6) -> tuple[Tick, ...]:
    """Marks at round times from 0 to `end_ps`, at most `n_most` after the first."""
    step = _round_step(end_ps / n_most)
    times = [index * step for index in range(int(end_ps / step) + 1)]
    ticks = []
    for time in times:
        share = time / end_ps
        anchor = "start" if share < 0.05 else "end" if share > 0.95 else "middle"
        ticks.append(Tick(number(100 * share), text(time), anchor))
    return tuple(ticks)


def number(value: float) -> str:
    """A number for an attribute: two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _round_step(least: float) -> float:
    """Smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))

"""Values that keys take over a sweep, and the points that they span, in an order that depends on nothing else.

An axis is a list of values or a range. Axes span a grid, of which the axis written first changes slowest; or points
are drawn from them, at random or as a Latin hypercube, by a seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

MAX_POINTS = 200_000
"""Points of a sweep; above it a grid is a mistake, and a search is the better tool."""

Value = bool | int | float | str | None
Values = Annotated[tuple[Value, ...], Field(strict=False, max_length=MAX_POINTS)]
Cell = tuple[Value, ...]
"""Values of the keys of one axis at one point."""


class Keys(BaseModel):
    """A section of a sweep file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Range(Keys):
    """Values from `low` to `high`, both included; whole numbers where both are whole."""

    low: int | float
    """First value."""
    high: int | float
    """Last value."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Distance of neighbours; the last value is the last that does not exceed `high`."""
    count: Annotated[int, Field(ge=2, le=MAX_POINTS)] | None = None
    """Number of values instead of their distance."""
    scale: Literal["linear", "log"] = "linear"
    """Whether neighbours have equal distances or equal ratios."""

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    @property
    def is_continuous(self) -> bool:
        """Whether neither step nor count cuts the range into values; then points can only be drawn from it."""
        return self.step is None and self.count is None

    def values(self) -> tuple[int | float, ...]:
        """All values of a range that is cut into values; equal ones, which rounding makes, once."""
        assert not self.is_continuous, "a continuous range has no list of values"
        if self.step is not None:
            n_steps = math.floor((self.high - self.low) / self.step * (1 + 1e-12))
            return tuple(dict.fromkeys(self._rounded(self.low + index * self.step) for index in range(n_steps + 1)))
        assert self.count is not None
        return tuple(dict.fromkeys(self._at(index / (self.count - 1)) for index in range(self.count)))

    def draw(self, fraction: float) -> int | float:
        """Value of a continuous range at a fraction in [0, 1); whole numbers are equally likely (linear)."""
        if self.is_whole and self.scale == "linear":
            return math.floor(self.low + fraction * (self.high - self.low + 1))
        return self._at(fraction)

    def _at(self, fraction: float) -> int | float:
        if self.scale == "log":
            return self._rounded(self.low * (self.high / self.low) ** fraction)
        return self._rounded(self.low + fraction * (self.high - self.low))

    def _rounded(self, value: float) -> int | float:
        """Twelve digits, so that 0.1 + 2 * 0.1 is 0.3; whole where the range is."""
        return round(value) if self.is_whole else float(f"{value:.12g}")

    def fault(self) -> str | None:
        """What is wrong with the range in itself."""
        if self.low >= self.high:
            return f"low is {self.low} and high is {self.high}; low must be below high"
        if self.scale == "log" and (self.low <= 0 or self.step is not None):
            return "a log range needs low above 0, and count instead of step"
        if self.step is not None and self.count is not None:
            return "step and count are both given; give one of them"
        if self.step is not None and (self.high - self.low) / self.step >= MAX_POINTS:
            return f"step is {self.step}, which makes more than {MAX_POINTS} values"
        return None


@dataclass(frozen=True)
class Axis:
    """Keys that change together, and the values that they take: one tuple for every position, or a range."""

    keys: tuple[str, ...]
    cells: tuple[Cell, ...] | Range

    @property
    def listed(self) -> tuple[Cell, ...]:
        """All values of an axis that is a list or a range cut into values."""
        return tuple((value,) for value in self.cells.values()) if isinstance(self.cells, Range) else self.cells

    @property
    def is_continuous(self) -> bool:
        """Whether the axis has no list of values."""
        return isinstance(self.cells, Range) and self.cells.is_continuous

    def draw(self, fraction: float) -> Cell:
        """Values at a fraction in [0, 1)."""
        if isinstance(self.cells, Range) and self.cells.is_continuous:
            return (self.cells.draw(fraction),)
        listed = self.listed
        return listed[int(fraction * len(listed))]


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Value]]:
    """All combinations of the axes' values."""
    for cells in product(*(axis.listed for axis in axes)):
        yield _point(axes, cells)


def drawn(axes: Sequence[Axis], n_points: int, seed: int, method: str) -> Iterator[dict[str, Value]]:
    """Points drawn at random, or as a Latin hypercube: of every axis one value from each of `n_points` equal parts.

    Source: McKay, Beckman, Conover, Technometrics 21(2), 1979.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed]))
    fractions = random.random((n_points, len(axes)))
    if method == "latin_hypercube":
        strata = np.stack([random.permutation(n_points) for _ in axes], axis=1)
        fractions = (strata + fractions) / n_points
    for row in fractions.tolist():
        yield _point(axes, [axis.draw(fraction) for axis, fraction in zip(axes, row, strict=True)])


def n_combinations(axes: Sequence[Axis]) -> int:
    """Points of the grid."""
    return math.prod(len(axis.listed) for axis in axes)


def _point(axes: Sequence[Axis], cells: Sequence[Cell]) -> dict[str, Value]:
    return {
        key: value for axis, cell in zip(axes, cells, strict=True) for key, value in zip(axis.keys, cell, strict=True)
    }

"""Arrays laid end to end, so that the rows of a table can point into them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where a list of values is in a pool: value n is at `first + n * step`; `step` 0 means that all are equal."""

    first: int
    step: int


class Pool:
    """A growing array of one type. Arrays that are given twice, and equal constants, are stored once."""

    def __init__(self, dtype: type) -> None:
        self._dtype = dtype
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._places: dict[int, tuple[Place, np.ndarray]] = {}
        self._constants: dict[float, Place] = {}
        self._sums: dict[tuple[Place, Place], Place] = {}
        self._values: dict[Place, np.ndarray] = {}

    def add(self, values: np.ndarray) -> Place:
        """Place of an array, which must not change; a broadcast scalar takes one entry."""
        known = self._places.get(id(values))
        if known is None:
            constant = len(values) > 0 and values.strides[0] == 0
            place = self.constant(values[0].item()) if constant else self._append(values)
            known = self._places[id(values)] = (place, values)
        return known[0]

    def dense(self, values: np.ndarray) -> int:
        """Where an array begins of which every value is stored."""
        return self.add(values).first if len(values) == 1 or values.strides[0] else self._append(values).first

    def constant(self, value: float) -> Place:
        """Place of a list of any length with the same value throughout."""
        place = self._constants.get(value)
        if place is None:
            place = self._constants[value] = Place(self._append(np.array([value], self._dtype)).first, 0)
            self._values[place] = np.array([value], self._dtype)
        return place

    def list(self, values: list[int]) -> int:
        """Where a list that nobody shares begins."""
        return self._append(np.array(values, self._dtype)).first

    def plus(self, one: Place, other: Place) -> Place:
        """Place of the sums of two lists, entry by entry."""
        key, zero = (one, other), self.constant(0)
        if zero in key:
            return one if other == zero else other
        if key not in self._sums:
            total = self._values[one] + self._values[other]
            is_constant = one.step == other.step == 0
            self._sums[key] = self.constant(total[0].item()) if is_constant else self._append(total)
        return self._sums[key]

    def array(self) -> np.ndarray:
        """Everything that was added, end to end."""
        return np.concatenate([np.zeros(0, self._dtype), *self._parts], dtype=self._dtype)

    def _append(self, values: np.ndarray) -> Place:
        place = Place(self._size, 1)
        self._parts.append(values)
        self._values[place] = values
        self._size += len(values)
        return place

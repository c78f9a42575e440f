"""What a table of points says: which designs are worth having, and which keys matter. numpy alone.

Costs are figures of objectives with the sign turned where more is better, so that less is always better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeGuard

import numpy as np

MAX_LEVELS = 8
"""Levels of a key that are told apart; more numbers than that are put in bins of equally many points."""


_ROUNDING = 1e-12
"""Relative differences below it are none."""


@dataclass(frozen=True)
class Factor:
    """A key, or keys that change together: the level of every point, and the levels' names in order."""

    name: str
    level: np.ndarray
    """Shape (point,), integers."""
    labels: tuple[str, ...]

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.labels)


@dataclass(frozen=True)
class Effect:
    """What a factor does to an objective."""

    factor: str
    share: float
    """Part of the variance between points that the means of its levels explain."""
    means: tuple[float, ...]
    """Mean of every level."""


@dataclass(frozen=True)
class Interaction:
    """What two factors do to an objective beyond the sum of what each does."""

    factors: tuple[str, str]
    share: float
    """Part of the variance that the means of their pairs of levels explain beyond the two alone."""
    means: np.ndarray
    """Mean of every pair of levels, shape (level of first, level of second); NaN where there is no point."""


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Which points no other point beats: none is at least as good in every objective and better in one.

    Args:
        costs: Shape (point, objective).

    Returns:
        Booleans, shape (point,). Equal points are on the front together.
    """
    order = np.lexsort(costs.T[::-1])
    on_front = np.zeros(len(costs), bool)
    front = np.empty_like(costs)
    n_front = 0
    for index in order:  # in this order no point is beaten by a later one
        found = costs[index]
        rivals = front[:n_front]
        is_beaten = ((rivals <= found).all(axis=1) & (rivals < found).any(axis=1)).any()
        if not is_beaten:
            front[n_front] = found
            n_front += 1
            on_front[index] = True
    return on_front


def distances_to_ideal(costs: np.ndarray) -> np.ndarray:
    """How far points of a front are from the best of every objective, each scaled to 0..1 over the front.

    The nearest is the knee of the front: the compromise solution with Euclidean distance of Zeleny, "Compromise
    programming", in Multiple Criteria Decision Making, 1973.
    """
    low, high = costs.min(axis=0), costs.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.sqrt((((costs - low) / span) ** 2).sum(axis=1))


def factor_of(name: str, cells: Sequence[tuple[object, ...]]) -> Factor:
    """A factor from the values of its keys at every point; many different numbers are put in bins."""
    distinct = sorted(set(cells), key=_order)
    single = [cell[0] for cell in cells if _is_number(cell[0])]
    if len(distinct) > MAX_LEVELS and len(single) == len(cells):
        return _binned(name, np.array(single, np.float64))
    number = {cell: index for index, cell in enumerate(distinct)}
    return Factor(name, np.array([number[cell] for cell in cells], np.int64), tuple(map(_label, distinct)))


def effects(factors: Sequence[Factor], values: np.ndarray) -> list[Effect]:
    """Main effect of every factor on one objective, the largest first.

    The share is the correlation ratio Var(E[y | factor]) / Var(y), which on a full grid is the first-order
    sensitivity index of Sobol, Math. Comput. Simul. 55, 2001.
    """
    found = []
    for factor in factors:
        means, counts = _means(factor.level, factor.n_levels, values)
        found.append(Effect(factor.name, _share(means, counts, values), tuple(means.tolist())))
    return sorted(found, key=lambda effect: -effect.share)


def interactions(factors: Sequence[Factor], values: np.ndarray) -> list[Interaction]:
    """What pairs of factors do together, the largest first; on a full grid Sobol's second-order indices."""
    alone = {effect.factor: effect.share for effect in effects(factors, values)}
    found = []
    for first, second in combinations(factors, 2):
        cell = first.level * second.n_levels + second.level
        means, counts = _means(cell, first.n_levels * second.n_levels, values)
        share = _share(means, counts, values) - alone[first.name] - alone[second.name]
        table = means.reshape(first.n_levels, second.n_levels)
        found.append(Interaction((first.name, second.name), max(0.0, share), table))
    return sorted(found, key=lambda interaction: -interaction.share)


def _means(level: np.ndarray, n_levels: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(level, minlength=n_levels)
    sums = np.bincount(level, weights=values, minlength=n_levels)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts


def _share(means: np.ndarray, counts: np.ndarray, values: np.ndarray) -> float:
    """Weighted variance of means over the variance of all; rounding of a constant objective is none."""
    spread = float(((values - values.mean()) ** 2).sum())
    if spread <= _ROUNDING**2 * float((values**2).sum()):
        return 0.0
    present = counts > 0
    share = float((counts[present] * (means[present] - values.mean()) ** 2).sum()) / spread
    return 0.0 if share < _ROUNDING else min(1.0, share)


def _binned(name: str, numbers: np.ndarray) -> Factor:
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, MAX_LEVELS + 1)))
    level = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    labels = tuple(f"{low:.4g} .. {high:.4g}" for low, high in pairwise(edges))
    return Factor(name, level, labels)


def _order(cell: tuple[object, ...]) -> tuple[tuple[int, float, str], ...]:
    """Numbers by size, before words."""
    return tuple((0, float(value), "") if _is_number(value) else (1, 0.0, str(value)) for value in cell)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(cell: tuple[object, ...]) -> str:
    return " x ".join(
        str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)
        for value in cell
    )

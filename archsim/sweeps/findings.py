"""A sweep's table with its trade-offs worked out: what the sections of its report show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from archsim.report.text import percent, plain
from archsim.sweeps.space import WORKLOAD, Space
from archsim.sweeps.store import OK
from archsim.sweeps.tradeoffs import Factor, distances_to_ideal, factor_of, pareto_front
from archsim.units import format_area, format_energy, format_number, format_time

if TYPE_CHECKING:
    import pandas as pd

_WORDS = {
    "latency_ps": "latency",
    "energy_per_sample_pj": "energy per sample",
    "energy_pj": "energy",
    "area_um2": "area",
    "edp_pj_s": "energy-delay product",
    "power_mw": "power",
    "accuracy_raw": "raw accuracy",
    "accuracy_calibrated": "calibrated accuracy",
    "accuracy_ideal": "ideal accuracy",
    "tops_per_w": "TOPS/W",
    "tops_per_mm2": "TOPS/mm2",
}


@dataclass(frozen=True)
class Outcome:
    """A space and the table of its points."""

    space: Space
    table: pd.DataFrame
    n_points: int
    """Points of the space, or of the search so far; the table has those that are finished."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Objectives that at least one point has; others do not apply to these workloads."""
        return tuple(name for name in self.space.file.objectives if self.done[name].notna().any())

    @cached_property
    def done(self) -> pd.DataFrame:
        """Points that were simulated."""
        return self.table[self.table["status"] == OK].reset_index(drop=True)

    @cached_property
    def rated(self) -> pd.DataFrame:
        """Points with a figure for every objective."""
        return self.done.dropna(subset=list(self.objectives)).reset_index(drop=True)

    @cached_property
    def costs(self) -> np.ndarray:
        """Objectives of the rated points, less is better, shape (point, objective)."""
        signs = [-1.0 if self.space.file.objectives[name] == "maximize" else 1.0 for name in self.objectives]
        return self.rated[list(self.objectives)].to_numpy(np.float64) * signs

    @cached_property
    def front(self) -> pd.DataFrame:
        """Points of the Pareto front, the knee first, by distance from the ideal (column `distance`)."""
        on_front = pareto_front(self.costs)
        front = self.rated[on_front].copy()
        front["distance"] = distances_to_ideal(self.costs[on_front])
        return front.sort_values(["distance", "point"], kind="stable").reset_index(drop=True)

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """What differs between the rated points: axes, zipped keys as one, workloads."""
        groups = [axis.keys for axis in self.space.axes] or [(key,) for key in self.space.keys]
        names = short_names(self.space.keys)
        found = []
        for keys in groups:
            cells = list(zip(*(self.rated[key].tolist() for key in keys), strict=True))
            found.append(factor_of(" x ".join(names[key] for key in keys), cells))
        return tuple(factor for factor in found if factor.n_levels > 1)

    def design(self, row: Any) -> str:
        """Values of the keys of one point, in words."""
        names = short_names(self.space.keys)
        return ", ".join(f"{names[key]} {value_text(row[key])}" for key in self.space.keys)


def words(objective: str) -> str:
    """An objective as people say it."""
    return _WORDS.get(objective, objective.replace("_", " "))


def figure(objective: str, value: float) -> str:
    """A figure with its unit."""
    if objective.endswith("_ps"):
        return format_time(value)
    if objective.endswith("_pj"):
        return format_energy(value)
    if objective.endswith("_um2"):
        return format_area(value)
    if objective.startswith("accuracy") or objective.endswith(("sparsity", "utilisation")):
        return percent(value)
    unit = {"power_mw": " mW", "edp_pj_s": " pJ s"}.get(objective, "")
    return f"{format_number(float(value))}{unit}"


def value_text(value: Any) -> str:
    """Value of a key."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    return plain(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last two words of every key, or as many as it takes to tell keys apart."""
    names = {}
    for key in keys:
        parts = key.split(".")
        n_words = min(2, len(parts))
        while n_words < len(parts) and any(
            other != key and other.split(".")[-n_words:] == parts[-n_words:] for other in keys
        ):
            n_words += 1
        names[key] = ".".join(parts[-n_words:])
    return names | {WORKLOAD: WORKLOAD}

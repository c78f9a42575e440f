"""Figures of a run that must agree, worked out in two ways, and bounds that no run can pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from archsim.analysis.bounds import stage_times
from archsim.result import Result

_ENERGY_REL = 1e-9
"""Sums of many float64 in different orders agree to this."""


@dataclass(frozen=True)
class Check:
    """Two figures and how they must relate; `unit` is that of both."""

    name: str
    left_words: str
    relation: Literal["equals", "is at most"]
    right_words: str
    left: float
    right: float
    unit: Literal["pJ", "ps"]

    @property
    def holds(self) -> bool:
        """Whether they do: exactly in time, to rounding in energy."""
        if self.relation == "is at most":
            return self.left <= self.right * (1 + _ENERGY_REL)
        if self.unit == "ps":
            return self.left == self.right
        return math.isclose(self.left, self.right, rel_tol=_ENERGY_REL, abs_tol=1e-12)


def cross_checks(result: Result) -> list[Check]:
    """Every check that the tables and the log of a result allow."""
    summary, parts, log = result.summary, result.components, result.log
    run_ps = int(log.totals.last_leave_ps.max(initial=0))
    energy = float(summary["energy_pj"])
    leakage = float(parts["energy_leakage_pj"].sum())
    of_parts = float(parts["energy_dynamic_pj"].sum()) + leakage
    of_layers = float(result.layers["energy_pj"].sum()) + leakage
    of_log = float(log.totals.energy_pj.sum())
    run = "energy of the run"
    found = [
        Check("energy of components", "sum over components", "equals", run, of_parts, energy, "pJ"),
        Check("energy of layers", "sum over layers, and leakage", "equals", run, of_layers, energy, "pJ"),
        Check("energy of services", "sum over the event log", "equals", run, of_log, energy, "pJ"),
        Check(
            "energy of movement",
            "sum over moved bits",
            "is at most",
            "dynamic energy",
            float(result.movement["energy_pj"].sum()),
            float(summary["energy_dynamic_pj"]),
            "pJ",
        ),
    ]
    if len(parts):
        states = parts[[f"{state}_ps" for state in ("busy", "blocked", "starved", "idle")]].sum(axis=1)
        for words, value in (("longest", states.max()), ("shortest", states.min())):
            found.append(
                Check(
                    f"states, {words} sum",
                    "busy, blocked, starved and idle",
                    "equals",
                    "length of the run",
                    int(value),
                    run_ps,
                    "ps",
                )
            )
        busiest = int(parts["busy_ps"].max())
        found.append(
            Check("work", "work of the busiest component", "is at most", "length of the run", busiest, run_ps, "ps")
        )
    if result.paths is not None and len(result.paths):
        mean = round(float(result.paths.groupby("sample")["duration_ps"].sum().mean()))
        latency = int(summary["latency_ps"])
        found.append(Check("critical path", "sum of its segments", "equals", "latency, mean", mean, latency, "ps"))
    if result.queues is not None and len(result.queues):
        queues = result.queues
        waits = float((queues["n_waits"] * queues["wait_mean_ps"]).sum())
        held = float(queues["depth_mean"].sum()) * run_ps
        if math.isclose(waits, held, rel_tol=_ENERGY_REL):
            waits = held  # equal but for the rounding of means
        found.append(
            Check(
                "Little's law", "sum of all waits", "equals", "mean queue depth x length of the run", waits, held, "ps"
            )
        )
    return found


def one_by_one_ps(result: Result) -> int:
    """Latency of a sample in a model that adds layers one after the other, each as long as its busiest unit works."""
    return round(float(stage_times(result)["busy_ps"].sum()) / int(result.summary["n_samples"]))

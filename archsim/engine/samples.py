"""What single samples of a run took: when they came and were answered, and the energy behind their answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from archsim.activity import Activity
from archsim.eventlog import EventLog

if TYPE_CHECKING:
    import pandas as pd


def sample_latencies_ps(log: EventLog, n_samples: int, exits: np.ndarray | None = None) -> np.ndarray:
    """Latency of every sample: from the first read of its input, or of weights for it, to the last leave of the output
    port; of samples that end by themselves to the last of the timestep of their exit."""
    return departures_ps(log, n_samples, exits) - injections_ps(log, n_samples)


def injections_ps(log: EventLog, n_samples: int) -> np.ndarray:
    """When the first of every sample's input, or of weights for it, was read, int64."""
    first = np.full(n_samples, np.iinfo(np.int64).max)
    brought = [
        code
        for code, movement in enumerate(log.movements)
        if movement.level == "dram" and movement.data_class in ("inputs", "weights")
    ]
    np.minimum.at(first, *log.services_of("input", "sample", "start_ps"))
    for component in np.unique(log.totals.component[np.isin(log.totals.movement, brought)]):
        moved, sample, start = log.services_of(log.components[component], "movement", "sample", "start_ps")
        mine = np.isin(moved, brought)
        np.minimum.at(first, sample[mine], start[mine])
    return first


def departures_ps(log: EventLog, n_samples: int, exits: np.ndarray | None) -> np.ndarray:
    """When the last of every sample's answer has left by the output port, int64."""
    last = np.zeros(n_samples, np.int64)
    sample, step, leave = log.services_of("output", "sample", "timestep", "leave_ps")
    counts = slice(None) if exits is None else step < exits[sample]
    np.maximum.at(last, sample[counts], leave[counts])
    return last


def wasted_pj(log: EventLog, activity: Activity) -> float:
    """Dynamic energy of timesteps behind those after which samples are decided."""
    if activity.exits is None:
        return 0.0
    exits = activity.exits
    return math.fsum(float(energy[step >= exits[sample]].sum()) for sample, step, energy in _energies(log))


def sample_table(log: EventLog, activity: Activity) -> pd.DataFrame | None:
    """One row per sample of a run whose samples end by themselves; None for other runs.

    Columns: `sample`, `timesteps` (after which it is decided), `timesteps_begun`, `injected_ps`, `decided_ps`,
    `latency_ps`, `energy_pj` (dynamic) and what of it is wasted on timesteps behind the decision, `energy_wasted_pj`.
    """
    if activity.exits is None or activity.begun is None:
        return None
    import pandas as pd  # heavy, loaded with the first table

    n_samples, exits = activity.n_samples, activity.exits
    injected, decided = injections_ps(log, n_samples), departures_ps(log, n_samples, exits)
    energy_pj, wasted = np.zeros(n_samples), np.zeros(n_samples)
    for sample, step, energy in _energies(log):
        energy_pj += np.bincount(sample, energy, n_samples)
        wasted += np.bincount(sample, energy * (step >= exits[sample]), n_samples)
    return pd.DataFrame(
        {
            "sample": range(n_samples),
            "timesteps": exits,
            "timesteps_begun": activity.begun,
            "injected_ps": injected,
            "decided_ps": decided,
            "latency_ps": decided - injected,
            "energy_pj": energy_pj,
            "energy_wasted_pj": wasted,
        }
    )


def _energies(log: EventLog) -> Iterator[list[np.ndarray]]:
    """Sample, timestep and energy of all services, component by component."""
    return (log.services_of(component, "sample", "timestep", "energy_pj") for component in log.components)

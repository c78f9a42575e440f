"""How a run goes on from timestep to timestep, and how full crossbars are read: small tables from its event log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archsim.eventlog import EventLog
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

_ROWS_AT_ONCE = 1 << 20


def longest_sample(result: Result) -> int:
    """The first of the samples that begin most timesteps."""
    return 0 if result.samples is None else int(result.samples["timesteps_begun"].argmax())


def timestep_profile(result: Result, sample: int = 0) -> pd.DataFrame:
    """Time, energy and spikes of every timestep that a sample begins.

    Columns: `timestep`; `first_start_ps` and `last_leave_ps` of its services for one sample; `done_ps`, the time
    between the end of the timestep before (or the first start) and its own end, negative where it is overtaken;
    `energy_pj`, dynamic, and `spikes`, emitted by all layers, of all samples together. `spikes` is None in
    results that do not know them.
    """
    import pandas as pd  # heavy, loaded with the first table

    n_timesteps = int(result.summary["n_timesteps"])
    if result.samples is not None:
        n_timesteps = int(result.samples["timesteps_begun"][sample])
    first, last, energy = _of_timesteps(result.log, n_timesteps, sample)
    ends = np.concatenate([first[:1], last])
    frame = pd.DataFrame({"timestep": np.arange(len(first)), "first_start_ps": first, "last_leave_ps": last})
    frame["done_ps"], frame["energy_pj"], frame["spikes"] = np.diff(ends), energy, None
    if result.spikes is not None:
        sums = result.spikes.groupby("timestep")["spikes_out"].sum()
        frame["spikes"] = sums.reindex(frame["timestep"], fill_value=0).to_numpy()
    return frame


_OF_TIMESTEPS = ("timestep", "action", "energy_pj", "sample", "start_ps", "leave_ps")


def _of_timesteps(log: EventLog, n_timesteps: int, sample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First start and last leave of a sample (int64), and dynamic energy of all, per timestep."""
    first = np.full(n_timesteps, np.iinfo(np.int64).max)
    last, energy = np.zeros(n_timesteps, np.int64), np.zeros(n_timesteps)
    for begin in range(0, len(log), _ROWS_AT_ONCE):
        rows = slice(begin, min(begin + _ROWS_AT_ONCE, len(log)))
        step, action, energy_pj, of, start_ps, leave_ps = log.parts(_OF_TIMESTEPS, rows)
        known = (step >= 0) & (step < n_timesteps) & (action != log.leak)
        energy += np.bincount(step[known], energy_pj[known], n_timesteps)
        mine = known & (of == sample)
        np.minimum.at(first, step[mine], start_ps[mine])
        np.maximum.at(last, step[mine], leave_ps[mine])
    return np.minimum(first, last), last, energy


def active_rows(result: Result) -> dict[str, np.ndarray]:
    """How many crossbar reads have 0, 1, 2, ... driven rows, layer by layer; layers without crossbars are left out.

    A service of a PE reads several crossbars, which share its driven rows as evenly as they can (the log has one
    count per service): their sum is exact, their spread a lower bound.
    """
    log = result.log
    if "read" not in log.actions or "drive" not in log.actions:
        return {}
    names = set(log.components)
    found: dict[str, np.ndarray] = {}
    for driver in log.components:
        crossbar = f"{driver.removesuffix('row_driver')}crossbar"
        if driver.endswith(".row_driver") and crossbar in names:
            # all parts of a PE log its services in the same order
            of, rows = _counts(log, driver, "drive")
            _, reads = _counts(log, crossbar, "read")
            for code in np.unique(of):
                name, mine = log.layers[code], of == code
                found[name] = _sum(found.get(name, np.zeros(0, np.int64)), _spread(rows[mine], reads[mine]))
    return {str(name): found[str(name)] for name in result.layers["layer"] if str(name) in found}


def _counts(log: EventLog, component: str, action: str) -> tuple[np.ndarray, np.ndarray]:
    """Layer and count of every service of a component that is of one action."""
    layer, found, count = log.services_of(component, "layer", "action", "count")
    mine = found == log.actions.index(action)
    return layer[mine], count[mine]


def _spread(rows: np.ndarray, reads: np.ndarray) -> np.ndarray:
    """Reads by number of rows, where the rows of every service are divided among its reads."""
    least, rest = np.divmod(rows, np.maximum(reads, 1))
    n = int(least.max(initial=0)) + 2
    counts = np.bincount(least, weights=reads - rest, minlength=n)
    counts += np.bincount(least + 1, weights=rest, minlength=n)
    return np.trim_zeros(counts.astype(np.int64), "b")


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total

"""Services of a run in a window of time: the ones behind the report's timeline and the trace file.

A window is (first, last) picosecond, and holds the services that overlap it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from archsim.analysis.breakdown import busiest_component
from archsim.errors import ConfigError
from archsim.eventlog import EventLog
from archsim.result import Result

Window = tuple[int, int]

_UNITS_PS = {"ps": 1, "ns": 10**3, "us": 10**6, "ms": 10**9, "s": 10**12}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ps|ns|us|ms|s)")
_N_SERVICES = 8
"""Services of the component that is longest on the critical path that a shown window has room for."""


@dataclass(frozen=True)
class Services:
    """Services of one component in order of time that overlap a window and last for a while; arrays of equal length."""

    start_ps: np.ndarray
    service_ps: np.ndarray
    leave_ps: np.ndarray
    layer: np.ndarray
    timestep: np.ndarray
    token: np.ndarray
    sample: np.ndarray
    action: np.ndarray
    count: np.ndarray
    energy_pj: np.ndarray
    start_cause: np.ndarray
    leave_cause: np.ndarray

    def __len__(self) -> int:
        return len(self.start_ps)


_COLUMNS = tuple(Services.__dataclass_fields__)


def services(log: EventLog, component: str, window: Window) -> Services:
    """Services of a component in a window; those that take no time, and leakage, are left out."""
    start, service, leave = log.services_of(component, "start_ps", "service_ps", "leave_ps")
    mine = np.flatnonzero((service > 0) & (start < window[1]) & (leave > window[0]))
    mine = mine[np.argsort(start[mine], kind="stable")]
    return Services(*(column[mine] for column in log.services_of(component, *_COLUMNS)))


def run_window(log: EventLog) -> Window:
    """From the start of the run to its end."""
    return 0, int(log.totals.last_leave_ps.max(initial=0))


def middle_window(result: Result) -> Window:
    """A window in the middle of the run, for some services of what the latency is spent in most."""
    log = result.log
    _, end = run_window(log)
    start, leave = log.services_of(_foremost(result), "start_ps", "leave_ps")
    if not len(start):
        return 0, end
    order = np.argsort(start, kind="stable")
    first = max(len(order) // 2 - _N_SERVICES // 2, 0)
    shown = order[first : first + _N_SERVICES]
    return int(start[shown].min()), int(leave[shown].max())


def acting(result: Result, window: Window, n_most: int) -> list[str]:
    """The components that do most in a window, in the order of the parts list.

    Looked at are those on the critical path there, those of the tile that is on it longest, and the busiest of every
    layer: all of a large chip's would take minutes.
    """
    log = result.log
    layers = [name for name in result.layers["layer"].astype(str) if _acts(log, name)]
    names = {busiest_component(log, layer).name for layer in layers}
    around = _foremost(result).split(".")[0]
    names |= {name for name in log.components if name.split(".")[0] == around}
    if result.paths is not None:
        paths = result.paths
        here = (paths["start_ps"] < window[1]) & (paths["start_ps"] + paths["duration_ps"] > window[0])
        names |= set(paths["component"][here].astype(str))
    order = {name: code for code, name in enumerate(log.components)}
    busy = {name: int(services(log, name, window).service_ps.sum()) for name in names if name in order}
    most = sorted((name for name in busy if busy[name]), key=lambda name: (-busy[name], order[name]))
    return sorted(most[:n_most], key=order.__getitem__)


def parse_window(text: str) -> Window:
    """A window from text such as `10us:12.5us`.

    Raises:
        ConfigError: It is none.
    """
    found = [_TIME.fullmatch(part) for part in text.split(":")]
    if len(found) == 2 and found[0] is not None and found[1] is not None:
        first, last = (round(float(match.group(1)) * _UNITS_PS[match.group(2)]) for match in found if match is not None)
        if first < last:
            return first, last
    raise ConfigError(
        f"window {text!r} is not a span of time; write two times such as 10us:12.5us, the first one lower"
    )


def _foremost(result: Result) -> str:
    """The component that the critical path of sample 0 is in for longest; without a path, the one that works most."""
    if result.paths is not None and len(result.paths):
        mine = result.paths[result.paths["sample"] == 0]
        return str(mine.groupby("component", sort=True)["duration_ps"].sum().idxmax())
    return str(result.components.loc[result.components["busy_ps"].idxmax(), "component"])


def _acts(log: EventLog, layer: str) -> bool:
    return layer in log.layers and bool((log.totals.layer == log.layers.index(layer)).any())

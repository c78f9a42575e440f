"""A walk through a finished run, kept as a few numbers per step, and the segments that lie on it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archsim.eventlog import DATA

if TYPE_CHECKING:
    import pandas as pd

DELAY = "delay"
"""Action of a segment in which nobody serves: a token is on a wire or in a router's pipeline."""

NOT_TIED = -1

Parts = tuple[tuple[str, str, int], ...]
"""Component, action and duration of what follows one another, in order of time."""


class Point(NamedTuple):
    """The start or the leave of a service."""

    lane: int
    token: int
    is_leave: bool


class Path:
    """Steps from a departure back to a time, latest first."""

    def __init__(self, point: Point, until_ps: int) -> None:
        self._until_ps = until_ps
        self._points = tuple(array("q", [value]) for value in point)
        self._end_ps, self._kind, self._cause, self._tied = (array("q") for _ in range(4))
        self._kinds: dict[Parts, int] = {}

    def add(self, origin: Point, parts: Parts, end_ps: int, cause: int, tied: int) -> None:
        """Go on to an earlier point.

        Args:
            origin: The point.
            parts: What lies between it and the point before.
            end_ps: When that ends.
            cause: Why the service that begins at the origin started no earlier.
            tied: Number of a component that had to end then, too; NOT_TIED if there is none.
        """
        for values, value in zip(self._points, origin, strict=True):
            values.append(value)
        self._end_ps.append(end_ps)
        self._kind.append(self._kinds.setdefault(parts, len(self._kinds)))
        self._cause.append(cause)
        self._tied.append(tied)

    @property
    def points(self) -> list[Point]:
        """All points, latest first."""
        return [Point(lane, token, bool(is_leave)) for lane, token, is_leave in zip(*self._points, strict=True)]

    def segments(self, names: Sequence[str]) -> pd.DataFrame:
        """What takes time on the path, in order of time; nothing lies between.

        Columns: `component`, `action`, `lane` and `token` whose service or delay it is, `cause`, `start_ps`,
        `duration_ps` (clipped at the time the path goes back to), `co_component` (a part that had to end at the
        same instant; empty if there was none).

        Args:
            names: Components by their numbers.
        """
        import pandas as pd  # heavy, loaded with the first table

        lasting = [[part for part in reversed(parts) if part[2]] for parts in self._kinds]
        n_parts = np.array([len(parts) for parts in lasting], np.int64)
        flat = [part for parts in lasting for part in parts]
        component, action = (np.array([part[column] for part in flat], object) for column in (0, 1))
        duration_ps = np.array([part[2] for part in flat], np.int64)
        later_ps = np.array(
            [sum(part[2] for part in parts[:n]) for parts in lasting for n in range(len(parts))], np.int64
        )
        kind = np.array(self._kind, np.int64)
        step = np.repeat(np.arange(len(kind)), n_parts[kind])
        place = np.arange(len(step)) - np.repeat(np.cumsum(n_parts[kind]) - n_parts[kind], n_parts[kind])
        part = (np.cumsum(n_parts) - n_parts)[kind][step] + place
        end_ps = np.array(self._end_ps)[step] - later_ps[part]
        start_ps = np.maximum(end_ps - duration_ps[part], self._until_ps)
        tied = np.where(place == 0, np.array(self._tied)[step], NOT_TIED)
        others = np.array(["", *names], object)[tied + 1]
        frame = pd.DataFrame(
            {
                "component": pd.Series(component[part], dtype="str"),
                "action": pd.Series(action[part], dtype="str"),
                "lane": np.array(self._points[0])[1:][step],
                "token": np.array(self._points[1])[1:][step],
                "cause": np.where(action[part] == DELAY, DATA, np.array(self._cause)[step]),
                "start_ps": start_ps,
                "duration_ps": end_ps - start_ps,
                "co_component": pd.Series(np.where(others == component[part], "", others), dtype="str"),
            }
        )
        return frame[end_ps > self._until_ps][::-1].reset_index(drop=True)

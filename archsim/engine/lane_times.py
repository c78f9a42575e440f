"""One lane of a finished run, asked token by token: when it served and what a service consists of.

Walks along a run ask for single numbers, which numpy arrays give slowly; this keeps them at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from archsim.components.netlist import Lane
from archsim.components.trace import LaneTrace
from archsim.engine.path import Parts

NOBODY = 1 << 30
"""Component of a service without actions, which only passes requests on; behind all others in a tie."""


class Work(NamedTuple):
    """The first actions of a service, in order."""

    segments: Parts
    duration_ps: int
    component: int
    """Number of the component that is at work when they end."""


class LaneTimes:
    """Times and actions of a lane's services."""

    def __init__(self, lane: Lane, trace: LaneTrace, codes: Mapping[str, int]) -> None:
        self.lane = lane
        self.start_ps, self.leave_ps = trace.start_ps.data, trace.leave_ps.data
        self.cause = trace.start_cause.data
        self._codes = codes
        self._constant: dict[int, Work] = {}

    def parts(self, token: int, n_actions: int | None = None) -> Work:
        """The first actions (None: all) of a token's service."""
        n_actions = len(self.lane.actions) if n_actions is None else n_actions
        known = self._constant.get(n_actions)
        if known is not None:
            return known
        actions = self.lane.actions[:n_actions]
        segments = tuple((action.component, action.name, int(action.duration_ps[token])) for action in actions)
        working = [name for name, _, spent in segments if spent] or [name for name, _, _ in segments[-1:]]
        code = self._codes[working[-1]] if working else NOBODY
        found = Work(segments, sum(part[2] for part in segments), code)
        if all(action.duration_ps.strides[0] == 0 for action in actions):
            self._constant[n_actions] = found
        return found

    @cached_property
    def first_component(self) -> int:
        """Number of the component that begins a service."""
        return self.parts(0, 1).component

    def input_number(self, token: int) -> int | None:
        """Which token of its inputs a service takes; None if it takes none."""
        takes = self._takes
        if takes is None:
            return token
        return int(np.searchsorted(self._taken, token)) if takes[token] else None

    def taker(self, number: int) -> int:
        """Token of the service that takes the `number`-th input."""
        return number if self._takes is None else int(self._taken[number])

    def output_number(self, token: int) -> int | None:
        """How many tokens left before this one; None if this one produces nothing."""
        emit = self.lane.emit
        if emit is None:
            return token
        return int(np.searchsorted(self._sent, token)) if emit[token] else None

    def token_sent(self, number: int) -> int:
        """Token of the service that produced the `number`-th output."""
        return number if self.lane.emit is None else int(self._sent[number])

    @cached_property
    def _sent(self) -> np.ndarray:
        assert self.lane.emit is not None, "asked for lanes with a mask only"
        return np.flatnonzero(self.lane.emit)

    @cached_property
    def _takes(self) -> np.ndarray | None:
        return self.lane.takes

    @cached_property
    def _taken(self) -> np.ndarray:
        assert self._takes is not None, "asked for lanes with a mask only"
        return np.flatnonzero(self._takes)

"""Where tokens wait: bounded latches between servers, and the line buffer of a tile.

Both remember *when* a token arrived and when a slot came free, because a service's cause is
decided by comparing those times, never by the order in which processes happened to run.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import simpy

from archsim.components.netlist import UNBOUNDED, Channel, LineBuffer
from archsim.components.trace import ChannelStatistics
from archsim.errors import SimulationError


class Clock(simpy.Environment):
    """SimPy environment whose time is a whole number of picoseconds."""

    @property
    def now_ps(self) -> int:
        """Present time."""
        return self.now  # type: ignore[return-value]


NEVER = -1
"""Time of a slot that was free from the beginning."""


class Sleeper(Protocol):
    """Whoever can be told that something changed."""

    name: str

    def wake(self) -> None:
        """Look again."""


class Latch:
    """Run-time state of a channel: tokens in order of arrival, and the free slots."""

    def __init__(self, env: Clock, channel: Channel) -> None:
        self.env = env
        self.name = channel.name
        self.bounded = channel.capacity != UNBOUNDED
        self.slots: deque[int] = deque([NEVER] * channel.capacity)
        self.arrivals: deque[tuple[int, int]] = deque()
        self.consumer: Sleeper | None = None
        self.producer: Sleeper | None = None
        self._peak = self._integral = self._since = 0

    def slot_ps(self, token: int) -> int | None:
        """Time since which a slot for the next token has been free; None while there is none."""
        if not self.bounded:
            return NEVER
        return self.slots[0] if self.slots else None

    def reserve(self) -> None:
        """Take a free slot for a token that is on its way."""
        if self.bounded:
            self.slots.popleft()

    def push(self, token: int) -> None:
        """Put a token into its reserved slot."""
        self._count()
        self.arrivals.append((self.env.now_ps, token))
        self._peak = max(self._peak, 1)
        if self.consumer:
            self.consumer.wake()

    def pop(self, token: int) -> None:
        """Take the oldest token, which must be `token`, and give its slot back."""
        self._count()
        _, found = self.arrivals.popleft()
        if found != token:
            raise SimulationError(f"{self.name}: token {found} arrived where token {token} was due")
        if self.bounded:
            self.slots.append(self.env.now_ps)
            if self.producer:
                self.producer.wake()

    def statistics(self) -> ChannelStatistics:
        """Peak and time integral of the occupancy."""
        self._count()
        return ChannelStatistics(self._peak, self._integral)

    def _count(self) -> None:
        """Account for the time since the last change; within an instant the order of changes must not show."""
        elapsed_ps = self.env.now_ps - self._since
        if elapsed_ps:
            self._integral += len(self.arrivals) * elapsed_ps
            self._peak = max(self._peak, len(self.arrivals))
            self._since = self.env.now_ps


class LineBufferState:
    """Run-time state of a line buffer: which positions are complete, and which are free again."""

    def __init__(self, env: Clock, spec: LineBuffer) -> None:
        self.env = env
        self.name = spec.name
        self.capacity = spec.capacity
        self.need: list[int] = spec.need.tolist()
        self.last_use: list[int] = spec.last_use.tolist()
        self.delivered = [0] * spec.n_sources
        self.covers: list[list[int]] = [spec.covered(source).tolist() for source in range(spec.n_sources)]
        self.covered = [covers[0] for covers in self.covers]
        self.fetched = [0] * spec.n_readers
        self.complete_ps: list[int] = []
        self.released_ps: list[int] = []
        self.readers: list[Sleeper] = []
        self.senders: list[Sleeper] = []

    def deliver(self, source: int) -> None:
        """A source has delivered its part of its next position."""
        self.delivered[source] += 1
        self.covered[source] = self.covers[source][self.delivered[source]]
        newly_complete = min(self.covered) - len(self.complete_ps)
        if newly_complete > 0:
            self.complete_ps += [self.env.now_ps] * newly_complete
            for reader in self.readers:
                reader.wake()

    def ready_ps(self, token: int) -> int | None:
        """Time since which the input of `token` has been complete; None while it is not."""
        need = self.need[token]
        if need < 0:
            return NEVER
        return self.complete_ps[need] if need < len(self.complete_ps) else None

    def release(self, reader: int) -> None:
        """A reader has fetched its next token."""
        self.fetched[reader] += 1
        done, before = min(self.fetched), len(self.released_ps)
        last_use = self.last_use
        while len(self.released_ps) < len(last_use) and last_use[len(self.released_ps)] < done:
            self.released_ps.append(self.env.now_ps)
        if len(self.released_ps) > before:
            for sender in self.senders:
                sender.wake()

    def slot_ps(self, position: int) -> int | None:
        """Time since which there has been room for `position`; None while there is none."""
        freed_by = position - self.capacity
        if freed_by < 0:
            return NEVER
        return self.released_ps[freed_by] if freed_by < len(self.released_ps) else None

    def reserve(self) -> None:
        """Room is counted by position, so a reservation needs no record."""

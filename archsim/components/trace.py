"""What an execution writes down: per lane, the times and causes of every service.

Every execution of a netlist fills the same arrays, so two of them can be compared with `==`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.components.netlist import Lane, Netlist

NO_PREDECESSOR = -1


@dataclass(frozen=True)
class LaneTrace:
    """Times in picoseconds and cause codes, one entry per token."""

    start_ps: np.ndarray
    leave_ps: np.ndarray
    start_cause: np.ndarray
    leave_cause: np.ndarray
    predecessor: np.ndarray
    """Where the grant waited for another lane: running number, on its server or router, of the service that it waited
    for; on a shared server that is the service before it."""

    @classmethod
    def empty(cls, lane: Lane) -> LaneTrace:
        """Arrays for a lane that has not run."""
        n = lane.n_tokens
        return cls(
            np.full(n, -1, np.int64),
            np.full(n, -1, np.int64),
            np.zeros(n, np.int8),
            np.zeros(n, np.int8),
            np.full(n, NO_PREDECESSOR, np.int64),
        )


@dataclass(frozen=True)
class ChannelStatistics:
    """Occupancy of a channel, counted by the channel itself and not from the log."""

    peak: int
    """Most tokens that waited at once, tokens taken the instant they came aside; at least 1 if any came."""
    occupancy_integral_ps: int
    """Sum over time of tokens waiting, in token picoseconds."""


@dataclass(frozen=True)
class ExecutionTrace:
    """Result of executing a netlist."""

    lanes: list[LaneTrace]
    """In the order of `Netlist.lanes()`."""
    channels: list[ChannelStatistics]
    end_ps: int

    def joined(self, name: str) -> np.ndarray:
        """One array of all lanes' `name`, end to end; not copied where the execution laid them out so."""
        arrays = [getattr(lane, name) for lane in self.lanes]
        whole = arrays[0].base if arrays else None
        if whole is not None and len(whole) == sum(map(len, arrays)) and all(one.base is whole for one in arrays):
            return whole
        return np.concatenate(arrays)

    def of(self, netlist: Netlist, lane: Lane) -> LaneTrace:
        """Trace of one lane object of the netlist."""
        for candidate, trace in zip(netlist.lanes(), self.lanes, strict=True):
            if candidate is lane:
                return trace
        raise KeyError(lane.name)

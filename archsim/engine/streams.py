"""Streams of samples that end by themselves: which timesteps begin, and which services are stopped.

What a network says after every timestep is known before anything is timed; when it says so is not, and on that hangs
which timesteps begin. With `wait` the netlist itself holds a timestep back until the one before is judged. With `drain`
and `squash` a timestep begins unless its sample is decided before its first service; with `squash` no service of a
timestep behind the decision starts later than that. Nothing that happens after a decision can alter it, so both are
found by execution: what begins, or is stopped, is corrected by the times of the last execution until they agree.
Each execution settles at least what comes next in time. Entry: `execute_stream`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from archsim.activity import Activity
from archsim.components.netlist import Lane, Netlist
from archsim.components.trace import ExecutionTrace
from archsim.engine import geometry
from archsim.engine.platforms import build_netlist
from archsim.errors import SimulationError
from archsim.hardware.models import Hardware
from archsim.mapping import AnyMapping, Mapping

Execute = Callable[[Netlist], ExecutionTrace]
Prepare = Callable[[Netlist], None]


@dataclass(frozen=True)
class Execution:
    """A netlist that was executed, and what ran on it."""

    netlist: Netlist
    trace: ExecutionTrace
    activity: Activity
    """Without the timesteps that never began."""


def execute_stream(
    mapping: AnyMapping, activity: Activity, execute: Execute, prepare: Prepare | None = None
) -> Execution:
    """Build the netlist of an activity and execute it, with every sample ending where it is decided.

    Args:
        mapping: The network on the chip.
        activity: What happened in the network, in all timesteps.
        execute: Runs a netlist.
        prepare: Changes the netlist before it is run.

    Raises:
        MappingError: A buffer is too small.
        SimulationError: The execution failed.
    """
    if activity.exits is None or not isinstance(mapping.hardware, Hardware):
        return _once(mapping, activity, execute, prepare)
    policy = mapping.hardware.mapping.early_exit
    if policy == "wait":
        return _once(mapping, activity.cut(activity.exits), execute, prepare)
    search = _Search(activity, policy == "squash", _are_alike(mapping))
    for _ in range(4 * activity.n_samples * activity.n_timesteps):
        done = _once(mapping, activity.cut(search.begun), execute, _both(prepare, search.stop))
        if search.is_settled_by(done):
            return done
    raise SimulationError(
        f"which timesteps begin with mapping.early_exit: {policy} could not be settled; set it to wait"
    )


def _are_alike(mapping: AnyMapping) -> bool:
    """Whether any two timesteps begin alike: none that comes first enters, or is read, in another way."""
    return isinstance(mapping, Mapping) and not any(
        layer.layer.delayed or geometry.is_read_once(mapping, layer) for layer in mapping.layers
    )


def decided_ps(done: Execution, exits: np.ndarray) -> np.ndarray:
    """When the last timestep of every sample that counts has left by the output port, int64."""
    found = np.zeros(len(exits), np.int64)
    for lane, times in zip(done.netlist.lanes(), done.trace.lanes, strict=True):
        if any(lane is output for output in done.netlist.output_lanes):
            sample, step = frames_of(lane)
            counts = step < exits[sample]
            np.maximum.at(found, sample[counts], times.leave_ps[counts])
    return found


def first_starts_ps(done: Execution) -> np.ndarray:
    """When the first service of every timestep starts, int64, (sample, step); at the end of time for those without."""
    found = np.full((done.activity.n_samples, done.activity.n_timesteps), np.iinfo(np.int64).max)
    for lane, times in zip(done.netlist.lanes(), done.trace.lanes, strict=True):
        if lane.actions and lane.steps == (0, done.activity.n_timesteps):  # others only ask for what comes next
            np.minimum.at(found, frames_of(lane), times.start_ps)
    return found


def frames_of(lane: Lane) -> tuple[np.ndarray, np.ndarray]:
    """Sample and timestep of every token of a lane, int64."""
    labels = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
    sample, step = np.divmod(labels // lane.positions, lane.steps[1])
    return sample, step + lane.steps[0]


def _once(mapping: AnyMapping, activity: Activity, execute: Execute, prepare: Prepare | None) -> Execution:
    netlist = build_netlist(mapping, activity)
    if prepare is not None:
        prepare(netlist)
    return Execution(netlist, execute(netlist), activity)


def _both(first: Prepare | None, second: Prepare) -> Prepare:
    def prepare(netlist: Netlist) -> None:
        if first is not None:
            first(netlist)
        second(netlist)

    return prepare


class _Search:
    """Looks for the timesteps that samples begin, and for the services that are stopped.

    A timestep that comes too late in an execution does so in every other one with the same history: the timesteps that
    the samples before it begin, and what is stopped of them. Without such a proof a sample is given all its timesteps.
    Where timesteps are alike, the next sample's first one shows when one more of this sample would have come.
    """

    def __init__(self, activity: Activity, stops: bool, are_alike: bool) -> None:
        assert activity.exits is not None, "asked for samples that end by themselves"
        self.exits, self._n_timesteps = activity.exits, activity.n_timesteps
        self._stops, self._are_alike = stops, are_alike
        self.begun = np.full(activity.n_samples, activity.n_timesteps)
        """Timesteps that every sample begins in the next execution."""
        self._alive: list[np.ndarray] = []
        """Of every lane the tokens of each sample that are served then; empty before the first execution."""
        self._proofs: dict[int, tuple[int, bytes]] = {}
        """Of samples, how many timesteps begin in time, and the history with which the next one comes too late."""

    def stop(self, netlist: Netlist) -> None:
        """Let stopped services do nothing and take no time."""
        for lane, counts in zip(netlist.lanes(), self._alive, strict=False):
            number, sample = _numbered(lane)
            served = number < counts[sample]
            if not served.all():
                _stop(lane, served)

    def is_settled_by(self, done: Execution) -> bool:
        """Take in an execution; returns whether its own times confirm what began and what was stopped."""
        starts, decided = first_starts_ps(done), decided_ps(done, self.exits)
        following = self._following(starts, decided)
        alive = self._served(done, decided) if self._stops else self._alive
        same_stops = len(alive) == len(self._alive) and all(map(np.array_equal, alive, self._alive))
        is_settled = same_stops and bool((following == self.begun).all())
        self.begun, self._alive = following, alive
        return is_settled

    def _following(self, starts: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Timesteps that begin by the times of an execution, all of a sample's where nothing proves that fewer do."""
        in_time = (np.arange(self._n_timesteps) < self.exits[:, None]) | (starts <= decided[:, None])
        following = np.minimum(in_time.cumprod(axis=1).sum(axis=1), self.begun)
        for sample in np.flatnonzero(following < self._n_timesteps).tolist():
            proof = int(following[sample]), self._history(sample)
            if following[sample] < self.begun[sample]:
                self._proofs[sample] = proof
            shows = self._are_alike and sample + 1 < len(starts) and starts[sample + 1, 0] > decided[sample]
            if not shows and self._proofs.get(sample) != proof:
                following[sample] = self._n_timesteps
        return following

    def _history(self, sample: int) -> bytes:
        """What the execution that was just done had before a sample."""
        return self.begun[:sample].tobytes() + b"".join(counts[:sample].tobytes() for counts in self._alive)

    def _served(self, done: Execution, decided: np.ndarray) -> list[np.ndarray]:
        """Tokens of each sample that every lane serves by the times of an execution."""
        counts = []
        for lane, times in zip(done.netlist.lanes(), done.trace.lanes, strict=True):
            sample, step = frames_of(lane)
            served = (step < self.exits[sample]) | (times.start_ps <= decided[sample])
            counts.append(np.bincount(sample[served], minlength=len(self.exits)))
        return counts


def _stop(lane: Lane, served: np.ndarray) -> None:
    """Let tokens of a lane that are not served do nothing, and on a wire only keep their place.

    There they travel as long as the last served one before them is still ahead. What follows them on a shorter way (on
    an ideal NoC, where nobody waits for links) starts no sooner than it can without overtaking.
    """
    sent = np.arange(lane.n_tokens) if lane.emit is None else np.flatnonzero(lane.emit)
    wait_ps = np.zeros(lane.n_tokens, np.int64)
    if lane.wires and len(sent):
        is_served = served[sent]
        delays = np.stack([np.broadcast_to(wire.delay_ps, len(sent)) for wire in lane.wires])
        ahead = np.maximum(delays - lane.service_ps[sent], 0)
        last = np.maximum.accumulate(np.where(is_served, np.arange(len(sent)), -1))
        delays = np.where(is_served, delays, np.where(last < 0, 0, ahead[:, last]))
        sooner = np.maximum(-np.diff(delays, append=delays[:, -1:]), 0).max(axis=0)
        wait_ps[sent] = np.where(is_served, 0, sooner)
        lane.wires = tuple(replace(wire, delay_ps=delay) for wire, delay in zip(lane.wires, delays, strict=True))
    actions = [action.only(served) for action in lane.actions]
    if wait_ps.any():
        actions[0] = replace(actions[0], duration_ps=actions[0].duration_ps + wait_ps)
    lane.actions = tuple(actions)


def _numbered(lane: Lane) -> tuple[np.ndarray, np.ndarray]:
    """Number of every token among those of its sample, and the sample."""
    sample, _ = frames_of(lane)
    return np.arange(len(sample)) - np.searchsorted(sample, sample), sample

"""What limits designs of a front: each is simulated again, and its critical path summed by kind and layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archsim.analysis.critical_path import latency_stack
from archsim.errors import ArchsimError
from archsim.sweeps.evaluation import Job, Task, simulate_point

MAX_BOTTLENECKS = 12
"""Designs that are looked at; each costs a simulation with its critical path."""


@dataclass(frozen=True)
class Bottleneck:
    """The part of the critical path of the first sample that is longest."""

    point: int
    kind: str
    layer: str
    share: float
    latency_ps: int


def bottlenecks(
    job: Job, tasks: Sequence[Task], progress: Callable[[str, float], None] | None = None
) -> list[Bottleneck]:
    """Bottlenecks of the first points, without those whose workload is not what it was.

    Args:
        job: What all points have in common.
        tasks: The points, the most interesting first.
        progress: Called with a phase's name and the fraction of it that is done.
    """
    found = []
    for number, task in enumerate(tasks[:MAX_BOTTLENECKS]):
        if progress is not None:
            progress("bottlenecks", number / min(len(tasks), MAX_BOTTLENECKS))
        try:
            result = simulate_point(job, task)
        except ArchsimError:  # it was simulated once, so its files must have changed; its record stands
            continue
        stack = latency_stack(result)
        sums = stack.groupby(["kind", "layer"], sort=True)["duration_ps"].sum()
        kind, layer = sums.idxmax()
        share = float(sums.max()) / max(int(sums.sum()), 1)
        found.append(Bottleneck(task.point.index, str(kind), str(layer), share, int(sums.sum())))
    return found

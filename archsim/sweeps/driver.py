"""Drives points through workers: batches of about a second, each record kept when it comes back, nothing lost.

A batch that is lost with its worker is evaluated again, its points one by one and alone, so that a point that kills
its worker is found out and becomes a failed record, while the others never notice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Any

from archsim.errors import SimulationError
from archsim.sweeps.evaluation import Answer, Job, Task, evaluate_batch
from archsim.sweeps.store import FAILED, Record, Store, failure
from archsim.sweeps.workers import Workers

BATCH_SECONDS = 1.0
"""Work of a batch: long against the way to the worker and back, short enough to lose."""
MAX_BATCH = 64
MAX_DEATHS = 3
"""Workers that may die over a single point before it counts as failed."""
MAX_STILLBORN = 4
"""Times that all workers may die before the first of them has answered."""

Kept = Callable[[Task, Record], None]


@dataclass
class Driver:
    """Evaluates tasks; `kept` is told of every record once it is in the store."""

    job: Job
    store: Store
    workers: Workers
    kept: Kept
    _waiting: deque[Task] = field(default_factory=deque)
    _suspects: deque[Task] = field(default_factory=deque)
    """Points that were on a worker when it died; they go one at a time, alone."""
    _deaths: dict[str, int] = field(default_factory=dict)
    _flying: dict[Future[Answer], list[Task]] = field(default_factory=dict)
    _seconds_per_point: float | None = None
    _n_stillborn: int = 0

    def run(self, tasks: Iterable[Task]) -> None:
        """Evaluate all tasks.

        Raises:
            ConfigError: A record cannot be written.
            SimulationError: Workers die as they start, or an executor of the caller's is broken.
        """
        self._waiting.extend(tasks)
        while self._waiting or self._suspects or self._flying:
            self._send()
            self.collect()

    def give(self, task: Task) -> None:
        """Send one point at once, alone; `collect` takes what comes back."""
        self._waiting.append(task)
        self._send()

    @property
    def n_flying(self) -> int:
        """Points that are being evaluated, or wait for it."""
        return sum(map(len, self._flying.values())) + len(self._suspects) + len(self._waiting)

    def collect(self) -> None:
        """Wait for the next batch that comes back, keep its records, and send what can be sent."""
        done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        lost: list[Task] = []
        is_broken = False
        for future in sorted(done, key=lambda item: list(self._flying).index(item)):
            tasks = self._flying.pop(future)
            error = future.exception()
            if error is None:
                self._keep(tasks, future.result())
            else:
                lost += tasks
                is_broken |= isinstance(error, BrokenExecutor)
        if is_broken:
            lost += [task for tasks in self._flying.values() for task in tasks]
            self._flying.clear()
        if lost:
            self._lost(lost, is_broken)
        self._send()

    def _keep(self, tasks: list[Task], answer: Answer) -> None:
        self._n_stillborn = 0
        each = answer.seconds / len(tasks)
        before = self._seconds_per_point
        self._seconds_per_point = each if before is None else 0.5 * (before + each)
        for task, record in zip(tasks, answer.records, strict=True):
            self.store.write(record)
            self.kept(task, record)

    def _lost(self, tasks: list[Task], is_broken: bool) -> None:
        """Workers died over these points."""
        self._n_stillborn += 1
        if is_broken and (not self.workers.rebuild() or self._n_stillborn > MAX_STILLBORN):
            raise SimulationError(
                "the processes that evaluate points die as they start, or their executor is broken; finished points "
                "are kept. In a script, call run_sweep under `if __name__ == '__main__':`."
            )
        for task in tasks:
            if len(tasks) == 1:
                self._deaths[task.key] = self._deaths.get(task.key, 0) + 1
            if self._deaths.get(task.key, 0) < MAX_DEATHS:
                self._suspects.append(task)
                continue
            record = failure(task.key, f"its worker died {MAX_DEATHS} times: killed, or out of memory")
            self.store.write(record)
            self.kept(task, record)

    def _send(self) -> None:
        """Keep two batches per worker on their way; a suspect goes when nothing else does."""
        if self._suspects:
            if not self._flying:
                self._submit([self._suspects.popleft()])
            return
        while self._waiting and len(self._flying) < 2 * self.workers.n_workers:
            size = min(self._batch_size(), len(self._waiting))
            self._submit([self._waiting.popleft() for _ in range(size)])

    def _batch_size(self) -> int:
        """Points of about a second; single ones before the first answer, and fewer towards the end."""
        if not self._seconds_per_point:
            return 1
        fair = len(self._waiting) // (2 * self.workers.n_workers)
        return max(1, min(int(BATCH_SECONDS / self._seconds_per_point), fair, MAX_BATCH))

    def _submit(self, tasks: list[Task]) -> None:
        try:
            future = self.workers.submit(evaluate_batch, self.job, tasks)
        except BrokenExecutor as err:  # workers died since the last answer
            future = Future()
            future.set_exception(err)
        self._flying[future] = tasks


@dataclass
class Tally:
    """How far a sweep is."""

    total: int | None
    """Points in all; None where time is the limit."""
    objective: str
    """The first objective, whose best value is shown."""
    maximizes: bool
    done: int = 0
    failed: int = 0
    new: int = 0
    """Points of this call; the others were there before."""
    began_s: float = field(default_factory=time.monotonic)
    best: tuple[Any, int] | None = None
    """Best value of the objective so far, and its point."""

    @property
    def points_per_s(self) -> float:
        """Rate of this call."""
        return self.new / max(time.monotonic() - self.began_s, 1e-9)

    @property
    def remaining_s(self) -> float | None:
        """Time to the end at this rate; None before the first point, and where no number of points is the end."""
        return (self.total - self.done) / self.points_per_s if self.new and self.total is not None else None

    def words(self) -> str:
        """How far, how fast, how long, and what is best so far."""
        parts = [f"{self.done} of {self.total} points" if self.total is not None else f"{self.done} points"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.new:
            parts.append(f"{self.points_per_s:.3g} per s")
        if self.remaining_s:
            parts.append(f"{_duration(self.remaining_s)} left")
        if self.best is not None:
            parts.append(f"best {self.objective} {self.best[0]:.6g} (point {self.best[1]})")
        return ", ".join(parts)

    def add(self, index: int, record: Record, is_new: bool) -> None:
        """Count the record of a point."""
        self.done += 1
        self.new += is_new
        self.failed += record["status"] == FAILED
        value = (record["summary"] or {}).get(self.objective)
        if value is not None and (
            self.best is None or (value > self.best[0] if self.maximizes else value < self.best[0])
        ):
            self.best = (value, index)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"

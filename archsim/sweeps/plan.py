"""What a sweep is about to do: its space, where records go, and how a point becomes a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from archsim.errors import ConfigError, WorkloadError
from archsim.sweeps.cache import DEFAULT_LIMIT_MIB
from archsim.sweeps.driver import Tally
from archsim.sweeps.evaluation import Job, Task, workload_of
from archsim.sweeps.identity import Base, base_of, point_key
from archsim.sweeps.space import Point, Space
from archsim.sweeps.store import Store


@dataclass(frozen=True)
class Plan:
    """A space, where its records go, and what workers need to know."""

    space: Space
    job: Job
    store: Store
    base: Base

    @classmethod
    def of(cls, space: Space, folder: Path, cache_mib: int = DEFAULT_LIMIT_MIB) -> Plan:
        """Plan of a space in a folder."""
        if cache_mib < 0:
            raise ConfigError(f"the cache's limit is {cache_mib} MiB; it must be at least 0")
        file = space.file
        job = Job(
            space.hardware,
            space.places,
            str(space.folder.absolute()),
            file.samples,
            file.chips,
            file.seed,
            str((folder / "cache").absolute()),
            cache_mib << 20,
        )
        return cls(space, job, Store(folder), base_of(space.hardware))

    def task(self, point: Point) -> Task:
        """A point with its key. A workload that cannot be loaded is hashed by its settings, and fails when it runs."""
        try:
            workload_hash = workload_of(self.job, point)[1]
        except WorkloadError as err:
            workload_hash = f"{point.workload} {sorted(point.settings)} {err}"
        job = self.job
        key = point_key(self.base, point.hardware, workload_hash, job.samples, job.chips, job.seed)
        return Task(key, point, workload_hash)

    def tally(self, total: int | None) -> Tally:
        """A count of points that shows the first objective."""
        objective, direction = next(iter(self.space.file.objectives.items()))
        return Tally(total, objective, direction == "maximize")

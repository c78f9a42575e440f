"""A sweep from its file to its table: `run_sweep`. What is in the store is not done again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from archsim.errors import ConfigError
from archsim.sweeps.cache import DEFAULT_LIMIT_MIB
from archsim.sweeps.driver import Driver, Tally
from archsim.sweeps.evaluation import Task
from archsim.sweeps.plan import Plan
from archsim.sweeps.space import Space, load_space
from archsim.sweeps.store import FAILED, Record, Store
from archsim.sweeps.table import collect, write_table
from archsim.sweeps.workers import Given, InProcess, Processes, Workers

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_FOLDER = Path("reports") / "sweeps"
Progress = Callable[[Tally], None]


def run_sweep(
    space: Space | str | Path | Mapping[str, object],
    executor: Executor | None = None,
    *,
    output: str | Path | None = None,
    jobs: int | None = None,
    retry_failed: bool = False,
    cache_mib: int = DEFAULT_LIMIT_MIB,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Simulate all points of a space that are not in its folder yet, and collect the table of all.

    A point that fails is a row with its error. Ending this call, or its process, loses at most the batches that were
    being evaluated; the same call goes on.

    Args:
        space: A sweep: shipped name, path, the content of a sweep file, or what `load_space` returned.
        executor: Evaluates batches of points, such as a Dask client's `get_executor()`; by default processes of this
            machine. A script that uses those needs `if __name__ == "__main__":` around this call.
        output: Folder of records and tables; by default `reports/sweeps/NAME`.
        jobs: Processes, or batches that the executor works on at a time; by default one per processor. With 1 and no
            executor, points are simulated in this process.
        retry_failed: Whether failed points are simulated again.
        cache_mib: Limit of the folder with work that points share.
        progress: Called after every point.

    Returns:
        One row per point, in the order of the space; see `archsim.sweeps.table`.

    Raises:
        ConfigError: The space is faulty, the folder cannot be written, or another sweep is at work in it.
        SimulationError: Workers cannot be started.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs is {jobs}; it must be at least 1")
    loaded = space if isinstance(space, Space) else load_space(space)
    if loaded.file.search is not None:
        from archsim.sweeps.search import search  # imports optuna

        run: Callable[..., Sequence[Task]] = search
    else:
        run = _all_points
    plan = Plan.of(loaded, Path(output) if output is not None else DEFAULT_FOLDER / loaded.file.name, cache_mib)
    with plan.store.held():
        sweep = loaded.file.model_dump(mode="json", exclude_defaults=True)
        plan.store.describe({"folder": str(loaded.folder.absolute()), "sweep": sweep})
        workers = _workers(executor, jobs)
        try:
            tasks = run(plan, workers, retry_failed, progress)
        finally:
            workers.stop()
        table = collect(plan.store, tasks, loaded.keys)
        write_table(table, plan.store.folder)
    return table.to_pandas()


def plan_of_folder(folder: Path) -> Plan:
    """Plan of the sweep whose records are in a folder.

    Raises:
        ConfigError: It is no sweep's folder, or the chip that was swept cannot be loaded any more.
    """
    described = Store(folder).description()
    return Plan.of(load_space(described["sweep"], folder=Path(described["folder"])), folder)


def tasks_of(plan: Plan) -> Sequence[Task]:
    """All points of a sweep, in order; of a search those that it proposed."""
    if plan.space.file.search is None:
        return [plan.task(point) for point in plan.space.points()]
    from archsim.sweeps.search import recorded_tasks  # imports optuna

    return recorded_tasks(plan)


def _all_points(plan: Plan, workers: Workers, retry_failed: bool, progress: Progress | None) -> Sequence[Task]:
    """Evaluate every point of the space that has no record."""
    tasks = tasks_of(plan)
    tally = plan.tally(len({task.key for task in tasks}))
    missing: dict[str, Task] = {}
    for key, task in {task.key: task for task in reversed(tasks)}.items():
        record = plan.store.read(key)
        if record is None or (retry_failed and record["status"] == FAILED):
            missing[key] = task
        else:
            tally.add(task.point.index, record, is_new=False)

    def kept(task: Task, record: Record) -> None:
        tally.add(task.point.index, record, is_new=True)
        if progress is not None:
            progress(tally)

    if progress is not None:
        progress(tally)
    Driver(plan.job, plan.store, workers, kept).run(reversed(missing.values()))
    return tasks


def _workers(executor: Executor | None, jobs: int | None) -> Workers:
    if executor is not None:
        return Given(executor, jobs or getattr(executor, "_max_workers", None) or n_processors())
    n_jobs = jobs or n_processors()
    return InProcess() if n_jobs == 1 else Processes(n_jobs)


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Dask as the executor of a sweep: on a scheduler that is running, or on processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from archsim.errors import ConfigError


@contextmanager
def dask_executor(scheduler: str | None, jobs: int) -> Iterator[tuple[Executor, int]]:
    """An executor and the number of batches that it works on at a time.

    Args:
        scheduler: Address such as `tcp://host:8786`, or the path of a scheduler file; None: processes of this machine.
        jobs: How many processes, where there is no scheduler.

    Raises:
        ConfigError: Dask is not installed, or the scheduler cannot be reached.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as err:
        raise ConfigError("--executor dask needs the package distributed: pip install 'archsim[dask]'") from err
    if scheduler is None:
        with (
            LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as own,
        ):
            yield own.get_executor(pure=False), jobs
        return
    is_file = scheduler.endswith(".json")
    try:
        client = Client(scheduler_file=scheduler) if is_file else Client(scheduler)
    except (OSError, ValueError) as err:
        raise ConfigError(f"--scheduler {scheduler}: cannot be reached ({err})") from err
    with client:
        yield client.get_executor(pure=False), max(1, sum(client.ncores().values()))

"""Where batches of points are evaluated: in this process, in processes of this machine, or by anybody's executor.

Processes of this machine hold the reading end of a pipe whose writing end only the parent has. When it closes, because
the parent ends, however it does, or wants them gone, they exit at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Protocol


class Workers(Protocol):
    """Something that evaluates batches."""

    n_workers: int

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called."""

    def rebuild(self) -> bool:
        """Replace dead workers; False where somebody else has to."""

    def stop(self) -> None:
        """Let go of what was not begun, and of the workers if they are ours."""


class InProcess:
    """This process, one batch after the other."""

    n_workers = 1

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call the function now."""
        future: Future[Any] = Future()
        future.set_result(call(*arguments))
        return future

    def rebuild(self) -> bool:
        """Nothing can die here but everything."""
        return False

    def stop(self) -> None:
        """Nothing is ever left."""


class Processes:
    """Processes of this machine, one thread each.

    They are started afresh instead of forked, so that they hold nothing of the parent's, and import the parent's main
    module: a script that sweeps needs `if __name__ == "__main__":` around it.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._start()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a process call the function."""
        return self._pool.submit(call, *arguments)

    def rebuild(self) -> bool:
        """Start all processes anew."""
        self.stop()
        self._start()
        return True

    def stop(self) -> None:
        """End the processes, in the middle of whatever they do."""
        self._lifeline.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._end.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, self._lifeline = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.n_workers, context, _begin, (self._end,))


class Given:
    """An executor that the caller made, such as that of a Dask client."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self.n_workers = n_workers
        self._executor = executor
        self._futures: set[Future[Any]] = set()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have the executor call the function."""
        future = self._executor.submit(call, *arguments)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def rebuild(self) -> bool:
        """Its maker's business."""
        return False

    def stop(self) -> None:
        """Cancel what was not begun; the executor stays its maker's."""
        for future in list(self._futures):
            future.cancel()


def _begin(lifeline: Connection) -> None:
    """Make a fresh process a worker: one thread, deaf to Ctrl-C, which is the parent's, and gone with the parent."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch and numpy's libraries are loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(lifeline,), daemon=True).start()


def _follow(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)

"""What one point of a sweep is: a chip, a workload, and the record of a run. Runs in whatever process it is called in.

A process keeps the workloads and activities that it used last, so that points that share them pay for them once.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from archsim.activity import Activity
from archsim.engine.platforms import check_buffers
from archsim.engine.simulation import simulate_activity
from archsim.errors import ArchsimError, ConfigError
from archsim.hardware.reader import change_hardware
from archsim.hardware.systolic import AnyHardware
from archsim.inference import infer
from archsim.mapping import AnyMapping, map_network
from archsim.result import Result
from archsim.sweeps.activities import activity_key, activity_of, arrays_of
from archsim.sweeps.axes import Value
from archsim.sweeps.cache import Cache
from archsim.sweeps.identity import content_hash
from archsim.sweeps.measures import MEASURES
from archsim.sweeps.space import Point
from archsim.sweeps.store import Record, failure, success
from archsim.workload.generators import is_generator
from archsim.workload.loader import load_workload
from archsim.workload.model import Workload

V = TypeVar("V")
_LOG = logging.getLogger(__name__)

_N_WORKLOADS = 8
_N_ACTIVITIES = 4
"""Kept per process, the least recently used goes; an activity of VGG16 takes some 100 MB."""


@dataclass(frozen=True)
class Job:
    """What all points of a sweep have in common, as a worker needs it."""

    hardware: AnyHardware
    places: dict[str, str]
    """Workload -> shipped name or path."""
    folder: str
    """Where a file that `workload.input` names lies, if not here."""
    samples: int
    chips: int
    seed: int
    cache_folder: str
    cache_limit_bytes: int


@dataclass(frozen=True)
class Task:
    """A point that is to be evaluated."""

    key: str
    point: Point
    workload_hash: str


@dataclass(frozen=True)
class Answer:
    """Records of a batch, in its order, and the seconds that they took."""

    records: list[Record]
    seconds: float


def evaluate_batch(job: Job, tasks: Sequence[Task]) -> Answer:
    """Evaluate points one after the other; what goes wrong with one of them is its record."""
    began = time.perf_counter()
    return Answer([evaluate(job, task) for task in tasks], time.perf_counter() - began)


def evaluate(job: Job, task: Task) -> Record:
    """Simulate one point; an error becomes a failed record."""
    try:
        summary = simulate_point(job, task).summary
    except ArchsimError as err:
        return failure(task.key, f"{type(err).__name__}: {err}")
    except MemoryError:
        return failure(task.key, "MemoryError: the machine's memory does not suffice for this point")
    except Exception as err:  # a fault of archsim in one point must not end the other points
        _LOG.exception("point %d", task.point.index)
        return failure(task.key, f"fault of archsim: {type(err).__name__}: {err}")
    return success(task.key, {name: summary[name] for name in MEASURES})


def simulate_point(job: Job, task: Task) -> Result:
    """Simulate one point.

    Raises:
        ConfigError: The chip is not possible, or the workload's files changed since the sweep began.
        MappingError: The network does not fit.
        WorkloadError: The workload cannot be loaded or has too few samples.
        SimulationError: The run failed.
    """
    workload, found_hash = workload_of(job, task.point)
    if found_hash != task.workload_hash:
        raise ConfigError(
            f"workload '{task.point.workload}' is not the same here as where the sweep began; "
            "do not change its files while a sweep runs, and give all machines the same"
        )
    hardware = change_hardware(job.hardware, task.point.hardware)
    mapping = map_network(hardware, workload)
    check_buffers(mapping)
    activity = _activity(job, mapping, workload, task.workload_hash)
    return simulate_activity(mapping, workload, activity, job.seed)


def workload_of(job: Job, point: Point) -> tuple[Workload, str]:
    """The workload of a point with its settings, and the hash of its content.

    Raises:
        WorkloadError: It cannot be loaded.
    """
    settings = tuple(sorted(point.settings.items(), key=lambda item: item[0]))
    place = job.places[point.workload]
    return _WORKLOADS.get(
        (place, tuple((key, repr(value)) for key, value in settings), job.folder, job.samples, job.seed),
        lambda: _loaded(job, place, dict(settings)),
    )


def _loaded(job: Job, place: str, settings: dict[str, Value]) -> tuple[Workload, str]:
    given: Any = settings.pop("input", None)
    timesteps: Any = settings.pop("timesteps", None)
    if given is not None and (Path(job.folder) / str(given)).is_file():
        given = Path(job.folder) / str(given)
    is_generated = given is not None and not Path(str(given)).exists() and is_generator(str(given))
    samples = job.samples if is_generated else None
    workload = load_workload(place, given, timesteps, settings, samples=samples, seed=job.seed)
    return workload, content_hash(workload)


def _activity(job: Job, mapping: AnyMapping, workload: Workload, workload_hash: str) -> Activity:
    """The activity of a point; where it takes a network with weights to find it, from the cache of all processes.

    Points with different activities may still share crossbars, such as those that differ in their converters.
    """
    key = activity_key(mapping.hardware, workload_hash, job.samples, job.chips, job.seed)

    def found() -> Activity:
        return infer(mapping, workload, job.samples, job.seed, job.chips)

    def inferred(cache: Cache) -> Activity:
        from archsim.analog.solved import solved_circuits_in  # imports torch

        with solved_circuits_in(lambda circuit, solve: cache.arrays("circuits", circuit, solve)):
            return found()

    def shared() -> Activity:
        if workload.recording is not None or not workload.network.has_weights:
            return found()
        cache = Cache(Path(job.cache_folder), job.cache_limit_bytes)
        return activity_of(cache.arrays("activity", key, lambda: arrays_of(inferred(cache))))

    return _ACTIVITIES.get(key, shared)


class _Recent(Generic[V]):
    """The values that were used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """Value of a key, made where it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        with self._lock:
            self._values[key] = made
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return made


_WORKLOADS: _Recent[tuple[Workload, str]] = _Recent(_N_WORKLOADS)
_ACTIVITIES: _Recent[Activity] = _Recent(_N_ACTIVITIES)

"""Adaptive search: Optuna proposes points in view of what earlier ones gave; store, workers and table are the same.

The study lives in `search.journal` in the sweep's folder. A search that was stopped goes on with what it knows: points
that were on their way are evaluated first, then it proposes until the budget is used up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from archsim.errors import ConfigError
from archsim.sweeps.axes import Axis, Range, Value
from archsim.sweeps.driver import Driver, Tally
from archsim.sweeps.evaluation import Task
from archsim.sweeps.plan import Plan
from archsim.sweeps.store import FAILED, Record
from archsim.sweeps.workers import Workers

JOURNAL = "search.journal"
MAX_EXCLUDED = 100
"""Proposals in a row that constraints may exclude."""
_EXCLUDED = "excluded"
_POPULATION = (8, 50)
"""Bounds of NSGA-II's population, which is an eighth of the points; Optuna's own default is 50."""


def search(
    plan: Plan, workers: Workers, retry_failed: bool, progress: Callable[[Tally], None] | None
) -> Sequence[Task]:
    """Search until the budget of the space is used up; returns all points of the study.

    Raises:
        ConfigError: Optuna is not installed, or the constraints exclude (nearly) everything.
    """
    optuna = _optuna()
    wanted, axes = plan.space.file.search, plan.space.axes
    assert wanted is not None, "only spaces with a search are searched"
    study = _study(plan)
    tally = plan.tally(wanted.points)
    trials: dict[str, list[int]] = {}
    """Trials that wait for the record of a key."""
    states = optuna.trial.TrialState

    def tell(number: int, record: Record) -> None:
        values = [(record["summary"] or {}).get(name) for name in plan.space.file.objectives]
        if None in values:
            study.tell(number, state=states.FAIL)
        else:
            study.tell(number, values)

    def kept(task: Task, record: Record) -> None:
        for number in trials.pop(task.key, []):
            tell(number, record)
            tally.add(task.point.index, record, is_new=True)
        if progress is not None:
            progress(tally)

    driver = Driver(plan.job, plan.store, workers, kept)

    def give(number: int, values: dict[str, Value]) -> None:
        task = plan.task(plan.space.point(number, values))
        record = plan.store.read(task.key)
        if record is not None:
            tell(number, record)
            tally.add(number, record, is_new=False)
            return
        is_flying = task.key in trials
        trials.setdefault(task.key, []).append(number)
        if not is_flying:
            driver.give(task)

    unfinished = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == states.RUNNING:
            unfinished.append((trial.number, _values(axes, trial.params)))
        elif _EXCLUDED not in trial.user_attrs:
            record = plan.store.read(plan.task(plan.space.point(trial.number, _values(axes, trial.params))).key)
            if record is not None:
                tally.add(trial.number, record, is_new=False)
    n_begun = tally.done + len(unfinished)
    for number, values in unfinished:
        give(number, values)
    deadline = None if wanted.minutes is None else time.monotonic() + 60 * wanted.minutes
    while (wanted.points is None or n_begun < wanted.points) and (deadline is None or time.monotonic() < deadline):
        if driver.n_flying >= workers.n_workers:
            driver.collect()
            continue
        number, values = _proposal(study, plan)
        n_begun += 1
        give(number, values)
    while driver.n_flying:
        driver.collect()
    tasks = _tasks(plan, study)
    if retry_failed:
        again = {task.key: task for task in tasks if (plan.store.read(task.key) or {}).get("status") == FAILED}
        driver.run(again.values())
    return tasks


def recorded_tasks(plan: Plan) -> Sequence[Task]:
    """Points of a search that ran in the plan's folder."""
    _optuna()
    return _tasks(plan, _study(plan))


def _tasks(plan: Plan, study: Any) -> list[Task]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if _EXCLUDED not in trial.user_attrs]
    return [plan.task(plan.space.point(trial.number, _values(plan.space.axes, trial.params))) for trial in trials]


def _proposal(study: Any, plan: Plan) -> tuple[int, dict[str, Value]]:
    """The next trial whose point satisfies the constraints."""
    axes = plan.space.axes
    distributions = {_name(axis): _distribution(axis) for axis in axes}
    for _ in range(MAX_EXCLUDED):
        trial = study.ask(distributions)
        values = _values(axes, trial.params)
        if plan.space.broken_by(values) is None:
            return trial.number, values
        trial.set_user_attr(_EXCLUDED, True)
        study.tell(trial, state=_optuna().trial.TrialState.FAIL)
    raise ConfigError(
        f"sweep '{plan.space.file.name}': constraints exclude {MAX_EXCLUDED} proposals in a row; "
        "loosen them or widen the axes"
    )


def _study(plan: Plan) -> Any:
    optuna = _optuna()
    wanted = plan.space.file.search
    assert wanted is not None, "only spaces with a search have a study"
    samplers = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=wanted.seed, population_size=_population(wanted.points)),
        "tpe": lambda: optuna.samplers.TPESampler(seed=wanted.seed),
    }
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(plan.store.folder / JOURNAL))
    )
    objectives = plan.space.file.objectives
    return optuna.create_study(
        storage=storage,
        study_name=f"{wanted.method} {sorted(objectives)} {[_name(axis) for axis in plan.space.axes]}",
        directions=list(objectives.values()),
        sampler=samplers[wanted.method](),
        load_if_exists=True,
    )


def _population(points: int | None) -> int:
    least, most = _POPULATION
    return most if points is None else min(most, max(least, points // 8))


def _distribution(axis: Axis) -> Any:
    """What Optuna draws for an axis: a value of a continuous range, the place in an ordered list, or any place."""
    distributions = _optuna().distributions
    if axis.is_continuous and isinstance(axis.cells, Range):
        kind = distributions.IntDistribution if axis.cells.is_whole else distributions.FloatDistribution
        return kind(axis.cells.low, axis.cells.high, log=axis.cells.scale == "log")
    listed = axis.listed
    numbers = [cell[0] for cell in listed if isinstance(cell[0], int | float) and not isinstance(cell[0], bool)]
    if len(numbers) == len(listed) and numbers == sorted(numbers):
        return distributions.IntDistribution(0, len(listed) - 1)
    return distributions.CategoricalDistribution(tuple(range(len(listed))))


def _values(axes: Sequence[Axis], params: dict[str, Any]) -> dict[str, Value]:
    """Values of keys for what Optuna drew."""
    values: dict[str, Value] = {}
    for axis in axes:
        drawn = params[_name(axis)]
        cell = (drawn,) if axis.is_continuous else axis.listed[drawn]
        values |= dict(zip(axis.keys, cell, strict=True))
    return values


def _name(axis: Axis) -> str:
    return ", ".join(axis.keys)


def _optuna() -> Any:
    try:
        import optuna  # an extra, and heavy
    except ImportError as err:
        raise ConfigError("an adaptive search needs the package optuna: pip install 'archsim[search]'") from err
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

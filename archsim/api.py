"""The public functions, as a script or notebook uses them: load, map, infer, simulate, report.

    import archsim
    hardware = archsim.load_hardware("spikesim-rram-64", {"tile.pe.adc.bits": 5})
    workload = archsim.load_workload("digits-cnn")
    result = archsim.simulate(hardware, workload)
    print(result.summary["latency_ps"], result.components)

Nothing heavy is imported before it is needed: torch comes with `infer`, pandas with the tables.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping as Table
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from archsim.activity import Activity
from archsim.analysis.training_energy import training_energy
from archsim.engine.platforms import check_buffers
from archsim.engine.simulation import Progress, require_engine, simulate_activity
from archsim.errors import ConfigError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware
from archsim.hardware.systolic import AnyHardware, SystolicArray
from archsim.inference import infer as run_inference
from archsim.inference import record_ideal, recording_of
from archsim.mapping import AnyMapping, Mapping, map_network
from archsim.result import CHANGES, FINDINGS, FORMAT_VERSION, Result, write_json, write_together
from archsim.sweeps.run import run_sweep
from archsim.sweeps.space import load_space
from archsim.workload.loader import load_workload
from archsim.workload.model import Recording, Workload

if TYPE_CHECKING:
    import pandas as pd

    from archsim.analysis.robustness import Robustness

__all__ = [
    "Activity",
    "Hardware",
    "Mapping",
    "Result",
    "SystolicArray",
    "Workload",
    "compare",
    "critical_path",
    "explain",
    "explanation",
    "findings",
    "infer",
    "load_hardware",
    "load_space",
    "load_workload",
    "map_network",
    "record",
    "repeat_run",
    "robustness",
    "run_sweep",
    "simulate",
    "split_overrides",
    "training_energy",
    "what_if",
    "write_comparison",
    "write_explanation",
    "write_report",
    "write_timeline",
]

WORKLOAD_PREFIX = "workload."

Change = Table[str, object]
"""Hardware keys with new values, all changed together."""


def infer(
    mapping: AnyMapping,
    workload: Workload,
    samples: int = 1,
    seed: int = 0,
    chips: int = 1,
    progress: Progress | None = None,
) -> Activity:
    """Run the network through the analog core of the mapped chip and record its activity; replay a trace."""
    return run_inference(mapping, workload, samples, seed, chips, progress)


def record(workload: Workload, hardware: AnyHardware | None = None, samples: int = 1, seed: int = 0) -> Recording:
    """Record a workload's spikes: those of the ideal network, or of the network on a chip.

    Write it with `archsim.workload.trace.write_trace`; a loaded trace is simulated like any workload.
    """
    if hardware is None:
        return record_ideal(workload, samples, seed)
    return recording_of(infer(map_network(hardware, workload), workload, samples, seed), workload)


def simulate(
    hardware: AnyHardware,
    workload: Workload,
    samples: int = 1,
    seed: int = 0,
    engine: str = "auto",
    chips: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Simulate a workload on a chip.

    Args:
        hardware: The chip.
        workload: Network and input, or a trace.
        samples: Samples whose timing is simulated, back to back; accuracy uses all that there are.
        seed: Seed of everything random.
        engine: `simpy`, `compiled` (the same result, sooner), or `auto`, which picks by the number of services.
        chips: Chips, each with devices of its own, whose accuracy is evaluated; timing is that of the first.
        progress: Called with a phase's name and the fraction of it that is done.

    Raises:
        ConfigError: The engine is not known.
        MappingError: The network does not fit.
        WorkloadError: The input has fewer samples than asked for.
        SimulationError: The run failed.
    """
    require_engine(engine)
    mapping = map_network(hardware, workload)
    check_buffers(mapping)
    began = time.perf_counter()
    activity = infer(mapping, workload, samples, seed, chips, progress)
    inferred = time.perf_counter()
    result = simulate_activity(mapping, workload, activity, seed, engine, progress)
    result.wall_clock |= {
        "inference_s": round(inferred - began, 3),
        "simulation_s": round(time.perf_counter() - inferred, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    return result


def critical_path(result: Result, sample: int = 0) -> pd.DataFrame:
    """Why a sample took as long as it did: segments that sum to its latency; see `archsim.analysis.critical_path`."""
    from archsim.analysis.critical_path import critical_path as path_of

    return path_of(result, sample)


def robustness(
    hardware: Hardware,
    workload: Workload,
    budget: float = 0.01,
    samples: int = 120,
    chips: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    retrain_epochs: int = 10,
) -> Robustness:
    """Where errors come from, how large crossbars may be, what helps; see `archsim.analysis.robustness.robustness`.

    The network is also retrained on the chip for `retrain_epochs`, unless that is 0; see `archsim.training.retrain`.
    """
    from archsim.analysis.robustness import robustness as find  # imports torch when it runs
    from archsim.training.retraining import Retraining

    if retrain_epochs < 0:
        raise ConfigError(f"retrain_epochs is {retrain_epochs}; it must be at least 1, or 0 for no retraining")
    tuner = Retraining(retrain_epochs) if retrain_epochs else None
    return find(hardware, workload, budget, samples, chips, seed, progress, tuner)


def what_if(
    result: Result, changes: Change | Sequence[Change] | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """What changes of the chip would do, each simulated; see `archsim.analysis.what_if.what_if`."""
    from archsim.analysis.what_if import what_if as try_changes

    return try_changes(result, changes, progress)


def findings(result: Result) -> list[dict[str, Any]]:
    """What limits a run whose changes were tried (`result.changes = what_if(result)`), and what to change first."""
    from archsim.analysis.findings import findings as found

    return found(result)


def repeat_run(result: Result, progress: Progress | None = None) -> Result:
    """Simulate a loaded run again and check that it is the same; see `archsim.analysis.repeat.repeat_run`."""
    from archsim.analysis.repeat import repeat_run as repeat

    return repeat(result, progress)


def explain(result: Result, progress: Progress | None = None) -> Result:
    """Find out what limits a run, or a loaded one, which is repeated first, and how efficient it is.

    What it finds is kept in `result.changes` and `result.efficiency`; `findings`, `write_report` and
    `write_explanation` tell it.

    Returns:
        The run with its spikes and waits at hand, as `repeat_run` gives it.

    Raises:
        ConfigError: As `repeat_run` and `what_if`.
    """
    from archsim.analysis.efficiency import efficiency

    repeated = repeat_run(result, progress)
    result.changes = what_if(repeated, progress=progress)
    result.efficiency = efficiency(repeated)
    return repeated


def explanation(result: Result) -> dict[str, Any]:
    """What `explain` found as one document.

    Keys: `findings`; `n_anomalies`, tried changes that make nothing slower and the run longer; `efficiency`;
    `neurobench` (metrics by NeuroBench's names).
    """
    from archsim.analysis.efficiency import neurobench
    from archsim.analysis.findings import n_anomalies

    found: dict[str, Any] = {"findings": findings(result), "n_anomalies": n_anomalies(result)}
    found |= {"efficiency": result.efficiency, "neurobench": neurobench(result.summary)}
    return {"format_version": FORMAT_VERSION, **found}


def write_explanation(result: Result, path: str | Path) -> None:
    """Write into a run's folder what `explain` found, and its reports: all files, or none.

    The files: `what_if.csv`, `findings.json`, `report.html`, `report.md`.

    Raises:
        ConfigError: The folder cannot be written.
    """

    def write(folder: Path) -> None:
        if result.changes is not None:
            result.changes.to_csv(folder / CHANGES, index=False, lineterminator="\n")
        if result.changes is not None or result.efficiency is not None:
            write_json(folder / FINDINGS, explanation(result))
        for name in ("report.html", "report.md"):
            write_report(result, folder / name)

    write_together(Path(path), write)


def compare(before: Result, after: Result) -> dict[str, Any]:
    """What differs between two runs, and in which component and layer; see `archsim.analysis.compare.compare`."""
    from archsim.analysis.compare import compare as find

    return find(before, after)


def write_comparison(found: Table[str, Any], labels: tuple[str, str], path: str | Path) -> None:
    """Write what `compare` found into a folder as `compare.html`, `compare.md` and `compare.json`: all, or none.

    Args:
        found: What differs.
        labels: What the two runs are called.
        path: Folder; made if missing.

    Raises:
        ConfigError: The folder cannot be written.
    """
    from archsim.report.compare_page import compare_page
    from archsim.report.html import render_html
    from archsim.report.markdown import render_markdown

    page = compare_page(found, labels)

    def write(folder: Path) -> None:
        for name, text in (("compare.html", render_html(page)), ("compare.md", render_markdown(page))):
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        write_json(folder / "compare.json", {"format_version": FORMAT_VERSION, **found})

    write_together(Path(path), write)


def write_report(result: Result, path: str | Path) -> None:
    """Write the report of a run as one file: Markdown to a `path` that ends in `.md`, else self-contained HTML."""
    from archsim.report.run_report import write_report as write  # imports jinja2 and pandas

    write(result, Path(path))


def write_timeline(result: Result, path: str | Path, window: tuple[int, int] | None = None) -> None:
    """Write what happened in a window (ps) as a trace for ui.perfetto.dev; see `archsim.report.trace_file`.

    The whole run without a window; cut where it would become too large to open.
    """
    from archsim.report.trace_file import write_trace

    write_trace(result, Path(path), window)


def split_overrides(
    overrides: Table[str, object] = MappingProxyType({}),
) -> tuple[dict[str, object], dict[str, object]]:
    """Split `--set` paths into those of the hardware and those of the workload (`workload.KEY`)."""
    hardware = {path: value for path, value in overrides.items() if not path.startswith(WORKLOAD_PREFIX)}
    workload = {
        path.removeprefix(WORKLOAD_PREFIX): value
        for path, value in overrides.items()
        if path.startswith(WORKLOAD_PREFIX)
    }
    return hardware, workload

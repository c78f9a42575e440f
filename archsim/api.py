"""The public functions, as a script or notebook uses them: load, map, infer, simulate, report.

    import archsim
    hardware = archsim.load_hardware("spikesim-rram-64", {"tile.pe.adc.bits": 5})
    workload = archsim.load_workload("digits-cnn")
    result = archsim.simulate(hardware, workload)
    print(result.summary["latency_ps"], result.components)

Nothing heavy is imported before it is needed: torch comes with `infer`, pandas with the tables.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from pathlib import Path
from types import MappingProxyType

from archsim.activity import Activity
from archsim.engine.simulation import Progress
from archsim.engine.simulation import simulate as _simulate
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware
from archsim.mapping import Mapping, map_network
from archsim.result import Result
from archsim.workload.loader import load_workload
from archsim.workload.model import Workload

__all__ = [
    "Activity",
    "Hardware",
    "Mapping",
    "Result",
    "Workload",
    "infer",
    "load_hardware",
    "load_workload",
    "map_network",
    "simulate",
    "split_overrides",
    "write_report",
]

WORKLOAD_PREFIX = "workload."


def infer(mapping: Mapping, workload: Workload, samples: int = 1, seed: int = 0) -> Activity:
    """Run the network through the analog core of the mapped chip and record its activity."""
    from archsim.inference import infer as run  # imports torch

    return run(mapping, workload, samples, seed)


def simulate(
    hardware: Hardware,
    workload: Workload,
    samples: int = 1,
    seed: int = 0,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Simulate a workload on a chip; see `archsim.engine.simulation.simulate`."""
    return _simulate(hardware, workload, samples, seed, engine, progress)


def write_report(result: Result, path: str | Path) -> None:
    """Write the report of a run as one self-contained HTML file."""
    from archsim.report.html import write_report as write  # imports jinja2 and pandas

    write(result, Path(path))


def split_overrides(
    overrides: AnyMapping[str, object] = MappingProxyType({}),
) -> tuple[dict[str, object], dict[str, object]]:
    """Split `--set` paths into those of the hardware and those of the workload (`workload.KEY`)."""
    hardware = {path: value for path, value in overrides.items() if not path.startswith(WORKLOAD_PREFIX)}
    workload = {
        path.removeprefix(WORKLOAD_PREFIX): value
        for path, value in overrides.items()
        if path.startswith(WORKLOAD_PREFIX)
    }
    return hardware, workload

"""archsim: spiking networks on in-memory-computing hardware, event by event.

The public functions live in `archsim.api` and are loaded when first used, so that
`import archsim` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsim.version import VERSION

__version__ = VERSION

__all__ = [
    "Result",
    "__version__",
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
    "training_energy",
    "what_if",
    "write_comparison",
    "write_explanation",
    "write_report",
    "write_timeline",
]

if TYPE_CHECKING:
    from archsim.api import (
        Result,
        compare,
        critical_path,
        explain,
        explanation,
        findings,
        infer,
        load_hardware,
        load_space,
        load_workload,
        map_network,
        record,
        repeat_run,
        robustness,
        run_sweep,
        simulate,
        training_energy,
        what_if,
        write_comparison,
        write_explanation,
        write_report,
        write_timeline,
    )


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'archsim' has no attribute {name!r}")
    from archsim import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

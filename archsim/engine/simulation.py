"""From an activity to a result: build the netlist, execute it, log, aggregate. Nothing here needs torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from archsim.activity import Activity
from archsim.components.netlist import Netlist
from archsim.components.trace import ExecutionTrace
from archsim.engine import conservation, metrics, simpy_execution, tables
from archsim.engine.critical_path import path_table
from archsim.engine.log import build_log
from archsim.engine.notes import run_notes
from archsim.engine.platforms import platform_figures
from archsim.engine.queues import queue_table, waits_of
from archsim.engine.samples import departures_ps, sample_latencies_ps, sample_table, wasted_pj
from archsim.engine.streams import Execution, execute_stream
from archsim.errors import ConfigError, SimulationError
from archsim.eventlog import EventLog
from archsim.hardware.systolic import AnyHardware
from archsim.mapping import AnyMapping
from archsim.result import FORMAT_VERSION, Later, Result
from archsim.version import VERSION
from archsim.workload.model import Workload
from archsim.yamlfile import dump_model

Progress = Callable[[str, float], None]
"""Called with the phase's name and the fraction of it that is done."""

ENGINES = ("auto", "simpy", "compiled")

_MIN_SERVICES_FOR_COMPILED = 50_000
"""Below it SimPy is done before the compiled engine is loaded."""

_MIN_SAMPLES_FOR_THROUGHPUT = 3
_MIN_SAMPLES_FOR_PERCENTILES = 20


class Origin(NamedTuple):
    """What a run was computed from; results keep it in memory, so that it can be repeated with changes."""

    mapping: AnyMapping
    workload: Workload
    activity: Activity


def simulate_activity(
    mapping: AnyMapping,
    workload: Workload,
    activity: Activity,
    seed: int = 0,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Simulate the timing of an activity on a mapped chip.

    Args:
        mapping: The network on the chip.
        workload: Where the activity comes from.
        activity: What happened in the network.
        seed: Seed it was made with, for the record.
        engine: `simpy`, `compiled` (the same result, sooner), or `auto`, which picks by the number of services.
        progress: Told now and then how far the execution is.

    Raises:
        ConfigError: The engine is not known.
        MappingError: A buffer is too small.
        SimulationError: The run failed.
    """
    require_engine(engine)
    tell = (lambda done: progress("simulation", done)) if progress else None
    picked = [engine]

    def execute(netlist: Netlist) -> ExecutionTrace:
        picked[0] = _picked(engine, netlist)
        return _execution(picked[0])(netlist, tell)

    done = execute_stream(mapping, activity, execute)
    return build_result(Origin(mapping, workload, activity), done, seed, picked[0])


def build_result(origin: Origin, done: Execution, seed: int, engine: str = "simpy") -> Result:
    """Turn a finished execution into a result, after checking the conservation laws."""
    mapping, workload, _ = origin
    netlist, trace, activity = done.netlist, done.trace, done.activity
    conservation.check_trace(netlist, trace)
    log = build_log(netlist, trace)
    components = tables.component_table(netlist, trace, log)
    ops = metrics.synaptic_ops(mapping.network, activity)
    layers = tables.layer_table(mapping, activity, log, ops)
    movement = tables.movement_table(log)
    area_um2 = float(components["area_um2"].sum())
    summary = _summary(mapping, workload, activity, log, trace, seed, engine, area_um2, ops)
    conservation.check_totals(
        {
            "components": float(components["energy_dynamic_pj"].sum() + components["energy_leakage_pj"].sum()),
            "layers": float(layers["energy_pj"].sum() + components["energy_leakage_pj"].sum()),
        },
        summary["energy_pj"],
    )
    notes = (*activity.notes, *run_notes(mapping, activity))
    chips = tables.chip_table(activity.accuracy)
    return Result(
        summary,
        components,
        layers,
        movement,
        log,
        chips,
        notes,
        later=Later(
            partial(_resolved_config, mapping.hardware, workload),
            partial(queue_table, netlist, trace),
            partial(path_table, netlist, trace, activity.n_samples),
            partial(tables.tile_table, mapping),
            partial(tables.spike_table, mapping, activity),
            partial(sample_table, log, activity),
            partial(waits_of, netlist, trace),
        ),
        origin=origin,
    )


def execute_netlist(netlist: Netlist, engine: str = "auto") -> ExecutionTrace:
    """Run a netlist that is no chip; engines as in `simulate_activity`."""
    require_engine(engine)
    return _execution(_picked(engine, netlist))(netlist, None)


def require_engine(name: str) -> None:
    """Check the name of an engine before anything long runs.

    Raises:
        ConfigError: The name is not known; the message lists the names.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not known; engines are {', '.join(ENGINES)}")


def _picked(engine: str, netlist: Netlist) -> str:
    if engine != "auto":
        return engine
    n_services = sum(lane.n_tokens for lane in netlist.lanes())
    return "compiled" if n_services >= _MIN_SERVICES_FOR_COMPILED else "simpy"


def _execution(engine: str) -> Callable[[Netlist, Callable[[float], None] | None], ExecutionTrace]:
    if engine == "simpy":
        return simpy_execution.execute
    from archsim.engine import compiled_execution  # imports numba, which small runs need not wait for

    return compiled_execution.execute


def _summary(
    mapping: AnyMapping,
    workload: Workload,
    activity: Activity,
    log: EventLog,
    trace: ExecutionTrace,
    seed: int,
    engine: str,
    area_um2: float,
    layer_ops: dict[str, metrics.SynapticOps],
) -> dict[str, Any]:
    n_samples, n_timesteps = activity.n_samples, activity.n_timesteps
    leaks = log.totals.action == log.leak
    dynamic_pj = float(np.sum(log.totals.energy_pj[~leaks]))
    leakage_pj = float(np.sum(log.totals.energy_pj[leaks]))
    energy_pj = dynamic_pj + leakage_pj
    timesteps = metrics.timestep_statistics(activity)
    latencies = sample_latencies_ps(log, n_samples, activity.exits)
    latency_ps = round(float(latencies.mean()))
    ops = metrics.ops_per_sample(layer_ops, n_samples)
    run_s = trace.end_ps * 1e-12
    if run_s <= 0:
        raise SimulationError("the run took no time; is every service time zero?")
    firing = [activity.layers[layer.name].spikes for layer in mapping.network.layers if layer.neuron.fires]
    silent = sum(int(array.size - np.count_nonzero(array)) for array in firing)
    has_percentiles = n_samples >= _MIN_SAMPLES_FOR_PERCENTILES
    return {
        "format_version": FORMAT_VERSION,
        "archsim_version": VERSION,
        "hardware": mapping.hardware.name,
        "workload": workload.name,
        "seed": seed,
        "engine": engine,
        "n_samples": n_samples,
        "n_timesteps": n_timesteps,
        **timesteps,
        "latency_ps": latency_ps,
        "latency_per_timestep_ps": latency_ps / timesteps["mean_timesteps"],
        "latency_p50_ps": _percentile(latencies, 50) if has_percentiles else None,
        "latency_p99_ps": _percentile(latencies, 99) if has_percentiles else None,
        "throughput_samples_per_s": _throughput(departures_ps(log, n_samples, activity.exits)),
        "energy_pj": energy_pj,
        "energy_dynamic_pj": dynamic_pj,
        "energy_leakage_pj": leakage_pj,
        "energy_wasted_pj": wasted_pj(log, activity),
        "energy_per_sample_pj": energy_pj / n_samples,
        "power_mw": energy_pj * 1e-12 / run_s * 1e3,
        "area_um2": area_um2,
        "edp_pj_s": energy_pj / n_samples * latency_ps * 1e-12,
        "tops_per_w": 2 * ops.dense * n_samples / energy_pj if energy_pj else None,
        "tops_per_mm2": 2 * ops.dense * n_samples / run_s * 1e-12 / (area_um2 * 1e-6) if area_um2 else None,
        "synaptic_ops": ops.dense,
        "effective_acs": ops.effective_acs,
        "effective_macs": ops.effective_macs,
        "activation_sparsity": silent / sum(array.size for array in firing) if firing else None,
        "connection_sparsity": metrics.connection_sparsity(mapping.network),
        "footprint_bytes": metrics.footprint_bytes(mapping.network),
        "accuracy_ideal": activity.accuracy.ideal,
        "accuracy_raw": activity.accuracy.raw,
        "accuracy_calibrated": activity.accuracy.calibrated,
        "n_accuracy_samples": activity.accuracy.n_samples,
        "accuracy_mean_timesteps": activity.accuracy.mean_timesteps,
        **metrics.chip_statistics(activity.accuracy),
        "n_services": int(log.totals.n_rows[~leaks].sum()),
        **platform_figures(mapping),
    }


def _percentile(latencies: np.ndarray, percent: int) -> int:
    """Nearest-rank percentile, so the figure is the latency of a sample."""
    return int(np.percentile(latencies, percent, method="inverted_cdf"))


def _throughput(departures: np.ndarray) -> float | None:
    """Samples per second between the second and the last departure; the first fills the pipeline. None below three."""
    if len(departures) < _MIN_SAMPLES_FOR_THROUGHPUT:
        return None
    return float((len(departures) - 2) / ((departures[-1] - departures[1]) * 1e-12))


def _resolved_config(hardware: AnyHardware, workload: Workload) -> str:
    """Everything that determined the run as one YAML document: hardware, cost library, workload."""
    fields = {
        "name": workload.name,
        "source": workload.source,
        "timesteps": workload.n_timesteps,
        **asdict(workload.settings),
        "request": None if workload.request is None else asdict(workload.request),
    }
    sections = {
        "hardware": dump_model(hardware),
        "cost_library": dump_model(hardware.library),
        "workload": "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()),
    }
    return "".join(f"{name}:\n{textwrap.indent(text, '  ')}" for name, text in sections.items())

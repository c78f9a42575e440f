"""A result small enough to check by hand: two layers on one PE, a tile buffer, a leaking router."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from archsim.eventlog import DATA, SERVER, EventLog, Movement
from archsim.result import Later, Result

COMPONENTS = ("tile0.pe0.crossbar", "tile0.pe0.adc", "tile0.buffer", "noc.router0")
KINDS = ("crossbar", "adc", "tile_buffer", "router")
END_PS = 1000
LEAKAGE_PJ = 5.0

# component, action, layer, start, service, leave, energy, bits, movement
SERVICES = (
    (0, "read", 0, 0, 100, 100, 1.0, 0, -1),
    (0, "read", 1, 400, 100, 500, 2.0, 0, -1),
    (1, "convert", 0, 100, 200, 300, 0.3, 0, -1),
    (1, "convert", 1, 500, 200, 700, 0.6, 0, -1),
    (2, "read", 0, 0, 50, 50, 0.1, 64, 0),
    (2, "write", 1, 300, 50, 1000, 0.2, 128, 1),
)
MOVEMENTS = (
    Movement("tile0.buffer", "tile0.pe0", "inputs", "tile_buffer"),
    Movement("first", "second", "spikes", "noc", hops=2),
)


def tiny_result(layers: tuple[str, str] = ("first", "second"), **summary: Any) -> Result:
    """The result, with layers of the given names and some entries of the summary replaced."""
    log = _log(layers)
    return Result(
        summary=_summary(log) | summary,
        components=_components(log),
        layers=_layers(layers),
        movement=_movement(),
        log=log,
        chips=pd.DataFrame({"chip": [0], "accuracy_raw": [0.98], "accuracy_calibrated": [0.99]}),
        notes=("spikes are an assumption",),
        later=Later(lambda: "name: tiny\n"),
    )


def _log(layers: tuple[str, str]) -> EventLog:
    actions = ["leak", "read", "convert", "write"]
    n = len(SERVICES) + 1
    columns = {name: np.zeros(n, dtype) for name, dtype in EventLog.COLUMNS}
    for row, (component, action, layer, start, service, leave, energy, bits, movement) in enumerate(SERVICES):
        values = {"component": component, "action": actions.index(action), "layer": layer + 1, "start_ps": start}
        values |= {"service_ps": service, "leave_ps": leave, "energy_pj": energy, "bits": bits, "movement": movement}
        for name, value in (values | {"count": 1, "start_cause": DATA, "leave_cause": SERVER}).items():
            columns[name][row] = value
    leak = {"component": 3, "leave_ps": END_PS, "energy_pj": LEAKAGE_PJ, "count": 1, "movement": -1}
    for name, value in leak.items():
        columns[name][-1] = value
    return EventLog(columns, list(COMPONENTS), actions, ["", *layers], list(MOVEMENTS))


def _components(log: EventLog) -> pd.DataFrame:
    dynamic = ~log.is_leakage
    n = len(COMPONENTS)
    busy = np.bincount(log["component"][dynamic], weights=log["service_ps"][dynamic], minlength=n).astype(np.int64)
    return pd.DataFrame(
        {
            "component": COMPONENTS,
            "kind": KINDS,
            "n_actions": np.bincount(log["component"][dynamic], minlength=n),
            "busy_ps": busy,
            "blocked_ps": 0,
            "starved_ps": 0,
            "idle_ps": END_PS - busy,
            "utilisation": busy / END_PS,
            "peak_queue": 1,
            "energy_dynamic_pj": np.bincount(log["component"][dynamic], weights=log["energy_pj"][dynamic], minlength=n),
            "energy_leakage_pj": [0.0, 0.0, 0.0, LEAKAGE_PJ],
            "area_um2": [10.0, 20.0, 30.0, 40.0],
            "bits_in": 0,
            "bits_out": 0,
        }
    )


def _layers(names: tuple[str, str]) -> pd.DataFrame:
    rows = []
    for index, name in enumerate(names):
        mine = [service for service in SERVICES if service[2] == index]
        row = dict.fromkeys(("n_neurons", "n_crossbars", "n_pes", "n_tiles", "replication", "tokens"), 1)
        row |= {"layer": name, "kind": "linear", "crossbar_reads": 3, "skipped_reads": 1, "adc_conversions": 4}
        row |= {"first_start_ps": min(service[3] for service in mine), "neuron_updates": 1}
        row |= {"last_leave_ps": max(service[5] for service in mine), "spikes_in": 2, "spikes_out": 1}
        row |= {"energy_pj": sum(service[6] for service in mine), "activation_sparsity": None}
        rows.append(row | {"nf": None, "error_rel": 0.02})
    return pd.DataFrame(rows)


def _movement() -> pd.DataFrame:
    columns = ["source", "destination", "class", "level", "packets", "bits", "bit_hops", "energy_pj"]
    rows = [
        ("tile0.buffer", "tile0.pe0", "inputs", "tile_buffer", 1, 64, 64, 0.1),
        ("first", "second", "spikes", "noc", 1, 128, 256, 0.2),
    ]
    return pd.DataFrame(rows, columns=columns)


def _summary(log: EventLog) -> dict[str, Any]:
    leakage = float(log["energy_pj"][log.is_leakage].sum())
    dynamic = float(log["energy_pj"][~log.is_leakage].sum())
    missing = ("latency_p50_ps", "latency_p99_ps", "throughput_samples_per_s", "connection_sparsity")
    return dict.fromkeys(missing) | {
        "format_version": 1,
        "archsim_version": "0.0.0",
        "hardware": "tiny-chip",
        "workload": "tiny-net",
        "seed": 0,
        "engine": "simpy",
        "n_samples": 1,
        "n_timesteps": 2,
        "latency_ps": END_PS,
        "latency_per_timestep_ps": END_PS / 2,
        "energy_pj": dynamic + leakage,
        "energy_dynamic_pj": dynamic,
        "energy_leakage_pj": leakage,
        "energy_per_sample_pj": dynamic + leakage,
        "power_mw": 9.2,
        "area_um2": 100.0,
        "edp_pj_s": 9.2e-9,
        "tops_per_w": 1.5,
        "tops_per_mm2": 0.25,
        "synaptic_ops": 20.0,
        "effective_acs": 10.0,
        "effective_macs": 0.0,
        "activation_sparsity": 0.5,
        "footprint_bytes": 80,
        "accuracy_ideal": 0.98,
        "accuracy_raw": 0.9,
        "accuracy_calibrated": 0.95,
        "n_accuracy_samples": 200,
        "n_services": 6,
        "n_crossbars": 1,
        "n_pes": 1,
        "n_tiles": 1,
        "cell_utilisation": 0.25,
    }

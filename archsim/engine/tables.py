"""Tables of a run, aggregated from its event log: components, layers, data movement.

`mapping` and `activity` contribute only what does not happen in time: sizes, accuracy, errors.
Sums run in file order over the log, so a reader of the Parquet file gets the same digits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.components.netlist import Netlist
from archsim.components.trace import ExecutionTrace
from archsim.engine.metrics import activation_sparsity
from archsim.eventlog import CREDIT, SERVER, EventLog, Level
from archsim.mapping import LayerMapping, Mapping
from archsim.workload.network import INPUT

if TYPE_CHECKING:
    import pandas as pd

_BITS_IN = ("write", "latch", "hop", "inject", "transfer", "add")
_BITS_OUT = ("read", "convert", "hop", "inject", "transfer")


def component_table(netlist: Netlist, trace: ExecutionTrace, log: EventLog) -> pd.DataFrame:
    """One row per component: what it did, and busy, blocked, starved, idle time, which sum to the run."""
    import pandas as pd  # heavy, loaded with the first table

    dynamic = ~log.is_leakage
    peaks = _peak_queues(netlist, trace)
    n = len(log.components)
    states = _states(log, trace.end_ps)
    codes = log["component"]
    frame = pd.DataFrame(
        {
            "component": [part.path for part in netlist.components],
            "kind": [part.kind for part in netlist.components],
            "n_actions": _sum_int(codes[dynamic], log["count"][dynamic], n),
            **states,
            "utilisation": states["busy_ps"] / max(trace.end_ps, 1),
            "peak_queue": [peaks.get(part.path, 0) for part in netlist.components],
            "energy_dynamic_pj": _sum_float(codes[dynamic], log["energy_pj"][dynamic], n),
            "energy_leakage_pj": _sum_float(codes[~dynamic], log["energy_pj"][~dynamic], n),
            "area_um2": [part.area_um2 for part in netlist.components],
            "bits_in": _bits(log, _BITS_IN, n),
            "bits_out": _bits(log, _BITS_OUT, n),
        }
    )
    return frame


def layer_table(mapping: Mapping, activity: Activity, log: EventLog) -> pd.DataFrame:
    """One row per layer in order of data flow, the input port first; energies sum to the dynamic energy."""
    import pandas as pd  # heavy, loaded with the first table

    rows = [_layer_row(INPUT, None, None, 0, log)]
    for layer in mapping.layers:
        values = activity.layers[layer.layer.name]
        bits = 1 if mapping.hardware.mapping.input_coding == "binary" else values.input_bits
        rows.append(_layer_row(layer.layer.name, layer, values, bits, log))
    return pd.DataFrame(rows)


def movement_table(log: EventLog) -> pd.DataFrame:
    """Packets, bits, bit-hops and energy per source, destination, class and level."""
    import pandas as pd  # heavy, loaded with the first table

    codes = log["movement"]
    moving = codes >= 0
    n = len(log.movements)
    events = np.bincount(codes[moving], minlength=n)
    bits = _sum_int(codes[moving], log["bits"][moving], n)
    energy = _sum_float(codes[moving], log["energy_pj"][moving], n)
    rows: dict[tuple[str, str, str, str], list[Any]] = {}
    for index, movement in enumerate(log.movements):
        key = (movement.source, movement.destination, movement.data_class, movement.level)
        row = rows.setdefault(key, [0, 0, 0, 0.0])
        row[0] += int(events[index]) * movement.packets
        row[1] += int(bits[index]) * movement.packets
        row[2] += int(bits[index]) * movement.hops
        row[3] += float(energy[index])
    columns = ["source", "destination", "class", "level", "packets", "bits", "bit_hops", "energy_pj"]
    ordered = sorted(rows.items(), key=lambda item: _movement_order(*item[0]))
    return pd.DataFrame([(*key, *row) for key, row in ordered], columns=columns)


def _movement_order(source: str, destination: str, data_class: str, level: str) -> tuple[Any, ...]:
    """From the outside of the chip inwards, then by name with numbers as numbers."""
    return get_args(Level).index(level), _natural(source), _natural(destination), data_class


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _layer_row(
    name: str, layer: LayerMapping | None, values: LayerActivity | None, bits: int, log: EventLog
) -> dict[str, Any]:
    code = log.layers.index(name) if name in log.layers else -1
    mine = (log["layer"] == code) & ~log.is_leakage

    def count(action: str, column: str = "count") -> int:
        return int(log[column][mine & log.actions_of(action)].sum())

    kinds = {code: kind for code, kind in enumerate(log.components)}
    reads = _count_component(log, mine, kinds, ".crossbar")
    updates = _count_component(log, mine, kinds, ".neuron")
    conversions = count("convert")
    row: dict[str, Any] = {
        "layer": name,
        "kind": layer.layer.kind if layer else "input",
        "n_neurons": layer.layer.n_neurons if layer else 0,
        "n_crossbars": layer.n_crossbars if layer else 0,
        "n_pes": len(layer.pes) if layer else 0,
        "n_tiles": len(layer.tiles) if layer else 0,
        "replication": 1,
        "first_start_ps": int(log["start_ps"][mine].min(initial=np.iinfo(np.int64).max)) if mine.any() else None,
        "last_leave_ps": int(log["leave_ps"][mine].max(initial=0)) if mine.any() else None,
        "tokens": 0,
        "crossbar_reads": reads,
        "skipped_reads": 0,
        "adc_conversions": conversions,
        "spikes_in": 0,
        "spikes_out": 0,
        "activation_sparsity": None,
        "neuron_updates": updates,
        "energy_pj": float(np.sum(log["energy_pj"][mine])),
        "nf": None,
        "error_rel": None,
    }
    if layer is not None and values is not None:
        _, height, width = layer.layer.conv_shape
        n_tokens = values.inputs.shape[0] * values.inputs.shape[1] * height * width
        row["tokens"] = n_tokens
        row["skipped_reads"] = n_tokens * layer.n_crossbars * bits - reads
        row["spikes_in"] = int(np.abs(values.inputs.astype(np.int64)).sum())
        row["spikes_out"] = int(values.spikes.sum(dtype=np.int64))
        if layer.layer.neuron.kind not in ("accumulate", "none"):
            row["activation_sparsity"] = activation_sparsity(values)
        row["error_rel"] = values.error_rel
    return row


def _count_component(log: EventLog, mine: np.ndarray, names: dict[int, str], suffix: str) -> int:
    codes = [code for code, name in names.items() if name.endswith(suffix)]
    return int(log["count"][mine & np.isin(log["component"], codes)].sum())


def _states(log: EventLog, end_ps: int) -> dict[str, np.ndarray]:
    """Busy, blocked, starved and idle picoseconds per component, int64; they sum to `end_ps`.

    Between two services of a component it starved if the later one waited for data, else it was
    blocked: by a missing slot, or because its PE was still held. Before the first and after the
    last service it is idle. A part whose services take no time, such as a memory whose port
    belongs to somebody else, is never waited for and counts as idle.
    """
    n = len(log.components)
    dynamic = ~log.is_leakage
    codes, start, leave = (log[name][dynamic] for name in ("component", "start_ps", "leave_ps"))
    service, cause = log["service_ps"][dynamic], log["start_cause"][dynamic]
    busy = _sum_int(codes, service, n)
    blocked = _sum_int(codes, leave - start - service, n)
    same = codes[1:] == codes[:-1]
    gaps = np.where(same, start[1:] - leave[:-1], 0)
    waits = np.isin(cause[1:], (CREDIT, SERVER))
    blocked += _sum_int(codes[1:][waits], gaps[waits], n)
    starved = _sum_int(codes[1:][~waits], gaps[~waits], n)
    passive = busy == 0
    blocked[passive] = starved[passive] = 0
    return {
        "busy_ps": busy,
        "blocked_ps": blocked,
        "starved_ps": starved,
        "idle_ps": end_ps - busy - blocked - starved,
    }


def _peak_queues(netlist: Netlist, trace: ExecutionTrace) -> dict[str, int]:
    """Most tokens waiting in one input latch, per component that a server's first action belongs to."""
    peaks: dict[str, int] = {}
    for lane in netlist.lanes():
        component = lane.actions[0].component
        waiting = max((trace.channels[index].peak for index in lane.inputs), default=0)
        peaks[component] = max(peaks.get(component, 0), waiting)
    return peaks


def _bits(log: EventLog, actions: tuple[str, ...], n: int) -> np.ndarray:
    rows = np.isin(log["action"], [log.actions.index(name) for name in actions if name in log.actions])
    return _sum_int(log["component"][rows], log["bits"][rows], n)


def _sum_int(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Exact sums of int64 values per code (floats would round beyond 2^53)."""
    total = np.zeros(n, np.int64)
    np.add.at(total, codes, values)
    return total


def _sum_float(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(codes, weights=values, minlength=n)

"""Tables of a run, aggregated from its event log: components, layers, data movement.

`mapping` and `activity` contribute only what does not happen in time: sizes, accuracy, errors.
Counts, bits and times are exact; energies are sums over the log's groups (`EventLog.totals`), equal to sums over its
rows to 1e-12.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from archsim.activity import Accuracy, Activity, LayerActivity
from archsim.components.netlist import Netlist, Server
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.engine import geometry
from archsim.engine.metrics import SynapticOps, activation_sparsity
from archsim.engine.queues import named_component
from archsim.eventlog import CREDIT, EventLog, Level
from archsim.mapping import AnyMapping, ArrayMapping, LayerMapping, Mapping
from archsim.mapping.rules import cols_per_value
from archsim.workload.network import INPUT, Layer

if TYPE_CHECKING:
    import pandas as pd

_BITS_IN = ("write", "latch", "hop", "inject", "transfer", "add")
_BITS_OUT = ("read", "convert", "hop", "inject", "transfer")


def component_table(netlist: Netlist, trace: ExecutionTrace, log: EventLog) -> pd.DataFrame:
    """One row per component: what it did, and busy, blocked, starved, idle time, which sum to the run."""
    import pandas as pd  # heavy, loaded with the first table

    totals, n = log.totals, len(log.components)
    dynamic = totals.action != log.leak
    peaks = _peak_queues(netlist, trace)
    states = _states(netlist, trace)
    codes = totals.component
    frame = pd.DataFrame(
        {
            "component": [part.path for part in netlist.components],
            "kind": [part.kind for part in netlist.components],
            "n_actions": _sum_int(codes[dynamic], totals.count[dynamic], n),
            **states,
            "utilisation": states["busy_ps"] / max(trace.end_ps, 1),
            "peak_queue": [peaks.get(part.path, 0) for part in netlist.components],
            "energy_dynamic_pj": _sum_float(codes[dynamic], totals.energy_pj[dynamic], n),
            "energy_leakage_pj": _sum_float(codes[~dynamic], totals.energy_pj[~dynamic], n),
            "area_um2": [part.area_um2 for part in netlist.components],
            "bits_in": _bits(log, _BITS_IN, n),
            "bits_out": _bits(log, _BITS_OUT, n),
        }
    )
    return frame


def layer_table(mapping: AnyMapping, activity: Activity, log: EventLog, ops: dict[str, SynapticOps]) -> pd.DataFrame:
    """One row per layer in order of data flow, the input port first; energies sum to the dynamic energy.

    Counts and synaptic operations are those of all samples together.
    """
    import pandas as pd  # heavy, loaded with the first table

    rows = [_layer_row(INPUT, None, None, 0, log)]
    if isinstance(mapping, ArrayMapping):
        found = _array_rows(mapping, activity, log)
    else:
        found = _chip_rows(mapping, activity, log)
    for row in found:
        done = ops[row["layer"]]
        more = {"synaptic_ops": done.dense, "effective_acs": done.effective_acs, "effective_macs": done.effective_macs}
        rows.append(row | more)
    return pd.DataFrame(rows)


def _chip_rows(mapping: Mapping, activity: Activity, log: EventLog) -> Iterator[dict[str, Any]]:
    for layer in mapping.layers:
        values = activity.layers[layer.layer.name]
        n_frames = activity.n_samples if geometry.is_read_once(mapping, layer) else len(activity.frames[0])
        yield _layer_row(layer.layer.name, layer, values, n_frames, log)


def _array_rows(mapping: ArrayMapping, activity: Activity, log: EventLog) -> Iterator[dict[str, Any]]:
    """Layers of a systolic array, which has no crossbars or tiles and gives every layer all of its PEs."""
    for layer in mapping.layers:
        values, spec = activity.layers[layer.layer.name], layer.layer
        n_frames = len(activity.frames[0])
        row = _layer_row(spec.name, None, None, 0, log)
        row |= {"kind": spec.kind, "n_neurons": spec.n_neurons, "n_pes": mapping.hardware.array.n_pes}
        yield row | _values_row(spec, values, n_frames)


def tile_table(mapping: AnyMapping) -> pd.DataFrame:
    """One row per tile of the chip: its place on the NoC, counted from the top left, and what it holds.

    Columns: `tile`, `node`, `x`, `y`, `layers` (in order of data flow, ` + ` between them), `n_pes` and
    `n_crossbars` that hold weights, `cell_utilisation` of these crossbars, null where there are none. With several
    rounds, the crossbars of all of them. A systolic array has no tiles, and no rows.
    """
    import pandas as pd  # heavy, loaded with the first table

    if isinstance(mapping, ArrayMapping):
        return pd.DataFrame(columns=["tile", "node", "x", "y", "layers", "n_pes", "n_crossbars", "cell_utilisation"])
    crossbar = mapping.hardware.tile.pe.crossbar
    n_cells = crossbar.rows * crossbar.cols
    layers: list[list[str]] = [[] for _ in mapping.nodes]
    pes: list[set[str]] = [set() for _ in mapping.nodes]
    crossbars, cells = np.zeros(mapping.n_tiles, np.int64), np.zeros(mapping.n_tiles)
    for layer in mapping.layers:
        for tile in layer.tiles:
            layers[tile].append(layer.layer.name)
        if layer.is_digital:
            continue
        used = layer.n_stored * layer.n_copies * cols_per_value(mapping.hardware, layer.layer) / layer.n_crossbars
        for pe in layer.pes:
            pes[pe.tile].add(pe.path)
            crossbars[pe.tile] += len(layer.row_blocks[pe.row_block])
            cells[pe.tile] += used * len(layer.row_blocks[pe.row_block])
    y, x = np.divmod(np.array(mapping.nodes), mapping.mesh_width)
    return pd.DataFrame(
        {
            "tile": range(mapping.n_tiles),
            "node": mapping.nodes,
            "x": x,
            "y": y,
            "layers": [" + ".join(names) for names in layers],
            "n_pes": [len(paths) for paths in pes],
            "n_crossbars": crossbars,
            "cell_utilisation": [
                float(cell / (count * n_cells)) if count else None for cell, count in zip(cells, crossbars, strict=True)
            ],
        }
    )


def spike_table(mapping: AnyMapping, activity: Activity) -> pd.DataFrame:
    """Spikes of every layer at every timestep, all samples together: `layer`, `timestep`, `spikes_in`, `spikes_out`."""
    import pandas as pd  # heavy, loaded with the first table

    rows = []
    _, step_of = activity.frames
    frames = [step_of == step for step in range(activity.n_timesteps)]
    for layer in mapping.layers:
        values = activity.layers[layer.layer.name]
        came, went = (_per_step(spikes, frames) for spikes in (values.inputs, values.spikes))
        rows += [(layer.layer.name, step, *counts) for step, counts in enumerate(zip(came, went, strict=True))]
    return pd.DataFrame(rows, columns=["layer", "timestep", "spikes_in", "spikes_out"])


def _per_step(spikes: np.ndarray, frames: list[np.ndarray]) -> list[int]:
    """Sums of the sizes of values (sample, step, ...), of each timestep's frames."""
    by_frame = spikes.reshape(-1, *spikes.shape[2:])
    return [_size(by_frame[mine]) for mine in frames]


def _size(values: np.ndarray) -> int:
    """Sum of the sizes of integers, exact, without a copy of all of them in wider ones."""
    return int(values.sum(dtype=np.int64)) - 2 * int(values[values < 0].sum(dtype=np.int64))


def movement_table(log: EventLog) -> pd.DataFrame:
    """Packets, bits, bit-hops and energy per source, destination, class and level."""
    import pandas as pd  # heavy, loaded with the first table

    totals, n = log.totals, len(log.movements)
    moving = totals.movement >= 0
    codes = totals.movement[moving]
    events = _sum_int(codes, totals.n_moving[moving], n)
    bits = _sum_int(codes, totals.bits[moving], n)
    energy = _sum_float(codes, totals.energy_pj[moving], n)
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
    name: str,
    layer: LayerMapping | None,
    values: LayerActivity | None,
    n_frames: int,
    log: EventLog,
) -> dict[str, Any]:
    code = log.layers.index(name) if name in log.layers else -1
    totals = log.totals
    mine = (totals.layer == code) & (totals.action != log.leak)

    def of(action: str) -> np.ndarray:
        return mine & (totals.action == (log.actions.index(action) if action in log.actions else -1))

    reads = _count_component(log, of("read"), ".crossbar")
    updates = _count_component(log, of("update"), ".neuron")
    conversions = int(totals.count[of("convert")].sum())
    row: dict[str, Any] = {
        "layer": name,
        "kind": layer.layer.kind if layer else "input",
        "n_neurons": layer.layer.n_neurons if layer else 0,
        "n_crossbars": layer.n_crossbars if layer else 0,
        "n_pes": layer.n_pes if layer else 0,
        "n_tiles": len(layer.tiles) if layer else 0,
        "replication": layer.n_copies if layer else 1,
        "first_start_ps": int(totals.first_start_ps[mine].min()) if mine.any() else None,
        "last_leave_ps": int(totals.last_leave_ps[mine].max()) if mine.any() else None,
        "tokens": 0,
        "crossbar_reads": reads,
        "skipped_reads": 0,
        "adc_conversions": conversions,
        "spikes_in": 0,
        "spikes_out": 0,
        "activation_sparsity": None,
        "neuron_updates": updates,
        "energy_pj": float(np.sum(totals.energy_pj[mine])),
        "nf": None,
        "error_rel": None,
    }
    if layer is not None and values is not None:
        row |= _values_row(layer.layer, values, n_frames)
        row["skipped_reads"] = _reads_due(layer, log, of("latch")) - reads
        row["nf"] = values.nf
    return row


def _reads_due(layer: LayerMapping, log: EventLog, latched: np.ndarray) -> int:
    """Reads of crossbars for all that their PEs latched: one for every crossbar, token and input bit."""
    totals, counts = log.totals, dict[str, int]()
    for row in np.flatnonzero(latched):
        name = log.components[totals.component[row]]
        counts[name] = counts.get(name, 0) + int(totals.count[row])
    pes = () if layer.is_digital else layer.pes
    turns, due = Counter(pe.path for pe in pes), 0  # in how many rounds a PE serves the layer
    for pe in pes:
        positions = 1 if layer.streamed_map is None else len(geometry.streamed_positions(layer, pe.row_block))
        due += counts[f"{pe.path}.fetch"] * layer.n_reads(pe.row_block) // (positions * turns[pe.path])
    return due


def _values_row(spec: Layer, values: LayerActivity, n_frames: int) -> dict[str, Any]:
    """What the values of a layer say: tokens, spikes, sparsity, error."""
    _, height, width = spec.conv_shape
    return {
        "tokens": n_frames * height * width,
        "spikes_in": _size(values.inputs),
        "spikes_out": int(values.spikes.sum(dtype=np.int64)),
        "activation_sparsity": activation_sparsity(values) if spec.neuron.fires else None,
        "error_rel": values.error_rel,
    }


def _count_component(log: EventLog, mine: np.ndarray, suffix: str) -> int:
    counted = np.array([name.endswith(suffix) for name in log.components], bool)
    return int(log.totals.count[mine & counted[log.totals.component]].sum())


def _states(netlist: Netlist, trace: ExecutionTrace) -> dict[str, np.ndarray]:
    """Busy, blocked, starved and idle picoseconds per component, int64; they sum to the run.

    A part is blocked from its own action's end until its token leaves (later stages still hold the PE,
    or there is no slot behind it), and while its server waits for a slot; it starves while its
    server waits for data or earlier stages of the same service run. Before the first and after the
    last service it is idle. A part whose actions take no time, such as a memory whose port
    belongs to somebody else, is never waited for and counts as idle.
    """
    codes = {part.path: code for code, part in enumerate(netlist.components)}
    totals = {state: np.zeros(len(codes), np.int64) for state in ("busy_ps", "blocked_ps", "starved_ps", "idle_ps")}
    totals["idle_ps"] += trace.end_ps
    times = dict(zip(map(id, netlist.lanes()), trace.lanes, strict=True))
    sums = _Sums()
    for server in netlist.parts():
        for component, spent in _server_states(server, [times[id(lane)] for lane in server.lanes], sums).items():
            for state, amount in zip(("busy_ps", "blocked_ps", "starved_ps"), spent, strict=True):
                totals[state][codes[component]] += amount
                totals["idle_ps"][codes[component]] -= amount
    return totals


def _server_states(server: Server, traces: list[LaneTrace], durations: _Sums) -> dict[str, tuple[int, int, int]]:
    """Busy, blocked and starved time of every part that spends time in a server's services."""
    start, leave, cause = (
        np.concatenate(times) if len(times) > 1 else times[0]
        for times in zip(*((one.start_ps, one.leave_ps, one.start_cause) for one in traces), strict=True)
    )
    held = int(leave.sum() - start.sum())
    takes_time = leave > start
    start, leave, cause = start[takes_time], leave[takes_time], cause[takes_time]
    if len(traces) > 1:  # a lane's own services are in order
        order = np.argsort(start)
        start, leave, cause = start[order], leave[order], cause[order]
    gaps = start[1:] - leave[:-1]
    blocked_between = int(gaps[cause[1:] == CREDIT].sum())
    starved_between = int(gaps.sum()) - blocked_between
    states = {}
    for component in dict.fromkeys(action.component for lane in server.lanes for action in lane.actions):
        before, own = _own_times(server, component, durations)
        if own:
            states[component] = (own, held - before - own + blocked_between, before + starved_between)
    return states


def _own_times(server: Server, component: str, durations: _Sums) -> tuple[int, int]:
    """Time of all services before a part's own actions, and time in them."""
    before = own = 0
    for lane in server.lanes:
        mine = [index for index, action in enumerate(lane.actions) if action.component == component]
        for index, action in enumerate(lane.actions):
            if index in mine:
                own += durations.of(action.duration_ps)
            elif not mine or index < mine[-1]:
                before += durations.of(action.duration_ps)
    return before, own


class _Sums:
    """Sums of arrays; those that several actions share are summed once."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def of(self, values: np.ndarray) -> int:
        """Sum of an array that outlives this."""
        if id(values) not in self._known:
            is_constant = len(values) > 0 and values.strides[0] == 0
            self._known[id(values)] = int(values[0]) * len(values) if is_constant else int(values.sum())
        return self._known[id(values)]


def _peak_queues(netlist: Netlist, trace: ExecutionTrace) -> dict[str, int]:
    """Most tokens waiting in one input latch of a server, listed at the part that gives the server its name."""
    paths = {part.path for part in netlist.components}
    peaks: dict[str, int] = {}
    for server in netlist.parts():
        waiting = max((trace.channels[index].peak for lane in server.lanes for index in lane.inputs), default=0)
        component = named_component(server, paths)
        if component is not None:
            peaks[component] = max(peaks.get(component, 0), waiting)
    return peaks


def _bits(log: EventLog, actions: tuple[str, ...], n: int) -> np.ndarray:
    totals = log.totals
    mine = np.isin(totals.action, [log.actions.index(name) for name in actions if name in log.actions])
    return _sum_int(totals.component[mine], totals.bits[mine], n)


def _sum_int(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Exact sums of int64 values per code (floats would round beyond 2^53)."""
    total = np.zeros(n, np.int64)
    np.add.at(total, codes, values)
    return total


def _sum_float(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(codes, weights=values, minlength=n)


def chip_table(accuracy: Accuracy) -> pd.DataFrame:
    """Accuracy chip by chip; no rows where none was evaluated."""
    import pandas as pd  # heavy

    return pd.DataFrame(
        [(number, chip.raw, chip.calibrated) for number, chip in enumerate(accuracy.chips)],
        columns=["chip", "accuracy_raw", "accuracy_calibrated"],
    )

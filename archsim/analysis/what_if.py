"""What a change of the chip would do: every candidate is mapped and simulated again.

The share of the critical path that a change touches is an upper bound of what it can gain, and never the
prediction: other resources bind as soon as one is faster. Spikes are kept where a change cannot alter
values; else the network runs again on the changed chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsim.activity import Activity
from archsim.analysis.critical_path import co_critical, critical_path, kinds_of
from archsim.engine.geometry import check_buffers
from archsim.engine.simulation import Origin, simulate_activity
from archsim.errors import ConfigError, MappingError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import change_hardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

Change = Mapping[str, object]
Progress = Callable[[str, float], None]

COLUMNS = (
    *("change", "resource", "share_on_critical_path", "latency_ps", "latency_gain", "energy_pj", "energy_gain"),
    *("area_um2", "area_gain", "accuracy_raw", "values", "note"),
)

JOIN = " + "
"""Between the keys of a joint change."""

_PE = ("fetch", "row_driver", "crossbar", "mux", "adc", "shift_add", "tile_buffer", "mac", "product_unit")
_EVERYTHING = "the whole chip"
_RESOURCES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tile.pe.adc.", "ADCs", ("adc", "mux")),
    ("tile.pe.crossbar.zero_skip", "reads of silence", _PE),
    ("tile.pe.crossbar.", "crossbars", ("crossbar", "row_driver")),
    ("tile.pe.fetch", "PE fetch", ("fetch", "tile_buffer")),
    ("tile.pe.shift_add_cycles", "shift-and-add", ("shift_add",)),
    ("tile.pe.latch_depth", "latches", ()),
    ("tile.line_buffer.", "line buffers", ()),
    ("tile.skip_buffer.", "skip buffers", ()),
    ("tile.pe.", "PEs", _PE),
    ("tile.htree.", "H-trees", ("htree",)),
    ("tile.accumulator.", "accumulators", ("accumulator",)),
    ("tile.mac.", "MAC units", ("mac", "mac_weights")),
    ("chip.neuron.", "neuron modules", ("neuron", "v_mem")),
    ("chip.noc.", "NoC links", ("link", "router")),
    ("chip.global_buffer.", "global buffer", ("input", "output", "global_buffer", "port")),
    ("chip.dram.", "DRAM", ("dram",)),
    ("mapping.replication", "copies of layers", _PE),
)
"""Keys by their beginning: what they are about in words, and the kinds of component whose time they change. Of buffers
no share of the path can be told: where one is full, the path goes on with who empties it."""
_KEEPS_VALUES = (
    "chip.clock_mhz",
    "chip.tiles",
    "chip.mesh_width",
    "chip.mesh_height",
    "chip.noc.",
    "chip.global_buffer.",
    "chip.dram.",
    "chip.neuron.lanes",
    "chip.neuron.cycles_per_update",
    "chip.neuron.v_mem_bits_per_cycle",
    "tile.line_buffer.",
    "tile.skip_buffer.",
    "tile.htree.",
    "tile.accumulator.lanes",
    "tile.mac.",
    "tile.silent_sums",
    "tile.pe.pipelined",
    "tile.pe.latch_depth",
    "tile.pe.fetch",
    "tile.pe.fetch_bits_per_cycle",
    "tile.pe.shift_add_cycles",
    "tile.pe.crossbar.read_cycles",
    "tile.pe.crossbar.row_drive",
    "tile.pe.adc.cycles_per_conversion",
    "tile.pe.adc.count",
    "mapping.replication",
    "mapping.schedule",
    "mapping.placement",
)
"""Keys (a final dot: all keys of a section) that alter when things happen but no value of the network."""


def what_if(
    result: Result, changes: Change | Sequence[Change] | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Simulate a run again with every one of some changes of the chip.

    Args:
        result: A run of this process (`archsim.simulate`).
        changes: A change is hardware keys with new values, such as `{"tile.pe.adc.cols_per_adc": 4}`; several keys
            of a change are changed together. None: `default_changes`, then the best of what binds together, jointly.
        progress: Called with the fraction of changes that are done.

    Returns:
        One row per change: `change` in words; `resource` it is about; `share_on_critical_path`, the part of sample 0's
        latency spent in that resource, an upper bound of the gain that is missing where none can be told; `latency_ps`,
        `energy_pj` (per sample) and `area_um2` of the new simulation, and their gains, 1 - new / old, negative where
        the change costs; `accuracy_raw`; `values`: `kept`, or `recomputed` where the change can alter them; `note`: why
        a change cannot be made, in which case figures are missing.

    Raises:
        ConfigError: A key or value is not possible, the result was loaded from files, or it has no path.
    """
    import pandas as pd  # heavy, loaded with the first table

    if result.origin is None:
        raise ConfigError(
            "this result was loaded from files, which hold no spikes, so it cannot be simulated with changes; "
            "use the result of archsim.simulate, or archsim run --what-if"
        )
    hardware = result.origin.mapping.hardware
    if changes is not None:
        listed = [changes] if isinstance(changes, Mapping) else list(changes)
        for change in listed:
            change_hardware(hardware, change)
        rows = _rows(result, listed, progress)
    else:
        rows = _rows(result, default_changes(hardware), progress)
        rows += _rows(result, _joint(result, rows), None)
    return pd.DataFrame([row for _, row in rows], columns=list(COLUMNS))


def default_changes(hardware: Hardware) -> list[Change]:
    """Candidates: each resource twice as fast, wide or deep; overlap, skipped reads, copies where there are none."""
    pe, chip, tile = hardware.tile.pe, hardware.chip, hardware.tile
    doubled: dict[str, Any] = {
        "tile.pe.fetch_bits_per_cycle": pe.fetch_bits_per_cycle,
        "tile.pe.latch_depth": pe.latch_depth,
        "tile.htree.bits_per_cycle": tile.htree.bits_per_cycle,
        "tile.accumulator.lanes": tile.accumulator.lanes,
        "chip.neuron.lanes": chip.neuron.lanes,
        "chip.noc.flit_bits": chip.noc.flit_bits,
        "chip.global_buffer.bits_per_cycle": chip.global_buffer.bits_per_cycle,
        "chip.clock_mhz": chip.clock_mhz,
    }
    halved = {
        "tile.pe.adc.cols_per_adc": pe.adc.cols_per_adc if pe.adc.count == "auto" else 1,
        "tile.pe.adc.cycles_per_conversion": pe.adc.cycles_per_conversion,
        "tile.pe.crossbar.read_cycles": pe.crossbar.read_cycles,
        "tile.pe.shift_add_cycles": pe.shift_add_cycles,
        "chip.neuron.cycles_per_update": chip.neuron.cycles_per_update,
    }
    found: list[Change] = [{key: (value + 1) // 2} for key, value in halved.items() if value > 1]
    if pe.adc.count != "auto":
        found.append({"tile.pe.adc.count": 2 * pe.adc.count})
    if chip.dram.is_present:
        doubled["chip.dram.gb_per_s"] = chip.dram.channel.gb_per_s
    found += [{key: 2 * value} for key, value in doubled.items()]
    if not pe.pipelined:
        found.append({"tile.pe.pipelined": True})
    if not pe.crossbar.zero_skip:
        found.append({"tile.pe.crossbar.zero_skip": True})
    if hardware.mapping.replication == "none":
        found += [{"mapping.replication": 2}, {"mapping.replication": "balance"}]
    return found


def keeps_values(hardware: Hardware, change: Change) -> bool:
    """Whether no value of the network can differ with a change."""
    adc = hardware.tile.pe.adc
    own_errors = adc.inl_lsb or adc.offset_sigma_lsb or adc.gain_sigma_rel
    return all(
        any(key.startswith(known) if known.endswith(".") else key == known for known in _KEEPS_VALUES)
        or (key == "tile.pe.adc.cols_per_adc" and not own_errors)
        for key in change
    )


def resource_of(key: str) -> tuple[str, tuple[str, ...]]:
    """What a key is about, in words, and the kinds of component whose time it changes."""
    if key == "chip.clock_mhz":
        return _EVERYTHING, ()
    return next(((name, kinds) for start, name, kinds in _RESOURCES if key.startswith(start)), ("", ()))


def _rows(result: Result, changes: Sequence[Change], progress: Progress | None) -> list[tuple[Change, dict[str, Any]]]:
    rows = []
    for number, change in enumerate(changes):
        if progress:
            progress("what if", number / len(changes))
        rows.append((change, _row(result, change)))
    return rows


def _row(result: Result, change: Change) -> dict[str, Any]:
    hardware = result.origin.mapping.hardware
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["change"] = JOIN.join(f"{key}: {_value(hardware, key)} -> {_text(value)}" for key, value in change.items())
    row["resource"] = JOIN.join(dict.fromkeys(name for key in change if (name := resource_of(key)[0])))
    row["share_on_critical_path"] = _share(result, change)
    row["values"] = "kept" if keeps_values(hardware, change) else "recomputed"
    try:
        again = _simulate(result, change)
    except (ConfigError, MappingError) as err:
        return row | {"note": str(err)}
    for name, key in (("latency", "latency_ps"), ("energy", "energy_per_sample_pj"), ("area", "area_um2")):
        old, new = result.summary[key], again.summary[key]
        row[{"energy": "energy_pj"}.get(name, key)] = new
        row[f"{name}_gain"] = 1 - new / old if old else None
    return row | {"accuracy_raw": again.summary["accuracy_raw"]}


def _simulate(result: Result, change: Change) -> Result:
    """The run again on the changed chip."""
    origin: Origin = result.origin
    mapping = map_network(change_hardware(origin.mapping.hardware, change), origin.mapping.network)
    check_buffers(mapping)
    activity: Activity = origin.activity
    seed = int(result.summary["seed"])
    if not keeps_values(origin.mapping.hardware, change):
        activity = infer(mapping, origin.workload, activity.n_samples, seed)
    return simulate_activity(mapping, origin.workload, activity, seed, result.summary["engine"])


def _share(result: Result, change: Change) -> float | None:
    """Part of the first sample's critical path that is spent in what a change is about."""
    resources = [resource_of(key) for key in change]
    if any(name == _EVERYTHING for name, _ in resources):
        return 1.0
    if not all(kinds for _, kinds in resources):
        return None
    path, kind_of = critical_path(result), kinds_of(result)
    touched = path["component"].map(kind_of).isin([kind for _, kinds in resources for kind in kinds])
    latency_ps = int(path["duration_ps"].sum())
    return int(path["duration_ps"][touched].sum()) / latency_ps if latency_ps else None


def _joint(result: Result, rows: Iterable[tuple[Change, dict[str, Any]]]) -> list[Change]:
    """The best changes of resources that bind together, and those of the two best resources, made jointly."""
    best: dict[str, tuple[float, Change]] = {}
    for change, row in rows:
        gain, name = row["latency_gain"], row["resource"]
        if gain is not None and name != _EVERYTHING and gain > best.get(name, (-1.0, {}))[0]:
            best[name] = (gain, change)
    kinds, latency_ps = kinds_of(result), int(critical_path(result)["duration_ps"].sum())
    pairs = []
    for first, second, duration_ps in co_critical(result):
        names = [next((name for name, members in _members() if kinds[part] in members), "") for part in (first, second)]
        if duration_ps >= _LEAST_SHARE * latency_ps and names[0] != names[1] and all(name in best for name in names):
            pairs.append(frozenset(names))
    top = [name for name, (gain, _) in sorted(best.items(), key=lambda item: -item[1][0]) if gain > 0][:2]
    if len(top) == 2:
        pairs.append(frozenset(top))
    wanted = [sorted(pair, key=list(best).index) for pair in list(dict.fromkeys(pairs))[:_MOST_PAIRS]]
    return [{**best[first][1], **best[second][1]} for first, second in wanted]


_LEAST_SHARE = 0.01
"""Part of the latency that a pair must bind to be changed jointly."""
_MOST_PAIRS = 3


def _members() -> list[tuple[str, tuple[str, ...]]]:
    """Resources of their own kinds of component, in words."""
    return [(name, kinds) for _, name, kinds in _RESOURCES if kinds and kinds != _PE]


def _value(hardware: Hardware, key: str) -> str:
    """Present value of a key."""
    value: Any = hardware
    for part in key.split("."):
        value = getattr(value, part)
    return _text(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

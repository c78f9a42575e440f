"""Changes of a chip that may be worth making, and what each is about.

Every key belongs to a resource, in words, with the kinds of component whose time it changes: that is how
a change finds its share of the critical path, and how two parts that bind together find a joint change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from archsim.analysis.critical_path import critical_path, kinds_of
from archsim.engine.geometry import buffer_capacity, read_window
from archsim.hardware.systolic import AnyHardware, SystolicArray
from archsim.mapping import ArrayMapping
from archsim.mapping import Mapping as ChipMapping
from archsim.mapping.replication import is_copyable
from archsim.result import Result

Change = Mapping[str, object]
"""Hardware keys with new values, all changed together."""

JOIN = " + "
"""Between the keys of a joint change."""

PE_KINDS = ("fetch", "row_driver", "crossbar", "mux", "adc", "shift_add", "tile_buffer", "mac", "product_unit")
EVERYTHING = "the whole chip"
COPIES = ("mapping.replication", "mapping.layer_replication")
"""Keys that add copies of layers."""

RESOURCES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tile.pe.adc.", "ADCs", ("adc", "mux")),
    ("tile.pe.crossbar.zero_skip", "reads of silence", PE_KINDS),
    ("tile.pe.crossbar.", "crossbars", ("crossbar", "row_driver")),
    ("tile.pe.fetch", "PE fetch", ("fetch", "tile_buffer")),
    ("tile.pe.shift_add_cycles", "shift-and-add", ("shift_add",)),
    ("tile.pe.latch_depth", "latches", ()),
    ("tile.line_buffer.", "line buffers", ()),
    ("tile.skip_buffer.", "skip buffers", ()),
    ("tile.pe.", "PEs", PE_KINDS),
    ("tile.htree.", "H-trees", ("htree",)),
    ("tile.accumulator.", "accumulators", ("accumulator",)),
    ("tile.mac.", "MAC units", ("mac", "mac_weights")),
    ("tile.product_unit.", "product units", ("product_unit",)),
    ("chip.neuron.", "neuron modules", ("neuron", "v_mem")),
    ("chip.noc.vc_depth_flits", "NoC buffers", ()),
    ("chip.noc.", "NoC links", ("link", "router")),
    ("chip.global_buffer.", "global buffer", ("input", "output", "global_buffer", "port")),
    ("chip.dram.", "DRAM", ("dram",)),
    ("array.", "PE array", ("pe_array", "scratchpad")),
    ("buffers.weight_kib", "weight buffer", ("weight_buffer",)),
    ("buffers.ifmap_kib", "input buffer", ("ifmap_buffer",)),
    ("buffers.ofmap_kib", "output buffer", ("ofmap_buffer",)),
    ("buffers.", "global buffers", ("weight_buffer", "ifmap_buffer", "ofmap_buffer")),
    ("mapping.replication", "copies of layers", PE_KINDS),
    ("mapping.layer_replication", "copies of one layer", PE_KINDS),
)
"""Keys by their beginning: what they are about in words, and the kinds of component whose time they change. Of buffers
no share of the path can be told: where one is full, the path goes on with who empties it."""

SINGLE_RESOURCES = frozenset(name for _, name, kinds in RESOURCES if kinds and kinds != PE_KINDS)
"""Resources that are components of their own kinds, and not many parts at once."""

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
    "tile.product_unit.",
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
    "mapping.layer_replication",
    "mapping.schedule",
    "mapping.placement",
)
"""Keys (a final dot: all keys of a section) that alter when things happen but no value of the network."""

_ARRAY_KEEPS_VALUES = (
    "chip.clock_mhz",
    "chip.dram.",
    "chip.neuron.cycles_per_update",
    "array.",
    "buffers.",
    "mapping.loop_order",
)
"""The same of a systolic array."""


def resource_of(key: str) -> tuple[str, tuple[str, ...]]:
    """What a key is about, in words, and the kinds of component whose time it changes."""
    if key == "chip.clock_mhz":
        return EVERYTHING, ()
    return next(((name, kinds) for start, name, kinds in RESOURCES if key.startswith(start)), ("", ()))


def resource_of_kind(kind: str) -> str:
    """The resource that a kind of component is, in words; empty if no key is about it alone."""
    return next((name for _, name, kinds in RESOURCES if kind in kinds and kinds != PE_KINDS), "")


def keeps_values(hardware: AnyHardware, change: Change) -> bool:
    """Whether no value of the network can differ with a change."""
    return all(_keeps_values(hardware, key) for key in change)


def value_keys(hardware: AnyHardware) -> dict[str, object]:
    """All keys of a chip that can alter a value of the network, dotted, with their values.

    Chips that agree in them have the same activity.
    """
    return {key: value for key, value in _flat(hardware.model_dump()) if not _keeps_values(hardware, key)}


def _keeps_values(hardware: AnyHardware, key: str) -> bool:
    if isinstance(hardware, SystolicArray):
        return _is_among(key, _ARRAY_KEEPS_VALUES)
    adc = hardware.tile.pe.adc
    if key == "tile.pe.adc.cols_per_adc":
        return not (adc.inl_lsb or adc.offset_sigma_lsb or adc.gain_sigma_rel)
    return _is_among(key, _KEEPS_VALUES)


def _is_among(key: str, known_keys: tuple[str, ...]) -> bool:
    return any(key == known or key.startswith(f"{known.removesuffix('.')}.") for known in known_keys)


def _flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    """Values of a section and of those in it, by dotted key."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def default_changes(result: Result) -> list[Change]:
    """Candidates: each resource twice as fast, wide or deep; overlap, skipped reads, copies where there are none.

    Args:
        result: A run of this process; the layer that takes most of its critical path is offered a copy.
    """
    mapping = result.origin.mapping
    if isinstance(mapping, ArrayMapping):
        return _array_changes(mapping.hardware)
    hardware = mapping.hardware
    pe, chip, tile = hardware.tile.pe, hardware.chip, hardware.tile
    doubled: dict[str, Any] = {
        "tile.pe.fetch_bits_per_cycle": pe.fetch_bits_per_cycle,
        "tile.pe.latch_depth": pe.latch_depth,
        "tile.line_buffer.rows": _rows(mapping),
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
    if chip.noc.detail == "flit":
        doubled["chip.noc.vc_depth_flits"] = chip.noc.vc_depth_flits
    found += [{key: 2 * value} for key, value in doubled.items()]
    if not pe.pipelined:
        found.append({"tile.pe.pipelined": True})
    if not pe.crossbar.zero_skip:
        found.append({"tile.pe.crossbar.zero_skip": True})
    if hardware.mapping.replication == "none":
        found += _copies(result, mapping)
    return found


def _array_changes(hardware: SystolicArray) -> list[Change]:
    """Candidates of a systolic array: each resource twice as fast, wide or large; the other order of loops."""
    array, buffers = hardware.array, hardware.buffers
    doubled: dict[str, Any] = {
        "chip.clock_mhz": hardware.chip.clock_mhz,
        "chip.dram.gb_per_s": hardware.chip.dram.channel.gb_per_s,
        "array.rows": array.rows,
        "array.cols": array.cols,
        "buffers.bits_per_cycle": buffers.bits_per_cycle,
        "buffers.weight_kib": buffers.weight_kib,
        "buffers.ifmap_kib": buffers.ifmap_kib,
        "buffers.ofmap_kib": buffers.ofmap_kib,
    }
    other = {"tick_batched": "timestep_outer", "timestep_outer": "tick_batched"}[hardware.mapping.loop_order]
    return [*({key: 2 * value} for key, value in doubled.items()), {"mapping.loop_order": other}]


def _rows(mapping: ChipMapping) -> int:
    """Rows that the deepest line buffer holds now."""
    widths = [(buffer_capacity(mapping, layer), read_window(mapping, layer).map_hw[1]) for layer in mapping.layers]
    return max(-(-capacity // width) for capacity, width in widths)


def _copies(result: Result, mapping: ChipMapping) -> list[Change]:
    """A copy of the layer that holds the critical path longest, a copy of every layer, and as many as tiles allow."""
    found: list[Change] = [{"mapping.replication": 2}]
    if mapping.hardware.chip.tiles != "auto":
        found.append({"mapping.replication": "balance"})
    path = critical_path(result)
    in_pes = path["component"].map(kinds_of(result)).isin(PE_KINDS)
    longest = path[in_pes].groupby("layer", sort=False)["duration_ps"].sum()
    on_crossbars = {layer.layer.name for layer in mapping.layers if not layer.is_digital}
    for name in longest.sort_values(ascending=False, kind="stable").index:
        if name in on_crossbars and is_copyable(mapping.network, mapping.network.layer(name)):
            stated = mapping.hardware.mapping.layer_replication
            return [{"mapping.layer_replication": {**stated, name: 2 * stated.get(name, 1)}}, *found]
    return found

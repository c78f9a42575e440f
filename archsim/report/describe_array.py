"""What a systolic array is made of and how a network is cut for it: the tables behind `archsim describe`."""

from __future__ import annotations

from collections.abc import Iterator

from archsim.components.systolic import fold_cycles, parts
from archsim.hardware.rollup import Part
from archsim.hardware.systolic import SystolicArray
from archsim.mapping import ArrayMapping
from archsim.report.sheets import LAYER_COLUMNS, Sheet, cost_sheet, layer_cells, size_sheet
from archsim.units import format_number


def array_sheets(hardware: SystolicArray) -> Iterator[Sheet]:
    """Hierarchy, area and leakage part by part, the cost library with its sources."""
    yield _hierarchy(hardware)
    yield size_sheet("The chip", "chip", [Part(*part) for part in parts(hardware) if part[2]])
    yield cost_sheet(hardware)


def _hierarchy(hardware: SystolicArray) -> Sheet:
    chip, array, buffers, pe = hardware.chip, hardware.array, hardware.buffers, hardware.array.pe
    channel = chip.dram.channel
    what = "gates and adds" if pe.mac == "spike" else "multiplies and adds"
    rows = [
        ("chip", f"{hardware.name}, {hardware.node_nm} nm, {chip.clock_mhz:g} MHz"),
        ("DRAM", f"{chip.dram.kind}, {channel.gb_per_s:g} GB/s, latency {channel.latency_ns:g} ns, bursts of "
                 f"{channel.burst_bytes} B, rows of {channel.page_bytes} B"),
        ("buffers", f"weights {buffers.weight_kib} KiB, inputs {buffers.ifmap_kib} KiB, outputs {buffers.ofmap_kib} "
                    f"KiB, {buffers.bits_per_cycle} bit per cycle each"),
        ("array", f"{array.rows} x {array.cols} PEs, {array.dataflow.replace('_', ' ')}, "
                  f"{hardware.mapping.loop_order.replace('_', ' ')}"),
        ("PE", f"{what} {pe.input_bits} bit per cycle, {hardware.mapping.weight_bits} bit weights, {pe.psum_bits} bit "
               f"sums; scratchpads {pe.input_spad_bytes}, {pe.weight_spad_bytes}, {pe.psum_spad_bytes} B"),
        ("neuron unit", f"{pe.neuron} in every PE, {chip.neuron.v_mem_bits} bit V_mem"),
    ]  # fmt: skip
    return Sheet(f"Chip {hardware.name}", ("level", "what there is"), rows)


def array_mapping_sheets(mapping: ArrayMapping) -> Iterator[Sheet]:
    """How every layer is cut into folds, and how long the array takes for one of its timesteps."""
    array = mapping.hardware.array
    is_stationary = array.dataflow == "weight_stationary"
    rows = [
        (
            *layer_cells(item.layer),
            f"{item.n_col_blocks} x {item.n_blocks} x {item.n_depth_blocks}",
            str(item.n_folds),
            str(int(fold_cycles(array.rows, array.cols, item.block if is_stationary else item.depth))),
        )
        for item in mapping.layers
    ]
    title = f"Mapping of {mapping.network.name} on {mapping.hardware.name}"
    blocks = "filter x position x depth blocks"
    yield Sheet(title, (*LAYER_COLUMNS, blocks, "folds", "cycles per fold"), rows)
    values = [
        ("folds per timestep", format_number(sum(item.n_folds for item in mapping.layers))),
        ("timesteps that share weights", str(mapping.batched_steps)),
        ("PEs in use, mean over folds", f"{mapping.utilisation:.1%}"),
    ]
    yield Sheet("What the network uses", ("quantity", "value"), values)

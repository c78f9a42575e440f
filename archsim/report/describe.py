"""What a chip is made of and where a network sits on it: the tables behind `archsim describe`."""

from __future__ import annotations

from collections.abc import Iterator

from archsim.hardware import rollup
from archsim.hardware.models import Hardware
from archsim.hardware.systolic import AnyHardware, SystolicArray
from archsim.hardware.words import analog_rows
from archsim.mapping import AnyMapping, ArrayMapping
from archsim.mapping.squeeze import index_tables
from archsim.report.describe_array import array_mapping_sheets, array_sheets
from archsim.report.sheets import LAYER_COLUMNS, Sheet, cost_sheet, layer_cells, size_sheet
from archsim.units import format_number


def hardware_sheets(hardware: AnyHardware) -> Iterator[Sheet]:
    """Hierarchy, area and power of one tile part by part, the whole chip, the cost library with its sources."""
    if isinstance(hardware, SystolicArray):
        yield from array_sheets(hardware)
        return
    yield _hierarchy(hardware)
    yield _tilesize_sheet(hardware)
    if hardware.chip.tiles != "auto":
        yield _chipsize_sheet(hardware, hardware.chip.tiles)
    yield cost_sheet(hardware)


def mapping_sheets(mapping: AnyMapping) -> Iterator[Sheet]:
    """Where every layer sits, and what the network needs of the chip."""
    if isinstance(mapping, ArrayMapping):
        yield from array_mapping_sheets(mapping)
        return
    rows = [
        (
            *layer_cells(item.layer),
            f"{'digital' if item.is_digital else len(item.row_blocks)} x {len(item.col_blocks)}",
            str(item.n_crossbars),
            str(item.n_pes),
            ", ".join(map(str, item.tiles)),
            *([", ".join(map(str, item.rounds))] if mapping.n_rounds > 1 else []),
        )
        for item in mapping.layers
    ]
    columns: tuple[str, ...] = (*LAYER_COLUMNS, "row x col blocks", "crossbars")
    columns += ("PEs", "tiles", "rounds") if mapping.n_rounds > 1 else ("PEs", "tiles")
    batch = "sample" if mapping.hardware.mapping.schedule == "tick_batched" else "timestep"
    table_bits = sum(index_tables(mapping).values())
    tables = [("index tables", f"{format_number(table_bits)} bits")] if table_bits else []
    rounds = [("rounds", f"{mapping.n_rounds}, each written once per {batch}")] if mapping.n_rounds > 1 else []
    yield Sheet(f"Mapping of {mapping.network.name} on {mapping.hardware.name}", columns, rows)
    yield Sheet(
        "What the network uses",
        ("quantity", "value"),
        [
            ("crossbars", format_number(mapping.n_crossbars)),
            ("PEs", format_number(mapping.n_pes)),
            ("tiles used / on chip", f"{mapping.n_tiles_used} / {mapping.n_tiles}"),
            ("mesh", f"{mapping.mesh_width} x {mapping.mesh_height}"),
            ("cell utilisation", f"{mapping.cell_utilisation:.1%}"),
            *tables,
            *rounds,
        ],
    )


def _hierarchy(hardware: Hardware) -> Sheet:
    chip, tile = hardware.chip, hardware.tile
    pe, crossbar, adc, shared = tile.pe, tile.pe.crossbar, tile.pe.adc, chip.neuron.shared_channels
    rows = [
        ("chip", f"{hardware.name}, {hardware.node_nm} nm, {chip.clock_mhz:g} MHz, {chip.tiles} tiles"),
        ("NoC", f"{chip.noc.detail}, {chip.noc.flit_bits} bit flits, {hardware.noc_clock_mhz:g} MHz"),
        ("global buffer", f"{chip.global_buffer.kib} KiB, {chip.global_buffer.bits_per_cycle} bit per cycle"),
        ("neuron module", f"per {chip.neuron.level}, {chip.neuron.lanes} lanes, {chip.neuron.v_mem_bits} bit V_mem"
                          + (f", shared by {shared} channels" if shared > 1 else "")),
        ("tile", f"{tile.pes} PEs, H-tree {tile.htree.bits_per_cycle} bit, line buffer {tile.line_buffer.rows} rows"),
        ("PE", f"{pe.crossbars} crossbars, {'pipelined' if pe.pipelined else 'one token at a time'}, "
               f"columns merge {pe.column_merge}, fetch {pe.fetch}"),
        ("crossbar", f"{crossbar.rows} x {crossbar.cols}, {crossbar.bits_per_cell} bit cells, {crossbar.signed}, "
                     f"{hardware.cols_per_weight} column(s) per {hardware.mapping.weight_bits} bit weight"),
        ("ADC", f"{pe.adcs_per_bank} x {pe.adc_banks} bank(s) of {adc.bits} bit, {adc.cols_per_adc} columns each, "
                f"range {adc.range} per {adc.range_scope}{', stops early' if adc.early_stop else ''}"),
    ]  # fmt: skip
    rows += analog_rows(hardware)
    if chip.dram.is_present:
        dram = chip.dram.channel
        text = (
            f"{chip.dram.kind}, {dram.gb_per_s:g} GB/s, latency {dram.latency_ns:g} ns, bursts of {dram.burst_bytes} B"
        )
        rows.insert(2, ("DRAM", f"{text}, rows of {dram.page_bytes} B, policy {chip.dram.page_policy}"))
    policy = hardware.mapping
    if (policy.encoding, policy.polarity) != ("standard", "as_is"):
        rows.append(("weights", f"encoding {policy.encoding}, polarity {policy.polarity}"))
    if policy.first_layer == "digital":
        rows.append(("MAC unit", f"{tile.mac.lanes} lanes, one unit per column block of a first layer"))
    return Sheet(f"Chip {hardware.name}", ("level", "what there is"), rows)


def _tilesize_sheet(hardware: Hardware) -> Sheet:
    parts = _parts_of_a_tile(hardware)
    return size_sheet("One tile with its router, memories that depend on the network left out", "tile", parts)


def _chipsize_sheet(hardware: Hardware, n_tiles: int) -> Sheet:
    parts = _parts_of_a_tile(hardware)
    tile = rollup.Part(
        "tile",
        "tile with its router",
        sum(part.area_um2 for part in parts),
        sum(part.leakage_mw for part in parts),
        sum(part.peak_power_mw for part in parts),
    )
    outside = [part for part in rollup.chip_parts(hardware, n_nodes=0) if part.kind != "input"]
    return size_sheet("The chip, memories that depend on the network left out", "chip", [tile] * n_tiles + outside)


def _parts_of_a_tile(hardware: Hardware) -> list[rollup.Part]:
    routers = [part for part in rollup.chip_parts(hardware, n_nodes=1) if part.kind == "router"]
    return rollup.tile_parts(hardware, 0, 0) + routers

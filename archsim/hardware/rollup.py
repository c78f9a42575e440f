"""What a chip is made of: area, leakage and peak power, as sums of counts times entries of the cost library.

A part is one row of the component table, named by its path (`tile3.pe0.adc`). The parts of a PE are
given relative to the PE, those of a tile relative to the tile. Main entry points: `pe_parts`,
`tile_parts`, `unit_parts`, `chip_parts`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archsim.errors import ConfigError
from archsim.hardware.models import Hardware


@dataclass(frozen=True)
class Part:
    """One component of the chip with its static figures."""

    path: str
    kind: str
    area_um2: float
    leakage_mw: float
    peak_power_mw: float = 0.0
    """Published peak power; 0 where the library has none."""


def pe_parts(hardware: Hardware) -> list[Part]:
    """Parts of one PE, in the order in which a token passes them."""
    pe = hardware.tile.pe
    n_adcs = pe.adcs_per_bank * pe.adc_banks
    n_rows = pe.crossbars * pe.crossbar.rows
    return [
        _part(hardware, "fetch", "fetch", bits=n_rows),
        _part(hardware, "row_driver", "row_driver", n_rows),
        *([_part(hardware, "row_counter", "row_counter", n_rows)] if hardware.counts_rows else ()),
        _part(hardware, "crossbar", "crossbar", pe.crossbars),
        _part(hardware, "mux", "mux", n_adcs),
        _part(hardware, "adc", "adc", n_adcs),
        _part(hardware, "shift_add", "shift_add"),
    ]


def tile_parts(hardware: Hardware, line_buffer_bits: int, v_mem_bits: int) -> list[Part]:
    """Parts of one tile: its PEs, then what they share.

    Args:
        hardware: The chip.
        line_buffer_bits: Capacity of the tile's input buffer.
        v_mem_bits: Capacity of the tile's V_mem store, not the bits of one potential.
    """
    of_a_pe = pe_parts(hardware)
    in_pes = [replace(part, path=f"pe{pe}.{part.path}") for pe in range(hardware.tile.pes) for part in of_a_pe]
    return [
        *in_pes,
        _part(hardware, "buffer", "tile_buffer", bits=line_buffer_bits),
        _part(hardware, "htree", "htree"),
        _part(hardware, "accumulator", "accumulator", hardware.tile.accumulator.lanes),
        *(_neuron_parts(hardware, "", v_mem_bits) if hardware.chip.neuron.level == "tile" else ()),
    ]


def unit_parts(hardware: Hardware, path: str, n_weights: int) -> list[Part]:
    """A digital MAC unit and the memory that holds its weights; without weights a product unit."""
    if not n_weights:
        return [_part(hardware, path, "product_unit", hardware.tile.product_unit.lanes)]
    return [
        _part(hardware, path, "mac", hardware.tile.mac.lanes),
        _part(hardware, f"{path}.weights", "mac_weights", bits=n_weights * hardware.mapping.weight_bits),
    ]


def table_part(hardware: Hardware, path: str, n_bits: int) -> Part:
    """The memory of index tables, of a PE or at an accumulator."""
    return _part(hardware, path, "index_table", bits=n_bits)


def chip_parts(hardware: Hardware, n_nodes: int, v_mem_bits: int = 0) -> list[Part]:
    """Parts outside the tiles.

    The input port has no area of its own: what it sends waits in the global buffer. DRAM is not on the chip.

    Args:
        hardware: The chip.
        n_nodes: Number of NoC routers.
        v_mem_bits: Capacity of the V_mem store where the neuron module is the chip's.
    """
    return [
        Part("input", "input", 0.0, 0.0),
        *([Part("dram", "dram", 0.0, 0.0)] if hardware.chip.dram.is_present else ()),
        _part(hardware, "global_buffer", "global_buffer", bits=hardware.chip.global_buffer.kib * 1024 * 8),
        *(_neuron_parts(hardware, "chip.", v_mem_bits) if hardware.chip.neuron.level == "chip" else ()),
        *(_part(hardware, f"noc.router{node}", "router") for node in range(n_nodes)),
    ]


def _neuron_parts(hardware: Hardware, path: str, v_mem_bits: int) -> list[Part]:
    """A neuron module with its memory and the pooling behind it."""
    return [
        _part(hardware, f"{path}neuron", "neuron", hardware.chip.neuron.lanes),
        _part(hardware, f"{path}v_mem", "v_mem", bits=v_mem_bits),
        _part(hardware, f"{path}pooling", "pooling"),
    ]


def _part(hardware: Hardware, path: str, kind: str, instances: int = 1, bits: int | None = None) -> Part:
    """One part: `instances` equal pieces, or a memory of `bits` bits, whichever the entry is given for."""
    library = hardware.library
    parameters = hardware.cost_parameters(kind)
    area, leakage = library.area(kind), library.leakage(kind)
    return Part(
        path,
        kind,
        library.area_um2(kind, **parameters) * _count(kind, area.per if area else "instance", instances, bits),
        library.leakage_mw(kind, **parameters) * _count(kind, leakage.per if leakage else "instance", instances, bits),
        library.peak_power_mw(kind, **parameters) * instances,
    )


def _count(kind: str, per: str, instances: int, bits: int | None) -> int:
    if per == "instance":
        return instances
    if bits is None:
        raise ConfigError(f"{kind} stores no bits; its area and leakage must be given per instance")
    return bits

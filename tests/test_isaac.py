"""ISAAC-CE, part by part. Source: Shafiee et al., ISCA 2016, Table I.

The tables below are the published ones; the chip's parts, priced by its cost library, must add up to
them within half a unit of the last published digit.
"""

from __future__ import annotations

import pytest

from archsim.cli import main
from archsim.hardware.reader import load_hardware
from archsim.hardware.rollup import chip_parts, pe_parts, tile_parts

HARDWARE = load_hardware("isaac-rram-128")
CYCLE_NS = 100

IMA = {  # kind of part: power in mW, area in mm2
    "fetch": (1.24, 0.0021),  # input register
    "row_driver": (4, 0.00017),  # DACs
    "crossbar": (2.4, 0.0002),
    "mux": (0.01, 0.00004),  # sample-and-hold
    "adc": (16, 0.0096),
    "shift_add": (0.2 + 0.23, 0.00024 + 0.00077),  # shift-and-add units, output register
}
TILE = {
    "tile_buffer": (20.7, 0.083),  # eDRAM
    "htree": (7, 0.090),  # eDRAM-to-IMA bus
    "accumulator": (0.05 + 1.68, 0.00006 + 0.0032),  # shift-and-add unit, output register
    "neuron": (0.52, 0.0006),  # sigmoid units
    "v_mem": (0, 0),  # grows with the network
    "pooling": (0.4, 0.00024),  # max-pool unit
}
ROUTER = (42, 0.151)  # for four tiles
LINKS = (10_400, 22.88)  # HyperTransport


def totals(parts) -> tuple[float, float]:
    """Power in mW and area in mm2."""
    parts = list(parts)
    return sum(part.peak_power_mw for part in parts), sum(part.area_um2 for part in parts) * 1e-6


def tile_totals() -> tuple[float, float]:
    """A tile with its quarter of a router."""
    router = [part for part in chip_parts(HARDWARE, n_nodes=1) if part.kind == "router"]
    return totals([*tile_parts(HARDWARE, 0, 0), *router])


@pytest.mark.parametrize(("kind", "published"), IMA.items(), ids=IMA)
def test_a_part_of_an_ima_is_the_published_one(kind, published):
    assert totals(part for part in pe_parts(HARDWARE) if part.kind == kind) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize(("kind", "published"), TILE.items(), ids=TILE)
def test_a_part_of_a_tile_is_the_published_one(kind, published):
    parts = tile_parts(HARDWARE, 0, 0)
    assert totals(part for part in parts if part.kind == kind) == pytest.approx(published, rel=1e-12)


def test_every_part_of_the_chip_is_in_the_tables():
    assert [part.kind for part in pe_parts(HARDWARE)] == list(IMA)
    assert [part.kind for part in tile_parts(HARDWARE, 0, 0)] == [*12 * list(IMA), *TILE]
    assert [part.kind for part in chip_parts(HARDWARE, 1)] == ["input", "global_buffer", "router"]


def test_four_tiles_share_a_router():
    parts = chip_parts(HARDWARE, n_nodes=4)
    assert totals(part for part in parts if part.kind == "router") == pytest.approx(ROUTER, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "power", "area"),
    [
        # IMAs: 12 x 24.08 mW = 288.96, published to 1 mW; 12 x 0.01312 mm2 = 0.15744, published to 0.001 mm2
        (lambda: totals(12 * pe_parts(HARDWARE)), (289, 0.5), (0.157, 0.0005)),
        # tile: 329.81 mW, published to 1 mW; 0.37229 mm2, published to 0.001 mm2
        (tile_totals, (330, 0.5), (0.372, 0.0005)),
        # 168 tiles: 55,408 mW, published to 0.1 W; 62.545 mm2, published as 62.5
        (lambda: tuple(168 * total for total in tile_totals()), (55_400, 50), (62.5, 0.05)),
        # HyperTransport: as published
        (lambda: totals(chip_parts(HARDWARE, n_nodes=0)), (10_400, 0), (22.88, 0)),
        # chip: 65,808 mW, published to 0.1 W; 85.425 mm2, published to 0.1 mm2
        (
            lambda: totals([*168 * tile_parts(HARDWARE, 0, 0), *chip_parts(HARDWARE, n_nodes=168)]),
            (65_800, 50),
            (85.4, 0.05),
        ),
    ],
    ids=["12 IMAs", "tile", "168 tiles", "links", "chip"],
)  # fmt: skip
def test_parts_add_up_to_the_published_totals(ours, power, area):
    power_mw, area_mm2 = ours()
    assert power_mw == pytest.approx(power[0], abs=power[1] + 1e-9)
    assert area_mm2 == pytest.approx(area[0], abs=area[1] + 1e-9)


def test_the_chip_has_its_168_tiles_at_nodes_of_their_own():
    chip = HARDWARE.chip
    assert chip.tiles == chip.mesh_width * chip.mesh_height == 168


def test_a_read_and_its_conversions_take_100_ns():
    pe, clock_mhz = HARDWARE.tile.pe, HARDWARE.chip.clock_mhz
    conversions = pe.adc.cols_per_adc * pe.adc.cycles_per_conversion
    cycles = (pe.crossbar.read_cycles, conversions, pe.shift_add_cycles)
    assert [n * 1e3 / clock_mhz for n in cycles] == [CYCLE_NS] * 3


PE_AT_FULL_RATE = [
    ("fetch", "latch", 1024),
    ("row_driver", "drive", 1024),
    ("crossbar", "read", 1024),
    ("mux", "select", 1024),
    ("adc", "convert", 1024),
    ("shift_add", "write_temp", 128),
    ("shift_add", "subtract", 256),
]
TILE_AT_FULL_RATE = [
    ("tile_buffer", "read", 12 * 1024),
    ("tile_buffer", "write", 12 * 1024),
    ("htree", "transfer", 12 * 16 * 16),
    ("accumulator", "add", 128),
    ("neuron", "update", 2 * 128),
    ("pooling", "add", 128),
    ("router", "hop", 2 * 32 * 128),
]


def power_mw(uses) -> float:
    """Mean power of what is used so many times, bits or rows, in a cycle of 100 ns."""
    energy_pj = HARDWARE.library.energy_pj
    each = (n * energy_pj(part, action, **HARDWARE.cost_parameters(part)) for part, action, n in uses)
    return sum(each) / CYCLE_NS


def test_energies_of_a_busy_tile_add_up_to_its_published_power():
    """Table I, exactly: what the tile's parts sum to, 329.81 mW, rounded there to 330 mW."""
    assert power_mw(12 * PE_AT_FULL_RATE + TILE_AT_FULL_RATE) == pytest.approx(329.81, rel=1e-8)


@pytest.mark.parametrize("kind", IMA)
def test_energy_of_a_busy_part_of_an_ima_is_its_published_power(kind):
    assert power_mw(use for use in PE_AT_FULL_RATE if use[0] == kind) == pytest.approx(IMA[kind][0], rel=1e-12)


def test_the_links_at_full_rate_draw_their_published_power():
    """Four links of 6.4 GB/s: 204.8 bit per ns."""
    assert power_mw([("global_buffer", "read", 204.8 * CYCLE_NS)]) == pytest.approx(LINKS[0])
    assert HARDWARE.chip.global_buffer.bits_per_cycle * HARDWARE.chip.clock_mhz * 1e-3 == pytest.approx(204.8)


def test_describe_prints_the_parts_list_with_sources(capsys):
    assert main(["describe", "isaac-rram-128"]) == 0
    printed = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in printed.splitlines()]
    assert ["tile", "1", "0.3723", "mm2", "100.0%", "0", "mW", "329.8", "mW"] in lines
    assert ["chip", "1", "85.42", "mm2", "100.0%", "0", "mW", "65.81", "W"] in lines
    powers = {line[0]: line[-2:] for line in lines if line and line[0] in {*IMA, *TILE}}
    assert powers == {kind: [f"{12 * power:.4g}", "mW"] for kind, (power, _) in IMA.items()} | {
        kind: [f"{power:.4g}", "mW"] for kind, (power, _) in TILE.items()
    }
    for kind in {*IMA, *TILE, "router", "global_buffer"} - {"v_mem"}:
        row = next(line for line in lines if line and line[0] == f"{kind}.peak_power")
        assert "ISAAC" in row

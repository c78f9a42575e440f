"""The shipped chips run the shipped networks, and what they leave behind fits what they are."""

from __future__ import annotations

import json

import pytest

from archsim.cli import main
from archsim.hardware.reader import load_hardware
from archsim.hardware.rollup import chip_parts, tile_parts
from archsim.workload.loader import load_workload


@pytest.mark.parametrize(
    ("name", "workload", "n_crossbars", "cells_per_weight", "accuracy"),
    [
        # 128 + 64 + 10 neurons, 16 to a crossbar: 8 + 4 + 1
        ("isaac-rram-128", "digits-mlp", 13, 8, 0.95),
        # kernel positions x blocks of 64 inputs x blocks of 16 outputs
        ("spikesim-sram-64", "digits-cnn", None, 4, 0.95),
    ],
)
def test_a_preset_runs(name, workload, n_crossbars, cells_per_weight, accuracy, tmp_path):
    assert main(["run", name, workload, "-o", str(tmp_path / "r"), "--json"]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    hardware, layers = load_hardware(name), load_workload(workload).network.layers
    side = hardware.tile.pe.crossbar
    cells = summary["n_crossbars"] * side.rows * side.cols
    n_crossbars = n_crossbars or sum(
        layer.kernel[0] * layer.kernel[1] * -(-layer.in_shape[0] // side.rows) * -(-layer.out_channels // 16)
        for layer in layers
    )
    assert hardware.cols_per_weight == cells_per_weight
    assert summary["n_crossbars"] == n_crossbars
    weights = sum(layer.n_weights for layer in layers)
    assert summary["cell_utilisation"] == pytest.approx(weights * cells_per_weight / cells)
    assert 0.1 < summary["cell_utilisation"] < 1
    assert summary["accuracy_raw"] > accuracy


def test_isaac_draws_less_than_its_peak_power_and_has_its_area_and_the_membrane_store(tmp_path):
    main(["run", "isaac-rram-128", "digits-mlp", "-o", str(tmp_path / "r"), "--json"])
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    hardware = load_hardware("isaac-rram-128")
    parts = [*168 * tile_parts(hardware, 0, 0), *chip_parts(hardware, n_nodes=168)]
    membrane_um2 = (128 + 64 + 10) * 16 * hardware.library.area_um2("v_mem")
    assert summary["area_um2"] == pytest.approx(sum(part.area_um2 for part in parts) + membrane_um2)
    assert 0 < summary["power_mw"] < sum(part.peak_power_mw for part in parts)
    assert summary["energy_leakage_pj"] == 0


def test_the_sram_chip_is_the_rram_chip_with_one_bit_cells():
    rram, sram = load_hardware("spikesim-rram-64"), load_hardware("spikesim-sram-64")
    crossbar = {**sram.tile.pe.crossbar.model_dump(), "bits_per_cell": 4}
    assert crossbar == rram.tile.pe.crossbar.model_dump()
    assert (sram.chip, sram.mapping, sram.tile.pe.adc) == (rram.chip, rram.mapping, rram.tile.pe.adc)

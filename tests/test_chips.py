"""Chips with devices of their own: read energy in the log against the circuits, accuracy from chip to chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_inference import shapes_only, small_workload
from test_nonideal_layers import Recorded, linear, physical_columns, row_values, windows
from test_nonideal_layers import case as layer_case
from test_traces import files_that_differ
from test_traces import run as cli

from archsim.analog import arrays
from archsim.analog.arrays import driver_factors
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat
from archsim.analog.wires import effective_conductance
from archsim.api import infer, load_hardware, map_network, record, simulate
from archsim.engine.simulation import simulate_activity
from archsim.errors import WorkloadError
from archsim.inference.chip import program
from archsim.workload.model import Workload

OHMS = {"r_driver_ohm": 300.0, "r_wire_row_ohm": 8.0, "r_wire_col_ohm": 5.0, "r_sense_ohm": 200.0}
CIRCUIT = {f"tile.pe.crossbar.{key}": value for key, value in OHMS.items()} | {
    "tile.pe.crossbar.v_read_v": 0.2,
    "tile.pe.pipelined": False,
    "tile.pe.crossbar.device.preset": "rram-20k-200k",
}
SPREAD = CIRCUIT | {"tile.pe.crossbar.device.d2d_sigma_rel": 0.3}
V_READ_V = 0.2


def network_integers(workload: Workload) -> Workload:
    """The workload with integer weights that cells hold as they are (scale 1)."""
    layers = []
    for layer in workload.network.layers:
        weights = np.clip(np.rint(layer.weights * 15), -15, 15)
        weights.flat[0] = 15
        neuron = replace(layer.neuron, v_threshold=layer.neuron.v_threshold * 15)
        layers.append(replace(layer, weights=weights, neuron=neuron))
    return replace(workload, network=replace(workload.network, layers=tuple(layers)))


def read_energy_pj(result, layer: str) -> np.ndarray:
    """Energy of every crossbar read of a layer in the log."""
    log = result.log
    mine = (log["layer"] == log.layers.index(layer)) & log.actions_of("read")
    of_crossbars = [code for code, name in enumerate(log.components) if name.endswith(".crossbar")]
    return log["energy_pj"][mine & np.isin(log["component"], of_crossbars)]


# Read energy


@pytest.mark.parametrize(
    ("changes", "held_cycles"),
    [
        ({}, lambda turns: 5 + turns),
        ({"tile.pe.adc.cycles_per_conversion": 3}, lambda turns: 5 + 3 * turns),
        ({"tile.pe.pipelined": True}, lambda turns: 5),
        ({"tile.pe.column_merge": "digital", "tile.pe.crossbar.zero_skip": False}, lambda turns: 5 + turns),
    ],
)
def test_read_energy_is_power_times_the_time_that_rows_are_driven(changes, held_cycles, monkeypatch):
    """Twice: from the power of every token, and from totals of which rows are driven together, <Y, sum s s^T>."""
    recorded, workload = Recorded(monkeypatch), network_integers(small_workload())
    hardware = load_hardware("demo", SPREAD | changes)
    mapping = map_network(hardware, workload)
    activity = infer(mapping, workload, samples=2)
    result = simulate_activity(mapping, workload, activity)
    for item in mapping.layers:
        layer = item.layer
        assert len(item.col_blocks) == 1
        turns = -(-layer.out_channels * hardware.cols_per_weight // 8)
        driven_ps = held_cycles(turns) * 2000
        values = activity.layers[layer.name]
        logged = read_energy_pj(result, layer.name)
        assert float(logged.sum()) == pytest.approx(float(values.read_power_w.sum()) * driven_ps, rel=1e-12)
        n_bits, total = values.input_bits, 0.0
        seen = windows(layer, values.inputs.reshape(-1, *layer.in_shape).astype(int))
        for block in item.row_blocks:
            for rows in block:
                weights, numbers = row_values(item, layer.weights, seen, rows, np.zeros(layer.out_channels))
                ((levels, _),) = physical_columns(hardware, weights, (0, layer.out_channels), -15)
                g, _ = recorded.next(levels, (64, 64), is_open=False)
                _, drawn = effective_conductance(torch.as_tensor(g), **OHMS, input_conductance=True)
                part = drawn[64 - len(levels) :, 64 - len(levels) :].numpy()
                for bit in range(n_bits):
                    driven = (numbers.reshape(-1, len(levels)) >> bit & 1).astype(float)
                    total += float((part * (driven.T @ driven)).sum())
        assert float(logged.sum()) == pytest.approx(V_READ_V**2 * total * driven_ps, rel=1e-12)
        assert total > 0


def test_column_blocks_share_the_power_of_their_rows():
    """Each by its part of the input conductance; together they draw what the rows do."""
    workload = small_workload()
    hardware = load_hardware("demo", CIRCUIT | {"tile.pe.crossbar.cols": 16})
    mapping = map_network(hardware, workload)
    activity = infer(mapping, workload)
    for item in mapping.layers:
        values = activity.layers[item.layer.name]
        assert values.energy_shares.shape == (len(item.row_blocks), len(item.col_blocks))
        assert values.energy_shares.sum(1) == pytest.approx(np.ones(len(item.row_blocks)), rel=1e-12)
    assert len(mapping.layers[0].col_blocks) == 2
    result = simulate_activity(mapping, workload, activity)
    power, shares = (getattr(activity.layers["a"], name) for name in ("read_power_w", "energy_shares"))
    turns = np.array([8, 2])  # of two converters: 16 columns and 4
    expected = float((power @ (shares * (5 + turns))).sum()) * 2000
    assert float(read_energy_pj(result, "a").sum()) == pytest.approx(expected, rel=1e-12)


def test_rows_without_any_conductance_draw_nothing():
    hardware = load_hardware("demo", CIRCUIT | {"tile.pe.crossbar.device.open_fraction": 1.0})
    workload = small_workload()
    result = simulate(hardware, workload)
    assert float(read_energy_pj(result, "a").sum()) == 0.0
    assert np.isfinite(result.summary["energy_pj"])


@pytest.mark.parametrize(("kind", "workload"), [("recorded", small_workload()), ("assumed", shapes_only(0.3))])
def test_activity_from_elsewhere_takes_the_library_and_says_so(kind, workload):
    without = {key: value for key, value in CIRCUIT.items() if not key.endswith("v_read_v")}
    if kind == "recorded":
        workload = replace(workload, recording=record(workload, load_hardware("demo")))
    notes = simulate(load_hardware("demo", CIRCUIT), workload).notes
    assert notes[-1] == (
        f"read energy of a, b, c is the cost library's, not the circuit's (v_read_v): the activity is {kind}, "
        "so this chip's crossbars were not solved"
    )
    notes = simulate(load_hardware("demo", without), workload).notes
    assert not [note for note in notes if "v_read_v" in note]
    assert notes[-1] == f"the activity is {kind}: spikes and accuracy are not those of these cells"


def test_what_is_not_ideal_is_noted():
    notes = list(simulate(load_hardware("demo", SPREAD), small_workload()).notes)
    assert notes[1:5] == [
        "cells: rram-20k-200k: 20000 ohm on, 200000 ohm off, d2d_sigma_rel 0.3",
        "source of cells: SpikeSim (arXiv 2210.12899) released code: base resistance about 20 kOhm, off 200 kOhm; "
        "changed: d2d_sigma_rel",
        "wires: driver 300 ohm, row wire per cell 8 ohm, column wire per cell 5 ohm, sense input 200 ohm, "
        "rows driven with 0.2 V",
        "chips differ, and accuracy is that of one chip; more of them (--chips) show the spread",
    ]
    assert not any("chip" in note for note in simulate(load_hardware("demo", CIRCUIT), small_workload()).notes[1:])
    assert not any("cells" in note for note in simulate(load_hardware("demo"), small_workload()).notes)
    converters = simulate(load_hardware("demo", {"tile.pe.adc.offset_sigma_lsb": 0.5}), small_workload()).notes
    assert converters[1] == "ADC errors: offset_sigma_lsb 0.5"


# Monte Carlo


@pytest.fixture(scope="module")
def several():
    """Five chips of a network of which the ideal one is right every time, with timing of two samples."""
    return simulate(load_hardware("demo", SPREAD), small_workload(40), samples=2, seed=3, chips=5)


def test_statistics_are_those_of_the_chips(several):
    for kind in ("raw", "calibrated"):
        each = several.chips[f"accuracy_{kind}"].to_numpy()
        assert len(each) == 5
        assert several.summary[f"accuracy_{kind}"] == pytest.approx(np.mean(each), rel=1e-12)
        assert several.summary[f"accuracy_{kind}_std"] == pytest.approx(np.std(each, ddof=1), rel=1e-12)
        for percent in (5, 50, 95):
            assert several.summary[f"accuracy_{kind}_p{percent:02d}"] == pytest.approx(np.percentile(each, percent))
        assert np.std(each) > 0
    assert several.summary["n_chips"] == 5
    assert several.summary["accuracy_ideal"] == 1.0


def test_the_first_of_several_chips_is_the_only_one_of_one(several):
    """Timing, energy and layers are those of the first chip, whatever the number."""
    alone = simulate(load_hardware("demo", SPREAD), small_workload(40), samples=2, seed=3)
    assert alone.chips.to_dict("records") == several.chips.to_dict("records")[:1]
    assert alone.layers.equals(several.layers)
    assert alone.components.equals(several.components)
    assert all(np.array_equal(alone.log[name], several.log[name]) for name, _ in several.log.COLUMNS)
    differ = {key for key in alone.summary if alone.summary[key] != several.summary[key]}
    assert all(key.startswith("accuracy_") or key == "n_chips" for key in differ)


def test_more_chips_leave_those_before_as_they_are(several):
    fewer = simulate(load_hardware("demo", SPREAD), small_workload(40), seed=3, chips=3)
    assert fewer.chips.equals(several.chips[:3])


def test_another_seed_is_another_lot(several):
    other = simulate(load_hardware("demo", SPREAD), small_workload(40), seed=4, chips=2)
    assert not other.chips.equals(several.chips[:2])


def test_chips_without_spread_are_identical():
    found = simulate(load_hardware("demo", CIRCUIT), small_workload(40), chips=3)
    assert len(found.chips.drop(columns="chip").drop_duplicates()) == 1
    assert found.summary["accuracy_raw_std"] == pytest.approx(0.0, abs=1e-12)


def test_equal_seeds_write_equal_bytes(tmp_path):
    spread = [f"--set={key}={value}" for key, value in SPREAD.items()]
    for name in ("one", "two"):
        arrays._cache = arrays._Cache(1 << 29) if name == "two" else arrays._cache
        assert (
            cli("run", "demo", "digits-mlp", *spread, "--chips", 2, "--seed", 7, "--json", "-o", tmp_path / name) == 0
        )
    assert files_that_differ(tmp_path / "one", tmp_path / "two") == []
    assert (tmp_path / "one" / "chips.csv").read_bytes() == (tmp_path / "two" / "chips.csv").read_bytes()


@pytest.mark.parametrize(
    ("workload", "chips", "message"),
    [
        (
            small_workload(labels=False),
            2,
            "workload 'small' has no labels, so 2 chips cannot be compared; give labels or chips: 1.",
        ),
        (shapes_only(0.3), 2, "workload 'shapes' is a network without weights, whose accuracy no chip changes; "
                              "set chips to 1."),
        (replace(small_workload(), recording=record(small_workload())), 2,
         "workload 'small' is a recorded trace, whose accuracy no chip changes; set chips to 1."),
        (small_workload(), 0, "chips is 0; it must be 1 to 10000."),
        (small_workload(), 10_001, "chips is 10001; it must be 1 to 10000."),
    ],
)  # fmt: skip
def test_chips_that_cannot_be_compared_are_named(workload, chips, message):
    with pytest.raises(WorkloadError) as caught:
        simulate(load_hardware("demo"), workload, chips=chips)
    assert str(caught.value) == message


# What a chip is does not hang on what was done before


def test_crossbars_without_spread_are_the_same_whoever_programs_them_first(monkeypatch):
    """Typical reads that chords are averaged over belong to no chip."""
    device = {"r_on_ohm": 2e4, "r_off_ohm": 2e5, "nonlinearity": "calibrated", "nonlinearity_v0_v": 0.1}
    item = layer_case(linear(10, 4), array={"device": device})
    mapping = map_network(item.hardware, replace(small_workload().network, layers=(item.layer,)))

    def cells(chip: int) -> torch.Tensor:
        layer = program(mapping, mapping.layers[0], 1.0, InputFormat(1), ChipSeed(1, chip))
        return layer.crossbars.effective.cells

    alone = []
    for chip in (0, 5):
        monkeypatch.setattr(arrays, "_cache", arrays._Cache(1 << 20))
        alone.append(cells(chip))
    assert torch.equal(*alone)
    assert torch.equal(cells(2), alone[0])


def test_drivers_are_the_same_in_both_precisions():
    hardware = layer_case(linear(), array={"driver_sigma_rel": 0.05}).hardware
    single, double = (driver_factors(hardware, ChipSeed(2), "x", torch.zeros(3, 20, 4, dtype=dtype))
                      for dtype in (torch.float32, torch.float64))  # fmt: skip
    assert torch.equal(single, double.float())
    many = driver_factors(hardware, ChipSeed(2), "x", torch.zeros(50, 400, 1, dtype=torch.float64))
    assert float(many.mean()) == pytest.approx(1.0, abs=5 * 0.05 / 20000**0.5)
    assert float(many.std()) == pytest.approx(0.05, rel=5 / 40000**0.5)

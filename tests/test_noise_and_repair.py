"""Read noise, converters with errors, and what digital gains bring back: closed forms and constructed cases."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_nonideal_layers import (
    SEED,
    WIRES,
    Recorded,
    case,
    linear,
    mapping_of,
    physical_columns,
    programmed,
    random_inputs,
)

from archsim import infer, load_hardware, load_workload, map_network
from archsim.analog.calibration import calibrate_ranges, fit_gains
from archsim.analog.converters import AdcErrors, quantize_columns
from archsim.analog.layer import InputFormat
from archsim.analog.product import hardware_sums
from archsim.analog.wires import effective_conductance
from archsim.inference.chip import program, run_layer, without_gains
from archsim.inference.flow import Arrived

NO_WIRES = dict.fromkeys(("r_driver_ohm", "r_wire_row_ohm", "r_wire_col_ohm", "r_sense_ohm"), 0.0)
NOISY = {"r_on_ohm": 2e4, "r_off_ohm": 2e5, "read_noise_sigma_rel": 0.05}
STEP = 4.5e-5 / 3


# Noise of devices


def repeated(item, n_reads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the same input read again and again, (read, col), and the input."""
    layer, rows = programmed(item)
    inputs = random_inputs(item, 1)
    sums, _ = hardware_sums(layer, inputs.expand(n_reads, -1, -1, -1), rows)
    return sums[:, :, 0, 0], inputs[0, :, 0, 0]


@pytest.mark.parametrize("signed", ["diff", "differential", "offset"])
def test_reads_on_ideal_wires_spread_as_the_devices_do(signed, monkeypatch):
    """Variance of a sum: of every driven cell, times the squares of what slice and input bit are worth."""
    array = {"rows": 32, "cols": 64, "signed": signed, "device": NOISY, **NO_WIRES}
    item, recorded = case(linear(24, 12), n_bits=2, array=array), Recorded(monkeypatch)
    sums, inputs = repeated(item, 3000)
    ((levels, counts),) = physical_columns(item.hardware, item.layer.weights[:, :, 0, 0].T, (0, 12), -7)
    g, _ = recorded.next(levels, (32, 64), is_open=False)
    noise = (0.05 * g[8:, : levels.shape[1]] / STEP) ** 2
    driven = sum(4**bit * (inputs.numpy() >> bit & 1) for bit in (0, 1))
    expected = np.sqrt(driven @ noise @ counts**2)
    assert float(np.mean(sums.std(0).numpy() / expected)) == pytest.approx(1.0, abs=0.03)
    assert sums.std(0).numpy() == pytest.approx(expected, rel=0.08)


def test_reads_through_wires_spread_like_crossbars_whose_cells_do(monkeypatch):
    item, recorded = case(linear(24, 8), array={"rows": 24, "cols": 16, "device": NOISY}), Recorded(monkeypatch)
    sums, inputs = repeated(item, 3000)
    ((levels, counts),) = physical_columns(item.hardware, item.layer.weights[:, :, 0, 0].T, (0, 8), -7)
    g, _ = recorded.next(levels, (24, 16), is_open=False)
    cells = torch.as_tensor(g) * (1 + 0.05 * torch.randn(3000, *g.shape, generator=torch.Generator().manual_seed(1)))
    matrices = effective_conductance(cells, **WIRES)
    expected = (inputs.double() @ matrices / STEP @ torch.as_tensor(counts)).std(0)
    assert float((sums.std(0) / expected).mean()) == pytest.approx(1.0, abs=0.03)


def test_noise_of_reads_is_independent_from_read_to_read_and_column_to_column():
    item = case(linear(24, 8), array={"rows": 24, "cols": 16, "device": NOISY})
    sums, _ = repeated(item, 4000)
    across = torch.corrcoef(sums.T) - torch.eye(8)
    along = torch.corrcoef(torch.stack([sums[:-1, 0], sums[1:, 0]]))[0, 1]
    assert max(float(across.abs().max()), abs(float(along))) < 5 / 4000**0.5


def test_what_is_not_driven_makes_no_noise():
    item = case(linear(24, 8), array={"device": NOISY})
    layer, rows = programmed(item)
    sums, _ = hardware_sums(layer, torch.zeros(5, 24, 1, 1, dtype=torch.int64), rows)
    assert not bool(sums.any())


@pytest.mark.parametrize("noise", ["devices", "converters"])
@pytest.mark.parametrize(("first_layer", "n_reads"), [("repeat", 5), ("once", 1)])
def test_a_first_layer_that_repeats_draws_its_noise_at_every_timestep(noise, first_layer, n_reads):
    item = case(linear(24, 8), first_layer=first_layer, array={"device": NOISY if noise == "devices" else QUIET})
    if noise == "converters":
        item = replace(item, hardware=with_adc(item.hardware, noise_sigma_lsb=20.0))
    values = random_inputs(item, 3).unsqueeze(1)
    mapping = mapping_of(item)
    layer = program(mapping, mapping.layers[0], 1.0, InputFormat(1), SEED)
    sums = run_layer(layer, Arrived(values, torch.zeros(())), 5, None).sums
    assert sums.shape[1] == n_reads
    assert len({tuple(step.flatten().tolist()) for step in sums.unbind(1)}) == n_reads


def test_without_noise_the_first_layer_is_computed_once_for_all_timesteps():
    item = case(linear(24, 8), array={"device": QUIET})
    mapping = mapping_of(item)
    layer = program(mapping, mapping.layers[0], 1.0, InputFormat(1), SEED)
    done = run_layer(layer, Arrived(random_inputs(item, 3).unsqueeze(1), torch.zeros(())), 5, None)
    assert done.sums.shape[1] == 1
    assert done.inputs.shape[1] == 5


QUIET = {"r_on_ohm": 2e4, "r_off_ohm": 2e5}


def with_adc(hardware, **keys):
    """The chip with other converters."""
    pe = hardware.tile.pe
    adc = type(pe.adc)(**(pe.adc.model_dump() | keys))
    return hardware.model_copy(
        update={"tile": hardware.tile.model_copy(update={"pe": pe.model_copy(update={"adc": adc})})}
    )


# Errors of converters


def errors(gain=1.0, offset=0.0, bow=0.0, noise=0.0) -> AdcErrors:
    values = (torch.tensor([value], dtype=torch.float64) for value in (gain, offset, bow))
    return AdcErrors(*values, noise, torch.Generator().manual_seed(0))


def codes(places: torch.Tensor, made: AdcErrors, bits=10) -> torch.Tensor:
    """Codes of sums at places (0 to 1) of a range from 5 to 25."""
    values, _ = quantize_columns((5.0 + 20.0 * places).unsqueeze(-1), 5.0, 25.0, bits, made)
    return (values.squeeze(-1) - 5.0) / 20.0 * (2**bits - 1)


PLACES = torch.linspace(0.2, 0.8, 20011, dtype=torch.float64)


def test_a_bow_is_largest_in_mid_range_and_leaves_both_ends():
    found = codes(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64), errors(bow=8.0), bits=12)
    straight = np.array([0.0, 0.25, 0.5, 0.75, 1.0]) * 4095
    assert (found.numpy() - straight) == pytest.approx([0, 6, 8, 6, 0], abs=0.5)


def test_an_offset_is_added_to_every_code():
    assert float((codes(PLACES, errors(offset=3.3)) - PLACES * 1023).mean()) == pytest.approx(3.3, abs=1e-3)


def test_a_gain_tilts_the_curve_around_the_lowest_sum():
    assert float((codes(PLACES, errors(gain=1.07)) / (PLACES * 1023)).mean()) == pytest.approx(1.07, abs=1e-4)


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_noise_adds_to_that_of_rounding(sigma):
    found = codes(PLACES, errors(noise=sigma)) - PLACES * 1023
    assert float(found.mean()) == pytest.approx(0.0, abs=5 * sigma / len(PLACES) ** 0.5)
    assert float(found.std()) == pytest.approx((sigma**2 + 1 / 12) ** 0.5, rel=0.03)


def test_errors_at_the_ends_clip_and_are_counted():
    _, clipped = quantize_columns(torch.tensor([[25.0], [24.9]]), 5.0, 25.0, 4, errors(offset=1.0))
    assert clipped.flatten().tolist() == [True, True]
    assert not bool(quantize_columns(torch.tensor([[22.0]]), 5.0, 25.0, 4, errors(offset=1.0))[1].any())


def adc_errors(item, seed=SEED, **keys) -> AdcErrors:
    found = programmed(replace(item, hardware=with_adc(item.hardware, **keys)), seed)[0].adc_errors
    assert found is not None
    return found


def test_errors_of_converters_are_drawn_with_their_spreads():
    item = case(linear(200, 300), crossbars=1, merge="digital", array={"rows": 4, "cols": 32, "device": QUIET})
    keys = {"cols_per_adc": 1, "gain_sigma_rel": 0.02, "offset_sigma_lsb": 0.7, "inl_lsb": 1.5}
    found = adc_errors(item, **keys)
    n = found.gain.numel()
    assert n == 50 * 600
    for values, mean, sigma in ((found.gain, 1.0, 0.02), (found.offset, 0.0, 0.7), (found.bow, 0.0, 1.5)):
        assert float(values.mean()) == pytest.approx(mean, abs=5 * sigma / n**0.5)
        assert float(values.std()) == pytest.approx(sigma, rel=5 / (2 * n) ** 0.5)
    assert set(found.bow.flatten().tolist()) == {-1.5, 1.5}
    assert torch.equal(adc_errors(item, **keys).gain, found.gain)
    assert not torch.equal(adc_errors(item, replace(SEED, chip=2), **keys).gain, found.gain)


def converters_of(values: torch.Tensor) -> list[int]:
    """Number of the converter behind each column, in order of first appearance."""
    order = {value: index for index, value in enumerate(dict.fromkeys(values.tolist()))}
    return [order[value] for value in values.tolist()]


@pytest.mark.parametrize(
    ("signed", "cols", "expected"),
    [
        # 5 weights of two slices in each of 10 bit lines, converters behind 4, 4 and 2 of them; then the next PE.
        ("diff", 10, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]),
        ("differential", 12, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5]),
        # Arrays of 8 bit lines; positive columns are in one, negative ones in the other.
        ("differential_arrays", 16, [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5]),
        # 4 weights and a reference in a PE; columns of references stand behind those of all weights.
        ("offset", 10, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_neighbouring_bit_lines_of_a_pe_share_converters(signed, cols, expected):
    array = {"rows": 32, "cols": cols, "signed": signed, "device": QUIET}
    item = case(linear(20, 6), array=array)
    found = adc_errors(item, cols_per_adc=4, offset_sigma_lsb=1.0, gain_sigma_rel=0.1)
    assert converters_of(found.offset[0, 0]) == expected
    assert converters_of(found.gain[0, 0]) == expected


@pytest.mark.parametrize(("merge", "n_banks"), [("analog", 1), ("digital", 3)])
def test_every_pe_has_a_bank_and_every_crossbar_where_they_are_converted_one_by_one(merge, n_banks):
    item = case(linear(20, 4), crossbars=3, merge=merge, array={"rows": 4, "device": QUIET})
    found = adc_errors(item, offset_sigma_lsb=1.0).offset
    assert found.shape == (2, n_banks, 8)
    assert len(set(found.flatten().tolist())) == 2 * n_banks


@pytest.mark.parametrize("zero_skip", [True, False])
@pytest.mark.parametrize("merge", ["analog", "digital"])
def test_offsets_reach_the_sums_once_for_every_conversion(merge, zero_skip):
    """A code is one level: offsets of whole codes come back whole, worth what their slice is worth."""
    array = {"rows": 4, "cols": 12, "device": {}, **NO_WIRES, "v_read_v": None, "zero_skip": zero_skip}
    item = case(linear(12, 6), crossbars=3, merge=merge, array=array)
    layer, rows = programmed(replace(item, hardware=with_adc(item.hardware, bits=6)))
    n_banks = 1 if merge == "analog" else 3
    offset = 1.0 + torch.arange(n_banks * 12).view(1, n_banks, 12).double() % 5
    plain = torch.ones_like(offset)
    inputs = torch.zeros(2, 12, 1, 1, dtype=torch.int64)
    inputs[0, :6] = 1
    erring = replace(layer, adc_errors=AdcErrors(plain, offset, 0 * plain, 0.0, torch.Generator()))
    difference = (hardware_sums(erring, inputs, rows)[0] - hardware_sums(layer, inputs, rows)[0])[:, :, 0, 0]
    seen = [[0] if merge == "analog" else [0, 1], []] if zero_skip else [list(range(n_banks))] * 2
    for frame, banks in enumerate(seen):
        total = offset[0, banks].sum(0).view(6, 2)
        assert difference[frame].tolist() == (total[:, 0] + 4 * total[:, 1]).tolist()


# Repair


def attenuated(item, factors: torch.Tensor):
    """A layer without spread whose cells deliver less than they should, with ranges fitted; its inputs."""
    layer, rows = programmed(item)
    layer = replace(layer, effective=replace(layer.effective, cells=(layer.effective.cells * factors).float()))
    inputs = random_inputs(item, 200)
    return calibrate_ranges(layer, inputs, rows), inputs, rows


def repair(scope: str, **keys):
    """Rows in three row blocks, columns in three column blocks; fine converters with ranges of their own."""
    array = {"rows": 8, "cols": 8, "signed": "differential", "device": QUIET, **NO_WIRES} | keys
    item = case(linear(24, 6), crossbars=1, n_bits=2, array=array, calibration=scope)
    return replace(item, hardware=with_adc(item.hardware, range="calibrated", range_scope="column"))


def exact_sums(item, inputs: torch.Tensor) -> torch.Tensor:
    return inputs[:, :, 0, 0].double() @ torch.as_tensor(item.layer.weights)[:, :, 0, 0].T


def factors_of(scope: str) -> torch.Tensor:
    """Factors from 0.5 to 0.95, one per group of a scope, for cells of (1, 1, 24 rows, 24 physical columns)."""
    order = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    values = torch.linspace(0.5, 0.95, 18, dtype=torch.float64)[order]
    by_group = {
        "layer": values[:1].expand(3, 6),
        "tile": values[:9].view(3, 3).repeat_interleave(2, 1),
        "column": values.view(3, 6),
        "channel": values[:6].expand(3, 6),
    }[scope]
    return by_group.repeat_interleave(8, 0).repeat_interleave(4, 1)


SCOPES = ["layer", "tile", "column"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("cause", SCOPES)
def test_a_gain_per_group_brings_back_what_the_group_lost(scope, cause):
    """A scope repairs attenuations as fine as itself or coarser, and no finer ones."""
    item = repair(scope)
    layer, inputs, rows = attenuated(item, factors_of(cause))
    wanted = exact_sums(item, inputs)
    fitted = fit_gains(layer, inputs, rows)
    found = hardware_sums(fitted, inputs, rows)[0][:, :, 0, 0]
    error = float((found - wanted).std() / wanted.std())
    if SCOPES.index(scope) >= SCOPES.index(cause):
        assert error < 1e-3
        expected = 1 / factors_of(cause)[0, 0] if cause == scope == "layer" else None
        if expected is not None:
            assert float(fitted.gains[0, 0]) == pytest.approx(float(expected), rel=1e-4)
    else:
        assert error > 0.05
    raw = hardware_sums(layer, inputs, rows)[0][:, :, 0, 0]
    assert float((raw - wanted).std() / wanted.std()) > 0.1


def test_gains_of_diff_columns_leave_the_digital_correction_alone():
    """Only what passed the converters is attenuated; the correction is subtracted as it is."""
    item = repair("layer", signed="diff")
    layer, inputs, rows = attenuated(item, torch.tensor(0.6))
    fitted = fit_gains(layer, inputs, rows)
    assert fitted.gains.flatten().tolist() == pytest.approx([1 / 0.6] * fitted.gains.numel(), rel=1e-4)
    found = hardware_sums(fitted, inputs, rows)[0][:, :, 0, 0]
    assert float((found - exact_sums(item, inputs)).std()) < 1e-3 * float(exact_sums(item, inputs).std())


def test_batch_norm_brings_back_scale_and_offset_of_every_channel():
    """Every channel has lost a share of its own, and its converters add an offset of their own to every read."""
    item = repair("batch_norm", zero_skip=False)
    layer, inputs, rows = attenuated(item, factors_of("channel"))
    offset = torch.linspace(-300, 300, 24, dtype=torch.float64).expand(3, 1, 24)
    plain = torch.ones_like(offset)
    layer = replace(layer, adc_errors=AdcErrors(plain, offset, 0 * plain, 0.0, torch.Generator()))
    wanted = exact_sums(item, inputs)
    fitted = fit_gains(layer, inputs, rows)
    found = hardware_sums(fitted, inputs, rows)[0][:, :, 0, 0]
    assert float((found - wanted).std()) < 1e-3 * float(wanted.std())
    only_gain = hardware_sums(replace(fitted, normalisation=None), inputs, rows)[0][:, :, 0, 0]
    assert float((only_gain - wanted).std()) > 0.05 * float(wanted.std())


def test_a_silent_channel_keeps_scale_one_and_gets_the_mean():
    item = repair("batch_norm")
    silent = np.where(np.arange(6) == 2, 0.0, 1.0).reshape(6, 1, 1, 1)
    item = replace(item, layer=replace(item.layer, weights=item.layer.weights * silent))
    layer, inputs, rows = attenuated(item, torch.tensor(0.8))
    fitted = fit_gains(layer, inputs, rows)
    assert float(fitted.normalisation[0, 2]) == 1.0
    found = hardware_sums(fitted, inputs, rows)[0]
    assert float(found[:, 2].mean()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("scope", ["layer", "batch_norm"])
def test_raw_is_without_any_repair(scope):
    """Accuracy `raw` is the same whatever the calibration is."""
    item = repair(scope)
    mapping = mapping_of(item)
    layer = program(mapping, mapping.layers[0], 1.0, InputFormat(2), SEED)
    cells, inputs, rows = attenuated(item, factors_of("channel"))
    fitted = replace(layer, programmed=fit_gains(cells, inputs, rows))
    raw = without_gains(fitted).programmed
    assert (raw.gains, raw.normalisation) == (None, None)
    assert torch.equal(hardware_sums(raw, inputs, rows)[0], hardware_sums(cells, inputs, rows)[0])


# The whole network: claim of the founding paper P0, as far as it holds


WIRED = {
    "mapping.unused_cells": "g_min", "mapping.layout": "dense", "tile.pe.crossbars": 1, "tile.pe.adc.bits": 8,
    "tile.pe.crossbar.signed": "differential", "tile.pe.crossbar.r_driver_ohm": 1e3,
    "tile.pe.crossbar.r_wire_row_ohm": 5.0, "tile.pe.crossbar.r_wire_col_ohm": 10.0,
    "tile.pe.crossbar.r_sense_ohm": 1e3,
}  # fmt: skip
SIZES = (16, 32, 64, 128)


@cache
def accuracies(name: str, preset: str) -> tuple[tuple[float, float, float], ...]:
    """Ideal, raw and calibrated accuracy for every size of crossbar."""
    workload, found = load_workload(name), []
    for size in SIZES:
        array = {"tile.pe.crossbar.rows": size, "tile.pe.crossbar.cols": size, "tile.pe.crossbar.device.preset": preset}
        result = infer(map_network(load_hardware("spikesim-rram-64", WIRED | array), workload), workload).accuracy
        found.append((result.ideal, result.raw, result.calibrated))
    return tuple(found)


@pytest.mark.parametrize("name", ["digits-mlp", pytest.param("digits-cnn", marks=pytest.mark.slow)])
def test_larger_crossbars_of_better_conductors_lose_more_and_a_gain_brings_it_back(name):
    """Wires of 1k / 5 / 10 / 1k ohm: raw accuracy falls with size and conductance (to a point of a hundred)."""
    good, poor = accuracies(name, "rram-20k-200k"), accuracies(name, "rram-100k-1m")
    for table in (good, poor):
        raw = [row[1] for row in table]
        assert all(larger <= smaller + 0.01 for smaller, larger in pairwise(raw))
        assert all(row[2] >= row[0] - 0.03 for row in table)
    assert all(low[1] <= high[1] + 0.01 for low, high in zip(good, poor, strict=True))
    assert good[-1][1] < 0.3
    assert poor[-1][1] > 0.95

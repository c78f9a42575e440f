"""Devices: every effect alone against its formula, draws that stay put, limits; and keys that make no sense."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.analog.devices import ChipSeed, cell_conductances, settable, wanted
from archsim.errors import ConfigError
from archsim.hardware.devices import PRESETS, Device, DevicePhysics
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware
from archsim.hardware.words import analog_rows
from archsim.shipped import shipped_folder
from archsim.yamlfile import dump_model

ON_OFF = {"r_on_ohm": 20e3, "r_off_ohm": 200e3}
G_ON, G_OFF = 50e-6, 5e-6
LARGEST = 15
SHAPE = (2, 125, 160)
"""40 000 cells: a mean is known to 0.5 %, a standard deviation to 0.35 % of sigma."""
CHIP = ChipSeed(3)


def physics(**keys) -> DevicePhysics:
    return Device(**(ON_OFF | keys)).physics


def cells(levels: torch.Tensor | float = 15.0, chip: ChipSeed = CHIP, name="x", write=0, **keys) -> torch.Tensor:
    """Conductances in float64, so that rounding does not matter."""
    every = torch.as_tensor(levels, dtype=torch.float64).expand(SHAPE)
    return cell_conductances(every, LARGEST, physics(**keys), chip, name, write)


def assert_normal(values: torch.Tensor, mean: float, sigma: float) -> None:
    """Mean and standard deviation within five standard errors, and the share within one sigma that of a normal."""
    n = values.numel()
    assert float(values.mean()) == pytest.approx(mean, abs=5 * sigma / n**0.5)
    assert float(values.std()) == pytest.approx(sigma, rel=5 / (2 * n) ** 0.5)
    inside = float(((values - mean).abs() < sigma).double().mean())
    assert inside == pytest.approx(0.6827, abs=5 * (0.6827 * 0.3173 / n) ** 0.5)


# One effect at a time


def test_levels_are_evenly_spaced_from_off_to_on():
    g = wanted(torch.arange(16.0, dtype=torch.float64), LARGEST, physics())
    assert g.numpy() == pytest.approx(np.linspace(G_OFF, G_ON, 16), rel=1e-14)


@pytest.mark.parametrize("level", [0.0, 15.0])
def test_a_normal_write_misses_by_its_share(level):
    g = cells(level, programming_sigma_rel=0.1)
    assert_normal(g / (G_OFF if level == 0 else G_ON), 1.0, 0.1)


def test_a_lognormal_write_keeps_the_mean():
    g = cells(programming_sigma_rel=0.4, programming_error="lognormal") / G_ON
    assert_normal(g.log(), -0.08, 0.4)
    spread = float(np.sqrt(np.exp(0.16) - 1))
    assert float(g.mean()) == pytest.approx(1.0, abs=5 * spread / g.numel() ** 0.5)


@pytest.mark.parametrize("level", [0.0, 7.0, 15.0])
def test_a_polynomial_is_in_microsiemens_constant_term_first(level):
    coefficients = (0.5, 0.02, -0.0002)
    g = cells(level, programming_error="polynomial", programming_sigma_us=coefficients)
    wanted_us = 5.0 + level * 3.0
    assert_normal(g * 1e6, wanted_us, float(np.polynomial.Polynomial(coefficients)(wanted_us)))


def test_a_polynomial_below_zero_is_no_error():
    g = cells(programming_error="polynomial", programming_sigma_us=(-1.0,))
    assert torch.equal(g, cells())


@pytest.mark.parametrize("name", ["rram-wan-2022", "rram-milo-2021", "pcm-joshi-2020"])
def test_presets_with_a_polynomial_have_its_spread(name):
    device = Device(preset=name, read_noise_sigma_rel=0.0).physics
    g = cell_conductances(torch.full(SHAPE, 8.0, dtype=torch.float64), 15, device, ChipSeed(1), "x") * 1e6
    target = 1e6 * (device.g_off_s + 8 / 15 * (device.g_on_s - device.g_off_s))
    assert_normal(g, target, sum(c * target**k for k, c in enumerate(device.programming_sigma_us)))


@pytest.mark.parametrize("key", ["d2d_sigma_rel", "c2c_sigma_rel"])
def test_devices_spread_by_their_share(key):
    assert_normal(cells(**{key: 0.05}) / G_ON, 1.0, 0.05)


@pytest.mark.parametrize("age_s", [0.0, 20.0])
def test_nothing_ages_before_t0(age_s):
    young = cells(drift_nu=0.1, drift_nu_sigma=0.02, retention_sigma_rel=0.1, drift_t0_s=20.0, age_s=age_s)
    assert torch.equal(young, cells())


def test_drift_is_a_power_law():
    g = cells(drift_nu=0.05, drift_t0_s=20.0, age_s=2e6)
    assert g.numpy() == pytest.approx(G_ON * 1e5**-0.05, rel=1e-12)


def test_exponents_of_drift_spread_from_device_to_device():
    g = cells(drift_nu=0.05, drift_nu_sigma=0.01, drift_t0_s=10.0, age_s=1e6)
    assert_normal(-(g / G_ON).log() / np.log(1e5), 0.05, 0.01)


def test_exponents_of_drift_are_not_negative():
    g = cells(drift_nu=0.0, drift_nu_sigma=0.5, age_s=1e6)
    assert float(g.max()) == pytest.approx(G_ON, rel=1e-12)
    assert float((g == g.max()).double().mean()) == pytest.approx(0.5, abs=0.0125)


@pytest.mark.parametrize("decades", [1, 4])
def test_relaxation_grows_with_the_root_of_the_decades(decades):
    g = cells(retention_sigma_rel=0.01, drift_t0_s=5.0, age_s=5.0 * 10**decades)
    assert_normal(g / G_ON, 1.0, 0.01 * decades**0.5)


def test_faults_come_in_their_fractions_and_exclude_each_other():
    g = cells(7.0, stuck_on_fraction=0.02, stuck_off_fraction=0.05, open_fraction=0.01)
    for value, fraction in ((G_ON, 0.02), (G_OFF, 0.05), (0.0, 0.01), (5e-6 + 7 * 3e-6, 0.92)):
        found = float(torch.isclose(g, torch.tensor(value, dtype=torch.float64), rtol=1e-9).double().mean())
        assert found == pytest.approx(fraction, abs=5 * (fraction * (1 - fraction) / g.numel()) ** 0.5)


@pytest.mark.parametrize(("key", "value"), [("stuck_on", G_ON), ("stuck_off", G_OFF), ("open", 0.0)])
def test_a_fraction_of_one_is_every_cell(key, value):
    """Stuck cells are at their value whatever was written and however old they are."""
    aged = {"programming_sigma_rel": 0.2, "drift_nu": 0.1, "age_s": 1e5}
    assert cells(7.0, **{f"{key}_fraction": 1.0}, **aged).numpy() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("key", "axis"), [("open_row_fraction", -1), ("open_col_fraction", -2)])
def test_open_lines_are_open_from_end_to_end(key, axis):
    """They win over stuck cells."""
    g = cells(**{key: 0.25}, stuck_on_fraction=0.5)
    opened = g == 0
    assert torch.equal(opened.all(axis), opened.any(axis))
    lines = opened.all(axis)
    assert float(lines.double().mean()) == pytest.approx(0.25, abs=5 * (0.1875 / lines.numel()) ** 0.5)


def test_the_access_transistor_is_in_series():
    device = physics(r_access_ohm=25e3, stuck_on_fraction=0.3, open_fraction=0.3)
    g = cell_conductances(torch.zeros(1, 40, 40, dtype=torch.float64), 1, device, ChipSeed(0), "x")
    found = sorted(set(g.flatten().tolist()))
    assert found == pytest.approx([0.0, 1 / (200e3 + 25e3), 1 / (20e3 + 25e3)], rel=1e-12)


def test_levels_of_a_device_are_rounded_to_the_nearest():
    """Six levels 9 uS apart; level 7 of 15 wants 26 uS, which lies between 23 and 32."""
    device = physics(levels=6)
    levels = torch.tensor([0.0, 1.0, 2.0, 7.0, 14.0, 15.0], dtype=torch.float64)
    assert (settable(wanted(levels, 15, device), device) * 1e6).tolist() == pytest.approx([5, 5, 14, 23, 50, 50])


def test_a_table_of_levels_is_taken_by_distance_and_the_lower_in_a_tie():
    device = Device(levels_us=(4.0, 8.0, 20.0, 21.0)).physics
    table = torch.tensor(device.levels_us, dtype=torch.float64) * 1e-6
    assert settable((table[1:] + table[:-1]) / 2, device).tolist() == table[:-1].tolist()
    found = settable(torch.tensor([1.0, 5.9, 6.1, 13.9, 14.1, 20.4, 20.6, 99.0]) * 1e-6, device)
    assert (found * 1e6).tolist() == pytest.approx([4, 4, 8, 8, 20, 20, 21, 21], rel=1e-6)
    assert (device.r_off_ohm, device.r_on_ohm) == pytest.approx((250e3, 1e6 / 21))


@pytest.mark.parametrize(("level", "mean_us", "sigma_us"), [(0.0, 4.0, 0.1), (4.0, 8.0, 0.3), (15.0, 21.0, 0.6)])
def test_measured_levels_have_spreads_of_their_own(level, mean_us, sigma_us):
    device = Device(levels_us=(4.0, 8.0, 21.0), levels_sigma_us=(0.1, 0.3, 0.6)).physics
    every = torch.full(SHAPE, level, dtype=torch.float64)
    assert_normal(cell_conductances(every, 15, device, ChipSeed(5), "x") * 1e6, mean_us, sigma_us)


# Effects together


def test_the_order_of_effects_is_that_of_the_docstring():
    """The whole chain written again in numpy, from the same draws."""
    keys = {
        "levels": 6, "programming_sigma_rel": 0.1, "d2d_sigma_rel": 0.2, "c2c_sigma_rel": 0.05, "drift_nu": 0.1,
        "drift_nu_sigma": 0.05, "drift_t0_s": 2.0, "age_s": 2e4, "retention_sigma_rel": 0.3, "stuck_on_fraction": 0.1,
        "stuck_off_fraction": 0.2, "open_fraction": 0.05, "open_row_fraction": 0.1, "open_col_fraction": 0.1,
        "r_access_ohm": 5e3,
    }  # fmt: skip
    shape, chip = (3, 12, 9), ChipSeed(4, 2)
    levels = torch.randint(0, 16, shape, generator=torch.Generator().manual_seed(0)).double()

    def normal(*stream):
        return torch.randn(shape, generator=chip.generator("x", *stream), dtype=torch.float64).numpy()

    def uniform(stream, *of):
        return torch.rand(of, generator=chip.generator("x", stream)).numpy()

    g = 5e-6 + 9e-6 * np.round((5e-6 + levels.numpy() * 3e-6 - 5e-6) / 9e-6)
    for stream, sigma in ((("write", 7), 0.1), (("d2d",), 0.2), (("c2c", 7), 0.05)):
        g = np.maximum(g * (1 + sigma * normal(*stream)), 0)
    g = g * 1e4 ** -np.maximum(0.1 + 0.05 * normal("drift"), 0)
    g = np.maximum(g + 0.3 * 50e-6 * 2 * normal("retention"), 0)
    fault = uniform("faults", *shape)
    g = np.select([fault < 0.1, fault < 0.3, fault < 0.35], [50e-6, 5e-6, 0.0], g)
    g = g * (uniform("open rows", 3, 12) >= 0.1)[:, :, None] * (uniform("open cols", 3, 9) >= 0.1)[:, None, :]
    g = g / (1 + g * 5e3)
    found = cell_conductances(levels, 15, physics(**keys), chip, "x", write=7)
    assert found.numpy() == pytest.approx(g, rel=1e-6, abs=1e-15)


NUMBERS = [
    "programming_sigma_rel", "d2d_sigma_rel", "c2c_sigma_rel", "stuck_on_fraction", "stuck_off_fraction",
    "open_fraction", "open_row_fraction", "open_col_fraction", "drift_nu", "drift_nu_sigma", "retention_sigma_rel",
    "age_s", "r_access_ohm", "read_noise_sigma_rel",
]  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
def test_a_parameter_of_zero_changes_no_bit(key):
    levels = torch.arange(16.0).expand(2, 8, 16)
    without = cell_conductances(levels, 15, physics(), ChipSeed(), "x")
    assert torch.equal(cell_conductances(levels, 15, physics(**{key: 0.0}), ChipSeed(), "x"), without)
    assert torch.equal(without, wanted(levels, 15, physics()))


FACTORS = {
    "write": {"programming_sigma_rel": 0.05},
    "d2d": {"d2d_sigma_rel": 0.05},
    "c2c": {"c2c_sigma_rel": 0.05},
    "drift": {"drift_nu": 0.05, "drift_nu_sigma": 0.005, "age_s": 1e3},
}


@pytest.mark.parametrize(("first", "second"), list(combinations(FACTORS, 2)))
def test_an_effect_leaves_the_draws_of_another_as_they_are(first, second):
    alone, other = cells(**FACTORS[first]) / G_ON, cells(**FACTORS[second]) / G_ON
    together = cells(**FACTORS[first], **FACTORS[second]) / G_ON
    assert together.numpy() == pytest.approx((alone * other).numpy(), rel=1e-12)


@pytest.mark.parametrize("effect", FACTORS)
def test_the_same_cells_are_stuck_with_and_without_other_effects(effect):
    alone = cells(7.0, stuck_on_fraction=0.1) == cells(stuck_on_fraction=1.0)
    assert torch.equal(cells(7.0, stuck_on_fraction=0.1, **FACTORS[effect]) == cells(stuck_on_fraction=1.0), alone)


@pytest.mark.parametrize("effect", [*FACTORS, "stuck", "open row"])
def test_draws_belong_to_a_chip_and_a_layer(effect):
    keys = FACTORS.get(effect) or {"stuck_on_fraction" if effect == "stuck" else "open_row_fraction": 0.3}
    first = cells(7.0, **keys)
    assert torch.equal(cells(7.0, **keys), first)
    for other in ({"chip": ChipSeed(3, 1)}, {"chip": ChipSeed(4)}, {"name": "y"}):
        assert float((cells(7.0, **keys, **other) == first).double().mean()) < 0.75


@pytest.mark.parametrize(("effect", "changes"), [("write", True), ("c2c", True), ("d2d", False), ("drift", False)])
def test_only_what_happens_at_a_write_changes_with_it(effect, changes):
    assert torch.equal(cells(write=1, **FACTORS[effect]), cells(**FACTORS[effect])) is not changes


def test_draws_of_different_chips_are_not_correlated():
    first, second = (cells(chip=ChipSeed(0, chip), d2d_sigma_rel=0.1).flatten() for chip in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / first.numel() ** 0.5


fraction = st.one_of(st.just(0.0), st.floats(0, 0.3))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.fixed_dictionaries(
        {
            "r_on_ohm": st.floats(1e-3, 1e9),
            "r_off_ohm": st.floats(1e10, 1e15),
            **dict.fromkeys(("programming_sigma_rel", "d2d_sigma_rel", "c2c_sigma_rel"), st.floats(0, 10)),
            **dict.fromkeys([key for key in NUMBERS if key.endswith("fraction")], fraction),
            **dict.fromkeys(("drift_nu", "drift_nu_sigma"), st.floats(0, 2)),
            "retention_sigma_rel": st.floats(0, 10),
            "drift_t0_s": st.floats(1e-9, 1e12),
            "age_s": st.floats(0, 1e12),
            "r_access_ohm": st.floats(0, 1e12),
        }
    ),
    st.sampled_from(["normal", "lognormal"]),
    st.one_of(st.none(), st.integers(2, 65536)),
)
def test_conductances_are_never_negative_or_no_number(keys, error, levels):
    device = Device(**keys, programming_error=error, levels=levels).physics
    g = cell_conductances(torch.arange(16.0).expand(8, 16), 15, device, ChipSeed(1), "x")
    assert g.dtype == torch.float32
    assert bool((g.isfinite() & (g >= 0)).all())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_source_and_makes_cells(name):
    device = Device(preset=name).physics
    assert device.source
    if not device.is_ideal:
        g = cell_conductances(torch.arange(4.0).expand(50, 4), 3, device, ChipSeed(), "x")
        assert bool((g.isfinite() & (g >= 0)).all())
        assert device.g_off_s < float(g.mean()) * 2 < 2 * device.g_on_s


def test_keys_take_the_place_of_the_presets_values():
    device = Device(preset="pcm-joshi-2020", age_s=100.0, drift_nu=0.0)
    for item in fields(DevicePhysics):
        if item.name not in ("age_s", "drift_nu"):
            assert getattr(device.physics, item.name) == getattr(PRESETS["pcm-joshi-2020"], item.name)
    assert (device.physics.age_s, device.physics.drift_nu) == (100.0, 0.0)


@pytest.mark.parametrize(
    ("keys", "differ"),
    [
        ({}, False),
        ({"d2d_sigma_rel": 0.1}, True),
        ({"drift_nu": 0.1, "age_s": 1e5}, False),
        ({"drift_nu_sigma": 0.1}, False),
        ({"drift_nu_sigma": 0.1, "age_s": 1e5}, True),
        ({"levels_us": (1.0, 2.0), "levels_sigma_us": (0.0, 0.0)}, False),
        ({"levels_us": (1.0, 2.0), "levels_sigma_us": (0.0, 0.1)}, True),
        ({"preset": "rram-milo-2021"}, True),
        ({"preset": "rram-milo-2021", "programming_error": "normal"}, False),
        ({"read_noise_sigma_rel": 0.1}, True),
    ],
)
def test_it_is_known_whether_chips_differ(keys, differ):
    given_ohms = {} if {"levels_us", "preset"} & set(keys) else ON_OFF
    assert Device(**given_ohms, **keys).physics.draws_chips is differ


# Words


IDEAL_WORDS = "ideal: a cell delivers its level, and wires have no resistance"


@pytest.mark.parametrize(
    ("overrides", "rows"),
    [
        ({}, {"cells": IDEAL_WORDS}),
        ({"adc.inl_lsb": 0.5, "adc.noise_sigma_lsb": 0.25},
         {"cells": IDEAL_WORDS, "ADC errors": "inl_lsb 0.5, noise_sigma_lsb 0.25"}),
        (
            {
                "crossbar.device.preset": "rram-mnsim", "crossbar.device.d2d_sigma_rel": 0.1,
                "crossbar.device.stuck_on_fraction": 0.0, "crossbar.r_driver_ohm": 1000, "crossbar.r_wire_row_ohm": 2.5,
                "crossbar.v_read_v": 0.2, "crossbar.drive": "both_sides",
            },
            {
                "cells": "rram-mnsim: 10000 ohm on, 1e+06 ohm off, d2d_sigma_rel 0.1, stuck_off_fraction 0.001",
                "source of cells": "MNSIM 2.0 SimConfig: 10 kOhm, 1 MOhm, variation 1 %, stuck-at faults "
                                   "0.1 % + 0.1 %; changed: d2d_sigma_rel, stuck_on_fraction",
                "wires": "driver 1000 ohm, row wire per cell 2.5 ohm, rows driven at both ends, rows driven with 0.2 V",
            },
        ),
        (
            {"crossbar.device.levels_us": [2.0, 5.0, 10.0], "crossbar.device.levels_sigma_us": [0.1, 0.1, 0.2],
             "crossbar.driver_sigma_rel": 0.01, "crossbar.r_sense_ohm": 50, "crossbar.sense": "both_sides"},
            {"cells": "as given: 100000 ohm on, 500000 ohm off, 3 measured levels with their spreads",
             "wires": "sense input 50 ohm, columns sensed at both ends, driver voltages spread by 0.01"},
        ),
        (
            {"crossbar.device.preset": "rram-milo-2021"},
            {"cells": "rram-milo-2021: 4444.44 ohm on, 20000 ohm off, programming_error polynomial, "
                      "programming_sigma_us [4.782, -0.009107]",
             "source of cells": "Milo et al., IRPS 2021, as in CrossSim: 50 to 225 uS, error polynomial"},
        ),
    ],
)  # fmt: skip
def test_cells_wires_and_converters_are_said_in_words(overrides, rows):
    changes = {f"tile.pe.{key}": value for key, value in overrides.items()}
    assert dict(analog_rows(load_hardware("demo", changes))) == rows


# Keys that make no sense

DEMO = (shipped_folder("hwconfigs") / "demo.yaml").read_text(encoding="utf-8")
PLACE = "      zero_skip: true"
LINE = DEMO[: DEMO.index(PLACE)].count("\n") + 1
CROSSBAR_LINE = DEMO[: DEMO.index("    crossbar:")].count("\n") + 1


def write_chip(device: str, crossbar: str = "") -> str:
    """The demo chip with a device in the line before `zero_skip`, as my.yaml of the working folder."""
    lines = f"      device: {{{device}}}\n{crossbar}{PLACE}"
    Path("my.yaml").write_text(DEMO.replace(PLACE, lines), encoding="utf-8")
    return "my.yaml"


R = "r_on_ohm: 2.0e4, r_off_ohm: 2.0e5, "


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "r_on_ohm: 2.0e5, r_off_ohm: 2.0e4",
            "r_on_ohm (200000) must be below r_off_ohm (20000); swap them",
        ),
        ("r_on_ohm: 2.0e4", "r_off_ohm is missing; give both r_on_ohm and r_off_ohm, or a preset that has them"),
        ("r_off_ohm: 2.0e4", "r_on_ohm is missing; give both r_on_ohm and r_off_ohm, or a preset that has them"),
        (
            "d2d_sigma_rel: 0.1",
            "d2d_sigma_rel needs a device: give r_on_ohm and r_off_ohm, or a preset other than ideal",
        ),
        (
            "levels_us: [5.0, 9.0, 8.0]",
            "levels_us must ascend; entry 2 (8 uS) is not above entry 1 (9 uS); sort them, levels_sigma_us with them",
        ),
        (
            "levels_us: [5.0, 5.0]",
            "levels_us must ascend; entry 1 (5 uS) is not above entry 0 (5 uS); sort them, levels_sigma_us with them",
        ),
        ("levels_us: [5.0]", "levels_us needs two conductances or more, all above 0 uS; add what is missing"),
        ("levels_us: [0.0, 5.0]", "levels_us needs two conductances or more, all above 0 uS; add what is missing"),
        (
            "levels_us: [5.0, 9.0], levels_sigma_us: [0.1]",
            "levels_sigma_us has 1 entries, levels_us 2; give one sigma for each level",
        ),
        (
            f"{R}levels_sigma_us: [0.1, 0.2]",
            "levels_sigma_us has 2 entries, levels_us 0; give one sigma for each level",
        ),
        (
            "levels: 4, levels_us: [5.0, 9.0]",
            "levels and levels_us are both given; the table decides it, leave one of them out",
        ),
        (
            "r_on_ohm: 2.0e4, levels_us: [5.0, 9.0]",
            "r_on_ohm and levels_us are both given; the table decides it, leave one of them out",
        ),
        (
            "table: my.csv, levels_us: [5.0, 9.0]",
            "levels_us and table are both given; the table decides it, leave one of them out",
        ),
        (
            "levels_us: [5.0, 9.0], levels_sigma_us: [0.1, 0.1], programming_sigma_rel: 0.1",
            "programming_sigma_rel and levels_sigma_us are both given, and both say what a write misses; "
            "leave one of them out",
        ),
        (
            f"{R}stuck_on_fraction: 0.5, stuck_off_fraction: 0.4, open_fraction: 0.2",
            "stuck_on_fraction + stuck_off_fraction + open_fraction is 1.1; together at most 1, lower one of them",
        ),
        (
            f"{R}programming_error: polynomial",
            "programming_error: polynomial needs programming_sigma_us, constant term first; "
            "give it, or programming_error: normal",
        ),
        (
            "preset: rram-milo-2021, programming_sigma_rel: 0.1",
            "programming_sigma_rel is for programming_error: normal or lognormal, not polynomial; "
            "set one of them, or programming_sigma_rel: 0",
        ),
        (
            f"{R}programming_sigma_us: [0.1, 0.2]",
            "programming_sigma_us is for programming_error: polynomial, not normal; "
            "set that, or leave programming_sigma_us out",
        ),
        (
            f"{R}nonlinearity: exact",
            "nonlinearity: exact needs nonlinearity_v0_v, the v0 of the sinh curve; give it, or nonlinearity: off",
        ),
    ],
)
def test_impossible_devices_are_named_with_a_way_out(device, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_hardware(write_chip(device))
    assert str(caught.value) == f"my.yaml:{LINE}: tile.pe.crossbar.device: {message}"


@pytest.mark.parametrize(
    ("device", "crossbar", "message"),
    [
        *(
            (
                "preset: ideal",
                f"      {key}: {value}\n",
                f"{key} needs conductances, and device.preset: ideal has none; choose a device.preset, "
                f"give device.r_on_ohm and device.r_off_ohm, or leave {key} out",
            )
            for key, value in (
                ("r_driver_ohm", 1.0), ("r_wire_row_ohm", 1.0), ("r_wire_col_ohm", 1.0), ("r_sense_ohm", 1.0),
                ("v_read_v", 0.2), ("driver_sigma_rel", 0.1),
            )
        ),
        (
            f"{R}nonlinearity: calibrated, nonlinearity_v0_v: 0.2",
            "",
            "device.nonlinearity: calibrated needs v_read_v, the voltage of a driven row; "
            "give it, or device.nonlinearity: off",
        ),
        (
            f"{R}nonlinearity: exact, nonlinearity_v0_v: 0.02",
            "      v_read_v: 0.3\n",
            "v_read_v is 0.3 V, more than 10 times device.nonlinearity_v0_v (0.02 V); "
            "lower v_read_v or raise device.nonlinearity_v0_v",
        ),
        (
            f"{R}nonlinearity: exact, nonlinearity_v0_v: 0.02",
            "      v_read_v: 0.16\n      driver_sigma_rel: 0.1\n",
            "v_read_v with 6 times driver_sigma_rel is 0.256 V, more than 10 times device.nonlinearity_v0_v (0.02 V); "
            "lower v_read_v or raise device.nonlinearity_v0_v",
        ),
    ],
)  # fmt: skip
def test_circuits_that_lack_something_are_named_with_a_way_out(device, crossbar, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_hardware(write_chip(device, crossbar))
    assert str(caught.value) == f"my.yaml:{CROSSBAR_LINE}: tile.pe.crossbar: {message}"


SMALLEST = {"drift_t0_s": "1e-09"}
NUMERIC = [*NUMBERS, "drift_t0_s"]


@pytest.mark.parametrize("key", NUMERIC)
def test_negative_numbers_and_no_numbers_are_refused(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, allowed in (("-1.0", f"at least {SMALLEST.get(key, 0)}"), (".nan", "finite"), (".inf", "finite")):
        with pytest.raises(ConfigError) as caught:
            load_hardware(write_chip(f"{R}{key}: {value}"))
        found = {"-1.0": "-1.0", ".nan": "nan", ".inf": "inf"}[value]
        expected = f"tile.pe.crossbar.device.{key} is {found}; it must be {allowed}"
        assert str(caught.value) == f"my.yaml:{LINE}: {expected}"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (f"{R}stuck_on_fraction: 1.5", "stuck_on_fraction is 1.5; it must be at most 1"),
        (f"{R}levels: 1", "levels is 1; it must be at least 2"),
        ("r_on_ohm: 0, r_off_ohm: 1.0e5", "r_on_ohm is 0; it must be at least 0.001"),
        ("levels_us: [5.0, .nan]", "levels_us.1 is nan; it must be finite"),
        ("levels_us: [-5.0, 1.0]", "levels_us.0 is -5.0; it must be at least 0"),
        (f"{R}programming_error: polynomial, programming_sigma_us: [.inf]",
         "programming_sigma_us.0 is inf; it must be finite"),
        ("preset: rram", "preset is 'rram'; it must be 'ideal', 'rram-20k-200k', 'rram-100k-1m', 'rram-mnsim', "
         "'rram-neurosim', 'rram-wan-2022', 'rram-milo-2021', 'rram-cmo-hfox', 'pcm-joshi-2020', 'sonos-40nm', "
         "'fefet' or 'sram-mnsim'"),
        ("table: ../other.csv", "table is '../other.csv'; it must be text that matches "
         "^[A-Za-z0-9][A-Za-z0-9._-]*\\.csv$"),
        (f"{R}d2d_sigma: 0.1", None),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_named_with_their_bound(device, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_hardware(write_chip(device))
    where = f"my.yaml:{LINE}: "
    if message is None:
        message = "unknown key tile.pe.crossbar.device.d2d_sigma; did you mean tile.pe.crossbar.device.d2d_sigma_rel?"
        assert str(caught.value) == f"{where}{message}"
    else:
        assert str(caught.value) == f"{where}tile.pe.crossbar.device.{message}"


# Tables of levels in a file


def load_with_table(text: str | bytes, device: str = "table: levels.csv") -> Hardware:
    Path("levels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_hardware(write_chip(device))


def test_a_table_becomes_levels_that_need_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hardware = load_with_table("level, g_us, sigma_us\n0, 2.5, 0.1\n1, 10, 0.25\n\n2, 4e1, 0\n")
    device = hardware.tile.pe.crossbar.device
    assert (device.table, device.levels_us, device.levels_sigma_us) == (None, (2.5, 10.0, 40.0), (0.1, 0.25, 0.0))
    assert (device.physics.r_off_ohm, device.physics.r_on_ohm) == (4e5, 25e3)
    Path("elsewhere").mkdir()
    Path("elsewhere/resolved.yaml").write_text(dump_model(hardware), encoding="utf-8")
    again = load_hardware("elsewhere/resolved.yaml")
    assert again == hardware
    assert again.library == hardware.library


def test_a_table_without_sigma_leaves_the_write_error_to_the_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = "\N{ZERO WIDTH NO-BREAK SPACE}level,g_us\r\n0,2.5\r\n1,10\r\n"
    device = load_with_table(table, "table: levels.csv, programming_sigma_rel: 0.1").tile.pe.crossbar.device
    assert (device.levels_us, device.levels_sigma_us) == ((2.5, 10.0), None)
    assert device.physics.programming_sigma_rel == 0.1


def test_a_table_can_be_chosen_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("level,g_us\n0,1\n1,2\n", encoding="utf-8")
    hardware = load_hardware(write_chip(""), {"tile.pe.crossbar.device.table": "mine.csv"})
    assert hardware.tile.pe.crossbar.device.levels_us == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["levels.csv:1: the file is empty; they must be level,g_us or level,g_us,sigma_us"]),
        ("level;g_us\n", ["levels.csv:1: columns are level;g_us; they must be level,g_us or level,g_us,sigma_us"]),
        ("level,g_us\n0,1\n", ["levels.csv:2: 1 levels; there must be 2 to 65536"]),
        (
            "level,g_us,sigma_us\n0,1,0\n2,2,0\n2,1.5,0\n3,x,nan\n4,5,-1\n5,7\n6,-8,0\n7,1e10,0\n",
            [
                "levels.csv:3: level is '2'; levels count 0, 1, 2, ..., so it must be 1",
                "levels.csv:4: g_us is 1.5, not above the level before (2); sort the levels",
                "levels.csv:5: g_us is 'x'; it must be a number above 0 and at most 1e+09",
                "levels.csv:5: sigma_us is 'nan'; it must be a number from 0 to 1e+09",
                "levels.csv:6: sigma_us is '-1'; it must be a number from 0 to 1e+09",
                "levels.csv:7: 2 cells; the table has 3 columns",
                "levels.csv:8: g_us is '-8'; it must be a number above 0 and at most 1e+09",
                "levels.csv:9: g_us is '1e10'; it must be a number above 0 and at most 1e+09",
            ],
        ),
        (b"\xff\xfe1", ["levels.csv:1: byte 0xff is not UTF-8 text; save the file as UTF-8"]),
        (b"level\0", ["levels.csv: is a binary file; it must be a CSV table in UTF-8"]),
        (
            'level,g_us\n0,"1\n',
            ["levels.csv:2: not a CSV table: unexpected end of data; write plain numbers and commas"],
        ),
        ("x" * ((1 << 20) + 1), ["levels.csv: is larger than 1024 KiB; a configuration never is"]),
    ],
)
def test_faults_of_a_table_come_together_with_their_lines(text, faults, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_with_table(text)
    assert str(caught.value).splitlines() == [f"my.yaml:{LINE}: {fault}" for fault in faults]


def test_many_faults_of_a_table_are_cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_with_table("level,g_us\n" + "x,1\n" * 60)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == f"my.yaml:{LINE}: levels.csv: ... and more faults"


def test_a_missing_table_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_hardware(write_chip("table: levels.csv"))
    assert str(caught.value) == (
        f"my.yaml:{LINE}: levels.csv: no such file; device.table is a CSV file beside the hardware file"
    )


def test_a_table_that_leads_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chip").mkdir()
    (tmp_path / "secret.csv").write_text("level,g_us\n0,1\n1,2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "chip")
    Path("levels.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConfigError) as caught:
        load_hardware(write_chip("table: levels.csv"))
    assert str(caught.value) == (
        f"my.yaml:{LINE}: levels.csv: leads out of the hardware file's folder; put the table itself there"
    )


def test_what_does_not_go_with_a_table_is_found_once_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = "level,g_us,sigma_us\n0,1,0\n1,2,0\n"
    with pytest.raises(ConfigError) as caught:
        load_with_table(table, "table: levels.csv, programming_sigma_rel: 0.1")
    assert str(caught.value) == (
        f"my.yaml:{LINE}: tile.pe.crossbar.device: programming_sigma_rel and levels_sigma_us are both given, and both "
        "say what a write misses; leave one of them out"
    )
    with pytest.raises(ConfigError) as caught:
        load_with_table(table, "table: levels.csv, nonlinearity: exact, nonlinearity_v0_v: 0.1")
    assert str(caught.value) == (
        f"my.yaml:{CROSSBAR_LINE}: tile.pe.crossbar: device.nonlinearity: exact needs v_read_v, the voltage of a "
        "driven row; give it, or device.nonlinearity: off"
    )


def test_a_table_outside_a_hardware_file_says_how_to_read_it():
    with pytest.raises(ConfigError) as caught:
        _ = Device(table="levels.csv").physics
    assert str(caught.value) == (
        "device.table (levels.csv) has not been read; load the hardware file using load_hardware, or give "
        "device.levels_us"
    )

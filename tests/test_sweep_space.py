"""Sweep files: the points that they span, and what is said about faulty ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.errors import ConfigError
from archsim.shipped import shipped_names
from archsim.sweeps.axes import Axis, Range, drawn
from archsim.sweeps.constraints import parse_constraint
from archsim.sweeps.identity import base_of, content_hash, point_key
from archsim.sweeps.space import Space, load_space
from archsim.workload.loader import load_workload
from archsim.yamlfile import dump_model, read_model


def space(**sections) -> Space:
    return load_space(
        {"format_version": 1, "name": "tiny", "hardware": "demo", "workloads": ["digits-mlp"], **sections}
    )


def values(**sections) -> list[tuple]:
    return [tuple(point.values.values()) for point in space(**sections).points()]


def test_a_grid_changes_its_last_axis_fastest():
    axes = {"tile.pe.adc.bits": [4, 5], "tile.pe.adc.cols_per_adc": [1, 8]}
    assert values(axes=axes) == [(4, 1), (4, 8), (5, 1), (5, 8)]


def test_a_zip_group_is_one_axis():
    pairs = {"tile.pe.crossbar.rows": [32, 64], "tile.pe.crossbar.cols": [16, 32]}
    assert values(axes={"tile.pe.adc.bits": [4, 5]}, zip=[pairs]) == [
        (4, 32, 16),
        (4, 64, 32),
        (5, 32, 16),
        (5, 64, 32),
    ]


def test_several_workloads_are_an_axis_and_keys_of_workloads_are_their_own():
    found = space(workloads=["digits-mlp", "digits-cnn"], axes={"workload.timesteps": [2, 4]}).points()
    assert [(point.workload, point.settings) for point in found] == [
        ("digits-mlp", {"timesteps": 2}),
        ("digits-mlp", {"timesteps": 4}),
        ("digits-cnn", {"timesteps": 2}),
        ("digits-cnn", {"timesteps": 4}),
    ]


def test_listed_points_are_taken_as_they_are():
    listed = [{"tile.pe.adc.bits": 4}, {"chip.clock_mhz": 100.0}]
    assert [point.hardware for point in space(points=listed).points()] == listed


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"low": 4, "high": 8}, None),
        ({"low": 4, "high": 8, "step": 2}, (4, 6, 8)),
        ({"low": 1, "high": 2, "step": 0.4}, (1.0, 1.4, 1.8)),
        ({"low": 0.1, "high": 0.3, "step": 0.1}, (0.1, 0.2, 0.3)),
        ({"low": 0.0, "high": 1.0, "count": 5}, (0.0, 0.25, 0.5, 0.75, 1.0)),
        ({"low": 1, "high": 16, "count": 5, "scale": "log"}, (1, 2, 4, 8, 16)),
        ({"low": 1e3, "high": 1e5, "count": 3, "scale": "log"}, (1e3, 1e4, 1e5)),
        ({"low": 1, "high": 3, "count": 9}, (1, 2, 3)),
    ],
)
def test_values_of_a_range(keys, expected):
    found = Range(**keys)
    assert found.is_continuous if expected is None else found.values() == expected


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_a_latin_hypercube_takes_one_value_of_every_part_of_every_axis(n_points, seed):
    axes = [Axis((name,), Range(low=0.0, high=1.0)) for name in "abc"]
    points = np.array([tuple(point.values()) for point in drawn(axes, n_points, seed, "latin_hypercube")])
    strata = np.sort(np.minimum((points * n_points).astype(int), n_points - 1), axis=0)
    assert (strata == np.arange(n_points)[:, None]).all()


def test_random_points_follow_the_seed_and_the_scale():
    axes = {"tile.pe.crossbar.device.r_on_ohm": {"low": 1e3, "high": 1e5, "scale": "log"}}
    draws = [values(axes=axes, draw={"method": "random", "points": 400, "seed": seed}) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    logs = [math.log10(value) for (value,) in draws[0]]
    assert 3 <= min(logs) < max(logs) <= 5
    assert abs(np.mean(logs) - 4) < 4 * (2 / math.sqrt(12)) / math.sqrt(400)


@given(st.integers(1, 9), st.integers(1, 9))
def test_constraints_agree_with_python(rows, cols):
    text = "rows * cols <= 30 and not rows % 2 == 1 or cols in [2, 3] or 1 < rows < -cols + 9 or rows // cols - 1 == 0"
    constraint = parse_constraint(text)
    assert constraint.keys == ("rows", "cols")
    assert constraint.holds({"rows": rows, "cols": cols}.__getitem__) == bool(eval(text))


def test_constraints_see_keys_that_do_not_change():
    found = values(axes={"tile.pe.adc.bits": [4, 5, 6]}, constraints=["tile.pe.adc.bits * 100 < chip.clock_mhz * 5"])
    clock_mhz = space(axes={"tile.pe.adc.bits": [4]}).hardware.chip.clock_mhz
    assert found == [(bits,) for bits in (4, 5, 6) if bits * 100 < clock_mhz * 5]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id') == 0",
        "(lambda: tile)() == 1",
        "[x for x in tile] == 1",
        "tile.pe ** 9 ** 9 > 1",
        "tile['pe'] == 1",
        "f'{tile}' == 1",
        "(tile := 3) == 1",
        "tile.pe << 99 == 1",
    ],
)
def test_code_is_no_constraint(text):
    with pytest.raises(ConfigError, match="is not allowed; it may hold keys, values, comparisons"):
        parse_constraint(text)


def test_constraints_compute_with_numbers_only():
    constraint = parse_constraint("chip.tiles * 999999999 == 'x'")
    with pytest.raises(ConfigError) as fault:
        constraint.holds({"chip.tiles": "auto"}.__getitem__)
    assert str(fault.value) == (
        "constraint 'chip.tiles * 999999999 == 'x'' cannot be computed where chip.tiles is 'auto' ('auto' is no number)"
    )


def test_all_faults_of_a_file_are_told_with_their_lines(tmp_path):
    path = tmp_path / "faulty.yaml"
    path.write_text(
        "format_version: 1\nname: faulty\nhardware: demo\nworkloads: [digits-mlp]\n"
        "axes:\n  tile.pe.adc.bit: [4, 5]\n  chip.clock_mhz: []\n  tile.pe.adc: [1]\n"
        "  chip.noc.flit_bits: {low: 64, high: 16}\n  workload.timestep: [2]\n  tile.pes: {low: 1, high: 4}\n"
        "constraints:\n  - tile.pe.adc.bits <\n  - tile.pe.adc.bits_ <= 8\n"
        "objectives:\n  latency: minimize\n"
    )
    with pytest.raises(ConfigError) as fault:
        load_space(path)
    assert str(fault.value).splitlines() == [
        f"{path}:6: unknown key tile.pe.adc.bit; did you mean tile.pe.adc.bits?",
        f"{path}:7: chip.clock_mhz has no values; list at least one",
        f"{path}:8: tile.pe.adc is a section; give one of its keys (bits, cols_per_adc, count, cycles_per_conversion, "
        "early_stop, gain_sigma_rel, inl_lsb, noise_sigma_lsb, offset_sigma_lsb, range, range_scope)",
        f"{path}:9: chip.noc.flit_bits: low is 64 and high is 16; low must be below high",
        f"{path}:10: unknown key workload.timestep; did you mean workload.timesteps?",
        f"{path}:11: tile.pes is a range without step or count; give one, or draw or search points",
        f"{path}:13: 'tile.pe.adc.bits <' is no constraint; write for example tile.pe.adc.bits <= 8",
        f"{path}:14: constraint 'tile.pe.adc.bits_ <= 8': unknown key tile.pe.adc.bits_; "
        "did you mean tile.pe.adc.bits?",
        f"{path}:16: objective 'latency' is no result; did you mean latency_ps?",
    ]


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ({}, "a sweep has axes (and zip), or points; give one of them"),
        (
            {"axes": {"tile.pe.adc.bits": [4]}, "draw": {"method": "random", "points": 2}, "search": {"method": "tpe"}},
            "points are either drawn or searched; remove draw or search",
        ),
        (
            {"axes": {"tile.pe.adc.bits": [4]}, "search": {"method": "tpe"}},
            "search has no budget; give points or minutes",
        ),
        (
            {"zip": [{"tile.pe.adc.bits": [4, 5], "tile.pes": [1]}]},
            "lists of a group differ in length: tile.pe.adc.bits has 2, tile.pes has 1",
        ),
        ({"axes": {"tile.pes": [4]}, "set": {"tile.pes": 2}}, "tile.pes is given twice; the first is in set"),
        ({"axes": {"tile.pes": [4, 4]}}, "tile.pes lists a value twice"),
        (
            {"axes": {"tile.pes": [4]}, "objectives": {}},
            "objectives are empty; name a result, such as latency_ps: minimize",
        ),
        (
            {"axes": {"tile.pes": [4]}, "constraints": ["workload.timesteps < 3"]},
            "constraint 'workload.timesteps < 3': workload.timesteps has no value here; add it to set or axes",
        ),
    ],
)
def test_sections_that_contradict_each_other(sections, fault):
    with pytest.raises(ConfigError) as found:
        space(**sections)
    assert f"sweep: {fault}" in str(found.value).splitlines()


def test_constraints_that_exclude_everything():
    with pytest.raises(ConfigError) as fault:
        values(axes={"tile.pe.adc.bits": [4, 5]}, constraints=["tile.pe.adc.bits > 4", "tile.pe.adc.bits < 5"])
    assert str(fault.value) == (
        "sweep 'tiny': constraints exclude all 2 points; 'tile.pe.adc.bits > 4' excludes 1 of them. "
        "Loosen it or widen the axes."
    )


def test_a_grid_without_end_is_refused():
    axes = {key: {"low": 1, "high": 1000, "step": 1} for key in ("tile.pes", "tile.pe.crossbars")}
    with pytest.raises(ConfigError, match=r"^sweep 'tiny' has 1000000 combinations; 200000 are the most"):
        values(axes=axes)


@pytest.mark.parametrize("name", shipped_names("sweepconfigs", ".yaml"))
def test_shipped_sweeps_load(name):
    assert load_space(name).file.name == name
    assert len(load_space(name).points()) > 10


def test_equal_points_have_equal_keys_wherever_their_values_stand(tmp_path):
    demo = space(axes={"tile.pe.adc.bits": [4]}).hardware
    path = tmp_path / "other.yaml"
    path.write_text(dump_model(demo))
    again = read_model(path, type(demo), ConfigError).with_library(demo.library)
    workload_hash = content_hash(load_workload("digits-mlp"))
    keys = [
        point_key(base_of(demo), {}, workload_hash, 1, 1, 0),
        point_key(base_of(demo), {"chip.clock_mhz": int(demo.chip.clock_mhz)}, workload_hash, 1, 1, 0),
        point_key(base_of(again), {}, workload_hash, 1, 1, 0),
    ]
    assert len(set(keys)) == 1


def test_whatever_determines_a_point_changes_its_key():
    demo = space(axes={"tile.pe.adc.bits": [4]}).hardware
    hashes = [content_hash(load_workload("digits-mlp", timesteps=steps)) for steps in (1, 2)]
    arguments = [
        ({}, hashes[0], 1, 1, 0),
        ({"tile.pe.adc.bits": 2}, hashes[0], 1, 1, 0),
        ({}, hashes[1], 1, 1, 0),
        ({}, hashes[0], 2, 1, 0),
        ({}, hashes[0], 1, 2, 0),
        ({}, hashes[0], 1, 1, 1),
        ({"costs": "spikesim-65nm"}, hashes[0], 1, 1, 0),
    ]
    assert len({point_key(base_of(demo), *each) for each in arguments}) == len(arguments)

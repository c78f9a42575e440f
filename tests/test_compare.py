"""Comparisons of runs: keys, figures and differences by part that sum to the whole; across networks and platforms."""

from __future__ import annotations

import json

import pytest
from tiny_result import tiny_result

import archsim
from archsim.cli import main
from archsim.errors import ConfigError
from archsim.report.compare_page import compare_page, verdict
from archsim.report.html import render_html
from archsim.report.markdown import render_markdown
from archsim.result import Result

PARTS = ("latency_by_kind", "latency_by_layer", "energy_by_kind", "energy_by_layer", "area_by_kind")
CHANGE = "tile.pe.adc.cols_per_adc"


def simulated(chip: str = "demo", workload: str = "digits-mlp", keys: dict[str, object] | None = None) -> Result:
    loaded = archsim.load_workload(workload, timesteps=2)
    return archsim.simulate(archsim.load_hardware(chip, keys or {}), loaded)


@pytest.fixture(scope="module")
def runs() -> tuple[Result, Result]:
    """A run, and the same with twice the converters."""
    return simulated(), simulated(keys={CHANGE: 4})


@pytest.fixture(scope="module")
def found(runs):
    return archsim.compare(*runs)


def figures_of(found: dict) -> dict[str, tuple[object, object]]:
    return {row["name"]: (row["before"], row["after"]) for row in found["figures"]}


def differences_sum_up(found: dict, before: Result, after: Result) -> None:
    """Every table of parts sums to the figure of its run, and its differences to the figures' difference."""
    keys = {"latency": "latency_ps", "energy": "energy_per_sample_pj", "area": "area_um2"}
    for name in PARTS:
        key = keys[name.split("_")[0]]
        sums = [sum(row[side] for row in found[name]) for side in ("before", "after", "difference")]
        old, new = before.summary[key], after.summary[key]
        assert sums == pytest.approx([old, new, new - old], rel=1e-9, abs=1e-3)
        sizes = [abs(row["difference"]) for row in found[name]]
        assert sizes == sorted(sizes, reverse=True)


def test_one_key_differs_and_every_table_sums_to_the_difference(runs, found):
    assert found["keys"] == [{"name": CHANGE, "before": 8, "after": 4}]
    differences_sum_up(found, *runs)
    assert figures_of(found)["latency_ps"] == tuple(run.summary["latency_ps"] for run in runs)
    assert found["latency_by_kind"][0]["name"] == "adc"
    assert json.loads(json.dumps(found)) == found


def test_a_run_compared_with_itself_differs_in_nothing(runs):
    found = archsim.compare(runs[0], runs[0])
    assert found["keys"] == []
    assert all(row["difference"] == 0 for name in PARTS for row in found[name])
    took, changed = verdict(found, ("a", "b"))
    assert took.startswith("b takes as much time (500 ns), as much energy (")
    assert changed == "No key differs."


def test_the_verdict_names_change_component_and_layer(found):
    took, changed, time, energy = verdict(found, ("a", "b"))
    assert took.startswith("b takes 16.4 % less time (500 ns → 418 ns), 7.9 % less energy (")
    assert took.endswith(" 9.5 % more area (0.8488 mm2 → 0.929 mm2) (compared with a).")
    assert changed == "Changed: tile.pe.adc.cols_per_adc: 8 → 4."
    assert time == "Most of the latency differs in ADCs (−132 ns) and in fc1 (−70 ns)."
    assert energy.startswith("Most of the energy differs in ")


def test_runs_of_different_networks_are_matched_by_layer(runs):
    other = simulated(workload="digits-cnn")
    found = archsim.compare(runs[0], other)
    differences_sum_up(found, runs[0], other)
    layers = {row["name"]: row for row in found["energy_by_layer"]}
    assert layers["conv1"]["before"] == layers["fc1"]["after"] == 0
    assert "The networks differ: digits-mlp and digits-cnn." in verdict(found, ("a", "b"))


def test_runs_of_different_platforms_are_compared(runs):
    array = simulated("sata-16x8")
    found = archsim.compare(runs[0], array)
    differences_sum_up(found, runs[0], array)
    assert "The chips are of different kinds: crossbar chip and systolic array." in verdict(found, ("a", "b"))
    page = render_markdown(compare_page(found, ("a", "b")))
    assert "| kind | crossbar_chip | systolic_array |" in page
    assert "more keys differ; the comparison as JSON has all." in page


def test_hostile_names_stay_text():
    hostile = "</title><script>alert(1)</script>"
    found = archsim.compare(tiny_result((hostile, "second")), tiny_result(workload=hostile))
    page = render_html(compare_page(found, (hostile, "b")))
    assert "<script" not in page


def test_the_command_prints_a_verdict_and_writes_the_page(runs, tmp_path, capsys):
    a, b, out = (str(tmp_path / name) for name in ("a", "b", "out"))
    for run, folder in zip(runs, (a, b), strict=True):
        run.write(folder)
    assert main(["compare", a, b, "-o", out]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("b takes 16.4 % less time (500 ns → 418 ns), ")
    assert printed[-1] == f"report: {out}/compare.html"
    assert main(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == {"format_version": 1, **found}
    assert found == archsim.compare(*runs)
    assert (tmp_path / "out" / "compare.md").read_text().startswith("# b compared with a\n")


def test_folders_of_one_name_are_told_apart_by_their_paths(runs, tmp_path, capsys):
    for run, name in zip(runs, ("one", "two"), strict=True):
        run.write(tmp_path / name / "run")
    assert main(["compare", str(tmp_path / "one" / "run"), str(tmp_path / "two" / "run")]) == 0
    assert "two/run takes 16.4 % less time" in capsys.readouterr().out.splitlines()[0]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "not a complete result folder of archsim" in capsys.readouterr().err


def test_a_configuration_that_cannot_be_read_is_named(runs):
    damaged = tiny_result()
    damaged.config = "hardware: [\n"
    with pytest.raises(ConfigError, match=r"^config\.yaml:\d+: not valid YAML"):
        archsim.compare(runs[0], damaged)

"""What changes of the chip do: each against a run of the changed chip, planted bottlenecks, findings, faults."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import test_crossbar_chip as crossbar

import archsim
from archsim.analysis.candidates import default_changes, keeps_values
from archsim.analysis.critical_path import critical_path
from archsim.analysis.what_if import what_if
from archsim.cli import main
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError
from archsim.report.html import render_html
from archsim.report.run_report import report_page


@pytest.fixture(scope="module")
def network():
    return archsim.load_workload("digits-mlp", timesteps=2)


@pytest.fixture(scope="module")
def activity(network):
    return crossbar.activity(network.network, 1, network.n_timesteps)


@pytest.fixture
def run(network, activity):
    """The network on a chip with some keys, whatever its weights would do there."""

    def simulated(keys: dict[str, object], chip: str = "demo") -> archsim.Result:
        mapping = archsim.map_network(archsim.load_hardware(chip, keys), network)
        return simulate_activity(mapping, network, activity)

    return simulated


def page_of(result: archsim.Result) -> str:
    return render_html(report_page(result)).replace("\N{NO-BREAK SPACE}", " ")


# Against a run of the changed chip


CHANGES = (
    {"tile.pe.latch_depth": 4, "mapping.replication": 2},
    {"tile.pe.pipelined": False, "chip.noc.flit_bits": 64, "tile.pe.adc.cols_per_adc": 4},
    {"tile.pe.adc.bits": 4},
)


def test_a_changed_run_is_the_run_of_the_changed_chip(network):
    table = what_if(archsim.simulate(archsim.load_hardware("demo"), network), CHANGES)
    for change, row in zip(CHANGES, table.to_dict("records"), strict=True):
        again = archsim.simulate(archsim.load_hardware("demo", change), network).summary
        keys = ("latency_ps", "area_um2", "accuracy_raw")
        assert tuple(row[key] for key in keys) == tuple(again[key] for key in keys)
        assert row["energy_pj"] == again["energy_per_sample_pj"]
    assert list(table["values"]) == ["kept", "kept", "recomputed"]


def test_gains_are_what_is_saved_of_the_old(run):
    result = run({})
    row = what_if(result, {"tile.pe.adc.cols_per_adc": 4}).iloc[0]
    assert row["change"] == "tile.pe.adc.cols_per_adc: 8 -> 4"
    assert row["latency_gain"] == 1 - row["latency_ps"] / result.summary["latency_ps"]
    assert row["energy_gain"] == 1 - row["energy_pj"] / result.summary["energy_per_sample_pj"]
    assert row["area_gain"] == 1 - row["area_um2"] / result.summary["area_um2"]


def test_the_share_is_that_of_the_kinds_of_component_on_the_path(run):
    result = run({})
    path = critical_path(result)
    mine = path["component"].str.endswith((".adc", ".mux"))
    share = path["duration_ps"][mine].sum() / result.summary["latency_ps"]
    assert what_if(result, {"tile.pe.adc.bits": 5})["share_on_critical_path"][0] == share
    table = what_if(result, [{"chip.clock_mhz": 400}, {"tile.pe.latch_depth": 3}, {"mapping.fc": "stream"}])
    assert table["share_on_critical_path"][0] == 1
    assert table["share_on_critical_path"][1:].isna().all()


def test_converters_with_errors_of_their_own_change_values_when_they_are_shared_otherwise():
    hardware = archsim.load_hardware("demo", {"tile.pe.adc.offset_sigma_lsb": 0.5})
    assert not keeps_values(hardware, {"tile.pe.adc.cols_per_adc": 4})
    assert keeps_values(archsim.load_hardware("demo"), {"tile.pe.adc.cols_per_adc": 4})
    assert not keeps_values(hardware, {"tile.pe.crossbar.zero_skip": False})


# Planted bottlenecks


PLANTED = {
    "ADCs": {"tile.pe.adc.cycles_per_conversion": 10},
    "crossbars": {"tile.pe.crossbar.read_cycles": 200},
    "PE fetch": {"tile.pe.fetch_bits_per_cycle": 1},
    "H-trees": {"tile.htree.bits_per_cycle": 2},
    "neuron modules": {"chip.neuron.cycles_per_update": 200},
    "NoC links": {"chip.noc.flit_bits": 1},
    "DRAM": {"chip.dram.kind": "lpddr4", "chip.dram.input": "load", "chip.dram.gb_per_s": 0.01},
    "global buffer": {"chip.global_buffer.bits_per_cycle": 1},
}


@pytest.mark.parametrize("resource", PLANTED)
def test_a_planted_bottleneck_is_the_first_finding(run, resource):
    result = run(PLANTED[resource])
    result.changes = what_if(result)
    first = archsim.findings(result)[0]
    assert (first["resource"], first["severity"]) == (resource, "high")
    assert first["verified_gain"] <= first["evidence"]["share"]
    singles = result.changes[~result.changes["change"].str.contains(" + ", regex=False)]
    told = singles.dropna(subset=["latency_gain", "share_on_critical_path"])
    assert (told["latency_gain"] <= told["share_on_critical_path"]).all()


def test_two_resources_that_bind_together_are_found_jointly(run):
    """A converter bank and a fetch of equal length: one alone gains a few tokens' worth, both nearly a half."""
    result = run({"tile.pe.adc.cycles_per_conversion": 32, "tile.pe.fetch_bits_per_cycle": 1})
    changed = what_if(result)
    result.changes = changed
    gains = {row["resource"]: row["latency_gain"] for row in changed.to_dict("records")}
    joint = next(row for row in archsim.findings(result) if row["resource"] == "ADCs + PE fetch")
    assert joint["verified_gain"] == gains["ADCs + PE fetch"] > gains["ADCs"] + gains["PE fetch"] - 1e-9


# Candidates, findings and the page


def test_default_candidates_are_possible_keys_and_differ_from_the_chip(run):
    listed = default_changes(run({}, "spikesim-rram-64"))
    assert {"tile.pe.pipelined": True} in listed
    assert {"tile.pe.crossbar.zero_skip": True} in listed
    assert {"mapping.replication": 2} in listed
    assert len({next(iter(change)) for change in listed}) == len(listed)
    assert {"tile.pe.adc.count": 32} in default_changes(run({"tile.pe.adc.count": 16}))


def test_the_layer_that_holds_the_path_longest_is_offered_a_copy():
    result = archsim.simulate(archsim.load_hardware("demo"), archsim.load_workload("digits-cnn", timesteps=1))
    table = what_if(result)
    copied = table[table["resource"] == "copies of one layer"].iloc[0]
    assert copied["change"] == "mapping.layer_replication.conv1: 1 -> 2"
    path = critical_path(result)
    in_tiles = path["component"].str.contains("pe", regex=False) & (path["layer"] == "conv1")
    assert copied["share_on_critical_path"] == path["duration_ps"][in_tiles].sum() / result.summary["latency_ps"]
    assert copied["predicted_latency_gain"] == pytest.approx(copied["latency_gain"], rel=0.1)
    result.changes = table
    found = {row["resource"]: row for row in archsim.findings(result)}["copies of one layer"]
    assert found["evidence"]["layer"] == "conv1"
    assert found["expected_gain"] == copied["predicted_latency_gain"]
    assert found["verified_gain"] == copied["latency_gain"]


def test_only_the_best_are_verified_where_that_takes_another_simulation(run, monkeypatch):
    changes = [{"mapping.bias": "row"}, {"tile.pe.adc.cols_per_adc": 4}, {"tile.pe.adc.bits": 5}]
    monkeypatch.setattr("archsim.analysis.what_if._N_VERIFIED", 1)
    monkeypatch.setattr("archsim.analysis.what_if.default_changes", lambda result: changes)
    table = what_if(run({"tile.pe.adc.cycles_per_conversion": 10})).set_index("change")
    assert table.loc["tile.pe.adc.cols_per_adc: 8 -> 4", "latency_gain"] > 0.2
    assert pd.isna(table.loc["tile.pe.adc.bits: 6 -> 5", "latency_gain"])
    assert table.loc["tile.pe.adc.bits: 6 -> 5", "predicted_latency_gain"] == 0
    assert table.loc["mapping.bias: digital -> row", ["predicted_latency_gain", "latency_gain"]].isna().all()


def test_findings_are_json_and_ordered_single_resources_first(run):
    result = run({"tile.pe.pipelined": False})
    assert archsim.findings(result) == []
    result.changes = what_if(result)
    found = archsim.findings(result)
    assert json.loads(json.dumps(found)) == found
    broad = [row["resource"] in ("PEs", "the whole chip", "copies of layers") for row in found]
    assert broad == sorted(broad)
    assert all(row["verified_gain"] >= 0.01 for row in found)


def test_a_change_that_does_not_fit_is_noted(run):
    row = what_if(run({"chip.tiles": 4}), {"tile.pe.crossbar.rows": 8, "chip.tiles": 1}).iloc[0]
    assert pd.isna(row["latency_gain"])
    assert "chip 'demo' has" in row["note"]


def test_the_page_says_what_limits_and_what_to_change_first(run, tmp_path, monkeypatch):
    result = run({"tile.pe.adc.cycles_per_conversion": 10})
    assert "Changes of the chip were not tried (archsim report does it)." in page_of(result)
    changes = [{"tile.pe.adc.cycles_per_conversion": 5}, {"chip.clock_mhz": 1000.0}]
    monkeypatch.setattr("archsim.analysis.what_if.default_changes", lambda result: changes)
    archsim.explain(result)
    assert "First change: tile.pe.adc.cycles_per_conversion: 10 → 5, which in simulation saves " in page_of(result)
    refused = "<li>chip.clock_mhz: 500.0 → 1000.0 is not possible: demo: tile.pe.crossbar.read_cycles is 5 "
    assert refused in page_of(result)
    archsim.write_explanation(result, result.write(tmp_path / "run"))
    assert page_of(archsim.Result.load(tmp_path / "run")) == page_of(result)


@pytest.fixture
def one_candidate(monkeypatch):
    monkeypatch.setattr("archsim.analysis.what_if.default_changes", lambda result: [{"tile.pe.adc.cols_per_adc": 4}])


EXPLANATION = ("what_if.csv", "findings.json", "report.html", "report.md")


def test_report_tries_changes_and_writes_what_redraw_writes_again(tmp_path, one_candidate, capsys):
    folder = tmp_path / "run"
    assert main(["run", "demo", "digits-mlp", "--timesteps", "2", "-o", str(folder)]) == 0
    assert not (folder / "findings.json").exists()
    assert main(["report", str(folder)]) == 0
    assert json.loads((folder / "findings.json").read_text())["findings"][0]["resource"] == "ADCs"
    written = [(folder / name).read_bytes() for name in EXPLANATION]
    for options in ([], ["--redraw"]):
        assert main(["report", *options, str(folder)]) == 0
        assert [(folder / name).read_bytes() for name in EXPLANATION] == written
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "37.2 % of the latency of 500 ns is spent in ADCs, 32.0 % in fc1.",
        "First change: tile.pe.adc.cols_per_adc: 8\N{NO-BREAK SPACE}→ 4, which in simulation saves 16.4 % of it, "
        "7.9 % less energy, 9.5 % more area.",
        f"report: {folder / 'report.html'}",
    ]
    assert main(["run", "demo", "digits-mlp", "--timesteps", "1", "-o", str(folder)]) == 0
    assert [(folder / name).exists() for name in EXPLANATION] == [False, False, True, False]


def test_report_prints_findings_as_json(tmp_path, one_candidate, capsys):
    folder = tmp_path / "run"
    main(["run", "demo", "digits-mlp", "--timesteps", "2", "-o", str(folder), "--json"])
    capsys.readouterr()
    assert main(["report", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == [{"folder": str(folder), **json.loads((folder / "findings.json").read_text())}]
    assert list(printed[0]) == ["folder", "format_version", "findings", "n_anomalies", "efficiency", "neurobench"]


# Faults of whoever asks


def test_a_loaded_result_cannot_be_simulated_again(run, tmp_path):
    with pytest.raises(ConfigError) as caught:
        archsim.what_if(archsim.Result.load(run({}).write(tmp_path / "run")), {"chip.clock_mhz": 1000})
    assert str(caught.value) == (
        "this result was loaded from files, which hold no spikes, so it cannot be simulated with changes; "
        "use the result of archsim.simulate or archsim.repeat_run, or the command archsim report"
    )


def test_a_change_of_no_key_is_refused_before_anything_runs(run):
    with pytest.raises(ConfigError) as caught:
        archsim.what_if(run({}), {"tile.pe.adc.cont": 2})
    assert str(caught.value) == (
        "--set tile.pe.adc.cont=2: unknown key tile.pe.adc.cont; did you mean tile.pe.adc.count?"
    )


def test_a_change_that_the_cost_library_forbids_names_the_chip_and_not_a_file(run):
    table = archsim.what_if(run({}))
    note = table.loc[table["resource"] == "the whole chip", "note"].item()
    assert note == (
        "demo: tile.pe.crossbar.read_cycles is 5 (5 ns at 1000 MHz); crossbar.read of cost library 'imc-32nm' takes "
        "10 ns; set it to at least 10 or lower chip.clock_mhz"
    )

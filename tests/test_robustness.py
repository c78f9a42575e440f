"""`archsim robustness`: causes of errors, size of crossbars and repairs, each found by changing the chip."""

import json
from dataclasses import replace

import numpy as np
import pytest

import archsim
from archsim.analysis.robustness import JOINT, _repairs, robustness
from archsim.cli import main
from archsim.errors import ConfigError, WorkloadError
from archsim.hardware.reader import change_hardware
from archsim.report.robustness_page import as_json, robustness_page, verdict

FAULTY = {
    "tile.pe.crossbar.device.preset": "rram-20k-200k",
    "tile.pe.crossbar.r_driver_ohm": 1500,
    "tile.pe.crossbar.r_wire_col_ohm": 1,
    "tile.pe.crossbar.device.d2d_sigma_rel": 0.05,
    "mapping.calibration": "none",
}


@pytest.fixture(scope="module")
def workload():
    return archsim.load_workload("digits-mlp")


@pytest.fixture(scope="module")
def found(workload):
    return robustness(archsim.load_hardware("demo", FAULTY), workload, samples=40)


def by_name(trials):
    return {trial.name: trial for trial in trials}


def test_every_trial_is_the_accuracy_of_the_changed_chip(found, workload):
    fewer = replace(workload, input=replace(workload.input, values=workload.input.values[:40]))
    fewer = replace(fewer, input=replace(fewer.input, labels=fewer.input.labels[:40]))
    for trial in (found.baseline, by_name(found.causes)["no resistance of drivers and sense inputs"], found.repairs[0]):
        hardware = archsim.load_hardware("demo", FAULTY | dict(trial.changes))
        mapping = archsim.map_network(hardware, fewer)
        accuracy = archsim.infer(mapping, fewer).accuracy
        assert (trial.raw, trial.calibrated, trial.n_crossbars) == (
            accuracy.raw,
            accuracy.calibrated,
            mapping.n_crossbars,
        )


def test_only_what_the_chip_has_is_a_cause(found):
    names = set(by_name(found.causes))
    assert {
        "no resistance of drivers and sense inputs",
        "no resistance of wires",
        "no spread from device to device",
        "converters of 10 bits",  # the widest that the library prices
    } <= names
    assert all(trial.accuracy is not None for trial in found.causes)
    assert not {"no read noise", "no age", "no stuck and open cells", "no noise of converters"} & names


def test_the_strongest_cause_comes_first(found):
    assert found.causes[0].name == "no resistance of drivers and sense inputs"
    assert found.causes[0].accuracy > found.baseline.accuracy + 0.05


def test_errors_of_spikes_are_those_beside_the_ideal_network(found, workload):
    assert [layer.layer for layer in found.layers] == [layer.name for layer in workload.network.layers]
    first = found.layers[0]
    assert len(first.spike_errors) == workload.n_timesteps
    assert first.spike_errors[-1] > 0
    assert found.layers[-1].spike_errors == (0.0,) * workload.n_timesteps  # a readout has no spikes
    assert 0 < first.nf < 1


def test_repairs_are_sorted_by_what_they_cost(found):
    single = [trial for trial in found.repairs if trial.name != JOINT and trial.accuracy is not None]
    assert [trial.area_um2 for trial in single] == sorted(trial.area_um2 for trial in single)
    words = by_name(found.repairs)
    assert words["digital gains: layer"].gain_words == 3
    assert words["digital gains: batch_norm"].gain_words == 3 + 2 * (128 + 64 + 10)


def test_cells_at_higher_resistance_are_tried_where_signs_allow_them():
    signed = "tile.pe.crossbar.signed"
    diff, pairs = (dict(_repairs(archsim.load_hardware("demo", {signed: s}))) for s in ("diff", "differential"))
    assert diff["cells at higher resistance"] == {"mapping.encoding": "high_resistance"}
    assert diff["crossbars of swapped polarity"] == {"mapping.polarity": "per_crossbar"}
    assert not {"cells at higher resistance", "crossbars of swapped polarity"} & set(pairs)
    swapped = archsim.load_hardware("demo", {signed: "diff", "mapping.polarity": "per_crossbar"})
    changed = change_hardware(swapped, dict(_repairs(swapped))["signs: differential"])
    assert changed.mapping.polarity == "as_is"


def test_a_size_is_within_budget_or_not(found):
    generous = replace(found, budget=1.0)
    assert generous.largest_size is found.sizes[-1]
    assert generous.cheapest_repair is next(trial for trial in found.repairs if trial.accuracy is not None)
    spoilt = replace(found, budget=0.0, ideal=2.0)
    assert (spoilt.largest_size, spoilt.cheapest_repair) == (None, None)
    assert "No tried size of crossbar is within 0.0 points" in verdict(spoilt)
    assert "No tried repair is" in verdict(spoilt)


def test_without_labels_the_ideal_network_is_right_and_impossible_changes_say_why(monkeypatch, workload):
    monkeypatch.setattr("archsim.analysis.robustness.SIZES", (9000,))
    bare = replace(workload, input=replace(workload.input, labels=None))
    found = robustness(archsim.load_hardware("demo"), bare, samples=5)
    assert found.ideal == 1.0
    assert "the input has no labels: what the ideal network says counts as right" in found.notes
    assert found.sizes[0].accuracy is None
    assert "it must be at most 8192" in found.sizes[0].note
    assert found.largest_size is None


def test_messages_say_what_is_needed(workload):
    hardware = archsim.load_hardware("demo")
    with pytest.raises(ConfigError, match=r"^budget is 2; the accuracy that may be lost is a share from 0 to 1$"):
        robustness(hardware, workload, budget=2)
    with pytest.raises(WorkloadError, match=r"^samples is 0; it must be at least 1$"):
        robustness(hardware, workload, samples=0)
    with pytest.raises(WorkloadError, match=r"^workload 'vgg9-cifar10' has no weights or no input, so nothing can be"):
        robustness(hardware, archsim.load_workload("vgg9-cifar10"))


def test_the_page_escapes_names(found):
    page = robustness_page(found, "chip\u202e", "<b>")
    assert "\u202e" not in page.title
    assert [section.id for section in page.sections] == ["layers", "causes", "sizes", "repairs"]


def test_pictures_say_what_their_tables_say(found):
    layers, causes, sizes, repairs = robustness_page(found, "chip", "net").sections
    picture = layers.parts[1]
    dots = [shape for shape in picture.shapes if shape.kind == "dot"]
    spiking = [layer for layer in found.layers if any(layer.spike_errors)]
    assert [dot.title.rpartition(": ")[2] for dot in dots] == [
        f"{error:.3f}" for layer in spiking for error in layer.spike_errors
    ]
    heights = [-float(dot.y) for dot in dots]
    errors = [error for layer in spiking for error in layer.spike_errors]
    assert np.corrcoef(heights, errors)[0, 1] > 0.9999  # a straight scale
    for section, trials in ((causes, found.causes), (sizes, found.sizes), (repairs, found.repairs)):
        chart = section.parts[-1]
        shown = chart.bars[-len(trials) :]
        assert [bar.label for bar in shown] == [trial.name for trial in trials]
        for bar, trial in zip(shown, trials, strict=True):
            widths = [float(segment.width) for segment in bar.segments]
            assert widths == ([] if not trial.accuracy else [pytest.approx(100 * trial.accuracy, abs=0.01)])
            assert [segment.colour for segment in bar.segments] == ["c2" if found.is_within(trial) else "c5"] * len(
                widths
            )
        assert section.tables == (chart.table,)


def test_the_command_writes_a_report(monkeypatch, tmp_path, capsys, found):
    monkeypatch.setattr("archsim.api.robustness", lambda *arguments, **options: found)
    arguments = ["robustness", "demo", "digits-mlp", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(as_json(found)))
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "What helps, cheapest first?" in shown
    assert f"{100 * found.baseline.accuracy:.1f}" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "robustness.html",
        "robustness.json",
        "robustness.md",
    }
    stored = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert stored["format_version"] == 1
    assert stored["cheapest_repair"] == (None if found.cheapest_repair is None else found.cheapest_repair.name)
    assert np.isclose(stored["ideal"], found.ideal)

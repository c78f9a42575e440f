"""A user's network is imported, tuned on the chip that will run it, and written back."""

import json
import sys
from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archsim
from archsim.analog.devices import ChipSeed
from archsim.cli import main
from archsim.errors import ConfigError, WorkloadError
from archsim.inference import run_ideal
from archsim.training import (
    OnChip,
    Technology,
    export_network,
    export_nir,
    import_network,
    network_nir,
    retrain,
    write_workload,
)
from archsim.training.fitting import realised
from archsim.workload.model import InputData, Workload, WorkloadSettings
from archsim.workload.network import Layer, Network, NeuronModel, Pool
from archsim.workload.neurons import readout
from archsim.workload.nir_reader import read_nir


@pytest.fixture(scope="module", params=["digits-cnn", "digits-mlp"])
def workload(request):
    return archsim.load_workload(request.param)


def frames(workload, first, last):
    return torch.tensor(workload.input.values[first:last, 0] * workload.input.scale, dtype=torch.float64)


def outputs(network, values, n_timesteps, scale=1.0):
    return run_ideal(network, values, n_timesteps, scale).outputs


def test_an_imported_network_does_what_the_network_does(workload):
    net = import_network(workload.network, workload.n_timesteps)
    with torch.no_grad():
        found = net(frames(workload, 0, 40)).numpy()
    wanted = outputs(workload.network, workload.input.values[:40, :1], workload.n_timesteps, workload.input.scale)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@st.composite
def chains(draw):
    """A convolution in groups, pooled perhaps, and two fully connected layers, with neurons of all kinds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def neurons(shape, last=False):
        kind = draw(st.sampled_from(["if", "lif", "threshold", *(["accumulate"] if last else [])]))
        size = draw(st.sampled_from([(1, 1, 1), (shape[0], 1, 1), shape]))

        def values(low, high):
            return random.uniform(low, high, size)

        decay = {"if": np.ones(size), "threshold": np.zeros(size)}.get(kind, values(0.3, 0.95))
        gain = np.ones(size) if kind == "threshold" else values(0.5, 1.5)
        leak = values(-0.2, 0.2) if kind in ("lif", "accumulate") else np.zeros(size)
        reset = "zero" if kind == "threshold" else draw(st.sampled_from(["subtract", "zero"]))
        v_reset = np.zeros(size) if kind == "threshold" else values(-0.3, 0.1)
        threshold = np.full(size, np.inf) if kind == "accumulate" else values(0.5, 1.5)
        has_synapse = kind in ("lif", "accumulate") and draw(st.booleans())
        synapse = (values(0.2, 0.8), values(0.5, 1.5)) if has_synapse else (None, None)
        return NeuronModel(kind, decay, gain, threshold, leak, v_reset, reset, "one", *synapse)

    def layer(name, kind, source, in_shape, out, kernel=(1, 1), stride=(1, 1), padding=(0, 0), groups=1, **more):
        weights = random.normal(0, 1.5 / np.sqrt(in_shape[0]), (out, in_shape[0] // groups, *kernel))
        bias = draw(st.sampled_from([None, random.normal(0, 0.2, out)]))
        made = Layer(
            name, kind, source, in_shape, out, kernel, stride, padding, weights, bias, readout(), groups=groups
        )
        return replace(made, neuron=neurons(made.conv_shape, last=name == "out"), **more)

    pool = draw(st.sampled_from([None, Pool((2, 2), (2, 2)), Pool((2, 1), (1, 2))]))
    kernel, stride = draw(st.sampled_from([((3, 3), (1, 1)), ((1, 3), (2, 1))]))
    padding = draw(st.sampled_from([(0, 0), (1, 1), (0, 1)]))
    conv = layer(
        "conv", "conv2d", "input", (2, 6, 6), 4, kernel, stride, padding, draw(st.sampled_from([1, 2])), pool=pool
    )
    hidden = layer("hidden", "linear", "conv", (int(np.prod(conv.out_shape)), 1, 1), 7)
    return Network("chain", (2, 6, 6), (conv, hidden, layer("out", "linear", "hidden", (7, 1, 1), 3)))


@settings(max_examples=40, deadline=None)
@given(network=chains(), n_timesteps=st.integers(1, 4), seed=st.integers(0, 100))
def test_chains_of_all_kinds_of_neurons_are_imported_and_exported_unchanged(network, n_timesteps, seed):
    spikes = np.random.default_rng(seed).integers(0, 3, (3, n_timesteps, 2, 6, 6))
    net = import_network(network, n_timesteps, "spikes")
    with torch.no_grad():
        found = net(torch.tensor(spikes * 0.5, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, outputs(network, spikes, n_timesteps, 0.5), rtol=1e-9, atol=1e-9)
    back = export_network(net, network)
    for old, new in zip(network.layers, back.layers, strict=True):
        assert np.array_equal(old.weights, new.weights)
        assert replace(new, weights=old.weights, bias=old.bias) == old


@pytest.mark.parametrize("update", ["exponential", "euler"])
def test_a_written_network_is_read_as_the_same(update, tmp_path):
    keys = WorkloadSettings(timestep_s=2e-3, lif_update=update)

    @settings(max_examples=15, deadline=None)
    @given(network=chains())
    def check(network):
        # NIR says nothing of the reset: one setting holds for all layers
        alike = tuple(replace(layer, neuron=replace(layer.neuron, reset="zero")) for layer in network.layers)
        nir.write(tmp_path / "chain.nir", network_nir(replace(network, layers=alike), keys))
        again = read_nir(tmp_path / "chain.nir", keys)
        for old, new in zip(alike, again.layers, strict=True):
            assert (new.name, new.kind, new.pool, new.groups) == (old.name, old.kind, old.pool, old.groups)
            assert np.array_equal(old.weights, new.weights)
        spikes = np.random.default_rng(0).integers(0, 3, (3, 3, 2, 6, 6))
        np.testing.assert_allclose(
            outputs(again, spikes, 3), outputs(replace(network, layers=alike), spikes, 3), atol=1e-9
        )

    check()


KNOWN = (
    "; training knows chains of convolutions and fully connected layers, each with neurons that fire at most once per "
    "timestep, the last perhaps with a readout"
)


def many(neuron):
    return replace(neuron, spikes_per_step="many")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda layer: {"kind": "product"}, "multiplies two activities (attention)"),
        (lambda layer: {"weights": None}, "has no weights, only its shape is known"),
        (lambda layer: {"delayed": True}, "reads spikes of one timestep earlier (recurrence)"),
        (lambda layer: {"adds": ("conv1",)}, "adds what conv1 delivers (a join)"),
        (lambda layer: {"source": "conv1"}, "reads 'conv1', not 'conv2' before it (a branch)"),
        (lambda layer: {"neuron": many(layer.neuron)}, "has neurons that fire several times in a timestep"),
        (lambda layer: {"neuron": readout()}, "has no neurons that fire and is not the last"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(change, text):
    network = archsim.load_workload("digits-cnn").network
    layers = tuple(replace(layer, **change(layer)) if layer.name == "conv3" else layer for layer in network.layers)
    with pytest.raises(WorkloadError) as raised:
        import_network(replace(network, layers=layers), 4)
    assert str(raised.value) == f"network 'digits-cnn': layer 'conv3' {text}{KNOWN}"


def test_neurons_that_differ_by_layer_are_no_neurons_of_a_net_of_ones_own():
    net = import_network(archsim.load_workload("digits-mlp").network, 5)
    text = (
        "^every layer of this network has neurons of its own, those of the network that it was imported from; "
        r"write its weights back with export_network\(\)$"
    )
    with pytest.raises(WorkloadError, match=text):
        export_nir(net, (64,))


def test_nir_has_no_leaky_neurons_without_a_leak():
    network = archsim.load_workload("digits-mlp").network
    first = replace(network.layers[0], neuron=replace(network.layers[0].neuron, decay=np.ones((1, 1, 1))))
    text = (
        "^layer 'fc1' has neurons with decays from 1 to 1; as NIR states time constants, leaky neurons need a decay "
        "above 0 and below 1$"
    )
    with pytest.raises(WorkloadError, match=text):
        network_nir(replace(network, layers=(first, *network.layers[1:])), WorkloadSettings())


# On the chip

RESISTIVE = {
    "tile.pe.crossbar.device.preset": "rram-20k-200k",
    "tile.pe.crossbar.device.d2d_sigma_rel": 0.1,
    "tile.pe.crossbar.r_driver_ohm": 1500,
}


def first(workload, n_samples, n_calibration=None):
    """The workload with its first samples only."""
    labels = None if workload.input.labels is None else workload.input.labels[:n_samples]
    data = replace(workload.input, values=workload.input.values[:n_samples], labels=labels)
    calibration = replace(workload.calibration, values=workload.calibration.values[:n_calibration])
    return replace(workload, input=data, calibration=calibration)


def on_chip_and_inferred(hardware, workload):
    """Outputs of the imported network on a chip, and those that `infer` gives for the same chip."""
    chip = ChipSeed(3)
    data = workload.input
    net = import_network(workload.network, workload.n_timesteps, data.coding)
    values = torch.tensor(data.values[:, 0] if data.coding == "direct" else data.values, dtype=torch.float64)
    with torch.no_grad():
        found = net(values * data.scale, OnChip(hardware, workload).cells(net, chip)).numpy()
    activity = archsim.infer(archsim.map_network(hardware, workload), workload, data.n_samples, chip.seed)
    return found, activity.outputs


@pytest.mark.parametrize(
    "keys",
    [
        {"tile.pe.crossbar.signed": "diff"},
        {"tile.pe.crossbar.signed": "differential", "tile.pe.crossbar.bits_per_cell": 1, "mapping.weight_bits": 4},
        {"tile.pe.crossbar.signed": "differential_arrays", "mapping.calibration": "none"},
        {"tile.pe.crossbar.signed": "offset", "tile.pe.adc.bits": 8},
        {"mapping.layout": "dense", "mapping.calibration": "batch_norm", "tile.pe.column_merge": "digital"},
        {"mapping.bias": "row", "chip.neuron.v_mem_bits": 6},
        {"mapping.first_layer": "digital", "tile.pe.adc.inl_lsb": 0.5, "tile.pe.adc.offset_sigma_lsb": 0.5},
        {"tile.pe.crossbar.rows": 32, "tile.pe.adc.range": "full", "mapping.unused_cells": "open"},
        {"tile.pe.crossbar.signed": "diff", "mapping.encoding": "high_resistance", "mapping.squeeze": "columns"},
        {"tile.pe.crossbar.signed": "offset", "mapping.polarity": "per_crossbar"},
    ],
    ids=lambda keys: ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in keys.items()),
)
def test_a_network_on_a_chip_does_what_is_inferred_there(keys):
    workload = first(archsim.load_workload("digits-mlp"), 12, 40)
    found, inferred = on_chip_and_inferred(archsim.load_hardware("demo", RESISTIVE | keys), workload)
    assert np.array_equal(found, inferred)


@settings(max_examples=8, deadline=None)
@given(network=chains(), seed=st.integers(0, 100))
def test_chains_on_a_chip_do_what_is_inferred_there(network, seed):
    spikes = np.random.default_rng(seed).integers(0, 3, (4, 3, 2, 6, 6))
    workload = Workload("chain", network, 3, InputData(spikes, 0.5))
    found, inferred = on_chip_and_inferred(archsim.load_hardware("demo", RESISTIVE), workload)
    np.testing.assert_allclose(found, inferred, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_exact_products():
    workload = first(archsim.load_workload("digits-mlp"), 4, 8)
    readout_only = replace(workload.network.layers[2], source="input", bias=None)
    network = Network("one", (64, 1, 1), (readout_only,))
    inputs = torch.tensor(workload.input.values[:, 0], dtype=torch.float64)
    net = import_network(network, 2)
    chip = OnChip(archsim.load_hardware("demo", RESISTIVE), replace(workload, network=network)).cells(net, ChipSeed(1))
    gradients = []
    for cells in (None, chip):
        net.zero_grad()
        net(inputs, cells).sum().backward()
        gradients.append(net.layers[0].weight.grad.clone())
    assert torch.equal(*gradients)
    assert not torch.equal(net(inputs), net(inputs, chip))


def test_channel_groups_take_the_chip_itself():
    layer = archsim.load_workload("digits-cnn").network.layers[0]
    split = replace(layer, in_shape=(2, 8, 8), groups=2, source="input")
    net = import_network(Network("grouped", (2, 8, 8), (split,)), 1)
    text = (
        "^a Technology cuts whole matrices, not those of 2 channel groups; put the chip itself in the loop with OnChip$"
    )
    with pytest.raises(WorkloadError, match=text):
        realised(net, Technology(), ChipSeed())


def test_ranges_and_gains_stay_between_fits_while_devices_are_new():
    workload = first(archsim.load_workload("digits-mlp"), 8, 16)
    net, hardware = import_network(workload.network, 5), archsim.load_hardware("demo", RESISTIVE)
    on_chip = OnChip(hardware, workload, refit_every=2)
    fitted, kept, refitted = (on_chip.cells(net, ChipSeed(0, number)) for number in (0, 1, 1))
    fresh = OnChip(hardware, workload).cells(net, ChipSeed(0, 1))

    def held(cells, layer=1):
        return cells[layer].circuit.layer.crossbars

    assert torch.equal(held(kept).gains, held(fitted).gains)
    assert torch.equal(held(kept).ranges.high, held(fitted).ranges.high)
    assert kept[1].circuit.layer.v_full_scale == fitted[1].circuit.layer.v_full_scale
    assert torch.equal(held(kept).effective.cells, held(fresh).effective.cells)
    assert not torch.equal(held(kept).effective.cells, held(fitted).effective.cells)
    assert torch.equal(held(refitted).gains, held(fresh).gains)


@pytest.mark.parametrize(("first_layer", "n_reads"), [("repeat", 5), ("once", 1)])
def test_a_noisy_first_layer_is_read_as_often_as_on_the_chip(first_layer, n_reads):
    workload = first(archsim.load_workload("digits-mlp"), 3, 16)
    keys = RESISTIVE | {"tile.pe.crossbar.device.read_noise_sigma_rel": 0.05, "mapping.first_layer": first_layer}
    net = import_network(workload.network, workload.n_timesteps)
    trace = []
    with torch.no_grad():
        cells = OnChip(archsim.load_hardware("demo", keys), workload).cells(net, ChipSeed(0))
        net(frames(workload, 0, 3), cells, trace)
    assert len({tuple(step[0].sums.flatten().tolist()) for step in trace}) == n_reads


def test_shared_neurons_are_not_for_imported_networks():
    workload = first(archsim.load_workload("digits-cnn"), 4, 4)
    hardware = archsim.load_hardware("demo", {"chip.neuron.shared_channels": 2})
    text = (
        r"^on this chip channels share neurons \(chip.neuron.shared_channels\), with which an imported network cannot "
        r"be trained; set it to 1, or train a Net with Neuron\(shared_channels=...\)$"
    )
    with pytest.raises(WorkloadError, match=text):
        retrain(hardware, workload, 1)


def test_zeros_stay_zero_and_equal_seeds_tune_equally():
    workload = first(archsim.load_workload("digits-mlp"), 32, 16)
    weights = workload.network.layers[0].weights.copy()
    weights[:, 3] = 0.0
    layers = (replace(workload.network.layers[0], weights=weights), *workload.network.layers[1:])
    pruned = replace(workload, network=replace(workload.network, layers=layers))
    hardware = archsim.load_hardware("demo", RESISTIVE | {"mapping.squeeze": "rows"})
    told = []
    state = torch.get_rng_state()
    tuned = [retrain(hardware, pruned, 2, 5, lambda phase, done: told.append((phase, done))) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    for once, again, before in zip(tuned[0].layers, tuned[1].layers, layers, strict=True):
        assert np.array_equal(once.weights, again.weights)
        assert np.array_equal(once.weights == 0, before.weights == 0)
        assert not np.array_equal(once.weights, before.weights)
    assert told[:4] == [("retraining", 0.25), ("retraining", 0.5), ("retraining", 0.75), ("retraining", 1.0)]


def test_retraining_needs_samples_and_epochs():
    workload = archsim.load_workload("digits-mlp")
    text = (
        "^workload 'digits-mlp' has 360 samples to learn from and epochs is 0; retraining needs at least one of each$"
    )
    with pytest.raises(WorkloadError, match=text):
        retrain(archsim.load_hardware("demo"), workload, 0)


def test_a_network_that_says_nothing_teaches_nothing():
    workload = first(archsim.load_workload("digits-mlp"), 8, 4)
    mute = tuple(replace(layer, weights=layer.weights * 0, bias=None) for layer in workload.network.layers)
    text = (
        "^network 'digits-mlp': without a chip its outputs for 8 samples have a spread of 0; there is nothing to learn "
        "from them. Check its weights and its input$"
    )
    with pytest.raises(WorkloadError, match=text):
        retrain(archsim.load_hardware("demo"), replace(workload, network=replace(workload.network, layers=mute)), 1)


# As a repair


@pytest.fixture
def nothing_else(monkeypatch):
    """`archsim robustness` without its other trials."""
    for name in ("_causes", "_repairs"):
        monkeypatch.setattr(f"archsim.analysis.robustness.{name}", lambda hardware: ())
    monkeypatch.setattr("archsim.analysis.robustness.SIZES", ())


HARSH = [
    "tile.pe.crossbar.device.preset=rram-20k-200k",
    "tile.pe.crossbar.device.d2d_sigma_rel=0.2",
    "tile.pe.crossbar.r_driver_ohm=2000",
]


@pytest.mark.slow
def test_retraining_gives_most_of_a_harsh_chips_loss_back_and_the_written_network_proves_it(
    nothing_else, tmp_path, capsys
):
    keys = [part for key in HARSH for part in ("--set", key)]
    counts = ["--samples", "60", "--chips", "2"]
    out = tmp_path / "out"
    assert main(["robustness", "spikesim-rram-64", "digits-cnn", *keys, *counts, "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "weights, tuned on 10 x 240 samples" in shown
    assert f"retrained network: archsim run spikesim-rram-64 {out}/tuned.yaml {' '.join(keys)}\n" in shown
    stored = json.loads((out / "robustness.json").read_text())
    trial = stored["repairs"][-1]
    assert (trial["name"], trial["n_epochs"], trial["n_tuning_samples"]) == ("retrained for 10 epochs", 10, 240)
    before, after, ideal = stored["baseline"]["calibrated"], trial["calibrated"], stored["ideal"]
    assert before < ideal - 0.25
    assert after > before + 0.5 * (ideal - before)
    assert trial["area_um2"] == stored["baseline"]["area_um2"]
    assert "tuned" not in stored

    again = ["run", "spikesim-rram-64", str(out / "tuned.yaml"), *keys, "--chips", "2", "-o", str(tmp_path / "again")]
    assert main([*again, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["accuracy_raw"], summary["accuracy_calibrated"]) == (trial["raw"], after)


def repaired(workload, **options):
    """The last repair of a chip of which nothing else is tried."""
    hardware = archsim.load_hardware("demo", RESISTIVE)
    found = archsim.robustness(hardware, workload, samples=options.pop("samples", 20), retrain_epochs=1, **options)
    return found, found.repairs[-1]


def test_too_few_samples_and_networks_that_cannot_be_trained_are_notes(nothing_else):
    workload = archsim.load_workload("digits-mlp")
    bare = replace(first(workload, 40), calibration=None)
    found, trial = repaired(bare)
    assert (trial.name, trial.accuracy, found.tuned) == ("retrained for 1 epoch", None, None)
    assert trial.note == (
        "besides the 20 samples that are judged there are 20 to learn from; retraining takes at least 32. "
        "Give an input with more samples, or lower --samples"
    )
    layers = tuple(replace(layer, neuron=many(layer.neuron)) for layer in workload.network.layers)
    _, trial = repaired(replace(workload, network=replace(workload.network, layers=layers)))
    assert "layer 'fc1' has neurons that fire several times in a timestep; training knows chains" in trial.note


def test_what_is_learnt_from_is_not_judged_and_has_no_labels(nothing_else, monkeypatch):
    workload, taught = archsim.load_workload("digits-mlp"), []

    def watch(self, hardware, workload, seed, progress):
        taught.append(workload)
        return workload.network

    monkeypatch.setattr("archsim.training.retraining.Retraining.tune", watch)
    found, trial = repaired(workload, samples=100)
    assert (trial.n_tuning_samples, trial.calibrated) == (400, found.baseline.calibrated)
    judged, rest = workload.input.values[:100], workload.input.values[100:]
    wanted = np.concatenate([rest, workload.calibration.values])[:400]
    assert np.array_equal(taught[0].input.values, wanted)
    assert taught[0].input.labels is None
    assert np.array_equal(found.tuned.input.values, judged)


def test_without_epochs_there_is_no_retraining(nothing_else):
    workload, hardware = first(archsim.load_workload("digits-mlp"), 4), archsim.load_hardware("demo", RESISTIVE)
    found = archsim.robustness(hardware, workload, retrain_epochs=0)
    assert (found.repairs, found.tuned) == ((), None)
    text = "^retrain_epochs is -1; it must be at least 1, or 0 for no retraining$"
    with pytest.raises(ConfigError, match=text):
        archsim.robustness(hardware, workload, retrain_epochs=-1)


@pytest.mark.parametrize("coding", ["direct", "spikes"])
def test_a_written_workload_is_loaded_as_the_same(coding, tmp_path):
    workload = first(archsim.load_workload("digits-mlp"), 6, 5)
    if coding == "spikes":
        data = InputData(workload.input.values.repeat(5, axis=1) % 3, 1.0, workload.input.labels, "spikes")
        keys = WorkloadSettings(timestep_s=1e-5, reset="subtract", lif_update="euler")
        workload = replace(workload, input=data, calibration=None, settings=keys)
    write_workload(workload, tmp_path, "tuned")
    again = archsim.load_workload(tmp_path / "tuned.yaml")
    assert (again.n_timesteps, again.settings) == (workload.n_timesteps, workload.settings)
    assert (again.input.scale, again.input.coding) == (workload.input.scale, workload.input.coding)
    assert np.array_equal(again.input.values, workload.input.values)
    assert np.array_equal(again.input.labels, workload.input.labels)
    if coding == "direct":
        assert np.array_equal(again.calibration.values, workload.calibration.values)
    np.testing.assert_allclose(
        outputs(again.network, again.input.values, 5), outputs(workload.network, workload.input.values, 5), rtol=1e-6
    )


def test_a_missing_package_is_told_before_anything_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "nir", None)
    assert main(["robustness", "demo", "digits-mlp", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "archsim: a retrained network is written with the package nir, which is missing: pip install 'archsim[train]', "
        "or leave retraining out (--retrain 0)\n"
    )
    assert not (tmp_path / "out").exists()

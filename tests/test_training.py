"""Networks that are trained here, with and without crossbars in the loop, converted, and written as NIR."""

from dataclasses import replace
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch
from nodal_analysis import Mesh, column_currents, node_voltages
from sklearn.datasets import load_digits

from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed
from archsim.analog.neurons import load_neuron, step
from archsim.errors import ConfigError, WorkloadError
from archsim.hardware.devices import PRESETS
from archsim.hardware.reader import load_hardware
from archsim.inference.network import run_ideal
from archsim.training import (
    Net,
    Neuron,
    Recipe,
    Technology,
    Weighted,
    WeightNoise,
    accuracy,
    adapt_batch_norm,
    convert,
    export_nir,
    random_weight,
    train,
    tune_batch_norm,
    with_gains,
)
from archsim.training.conversion import folded
from archsim.training.fitting import realised
from archsim.training.net import Cells
from archsim.training.surrogate import Spike
from archsim.workload.loader import load_workload
from archsim.workload.neurons import integrate_and_fire

DEVICE = PRESETS["rram-20k-200k"]
NOISY = replace(DEVICE, d2d_sigma_rel=0.1)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return torch.as_tensor(images[order] / 16, dtype=torch.float32), torch.as_tensor(labels[order], dtype=torch.int64)


def dense(*sizes, bias=False):
    torch.manual_seed(0)
    return [Weighted(random_weight((after, before)), bias) for before, after in pairwise(sizes)]


def small_cnn(neuron, norm="none", n_timesteps=3):
    torch.manual_seed(0)
    layers = [
        Weighted(random_weight((4, 1, 3, 3)), bias=True, padding=1, pool=2),
        Weighted(random_weight((6, 4, 3, 3)), stride=2),
        Weighted(random_weight((10, 6))),
    ]
    return Net(layers, neuron, n_timesteps, norm=norm)


def written(net, shape, path):
    nir.write(path, export_nir(net, shape))
    return path


def test_spikes_have_the_gradient_of_a_fast_sigmoid():
    distance = torch.tensor([-0.5, 0.0, 0.25], requires_grad=True)
    Spike.apply(distance).sum().backward()
    assert distance.grad.tolist() == pytest.approx([1 / 9, 1.0, 1 / 4])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_neurons_move_as_those_of_the_simulator_do(reset):
    torch.manual_seed(0)
    ours, v = Neuron(decay=0.8, input_gain=0.5, reset=reset), torch.zeros(2, 3, 1, 1)
    theirs = replace(integrate_and_fire(), decay=np.float64(0.8), input_gain=np.float64(0.5), reset=reset)
    state = v
    for current in torch.rand(8, *v.shape) * 4:
        state, spikes = ours.step(state, current)
        v, expected = step(v, current, load_neuron(theirs, torch.float32))
        torch.testing.assert_close(state, v)
        assert torch.equal(spikes, expected)


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_a_written_network_runs_in_the_simulator_as_it_was_trained(digits, tmp_path, decay):
    net = small_cnn(Neuron(decay=decay, input_gain=0.7), norm="batch")
    images = digits[0][:12].view(-1, 1, 8, 8)
    train(net, images, digits[1][:12], Recipe(n_epochs=2, batch_size=6))
    path = written(net, (1, 8, 8), tmp_path / "net.nir")
    workload = load_workload(path, "poisson:0.5", 3, {"reset": "subtract", "timestep_s": 1e-3})
    found = run_ideal(workload.network, np.rint(images.numpy() * 16)[:, None], 3, 1 / 16)
    with torch.no_grad():
        np.testing.assert_allclose(found.outputs, net(images).numpy(), rtol=1e-4, atol=1e-4)


def test_folded_batch_norm_changes_nothing(digits):
    net = small_cnn(Neuron("relu"), norm="batch", n_timesteps=1)
    images = digits[0][:200].view(-1, 1, 8, 8)
    train(net, images, digits[1][:200], Recipe(n_epochs=2))
    with torch.no_grad():
        torch.testing.assert_close(folded(net).eval()(images), net(images), rtol=1e-4, atol=1e-5)


def test_a_converted_network_comes_close_to_the_one_it_was_made_of(digits, tmp_path):
    images, labels = digits[0][:1200], digits[1][:1200]
    net = Net(dense(64, 48, 48, 10), Neuron("relu"), norm="batch")
    train(net, images, labels, Recipe(n_epochs=20, learning_rate=1e-2))
    held_out = digits[0][1200:], digits[1][1200:]
    few, many = (accuracy(convert(net, images, steps), *held_out) for steps in (4, 64))
    assert accuracy(net, *held_out) > 0.9
    assert few < many
    assert abs(many - accuracy(net, *held_out)) < 0.02
    spiking = convert(net, images, 64)
    with torch.no_grad():
        rates = spiking(held_out[0][:20]).div(64)
        continuous = net(held_out[0][:20])
    shift = continuous / rates  # thresholds are folded in, so logits keep their size
    assert float(shift.median()) == pytest.approx(1.0, abs=0.1)
    assert written(spiking, (64,), tmp_path / "made.nir").is_file()


@pytest.mark.parametrize(("coding", "norm"), [("direct", "none"), ("rate", "per_timestep")])
def test_surrogate_gradients_teach_both_codings(digits, coding, norm):
    net = Net(dense(64, 48, 10), Neuron(decay=0.95), 4, coding, norm)
    train(net, digits[0][:1200], digits[1][:1200], Recipe(n_epochs=20, learning_rate=1e-2, logit_gain=4.0))
    assert accuracy(net, digits[0][1200:], digits[1][1200:]) > 0.8


def test_equal_seeds_train_equal_networks(digits):
    def trained():
        net = Net(dense(64, 16, 10), Neuron(), 2, "rate")
        return train(net, digits[0][:200], digits[1][:200], Recipe(n_epochs=1), Technology(NOISY), seed=3)

    assert torch.equal(trained().layers[0].weight, trained().layers[0].weight)


@pytest.mark.parametrize("signed", ["differential_arrays", "differential"])
@pytest.mark.parametrize("layout", ["dense", "kernel_position"])
@pytest.mark.parametrize("shape", [(20, 50), (7, 5, 3, 3)])
def test_ideal_lines_give_weights_back_however_they_are_cut(signed, layout, shape):
    torch.manual_seed(0)
    layer = Weighted(random_weight(shape))
    cells = Technology(DEVICE, rows=16, cols=12, signed=signed, layout=layout).realise(layer, "fc", ChipSeed())
    torch.testing.assert_close(cells.weight, layer.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unused_cells", ["g_min", "open"])
def test_effective_weights_are_those_of_nodal_analysis(unused_cells):
    torch.manual_seed(0)
    layer = Weighted(random_weight((4, 7)).double())
    wires = Wires(1000.0, 5.0, 10.0, 700.0)
    technology = Technology(DEVICE, wires, rows=5, cols=3, unused_cells=unused_cells)
    found = technology.realise(layer, "fc", ChipSeed()).weight.detach()
    scale = float(layer.weight.detach().abs().max())
    per_siemens = scale / (DEVICE.g_on_s - DEVICE.g_off_s)
    weights, expected = layer.weight.detach().T.numpy(), np.zeros((7, 4))
    for first_row, first_col in [(0, 0), (0, 3), (5, 0), (5, 3)]:
        part = weights[first_row : first_row + 5, first_col : first_col + 3]
        for sign in (1, -1):
            g = np.full((5, 3), DEVICE.g_off_s if unused_cells == "g_min" else 0.0)
            height, width = part.shape
            g[5 - height :, :width] = DEVICE.g_off_s + np.maximum(sign * part, 0) / per_siemens
            mesh = Mesh(g, 1000.0, 5.0, 10.0, 700.0)
            effective = column_currents(mesh, node_voltages(mesh, np.eye(5))[1])[5 - height :, :width]
            expected[first_row : first_row + 5, first_col : first_col + 3] += sign * effective * per_siemens
    np.testing.assert_allclose(found.T.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("driver", "sense"), [(500.0, 0.0), (0.0, 500.0)])
def test_product_and_circuit_agree_where_one_resistance_is_zero(driver, sense):
    layer, wires = Weighted(random_weight((6, 9)).double()), Wires(driver, 0.0, 0.0, sense)
    found = [Technology(DEVICE, wires, circuit=kind).realise(layer, "", ChipSeed()).weight for kind in CIRCUITS]
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


CIRCUITS = ("exact", "product")


@pytest.mark.parametrize("signed", ["differential_arrays", "differential"])
@pytest.mark.parametrize("wires", [Wires(300.0, 0.0, 0.0, 400.0), Wires(300.0, 5.0, 10.0, 400.0)])
def test_the_gradient_passes_through_cells_and_circuit(signed, wires):
    torch.manual_seed(0)
    technology = Technology(NOISY, wires, rows=3, cols=4, signed=signed)
    layer = Weighted(random_weight((3, 4)).double())
    layer.full_scale = 3.0

    def effective(weight):
        return technology.effective(weight.T[None], 3.0, "fc", ChipSeed(1))[0]

    assert torch.autograd.gradcheck(effective, (layer.weight.detach().requires_grad_(),))


def test_straight_through_keeps_the_value_and_takes_the_ideal_gradient():
    layer, wires = Weighted(random_weight((6, 9))), Wires(2000.0, 0.0, 0.0, 500.0)
    full = Technology(DEVICE, wires).realise(layer, "", ChipSeed())
    through = Technology(DEVICE, wires, gradient="straight_through").realise(layer, "", ChipSeed())
    torch.testing.assert_close(through.weight, full.weight)
    through.weight.sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones_like(layer.weight))


def test_every_chip_has_its_own_devices_and_the_same_seed_the_same():
    net = Net(dense(9, 6, 4), Neuron("relu"))
    one, again, other = (realised(net, Technology(NOISY), ChipSeed(0, chip))[0].weight for chip in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_read_noise_has_the_variance_of_its_cells():
    layer = Weighted(torch.full((1, 8), 0.5))
    technology = Technology(replace(DEVICE, read_noise_sigma_rel=0.1))
    cells = technology.realise(layer, "", ChipSeed())
    torch.manual_seed(0)
    reads = layer.sums(torch.ones(20000, 8), cells).detach()
    g_on, g_off = DEVICE.g_on_s, DEVICE.g_off_s
    expected = 0.1 * (8 * (g_on**2 + g_off**2)) ** 0.5 * 0.5 / (g_on - g_off)
    assert float(reads.std()) == pytest.approx(expected, rel=0.03)
    assert float(reads.mean()) == pytest.approx(4.0, rel=0.01)


def test_training_on_the_circuit_gives_accuracy_back(digits):
    images, labels = digits[0][:1200], digits[1][:1200]
    technology = Technology(DEVICE, Wires(3000.0))

    def trained(on):
        net = Net(dense(64, 64, 10), Neuron("sigmoid"))
        for layer in net.layers:
            layer.limit = layer.full_scale = 1.0
        train(net, images, labels, Recipe(n_epochs=25, learning_rate=1e-2, logit_gain=4.0), on)
        return accuracy(net, digits[0][1200:], digits[1][1200:], technology)

    assert trained(None) + 0.05 < trained(technology)


def test_training_with_noise_hardens_a_network(digits):
    noise = WeightNoise(0.15)

    def trained(on):
        net = Net(dense(64, 64, 10), Neuron("relu"))
        train(net, digits[0][:1200], digits[1][:1200], Recipe(n_epochs=30, learning_rate=1e-2), on)
        chips = [accuracy(net, digits[0][1200:], digits[1][1200:], noise, chip) for chip in range(8)]
        return sum(chips) / len(chips)

    assert trained(None) + 0.02 < trained(noise)


def test_a_chip_is_a_technology():
    changes = {
        "tile.pe.crossbar.device.preset": "rram-100k-1m",
        "tile.pe.crossbar.signed": "differential_arrays",
        "tile.pe.crossbar.r_driver_ohm": 200,
        "mapping.unused_cells": "open",
    }
    technology = Technology.of(load_hardware("spikesim-rram-64", changes))
    assert technology == Technology(
        PRESETS["rram-100k-1m"], Wires(200.0), 64, 32, "differential_arrays", "kernel_position", "open"
    )


def test_messages_say_what_to_do(digits):
    with pytest.raises(
        ConfigError, match=r"^a Technology knows tile\.pe\.crossbar\.signed: differential and .*not diff"
    ):
        Technology.of(load_hardware("spikesim-rram-64", {"tile.pe.crossbar.device.preset": "rram-20k-200k"}))
    with pytest.raises(ConfigError, match=r"^training needs linear devices with resistances; choose device\.preset"):
        Technology(PRESETS["ideal"])
    with pytest.raises(ConfigError, match=r"^circuit: product knows drivers and sense inputs, not wires; set"):
        Technology(DEVICE, Wires(1.0, 1.0), circuit="product")
    with pytest.raises(WorkloadError, match=r"^2 layers of 'relu' neurons are to run for 3 timesteps; a network"):
        Net(dense(3, 2, 2), Neuron("relu"), 3)
    with pytest.raises(WorkloadError, match=r"^decay is 0 and input_gain 1\.0; decay must be above 0 and at most 1"):
        Neuron(decay=0)
    with pytest.raises(WorkloadError, match=r"^NIR has no 'relu' neurons; make the network spike with convert\(\)"):
        export_nir(Net(dense(3, 2, 2), Neuron("relu")), (3,))
    with pytest.raises(WorkloadError, match=r"^the network has a batch norm for each of its 2 timesteps; one set"):
        export_nir(Net(dense(3, 2, 2), Neuron(), 2, norm="per_timestep"), (3,))
    with pytest.raises(WorkloadError, match=r"^a network of 'spiking' neurons at quantile 0\.9 cannot be converted"):
        convert(Net(dense(3, 2, 2), Neuron()), torch.ones(1, 3), 4, 0.9)
    dead = Net([Weighted(-torch.ones(2, 3)), Weighted(torch.ones(2, 2))], Neuron("relu"))
    with pytest.raises(WorkloadError, match=r"^hidden layer 0 is never active on the 1 inputs; train it first$"):
        convert(dead, torch.ones(1, 3), 4)
    with pytest.raises(WorkloadError, match=r"^layer 1 is a convolution but gets shape \(64,\); it needs \(channel"):
        export_nir(small_cnn(Neuron()), (64,))


def test_a_layer_gain_undoes_a_factor():
    net = Net(dense(9, 6, 4), Neuron("relu"))
    halved = [Cells(layer.weight.detach() / 2) for layer in net.layers]
    torch.manual_seed(0)
    for held, layer in zip(with_gains(net, halved, torch.rand(20, 9)), net.layers, strict=True):
        torch.testing.assert_close(held.weight, layer.weight)


def test_column_gains_undo_a_factor_of_every_column():
    net = Net([Weighted(random_weight((3, 2, 3, 3)))], Neuron("relu"))
    factors = torch.tensor([0.5, 0.7, 2.0]).view(3, 1, 1, 1)
    cells = [Cells(net.layers[0].weight.detach() * factors, torch.ones(3, 2, 3, 3))]
    (held,) = with_gains(net, cells, torch.rand(5, 2, 6, 6), "column")
    torch.testing.assert_close(held.weight, net.layers[0].weight)
    torch.testing.assert_close(held.noise_variance, (1 / factors.square()).expand(3, 2, 3, 3))


@pytest.mark.parametrize("norm", ["batch", "per_timestep"])
def test_adapted_batch_norm_undoes_a_factor(digits, norm):
    torch.manual_seed(0)
    net = Net(dense(64, 20, 10), Neuron(), 2, norm=norm)
    train(net, digits[0][:500], digits[1][:500], Recipe(n_epochs=3))
    weak = [Cells(net.layers[0].weight.detach() / 3), Cells(net.layers[1].weight.detach())]
    ideal = [Cells(layer.weight.detach()) for layer in net.layers]
    images = digits[0][:500]
    with torch.no_grad():
        found = adapt_batch_norm(net, weak, images)(images, weak)
        expected = adapt_batch_norm(net, ideal, images)(images, ideal)
    assert float((found == expected).float().mean()) > 0.95  # eps of batch norm may move single spikes
    with pytest.raises(WorkloadError, match=r"^the network has no batch norm to adapt; use with_gains, or train it"):
        adapt_batch_norm(Net(dense(64, 4), Neuron()), ideal, images)


def test_tuned_batch_norms_give_more_back_than_adapted_ones_and_no_weight_changes(digits):
    images, labels = digits
    torch.manual_seed(0)
    net = Net(dense(64, 64, 64, 10), Neuron(decay=0.9), 2, norm="batch")
    train(net, images[:1200], labels[:1200], Recipe(n_epochs=10))
    spread = replace(PRESETS["rram-20k-200k"], d2d_sigma_rel=0.6)
    technology = Technology(spread, Wires(r_driver_ohm=1000, r_sense_ohm=1000), rows=32, cols=32)
    with torch.no_grad():
        cells = realised(net, technology, ChipSeed(0, 0))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    tuned = tune_batch_norm(net, cells, images[:1200], labels[:1200], Recipe(n_epochs=5, learning_rate=0.01))
    found = {}
    for name, each in (("raw", net), ("adapted", adapt_batch_norm(net, cells, images[:1200])), ("tuned", tuned)):
        with torch.no_grad():
            found[name] = float((each(images[1200:], cells).argmax(1) == labels[1200:]).float().mean())
    assert found["raw"] + 0.2 < found["adapted"] < found["tuned"] - 0.01
    for parameter, was in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, was)
    for layer, original in zip(tuned.layers, net.layers, strict=True):
        assert torch.equal(layer.weight, original.weight)
        assert layer.weight.requires_grad
    assert not torch.equal(tuned.norms[0][0].weight, net.norms[0][0].weight)
    with pytest.raises(WorkloadError, match=r"^the network has no batch norm to adapt; use with_gains, or train it"):
        tune_batch_norm(Net(dense(64, 4), Neuron()), cells[:1], images, labels, Recipe(1))


def test_a_run_gives_what_every_layer_did(digits):
    net = Net(dense(64, 20, 10), Neuron(), 3, "direct")
    trace = []
    with torch.no_grad():
        outputs = list(net.run(digits[0][:5], trace=trace))
    spikes = torch.stack([step[0].emitted for step in trace])
    assert torch.equal(spikes, torch.stack([step[1].inputs for step in trace]))
    torch.testing.assert_close(outputs[-1], spikes.sum(0) @ net.layers[1].weight.detach().T)
    assert float(net.rate) == pytest.approx(float(spikes.mean()))

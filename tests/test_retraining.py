"""A user's network is imported, tuned on the chip that will run it, and written back."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archsim
from archsim.errors import WorkloadError
from archsim.inference import run_ideal
from archsim.training import export_network, export_nir, import_network, network_nir
from archsim.workload.model import WorkloadSettings
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
        return NeuronModel(kind, decay, gain, threshold, leak, v_reset, reset)

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
    "; training knows chains of convolutions and fully connected layers, each with IF, LIF or threshold neurons that "
    "fire at most once per timestep, the last perhaps with a readout"
)


def many(neuron):
    return replace(neuron, spikes_per_step="many")


def with_synapse(neuron):
    return replace(neuron, synapse_decay=np.full((1, 1, 1), 0.5), synapse_gain=np.ones((1, 1, 1)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda layer: {"kind": "product"}, "multiplies two activities (attention)"),
        (lambda layer: {"weights": None}, "has no weights, only its shape is known"),
        (lambda layer: {"delayed": True}, "reads spikes of one timestep earlier (recurrence)"),
        (lambda layer: {"adds": ("conv1",)}, "adds what conv1 delivers (a join)"),
        (lambda layer: {"source": "conv1"}, "reads 'conv1', not 'conv2' before it (a branch)"),
        (lambda layer: {"neuron": with_synapse(layer.neuron)}, "has neurons whose synapses keep a current"),
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

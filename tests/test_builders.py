"""Built-in networks against hand-written shapes and published parameter counts."""

import numpy as np
import pytest
import torch
from nir_graphs import Layers
from torch import nn

from archsim.workload.builders import fold_batch_norm, mlp, resnet19, vgg5, vgg9, vgg11, vgg16
from archsim.workload.loader import load_workload
from archsim.workload.network import INPUT, Pool


def n_weights(network, prefix=""):
    return sum(layer.n_weights for layer in network.layers if layer.name.startswith(prefix))


def maps(network):
    """Channels and width of each layer's neurons, and whether pooling follows."""
    return [(*layer.conv_shape[:2], layer.pool is not None) for layer in network.layers]


@pytest.mark.parametrize(
    ("network", "convolutions", "total"),
    [
        (vgg16("imagenet"), 14_710_464, 138_344_128),  # 138,357,544 parameters with 13,416 biases
        (vgg11("imagenet"), 9_217_728, 132_851_392),  # 132,863,336 with 11,944 biases
        (vgg16(), 14_710_464, 14_715_584),
        (vgg11(), 9_217_728, 9_222_848),
        (vgg9(), 1_734_336, 5_938_880),
        (vgg5(), 222_912, 8_621_760),  # 8,611,520 without its readout, as SATA_Sim counts
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_vggs_have_the_published_numbers_of_weights(network, convolutions, total):
    assert (n_weights(network, "conv"), n_weights(network)) == (convolutions, total)
    assert network.layers[-1].neuron.kind == "accumulate"


def test_vgg16_on_imagenet():
    assert maps(vgg16("imagenet")) == [
        (64, 224, False), (64, 224, True), (128, 112, False), (128, 112, True),
        (256, 56, False), (256, 56, False), (256, 56, True), (512, 28, False), (512, 28, False), (512, 28, True),
        (512, 14, False), (512, 14, False), (512, 14, True), (4096, 1, False), (4096, 1, False), (1000, 1, False),
    ]  # fmt: skip


def test_vgg5_has_the_maps_of_its_source():
    network = vgg5()
    assert maps(network) == [(64, 32, True), (128, 16, False), (128, 16, True), (1024, 1, False), (10, 1, False)]
    assert network.layers[3].in_shape == (8192, 1, 1)
    assert sum(layer.n_neurons for layer in network.layers[:3]) == 131_072


def test_resnet19_has_the_blocks_of_its_source():
    network = resnet19()
    assert maps(network) == [
        (128, 32, False), *[(128, 32, False)] * 6,
        *[(256, 16, False)] * 7, *[(512, 8, False)] * 4, (512, 8, True), (256, 1, False), (10, 1, False),
    ]  # fmt: skip
    assert n_weights(network) == 12_687_232
    assert network.layer("block8.conv2").pool == Pool((8, 8), (8, 8))
    assert network.layer("fc1").in_shape == (512, 1, 1)


def test_resnet19_joins():
    layers = resnet19().layers
    joins = {layer.name: layer.adds for layer in layers if layer.adds}
    assert joins == {
        "block1.conv2": ("conv1",), "block2.conv2": ("block1.conv2",), "block3.conv2": ("block2.conv2",),
        "block4.conv2": ("block4.shortcut",), "block5.conv2": ("block4.conv2",), "block6.conv2": ("block5.conv2",),
        "block7.conv2": ("block7.shortcut",), "block8.conv2": ("block7.conv2",),
    }  # fmt: skip
    shortcut = next(layer for layer in layers if layer.name == "block4.shortcut")
    assert (shortcut.source, shortcut.kernel, shortcut.stride, shortcut.padding, shortcut.neuron.kind) == (
        "block3.conv2", (1, 1), (2, 2), (0, 0), "none",
    )  # fmt: skip
    assert (shortcut.conv_shape, shortcut.n_weights) == ((256, 16, 16), 32_768)


def test_layers_come_after_what_they_read():
    seen = {INPUT}
    for layer in resnet19().layers:
        assert {layer.source, *layer.adds} <= seen
        seen.add(layer.name)


def test_an_mlp_has_the_given_sizes():
    network = mlp((784, 128, 10))
    assert [(layer.name, layer.in_shape[0], layer.out_channels) for layer in network.layers] == [
        ("fc1", 784, 128), ("fc2", 128, 10),
    ]  # fmt: skip
    assert (network.name, network.has_weights) == ("mlp-784-128-10", False)
    with pytest.raises(ValueError, match=r"^sizes are \[784\]; a network needs at least two, each at least 1$"):
        mlp((784,))


def test_random_weights_come_from_the_seed():
    one, same, other = (mlp((64, 32, 10), seed).layers[0].weights for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32


@pytest.mark.parametrize("network", [vgg9(0), resnet19(0), mlp((784, 512, 512, 512, 10), 0)], ids=lambda net: net.name)
def test_random_networks_neither_die_nor_saturate(network):
    rng = np.random.default_rng(0)
    layers, n_steps = Layers(network), 4
    totals = dict.fromkeys((x.name for x in network.layers if x.neuron.kind == "if"), 0.0)
    for _ in range(n_steps):
        layers.step(torch.as_tensor(rng.random(network.input_shape) < 0.3).double())
        for name in totals:
            n_neurons = network.layer(name).n_neurons
            totals[name] += layers.spikes[name].sum().item() / n_neurons / n_steps
    assert all(0.05 < rate < 0.6 for rate in totals.values()), totals


def test_batch_norm_is_folded():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8)
    norm.train()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
        norm(conv(torch.randn(16, 3, 8, 8)))
    norm.eval()
    x = torch.randn(2, 3, 8, 8)
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weights, bias = fold_batch_norm(*(part.detach().numpy() for part in (conv.weight, conv.bias, *parts)))
    folded = torch.nn.functional.conv2d(x, torch.as_tensor(weights), torch.as_tensor(bias))
    torch.testing.assert_close(folded, norm(conv(x)), rtol=1e-4, atol=1e-5)
    assert weights.dtype == bias.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "n_timesteps"), [("vgg9-cifar10", 5), ("vgg16-cifar10", 4), ("resnet19-cifar10", 4), ("vgg16-imagenet", 4)]
)
def test_shipped_shapes_call_their_activity_an_assumption(name, n_timesteps):
    workload = load_workload(name)
    assert (workload.name, workload.network.name, workload.n_timesteps) == (name, name, n_timesteps)
    assert workload.rates_of("conv1") == (0.1,) * n_timesteps

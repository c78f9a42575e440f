"""From a trained ReLU network to a spiking one: batch norm folded into weights, thresholds balanced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archsim.errors import WorkloadError
from archsim.training.net import Net, Trace, Weighted
from archsim.training.neurons import Neuron
from archsim.workload.builders import fold_batch_norm

QUANTILE_SAMPLES = 1 << 20
"""Activations that a quantile is taken of, at most."""


def folded(net: Net) -> Net:
    """The network with its batch norm in weights and digital biases.

    Raises:
        WorkloadError: Every timestep has a batch norm of its own, which one set of weights cannot hold.
    """
    if net.norm == "none":
        return net
    if net.norm == "per_timestep":
        raise WorkloadError(
            f"the network has a batch norm for each of its {net.n_timesteps} timesteps; one set of weights holds one: "
            "train with norm 'batch' or 'none'"
        )
    layers = []
    *hidden, readout = net.weighted_layers()
    layers = [_folded_layer(layer, net.norms_of(index)[0]) for index, layer in enumerate(hidden)]
    layers.append(_copied(readout))
    return Net(layers, net.neuron, net.n_timesteps, net.coding)


def convert(net: Net, inputs: Tensor, n_timesteps: int, quantile: float = 0.995) -> Net:
    """Make a ReLU network spike: IF neurons with reset by subtraction fire at a rate proportional to its activations.

    Each hidden layer's threshold is the `quantile` of its activations, so that rates stay below one spike
    per timestep; it is folded into the weights, `w_l = w_l q_(l-1) / q_l` and `b_l = b_l / q_l`, and all
    thresholds are 1. Sum pooling is linear, so it changes nothing.

    Args:
        net: Continuous neurons of kind `relu`; its batch norm is folded first.
        inputs: Images that activations are collected from, shape (sample, ...).
        n_timesteps: Timesteps of the spiking network.
        quantile: Share of activations below the threshold, above 0 and up to 1.

    Returns:
        A new network with coding `direct`.

    Raises:
        WorkloadError: The network has other neurons, or a layer is never active.

    Source: data-based normalisation, Diehl et al., IJCNN 2015, with the percentile of Rueckauer et al.,
    Frontiers in Neuroscience 11:682, 2017.
    """
    if net.neuron.kind != "relu" or not 0 < quantile <= 1:
        raise WorkloadError(
            f"a network of '{net.neuron.kind}' neurons at quantile {quantile!r} cannot be converted; "
            "neurons must be 'relu' and the quantile above 0 and at most 1"
        )
    exact = folded(net).eval()
    trace: Trace = []
    with torch.no_grad():
        exact(inputs, trace=trace)
    layers, before = [], 1.0
    for number, layer in enumerate(exact.weighted_layers()):
        is_hidden = number < len(exact.layers) - 1
        threshold = _quantile(trace[0][number].emitted, quantile) if is_hidden else 1.0
        if threshold <= 0:
            raise WorkloadError(f"hidden layer {number} is never active on the {len(inputs)} inputs; train it first")
        scaled = _copied(layer)
        with torch.no_grad():
            scaled.weight.mul_(before / threshold)
            if scaled.bias is not None:
                scaled.bias.div_(threshold)
        layers.append(scaled)
        before = threshold
    return Net(layers, Neuron("spiking"), n_timesteps).eval()


def _quantile(values: Tensor, share: float) -> float:
    """Quantile of a large tensor, from evenly spaced elements if there are too many."""
    flat = values.flatten()
    return float(torch.quantile(flat[:: -(-len(flat) // QUANTILE_SAMPLES)], share))


def _folded_layer(layer: Weighted, norm: nn.Module) -> Weighted:
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)), "made by Net"
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None, "batch norms keep statistics"
    assert var is not None, "batch norms keep statistics"
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    gamma, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    old = layer.weight.detach().numpy()
    weight, shift = fold_batch_norm(old, bias, gamma, beta, mean.numpy(), var.numpy(), norm.eps)
    made = Weighted(torch.as_tensor(weight), True, layer.padding, layer.stride, layer.pool)
    assert made.bias is not None, "asked for"
    with torch.no_grad():
        made.bias.copy_(torch.as_tensor(shift))
    return made


def _copied(layer: Weighted) -> Weighted:
    made = Weighted(layer.weight.detach().clone(), layer.bias is not None, layer.padding, layer.stride, layer.pool)
    if made.bias is not None and layer.bias is not None:
        with torch.no_grad():
            made.bias.copy_(layer.bias)
    return made

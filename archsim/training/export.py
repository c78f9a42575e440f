"""Writes a trained network as NIR, the format that `archsim run` reads."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from archsim.errors import WorkloadError
from archsim.training.conversion import folded
from archsim.training.net import Net, Neuron
from archsim.workload.network import Shape

if TYPE_CHECKING:
    import nir


def export_nir(net: Net, input_shape: tuple[int, ...], timestep_s: float = 1e-3) -> nir.NIRGraph:
    """The network as a NIR graph; `nir.write(path, graph)` writes it.

    Batch norm is folded into weights and biases. NIR states no timestep, no kind of reset and no sharing: run with
    `--set workload.timestep_s=...`, `workload.reset=subtract` where the neurons have it, and
    `chip.neuron.shared_channels=...` where channels share them.

    Args:
        net: A spiking network.
        input_shape: What enters at a timestep: (feature,) or (channel, height, width).
        timestep_s: Timestep that time constants are stated for, in seconds.

    Raises:
        WorkloadError: Neurons do not spike, or every timestep has a batch norm of its own.
    """
    import nir  # the only use of this optional package

    if net.neuron.kind != "spiking":
        raise WorkloadError(f"NIR has no '{net.neuron.kind}' neurons; make the network spike with convert() first")
    exact = folded(net)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array(input_shape))}
    shape = tuple(input_shape)
    layers = exact.weighted_layers()
    for number, layer in enumerate(layers, start=1):
        weight = layer.weight.detach().numpy().astype(np.float32)
        bias = np.zeros(len(weight), np.float32)
        if layer.bias is not None:
            bias = layer.bias.detach().numpy().astype(np.float32)
        if layer.is_conv:
            _check_map(shape, number)
            nodes[f"conv{number}"] = nir.Conv2d(shape[1:], weight, layer.stride, layer.padding, 1, 1, bias)
            size = ((edge + 2 * layer.padding - weight.shape[-1]) // layer.stride + 1 for edge in shape[1:])
            shape = (len(weight), *size)
        else:
            if len(shape) == 3:
                nodes["flatten"] = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
            nodes[f"fc{number}"] = nir.Affine(weight, bias)
            shape = (len(weight),)
        if number == len(layers):
            break
        name, node = _neurons(net.neuron, shape, timestep_s)
        nodes[f"{name}{number}"] = node
        if layer.pool > 1:
            edge = np.array([layer.pool] * 2)
            nodes[f"pool{number}"] = nir.SumPool2d(kernel_size=edge, stride=edge, padding=np.array([0, 0]))
            shape = (shape[0], shape[1] // layer.pool, shape[2] // layer.pool)
    nodes["output"] = nir.Output(np.array([math.prod(shape)]))
    return nir.NIRGraph(nodes, list(pairwise(nodes)))


def _check_map(shape: Shape | tuple[int, ...], number: int) -> None:
    if len(shape) != 3:
        raise WorkloadError(
            f"layer {number} is a convolution but gets shape {shape}; it needs (channel, height, width)"
        )


def _neurons(neuron: Neuron, shape: tuple[int, ...], timestep_s: float) -> tuple[str, nir.NIRNode]:
    """Name and node of a layer's neurons, one set of parameters per neuron."""
    import nir

    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    if neuron.decay == 1.0:
        return "if", nir.IF(r=ones * np.float32(neuron.input_gain), v_threshold=ones, v_reset=zeros)
    tau_s = -timestep_s / math.log(neuron.decay)
    r = np.float32(neuron.input_gain / (1.0 - neuron.decay))
    return "lif", nir.LIF(ones * np.float32(tau_s), ones * r, zeros, ones, v_reset=zeros)

"""Writes a trained network as NIR, the format that `archsim run` reads.

Entry points: `export_nir` for a `Net` of one's own, `network_nir` for a network with new weights.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from archsim.errors import WorkloadError
from archsim.training.conversion import folded
from archsim.training.importing import require_chain
from archsim.training.net import Net
from archsim.training.neurons import Neuron
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import INPUT, Layer, Network, Shape

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


def network_nir(network: Network, settings: WorkloadSettings) -> nir.NIRGraph:
    """A chain of layers as a NIR graph; `nir.write(path, graph)` writes it.

    Weight nodes have the names of their layers. Read with the same settings it is the same network, whose decays may
    differ in their last bit. Factors that were folded into weights (averages, scales, batch norm) stay there.

    Args:
        network: A network that could be imported, see `import_network`.
        settings: Timestep and update of the neurons that time constants are stated for.

    Raises:
        WorkloadError: A layer is not part of a chain, or has neurons that NIR cannot be given.
    """
    import nir  # the only use of this optional package

    require_chain(network)
    is_vector = network.layers[0].kind == "linear" and network.input_shape[1:] == (1, 1)
    shape = _sizes(network.input_shape, is_vector)
    nodes: dict[str, nir.NIRNode] = {INPUT: nir.Input(np.array(shape))}
    taken = {layer.name for layer in network.layers}

    def add(name: str, node: nir.NIRNode) -> None:
        while name in taken:
            name += "_"
        nodes[name] = node

    for layer in network.layers:
        if layer.kind == "linear" and len(shape) == 3:
            add(f"{layer.name}_flatten", nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1))
        shape = _sizes(layer.conv_shape, layer.kind == "linear")
        nodes[layer.name] = _weights(layer)
        node = _neuron_node(layer, shape, settings)
        if node is not None:
            add(f"{layer.name}_neuron", node)
        if layer.pool is not None:
            kernel, stride = (np.array(size) for size in (layer.pool.kernel, layer.pool.stride))
            add(f"{layer.name}_pool", nir.SumPool2d(kernel_size=kernel, stride=stride, padding=np.array([0, 0])))
            shape = layer.out_shape
    add("output", nir.Output(np.array(shape)))
    # nir's own check of shapes does not know channel groups
    return nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)


def _sizes(shape: Shape, is_vector: bool) -> tuple[int, ...]:
    """A shape as NIR has it: vectors have one axis."""
    return shape[:1] if is_vector else shape


def _weights(layer: Layer) -> nir.NIRNode:
    import nir

    assert layer.weights is not None, "checked by require_chain"
    bias = np.zeros(layer.out_channels, layer.weights.dtype) if layer.bias is None else layer.bias
    if layer.kind == "linear":
        return nir.Affine(layer.weights[:, :, 0, 0], bias)
    return nir.Conv2d(layer.in_shape[1:], layer.weights, layer.stride, layer.padding, 1, layer.groups, bias)


def _neuron_node(layer: Layer, shape: tuple[int, ...], settings: WorkloadSettings) -> nir.NIRNode | None:
    """What stands behind a layer's weights, one set of parameters per neuron; None for a readout that only sums."""
    import nir

    neuron = layer.neuron

    def each(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, np.float64), layer.conv_shape).reshape(shape).copy()

    def time_constant(decay: np.ndarray) -> np.ndarray:
        """In seconds; see `workload.nir_neurons`."""
        if not np.all((decay > 0.0) & (decay < 1.0)):
            raise WorkloadError(
                f"layer '{layer.name}' has neurons with decays from {decay.min():g} to {decay.max():g}; as NIR states "
                "time constants, leaky neurons need a decay above 0 and below 1"
            )
        n_steps = -1.0 / np.log(decay) if settings.lif_update == "exponential" else 1.0 / (1.0 - decay)
        return settings.timestep_s * n_steps

    decay, gain = each(neuron.decay), each(neuron.input_gain)
    firing = {"v_threshold": each(neuron.v_threshold), "v_reset": each(neuron.v_reset)}
    if neuron.kind == "threshold":
        return nir.Threshold(firing["v_threshold"])
    if neuron.kind == "if":
        return nir.IF(r=gain, **firing)
    if neuron.kind == "accumulate" and neuron.synapse_decay is None and np.all(decay == 1.0):
        return None if np.all(gain == 1.0) else nir.I(r=gain)
    tau = time_constant(decay)
    membrane = {"r": gain / (1.0 - decay), "v_leak": each(neuron.v_leak)}
    if neuron.synapse_decay is None or neuron.synapse_gain is None:
        return nir.LI(tau=tau, **membrane) if neuron.kind == "accumulate" else nir.LIF(tau=tau, **membrane, **firing)
    kept = each(neuron.synapse_decay)
    synapse = {"tau_syn": time_constant(kept), "tau_mem": tau, "w_in": each(neuron.synapse_gain) / (1.0 - kept)}
    if neuron.kind == "accumulate":
        return nir.CubaLI(**synapse, **membrane)
    return nir.CubaLIF(**synapse, **membrane, **firing)

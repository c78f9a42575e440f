"""A user's network as one that can be trained, and its new weights back in that network.

Entry points: `import_network`, `export_network`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.neurons import filter_current, load_neuron
from archsim.errors import WorkloadError
from archsim.training.net import Net, Weighted
from archsim.training.surrogate import Spike
from archsim.workload.network import INPUT, Layer, Network, NeuronModel

_KNOWN = (
    "training knows chains of convolutions and fully connected layers, each with neurons that fire at most once per "
    "timestep, the last perhaps with a readout"
)


class NetworkLayer(Weighted):
    """Weights of a layer of a network, used as there: in channel groups, with its padding, strides and pooling."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(_tensor(layer.weights), bias=layer.bias is not None)
        if self.bias is not None:
            self.bias = torch.nn.Parameter(_tensor(layer.bias))
        self.layer, self.groups = layer, layer.groups

    def product(self, values: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums of the inputs, shape (sample, channel, height, width)."""
        layer, frames = self.layer, values.reshape(-1, *self.layer.in_shape)
        return functional.conv2d(frames, weight, None, layer.stride, layer.padding, groups=layer.groups)

    def emitted(self, values: Tensor) -> Tensor:
        """What leaves the layer where its neurons emit `values`."""
        pool = self.layer.pool
        return values if pool is None else functional.avg_pool2d(values, pool.kernel, pool.stride, divisor_override=1)


class NetworkNeurons:
    """Neurons as a network describes them, see `NeuronModel`; spikes have the gradient of `Spike`.

    The distance that the gradient depends on is relative to the threshold; the reset passes no gradient.
    """

    def __init__(self, model: NeuronModel) -> None:
        self.fires = model.fires
        self._tensors = load_neuron(model)

    def step(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials after one timestep, and what the neurons emit: spikes, or as a readout the potentials.

        Equal to `archsim.analog.neurons.filter_current` and `step`, with a gradient.
        """
        neuron = self._tensors
        if neuron.synapse_decay is None:
            return self._fire(potential, current)
        before = potential if isinstance(potential, Tensor) else torch.zeros(2, dtype=current.dtype)
        filtered = filter_current(before[1], current, neuron)
        left, emitted = self._fire(before[0], filtered)
        return torch.stack([left, filtered]), emitted

    def _fire(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        neuron = self._tensors
        v = neuron.v_leak + neuron.decay * (potential - neuron.v_leak) + neuron.input_gain * current
        if not self.fires:
            return v, v
        spikes = Spike.apply((v - neuron.v_threshold) / neuron.v_threshold)
        if neuron.subtracts:
            return v - spikes.detach() * neuron.v_threshold, spikes
        return torch.where(spikes > 0, neuron.v_reset, v), spikes


def import_network(network: Network, n_timesteps: int, coding: Literal["direct", "spikes"] = "direct") -> Net:
    """Make a network trainable: a chain of layers whose outputs are those of `archsim.inference.run_ideal`.

    Values are float64, as in the simulator. Weights that are 0 are trained like all others; `retrain` keeps them 0.

    Args:
        network: From a NIR file, a shipped workload, or made.
        n_timesteps: Timesteps of a run.
        coding: `direct`: inputs of shape (sample, channel, height, width) enter at every timestep; `spikes`: inputs
            have a step axis, (sample, step, channel, height, width). Both are real values, input integers times scale.

    Returns:
        A network of double precision; see `export_network` for the way back.

    Raises:
        WorkloadError: A layer is nothing that can be trained.
    """
    require_chain(network)
    neurons = [NetworkNeurons(layer.neuron) for layer in network.layers]
    return Net([NetworkLayer(layer) for layer in network.layers], neurons, n_timesteps, coding)


def export_network(net: Net, network: Network) -> Network:
    """The network with the weights and biases of its trained copy, in its own number types; all else is as it was.

    Args:
        net: What `import_network` made of the network.
        network: The network.
    """
    layers = []
    for layer, trained in zip(network.layers, net.weighted_layers(), strict=True):
        assert layer.weights is not None, "checked by import_network"
        weights = trained.weight.detach().numpy().astype(layer.weights.dtype)
        bias = layer.bias
        if bias is not None and trained.bias is not None:
            bias = trained.bias.detach().numpy().astype(bias.dtype)
        layers.append(replace(layer, weights=weights, bias=bias))
    return replace(network, layers=tuple(layers))


def require_chain(network: Network) -> None:
    """Refuse what is not a chain of layers with weights and simple neurons.

    Raises:
        WorkloadError: Names the first layer that is something else.
    """
    before = INPUT
    for layer in network.layers:
        fault = _fault(layer, before, is_last=layer is network.layers[-1])
        if fault is not None:
            raise WorkloadError(f"network '{network.name}': layer '{layer.name}' {fault}; {_KNOWN}")
        before = layer.name


def _fault(layer: Layer, before: str, is_last: bool) -> str | None:
    """Why a layer cannot be part of a chain that is trained; None if it can."""
    faults = {
        "multiplies two activities (attention)": layer.kind == "product",
        "has no weights, only its shape is known": layer.weights is None,
        "reads spikes of one timestep earlier (recurrence)": layer.delayed,
        f"adds what {', '.join(layer.adds)} delivers (a join)": bool(layer.adds),
        f"reads '{layer.source}', not '{before}' before it (a branch)": layer.source != before,
        "has neurons that fire several times in a timestep": layer.neuron.spikes_per_step == "many",
        "has no neurons that fire and is not the last": not layer.neuron.fires and not is_last,
    }
    return next((text for text, is_so in faults.items() if is_so), None)


def _tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)

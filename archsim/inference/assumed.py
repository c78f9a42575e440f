"""Spikes of a network of which only the shape is known: drawn, not computed, and said to be."""

from __future__ import annotations

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.errors import WorkloadError
from archsim.hardware.policy import MappingPolicy
from archsim.inference.seen import layer_activity
from archsim.workload.attention import require_products
from archsim.workload.model import Workload
from archsim.workload.network import INPUT, Layer

_ALL_BITS = MappingPolicy()
"""Takes values of any size."""


def assumed_activity(workload: Workload, samples: int, seed: int, policy: MappingPolicy = _ALL_BITS) -> Activity:
    """Draw spikes for a network of which only the shape is known.

    Every neuron spikes in a timestep with the probability that the workload states for its layer
    and timestep (Bernoulli), as do the network's inputs. Pooled inputs are 1 where any spike of the
    window is, so every spike is one bit. Counts of product layers follow from the spikes they multiply.

    Args:
        workload: A network without weights, and its rates.
        samples: Samples to draw.
        seed: Seed of the draws.
        policy: How a chip takes values, counts for instance; by default all of their bits.

    Raises:
        WorkloadError: A rate is missing, or no probability; or a product layer does not fit what it reads.
    """
    require_products(workload.network)
    generator = np.random.default_rng(seed)
    frames = (samples, workload.n_timesteps)
    network = workload.network
    available = {INPUT: _bernoulli(generator, (*frames, *network.input_shape), _rates(workload, INPUT))}
    emitted: dict[str, np.ndarray] = {}
    for layer in network.layers:
        shape = (*frames, *layer.conv_shape)
        if layer.neuron.kind == "count":
            assert layer.operand is not None, "only product layers count"
            sums = layer.products(available[layer.source], available[layer.operand])
            emitted[layer.name] = sums.astype(np.int32)
        elif layer.neuron.fires:
            emitted[layer.name] = _bernoulli(generator, shape, _rates(workload, layer.name))
        else:
            emitted[layer.name] = np.zeros(shape, np.uint8)
        available[layer.name] = any_of_window(layer, emitted[layer.name])
    layers: dict[str, LayerActivity] = {}
    for layer in network.layers:
        inputs = available[layer.source]
        if layer.delayed:
            inputs = np.concatenate([np.zeros_like(inputs[:, :1]), inputs[:, :-1]], axis=1)
        operand = None if layer.operand is None else available[layer.operand]
        inputs = inputs.reshape(*frames, *layer.in_shape)
        layers[layer.name] = layer_activity(layer, policy, inputs, operand, emitted[layer.name])
    return Activity(layers, samples, workload.n_timesteps, "assumed", notes=_notes(workload, seed))


def any_of_window(layer: Layer, spikes: np.ndarray) -> np.ndarray:
    """What leaves a layer of assumed spikes: behind pooling whether there was any in the window."""
    return spikes if layer.pool is None else (layer.emitted(spikes) > 0).astype(np.uint8)


def _rates(workload: Workload, name: str) -> tuple[float, ...]:
    rates = workload.rates_of(name)
    if rates is None or not all(0.0 <= rate <= 1.0 for rate in rates):
        found = workload.settings.assumed_rate if rates is None or name not in workload.assumed_rates else rates
        raise WorkloadError(
            f"workload '{workload.name}' has no weights, so its activity must be assumed; "
            f"assumed_rate is {found}, allowed is 0.0 to 1.0. Set workload.assumed_rate."
        )
    return rates


def _notes(workload: Workload, seed: int) -> tuple[str, ...]:
    rate = workload.settings.assumed_rate
    rates = (
        f"the rates of {workload.source}"
        if rate is None or workload.assumed_rates
        else (f"rate {rate:g} per neuron and timestep")
    )
    note = f"spikes are an assumption: Bernoulli with {rates}, seed {seed}"
    counting = [f"'{layer.name}'" for layer in workload.network.layers if layer.neuron.kind == "count"]
    return (note, f"counts of {', '.join(counting)} are products of the assumed spikes") if counting else (note,)


def _bernoulli(generator: np.random.Generator, shape: tuple[int, ...], rates: tuple[float, ...]) -> np.ndarray:
    """Independent 0/1 draws as uint8, one rate per timestep (axis 1); a rate of 1 gives ones throughout."""
    threshold = np.asarray(rates, np.float32).reshape(1, -1, *(1 for _ in shape[2:]))
    return (generator.random(shape, dtype=np.float32) < threshold).astype(np.uint8)

"""Spikes of a network of which only the shape is known: drawn, not computed, and said to be."""

from __future__ import annotations

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.errors import WorkloadError
from archsim.workload.model import Workload
from archsim.workload.network import INPUT


def assumed_activity(workload: Workload, samples: int, seed: int) -> Activity:
    """Draw spikes for a network of which only the shape is known.

    Every neuron spikes in a timestep with the probability that the workload states for its layer
    and timestep (Bernoulli), as do the network's inputs. Pooled inputs are 1 where any spike of the
    window is, so every input is one bit.

    Args:
        workload: A network without weights, and its rates.
        samples: Samples to draw.
        seed: Seed of the draws.

    Raises:
        WorkloadError: A rate is missing, or no probability.
    """
    generator = np.random.default_rng(seed)
    frames = (samples, workload.n_timesteps)
    network = workload.network
    available = {INPUT: _bernoulli(generator, (*frames, *network.input_shape), _rates(workload, INPUT))}
    emitted: dict[str, np.ndarray] = {}
    for layer in network.layers:
        shape = (*frames, *layer.conv_shape)
        if layer.neuron.kind in ("accumulate", "none"):
            emitted[layer.name] = np.zeros(shape, np.uint8)
        else:
            emitted[layer.name] = _bernoulli(generator, shape, _rates(workload, layer.name))
        available[layer.name] = (layer.emitted(emitted[layer.name]) > 0).astype(np.uint8)
    layers: dict[str, LayerActivity] = {}
    for layer in network.layers:
        inputs = available[layer.source]
        if layer.delayed:
            inputs = np.concatenate([np.zeros_like(inputs[:, :1]), inputs[:, :-1]], axis=1)
        layers[layer.name] = LayerActivity(inputs.reshape(*frames, *layer.in_shape), emitted[layer.name])
    return Activity(layers, samples, workload.n_timesteps, "assumed", notes=(_note(workload, seed),))


def _rates(workload: Workload, name: str) -> tuple[float, ...]:
    rates = workload.rates_of(name)
    if rates is None or not all(0.0 <= rate <= 1.0 for rate in rates):
        found = workload.settings.assumed_rate if rates is None or name not in workload.assumed_rates else rates
        raise WorkloadError(
            f"workload '{workload.name}' has no weights, so its activity must be assumed; "
            f"assumed_rate is {found}, allowed is 0.0 to 1.0. Set workload.assumed_rate."
        )
    return rates


def _note(workload: Workload, seed: int) -> str:
    if workload.assumed_rates:
        return f"spikes are an assumption: Bernoulli with the rates of {workload.source}, seed {seed}"
    rate = workload.settings.assumed_rate
    return f"spikes are an assumption: Bernoulli with rate {rate:g} per neuron and timestep, seed {seed}"


def _bernoulli(generator: np.random.Generator, shape: tuple[int, ...], rates: tuple[float, ...]) -> np.ndarray:
    """Independent 0/1 draws as uint8, one rate per timestep (axis 1); a rate of 1 gives ones throughout."""
    threshold = np.asarray(rates, np.float32).reshape(1, -1, *(1 for _ in shape[2:]))
    return (generator.random(shape, dtype=np.float32) < threshold).astype(np.uint8)

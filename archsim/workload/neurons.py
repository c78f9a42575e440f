"""Neuron models that need no parameters from a file."""

from __future__ import annotations

import numpy as np

from archsim.workload.network import NeuronModel


def integrate_and_fire() -> NeuronModel:
    """IF neurons with threshold 1 and reset by subtraction: one unit of weight per spike and timestep."""
    return NeuronModel("if", _full(1.0), _full(1.0), _full(1.0), _full(0.0), _full(0.0))


def readout() -> NeuronModel:
    """The neuron of weights that lead straight to the output: it sums and never fires."""
    return NeuronModel("accumulate", _full(1.0), _full(1.0), _full(np.inf), _full(0.0), _full(0.0))


def no_neurons() -> NeuronModel:
    """What stands behind weights whose sums join those of another layer; its numbers mean nothing."""
    return NeuronModel("none", _full(0.0), _full(1.0), _full(np.inf), _full(0.0), _full(0.0))


def counts() -> NeuronModel:
    """What stands behind a product layer whose sums go on as whole numbers; its numbers mean nothing."""
    return NeuronModel("count", _full(0.0), _full(1.0), _full(np.inf), _full(0.0), _full(0.0))


def leaky_integrate_and_fire(tau: float = 2.0, v_threshold: float = 1.0, gain: float = 1.0) -> NeuronModel:
    """LIF neurons with reset to zero: `v = v + (gain * i - v) / tau`, tau in timesteps, above 1.

    Source: SpikingJelly LIFNode with decay_input, whose tau is 2 and v_threshold 1 by default.
    """
    decay, input_gain = _full(1.0 - 1.0 / tau), _full(gain / tau)
    return NeuronModel("lif", decay, input_gain, _full(v_threshold), _full(0.0), _full(0.0), reset="zero")


def _full(value: float) -> np.ndarray:
    return np.full((1, 1, 1), value)

"""Discrete neurons from the continuous ones of NIR and the settings that NIR leaves open."""

from __future__ import annotations

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import NeuronModel, Shape
from archsim.workload.nir_fields import per_neuron, positive
from archsim.workload.nir_graph import NirNode


def contradiction(spikes_per_step: str, reset: str) -> str | None:
    """What is wrong with the pair of settings, or None."""
    if spikes_per_step != "many" or reset != "zero":
        return None
    return (
        "workload.spikes_per_step is 'many' but workload.reset is 'zero'; a neuron that fires several times "
        "in a timestep subtracts its threshold each time. Set workload.reset to 'subtract'."
    )


def neuron_model(node: NirNode, shape: Shape, feeder: str, settings: WorkloadSettings) -> NeuronModel:
    """Discretise an IF or LIF node.

    IF: `v += r * i`, so that r = 1 means one weight unit per spike and timestep, whatever its length.
    LIF: `decay` is exp(-dt / tau) or, with the Euler update, 1 - dt / tau; input gain (1 - decay) * r.

    Args:
        node: The IF or LIF node.
        shape: Neurons as (channel, height, width).
        feeder: Name of the weights before it, for messages.
        settings: Time step, update, reset and spikes per step.

    Raises:
        WorkloadError: A parameter is missing, does not fit the shape or makes no sense.
    """
    v_threshold = positive(node, "v_threshold", per_neuron(node, "v_threshold", shape, feeder))
    v_reset = per_neuron(node, "v_reset", shape, feeder, default=0.0)
    r = per_neuron(node, "r", shape, feeder)
    if settings.reset == "zero" and np.any(v_reset >= v_threshold):
        raise WorkloadError(f"node '{node.name}': v_reset must be below v_threshold, or it fires at every timestep")
    is_lif = node.type == "LIF"
    decay = _decay(node, shape, feeder, settings) if is_lif else np.ones((1, 1, 1))
    return NeuronModel(
        kind="lif" if is_lif else "if",
        decay=decay,
        input_gain=(1.0 - decay) * r if is_lif else r,
        v_threshold=v_threshold,
        v_leak=per_neuron(node, "v_leak", shape, feeder, default=0.0) if is_lif else np.zeros((1, 1, 1)),
        v_reset=v_reset,
        reset=settings.reset,
        spikes_per_step=settings.spikes_per_step,
    )


def readout() -> NeuronModel:
    """The neuron of weights that lead straight to the output: it sums and never fires."""
    one, zero = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    return NeuronModel("accumulate", one, one, np.full((1, 1, 1), np.inf), zero, zero)


def _decay(node: NirNode, shape: Shape, feeder: str, settings: WorkloadSettings) -> np.ndarray:
    tau = positive(node, "tau", per_neuron(node, "tau", shape, feeder))
    if settings.lif_update == "exponential":
        return np.exp(-settings.timestep_s / tau)
    if tau.min() < settings.timestep_s:
        raise WorkloadError(
            f"node '{node.name}': tau {tau.min():g} s is below workload.timestep_s {settings.timestep_s:g}, where the "
            "Euler update overshoots; use a shorter timestep_s or workload.lif_update exponential"
        )
    return 1.0 - settings.timestep_s / tau

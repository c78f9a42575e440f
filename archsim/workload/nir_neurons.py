"""Discrete neurons from the continuous ones of NIR and the settings that NIR leaves open.

Entry point: `neuron_model`. With dt = `settings.timestep_s`, a time constant becomes a decay

    exponential: exp(-dt / tau)        euler: 1 - dt / tau

and a state of gain g grows by (1 - decay) * g * input in a timestep.
"""

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
    """Discretise a neuron node.

    - IF, I: `v += r * i`, so that r = 1 means one weight unit per spike and timestep, whatever its length.
    - LIF, LI: decay of `tau`, input gain (1 - decay) * r.
    - CubaLIF, CubaLI: the same of `tau_mem`, behind a synapse with the decay of `tau_syn` and the gain
      (1 - synapse_decay) * w_in.
    - Threshold: no memory; it fires once where the input reaches `threshold`, which must be above 0.

    I, LI and CubaLI never fire (kind `accumulate`): their potential is the network's output.

    Args:
        node: The neuron node.
        shape: Neurons as (channel, height, width).
        feeder: Name of the weights before it, for messages.
        settings: Time step, update, reset and spikes per step.

    Raises:
        WorkloadError: A parameter is missing, does not fit the shape or makes no sense.
    """
    fields = _Fields(node, shape, feeder, settings)
    if node.type == "Threshold":
        threshold = positive(node, "threshold", fields.values("threshold"))
        return NeuronModel("threshold", _ZERO, _ONE, threshold, _ZERO, _ZERO, reset="zero")
    if node.type in ("I", "LI", "CubaLI"):
        decay, gain, leak = fields.membrane()
        return NeuronModel("accumulate", decay, gain, _NEVER, leak, _ZERO, "subtract", "one", *fields.synapse())
    v_threshold = positive(node, "v_threshold", fields.values("v_threshold"))
    v_reset = fields.values("v_reset", default=0.0)
    if settings.reset == "zero" and np.any(v_reset >= v_threshold):
        raise WorkloadError(f"node '{node.name}': v_reset must be below v_threshold, or it fires at every timestep")
    decay, gain, leak = fields.membrane()
    return NeuronModel(
        "if" if node.type == "IF" else "lif", decay, gain, v_threshold, leak, v_reset,
        settings.reset, settings.spikes_per_step, *fields.synapse(),
    )  # fmt: skip


_ZERO, _ONE, _NEVER = (np.full((1, 1, 1), value) for value in (0.0, 1.0, np.inf))


class _Fields:
    """The parameters of one node, as arrays that broadcast to (channel, height, width)."""

    def __init__(self, node: NirNode, shape: Shape, feeder: str, settings: WorkloadSettings) -> None:
        self._node, self._shape, self._feeder, self._settings = node, shape, feeder, settings

    def values(self, field: str, default: float | None = None) -> np.ndarray:
        """One parameter."""
        return per_neuron(self._node, field, self._shape, self._feeder, default)

    def membrane(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decay, input gain and leak potential."""
        r = self.values("r")
        if self._node.type in ("IF", "I"):
            return _ONE, r, _ZERO
        decay = self._decay("tau_mem" if self._node.type.startswith("Cuba") else "tau")
        return decay, (1.0 - decay) * r, self.values("v_leak", default=0.0)

    def synapse(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Decay and gain of the synaptic current, where the node has one."""
        if not self._node.type.startswith("Cuba"):
            return None, None
        decay = self._decay("tau_syn")
        return decay, (1.0 - decay) * self.values("w_in", default=1.0)

    def _decay(self, field: str) -> np.ndarray:
        tau = positive(self._node, field, self.values(field))
        timestep_s = self._settings.timestep_s
        if self._settings.lif_update == "exponential":
            return np.exp(-timestep_s / tau)
        if tau.min() < timestep_s:
            raise WorkloadError(
                f"node '{self._node.name}': {field} {tau.min():g} s is below workload.timestep_s {timestep_s:g}, "
                "where the Euler update overshoots; use a shorter timestep_s or workload.lif_update exponential"
            )
        return 1.0 - timestep_s / tau

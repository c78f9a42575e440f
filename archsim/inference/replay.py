"""Turns a recording into the activity of a mapping: what the rows of this chip see, without torch."""

from __future__ import annotations

import numpy as np

from archsim.activity import Accuracy, Activity, LayerActivity
from archsim.errors import WorkloadError
from archsim.hardware.policy import MappingPolicy
from archsim.inference.assumed import any_of_window
from archsim.inference.seen import layer_activity
from archsim.workload.model import Recording, Workload
from archsim.workload.network import INPUT, Layer, Network


def replayed_activity(workload: Workload, policy: MappingPolicy, samples: int) -> Activity:
    """Activity of the first samples of a recording.

    Raises:
        WorkloadError: The recording has fewer samples.
    """
    recording = workload.recording
    assert recording is not None, "only recorded workloads are replayed"
    if samples > recording.n_samples:
        raise WorkloadError(f"trace '{workload.name}' holds {recording.n_samples} samples; {samples} were asked for")
    layers = {
        layer.name: _layer_activity(workload.network, layer, recording, policy, samples)
        for layer in workload.network.layers
    }
    accuracy = Accuracy(
        ideal=recording.accuracy.get("ideal"),
        raw=recording.accuracy.get("raw"),
        calibrated=recording.accuracy.get("calibrated"),
        n_samples=_whole(recording.accuracy.get("n_samples")),
    )
    outputs = None if recording.outputs is None else recording.outputs[:samples]
    return Activity(layers, samples, workload.n_timesteps, "recorded", accuracy, outputs, recording.notes)


def emitted(network: Network, recording: Recording, name: str) -> np.ndarray:
    """Values that leave the input or a layer, after pooling."""
    if name == INPUT:
        return recording.inputs
    layer, spikes = network.layer(name), recording.spikes[name]
    return layer.emitted(spikes) if recording.pooling == "sum" else any_of_window(layer, spikes)


def _layer_activity(
    network: Network, layer: Layer, recording: Recording, policy: MappingPolicy, samples: int
) -> LayerActivity:
    values = emitted(network, recording, layer.source)[:samples]
    values = values.reshape(*values.shape[:2], *layer.in_shape)
    if layer.delayed:
        values = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
    operand = None if layer.operand is None else emitted(network, recording, layer.operand)[:samples]
    spikes, error_rel = recording.spikes[layer.name][:samples], recording.errors_rel.get(layer.name)
    return layer_activity(layer, policy, values, operand, spikes, error_rel)


def _whole(value: float | int | None) -> int | None:
    return None if value is None else int(value)

"""Turns a recording into the activity of a mapping: what the rows of this chip see, without torch."""

from __future__ import annotations

import numpy as np

from archsim.activity import Accuracy, Activity, LayerActivity
from archsim.errors import WorkloadError
from archsim.hardware.models import MappingPolicy
from archsim.mapping.rules import is_digital
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
    counts = network.layer(name).emitted(recording.spikes[name])
    return counts if recording.pooling == "sum" else (counts > 0).astype(np.uint8)


def clipped(values: np.ndarray, policy: MappingPolicy) -> np.ndarray:
    """Values as rows carry them under a mapping policy."""
    if policy.input_coding == "binary":
        return np.clip(values, 0, 1)
    if policy.input_bits == "auto":
        return values
    half = 1 << (policy.input_bits - 1)
    limits = (-half, half - 1) if values.min(initial=0) < 0 else (0, 2 * half - 1)
    return np.clip(values, *limits)


def _layer_activity(
    network: Network, layer: Layer, recording: Recording, policy: MappingPolicy, samples: int
) -> LayerActivity:
    values = emitted(network, recording, layer.source)[:samples]
    values = values.reshape(*values.shape[:2], *layer.in_shape)
    if layer.delayed:
        values = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
    inputs = values if is_digital(policy, layer) else clipped(values, policy)
    return LayerActivity(
        inputs=inputs,
        spikes=recording.spikes[layer.name][:samples],
        clipped_inputs=int(np.count_nonzero(inputs != values)),
        error_rel=recording.errors_rel.get(layer.name),
    )


def _whole(value: float | int | None) -> int | None:
    return None if value is None else int(value)

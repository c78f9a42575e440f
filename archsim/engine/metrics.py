"""Counts of synaptic operations and sparsities, by the conventions of NeuroBench.

Source: Yik et al., NeuroBench (Nature Communications 2025): dense operations count every synapse,
at borders only those inside the map; effective ones need a non-zero weight and a non-zero input,
and are accumulates for inputs in {-1, 1}, multiply-accumulates otherwise. Biases do not count.
In products of two activities the operand stands for the weights.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from archsim.activity import Accuracy, Activity, LayerActivity
from archsim.workload.network import Layer, Network


@dataclass(frozen=True)
class SynapticOps:
    """Operations: dense, effective accumulates, effective multiply-accumulates."""

    dense: float
    effective_acs: float
    effective_macs: float


def synaptic_ops(network: Network, activity: Activity) -> dict[str, SynapticOps]:
    """Operations of every layer, over all recorded samples."""
    ops = {layer.name: _layer_ops(layer, activity.layers[layer.name]) for layer in network.layers}
    return {name: SynapticOps(*(float(value) for value in each)) for name, each in ops.items()}


def ops_per_sample(of_layers: dict[str, SynapticOps], n_samples: int) -> SynapticOps:
    """Operations of a network, mean over samples."""
    sums = np.sum([astuple(ops) for ops in of_layers.values()], axis=0)
    return SynapticOps(*(float(value) for value in sums / n_samples))


def activation_sparsity(activity: LayerActivity) -> float:
    """Fraction of (neuron, timestep, sample) without a spike, exact."""
    return 1.0 - np.count_nonzero(activity.spikes) / activity.spikes.size


def timestep_statistics(activity: Activity) -> dict[str, float]:
    """Timesteps of the simulated samples: after which they are decided, and those that they begin; means."""
    every = float(activity.n_timesteps)
    return {
        "mean_timesteps": every if activity.exits is None else float(activity.exits.mean()),
        "mean_timesteps_begun": every if activity.begun is None else float(activity.begun.mean()),
    }


def connection_sparsity(network: Network) -> float | None:
    """Zero weights over all weights; None where weights are unknown."""
    weighted = [layer for layer in network.layers if layer.kind != "product"]
    if any(layer.weights is None and layer.fan_out is None for layer in weighted):
        return None
    nonzero = sum(int(_fan_out(layer).sum()) for layer in weighted)
    return 1.0 - nonzero / sum(layer.n_weights for layer in network.layers)


def footprint_bytes(network: Network) -> int:
    """Bytes of all weights and biases as float32, as a software framework holds them."""
    biases = sum(layer.out_channels for layer in network.layers if layer.bias is not None)
    return 4 * (sum(layer.n_weights for layer in network.layers) + biases)


def _layer_ops(layer: Layer, activity: LayerActivity) -> np.ndarray:
    inputs = activity.inputs
    if activity.operand is not None:
        dense = layer.n_synapses * inputs[:, :, 0].size
        nonzero = activity.operand != 0
        return np.array([dense, *(layer.products(part, nonzero).sum() for part in (inputs == 1, inputs > 1))])
    n_frames = inputs.shape[0] * inputs.shape[1]
    pad = ((0, 0), (layer.padding[0],) * 2, (layer.padding[1],) * 2)
    values = inputs.reshape(n_frames, *inputs.shape[2:])
    kinds = ((values == 1) | (values == -1), (values > 1) | (values < -1))
    ones, several = (np.pad(np.count_nonzero(kind, axis=0), pad) for kind in kinds)
    inside = np.pad(np.ones(inputs.shape[3:], np.int64), pad[1:])
    fan_out = _fan_out(layer)
    _, out_h, out_w = layer.conv_shape
    totals = np.zeros(3)
    for kernel_y in range(layer.kernel[0]):
        for kernel_x in range(layer.kernel[1]):
            rows = slice(kernel_y, kernel_y + layer.stride[0] * (out_h - 1) + 1, layer.stride[0])
            cols = slice(kernel_x, kernel_x + layer.stride[1] * (out_w - 1) + 1, layer.stride[1])
            weights = fan_out[:, kernel_y, kernel_x]
            totals[0] += (
                int(inside[rows, cols].sum()) * layer.n_weights // (layer.kernel[0] * layer.kernel[1]) * n_frames
            )
            totals[1] += weights @ ones[:, rows, cols].sum(axis=(1, 2))
            totals[2] += weights @ several[:, rows, cols].sum(axis=(1, 2))
    return totals


def _fan_out(layer: Layer) -> np.ndarray:
    """Non-zero weights per (input channel, kernel_y, kernel_x); all of them where weights are unknown."""
    if layer.fan_out is not None:
        return layer.fan_out
    weights = layer.full_weights
    if weights is None:
        return np.full((layer.in_shape[0], *layer.kernel), layer.out_channels // layer.groups)
    return np.count_nonzero(weights, axis=0)


def chip_statistics(accuracy: Accuracy) -> dict[str, float | int | None]:
    """Spread of accuracy over chips: number, sample standard deviation, 5th, 50th and 95th percentile."""
    found: dict[str, float | int | None] = {"n_chips": max(1, len(accuracy.chips))}
    for kind in ("raw", "calibrated"):
        each = [value for chip in accuracy.chips if (value := getattr(chip, kind)) is not None]
        several = len(each) > 1
        found[f"accuracy_{kind}_std"] = float(np.std(each, ddof=1)) if several else None
        for percent in (5, 50, 95):
            found[f"accuracy_{kind}_p{percent:02d}"] = float(np.percentile(each, percent)) if several else None
    return found

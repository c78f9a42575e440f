"""Membrane potentials: one discrete update, and the fixed-point memory that keeps them.

Pure functions: state in, state out. Entry points: `load_neuron`, `step`, `step_shared`,
`quantize_potential`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

HEADROOM = 2.0
"""Full scale of the V_mem store over the largest potential of the calibration batch. Source: assumption."""


class NeuronDescription(Protocol):
    """Numpy description of a layer's neurons; every array broadcasts to (channel, height, width)."""

    @property
    def kind(self) -> str:
        """`if`, `lif` or `accumulate`."""

    @property
    def decay(self) -> np.ndarray:
        """Factor of the potential from one timestep to the next."""

    @property
    def input_gain(self) -> np.ndarray:
        """Factor of the weighted input."""

    @property
    def v_threshold(self) -> np.ndarray:
        """Potential from which a neuron fires."""

    @property
    def v_leak(self) -> np.ndarray:
        """Potential that the leak pulls to."""

    @property
    def v_reset(self) -> np.ndarray:
        """Potential after a spike, with reset to zero."""

    @property
    def synapse_decay(self) -> np.ndarray | None:
        """Factor of the synaptic current from one timestep to the next; None without such a state."""

    @property
    def synapse_gain(self) -> np.ndarray | None:
        """Factor of the weighted input in the synaptic current; None without such a state."""

    @property
    def reset(self) -> str:
        """`subtract` or `zero`."""

    @property
    def spikes_per_step(self) -> str:
        """`one` or `many`."""


@dataclass(frozen=True)
class NeuronTensors:
    """Neuron parameters as tensors of one dtype, broadcastable to (channel, height, width)."""

    decay: Tensor
    input_gain: Tensor
    v_threshold: Tensor
    v_leak: Tensor
    v_reset: Tensor
    synapse_decay: Tensor | None
    """None where the weighted input is the current."""
    synapse_gain: Tensor | None
    fires: bool
    subtracts: bool
    many: bool


def load_neuron(neuron: NeuronDescription, dtype: torch.dtype = torch.float64) -> NeuronTensors:
    """Tensors of a neuron description, ready for `step`."""

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(values, dtype=np.float64)).to(dtype)

    return NeuronTensors(
        decay=tensor(neuron.decay),
        input_gain=tensor(neuron.input_gain),
        v_threshold=tensor(neuron.v_threshold),
        v_leak=tensor(neuron.v_leak),
        v_reset=tensor(neuron.v_reset),
        synapse_decay=None if neuron.synapse_decay is None else tensor(neuron.synapse_decay),
        synapse_gain=None if neuron.synapse_gain is None else tensor(neuron.synapse_gain),
        fires=neuron.kind != "accumulate",
        subtracts=neuron.reset == "subtract",
        many=neuron.spikes_per_step == "many",
    )


def filter_current(current: Tensor, weighted_input: Tensor, neuron: NeuronTensors) -> Tensor:
    """Advance the synaptic current: `current = synapse_decay * current + synapse_gain * i`, or i without a state.

    Source: NIR primitive CubaLIF (Pedersen et al., Nature Communications 2024), discretised.
    """
    if neuron.synapse_decay is None or neuron.synapse_gain is None:
        return weighted_input
    return neuron.synapse_decay * current + neuron.synapse_gain * weighted_input


def step(v: Tensor, weighted_input: Tensor, neuron: NeuronTensors) -> tuple[Tensor, Tensor]:
    """Advance neurons by one timestep.

    `v = v_leak + decay * (v - v_leak) + input_gain * i`; where v >= v_threshold the neuron emits one
    spike, or floor(v / v_threshold) when it may emit many; then v loses spikes * v_threshold (reset
    subtract) or becomes v_reset (reset zero). An accumulating readout never fires.

    Args:
        v: Potentials, shape (sample, channel, height, width).
        weighted_input: Weighted sums plus bias, filtered by the synapse if it has a state; same shape and dtype.
        neuron: Parameters.

    Returns:
        New potentials and spike counts, both of the shape and dtype of `v`.

    Source: NIR primitives IF and LIF (Pedersen et al., Nature Communications 2024), discretised.
    """
    return _fire(neuron.v_leak + neuron.decay * (v - neuron.v_leak) + neuron.input_gain * weighted_input, neuron)


def _fire(v: Tensor, neuron: NeuronTensors) -> tuple[Tensor, Tensor]:
    """Potentials after firing and reset, and the spikes."""
    if not neuron.fires:
        return v, torch.zeros_like(v)
    fired = v >= neuron.v_threshold
    spikes = torch.floor(v / neuron.v_threshold) * fired if neuron.many else fired.to(v.dtype)
    if neuron.subtracts:
        return v - spikes * neuron.v_threshold, spikes
    return torch.where(fired, neuron.v_reset, v), spikes


def step_shared(v: Tensor, weighted_input: Tensor, neuron: NeuronTensors, n_shared: int) -> tuple[Tensor, Tensor]:
    """Advance units that `n_shared` neighbouring channels share by one timestep; the last unit may have fewer.

    The unit leaks once, `v = v_leak + decay * (v - v_leak)`; then each channel in turn does
    `v = v + input_gain * i`, fires and resets as in `step`, and leaves v to the next one.

    Args:
        v: Potentials, shape (sample, unit, height, width).
        weighted_input: Weighted sums plus bias, shape (sample, channel, height, width).
        neuron: Parameters; decay and v_leak must be the same for the channels of a unit, without a synaptic current.
        n_shared: Channels of a unit.

    Returns:
        New potentials of the units, and spike counts of the channels.

    Source: LIF sharing across channels, EfficientLIF-Net (Kim et al., arXiv 2305.18360), from its abstract: which
    channels share and in which order is an assumption.
    """
    lead = _of_channels(neuron, slice(0, None, n_shared))
    v = lead.v_leak + lead.decay * (v - lead.v_leak)
    spikes = torch.zeros_like(weighted_input)
    for turn in range(min(n_shared, weighted_input.shape[1])):
        channels = slice(turn, None, n_shared)
        mine = _of_channels(neuron, channels)
        inputs = weighted_input[:, channels]
        left, fired = _fire(v[:, : inputs.shape[1]] + mine.input_gain * inputs, mine)
        v, spikes[:, channels] = torch.cat([left, v[:, inputs.shape[1] :]], dim=1), fired
    return v, spikes


def _of_channels(neuron: NeuronTensors, channels: slice) -> NeuronTensors:
    """Parameters of some channels; what all channels have in common stays as it is."""

    def of(values: Tensor) -> Tensor:
        return values if values.dim() < 3 or values.shape[-3] == 1 else values[..., channels, :, :]

    return replace(
        neuron,
        decay=of(neuron.decay),
        input_gain=of(neuron.input_gain),
        v_threshold=of(neuron.v_threshold),
        v_leak=of(neuron.v_leak),
        v_reset=of(neuron.v_reset),
    )


def potential_full_scale(largest: float) -> float:
    """Full scale of the V_mem store: the power of two at or above `HEADROOM * largest` (1 for no activity).

    Powers of two make the step of the store a binary point, so no multiplier is needed.
    """
    return 2.0 ** float(np.ceil(np.log2(HEADROOM * largest))) if largest > 0 else 1.0


def quantize_potential(v: Tensor, full_scale: float, bits: int) -> tuple[Tensor, Tensor]:
    """Round potentials to the signed fixed-point numbers that a V_mem word can hold.

    Codes are -2**(bits-1) .. 2**(bits-1) - 1 in steps of full_scale / 2**(bits-1), nearest, ties to
    even; what lies outside saturates.

    Args:
        v: Potentials, any shape.
        full_scale: Largest magnitude that the store can hold.
        bits: Bits of a word, sign included.

    Returns:
        Stored potentials, and a mask of the ones that saturated.
    """
    half = 2.0 ** (bits - 1)
    codes = (v * (half / full_scale)).round()
    return codes.clamp(-half, half - 1) * (full_scale / half), (codes < -half) | (codes > half - 1)

"""What runs: the layer graph of a spiking network, as plain frozen data.

A layer is what a chip computes as one unit: weights on crossbars, the neurons behind them, and
the pooling of their spikes. A product layer has no weights: what another layer emits takes their
place, timestep by timestep (attention; see `attention`). Readers and builders produce a `Network`;
nothing here touches files.
Axes are always (channel, height, width); a fully connected layer is a 1x1 convolution on a 1x1 map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Shape = tuple[int, int, int]
INPUT = "input"


@dataclass(frozen=True)
class Pool:
    """Sum pooling of spike counts, non-overlapping or strided, no padding.

    Average pooling is sum pooling whose factor 1 / (kernel^2) is folded into the next weights,
    because hardware counts spikes and has no fractions of them.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]

    def output_hw(self, height: int, width: int) -> tuple[int, int]:
        """Size of the pooled map; positions of an incomplete window are dropped."""
        return (height - self.kernel[0]) // self.stride[0] + 1, (width - self.kernel[1]) // self.stride[1] + 1

    def sums(self, spikes: np.ndarray) -> np.ndarray:
        """Spike counts summed over every window of the last two axes, int32."""
        height, width = self.output_hw(spikes.shape[-2], spikes.shape[-1])
        sums = np.zeros((*spikes.shape[:-2], height, width), np.int32)
        for y in range(self.kernel[0]):
            for x in range(self.kernel[1]):
                rows = slice(y, y + self.stride[0] * (height - 1) + 1, self.stride[0])
                cols = slice(x, x + self.stride[1] * (width - 1) + 1, self.stride[1])
                sums += spikes[..., rows, cols]
        return sums


@dataclass(frozen=True)
class NeuronModel:
    """Discrete neuron of a layer; every parameter is per neuron, broadcastable to (channel, height, width).

    Update at each timestep, i being the weighted input plus bias:

        v = v_leak + decay * (v - v_leak) + input_gain * i
        spikes = floor(v / v_threshold) if many else 1, where v >= v_threshold, else 0
        v = v - spikes * v_threshold  (reset subtract)   or   v_reset where spikes (reset zero)

    `if`: decay 1, input_gain r. `lif` with the exponential update: decay exp(-dt / tau),
    input_gain (1 - decay) * r; with the Euler update: decay 1 - dt / tau, input_gain dt / tau * r.
    Where the synapse has a state of its own (CubaLIF, CubaLI), i passes it first:

        current = synapse_decay * current + synapse_gain * i,   and current takes the place of i above

    `threshold` has no memory (decay 0): it fires where i >= v_threshold. `accumulate` is a readout: it
    integrates (and leaks, as LI does) and never fires; its potential is the network's output.
    `none` has no neurons at all: the layer's weighted sums join those of the layers that list it in `adds`.
    `count` has none either: the sums of a product layer, whole numbers, go on to its readers as they are.
    Source: NIR primitives (Pedersen et al., Nature Communications 2024), discretised.
    """

    kind: Literal["if", "lif", "threshold", "accumulate", "none", "count"]
    decay: np.ndarray
    input_gain: np.ndarray
    v_threshold: np.ndarray
    v_leak: np.ndarray
    v_reset: np.ndarray
    reset: Literal["subtract", "zero"] = "subtract"
    spikes_per_step: Literal["one", "many"] = "one"
    synapse_decay: np.ndarray | None = None
    synapse_gain: np.ndarray | None = None

    @property
    def fires(self) -> bool:
        """Whether there are neurons that spike."""
        return self.kind in ("if", "lif", "threshold")

    @property
    def has_state(self) -> bool:
        """Whether there are neurons, which keep a potential; `none` and `count` only pass sums on."""
        return self.kind not in ("none", "count")

    @property
    def state_words(self) -> int:
        """Values that a neuron keeps between timesteps: its potential, and its current where the synapse has one."""
        return 1 if self.synapse_decay is None else 2


@dataclass(frozen=True)
class Layer:
    """Weights, neurons and pooling that belong together.

    `conv2d` and `linear` layers have weights, of shape (out_channel, in_channel, kernel_h, kernel_w); None
    for a network of which only the shape is known. Pooling factors of the layers before are already
    folded in; the neuron's `input_gain` is not.

    `product` layers have none: in each timestep the whole frame that `operand` emits is the matrix that
    every position of `source` is multiplied with, as a 1x1 convolution in `groups` (the heads of an attention)
    would; see `operand_matrix`.
    """

    name: str
    kind: Literal["conv2d", "linear", "product"]
    source: str
    """Name of the layer that feeds this one, or `input`."""
    in_shape: Shape
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    weights: np.ndarray | None
    bias: np.ndarray | None
    neuron: NeuronModel
    pool: Pool | None = None
    fan_out: np.ndarray | None = None
    """Non-zero weights per (in_channel, kernel_h, kernel_w), where only that is known of the weights."""
    groups: int = 1
    """Channel groups of a convolution; weights then have in_channel / groups in their second axis."""
    delayed: bool = False
    """Reads what its source emitted one timestep earlier: the weights of a recurrent connection."""
    adds: tuple[str, ...] = ()
    """What joins the weighted sums before the neurons: layers without neurons (a shortcut's or recurrent
    weights), or layers whose spikes add as they are (an identity shortcut, one unit of input per spike, after
    their pooling). All have the shape of this layer's neurons. Readers give no bias to layers without neurons."""
    operand: str | None = None
    """Product layers: name of the layer whose frame of the same timestep takes the place of weights."""
    transpose: bool = False
    """Product layers: the operand's positions are outputs (queries times keys), instead of inputs (scores times
    values)."""

    @property
    def conv_shape(self) -> Shape:
        """Shape of the neurons, before pooling."""
        _, height, width = self.in_shape
        return (
            self.out_channels,
            (height + 2 * self.padding[0] - self.kernel[0]) // self.stride[0] + 1,
            (width + 2 * self.padding[1] - self.kernel[1]) // self.stride[1] + 1,
        )

    @property
    def out_shape(self) -> Shape:
        """Shape of what leaves the layer, after pooling."""
        channels, height, width = self.conv_shape
        return (channels, *self.pool.output_hw(height, width)) if self.pool else (channels, height, width)

    def emitted(self, spikes: np.ndarray) -> np.ndarray:
        """What leaves the layer where its neurons fired `spikes`: the counts behind pooling."""
        return self.pool.sums(spikes) if self.pool else spikes

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what the layer multiplies: its source, and the operand of a product layer."""
        return (self.source,) if self.operand is None else (self.source, self.operand)

    @property
    def n_neurons(self) -> int:
        """Neurons of the layer; a layer that only passes sums on has none."""
        return int(np.prod(self.conv_shape)) if self.neuron.has_state else 0

    @property
    def full_weights(self) -> np.ndarray | None:
        """Weights of shape (out_channel, in_channel, kernel_h, kernel_w); zero between channel groups."""
        if self.weights is None or self.groups == 1:
            return self.weights
        full = np.zeros((self.out_channels, self.in_shape[0], *self.kernel), self.weights.dtype)
        outputs, inputs = self.out_channels // self.groups, self.in_shape[0] // self.groups
        for group in range(self.groups):
            cols = slice(group * outputs, (group + 1) * outputs)
            full[cols, group * inputs : (group + 1) * inputs] = self.weights[cols]
        return full

    def connects(self, inputs: tuple[int, int], outputs: tuple[int, int]) -> bool:
        """Whether a range of input channels (first, last + 1) feeds any of a range of output channels."""
        per_input, per_output = self.in_shape[0] // self.groups, self.out_channels // self.groups
        first, last = inputs[0] // per_input, (inputs[1] - 1) // per_input
        return first <= (outputs[1] - 1) // per_output and outputs[0] // per_output <= last

    def n_inputs_of(self, outputs: tuple[int, int]) -> int:
        """Input values in the window of a range of output channels (first, last + 1)."""
        n_groups = sum(
            self.connects((first, first + self.in_shape[0] // self.groups), outputs)
            for first in range(0, self.in_shape[0], self.in_shape[0] // self.groups)
        )
        return n_groups * (self.in_shape[0] // self.groups) * self.kernel[0] * self.kernel[1]

    def n_weights_of(self, outputs: tuple[int, int]) -> int:
        """Weights of a range of output channels (first, last + 1)."""
        return (outputs[1] - outputs[0]) * self.n_weights // self.out_channels

    @property
    def n_synapses(self) -> int:
        """Factors of one output position: the layer's weights, or the values of an operand's frame."""
        return self.out_channels * (self.in_shape[0] // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def n_weights(self) -> int:
        """Weights of the layer, biases not counted; product layers have none."""
        return 0 if self.kind == "product" else self.n_synapses

    def operand_matrix(self, frames: np.ndarray) -> np.ndarray:
        """What takes the place of the weights of a product layer.

        With `transpose`, output channel h * P + j is position j of head h: `w[h * P + j, c] = frame[h * C + c, j]`
        for P positions and C channels of a head. Without it `w[d, j] = frame[d, j]`.

        Args:
            frames: What the operand emits, shape (..., channel, height, width).

        Returns:
            Matrices of the same dtype, shape (..., out_channel, in_channel / groups).

        Source: Zhou et al., Spikformer, ICLR 2023 (arXiv 2209.15425): Q K^T V of its spiking self attention.
        """
        flat = frames.reshape(*frames.shape[:-2], -1)
        if not self.transpose:
            return flat
        heads = flat.reshape(*flat.shape[:-2], self.groups, -1, flat.shape[-1])
        return np.swapaxes(heads, -1, -2).reshape(*flat.shape[:-2], self.out_channels, -1)

    def products(self, values: np.ndarray, operand: np.ndarray) -> np.ndarray:
        """Exact sums of a product layer, int64, shape (..., out_channel, height, width).

        Args:
            values: Integers of the source, shape (..., channel, height, width).
            operand: Integers of the operand, same leading axes.
        """
        leading, per_group = values.shape[:-3], self.out_channels // self.groups
        matrix = self.operand_matrix(operand).reshape(*leading, self.groups, per_group, -1)
        columns = values.reshape(*leading, self.groups, matrix.shape[-1], -1)
        sums = np.rint(matrix.astype(np.float64) @ columns.astype(np.float64))  # exact below 2^53, and fast
        return sums.astype(np.int64).reshape(*leading, *self.conv_shape)


@dataclass(frozen=True)
class Network:
    """Layers in the order in which data flows: behind their sources and what they add, delayed layers excepted.

    The last layer is the network's output. A layer without neurons is added by exactly one other.
    A `linear` layer behind a map flattens it channel-major: its in_shape is (C * H * W, 1, 1).
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]

    @property
    def has_weights(self) -> bool:
        """Whether every layer that needs weights has them (else only shapes are known)."""
        return all(layer.weights is not None for layer in self.layers if layer.kind != "product")

    def layer(self, name: str) -> Layer:
        """The layer called `name`."""
        return next(layer for layer in self.layers if layer.name == name)

"""Layers from the weight nodes of NIR: shapes checked, and factors around them folded into the weights."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.network import Layer, Pool, Shape
from archsim.workload.neurons import readout
from archsim.workload.nir_fields import (
    conv_padding,
    describe,
    extent,
    integers,
    numbers,
    per_channel,
    require_ones,
)
from archsim.workload.nir_graph import NirNode, with_article

_LARGEST = 2**28


def weight_layer(node: NirNode, before: str, shape: Shape, source: str, scale: np.ndarray) -> Layer:
    """The layer of a weight node, for now a readout that sums.

    Conv1d is a convolution of height 1. A bias of zeros is no bias.

    Args:
        node: Affine, Linear, Conv1d or Conv2d.
        before: Name of the node that feeds it, for messages.
        shape: What it receives, (channel, height, width).
        source: Name of the layer that feeds it, or `input`.
        scale: Factors of what it receives, broadcastable to `shape`; folded into the weights.

    Raises:
        WorkloadError: Weights, bias and input do not fit together, or the form is not supported.
    """
    make = _convolution if node.type in ("Conv1d", "Conv2d") else _linear
    return make(node, before, shape, source, scale)


def scale_outputs(layer: Layer, node: NirNode, factors: np.ndarray) -> Layer:
    """The layer with its sums, bias included, multiplied by factors that broadcast to its neurons."""
    channels = per_channel(factors)
    if channels is None:
        raise WorkloadError(_varies(node, f"the weights of '{layer.name}'"))
    assert layer.weights is not None
    flat = np.broadcast_to(channels.ravel(), (layer.out_channels,))
    bias = None if layer.bias is None else (layer.bias * flat).astype(layer.bias.dtype)
    return replace(layer, weights=_times(layer.weights, flat[:, None, None, None]), bias=bias)


def pool_outputs(layer: Layer, node: NirNode, pool: Pool) -> Layer:
    """The layer with pooling of its sums folded in: one convolution with a larger kernel and stride.

    Pooling windows k and strides s behind a kernel K with stride S are a kernel K + (k - 1) S with
    stride s S, whose weights are the sums of the shifted kernels. Exact, at the price of more cells.
    """
    assert layer.weights is not None
    size = tuple(k + (window - 1) * s for k, window, s in zip(layer.kernel, pool.kernel, layer.stride, strict=True))
    if prod(layer.weights.shape[:2]) * prod(size) > _LARGEST:
        raise WorkloadError(f"node '{node.name}' ({node.type}) makes the kernel of '{layer.name}' too large to fold")
    weights = np.zeros((*layer.weights.shape[:2], *size), layer.weights.dtype)
    for row in range(0, pool.kernel[0] * layer.stride[0], layer.stride[0]):
        for col in range(0, pool.kernel[1] * layer.stride[1], layer.stride[1]):
            weights[:, :, row : row + layer.kernel[0], col : col + layer.kernel[1]] += layer.weights
    return replace(
        layer,
        weights=weights,
        bias=None if layer.bias is None else layer.bias * prod(pool.kernel),
        kernel=(size[0], size[1]),
        stride=(layer.stride[0] * pool.stride[0], layer.stride[1] * pool.stride[1]),
    )


def _convolution(node: NirNode, before: str, shape: Shape, source: str, scale: np.ndarray) -> Layer:
    weights = numbers(node, "weight")
    axes = "(out, in, width)" if node.type == "Conv1d" else "(out, in, height, width)"
    if weights.ndim != axes.count(",") + 1:
        raise WorkloadError(f"node '{node.name}': weight has shape {weights.shape}; {node.type} needs {axes}")
    if node.type == "Conv1d":
        weights = weights[:, :, None, :]
    require_ones(node, "dilation")
    groups = _groups(node, weights.shape[0])
    out_channels, in_channels, kernel = (
        weights.shape[0],
        weights.shape[1] * groups,
        (weights.shape[2], weights.shape[3]),
    )
    stride = extent(node, "stride", 1, 1)
    padding = conv_padding(node, kernel, stride)
    if in_channels != shape[0]:
        raise WorkloadError(
            f"node '{node.name}' is a {node.type} for {in_channels} channels "
            f"but receives {describe(shape)} values from '{before}'"
        )
    _check_map(node, before, shape, kernel, padding)
    channels = per_channel(scale)
    if channels is None:
        raise WorkloadError(_varies(node, "its weights"))
    factors = np.broadcast_to(channels.ravel(), (in_channels,)).reshape(groups, 1, -1, 1, 1)
    grouped = _times(weights.reshape(groups, -1, *weights.shape[1:]), factors)
    return Layer(
        node.name, "conv2d", source, shape, out_channels, kernel, stride, padding,
        grouped.reshape(weights.shape), _bias(node, out_channels), readout(), groups=groups,
    )  # fmt: skip


def _groups(node: NirNode, out_channels: int) -> int:
    values = integers(node, "groups") if "groups" in node.fields else [1]
    if len(values) != 1 or values[0] < 1 or out_channels % values[0]:
        found = values[0] if len(values) == 1 else values
        raise WorkloadError(f"node '{node.name}': groups is {found}; it must be a divisor of {out_channels} outputs")
    return values[0]


def _check_map(node: NirNode, before: str, shape: Shape, kernel: tuple[int, int], padding: tuple[int, int]) -> None:
    if node.type == "Conv1d" and shape[1] != 1:
        raise WorkloadError(
            f"node '{node.name}' is a Conv1d, for (channel, width), "
            f"but receives {describe(shape)} values from '{before}'"
        )
    n_axes = 1 if node.type == "Conv1d" else 2
    declared = integers(node, "input_shape") if isinstance(node.fields.get("input_shape"), np.ndarray) else []
    if declared and (declared * 2)[-n_axes:] != list(shape[-n_axes:]):
        raise WorkloadError(
            f"node '{node.name}' ({node.type}) says its input_shape is {declared} "
            f"but receives {describe(shape)} values from '{before}'"
        )
    if any(size + 2 * pad < span for size, pad, span in zip(shape[1:], padding, kernel, strict=True)):
        raise WorkloadError(
            f"node '{node.name}': kernel {kernel[0]} x {kernel[1]} is larger than the map of {describe(shape)} "
            f"from '{before}' with padding {padding[0]} x {padding[1]}"
        )


def _linear(node: NirNode, before: str, shape: Shape, source: str, scale: np.ndarray) -> Layer:
    weights = numbers(node, "weight")
    while weights.ndim > 2 and weights.shape[0] == 1:
        weights = weights[0]
    if weights.ndim != 2:
        raise WorkloadError(f"node '{node.name}': weight has shape {weights.shape}; {node.type} needs (out, in)")
    out_channels, n_features = weights.shape
    if n_features != prod(shape):
        raise WorkloadError(
            f"node '{node.name}' is {with_article(node.type)} for {n_features} values "
            f"but receives {describe(shape)} values from '{before}'"
        )
    bias = _bias(node, out_channels) if node.type == "Affine" else None
    scaled = _times(weights, np.broadcast_to(scale, shape).reshape(1, n_features))
    return Layer(
        node.name, "linear", source, (n_features, 1, 1), out_channels, (1, 1), (1, 1), (0, 0),
        scaled.reshape(out_channels, n_features, 1, 1), bias, readout(),
    )  # fmt: skip


def _bias(node: NirNode, out_channels: int) -> np.ndarray | None:
    if "bias" not in node.fields:
        return None
    bias = numbers(node, "bias")
    if bias.size not in (1, out_channels):
        raise WorkloadError(f"node '{node.name}': bias has {bias.size} values for {out_channels} outputs")
    return np.broadcast_to(bias.ravel(), (out_channels,)).copy() if bias.any() else None


def _times(weights: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The product in the number type of the weights; weights that no factor changes stay what they are."""
    return weights if np.all(factors == 1.0) else (weights * factors).astype(weights.dtype)


def _varies(node: NirNode, weights: str) -> str:
    return (
        f"node '{node.name}' ({node.type}): a factor varies over the positions of a map, which share {weights}; "
        "only one factor per channel can be folded"
    )

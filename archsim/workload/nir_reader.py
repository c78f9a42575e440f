"""Reads a NIR file into a `Network`: chains of weights, neurons, pooling and Flatten.

The file is walked as HDF5 instead of being built as `nir` objects, because those refuse files that
are fine (0-d beside full parameters, batch axes) and cannot name what is wrong with the others.
Node types: Affine, AvgPool2d, Conv2d, Flatten, IF, Input, LIF, Linear, Output, SumPool2d, nested NIRGraph.
Source: NIR (Pedersen et al., Nature Communications 2024) and its reference package, version 1.0.8.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import INPUT, Layer, Network, Pool, Shape
from archsim.workload.nir_fields import (
    check_size,
    conv_padding,
    describe,
    integers,
    numbers,
    pair,
    require_ones,
)
from archsim.workload.nir_graph import NirNode, chain, flatten, with_article
from archsim.workload.nir_neurons import contradiction, neuron_model, readout
from archsim.workload.sandbox import read_hdf5

_WEIGHTS = ("Affine", "Conv2d", "Linear")
_CHAIN_RULE = "a layer is weights, then a neuron, then pooling, then Flatten"


def read_nir(path: Path, settings: WorkloadSettings) -> Network:
    """Read a network from a NIR file.

    Layers are named after the nodes that hold their weights, the network after the file. Average
    pooling becomes sum pooling with the factor folded into the next weights; behind the last layer
    the factor is dropped, so outputs are counts and only their order means something. A weight node
    that leads to Output without a neuron is a readout (`accumulate`). A bias of zeros is no bias.
    Flatten makes a vector of the whole map, channel-major, whether its dims count the batch or not.

    Args:
        path: HDF5 file, read in a process of its own.
        settings: What the file leaves open: time step, reset, spikes per step, LIF update.

    Raises:
        WorkloadError: The file is damaged, holds nodes or arrangements that are not supported, or
            its shapes and numbers do not fit; the message names file, node and field.
    """
    fault = contradiction(settings.spikes_per_step, settings.reset)
    if fault:
        raise WorkloadError(fault)
    tree = read_hdf5(path)
    try:
        nodes = chain(flatten(tree))
        return _build(path.stem, nodes, settings)
    except WorkloadError as fault:
        raise WorkloadError(f"{path}: {fault}") from None


def _build(name: str, nodes: list[NirNode], settings: WorkloadSettings) -> Network:
    input_shape = _input_shape(nodes)
    layers = _ChainBuilder(input_shape, settings)
    for before, node in pairwise(nodes):
        layers.add(node, before)
    return Network(name, input_shape, tuple(layers.finished))


class _ChainBuilder:
    """Grows the layers along the chain; holds the shape and the pooling factor that reach the next node."""

    def __init__(self, input_shape: Shape, settings: WorkloadSettings) -> None:
        self.finished: list[Layer] = []
        self._settings = settings
        self._shape = input_shape
        self._factor = 1.0
        self._has_neuron = True

    def add(self, node: NirNode, before: NirNode) -> None:
        """Take the next node of the chain."""
        if node.type in _WEIGHTS:
            self._add_weights(node, before)
        elif node.type in ("IF", "LIF"):
            self._add_neuron(node, before)
        elif node.type in ("AvgPool2d", "SumPool2d"):
            self._add_pool(node, before)
        elif node.type == "Flatten":
            self._shape = (prod(self._shape), 1, 1)
        else:
            self._finish(node, before)

    def _add_weights(self, node: NirNode, before: NirNode) -> None:
        if not self._has_neuron:
            raise WorkloadError(f"node '{node.name}' ({node.type}) follows weights without a neuron; {_CHAIN_RULE}")
        if node.name == INPUT:
            raise WorkloadError(
                f"node '{node.name}' is {with_article(node.type)}; the name '{INPUT}' is kept for what enters"
            )
        make = _conv2d if node.type == "Conv2d" else _linear
        source = self.finished[-1].name if self.finished else INPUT
        layer = make(node, before, self._shape, source, self._factor)
        check_size(node, layer.conv_shape)
        self.finished.append(layer)
        self._shape, self._factor, self._has_neuron = layer.conv_shape, 1.0, False

    def _add_neuron(self, node: NirNode, before: NirNode) -> None:
        if self._has_neuron:
            raise WorkloadError(f"node '{node.name}' ({node.type}) follows '{before.name}', not weights; {_CHAIN_RULE}")
        layer = self.finished[-1]
        neuron = neuron_model(node, layer.conv_shape, layer.name, self._settings)
        self.finished[-1] = replace(layer, neuron=neuron)
        self._has_neuron = True

    def _add_pool(self, node: NirNode, before: NirNode) -> None:
        if not self.finished:
            raise WorkloadError(f"node '{node.name}' ({node.type}) comes before the first weights; {_CHAIN_RULE}")
        if not self._has_neuron:
            raise WorkloadError(f"node '{node.name}' ({node.type}) comes between weights and neuron; {_CHAIN_RULE}")
        pool = _pool(node, before, self._shape)
        layer = self.finished[-1]
        if layer.pool is not None:
            pool = _merge(node, layer.pool, pool)
        self.finished[-1] = replace(layer, pool=pool)
        self._shape = self.finished[-1].out_shape
        if node.type == "AvgPool2d":
            self._factor /= prod(pair(node, "kernel_size", 1))

    def _finish(self, node: NirNode, before: NirNode) -> None:
        if not self.finished:
            raise WorkloadError("the graph has no weights: no Affine, Conv2d or Linear")
        expected = integers(node, "shape") if "shape" in node.fields else [prod(self._shape)]
        if prod(self._shape) not in (prod(expected), prod(expected[1:])):
            raise WorkloadError(
                f"node '{node.name}' (Output) expects shape {expected} "
                f"but receives {describe(self._shape)} values from '{before.name}'"
            )


def _input_shape(nodes: list[NirNode]) -> Shape:
    """Shape that enters the first weights; a leading batch axis is dropped."""
    node, consumer = nodes[0], next((node for node in nodes if node.type in _WEIGHTS), None)
    sizes = integers(node, "shape")
    if min(sizes) < 1:
        raise WorkloadError(f"node '{node.name}' (Input) has shape {sizes}; every size must be at least 1")
    shape = _map_shape(sizes) if consumer is None or consumer.type == "Conv2d" else _flat_shape(sizes, consumer)
    if shape is None:
        allowed = "(feature), (height, width) or (channel, height, width), with or without a batch axis"
        raise WorkloadError(f"node '{node.name}' (Input) has shape {sizes}; it must be {allowed}")
    check_size(node, shape)
    return shape


def _map_shape(sizes: list[int]) -> Shape | None:
    if len(sizes) == 1:
        return sizes[0], 1, 1
    sizes = sizes[1:] if len(sizes) == 4 else sizes
    return (sizes[-3] if len(sizes) == 3 else 1, sizes[-2], sizes[-1]) if len(sizes) <= 3 else None


def _flat_shape(sizes: list[int], consumer: NirNode) -> Shape | None:
    n_features = numbers(consumer, "weight").shape[-1:]
    with_batch = n_features != (prod(sizes),) and n_features == (prod(sizes[1:]),)
    sizes = sizes[1:] if with_batch else sizes
    while len(sizes) > 1 and sizes[0] == 1:
        sizes = sizes[1:]
    return _map_shape(sizes) if len(sizes) <= 3 else None


def _conv2d(node: NirNode, before: NirNode, shape: Shape, source: str, factor: float) -> Layer:
    weights = numbers(node, "weight")
    if weights.ndim != 4:
        needed = "(out, in, height, width)"
        raise WorkloadError(f"node '{node.name}': weight has shape {weights.shape}; Conv2d needs {needed}")
    require_ones(node, "groups")
    require_ones(node, "dilation")
    out_channels, in_channels, kernel = weights.shape[0], weights.shape[1], (weights.shape[2], weights.shape[3])
    stride = pair(node, "stride", 1, default=1)
    padding = conv_padding(node, kernel, stride)
    if in_channels != shape[0]:
        raise WorkloadError(
            f"node '{node.name}' is a Conv2d for {in_channels} channels "
            f"but receives {describe(shape)} values from '{before.name}'"
        )
    _check_declared(node, before, shape)
    if any(size + 2 * pad < span for size, pad, span in zip(shape[1:], padding, kernel, strict=True)):
        raise WorkloadError(
            f"node '{node.name}': kernel {kernel[0]} x {kernel[1]} is larger than the map of {describe(shape)} "
            f"from '{before.name}' with padding {padding[0]} x {padding[1]}"
        )
    return Layer(
        node.name, "conv2d", source, shape, out_channels, kernel, stride, padding,
        _scaled(weights, factor), _bias(node, out_channels), readout(),
    )  # fmt: skip


def _check_declared(node: NirNode, before: NirNode, shape: Shape) -> None:
    declared = integers(node, "input_shape") if isinstance(node.fields.get("input_shape"), np.ndarray) else []
    if declared and (declared * 2)[-2:] != list(shape[1:]):
        raise WorkloadError(
            f"node '{node.name}' (Conv2d) says its input_shape is {declared} "
            f"but receives {describe(shape)} values from '{before.name}'"
        )


def _linear(node: NirNode, before: NirNode, shape: Shape, source: str, factor: float) -> Layer:
    weights = numbers(node, "weight")
    while weights.ndim > 2 and weights.shape[0] == 1:
        weights = weights[0]
    if weights.ndim != 2:
        raise WorkloadError(f"node '{node.name}': weight has shape {weights.shape}; {node.type} needs (out, in)")
    out_channels, n_features = weights.shape
    if n_features != prod(shape):
        raise WorkloadError(
            f"node '{node.name}' is {with_article(node.type)} for {n_features} values "
            f"but receives {describe(shape)} values from '{before.name}'"
        )
    bias = _bias(node, out_channels) if node.type == "Affine" else None
    return Layer(
        node.name, "linear", source, (n_features, 1, 1), out_channels, (1, 1), (1, 1), (0, 0),
        _scaled(weights.reshape(out_channels, n_features, 1, 1), factor), bias, readout(),
    )  # fmt: skip


def _scaled(weights: np.ndarray, factor: float) -> np.ndarray:
    return weights if factor == 1.0 else (weights * factor).astype(weights.dtype)


def _bias(node: NirNode, out_channels: int) -> np.ndarray | None:
    if "bias" not in node.fields:
        return None
    bias = numbers(node, "bias")
    if bias.size not in (1, out_channels):
        raise WorkloadError(f"node '{node.name}': bias has {bias.size} values for {out_channels} outputs")
    return np.broadcast_to(bias.ravel(), (out_channels,)).copy() if bias.any() else None


def _pool(node: NirNode, before: NirNode, shape: Shape) -> Pool:
    kernel = pair(node, "kernel_size", 1)
    stride = pair(node, "stride", 1) if "stride" in node.fields else kernel
    padding = pair(node, "padding", 0, default=0)
    if padding != (0, 0):
        found = f"padding {padding[0]} x {padding[1]}"
        raise WorkloadError(f"node '{node.name}' ({node.type}) has {found}; only pooling without padding is supported")
    if kernel[0] > shape[1] or kernel[1] > shape[2]:
        raise WorkloadError(
            f"node '{node.name}': window {kernel[0]} x {kernel[1]} is larger than the map of {describe(shape)} "
            f"from '{before.name}'"
        )
    return Pool(kernel, stride)


def _merge(node: NirNode, first: Pool, second: Pool) -> Pool:
    """Two poolings in a row as one, exact when the windows of the first neither overlap nor leave gaps."""
    if first.stride != first.kernel:
        raise WorkloadError(f"node '{node.name}' ({node.type}) pools again behind overlapping windows; use one pooling")
    (kernel_h, kernel_w), (stride_h, stride_w) = first.kernel, first.stride
    return Pool(
        (kernel_h * second.kernel[0], kernel_w * second.kernel[1]),
        (stride_h * second.stride[0], stride_w * second.stride[1]),
    )

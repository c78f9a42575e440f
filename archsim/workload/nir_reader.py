"""Reads a NIR file into a `Network`.

The file is walked as HDF5 instead of being built as `nir` objects, because those refuse files that
are fine (0-d beside full parameters, batch axes) and cannot name what is wrong with the others.
Node types: Affine, Linear, Conv1d, Conv2d, IF, LIF, CubaLIF, Threshold, I, LI, CubaLI, SumPool2d, AvgPool2d,
Flatten, Scale, Input, Output, nested NIRGraph.
Source: NIR (Pedersen et al., Nature Communications 2024) and its reference package, version 1.0.8.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from archsim.errors import WorkloadError
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Network, Shape
from archsim.workload.nir_fields import check_size, integers, numbers
from archsim.workload.nir_flow import WEIGHTS, order_nodes
from archsim.workload.nir_graph import NirNode, flatten
from archsim.workload.nir_layers import build_layers
from archsim.workload.nir_neurons import contradiction
from archsim.workload.sandbox import read_hdf5


def read_nir(path: Path, settings: WorkloadSettings) -> Network:
    """Read a network from a NIR file.

    Layers are named after the nodes that hold their weights, the network after the file. A weight node
    that leads to Output without a neuron is a readout (`accumulate`), as are I, LI and CubaLI.

    Average pooling of spikes becomes sum pooling with the factor folded into the next weights, as is
    Scale; behind the last layer a common factor is dropped, so outputs are counts and only their order
    means something. Scale and pooling between weights and neuron are folded into those weights (pooling
    makes the kernel larger). Flatten makes a vector of the whole map, channel-major, whether its dims
    count the batch or not.

    Several edges into a neuron mean addition; a loop through a neuron takes one timestep. What they
    become: `build_layers`.

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
        flow = order_nodes(flatten(tree))
        input_shape = _input_shape(flow.nodes)
        return Network(path.stem, input_shape, build_layers(flow, input_shape, settings))
    except WorkloadError as fault:
        raise WorkloadError(f"{path}: {fault}") from None


def _input_shape(nodes: list[NirNode]) -> Shape:
    """Shape that enters the first weights; a leading batch axis is dropped."""
    node, consumer = nodes[0], next((node for node in nodes if node.type in WEIGHTS), None)
    sizes = integers(node, "shape")
    if min(sizes) < 1:
        raise WorkloadError(f"node '{node.name}' (Input) has shape {sizes}; every size must be at least 1")
    kind = consumer.type if consumer is not None else "Conv2d"
    if kind == "Conv1d":
        shape = _line_shape(sizes)
    else:
        shape = _map_shape(sizes) if kind == "Conv2d" or consumer is None else _flat_shape(sizes, consumer)
    if shape is None:
        axes = (
            "(width) or (channel, width)"
            if kind == "Conv1d"
            else "(feature), (height, width) or (channel, height, width)"
        )
        allowed = f"{axes}, with or without a batch axis"
        raise WorkloadError(f"node '{node.name}' (Input) has shape {sizes}; it must be {allowed}")
    check_size(node, shape)
    return shape


def _map_shape(sizes: list[int]) -> Shape | None:
    if len(sizes) == 1:
        return sizes[0], 1, 1
    sizes = sizes[1:] if len(sizes) == 4 else sizes
    return (sizes[-3] if len(sizes) == 3 else 1, sizes[-2], sizes[-1]) if len(sizes) <= 3 else None


def _line_shape(sizes: list[int]) -> Shape | None:
    sizes = sizes[1:] if len(sizes) == 3 else sizes
    return ((1, 1, sizes[0]) if len(sizes) == 1 else (sizes[0], 1, sizes[1])) if len(sizes) <= 2 else None


def _flat_shape(sizes: list[int], consumer: NirNode) -> Shape | None:
    n_features = numbers(consumer, "weight").shape[-1:]
    with_batch = n_features != (prod(sizes),) and n_features == (prod(sizes[1:]),)
    sizes = sizes[1:] if with_batch else sizes
    while len(sizes) > 1 and sizes[0] == 1:
        sizes = sizes[1:]
    return _map_shape(sizes) if len(sizes) <= 3 else None

"""What the mapping policy means for one layer."""

from __future__ import annotations

from dataclasses import replace

from archsim.hardware.models import Hardware
from archsim.hardware.policy import MappingPolicy
from archsim.hardware.systolic import AnyHardware
from archsim.workload.network import INPUT, Layer, Network, Shape


def is_digital(policy: MappingPolicy, layer: Layer) -> bool:
    """Whether a digital unit computes a layer.

    MAC units compute what reads the network's input, with first_layer: digital; a product unit what has no weights,
    with dynamic_products: digital.
    """
    if layer.kind == "product":
        return policy.dynamic_products == "digital"
    return policy.first_layer == "digital" and layer.source == INPUT


def is_staged(policy: MappingPolicy, layer: Layer) -> bool:
    """Whether a layer reads, and adds, whole frames from the global buffer instead of streams.

    What joins waits there for its partner, so the inputs of a layer that joins are read for it alone.
    """
    return policy.schedule != "pipelined" and (layer.source != INPUT or bool(layer.adds))


def can_keep_sums(layer: Layer) -> bool:
    """Whether a layer's sums follow from its input alone: nothing joins them, and they join nothing."""
    return not layer.adds and layer.neuron.kind != "none"


def streamed_map(policy: MappingPolicy, network: Network, layer: Layer) -> Shape | None:
    """Shape of the map whose positions a fully connected layer takes as they come; None where it waits for a frame.

    Behind a map of one position there is nothing to wait for. Recurrent layers read a frame that is complete.
    """
    if policy.fc == "whole" or layer.kind != "linear" or layer.delayed or is_digital(policy, layer):
        return None
    shape = network.input_shape if layer.source == INPUT else network.layer(layer.source).out_shape
    return shape if shape[1:] != (1, 1) else None


def over_map(layer: Layer, shape: Shape) -> Layer:
    """A fully connected layer behind a flattened map as a convolution with a kernel of the map's size."""
    kernel = (shape[1], shape[2])
    weights = None if layer.weights is None else layer.weights.reshape(layer.out_channels, *shape)
    return replace(layer, kind="conv2d", in_shape=shape, kernel=kernel, weights=weights, fan_out=None)


def cols_per_value(hardware: Hardware, layer: Layer) -> int:
    """Physical columns of one output channel: of a weight, or of an operand's value."""
    return hardware.cols_per_operand if layer.kind == "product" else hardware.cols_per_weight


def cols_of(hardware: Hardware, layer: Layer, n_outputs: int) -> int:
    """Physical columns in use of a crossbar that holds so many output channels, with the reference of weights."""
    references = 0 if layer.kind == "product" else hardware.reference_cols
    return n_outputs * cols_per_value(hardware, layer) + references


def channels_per_crossbar(hardware: Hardware, layer: Layer) -> int:
    """Output channels that a crossbar's columns hold, reference columns set aside."""
    return (hardware.tile.pe.crossbar.cols - cols_of(hardware, layer, 0)) // cols_per_value(hardware, layer)


def shared_channels(hardware: AnyHardware, layer: Layer) -> int:
    """Channels of a layer that share one neuron unit and its potential; a readout keeps a potential per channel."""
    return hardware.chip.neuron.shared_channels if layer.neuron.fires else 1


def has_bias_row(policy: MappingPolicy, layer: Layer) -> bool:
    """Whether the biases of a layer are stored in cells."""
    return policy.bias == "row" and layer.bias is not None and not is_digital(policy, layer)

"""A network on a systolic array: how every layer is cut into folds, and in which order they run.

A convolution is a product of matrices: output positions by weights of a filter, times weights by filters. A fold is
what the array does at a time: with outputs stationary a block of `rows` positions and `cols` filters over all weights,
with weights stationary a block of `rows` weights and `cols` filters over a block of positions. Folds run in the order
filters, positions, weights, timestep. Entry point: `map_on_array`.
"""

from __future__ import annotations

from dataclasses import dataclass

from archsim.errors import MappingError
from archsim.hardware.systolic import SystolicArray
from archsim.units import ceil_div
from archsim.workload.network import Layer, Network


@dataclass(frozen=True)
class ArrayLayer:
    """One layer cut into folds."""

    layer: Layer
    block: int
    """Output positions of a fold, at most."""
    depth_block: int
    """Weights per filter of a fold, at most."""
    cols: int
    """Filters of a fold, at most."""

    @property
    def positions(self) -> int:
        """Output positions of a timestep."""
        _, height, width = self.layer.conv_shape
        return height * width

    @property
    def depth(self) -> int:
        """Weights of a filter."""
        return self.layer.in_shape[0] * self.layer.kernel[0] * self.layer.kernel[1]

    @property
    def n_col_blocks(self) -> int:
        """Blocks of filters."""
        return ceil_div(self.layer.out_channels, self.cols)

    @property
    def n_blocks(self) -> int:
        """Blocks of output positions."""
        return ceil_div(self.positions, self.block)

    @property
    def n_depth_blocks(self) -> int:
        """Blocks of the weights of a filter: 1 with outputs stationary."""
        return ceil_div(self.depth, self.depth_block)

    @property
    def n_folds(self) -> int:
        """Folds of a timestep."""
        return self.n_col_blocks * self.n_blocks * self.n_depth_blocks


@dataclass(frozen=True)
class ArrayMapping:
    """A network on a systolic array."""

    hardware: SystolicArray
    network: Network
    layers: tuple[ArrayLayer, ...]
    batched_steps: int
    """Timesteps of a fold that follow each other before the next fold."""

    @property
    def utilisation(self) -> float:
        """PEs that hold an output or a weight, as a fraction of the array, mean over its folds."""
        array = self.hardware.array
        used = total = 0
        for item in self.layers:
            rows = item.positions if array.dataflow == "output_stationary" else item.depth
            used += rows * item.layer.out_channels
            total += ceil_div(rows, array.rows) * item.n_col_blocks * array.n_pes
        return used / total


def map_on_array(hardware: SystolicArray, network: Network, n_timesteps: int) -> ArrayMapping:
    """Cut every layer into folds that the buffers hold.

    Raises:
        MappingError: A layer cannot run on the array, or a buffer is too small; the message says what it needs.
    """
    for layer in network.layers:
        _require_layer(hardware, layer)
    steps = _batch(hardware, n_timesteps)
    return ArrayMapping(hardware, network, tuple(_cut(hardware, layer, steps) for layer in network.layers), steps)


def _require_layer(hardware: SystolicArray, layer: Layer) -> None:
    if layer.kind == "product":
        raise MappingError(
            f"layer '{layer.name}' multiplies two activities; systolic array '{hardware.name}' runs layers with "
            "weights only. Use a crossbar chip."
        )
    if layer.groups > 1:
        raise MappingError(
            f"layer '{layer.name}' has {layer.groups} channel groups; systolic array '{hardware.name}' runs "
            "convolutions of all channels only. Use a crossbar chip."
        )
    if layer.delayed and hardware.mapping.loop_order == "tick_batched":
        raise MappingError(
            f"layer '{layer.name}' reads what was emitted a timestep earlier, but mapping.loop_order: tick_batched "
            "runs all timesteps of a layer before the next. Set mapping.loop_order: timestep_outer."
        )


def _batch(hardware: SystolicArray, n_timesteps: int) -> int:
    """Timesteps that follow each other in a fold."""
    policy = hardware.mapping
    if policy.loop_order == "timestep_outer":
        return 1
    steps = n_timesteps if policy.batch_timesteps == "auto" else policy.batch_timesteps
    if n_timesteps % steps:
        raise MappingError(
            f"mapping.batch_timesteps is {steps}; it must divide the {n_timesteps} timesteps of the workload"
        )
    return steps


def _cut(hardware: SystolicArray, layer: Layer, steps: int) -> ArrayLayer:
    array, buffers = hardware.array, hardware.buffers
    depth = layer.in_shape[0] * layer.kernel[0] * layer.kernel[1]
    positions = layer.conv_shape[1] * layer.conv_shape[2]
    weight_bits = depth * min(array.cols, layer.out_channels) * hardware.mapping.weight_bits
    if weight_bits > buffers.weight_kib * 8192:
        raise MappingError(
            f"the weights of {array.cols} filters of layer '{layer.name}' have {weight_bits} bits; "
            f"buffers.weight_kib {buffers.weight_kib} holds {buffers.weight_kib * 8192}. "
            f"Raise it to {ceil_div(weight_bits, 8192)} at least."
        )
    if array.dataflow == "output_stationary":
        return ArrayLayer(layer, min(array.rows, positions), depth, array.cols)
    return ArrayLayer(layer, _largest_block(hardware, layer, positions, steps), min(array.rows, depth), array.cols)


def _largest_block(hardware: SystolicArray, layer: Layer, positions: int, steps: int) -> int:
    """Positions whose sums and potentials half of the output buffer holds, for all filters of a fold and timesteps.

    No more than half of the input buffer has the input rows of, at an input's least width; whole rows where there are
    several.
    """
    half_bits = hardware.buffers.ofmap_kib * 8192 // 2
    per_position = hardware.array.cols * (
        steps * hardware.array.pe.psum_bits + hardware.chip.neuron.v_mem_bits * layer.neuron.state_words
    )
    if per_position > half_bits:
        raise MappingError(
            f"the sums of one position of layer '{layer.name}' over {steps} timesteps have {per_position} bits; half "
            f"of buffers.ofmap_kib {hardware.buffers.ofmap_kib} holds {half_bits}. Raise it to "
            f"{ceil_div(2 * per_position, 8192)} at least, or lower mapping.batch_timesteps."
        )
    width = layer.conv_shape[2]
    row_bits = layer.in_shape[0] * layer.in_shape[2] * hardware.array.pe.input_bits * steps
    input_rows = hardware.buffers.ifmap_kib * 8192 // 2 // row_bits
    output_rows = max((input_rows - layer.kernel[0]) // layer.stride[0] + 1, 1)
    block = min(positions, half_bits // per_position, output_rows * width)
    return block // width * width if block > width else block

"""Options that exclude each other, or that a network cannot run with: refused before anything is placed.

Every message names both sides and a way out. What only the values of an input decide is checked
where they are known. Entry: `check_combinations`.
"""

from __future__ import annotations

import numpy as np

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping.rules import channels_per_crossbar, cols_of, cols_per_value, is_digital, shared_channels
from archsim.workload.network import Layer, Network


def check_combinations(hardware: Hardware, network: Network) -> None:
    """Refuse options that do not go together.

    Raises:
        MappingError: The first combination found; the message names both keys, or the key and the layer.
    """
    for check in (_units_fit_in_a_column_block, _channels_of_a_unit_are_alike):
        check(hardware, network)


def _units_fit_in_a_column_block(hardware: Hardware, network: Network) -> None:
    shared, cols = hardware.chip.neuron.shared_channels, hardware.tile.pe.crossbar.cols
    for layer in network.layers:
        held, each = channels_per_crossbar(hardware, layer), cols_per_value(hardware, layer)
        is_product = layer.kind == "product"
        if shared > held and not (is_product and is_digital(hardware.mapping, layer)):
            raise MappingError(
                f"chip.neuron.shared_channels is {shared}, but tile.pe.crossbar.cols {cols} holds {held} channels "
                f"({each} columns per {'operand value' if is_product else 'weight'}), and those that share a unit must "
                f"share a crossbar. Lower shared_channels or raise cols to {cols_of(hardware, layer, shared)}."
            )


def _channels_of_a_unit_are_alike(hardware: Hardware, network: Network) -> None:
    for layer in network.layers:
        shared = shared_channels(hardware, layer)
        if shared == 1:
            continue
        if layer.neuron.synapse_decay is not None:
            raise MappingError(
                f"chip.neuron.shared_channels is {shared}; layer '{layer.name}' keeps a synaptic current per neuron "
                "(CubaLIF), which units cannot share. Set chip.neuron.shared_channels: 1."
            )
        for name in ("decay", "v_leak"):
            if _differs_within_units(layer, getattr(layer.neuron, name), shared):
                raise MappingError(
                    f"chip.neuron.shared_channels is {shared}; layer '{layer.name}' has neurons whose {name} differs "
                    "between the channels of a unit, which leaks only once. Set chip.neuron.shared_channels: 1."
                )


def _differs_within_units(layer: Layer, values: np.ndarray, shared: int) -> bool:
    """Whether a neuron parameter, broadcastable to (channel, height, width), differs between channels of a unit."""
    by_channel = np.broadcast_to(values, (layer.out_channels, *np.shape(values)[-2:]))
    return any(
        (by_channel[first : first + shared] != by_channel[first]).any()
        for first in range(0, layer.out_channels, shared)
    )

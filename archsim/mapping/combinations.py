"""Options that exclude each other, or that a network cannot run with: refused before anything is placed.

Every message names both sides and a way out. What only the values of an input decide is checked
where they are known. Entry: `check_combinations`.
"""

from __future__ import annotations

import numpy as np

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping.rules import (
    can_keep_sums,
    channels_per_crossbar,
    cols_of,
    cols_per_value,
    has_bias_row,
    is_digital,
    shared_channels,
)
from archsim.workload.network import INPUT, Layer, Network


def check_combinations(hardware: Hardware, network: Network) -> None:
    """Refuse options that do not go together.

    Raises:
        MappingError: The first combination found; the message names both keys, or the key and the layer.
    """
    _balance_has_spare_tiles(hardware)
    _units_fit_in_a_column_block(hardware, network)
    _channels_of_a_unit_are_alike(hardware, network)
    _kept_sums_never_change(hardware, network)
    _batched_timesteps_do_not_come_back(hardware, network)
    _squeezed_weights_are_known(hardware, network)
    _samples_can_end(hardware, network)


def _balance_has_spare_tiles(hardware: Hardware) -> None:
    if hardware.mapping.replication == "balance" and hardware.chip.tiles == "auto":
        raise MappingError(
            "mapping.replication: balance spends spare tiles, and chip.tiles: auto has none; "
            "set chip.tiles to the number of tiles on the chip, or mapping.replication to a number"
        )


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


def _kept_sums_never_change(hardware: Hardware, network: Network) -> None:
    for layer in network.layers:
        if hardware.mapping.first_layer == "once" and layer.source == INPUT and not can_keep_sums(layer):
            raise MappingError(
                f"mapping.first_layer is once, which keeps the sums of layer '{layer.name}'; what joins them "
                "changes with every timestep. Set mapping.first_layer: repeat."
            )


def _batched_timesteps_do_not_come_back(hardware: Hardware, network: Network) -> None:
    for layer in network.layers:
        if hardware.mapping.schedule == "tick_batched" and layer.delayed:
            raise MappingError(
                "mapping.schedule is tick_batched, which computes all timesteps of a layer before those of the next; "
                f"layer '{layer.name}' of network '{network.name}' (delayed: true) needs what "
                f"'{layer.source}' emits one timestep earlier. Set mapping.schedule: layer_by_layer or pipelined."
            )


def _squeezed_weights_are_known(hardware: Hardware, network: Network) -> None:
    squeeze = hardware.mapping.squeeze
    if squeeze == "none":
        return
    if squeeze == "rows" and hardware.mapping.fc == "stream":
        raise MappingError(
            "mapping.squeeze is rows, which leaves out rows of a window, and mapping.fc is stream, which takes a map "
            "position by position. Set mapping.fc: whole or mapping.squeeze: none."
        )
    for layer in network.layers:
        if squeeze == "columns" and layer.kind != "product" and has_bias_row(hardware.mapping, layer):
            raise MappingError(
                "mapping.squeeze is columns, which leaves out columns whose weights are zero, and mapping.bias is row, "
                f"which puts a bias in every column of layer '{layer.name}'. Set mapping.bias: digital or "
                "mapping.squeeze: none."
            )
    unknown = [layer.name for layer in network.layers if layer.kind != "product" and layer.weights is None]
    if unknown:
        raise MappingError(
            f"mapping.squeeze is {squeeze}, which leaves out {squeeze} whose weights are zero; layer '{unknown[0]}' of "
            f"network '{network.name}' has no weights. Give a network with weights (.nir), or set "
            "mapping.squeeze: none."
        )


def _samples_can_end(hardware: Hardware, network: Network) -> None:
    policy = hardware.mapping
    if policy.early_exit == "none":
        return
    begins = f"mapping.early_exit is {policy.early_exit}, which ends samples timestep by timestep, and "
    if policy.schedule == "tick_batched":
        raise MappingError(
            f"{begins}mapping.schedule is tick_batched, which computes all timesteps of a layer before any answer. "
            "Set mapping.schedule: pipelined or layer_by_layer, or mapping.early_exit: none."
        )
    if policy.overflow == "reload":
        raise MappingError(
            f"{begins}mapping.overflow is reload, whose rounds are planned for whole samples. "
            "Set mapping.overflow: error and chip.tiles: auto, or mapping.early_exit: none."
        )
    waits = "mapping.early_exit is wait, which lets a timestep in when the one before has been judged, and "
    if policy.early_exit == "wait" and policy.first_layer != "repeat":
        raise MappingError(
            f"{waits}mapping.first_layer is {policy.first_layer}, with which only the first one may enter. "
            "Set mapping.first_layer: repeat, or mapping.early_exit: drain or squash."
        )
    if policy.early_exit == "wait" and hardware.chip.dram.input == "load":
        raise MappingError(
            f"{waits}chip.dram.input is load, which fetches timesteps ahead. "
            "Set chip.dram.input: on_chip, or mapping.early_exit: drain or squash."
        )
    recurrent = next((layer.name for layer in network.layers if layer.delayed), None)
    if policy.early_exit == "wait" and recurrent is not None:
        raise MappingError(
            f"{waits}layer '{recurrent}' (delayed: true) begins with what the timestep before emitted, judged or not. "
            "Set mapping.early_exit: drain or squash."
        )


def _differs_within_units(layer: Layer, values: np.ndarray, shared: int) -> bool:
    """Whether a neuron parameter, broadcastable to (channel, height, width), differs between channels of a unit."""
    by_channel = np.broadcast_to(values, (layer.out_channels, *np.shape(values)[-2:]))
    return any(
        (by_channel[first : first + shared] != by_channel[first]).any()
        for first in range(0, layer.out_channels, shared)
    )

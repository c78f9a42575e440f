"""How many copies of a layer a chip holds: none, a number, or what spare tiles allow for the slowest layers."""

from __future__ import annotations

from collections.abc import Callable

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping.rules import is_digital
from archsim.workload.network import Layer, Network

TilesOf = Callable[[dict[str, int]], int]
"""Tiles that a network takes with so many copies of its layers."""


def copies(hardware: Hardware, network: Network, tiles_of: TilesOf) -> dict[str, int]:
    """Copies of every layer by name; layers that are not listed have one.

    A digital first layer is never copied. `balance` gives another copy to the layer with most
    positions per copy, which bounds the throughput, as long as its tiles are there; layers whose
    copies are stated (`mapping.layer_replication`) keep those.

    Raises:
        MappingError: Copies are stated of a layer that is not there, cannot be copied or has fewer positions.
    """
    wanted, stated = hardware.mapping.replication, hardware.mapping.layer_replication
    on_crossbars = [layer for layer in network.layers if not is_digital(hardware.mapping, layer)]
    can_copy = {layer.name: _positions(layer) for layer in on_crossbars if is_copyable(network, layer)}
    for name, n_copies in stated.items():
        _require_copies(network, can_copy, name, n_copies)
    if wanted == "none":
        return dict(stated)
    if wanted != "balance":
        return {name: min(wanted, positions) for name, positions in can_copy.items()} | stated
    n_tiles = hardware.chip.tiles
    assert n_tiles != "auto", "refused among the combinations"
    found = {layer.name: stated.get(layer.name, 1) for layer in on_crossbars}
    while found:
        slowest = max(on_crossbars, key=lambda layer: _conv_positions(layer) / found[layer.name])
        tried = {**found, slowest.name: found[slowest.name] + 1}
        most = 0 if slowest.name in stated else can_copy.get(slowest.name, 0)
        if tried[slowest.name] > most or tiles_of(tried) > n_tiles:
            return found
        found = tried
    return found


def _require_copies(network: Network, can_copy: dict[str, int], name: str, n_copies: int) -> None:
    """Check that a layer can have the copies that are stated."""
    where = f"mapping.layer_replication: {name}: {n_copies}"
    if name not in {layer.name for layer in network.layers}:
        raise MappingError(f"{where}: there is no such layer; layers are {', '.join(x.name for x in network.layers)}")
    if name not in can_copy and n_copies > 1:
        raise MappingError(
            f"{where}: this layer cannot be copied; copies are for convolutions on crossbars whose neurons fire, "
            f"without joins, recurrence or overlapping pooling windows: {', '.join(can_copy) or 'none here'}"
        )
    if n_copies > can_copy.get(name, 1):
        raise MappingError(f"{where}: the layer has {can_copy[name]} output positions to deal out; give no more copies")


def is_copyable(network: Network, layer: Layer) -> bool:
    """Whether positions of a layer can be dealt out: a plain convolution whose pooling windows do not overlap."""
    joins = any(layer.name in other.adds for other in network.layers) or bool(layer.adds)
    returns = layer.delayed or any(other.delayed and other.source == layer.name for other in network.layers)
    overlaps = layer.pool is not None and any(s < k for k, s in zip(layer.pool.kernel, layer.pool.stride, strict=True))
    return layer.kind == "conv2d" and layer.neuron.fires and not (joins or returns or overlaps)


def _positions(layer: Layer) -> int:
    """Output positions that can be dealt out."""
    return layer.out_shape[1] * layer.out_shape[2]


def _conv_positions(layer: Layer) -> int:
    return layer.conv_shape[1] * layer.conv_shape[2]

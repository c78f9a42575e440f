"""Which tile sits on which mesh node: the plain snake, or swapped until traffic is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import prod

from archsim.hardware.models import Hardware
from archsim.mapping.model import LayerMapping, Mapping
from archsim.mapping.rules import is_staged
from archsim.workload.network import INPUT, Layer

IO_NODE = 0
"""Mesh node of the input and output port: the top left corner (assumption)."""

_PORT = -1
"""Stands for the input and output port where a tile would stand."""


def snake(n_tiles: int, mesh_width: int) -> tuple[int, ...]:
    """Nodes of tiles 0, 1, 2, ...: row by row, every second row backwards, so that tile n is next to tile n + 1."""
    nodes = []
    for tile in range(n_tiles):
        y, x = divmod(tile, mesh_width)
        nodes.append(y * mesh_width + (x if y % 2 == 0 else mesh_width - 1 - x))
    return tuple(nodes)


def has_chip_neurons(hardware: Hardware, layer: Layer) -> bool:
    """Whether a layer's neurons are in the chip's one module, which sits at the port's node (assumption)."""
    return hardware.chip.neuron.level == "chip" and layer.neuron.has_state


def traffic_bits(mapping: Mapping) -> dict[tuple[int, int], float]:
    """Bits per timestep between tiles (the port is -1), one bit per spike and accumulator.bits per partial sum.

    Multicast counts once per destination, which overestimates what shares a path. Staged frames pass the port.
    """
    bits: dict[tuple[int, int], float] = {}
    for layer in mapping.layers:
        staged = is_staged(mapping.hardware.mapping, layer.layer)
        for name in layer.layer.sources:
            if name == INPUT or staged:
                shape = mapping.network.input_shape if name == INPUT else mapping.network.layer(name).out_shape
                _add(bits, [(_PORT, tile) for tile in layer.tiles], prod(shape))
        _, height, width = layer.layer.out_shape
        sum_bits = layer.layer.conv_shape[1] * layer.layer.conv_shape[2] * mapping.hardware.tile.accumulator.bits
        for view in layer.views:
            for block in view.blocks:
                first, last = layer.col_blocks[block]
                home, n = view.home_tile(block), (last - first) / layer.n_copies
                joined = n * layer.layer.conv_shape[1] * layer.layer.conv_shape[2]
                _add(bits, [(_PORT, home) for _ in layer.layer.adds if staged], joined)
                for pe in view.pes_of(block):
                    if pe.tile != home:
                        _add(bits, [(pe.tile, home)], layer.width_of(pe) / layer.n_copies * sum_bits)
                if has_chip_neurons(mapping.hardware, layer.layer):
                    _add(bits, [(home, _PORT)], n * sum_bits)
                    home = _PORT
                _add(bits, [(home, tile) for tile in _destinations(mapping, layer, block)], n * height * width)
    return bits


def improve(mapping: Mapping) -> Mapping:
    """Swap pairs of nodes, best first come, until no swap lowers bits times hops; starts from the snake.

    Empty nodes take part, so a network that is smaller than the mesh moves towards the port.
    Deterministic: pairs are tried in order of their numbers.
    """
    width = mapping.mesh_width
    spare = [node for node in range(width * mapping.mesh_height) if node not in mapping.nodes]
    nodes = [*mapping.nodes, *spare]
    links: dict[int, list[tuple[int, float]]] = {}
    for (source, destination), amount in traffic_bits(mapping).items():
        links.setdefault(source, []).append((destination, amount))
        links.setdefault(destination, []).append((source, amount))

    def cost(place: int) -> float:
        at = nodes[place]
        return sum(
            amount * _hops(at, IO_NODE if other == _PORT else nodes[other], width)
            for other, amount in links.get(place, ())
        )

    improved = True
    while improved:
        improved = False
        for one, two in combinations(range(len(nodes)), 2):
            if one not in links and two not in links:
                continue
            before = cost(one) + cost(two)
            nodes[one], nodes[two] = nodes[two], nodes[one]
            if cost(one) + cost(two) < before:
                improved = True
            else:
                nodes[one], nodes[two] = nodes[two], nodes[one]
    return replace(mapping, nodes=tuple(nodes[: mapping.n_tiles]))


PLACEMENTS: dict[str, Callable[[Mapping], Mapping]] = {"snake": lambda mapping: mapping, "traffic": improve}


def _destinations(mapping: Mapping, layer: LayerMapping, block: int) -> list[int]:
    name = layer.layer.name
    readers = (*mapping.consumers(name), *mapping.joiners(name))
    streamed = [item for item in readers if not is_staged(mapping.hardware.mapping, item.layer)]
    tiles = {tile for item in streamed if name in item.layer.sources for tile in item.tiles}
    tiles |= {item.home_tile(block) for item in streamed if name in item.layer.adds}
    return sorted(tiles) + [_PORT] * (mapping.is_output(layer.layer) + (len(streamed) < len(readers)))


def _hops(one: int, two: int, width: int) -> int:
    return abs(one % width - two % width) + abs(one // width - two // width)


def _add(bits: dict[tuple[int, int], float], pairs: list[tuple[int, int]], amount: float) -> None:
    for pair in pairs:
        bits[pair] = bits.get(pair, 0) + amount

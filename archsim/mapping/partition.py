"""Packs the crossbars of every layer in PEs and PEs in tiles, and lays out the mesh; `cuts` cuts layers into crossbars.

A product layer has no weights. With `dynamic_products: rewrite` its operand is cut like weights; with `digital` it
takes a product unit of a tile and no crossbar.
"""

from __future__ import annotations

from itertools import product
from math import isqrt

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping import replication
from archsim.mapping.combinations import check_combinations
from archsim.mapping.cuts import Cut, col_blocks, cut_layers
from archsim.mapping.model import LayerMapping, Mapping, PePlace, Unit
from archsim.mapping.placement import PLACEMENTS, snake
from archsim.mapping.rounds import fold
from archsim.mapping.rules import is_digital
from archsim.units import ceil_div
from archsim.workload.attention import require_products
from archsim.workload.model import Workload
from archsim.workload.network import Layer, Network


def map_network(hardware: Hardware, workload: Workload | Network) -> Mapping:
    """Put every layer of a network on crossbars, PEs, tiles and mesh nodes.

    A tile holds one layer unless `mapping.share_tiles`. All row blocks of a column block share a tile
    when they fit in one. What does not fit waits for a later round if `mapping.overflow` is reload.

    Raises:
        MappingError: Options exclude each other, or tiles or mesh nodes are missing; the message says how many.
        WorkloadError: A product layer does not fit what it reads.
    """
    network = workload.network if isinstance(workload, Workload) else workload
    require_products(network)
    _require_flow(network)
    check_combinations(hardware, network)
    cuts = cut_layers(hardware, network)

    def n_tiles_of(copies: dict[str, int]) -> int:
        return _tiles_of(_place(hardware, network, cuts, copies))

    layers = _place(hardware, network, cuts, replication.copies(hardware, network, n_tiles_of))
    n_needed = _tiles_of(layers)
    n_tiles = n_needed if hardware.chip.tiles == "auto" else hardware.chip.tiles
    if n_needed > n_tiles and hardware.mapping.overflow == "error":
        raise MappingError(_shortage(hardware, network, layers, n_tiles))
    if n_needed > n_tiles:
        layers = fold(hardware, network, layers, n_tiles)
    width, height = _mesh_size(hardware, n_tiles)
    is_static = False
    if hardware.mapping.first_layer == "digital" and isinstance(workload, Workload):
        is_static = workload.has_static_input
    mapping = Mapping(hardware, network, tuple(layers), n_tiles, width, height, snake(n_tiles, width), is_static)
    return PLACEMENTS[hardware.mapping.placement](mapping)


def _tiles_of(layers: list[LayerMapping]) -> int:
    return max(layer.tiles[-1] for layer in layers) + 1


def _place(hardware: Hardware, network: Network, cuts: dict[str, Cut], copies: dict[str, int]) -> list[LayerMapping]:
    layers: list[LayerMapping] = []
    tile, pe = 0, 0
    for layer in network.layers:
        if layers and not hardware.mapping.share_tiles:
            tile, pe = layers[-1].pes[-1].tile + 1, 0
        if is_digital(hardware.mapping, layer):
            layers.append(_place_digital(hardware, layer, tile, layers))
            continue
        mapped = _place_layer(hardware, cuts[layer.name], copies.get(layer.name, 1), (tile, pe))
        layers.append(mapped)
        tile, pe = mapped.pes[-1].tile, mapped.pes[-1].pe + 1
    return layers


def _place_digital(hardware: Hardware, layer: Layer, tile: int, placed: list[LayerMapping]) -> LayerMapping:
    """A MAC unit in one tile for every column block; or a product unit for a layer without weights, whole."""
    is_product = layer.kind == "product"
    unit: Unit = "product_unit" if is_product else "mac"
    cols = ((0, layer.out_channels),) if is_product else col_blocks(hardware, layer)
    first = sum(place.unit == unit and place.tile == tile for item in placed for place in item.pes)
    units = tuple(PePlace(0, col, tile, first + col, unit=unit) for col in range(len(cols)))
    return LayerMapping(layer, ((),), cols, units)


def _require_flow(network: Network) -> None:
    """Refuse what cannot flow: a readout that somebody reads never sends before the last timestep."""
    for layer in network.layers:
        for name in (*layer.sources, *layer.adds):
            source = next((item for item in network.layers if item.name == name), None)
            if source is not None and source.neuron.kind == "accumulate":
                raise MappingError(
                    f"layer '{layer.name}' reads '{name}', a readout that never fires. "
                    "Put spiking neurons between them or end the network there."
                )


def _place_layer(hardware: Hardware, cut: Cut, n_copies: int, first_free: tuple[int, int]) -> LayerMapping:
    """Place the copies of a layer."""
    pes_per_tile = hardware.tile.pes
    places: list[PePlace] = []
    tile, pe = first_free
    for copy, (col, feeding) in product(range(n_copies), enumerate(cut.feeding)):
        if len(feeding) <= pes_per_tile < pe + len(feeding) or (pe and len(feeding) > pes_per_tile):
            tile, pe = tile + 1, 0
        for row in feeding:
            if pe == pes_per_tile:
                tile, pe = tile + 1, 0
            places.append(PePlace(row, col, tile, pe, copy, outputs=cut.outputs.get((row, col))))
            pe += 1
    return LayerMapping(
        cut.layer, cut.rows, cut.cols, tuple(places), n_copies, squeeze=cut.squeeze, streamed_map=cut.streamed_map
    )


def _shortage(hardware: Hardware, network: Network, layers: list[LayerMapping], n_tiles: int) -> str:
    needed = _tiles_of(layers)
    culprit = next(item for item in layers if item.tiles[-1] >= n_tiles)
    crossbar = hardware.tile.pe.crossbar
    return (
        f"network '{network.name}' needs {needed} tiles of {hardware.tile.pes} PEs with {hardware.tile.pe.crossbars} "
        f"crossbars of {crossbar.rows} x {crossbar.cols}; chip '{hardware.name}' has {n_tiles}, "
        f"{needed - n_tiles} too few. "
        f"Layer '{culprit.layer.name}' ({culprit.layer.n_weights} weights, {culprit.n_crossbars} crossbars, "
        f"{culprit.n_pes} PEs) is the first that does not fit.\n"
        f"Raise chip.tiles to {needed}, set chip.tiles: auto, or set mapping.overflow: reload with "
        "mapping.schedule: tick_batched."
    )


def _mesh_size(hardware: Hardware, n_tiles: int) -> tuple[int, int]:
    chip = hardware.chip
    width, height = chip.mesh_width, chip.mesh_height
    if width == "auto" and height == "auto":
        width = isqrt(n_tiles - 1) + 1
    if width == "auto":
        width = ceil_div(n_tiles, int(height))
    if height == "auto":
        height = ceil_div(n_tiles, width)
    if width * height < n_tiles:
        raise MappingError(
            f"a mesh of {width} x {height} has {width * height} nodes; {n_tiles} tiles need one each. "
            "Raise chip.mesh_width or chip.mesh_height, or set them to auto."
        )
    return width, height

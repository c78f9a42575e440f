"""Cuts every layer into crossbars, packs crossbars in PEs and PEs in tiles, and lays out the mesh.

Layout `kernel_position` (SpikeSim, arXiv 2210.12899): one crossbar per kernel position and block
of input channels; a PE holds the kernel positions of one channel block, and further whole channel
blocks as long as they fit (so a fully connected layer fills its PEs). Only a kernel with more
positions than the PE has crossbars spans several PEs. Layout `dense` (ISAAC, ISCA 2016): the kernel
is unrolled to one long column of rows, which fills crossbar after crossbar. With `squeeze: rows` every column block
is unrolled like that on its own, without the rows that pruning left empty (`squeeze`).

A product layer has no weights. With `dynamic_products: rewrite` its operand is cut like weights; with `digital` it
takes a product unit of a tile and no crossbar.
"""

from __future__ import annotations

from itertools import product
from math import isqrt

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping import replication
from archsim.mapping.bias import add_bias_rows
from archsim.mapping.combinations import check_combinations
from archsim.mapping.model import CrossbarRows, LayerMapping, Mapping, PePlace, Segment, Unit
from archsim.mapping.placement import PLACEMENTS, snake
from archsim.mapping.rounds import fold
from archsim.mapping.rules import channels_per_crossbar, has_bias_row, is_digital, over_map, streamed_map
from archsim.mapping.squeeze import squeezed_rows
from archsim.units import ceil_div
from archsim.workload.attention import require_products
from archsim.workload.model import Workload
from archsim.workload.network import Layer, Network, Shape


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
    layers = _place(hardware, network, replication.copies(hardware, network, _n_tiles))
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


def _n_tiles(hardware: Hardware, network: Network, copies: dict[str, int]) -> int:
    """Tiles that a network takes with so many copies of its layers."""
    return _tiles_of(_place(hardware, network, copies))


def _tiles_of(layers: list[LayerMapping]) -> int:
    return max(layer.tiles[-1] for layer in layers) + 1


def _place(hardware: Hardware, network: Network, copies: dict[str, int]) -> list[LayerMapping]:
    layers: list[LayerMapping] = []
    tile, pe = 0, 0
    for layer in network.layers:
        if layers and not hardware.mapping.share_tiles:
            tile, pe = layers[-1].pes[-1].tile + 1, 0
        if is_digital(hardware.mapping, layer):
            layers.append(_place_digital(hardware, layer, tile, layers))
            continue
        shape = streamed_map(hardware.mapping, network, layer)
        mapped = _place_layer(hardware, layer, shape, copies.get(layer.name, 1), (tile, pe))
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


def row_blocks(hardware: Hardware, layer: Layer, is_streamed: bool) -> tuple[tuple[CrossbarRows, ...], ...]:
    """Crossbars of one column block, grouped by the PE that holds them; bias rows come later.

    `layer` is the layer as its rows see it. The map of a streamed layer is unrolled with either layout.
    """
    per_pe = hardware.tile.pe.crossbars
    if hardware.mapping.layout == "dense" or is_streamed:
        crossbars = _dense_crossbars(hardware, layer)
        return tuple(tuple(crossbars[first : first + per_pe]) for first in range(0, len(crossbars), per_pe))
    rows, channels = hardware.tile.pe.crossbar.rows, layer.in_shape[0]
    spans = [(first, min(first + rows, channels)) for first in range(0, channels, rows)]
    kernel = _kernel_positions(layer)
    if len(kernel) > per_pe:
        parts = [kernel[first : first + per_pe] for first in range(0, len(kernel), per_pe)]
        return tuple(tuple(((*position, *span),) for position in part) for span in spans for part in parts)
    spans_per_pe = per_pe // len(kernel)
    return tuple(
        tuple(((*position, *span),) for span in spans[first : first + spans_per_pe] for position in kernel)
        for first in range(0, len(spans), spans_per_pe)
    )


def _dense_crossbars(hardware: Hardware, layer: Layer) -> list[CrossbarRows]:
    """The unrolled rows, channel group by group and kernel position by position, cut wherever a crossbar is full."""
    free = size = hardware.tile.pe.crossbar.rows
    per_group = layer.in_shape[0] // layer.groups
    crossbars: list[list[Segment]] = [[]]
    for group, position in product(range(layer.groups), _kernel_positions(layer)):
        first, end = group * per_group, (group + 1) * per_group
        while first < end:
            if free == 0:
                crossbars.append([])
                free = size
            last = min(first + free, end)
            crossbars[-1].append((*position, first, last))
            free -= last - first
            first = last
    return [tuple(segments) for segments in crossbars]


def _kernel_positions(layer: Layer) -> list[tuple[int, int]]:
    return list(product(range(layer.kernel[0]), range(layer.kernel[1])))


def col_blocks(hardware: Hardware, layer: Layer) -> tuple[tuple[int, int], ...]:
    """Output channels of each column block; channels that share neuron units stay together."""
    width = channels_per_crossbar(hardware, layer) // hardware.chip.neuron.shared_channels
    width *= hardware.chip.neuron.shared_channels
    return tuple((first, min(first + width, layer.out_channels)) for first in range(0, layer.out_channels, width))


def _feeding(layer: Layer, rows: tuple[tuple[CrossbarRows, ...], ...], col_block: tuple[int, int]) -> list[int]:
    """Row blocks that feed a column block: all of them unless channel groups keep them apart."""

    def feeds(block: tuple[CrossbarRows, ...]) -> bool:
        return any(layer.connects((first, last), col_block) for rows in block for _, _, first, last in rows)

    return [index for index, block in enumerate(rows) if feeds(block)]


def _place_layer(
    hardware: Hardware, layer: Layer, shape: Shape | None, n_copies: int, first_free: tuple[int, int]
) -> LayerMapping:
    """Place the copies of a layer; `shape` is the map of a streamed one."""
    on_rows = layer if shape is None else over_map(layer, shape)
    cols, pes_per_tile = col_blocks(hardware, layer), hardware.tile.pes
    is_squeezed = hardware.mapping.squeeze == "rows" and layer.kind != "product"
    if is_squeezed:
        rows, feeding_of = squeezed_rows(hardware, on_rows, cols)
    else:
        rows = row_blocks(hardware, on_rows, shape is not None)
        feeding_of = [_feeding(on_rows, rows, block) for block in cols]
    if has_bias_row(hardware.mapping, layer):
        rows, feeding_of = add_bias_rows(hardware, on_rows, rows, feeding_of)
    places: list[PePlace] = []
    tile, pe = first_free
    for copy, col in product(range(n_copies), range(len(cols))):
        feeding = feeding_of[col]
        if len(feeding) <= pes_per_tile < pe + len(feeding) or (pe and len(feeding) > pes_per_tile):
            tile, pe = tile + 1, 0
        for row in feeding:
            if pe == pes_per_tile:
                tile, pe = tile + 1, 0
            places.append(PePlace(row, col, tile, pe, copy))
            pe += 1
    return LayerMapping(layer, rows, cols, tuple(places), n_copies, is_squeezed=is_squeezed, streamed_map=shape)


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

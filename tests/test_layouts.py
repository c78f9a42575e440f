"""Layouts, shared tiles and placements: what is where, what it sums to, and that it runs."""

from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from math import ceil

import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
import torch
from test_inference import pairs_of
from torch.nn import functional

from archsim.analog.calibration import calibrate_ranges
from archsim.analog.layer import InputFormat, LayerGeometry
from archsim.analog.product import hardware_sums
from archsim.analog.programming import program_layer
from archsim.engine.conservation import check_trace
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.simpy_execution import execute
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware
from archsim.mapping import Mapping, map_network
from archsim.workload.network import INPUT, Layer, Network

pytestmark = pytest.mark.many_seeds

SEEDS = range(200)
OPTIONS = joins.CHIPS | {
    "mapping.weight_bits": (4, 5, 8),
    "tile.pe.crossbar.bits_per_cell": (2, 4),
    "tile.pe.crossbar.rows": (3, 8, 16, 64),
    "tile.pe.crossbar.cols": (16, 32, 64),
    "tile.pe.crossbar.signed": ("diff", "differential", "differential_arrays", "offset"),
}


def conv(in_channels: int, out: int, kernel: int, stride: int = 1, size: int = 5, groups: int = 1) -> Layer:
    pair = ((kernel, kernel), (stride, stride), (kernel // 2, kernel // 2))
    shape = (in_channels, size, size)
    return Layer("c", "conv2d", INPUT, shape, out, *pair, None, None, crossbar.neuron(), groups=groups)


def alone(layer: Layer) -> Network:
    return Network("one", layer.in_shape, (layer,))


def mapped(network: Network, **options) -> Mapping:
    names = {"rows": "tile.pe.crossbar.rows", "cols": "tile.pe.crossbar.cols", "pes": "tile.pes"}
    names |= {"crossbars": "tile.pe.crossbars"}
    return map_network(
        load_hardware("demo", {names.get(key, f"mapping.{key}"): value for key, value in options.items()}), network
    )


# Where weights are

SHAPES = [(1, 1, 1), (3, 5, 3), (4, 4, 1), (7, 9, 3), (16, 3, 5), (20, 17, 3), (65, 2, 1), (5, 40, 2)]
SIZES = [(4, 4), (6, 8), (64, 64)]


@pytest.mark.parametrize(("rows", "cols"), SIZES)
@pytest.mark.parametrize(("in_channels", "out", "kernel"), SHAPES)
def test_dense_rows_fill_every_crossbar_but_the_last(in_channels, out, kernel, rows, cols):
    layer = mapped(alone(conv(in_channels, out, kernel)), layout="dense", rows=rows, cols=cols).layers[0]
    sizes = [sum(last - first for *_, first, last in one) for block in layer.row_blocks for one in block]
    total = in_channels * kernel * kernel
    assert sizes == [rows] * (total // rows) + [total % rows] * (total % rows > 0)


@pytest.mark.parametrize("layout", ["dense", "kernel_position"])
@pytest.mark.parametrize(("rows", "cols"), SIZES)
@pytest.mark.parametrize(("in_channels", "out", "kernel"), SHAPES)
def test_every_weight_is_on_exactly_one_row_and_column(in_channels, out, kernel, rows, cols, layout):
    layer = mapped(alone(conv(in_channels, out, kernel)), layout=layout, rows=rows, cols=cols).layers[0]
    held = np.zeros((out, in_channels, kernel, kernel), int)
    for pe in layer.pes:
        low, high = layer.col_blocks[pe.col_block]
        for segments in layer.row_blocks[pe.row_block]:
            for y, x, first, last in segments:
                held[low:high, first:last, y, x] += 1
    assert held.min() == held.max() == 1


@pytest.mark.parametrize("crossbars", [1, 4, 9])
@pytest.mark.parametrize(("in_channels", "out", "kernel"), SHAPES)
def test_dense_pes_are_full_but_the_last(in_channels, out, kernel, crossbars):
    layer = mapped(alone(conv(in_channels, out, kernel)), layout="dense", rows=4, crossbars=crossbars).layers[0]
    n = ceil(in_channels * kernel * kernel / 4)
    assert [len(block) for block in layer.row_blocks] == [crossbars] * (n // crossbars) + [n % crossbars] * (
        n % crossbars > 0
    )


@pytest.mark.parametrize("crossbars", [1, 4, 9])
@pytest.mark.parametrize(("rows", "cols"), SIZES)
@pytest.mark.parametrize(("in_channels", "out", "kernel"), SHAPES)
def test_dense_takes_no_more_crossbars(in_channels, out, kernel, rows, cols, crossbars):
    network = alone(conv(in_channels, out, kernel))
    counts = [
        mapped(network, layout=layout, rows=rows, cols=cols, crossbars=crossbars).n_crossbars
        for layout in ("dense", "kernel_position")
    ]
    weights_per_col_block = cols // 4
    assert counts[0] == ceil(in_channels * kernel**2 / rows) * ceil(out / weights_per_col_block)
    assert counts[0] <= counts[1]


# Tiles and mesh


@lru_cache
def network_of(seed: int) -> Network:
    return joins.grow(np.random.default_rng(seed), joins.KINDS[seed % 4], 3)


@pytest.mark.parametrize("seed", SEEDS[:60])
def test_shared_tiles_are_no_more_and_hold_every_pe_once(seed):
    rng = np.random.default_rng(seed)
    options = joins.random_chip(rng)
    alone_, shared = (
        map_network(load_hardware("demo", options | {"mapping.share_tiles": share}), network_of(seed))
        for share in (False, True)
    )
    places = [(pe.tile, pe.pe) for layer in shared.layers for pe in layer.pes]
    assert len(set(places)) == len(places)
    assert max(pe for _, pe in places) < shared.hardware.tile.pes
    assert shared.n_tiles_used <= alone_.n_tiles_used
    assert [len(layer.pes) for layer in shared.layers] == [len(layer.pes) for layer in alone_.layers]


def bits_of(mapping: Mapping) -> dict[tuple[int, int], int]:
    """Bits of one timestep from tile to tile (-1: the port), counted position by position."""
    bits: dict[tuple[int, int], int] = {}

    def add(source, destination, amount):
        if source != destination:
            bits[source, destination] = bits.get((source, destination), 0) + amount

    network = mapping.network
    for layer in mapping.layers:
        spec = layer.layer
        if spec.source == INPUT:
            for tile in layer.tiles:
                add(-1, tile, int(np.prod(network.input_shape)))
        used = [other for other in mapping.layers if other.layer.source == spec.name]
        adding = [other for other in mapping.layers if spec.name in other.layer.adds]
        for block, (first, last) in enumerate(layer.col_blocks):
            own = [pe.tile for pe in layer.pes if pe.col_block == block]
            home, width = own[0], last - first
            for tile in own:
                add(
                    tile, home, width * spec.conv_shape[1] * spec.conv_shape[2] * mapping.hardware.tile.accumulator.bits
                )
            targets = {tile for other in used for tile in other.tiles}
            targets |= {next(pe.tile for pe in other.pes if pe.col_block == block) for other in adding}
            leaves = spec.neuron.kind != "none" and not adding and all(other.layer.delayed for other in used)
            for tile in [*targets, *([-1] if leaves else [])]:
                add(home, tile, width * spec.out_shape[1] * spec.out_shape[2])
    return bits


def bit_hops(bits: dict[tuple[int, int], int], nodes: list[int], width: int) -> int:
    at = [divmod(node, width) for node in (*nodes, 0)]  # the port, index -1, is in the corner
    return sum(amount * (abs(at[a][0] - at[b][0]) + abs(at[a][1] - at[b][1])) for (a, b), amount in bits.items())


@lru_cache
def both_placements(seed: int) -> tuple[Mapping, Mapping]:
    options = joins.random_chip(np.random.default_rng(seed)) | {"tile.pe.crossbar.rows": 4, "tile.pes": 2}
    if seed % 3 == 0:
        options |= {"chip.mesh_width": 8, "chip.mesh_height": 8}
        options |= {"tile.pe.crossbars": 9, "tile.pes": 8}
    return tuple(
        map_network(load_hardware("demo", options | {"mapping.placement": how}), network_of(seed))
        for how in ("snake", "traffic")
    )


@pytest.mark.parametrize("seed", SEEDS[:60])
def test_traffic_placement_is_a_permutation_with_no_more_bit_hops(seed):
    snake, traffic = both_placements(seed)
    n_nodes = traffic.mesh_width * traffic.mesh_height
    bits = bits_of(snake)
    assert len(set(traffic.nodes)) == traffic.n_tiles
    assert set(traffic.nodes) <= set(range(n_nodes))
    assert bit_hops(bits, traffic.nodes, traffic.mesh_width) <= bit_hops(bits, snake.nodes, snake.mesh_width)


@pytest.mark.parametrize("seed", SEEDS[:60:4])
def test_no_swap_of_two_nodes_improves_a_traffic_placement(seed):
    _, mapping = both_placements(seed)
    bits, width, nodes = bits_of(mapping), mapping.mesh_width, list(mapping.nodes)
    best = bit_hops(bits, nodes, width)
    nodes += [node for node in range(width * mapping.mesh_height) if node not in nodes]
    for one, two in combinations(range(len(nodes)), 2):
        swapped = list(nodes)
        swapped[one], swapped[two] = swapped[two], swapped[one]
        assert bit_hops(bits, swapped, width) >= best


def test_two_tiles_that_talk_move_next_to_the_port():
    """Three layers of one tile each on a 4 x 4 mesh: port, three tiles in a ring of four nodes, port: four hops."""
    network = crossbar.mlp(4, 4, 4, 4)
    chip = {"chip.mesh_width": 4, "chip.mesh_height": 4, "mapping.placement": "traffic"}
    mapping = map_network(load_hardware("demo", crossbar.SMALL | chip), network)
    assert bit_hops(bits_of(mapping), mapping.nodes, 4) == 4 * 4


# Counts


def counted(each: crossbar.Run, layer) -> dict[str, int]:
    """Reads, skips, conversions of a mapped layer: every PE at every position, bit by bit."""
    hardware, spec, pe = each.mapping.hardware, layer.layer, each.mapping.hardware.tile.pe
    inputs = each.activity.layers[spec.name].inputs
    counts = {"crossbar_reads": 0, "skipped_reads": 0, "adc_conversions": 0}
    for sample, step, y, x in np.ndindex(*inputs.shape[:2], *spec.conv_shape[1:]):
        frame = np.pad(inputs[sample, step], ((0, 0), *((p, p) for p in spec.padding)))
        seen = frame[:, y * spec.stride[0] :, x * spec.stride[1] :]
        for place in layer.pes:
            first, last = layer.col_blocks[place.col_block]
            for bit in range(max(1, int(inputs.max()).bit_length())):
                driven = [
                    any((seen[low:high, ky, kx] >> bit & 1).any() for ky, kx, low, high in segments)
                    for segments in layer.row_blocks[place.row_block]
                ]
                read = driven if pe.crossbar.zero_skip else [True] * len(driven)
                counts["crossbar_reads"] += sum(read)
                counts["skipped_reads"] += len(read) - sum(read)
                conversions = any(read) if pe.column_merge == "analog" else sum(read)
                counts["adc_conversions"] += (last - first) * hardware.cols_per_weight * conversions
    return counts


@pytest.mark.parametrize("seed", range(24))
def test_dense_counts_equal_those_of_a_walk_over_all_windows(seed):
    rng = np.random.default_rng(seed)
    network = network_of(seed)
    values = crossbar.activity(network, 1, 1, seed, float(rng.choice([0.05, 0.3])), int(rng.integers(1, 4)))
    each = crossbar.run(network, values, joins.random_chip(rng) | {"mapping.layout": "dense"})
    rows = crossbar.layer_rows(each)
    expected = [counted(each, row["mapped"]) for row in rows]
    assert [{key: row[key] for key in counts} for row, counts in zip(rows, expected, strict=True)] == expected


@pytest.mark.parametrize(("rows", "crossbars"), [(4, 1), (4, 3), (6, 2), (64, 9)])
def test_dense_counts_without_zero_skip_are_products_of_sizes(rows, crossbars):
    layer = conv(5, 6, 3)
    chip = {"tile.pe.crossbar.rows": rows, "tile.pe.crossbars": crossbars, "tile.pe.crossbar.cols": 16}
    chip |= {"tile.pe.crossbar.zero_skip": False, "mapping.layout": "dense"}
    each = crossbar.run(alone(layer), crossbar.activity(alone(layer), 1, 2), chip)
    table = each.result.layers.to_dict("records")[1]
    n_crossbars, n_pe_rows = ceil(45 / rows), ceil(ceil(45 / rows) / crossbars)
    assert (table["crossbar_reads"], table["adc_conversions"]) == (2 * 25 * n_crossbars * 2, 2 * 25 * n_pe_rows * 6 * 4)


# Everything at once


@lru_cache
def options_of(seed: int) -> dict:
    rng = np.random.default_rng(1000 + seed)
    chosen = {key: values[rng.integers(len(values))] for key, values in OPTIONS.items()}
    two_signs = chosen["tile.pe.crossbar.signed"] == "differential"
    slices = ceil((chosen["mapping.weight_bits"] - two_signs) / chosen["tile.pe.crossbar.bits_per_cell"])
    chosen["tile.pe.crossbar.cols"] = max(chosen["tile.pe.crossbar.cols"], slices * (1 + two_signs))
    return chosen


def with_wide_converters(hardware: Hardware) -> Hardware:
    """The chip with 16-bit converters, which the cost library has no price for."""
    tile = hardware.tile
    pe = tile.pe.model_copy(update={"adc": tile.pe.adc.model_copy(update={"bits": 16})})
    return hardware.model_copy(update={"tile": tile.model_copy(update={"pe": pe})})


@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_sums_are_torchs(seed):
    hardware = with_wide_converters(load_hardware("demo", options_of(seed)))
    generator = torch.Generator().manual_seed(seed)
    limit = 2 ** (hardware.mapping.weight_bits - 1) - 1
    wrong = []
    for one in map_network(hardware, network_of(seed)).layers[seed % 2 :: 2]:
        spec = one.layer
        weights = torch.randint(-limit, limit + 1, np.shape(spec.weights), generator=generator)
        weights.view(-1)[0] = limit
        inputs = torch.randint(0, 4, (1, *spec.in_shape), generator=generator)
        cut = (one.row_blocks, one.col_blocks, pairs_of(one), spec.stride, spec.padding, spec.conv_shape[1:])
        full = torch.as_tensor(replace(spec, weights=weights.numpy()).full_weights)
        programmed = calibrate_ranges(program_layer(full, LayerGeometry(*cut), hardware), inputs, InputFormat(2))
        sums, _ = hardware_sums(programmed, inputs, InputFormat(2))
        expected = functional.conv2d(inputs.double(), weights.double(), None, spec.stride, spec.padding, 1, spec.groups)
        if not torch.allclose(sums, expected, rtol=0, atol=1e-9):
            wrong.append(spec.name)
    assert wrong == []


@pytest.mark.parametrize("seed", SEEDS)
def test_every_mapping_drains_between_its_busiest_server_and_the_sum_of_all_work(seed):
    network = network_of(seed)
    mapping = map_network(load_hardware("demo", options_of(seed)), network)
    netlist = build_netlist(mapping, crossbar.activity(network, 1, 1 + seed % 2, seed))
    trace = execute(netlist)
    check_trace(netlist, trace)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in netlist.servers]
    wires = sum(wire.delay_ps * lane.n_emitted for lane in netlist.lanes() for wire in lane.wires)
    assert max(work) <= trace.end_ps <= sum(work) + wires

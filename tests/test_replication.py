"""Copies of layers: who serves what, random networks against one copy, closed forms, the balance over spare tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_crossbar_chip import linear, neuron
from test_schedules import (
    STAGED,
    ExplainedStreams,
    Simulated,
    conv,
    flow,
    flow_case,
    flowing,
    joining,
    pe_energy,
    sent_by,
    simulate,
    unfinished,
    work,
)

from archsim.engine import geometry
from archsim.errors import MappingError
from archsim.hardware.reader import load_hardware
from archsim.mapping import LayerMapping, Mapping, map_network
from archsim.workload.network import INPUT, Layer, Network, Pool

pytestmark = pytest.mark.many_seeds

SEEDS = range(60)


def copied(seed: int) -> Simulated:
    """A random case with one to four copies, some of them staged."""
    policy = {
        "mapping.replication": 1 + seed % 4,
        "mapping.schedule": ("pipelined", *STAGED, "pipelined")[seed // 4 % 4],
    }
    return flow(seed, *policy.items())


def copies_of(each: Simulated | Mapping) -> dict[str, int]:
    mapping = each if isinstance(each, Mapping) else each.mapping
    return {item.layer.name: item.n_copies for item in mapping.layers}


def mapped(network: Network, **policy) -> Mapping:
    return map_network(load_hardware("demo", {key.replace("__", "."): value for key, value in policy.items()}), network)


# Who serves what


def served(each: Simulated, item: LayerMapping, path: str) -> list[tuple[int, int, int]]:
    """(Sample, timestep, position) of everything that a PE fetched, from the log."""
    log = each.log
    rows = log.rows_of(f"{path}.fetch") & log.actions_of("latch")
    assert set(log["layer"][rows].tolist()) <= {log.layers.index(item.layer.name)}
    return list(zip(*(log[column][rows].tolist() for column in ("sample", "timestep", "token")), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_position_is_served_by_one_copy_and_always_the_same(seed):
    each = copied(seed)
    for item in each.mapping.layers:
        frames = list(np.ndindex(each.activity.n_samples, each.activity.n_timesteps))
        duties = []
        for pe in item.pes:
            found = served(each, item, pe.path)
            duty = sorted({token for _, _, token in found})
            assert sorted(found) == [(*frame, token) for frame in frames for token in duty]
            duties.append((pe.row_block, pe.col_block, pe.copy, duty))
        blocks = {(row, col) for row, col, _, _ in duties}
        for block in blocks:
            union = sorted(token for row, col, _, duty in duties if (row, col) == block for token in duty)
            assert union == list(range(int(np.prod(item.layer.conv_shape[1:]))))
        assert all(one[3] == other[3] for one in duties for other in duties if one[2] == other[2])


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_of_pooling_stay_on_one_copy(seed):
    each = copied(seed)
    for item in each.mapping.layers:
        pool, (_, _, width) = item.layer.pool, item.layer.conv_shape
        if pool is None or item.n_copies == 1:
            continue
        owner = {token: pe.copy for pe in item.pes for _, _, token in served(each, item, pe.path) if pe.row_block == 0}
        for window in np.ndindex(*item.layer.out_shape[1:]):
            corner = [n * s for n, s in zip(window, pool.stride, strict=True)]
            tokens = [(corner[0] + y) * width + corner[1] + x for y, x in np.ndindex(*pool.kernel)]
            number = window[0] * item.layer.out_shape[2] + window[1]
            assert {owner[token] for token in tokens} == {number % item.n_copies}


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_send_every_position_once(seed):
    each = copied(seed)
    for item in each.mapping.layers:
        if item.n_copies > 1:
            positions = each.n_frames * int(np.prod(item.layer.out_shape[1:]))
            for block in range(len(item.col_blocks)):
                names = [f"{item.layer.name}.block{block}.copy{copy}" for copy in range(item.n_copies)]
                ports = [server for server in each.netlist.servers if server.name != "global_buffer"]
                lanes = [lane for port in ports for lane in port.lanes if lane.name in names and lane.reserves]
                sent = np.concatenate([sent_by(lane) for lane in lanes])
                assert (len(lanes), sorted(sent.tolist())) == (item.n_copies, list(range(positions)))


# Against one copy


@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_leaves(seed):
    assert unfinished(copied(seed)) == []


@pytest.mark.parametrize("seed", SEEDS[:24])
def test_every_time_follows_from_its_constraints(seed):
    assert ExplainedStreams(copied(seed)).faults() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_values_decide_is_as_with_one_copy(seed):
    pd.testing.assert_frame_equal(work(copied(seed)), work(flow(seed)), check_exact=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_pes_spend_what_one_copy_spends(seed):
    assert pe_energy(copied(seed)) == pe_energy(flow(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_crossbars_multiply_and_potentials_stay(seed):
    each, plain = copied(seed), flow(seed)
    factors = pd.Series(copies_of(each))
    multiplied = [each.layers[column][1:] - plain.layers[column][1:] * factors for column in ("n_crossbars", "n_pes")]
    bits = [sum(geometry.v_mem_bits(one.mapping).values()) for one in (each, plain)]
    neurons = sum(layer.n_neurons * layer.neuron.state_words for layer in each.mapping.network.layers)
    assert [int(column.abs().sum()) for column in multiplied] == [0, 0]
    assert bits == [neurons * each.mapping.hardware.chip.neuron.v_mem_bits] * 2


def stored_area(each: Simulated, kind: str) -> float:
    return float(each.components["area_um2"][each.components["kind"] == kind].sum())


def test_every_copy_has_a_line_buffer_of_its_own_and_a_share_of_the_potentials():
    layer = conv("a", INPUT, (2, 6, 6), 4)
    network = Network("one", (2, 6, 6), (layer,))
    values = flowing(network, 1, 1, 0, 0.3)
    one, four = (simulate(network, values, {"mapping.replication": n, "tile.pes": 3}) for n in (1, 4))
    ratios = [stored_area(four, kind) / stored_area(one, kind) for kind in ("crossbar", "tile_buffer", "v_mem")]
    assert ratios == pytest.approx([four.mapping.n_tiles, 4, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_are_what_was_asked_for_as_far_as_positions_go(seed):
    network, wanted = flow_case(seed)[0], 1 + seed % 4
    expected = {layer.name: 1 for layer in network.layers}
    for layer in network.layers:
        overlaps = layer.pool is not None and layer.pool.stride < layer.pool.kernel
        if layer.kind == "conv2d" and layer.neuron.kind != "accumulate" and not overlaps:
            expected[layer.name] = min(wanted, int(np.prod(layer.out_shape[1:])))
    assert copies_of(copied(seed)) == expected


# Time of one layer on private resources


def lonely(n_copies: int, steps: int) -> Simulated:
    """Thirteen positions of 1 x 1 kernels; PEs that hold one token throughout are far slower than all else."""
    layer = Layer("a", "conv2d", INPUT, (1, 1, 13), 4, (1, 1), (1, 1), (0, 0), None, None, neuron())
    network = Network("row", (1, 1, 13), (layer,))
    chip = {"tile.pe.pipelined": False, "tile.pe.crossbar.zero_skip": False, "tile.pe.crossbar.read_cycles": 200}
    chip |= {"chip.noc.detail": "ideal", "tile.line_buffer.rows": 100, "tile.pes": 1}
    values = flowing(network, 1, steps, 0, 0.5)
    return simulate(network, values, chip | {"mapping.replication": n_copies})


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("n_copies", [2, 3, 4, 6, 12])
def test_a_layer_bound_by_its_pes_takes_the_services_of_its_busiest_copy(n_copies, steps):
    """Of 13 positions the first copy has one more than the others, at every timestep: its last service ends the run."""
    one, many = lonely(1, steps), lonely(n_copies, steps)
    service = next(lane for lane in one.netlist.lanes() if lane.name == "tile0.pe0").service_ps
    assert len(set(service.tolist())) == 1
    saved = steps * (13 - -(-13 // n_copies)) * int(service[0])
    assert one.latencies_ps[0] - many.latencies_ps[0] == saved


# Balance


def tower(*sizes: int) -> Network:
    """Convolutions of 1 x 1 that emit rows of the given sizes, then a fully connected layer."""
    layers: list[Layer] = []
    source, shape = INPUT, (2, 1, sizes[0])
    for index, size in enumerate(sizes):
        stride = (1, shape[2] // size)
        layer = Layer(f"conv{index}", "conv2d", source, shape, 2, (1, 1), stride, (0, 0), None, None, neuron())
        layers.append(layer)
        source, shape = layer.name, layer.out_shape
    layers.append(linear("fc", source, int(np.prod(shape)), 3))
    return Network("tower", (2, 1, sizes[0]), tuple(layers))


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [(4, [1, 1, 1]), (5, [2, 1, 1]), (6, [3, 1, 1]), (7, [3, 2, 1]), (8, [4, 2, 1]), (9, [5, 2, 1])],
)
def test_spare_tiles_go_to_the_slowest_layer(tiles, expected):
    """Layers of 16, 8 and 4 positions and an fc take a tile per copy; ties go to the earlier layer."""
    found = copies_of(mapped(tower(16, 8, 4), mapping__replication="balance", chip__tiles=tiles, tile__pes=1))
    assert list(found.values()) == [*expected, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_balance_stays_within_the_tiles_and_no_slowest_layer_could_have_more(seed):
    network, overrides, _ = flow_case(seed)
    least = map_network(load_hardware("demo", overrides), network).n_tiles
    tiles = least + seed % 12
    chip = overrides | {"mapping.replication": "balance", "chip.tiles": tiles}
    found = map_network(load_hardware("demo", chip), network)
    copies = copies_of(found)
    slowest = max(network.layers, key=lambda layer: np.prod(layer.conv_shape[1:]) / copies[layer.name])
    alone = replace(slowest, source=INPUT)
    can_copy = copies_of(
        mapped(Network("alone", slowest.in_shape, (alone,)), mapping__replication=copies[slowest.name] + 1)
    )
    more = found.layer(slowest.name).views[0]
    free = tiles - 1 - max(tile for item in found.layers for tile in item.tiles)
    assert found.n_tiles_used <= tiles
    assert can_copy[slowest.name] <= copies[slowest.name] or free < len(more.tiles)


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_a_balanced_chip_drains(seed):
    network, overrides, values = flow_case(seed)
    tiles = map_network(load_hardware("demo", overrides), network).n_tiles + 6
    each = simulate(network, values, overrides | {"mapping.replication": "balance", "chip.tiles": tiles})
    assert unfinished(each) == []


def test_balance_needs_a_number_of_tiles():
    with pytest.raises(MappingError) as caught:
        mapped(tower(8), mapping__replication="balance")
    assert str(caught.value) == (
        "mapping.replication: balance spends spare tiles, and chip.tiles: auto has none; "
        "set chip.tiles to the number of tiles on the chip, or mapping.replication to a number"
    )


def test_balance_on_a_chip_too_small_for_one_copy_says_what_is_missing():
    with pytest.raises(MappingError, match=r"^network 'tower' needs 3 tiles .* has 2, 1 too few\."):
        mapped(tower(8, 4), mapping__replication="balance", chip__tiles=2, tile__pes=1)


# Layers that keep one copy


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("shortcut", {"stem": 1, "inner": 3, "sum": 1}), ("recurrence", {"stem": 3, "back": 1, "state": 1})],
)
def test_layers_that_join_or_come_back_keep_one_copy(kind, expected):
    assert copies_of(mapped(joining(kind), mapping__replication=3)) == expected


def test_fully_connected_layers_overlapping_windows_and_readouts_keep_one_copy():
    layers = (
        conv("plain", INPUT, (2, 6, 6), 2),
        conv("overlap", "plain", (2, 6, 6), 2, pool=Pool((3, 3), (2, 2))),
        conv("windows", "overlap", (2, 2, 2), 2, pool=Pool((2, 2), (2, 2))),
        linear("fc", "windows", 2, 4),
        conv("readout", "fc", (4, 1, 1), 3, 1, neuron=neuron("accumulate")),
    )
    found = copies_of(mapped(Network("mixed", (2, 6, 6), layers), mapping__replication=3))
    assert found == {"plain": 3, "overlap": 1, "windows": 1, "fc": 1, "readout": 1}


@pytest.mark.parametrize("n_copies", [2, 3])
@pytest.mark.parametrize("kind", ["shortcut", "recurrence"])
def test_copies_beside_joins_drain(kind, n_copies):
    network = joining(kind)
    chip = {"mapping.replication": n_copies, "tile.pe.latch_depth": 1, "tile.pe.crossbar.rows": 4}
    assert unfinished(simulate(network, flowing(network, 2, 3, 0, 0.3), chip)) == []


@pytest.mark.parametrize("n_copies", [1, 2])
def test_a_convolution_that_reads_out_sends_its_last_timestep(n_copies):
    layers = (conv("a", INPUT, (2, 4, 4), 3), conv("b", "a", (3, 4, 4), 4, 1, neuron=neuron("accumulate")))
    network = Network("readout", (2, 4, 4), layers)
    each = simulate(network, flowing(network, 2, 3, 0, 0.5), {"mapping.replication": n_copies})
    leaving = each.log.rows_of("output")
    assert (int(leaving.sum()), set(each.log["timestep"][leaving].tolist())) == (2 * 16, {2})


# Copies of single layers


def stated(policy: str | int, **copies: int) -> list[int]:
    """Copies of the layers of a tower of 16, 8 and 4 positions and its readout."""
    found = mapped(
        tower(16, 8, 4),
        mapping__layer_replication=copies,
        mapping__replication=policy,
        chip__tiles=20,
        tile__pes=1,
    )
    return list(copies_of(found).values())


def test_stated_copies_of_a_layer_stand_before_the_policy_for_all():
    assert stated("none", conv1=3) == [1, 3, 1, 1]
    assert stated(2, conv1=3) == [2, 3, 2, 1]
    assert stated(2, conv1=1) == [2, 1, 2, 1]
    assert stated("balance", conv0=3) == [3, 2, 1, 1]


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        (
            {"conv9": 2},
            "mapping.layer_replication: conv9: 2: there is no such layer; layers are conv0, conv1, conv2, fc",
        ),
        (
            {"fc": 2},
            "mapping.layer_replication: fc: 2: this layer cannot be copied; copies are for convolutions on crossbars "
            "whose neurons fire, without joins, recurrence or overlapping pooling windows: conv0, conv1, conv2",
        ),
        (
            {"conv2": 5},
            "mapping.layer_replication: conv2: 5: the layer has 4 output positions to deal out; give no more copies",
        ),
    ],
)
def test_copies_that_cannot_be_are_refused(copies, message):
    with pytest.raises(MappingError) as caught:
        stated("none", **copies)
    assert str(caught.value) == message

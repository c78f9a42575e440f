"""One neuron module for the whole chip, and the port of V_mem: closed forms, random networks against the tiles' own."""

from functools import lru_cache

import numpy as np
import pytest
import test_crossbar_chip as chip
from test_compiled_execution import differences
from test_joins import KINDS, random_chip, random_workload
from test_schedules import ExplainedStreams, Simulated, flowing, pe_energy, simulate, unfinished, work
from test_staged_joins import work_bounds_ps

from archsim.components.noc import xy_route, zero_load_ps
from archsim.errors import MappingError
from archsim.hardware.reader import load_hardware
from archsim.mapping.placement import IO_NODE, traffic_bits

CHIP = {"chip.neuron.level": "chip"}


def two_layers(overrides: dict) -> chip.Run:
    """Two fully connected layers in two tiles each, with one token each."""
    network = chip.mlp(8, 4, 4)
    return chip.run(network, chip.activity(network, 1, 1, rate=1.0), chip.SMALL | {"tile.pes": 1} | overrides)


@pytest.mark.parametrize("detail", ["ideal", "packet"])
def test_sums_of_a_lonely_token_take_the_trip_to_the_module(detail):
    each = two_layers(CHIP | {"chip.noc.detail": detail})
    mapping, log = each.mapping, each.result.log
    home = mapping.nodes[mapping.layers[0].home_tile(0)]
    n_routers = len(xy_route(home, IO_NODE, mapping.mesh_width))
    added = log["leave_ps"][log.rows_of("tile0.accumulator")][0]
    update = log["start_ps"][log.rows_of("chip.v_mem")].min()
    assert update - added == zero_load_ps(mapping.hardware, n_routers, 4 * mapping.hardware.tile.accumulator.bits)


def test_sums_are_partial_sums_to_the_module_and_spikes_leave_from_its_node():
    each = two_layers(CHIP)
    noc = each.result.movement.query("level == 'noc'").set_index(["source", "destination", "class"])
    bits = 4 * each.mapping.hardware.tile.accumulator.bits
    assert noc.loc[("fc1", "chip.neuron", "partial_sums"), ["packets", "bits"]].tolist() == [1, bits]
    # The two tiles of fc2 are one and two routers from the module's node, tile 2 and 3 of a 2 x 2 mesh.
    assert noc.loc[("fc1", "fc2", "spikes"), ["packets", "bits"]].tolist() == [1, 4]
    injected = [name for name in each.result.log.components if name.endswith(".inject")]
    spikes = each.result.events.query("layer == 'fc1' and bits == 4 and action == 'inject'")
    assert (set(spikes["component"]), "noc.router0.inject" in injected) == ({"noc.router0.inject"}, True)


def test_the_module_is_counted_once():
    plain, shared = (two_layers(extra).result.components.groupby("kind") for extra in ({}, CHIP))
    for kind, n in (("neuron", 3), ("pooling", 3), ("v_mem", 1)):  # V_mem holds the same neurons wherever they are
        assert len(shared.get_group(kind)) == 1
        area = shared.get_group(kind)["area_um2"].sum()
        assert plain.get_group(kind)["area_um2"].sum() == pytest.approx(n * area, rel=1e-12)


def test_v_mem_that_is_too_small_is_refused_with_the_sum_over_all_layers():
    with pytest.raises(MappingError) as fault:
        two_layers(CHIP | {"chip.neuron.v_mem_kib": 0.01})
    assert str(fault.value) == (
        "chip.neuron.v_mem_kib is 0.01; the chip's module holds neurons with 128 bits of membrane potential and needs "
        "0.01562 KiB. Raise it, set it to auto, or choose a chip.dram.kind that takes the potentials that do not fit."
    )


@pytest.mark.parametrize(("width", "cycles"), [("auto", 1), (64, 1), (24, 3), (16, 4)])
@pytest.mark.parametrize("level", ["tile", "chip"])
def test_the_v_mem_port_moves_its_width_per_cycle(level, width, cycles):
    """Four potentials of 16 bits, read and written once per token."""
    each = two_layers({"chip.neuron.level": level, "chip.neuron.v_mem_bits_per_cycle": width})
    log = each.result.log
    rows = log.rows_of("chip.v_mem" if level == "chip" else "tile0.v_mem")
    assert set(log["service_ps"][rows].tolist()) == {cycles * 2000}


def test_layers_wait_for_the_module_oldest_first():
    """With one lane the module is what limits a network of two layers; its services never overlap."""
    slow = CHIP | {"chip.neuron.lanes": 1, "chip.neuron.cycles_per_update": 50}
    network = chip.mlp(8, 4, 4)
    values = chip.activity(network, 3, 4, rate=1.0)
    each = chip.run(network, values, chip.SMALL | slow)
    table = each.result.components.set_index("component")
    own = chip.run(network, values, chip.SMALL | slow | {"chip.neuron.level": "tile"})
    busy = 2 * 12 * 4 * (50 + 2) * 2000
    assert table.loc["chip.neuron", "busy_ps"] + table.loc["chip.v_mem", "busy_ps"] == busy
    assert each.trace.end_ps >= busy > own.trace.end_ps * 0.9


@lru_cache
def case(seed: int, level: str) -> Simulated:
    """A random network with joins and recurrence, on a random chip."""
    rng = np.random.default_rng(seed)
    network = random_workload(seed).network
    values = flowing(network, int(rng.integers(1, 3)), int(rng.integers(1, 4)), seed, 0.3)
    overrides = random_chip(rng) | {"chip.neuron.level": level}
    if seed % 3 == 1 and KINDS[seed % 4] not in ("recurrent", "mixed"):
        overrides["mapping.schedule"] = ("layer_by_layer", "tick_batched")[seed % 2]
    if seed % 3 == 2:
        overrides |= {
            "chip.noc.spike_encoding": "address_event",
            "mapping.replication": 2,
            "mapping.placement": "traffic",
        }
    return simulate(network, values, overrides)


@pytest.mark.parametrize("seed", range(16))
def test_every_network_drains_with_the_work_that_its_tiles_would_do(seed):
    each, own = case(seed, "chip"), case(seed, "tile")
    least, largest = work_bounds_ps(each.netlist)
    assert unfinished(each) == []
    assert least <= each.trace.end_ps <= largest
    assert work(each).equals(work(own))
    assert pe_energy(each) == pe_energy(own)
    assert ExplainedStreams(each).faults() == []


@pytest.mark.parametrize("seed", [3, 6, 9])
def test_the_compiled_engine_agrees(seed):
    each = case(seed, "chip")
    assert differences(each.netlist, each.trace) == []


def test_kept_sums_of_a_first_layer_wait_in_the_chips_memory():
    network = chip.mlp(8, 4, 4)
    values = chip.activity(network, 1, 3, rate=1.0)
    once = CHIP | {"mapping.first_layer": "once"}
    log = chip.run(network, values, chip.SMALL | once).result.log
    kept, used = (log.rows_of(f"chip.v_mem.fc1.block0.{port}") for port in ("keep", "current"))
    assert [np.bincount(log["timestep"][rows]).tolist() for rows in (kept, used)] == [[1], [1, 1, 1]]


def test_placement_by_traffic_pulls_homes_towards_the_module():
    mapping = chip.map_network(load_hardware("demo", chip.SMALL | CHIP), chip.mlp(8, 4, 4))
    bits = traffic_bits(mapping)
    sums = 4 * mapping.hardware.tile.accumulator.bits
    assert bits[0, -1] == sums
    assert bits[-1, 1] == 8 * 0 + 4

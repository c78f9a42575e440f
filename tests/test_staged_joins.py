"""Schedules that stage frames, with shortcuts and recurrence: random networks against pipelined runs, and the port."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from test_joins import KINDS, random_chip, random_workload
from test_schedules import (
    STAGED,
    ExplainedStreams,
    Simulated,
    by_frame,
    conv,
    flowing,
    joining,
    pe_energy,
    simulate,
    unfinished,
    work,
)

from archsim.components.netlist import Netlist
from archsim.errors import MappingError
from archsim.hardware.reader import load_hardware
from archsim.mapping import map_network
from archsim.mapping.placement import traffic_bits
from archsim.workload.network import INPUT, Network
from archsim.workload.neurons import no_neurons

SEEDS = [seed for seed in range(2, 22) if KINDS[seed % 4] == "residual"]
RECURRENT = [seed for seed in range(2, 14) if KINDS[seed % 4] in ("recurrent", "mixed")]
CASES = [(seed, schedule) for seed in SEEDS for schedule in STAGED] + [(seed, STAGED[0]) for seed in RECURRENT]


@lru_cache
def joined(seed: int, schedule: str) -> Simulated:
    """A random network with joins on a random chip."""
    rng = np.random.default_rng(seed)
    network = random_workload(seed).network
    values = flowing(network, int(rng.integers(1, 3)), int(rng.integers(1, 4)), seed, 0.3)
    return simulate(network, values, random_chip(rng) | {"mapping.schedule": schedule})


def work_bounds_ps(netlist: Netlist) -> tuple[int, int]:
    """Least and largest time that a run can take: its busiest server, and everything one after the other."""
    services = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in netlist.servers]
    wires = [(lane.n_emitted, wire.delay_ps) for lane in netlist.lanes() for wire in lane.wires]
    return max(services), sum(services) + sum(int(np.sum(np.broadcast_to(delay, n))) for n, delay in wires)


@pytest.mark.parametrize(("seed", "schedule"), CASES)
def test_every_network_drains_between_its_busiest_server_and_the_sum_of_all_work(seed, schedule):
    each = joined(seed, schedule)
    least, largest = work_bounds_ps(each.netlist)
    assert unfinished(each) == []
    assert least <= each.trace.end_ps <= largest


@pytest.mark.parametrize(("seed", "schedule"), CASES)
def test_staged_joins_change_no_count_and_no_energy_of_a_pe_and_make_no_sample_faster(seed, schedule):
    each, plain = joined(seed, schedule), joined(seed, "pipelined")
    pd.testing.assert_frame_equal(work(each), work(plain), check_exact=True)
    assert pe_energy(each) == pe_energy(plain)
    assert (np.array(each.latencies_ps) >= plain.latencies_ps).all()


@pytest.mark.parametrize(("seed", "schedule"), CASES[::4])
def test_every_time_follows_from_its_constraints(seed, schedule):
    assert ExplainedStreams(joined(seed, schedule)).faults() == []


@pytest.mark.parametrize(("seed", "schedule"), CASES)
def test_what_joins_waits_for_whole_frames_of_both(seed, schedule):
    """Additions of a frame (or of a sample) start behind the last write of it, of what is read and of what is added."""
    each = joined(seed, schedule)
    log, early = each.log, []
    for item in each.mapping.layers:
        staged = [name for name in (item.layer.source, *item.layer.adds) if name != INPUT]
        adding = (log["layer"] == log.layers.index(item.layer.name)) & log.actions_of("add")
        adding &= np.array([name.endswith(".accumulator") for name in log.components])[log["component"]]
        for name in staged if item.layer.adds else ():
            stored = log.rows_of("global_buffer") & (log["layer"] == log.layers.index(name)) & log.actions_of("write")
            starts = by_frame(each, adding, "start_ps", np.minimum, schedule)
            early += [item.layer.name] * bool(
                (starts <= by_frame(each, stored, "leave_ps", np.maximum, schedule)).any()
            )
    assert early == []


def bits_of(each: Simulated, name: str) -> int:
    """Bits of one value of a layer on the wire."""
    item, values = each.mapping.network.layer(name), each.activity.layers
    if item.neuron.kind == "none":
        return each.mapping.hardware.tile.accumulator.bits
    largest = [int(values[reader.layer.name].inputs.max()) for reader in each.mapping.consumers(name)]
    if each.mapping.joiners(name):
        largest.append(int(item.emitted(np.ones((1, *item.conv_shape))).max() * values[name].spikes.max()))
    return max(1, max(largest).bit_length())


@pytest.mark.parametrize(("seed", "schedule"), CASES)
def test_every_staged_bit_is_written_once_and_read_once_by_all_that_can_share_and_by_each_that_joins(seed, schedule):
    each = joined(seed, schedule)
    mapping, expected = each.mapping, {}
    for item in mapping.layers:
        name, (channels, height, width) = item.layer.name, item.layer.out_shape
        kind = "partial_sums" if item.layer.neuron.kind == "none" else "spikes"
        readers = mapping.consumers(name)
        alone = [reader for reader in readers if reader.layer.adds or reader.layer.delayed]
        times = (len(readers) > len(alone)) + len(alone) + len(mapping.joiners(name))
        if times:
            bits = each.n_frames * height * width * channels * bits_of(each, name)
            expected[name, kind] = (bits, times * bits)
    table = each.movement[each.movement["level"] == "global_buffer"]
    written = table[table["destination"] == "global_buffer"].groupby(["source", "class"])["bits"].sum()
    read = table[table["source"] == "global_buffer"].copy()
    read["source"] = read["destination"].str.extract(r"^global_buffer\.(\w+)\.read", expand=False)
    read = read.groupby(["source", "class"])["bits"].sum()
    found = {key: (int(written[key]), int(read[key])) for key in written.index if key[0] != "output"}
    assert found == expected


def beside_the_input(deep: bool) -> Network:
    """A layer that reads the input and adds what went through one layer, or two."""
    shape = (2, 4, 4)
    layers = [conv("a", INPUT, shape, 4)] if deep else []
    source, width = ("a", (4, 4, 4)) if deep else (INPUT, shape)
    layers.append(conv("side", source, width, 4, neuron=no_neurons()))
    return Network("beside", shape, (*layers, conv("sum", INPUT, shape, 4, 1, adds=("side",))))


@pytest.mark.parametrize("schedule", STAGED)
@pytest.mark.parametrize("deep", [False, True])
def test_a_layer_that_joins_reads_the_input_a_second_time(deep, schedule):
    network = beside_the_input(deep)
    each = simulate(network, flowing(network, 2, 3, 0, 0.5), {"mapping.schedule": schedule, "tile.pe.latch_depth": 1})
    table = each.movement[each.movement["class"] == "inputs"].set_index("destination")["bits"]
    assert unfinished(each) == []
    assert table["input"] == table["global_buffer.input.read.sum"] == 6 * 16 * 2


def test_a_recurrent_layer_alone_on_the_input_reads_it_at_the_input_port():
    layers = (
        conv("state", INPUT, (2, 4, 4), 4, adds=("back",)),
        conv("back", "state", (4, 4, 4), 4, delayed=True, neuron=no_neurons()),
    )
    network = Network("loop", (2, 4, 4), layers[::-1])
    each = simulate(network, flowing(network, 2, 3, 0, 0.5), {"mapping.schedule": "layer_by_layer"})
    assert unfinished(each) == []
    assert set(each.movement["destination"][each.movement["class"] == "inputs"]) >= {"input"}


def test_feedback_cannot_be_batched_over_timesteps():
    network = joining("recurrence")
    with pytest.raises(MappingError) as caught:
        simulate(network, flowing(network, 1, 2, 0, 0.5), {"mapping.schedule": "tick_batched"})
    assert str(caught.value) == (
        "mapping.schedule is tick_batched, which computes all timesteps of a layer before those of the next; "
        "layer 'back' of network 'loop' (delayed: true) needs what 'state' emits one timestep earlier. "
        "Set mapping.schedule: layer_by_layer or pipelined."
    )


@pytest.mark.parametrize("schedule", STAGED)
def test_a_skip_buffer_of_one_token_is_enough_before_staged_sums(schedule):
    network = joining("shortcut")
    chip = {"mapping.schedule": schedule, "tile.skip_buffer.tokens": 1, "tile.pe.latch_depth": 1}
    assert unfinished(simulate(network, flowing(network, 2, 2, 0, 0.5), chip)) == []


@pytest.mark.parametrize("schedule", STAGED)
def test_placement_counts_staged_frames_at_the_port(schedule):
    """Three layers of a tile each: all that passes between layers goes to the port, and comes back once per reader."""
    network = joining("shortcut")
    mapping = map_network(load_hardware("demo", {"mapping.schedule": schedule, "tile.pes": 8}), network)
    port, (stem, inner, last) = -1, (item.tiles[0] for item in mapping.layers)
    frame = 4 * 16
    assert traffic_bits(mapping) == {
        (port, stem): 2 * 16,
        (stem, port): frame,
        (port, inner): frame,
        (inner, port): frame,
        (port, last): 2 * frame,
        (last, port): frame,
    }

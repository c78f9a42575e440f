"""Chips that do not hold all weights: rounds of the mapping, the writing of crossbars by hand, laws of random runs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from test_attention import MODES, Timed, attention
from test_crossbar_chip import linear, mlp
from test_joins import random_chip, random_workload
from test_schedules import (
    STAGED,
    ExplainedStreams,
    Simulated,
    conv,
    flow_case,
    flowing,
    joining,
    simulate,
    unfinished,
    work,
)
from test_servers import lane, sink, source

import archsim
from archsim.components.netlist import UNBOUNDED, Netlist, Target
from archsim.engine import compiled_execution, geometry
from archsim.engine.conservation import check_trace
from archsim.engine.simpy_execution import execute
from archsim.errors import MappingError, SimulationError
from archsim.hardware.reader import load_hardware
from archsim.mapping import Mapping, map_network
from archsim.report.describe import mapping_sheets
from archsim.workload.network import INPUT, Network

CYCLE_PS, ROW_PS = 2000, 43 * 2000
"""Clock of the demo chip, and what writing a row of cells takes: 85.7 ns in whole cycles."""


def chip(tiles: int, schedule: str = "tick_batched", **others) -> dict:
    keys = {"chip.tiles": tiles, "mapping.overflow": "reload", "mapping.schedule": schedule}
    return keys | {key.replace("__", "."): value for key, value in others.items()}


def rows_of(each: Simulated, component: str, action: str) -> np.ndarray:
    return each.log.rows_of(component) & each.log.actions_of(action)


# By hand


def test_a_round_fetches_carries_and_writes_before_its_data_flow():
    """16 weights of 5 bits are fetched in a cycle and travel as 3 flits over one router; 4 rows are written."""
    network = mlp(4, 4, 4)
    each = simulate(network, flowing(network, 1, 3, 0, 0.5), chip(1, chip__noc__detail="ideal"))
    travel = CYCLE_PS * (4 + 1 + 3)
    log, written = each.log, rows_of(each, "tile0.pe0.crossbar", "write")
    assert log["start_ps"][rows_of(each, "weights", "fetch")][0] == 0
    assert log["start_ps"][written][0] == CYCLE_PS + travel
    assert log["start_ps"][log.rows_of("input")][0] == CYCLE_PS + travel + 4 * ROW_PS
    sums = log["leave_ps"][rows_of(each, "tile0.htree", "transfer")]
    assert log["start_ps"][written][1] == sums[2] + CYCLE_PS + travel  # behind the third timestep's sums of fc1
    staged = log["start_ps"][rows_of(each, "global_buffer.fc1.read", "read")]
    assert staged[0] == log["start_ps"][written][1] + 4 * ROW_PS


@pytest.mark.parametrize(("schedule", "batches"), [("tick_batched", 2), ("layer_by_layer", 6)])
def test_cells_are_written_once_per_round_and_sample_or_timestep(schedule, batches):
    """Two layers of 4 x 4 weights, four cells each, 1.2878 pJ per cell; 5 bits per weight come from off chip."""
    network = mlp(4, 4, 4)
    each = simulate(network, flowing(network, 2, 3, 0, 0.5), chip(1, schedule))
    written = rows_of(each, "tile0.pe0.crossbar", "write")
    assert each.log["count"][written].tolist() == [4 * 4 * 4] * 2 * batches
    assert each.log["energy_pj"][written].sum() == pytest.approx(2 * batches * 64 * 1.2878, rel=1e-12)
    moved = each.movement[each.movement["class"] == "weights"].groupby("level")["bits"].sum()
    assert moved.to_dict() == {
        "dram": 2 * batches * 16 * 5,
        "noc": 2 * batches * 16 * 5,
        "crossbar": 2 * batches * 64 * 2,
    }


def test_pes_are_written_side_by_side_while_their_weights_come_one_after_the_other():
    """A layer on two PEs: the second PE's weights are fetched behind the first one's, both write at once."""
    network = Network("wide", (4, 1, 1), (linear("a", INPUT, 4, 32), linear("b", "a", 32, 4)))
    each = simulate(network, flowing(network, 1, 1, 0, 0.5), chip(1, chip__noc__detail="ideal"))
    fetched = each.log["leave_ps"][rows_of(each, "weights", "fetch")][:2]
    fetch = CYCLE_PS * -(-4 * 16 * 5 // 256)
    travel = CYCLE_PS * (4 + 1 + 4 * 16 * 5 // 32)
    starts = [each.log["start_ps"][rows_of(each, f"tile0.pe{pe}.crossbar", "write")][0] for pe in (0, 1)]
    assert fetched.tolist() == [fetch, 2 * fetch]
    assert starts == [fetch + travel, 2 * fetch + travel]
    assert each.log["start_ps"][each.log.rows_of("input")][0] == starts[1] + 4 * ROW_PS


def test_the_latency_of_a_sample_begins_with_its_first_weights():
    network = mlp(4, 4, 4)
    each = simulate(network, flowing(network, 2, 2, 0, 0.5), chip(1))
    fetched = each.log["start_ps"][rows_of(each, "weights", "fetch")]
    left = each.log["leave_ps"][each.log.rows_of("output")].reshape(2, 2)[:, -1]
    assert each.latencies_ps == [left[0] - fetched[0], left[1] - fetched[2]]


# Mapping


def rounds_of(mapping: Mapping) -> dict[str, list[tuple[int, int]]]:
    """Rounds and tiles of the PEs of every layer."""
    return {item.layer.name: [(pe.round, pe.tile) for pe in item.pes] for item in mapping.layers}


def mapped(network: Network, **keys) -> Mapping:
    return map_network(load_hardware("demo", keys), network)


def test_layers_fill_the_tiles_round_by_round():
    found = mapped(mlp(4, 4, 4, 4, 4), **chip(2))
    assert rounds_of(found) == {"fc1": [(0, 0)], "fc2": [(0, 1)], "fc3": [(1, 0)], "fc4": [(1, 1)]}
    assert (found.n_rounds, found.n_tiles, found.n_pes, found.n_crossbars) == (2, 2, 2, 2)


def test_a_layer_larger_than_the_chip_is_cut_between_column_blocks():
    """128 outputs are 8 column blocks of 16; a tile of 3 PEs holds three of them."""
    found = mapped(mlp(4, 128, 4), **chip(1), **{"tile.pes": 3})
    assert [pe.round for pe in found.layers[0].pes] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [view.blocks for view in found.layers[0].views] == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert (found.layers[1].rounds, found.n_pes) == ((3,), 3)


def test_a_digital_layer_opens_no_round_of_its_own():
    found = mapped(mlp(4, 4, 4), **chip(1), **{"mapping.first_layer": "digital"})
    assert rounds_of(found) == {"fc1": [(0, 0)], "fc2": [(0, 0)]}


@pytest.mark.parametrize("schedule", ["pipelined", *STAGED])
def test_a_chip_that_holds_all_weights_is_not_written(schedule):
    network = mlp(4, 4, 4)
    values = flowing(network, 1, 2, 0, 0.5)
    once, plain = (
        simulate(network, values, chip(2, schedule)),
        simulate(network, values, {"mapping.schedule": schedule}),
    )
    assert once.trace.end_ps == plain.trace.end_ps
    assert not (once.movement["class"] == "weights").any()


def test_potentials_of_all_rounds_stay_in_the_tile_unless_a_round_computes_all_timesteps():
    bits = [geometry.v_mem_bits(mapped(mlp(4, 6, 3), **chip(1, schedule))) for schedule in STAGED]
    assert bits == [{0: (6 + 3) * 16}, {0: 6 * 16}]


def test_parts_are_counted_once():
    network = mlp(4, 4, 4, 4)
    values = flowing(network, 1, 2, 0, 0.5)
    one, three = (simulate(network, values, chip(tiles)) for tiles in (1, 3))
    areas = [each.components.groupby("kind")["area_um2"].sum() for each in (one, three)]
    for kind in ("crossbar", "adc", "neuron", "tile_buffer", "v_mem"):
        assert 3 * areas[0][kind] == pytest.approx(areas[1][kind])


def test_describe_shows_the_rounds():
    layers, quantities = mapping_sheets(mapped(mlp(4, 4, 128), **chip(1), **{"tile.pes": 4}))
    assert [row[-1] for row in layers.rows] == ["0", "1, 2"]
    assert layers.columns[-1] == "rounds"
    assert ("rounds", "3, each written once per sample") in quantities.rows


@pytest.mark.parametrize("schedule", ["pipelined", "layer_by_layer"])
def test_describe_of_one_round_does_not_speak_of_rounds(schedule):
    layers, quantities = mapping_sheets(mapped(mlp(4, 4, 4), **chip(2, schedule)))
    assert "rounds" not in layers.columns
    assert all(name != "rounds" for name, _ in quantities.rows)


# Refusals


def refusal(network: Network, **keys) -> str:
    with pytest.raises(MappingError) as caught:
        mapped(network, **keys)
    return str(caught.value)


def test_rounds_need_a_schedule_that_keeps_frames():
    assert refusal(mlp(4, 4, 4), **chip(1, "pipelined")) == (
        "network 'mlp' needs 2 tiles, chip 'demo' has 1; mapping.overflow is reload, which keeps frames in the global "
        "buffer from round to round, but mapping.schedule is pipelined. Set mapping.schedule: tick_batched or "
        "layer_by_layer, or raise chip.tiles to 2."
    )


def test_recurrent_layers_cannot_take_turns():
    assert refusal(joining("recurrence"), **chip(2, "layer_by_layer")) == (
        "network 'loop' needs 3 tiles, chip 'demo' has 2; mapping.overflow is reload, but layer 'back' (delayed: true) "
        "keeps a frame in its tile for the next timestep while other rounds use the tile. Raise chip.tiles to 3."
    )


def test_a_column_block_larger_than_the_chip_is_refused():
    assert refusal(mlp(2000, 4), **chip(1), **{"tile.pes": 2}) == (
        "one column block of layer 'fc1' has 8 PEs and needs 4 tiles of 2 PEs; chip 'demo' has 1. "
        "With mapping.overflow: reload, a column block is written at once: raise chip.tiles to 4 at least."
    )


def test_without_rounds_the_message_offers_them():
    assert refusal(mlp(4, 4, 4), **{"chip.tiles": 1}).endswith(
        "Raise chip.tiles to 2, set chip.tiles: auto, or set mapping.overflow: reload with mapping.schedule: "
        "tick_batched."
    )


# Random networks on too few tiles


class ExplainedRounds(ExplainedStreams):
    """Knows that a round's start lets a batch of positions flow, and that a PE is done with its batch's last sum."""

    def known(self, index: int, source: int) -> np.ndarray:
        buffer, lane = self.netlist.buffers[index], self.senders[Target("buffer", index, source)]
        n, arrived = len(buffer.last_use), self.entered["buffer", index, source]
        if lane.name.startswith("rounds."):
            return np.repeat(arrived, n // len(arrived))
        if buffer.name.startswith("rounds."):
            return arrived.reshape(n, -1)[:, -1]
        return super().known(index, source)


@lru_cache
def case(seed: int) -> tuple[Simulated, Simulated]:
    """A random network, with or without joins, on tiles enough and on too few."""
    rng = np.random.default_rng(seed)
    network, keys, values = flow_case(seed)
    if seed % 2:
        network, keys = random_workload(4 * seed).network, random_chip(rng)
        values = flowing(network, int(rng.integers(1, 3)), int(rng.integers(1, 4)), seed, 0.3)
    policies = {"mapping.replication": (1, 2), "mapping.fc": ("whole", "stream"), "mapping.schedule": STAGED}
    policies |= {"chip.noc.spike_encoding": ("bitmap", "address_event"), "tile.pes": (2, 4)}
    keys = keys | {key: values[rng.integers(len(values))] for key, values in policies.items()}
    keys["mapping.replication"] = int(keys["mapping.replication"])
    keys["tile.pes"] = int(keys["tile.pes"])
    plain = simulate(network, values, keys)
    blocks = [item.pes_of(block) for item in plain.mapping.layers for block in item.blocks]
    least = max(block[-1].tile - block[0].tile + 1 for block in blocks)
    tiles = int(rng.integers(least, max(least + 1, plain.mapping.n_tiles)))
    return plain, simulate(network, values, keys | {"chip.tiles": tiles, "mapping.overflow": "reload"})


SEEDS = range(3, 16)


def test_most_random_cases_have_several_rounds():
    assert sum(case(seed)[1].mapping.n_rounds > 1 for seed in SEEDS) >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_drain_between_the_busiest_part_and_the_sum_of_all_work(seed):
    _, each = case(seed)
    parts = [sum(int(one.service_ps.sum()) for one in part.lanes) for part in each.netlist.parts()]
    wires = [(one.n_emitted, wire.delay_ps) for one in each.netlist.lanes() for wire in one.wires]
    on_the_way = sum(int(np.sum(np.broadcast_to(delay, n))) for n, delay in wires)
    assert unfinished(each) == []
    assert max(parts) <= each.trace.end_ps <= sum(parts) + on_the_way


@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_change_no_count_and_make_no_run_faster(seed):
    plain, each = case(seed)
    pd.testing.assert_frame_equal(work(each), work(plain), check_exact=True)
    assert (each.latencies_ps[0], each.trace.end_ps) >= (plain.latencies_ps[0], plain.trace.end_ps)
    assert each.trace.end_ps >= plain.trace.end_ps


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_every_time_follows_from_its_constraints(seed):
    assert ExplainedRounds(case(seed)[1]).faults() == []


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_the_compiled_engine_runs_rounds_alike(seed):
    each = case(seed)[1]
    other = compiled_execution.execute(each.netlist)
    pairs = list(zip(other.lanes, each.trace.lanes, strict=True))
    assert all((a.start_ps == b.start_ps).all() and (a.leave_ps == b.leave_ps).all() for a, b in pairs)
    assert all((a.start_cause == b.start_cause).all() and (a.predecessor == b.predecessor).all() for a, b in pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_states_of_every_part_sum_to_the_run(seed):
    each = case(seed)[1]
    states = each.components[["busy_ps", "blocked_ps", "starved_ps", "idle_ps"]]
    assert (states >= 0).all().all()
    assert (states.sum(axis=1) == each.trace.end_ps).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pe_reads_what_was_written_last(seed):
    """In order of time, a PE's services for a layer follow a write of that layer's weights into the PE."""
    each = case(seed)[1]
    log, stale = each.log, []
    for path in {pe.path for item in each.mapping.layers if each.mapping.n_rounds > 1 for pe in item.pes}:
        rows = np.flatnonzero(log.rows_of(f"{path}.crossbar"))
        rows = rows[np.lexsort((log["leave_ps"][rows], log["start_ps"][rows]))]
        writes = log.actions_of("write")[rows]
        written = log["layer"][rows][np.maximum.accumulate(np.where(writes, np.arange(len(rows)), 0))]
        stale += [path] * bool(not writes[0] or (written != log["layer"][rows]).any())
    assert stale == []


@pytest.mark.parametrize(("first_layer", "tiles"), [("once", 3), ("digital", 2)])
@pytest.mark.parametrize("schedule", STAGED)
def test_first_layers_that_keep_their_sums_take_turns_too(schedule, first_layer, tiles):
    layers = (conv("a", INPUT, (2, 4, 4), 20), conv("b", "a", (20, 4, 4), 4), conv("c", "b", (4, 4, 4), 4))
    network = Network("maps", (2, 4, 4), layers)
    values = flowing(network, 2, 3, 0, 0.5)
    values.layers["a"].inputs[:] = values.layers["a"].inputs[:, :1]
    keys = chip(tiles, schedule, tile__pes=2, mapping__first_layer=first_layer)
    each, plain = simulate(network, values, keys), simulate(network, values, keys | {"chip.tiles": "auto"})
    assert unfinished(each) == []
    assert each.mapping.n_rounds > 1
    pd.testing.assert_frame_equal(work(each), work(plain), check_exact=True)


def test_two_roles_of_a_part_at_once_break_a_law():
    netlist = Netlist()
    for name, service in (("a", 5), ("b", 4)):
        out = netlist.channel(f"{name}.out", UNBOUNDED)
        netlist.server(
            "pe", "private", lane(name, [service], inputs=(source(netlist, f"{name}.source", [1]),), output=out)
        )
        sink(netlist, f"{name}.sink", [0], out)
    with pytest.raises(SimulationError) as caught:
        check_trace(netlist, execute(netlist))
    assert str(caught.value) == "pe: serves in two roles at once, such as two rounds"


# Values


def test_values_do_not_ask_when_their_weights_were_written():
    """The same spikes and accuracy in four rounds; the result says that there were several."""
    workload = archsim.load_workload("digits-mlp")
    whole = archsim.load_hardware("demo", {"mapping.schedule": "tick_batched"})
    mapping = archsim.map_network(whole, workload)
    small = archsim.load_hardware("demo", chip(max(len(item.tiles) for item in mapping.layers)))
    first, second = archsim.simulate(whole, workload), archsim.simulate(small, workload)
    accuracies = [
        [result.summary[f"accuracy_{kind}"] for kind in ("ideal", "raw", "calibrated")] for result in (first, second)
    ]
    assert accuracies[0] == accuracies[1]
    assert first.layers["spikes_out"].tolist() == second.layers["spikes_out"].tolist()
    assert second.summary["latency_ps"] > first.summary["latency_ps"]
    assert second.summary["area_um2"] < first.summary["area_um2"]
    n_rounds = archsim.map_network(small, workload).n_rounds
    assert f"the chip does not hold all weights: crossbars are written in {n_rounds} rounds per sample" in second.notes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("schedule", STAGED)
def test_products_take_turns_and_are_not_fetched(schedule, mode):
    """Three layers of weights, a tile each, and two products, which have none."""
    keys = {"mapping.schedule": schedule, "tile.pes": 1}
    plain = Timed(mode, attention(), **keys)
    each = Timed(mode, attention(), **keys, **{"chip.tiles": 1, "mapping.overflow": "reload"})
    names = ["tokens", "crossbar_reads", "adc_conversions", "spikes_in", "spikes_out"]
    fetched = each.result.movement[each.result.movement["source"] == "off_chip"]["destination"]
    assert each.mapping.n_rounds > 2
    assert each.result.layers[names].equals(plain.result.layers[names])
    assert sorted(fetched) == sorted(item.layer.name for item in each.mapping.layers if item.has_weights_in_cells)
    assert each.trace.end_ps > plain.trace.end_ps

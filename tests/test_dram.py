"""The DRAM channel: bursts and rows against a walk, times and energies by hand, conservation, laws of random runs."""

from __future__ import annotations

from functools import lru_cache
from unittest.mock import patch

import numpy as np
import pytest
import test_crossbar_chip as chip
from hypothesis import given
from hypothesis import strategies as st
from test_compiled_execution import differences
from test_joins import KINDS, random_chip, random_workload
from test_rounds import chip as few_tiles
from test_schedules import ExplainedStreams, Simulated, conv, flowing, pe_energy, simulate, unfinished, work
from test_staged_joins import work_bounds_ps

from archsim.components.dram import bursts_and_rows
from archsim.engine.construction import Construction
from archsim.engine.critical_path import path_table
from archsim.engine.geometry import spilled_states
from archsim.engine.samples import sample_latencies_ps
from archsim.engine.tables import movement_table
from archsim.errors import ConfigError
from archsim.hardware.reader import load_hardware
from archsim.report.describe import hardware_sheets
from archsim.workload.network import INPUT, Network

CYCLE_PS = 2000
LPDDR4 = {"chip.dram.kind": "lpddr4"}
BURST_PS, ROW_PS, LATENCY_PS = 5000, 35_000, 21_875
"""32 bytes at 6.4 GB/s; closing and opening a row; CL + tDQSCK."""
LOAD = LPDDR4 | {"chip.dram.input": "load"}


# Bursts and rows


def walk(bits: list[int], frames: list[int], burst_bits: int, per_row: int, is_open: bool) -> list[tuple[int, int]]:
    """Bursts and rows of every token, bit by bit: what is loaded once stays until the frame ends."""
    found, loaded, rows, place, frame = [], set(), set(), 0, None
    for size, now in zip(bits, frames, strict=True):
        if now != frame:
            loaded, rows, place, frame = set(), set(), 0, now
        needed = {bit // burst_bits for bit in range(place, place + size)}
        new = needed - loaded
        of_rows = {burst // per_row for burst in new}
        found.append((len(new), len(of_rows - rows) if is_open else len(of_rows)))
        loaded, rows, place = loaded | new, rows | of_rows, place + size
    return found


@given(st.data())
def test_bursts_and_rows_are_those_of_a_walk_over_all_bits(data):
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 1)), min_size=1, max_size=12))
    burst, per_row = data.draw(st.sampled_from([1, 4])), data.draw(st.sampled_from([1, 2, 3]))
    policy = data.draw(st.sampled_from(["open", "closed"]))
    size = {"chip.dram.burst_bytes": burst, "chip.dram.page_bytes": burst * per_row, "chip.dram.page_policy": policy}
    bits, frames = np.array([one for one, _ in sizes]), np.cumsum([step for _, step in sizes])
    found = bursts_and_rows(load_hardware("demo", LPDDR4 | size), bits, frames)
    expected = walk(bits.tolist(), frames.tolist(), 8 * burst, per_row, policy == "open")
    assert list(zip(*(one.tolist() for one in found), strict=True)) == expected


# By hand


def one_layer(overrides: dict, n_in: int = 8, steps: int = 1) -> chip.Run:
    network = chip.mlp(n_in, 4)
    return chip.run(network, chip.activity(network, 1, steps, rate=1.0), overrides)


@pytest.mark.parametrize(("n_in", "n_bursts", "n_rows"), [(8, 1, 1), (256, 1, 1), (257, 2, 1), (20_000, 79, 2)])
def test_a_loaded_frame_comes_a_row_its_bursts_a_latency_and_a_write_later(n_in, n_bursts, n_rows):
    before, after = one_layer({}, n_in), one_layer(LOAD, n_in)
    read_ps = n_rows * ROW_PS + n_bursts * BURST_PS
    written_ps = -(-n_in // 256) * CYCLE_PS
    added = after.result.summary["latency_ps"] - before.result.summary["latency_ps"]
    assert added == read_ps + LATENCY_PS + written_ps
    row = after.result.components.set_index("component").loc["dram"]
    assert (row["n_actions"], row["busy_ps"], row["bits_out"]) == (n_bursts, read_ps, n_in)
    assert row["energy_dynamic_pj"] == pytest.approx(n_bursts * 256 * 8.0, rel=1e-12)
    assert (row["area_um2"], row["energy_leakage_pj"]) == (0, 0)


def test_high_bandwidth_memory_reads_wider_bursts():
    table = one_layer(LOAD | {"chip.dram.kind": "hbm2"}, 600).result.components.set_index("component")
    assert table.loc["dram", ["n_actions", "busy_ps"]].tolist() == [2, 28_000 + 2 * 64_000 // 32]
    assert table.loc["dram", "energy_dynamic_pj"] == pytest.approx(2 * 512 * 3.9, rel=1e-12)


def test_values_of_a_channel_can_be_given_one_by_one():
    slow = {
        "chip.dram.gb_per_s": 0.5,
        "chip.dram.latency_ns": 1,
        "chip.dram.burst_bytes": 16,
        "chip.dram.row_open_ns": 0,
    }
    added = [one_layer(extra, 200).result.summary["latency_ps"] for extra in (LOAD | slow, {})]
    assert added[0] - added[1] == 2 * 32_000 + 1000 + CYCLE_PS


def test_a_load_runs_ahead_as_far_as_the_global_buffer_has_room():
    """One position per frame: the next is asked for when the one before it was read from the buffer."""
    log = one_layer(LOAD, steps=3).result.log
    asked, read = log["start_ps"][log.rows_of("dram")], log["leave_ps"][log.rows_of("input")]
    assert asked.tolist() == [0, *read[:-1].tolist()]


def test_dram_that_nothing_uses_changes_no_time_and_no_energy():
    before, after = (one_layer(extra, steps=2).result.summary for extra in ({}, LPDDR4))
    assert before == after


@pytest.mark.parametrize("schedule", ["layer_by_layer", "tick_batched"])
def test_reloaded_weights_come_over_the_channel(schedule):
    """4 x 4 weights of 5 bits are one burst: one row, one burst, one latency before they travel."""
    network = chip.mlp(4, 4, 4)
    values = flowing(network, 1, 2, 0, 0.5)
    each = simulate(network, values, few_tiles(1, schedule) | LPDDR4)
    rows = each.log.rows_of("dram")
    batches = 2 * (1 if schedule == "tick_batched" else 2)
    assert each.log["bits"][rows].tolist() == [80] * batches
    assert set(each.log["service_ps"][rows].tolist()) == {ROW_PS + BURST_PS}
    sent = each.log["start_ps"][each.log.rows_of("noc.router0.inject") & (each.log["bits"] == 80)]
    assert sent[0] == ROW_PS + BURST_PS + LATENCY_PS
    weights = movement_table(each.log).query("level == 'dram'")
    assert set(weights["class"]) == {"weights"}
    assert weights["energy_pj"].sum() == pytest.approx(batches * 256 * 8.0, rel=1e-12)


# Frames that spill


MAPS = Network("maps", (1, 32, 32), (conv("wide", INPUT, (1, 32, 32), 8, 1), conv("last", "wide", (8, 32, 32), 1, 1)))
"""A layer whose frame of 8192 bits does not fit beside an input frame of 1024."""


@pytest.mark.parametrize(("schedule", "batch"), [("layer_by_layer", 1), ("tick_batched", 2)])
def test_frames_that_the_global_buffer_does_not_hold_go_to_dram_and_back(schedule, batch):
    values = flowing(MAPS, 1, 2, 0, 0.5)
    keys = {"mapping.schedule": schedule, "chip.global_buffer.kib": 1}
    spilled = simulate(MAPS, values, keys | LPDDR4)
    kept = simulate(MAPS, values, keys | {"chip.global_buffer.kib": 4})
    rows = movement_table(spilled.log).query("level == 'dram'").set_index(["source", "destination"])
    port = ("dram", "global_buffer.wide.read")
    assert rows["bits"].to_dict() == {("wide", "dram"): 2 * 8192, port: 2 * 8192}
    assert rows.loc[port, "energy_pj"] == pytest.approx(2 * 32 * 256 * 8.0, rel=1e-12)
    assert not (spilled.log.rows_of("global_buffer.wide.read")).any()
    read, written = (spilled.log.rows_of("dram") & spilled.log.actions_of(name) for name in ("read", "write"))
    frames = [spilled.log[column][rows] for rows in (read, written) for column in ("start_ps", "leave_ps")]
    first_read, last_written = frames[0].reshape(-1, 1024)[0, 0], frames[3].reshape(-1, 1024)[batch - 1, -1]
    assert first_read == last_written
    assert work(spilled).equals(work(kept))


@lru_cache
def case(seed: int, has_room: bool = False) -> Simulated:
    """A random network with joins on a random chip that loads its input and spills some frames."""
    rng = np.random.default_rng(seed)
    network = random_workload(seed).network
    values = flowing(network, int(rng.integers(1, 3)), int(rng.integers(1, 4)), seed, 0.3)
    overrides = (
        random_chip(rng) | LOAD | {"chip.global_buffer.kib": 1, "chip.dram.queue_depth": int(rng.integers(1, 5))}
    )
    overrides["chip.dram.page_policy"] = str(rng.choice(["open", "closed"]))
    overrides["mapping.schedule"] = "layer_by_layer"
    overrides["chip.neuron.level"] = str(rng.choice(["tile", "chip"]))
    if seed % 3:
        overrides["chip.neuron.v_mem_kib"] = (0.001, 0.05)[seed % 3 - 1]
    if KINDS[seed % 4] not in ("recurrent", "mixed"):
        overrides["mapping.schedule"] = ("layer_by_layer", "tick_batched")[seed % 2]
    if has_room:
        return simulate(network, values, overrides | {"chip.neuron.v_mem_kib": "auto", "chip.global_buffer.kib": 64})
    with patch.object(Construction, "stays_on_chip", lambda _, bits: bits % 3 == 0):  # as if the buffer were smaller
        return simulate(network, values, overrides)


@pytest.mark.parametrize("seed", range(12))
def test_every_network_drains_between_its_busiest_server_and_the_sum_of_all_work(seed):
    each = case(seed)
    least, largest = work_bounds_ps(each.netlist)
    assert unfinished(each) == []
    assert least <= each.trace.end_ps <= largest
    # positions of a burst that is there already take no time, and their order within an instant is not in a trace
    assert [fault for fault in ExplainedStreams(each).faults() if not fault.startswith("dram: ")] == []


@pytest.mark.parametrize("seed", range(12))
def test_what_is_loaded_is_written_and_read_and_what_is_spilled_comes_back(seed):
    each = case(seed)
    table = movement_table(each.log)
    into, out = (table[(table[end] == "dram") & (table["level"] == "dram")] for end in ("destination", "source"))
    loaded = table[(table["source"] == "dram") & (table["level"] == "global_buffer")]["bits"].sum()
    assert out[out["class"] == "inputs"]["bits"].sum() == loaded > 0
    ports = table[
        (table["class"] == "inputs") & (table["source"] == "global_buffer") & (table["level"] == "global_buffer")
    ]
    assert ports["bits"].sum() == loaded
    for data_class in set(into["class"]):
        written = into[into["class"] == data_class]["bits"].sum()
        assert out[out["class"] == data_class]["bits"].sum() >= written  # every reader reads it


@pytest.mark.parametrize("seed", range(12))
def test_the_critical_path_sums_to_the_latency(seed):
    each = case(seed)
    n_samples = each.activity.n_samples
    table = path_table(each.netlist, each.trace, n_samples)
    latencies = sample_latencies_ps(each.log, n_samples)
    assert table.groupby("sample")["duration_ps"].sum().tolist() == latencies.tolist()


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_the_compiled_engine_agrees(seed):
    each = case(seed)
    assert differences(each.netlist, each.trace) == []


@pytest.mark.parametrize("seed", range(4))
def test_more_bandwidth_is_never_slower_where_only_the_input_uses_the_channel(seed):
    network, overrides = chip.random_network(np.random.default_rng(seed)), {"chip.noc.detail": "ideal"}
    values = chip.activity(network, 2, 2, seed)
    speeds = (0.01, 0.1, 1.0, 10.0)
    runs = [chip.run(network, values, overrides | LOAD | {"chip.dram.gb_per_s": speed}) for speed in speeds]
    ends = [each.trace.end_ps for each in runs]
    assert ends == sorted(ends, reverse=True)


# Potentials that spill


SMALL_V_MEM = LPDDR4 | {"chip.neuron.v_mem_kib": 0.001}


@pytest.mark.parametrize("level", ["tile", "chip"])
def test_potentials_that_v_mem_does_not_hold_are_fetched_and_stored_for_every_update(level):
    """Four potentials of 16 bits: a burst each way per timestep, behind the one that the timestep before stored."""
    network = chip.mlp(8, 4)
    values = chip.activity(network, 1, 3, rate=1.0)
    each = chip.run(network, values, SMALL_V_MEM | {"chip.neuron.level": level})
    log, module = each.result.log, "chip.neuron" if level == "chip" else "tile0.neuron"
    read, written = (log.rows_of("dram") & log.actions_of(name) for name in ("read", "write"))
    assert log["bits"][read].tolist() == log["bits"][written].tolist() == [64] * 3
    assert set(log["service_ps"][read | written].tolist()) == {ROW_PS + BURST_PS}
    assert (log["start_ps"][read][1:] >= log["leave_ps"][written][:-1]).all()
    arrived = log["leave_ps"][read] + LATENCY_PS
    assert (log["start_ps"][log.rows_of(module)] >= arrived).all()
    assert not log.rows_of(module.replace("neuron", "v_mem")).any()
    moved = (
        each.result.movement.query("`class` == 'v_mem'").set_index(["level", "source", "destination"])["bits"].to_dict()
    )
    ways = {("dram", "dram", "fc1.block0.v_mem.fetch"): 192, ("dram", module, "dram"): 192}
    if level == "tile":
        ways |= {("noc", "dram", module): 192, ("noc", module, "dram"): 192}
    assert moved == ways
    parts = each.result.components.groupby("kind")["area_um2"].sum()
    assert parts["v_mem"] == 0


def test_potentials_of_a_tile_at_the_ports_node_take_its_router():
    """Tile 0 is at that node; only the chip's own module is behind it."""
    network = chip.mlp(8, 4)
    values = chip.activity(network, 1, 1, rate=1.0)
    runs = [chip.run(network, values, SMALL_V_MEM | {"chip.neuron.level": level}) for level in ("tile", "chip")]
    sent = [each.result.movement.query("level == 'noc' and `class` == 'v_mem'")["packets"].sum() for each in runs]
    assert sent == [2, 0]


def test_blocks_spill_one_by_one_when_the_memory_is_full():
    """Two column blocks of four potentials; there is room for one of them."""
    network = chip.mlp(4, 8)
    values = chip.activity(network, 1, 2, rate=1.0)
    each = chip.run(network, values, chip.SMALL | LPDDR4 | {"chip.neuron.v_mem_kib": 0.01})
    table = each.result.components.set_index("component")
    assert table.loc["tile0.v_mem", "bits_out"] == table.loc["dram", "bits_out"] == 2 * 64
    assert spilled_states(each.mapping) == {("fc1", 0, 1)}


@pytest.mark.parametrize("seed", range(12))
def test_where_frames_and_potentials_wait_changes_no_count(seed):
    spilled, kept = case(seed), case(seed, has_room=True)
    assert work(spilled).equals(work(kept))
    assert pe_energy(spilled) == pe_energy(kept)


def test_some_random_networks_spill_frames_and_some_potentials():
    classes = [set(movement_table(case(seed).log).query("destination == 'dram'")["class"]) for seed in range(12)]
    assert sum("spikes" in found for found in classes) >= 4
    assert sum("v_mem" in found for found in classes) >= 4


# Refusals


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (LPDDR4 | {"chip.dram.gb_per_s": 0}, "chip.dram.gb_per_s"),
        (LPDDR4 | {"chip.dram.latency_ns": -1}, "chip.dram.latency_ns"),
        (
            {"chip.dram.latency_ns": 10},
            "latency_ns is given and kind is none; choose kind: lpddr4, ddr3 or hbm2, or leave latency_ns out",
        ),
        (
            {"chip.dram.input": "load"},
            "input is given and kind is none; choose kind: lpddr4, ddr3 or hbm2, or leave input out",
        ),
        (
            LPDDR4 | {"chip.dram.page_bytes": 48},
            "page_bytes 48 is no multiple of burst_bytes 32; a row holds whole bursts",
        ),
    ],
)
def test_a_channel_that_cannot_be_is_refused(overrides, text):
    with pytest.raises(ConfigError) as caught:
        load_hardware("demo", overrides)
    assert text in str(caught.value)


def test_describe_shows_the_channel():
    rows = dict(next(hardware_sheets(load_hardware("demo", LPDDR4))).rows)
    assert rows["DRAM"] == "lpddr4, 6.4 GB/s, latency 21.875 ns, bursts of 32 B, rows of 2048 B, policy open"

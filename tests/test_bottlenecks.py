"""Planted bottlenecks are found, from chips whose parts are equally busy; stacks and states are complete everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import test_crossbar_chip as crossbar
from test_schedules import conv

import archsim
from archsim.activity import Activity, LayerActivity
from archsim.analysis.critical_path import latency_stack
from archsim.analysis.what_if import what_if
from archsim.engine.samples import sample_latencies_ps
from archsim.engine.simulation import simulate_activity
from archsim.workload.network import INPUT, Network

# Chips that are balanced: every part works for 16 cycles per token, or for a multiple of the other parts' time.

STREAM = {
    "tile.pe.fetch_bits_per_cycle": 18,
    "tile.pe.crossbar.read_cycles": 16,
    "tile.pe.adc.cols_per_adc": 16,
    "tile.pe.shift_add_cycles": 16,
    "tile.htree.bits_per_cycle": 48,
    "chip.neuron.lanes": 1,
    "chip.neuron.v_mem_bits_per_cycle": 32,
    "chip.noc.flit_bits": 2,
    "chip.global_buffer.bits_per_cycle": 1,
}
RELOAD = {
    "chip.tiles": 1,
    "mapping.schedule": "tick_batched",
    "mapping.overflow": "reload",
    "chip.dram.kind": "lpddr4",
    "chip.dram.gb_per_s": 0.24,
    "tile.pe.fetch_bits_per_cycle": 3,
    "tile.pe.crossbar.read_cycles": 16,
    "tile.pe.adc.cols_per_adc": 16,
    "tile.pe.adc.cycles_per_conversion": 6,
    "tile.pe.shift_add_cycles": 100,
    "tile.htree.bits_per_cycle": 8,
    "chip.neuron.lanes": 1,
    "chip.neuron.cycles_per_update": 6,
}
BURSTS = {
    "tile.pe.latch_depth": 4,
    "tile.pe.fetch": "compressed",
    "tile.pe.fetch_bits_per_cycle": 1,
    "tile.pe.crossbar.row_drive": "serial",
    "tile.pe.crossbar.read_cycles": 41,
    "tile.pe.adc.early_stop": True,
    "tile.pe.adc.cols_per_adc": 64,
    "tile.pe.shift_add_cycles": 64,
    "tile.silent_sums": "flag",
    "tile.htree.bits_per_cycle": 4,
}
"""Services follow the driven rows of a token: of most there are none, of some many."""


def two_layers() -> Network:
    first = conv("conv1", INPUT, (16, 4, 4), 16)
    return Network("two", (16, 4, 4), (first, conv("conv2", "conv1", (16, 4, 4), 16)))


def heavy_tailed() -> tuple[Network, Activity]:
    """One layer of 1 x 1; a third of the positions have spikes, in numbers that are distributed by Pareto."""
    network = Network("bursts", (48, 8, 8), (conv("conv1", INPUT, (48, 8, 8), 16, kernel=1),))
    rng, shape = np.random.default_rng(1), (1, 2, 1, 8, 8)
    counts = np.where(rng.random(shape) < 0.35, np.minimum((rng.pareto(1.0, shape) + 1) * 8, 48), 0).astype(int)
    inputs = (rng.random((1, 2, 48, 8, 8)).argsort(axis=2) < counts).astype(np.int64)
    spikes = (rng.random((1, 2, 16, 8, 8)) < 0.2).astype(np.int64)
    return network, Activity({"conv1": LayerActivity(inputs, spikes)}, 1, 2, "recorded")


def run(keys: dict[str, object]) -> archsim.Result:
    """A run of the demo chip with some keys: bursts where services follow the spikes, else two layers."""
    if "tile.pe.fetch" in keys:
        network, values = heavy_tailed()
    else:
        network, values = two_layers(), crossbar.activity(two_layers(), 1, 2)
    mapping = archsim.map_network(archsim.load_hardware("demo", keys), network)
    return simulate_activity(mapping, crossbar.workload(network), values)


def found(keys: dict[str, object]) -> list[dict[str, object]]:
    result = run(keys)
    result.changes = what_if(result)
    return archsim.findings(result)


def busy_ps(result: archsim.Result, kinds: tuple[str, ...]) -> list[int]:
    """Busy time of the busiest component of each kind; a crossbar is driven and read by one and the same stage."""
    busy = result.components.groupby("kind")["busy_ps"].max()
    return [int(busy[kind]) + (int(busy.get("row_driver", 0)) if kind == "crossbar" else 0) for kind in kinds]


PE = ("fetch", "crossbar", "adc", "shift_add")


@pytest.mark.parametrize(
    ("keys", "kinds"),
    [
        (STREAM, (*PE, "htree", "neuron", "v_mem", "link", "input", "port")),
        (RELOAD, (*PE, "htree", "neuron", "dram")),
        (BURSTS, (*PE, "htree")),
    ],
    ids=["stream", "reload", "bursts"],
)
def test_the_base_chips_are_balanced_within_20_percent(keys, kinds):
    busy = busy_ps(run(keys), kinds)
    assert max(busy) <= 1.2 * min(busy)


PLANTED = {
    "ADCs": STREAM | {"tile.pe.adc.cycles_per_conversion": 10},
    "H-trees": STREAM | {"tile.htree.bits_per_cycle": 5},
    "NoC links": STREAM | {"chip.noc.clock_mhz": 50.0},
    "neuron modules": STREAM | {"chip.neuron.cycles_per_update": 10},
    "DRAM": RELOAD | {"chip.dram.gb_per_s": 0.024},
    "latches": BURSTS | {"tile.pe.latch_depth": 1},
}
"""One resource ten times slower than in its base chip; or latches that hold one token where services vary."""


@pytest.mark.parametrize("resource", PLANTED)
def test_a_planted_bottleneck_is_the_first_finding(resource):
    first = found(PLANTED[resource])[0]
    assert first["resource"] == resource
    assert first["expected_gain"] == first["verified_gain"] > 0.15


def test_two_planted_bottlenecks_are_a_pair_with_a_joint_gain():
    listed = found(PLANTED["ADCs"] | PLANTED["neuron modules"])
    first, gains = listed[0], {finding["resource"]: finding["verified_gain"] for finding in listed}
    assert first["resource"] == "ADCs + neuron modules"
    assert first["verified_gain"] > 3 * (gains["ADCs"] + gains["neuron modules"])


# Complete, everywhere


def stack_and_states_are_complete(result: archsim.Result) -> None:
    """The latency stack sums to the latency of every sample, the four states to the run, to the picosecond."""
    latencies = sample_latencies_ps(result.log, int(result.summary["n_samples"])).tolist()
    assert [int(latency_stack(result, n)["duration_ps"].sum()) for n in range(len(latencies))] == latencies
    states = result.components[["busy_ps", "blocked_ps", "starved_ps", "idle_ps"]]
    assert (states >= 0).to_numpy().all()
    assert states.sum(axis=1).nunique() == 1


@pytest.mark.many_seeds
@pytest.mark.parametrize("seed", range(100))
def test_stack_and_states_of_random_nets_are_complete(seed):
    stack_and_states_are_complete(crossbar.case(1000 + seed).result)


SHIPPED = (
    "vgg9-cifar10",
    "vgg9-convolutions",
    "vgg16-cifar10",
    "vgg16-imagenet",
    "resnet19-cifar10",
    "spikformer-block",
)


@pytest.mark.parametrize(
    "workload", ["digits-mlp", "digits-cnn", *(pytest.param(x, marks=pytest.mark.slow) for x in SHIPPED)]
)
def test_stack_and_states_of_shipped_workloads_are_complete(workload):
    loaded = archsim.load_workload(workload, timesteps=1)
    stack_and_states_are_complete(archsim.simulate(archsim.load_hardware("spikesim-rram-64"), loaded))

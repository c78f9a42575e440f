"""Predictions of what a change does, against a simulation of the changed chip from its files on."""

from __future__ import annotations

from functools import lru_cache

import pytest

import archsim
from archsim.analysis.what_if import what_if
from archsim.engine.simulation import simulate_activity
from archsim.mapping.replication import is_copyable

CASES = [
    ("spikesim-rram-64", "digits-cnn", None),
    ("demo", "digits-mlp", None),
    *(
        pytest.param("spikesim-rram-64", workload, timesteps, marks=pytest.mark.slow)
        for workload, timesteps in (
            ("vgg9-cifar10", None),
            ("spikformer-block", None),
            ("resnet19-cifar10", 1),
        )
    ),
]
"""Chip, workload, timesteps."""
MAPPED_ALIKE = (
    "tile.pe.adc.cycles_per_conversion",
    "tile.pe.latch_depth",
    "chip.neuron.lanes",
    "chip.noc.flit_bits",
)


FIGURES = {"latency": "latency_ps", "energy": "energy_per_sample_pj", "area": "area_um2"}


@lru_cache
def base(chip: str, workload: str, timesteps: int | None) -> archsim.Result:
    return archsim.simulate(archsim.load_hardware(chip), archsim.load_workload(workload, timesteps=timesteps))


def twice(result: archsim.Result, key: str) -> dict[str, object]:
    value = result.origin.mapping.hardware
    for part in key.split("."):
        value = getattr(value, part)
    return {key: 2 * value}


@pytest.mark.parametrize(("chip", "workload", "timesteps"), CASES)
def test_where_the_mapping_stays_the_prediction_is_the_simulation_of_the_changed_chip(chip, workload, timesteps):
    result = base(chip, workload, timesteps)
    changes = [twice(result, key) for key in MAPPED_ALIKE]
    changes.append(changes[0] | changes[1])
    for change, row in zip(changes, what_if(result, changes).to_dict("records"), strict=True):
        mapping = archsim.map_network(archsim.load_hardware(chip, change), result.origin.workload)
        again = simulate_activity(mapping, result.origin.workload, result.origin.activity).summary
        gains = {name: 1 - again[key] / result.summary[key] for name, key in FIGURES.items()}
        assert {name: row[f"predicted_{name}_gain"] for name in FIGURES} == gains


@pytest.mark.parametrize(("chip", "workload", "timesteps"), CASES)
def test_where_layers_are_copied_the_prediction_is_within_10_percent(chip, workload, timesteps):
    """The gain of every layer doubled, and of the two that hold the path longest; and latency, energy and area."""
    result = base(chip, workload, timesteps)
    network, path = result.origin.mapping.network, archsim.critical_path(result)
    longest = path[path["layer"].isin([layer.name for layer in network.layers])].groupby("layer")["duration_ps"].sum()
    layers = [name for name in longest.sort_values().index[::-1] if is_copyable(network, network.layer(name))]
    changes = [{"mapping.replication": 2}, *({"mapping.layer_replication": {name: 2}} for name in layers[:2])]
    for row in what_if(result, changes).to_dict("records"):
        for name in FIGURES:
            predicted, verified = row[f"predicted_{name}_gain"], row[f"{name}_gain"]
            assert predicted == pytest.approx(verified, rel=0.1, abs=0.01)
            assert 1 - predicted == pytest.approx(1 - verified, rel=0.1)

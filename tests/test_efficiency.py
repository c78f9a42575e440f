"""Estimates by hand, parts that sum to the difference on every kind of chip, an ANN beside closed forms."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_result import tiny_result

import archsim
from archsim.analysis import efficiency as module
from archsim.analysis.efficiency import ann_comparison, efficiency, estimates_pj, neurobench, parts_pj
from archsim.report.markdown import render_markdown
from archsim.report.run_report import report_page

COLUMNS = "layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride"
LAYERS = ("conv1,6,6,2,4,3,3,1", "conv2,6,6,4,4,3,3,2", "fc,1,1,36,10,1,1,1")


@pytest.fixture
def shapes(tmp_path):
    """A small network of shapes, every neuron of which spikes with a given rate."""

    def load(rate: float, timesteps: int = 3) -> archsim.api.Workload:
        (tmp_path / "net.csv").write_text("\n".join([COLUMNS, *LAYERS]) + "\n")
        return archsim.load_workload(tmp_path / "net.csv", timesteps=timesteps, settings={"assumed_rate": rate})

    return load


def simulated(workload: archsim.api.Workload, chip: str = "demo", **keys: object) -> archsim.Result:
    overrides = {name.replace("__", "."): value for name, value in keys.items()}
    return archsim.simulate(archsim.load_hardware(chip, overrides), workload)


# Estimate and difference


def test_estimates_are_counts_times_energies_of_an_operation():
    """20 dense operations, half of the activations silent; 10 accumulates and 3 multiply-accumulates."""
    found = estimates_pj(tiny_result(effective_macs=3.0).summary)
    expected = {"formula_fp32": 20 * 0.5 * 0.9, "formula_int8": 20 * 0.5 * 0.03}
    expected |= {"counts_fp32": 10 * 0.9 + 3 * 4.6, "counts_int8": 10 * 0.03 + 3 * 0.23}
    assert found == pytest.approx(expected, rel=1e-12)
    assert estimates_pj(tiny_result(activation_sparsity=None).summary) is None


def test_parts_of_a_small_run_by_hand():
    """Two reads of 3 pJ together, of which the second is made a timestep later; conversions 0.9 pJ, buffer 0.3 pJ."""
    result = tiny_result()
    result.log["timestep"][1] = 1
    assert parts_pj(result, 2.0) == pytest.approx(
        {"first_reads": 1.0 - 2.0, "repeated_reads": 2.0, "data_movement": 0.3, "converters": 0.9, "leakage": 5.0}
    )


CHIPS = {
    "demo": ("demo", {}),
    "spikesim": ("spikesim-rram-64", {}),
    "isaac": ("isaac-rram-128", {}),
    "dram": ("demo", {"chip__dram__kind": "lpddr4", "chip__dram__input": "load"}),
    "digital": ("demo", {"mapping__first_layer": "digital"}),
    "staged": ("demo", {"mapping__schedule": "tick_batched"}),
    "reload": (
        "demo",
        {"mapping__schedule": "tick_batched", "mapping__overflow": "reload", "chip__tiles": 1, "tile__pes": 3},
    ),
}


@pytest.mark.parametrize("name", CHIPS)
def test_parts_sum_to_the_difference(shapes, name):
    chip, keys = CHIPS[name]
    result = simulated(shapes(0.3), chip, **keys)
    found = efficiency(result)
    assert found["simulated_pj"] == result.summary["energy_per_sample_pj"]
    assert sum(found["parts_pj"].values()) == pytest.approx(found["difference_pj"], rel=1e-12)
    assert ("array_writes" in found["parts_pj"]) == (name == "reload")
    assert "other" not in found["parts_pj"]


def test_repeated_reads_are_those_of_the_log_after_the_first_timestep(shapes):
    result = simulated(shapes(0.3))
    events = result.events
    in_arrays = events["component"].astype(str).str.endswith((".crossbar", ".row_driver"))
    later = events["energy_pj"][in_arrays & (events["timestep"] > 0) & (events["action"] != "leak")].sum()
    assert parts_pj(result, 0.0)["repeated_reads"] == pytest.approx(later, rel=1e-12)


# ANN


def test_a_network_that_always_spikes_is_its_own_ann_but_for_the_potentials(shapes):
    """All inputs are 1 at every timestep, so one pass of the ANN is the first timestep without accesses of V_mem."""
    result = simulated(shapes(1.0))
    ann = ann_comparison(result)
    one = simulated(shapes(1.0, timesteps=1))
    v_mem = one.components["energy_dynamic_pj"][one.components["kind"] == "v_mem"].sum()
    assert v_mem > 0
    assert ann["latency_ps"] == ann["snn_first_timestep_ps"] == one.summary["latency_ps"]
    assert ann["snn_first_timestep_pj"] == pytest.approx(one.summary["energy_pj"], rel=1e-12)
    assert ann["energy_pj"] == pytest.approx(one.summary["energy_pj"] - v_mem, rel=1e-12)
    assert ann["break_even_timesteps_latency"] == 1
    assert ann["break_even_timesteps_energy"] == pytest.approx(1 - v_mem / ann["snn_further_timestep_pj"], rel=1e-9)


def test_a_spiking_run_of_break_even_length_would_cost_what_the_ann_costs(shapes):
    result = simulated(shapes(0.3))
    ann = ann_comparison(result)
    for key, unit in (("energy", "pj"), ("latency", "ps")):
        first, further = ann[f"snn_first_timestep_{unit}"], ann[f"snn_further_timestep_{unit}"]
        assert first + (ann[f"break_even_timesteps_{key}"] - 1) * further == pytest.approx(ann[f"{key}_{unit}"])
        figure = {"energy": "energy_per_sample_pj", "latency": "latency_ps"}[key]
        assert first + 2 * further == pytest.approx(result.summary[figure])


def test_activations_are_spike_counts_in_four_bits_and_static_inputs_stay():
    counts = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]]).T.reshape(1, 3, 4, 1, 1)
    assert module._ann_values(counts).ravel().tolist() == [0, 5, 10, 15]
    image = np.broadcast_to(np.array([7, -3]).reshape(1, 1, 2, 1, 1), (1, 3, 2, 1, 1))
    assert module._ann_values(image).ravel().tolist() == [7, -3]


def test_more_bits_take_more_reads():
    """Inputs of conv2 are one bit wide as spikes and four as activations, read bit by bit."""
    workload = archsim.load_workload("digits-mlp", timesteps=2)
    result = simulated(workload)
    spikes, values = (result.origin.activity.layers["fc2"].inputs, module._ann_activity(result.origin.activity))
    assert (spikes.max(), values.layers["fc2"].input_bits) == (1, 4)
    assert np.array_equal(values.layers["fc2"].inputs > 0, spikes.any(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("steps", "reason"), [(1, "the run has one timestep only, so what a further one costs is not known")]
)
def test_what_cannot_be_compared_says_why(shapes, steps, reason):
    assert ann_comparison(simulated(shapes(0.3, steps))) == {"reason": reason}


def test_recurrence_products_circuits_and_lost_spikes_have_no_ann(shapes):
    result = simulated(shapes(0.3))
    mapping, activity = result.origin.mapping, result.origin.activity

    def with_layer(**changes: object) -> dict[str, object]:
        layers = (replace(mapping.network.layers[0], **changes), *mapping.network.layers[1:])
        network = replace(mapping.network, layers=layers)
        result.origin = result.origin._replace(mapping=replace(mapping, network=network))
        return ann_comparison(result)["reason"]

    assert with_layer(delayed=True) == "the network is recurrent: one pass is not the same network"
    assert with_layer(kind="product").startswith("the network multiplies activities")
    first = replace(activity.layers["conv1"], read_power_w=np.ones((1, 1)))
    driven = replace(activity, layers=activity.layers | {"conv1": first})
    result.origin = result.origin._replace(mapping=mapping, activity=driven)
    assert ann_comparison(result)["reason"].startswith("the read energy is the circuit's (v_read_v)")
    result.origin = None
    assert ann_comparison(result) == {"reason": "the run's spikes are not at hand"}


# What is shown


def test_neurobench_has_its_names():
    found = neurobench(tiny_result().summary)
    operations = {"Effective_MACs": 0.0, "Effective_ACs": 10.0, "Dense": 20.0}
    assert found == {
        "Footprint": 80,
        "ConnectionSparsity": None,
        "ClassificationAccuracy": 0.95,
        "ActivationSparsity": 0.5,
        "SynapticOperations": operations,
    }


def test_the_section_tells_estimate_parts_and_ann(shapes, tmp_path):
    result = simulated(shapes(0.3))
    result.efficiency = efficiency(result)
    archsim.write_explanation(result, result.write(tmp_path / "run"))
    loaded = archsim.Result.load(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "findings.json").read_text())["efficiency"] == result.efficiency
    assert render_markdown(report_page(loaded)) == render_markdown(report_page(result))
    page = render_markdown(report_page(loaded))
    assert "**Papers' formula gives " in page
    assert "| sum: simulated - first estimate | " in page
    assert "As an ANN with 4-bit activations the same network takes " in page
    assert "; this run has 3." in page


def test_the_section_says_why_there_is_no_ann(shapes):
    result = simulated(shapes(0.3, 1))
    assert "usual estimate" not in render_markdown(report_page(result))
    result.efficiency = efficiency(result)
    page = render_markdown(report_page(result))
    assert "There is no comparison with an ANN: the run has one timestep only" in page
    assert "break-even" not in page

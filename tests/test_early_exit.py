"""Dynamic timesteps: samples that end by themselves, and what becomes of the timesteps behind."""

from dataclasses import replace

import numpy as np
import pytest

import archsim
from archsim.analysis.early_exit import exits, part_of
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError, MappingError, WorkloadError


@pytest.fixture(scope="module")
def hardware():
    return archsim.load_hardware("demo")


@pytest.fixture(scope="module")
def workload():
    return archsim.load_workload("digits-mlp")


@pytest.fixture(scope="module")
def found(hardware, workload):
    return {
        policy: archsim.early_exit(hardware, workload, 0.9, policy, samples=4) for policy in ("drain", "squash", "wait")
    }


def test_a_sample_exits_at_its_first_sure_timestep():
    outputs = np.array([[[0.0, 0.0], [0.0, 4.0], [9.0, 0.0]], [[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert exits(outputs, 0.8).tolist() == [2, 1]  # softmax of 2 and 3 is 0.88 and 0.95
    assert exits(outputs, 0.9).tolist() == [3, 1]
    assert exits(outputs, 0.9, scale=2.0).tolist() == [2, 1]
    assert exits(outputs, 1.0).tolist() == [3, 3]


def test_outputs_over_time_end_in_the_outputs(hardware, workload):
    activity = archsim.infer(archsim.map_network(hardware, workload), workload, 3)
    assert activity.outputs_over_time.shape == (3, workload.n_timesteps, 10)
    np.testing.assert_array_equal(activity.outputs_over_time[:, -1], activity.outputs)


def test_without_exits_nothing_is_wasted_and_a_run_is_a_run(hardware, workload):
    table = archsim.early_exit(hardware, workload, 1.0, "drain", samples=1)
    result = archsim.simulate(hardware, workload)
    assert table["n_timesteps"].tolist() == [workload.n_timesteps]
    assert table["wasted_pj"].tolist() == [0.0]
    answer = result.log.to_frame().query("start_ps >= @table.latency_ps[0] and timestep >= 0")["energy_pj"].sum()
    assert table["energy_pj"][0] == pytest.approx(result.summary["energy_dynamic_pj"] - answer)
    assert 0 < table["latency_ps"][0] <= result.summary["latency_ps"]


def test_policies_exit_alike_and_differ_in_what_they_waste(found):
    drain, squash, wait = found["drain"], found["squash"], found["wait"]
    assert drain["n_timesteps"].tolist() == squash["n_timesteps"].tolist() == wait["n_timesteps"].tolist()
    assert 1 <= drain["n_timesteps"].min() < 5
    assert drain["latency_ps"].tolist() == squash["latency_ps"].tolist()
    early = drain["n_timesteps"] < 5
    assert (squash["wasted_pj"][early] < drain["wasted_pj"][early]).all()
    assert (wait["wasted_pj"] == 0).all()
    assert (wait["latency_ps"][drain["n_timesteps"] > 1] > drain["latency_ps"][drain["n_timesteps"] > 1]).all()
    # what follows a decision in a timestep that is not the last, such as sending idle sums, counts in one of them only
    np.testing.assert_allclose(wait["energy_pj"], drain["energy_pj"], rtol=1e-3)


def test_useful_and_wasted_energy_are_the_energy_of_the_timesteps_begun(hardware, workload, found):
    mapping = archsim.map_network(hardware, workload)
    activity = archsim.infer(mapping, workload, 4)
    for sample in range(4):
        log = simulate_activity(mapping, workload, part_of(activity, sample, slice(None))).log.to_frame()
        row = found["drain"].iloc[sample]
        begun = log[(log["timestep"] >= 0) & (log["timestep"] < row["n_begun"])]
        answer = log[(log["timestep"] == row["n_timesteps"] - 1) & (log["start_ps"] >= row["latency_ps"])]
        total = begun["energy_pj"].sum() - answer["energy_pj"].sum()
        assert row["energy_pj"] + row["wasted_pj"] == pytest.approx(total)
        late = log[(log["timestep"] >= row["n_timesteps"]) & (log["start_ps"] < row["latency_ps"])]
        assert found["squash"]["wasted_pj"][sample] == pytest.approx(late["energy_pj"].sum())


def test_answers_are_those_of_the_timestep_of_exit(hardware, workload, found):
    outputs = archsim.infer(archsim.map_network(hardware, workload), workload, 4).outputs_over_time
    for row in found["drain"].itertuples():
        assert row.is_right == (outputs[row.sample, row.n_timesteps - 1].argmax() == workload.input.labels[row.sample])


def test_messages_say_what_is_possible(hardware, workload):
    with pytest.raises(
        ConfigError, match=r"^confidence is 2 and policy 'drain'; confidence is a probability from 0 to"
    ):
        archsim.early_exit(hardware, workload, 2)
    with pytest.raises(ConfigError, match=r"^confidence is 0\.5 and policy 'kill'; .* the policy drain, squash, wait$"):
        archsim.early_exit(hardware, workload, 0.5, "kill")
    once = archsim.load_hardware("demo", {"mapping.first_layer": "once"})
    with pytest.raises(MappingError, match=r"^policy wait runs timesteps one by one, and mapping\.first_layer: once"):
        archsim.early_exit(once, workload, 0.5, "wait")
    shapes = archsim.load_workload("vgg9-convolutions", timesteps=1)
    with pytest.raises(WorkloadError, match=r"^workload 'vgg9-convolutions' has no weights, so nobody knows when it"):
        archsim.early_exit(archsim.load_hardware("spikesim-rram-64"), replace(shapes), 0.5, samples=1)


def test_a_part_of_an_activity_keeps_its_widths(hardware):
    """Pooled spikes of a single timestep may be smaller than the largest of all."""
    workload = archsim.load_workload("digits-cnn")
    workload = replace(workload, input=replace(workload.input, labels=None))  # no accuracy, so only 4 samples run
    whole = archsim.infer(archsim.map_network(hardware, workload), workload, 4)
    one = part_of(whole, 2, slice(0, 1))
    assert {name: layer.input_bits for name, layer in one.layers.items()} == {
        name: layer.input_bits for name, layer in whole.layers.items()
    }
    assert (one.n_samples, one.n_timesteps) == (1, 1)
    np.testing.assert_array_equal(one.layers["conv2"].inputs[0, 0], whole.layers["conv2"].inputs[2, 0])

"""Dynamic timesteps: samples that end by themselves, and what becomes of the timesteps behind."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins

import archsim
from archsim.cli import main
from archsim.engine import compiled_execution, simpy_execution
from archsim.engine.conservation import check_trace
from archsim.engine.platforms import build_netlist
from archsim.engine.streams import Execution, decided_ps, execute_stream, first_starts_ps, frames_of
from archsim.errors import MappingError, SimulationError, WorkloadError
from archsim.hardware.reader import load_hardware
from archsim.inference import run_ideal
from archsim.inference.judging import Judge
from archsim.mapping import map_network
from archsim.mapping.combinations import check_combinations
from archsim.sweeps.activities import activity_of, arrays_of

POLICIES = ("drain", "squash", "wait")
NEVER = np.iinfo(np.int64).max


# When a sample ends


def test_a_sample_ends_at_its_first_sure_timestep():
    outputs = np.array([[[0.0, 0.0], [0.0, 4.0], [9.0, 0.0]], [[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert Judge(0.8).exits(outputs).tolist() == [2, 1]  # softmax of 2 and 3 is 0.88 and 0.95
    assert Judge(0.9).exits(outputs).tolist() == [3, 1]
    assert Judge(0.9, gain=2.0).exits(outputs).tolist() == [2, 1]
    assert Judge(1.0).exits(outputs).tolist() == [3, 3]
    assert Judge().exits(outputs).tolist() == [3, 3]
    assert Judge(0.8).answers(outputs).tolist() == [[0.0, 4.0], [3.0, 0.0]]
    assert Judge(0.8).n_right(outputs, np.array([0, 0])) == 1


def test_outputs_after_a_timestep_are_those_of_a_network_stopped_there():
    workload = archsim.load_workload("digits-mlp")
    values = workload.input.frame(0, 5, workload.n_timesteps).copy()
    over_time = run_ideal(workload.network, values, workload.n_timesteps, workload.input.scale).outputs_over_time
    for steps in range(1, workload.n_timesteps + 1):
        stopped = run_ideal(workload.network, values[:, :steps], steps, workload.input.scale).outputs
        np.testing.assert_array_equal(over_time[:, steps - 1], stopped)


# What becomes of timesteps: random networks on random chips, samples that are decided at random


@cache
def case(seed: int, policy: str):
    """A mapped random network, its activity with random exits, and its execution."""
    rng = np.random.default_rng(seed)
    network = joins.random_workload(seed).network
    n_samples, n_timesteps = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    values = crossbar.activity(network, n_samples, n_timesteps, seed, 0.3)
    values = replace(values, exits=rng.integers(1, n_timesteps + 1, n_samples))
    fewer_tiles = {"tile.pe.crossbar.rows": 16, "tile.pe.crossbar.cols": 64, "mapping.placement": "snake"}
    chip = joins.random_chip(rng) | fewer_tiles | {"mapping.early_exit": policy}
    mapping = map_network(load_hardware("demo", chip), network)
    done = execute_stream(mapping, values, simpy_execution.execute)
    check_trace(done.netlist, done.trace)
    return mapping, values, done


def work_of(done: Execution) -> pd.DataFrame:
    """Services with their sample, timestep, start, and energy."""
    rows = []
    for lane, times in zip(done.netlist.lanes(), done.trace.lanes, strict=True):
        sample, step = frames_of(lane)
        energy = sum((action.energy_pj for action in lane.actions), np.zeros(lane.n_tokens))
        rows.append(
            pd.DataFrame(
                {
                    "sample": sample,
                    "step": step,
                    "start_ps": times.start_ps,
                    "service_ps": lane.service_ps,
                    "energy_pj": energy,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


@pytest.mark.many_seeds
@pytest.mark.parametrize("policy", ["drain", "squash"])
@pytest.mark.parametrize("seed", range(15))
def test_a_timestep_begins_unless_its_sample_was_decided_before(seed, policy):
    mapping, values, done = case(seed, policy)
    begun, starts, decided = done.activity.begun, first_starts_ps(done), decided_ps(done, values.exits)
    for sample in range(values.n_samples):
        assert (starts[sample, values.exits[sample] : begun[sample]] <= decided[sample]).all()
        assert (starts[sample, begun[sample] :] == NEVER).all()
        if policy == "drain" and begun[sample] < values.n_timesteps:  # the next one would have come too late
            more = begun.copy()
            more[sample] += 1
            netlist = build_netlist(mapping, values.cut(more))
            other = Execution(netlist, simpy_execution.execute(netlist), values.cut(more))
            assert decided_ps(other, values.exits)[sample] == decided[sample]
            assert first_starts_ps(other)[sample, begun[sample]] > decided[sample]


@pytest.mark.many_seeds
@pytest.mark.parametrize("seed", range(15))
def test_squash_serves_what_has_started_and_nothing_later(seed):
    _, values, done = case(seed, "squash")
    work, decided = work_of(done), decided_ps(done, values.exits)
    is_late = (work["step"] >= values.exits[work["sample"]]) & (work["start_ps"] > decided[work["sample"]])
    assert (work.loc[is_late, ["service_ps", "energy_pj"]] == 0).all(axis=None)
    netlist = build_netlist(case(seed, "squash")[0], done.activity)
    whole = work_of(Execution(netlist, done.trace, done.activity))
    pd.testing.assert_frame_equal(work[~is_late], whole[~is_late])


FORWARD = [seed for seed in range(20) if not any(x.delayed for x in joins.random_workload(seed).network.layers)]
"""Networks without recurrence."""


@pytest.mark.many_seeds
@pytest.mark.parametrize("seed", FORWARD)
def test_with_wait_every_timestep_has_the_chip_to_itself(seed):
    mapping, values, done = case(seed, "wait")
    np.testing.assert_array_equal(done.activity.begun, values.exits)
    starts, last = first_starts_ps(done), 0
    for sample, exits in enumerate(values.exits.tolist()):
        for step in range(exits):
            answered = decided_ps(done, np.where(np.arange(values.n_samples) == sample, step + 1, 0))[sample]
            assert starts[sample, step] >= last
            layers = {
                name: replace(
                    layer,
                    inputs=layer.inputs[sample, step][None, None],
                    spikes=layer.spikes[sample, step][None, None],
                    least_bits=(layer.input_bits, layer.operand_bits),
                )
                for name, layer in values.layers.items()
            }
            one = replace(values, layers=layers, n_samples=1, n_timesteps=1, exits=np.array([1]))
            alone = execute_stream(mapping, one, simpy_execution.execute)
            assert answered - starts[sample, step] == decided_ps(alone, np.array([1]))[0]
            last = answered


@pytest.mark.many_seeds
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", FORWARD[:6])
def test_both_engines_agree(seed, policy):
    mapping, values, done = case(seed, policy)
    other = execute_stream(mapping, values, compiled_execution.execute)
    np.testing.assert_array_equal(done.activity.begun, other.activity.begun)
    assert done.trace.end_ps == other.trace.end_ps
    for mine, yours in zip(done.trace.lanes, other.trace.lanes, strict=True):
        np.testing.assert_array_equal(mine.start_ps, yours.start_ps)
        np.testing.assert_array_equal(mine.leave_ps, yours.leave_ps)


@pytest.mark.many_seeds
@pytest.mark.parametrize("seed", range(3))
def test_without_exits_a_stream_is_a_run(seed):
    """Networks that spike tell every timestep anyway; all timesteps begin, whoever is sure."""
    mapping, values, _ = case(seed, "drain")
    every = replace(values, exits=np.full(values.n_samples, values.n_timesteps))
    done = execute_stream(mapping, every, simpy_execution.execute)
    assert (done.activity.begun == values.n_timesteps).all()
    if not any(layer.neuron.kind == "accumulate" for layer in mapping.network.layers):
        netlist = build_netlist(mapping, replace(values, exits=None))
        assert simpy_execution.execute(netlist).end_ps == done.trace.end_ps


def test_what_does_not_settle_is_an_error(monkeypatch):
    network = archsim.load_workload("digits-mlp").network
    mapping = map_network(load_hardware("demo", {"mapping.early_exit": "squash"}), network)
    values = replace(crossbar.activity(network, 1, 2, 0, 0.3), exits=np.array([1]))
    monkeypatch.setattr("archsim.engine.streams._Search.is_settled_by", lambda self, done: False)
    with pytest.raises(SimulationError) as error:
        execute_stream(mapping, values, simpy_execution.execute)
    assert str(error.value) == (
        "which timesteps begin with mapping.early_exit: squash could not be settled; set it to wait"
    )


# A shipped network


@pytest.fixture(scope="module")
def workload():
    whole = archsim.load_workload("digits-cnn")
    part = replace(whole.input, values=whole.input.values[:40], labels=whole.input.labels[:40])
    return replace(whole, input=part)


@pytest.fixture(scope="module")
def found(workload):
    return {
        policy: archsim.simulate(chip(policy), workload, samples=6, engine="simpy") for policy in ("none", *POLICIES)
    }


def chip(policy: str, **changes):
    keys = {"mapping.early_exit": policy, "mapping.exit_confidence": 0.8}
    return archsim.load_hardware("spikesim-rram-64", keys | changes)


def test_ending_early_saves_time_and_energy(found):
    none, drain, squash, wait = (found[policy].summary for policy in ("none", *POLICIES))
    assert none["mean_timesteps"] == none["mean_timesteps_begun"] == 4
    assert none["energy_wasted_pj"] == 0
    assert none["accuracy_mean_timesteps"] is None
    assert found["none"].samples is None
    assert 1 <= drain["mean_timesteps"] == squash["mean_timesteps"] == wait["mean_timesteps"] < 4
    assert drain["mean_timesteps_begun"] > wait["mean_timesteps_begun"] == wait["mean_timesteps"]
    assert drain["energy_wasted_pj"] > squash["energy_wasted_pj"] > wait["energy_wasted_pj"] == 0
    assert none["energy_pj"] > drain["energy_pj"] > squash["energy_pj"] > wait["energy_dynamic_pj"]
    assert none["latency_ps"] > drain["latency_ps"] > squash["latency_ps"]
    assert wait["latency_per_timestep_ps"] == wait["latency_ps"] / wait["mean_timesteps"]
    # dense operations are those of timesteps that begin
    assert wait["synaptic_ops"] == pytest.approx(none["synaptic_ops"] * wait["mean_timesteps"] / 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_samples_sum_to_the_run(found, policy):
    result = found[policy]
    samples, summary = result.samples, result.summary
    assert samples["energy_pj"].sum() == pytest.approx(summary["energy_dynamic_pj"])
    assert samples["energy_wasted_pj"].sum() == pytest.approx(summary["energy_wasted_pj"])
    assert round(samples["latency_ps"].mean()) == summary["latency_ps"]
    for sample in range(6):
        path = archsim.critical_path(result, sample)
        assert path["duration_ps"].sum() == samples["latency_ps"][sample]
        assert path["timestep"].iloc[-1] == samples["timesteps"][sample] - 1
    log = result.events.query("sample >= 0")
    assert (log.groupby("sample")["timestep"].max() + 1).tolist() == samples["timesteps_begun"].tolist()
    wasted = log[log["timestep"] >= samples["timesteps"].to_numpy()[log["sample"]]]["energy_pj"].sum()
    assert wasted == pytest.approx(summary["energy_wasted_pj"])


def test_reads_that_were_stopped_are_not_skipped_reads(found):
    due = {policy: result.layers[["crossbar_reads", "skipped_reads"]].sum().sum() for policy, result in found.items()}
    tokens = {policy: result.layers.set_index("layer")["tokens"]["conv1"] for policy, result in found.items()}
    assert due["wait"] < due["squash"] < due["drain"] < due["none"]
    assert tokens["wait"] < tokens["squash"] == tokens["drain"] < tokens["none"]


def test_accuracy_is_that_of_the_answers(workload, found):
    hardware = chip("squash", **{"mapping.calibration": "none"})
    mapping = archsim.map_network(hardware, workload)
    activity = archsim.infer(mapping, workload, 40)
    whole = archsim.infer(archsim.map_network(chip("none", **{"mapping.calibration": "none"}), workload), workload, 40)
    assert activity.exits.mean() == activity.accuracy.mean_timesteps
    is_right = activity.outputs.argmax(1) == workload.input.labels
    assert is_right.mean() == activity.accuracy.raw
    late = activity.exits == workload.n_timesteps
    np.testing.assert_array_equal(activity.outputs[late], whole.outputs[late])
    assert found["squash"].summary["accuracy_calibrated"] == found["wait"].summary["accuracy_calibrated"]


def test_a_cut_activity_keeps_its_widths(workload):
    """Pooled spikes of a few timesteps may be smaller than the largest of all."""
    whole = archsim.infer(archsim.map_network(chip("wait"), workload), workload, 4)
    cut = whole.cut(np.array([1, 2, 1, 3]))
    assert {name: layer.input_bits for name, layer in cut.layers.items()} == {
        name: layer.input_bits for name, layer in whole.layers.items()
    }
    sample, step = cut.frames
    assert (sample.tolist(), step.tolist()) == ([0, 1, 1, 2, 3, 3, 3], [0, 0, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(cut.layers["conv2"].inputs[2, 0], whole.layers["conv2"].inputs[1, 1])
    again = activity_of(arrays_of(whole))
    np.testing.assert_array_equal(again.exits, whole.exits)


def test_a_first_layer_that_is_read_once_ends_early_too(workload, found):
    once = archsim.simulate(chip("squash", **{"mapping.first_layer": "once"}), workload, samples=3, engine="simpy")
    assert once.samples["timesteps"].tolist() == found["squash"].samples["timesteps"].tolist()[:3]
    rows = once.events.query("layer == 'conv1' and action == 'drive'")
    assert rows["timestep"].max() == 0
    assert once.samples["timesteps_begun"].max() > 1


def test_the_command_line_reports_what_is_wasted(tmp_path, capsys):
    folder = str(tmp_path / "a")
    assert main(["run", "demo", "digits-mlp", "--samples", "4", "--set", "mapping.early_exit=drain", "-o", folder]) == 0
    told = capsys.readouterr().out
    assert "Energy wasted" in told
    assert "of 5, 5 begun" in told
    assert main(["report", folder]) == 0
    page = (tmp_path / "a" / "report.md").read_text()
    assert "When does the network stop, and what is wasted?" in page
    assert "mapping.early_exit: drain" in page
    assert "Finding out whether the network is sure of a sample takes neither time nor energy." in page
    assert archsim.Result.load(folder).samples["timesteps"].max() <= 5
    efficiency = json.loads((tmp_path / "a" / "findings.json").read_text())["efficiency"]
    assert sum(efficiency["parts_pj"].values()) == pytest.approx(efficiency["difference_pj"])
    assert main(["run", "demo", "digits-mlp", "-o", folder]) == 0
    assert not (tmp_path / "a" / "samples.csv").exists()


def test_messages_say_what_is_possible(workload):
    refused = {
        ("mapping.schedule", "tick_batched"): (
            "mapping.early_exit is wait, which ends samples timestep by timestep, and mapping.schedule is "
            "tick_batched, which computes all timesteps of a layer before any answer. Set mapping.schedule: pipelined "
            "or layer_by_layer, or mapping.early_exit: none."
        ),
        ("mapping.first_layer", "once"): (
            "mapping.early_exit is wait, which lets a timestep in when the one before has been judged, and "
            "mapping.first_layer is once, with which only the first one may enter. Set mapping.first_layer: repeat, or "
            "mapping.early_exit: drain or squash."
        ),
    }
    for (key, value), message in refused.items():
        with pytest.raises(MappingError) as error:
            archsim.map_network(chip("wait", **{key: value}), workload)
        assert str(error.value) == message
    reload = {"mapping.overflow": "reload", "mapping.schedule": "layer_by_layer"}
    with pytest.raises(MappingError) as error:
        archsim.map_network(chip("drain", **reload), workload)
    assert str(error.value) == (
        "mapping.early_exit is drain, which ends samples timestep by timestep, and mapping.overflow is reload, whose "
        "rounds are planned for whole samples. Set mapping.overflow: error and chip.tiles: auto, or "
        "mapping.early_exit: none."
    )
    loading = {"chip.dram.kind": "hbm2", "chip.dram.input": "load"}
    with pytest.raises(MappingError) as error:
        archsim.map_network(chip("wait", **loading), workload)
    assert str(error.value) == (
        "mapping.early_exit is wait, which lets a timestep in when the one before has been judged, and chip.dram.input "
        "is load, which fetches timesteps ahead. Set chip.dram.input: on_chip, or mapping.early_exit: drain or squash."
    )
    recurrent = replace(workload.network.layers[-1], name="back", source="fc4", delayed=True)
    network = replace(workload.network, layers=(*workload.network.layers, recurrent))
    with pytest.raises(MappingError) as error:
        check_combinations(chip("wait"), network)
    assert str(error.value) == (
        "mapping.early_exit is wait, which lets a timestep in when the one before has been judged, and layer 'back' "
        "(delayed: true) begins with what the timestep before emitted, judged or not. Set mapping.early_exit: drain or "
        "squash."
    )
    shapes = archsim.load_workload("vgg9-convolutions", timesteps=2)
    with pytest.raises(WorkloadError) as error:
        archsim.simulate(chip("drain"), shapes)
    assert str(error.value) == (
        "workload 'vgg9-convolutions' is a network without weights, so nobody knows when it would be sure of a sample; "
        "give a network with weights and an input, or set mapping.early_exit: none"
    )

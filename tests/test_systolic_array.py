"""The systolic array: both executions agree; times, energies and traffic by closed forms; stalls, values, refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

import archsim
from archsim.api import load_hardware, load_workload, simulate
from archsim.errors import ConfigError, MappingError
from archsim.hardware.systolic import SystolicArray
from archsim.mapping import ArrayMapping, map_network
from archsim.result import Result
from archsim.units import ceil_div
from archsim.workload.attention import spikformer_block
from archsim.workload.builders import mlp, spikesim_vgg9_convolutions
from archsim.workload.model import Workload, WorkloadSettings
from archsim.workload.network import Network
from archsim.workload.neurons import no_neurons

ORDERS = [
    (dataflow, order)
    for dataflow in ("output_stationary", "weight_stationary")
    for order in ("tick_batched", "timestep_outer")
]
CYCLE_PS = 2500


def array(**overrides: object) -> SystolicArray:
    found = load_hardware("sata-16x8", {key.replace("__", "."): value for key, value in overrides.items()})
    assert isinstance(found, SystolicArray)
    return found


@lru_cache
def digits(dataflow: str = "output_stationary", order: str = "tick_batched") -> Result:
    hardware = load_hardware("sata-16x8", {"array.dataflow": dataflow, "mapping.loop_order": order})
    return simulate(hardware, load_workload("digits-cnn"))


def of(network: Network, rate: float = 0.1, timesteps: int = 4) -> Workload:
    return Workload("test", network, timesteps, None, settings=WorkloadSettings(assumed_rate=rate))


def moved(result: Result, data_class: str, level: str = "dram") -> int:
    movement = result.movement
    return int(movement.loc[(movement["class"] == data_class) & (movement["level"] == level), "bits"].sum())


def part(result: Result, name: str) -> dict[str, float]:
    components = result.components
    return dict(components[components["component"] == name].iloc[0])


@pytest.mark.parametrize(("dataflow", "order"), ORDERS)
def test_both_executions_agree_in_every_service(dataflow, order):
    hardware = load_hardware("sata-16x8", {"array.dataflow": dataflow, "mapping.loop_order": order})
    workload = load_workload("digits-mlp")
    simpy, compiled = (simulate(hardware, workload, samples=2, engine=engine) for engine in ("simpy", "compiled"))
    assert simpy.events.equals(compiled.events)
    assert {**simpy.summary, "engine": ""} == {**compiled.summary, "engine": ""}
    for sample in (0, 1):
        path = archsim.critical_path(compiled, sample)
        assert path["duration_ps"].sum() == pytest.approx(compiled.summary["latency_ps"], rel=0.05)


def test_the_critical_path_sums_to_the_latency():
    assert archsim.critical_path(digits())["duration_ps"].sum() == digits().summary["latency_ps"]


# Time


@pytest.mark.parametrize(("dataflow", "order"), ORDERS)
def test_the_array_is_busy_for_the_cycles_of_all_folds(dataflow, order):
    """SCALE-Sim's 2R + C + T - 2 per fold; R less where weights stay for the next timestep."""
    result, mapping = (
        digits(dataflow, order),
        map_network(array(array__dataflow=dataflow, mapping__loop_order=order), load_workload("digits-cnn")),
    )
    cycles = 0
    for item in mapping.layers:
        bits = result.origin.activity.layers[item.layer.name].input_bits
        if dataflow == "output_stationary":
            cycles += 4 * item.n_folds * (32 + 8 + item.depth * bits - 2)
            continue
        sizes = [min(item.block, item.positions - first) for first in range(0, item.positions, item.block)]
        preloads = 16 * item.n_depth_blocks * item.n_col_blocks * len(sizes) * (1 if order == "tick_batched" else 4)
        streamed = sum(16 + 8 + size * bits - 2 for size in sizes) * item.n_depth_blocks * item.n_col_blocks * 4
        cycles += preloads + streamed
    assert part(result, "pe_array")["busy_ps"] == cycles * CYCLE_PS


def test_one_fold_by_hand():
    """mlp 16-4: one fold of 2 * 16 + 8 + 16 - 2 = 54 cycles. DRAM brings 16 bits and 512 bits in a burst each, one
    after the other, opens a row for each; the weights are written in 2 cycles of 256 bits, and arrive last."""
    events = simulate(array(), of(mlp((16, 4)), rate=1.0, timesteps=1)).events
    access = round(64e3 / 4.0) + 27_500
    start = 2 * access + 13_750 + 2 * CYCLE_PS
    fold = events[(events["component"] == "pe_array") & (events["action"] == "cycle")].iloc[0]
    assert (fold["start_ps"], fold["service_ps"]) == (start, 54 * CYCLE_PS)
    update = events[(events["component"] == "pe_array.neuron") & (events["action"] == "update")].iloc[0]
    assert (update["start_ps"], update["service_ps"], update["count"]) == (start + 54 * CYCLE_PS, CYCLE_PS, 4)


def test_slow_dram_holds_up_the_array_and_a_faster_one_never_slows_it():
    workload = load_workload("digits-mlp")
    latencies, starved = [], []
    for gb_per_s in (0.05, 0.5, 5.0, 500.0):
        result = simulate(array(chip__dram__gb_per_s=gb_per_s), workload)
        latencies.append(result.summary["latency_ps"])
        starved.append(part(result, "pe_array")["starved_ps"])
    assert latencies == sorted(latencies, reverse=True)
    assert starved == sorted(starved, reverse=True)
    weights_ps = sum(layer.n_weights for layer in workload.network.layers) * 8 / 8 / 0.05 * 1e3
    assert weights_ps < latencies[0] < 1.2 * weights_ps
    assert starved[-1] < 0.05 * latencies[-1] < 0.2 * starved[0]


def test_a_narrow_buffer_holds_the_array_by_what_streaming_takes_longer():
    """Weights of a fold: depth x 8 filters x 8 bits at 16 bits per cycle take 4 cycles per operand instead of one."""
    wide, narrow = digits(), simulate(array(buffers__bits_per_cycle=16), load_workload("digits-cnn"))
    mapping = narrow.origin.mapping
    held = 0
    for item in mapping.layers:
        bits = narrow.origin.activity.layers[item.layer.name].input_bits
        sizes = [min(8, item.layer.out_channels - col) for col in range(0, item.layer.out_channels, 8)]
        held += sum(
            4 * item.n_blocks * max(ceil_div(item.depth * size * 8, 16) - item.depth * bits, 0) for size in sizes
        )
    assert part(narrow, "weight_buffer.read")["busy_ps"] == held * CYCLE_PS > 0
    assert part(wide, "weight_buffer.read")["busy_ps"] == 0
    assert narrow.summary["latency_ps"] >= wide.summary["latency_ps"] + held * CYCLE_PS


# Energy


def test_energy_of_the_array_is_its_cycles_and_its_spikes():
    result = digits()
    library, busy = result.origin.mapping.hardware.library, part(result, "pe_array")["busy_ps"] // CYCLE_PS
    executed = 0
    for item in result.origin.mapping.layers:
        spec, values = item.layer, result.origin.activity.layers[item.layer.name].inputs[0]
        pad = [(0, 0), (0, 0), (spec.padding[0],) * 2, (spec.padding[1],) * 2]
        bits = sum(np.pad((values >> bit) & 1, pad).astype(int) for bit in range(8))
        _, height, width = spec.conv_shape
        for y in range(spec.kernel[0]):
            for x in range(spec.kernel[1]):
                seen = bits[:, :, y : y + height, x : x + width]
                executed += int(seen.sum()) * spec.out_channels
    events = result.events
    array_pj = 128 * busy * library.energy_pj("spike_mac", "cycle", bits=8)
    array_pj += executed * library.energy_pj("spike_mac", "accumulate", bits=8)
    assert part(result, "pe_array")["energy_dynamic_pj"] == pytest.approx(array_pj, rel=1e-12)
    pads_pj = (128 * busy * 17 + executed * 9) * library.energy_pj("scratchpad", "access")
    assert part(result, "pe_array.scratchpads")["energy_dynamic_pj"] == pytest.approx(pads_pj, rel=1e-12)
    assert events["energy_pj"].sum() == pytest.approx(result.summary["energy_pj"], rel=1e-12)


def test_silence_saves_energy_but_no_time():
    loud, silent = (simulate(array(), of(spikesim_vgg9_convolutions(), rate, timesteps=1)) for rate in (1.0, 0.0))
    assert silent.summary["latency_ps"] == loud.summary["latency_ps"]
    accumulates = loud.events[loud.events["action"] == "accumulate"]
    assert silent.events[silent.events["action"] == "accumulate"]["count"].sum() == 0
    per_spike = 0.062775 + 9 * 0.031225
    energies = [
        sum(part(result, name)["energy_dynamic_pj"] for name in ("pe_array", "pe_array.scratchpads"))
        for result in (loud, silent)
    ]
    saved = energies[0] - energies[1]
    assert saved == pytest.approx(accumulates["count"].sum() * per_spike, rel=1e-9)


# Traffic


@pytest.mark.parametrize(("dataflow", "order"), ORDERS)
def test_weights_come_from_dram_once_per_sample_or_once_per_timestep(dataflow, order):
    result = digits(dataflow, order)
    n_weights = sum(layer.n_weights for layer in result.origin.mapping.network.layers)
    assert moved(result, "weights") == n_weights * 8 * (1 if order == "tick_batched" else 4)


def test_potentials_stay_in_the_pes_only_with_outputs_stationary_and_timesteps_together():
    result = digits("output_stationary", "timestep_outer")
    n_neurons = sum(layer.n_neurons for layer in result.origin.mapping.network.layers)
    assert moved(digits(), "v_mem") == moved(digits(), "v_mem", "global_buffer") == 0
    assert moved(result, "v_mem", "global_buffer") == 2 * 3 * n_neurons * 8
    assert moved(result, "v_mem") == 0


@pytest.mark.parametrize(("dataflow", "n_inside"), [("output_stationary", 0), ("weight_stationary", 2)])
def test_potentials_pass_between_batches_of_timesteps(dataflow, n_inside):
    """Two batches of two of four timesteps: one crossing; inside each batch one step more with weights stationary."""
    hardware = array(mapping__batch_timesteps=2, buffers__ofmap_kib=4, array__dataflow=dataflow)
    result = simulate(hardware, load_workload("digits-cnn"))
    layers = result.origin.mapping.network.layers
    n_neurons = sum(layer.n_neurons for layer in layers)
    assert moved(result, "weights") == 2 * 8 * sum(layer.n_weights for layer in layers)
    assert moved(result, "v_mem") == 2 * n_neurons * 8
    assert moved(result, "v_mem", "global_buffer") == 2 * n_inside * n_neurons * 8


def test_potentials_that_do_not_fit_the_output_buffer_go_to_dram():
    hardware = array(mapping__loop_order="timestep_outer", buffers__ofmap_kib=1)
    result = simulate(hardware, load_workload("digits-cnn"))
    n_neurons = sum(layer.n_neurons for layer in result.origin.mapping.network.layers)
    assert (moved(result, "v_mem"), moved(result, "v_mem", "global_buffer")) == (2 * 3 * n_neurons * 8, 0)


def test_sums_of_several_depth_blocks_meet_in_the_output_buffer():
    result = digits("weight_stationary")
    sums = sum(
        2 * (item.n_depth_blocks - 1) * item.positions * item.layer.out_channels
        for item in result.origin.mapping.layers
    )
    assert moved(result, "partial_sums", "global_buffer") == sums * 16 * 4


def test_shortcuts_pass_dram_as_spikes_or_as_sums():
    """ResNet-19: the blocks that keep their size add spikes, the two that halve it sums of a 1 x 1 convolution."""
    result = simulate(array(), load_workload("resnet19-cifar10", timesteps=1))
    shortcuts = [layer for layer in result.origin.mapping.network.layers if layer.neuron.kind == "none"]
    sums = sum(int(np.prod(layer.conv_shape)) for layer in shortcuts)
    assert len(shortcuts) == 2
    assert moved(result, "partial_sums") == 2 * 16 * sums
    joined = result.events[result.events["action"] == "pass"]["count"].sum()
    assert joined == sum(item.n_folds for item in result.origin.mapping.layers if item.layer in shortcuts)


def test_every_map_leaves_whole_and_pooled():
    result = digits()
    written = result.movement[(result.movement["source"] == "ofmap_buffer") & (result.movement["level"] == "dram")]
    layers = result.origin.mapping.network.layers
    activity = result.origin.activity.layers
    bits = sum(
        int(np.prod(layer.out_shape)) * 4 * activity[reader.name].input_bits for layer, reader in pairwise(layers)
    )
    assert written["bits"].sum() == bits + layers[-1].n_neurons * 16


# Values and figures


def test_values_are_those_of_the_network_with_quantised_weights():
    exact = simulate(array(chip__neuron__v_mem_bits=32, mapping__weight_bits=16), load_workload("digits-cnn"))
    assert exact.summary["accuracy_raw"] == exact.summary["accuracy_ideal"]
    assert exact.layers["error_rel"].max() < 1e-3
    assert digits().layers["error_rel"].max() > 1e-3


def test_what_does_not_apply_is_null():
    summary = digits().summary
    names = ("n_crossbars", "n_tiles", "cell_utilisation", "accuracy_calibrated")
    assert [summary[name] for name in names] == [None] * 4
    assert summary["n_pes"] == 128
    assert len(digits().later.tiles()) == 0


def test_layers_and_components_sum_to_the_run():
    result = digits()
    states = result.components[["busy_ps", "blocked_ps", "starved_ps", "idle_ps"]]
    assert (states.sum(axis=1) == states.sum(axis=1).iloc[0]).all()
    assert (states >= 0).all().all()
    assert result.layers["neuron_updates"].sum() == 4 * sum(
        layer.n_neurons for layer in result.origin.mapping.network.layers
    )


def test_the_array_of_the_baseline_takes_wide_inputs_in_one_cycle():
    """8-bit inputs: one cycle on Eyeriss, bit by bit on SATA."""
    workload = load_workload("digits-cnn", timesteps=1)
    eyeriss, sata = simulate(load_hardware("eyeriss-16x8"), workload), simulate(array(), workload)
    first = sata.origin.activity.layers["conv1"].input_bits
    assert first > 1
    mapping = sata.origin.mapping
    assert isinstance(mapping, ArrayMapping)
    bits = [sata.origin.activity.layers[item.layer.name].input_bits for item in mapping.layers]
    extra = sum(item.n_folds * item.depth * (count - 1) for item, count in zip(mapping.layers, bits, strict=True))
    busy = [part(result, "pe_array")["busy_ps"] for result in (sata, eyeriss)]
    assert busy[0] - busy[1] == extra * CYCLE_PS


def test_area_is_that_of_the_published_parts():
    """128 PEs of 97 + 129 + 892 um2, buffers of 0.526 + 2 x 0.124 mm2: 0.92 mm2."""
    assert digits().summary["area_um2"] == pytest.approx(0.92e6, rel=0.005)


# What it refuses


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"tile.pe.adc.bits": 4},
            "--set tile.pe.adc.bits=4: unknown key tile; it belongs to kind: crossbar_chip, so leave it out of a "
            "systolic array",
        ),
        (
            {"mapping.replication": 2},
            "--set mapping.replication=2: unknown key mapping.replication; it belongs to kind: crossbar_chip, so leave "
            "it out of a systolic array",
        ),
        ({"array.row": 8}, "--set array.row=8: unknown key array.row; did you mean array.rows?"),
    ],
)
def test_keys_of_crossbar_chips_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_hardware("sata-16x8", overrides)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"array.pe.input_bits": 2}, "mac is spike and input_bits is 2; a spike is 1 bit; or set mac: multiply"),
        ({"kind": "cpu"}, "--set kind=cpu: kind is 'cpu'; it must be 'crossbar_chip' or 'systolic_array'"),
        ({"chip.dram.input": "on_chip"}, "dram.input is on_chip, but a systolic array loads every map from DRAM"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_hardware("sata-16x8", overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("hardware", "network", "message"),
    [
        (
            {"buffers.weight_kib": 1},
            mlp((2048, 8)),
            "the weights of 8 filters of layer 'fc1' have 131072 bits; buffers.weight_kib 1 holds 8192. "
            "Raise it to 16 at least.",
        ),
        (
            {"array.dataflow": "weight_stationary", "buffers.ofmap_kib": 1, "array.pe.psum_bits": 32, "array.cols": 64},
            mlp((64, 64)),
            "the sums of one position of layer 'fc1' over 4 timesteps have 8704 bits; half of buffers.ofmap_kib 1 "
            "holds 4096. Raise it to 3 at least, or lower mapping.batch_timesteps.",
        ),
        (
            {},
            spikformer_block(),
            "layer 'scores' multiplies two activities; systolic array 'sata-16x8' runs layers with weights only. Use a "
            "crossbar chip.",
        ),
    ],
)
def test_what_does_not_fit_says_what_is_missing(hardware, network, message):
    with pytest.raises(MappingError) as error:
        map_network(load_hardware("sata-16x8", hardware), of(network))
    assert str(error.value) == message


def test_batches_divide_the_timesteps():
    with pytest.raises(MappingError) as error:
        map_network(array(mapping__batch_timesteps=3), load_workload("digits-cnn"))
    assert str(error.value) == "mapping.batch_timesteps is 3; it must divide the 4 timesteps of the workload"


def test_a_bare_network_does_not_say_how_many_timesteps_are_batched():
    with pytest.raises(MappingError, match="map a workload, which says how many"):
        map_network(array(), mlp((4, 4)))


def test_what_a_change_would_do_is_a_simulation_of_the_changed_array():
    result = simulate(array(), load_workload("digits-mlp"))
    row = archsim.what_if(result, {"array.cols": 16}).iloc[0]
    changed = simulate(array(array__cols=16), load_workload("digits-mlp"))
    assert row["latency_ps"] == changed.summary["latency_ps"] < result.summary["latency_ps"]
    assert (row["resource"], row["values"]) == ("PE array", "kept")


def test_a_trace_replays_on_an_array(tmp_path):
    from archsim.workload.trace import write_trace

    hardware, workload = array(), load_workload("digits-mlp")
    write_trace(tmp_path / "spikes.npz", workload, archsim.api.record(workload, hardware))
    replayed = simulate(hardware, load_workload(tmp_path / "spikes.npz"))
    direct = simulate(hardware, workload)
    for figure in ("latency_ps", "energy_pj", "accuracy_raw"):
        assert replayed.summary[figure] == direct.summary[figure]


def test_recurrence_runs_timestep_by_timestep_only():
    """Sums of recurrent weights go to DRAM and come back to the layer that they join, in the timestep after."""
    plain = mlp((64, 32, 4))
    back = replace(plain.layers[0], name="back", source="fc1", in_shape=(32, 1, 1), delayed=True, neuron=no_neurons())
    layers = (back, replace(plain.layers[0], adds=("back",)), plain.layers[1])
    workload = of(replace(plain, layers=layers), rate=0.3)
    with pytest.raises(MappingError) as error:
        simulate(array(), workload)
    assert str(error.value) == (
        "layer 'back' reads what was emitted a timestep earlier, but mapping.loop_order: tick_batched runs all "
        "timesteps of a layer before the next. Set mapping.loop_order: timestep_outer."
    )
    result = simulate(array(mapping__loop_order="timestep_outer"), workload)
    assert moved(result, "partial_sums") == 2 * 4 * 32 * 16
    folds = result.events[(result.events["component"] == "pe_array") & (result.events["action"] == "cycle")]
    starts = folds.groupby(["timestep", "layer"], observed=True)
    order = starts["start_ps"].min().sort_values().index.tolist()
    assert order == [(step, name) for step in range(4) for name in ("back", "fc1", "fc2")]

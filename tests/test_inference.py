"""Values through crossbars, converters and neurons, against torch, closed forms and recorded networks."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from archsim.activity import read_activity
from archsim.analog.calibration import calibrate_ranges, fit_gains
from archsim.analog.layer import InputFormat, LayerGeometry
from archsim.analog.product import hardware_sums
from archsim.analog.programming import program_layer
from archsim.errors import WorkloadError
from archsim.hardware.models import Chip, Hardware, Neuron, Tile
from archsim.hardware.pe import Adc, Crossbar, Pe
from archsim.hardware.policy import MappingPolicy
from archsim.hardware.reader import load_hardware
from archsim.inference import infer, run_ideal
from archsim.mapping.partition import map_network
from archsim.workload.loader import load_workload
from archsim.workload.model import InputData, Workload, WorkloadSettings
from archsim.workload.network import Layer, Network, NeuronModel, Pool
from archsim.workload.nir_reader import read_nir


def pairs_of(mapped):
    return frozenset((pe.row_block, pe.col_block) for pe in mapped.pes)


def chip(weight_bits=4, adc=None, crossbar=None, merge="analog", v_mem_bits=32, crossbars=9, **policy) -> Hardware:
    array = {"rows": 64, "cols": 64, "bits_per_cell": 4} | (crossbar or {})
    pe = Pe(
        crossbars=crossbars, column_merge=merge, crossbar=Crossbar(**array), adc=Adc(**({"bits": 16} | (adc or {})))
    )
    return Hardware(
        format_version=1,
        name="test",
        kind="crossbar_chip",
        node_nm=65,
        costs="none",
        chip=Chip(clock_mhz=100.0, neuron=Neuron(v_mem_bits=v_mem_bits)),
        tile=Tile(pe=pe),
        mapping=MappingPolicy(weight_bits=weight_bits, **policy),
    )


def neurons(kind="if", threshold=1.0, decay=1.0, gain=1.0, **rules) -> NeuronModel:
    return NeuronModel(kind, *(np.full((1, 1, 1), value) for value in (decay, gain, threshold, 0.0, 0.0)), **rules)


def conv(name, source, in_shape, out_channels, kernel=3, stride=1, padding=1, pool=None, neuron=None, seed=0) -> Layer:
    random = np.random.default_rng(seed)
    weights = random.normal(0, 0.4, (out_channels, in_shape[0], kernel, kernel))
    bias = random.normal(0, 0.1, out_channels)
    kind = "linear" if in_shape[1:] == (1, 1) else "conv2d"
    model = neuron or neurons()
    pair = ((kernel, kernel), (stride, stride), (padding, padding))
    return Layer(name, kind, source, in_shape, out_channels, *pair, weights, bias, model, pool)


def small_network(**rules) -> Network:
    """conv 3x3, sum pooling, conv 3x3 with stride, linear readout; 6 x 6 input with 2 channels."""
    layers = (
        conv("a", "input", (2, 6, 6), 5, pool=Pool((2, 2), (2, 2)), neuron=neurons(**rules), seed=1),
        conv("b", "a", (5, 3, 3), 6, stride=2, neuron=neurons("lif", decay=0.8, gain=0.7, **rules), seed=2),
        conv("c", "b", (24, 1, 1), 4, kernel=1, padding=0, neuron=neurons("accumulate"), seed=3),
    )
    return Network("small", (2, 6, 6), layers)


def small_workload(n_samples=6, labels=True, n_timesteps=4, **rules) -> Workload:
    values = np.random.default_rng(7).integers(0, 2, (n_samples, n_timesteps, 2, 6, 6)).astype(np.uint8)
    network = small_network(**rules)
    truth = run_ideal(network, values, n_timesteps).outputs.argmax(1) if labels else None
    return Workload("small", network, n_timesteps, InputData(values, 1.0, truth))


def run(hardware: Hardware, workload: Workload, samples=1):
    return infer(map_network(hardware, workload), workload, samples)


@pytest.mark.parametrize("merge", ["analog", "digital"])
@pytest.mark.parametrize("signed", ["diff", "differential", "differential_arrays", "offset"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "in_channels", "out_channels"),
    [(1, 1, 0, 20, 9), (3, 1, 1, 9, 5), (3, 2, 1, 20, 17), (5, 2, 2, 3, 4), (5, 1, 0, 17, 12)],
)
def test_mapped_product_is_torchs_convolution(kernel, stride, padding, in_channels, out_channels, signed, merge):
    """Wide converters and weights on the integer grid: row blocks, column blocks, slices and bits all cancel out."""
    generator = torch.Generator().manual_seed(kernel)
    weights = torch.randint(-7, 8, (out_channels, in_channels, kernel, kernel), generator=generator)
    weights[0, 0, 0, 0] = 7
    inputs = torch.randint(-8, 8, (3, in_channels, 7, 7), generator=generator)
    expected = functional.conv2d(inputs.double(), weights.double(), stride=stride, padding=padding)
    hardware = chip(crossbar={"rows": 8, "cols": 16, "bits_per_cell": 2, "signed": signed}, merge=merge)
    layer = replace(conv("x", "input", (in_channels, 7, 7), out_channels, kernel, stride, padding), weights=weights)
    mapped = map_network(hardware, Network("x", layer.in_shape, (layer,))).layers[0]
    geometry = LayerGeometry(
        mapped.row_blocks, mapped.col_blocks, pairs_of(mapped), layer.stride, layer.padding, layer.conv_shape[1:]
    )
    rows = InputFormat(4, signed=True)
    programmed = calibrate_ranges(program_layer(weights, geometry, hardware), inputs, rows)
    sums, clips = hardware_sums(programmed, inputs, rows)
    assert torch.allclose(sums, expected, rtol=0, atol=1e-9)
    assert int(clips.sum()) == 0
    gains = fit_gains(programmed, inputs, rows).gains
    assert gains is not None
    assert torch.allclose(gains, torch.ones_like(gains))


@pytest.mark.parametrize("scope", ["layer", "tile", "column"])
def test_gain_undoes_a_constant_factor(scope):
    """Real weights 1.25 times those on the chip: the fitted gain is 1.25 for every column."""
    hardware = chip(crossbar={"rows": 4, "cols": 4}, calibration=scope)
    layer = conv("x", "input", (10, 1, 1), 6, kernel=1, padding=0)
    mapped = map_network(hardware, Network("x", layer.in_shape, (layer,))).layers[0]
    weights = torch.randint(1, 8, (6, 10, 1, 1), generator=torch.Generator().manual_seed(1))
    weights[0, 0] = 7
    programmed = program_layer(
        weights, LayerGeometry(mapped.row_blocks, mapped.col_blocks, pairs_of(mapped), (1, 1), (0, 0), (1, 1)), hardware
    )
    inputs = torch.randint(0, 2, (50, 10, 1, 1), generator=torch.Generator().manual_seed(2))
    programmed = calibrate_ranges(replace(programmed, weights=1.25 * programmed.weights), inputs, InputFormat(1))
    gains = fit_gains(programmed, inputs, InputFormat(1)).gains
    assert gains is not None
    assert torch.allclose(gains, torch.full_like(gains, 1.25))


@pytest.mark.parametrize("adc_range", ["full", "calibrated"])
@pytest.mark.parametrize("signed", ["diff", "differential", "differential_arrays", "offset"])
@pytest.mark.parametrize("rules", [{"reset": "subtract"}, {"reset": "zero", "spikes_per_step": "many"}])
def test_fine_hardware_equals_the_ideal_network_spike_for_spike(adc_range, signed, rules):
    workload = small_workload(**rules)
    hardware = chip(16, {"range": adc_range}, {"signed": signed})
    activity = run(hardware, workload, samples=6)
    ideal = run_ideal(workload.network, workload.input.values, 4)
    for name, layer in activity.layers.items():
        assert np.array_equal(layer.spikes, ideal.spikes[name])
        assert layer.error_rel < 1e-3
    assert activity.outputs == pytest.approx(ideal.outputs, abs=1e-2)
    assert (activity.accuracy.ideal, activity.accuracy.raw, activity.accuracy.calibrated) == (1.0, 1.0, 1.0)


def test_recorded_inputs_are_the_pooled_spikes_of_the_layer_before():
    activity = run(chip(), small_workload(), samples=2)
    spikes = activity.layers["a"].spikes
    pooled = spikes.reshape(2, 4, 5, 3, 2, 3, 2).sum((4, 6))
    assert np.array_equal(activity.layers["b"].inputs, pooled)
    assert activity.layers["b"].inputs.dtype == np.uint8
    assert activity.layers["b"].input_bits == int(pooled.max()).bit_length()
    assert activity.layers["c"].spikes.sum() == 0


def test_binary_coding_clips_and_counts_what_exceeds_one():
    workload = small_workload()
    activity = run(chip(input_coding="binary"), workload, samples=3)
    pooled = activity.layers["a"].spikes.reshape(3, 4, 5, 3, 2, 3, 2).sum((4, 6))
    assert activity.layers["b"].clipped_inputs == int((pooled > 1).sum()) > 0
    assert np.array_equal(activity.layers["b"].inputs, np.minimum(pooled, 1))
    assert activity.layers["a"].clipped_inputs == 0


def test_input_bits_cap_clips_and_counts():
    workload = small_workload()
    values = np.arange(72, dtype=np.int16).reshape(1, 1, 2, 6, 6)
    workload = replace(workload, input=InputData(values, 0.01, None, "direct"))
    layer = run(chip(input_bits=6), workload).layers["a"]
    assert layer.inputs.max() == 63
    assert layer.clipped_inputs == 4 * 8


def test_direct_coding_repeats_the_frame_and_folds_the_scale():
    workload = small_workload()
    values = np.random.default_rng(3).integers(-9, 10, (5, 1, 2, 6, 6)).astype(np.int8)
    workload = replace(workload, input=InputData(values, 0.125, None, "direct"))
    activity = run(chip(16), workload, samples=5)
    ideal = run_ideal(workload.network, values, 4, 0.125)
    assert activity.layers["a"].inputs.shape == (5, 4, 2, 6, 6)
    assert activity.layers["a"].input_bits == 5
    assert all(np.array_equal(activity.layers[name].spikes, ideal.spikes[name]) for name in "abc")


def test_same_seed_gives_the_same_bytes():
    first, second = (run(chip(), small_workload(), samples=3) for _ in range(2))
    assert all(first.layers[n].spikes.tobytes() == second.layers[n].spikes.tobytes() for n in "abc")
    assert first.outputs.tobytes() == second.outputs.tobytes()


def test_recording_does_not_depend_on_how_many_samples_are_recorded():
    one, six = (run(chip(), small_workload(), samples=count) for count in (1, 6))
    assert all(np.array_equal(one.layers[n].spikes, six.layers[n].spikes[:1]) for n in "abc")
    assert one.accuracy == six.accuracy


def test_two_bit_converter_loses_what_a_wide_one_keeps():
    errors = [run(chip(adc={"bits": bits}), small_workload()).layers["a"].error_rel for bits in (2, 4, 8)]
    assert errors[0] > errors[1] > errors[2]


def test_finer_range_scopes_convert_more_closely():
    crossbar = {"rows": 64, "cols": 2}
    scopes = ("layer", "tile", "column")
    errors = [run(chip(adc={"bits": 3, "range_scope": scope}, crossbar=crossbar), small_workload()) for scope in scopes]
    first = [activity.layers["a"].error_rel for activity in errors]
    assert first[0] > first[1] > first[2]


def test_without_labels_accuracy_is_missing_and_without_calibration_there_is_no_gain():
    activity = run(chip(calibration="none"), small_workload(labels=False))
    assert activity.accuracy.ideal is None
    assert activity.layers["a"].gain is None
    assert "no calibration set" in activity.notes[0]
    assert run(chip(calibration="none"), small_workload()).accuracy.calibrated is None


def test_narrow_potentials_saturate_and_are_counted():
    workload = small_workload()
    quiet = InputData(np.zeros((1, 4, 2, 6, 6), np.uint8))
    activity = run(chip(16, v_mem_bits=4), replace(workload, calibration=quiet))
    assert activity.layers["c"].v_mem_saturations > 0


@pytest.mark.parametrize(
    ("samples", "n_timesteps", "message"),
    [(9, 4, "workload 'small' holds 6 samples; 9 were asked for."),
     (1, 5, "the input of workload 'small' has 4 timesteps; timesteps is 5. Lower it or give a longer input.")],
)  # fmt: skip
def test_asking_for_more_than_there_is_names_what_there_is(samples, n_timesteps, message):
    workload = replace(small_workload(), n_timesteps=n_timesteps)
    with pytest.raises(WorkloadError) as fault:
        run(chip(), workload, samples)
    assert str(fault.value) == message


def test_channel_groups_stay_apart():
    layer = replace(
        conv("g", "input", (4, 6, 6), 6), weights=np.random.default_rng(5).normal(0, 1, (6, 2, 3, 3)), groups=2
    )
    values = np.random.default_rng(6).integers(0, 2, (2, 3, 4, 6, 6)).astype(np.uint8)
    workload = Workload("grouped", Network("grouped", (4, 6, 6), (layer,)), 3, InputData(values))
    one_step = torch.as_tensor(values[:, 0]).double()
    weighted = functional.conv2d(one_step, torch.as_tensor(layer.weights), torch.as_tensor(layer.bias), 1, 1, 1, 2)
    found = run(chip(16), workload, samples=2).layers["g"].spikes
    assert np.array_equal(found[:, 0], (weighted >= 1.0).numpy())
    assert np.array_equal(found, run_ideal(workload.network, values, 3).spikes["g"])


def shapes_only(rate: float | None) -> Workload:
    network = small_network()
    layers = tuple(replace(layer, weights=None, bias=None) for layer in network.layers)
    return Workload("shapes", replace(network, layers=layers), 4, None, None, WorkloadSettings(assumed_rate=rate))


def test_weightless_network_spikes_at_the_assumed_rate():
    activity = run(chip(), shapes_only(0.25), samples=200)
    assert activity.kind == "assumed"
    assert activity.layers["a"].spikes.mean() == pytest.approx(0.25, abs=0.01)
    assert activity.layers["b"].inputs.mean() == pytest.approx(1 - 0.75**4, abs=0.01)
    assert activity.layers["b"].spikes.mean() == pytest.approx(0.25, abs=0.01)
    assert activity.layers["c"].spikes.sum() == 0
    assert "assumption" in activity.notes[0]


def test_rate_of_one_drives_every_row():
    activity = run(chip(), shapes_only(1.0))
    assert all(layer.inputs.min() == 1 and layer.inputs.dtype == np.uint8 for layer in activity.layers.values())


def test_weightless_network_without_a_rate_says_what_to_set():
    with pytest.raises(WorkloadError, match=r"assumed_rate is None, allowed is 0.0 to 1.0. Set workload.assumed_rate"):
        run(chip(), shapes_only(None))


def brute_force(inputs, n_bits, blocks, stride, padding, output_hw):
    rows, reads, slices = [], [], []
    padded = np.pad(inputs, ((0, 0), (0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    for frame in padded.reshape(-1, *padded.shape[2:]):
        for y, x in np.ndindex(*output_hw):
            for block in blocks:
                driven = [
                    [sum(int(frame[c, y * stride[0] + ky, x * stride[1] + kx]) >> bit & 1
                         for ky, kx, first, last in crossbar for c in range(first, last))
                     for crossbar in block] for bit in range(n_bits)
                ]  # fmt: skip
                rows.append(sum(map(sum, driven)))
                reads.append(sum(count > 0 for bit in driven for count in bit))
                slices.append(sum(any(bit) for bit in driven))
    return [np.array(counts).reshape(-1, len(blocks)) for counts in (rows, reads, slices)]


@pytest.mark.parametrize(("stride", "crossbars", "low"), [(1, 9, 0), (2, 4, -4)])
def test_read_activity_counts_what_a_loop_counts(stride, crossbars, low):
    layer = conv("x", "input", (7, 5, 5), 3, stride=stride)
    mapped = map_network(
        chip(crossbar={"rows": 4}, crossbars=crossbars), Network("x", layer.in_shape, (layer,))
    ).layers[0]
    inputs = np.random.default_rng(0).integers(low, 4, (2, 2, 7, 5, 5))
    arguments = (inputs, 3, mapped.row_blocks, layer.stride, layer.padding, layer.conv_shape[1:])
    found = read_activity(*arguments)
    expected = brute_force(*arguments)
    assert np.array_equal(found.active_rows, expected[0])
    assert np.array_equal(found.active_reads, expected[1])
    assert np.array_equal(found.active_slices, expected[2])


def test_equal_spike_counts_in_other_places_read_other_crossbars():
    layer = conv("x", "input", (8, 1, 1), 3, kernel=1, padding=0)
    mapped = map_network(chip(crossbar={"rows": 4}), Network("x", layer.in_shape, (layer,))).layers[0]
    together, apart = np.zeros((2, 1, 1, 8, 1, 1), np.uint8)
    together[0, 0, :2] = 1
    apart[0, 0, [0, 4]] = 1
    counts = [
        read_activity(x, 1, mapped.row_blocks, (1, 1), (0, 0), (1, 1)).active_reads.sum() for x in (together, apart)
    ]
    assert counts == [1, 2]


@pytest.fixture
def recordings() -> Path:
    folder = os.environ.get("ARCHSIM_TEST_DATA")
    if not folder:
        pytest.skip("ARCHSIM_TEST_DATA is not set: it names the folder with nir/cnn_sinabs.nir and its recordings")
    return Path(folder) / "nir" if (Path(folder) / "nir").is_dir() else Path(folder)


def nmnist_frames(path: Path) -> np.ndarray:
    """Events of an N-MNIST recording as counts per millisecond, shape (1, step, polarity, y, x)."""
    raw = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 5).astype(np.int64)
    time_us = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    steps = time_us // 1000
    frames = np.zeros((1, steps.max() + 1, 2, 34, 34), np.int16)
    np.add.at(frames, (0, steps, raw[:, 2] >> 7, raw[:, 1], raw[:, 0]), 1)
    return frames


@pytest.mark.parametrize(
    ("reset", "per_step", "outputs", "totals"),
    [
        ("subtract", "many", [2, 0, 0, 0, 983, 18, 0, 0, 0, 0], [6102, 12849, 8917, 10108, 1003]),
        ("zero", "one", [1, 0, 0, 0, 144, 2, 0, 0, 0, 0], [5176, 8673, 3969, 2775, 147]),
    ],
)
def test_sinabs_network_answers_a_recorded_digit(recordings, reset, per_step, outputs, totals):
    """NIR paper, folder 02_cnn, driven by an N-MNIST recording.

    Outputs, and the totals with subtraction, are those of an independent IF simulation.
    """
    settings = WorkloadSettings(timestep_s=1e-3, reset=reset, spikes_per_step=per_step)
    network = read_nir(recordings / "cnn_sinabs.nir", settings)
    frames = nmnist_frames(recordings / "sample_nmnist.bin")
    ideal = run_ideal(network, frames, frames.shape[1])
    assert ideal.outputs.astype(int).tolist() == [outputs]
    assert [int(spikes.sum()) for spikes in ideal.spikes.values()] == totals


def test_lif_spikes_where_the_exact_solution_does(recordings):
    """NIR paper, folder 01_lif: Norse's network on the trace of lif_exact.csv."""
    network = read_nir(recordings / "lif_norse.nir", WorkloadSettings(timestep_s=1e-4, reset="zero"))
    current = np.loadtxt(recordings / "lif_exact.csv", delimiter=",")[:, 0]
    spikes = run_ideal(network, current.reshape(1, -1, 1, 1, 1), len(current)).spikes
    assert np.flatnonzero(next(iter(spikes.values()))).tolist() == [460, 510, 710, 760]


@pytest.fixture(scope="module")
def spikesim() -> Hardware:
    return load_hardware("spikesim-rram-64")


@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
def test_shipped_networks_survive_the_spikesim_chip(name, spikesim):
    """Held-out digits: at least 97 % without hardware, at most 3 points lost behind 4-bit converters."""
    workload = load_workload(name)
    accuracy = run(spikesim, workload).accuracy
    assert accuracy.n_samples == 360
    assert accuracy.ideal >= 0.97
    assert accuracy.calibrated >= accuracy.ideal - 0.03


def test_shipped_calibration_images_are_no_test_images():
    workload = load_workload("digits-cnn")
    test = {image.tobytes() for image in workload.input.values}
    assert workload.calibration.n_samples == 256
    assert not any(image.tobytes() in test for image in workload.calibration.values)

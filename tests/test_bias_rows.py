"""Biases in cells: sums against torch, rows and crossbars against closed forms, networks against the ideal one."""

import re
from dataclasses import replace

import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
import torch
from test_inference import chip, conv, pairs_of
from test_traces import files_that_differ
from test_traces import run as cli
from torch.nn import functional

from archsim.analog.calibration import calibrate_ranges, fit_gains
from archsim.analog.layer import InputFormat, LayerGeometry
from archsim.analog.product import hardware_sums
from archsim.analog.programming import program_layer
from archsim.engine.simulation import simulate_activity
from archsim.errors import MappingError
from archsim.hardware.reader import load_hardware
from archsim.inference import infer, run_ideal
from archsim.mapping import map_network
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Network

ROW = {"mapping.bias": "row"}


def sums_of(layer, hardware, inputs, rows):
    """Weighted sums of one layer on a chip, its integer weights and biases programmed as they are."""
    mapped = map_network(hardware, Network("x", layer.in_shape, (layer,))).layers[0]
    cut = (mapped.row_blocks, mapped.col_blocks, pairs_of(mapped), layer.stride, layer.padding, layer.conv_shape[1:])
    weights, bias = torch.as_tensor(layer.full_weights), torch.as_tensor(layer.bias)
    programmed = calibrate_ranges(program_layer(weights, LayerGeometry(*cut), hardware, bias), inputs, rows)
    return hardware_sums(programmed, inputs, rows)[0], fit_gains(programmed, inputs, rows), mapped


@pytest.mark.parametrize("seed", range(14))
def test_sums_with_a_bias_row_are_torchs_convolution_with_bias(seed):
    """Padding, groups, strides, negative inputs, full and half-empty crossbars: the bias comes in exactly once."""
    rng = np.random.default_rng(seed)
    groups, channels, out, kernel, stride = joins.GROUPS[seed % len(joins.GROUPS)]
    layer = joins.grouped(groups, channels, out, kernel, stride, seed)
    layer = replace(layer, bias=rng.integers(-7, 8, out))
    array = {"rows": int(rng.choice([2, 3, 4, 64])), "cols": int(rng.choice([8, 16]))}
    array |= {
        "signed": str(rng.choice(["diff", "differential", "differential_arrays", "offset"])),
        "zero_skip": bool(rng.random() < 0.5),
    }
    layout = str(rng.choice(["kernel_position", "dense"]))
    merge, crossbars = str(rng.choice(["analog", "digital"])), int(rng.choice([1, 3, 9]))
    hardware = chip(crossbar=array, merge=merge, crossbars=crossbars, layout=layout, bias="row")
    inputs = torch.randint(-4, 4, (3, *layer.in_shape), generator=torch.Generator().manual_seed(seed))
    sums, fitted, mapped = sums_of(layer, hardware, inputs, InputFormat(3, signed=True))
    weights, bias = torch.as_tensor(layer.weights).double(), torch.as_tensor(layer.bias).double()
    expected = functional.conv2d(inputs.double(), weights, bias, layer.stride, layer.padding, 1, groups)
    assert torch.allclose(sums, expected, rtol=0, atol=1e-9)
    assert torch.allclose(fitted.gains, torch.ones_like(fitted.gains))
    n_rows = [sum(last - first for _, _, first, last in rows) for block in mapped.row_blocks for rows in block]
    assert max(n_rows) <= array["rows"]
    assert sum(n_rows) == channels * kernel**2 + mapped.n_bias_rows
    assert max(len(block) for block in mapped.row_blocks) <= crossbars


@pytest.mark.parametrize(
    ("inputs", "crossbars", "n_crossbars", "n_pes"),
    [(3, 1, 1, 1), (4, 2, 2, 1), (4, 1, 2, 2), (8, 2, 3, 2), (7, 2, 2, 1), (11, 2, 3, 2)],
)
def test_a_bias_row_takes_a_free_row_then_a_crossbar_then_a_pe(inputs, crossbars, n_crossbars, n_pes):
    layer = conv("x", "input", (inputs, 1, 1), 3, kernel=1, padding=0)
    hardware = chip(crossbar={"rows": 4, "cols": 16}, crossbars=crossbars, bias="row")
    mapping = map_network(hardware, Network("x", layer.in_shape, (layer,)))
    assert (mapping.n_crossbars, mapping.n_pes) == (n_crossbars, n_pes)
    assert mapping.cell_utilisation == (inputs + 1) * 3 / (n_crossbars * 4 * 16)
    without = replace(layer, bias=None)
    assert map_network(hardware, Network("x", layer.in_shape, (without,))).layers[0].n_bias_rows == 0


def biased(network):
    """The network with a bias in every layer that has neurons."""
    layers = [x if x.neuron.kind == "none" else replace(x, bias=np.zeros(x.out_channels)) for x in network.layers]
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize("zero_skip", [True, False])
def test_a_bias_row_is_driven_once_per_token_and_never_skipped(zero_skip):
    """Silent inputs of three bits: one read per token and PE with the row, at bit 0, and one row driven."""
    network = biased(crossbar.mlp(9, 4))
    values = crossbar.activity(network, 2, 3, rate=0.0)
    values = replace(values, layers={"fc1": replace(values.layers["fc1"], inputs=values.layers["fc1"].inputs.copy())})
    values.layers["fc1"].inputs[0, 0, 0] = 4
    over = {"tile.pe.crossbar.rows": 5, "tile.pe.crossbars": 1, "tile.pe.crossbar.zero_skip": zero_skip}
    rows = {}
    for bias in ("digital", "row"):
        result = crossbar.run(network, values, over | {"mapping.bias": bias}).result
        drivers = result.components[result.components["kind"] == "row_driver"]
        layer = result.layers.set_index("layer").loc["fc1"]
        rows[bias] = (int(drivers["n_actions"].sum()), int(layer["crossbar_reads"]), int(layer["skipped_reads"]))
    n_tokens, n_crossbars, n_bits = 6, 2, 3
    every = n_tokens * n_crossbars * n_bits
    if zero_skip:
        assert rows == {"digital": (1, 1, every - 1), "row": (1 + n_tokens, 1 + n_tokens, every - 1 - n_tokens)}
    else:
        assert rows == {"digital": (1, every, 0), "row": (1 + n_tokens, every, 0)}


@pytest.mark.parametrize("seed", joins.VALUE_SEEDS[:8])
def test_a_fine_chip_with_bias_rows_is_the_ideal_network(seed):
    workload, rng = joins.random_workload(seed), np.random.default_rng(seed)
    array = {"rows": int(rng.choice([2, 4, 64])), "cols": int(rng.choice([16, 64]))}
    array |= {
        "signed": str(rng.choice(["diff", "differential", "differential_arrays", "offset"])),
        "zero_skip": bool(rng.random() < 0.7),
    }
    policy = {"layout": str(rng.choice(["dense", "kernel_position"])), "bias": "row"}
    hardware = chip(16, None, array, str(rng.choice(["analog", "digital"])), **policy)
    activity = infer(map_network(hardware, workload), workload, samples=2)
    ideal = joins.ideal_of(seed)
    found = {name: layer.spikes for name, layer in activity.layers.items()}
    assert (joins.different(found, ideal.spikes), activity.outputs.tolist()) == ([], ideal.outputs.tolist())


@pytest.mark.parametrize("seed", joins.SEEDS[:6])
def test_networks_with_bias_rows_drain(seed):
    """`build_result` checks the conservation laws; some PEs hold only a bias row, alone in their tile."""
    network = biased(joins.random_workload(seed).network)
    over = joins.random_chip(np.random.default_rng(seed)) | ROW
    each = crossbar.run(network, crossbar.activity(network, 2, 2, seed), over)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    assert max(work) <= each.trace.end_ps


def direct(bias):
    """One layer read with pixels that are worth an eighth each."""
    layer = replace(conv("a", "input", (2, 4, 4), 3, seed=1), bias=np.array(bias))
    values = np.random.default_rng(3).integers(-9, 10, (5, 1, 2, 4, 4)).astype(np.int8)
    return Workload("direct", Network("direct", (2, 4, 4), (layer,)), 4, InputData(values, 0.125, None, "direct"))


def test_a_bias_row_delivers_the_bias_through_the_input_scale():
    workload = direct([0.05, -0.08, 0.1])
    activity = infer(map_network(chip(16, bias="row"), workload), workload, samples=5)
    ideal = run_ideal(workload.network, workload.input.values, 4, 0.125)
    assert np.array_equal(activity.layers["a"].spikes, ideal.spikes["a"])
    assert (activity.layers["a"].error_rel < 1e-3, activity.layers["a"].clipped_biases) == (True, 0)


def test_a_bias_beyond_the_largest_weight_is_clipped_counted_and_said():
    workload = direct([0.05, -9.0, 9.0])
    hardware = load_hardware("demo", ROW)
    mapping = map_network(hardware, workload)
    activity = infer(mapping, workload)
    assert activity.layers["a"].clipped_biases == 2
    notes = simulate_activity(mapping, workload, activity).notes
    assert "layer 'a': 2 biases clipped to the largest weight that cells hold" in notes


def test_one_signed_bit_cannot_carry_a_bias_row():
    workload = direct([0.1, 0.1, 0.1])
    text = (
        "mapping.input_bits is 1 and the input has negative values: the only bit is the sign, while mapping.bias: row "
        "drives its row with bit 0 as a one.\nSet mapping.input_bits to 2 or more, or mapping.bias: digital."
    )
    with pytest.raises(MappingError, match=f"^{re.escape(text)}$"):
        infer(map_network(chip(input_bits=1, bias="row"), workload), workload)


def test_a_replay_with_bias_rows_is_the_direct_run_to_the_byte(tmp_path):
    change = ("--set", "mapping.bias=row")
    assert cli("record", "digits-mlp", "-o", tmp_path / "t.npz", "--hardware", "demo", *change) == 0
    assert cli("run", "demo", "digits-mlp", "-o", tmp_path / "direct", *change) == 0
    assert cli("run", "demo", tmp_path / "t.npz", "-o", tmp_path / "replay", *change) == 0
    assert files_that_differ(tmp_path / "direct", tmp_path / "replay") == []

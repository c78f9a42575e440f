"""Fully connected layers that take positions as they come: values against a loop, work and time in closed form."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
import torch
from nir_graphs import conv as nir_conv
from nir_graphs import dense, graph, save
from test_inference import chip, neurons
from test_traces import files_that_differ
from test_traces import run as cli
from torch.nn import functional

from archsim.activity import Activity, LayerActivity
from archsim.analog.calibration import calibrate_ranges
from archsim.analog.layer import InputFormat
from archsim.analog.product import hardware_sums, read_power_w
from archsim.engine import geometry
from archsim.hardware.reader import load_hardware
from archsim.inference import infer
from archsim.inference.chip import program
from archsim.mapping import map_network
from archsim.mapping.rules import streamed_map
from archsim.workload.network import Layer, Network

STREAM = {"mapping.fc": "stream"}


def flat(shape, out, seed=0) -> Network:
    """One fully connected layer behind a map that is the network's input; integer weights."""
    weights = np.random.default_rng(seed).integers(-7, 8, (out, int(np.prod(shape)), 1, 1)).astype(float)
    weights.flat[0] = 7
    sizes = ((1, 1), (1, 1), (0, 0))
    layer = Layer("fc", "linear", "input", (int(np.prod(shape)), 1, 1), out, *sizes, weights, None, neurons())
    return Network("flat", shape, (layer,))


def cut(shape, rows: int, crossbars: int) -> list[list[list[tuple[int, int]]]]:
    """Rows as (position, channel), position by position: PEs of crossbars of rows."""
    order = [(position, channel) for position in range(shape[1] * shape[2]) for channel in range(shape[0])]
    arrays = [order[first : first + rows] for first in range(0, len(order), rows)]
    return [arrays[first : first + crossbars] for first in range(0, len(arrays), crossbars)]


def groups_of(pe: list[list[tuple[int, int]]], merge: str) -> list[list[tuple[int, int]]]:
    """Rows of a PE that are converted together: those of one position, in all of its crossbars or in one."""
    arrays = [[row for array in pe for row in array]] if merge == "analog" else pe
    return [
        [row for row in array if row[0] == position] for array in arrays for position in sorted({p for p, _ in array})
    ]


SHAPES = [((3, 2, 2), 4, 5), ((5, 2, 3), 3, 4), ((2, 3, 3), 16, 3), ((6, 1, 4), 4, 9)]


@pytest.mark.parametrize("layout", ["kernel_position", "dense"])
@pytest.mark.parametrize(("shape", "rows", "out"), SHAPES)
def test_rows_are_ordered_by_position_then_channel(shape, rows, out, layout):
    hardware = chip(crossbar={"rows": rows, "cols": 4}, crossbars=2, layout=layout, fc="stream")
    mapped = map_network(hardware, flat(shape, out)).layers[0]
    found = [
        [[(y * shape[2] + x, c) for y, x, first, last in one for c in range(first, last)] for one in block]
        for block in mapped.row_blocks
    ]
    assert found == cut(shape, rows, 2)
    whole = map_network(chip(crossbar={"rows": rows, "cols": 4}, crossbars=2, layout="dense"), flat(shape, out))
    assert mapped.n_crossbars == whole.n_crossbars


@pytest.mark.parametrize("merge", ["analog", "digital"])
@pytest.mark.parametrize(("shape", "rows", "out"), SHAPES)
def test_every_position_is_converted_on_its_own(shape, rows, out, merge):
    """Three-bit converters of full range, two columns per weight, against conversions written out one by one."""
    array = {"rows": rows, "cols": 8, "bits_per_cell": 3, "signed": "differential"}
    hardware = chip(4, {"bits": 3, "range": "full"}, array, merge, crossbars=2, fc="stream")
    network = flat(shape, out)
    mapping = map_network(hardware, network)
    programmed = program(mapping, mapping.layers[0], 1.0, InputFormat(2)).programmed
    inputs = torch.randint(0, 4, (6, *shape), generator=torch.Generator().manual_seed(1))
    sums, clips = hardware_sums(programmed, inputs, InputFormat(2))
    weights = network.layers[0].weights.reshape(out, shape[0], -1)
    expected = np.zeros((6, out))
    for pe in cut(shape, rows, 2):
        groups = groups_of(pe, merge)
        lsb = max(max(map(len, groups)) * 7, 7) / 7
        for frame, bit, group, o in np.ndindex(6, 2, len(groups), out):
            plane = (inputs[frame].reshape(shape[0], -1).numpy() >> bit) & 1
            for sign in (1, -1):
                collected = sum(plane[c, p] * max(sign * weights[o, c, p], 0) for p, c in groups[group])
                expected[frame, o] += sign * 2**bit * lsb * np.rint(collected / lsb)
    assert np.allclose(sums.numpy()[:, :, 0, 0], expected * programmed.weight_scale, rtol=0, atol=1e-9)
    assert int(clips.sum()) == 0
    assert programmed.weight_scale == 1


def circuit(nonlinearity: str, merge: str):
    """A streamed layer on crossbars with wires, and the same one with all positions driven at once."""
    device = {"r_on_ohm": 2e4, "r_off_ohm": 2e5, "nonlinearity": nonlinearity, "nonlinearity_v0_v": 1e3}
    array = {"rows": 4, "cols": 8, "bits_per_cell": 3, "signed": "differential", "device": device}
    array |= {"r_wire_row_ohm": 20.0, "r_wire_col_ohm": 20.0, "v_read_v": 0.2}
    hardware = chip(4, {"bits": 16}, array, merge, crossbars=2, fc="stream")
    mapping = map_network(hardware, flat((3, 2, 2), 5))
    programmed = program(mapping, mapping.layers[0], 1.0, InputFormat(1)).programmed
    inputs = torch.randint(0, 2, (5, 3, 2, 2), generator=torch.Generator().manual_seed(2))
    streamed = calibrate_ranges(programmed, inputs, InputFormat(1))
    whole = replace(programmed, geometry=replace(programmed.geometry, is_streamed=False))
    return streamed, calibrate_ranges(whole, inputs, InputFormat(1)), inputs


@pytest.mark.parametrize("merge", ["analog", "digital"])
@pytest.mark.parametrize("nonlinearity", ["off", "exact"])
def test_positions_superpose_in_a_linear_circuit(nonlinearity, merge):
    """Wires of 20 ohm a cell; the sinh curve of the solved circuit is straight to a kilovolt."""
    streamed, whole, inputs = circuit(nonlinearity, merge)
    one, other = (hardware_sums(layer, inputs, InputFormat(1))[0] for layer in (streamed, whole))
    products = functional.conv2d(inputs.double(), streamed.weights.permute(3, 2, 0, 1))
    assert torch.allclose(one, other, rtol=0, atol=0.02)
    assert 0.1 < float((one - products).abs().max()) < 0.5 * float(products.abs().max())


def test_the_power_of_a_read_is_that_of_one_positions_rows():
    streamed, whole, _ = circuit("off", "analog")
    inputs = torch.zeros(4, 3, 2, 2, dtype=torch.int64)
    for frame in range(4):
        inputs[frame, :, frame // 2, frame % 2] = 1
    by_position = read_power_w(streamed, inputs, InputFormat(1)).view(4, 4, -1)
    alone = read_power_w(whole, inputs, InputFormat(1))
    assert alone.sum() > 0
    for frame in range(4):
        assert torch.equal(by_position[frame, frame], alone[frame])
        assert torch.equal(by_position[frame].sum(0), alone[frame])


@pytest.mark.parametrize("seed", joins.VALUE_SEEDS[:10])
def test_a_fine_chip_that_streams_is_the_ideal_network(seed):
    workload, rng = joins.random_workload(seed), np.random.default_rng(seed)
    array = {"rows": int(rng.choice([3, 4, 64])), "zero_skip": bool(rng.random() < 0.7)}
    policy = {"layout": str(rng.choice(["dense", "kernel_position"])), "bias": str(rng.choice(["row", "digital"]))}
    hardware = chip(16, None, array, str(rng.choice(["analog", "digital"])), fc="stream", **policy)
    activity = infer(map_network(hardware, workload), workload, samples=2)
    ideal = joins.ideal_of(seed)
    found = {name: layer.spikes for name, layer in activity.layers.items()}
    assert (joins.different(found, ideal.spikes), activity.outputs.tolist()) == ([], ideal.outputs.tolist())


@pytest.mark.parametrize("seed", joins.SEEDS[:8])
def test_networks_that_stream_drain(seed):
    net, rng = joins.random_workload(seed).network, np.random.default_rng(seed)
    over = joins.random_chip(rng) | STREAM
    over |= {"mapping.bias": str(rng.choice(["row", "digital"]))}
    each = crossbar.run(net, crossbar.activity(net, 2, 2, seed), over)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    assert max(work) <= each.trace.end_ps


def test_behind_one_position_streaming_is_waiting():
    net = crossbar.mlp(9, 7, 5)
    whole, stream = (map_network(load_hardware("demo", {"mapping.fc": fc}), net).layers for fc in ("whole", "stream"))
    assert whole == stream


SIZES = {"tile.pe.crossbar.rows": 5, "tile.pe.crossbar.cols": 16, "tile.pe.crossbar.zero_skip": False, "tile.pes": 2}


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("merge", ["analog", "digital"])
@pytest.mark.parametrize("crossbars", [1, 2])
def test_reads_conversions_and_additions_in_closed_form(crossbars, merge, pipelined):
    """3 x 2 x 3 inputs of two bits, 6 outputs: two column blocks of 4 and 2, row blocks in several tiles."""
    shape, n_bits, n_frames = (3, 2, 3), 2, 4
    net = flat(shape, 6)
    inputs = np.random.default_rng(0).integers(0, 4, (2, 2, 18, 1, 1))
    inputs[0, 0, 0] = 3
    values = Activity({"fc": LayerActivity(inputs, np.zeros((2, 2, 6, 1, 1), np.int64))}, 2, 2, "recorded")
    policy = {"tile.pe.crossbars": crossbars, "tile.pe.column_merge": merge, "tile.pe.pipelined": pipelined}
    each = crossbar.run(net, values, SIZES | STREAM | policy)
    layer = each.result.layers.set_index("layer").loc["fc"]
    pes = cut(shape, 5, crossbars)
    held = [len(groups_of([array], "analog")) for pe in pes for array in pe]
    converted = [len(groups_of(pe, merge)) for pe in pes]
    positions = [len(groups_of(pe, "analog")) for pe in pes]
    assert layer["crossbar_reads"] == n_frames * n_bits * sum(held) * 2
    assert layer["skipped_reads"] == 0
    assert layer["adc_conversions"] == n_frames * n_bits * sum(converted) * 6 * 4
    added = each.result.components.query("kind == 'accumulator'")["n_actions"].sum()
    assert added == n_frames * (sum(positions) - 1) * 6
    drivers = each.result.components.query("kind == 'row_driver'")["n_actions"].sum()
    assert drivers == 2 * sum(int((inputs >> bit & 1).sum()) for bit in range(n_bits))


def test_skipped_reads_are_those_of_silent_positions():
    shape = (3, 2, 2)
    inputs = np.zeros((1, 1, 12, 1, 1), np.int64)
    inputs[0, 0, [1, 5, 9]] = 1  # position 1, all channels: rows 3 to 5 of crossbars of 4 rows
    values = Activity({"fc": LayerActivity(inputs, np.zeros((1, 1, 2, 1, 1), np.int64))}, 1, 1, "recorded")
    each = crossbar.run(flat(shape, 2), values, {"tile.pe.crossbar.rows": 4} | STREAM)
    layer = each.result.layers.set_index("layer").loc["fc"]
    assert (layer["crossbar_reads"], layer["skipped_reads"]) == (2, 4)


@pytest.mark.parametrize("fc", ["whole", "stream"])
def test_the_last_position_is_all_that_is_waited_for(fc):
    """One PE, 15 cycles of 2 ns per token: stream ends at the latest of arrival k plus the tokens from k on."""
    shape = (2, 2, 3)
    net = flat(shape, 4)
    values = Activity(
        {"fc": LayerActivity(np.ones((1, 1, 12, 1, 1), np.int64), np.ones((1, 1, 4, 1, 1), np.int64))}, 1, 1, "recorded"
    )
    over = {"tile.pe.crossbar.rows": 12, "tile.pe.crossbar.cols": 16, "tile.pe.crossbars": 1}
    each = crossbar.run(net, values, over | {"tile.pe.pipelined": False, "mapping.fc": fc})
    pairs = list(zip(each.netlist.lanes(), each.trace.lanes, strict=True))
    arrivals = next(
        times.start_ps + wire.delay_ps for lane, times in pairs for wire in lane.wires if wire.target.kind == "buffer"
    )
    ends = next(times.leave_ps for lane, times in pairs if lane.name == "tile0.pe0")
    token_ps = 2000 * (1 + 5 + 8 + 1)
    if fc == "whole":
        assert ends.tolist() == [arrivals[-1] + token_ps]
    else:
        left = np.arange(6, 0, -1)
        assert ends[-1] == (arrivals + left * token_ps).max()
        assert len(ends) == 6


def test_the_buffer_holds_two_rows_instead_of_two_frames():
    net = flat((4, 5, 7), 3)
    capacity = {}
    for fc in ("whole", "stream"):
        mapping = map_network(load_hardware("demo", {"mapping.fc": fc}), net)
        capacity[fc] = geometry.buffer_capacity(mapping, mapping.layers[0])
    assert capacity == {"whole": 2 * 35, "stream": 2 * 7}


def test_a_recurrent_layer_stays_whole():
    net, policy = flat((2, 3, 3), 4), load_hardware("demo", STREAM).mapping
    layer = net.layers[0]
    assert [streamed_map(policy, net, one) for one in (layer, replace(layer, delayed=True))] == [(2, 3, 3), None]


def test_a_replay_is_the_direct_run_to_the_byte(tmp_path):
    fires = {"v_threshold": np.full((4, 4, 4), 0.5), "r": np.ones((4, 4, 4))}
    net = graph(
        [2, 4, 4], [3], a=nir_conv(4, 2), act=nir.IF(**fires), flat=nir.Flatten(np.array([4, 4, 4]), 0, -1),
        fc=dense(3, 64), out=nir.IF(r=np.ones(3), v_threshold=np.ones(3)),
    )  # fmt: skip
    path = save(tmp_path / "net.nir", net)
    change = ("--set", "mapping.fc=stream", "--set", "mapping.bias=row")
    workload = (path, "--input", "poisson:0.4", "--timesteps", 3)
    assert cli("record", *workload, "-o", tmp_path / "t.npz", "--hardware", "demo", *change) == 0
    assert cli("run", "demo", *workload, "-o", tmp_path / "direct", *change) == 0
    assert cli("run", "demo", tmp_path / "t.npz", "-o", tmp_path / "replay", *change) == 0
    assert files_that_differ(tmp_path / "direct", tmp_path / "replay") == []

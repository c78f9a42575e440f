"""Products of two activities: values against torch, time and energy in closed form, networks that drain."""

from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import pytest
import test_traces as traces
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_inference import chip, conv, neurons
from test_schedules import ExplainedStreams
from torch.nn import functional

from archsim.activity import Activity
from archsim.api import record, simulate
from archsim.components import adc
from archsim.components.netlist import Target
from archsim.engine.conservation import check_trace
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.metrics import connection_sparsity, footprint_bytes, ops_per_sample, synaptic_ops
from archsim.engine.simpy_execution import execute
from archsim.errors import ConfigError, MappingError, WorkloadError
from archsim.hardware.devices import Device
from archsim.hardware.reader import load_hardware
from archsim.inference import assumed_activity, infer, run_ideal
from archsim.mapping import map_network
from archsim.report.describe import mapping_sheets
from archsim.workload.attention import product_layer, require_products, spikformer_block
from archsim.workload.builders import BUILDERS
from archsim.workload.model import InputData, Workload, WorkloadSettings
from archsim.workload.network import Network, Pool
from archsim.workload.neurons import counts, no_neurons, readout
from archsim.workload.trace import read_trace, write_trace

MODES = ("digital", "rewrite")
FINE = 2.0**-13
"""Step of the weights: with 16 bits, and one weight at the end of the scale, a chip stores them exactly."""
STEPS = 3


def block(seed=0, channels=8, heads=2, tokens=(2, 3), hidden=6) -> Network:
    """A Spikformer block whose weights a chip of 16 bits stores exactly, and whose layers all spike."""
    rng, held = np.random.default_rng(seed), {}
    for layer in spikformer_block(channels, heads, tokens, hidden, seed).layers:
        if layer.weights is not None:
            values = np.round(np.clip(rng.normal(0.6, 1.5, layer.weights.shape), -3.9, 3.9) / FINE) * FINE
            values.flat[seed % values.size] = 4 - FINE
            held[layer.name] = values
    return spikformer_block(channels, heads, tokens, hidden, weights=held)


def workload(network: Network, samples=2, seed=1, high=1) -> Workload:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, high + 1, (samples, STEPS, *network.input_shape)).astype(np.uint8)
    return Workload("block", network, STEPS, InputData(values))


def attention(channels=4, heads=1, tokens=(2, 2), **rules) -> Network:
    """Queries, keys and values of the input, scores, and neurons behind their mix with the values; no shortcut."""
    shape = (channels, *tokens)
    parts = [
        replace(conv(name, "input", shape, channels, 1, padding=0, neuron=neurons(**rules), seed=seed), bias=None)
        for seed, name in enumerate(("query", "key", "value"))
    ]
    scores = product_layer("scores", parts[0], parts[1], heads, transpose=True)
    mixed = product_layer("mixed", scores, parts[2], heads, neuron=neurons(threshold=3.0))
    return Network("attention", shape, (*parts, scores, mixed))


# Values


def lif(currents, threshold, scale=1.0):
    """SpikingJelly's LIF of tau 2 with reset to zero, over the first axis of (step, sample, ...)."""
    v, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        v = v + (scale * current - v) / 2
        spikes.append((v >= threshold).double())
        v = v * (1 - spikes[-1])
    return torch.stack(spikes)


def spikformer(network: Network, values) -> dict[str, torch.Tensor]:
    """The block in plain torch, as its paper writes it with tokens as rows; spikes of shape (step, sample, C, H, W)."""
    x = torch.as_tensor(values).double().movedim(1, 0)
    (n_steps, n_samples, _, height, width), heads = x.shape, network.layer("scores").groups
    spikes = {}

    def layer(name, source, adds=0.0):
        weights = torch.as_tensor(np.array(network.layer(name).weights)).double()
        sums = functional.conv2d(source.flatten(0, 1), weights, padding=weights.shape[-1] // 2)
        spikes[name] = lif(sums.unflatten(0, (n_steps, n_samples)) + adds, 1.0)
        return spikes[name]

    def split(tokens):
        """(step, sample, channel, height, width) to (step, sample, head, token, feature)."""
        return tokens.flatten(-2).unflatten(2, (heads, -1)).transpose(-1, -2)

    embed = layer("embed", x)
    query, key, value = (split(layer(name, embed)) for name in ("query", "key", "value"))
    scores = torch.einsum("tbhnd,tbhmd->tbhnm", query, key)
    spikes["scores"] = scores.transpose(-1, -2).flatten(2, 3).unflatten(-1, (height, width))
    mixed = torch.einsum("tbhnm,tbhmd->tbhdn", scores, value).flatten(2, 3).unflatten(-1, (height, width))
    spikes["mixed"] = lif(mixed, 0.5, 0.125)
    projection = layer("projection", spikes["mixed"], adds=embed)
    layer("mlp2", layer("mlp1", projection), adds=projection)
    return spikes


def different(found, expected) -> list[str]:
    return [name for name, spikes in expected.items() if not np.array_equal(found[name], spikes)]


@lru_cache
def ideal(seed: int):
    data = workload(block(seed))
    return run_ideal(data.network, data.input.values, STEPS).spikes


@pytest.mark.parametrize("seed", range(6))
def test_the_ideal_block_is_the_one_of_its_paper_in_torch(seed):
    data = workload(block(seed))
    expected = {name: one.movedim(0, 1).numpy() for name, one in spikformer(data.network, data.input.values).items()}
    assert different(ideal(seed), expected) == []
    assert min(one.mean() for one in ideal(seed).values()) > 0.02


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**16))
def test_both_products_are_torchs_einsum(heads, features, height, width, seed):
    rng = np.random.default_rng(seed)
    n, shape = height * width, (heads * features, height, width)
    sources = [conv(name, "input", shape, shape[0], 1, padding=0) for name in "qkv"]
    q, k, v = (rng.integers(0, 5, (2, *shape)) for _ in sources)
    scores = product_layer("s", sources[0], sources[1], heads, transpose=True)
    mixed = product_layer("m", scores, sources[2], heads)
    first, second = scores.products(q, k), mixed.products(scores.products(q, k), v)
    rows = [torch.as_tensor(part).reshape(2, heads, features, n) for part in (q, k, v)]
    by_head = torch.einsum("bhdn,bhdm->bhmn", rows[0], rows[1])
    assert np.array_equal(first, by_head.reshape(2, heads * n, height, width))
    assert np.array_equal(second, torch.einsum("bhmn,bhdm->bhdn", by_head, rows[2]).reshape(2, *shape))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_a_chip_with_fine_weights_and_converters_is_the_ideal_block(seed, mode):
    rng = np.random.default_rng(seed)
    array = {"rows": int(rng.choice([2, 4, 64])), "cols": int(rng.choice([16, 64]))}
    array |= {
        "signed": str(rng.choice(["diff", "differential", "differential_arrays", "offset"])),
        "zero_skip": bool(rng.random() < 0.7),
    }
    array |= {"bits_per_cell": int(rng.choice([1, 2, 4]))} if array["cols"] == 64 else {}
    policy = {"layout": str(rng.choice(["dense", "kernel_position"])), "share_tiles": bool(rng.random() < 0.5)}
    merge = str(rng.choice(["analog", "digital"]))
    hardware = chip(16, None, array, merge, dynamic_products=mode, **policy)
    activity = infer(map_network(hardware, workload(block(seed))), workload(block(seed)), samples=2)
    assert different({name: one.spikes for name, one in activity.layers.items()}, ideal(seed)) == []
    scores = activity.layers["scores"]
    assert (scores.error_rel, scores.gain) == (0.0, 1.0 if mode == "rewrite" else None)
    assert np.array_equal(scores.operand, ideal(seed)["key"])


def test_a_recurrent_network_multiplies_step_by_step():
    """Spikes of the mix come back one timestep later; the parts are those of the network without a loop, by hand."""
    plain = attention()
    query, key, value, scores, mixed = plain.layers
    back = replace(
        conv("back", "mixed", mixed.out_shape, 4, 1, padding=0, neuron=no_neurons()), delayed=True, bias=None
    )
    looped = Network("looped", plain.input_shape, (replace(query, adds=("back",)), key, value, scores, back, mixed))
    data = workload(looped, high=3)
    found = run_ideal(looped, data.input.values, STEPS).spikes
    v, fired, expected = np.zeros((2, 2, 4, 2, 2)), np.zeros((2, 4, 2, 2)), []
    for step in range(STEPS):
        came_back = np.einsum("oc,bchw->bohw", back.weights[:, :, 0, 0], fired)
        current = np.einsum("oc,bchw->bohw", query.weights[:, :, 0, 0], data.input.values[:, step]) + came_back
        v[0] += current
        asked = (v[0] >= 1).astype(int)
        v[0] -= asked
        v[1] += mixed.products(scores.products(asked, found["key"][:, step]), found["value"][:, step])
        fired = (v[1] >= 3).astype(int)
        v[1] -= 3 * fired
        expected.append(fired)
    assert np.array_equal(found["mixed"], np.stack(expected, axis=1))
    assert found["mixed"].any()
    for mode in MODES:
        layers = infer(map_network(chip(16, dynamic_products=mode), data), data, samples=2).layers
        assert different({name: layers[name].spikes for name in found}, found) == []


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_operands_of_more_bits_than_cells_take_are_clipped_and_counted(bits):
    """Neurons that fire several times make keys of several bits; digital units take them whole."""
    data = workload(attention(spikes_per_step="many"), seed=3, high=9)
    fine = {"weight_bits": 16, "crossbar": {"bits_per_cell": 1, "cols": 64}}
    whole = infer(map_network(chip(**fine), data), data, samples=2).layers["scores"]
    found = infer(map_network(chip(**fine, dynamic_products="rewrite", operand_bits=bits), data), data, samples=2)
    scores = found.layers["scores"]
    assert whole.operand.max() > 3
    clipped = np.minimum(whole.operand, 2**bits - 1)
    assert np.array_equal(scores.operand, clipped)
    assert np.array_equal(scores.spikes, data.network.layer("scores").products(whole.inputs, clipped))
    assert scores.clipped_operands == np.count_nonzero(whole.operand != clipped)


def test_coarse_converters_make_whole_counts_with_errors():
    data = workload(block(0))
    hardware = chip(16, {"bits": 1}, {"rows": 64, "cols": 64}, dynamic_products="rewrite")
    scores = infer(map_network(hardware, data), data, samples=2).layers["scores"]
    assert scores.error_rel > 0.05
    assert scores.spikes.dtype.kind in "iu"
    assert scores.spikes.max() > 0


# Devices


def scores_on(device: dict, values=None, **crossbar) -> Activity:
    """Scores of an attention whose queries and keys are the same in every timestep, on cells of a device."""
    frame = np.random.default_rng(4).integers(0, 2, (1, 1, 4, 2, 2)) if values is None else values
    passing = [conv(name, "input", (4, 2, 2), 4, 1, padding=0, neuron=neurons("threshold", decay=0.0)) for name in "qk"]
    layers = [replace(layer, weights=np.eye(4).reshape(4, 4, 1, 1), bias=None) for layer in passing]
    network = Network("n", (4, 2, 2), (*layers, product_layer("scores", *layers, transpose=True)))
    data = Workload("n", network, STEPS, InputData(np.repeat(frame, STEPS, axis=1).astype(np.uint8)))
    array = {"device": Device(r_on_ohm=1e4, r_off_ohm=1e6, **device), "bits_per_cell": 1, "cols": 16, **crossbar}
    policy = {"unused_cells": "open", "calibration": "none", "first_layer": "digital"}
    hardware = chip(16, None, array, dynamic_products="rewrite", **policy)
    return infer(map_network(hardware, data), data)


def test_linear_devices_lose_nothing_of_a_product():
    scores = scores_on({}).layers["scores"]
    exact = np.einsum("stcyx,stcvw->stvwyx", scores.inputs, scores.operand, dtype=int)
    assert np.array_equal(scores.spikes.reshape(exact.shape), exact)
    assert scores.error_rel < 1e-3


@pytest.mark.parametrize(
    ("device", "is_fresh"),
    [({"programming_sigma_rel": 0.4}, True), ({"c2c_sigma_rel": 0.4}, True), ({"d2d_sigma_rel": 0.4}, False)],
    ids=str,
)
def test_every_write_errs_anew_and_every_device_always_alike(device, is_fresh):
    scores = scores_on(device).layers["scores"]
    same_operand = (scores.operand == scores.operand[:, :1]).all()
    same_result = (scores.spikes == scores.spikes[:, :1]).all()
    assert (same_operand, same_result, scores.error_rel > 0.05) == (True, not is_fresh, True)


def test_cells_that_were_just_written_have_not_drifted():
    fresh, old = (scores_on({"drift_nu": 0.5, "age_s": age_s}) for age_s in (0.0, 1e6))
    assert np.array_equal(fresh.layers["scores"].spikes, old.layers["scores"].spikes)
    assert fresh.layers["scores"].error_rel == old.layers["scores"].error_rel


def test_read_power_is_that_of_the_operand_in_the_cells():
    """Ideal wires: v^2 times the conductance of every cell in a driven row, on for a one and off for a zero."""
    layer = scores_on({}, v_read_v=0.2).layers["scores"]
    cells = np.where(layer.operand[0] > 0, 1e-4, 1e-6).sum(axis=(-2, -1))  # (step, channel): a row has 4 keys
    expected = 0.04 * np.einsum("tcyx,tc->tyx", layer.inputs[0], cells).reshape(-1, 1)
    assert layer.read_power_w == pytest.approx(expected, rel=1e-6)


# Assumed spikes and traces


def assumed(network: Network, rate=0.3) -> Workload:
    weightless = tuple(replace(layer, weights=None, bias=None) for layer in network.layers)
    network = replace(network, layers=weightless)
    return Workload("block", network, 2, None, settings=WorkloadSettings(assumed_rate=rate))


def test_counts_of_assumed_spikes_are_their_products():
    found = assumed_activity(assumed(block()), samples=2, seed=0)
    query, key, scores = (found.layers[name] for name in ("query", "key", "scores"))
    heads = [part.spikes.reshape(2, 2, 2, 4, 6).astype(int) for part in (query, key)]
    expected = np.einsum("bthdn,bthdm->bthmn", *heads).reshape(scores.spikes.shape)
    assert np.array_equal(scores.spikes, expected)
    assert np.array_equal(found.layers["mixed"].inputs, expected)
    assert found.notes[1] == "counts of 'scores' are products of the assumed spikes"


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("changes", [{"input_coding": "binary"}, {"input_bits": 1}, {}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_replay_of_assumed_products_is_the_run_itself(mode, changes, rate, tmp_path):
    policy = {f"mapping.{key}": value for key, value in changes.items()} | {"mapping.dynamic_products": mode}
    hardware, data = load_hardware("demo", policy), assumed(attention())
    write_trace(tmp_path / "t.npz", assumed(attention(), rate), record(assumed(attention(), rate)))
    direct = simulate(hardware, assumed(attention(), rate))
    again = simulate(hardware, replace(read_trace(tmp_path / "t.npz"), name=data.name))
    for name in ("components", "layers", "movement"):
        assert getattr(direct, name).equals(getattr(again, name)), name
    assert {"query", "scores"} <= set(direct.layers["layer"])


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_of_a_block_with_weights_is_the_run_itself(mode, tmp_path):
    hardware = load_hardware("demo", {"mapping.dynamic_products": mode, "mapping.operand_bits": 2})
    data, trace = workload(block(2)), tmp_path / "t.npz"
    direct = simulate(hardware, data, samples=2)
    write_trace(trace, data, record(data, hardware, samples=2))
    again = simulate(hardware, replace(read_trace(trace), source=data.source), samples=2)
    direct.write(tmp_path / "direct")
    again.write(tmp_path / "again")
    assert traces.files_that_differ(tmp_path / "direct", tmp_path / "again") == []


def test_a_trace_whose_product_does_not_fit_is_refused(tmp_path):
    data = assumed(attention())
    recording = record(data)
    layers = data.network.layers
    wrong = replace(data, network=replace(data.network, layers=(*layers[:3], replace(layers[3], groups=2), layers[4])))
    write_trace(tmp_path / "t.npz", wrong, recording)
    with pytest.raises(
        WorkloadError, match=r"t.npz: network 'attention': layer 'scores': out_channels is 4; this product makes 8$"
    ):
        read_trace(tmp_path / "t.npz")


# What is refused


def fault(network: Network) -> str:
    with pytest.raises(WorkloadError) as caught:
        map_network(chip(), network)
    with pytest.raises(WorkloadError) as again:
        run_ideal(network, np.zeros((1, 1, *network.input_shape), np.uint8), 1)
    assert str(caught.value) == str(again.value)
    return str(caught.value).removeprefix("network 'attention': ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"delayed": True},
            "layer 'mixed': delayed is true; source and operand of a product are of the same timestep. "
            "Delay the layer behind it",
        ),
        (
            {"adds": ("query",)},
            "layer 'mixed': adds query; a product takes part in no shortcut. Let the layer behind it add",
        ),
        (
            {"operand": "input"},
            "layer 'mixed': operand is 'input'; a product multiplies what two layers before it emit, "
            "not the network's input",
        ),
        (
            {"operand": "mixed"},
            "layer 'mixed': operand is 'mixed'; a product multiplies what two layers before it emit, "
            "not the network's input",
        ),
        (
            {"groups": 3},
            "layer 'mixed': heads (groups) is 3; it must divide 4 channels of the source and 4 of the operand",
        ),
        (
            {"groups": 2},
            "layer 'mixed': source 'scores' has 4 channels; without transpose it needs one for each of 2 heads and "
            "each of 4 positions of operand 'value', 8",
        ),
        ({"out_channels": 5}, "layer 'mixed': out_channels is 5; this product makes 4"),
        ({"in_shape": (4, 1, 4)}, "layer 'mixed': in_shape is (4, 1, 4); source 'scores' emits (4, 2, 2)"),
        (
            {"pool": Pool((2, 2), (2, 2))},
            "layer 'mixed': a product has kernel and stride 1, no padding and no pool; pool or slide in the layers "
            "around it",
        ),
        (
            {"neuron": no_neurons()},
            "layer 'mixed': a product has no weights, no bias, and neurons of any kind but none",
        ),
        (
            {"kind": "conv2d"},
            "layer 'mixed': kind is conv2d; operand, transpose and neurons of kind count belong to kind product",
        ),
    ],
    ids=str,
)
def test_a_product_that_cannot_be_is_refused(changes, message):
    plain = attention()
    assert fault(replace(plain, layers=(*plain.layers[:4], replace(plain.layers[4], **changes)))) == message


def test_a_readout_is_no_operand():
    query, key, value, scores, mixed = attention().layers
    network = replace(attention(), layers=(query, key, replace(value, neuron=readout()), scores, mixed))
    assert fault(network) == (
        "layer 'mixed': operand is 'value', whose neurons are of kind accumulate and emit no spikes"
    )


def test_products_of_other_shapes_are_refused_when_they_are_made():
    large, small = conv("large", "input", (4, 3, 3), 4), conv("small", "input", (4, 2, 2), 4)
    wide = conv("wide", "input", (4, 3, 3), 6)
    with pytest.raises(WorkloadError) as positions:
        product_layer("p", large, small, transpose=True)
    with pytest.raises(WorkloadError) as features:
        product_layer("p", large, wide, transpose=True)
    assert (str(positions.value), str(features.value)) == (
        "layer 'p': operand 'small' has 4 positions and source 'large' 9; a product needs as many of both",
        "layer 'p': source 'large' has 4 channels and operand 'wide' 6; with transpose they must be equal",
    )


def test_operands_wider_than_a_crossbar_are_refused():
    with pytest.raises(ConfigError) as caught:
        load_hardware("demo", TINY | {"tile.pe.crossbar.bits_per_cell": 1, "mapping.operand_bits": 9})
    assert "one operand value takes 9 columns (mapping.operand_bits 9, 1 bits per cell); crossbar.cols is 8" in str(
        caught.value
    )


def test_operands_too_wide_for_shared_neuron_units_are_refused():
    changes = {"mapping.dynamic_products": "rewrite", "mapping.operand_bits": 8, "chip.neuron.shared_channels": 2}
    hardware = load_hardware("demo", TINY | changes | {"tile.pe.crossbar.bits_per_cell": 1, "mapping.weight_bits": 2})
    with pytest.raises(MappingError) as caught:
        map_network(hardware, attention())
    assert str(caught.value) == (
        "chip.neuron.shared_channels is 2, but tile.pe.crossbar.cols 8 holds 1 channels (8 columns per operand value), "
        "and those that share a unit must share a crossbar. Lower shared_channels or raise cols to 16."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 8, "heads": 3}, "heads is 3; it must divide channels, which is 8"),
        (
            {"weights": {"embed": np.zeros((4, 4))}},
            "weights of layer 'embed' are of shape (4, 4); expected (384, 384, 3, 3)",
        ),
        (
            {"channels": 2, "heads": 1, "weights": {"embed": np.zeros((2, 2, 3, 3))}},
            "weights of layer 'query' are missing; expected (2, 2, 1, 1)",
        ),
    ],
    ids=str,
)
def test_a_block_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(WorkloadError) as caught:
        spikformer_block(**arguments)
    assert str(caught.value) == message


# Time and energy


TINY = {"tile.pe.crossbar.rows": 4, "tile.pe.crossbar.cols": 8, "tile.pe.crossbars": 2, "tile.pe.pipelined": False}


class Timed:
    """A simulated attention: its netlist, trace, result, and the lanes of a product."""

    def __init__(self, mode: str, network: Network, rate=0.5, **overrides):
        changes = TINY | {"mapping.dynamic_products": mode} | overrides
        self.hardware = load_hardware("demo", changes)
        self.workload = assumed(network, rate)
        self.mapping = map_network(self.hardware, self.workload)
        self.activity = infer(self.mapping, self.workload, samples=2)
        self.netlist = build_netlist(self.mapping, self.activity)
        self.trace = execute(self.netlist)
        self.n_frames = 2 * self.workload.n_timesteps

    @cached_property
    def result(self):
        return simulate(self.hardware, self.workload, samples=2)

    def lanes(self, name: str):
        """Lanes of a product's PEs or unit, with what they did; those that read its line buffers."""
        return [
            (lane, self.trace.of(self.netlist, lane))
            for lane in self.netlist.lanes()
            if lane.reader and self.netlist.buffers[lane.reader[0]].layer == name
        ]

    def operand_complete_ps(self, name: str, index: int) -> np.ndarray:
        """When the last position of every frame of the operand has arrived in a line buffer, from all its senders."""
        operand, arrived = self.mapping.layer(name).layer.operand, []
        for lane in self.netlist.lanes():
            for wire in lane.wires:
                if lane.layer == operand and (wire.target.kind, wire.target.index) == ("buffer", index):
                    start = self.trace.of(self.netlist, lane).start_ps + wire.delay_ps
                    arrived.append(start.reshape(self.n_frames, -1)[:, -1])
        return np.max(arrived, axis=0)


@lru_cache
def timed(mode: str, rate=0.5) -> Timed:
    return Timed(mode, attention(), rate)


@pytest.mark.parametrize("name", ["scores", "mixed"])
@pytest.mark.parametrize("mode", MODES)
def test_a_token_waits_for_the_whole_frame_of_the_operand(mode, name):
    """The first token of the run starts when the operand's last position is there; no token starts before its own."""
    each = timed(mode)
    for lane, times in each.lanes(name):
        starts = times.start_ps.reshape(each.n_frames, -1)
        complete = each.operand_complete_ps(name, lane.reader[0])
        assert (starts[:, 0] >= complete).all()
        assert name != "scores" or starts[0, 0] == complete[0]


def test_a_unit_takes_a_cycle_for_each_active_value_and_each_load():
    """64 bits per fetch and 64 lanes: a token's 4 values of a bit in one cycle, then a cycle per active value."""
    each = timed("digital")
    values, ((lane, _),) = each.activity.layers["scores"], each.lanes("scores")
    active = (values.inputs != 0).sum(axis=2).ravel()
    assert lane.service_ps.tolist() == (2000 * (1 + np.maximum(active, 1))).tolist()
    ones = np.einsum("bncyx,bncvw->bnyx", values.inputs, values.operand, dtype=int)
    assert lane.actions[2].count.tolist() == ones.ravel().tolist()
    assert lane.actions[2].energy_pj.sum() == pytest.approx(0.194 * ones.sum(), rel=1e-12)


@pytest.mark.parametrize(("lanes", "row_cycles"), [(1, 4), (3, 2), (4, 1)])
def test_fewer_lanes_take_more_cycles_per_active_value(lanes, row_cycles):
    each = Timed("digital", attention(), **{"tile.product_unit.lanes": lanes})
    active = (each.activity.layers["scores"].inputs != 0).sum(axis=2).ravel()
    ((lane, _),) = each.lanes("scores")
    assert lane.service_ps.tolist() == (2000 * (1 + np.maximum(active * row_cycles, 1))).tolist()


def test_the_write_holds_a_crossbar_before_the_first_token_of_every_frame():
    """4 rows of 43 cycles (85.7 ns at 500 MHz), behind a load of 16 bits in one cycle; 4 keys in 4 of 8 columns."""
    each = timed("rewrite")
    lanes = each.lanes("scores")
    assert len(lanes) == 1
    write = next(action for action in lanes[0][0].actions if action.name == "write")
    first = np.arange(16) % 4 == 0
    assert write.duration_ps.tolist() == (4 * 43 * 2000 * first).tolist()
    assert write.count.tolist() == (16 * first).tolist()
    assert write.energy_pj.sum() == pytest.approx(each.n_frames * 16 * 1.2878, rel=1e-12)
    faster = Timed("rewrite", attention(), **{"tile.pe.crossbar.write_cycles": 43}).lanes("scores")[0][0]
    slower = Timed("rewrite", attention(), **{"tile.pe.crossbar.write_cycles": 53}).lanes("scores")[0][0]
    assert (slower.service_ps - faster.service_ps).tolist() == (4 * 10 * 2000 * first).tolist()


def test_the_write_shows_in_log_and_movement():
    each = timed("rewrite")
    log, table = each.result.log, each.result.movement
    writes = log.actions_of("write") & np.char.endswith(np.array(log.components)[log["component"]], ".crossbar")
    cells = {"scores": 16, "mixed": 16}
    for name, n in cells.items():
        mine = writes & (log["layer"] == log.layers.index(name))
        assert log["count"][mine].sum() == each.n_frames * n
    moved = table[(table["class"] == "weights") & (table["level"] == "crossbar")]
    assert (moved["packets"].sum(), moved["bits"].sum()) == (2 * each.n_frames, each.n_frames * 32 * 2)
    assert moved["energy_pj"].sum() == pytest.approx(each.n_frames * 32 * 1.2878, rel=1e-12)
    loaded = table[(table["class"] == "weights") & (table["level"] == "tile_buffer")]
    assert (loaded["packets"].sum(), loaded["bits"].sum()) == (2 * each.n_frames, each.n_frames * 32)
    reads = each.result.layers.set_index("layer")["crossbar_reads"]
    assert reads["scores"] == np.count_nonzero(each.activity.layers["scores"].inputs.any(axis=2))


def test_heads_write_only_the_rows_that_they_connect():
    """Two heads of two features and two tokens: each column block of 8 holds both heads, so all of its 4 rows; with 2
    columns each block has the rows of its own head only."""
    network = attention(heads=2, tokens=(1, 2))
    wide, narrow = (Timed("rewrite", network, **{"tile.pe.crossbar.cols": cols}) for cols in (8, 4))
    per_frame = [
        sum(action.count.sum() for lane, _ in each.lanes("scores") for action in lane.actions if action.name == "write")
        / each.n_frames
        for each in (wide, narrow)
    ]
    assert per_frame == [4 * 4, 4 * 4]


@pytest.mark.parametrize("name", ["scores", "mixed"])
@pytest.mark.parametrize("mode", MODES)
def test_a_product_costs_something_even_in_silence(mode, name):
    each = timed(mode, rate=0.0)
    row = each.result.layers.set_index("layer").loc[name]
    parts = each.result.components.set_index("component")
    unit = each.mapping.layer(name).pes[0].path
    mine = parts[parts.index.str.startswith(unit)]
    assert (row["energy_pj"] > 0, row["tokens"]) == (True, each.n_frames * 4)
    assert min(mine["busy_ps"].sum(), mine["area_um2"].sum()) > 0
    assert each.result.movement[each.result.movement["class"] == "weights"]["energy_pj"].sum() > 0 or mode == "digital"


def test_an_entry_moves_the_total_by_its_share():
    for mode, entry in (("digital", ("product_unit", "accumulate")), ("rewrite", ("crossbar", "write"))):
        each = timed(mode)
        dearer = each.hardware.with_library(each.hardware.library.with_factor(*entry, 1.1))
        log = each.result.log
        ends = ".crossbar" if mode == "rewrite" else ".product_unit0"
        mine = np.char.endswith(np.array(log.components)[log["component"]], ends) & log.actions_of(entry[1])
        share = log["energy_pj"][mine].sum()
        total = each.result.summary["energy_pj"]
        after = simulate(dearer, each.workload, samples=2).summary["energy_pj"]
        assert share > 0
        assert after == pytest.approx(total + 0.1 * share, rel=1e-12)


def test_the_unit_has_its_area():
    parts = timed("digital").result.components.set_index("component")
    units = parts[parts["kind"] == "product_unit"]
    assert units["area_um2"].tolist() == [pytest.approx(64 * 162.68)] * 2
    assert not (timed("rewrite").result.components["kind"] == "product_unit").any()


def test_a_line_buffer_keeps_two_frames_of_both():
    """4 positions twice, of 4 one-bit channels of queries and 4 of keys; then scores of 3 bits and values."""
    each = timed("digital")
    bits = {name: each.activity.layers[name].input_bits for name in ("scores", "mixed")}
    for name in ("scores", "mixed"):
        (lane, _), tile = each.lanes(name)[0], each.mapping.layer(name).tiles[0]
        assert each.netlist.buffers[lane.reader[0]].capacity == 8
        area = each.result.components.set_index("component").loc[f"tile{tile}.buffer", "area_um2"]
        assert area == pytest.approx(0.22125 * 8 * 4 * (bits[name] + 1))


def test_conversions_that_stop_early_resolve_what_an_operand_can_reach():
    """One driven row over 4-bit cells reaches 3 with 2-bit weights and 15 with 4-bit operands: 2 and 4 bits."""
    changes = {"mapping.weight_bits": 2, "mapping.operand_bits": 4, "tile.pe.crossbar.bits_per_cell": 4}
    hardware = load_hardware("demo", changes | {"tile.pe.adc.early_stop": True, "tile.pe.crossbar.signed": "diff"})
    assert [adc.resolved_bits(hardware, holds_operand)[1] for holds_operand in (False, True)] == [2, 4]


# Whole networks


class ExplainedProducts(ExplainedStreams):
    """Knows that an operand is there when its frame is."""

    def known(self, index, source):
        times = super().known(index, source)
        reader = self.mapping.layer(self.netlist.buffers[index].layer).layer
        sender = self.senders[Target("buffer", index, source)].layer
        n_operands = sum(
            self.senders[Target("buffer", index, other)].layer == reader.operand
            for other in range(self.netlist.buffers[index].n_sources)
        )
        is_operand = source >= self.netlist.buffers[index].n_sources - n_operands
        if reader.operand is None or sender != reader.operand or not is_operand:
            return times
        positions = reader.in_shape[1] * reader.in_shape[2]
        return np.repeat(times.reshape(-1, positions)[:, -1], positions)


def random_case(seed: int):
    rng = np.random.default_rng(seed)
    heads = int(rng.integers(1, 3))
    tokens = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    schedule = str(rng.choice(["pipelined", "layer_by_layer", "tick_batched"]))
    network = attention(heads * int(rng.integers(1, 4)), heads, tokens)
    if rng.random() < 0.6:
        network = block(seed, network.input_shape[0], heads, tokens)
    overrides = {
        "mapping.schedule": schedule,
        "mapping.replication": int(rng.choice([1, 2])) if rng.random() < 0.5 else "none",
        "mapping.share_tiles": bool(rng.random() < 0.5),
        "mapping.placement": str(rng.choice(["snake", "traffic"])),
        "mapping.layout": str(rng.choice(["dense", "kernel_position"])),
        "mapping.operand_bits": int(rng.choice([1, 3])),
        "mapping.input_coding": str(rng.choice(["binary", "bit_serial"])),
        "chip.noc.detail": str(rng.choice(["ideal", "packet"])),
        "chip.noc.spike_encoding": str(rng.choice(["bitmap", "address_event"])),
        "chip.neuron.shared_channels": int(rng.choice([1, 2])),
        "tile.silent_sums": str(rng.choice(["send", "flag"])),
        "tile.pe.fetch": str(rng.choice(["whole", "compressed"])),
        "tile.pe.crossbar.row_drive": str(rng.choice(["parallel", "serial"])),
        "tile.pe.adc.early_stop": bool(rng.random() < 0.5),
        "chip.neuron.level": str(rng.choice(["tile", "chip"])),
        "tile.line_buffer.rows": "auto" if rng.random() < 0.5 else max(tokens[0], 3),
        "tile.pe.crossbar.rows": int(rng.choice([2, 4, 64])),
        "tile.pe.crossbar.cols": int(rng.choice([8, 16])),
        "tile.pe.crossbars": int(rng.choice([1, 2, 9])),
        "tile.pe.pipelined": bool(rng.random() < 0.5),
        "tile.pe.latch_depth": int(rng.integers(1, 3)),
        "tile.pes": int(rng.choice([1, 2, 8])),
    }
    return network, overrides


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_drain_in_times_that_follow_from_their_constraints(seed, mode):
    network, overrides = random_case(seed)
    each = Timed(mode, network, rate=0.3, **overrides)
    busiest = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    wires = sum(
        int(np.broadcast_to(wire.delay_ps, lane.n_emitted).sum())
        for lane in each.netlist.lanes()
        for wire in lane.wires
    )
    check_trace(each.netlist, each.trace)
    assert max(busiest) <= each.trace.end_ps <= sum(busiest) + wires
    assert ExplainedProducts(each).faults() == []


@pytest.mark.parametrize("mode", MODES)
def test_both_executions_agree(mode):
    each = timed(mode)
    results = [simulate(each.hardware, each.workload, samples=2, engine=engine) for engine in ("simpy", "compiled")]
    logs = [{name: column.tolist() for name, column in result.log.columns.items()} for result in results]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("mode", MODES)
def test_schedules_change_no_work_of_a_product(mode):
    names = ["tokens", "crossbar_reads", "adc_conversions", "spikes_in", "spikes_out"]
    found = [
        Timed(mode, attention(), **{"mapping.schedule": schedule}).result.layers[names]
        for schedule in ("pipelined", "layer_by_layer", "tick_batched")
    ]
    assert [found[0].equals(other) for other in found] == [True] * 3


@pytest.mark.parametrize("schedule", ["layer_by_layer", "tick_batched"])
@pytest.mark.parametrize("mode", MODES)
def test_rounds_change_no_work_of_a_product_and_fetch_no_weights_for_it(mode, schedule):
    """Two tiles for five layers: what is written for a product is its operand, in every frame, as without rounds."""
    names = ["tokens", "crossbar_reads", "adc_conversions", "spikes_in", "spikes_out"]
    plain = {"mapping.schedule": schedule, "tile.pes": 4}
    rounds = plain | {"chip.tiles": 2, "mapping.overflow": "reload"}
    without, folded = (Timed(mode, attention(), **changes) for changes in (plain, rounds))
    assert folded.mapping.n_rounds > 1
    assert folded.result.layers[names].equals(without.result.layers[names])
    for each in (without, folded):
        log = each.result.log
        writes = log.actions_of("write") & np.char.endswith(np.array(log.components)[log["component"]], ".crossbar")
        for name in ("scores", "mixed"):
            mine = writes & (log["layer"] == log.layers.index(name))
            assert log["count"][mine].sum() == (each.n_frames * 16 if mode == "rewrite" else 0)


@pytest.mark.parametrize("mode", MODES)
def test_queries_that_are_their_own_keys_arrive_once_as_each(mode):
    plain = attention()
    query, _, value = plain.layers[:3]
    scores = product_layer("scores", query, query, transpose=True)
    mixed = product_layer("mixed", scores, value, neuron=neurons(threshold=3.0))
    each = Timed(mode, replace(plain, layers=(query, value, scores, mixed)))
    assert ExplainedProducts(each).faults() == []
    moved = each.result.movement
    tile = each.mapping.layer("scores").tiles[0]
    stored = moved[(moved["source"] == "query") & (moved["destination"] == f"tile{tile}.buffer")]
    assert stored["bits"].sum() == 2 * each.n_frames * 4 * 4


# Counts


def test_operations_of_products_are_counted_pair_by_pair():
    data = workload(block(1))
    activity = infer(map_network(chip(16), data), data, samples=2)
    network = replace(data.network, layers=tuple(layer for layer in data.network.layers if layer.kind == "product"))
    expected = np.zeros(3)
    for layer in network.layers:
        values = activity.layers[layer.name]
        matrix = layer.operand_matrix(values.operand).reshape(2, STEPS, 2, -1, layer.in_shape[0] // 2)
        columns = values.inputs.reshape(2, STEPS, 2, -1, 6)
        for *at, row, c in np.ndindex(*matrix.shape):
            for position in range(6):
                value = columns[(*at, c, position)]
                expected += (1, *((matrix[(*at, row, c)] != 0) * np.array([value == 1, value > 1])))
    ops = ops_per_sample(synaptic_ops(network, activity), 2)
    assert [ops.dense, ops.effective_acs, ops.effective_macs] == (expected / 2).tolist()


def test_products_have_no_weights():
    network = block(0)
    weights = [layer.weights for layer in network.layers if layer.weights is not None]
    assert footprint_bytes(network) == 4 * sum(one.size for one in weights)
    zero = sum(int((one == 0).sum()) for one in weights)
    assert connection_sparsity(network) == pytest.approx(zero / sum(one.size for one in weights), rel=1e-12)
    assert [layer.n_neurons for layer in network.layers if layer.kind == "product"] == [0, 48]


def test_the_shipped_block_has_the_shapes_of_its_paper():
    network = BUILDERS["spikformer-block"]()
    require_products(network)
    assert sum(layer.n_weights for layer in network.layers) == 9 * 384**2 + 4 * 384**2 + 2 * 384 * 1536
    assert [layer.conv_shape for layer in network.layers if layer.kind == "product"] == [(768, 8, 8), (384, 8, 8)]
    assert network.layer("scores").neuron.kind == counts().kind


def test_describe_says_where_products_are():
    rows = {}
    for mode in MODES:
        sheet = next(iter(mapping_sheets(timed(mode).mapping)))
        rows[mode] = next(row for row in sheet.rows if row[0] == "scores")
    assert rows["digital"][1:8] == ("product", "4x2x2", "4x2x2", "0", "digital x 1", "0", "0")
    assert rows["rewrite"][1:8] == ("product", "4x2x2", "4x2x2", "0", "1 x 1", "1", "1")
    assert "layer 'scores' is computed by a digital product unit, at every timestep" in timed("digital").result.notes
    assert (
        "layer 'mixed' is computed on crossbars that are rewritten, at every timestep" in timed("rewrite").result.notes
    )

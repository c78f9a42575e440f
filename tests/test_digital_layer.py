"""A first layer on digital MAC units: values against a loop, time and energy in closed form, networks that drain."""

from dataclasses import replace

import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
import torch
from test_costs_in_totals import HARDWARE, activity, network
from test_inference import chip, conv, neurons
from test_traces import files_that_differ
from test_traces import run as cli

from archsim.analog.encoding import quantize_weights
from archsim.api import simulate
from archsim.engine.simulation import simulate_activity
from archsim.hardware.reader import load_hardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.report.describe import mapping_sheets
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Network

DIGITAL = {"mapping.first_layer": "digital"}


def images(steps=4, coding="direct", high=200) -> Workload:
    """A padded, strided convolution of 8-bit images, then a readout."""
    rng = np.random.default_rng(5)
    first = conv("a", "input", (2, 5, 5), 3, stride=2, seed=1)
    readout = conv("b", "a", (27, 1, 1), 4, kernel=1, padding=0, neuron=neurons("accumulate"), seed=2)
    shape = (2, 1 if coding == "direct" else steps, 2, 5, 5)
    data = InputData(rng.integers(-high, high, shape), 1 / 64, None, coding)
    return Workload("images", Network("images", (2, 5, 5), (first, readout)), steps, data)


def fired(layer, frames, scale, weight_bits) -> np.ndarray:
    """Spikes of one sample, position by position: quantised weights, exact products, real biases."""
    integers, step = quantize_weights(torch.as_tensor(layer.weights), weight_bits)
    weights, v, spikes = integers.numpy() * step, np.zeros(layer.conv_shape), []
    for frame in frames:
        padded = np.pad(frame * scale, ((0, 0), (1, 1), (1, 1)))
        for o, y, x in np.ndindex(*layer.conv_shape):
            v[o, y, x] += (weights[o] * padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum() + layer.bias[o]
        spikes.append((v >= 1).astype(int))
        v -= spikes[-1]
    return np.stack(spikes)


@pytest.mark.parametrize("coding", ["direct", "spikes"])
@pytest.mark.parametrize("policy", [{}, {"input_coding": "binary"}, {"input_bits": 2}, {"bias": "row"}], ids=str)
def test_values_are_exact_products_of_quantised_weights(policy, coding):
    """Whatever rows of crossbars would take: a MAC unit sees whole pixels, and adds the bias digitally."""
    workload = images(coding=coding)
    hardware = chip(4, v_mem_bits=32, first_layer="digital", **policy)
    found = infer(map_network(hardware, workload), workload, samples=2).layers["a"]
    layer, data = workload.network.layers[0], workload.input
    expected = [fired(layer, np.broadcast_to(one, (4, 2, 5, 5)), data.scale, 4) for one in data.values]
    assert np.array_equal(found.spikes, expected)
    assert (found.clipped_inputs, found.adc_clips, found.gain) == (0, 0, None)


def run(workload: Workload, overrides: dict):
    """A run of a chip with that many lanes, and the columns of its components and layers."""
    result = simulate(load_hardware("demo", overrides | DIGITAL), workload, samples=2)
    return result, result.components.set_index("component"), result.layers.set_index("layer")


@pytest.mark.parametrize(("coding", "n_frames"), [("direct", 2), ("spikes", 8)])
@pytest.mark.parametrize("lanes", [1, 7, 64])
def test_time_and_energy_of_a_mac_unit_in_closed_form(coding, n_frames, lanes):
    """9 positions of 3 outputs from 18 inputs; once per sample for images, at every timestep for spikes."""
    _, components, layers = run(images(coding=coding), {"tile.mac.lanes": lanes})
    unit, weights = components.loc["tile0.mac0"], components.loc["tile0.mac0.weights"]
    tokens, products = 9 * n_frames, 3 * 18
    library = load_hardware("demo").library
    assert (unit["n_actions"], layers.loc["a", "tokens"]) == (tokens * products, tokens)
    assert unit["busy_ps"] == tokens * -(-products // lanes) * 2000
    assert unit["energy_dynamic_pj"] == pytest.approx(tokens * products * 0.25 * 5 / 8, rel=1e-12)
    assert weights["bits_out"] == tokens * products * 5
    assert weights["energy_dynamic_pj"] == pytest.approx(tokens * products * 5 * 0.01, rel=1e-12)
    assert unit["area_um2"] == pytest.approx(lanes * library.area_um2("mac", bits=5), rel=1e-12)
    assert weights["area_um2"] == pytest.approx(products * 5 * library.area_um2("mac_weights"), rel=1e-12)
    kept = components[components.index.str.endswith((".keep", ".current"))]["n_actions"].sum()
    assert kept == (9 * 3 * (2 + 8) if coding == "direct" else 0)


def test_a_digital_layer_takes_no_crossbar_and_no_converter():
    result, _, layers = run(images(), {})
    mine = layers.loc["a"]
    assert (mine["n_crossbars"], mine["n_pes"], mine["crossbar_reads"], mine["skipped_reads"]) == (0, 0, 0, 0)
    assert (mine["adc_conversions"], mine["neuron_updates"]) == (0, 2 * 4 * 27)
    assert result.summary["n_crossbars"] == layers.loc["b", "n_crossbars"] == 1
    assert result.summary["cell_utilisation"] == 27 * 4 * 4 / 64**2
    assert "layer 'a' is computed by digital MAC units, once per sample" in result.notes


@pytest.mark.parametrize(("share", "tiles"), [(False, [(0,), (1,)]), (True, [(0,), (0,)])])
def test_the_next_layer_uses_the_tiles_pes_only_where_tiles_are_shared(share, tiles):
    mapping = map_network(load_hardware("demo", DIGITAL | {"mapping.share_tiles": share}), images())
    assert [layer.tiles for layer in mapping.layers] == tiles
    sheet = next(iter(mapping_sheets(mapping)))
    assert sheet.rows[0][5:8] == ("digital x 1", "0", "0")


@pytest.mark.parametrize(
    "entry", [("mac", "multiply_add"), ("mac_weights", "read"), ("mac", "area"), ("mac_weights", "area")]
)
def test_an_entry_moves_the_total_by_its_share(entry):
    workload, kind = Workload("net", network(), 2, None), entry[0]
    column = "area_um2" if entry[1] == "area" else "energy_dynamic_pj"
    results = []
    for library in (HARDWARE.library, HARDWARE.library.with_factor(*entry, 1.1)):
        policy = HARDWARE.mapping.model_copy(update={"first_layer": "digital"})
        hardware = HARDWARE.model_copy(update={"mapping": policy}).with_library(library)
        results.append(simulate_activity(map_network(hardware, workload), workload, activity()))
    before, after = (float(result.components[column].sum()) for result in results)
    mine = results[0].components[results[0].components["kind"] == kind]
    assert len(mine) == 2
    assert after == pytest.approx(before + 0.1 * mine[column].sum(), rel=1e-12)


@pytest.mark.parametrize("seed", joins.VALUE_SEEDS[:8])
def test_a_fine_chip_with_a_digital_layer_is_the_ideal_network(seed):
    workload = joins.random_workload(seed)
    hardware = chip(16, None, {"rows": 16}, first_layer="digital", input_coding="bit_serial")
    activity = infer(map_network(hardware, workload), workload, samples=2)
    ideal = joins.ideal_of(seed)
    found = {name: layer.spikes for name, layer in activity.layers.items()}
    assert (joins.different(found, ideal.spikes), activity.outputs.tolist()) == ([], ideal.outputs.tolist())


@pytest.mark.parametrize("seed", joins.SEEDS[:6])
def test_networks_with_a_digital_layer_drain(seed):
    net = joins.random_workload(seed).network
    over = joins.random_chip(np.random.default_rng(seed)) | DIGITAL
    each = crossbar.run(net, crossbar.activity(net, 2, 2, seed), over)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    assert max(work) <= each.trace.end_ps


def test_groups_read_only_their_inputs():
    layer = joins.grouped(4, 8, 8, 3, 1, 0)
    assert [layer.n_inputs_of(block) for block in ((0, 2), (0, 3), (2, 8), (0, 8))] == [18, 36, 54, 72]
    assert layer.n_weights_of((2, 8)) == 6 * 2 * 9


def test_a_network_of_digital_layers_only_has_no_cells():
    layer = images().network.layers[0]
    workload = replace(images(), network=Network("one", (2, 5, 5), (layer,)))
    result, _, _ = run(workload, {})
    assert (result.summary["n_crossbars"], result.summary["n_pes"], result.summary["cell_utilisation"]) == (0, 0, 0)


@pytest.mark.parametrize("more", [(), ("--set", "workload.encoding=rate")])
def test_a_replay_is_the_direct_run_to_the_byte(more, tmp_path):
    change = ("--set", "mapping.first_layer=digital")
    assert cli("record", "digits-mlp", "-o", tmp_path / "t.npz", "--hardware", "demo", *change, *more) == 0
    assert cli("run", "demo", "digits-mlp", "-o", tmp_path / "direct", *change, *more) == 0
    assert cli("run", "demo", tmp_path / "t.npz", "-o", tmp_path / "replay", *change) == 0
    different = files_that_differ(tmp_path / "direct", tmp_path / "replay")
    assert different == []

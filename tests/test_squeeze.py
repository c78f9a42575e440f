"""Squeezed layers on a chip: what pruning left empty takes no crossbar, and index tables cost what they cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import archsim
from archsim.engine.simulation import simulate_activity
from archsim.errors import MappingError
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.training import Net, Neuron, Weighted
from archsim.training.pruning import footprint, prune
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Layer, Network
from archsim.workload.neurons import integrate_and_fire, readout

EXACT = {"tile.pe.adc.bits": 14, "mapping.weight_bits": 8, "mapping.calibration": "layer"}
SQUEEZED = {"mapping.squeeze": "rows"}


def conv(name, source, in_shape, channels, weights, bias=None, neuron=None):
    return Layer(
        name,
        "conv2d",
        source,
        in_shape,
        channels,
        (3, 3),
        (1, 1),
        (1, 1),
        weights,
        bias,
        neuron or integrate_and_fire(),
    )


@pytest.fixture(scope="module")
def workload():
    """Two convolutions of which 70 % of the row segments of 16 columns are zero."""
    torch.manual_seed(0)
    shapes = [(20, 6, 3, 3), (24, 20, 3, 3), (10, 24, 3, 3)]
    weights = [torch.randn(shape) * 0.3 for shape in shapes]
    net = Net([Weighted(weight) for weight in weights], Neuron())
    masks = prune(net, "rows", 0.7, 16)
    first, second, third = [(weight * mask).numpy() for weight, mask in zip(weights, masks, strict=True)]
    bias = np.linspace(-0.2, 0.2, 24, dtype=np.float32)
    network = Network(
        "pruned",
        (6, 5, 5),
        (
            conv("conv1", "input", (6, 5, 5), 20, first),
            conv("conv2", "conv1", (20, 5, 5), 24, second, bias),
            conv("conv3", "conv2", (24, 5, 5), 10, third, neuron=readout()),
        ),
    )
    spikes = (np.random.default_rng(0).random((3, 4, 6, 5, 5)) < 0.4).astype(np.uint8)
    return Workload("pruned", network, 4, InputData(spikes), None)


def chip(**changes):
    base = {
        "tile.pe.crossbar.rows": 16,
        "tile.pe.crossbar.cols": 32,
        "tile.pe.crossbar.signed": "differential",
        "tile.pe.crossbar.bits_per_cell": 7,
        "chip.tiles": "auto",
    }
    return archsim.load_hardware("spikesim-rram-64", base | EXACT | changes)


def test_crossbars_and_tables_are_those_that_pruning_counts(workload):
    mapping = map_network(chip(**SQUEEZED), workload)
    weights = [torch.as_tensor(layer.weights) for layer in workload.network.layers]
    squeezed, dense = (footprint(weights, kind, 16) for kind in ("rows", "none"))
    assert 2 * mapping.n_crossbars == squeezed.n_crossbars < 0.6 * dense.n_crossbars
    result = simulate_activity(mapping, workload, infer(mapping, workload, 1))
    tables = result.components[result.components["kind"] == "index_table"]
    library = mapping.hardware.library
    assert float(tables["area_um2"].sum()) == pytest.approx(squeezed.table_bits * library.area_um2("index_table"))
    assert len(tables) == mapping.n_pes


@pytest.mark.parametrize("bias", ["digital", "row"])
@pytest.mark.parametrize("device", ["ideal", "rram-100k-1m"])
def test_squeezed_layers_compute_the_same(workload, bias, device):
    """Converters of 14 bits round a little; cells of the device have no lines around them."""
    changes = {"mapping.bias": bias, "tile.pe.crossbar.device.preset": device}
    outputs = [infer(map_network(chip(**changes, **more), workload), workload, 3).outputs for more in ({}, SQUEEZED)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.05 * np.abs(outputs[0]).max())


def test_every_gain_scope_sees_only_what_a_block_holds(workload):
    for scope in ("layer", "tile", "column", "batch_norm"):
        activity = infer(map_network(chip(**SQUEEZED, **{"mapping.calibration": scope}), workload), workload, 3)
        assert all(layer.error_rel < 0.01 for layer in activity.layers.values())


def test_both_executions_of_a_squeezed_chip_agree(workload):
    mapping = map_network(chip(**SQUEEZED), workload)
    activity = infer(mapping, workload, 2)
    one, other = (simulate_activity(mapping, workload, activity, engine=engine) for engine in ("simpy", "compiled"))
    assert one.summary["latency_ps"] == other.summary["latency_ps"]
    assert one.summary["energy_pj"] == other.summary["energy_pj"]


def test_index_tables_are_read_with_every_input_bit_of_every_token(workload):
    mapping = map_network(chip(**SQUEEZED), workload)
    result = simulate_activity(mapping, workload, infer(mapping, workload, 1))
    rows = {
        pe.path: sum(last - first for held in layer.row_blocks[pe.row_block] for _, _, first, last in held)
        for layer in mapping.layers
        for pe in layer.pes
    }
    width = {"conv1": (6 * 9 - 1).bit_length(), "conv2": (20 * 9 - 1).bit_length(), "conv3": (24 * 9 - 1).bit_length()}
    n_tokens = 4 * 25
    price = mapping.hardware.library.energy_pj("index_table", "read")
    for layer in mapping.layers:
        for pe in layer.pes:
            (row,) = result.components[result.components["component"] == f"{pe.path}.index_table"].itertuples()
            expected = rows[pe.path] * width[layer.layer.name] * n_tokens * price
            assert row.energy_dynamic_pj == pytest.approx(expected)


def test_a_squeezed_chip_is_smaller_and_spends_less(workload):
    dense, squeezed = (
        simulate_activity(mapping, workload, infer(mapping, workload, 1))
        for mapping in (map_network(chip(**more), workload) for more in ({"mapping.layout": "dense"}, SQUEEZED))
    )
    assert squeezed.summary["n_crossbars"] < dense.summary["n_crossbars"]
    assert squeezed.summary["energy_pj"] < dense.summary["energy_pj"]


def test_a_column_block_without_weights_keeps_a_row(workload):
    first = workload.network.layers[0]
    weights = first.weights.copy()
    weights[16:] = 0
    layers = (replace(first, weights=weights), *workload.network.layers[1:])
    empty = replace(workload, network=replace(workload.network, layers=layers))
    mapping = map_network(chip(**SQUEEZED), empty)
    (place,) = mapping.layer("conv1").pes_of(1)
    assert mapping.layer("conv1").row_blocks[place.row_block] == (((0, 0, 0, 1),),)
    assert simulate_activity(mapping, empty, infer(mapping, empty, 1)).summary["latency_ps"] > 0


def test_what_cannot_be_squeezed_is_refused(workload):
    with pytest.raises(MappingError, match=r"^mapping\.squeeze is rows, .* and mapping\.fc is stream"):
        map_network(chip(**SQUEEZED, **{"mapping.fc": "stream"}), workload)
    shapes = archsim.load_workload("vgg9-cifar10")
    with pytest.raises(MappingError, match=r"layer 'conv1' of network 'vgg9-cifar10' has no weights\. Give a network"):
        map_network(chip(**SQUEEZED), shapes)

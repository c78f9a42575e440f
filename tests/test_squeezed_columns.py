"""Columns that pruning left empty: packed crossbars compute the same, and everything counts what is there."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import conv, neurons
from test_joins import random_workload
from test_squeeze import chip

import archsim
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat
from archsim.engine.simulation import simulate_activity
from archsim.errors import MappingError
from archsim.inference import infer
from archsim.inference.chip import program
from archsim.mapping import map_network
from archsim.mapping.squeeze import fewest_pes, packed_columns
from archsim.report.describe import mapping_sheets
from archsim.training.pruning import footprint
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Network

SQUEEZED = {"mapping.squeeze": "columns"}
EXACT = {"mapping.calibration": "none", "tile.pe.adc.range": "full", "tile.pe.adc.bits": 16}
DENSE = {"mapping.layout": "dense"}


def pruned(layer, band: int, share: float, seed: int = 0):
    """A layer without a share of its column segments of `band` unrolled rows."""
    rows = int(np.prod(layer.weights.shape[1:]))
    kept = np.random.default_rng(seed).random((-(-rows // band), layer.out_channels)) >= share
    mask = np.repeat(kept, band, axis=0)[:rows].reshape(*layer.kernel, layer.weights.shape[1], layer.out_channels)
    return replace(layer, weights=layer.weights * mask.transpose(3, 2, 0, 1))


def workload(layers, in_shape, n_steps=2, n_samples=2, density=0.4, seed=0):
    spikes = (np.random.default_rng(seed).random((n_samples, n_steps, *in_shape)) < density).astype(np.uint8)
    return Workload("pruned", Network("pruned", in_shape, tuple(layers)), n_steps, InputData(spikes), None)


@pytest.fixture(scope="module")
def three_layers():
    """Two convolutions, the second pooled and biased, and a readout; bands of 32 rows."""
    layers = [
        pruned(conv("conv1", "input", (6, 5, 5), 20, seed=1), 32, 0.6),
        pruned(conv("conv2", "conv1", (20, 5, 5), 40, seed=2), 32, 0.8),
        pruned(
            conv("fc", "conv2", (1000, 1, 1), 10, kernel=1, padding=0, neuron=neurons("accumulate"), seed=3), 32, 0.7
        ),
    ]
    return workload(layers, (6, 5, 5))


def simulated(hardware, work, n_samples=1, engine="auto"):
    mapping = map_network(hardware, work)
    return mapping, simulate_activity(mapping, work, infer(mapping, work, n_samples), engine=engine)


BANDS = {"tile.pe.crossbars": 2}


# Values


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]),
    st.sampled_from(["diff", "differential", "differential_arrays", "offset"]),
    st.integers(1, 3),
    st.sampled_from(["analog", "digital"]),
    st.sampled_from([1, 2]),
)
def test_packed_columns_compute_what_all_columns_do(seed, share, signed, crossbars, merge, n_shared):
    """Any mask; every weight is in exactly one crossbar, whose columns are enough."""
    rng = np.random.default_rng(seed)
    layer = conv("c", "input", (int(rng.integers(2, 7)), 3, 3), int(rng.integers(1, 14)), seed=seed)
    layer = pruned(layer, int(rng.integers(1, 20)), share, seed)
    work = workload([layer], layer.in_shape, n_samples=1, seed=seed)
    changes = {
        "tile.pe.crossbar.rows": 8,
        "tile.pe.crossbar.cols": 10,
        "tile.pe.crossbar.signed": signed,
        "tile.pe.crossbars": crossbars,
        "tile.pe.column_merge": merge,
        "chip.neuron.shared_channels": n_shared,
        **EXACT,
    }
    packed, whole = (map_network(chip(**changes, **more), work) for more in (SQUEEZED, DENSE))
    (mapped,) = packed.layers
    held = np.zeros_like(layer.weights, int)
    for pe in mapped.pes:
        outputs = list(mapped.outputs_of(pe))
        assert len(outputs) <= {"diff": 10, "differential": 5, "differential_arrays": 5, "offset": 9}[signed]
        for y, x, first, last in [segment for rows in mapped.row_blocks[pe.row_block] for segment in rows]:
            held[outputs, first:last, y, x] += 1
    if signed == "offset":
        assert len({(mapped.row_blocks[pe.row_block], pe.col_block) for pe in mapped.pes}) == len(mapped.pes)
    assert held.max() == 1
    assert (held[layer.weights != 0] == 1).all()
    assert packed.n_pes <= whole.n_pes
    assert 0 < packed.cell_utilisation <= 1
    found, expected = (infer(mapping, work, 1) for mapping in (packed, whole))
    np.testing.assert_array_equal(found.outputs, expected.outputs)
    np.testing.assert_array_equal(found.layers["c"].spikes, expected.layers["c"].spikes)
    assert found.layers["c"].error_rel == expected.layers["c"].error_rel


@pytest.mark.parametrize("scope", ["layer", "tile", "column", "batch_norm"])
def test_every_gain_scope_sees_only_what_a_pe_holds(three_layers, scope):
    changes = {"mapping.calibration": scope, "tile.pe.adc.range": "calibrated", "tile.pe.adc.range_scope": "tile"}
    packed, whole = (
        infer(map_network(chip(**more, **BANDS, **changes), three_layers), three_layers, 2).layers
        for more in (SQUEEZED, DENSE)
    )
    assert all(packed[name].error_rel < 1.05 * layer.error_rel < 0.02 for name, layer in whole.items())


def test_uneven_converters_are_those_at_the_bit_lines_that_columns_lie_on(three_layers):
    """A column of which others before it are left out lies on an earlier bit line, with another converter."""
    changes = {"tile.pe.adc.offset_sigma_lsb": 2.0, "tile.pe.adc.cols_per_adc": 2, **EXACT, **BANDS}
    mapping = map_network(chip(**SQUEEZED, **changes), three_layers)
    mapped = mapping.layer("conv2")
    errors = program(mapping, mapped, 1.0, InputFormat(1), ChipSeed()).crossbars.adc_errors
    by_line = {}
    for pe in mapped.pes:
        for number, output in enumerate(mapped.outputs_of(pe)):
            for sign in (0, 1):
                value = float(errors.offset[pe.row_block, 0, 2 * output + sign])
                assert by_line.setdefault((pe.row_block, pe.col_block, number), value) == value
    assert len(set(by_line.values())) == len(by_line)


# Counts, by hand: bands of 2 rows on crossbars of 2 x 2, five outputs

FED = np.array([[1, 0, 0, 1, 0], [1, 1, 0, 1, 1]])


@pytest.fixture(scope="module")
def by_hand():
    """Rows 0 and 1 feed outputs 0 and 3; rows 2 and 3 all but output 2. At timestep 1 only row 0 is driven."""
    layer = conv("fc", "input", (4, 1, 1), 5, kernel=1, padding=0, neuron=neurons("accumulate"))
    layer = replace(layer, weights=np.repeat(FED, 2, axis=0).T.reshape(5, 4, 1, 1).astype(np.float32), bias=None)
    spikes = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], np.uint8).reshape(1, 2, 4, 1, 1)
    return Workload("hand", Network("hand", (4, 1, 1), (layer,)), 2, InputData(spikes), None)


HAND = {
    "tile.pe.crossbar.rows": 2,
    "tile.pe.crossbar.cols": 2,
    "tile.pe.crossbar.signed": "diff",
    "tile.pe.crossbar.bits_per_cell": 8,
    "tile.pe.crossbars": 1,
    **SQUEEZED,
}


def test_columns_are_packed_into_fewest_pes(by_hand):
    """Five outputs in one block would take 3 PEs, but its accumulator may get no more than 2 bands x 2 columns."""
    (mapped,) = map_network(chip(**HAND), by_hand).layers
    assert mapped.col_blocks == ((0, 2), (2, 5))
    held = {(pe.row_block, pe.col_block): pe.outputs for pe in mapped.pes}
    assert held == {(0, 0): (0,), (1, 0): (0, 1), (0, 1): (3,), (1, 1): (3, 4)}
    assert mapped.n_stored == 2 * 6
    assert map_network(chip(**HAND | {"mapping.squeeze": "none"}), by_hand).n_crossbars == 6


@pytest.mark.parametrize("silent", ["send", "flag"])
def test_the_small_example_counts_what_is_there(by_hand, silent):
    """Six columns, three per column block: at timestep 1 the second band is silent, and leaves columns 0 and 3.

    Two outputs of each block have columns, so each block adds one value. Indices have 1 bit, and 2 for three outputs.
    """
    is_flagged = silent == "flag"
    hardware = chip(**HAND, **{"tile.silent_sums": silent, "tile.pe.crossbar.zero_skip": is_flagged})
    _, result = simulated(hardware, by_hand)
    steps = result.events[result.events["timestep"] >= 0].groupby(["action", "timestep"])
    counts, bits = steps["count"].sum(), steps["bits"].sum()
    width = hardware.tile.accumulator.bits
    assert counts["convert"].tolist() == ([6, 2] if is_flagged else [6, 6])
    assert counts["add"].tolist() == ([2, 0] if is_flagged else [2, 2])
    assert bits["add"].tolist() == [6 * width, (2 if is_flagged else 6) * width]
    assert bits["transfer"].tolist() == [6 * width, 2 * width + 2 if is_flagged else 6 * width]
    indices = result.events[result.events["component"].str.endswith("index_table") & (result.events["timestep"] >= 0)]
    assert indices.groupby("timestep")["bits"].sum().tolist() == [9, 3 if is_flagged else 9]
    tables = result.components[result.components["kind"] == "index_table"]
    library = hardware.library
    assert float(tables["energy_dynamic_pj"].sum()) == pytest.approx(
        (12 if is_flagged else 18) * library.energy_pj("index_table", "read")
    )
    assert float(tables["area_um2"].sum()) == pytest.approx(9 * library.area_um2("index_table"))


def test_the_description_of_a_mapping_names_the_index_tables(by_hand):
    sheets = list(mapping_sheets(map_network(chip(**HAND), by_hand)))
    assert ("index tables", "9 bits") in sheets[-1].rows


def test_a_layer_without_weights_keeps_a_column_per_block(by_hand):
    (layer,) = by_hand.network.layers
    empty = replace(by_hand.network, layers=(replace(layer, weights=np.zeros_like(layer.weights)),))
    (mapped,) = map_network(chip(**HAND), empty).layers
    assert [(pe.row_block, pe.outputs) for pe in mapped.pes] == [(0, (0,))]
    assert len(mapped.row_blocks) == 1


def cheapest(fed: np.ndarray, width: int, in_one_pe: bool) -> int:
    """PEs of the best of all ways to cut the outputs into ranges, tried one by one."""
    n_bands, n_outputs = fed.shape
    costs = []
    for cuts in range(1 << (n_outputs - 1)):
        edges = [0, *(at + 1 for at in range(n_outputs - 1) if cuts >> at & 1), n_outputs]
        used = np.array([fed[:, first:last].sum(1) for first, last in pairwise(edges)])
        widths = np.diff(edges)
        fits = used.max(1) <= width if in_one_pe else used.sum(1) <= n_bands * width
        if (fits | (widths == 1)).all():
            costs.append(int(np.maximum(-(-used // width).sum(1), 1).sum()))
    return min(costs)


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1), st.booleans())
def test_no_other_column_blocks_take_fewer_pes(seed, n_outputs, n_bands, width, share, in_one_pe):
    fed = np.random.default_rng(seed).random((n_bands, n_outputs)) >= share
    cols = fewest_pes(fed, width, 1, in_one_pe)
    assert [first for first, _ in cols] == [0, *(last for _, last in cols[:-1])]
    assert cols[-1][1] == n_outputs
    rows = tuple(((0, 0, band, band + 1),) for band in range(n_bands))
    _, outputs = packed_columns(tuple((row,) for row in rows), cols, fed, width)
    assert len(outputs) == cheapest(fed, width, in_one_pe)


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.integers(1, 40), st.integers(1, 6), st.floats(0, 1))
def test_crossbars_are_at_least_those_that_pruning_counts(seed, n_outputs, n_bands, share):
    """`footprint` packs every band on its own, whatever accumulators add; equal where one block may hold all."""
    size = 4
    layer = pruned(conv("c", "input", (n_bands * size, 1, 1), n_outputs, kernel=1, padding=0), size, share, seed)
    hardware = chip(**HAND | {"tile.pe.crossbar.rows": size, "tile.pe.crossbar.cols": size})
    mapping = map_network(hardware, Network("one", layer.in_shape, (layer,)))
    weights = torch.as_tensor(layer.weights[..., 0, 0])
    least = max(footprint([weights], "columns", size).n_crossbars // 2, 1)
    n_used = int((weights != 0).view(n_outputs, n_bands, size).any(2).sum())
    assert least <= mapping.n_crossbars <= n_bands * -(-n_outputs // size)
    if n_used <= n_bands * size:
        assert mapping.n_crossbars == least


# Time and energy


COMBINATIONS = {
    "plain": {},
    "sums of other tiles": {"tile.pes": 2},
    "sums of other tiles, flagged": {"tile.pes": 2, "tile.silent_sums": "flag", "tile.pe.crossbar.zero_skip": True},
    "copies that share tiles": {"mapping.replication": 2, "mapping.share_tiles": True},
    "positions as they come": {"mapping.fc": "stream", "tile.pe.pipelined": True},
    "one crossbar after the other": {"tile.pe.column_merge": "digital", "mapping.schedule": "tick_batched"},
    "rounds": {"mapping.overflow": "reload", "mapping.schedule": "layer_by_layer", "chip.tiles": 4, "tile.pes": 8},
    "read power": {"tile.pe.crossbar.device.preset": "rram-100k-1m", "tile.pe.crossbar.v_read_v": 0.2},
    "placed": {"tile.pes": 2, "mapping.placement": "traffic", "chip.neuron.shared_channels": 4},
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_both_executions_agree_and_values_stay(three_layers, name):
    """Conservation laws are checked in every run; energies of all tables are those of the log."""
    mapping = map_network(chip(**SQUEEZED, **BANDS, **COMBINATIONS[name]), three_layers)
    activity = infer(mapping, three_layers, 1)
    one, other = (simulate_activity(mapping, three_layers, activity, engine=name) for name in ("simpy", "compiled"))
    assert one.summary["latency_ps"] == other.summary["latency_ps"]
    assert one.summary["energy_pj"] == other.summary["energy_pj"]
    assert float(one.layers["energy_pj"].sum()) == pytest.approx(one.summary["energy_dynamic_pj"], rel=1e-9)
    assert mapping.n_rounds == (2 if name == "rounds" else 1)


def test_packed_layers_take_fewer_crossbars_less_energy_and_fewer_tiles(three_layers):
    results = [simulated(chip(**more, **BANDS), three_layers)[1] for more in (DENSE, SQUEEZED)]
    for key in ("n_crossbars", "n_tiles", "energy_pj", "area_um2"):
        assert results[1].summary[key] < results[0].summary[key]
    sums = [result.movement[result.movement["class"] == "partial_sums"]["bits"].sum() for result in results]
    assert sums[1] < 0.6 * sums[0]


def test_layers_whose_sums_meet_share_their_column_blocks():
    """A shortcut with a 1x1 layer: the accumulators of both meet block by block, whatever each of them leaves out."""
    side = pruned(conv("side", "stem", (12, 5, 5), 30, kernel=1, padding=0, neuron=neurons("none"), seed=2), 8, 0.3)
    layers = [
        pruned(conv("stem", "input", (6, 5, 5), 12, seed=1), 32, 0.5),
        side,
        replace(pruned(conv("sum", "stem", (12, 5, 5), 30, seed=3), 32, 0.8), adds=("side",)),
        pruned(conv("fc", "sum", (750, 1, 1), 4, kernel=1, padding=0, neuron=neurons("accumulate"), seed=4), 32, 0.5),
    ]
    work = workload(layers, (6, 5, 5))
    small = {"tile.pe.crossbar.cols": 16, **BANDS, **EXACT}
    packed, whole = (map_network(chip(**more, **small), work) for more in (SQUEEZED, DENSE))
    assert packed.layer("side").col_blocks == packed.layer("sum").col_blocks != whole.layer("sum").col_blocks
    found, expected = (infer(mapping, work, 1) for mapping in (packed, whole))
    np.testing.assert_array_equal(found.outputs, expected.outputs)
    one, other = (simulate_activity(packed, work, found, engine=name) for name in ("simpy", "compiled"))
    assert one.summary["latency_ps"] == other.summary["latency_ps"]
    mapped, added = packed.layer("sum"), one.events.query("layer == 'sum' and action == 'add'")
    # a vector of all outputs joins, so every column of the layer's own is added
    assert int(added["count"].sum()) == 2 * 25 * sum(mapped.width_of(pe) for pe in mapped.pes)


@pytest.mark.parametrize("squeeze", ["rows", "columns"])
def test_spikes_that_no_row_reads_still_arrive(squeeze):
    """The last 16 channels of the first layer, a column block of their own, have no weight to the second layer."""
    first = conv("first", "input", (4, 3, 3), 32, seed=1)
    second = conv("second", "first", (32, 3, 3), 4, neuron=neurons("accumulate"), seed=2)
    weights = second.weights.copy()
    weights[:, 16:] = 0
    work = workload([first, replace(second, weights=weights)], (4, 3, 3))
    mapping, result = simulated(chip(**BANDS, **{"mapping.squeeze": squeeze}), work)
    assert len(mapping.layer("first").col_blocks) == 2
    (sent,) = result.movement.query("source == 'first' and level == 'noc' and destination == 'second'").itertuples()
    assert (sent.packets, sent.bits) == (2 * 2 * 9, 32 * 2 * 9)  # blocks, timesteps, positions


def random_chip(rng) -> dict:
    """Crossbars of four rows, and options that touch columns, sums or what joins them."""
    options = {
        "tile.pe.crossbar.cols": (4, 6, 8),
        "tile.pe.crossbar.signed": ("diff", "differential", "offset"),
        "tile.pe.crossbars": (1, 2, 3),
        "tile.pe.column_merge": ("analog", "digital"),
        "tile.pe.pipelined": (False, True),
        "tile.pes": (1, 2, 3, 4),
        "tile.silent_sums": ("send", "flag"),
        "chip.neuron.level": ("tile", "chip"),
        "chip.noc.spike_encoding": ("bitmap", "address_event"),
        "mapping.share_tiles": (False, True),
        "mapping.fc": ("whole", "stream"),
        "mapping.first_layer": ("repeat", "digital"),
        "mapping.replication": ("none", 2),
        "mapping.schedule": ("pipelined", "layer_by_layer"),
    }
    chosen = {key: values[rng.integers(len(values))] for key, values in options.items()}
    return chosen | {"tile.pe.crossbar.rows": 4, "tile.pe.crossbar.zero_skip": True, **EXACT}


@pytest.mark.many_seeds
@pytest.mark.parametrize("seed", range(1, 13))
def test_random_networks_on_random_chips_stay_what_they_are(seed):
    """Shortcuts, recurrence, groups: packed columns give the values of the dense layout, and both executions agree."""
    rng, whole = np.random.default_rng(seed), random_workload(seed)
    changes, share = random_chip(rng), float(rng.choice([0.3, 0.6, 0.9]))
    band = 4 * changes["tile.pe.crossbars"]
    layers = tuple(pruned(layer, band, share, seed + place) for place, layer in enumerate(whole.network.layers))
    work = replace(whole, network=replace(whole.network, layers=layers))
    packed, dense = (map_network(chip(**changes, **more), work) for more in (SQUEEZED, DENSE))
    found, expected = (infer(mapping, work, 1) for mapping in (packed, dense))
    for name, values in expected.layers.items():
        np.testing.assert_array_equal(found.layers[name].spikes, values.spikes)
    np.testing.assert_array_equal(found.outputs, expected.outputs)
    one, other = (simulate_activity(packed, work, found, engine=name) for name in ("simpy", "compiled"))
    assert one.summary["latency_ps"] == other.summary["latency_ps"]
    assert one.summary["energy_pj"] == other.summary["energy_pj"]


# What cannot be


def test_bias_rows_are_refused(three_layers):
    message = (
        r"^mapping\.squeeze is columns, which leaves out columns whose weights are zero, and mapping\.bias is row, "
        r"which puts a bias in every column of layer 'conv1'\. Set mapping\.bias: digital or mapping\.squeeze: none\.$"
    )
    with pytest.raises(MappingError, match=message):
        map_network(chip(**SQUEEZED, **{"mapping.bias": "row"}), three_layers)


def test_shapes_without_weights_are_refused():
    message = (
        r"^mapping\.squeeze is columns, which leaves out columns whose weights are zero; layer 'conv1' of network "
        r"'vgg9-cifar10' has no weights\. Give a network with weights \(\.nir\), or set mapping\.squeeze: none\.$"
    )
    with pytest.raises(MappingError, match=message):
        map_network(chip(**SQUEEZED), archsim.load_workload("vgg9-cifar10"))

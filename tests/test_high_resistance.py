"""Encodings towards high resistance and crossbars of swapped polarity: equal products, cells that conduct less."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nodal_analysis import Mesh, column_currents, node_voltages
from test_encoding import integers
from test_inference import conv, neurons
from test_nonideal_layers import G_OFF, G_ON, SEED, V_READ_V, WIRES, case, linear, programmed, random_inputs
from test_squeezed_columns import EXACT, pruned, workload

import archsim
from archsim.analog.encoding import EncodedWeights, decode_columns, encode_weights
from archsim.analog.polarity import swap_polarity
from archsim.analog.product import hardware_sums
from archsim.analog.resistance import Bank
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.report.describe import hardware_sheets

LOW, SWAPPED = {"mapping.encoding": "high_resistance"}, {"mapping.polarity": "per_crossbar"}

MATRICES = {
    "weight_bits": st.integers(2, 16),
    "bits_per_cell": st.integers(1, 8),
    "signed": st.sampled_from(["diff", "offset"]),
    "n_rows": st.integers(1, 40),
    "n_cols": st.integers(1, 9),
    "cut": st.integers(1, 9),
    "shift": st.floats(-1, 1),
    "seed": st.integers(0, 2**31 - 1),
}


def blocks(n_items: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, n_items)) for first in range(0, n_items, size)]


def banks(n_rows: int, n_cols: int, cut: int) -> list[Bank]:
    """Crossbars of twice `cut` rows and `cut` logical columns."""
    return [
        Bank(torch.arange(*rows), torch.arange(*cols), index)
        for rows in blocks(n_rows, 2 * cut)
        for index, cols in enumerate(blocks(n_cols, cut))
    ]


def matrix(n_rows: int, n_cols: int, bits: int, shift: float, seed: int) -> torch.Tensor:
    """Integers around a share `shift` of the largest."""
    limit = 2 ** (bits - 1) - 1
    return (integers((n_rows, n_cols), bits, seed) + int(shift * limit)).clamp(-limit, limit)


def decoded(encoded: EncodedWeights, inputs: torch.Tensor, held: list[Bank]) -> torch.Tensor:
    """Products of inputs with the weights that cells hold, bank by bank."""
    products = torch.zeros(len(inputs), encoded.correction.shape[-1], dtype=torch.float64)
    for bank in held:
        driven = torch.zeros_like(inputs)
        driven[:, bank.rows] = inputs[:, bank.rows]
        signs = None if encoded.signs is None else encoded.signs[bank.rows[0]]
        sums = decode_columns(driven.double() @ encoded.cells.double(), encoded, signs)
        products[:, bank.cols] += (sums - driven.double() @ encoded.correction)[:, bank.cols]
    return products


@settings(deadline=None, derandomize=True, max_examples=150)
@given(**MATRICES, encoding=st.sampled_from(["standard", "high_resistance", "twos_complement"]), swaps=st.booleans())
def test_cells_are_relabelled_and_products_stay(
    weight_bits, bits_per_cell, signed, n_rows, n_cols, cut, shift, seed, encoding, swaps
):
    weights, held = matrix(n_rows, n_cols, weight_bits, shift, seed), banks(n_rows, n_cols, cut)
    args = (weights, weight_bits, bits_per_cell, signed, blocks(n_cols, cut))
    encoded = encode_weights(*args, encoding, held, swaps)
    encoded = swap_polarity(encoded, held) if swaps else encoded
    inputs = torch.randint(0, 2, (5, n_rows), generator=torch.Generator().manual_seed(seed + 1))
    assert torch.equal(decoded(encoded, inputs, held).long(), inputs @ weights)
    assert float(encoded.cells.min()) >= 0
    assert bool((encoded.cells <= encoded.largest_levels).all())
    usual = encode_weights(*args, "standard" if encoding == "high_resistance" else encoding)
    assert float(encoded.cells.double().sum()) <= float(usual.cells.double().sum())


@settings(deadline=None, derandomize=True)
@given(**MATRICES)
def test_no_slice_of_a_swapped_crossbar_conducts_more_than_its_complement(
    weight_bits, bits_per_cell, signed, n_rows, n_cols, cut, shift, seed
):
    weights, held = matrix(n_rows, n_cols, weight_bits, shift, seed), banks(n_rows, n_cols, cut)
    encoded = encode_weights(weights, weight_bits, bits_per_cell, signed, blocks(n_cols, cut))
    swapped = swap_polarity(encoded, held)
    for bank in held:
        for index in range(encoded.n_slices):
            cols = (bank.cols * encoded.n_slices + index).tolist()
            if encoded.reference_of is not None:
                cols.append((n_cols + bank.col_block) * encoded.n_slices + index)
            before, after = encoded.cells[bank.rows][:, cols], swapped.cells[bank.rows][:, cols]
            if not torch.equal(before, after):
                assert torch.equal(after, before.max() - before)
            assert float(after.sum()) <= float((before.max() - after).sum())


def test_a_column_takes_the_sign_and_the_lift_that_conduct_least():
    weights = torch.tensor([[-1, 3, -2], [-2, -1, 2], [-2, 0, 0]])
    encoded = encode_weights(weights, 4, 4, "diff", (), "high_resistance", [Bank(torch.arange(3), torch.arange(3), 0)])
    assert encoded.cells.tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]
    assert encoded.signs.tolist() == [[1, -1, 1]] * 3
    assert encoded.correction.tolist() == [[2, -3, 2], [2, 0, 0], [2, 0, 0]]


def test_the_reference_of_a_crossbar_is_what_it_needs():
    held = [Bank(torch.tensor([0]), torch.arange(2), 0), Bank(torch.tensor([1]), torch.arange(2), 0)]
    encoded = encode_weights(torch.tensor([[-3, 5], [2, 1]]), 4, 4, "offset", [(0, 2)], "high_resistance", held)
    assert encoded.cells.tolist() == [[0, 8, 3], [2, 1, 0]]


def test_twos_complement_stores_minus_one_as_the_largest_number():
    encoded = encode_weights(torch.tensor([[-7, -1, 0, 7]]), 4, 4, "diff", (), "twos_complement")
    assert encoded.cells.tolist() == [[9, 15, 0, 7]]
    assert encoded.correction.tolist() == [[16, 16, 0, 0]]
    assert encoded.largest_levels.tolist() == [15] * 4


def test_swapped_crossbars_hold_the_complement():
    weights = torch.tensor([[7, 6], [7, 1], [1, 0], [0, 7]])
    held = [Bank(torch.tensor([0, 1]), torch.arange(2), 0), Bank(torch.tensor([2, 3]), torch.arange(2), 0)]
    swapped = swap_polarity(encode_weights(weights, 4, 4, "diff"), held)
    assert swapped.cells.tolist() == [[0, 1], [0, 6], [1, 0], [0, 7]]
    assert swapped.signs.tolist() == [[-1, -1], [-1, -1], [1, 1], [1, 1]]
    assert swapped.correction.tolist() == [[-7, -7], [-7, -7], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("key", "value", "usual"),
    [("encoding", "high_resistance", "standard"), ("polarity", "per_crossbar", "as_is")],
)
def test_pairs_of_cells_refuse_both(key, value, usual):
    with pytest.raises(ConfigError) as caught:
        archsim.load_hardware("demo", {f"mapping.{key}": value})
    assert str(caught.value).partition(".yaml:5: ")[2] == (
        f"mapping.{key} is {value} and tile.pe.crossbar.signed is differential, where one cell of each pair "
        f"is at level 0 already; set mapping.{key}: {usual}, or tile.pe.crossbar.signed: diff or offset "
        f"(with --set mapping.{key}={value})"
    )


def test_a_description_says_how_weights_are_stored():
    (low, *_), (usual, *_) = (hardware_sheets(small_chip(**more)) for more in (LOW | SWAPPED, {}))
    assert ("weights", "encoding high_resistance, polarity per_crossbar") in low.rows
    assert "weights" not in [name for name, _ in usual.rows]


def test_twos_complement_is_a_way_of_diff():
    with pytest.raises(ConfigError) as caught:
        archsim.load_hardware("demo", {"tile.pe.crossbar.signed": "offset", "mapping.encoding": "twos_complement"})
    assert (
        "mapping.encoding is twos_complement and tile.pe.crossbar.signed is offset, which stores no weight as it is; "
        "set mapping.encoding: standard, or tile.pe.crossbar.signed: diff"
    ) in str(caught.value)


# Layers


@pytest.fixture(scope="module")
def network():
    """A biased convolution, much of it pruned, whose weights lean to one side, and a fully connected layer."""
    first = conv("conv", "input", (6, 6, 6), 20, seed=1)
    first = pruned(replace(first, weights=first.weights + 0.1), 16, 0.5)
    last = conv("fc", "conv", (720, 1, 1), 10, kernel=1, padding=0, neuron=neurons("accumulate"), seed=3)
    return workload([first, pruned(last, 16, 0.3)], (6, 6, 6))


def small_chip(**changes):
    base = {"rows": 16, "cols": 32, "bits_per_cell": 2}
    crossbar = {f"tile.pe.crossbar.{key}": value for key, value in base.items()}
    return archsim.load_hardware("spikesim-rram-64", crossbar | {"tile.pe.crossbars": 3} | EXACT | changes)


@pytest.mark.parametrize("signed", ["diff", "offset"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tile.pe.column_merge": "digital"},
        {"mapping.layout": "dense", "mapping.bias": "row"},
        {"mapping.squeeze": "rows"},
        {"mapping.squeeze": "columns"},
        {"mapping.fc": "stream", "tile.pe.column_merge": "digital"},
    ],
    ids=lambda changes: " ".join(f"{value}" for value in changes.values()),
)
def test_a_network_on_ideal_cells_spikes_as_it_did(network, signed, changes):
    changes = {"tile.pe.crossbar.signed": signed, **changes}
    usual, *others = (
        infer(map_network(small_chip(**changes, **more), network), network, 2)
        for more in ({}, LOW, SWAPPED, LOW | SWAPPED)
    )
    for other in others:
        assert other.outputs == pytest.approx(usual.outputs, abs=1e-9)
        for name, layer in usual.layers.items():
            np.testing.assert_array_equal(other.layers[name].spikes, layer.spikes)


@pytest.mark.parametrize(
    ("policy", "seen"),
    [
        ({"encoding": "high_resistance"}, {"as they are", "negated"}),
        ({"polarity": "per_crossbar"}, {"as they are", "swapped"}),
        ({"encoding": "high_resistance", "polarity": "per_crossbar"}, {"as they are", "negated", "swapped"}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_sums_of_negated_and_swapped_columns_are_those_of_the_physical_arrays(policy, seen):
    """Crossbars with wires, solved node by node; levels, signs and lifts are chosen here by trying all."""
    array = {"bits_per_cell": 4, "device": {"r_on_ohm": 2e4, "r_off_ohm": 2e5}}
    item = case(linear(20, 9), merge="digital", array=array, **policy)
    weights = item.layer.full_weights[:, :, 0, 0].T.astype(int)
    weights[:12] -= 5 * (weights[:12] > 2)
    weights[12:] = np.abs(weights[12:]) // 2 + 4
    item = replace(item, layer=replace(item.layer, weights=weights.T[:, :, None, None].astype(float)))
    layer, rows = programmed(item, SEED)
    inputs = random_inputs(item)
    step, expected, kinds = (G_ON - G_OFF) / 15, np.zeros((len(inputs), 9)), set()
    for part in (slice(0, 12), slice(12, 20)):
        held, driven = weights[part], inputs[:, part, 0, 0].numpy()
        levels, signs, lifts = np.zeros_like(held), np.ones(9), np.zeros_like(held)
        for col in range(9):
            tried = []
            for sign in (1, -1) if "encoding" in policy else (1,):
                values = sign * held[:, col]
                for lift in (max(0, -values.min()), 8) if "encoding" in policy else (8,):
                    stored = np.where(values < 0, values + lift, values)
                    tried.append((stored.sum(), len(tried), stored, sign))
            _, _, levels[:, col], signs[col] = min(tried, key=lambda found: found[:2])
            lifts[:, col] = levels[:, col] - signs[col] * held[:, col]
        largest = levels.max()
        is_swapped = "polarity" in policy and levels.sum() > (largest - levels).sum()
        kinds |= {"swapped" if is_swapped else "as they are"} | ({"negated"} if -1 in signs else set())
        g = np.full((12, 10), G_OFF)
        g[12 - len(held) :, :9] += step * (largest - levels if is_swapped else levels)
        volts = np.zeros((len(inputs), 12))
        volts[:, 12 - len(held) :] = V_READ_V * driven
        mesh = Mesh(g, *WIRES.values())
        sums = column_currents(mesh, node_voltages(mesh, volts)[1])[:, :9] / (V_READ_V * step)
        sums -= G_OFF / step * driven.sum(1, keepdims=True)
        sums = largest * driven.sum(1, keepdims=True) - sums if is_swapped else sums
        expected += signs * (sums - driven @ lifts)
    assert kinds == seen
    found, _ = hardware_sums(layer, inputs, rows)
    assert found[..., 0, 0].numpy() == pytest.approx(expected, abs=1e-3 * expected.std())
    assert np.abs(expected - inputs[..., 0, 0].numpy() @ weights).max() > 1


# Costs


def simulated(network, **changes):
    hardware = small_chip(**changes)
    mapping = map_network(hardware, network)
    return simulate_activity(mapping, network, infer(mapping, network, 1))


def test_driven_rows_are_counted_and_the_count_is_added(network):
    plain, swapped = (simulated(network, **more) for more in ({}, SWAPPED))
    library = small_chip().library
    kinds = swapped.components.groupby("kind")
    drives = kinds["n_actions"].sum()["row_driver"]
    energy, area = (kinds[key].sum()["row_counter"] for key in ("energy_dynamic_pj", "area_um2"))
    n_pes = (swapped.components["kind"] == "row_counter").sum()
    assert energy == pytest.approx(drives * library.energy_pj("row_counter", "count"))
    assert area == pytest.approx(n_pes * 3 * 16 * library.area_um2("row_counter"))
    subtractions = [
        int(result.events.loc[result.events["action"] == "subtract", "count"].sum()) for result in (plain, swapped)
    ]
    assert 2 * subtractions[1] == 3 * subtractions[0] > 0
    assert plain.summary["latency_ps"] == swapped.summary["latency_ps"]


@pytest.mark.parametrize("more", [LOW, {"tile.pe.crossbar.signed": "offset", **SWAPPED}])
def test_nothing_is_counted_where_no_count_is_needed(network, more):
    assert "row_counter" not in set(simulated(network, **more).components["kind"])

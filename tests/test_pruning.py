"""Structured pruning, the squeeze, rearranged columns, and weights that are cut off."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed
from archsim.errors import WorkloadError
from archsim.hardware.devices import PRESETS
from archsim.training import (
    Net,
    Neuron,
    Recipe,
    Squeezed,
    Technology,
    Weighted,
    arrangement,
    constrain,
    footprint,
    kept,
    prune,
    random_weight,
    squeeze,
    sweep_cut_offs,
    train,
    without_filters,
)
from archsim.training.net import rolled, unrolled

DEVICE = PRESETS["rram-20k-200k"]
IDEAL = Technology(DEVICE, rows=4, cols=4)
REAL = Technology(DEVICE, Wires(1000.0, 5.0, 10.0, 1000.0), rows=4, cols=4)


def mlp(*sizes):
    torch.manual_seed(0)
    layers = [Weighted(random_weight((after, before))) for before, after in pairwise(sizes)]
    return Net(layers, Neuron("relu"))


def cnn():
    torch.manual_seed(0)
    layers = [
        Weighted(random_weight((6, 2, 3, 3)), bias=True, padding=1, pool=2),
        Weighted(random_weight((8, 6, 3, 3)), bias=True, padding=1),
        Weighted(random_weight((5, 8 * 3 * 3)), bias=True),
        Weighted(random_weight((4, 5)), bias=True),
    ]
    return Net(layers, Neuron("relu"), norm="batch")


def test_rows_of_a_crossbar_run_through_kernel_positions_then_channels():
    weight = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)
    matrix = unrolled(weight)
    assert matrix[:4, 1].tolist() == [weight[1, 0, 0, 0], weight[1, 1, 0, 0], weight[1, 2, 0, 0], weight[1, 0, 0, 1]]
    assert torch.equal(rolled(matrix, weight.shape), weight)


@given(kind=st.sampled_from(["filters", "columns", "rows"]), sparsity=st.floats(0, 0.9), size=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_pruning_removes_the_share_it_is_asked_for_but_for_segments_of_other_lengths(kind, sparsity, size):
    net = mlp(12, 10, 7, 5)
    mask = unrolled(prune(net, kind, sparsity, size)[0])
    segments = {"filters": [12] * 10, "columns": [12] * 10, "rows": [10] * 12}[kind]
    if kind != "filters":
        pieces = [len(part) for part in torch.arange(segments[0]).split(size)]
        segments = pieces * len(segments)
    removed = int(len(segments) * sparsity)
    assert (
        sum(sorted(segments)[:removed]) <= float((mask == 0).sum()) <= sum(sorted(segments)[len(segments) - removed :])
    )


def test_the_weakest_segments_go():
    net = Net([Weighted(torch.tensor([[1.0, 9, 2, 2], [8.0, 1, 1, 1]])), Weighted(torch.ones(1, 2))], Neuron("relu"))
    columns = unrolled(prune(net, "columns", 0.25, 2)[0])
    assert columns.tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]
    rows = unrolled(prune(net, "rows", 0.5, 2)[0])
    assert rows.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    filters = prune(net, "filters", 0.5, 2)
    assert filters[0].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert filters[1].tolist() == [[1, 0]]


def test_a_network_without_its_filters_says_the_same():
    net = cnn()
    images = torch.rand(30, 2, 6, 6)
    masks = prune(net, "filters", 0.5, 8)
    train(kept(net, masks), images, torch.arange(30) % 4, Recipe(3, batch_size=10), after_step=lambda n: kept(n, masks))
    smaller = without_filters(net, masks)
    assert [tuple(layer.weight.shape) for layer in smaller.layers] == [(3, 2, 3, 3), (4, 3, 3, 3), (3, 36), (4, 3)]
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "filters", "columns", "rows"])
@pytest.mark.parametrize("technology", [IDEAL, replace(IDEAL, signed="differential", cols=8)])
def test_squeezed_weights_are_the_weights(kind, technology):
    net = cnn()
    kept(net, prune(net, kind, 0.6, 4))
    order = arrangement("mean", "interleave", "matrix", 4)
    for layer in net.layers:
        cells = Squeezed(technology, kind, order).realise(layer, "", ChipSeed())
        torch.testing.assert_close(cells.weight, layer.weight, rtol=0, atol=1e-6)


@given(st.integers(0, 1000), st.sampled_from(["filters", "columns", "rows"]))
@settings(max_examples=20, deadline=None)
def test_blocks_hold_every_weight_once(seed, kind):
    torch.manual_seed(seed)
    net = mlp(13, 11, 9, 3)
    mask = prune(net, kind, 0.7, 4)[0]
    held = torch.zeros(13, 11)
    for block in squeeze(mask, kind, 4):
        held[block.rows.unsqueeze(1), block.cols] += 1
    assert float(held.max()) <= 1
    assert bool((held[unrolled(mask) != 0] == 1).all())


def test_crossbars_and_index_tables_are_counted():
    weight = torch.zeros(8, 8)
    weight.T[0:4, [1, 4, 6]] = 1.0  # a band of rows with three columns left
    weight.T[4:8, [0]] = 1.0
    assert footprint([weight], "none", 4).n_crossbars == 2 * 4
    assert footprint([weight], "columns", 4).n_crossbars == 2 * 2
    assert footprint([weight], "columns", 4).table_bits == 4 * 3
    assert footprint([weight.T], "rows", 4) == footprint([weight], "columns", 4)
    assert footprint([weight], "filters", 4).n_crossbars == 2 * 2
    assert footprint([weight], "filters", 4).table_bits == 0


@pytest.mark.parametrize(
    ("order", "position", "expected"),
    [
        ("ascending", "matrix", [1, 3, 4, 0, 2]),
        ("descending", "matrix", [2, 0, 4, 3, 1]),
        ("interleave", "matrix", [2, 4, 1, 0, 3]),
        ("ascending", "crossbar", [1, 0, 2, 3, 4]),
        ("interleave", "crossbar", [2, 0, 1, 4, 3]),
    ],
)
def test_columns_are_rearranged_by_what_they_hold(order, position, expected):
    matrix = torch.tensor([[4.0, -1, 5, 2, 3]])
    for metric in ("mean", "max"):
        assert arrangement(metric, order, position, 3)(matrix).tolist() == expected


def test_spread_counts_where_it_is_asked_for():
    matrix = torch.tensor([[3.0, 0.0], [3.0, 4.0]])
    assert arrangement("std", "descending", "matrix", 2)(matrix).tolist() == [1, 0]
    assert arrangement("mean", "descending", "matrix", 2)(matrix).tolist() == [0, 1]
    assert arrangement("mean_std", "descending", "matrix", 2)(matrix).tolist() == [1, 0]


def test_order_matters_on_a_real_circuit_and_not_on_an_ideal_one():
    net = mlp(8, 8, 2)
    orders = [arrangement("mean", order, "matrix", 4) for order in ("ascending", "descending")]
    real = [Squeezed(REAL, "none", order).realise(net.layers[0], "", ChipSeed()).weight for order in orders]
    assert not torch.allclose(*real)


def test_gradients_pass_the_squeeze():
    net = mlp(8, 8, 2)
    kept(net, prune(net, "columns", 0.5, 4))
    layer = net.layers[0]
    Squeezed(REAL, "columns").realise(layer, "", ChipSeed()).weight.sum().backward()
    assert bool(((layer.weight.grad != 0) == (layer.weight != 0)).all())


def test_keeping_the_scale_lowers_losses_and_remapping_raises_them():
    found = {}
    for scale in ("keep", "remap"):
        net = constrain(mlp(16, 16, 4), 0.7, scale)
        assert float(net.layers[0].weight.detach().abs().max()) == pytest.approx(net.layers[0].limit)
        found[scale] = Squeezed(REAL, "none").nf(net, ChipSeed())
    assert found["keep"] < Squeezed(REAL, "none").nf(mlp(16, 16, 4), ChipSeed()) < found["remap"]


def test_a_sweep_of_cut_offs_judges_both_mappings_of_tuned_copies():
    net = mlp(8, 6, 4)
    before = net.layers[0].weight.detach().clone()
    tuned = []

    def tune(copied):
        tuned.append(copied)
        return copied

    found = sweep_cut_offs(net, [1.0, 0.5], tune, lambda n: {"nf": Squeezed(REAL, "none").nf(n, ChipSeed())})
    assert len(tuned) == 2
    assert torch.equal(net.layers[0].weight, before)
    assert found[1.0, "keep"] == found[1.0, "remap"]
    assert found[0.5, "keep"]["nf"] < found[1.0, "keep"]["nf"] < found[0.5, "remap"]["nf"]


def test_messages_say_what_is_allowed():
    with pytest.raises(WorkloadError, match=r"^sparsity is 1\.0 and size 4; sparsity is 0 <= s < 1, size at least 1$"):
        prune(mlp(4, 4), "rows", 1.0, 4)
    with pytest.raises(WorkloadError, match=r"^quantile is 0; the share of weights that stay is above 0 and at"):
        constrain(mlp(4, 4), 0, "keep")
    with pytest.raises(WorkloadError, match=r"^layer 0 has no weight other than 0; there is nothing to constrain$"):
        constrain(Net([Weighted(torch.zeros(2, 2))], Neuron("relu")), 0.5, "keep")

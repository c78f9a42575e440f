"""Encodings towards high resistance and crossbars of swapped polarity: equal products, cells that conduct less."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoding import integers

import archsim
from archsim.analog.encoding import EncodedWeights, decode_columns, encode_weights
from archsim.analog.polarity import swap_polarity
from archsim.analog.resistance import Bank
from archsim.errors import ConfigError

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
@given(**MATRICES, low=st.booleans(), swaps=st.booleans())
def test_cells_are_relabelled_and_products_stay(
    weight_bits, bits_per_cell, signed, n_rows, n_cols, cut, shift, seed, low, swaps
):
    weights, held = matrix(n_rows, n_cols, weight_bits, shift, seed), banks(n_rows, n_cols, cut)
    args = (weights, weight_bits, bits_per_cell, signed, blocks(n_cols, cut))
    encoded = encode_weights(*args, held if low else None, swaps)
    encoded = swap_polarity(encoded, held) if swaps else encoded
    inputs = torch.randint(0, 2, (5, n_rows), generator=torch.Generator().manual_seed(seed + 1))
    assert torch.equal(decoded(encoded, inputs, held).long(), inputs @ weights)
    assert float(encoded.cells.min()) >= 0
    assert bool((encoded.cells <= encoded.largest_levels).all())
    usual = encode_weights(*args)
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
    encoded = encode_weights(weights, 4, 4, "diff", (), [Bank(torch.arange(3), torch.arange(3), 0)])
    assert encoded.cells.tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]
    assert encoded.signs.tolist() == [[1, -1, 1]] * 3
    assert encoded.correction.tolist() == [[2, -3, 2], [2, 0, 0], [2, 0, 0]]


def test_the_reference_of_a_crossbar_is_what_it_needs():
    held = [Bank(torch.tensor([0]), torch.arange(2), 0), Bank(torch.tensor([1]), torch.arange(2), 0)]
    encoded = encode_weights(torch.tensor([[-3, 5], [2, 1]]), 4, 4, "offset", [(0, 2)], held)
    assert encoded.cells.tolist() == [[0, 8, 3], [2, 1, 0]]


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

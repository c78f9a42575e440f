"""Weights become cell levels and column sums become products again, exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.analog.encoding import decode_columns, encode_weights, quantize_weights
from archsim.analog.resistance import power_above


def integers(shape: tuple[int, ...], bits: int, seed: int) -> torch.Tensor:
    limit = 2 ** (bits - 1) - 1
    return torch.randint(-limit, limit + 1, shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, derandomize=True)
@given(
    weight_bits=st.integers(2, 16),
    bits_per_cell=st.integers(1, 8),
    signed=st.sampled_from(["diff", "differential", "differential_arrays", "offset"]),
    n_rows=st.integers(1, 40),
    n_cols=st.integers(1, 9),
    cut=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_decoded_columns_are_the_integer_product(weight_bits, bits_per_cell, signed, n_rows, n_cols, cut, seed):
    weights = integers((n_rows, n_cols), weight_bits, seed)
    inputs = torch.randint(0, 2, (5, n_rows), generator=torch.Generator().manual_seed(seed + 1))
    blocks = [(first, min(first + cut, n_cols)) for first in range(0, n_cols, cut)]
    encoded = encode_weights(weights, weight_bits, bits_per_cell, signed, blocks)
    sums = inputs.to(torch.float32) @ encoded.cells
    decoded = decode_columns(sums, encoded) - inputs.to(torch.float64) @ encoded.correction
    assert torch.equal(decoded.to(torch.int64), inputs @ weights)


@settings(deadline=None, derandomize=True)
@given(
    weight_bits=st.integers(2, 16),
    bits_per_cell=st.integers(1, 8),
    signed=st.sampled_from(["diff", "differential", "differential_arrays", "offset"]),
    seed=st.integers(0, 2**31 - 1),
)
def test_levels_fit_the_cells_and_the_declared_columns(weight_bits, bits_per_cell, signed, seed):
    encoded = encode_weights(integers((8, 3), weight_bits, seed), weight_bits, bits_per_cell, signed)
    magnitude_bits = weight_bits if signed in ("diff", "offset") else weight_bits - 1
    n_references = 1 if signed == "offset" else 0
    assert encoded.n_slices == -(-magnitude_bits // bits_per_cell)
    assert encoded.cells.shape == (8, (3 + n_references) * encoded.cols_per_weight)
    assert float(encoded.cells.min()) >= 0
    assert bool((encoded.cells <= encoded.largest_levels).all())
    assert float(encoded.largest_levels.max()) <= 2**bits_per_cell - 1


def test_diff_stores_negative_weights_shifted_by_eight():
    encoded = encode_weights(torch.tensor([[-7, -1, 0, 7]]), 4, 4, "diff")
    assert encoded.cells.tolist() == [[1, 7, 0, 7]]
    assert encoded.correction.tolist() == [[8, 8, 0, 0]]


def test_differential_orders_column_then_slice_then_sign():
    encoded = encode_weights(torch.tensor([[-6, 5]]), 4, 2, "differential")
    assert encoded.cells.tolist() == [[0, 2, 0, 1, 1, 0, 1, 0]]


def test_offset_has_a_reference_of_mid_scale_for_every_block_of_columns():
    encoded = encode_weights(torch.tensor([[-7, 0, 7]]), 4, 4, "offset", [(0, 2), (2, 3)])
    assert encoded.cells.tolist() == [[1, 8, 15, 8, 8]]
    assert encoded.correction.tolist() == [[0, 0, 0]]
    assert encoded.by_column(torch.tensor([5, 6, 7])).tolist() == [5, 6, 7, 5, 7]


@pytest.mark.parametrize(("number", "power"), [(-3, 0), (0, 0), (1, 1), (2, 2), (3, 4), (7, 8), (8, 8), (9, 16)])
def test_smallest_power_of_two_that_is_not_below_a_number(number, power):
    assert power_above(number) == power


def test_weights_on_the_grid_are_quantised_without_error():
    grid = torch.arange(-7, 8)
    levels, scale = quantize_weights(grid * 0.03, 4)
    assert levels.tolist() == grid.tolist()
    assert scale == pytest.approx(0.03)


def test_scale_clips_an_outlier_when_that_lowers_the_squared_error():
    weights = torch.cat((torch.linspace(-1, 1, 2000), torch.tensor([1.6])))
    levels, scale = quantize_weights(weights, 4)
    assert scale < 1.6 / 7
    assert int(levels.max()) == 7


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 16), st.integers(0, 2**31 - 1))
def test_unclipped_weights_round_to_within_half_a_step(weight_bits, seed):
    weights = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    levels, scale = quantize_weights(weights, weight_bits)
    limit = 2 ** (weight_bits - 1) - 1
    inside = weights.abs() <= limit * scale
    assert int(levels.abs().max()) <= limit
    assert bool(((levels * scale - weights).abs()[inside] <= scale * 0.5001).all())


def test_zero_weights_stay_zero():
    levels, scale = quantize_weights(torch.zeros(2, 3), 4)
    assert levels.abs().sum() == 0
    assert scale == 1.0


def test_significance_follows_the_order_of_the_physical_columns():
    encoded = encode_weights(torch.tensor([[-6, 5]]), 4, 2, "differential")
    assert encoded.significance.tolist() == [1, 1, 4, 4, 1, 1, 4, 4]

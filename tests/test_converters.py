"""Converters: codes, clips and the choice of their range."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.analog.converters import SumHistogram, calibrated_range, full_range, quantize_columns


def histogram(*sums: float, largest: float = 100.0) -> SumHistogram:
    seen = SumHistogram(1, largest)
    seen.add(torch.tensor(sums).unsqueeze(-1), torch.zeros(1, dtype=torch.int64))
    return seen


@pytest.mark.parametrize(
    ("total", "value", "clips"),
    [(0.0, 0.0, False), (4.9, 4.0, False), (5.0, 4.0, False), (7.0, 8.0, False), (12.0, 12.0, False),
     (13.9, 12.0, False), (14.1, 12.0, True), (-1.9, 0.0, False), (-2.1, 0.0, True)],
)  # fmt: skip
def test_two_bit_converter_with_steps_of_four(total, value, clips):
    values, clipped = quantize_columns(torch.tensor([total]), 0.0, 12.0, 2)
    assert (values.item(), clipped.item()) == (value, clips)


@settings(deadline=None, derandomize=True)
@given(st.floats(-50, 50), st.floats(1, 200), st.integers(1, 12), st.lists(st.floats(0, 1), min_size=1))
def test_sums_inside_the_range_are_off_by_half_a_step_at_most(low, width, bits, places):
    sums = low + width * torch.tensor(places, dtype=torch.float64)
    values, clipped = quantize_columns(sums, low, low + width, bits)
    assert not bool(clipped.any())
    assert bool(((values - sums).abs() <= 0.5000001 * width / (2**bits - 1)).all())


def test_columns_have_ranges_of_their_own():
    values, _ = quantize_columns(torch.tensor([[5.0, 5.0]]), torch.tensor([0.0, 4.0]), torch.tensor([15.0, 4.0]), 4)
    assert values.tolist() == [[5.0, 4.0]]


def test_full_range_is_every_row_with_the_largest_level():
    found = full_range(64, torch.tensor([7.0, 1.0]), 4)
    assert found.low.tolist() == [0.0, 0.0]
    assert found.high.tolist() == [448.0, 64.0]


def test_steps_are_never_finer_than_one_level():
    assert full_range(9, torch.tensor([7.0]), 8).high.tolist() == [255.0]


def test_calibrated_range_spans_the_sums_when_codes_suffice():
    found = calibrated_range(histogram(3.0, 10.0, 18.0), 4)
    assert (found.low.item(), found.high.item()) == (3.0, 18.0)


def test_calibrated_range_drops_a_rare_outlier_for_finer_steps():
    common = torch.linspace(0, 40, 5000).tolist()
    found = calibrated_range(histogram(*common, 90.0), 4)
    assert found.high.item() <= 40.0


def test_calibrated_range_keeps_the_outlier_when_clipping_it_costs_more():
    found = calibrated_range(histogram(*[20.0] * 5000, 1000.0, largest=2000.0), 16)
    assert found.low.item() <= 20.0
    assert found.high.item() >= 1000.0


def test_a_fine_converter_clips_no_analog_sum_that_was_seen():
    """Histograms have far wider bins than the converter has codes; sums lie anywhere in them."""
    sums = 3.0 + 94.0 * torch.rand(500, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = SumHistogram(1, 100.0, bin_width=0.7)
    seen.add(sums, torch.zeros(1, dtype=torch.int64))
    found = calibrated_range(seen, 16)
    assert not bool(quantize_columns(sums, found.low, found.high, 16)[1].any())
    assert float(sums.min()) - 0.7 <= found.low.item() <= float(sums.min())
    assert float(sums.max()) <= found.high.item() <= float(sums.max()) + 0.7


def test_range_from_zero_starts_at_zero():
    assert calibrated_range(histogram(30.0, 40.0, 50.0), 2, from_zero=True).low.item() == 0.0


def test_nothing_seen_gives_the_smallest_range():
    found = calibrated_range(SumHistogram(1, 10.0), 4)
    assert (found.low.item(), found.high.item()) == (0.0, 15.0)


def test_histograms_keep_groups_apart_and_add_up():
    seen = SumHistogram(2, 3.0)
    seen.add(torch.tensor([[0.0, 3.0], [1.0, 3.0]]), torch.tensor([0, 1]))
    seen.add(torch.tensor([[0.0, 2.0]]), torch.tensor([0, 0]))
    assert seen.counts.tolist() == [[2, 1, 1, 0], [0, 0, 0, 2]]


def test_wide_crossbars_get_bins_of_several_levels():
    seen = SumHistogram(1, 100_000.0)
    assert seen.counts.shape[1] <= 1 << 14
    seen.add(torch.tensor([[100_000.0]]), torch.tensor([0]))
    assert seen.counts[0, -1] == 1


def test_weighted_sums_pull_the_range():
    """The same sums; where the large ones count more, the range reaches up to them."""
    sums = torch.cat((torch.arange(40.0).repeat(200), torch.full((3,), 99.0))).unsqueeze(-1)
    tops = []
    for weight in (1.0, 1e6):
        seen = SumHistogram(1, 100.0)
        seen.add(sums[:-3], torch.zeros(1, dtype=torch.int64))
        seen.add(sums[-3:], torch.zeros(1, dtype=torch.int64), torch.tensor([weight]))
        tops.append(calibrated_range(seen, 3).high.item())
    assert tops[0] < 45
    assert tops[1] == 99.0

"""Column sums to digital values: uniform converters and the choice of their range.

Ranges come from every driven row at once (`full_range`) or from histograms of the sums seen on a
calibration batch (`calibrated_range`). Sums and values are in units of one cell level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TAILS = (0.0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Fractions of the sums that a calibrated range may leave out at either end."""
MAX_BINS = 1 << 14
"""Bins of a histogram of sums, at most; wider crossbars get bins of several levels."""


@dataclass(frozen=True)
class AdcRange:
    """Lowest and highest sum that converters resolve, per column, in cell levels."""

    low: Tensor
    """Value of code 0, float64, shape (..., physical col)."""
    high: Tensor
    """Value of the largest code, same shape."""


@dataclass(frozen=True)
class AdcErrors:
    """How converters depart from the ideal one; in codes but for `gain`.

    Tensors have an entry per physical column, shape (..., physical col), the same for columns behind one converter.
    """

    gain: Tensor
    offset: Tensor
    bow: Tensor
    """Deviation of the transfer curve from its straight line in mid-range."""
    noise_sigma: float
    generator: torch.Generator

    def of_bank(self, row_block: int, bank: int) -> AdcErrors:
        """Errors of one bank of converters of a row block, of tensors of shape (row_block, bank, physical col)."""
        at = row_block, bank
        return replace(self, gain=self.gain[at], offset=self.offset[at], bow=self.bow[at])

    def disturb(self, codes: Tensor, largest: int) -> Tensor:
        """Codes before rounding as these converters see them.

        The bow is a parabola that vanishes at both ends of the range. Source: integral nonlinearity of
        first order, the usual shape of a SAR or ramp converter with a gradient error (assumption).
        """
        place = (codes / largest).clamp(0, 1)
        disturbed = codes * self.gain + self.offset + 4 * self.bow * place * (1 - place)
        if self.noise_sigma > 0:
            noise = torch.randn(codes.shape, generator=self.generator, dtype=codes.dtype)
            disturbed = disturbed + self.noise_sigma * noise
        return disturbed


class SumHistogram:
    """Weighted counts of column sums in even bins, for groups of columns that share one range."""

    def __init__(self, n_groups: int, largest: float, bin_width: float | None = None) -> None:
        """Empty counts for sums from 0 to `largest`, in cell levels; by default bins are whole levels."""
        self.step = 1.0 if bin_width is None else 0.0
        """Smallest difference of two sums that means anything: one level, or none where sums are analog."""
        self.bin_width = float(max(1, math.ceil((largest + 1) / MAX_BINS))) if bin_width is None else bin_width
        self.counts = torch.zeros(n_groups, math.ceil(largest / self.bin_width) + 1, dtype=torch.float64)
        """Sums nearest to `bin * bin_width`, shape (group, bin)."""

    def add(self, sums: Tensor, groups: Tensor, weights: Tensor | None = None) -> None:
        """Count sums of shape (read, physical col).

        Args:
            sums: Column sums in cell levels.
            groups: Group of every column, shape (physical col).
            weights: What a sum of every column counts, shape (physical col); 1 by default.
        """
        first, last = int(groups.min()), int(groups.max()) + 1
        n_bins = self.counts.shape[1]
        bins = (sums / self.bin_width).round().clamp(0, n_bins - 1).to(torch.int64) + n_bins * (groups - first)
        each = torch.ones(sums.shape[-1], dtype=torch.float64) if weights is None else weights.to(torch.float64)
        counts = torch.bincount(bins.flatten(), each.expand_as(bins).flatten(), minlength=(last - first) * n_bins)
        self.counts[first:last] += counts.view(last - first, n_bins)


def quantize_columns(
    sums: Tensor, low: Tensor | float, high: Tensor | float, bits: int, errors: AdcErrors | None = None
) -> tuple[Tensor, Tensor]:
    """Convert column sums to the nearest code and back to the value that the code stands for.

    `code = clip(round((sum - low) / lsb), 0, 2**bits - 1)` with `lsb = (high - low) / (2**bits - 1)`;
    the result is `low + lsb * code`. Rounding is to nearest, ties to even. Where low equals high,
    every sum becomes low.

    Args:
        sums: Column sums in cell levels, shape (..., physical col).
        low: Value of code 0 in cell levels, broadcastable to `sums`.
        high: Value of the largest code, broadcastable to `sums`.
        bits: Resolution, 1 or more.
        errors: Departures from the ideal converter; None: there are none.

    Returns:
        Values in cell levels as float64, same shape, and a mask of the conversions that clipped
        (rounded code outside the range).

    Source: uniform quantiser without overrange, as in a flash or SAR converter.
    """
    largest = 2**bits - 1
    exact = sums.to(torch.float64)
    floor = torch.as_tensor(low, dtype=torch.float64)
    lsb = (torch.as_tensor(high, dtype=torch.float64) - floor) / largest
    codes = (exact - floor) / torch.where(lsb > 0, lsb, torch.ones_like(lsb))
    codes = (codes if errors is None else errors.disturb(codes, largest)).round_()
    clipped = (codes < 0) | (codes > torch.where(lsb > 0, float(largest), 0.0))
    return codes.clamp_(0, largest).mul_(lsb).add_(floor), clipped


def full_range(n_rows: int, largest_levels: Tensor, bits: int, step: float = 1.0) -> AdcRange:
    """Range of a column whose rows are all driven and hold the largest level.

    Args:
        n_rows: Rows that share the conversion.
        largest_levels: Largest level per physical column, shape (physical col).
        bits: Resolution of the converters; see `_whole_steps`.
        step: Smallest difference of two sums, in levels.
    """
    high = n_rows * largest_levels.to(torch.float64)
    return _whole_steps(torch.zeros_like(high), high, bits, step)


def calibrated_range(histogram: SumHistogram, bits: int, from_zero: bool = False) -> AdcRange:
    """Range between two percentiles of the sums, chosen for the smallest squared conversion error.

    With few bits a range from minimum to maximum spends most codes on rare sums, while a fixed
    percentile clips too much with many bits. So every tail in `TAILS` is tried: the range runs from
    the tail-th to the (1 - tail)-th quantile, and the tail with the smallest squared error on the
    calibration batch wins (the smaller tail in a tie).

    Args:
        histogram: Sums seen; every group has a range of its own.
        bits: Resolution of the converters; see `_whole_steps`.
        from_zero: Start every range at zero, so that a read of nothing converts to nothing.

    Returns:
        Range with low and high of shape (group,); 0 to the smallest full scale where nothing was seen.

    Source: percentile calibration of ADC ranges as in CrossSim (Sandia National Laboratories).
    """
    counts = histogram.counts
    levels = histogram.bin_width * torch.arange(counts.shape[-1], dtype=torch.float64)
    # Analog sums lie anywhere in their bin: ranges reach to its edges, so that a tail of zero leaves nothing out.
    edge = 0.0 if histogram.step else histogram.bin_width / 2
    share = counts.cumsum(-1) / counts.sum(-1, keepdim=True).clamp(min=1e-300)
    best = AdcRange(*torch.zeros(2, len(counts), 1, dtype=torch.float64))
    best_error = torch.full((len(counts), 1), torch.inf, dtype=torch.float64)
    for tail in TAILS:
        low = (_quantile(share, levels, tail) - edge).clamp(min=0)
        high = _quantile(share, levels, 1.0 - tail) + edge
        candidate = _whole_steps(torch.zeros_like(low) if from_zero else low, high, bits, histogram.step)
        values, _ = quantize_columns(levels.expand_as(counts), candidate.low, candidate.high, bits)
        error = (counts * (values - levels).square()).sum(-1, keepdim=True)
        better = error < best_error
        best = AdcRange(torch.where(better, candidate.low, best.low), torch.where(better, candidate.high, best.high))
        best_error = torch.where(better, error, best_error)
    return AdcRange(best.low.squeeze(-1), best.high.squeeze(-1))


def _quantile(share: Tensor, levels: Tensor, fraction: float) -> Tensor:
    """Smallest level up to which at least `fraction` of the sums lie; 0 means the smallest level seen."""
    reached = share >= fraction - 1e-12 if fraction > 0 else share > 0
    first = torch.where(reached.any(-1), reached.to(torch.int8).argmax(-1), 0)
    return levels[first].unsqueeze(-1)


def _whole_steps(low: Tensor, high: Tensor, bits: int, step: float) -> AdcRange:
    """Widen a range so that one code is at least one `step`: finer codes would resolve nothing.

    Room is added at both ends, not below zero, for sums that the calibration batch did not show.
    """
    least = (2**bits - 1) * step
    slack = (low + least - high).clamp(min=0)
    wider_low = (low - (slack / 2).floor()).clamp(min=0)
    return AdcRange(wider_low, torch.maximum(high, wider_low + least))

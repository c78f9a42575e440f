"""Fits converter ranges and digital gains of a layer to a calibration batch.

Entry points: `calibrate_ranges`, then `fit_gains`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from archsim.analog.converters import MAX_BINS, AdcRange, SumHistogram, calibrated_range
from archsim.analog.layer import (
    Group,
    InputFormat,
    ProgrammedLayer,
    connected_channels,
    connected_columns,
    conversion_groups,
    is_ideal,
    largest_group,
    row_segments,
)
from archsim.analog.product import block_product, chunks, converted_sums, correction, hardware_sums, read_columns


def calibrate_ranges(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None = None
) -> ProgrammedLayer:
    """Fit converter ranges to the column sums of a calibration batch, over all of its frames and input bits.

    A sum counts with the square of what its slice and input bit are worth, so that the chosen range
    keeps the error of the weighted sum small. Sums of groups without a driven row are left out when
    such reads are skipped; else ranges start at zero, so that a read of nothing converts to nothing.
    """
    hardware = layer.hardware
    if hardware.tile.pe.adc.range == "full":
        return layer
    scope = hardware.tile.pe.adc.range_scope
    groups = layer.encoded.by_column(_share(layer, scope))
    histogram = _histogram(layer, int(groups.max()) + 1)
    for held, _, padded in chunks(layer, inputs, matrices):
        for index, bit in product(range(len(layer.geometry.row_blocks)), range(rows.n_bits)):
            for sums, driven in read_columns(held, (padded >> bit) & 1, index):
                seen = sums[driven] if hardware.tile.pe.crossbar.zero_skip else sums.flatten(0, -2)
                worth = layer.encoded.significance * rows.significance(bit)
                cols = connected_columns(layer, index)
                histogram.add(seen[:, cols], groups[index][cols], worth.square()[cols])
    found = calibrated_range(histogram, hardware.tile.pe.adc.bits, from_zero=not hardware.tile.pe.crossbar.zero_skip)
    return replace(layer, ranges=AdcRange(found.low[groups], found.high[groups]))


def fit_gains(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None = None
) -> ProgrammedLayer:
    """Fit the digital factors that bring hardware sums closest to those of the real weights.

    Gains multiply what the converters deliver, before the exact digital correction of `diff` columns is
    subtracted, because only the former passed wires and converters. Least squares:
    `gain = sum(hardware * wanted) / sum(hardware**2)`, wanted being ideal sum plus correction; 1 where
    nothing was seen. One gain per layer fits the whole weighted sum; finer gains fit the products of each
    row block. `batch_norm` follows one gain per layer with a scale and an offset of every channel.

    Source: ordinary least squares through the origin.
    """
    scope = layer.hardware.mapping.calibration
    if scope == "none":
        return layer
    if scope == "batch_norm":
        return _match_statistics(_with_gains(layer, inputs, rows, matrices, "layer"), inputs, rows, matrices)
    return _with_gains(layer, inputs, rows, matrices, scope)


def _with_gains(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None, scope: str
) -> ProgrammedLayer:
    """The layer with least-squares gains of one scope."""
    n_blocks = len(layer.geometry.row_blocks)
    groups = _share(layer, scope)
    match, power = (torch.zeros(int(groups.max()) + 1, dtype=torch.float64) for _ in range(2))
    for held, _, padded in chunks(layer, inputs, matrices):
        converted = torch.stack([converted_sums(held, padded, index, rows)[0] for index in range(n_blocks)])
        exact = torch.stack(
            [_wanted(held, padded, index) + correction(held, padded, index) for index in range(n_blocks)]
        )
        if scope == "layer":
            converted, exact = converted.sum(0, keepdim=True), exact.sum(0, keepdim=True)
        for index, (hardware, ideal) in enumerate(zip(converted, exact, strict=True)):
            match.index_add_(0, groups[index], (hardware * ideal).sum((0, 1, 2)))
            power.index_add_(0, groups[index], hardware.square().sum((0, 1, 2)))
    gains = torch.where(power > 0, match / torch.where(power > 0, power, 1.0), 1.0)
    return replace(layer, gains=gains[groups])


def _wanted(layer: ProgrammedLayer, padded: Tensor, row_block: int) -> Tensor:
    """Sums that the real weights of a row block's PEs give; zero for channels that it does not feed."""
    return block_product(layer, padded, row_block, layer.weights) * connected_channels(layer, row_block)


def _match_statistics(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None
) -> ProgrammedLayer:
    """Scale and offset of every output channel that give its sums the mean and spread of the ideal ones.

    Source: re-estimation of batch-norm statistics on the mapped network (Bhattacharjee et al., arXiv
    2305.18416), for a batch norm that is folded into weights and bias.
    """
    found, _ = hardware_sums(layer, inputs, rows, matrices)
    exact = torch.zeros_like(found)
    for held, part, padded in chunks(layer, inputs, matrices):
        blocks = (_wanted(held, padded, index) for index in range(len(layer.geometry.row_blocks)))
        exact[part] = torch.stack(list(blocks)).sum(0).permute(0, 3, 1, 2)
    spread, wanted = (sums.std((0, 2, 3), correction=0) for sums in (found, exact))
    seen = (spread > 0) & (wanted > 0)
    scale = torch.where(seen, wanted / torch.where(seen, spread, 1.0), 1.0)
    offset = exact.mean((0, 2, 3)) - scale * found.mean((0, 2, 3))
    return replace(layer, normalisation=torch.stack([scale, offset]))


def _histogram(layer: ProgrammedLayer, n_groups: int) -> SumHistogram:
    """Empty counts that take the largest sum that a conversion can see."""
    if is_ideal(layer):
        most_rows = max(largest_group(layer, index) for index in range(len(layer.geometry.row_blocks)))
        return SumHistogram(n_groups, most_rows * float(layer.encoded.largest_levels.max()))
    largest = max(float(_group_total(layer, group).max()) for group in _all_groups(layer))
    n_bins = min(MAX_BINS, max(1 << 10, 8 << layer.hardware.tile.pe.adc.bits))
    return SumHistogram(n_groups, largest, bin_width=max(largest, 1e-12) / n_bins)


def _all_groups(layer: ProgrammedLayer) -> Iterator[Group]:
    for index in range(len(layer.geometry.row_blocks)):
        yield from conversion_groups(layer, index)


def _group_total(layer: ProgrammedLayer, group: Group) -> Tensor:
    """What every column collects when all rows of a conversion group are driven, float64, (physical col)."""
    cells = layer.effective.cells
    return sum(
        (cells[y, x, first:last].to(torch.float64).sum(0) for y, x, first, last in row_segments(group.values())),
        torch.zeros(cells.shape[-1], dtype=torch.float64),
    )


def _share(layer: ProgrammedLayer, scope: str) -> Tensor:
    """Number of the group that each (row_block, out_channel) belongs to under a scope."""
    n_rows, n_cols = len(layer.geometry.row_blocks), layer.weights.shape[-1]
    rows = torch.arange(n_rows).unsqueeze(1)
    if scope == "layer":
        return torch.zeros(n_rows, n_cols, dtype=torch.int64)
    if scope == "column":
        return rows * n_cols + torch.arange(n_cols)
    widths = torch.tensor([last - first for first, last in layer.geometry.col_blocks])
    return rows * len(widths) + torch.arange(len(widths)).repeat_interleave(widths)

"""The weighted sums of one layer as its crossbars and converters compute them.

`hardware_sums` turns integer inputs into weighted sums, row block by row block; `read_power_w` is what that
draws. Work is cut in chunks of frames so that memory stays bounded. Cells of a layer without weights
are written anew for every frame, with the `matrices` that these functions are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.arrays import ExactArray
from archsim.analog.converters import quantize_columns
from archsim.analog.encoding import decode_columns
from archsim.analog.layer import (
    CrossbarRows,
    Group,
    InputFormat,
    ProgrammedLayer,
    bank,
    connected_channels,
    connected_columns,
    conversion_groups,
    driven_together,
    row_segments,
)
from archsim.analog.programming import rewritten

CHUNK_ELEMENTS = 1 << 22
"""Largest tensor of one chunk, in elements."""


def hardware_sums(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted sums as converted, decoded, scaled by the gains and added, in real weight units.

    Every input bit is a read, a conversion and a shift-add; the digital correction of `diff`
    encoding is exact.

    Args:
        layer: A programmed layer with ranges.
        inputs: Integers within `rows.limits`, shape (frame, channel, height, width).
        rows: How the integers reach the rows.
        matrices: What is written for every frame, shape (frame, out_channel, in_channel / groups), of a layer
            without weights.

    Returns:
        Sums, float64, shape (frame, out_channel, height, width), and the number of conversions that
        clipped in each frame, int64, shape (frame,).
    """
    sums = torch.zeros(inputs.shape[0], *layer.geometry.output_hw, layer.weights.shape[-1], dtype=torch.float64)
    clips = torch.zeros(inputs.shape[0], dtype=torch.int64)
    for held, part, padded in chunks(layer, inputs, matrices):
        for index in range(len(layer.geometry.row_blocks)):
            converted, clips_of_block = converted_sums(held, padded, index, rows)
            converted = converted if layer.gains is None else converted * layer.gains[index]
            sums[part] += converted - correction(held, padded, index)
            clips[part] += clips_of_block
    if layer.normalisation is not None:
        sums = sums * layer.normalisation[0] + layer.normalisation[1]
    return sums.permute(0, 3, 1, 2), clips


def read_power_w(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None = None
) -> Tensor | None:
    """Power that the rows of every row block draw while they are driven, summed over the input bits.

    Per read `P = v_read**2 * s^T Y s`, Y being the input conductance of the driven crossbar with all its
    columns: devices, wires, drivers and sense inputs together. Where spikes drive gates, `P = v_read * sum of I`,
    because all current comes from the source lines.

    Args:
        layer: A programmed layer.
        inputs: Integers within `rows.limits`, shape (frame, channel, height, width).
        rows: How the integers reach the rows.
        matrices: What is written for every frame, of a layer without weights; see `hardware_sums`.

    Returns:
        Watt, float64, shape (frame * y * x, row_block), of a streamed layer y and x in its map; None where the
        hardware names no read voltage.

    Source: Tellegen's theorem; the sense inputs are virtual grounds.
    """
    v_read_v = layer.hardware.tile.pe.crossbar.v_read_v
    if v_read_v is None or layer.effective.energy_shares is None:
        return None
    blocks, height, width = layer.geometry.row_blocks, *layer.encoded.cells.shape[:2]
    n_tokens = height * width if layer.geometry.is_streamed else prod(layer.geometry.output_hw)
    power = torch.zeros(inputs.shape[0], n_tokens, len(blocks), dtype=torch.float64)
    for held, part, padded in chunks(layer, inputs, matrices):
        for index, bit in product(range(len(blocks)), range(rows.n_bits)):
            plane = ((padded >> bit) & 1).to(torch.float64).permute(0, 2, 3, 1)
            for number, crossbar in enumerate(blocks[index]):
                for tokens, together in driven_together(layer, crossbar):
                    driven = _crossbar_rows(layer, plane, crossbar, together)
                    drawn = held.effective.drawn_s(index, number, driven, layer.hardware)
                    power[part, tokens, index] += v_read_v**2 * drawn.view(padded.shape[0], -1)
    return power.flatten(0, 1)


def converted_sums(layer: ProgrammedLayer, padded: Tensor, row_block: int, rows: InputFormat) -> tuple[Tensor, Tensor]:
    """Decoded sums of one row block without gain and correction, and clips per frame.

    The sums have shape (frame, y, x, out_channel), in real weight units.

    A group of rows of which none is driven adds exactly zero: its read is skipped, or it collects
    nothing and its range starts at zero. Only converters with errors of their own see something in it.
    """
    if layer.ranges is None:
        raise ValueError("the layer's converters have no range yet; call calibrate_ranges first")
    adc, low, high = layer.hardware.tile.pe.adc, layer.ranges.low[row_block], layer.ranges.high[row_block]
    always_read = layer.adc_errors is not None and not layer.hardware.tile.pe.crossbar.zero_skip
    sums = torch.zeros(padded.shape[0], *layer.geometry.output_hw, layer.weights.shape[-1], dtype=torch.float64)
    connected = connected_channels(layer, row_block)
    columns = connected_columns(layer, row_block)
    clips = torch.zeros(padded.shape[0], dtype=torch.int64)
    for bit in range(rows.n_bits):
        reads = read_columns(layer, (padded >> bit) & 1, row_block)
        for group, (read, driven) in zip(conversion_groups(layer, row_block), reads, strict=True):
            errors = None if layer.adc_errors is None else layer.adc_errors.of_bank(row_block, bank(layer, group))
            values, clipped = quantize_columns(read, low, high, adc.bits, errors)
            products = decode_columns(values, layer.encoded, _signs(layer, group))
            if not always_read:
                products, clipped = products * driven.unsqueeze(-1), clipped & driven.unsqueeze(-1)
            sums += rows.significance(bit) * products
            if bool(clipped.any()):
                clips += (clipped & columns).flatten(1).sum(1)
    return sums * connected * layer.weight_scale, clips


def _signs(layer: ProgrammedLayer, group: Group) -> Tensor | None:
    """What converted sums of a group count with; all of its rows are in one bank."""
    if layer.encoded.signs is None:
        return None
    kernel_y, kernel_x, first, _ = next(row_segments(group.values()))
    return layer.encoded.signs[kernel_y, kernel_x, first]


def correction(layer: ProgrammedLayer, padded: Tensor, row_block: int) -> Tensor:
    """What the digital part subtracts from a row block's sums, in real weight units; zero without a PE."""
    if not bool(layer.encoded.correction.any()):
        return torch.zeros((), dtype=torch.float64)
    products = block_product(layer, padded, row_block, layer.encoded.correction)
    return products * connected_channels(layer, row_block) * layer.weight_scale


def block_product(layer: ProgrammedLayer, padded: Tensor, row_block: int, matrix: Tensor) -> Tensor:
    """Exact product of a row block with a (kernel_h, kernel_w, in_channel, out_channel) matrix, channels last."""
    block = list(row_segments(layer.geometry.row_blocks[row_block]))
    held = torch.zeros_like(matrix)
    for kernel_y, kernel_x, first, last in block:
        held[kernel_y, kernel_x, first:last] = matrix[kernel_y, kernel_x, first:last]
    channels = slice(min(first for _, _, first, _ in block), max(last for _, _, _, last in block))
    kernel = held[:, :, channels].permute(3, 2, 0, 1)
    products = functional.conv2d(padded[:, channels].to(torch.float64), kernel, stride=layer.geometry.stride)
    return products.permute(0, 2, 3, 1)


def read_columns(layer: ProgrammedLayer, plane: Tensor, row_block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Column sums of the crossbars that share a conversion, and where any of their rows is driven."""
    driven_rows = plane.to(torch.float32).permute(0, 2, 3, 1).contiguous()
    positions = (plane.shape[0], *layer.geometry.output_hw)
    anywhere: dict[tuple[int, int], Tensor] = {}
    for group in conversion_groups(layer, row_block):
        sums = torch.zeros(prod(positions), layer.encoded.cells.shape[-1])
        variance = None if layer.effective.noise_variance is None else torch.zeros_like(sums)
        driven = torch.zeros(positions, dtype=torch.bool)
        for kernel_y, kernel_x, first, last in row_segments(group.values()):
            rows = _rows_of(layer, driven_rows, (kernel_y, kernel_x, first, last))
            if (first, last) not in anywhere:
                anywhere[first, last] = driven_rows[..., first:last].any(-1)
            driven |= _window(layer, anywhere[first, last], kernel_y, kernel_x)
            if not layer.effective.exact:
                sums += rows @ layer.effective.cells[kernel_y, kernel_x, first:last]
            if variance is not None and layer.effective.noise_variance is not None:
                variance += rows @ layer.effective.noise_variance[kernel_y, kernel_x, first:last]
        for array in layer.effective.exact:
            if array.place.row_block == row_block and array.place.crossbar in group:
                sums[:, array.place.cols] += _exact_sums(layer, driven_rows, array, group[array.place.crossbar])
        if variance is not None:
            sums += variance.sqrt() * torch.randn(sums.shape, generator=layer.noise)
        yield sums.unflatten(0, positions), driven


def _exact_sums(layer: ProgrammedLayer, planes: Tensor, array: ExactArray, driven: CrossbarRows) -> Tensor:
    """Column sums of one crossbar whose every read is solved; only the segments `driven` are driven."""
    crossbar = layer.geometry.row_blocks[array.place.row_block][array.place.crossbar]
    return array.sums(_crossbar_rows(layer, planes, crossbar, driven), layer.hardware)


def _crossbar_rows(layer: ProgrammedLayer, planes: Tensor, crossbar: CrossbarRows, driven: CrossbarRows) -> Tensor:
    """What all rows of a crossbar see, zero where their segment is not driven, shape (frame * y * x, row)."""
    parts = [_rows_of(layer, planes, segment) * (segment in driven) for segment in crossbar]
    return torch.cat(parts, dim=-1)


def _rows_of(layer: ProgrammedLayer, planes: Tensor, segment: tuple[int, int, int, int]) -> Tensor:
    """What one row segment sees at every output position, shape (frame * y * x, row); `planes` are channels last."""
    kernel_y, kernel_x, first, last = segment
    return _window(layer, planes, kernel_y, kernel_x)[..., first:last].reshape(-1, last - first)


def _window(layer: ProgrammedLayer, padded: Tensor, kernel_y: int, kernel_x: int) -> Tensor:
    """Values under one kernel position at every output position, of a (frame, height, width, ...) tensor."""
    (stride_y, stride_x), (out_h, out_w) = layer.geometry.stride, layer.geometry.output_hw
    return padded[
        :,
        kernel_y : kernel_y + stride_y * (out_h - 1) + 1 : stride_y,
        kernel_x : kernel_x + stride_x * (out_w - 1) + 1 : stride_x,
    ]


def chunks(
    layer: ProgrammedLayer, inputs: Tensor, matrices: Tensor | None
) -> Iterator[tuple[ProgrammedLayer, slice, Tensor]]:
    """The layer as it is then (rewritten for every frame, with matrices), slices of frames, their int32 inputs.

    Inputs are zero-padded, and behind them is a channel of ones for every bias row.
    """
    out_h, out_w = layer.geometry.output_hw
    pad_y, pad_x = layer.geometry.padding
    per_frame = max(out_h * out_w * layer.encoded.cells.shape[-1], inputs[0].numel() if len(inputs) else 1)
    size = max(1, CHUNK_ELEMENTS // per_frame) if matrices is None else 1
    for first in range(0, inputs.shape[0], size):
        part = slice(first, min(first + size, inputs.shape[0]))
        padded = functional.pad(inputs[part].to(torch.int32), (pad_x, pad_x, pad_y, pad_y))
        ones = padded.new_ones(padded.shape[0], layer.n_bias_rows, *padded.shape[2:])
        held = layer if matrices is None else rewritten(layer, matrices[first], first)
        yield held, part, torch.cat([padded, ones], dim=1) if layer.n_bias_rows else padded

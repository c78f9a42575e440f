"""Writes a layer to its crossbars: quantised, encoded, through devices and wires.

Entry points: `program_layer` for weights, `program_operand` for cells that are `rewritten` with every frame.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor

from archsim.analog.arrays import ArrayPlace, Progress, effective_cells
from archsim.analog.converters import AdcErrors, AdcRange, full_range
from archsim.analog.devices import ChipSeed
from archsim.analog.encoding import EncodedWeights, encode_weights, quantize_weights
from archsim.analog.layer import (
    DEFAULT_CHIP,
    CrossbarRows,
    LayerGeometry,
    ProgrammedLayer,
    is_ideal,
    largest_group,
    row_segments,
)
from archsim.analog.polarity import swap_polarity
from archsim.analog.resistance import Bank
from archsim.hardware.models import Hardware
from archsim.units import ceil_div


def program_layer(
    weights: Tensor,
    geometry: LayerGeometry,
    hardware: Hardware,
    bias: Tensor | None = None,
    name: str = "layer",
    chip: ChipSeed = DEFAULT_CHIP,
    progress: Progress | None = None,
) -> ProgrammedLayer:
    """Quantise, encode and write weights of shape (out_channel, in_channel, kernel_h, kernel_w), and solve the arrays.

    Args:
        weights: Real weights.
        geometry: How the layer is cut into crossbars.
        hardware: The chip.
        bias: What the bias rows of `geometry` add, in the unit of a weight times an input of 1, shape (out_channel);
            None where it has no such rows. It takes the weights' scale, and what exceeds the largest weight is clipped.
        name: Name of the layer, which its random draws hang on.
        chip: Which chip.
        progress: Called with crossbars done and in all.
    """
    crossbar, policy = hardware.tile.pe.crossbar, hardware.mapping
    integers, scale = quantize_weights(weights, policy.weight_bits)
    integers, exact = integers.permute(2, 3, 1, 0), weights.to(torch.float64).permute(2, 3, 1, 0)
    n_bias_rows, n_clipped = 0, 0
    if bias is not None:
        limit = 2 ** (policy.weight_bits - 1) - 1
        steps = (bias.to(torch.float64) / scale).round()
        stored = steps.clamp(-limit, limit)
        n_clipped = int((stored != steps).sum())
        integers = _with_bias_rows(integers, stored.to(integers.dtype), geometry)
        exact = _with_bias_rows(exact, bias.to(torch.float64), geometry)
        n_bias_rows = exact.shape[2] - weights.shape[1]
    asks_for_banks = policy.encoding == "high_resistance" or policy.polarity == "per_crossbar"
    banks = _banks(geometry, exact.shape, hardware) if asks_for_banks else []
    encoded = encode_weights(
        integers,
        policy.weight_bits,
        crossbar.bits_per_cell,
        crossbar.signed,
        geometry.col_blocks,
        policy.encoding,
        banks,
        swaps=policy.polarity == "per_crossbar",
    )
    if policy.polarity == "per_crossbar":
        encoded = swap_polarity(encoded, banks)
    layer = _written(geometry, hardware, encoded, exact, scale, name, chip, progress)
    return replace(layer, n_bias_rows=n_bias_rows, clipped_biases=n_clipped)


def program_operand(
    shape: tuple[int, int],
    groups: int,
    geometry: LayerGeometry,
    hardware: Hardware,
    name: str = "layer",
    chip: ChipSeed = DEFAULT_CHIP,
) -> ProgrammedLayer:
    """Cells for operands, whole numbers of `mapping.operand_bits`; full of the largest until there is an operand.

    They are read within the timestep in which they are written, so they do not age (assumption).

    Args:
        shape: Output channels and input channels.
        groups: Channel groups; what lies between them stays zero.
        geometry: How the layer is cut into crossbars.
        hardware: The chip.
        name: Name of the layer, which its random draws hang on.
        chip: Which chip.
    """
    largest = torch.full((shape[0], shape[1] // groups), 2**hardware.mapping.operand_bits - 1)
    full = _between_groups(largest, shape[1])
    fresh = _without_age(hardware)
    layer = _written(geometry, fresh, _encode_operand(full, fresh), full, 1.0, name, chip, None)
    return replace(layer, effective=replace(layer.effective, nf=None))


def rewritten(layer: ProgrammedLayer, matrix: Tensor, write: int) -> ProgrammedLayer:
    """The layer with a matrix of shape (out_channel, in_channel / groups) in its cells, as a write leaves it there."""
    full = _between_groups(matrix, layer.weights.shape[2])
    encoded = _encode_operand(full, layer.hardware)
    places = _array_places(layer.geometry, encoded, layer.hardware)
    effective = effective_cells(encoded.cells, places, layer.hardware, layer.chip, layer.name, write=write)
    return replace(layer, encoded=_with_offset(encoded, effective.offset), effective=effective, weights=full)


def _written(
    geometry: LayerGeometry,
    hardware: Hardware,
    encoded: EncodedWeights,
    exact: Tensor,
    scale: float,
    name: str,
    chip: ChipSeed,
    progress: Progress | None,
) -> ProgrammedLayer:
    """A layer with levels written to its cells and full converter ranges, if they are full."""
    places = _array_places(geometry, encoded, hardware)
    effective = effective_cells(encoded.cells, places, hardware, chip, name, progress)
    layer = ProgrammedLayer(
        geometry,
        hardware,
        _with_offset(encoded, effective.offset),
        effective,
        exact,
        scale,
        adc_errors=_adc_errors(hardware, geometry, encoded, chip, name),
        noise=chip.generator(name, "read noise"),
        name=name,
        chip=chip,
    )
    if hardware.tile.pe.adc.range == "full":
        return replace(layer, ranges=_full_ranges(layer))
    return layer


def _between_groups(matrix: Tensor, n_inputs: int) -> Tensor:
    """A (out_channel, in_channel / groups) matrix as (1, 1, in_channel, out_channel), zero between groups; float64."""
    outputs, per_group = matrix.shape
    groups = n_inputs // per_group
    return torch.block_diag(*matrix.to(torch.float64).view(groups, outputs // groups, per_group)).T[None, None]


def _encode_operand(matrix: Tensor, hardware: Hardware) -> EncodedWeights:
    """Levels of an operand, which is never negative."""
    return encode_weights(matrix, hardware.mapping.operand_bits, hardware.tile.pe.crossbar.bits_per_cell, "unsigned")


def _without_age(hardware: Hardware) -> Hardware:
    """The chip at the moment when its cells were written."""
    pe = hardware.tile.pe
    crossbar = pe.crossbar.model_copy(update={"device": pe.crossbar.device.model_copy(update={"age_s": 0.0})})
    tile = hardware.tile.model_copy(update={"pe": pe.model_copy(update={"crossbar": crossbar})})
    return hardware.model_copy(update={"tile": tile})


def _with_bias_rows(matrix: Tensor, bias: Tensor, geometry: LayerGeometry) -> Tensor:
    """A (kernel_h, kernel_w, in_channel, out_channel) matrix with a channel more for every bias row.

    The bias of an output channel is in the lowest-numbered row block of its column block that has a bias row.
    """
    n_channels = matrix.shape[2]
    bias_rows = {
        index: segment
        for index, block in enumerate(geometry.row_blocks)
        for segment in row_segments(block)
        if segment[2] >= n_channels
    }
    rows = torch.zeros(*matrix.shape[:2], len(bias_rows), matrix.shape[3], dtype=matrix.dtype)
    for col, (first, last) in enumerate(geometry.col_blocks):
        kernel_y, kernel_x, channel, _ = bias_rows[min(row for row in bias_rows if (row, col) in geometry.pairs)]
        rows[kernel_y, kernel_x, channel - n_channels, first:last] = bias[first:last]
    return torch.cat([matrix, rows], dim=2)


def _array_places(geometry: LayerGeometry, encoded: EncodedWeights, hardware: Hardware) -> list[ArrayPlace]:
    """Arrays of a layer, in order of row block, crossbar, column block, sign."""
    crossbar, n_arrays = hardware.tile.pe.crossbar, _arrays_per_crossbar(hardware)
    places = []
    for row_block, crossbars in enumerate(geometry.row_blocks):
        for number, segments in enumerate(crossbars):
            rows = _flat_rows(segments, encoded.cells.shape)
            for col_block in range(len(geometry.col_blocks)):
                if (row_block, col_block) in geometry.pairs:
                    cols = _columns_of(geometry, encoded, row_block, col_block)
                    shape = (crossbar.rows, crossbar.cols // n_arrays)
                    parts = [part for array in range(n_arrays) if len(part := cols[array::n_arrays])]
                    places += [ArrayPlace(row_block, number, col_block, rows, part, shape) for part in parts]
    return places


def _banks(geometry: LayerGeometry, shape: torch.Size, hardware: Hardware) -> list[Bank]:
    """What shares bit lines: with analog column merge the crossbars of a PE, else every crossbar.

    PEs that hold the same rows of a column block, as squeezed columns have them, count as one, because a layer has one
    reference column for a row and a column block.

    Args:
        geometry: How the layer is cut into crossbars.
        shape: Shape of the weights, (kernel_h, kernel_w, in_channel + bias row, out_channel).
        hardware: The chip.
    """
    is_merged = hardware.tile.pe.column_merge == "analog"
    found: dict[tuple[CrossbarRows, int], list[Tensor]] = defaultdict(list)
    for row_block, crossbars in enumerate(geometry.row_blocks):
        for segments in [tuple(row_segments(crossbars))] if is_merged else crossbars:
            for col_block in range(len(geometry.col_blocks)):
                if (row_block, col_block) in geometry.pairs:
                    found[segments, col_block].append(geometry.outputs_of(row_block, col_block))
    return [
        Bank(_flat_rows(segments, shape), torch.cat(cols), col_block) for (segments, col_block), cols in found.items()
    ]


def _flat_rows(segments: CrossbarRows, shape: torch.Size) -> Tensor:
    """Rows of segments in a layer of shape (kernel_h, kernel_w, channel, ...), its first three axes flattened."""
    _, kernel_w, n_channels, _ = shape
    return torch.cat([(y * kernel_w + x) * n_channels + torch.arange(first, last) for y, x, first, last in segments])


def _arrays_per_crossbar(hardware: Hardware) -> int:
    """Arrays that the columns of a crossbar are divided among."""
    return 2 if hardware.tile.pe.crossbar.signed == "differential_arrays" else 1


def _columns_of(geometry: LayerGeometry, encoded: EncodedWeights, row_block: int, col_block: int) -> Tensor:
    """Physical columns of a PE in the order of its bit lines, the column block's references behind its weights."""
    held, width = geometry.outputs_of(row_block, col_block), encoded.cols_per_weight
    if encoded.reference_of is not None:
        held = torch.cat([held, torch.tensor([len(encoded.reference_of) + col_block])])
    return (held.unsqueeze(1) * width + torch.arange(width)).flatten()


def _with_offset(encoded: EncodedWeights, offset: float) -> EncodedWeights:
    """The correction with what a driven row adds through cells at level 0; differences of columns cancel it."""
    if offset == 0 or encoded.n_signs == 2 or encoded.reference_of is not None:
        return encoded
    slices = 2.0 ** (encoded.bits_per_cell * torch.arange(encoded.n_slices, dtype=torch.float64))
    worth = slices.sum()
    if encoded.signs is not None:
        worth = encoded.signs.to(torch.float64).unflatten(-1, (-1, encoded.n_slices)) @ slices
    return replace(encoded, correction=encoded.correction + offset * worth)


def _adc_errors(
    hardware: Hardware, geometry: LayerGeometry, encoded: EncodedWeights, chip: ChipSeed, name: str
) -> AdcErrors | None:
    """Departures of the converters; neighbouring bit lines of a PE that share one converter share its errors."""
    adc, n_cols = hardware.tile.pe.adc, hardware.tile.pe.crossbar.cols
    if not (adc.inl_lsb or adc.offset_sigma_lsb or adc.gain_sigma_rel or adc.noise_sigma_lsb):
        return None
    n_adcs, n_arrays = ceil_div(n_cols, adc.cols_per_adc), _arrays_per_crossbar(hardware)
    shared = torch.zeros(len(geometry.row_blocks), encoded.cells.shape[-1], dtype=torch.int64)
    for row_block, col_block in geometry.pairs:
        cols = _columns_of(geometry, encoded, row_block, col_block)
        for array in range(n_arrays):
            part = cols[array::n_arrays]
            bit_lines = array * (n_cols // n_arrays) + torch.arange(len(part))
            shared[row_block, part] = col_block * n_adcs + bit_lines // adc.cols_per_adc
    is_merged = hardware.tile.pe.column_merge == "analog"
    n_banks = 1 if is_merged else max(len(block) for block in geometry.row_blocks)
    shape = (len(geometry.row_blocks), n_banks, len(geometry.col_blocks) * n_adcs)
    generator = chip.generator(name, "adc")
    gain, offset, side = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    of_column = shared.unsqueeze(1).expand(-1, n_banks, -1)
    return AdcErrors(
        gain=1.0 + adc.gain_sigma_rel * gain.gather(2, of_column),
        offset=adc.offset_sigma_lsb * offset.gather(2, of_column),
        bow=adc.inl_lsb * torch.where(side < 0, -1.0, 1.0).to(torch.float64).gather(2, of_column),
        noise_sigma=adc.noise_sigma_lsb,
        generator=chip.generator(name, "adc noise"),
    )


def _full_ranges(layer: ProgrammedLayer) -> AdcRange:
    bits = layer.hardware.tile.pe.adc.bits
    step, offset = (1.0, 0.0) if is_ideal(layer) else (0.0, layer.effective.offset)
    blocks = [
        full_range(largest_group(layer, index), layer.encoded.largest_levels + offset, bits, step)
        for index in range(len(layer.geometry.row_blocks))
    ]
    return AdcRange(torch.stack([block.low for block in blocks]), torch.stack([block.high for block in blocks]))

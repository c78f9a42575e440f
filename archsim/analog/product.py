"""The weighted sums of one layer as its crossbars and converters compute them.

`program_layer` writes the cells once; `calibrate_ranges` and `fit_gains` follow a calibration
batch; `hardware_sums` then turns integer inputs into weighted sums, row block by row block. Work is
cut in chunks of frames so that memory stays bounded. Cells of a layer without weights
(`program_operand`) are written anew for every frame, with the `matrices` that these functions are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.arrays import (
    ArrayPlace,
    EffectiveCells,
    ExactArray,
    Progress,
    effective_cells,
)
from archsim.analog.converters import (
    MAX_BINS,
    AdcErrors,
    AdcRange,
    SumHistogram,
    calibrated_range,
    full_range,
    quantize_columns,
)
from archsim.analog.devices import ChipSeed
from archsim.analog.encoding import EncodedWeights, decode_columns, encode_weights, quantize_weights
from archsim.hardware.models import Hardware
from archsim.units import ceil_div

CHUNK_ELEMENTS = 1 << 22
"""Largest tensor of one chunk, in elements."""

DEFAULT_CHIP = ChipSeed()
CrossbarRows = tuple[tuple[int, int, int, int], ...]
Group = dict[int, CrossbarRows]
"""What shares a conversion: of each crossbar of a row block, by its number, the rows that are driven together."""


@dataclass(frozen=True)
class LayerGeometry:
    """How a layer is cut into crossbars and how it slides over its input."""

    row_blocks: tuple[tuple[CrossbarRows, ...], ...]
    """Per row block its crossbars, each as row segments (kernel_y, kernel_x, first channel, last channel + 1).
    Channels behind the inputs' last are bias rows: driven with bit 0 of every read, whatever the inputs."""
    col_blocks: tuple[tuple[int, int], ...]
    """Output channels of each column block: (first, last + 1)."""
    pairs: frozenset[tuple[int, int]]
    """Row and column blocks that share a PE; all of them unless channel groups keep blocks apart."""
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_hw: tuple[int, int]
    is_streamed: bool = False
    """Whether the rows of each kernel position are read and converted on their own, whatever `column_merge` is."""


@dataclass(frozen=True)
class InputFormat:
    """How integers reach the rows: bits per value, two's complement where `signed`."""

    n_bits: int
    signed: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that rows can carry."""
        half = 1 << (self.n_bits - 1)
        return (-half, half - 1) if self.signed else (0, (1 << self.n_bits) - 1)

    def significance(self, bit: int) -> float:
        """Weight of a bit; the top bit of two's complement counts negative."""
        return -float(1 << bit) if self.signed and bit == self.n_bits - 1 else float(1 << bit)


@dataclass(frozen=True)
class ProgrammedLayer:
    """Cells of a layer and everything its converters and digital gains need."""

    geometry: LayerGeometry
    hardware: Hardware
    encoded: EncodedWeights
    """Cells have shape (kernel_h, kernel_w, in_channel + bias row, physical col)."""
    effective: EffectiveCells
    """What driven rows add to the columns, devices and wires included."""
    weights: Tensor
    """Real weights, and behind them biases, float64, shape (kernel_h, kernel_w, in_channel + bias row, out_channel)."""
    weight_scale: float
    """Real weight of one integer step."""
    adc_errors: AdcErrors | None = None
    """Departures of the converters, tensors of shape (row_block, bank, physical col); a PE has one bank with analog
    column merge, one per crossbar with digital."""
    noise: torch.Generator | None = None
    """Random numbers of read noise."""
    ranges: AdcRange | None = None
    """Converter ranges of shape (row_block, physical col); the crossbars of a PE share them."""
    gains: Tensor | None = None
    """Digital gains of shape (row_block, out_channel); None where none were fitted."""
    n_bias_rows: int = 0
    clipped_biases: int = 0
    """Biases larger than the largest integer weight."""
    normalisation: Tensor | None = None
    """Scale and offset of every output channel behind the gains, shape (2, out_channel); None: not fitted."""
    name: str = "layer"
    """Name that the random draws of the layer hang on."""
    chip: ChipSeed = DEFAULT_CHIP

    @property
    def is_noisy(self) -> bool:
        """Whether the same read gives another result each time."""
        noisy_adc = self.adc_errors is not None and self.adc_errors.noise_sigma > 0
        return noisy_adc or self.effective.noise_variance is not None


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
    encoded = encode_weights(integers, policy.weight_bits, crossbar.bits_per_cell, crossbar.signed, geometry.col_blocks)
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


def _rewritten(layer: ProgrammedLayer, matrix: Tensor, write: int) -> ProgrammedLayer:
    """The layer with a matrix of shape (out_channel, in_channel / groups) in its cells, as a write leaves it there."""
    full = _between_groups(matrix, layer.weights.shape[2])
    encoded = _encode_operand(full, layer.hardware)
    places = _array_places(layer.geometry, encoded, layer.hardware)
    effective = effective_cells(encoded.cells, places, layer.hardware, layer.chip, layer.name, write=write)
    return replace(layer, encoded=_with_offset(encoded, effective.offset), effective=effective, weights=full)


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
    for held, part, padded in _chunks(layer, inputs, matrices):
        for index, bit in product(range(len(blocks)), range(rows.n_bits)):
            plane = ((padded >> bit) & 1).to(torch.float64).permute(0, 2, 3, 1)
            for number, crossbar in enumerate(blocks[index]):
                for tokens, together in _driven_together(layer, crossbar):
                    driven = _crossbar_rows(layer, plane, crossbar, together)
                    drawn = held.effective.drawn_s(index, number, driven, layer.hardware)
                    power[part, tokens, index] += v_read_v**2 * drawn.view(padded.shape[0], -1)
    return power.flatten(0, 1)


def _driven_together(layer: ProgrammedLayer, crossbar: CrossbarRows) -> list[tuple[slice, CrossbarRows]]:
    """Which tokens of a frame drive which rows of a crossbar: all drive all, or each position of a map its own."""
    if not layer.geometry.is_streamed:
        return [(slice(None), crossbar)]
    width = layer.encoded.cells.shape[1]
    numbers = {(y, x): y * width + x for y, x, _, _ in crossbar}
    return [
        (slice(number, number + 1), tuple(one for one in crossbar if one[:2] == position))
        for position, number in numbers.items()
    ]


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
    for held, part, padded in _chunks(layer, inputs, matrices):
        for index in range(len(layer.geometry.row_blocks)):
            converted, clips_of_block = _converted_sums(held, padded, index, rows)
            converted = converted if layer.gains is None else converted * layer.gains[index]
            sums[part] += converted - _correction(held, padded, index)
            clips[part] += clips_of_block
    if layer.normalisation is not None:
        sums = sums * layer.normalisation[0] + layer.normalisation[1]
    return sums.permute(0, 3, 1, 2), clips


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
    for held, _, padded in _chunks(layer, inputs, matrices):
        for index, bit in product(range(len(layer.geometry.row_blocks)), range(rows.n_bits)):
            for sums, driven in _reads(held, (padded >> bit) & 1, index):
                seen = sums[driven] if hardware.tile.pe.crossbar.zero_skip else sums.flatten(0, -2)
                worth = layer.encoded.significance * rows.significance(bit)
                cols = layer.encoded.by_column(_connected(layer, index))
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
    for held, _, padded in _chunks(layer, inputs, matrices):
        converted = torch.stack([_converted_sums(held, padded, index, rows)[0] for index in range(n_blocks)])
        exact = torch.stack(
            [
                _block_product(held, padded, index, held.weights) + _correction(held, padded, index)
                for index in range(n_blocks)
            ]
        )
        if scope == "layer":
            converted, exact = converted.sum(0, keepdim=True), exact.sum(0, keepdim=True)
        for index, (hardware, ideal) in enumerate(zip(converted, exact, strict=True)):
            match.index_add_(0, groups[index], (hardware * ideal).sum((0, 1, 2)))
            power.index_add_(0, groups[index], hardware.square().sum((0, 1, 2)))
    gains = torch.where(power > 0, match / torch.where(power > 0, power, 1.0), 1.0)
    return replace(layer, gains=gains[groups])


def _with_bias_rows(matrix: Tensor, bias: Tensor, geometry: LayerGeometry) -> Tensor:
    """A (kernel_h, kernel_w, in_channel, out_channel) matrix with a channel more for every bias row.

    The bias of an output channel is in the lowest-numbered row block of its column block that has a bias row.
    """
    n_channels = matrix.shape[2]
    bias_rows = {
        index: segment
        for index, block in enumerate(geometry.row_blocks)
        for segment in _segments(block)
        if segment[2] >= n_channels
    }
    rows = torch.zeros(*matrix.shape[:2], len(bias_rows), matrix.shape[3], dtype=matrix.dtype)
    for col, (first, last) in enumerate(geometry.col_blocks):
        kernel_y, kernel_x, channel, _ = bias_rows[min(row for row in bias_rows if (row, col) in geometry.pairs)]
        rows[kernel_y, kernel_x, channel - n_channels, first:last] = bias[first:last]
    return torch.cat([matrix, rows], dim=2)


def _match_statistics(
    layer: ProgrammedLayer, inputs: Tensor, rows: InputFormat, matrices: Tensor | None
) -> ProgrammedLayer:
    """Scale and offset of every output channel that give its sums the mean and spread of the ideal ones.

    Source: re-estimation of batch-norm statistics on the mapped network (Bhattacharjee et al., arXiv
    2305.18416), for a batch norm that is folded into weights and bias.
    """
    found, _ = hardware_sums(layer, inputs, rows, matrices)
    exact = torch.zeros_like(found)
    for held, part, padded in _chunks(layer, inputs, matrices):
        blocks = (_block_product(held, padded, index, held.weights) for index in range(len(layer.geometry.row_blocks)))
        exact[part] = torch.stack(list(blocks)).sum(0).permute(0, 3, 1, 2)
    spread, wanted = (sums.std((0, 2, 3), correction=0) for sums in (found, exact))
    seen = (spread > 0) & (wanted > 0)
    scale = torch.where(seen, wanted / torch.where(seen, spread, 1.0), 1.0)
    offset = exact.mean((0, 2, 3)) - scale * found.mean((0, 2, 3))
    return replace(layer, normalisation=torch.stack([scale, offset]))


def _array_places(geometry: LayerGeometry, encoded: EncodedWeights, hardware: Hardware) -> list[ArrayPlace]:
    """Arrays of a layer, in order of row block, crossbar, column block, sign."""
    crossbar, n_arrays = hardware.tile.pe.crossbar, _arrays_per_crossbar(hardware)
    _, kernel_w, n_channels, _ = encoded.cells.shape
    columns = [_block_columns(encoded, index, block) for index, block in enumerate(geometry.col_blocks)]
    places = []
    for row_block, crossbars in enumerate(geometry.row_blocks):
        for number, segments in enumerate(crossbars):
            rows = torch.cat(
                [(y * kernel_w + x) * n_channels + torch.arange(first, last) for y, x, first, last in segments]
            )
            for col_block, cols in enumerate(columns):
                if (row_block, col_block) in geometry.pairs:
                    shape = (crossbar.rows, crossbar.cols // n_arrays)
                    parts = [part for array in range(n_arrays) if len(part := cols[array::n_arrays])]
                    places += [ArrayPlace(row_block, number, col_block, rows, part, shape) for part in parts]
    return places


def _arrays_per_crossbar(hardware: Hardware) -> int:
    """Arrays that the columns of a crossbar are divided among."""
    return 2 if hardware.tile.pe.crossbar.signed == "differential_arrays" else 1


def _block_columns(encoded: EncodedWeights, index: int, block: tuple[int, int]) -> Tensor:
    """Physical columns of a column block, its references behind its weights."""
    width = encoded.cols_per_weight
    cols = torch.arange(block[0] * width, block[1] * width)
    if encoded.reference_of is None:
        return cols
    first = (len(encoded.reference_of) + index) * width
    return torch.cat([cols, torch.arange(first, first + width)])


def _with_offset(encoded: EncodedWeights, offset: float) -> EncodedWeights:
    """The correction with what a driven row adds through cells at level 0; differences of columns cancel it."""
    if offset == 0 or encoded.n_signs == 2 or encoded.reference_of is not None:
        return encoded
    slices = sum(2.0 ** (encoded.bits_per_cell * index) for index in range(encoded.n_slices))
    return replace(encoded, correction=encoded.correction + offset * slices)


def _adc_errors(
    hardware: Hardware, geometry: LayerGeometry, encoded: EncodedWeights, chip: ChipSeed, name: str
) -> AdcErrors | None:
    """Departures of the converters; neighbouring bit lines of a PE that share one converter share its errors."""
    adc, n_cols = hardware.tile.pe.adc, hardware.tile.pe.crossbar.cols
    if not (adc.inl_lsb or adc.offset_sigma_lsb or adc.gain_sigma_rel or adc.noise_sigma_lsb):
        return None
    n_adcs, n_arrays = ceil_div(n_cols, adc.cols_per_adc), _arrays_per_crossbar(hardware)
    shared = torch.zeros(encoded.cells.shape[-1], dtype=torch.int64)
    for index, block in enumerate(geometry.col_blocks):
        cols = _block_columns(encoded, index, block)
        for array in range(n_arrays):
            part = cols[array::n_arrays]
            bit_lines = array * (n_cols // n_arrays) + torch.arange(len(part))
            shared[part] = index * n_adcs + bit_lines // adc.cols_per_adc
    is_merged = hardware.tile.pe.column_merge == "analog"
    n_banks = 1 if is_merged else max(len(block) for block in geometry.row_blocks)
    shape = (len(geometry.row_blocks), n_banks, len(geometry.col_blocks) * n_adcs)
    generator = chip.generator(name, "adc")
    gain, offset, side = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return AdcErrors(
        gain=(1.0 + adc.gain_sigma_rel * gain)[..., shared],
        offset=(adc.offset_sigma_lsb * offset)[..., shared],
        bow=(adc.inl_lsb * torch.where(side < 0, -1.0, 1.0).to(torch.float64))[..., shared],
        noise_sigma=adc.noise_sigma_lsb,
        generator=chip.generator(name, "adc noise"),
    )


def _histogram(layer: ProgrammedLayer, n_groups: int) -> SumHistogram:
    """Empty counts that take the largest sum that a conversion can see."""
    if _is_ideal(layer):
        most_rows = max(_largest_group(layer, index) for index in range(len(layer.geometry.row_blocks)))
        return SumHistogram(n_groups, most_rows * float(layer.encoded.largest_levels.max()))
    largest = max(float(_group_total(layer, group).max()) for group in _all_groups(layer))
    n_bins = min(MAX_BINS, max(1 << 10, 8 << layer.hardware.tile.pe.adc.bits))
    return SumHistogram(n_groups, largest, bin_width=max(largest, 1e-12) / n_bins)


def _is_ideal(layer: ProgrammedLayer) -> bool:
    """Whether sums are whole levels."""
    return layer.hardware.tile.pe.crossbar.device.physics.is_ideal


def _all_groups(layer: ProgrammedLayer) -> Iterator[Group]:
    for index in range(len(layer.geometry.row_blocks)):
        yield from _groups(layer, index)


def _group_total(layer: ProgrammedLayer, group: Group) -> Tensor:
    """What every column collects when all rows of a conversion group are driven, float64, (physical col)."""
    cells = layer.effective.cells
    return sum(
        (cells[y, x, first:last].to(torch.float64).sum(0) for y, x, first, last in _segments(group.values())),
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


def _groups(layer: ProgrammedLayer, row_block: int) -> list[Group]:
    """What shares a conversion in a row block: all of it, or a crossbar; of a streamed layer one position's rows."""
    crossbars = dict(enumerate(layer.geometry.row_blocks[row_block]))
    merged = [crossbars]
    if layer.hardware.tile.pe.column_merge == "digital":
        merged = [{number: rows} for number, rows in crossbars.items()]
    if not layer.geometry.is_streamed:
        return merged
    return [
        _at_position(group, position)
        for group in merged
        for position in sorted({segment[:2] for segment in _segments(group.values())})
    ]


def _bank(layer: ProgrammedLayer, group: Group) -> int:
    """Which of a PE's banks converts what a group collects."""
    return 0 if layer.hardware.tile.pe.column_merge == "analog" else min(group)


def _at_position(group: Group, position: tuple[int, int]) -> Group:
    """The rows of one kernel position, without the crossbars that have none."""
    rows = {number: tuple(one for one in rows if one[:2] == position) for number, rows in group.items()}
    return {number: segments for number, segments in rows.items() if segments}


def _largest_group(layer: ProgrammedLayer, row_block: int) -> int:
    """Most rows that meet in one conversion of a row block."""
    groups = _groups(layer, row_block)
    return max(sum(last - first for _, _, first, last in _segments(group.values())) for group in groups)


def _segments(crossbars: Iterable[CrossbarRows]) -> Iterator[tuple[int, int, int, int]]:
    """Row segments of several crossbars."""
    return (segment for crossbar in crossbars for segment in crossbar)


def _connected(layer: ProgrammedLayer, row_block: int) -> Tensor:
    """Which output channels have a PE with this row block, bool, shape (out_channel,)."""
    widths = torch.tensor([last - first for first, last in layer.geometry.col_blocks])
    present = [(row_block, col) in layer.geometry.pairs for col in range(len(widths))]
    return torch.tensor(present).repeat_interleave(widths)


def _full_ranges(layer: ProgrammedLayer) -> AdcRange:
    bits = layer.hardware.tile.pe.adc.bits
    step, offset = (1.0, 0.0) if _is_ideal(layer) else (0.0, layer.effective.offset)
    blocks = [
        full_range(_largest_group(layer, index), layer.encoded.largest_levels + offset, bits, step)
        for index in range(len(layer.geometry.row_blocks))
    ]
    return AdcRange(torch.stack([block.low for block in blocks]), torch.stack([block.high for block in blocks]))


def _correction(layer: ProgrammedLayer, padded: Tensor, row_block: int) -> Tensor:
    """What the digital part subtracts from a row block's sums, in real weight units; zero without a PE."""
    products = _block_product(layer, padded, row_block, layer.encoded.correction)
    return products * _connected(layer, row_block) * layer.weight_scale


def _converted_sums(layer: ProgrammedLayer, padded: Tensor, row_block: int, rows: InputFormat) -> tuple[Tensor, Tensor]:
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
    connected = _connected(layer, row_block)
    columns = layer.encoded.by_column(connected)
    clips = torch.zeros(padded.shape[0], dtype=torch.int64)
    for bit in range(rows.n_bits):
        reads = _reads(layer, (padded >> bit) & 1, row_block)
        for group, (read, driven) in zip(_groups(layer, row_block), reads, strict=True):
            errors = None if layer.adc_errors is None else layer.adc_errors.of_bank(row_block, _bank(layer, group))
            values, clipped = quantize_columns(read, low, high, adc.bits, errors)
            mask = torch.ones_like(driven).unsqueeze(-1) if always_read else driven.unsqueeze(-1)
            sums += rows.significance(bit) * decode_columns(values * mask, layer.encoded)
            clips += (clipped & mask & columns).flatten(1).sum(1)
    return sums * connected * layer.weight_scale, clips


def _reads(layer: ProgrammedLayer, plane: Tensor, row_block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Column sums of the crossbars that share a conversion, and where any of their rows is driven."""
    driven_rows = plane.to(torch.float32).permute(0, 2, 3, 1).contiguous()
    positions = (plane.shape[0], *layer.geometry.output_hw)
    for group in _groups(layer, row_block):
        sums = torch.zeros(prod(positions), layer.encoded.cells.shape[-1])
        variance = None if layer.effective.noise_variance is None else torch.zeros_like(sums)
        driven = torch.zeros(prod(positions), dtype=torch.bool)
        for kernel_y, kernel_x, first, last in _segments(group.values()):
            rows = _rows_of(layer, driven_rows, (kernel_y, kernel_x, first, last))
            driven |= rows.any(-1)
            if not layer.effective.exact:
                sums += rows @ layer.effective.cells[kernel_y, kernel_x, first:last]
            if variance is not None and layer.effective.noise_variance is not None:
                variance += rows @ layer.effective.noise_variance[kernel_y, kernel_x, first:last]
        for array in layer.effective.exact:
            if array.place.row_block == row_block and array.place.crossbar in group:
                sums[:, array.place.cols] += _exact_sums(layer, driven_rows, array, group[array.place.crossbar])
        if variance is not None:
            sums += variance.sqrt() * torch.randn(sums.shape, generator=layer.noise)
        yield sums.unflatten(0, positions), driven.unflatten(0, positions)


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


def _block_product(layer: ProgrammedLayer, padded: Tensor, row_block: int, matrix: Tensor) -> Tensor:
    """Exact product of a row block with a (kernel_h, kernel_w, in_channel, out_channel) matrix, channels last."""
    block = list(_segments(layer.geometry.row_blocks[row_block]))
    held = torch.zeros_like(matrix)
    for kernel_y, kernel_x, first, last in block:
        held[kernel_y, kernel_x, first:last] = matrix[kernel_y, kernel_x, first:last]
    channels = slice(min(first for _, _, first, _ in block), max(last for _, _, _, last in block))
    kernel = held[:, :, channels].permute(3, 2, 0, 1)
    products = functional.conv2d(padded[:, channels].to(torch.float64), kernel, stride=layer.geometry.stride)
    return products.permute(0, 2, 3, 1)


def _window(layer: ProgrammedLayer, padded: Tensor, kernel_y: int, kernel_x: int) -> Tensor:
    """Values under one kernel position at every output position, of a (frame, height, width, channel) tensor."""
    (stride_y, stride_x), (out_h, out_w) = layer.geometry.stride, layer.geometry.output_hw
    return padded[
        :,
        kernel_y : kernel_y + stride_y * (out_h - 1) + 1 : stride_y,
        kernel_x : kernel_x + stride_x * (out_w - 1) + 1 : stride_x,
    ]


def _chunks(
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
        held = layer if matrices is None else _rewritten(layer, matrices[first], first)
        yield held, part, torch.cat([padded, ones], dim=1) if layer.n_bias_rows else padded

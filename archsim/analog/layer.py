"""A layer on its crossbars, as data: how it is cut, what its cells hold, what its converters and digital gains are.

`programming` makes a `ProgrammedLayer`, `calibration` fits it, `product` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from archsim.analog.arrays import EffectiveCells
from archsim.analog.converters import AdcErrors, AdcRange
from archsim.analog.devices import ChipSeed
from archsim.analog.encoding import EncodedWeights
from archsim.hardware.models import Hardware

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
    outputs: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    """Output channels that have columns in the PE of a row block and column block, in their order; where a PE is not
    listed, all channels of the column block have."""

    def outputs_of(self, row_block: int, col_block: int) -> Tensor:
        """Output channels that have columns in a PE, int64, in their order."""
        held = self.outputs.get((row_block, col_block))
        return torch.arange(*self.col_blocks[col_block]) if held is None else torch.tensor(held)


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


def row_segments(crossbars: Iterable[CrossbarRows]) -> Iterator[tuple[int, int, int, int]]:
    """Row segments of several crossbars."""
    return (segment for crossbar in crossbars for segment in crossbar)


def conversion_groups(layer: ProgrammedLayer, row_block: int) -> list[Group]:
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
        for position in sorted({segment[:2] for segment in row_segments(group.values())})
    ]


def _at_position(group: Group, position: tuple[int, int]) -> Group:
    """The rows of one kernel position, without the crossbars that have none."""
    rows = {number: tuple(one for one in rows if one[:2] == position) for number, rows in group.items()}
    return {number: segments for number, segments in rows.items() if segments}


def bank(layer: ProgrammedLayer, group: Group) -> int:
    """Which of a PE's banks converts what a group collects."""
    return 0 if layer.hardware.tile.pe.column_merge == "analog" else min(group)


def largest_group(layer: ProgrammedLayer, row_block: int) -> int:
    """Most rows that meet in one conversion of a row block."""
    groups = conversion_groups(layer, row_block)
    return max(sum(last - first for _, _, first, last in row_segments(group.values())) for group in groups)


def driven_together(layer: ProgrammedLayer, crossbar: CrossbarRows) -> list[tuple[slice, CrossbarRows]]:
    """Which tokens of a frame drive which rows of a crossbar: all drive all, or each position of a map its own."""
    if not layer.geometry.is_streamed:
        return [(slice(None), crossbar)]
    width = layer.encoded.cells.shape[1]
    numbers = {(y, x): y * width + x for y, x, _, _ in crossbar}
    return [
        (slice(number, number + 1), tuple(one for one in crossbar if one[:2] == position))
        for position, number in numbers.items()
    ]


def connected_channels(layer: ProgrammedLayer, row_block: int) -> Tensor:
    """Which output channels have columns in a PE with this row block, bool, shape (out_channel,)."""
    geometry = layer.geometry
    connected = torch.zeros(geometry.col_blocks[-1][1], dtype=torch.bool)
    for col_block in range(len(geometry.col_blocks)):
        if (row_block, col_block) in geometry.pairs:
            connected[geometry.outputs_of(row_block, col_block)] = True
    return connected


def connected_columns(layer: ProgrammedLayer, row_block: int) -> Tensor:
    """Which physical columns of the layer have cells in this row block, bool, shape (physical col,)."""
    connected = connected_channels(layer, row_block)
    if layer.encoded.reference_of is not None:
        blocks = range(len(layer.geometry.col_blocks))
        references = torch.tensor([(row_block, col_block) in layer.geometry.pairs for col_block in blocks])
        connected = torch.cat([connected, references])
    return connected.repeat_interleave(layer.encoded.cols_per_weight)


def is_ideal(layer: ProgrammedLayer) -> bool:
    """Whether sums are whole levels."""
    return layer.hardware.tile.pe.crossbar.device.physics.is_ideal

"""What happened in the network: spikes per layer, timestep and position, as numpy arrays.

Timing is driven by it. Whatever depends on a mapping (active rows, skipped reads) is recomputed
from the values by `read_activity`, so one recording serves every chip. Imports nothing of archsim.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class LayerActivity:
    """Integer values that entered and left one layer.

    `inputs` has shape (sample, step, channel, height, width) as the crossbars see it (clipped and
    quantised); `spikes` is what the neurons emitted, before pooling, same axes. A readout layer
    emits nothing: its spikes are zero.
    """

    inputs: np.ndarray
    spikes: np.ndarray
    operand: np.ndarray | None = None
    """What took the place of the weights of a product layer, as its cells or its unit see it, same axes."""
    clipped_inputs: int = 0
    """Input values of the recorded samples that did not fit on the rows, once per timestep."""
    clipped_biases: int = 0
    """Biases that cells hold (mapping.bias: row) and that are larger than the largest weight."""
    clipped_operands: int = 0
    """Operand values of the recorded samples that did not fit in the cells, once per timestep."""
    adc_clips: int = 0
    """Conversions of the recorded samples outside the converter's range."""
    error_rel: float | None = None
    """Relative RMS error of the layer's weighted sums against the ideal ones, same inputs, over all samples."""
    gain: float | None = None
    """Mean digital gain of the calibration; None where none was fitted."""
    v_mem_saturations: int = 0
    """Membrane potentials of the recorded samples that saturated when stored."""
    nf: float | None = None
    """Non-ideality factor of the crossbars, 1 - I / I_ideal; None where the device is ideal."""
    read_power_w: np.ndarray | None = None
    """Power drawn while a token's rows are driven, summed over the input bits, float64, shape (token, row_block);
    holds for the mapping it was found with. None where the read energy is the cost library's."""
    energy_shares: np.ndarray | None = None
    """Part of a row block's power that each column block draws, shape (row_block, col_block)."""

    least_bits: tuple[int, int] = (0, 0)
    """Bits of inputs and operands at least: those of the whole, where this is a part of an activity."""

    @property
    def input_bits(self) -> int:
        """Bits per row and read: of the largest value, sign included."""
        return max(_bits(self.inputs), self.least_bits[0])

    @property
    def operand_bits(self) -> int:
        """Bits of the largest operand value; 0 without an operand."""
        return 0 if self.operand is None else max(_bits(self.operand), self.least_bits[1])


def _cut_layer(layer: LayerActivity, chosen: np.ndarray) -> LayerActivity:
    """Frames of a layer that are chosen, bool, (sample, step)."""
    power = layer.read_power_w
    if power is not None:
        power = power.reshape(*chosen.shape, -1, power.shape[-1])[chosen].reshape(-1, power.shape[-1])
    return replace(
        layer,
        inputs=layer.inputs[chosen][:, None],
        spikes=layer.spikes[chosen][:, None],
        operand=None if layer.operand is None else layer.operand[chosen][:, None],
        read_power_w=power,
        least_bits=(layer.input_bits, layer.operand_bits),
    )


def _bits(values: np.ndarray) -> int:
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return max(1, high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + (low < 0)


@dataclass(frozen=True)
class ChipAccuracy:
    """Fraction of samples that one chip classifies right."""

    raw: float
    calibrated: float | None


@dataclass(frozen=True)
class Accuracy:
    """Fraction of samples classified right, mean over chips; None where labels or weights are missing."""

    ideal: float | None = None
    raw: float | None = None
    calibrated: float | None = None
    n_samples: int | None = None
    mean_timesteps: float | None = None
    """Timesteps after which the samples are decided on the first chip; None: none ends by itself."""
    chips: tuple[ChipAccuracy, ...] = ()
    """One entry per simulated chip; the first is the one whose timing is simulated."""


@dataclass(frozen=True)
class Activity:
    """Values of the simulated samples in every layer, and how right the network is over all samples."""

    layers: dict[str, LayerActivity]
    n_samples: int
    n_timesteps: int
    kind: Literal["inferred", "recorded", "assumed"]
    accuracy: Accuracy = Accuracy()
    outputs: np.ndarray | None = None
    """Network output (sample, class): spike counts, or potentials of a readout, summed over time."""
    notes: tuple[str, ...] = field(default=())
    exits: np.ndarray | None = None
    """Timesteps after which each recorded sample is decided, int64, (sample,); None: none ends by itself."""
    begun: np.ndarray | None = None
    """Timesteps that each sample begins, int64, (sample,); None: all. Values of layers then have an entry of one step
    for every timestep that is begun, sample after sample, in place of (sample, step); see `cut`."""

    @property
    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Sample and timestep of everything that enters, in order, int64 each."""
        begun = np.full(self.n_samples, self.n_timesteps) if self.begun is None else self.begun
        sample = np.repeat(np.arange(self.n_samples), begun)
        return sample, np.arange(len(sample)) - np.repeat(np.cumsum(begun) - begun, begun)

    def cut(self, begun: np.ndarray) -> Activity:
        """The same activity without the timesteps that samples do not begin; bits per value are those of the whole."""
        chosen = np.arange(self.n_timesteps) < begun[:, None]
        layers = {name: _cut_layer(layer, chosen) for name, layer in self.layers.items()}
        return replace(self, layers=layers, begun=begun)


@dataclass(frozen=True)
class ReadActivity:
    """What the row blocks of one layer saw, token by token.

    A token is one output position at one timestep, ordered by sample, step, position (raster).
    All arrays have shape (token, row_block).
    """

    active_rows: np.ndarray
    """Driven rows, summed over the block's crossbars and input bits."""
    active_reads: np.ndarray
    """(crossbar, input bit) pairs with at least one driven row."""
    active_slices: np.ndarray
    """Input bits with at least one driven row in the block."""
    serial_rows: np.ndarray
    """Driven rows of the crossbar with most of them, summed over the input bits."""
    code_bits: np.ndarray | None = None
    """Bits that conversions of one column resolve, summed over input bits and converter banks; None: all of them."""
    slice_bits: np.ndarray | None = None
    """Bits that the longest conversion of every input bit resolves, shape (token, row_block, input bit)."""
    power_w: np.ndarray | None = None
    """Power that the block's rows draw while driven, summed over the input bits; None: by cost library."""


def read_activity(
    inputs: np.ndarray,
    n_bits: int,
    row_blocks: tuple[tuple[tuple[tuple[int, int, int, int], ...], ...], ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_hw: tuple[int, int],
    is_streamed: bool = False,
    resolved_bits: np.ndarray | None = None,
    is_merged: bool = True,
) -> ReadActivity:
    """Count driven rows of every row block for every token.

    Args:
        inputs: Integer values, shape (sample, step, channel, height, width); negative values are
            read in two's complement of `n_bits`.
        n_bits: Bits per value, each one a read.
        row_blocks: Per row block its crossbars, each a tuple of row segments
            (kernel_y, kernel_x, first channel, last channel + 1); channels that `inputs` does not have
            are bias rows, driven for every token with bit 0.
        stride: Stride of the layer, (y, x).
        padding: Zero padding of the layer, (y, x).
        output_hw: Output positions, (height, width); of a streamed layer those of its input map.
        is_streamed: Whether a token is a position of the input map, which drives the rows of that kernel position.
        resolved_bits: Bits that a conversion resolves, by the driven rows that it sees; None where it resolves all.
        is_merged: Whether a conversion sees the rows of all crossbars of a block, instead of one's.

    Returns:
        Counts of shape (sample * step * height * width, row_block), int32.
    """
    samples, steps, channels, height, width = inputs.shape
    out_h, out_w = output_hw
    n_frames = samples * steps
    frames = inputs.reshape(n_frames, -1, height, width)
    spans = sorted({(first, last) for block in row_blocks for crossbar in block for _, _, first, last in crossbar})
    shape = (n_frames, out_h, out_w, len(row_blocks))
    rows, reads, slices, serial, code_bits = (np.zeros(shape, np.int32) for _ in range(5))
    slice_bits = None if resolved_bits is None else np.zeros((*shape, n_bits), np.int32)
    pad = ((0, 0), (padding[0], padding[0]), (padding[1], padding[1]))
    for bit in range(n_bits):
        plane = (frames >> bit) & 1
        driven = {span: np.pad(plane[:, span[0] : span[1]].sum(axis=1, dtype=np.int32), pad) for span in spans}
        if bit == 0:
            driven |= {span: np.ones_like(driven[span]) for span in spans if span[0] >= channels}
        for index, block in enumerate(row_blocks):
            block_reads, most_rows, block_rows = (np.zeros(shape[:3], np.int32) for _ in range(3))
            for crossbar in block:
                crossbar_rows = np.zeros(shape[:3], np.int32)
                for kernel_y, kernel_x, first, last in crossbar:
                    if is_streamed:
                        crossbar_rows[:, kernel_y, kernel_x] += driven[first, last][:, kernel_y, kernel_x]
                        continue
                    crossbar_rows += driven[first, last][
                        :,
                        kernel_y : kernel_y + stride[0] * (out_h - 1) + 1 : stride[0],
                        kernel_x : kernel_x + stride[1] * (out_w - 1) + 1 : stride[1],
                    ]
                block_rows += crossbar_rows
                block_reads += crossbar_rows > 0
                most_rows = np.maximum(most_rows, crossbar_rows)
                if resolved_bits is not None and not is_merged:
                    code_bits[..., index] += resolved_bits[crossbar_rows]
            rows[..., index] += block_rows
            reads[..., index] += block_reads
            slices[..., index] += block_reads > 0
            serial[..., index] += most_rows
            if resolved_bits is not None and slice_bits is not None:
                slice_bits[..., index, bit] = resolved_bits[block_rows if is_merged else most_rows]
                if is_merged:
                    code_bits[..., index] += slice_bits[..., index, bit]
    flat = (n_frames * out_h * out_w, len(row_blocks))
    return ReadActivity(
        rows.reshape(flat),
        reads.reshape(flat),
        slices.reshape(flat),
        serial.reshape(flat),
        code_bits=None if slice_bits is None else code_bits.reshape(flat),
        slice_bits=None if slice_bits is None else slice_bits.reshape(*flat, n_bits),
    )

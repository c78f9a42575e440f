"""Which levels the cells hold for a weight matrix, and how column sums become signed products again.

Weights are quantised to integers once per layer, then written as cell levels in bit slices under
a signed scheme. Physical columns of a column block are ordered logical column first,
then slice (least significant first), then sign (positive first). Entry points: `quantize_weights`,
`encode_weights`, `decode_columns`; `resistance` has what keeps levels low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from archsim.analog.resistance import Bank, lifted_by_column, power_above, smaller_offsets

CLIP_RATIOS = tuple(1.0 - 0.05 * step for step in range(11))
"""Fractions of the largest weight tried as full scale, 1.0 down to 0.5."""


@dataclass(frozen=True)
class EncodedWeights:
    """Cell levels of a weight matrix and what turns column sums back into products."""

    cells: Tensor
    """Stored levels as float32, shape (..., row, physical col)."""
    correction: Tensor
    """What a driven row adds too much to a logical column, float64, shape (..., row, col); subtracted digitally."""
    largest_levels: Tensor
    """Largest level that a cell of each physical column can hold, float32, shape (physical col)."""
    bits_per_cell: int
    n_slices: int
    n_signs: int
    """Columns per slice: 2 for the differential schemes, else 1."""
    signs: Tensor | None = None
    """1 or -1 that what a cell adds to its column counts with, int8, shape of `cells`, equal in all rows of a bank;
    None: it counts as it is."""
    reference_of: Tensor | None = None
    """Reference whose sum is subtracted from each logical column, int64, shape (col); None: there are none. The
    columns of the references, of all slices each, follow those of the weights."""

    @property
    def significance(self) -> Tensor:
        """What one level of each physical column is worth in weight levels, float64, shape (physical col)."""
        slices = 2.0 ** (self.bits_per_cell * torch.arange(self.n_slices, dtype=torch.float64))
        return slices.repeat_interleave(self.n_signs).repeat(self.cells.shape[-1] // self.cols_per_weight)

    def by_column(self, values: Tensor) -> Tensor:
        """Values of logical columns, shape (..., col), for the physical ones; a reference has its first column's."""
        if self.reference_of is not None:
            n_references = int(self.reference_of.max()) + 1
            firsts = [int((self.reference_of == index).to(torch.int8).argmax()) for index in range(n_references)]
            values = torch.cat([values, values[..., firsts]], dim=-1)
        return values.repeat_interleave(self.cols_per_weight, dim=-1)

    @property
    def cols_per_weight(self) -> int:
        """Physical columns of one logical column."""
        return self.n_slices * self.n_signs


def quantize_weights(weights: Tensor, weight_bits: int) -> tuple[Tensor, float]:
    """Round weights to integers with one symmetric scale.

    The full scale is the clip ratio of `CLIP_RATIOS` times the largest absolute weight with the
    smallest squared error; the larger ratio wins a tie. Rounding is to nearest, ties to even.

    Args:
        weights: Real weights of one layer, any shape.
        weight_bits: Bits of an integer weight, sign included, 2 or more.

    Returns:
        Integers in -(2**(weight_bits-1) - 1) .. 2**(weight_bits-1) - 1 as int32, same shape, and
        the scale: weights are about `integers * scale`.
    """
    exact = weights.detach().to(torch.float64)
    limit = 2 ** (weight_bits - 1) - 1
    peak = float(exact.abs().max()) if exact.numel() else 0.0
    if peak == 0.0:
        return torch.zeros(exact.shape, dtype=torch.int32), 1.0
    best: tuple[float, Tensor, float] | None = None
    for ratio in CLIP_RATIOS:
        scale = peak * ratio / limit
        integers = (exact / scale).round().clamp(-limit, limit)
        error = float((integers * scale - exact).square().sum())
        if best is None or error < best[0]:
            best = (error, integers.to(torch.int32), scale)
    assert best is not None
    return best[1], best[2]


def encode_weights(
    weights: Tensor,
    weight_bits: int,
    bits_per_cell: int,
    signed: Literal["diff", "differential", "differential_arrays", "offset", "unsigned"],
    col_blocks: Sequence[tuple[int, int]] = (),
    encoding: Literal["standard", "high_resistance", "twos_complement"] = "standard",
    banks: Sequence[Bank] = (),
    swaps: bool = False,
) -> EncodedWeights:
    """Write integer weights as cell levels.

    `diff` stores a negative w as w + 2**p with the smallest 2**p >= |min w| of the layer, so levels
    stay small; a digital unit subtracts 2**p for every driven row whose weight is negative. Source:
    SpikeSim (Moitra et al., arXiv 2210.12899), Algorithm 1 and hardware evaluation code. The stored
    magnitude is given weight_bits bits, one more than symmetric weights need, as in SpikeSim.
    `differential` stores max(w, 0) and max(-w, 0) in neighbouring columns, `differential_arrays` too (which
    array they lie in is not decided here). `offset` stores w + 2**(weight_bits - 1) and, for every block of
    columns, that offset in a reference column, whose converted sum is subtracted. `unsigned` stores integers
    that are never negative as they are.
    A magnitude m is cut as m = sum over k of 2**(bits_per_cell * k) * slice_k.
    With `high_resistance`, `diff` stores w or -w in each column of a bank and lifts it by what it needs, and `offset`
    takes the smallest offset that a bank needs; see `lifted_by_column` and `smaller_offsets`. With `twos_complement`,
    `diff` lifts by 2**weight_bits.

    Args:
        weights: Integers of a whole layer with |w| < 2**(weight_bits-1), shape (..., row, col); below 2**weight_bits
            where unsigned.
        weight_bits: Bits of a weight, sign included where there is one.
        bits_per_cell: Bits that a cell holds.
        signed: Scheme for negative weights.
        col_blocks: Logical columns of each crossbar width, (first, last + 1); only `offset` asks for them.
        encoding: What else decides what is stored, of `diff` and `offset`; see `mapping.encoding`.
        banks: Cells whose columns are converted together, of all weights; only `high_resistance` asks for them.
        swaps: Whether `swap_polarity` follows.

    Returns:
        Levels in 0 .. 2**bits_per_cell - 1 and the decode rules.
    """
    integers = weights.to(torch.int64)
    if signed == "offset":
        blocks = col_blocks or ((0, integers.shape[-1]),)
        references = torch.full((*integers.shape[:-1], len(blocks)), 1 << (weight_bits - 1))
        if encoding == "high_resistance":
            references = smaller_offsets(integers, references, banks, bits_per_cell, swaps)
        stored = _beside_references(integers, references, blocks, weight_bits)
    elif signed in ("diff", "unsigned"):
        sign, lift = torch.tensor(1), torch.tensor(power_above(-int(integers.min()) if integers.numel() else 0))
        largest = 2**weight_bits - 1 if signed == "unsigned" else 2 ** (weight_bits - 1) - 1
        if encoding == "twos_complement":
            lift, largest = torch.tensor(1 << weight_bits), 2**weight_bits - 1
        elif encoding == "high_resistance":
            sign, lift = lifted_by_column(integers, banks, bits_per_cell)
        stored = _lifted(integers, sign, lift, weight_bits, largest)
    else:
        pairs = torch.stack((integers.clamp(min=0), (-integers).clamp(min=0)), dim=-1)
        nothing = torch.zeros(integers.shape, dtype=torch.float64)
        stored = _Stored(pairs, nothing, weight_bits - 1, 2 ** (weight_bits - 1) - 1)
    n_slices = -(-stored.n_bits // bits_per_cell)
    shifts = bits_per_cell * torch.arange(n_slices).unsqueeze(-1)
    mask = 2**bits_per_cell - 1
    levels = (stored.numbers.unsqueeze(-2) >> shifts) & mask
    limits = (stored.largest >> shifts.flatten()).clamp(max=mask)
    n_numbers, n_signs = stored.numbers.shape[-2:]
    return EncodedWeights(
        cells=levels.flatten(-3).to(torch.float32),
        correction=stored.correction,
        largest_levels=limits.repeat_interleave(n_signs).repeat(n_numbers).to(torch.float32),
        bits_per_cell=bits_per_cell,
        n_slices=n_slices,
        n_signs=n_signs,
        signs=None if stored.signs is None else stored.signs.to(torch.int8).repeat_interleave(n_slices, dim=-1),
        reference_of=stored.reference_of,
    )


@dataclass(frozen=True)
class _Stored:
    """What cells hold before it is cut in slices."""

    numbers: Tensor
    """0 or more, int64, shape (..., row, logical col or reference, part); parts are positive and negative, or one."""
    correction: Tensor
    """As in `EncodedWeights`."""
    n_bits: int
    """Bits that a number has cells for."""
    largest: int
    """Largest number that a cell may have to hold."""
    signs: Tensor | None = None
    """1 or -1 that a logical column counts with, shape (..., row, col)."""
    reference_of: Tensor | None = None
    """As in `EncodedWeights`."""


def _beside_references(
    integers: Tensor, references: Tensor, blocks: Sequence[tuple[int, int]], weight_bits: int
) -> _Stored:
    """Weights with an offset, shape (..., row, col_block), which the references hold."""
    widths = torch.tensor([last - first for first, last in blocks])
    reference_of = torch.arange(len(blocks)).repeat_interleave(widths)
    numbers = torch.cat([integers + references[..., reference_of], references], dim=-1).unsqueeze(-1)
    nothing = torch.zeros(integers.shape, dtype=torch.float64)
    return _Stored(numbers, nothing, weight_bits, 2**weight_bits - 1, reference_of=reference_of)


def _lifted(integers: Tensor, sign: Tensor, lift: Tensor, weight_bits: int, largest: int) -> _Stored:
    """Weights times 1 or -1, what is then negative lifted; both the same for all, or of every weight."""
    signed = integers * sign
    added = lift * (signed < 0)
    return _Stored(
        numbers=(signed + added).unsqueeze(-1),
        correction=(sign * added).to(torch.float64),
        n_bits=weight_bits,
        largest=largest,
        signs=sign if sign.ndim else None,
    )


def decode_columns(values: Tensor, encoded: EncodedWeights, signs: Tensor | None = None) -> Tensor:
    """Shift and add slices, subtract negative columns or references; the correction is still to be subtracted.

    Args:
        values: Converted column sums in cell levels, shape (..., physical col).
        encoded: The encoding that the columns hold.
        signs: What the sums count with, one row of `encoded.signs`, shape (physical col); None: all as they are.

    Returns:
        Weighted sums in weight levels as float64, shape (..., col); exact products are this minus
        `inputs @ encoded.correction`.
    """
    counted = values.to(torch.float64) if signs is None else values.to(torch.float64) * signs
    parts = counted.unflatten(-1, (-1, encoded.n_slices, encoded.n_signs))
    signed = parts[..., 0] - parts[..., 1] if encoded.n_signs == 2 else parts[..., 0]
    sums = signed @ (2.0 ** (encoded.bits_per_cell * torch.arange(encoded.n_slices, dtype=torch.float64)))
    if encoded.reference_of is None:
        return sums
    n_cols = len(encoded.reference_of)
    return sums[..., :n_cols] - sums[..., n_cols:][..., encoded.reference_of]

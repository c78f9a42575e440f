"""Ways to store integer weights with cells at higher resistance: smaller lifts, and columns of negated weights.

The more its cells conduct, the more a crossbar loses in its wires and the more its reads cost. Everything here only
relabels: with ideal cells the products stay what they are. `encoding` calls it.

Source: reconstruction of a non-ideality-aware weight encoding with more cells at high resistance, as SpikeSim (Moitra
et al., arXiv 2210.12899) has it for a whole layer; the choice by column and by crossbar is archsim's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bank:
    """Cells of a layer whose columns are converted together: rows that share bit lines, columns of a block."""

    rows: Tensor
    """Rows of the layer's flattened weights, int64."""
    cols: Tensor
    """Logical columns, int64."""
    col_block: int
    """Which column block they are; its reference column is theirs."""

    @property
    def spot(self) -> tuple[Tensor, Tensor]:
        """Index of the bank in the layer's flattened weights."""
        return self.rows.unsqueeze(1), self.cols


def lifted_by_column(integers: Tensor, banks: Sequence[Bank], bits_per_cell: int) -> tuple[Tensor, Tensor]:
    """Sign and lift of every column of a bank with which its cells conduct least.

    A column stores w or -w; what is then negative is lifted by the smallest number that leaves nothing negative in the
    column, or by the smallest power of two that does so in the layer. The fewest levels win, the first of these in a
    tie.

    Args:
        integers: Weights, int64, shape (..., row, col).
        banks: Where columns are converted together.
        bits_per_cell: Bits of a slice.

    Returns:
        1 or -1, and the lift, 0 or more; int64, shape of `integers`. Cells of no bank have 1 and 0.
    """
    flat = integers.flatten(0, -2)
    signs, lifts = torch.ones_like(flat), torch.zeros_like(flat)
    powers = {sign: power_above(-int((sign * flat).min())) for sign in (1, -1)} if flat.numel() else {}
    for bank in banks:
        held = flat[bank.spot]
        choices = []
        for sign, power in powers.items():
            for lift in ((-sign * held).clamp(min=0).amax(0), torch.full(held.shape[1:], power)):
                stored = sign * held + lift * (sign * held < 0)
                levels = sum((cut.sum(0) for cut in slices(stored, bits_per_cell)), torch.zeros_like(lift))
                choices.append((levels, torch.full_like(lift, sign), lift))
        levels, sign_of, lift_of = (torch.stack(parts) for parts in zip(*choices, strict=True))
        best = levels.argmin(0, keepdim=True)
        signs[bank.spot], lifts[bank.spot] = sign_of.gather(0, best), lift_of.gather(0, best)
    return signs.view_as(integers), lifts.view_as(integers)


def power_above(number: int) -> int:
    """Smallest power of two that is not below a number; 0 for 0 and less."""
    return 1 << (number - 1).bit_length() if number > 0 else 0


def smaller_offsets(
    integers: Tensor, offsets: Tensor, banks: Sequence[Bank], bits_per_cell: int, swaps: bool
) -> Tensor:
    """Offsets with which the cells of every bank, its reference included, conduct least.

    In each bank the offset stays, or is the smallest that leaves no weight negative: the one with fewer levels.

    Args:
        integers: Weights, int64, shape (..., row, col).
        offsets: What is added without this choice, int64, shape (..., row, col_block).
        banks: Where columns are converted together.
        bits_per_cell: Bits of a slice.
        swaps: Whether a slice of a bank is swapped where its cells then conduct less, see `polarity`.
    """

    def levels(stored: Tensor) -> int:
        cuts = slices(stored, bits_per_cell)
        return sum(int(min(cut.sum(), (cut.max() - cut).sum()) if swaps else cut.sum()) for cut in cuts)

    flat, chosen = integers.flatten(0, -2), offsets.flatten(0, -2).clone()
    for bank in banks:
        held = flat[bank.spot]
        usual, smallest = int(chosen[bank.rows[0], bank.col_block]), int((-held).clamp(min=0).max())
        found = {
            offset: levels(torch.cat([held + offset, torch.full((len(held), 1), offset)], dim=1))
            for offset in (usual, smallest)
        }
        chosen[bank.rows, bank.col_block] = min(found, key=lambda offset: found[offset])
    return chosen.view_as(offsets)


def slices(stored: Tensor, bits_per_cell: int) -> Iterator[Tensor]:
    """Levels of each slice of stored numbers, the least significant first, until nothing is left."""
    while bool(stored.any()):
        yield stored & ((1 << bits_per_cell) - 1)
        stored = stored >> bits_per_cell

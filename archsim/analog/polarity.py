"""Crossbars of swapped polarity: where most cells would be at low resistance, all of them hold the complement.

Entry: `swap_polarity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from archsim.analog.encoding import EncodedWeights
from archsim.analog.resistance import Bank


def swap_polarity(encoded: EncodedWeights, banks: Sequence[Bank]) -> EncodedWeights:
    """Store largest - level instead of level in the banks and slices whose cells then conduct less.

    `largest` is the largest level that the slice of the bank holds. A sum then counts negative, and what the driven
    rows add too little, largest times their number, joins the correction; in an `offset` bank the reference column is
    swapped too, so that it drops out.

    Args:
        encoded: One column per slice, so not a differential scheme, whose pairs have a cell at level 0 anyway.
        banks: Where columns are converted together, of all weights.

    Source: after SwitchX (Bhattacharjee et al., ACM 3576195): crossbars with a majority of cells at high resistance;
    slices and levels between the two states are a reconstruction.
    """
    cells = encoded.cells.flatten(0, -2).clone()
    correction = encoded.correction.flatten(0, -2).clone()
    signs = torch.ones_like(cells, dtype=torch.int8) if encoded.signs is None else encoded.signs.flatten(0, -2).clone()
    n_slices = encoded.n_slices
    for bank in banks:
        cols = bank.cols
        if encoded.reference_of is not None:
            cols = torch.cat([cols, torch.tensor([len(encoded.reference_of) + bank.col_block])])
        for index in range(n_slices):
            spot = bank.rows.unsqueeze(1), cols * n_slices + index
            levels = cells[spot]
            largest = levels.max()
            if float(levels.sum()) <= float((largest - levels).sum()):
                continue
            if encoded.reference_of is None:
                worth = float(largest) * 2.0 ** (encoded.bits_per_cell * index)
                correction[bank.spot] -= worth * signs[spot]
            cells[spot], signs[spot] = largest - levels, -signs[spot]
    return replace(
        encoded,
        cells=cells.view_as(encoded.cells),
        correction=correction.view_as(encoded.correction),
        signs=signs.view_as(encoded.cells),
    )

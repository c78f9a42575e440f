"""Reads whose network changes with the input, so that no effective matrix exists.

`gated_currents`: 1T1R cells whose gates take the spikes, source lines beside the bit lines.
`floating_currents`: rows that are not driven are left open instead of held at 0 V.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_CELLS = 1 << 22
"""Matrix entries of the reads that are solved at once."""


def gated_currents(
    g: Tensor, gates: Tensor, v_source_v: float, r_wire_col_ohm: float = 0.0, r_sense_ohm: float = 0.0
) -> Tensor:
    """Column currents when spikes open access transistors between ideal source lines and resistive bit lines.

    Columns do not meet, so each is a ladder: from the far end towards the sense circuit, the line is
    a conductance y and a short-circuit current i; a cell adds `g` to y and `g v_source` to i, a
    segment of resistance r divides both by `1 + y r`. All current comes from the source lines, so a
    read takes the power `v_source * sum of currents`.

    Args:
        g: Conductances in siemens, transistor included, shape (..., row, col).
        gates: Open gates, 0 or 1, shape (..., row); leading axes broadcast with those of `g`.
        v_source_v: Voltage of the source lines against the virtual ground, in volt.
        r_wire_col_ohm: Resistance of a bit line from cell to cell.
        r_sense_ohm: Input resistance of a sense circuit behind the last row and one segment.

    Returns:
        Ampere, shape (..., col).

    Source: Thevenin and Norton equivalents of a resistor ladder; the topology is that of CrossSim's
    separate source lines.
    """
    n_rows = g.shape[-2]
    cells = g * gates.to(g.dtype).unsqueeze(-1)
    conductance = torch.zeros_like(cells[..., 0, :])
    current = torch.zeros_like(conductance)
    for row in range(n_rows):
        resistance = r_wire_col_ohm + (r_sense_ohm if row == n_rows - 1 else 0.0)
        conductance = conductance + cells[..., row, :]
        share = 1.0 / (1.0 + conductance * resistance)
        current = (current + cells[..., row, :] * v_source_v) * share
        conductance = conductance * share
    return current


def floating_currents(
    matrix: Tensor, input_conductance: Tensor, volts: Tensor, driven: Tensor
) -> tuple[Tensor, Tensor]:
    """Column currents when rows that are not driven carry no current.

    With F the floating and A the driven rows, `v_F = -Y_FF^-1 Y_FA v_A`; currents follow from the
    effective matrix. Rows without any conductance are left at 0 V.

    Args:
        matrix: Effective conductance in siemens, shape (row, col).
        input_conductance: Input conductance in siemens, shape (row, row).
        volts: Row drives in volt, shape (read, row); those of floating rows do not count.
        driven: Which rows are driven, bool, shape (read, row).

    Returns:
        Currents in ampere, shape (read, col), and the voltages of all rows in volt, shape (read, row).
    """
    n_rows = matrix.shape[0]
    eye = torch.eye(n_rows, dtype=matrix.dtype, device=matrix.device)
    fixed = driven | (input_conductance.diagonal() == 0)
    size = max(1, CHUNK_CELLS // n_rows**2)
    levels = []
    for held, drive in zip(fixed.split(size), torch.where(driven, volts, 0.0).split(size), strict=True):
        balance = torch.where(held.unsqueeze(-1), eye, input_conductance)
        levels.append(torch.linalg.solve(balance, drive.unsqueeze(-1)).squeeze(-1))
    rows = torch.cat(levels)
    return rows @ matrix, rows

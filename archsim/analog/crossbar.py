"""What the columns of one crossbar collect when its rows are driven.

The only place where inputs meet cells: everything about wires and devices belongs inside
`column_sums`. Wires are ideal here, so a column sums the levels of its driven rows (Ohm, Kirchhoff).
"""

from __future__ import annotations

from torch import Tensor


def column_sums(inputs: Tensor, cells: Tensor) -> Tensor:
    """Current of every column, in units of one cell level.

    `sums[..., col] = sum over row of inputs[..., row] * cells[row, col]`

    Args:
        inputs: Driven rows, 0 or 1, shape (..., row), floating point.
        cells: Stored levels of one crossbar, shape (row, physical col), same dtype.

    Returns:
        Column sums, shape (..., physical col).

    Source: Kirchhoff's current law for cells on ideal wires.
    """
    return inputs @ cells

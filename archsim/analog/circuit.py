"""The circuit of a crossbar seen from its devices: `v + drop(i(v)) = drive`.

The voltage across every device is what its row's driver would give with no current flowing, less what
all device currents together lose in the lines. Lines are short chains of resistors, so `drop` is a
small matrix on either side of the currents. This form serves where the effective matrix of `wires`
does not: voltages inside, devices that are not linear, single reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from archsim.errors import ConfigError, SimulationError

MAX_ITERATIONS = 2000
"""Conjugate-gradient steps before giving up; 40 suffice for 512 x 512 cells and 2.5 ohm wires."""


@dataclass(frozen=True)
class Wires:
    """Resistances around the cells of a crossbar, and which ends of its lines are connected.

    Drivers sit on column 0's side, one row segment before the first cell; sense circuits (virtual
    grounds) one column segment behind the last row.

    Raises:
        ConfigError: A resistance is negative or not finite.
    """

    r_driver_ohm: float = 0.0
    """Output resistance of a row driver."""
    r_wire_row_ohm: float = 0.0
    """Resistance of a row line from cell to cell."""
    r_wire_col_ohm: float = 0.0
    """Resistance of a column line from cell to cell."""
    r_sense_ohm: float = 0.0
    """Input resistance of a sense circuit."""
    double_drive: bool = False
    """Rows are driven from both ends, each through a driver and a segment."""
    double_sense: bool = False
    """Columns are sensed at both ends, each through a segment and a sense circuit."""

    def __post_init__(self) -> None:
        for name in ("r_driver_ohm", "r_wire_row_ohm", "r_wire_col_ohm", "r_sense_ohm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value!r}; it must be finite and at least 0 ohm: use 0 for an ideal wire")

    def without_ideal_lines_fed_twice(self) -> Wires:
        """The same circuit where ideal lines have one end: two sources at one node are one of half the resistance."""
        wires = self
        if self.double_drive and self.r_wire_row_ohm == 0.0:
            wires = replace(wires, r_driver_ohm=self.r_driver_ohm / 2, double_drive=False)
        if self.double_sense and self.r_wire_col_ohm == 0.0:
            wires = replace(wires, r_sense_ohm=self.r_sense_ohm / 2, double_sense=False)
        return wires


@dataclass(frozen=True)
class Lines:
    """Voltage lost in the lines at a cell per ampere drawn at another cell of the same line, in ohm."""

    along_row: Tensor
    """Shape (col, col), symmetric."""
    along_col: Tensor
    """Shape (row, row), symmetric."""

    def drop(self, currents: Tensor) -> Tensor:
        """Voltage that device currents of shape (..., row, col) take from every device, same shape."""
        return currents @ self.along_row + self.along_col @ currents

    def row_volts(self, volts: Tensor, currents: Tensor) -> Tensor:
        """Voltages of the row line at every cell, shape (..., row, col), for drives of shape (..., row)."""
        return volts.unsqueeze(-1) - currents @ self.along_row

    def col_volts(self, currents: Tensor) -> Tensor:
        """Voltages of the column line at every cell, shape (..., row, col)."""
        return self.along_col @ currents


def lines(wires: Wires, g: Tensor) -> Lines:
    """Lines of crossbars like `g`, in its dtype and on its device."""
    n_rows, n_cols = g.shape[-2:]
    row = _line(n_cols, wires.r_wire_row_ohm, wires.r_driver_ohm, wires.double_drive)
    col = _line(n_rows, wires.r_wire_col_ohm, wires.r_sense_ohm, wires.double_sense)
    return Lines(row.to(g), col.flip(0, 1).to(g))


def _line(n_cells: int, segment_ohm: float, end_ohm: float, both_ends: bool) -> Tensor:
    """Transfer resistances of a line fed before its first cell (and behind its last), shape (cell, cell).

    A current drawn at cell l lowers cell j by the resistance that both share on the way to the
    source; a second source divides the current.
    """
    distance = end_ohm + segment_ohm * torch.arange(1, n_cells + 1, dtype=torch.float64)
    shared = torch.minimum(distance[:, None], distance)
    total = 2 * end_ohm + (n_cells + 1) * segment_ohm
    return shared - torch.outer(distance, distance) / total if both_ends and total > 0 else shared


def device_voltages(g: Tensor, volts: Tensor, wires: Wires, tolerance: float | None = None) -> Tensor:
    """Voltage across every device when rows are driven, linear devices.

    Args:
        g: Conductances in siemens, shape (..., row, col).
        volts: Row drives in volt, shape (..., row); leading axes broadcast with those of `g`.
        wires: The lines.
        tolerance: Largest relative residual; 1e-12 in float64 and 1e-6 in float32 by default.

    Returns:
        Volt, shape (..., row, col).
    """
    return solve_linear(g, volts.unsqueeze(-1), lines(wires, g), tolerance)


def solve_linear(slopes: Tensor, drive: Tensor, between: Lines, tolerance: float | None = None) -> Tensor:
    """Solve `v + drop(slopes * v) = drive` by conjugate gradients on `s = sqrt(slopes) v`.

    The matrix `1 + sqrt(slopes) drop sqrt(slopes)` is symmetric and not far from 1, so no
    preconditioner is needed.

    Args:
        slopes: Conductances in siemens, 0 or more, shape (..., row, col).
        drive: Volt, broadcastable to (..., row, col).
        between: The lines.
        tolerance: Largest relative residual of every field; see `device_voltages`.

    Raises:
        SimulationError: No solution within `MAX_ITERATIONS`.

    Source: Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49(6), 1952.
    """
    tolerance = default_tolerance(slopes) if tolerance is None else tolerance
    tiny = torch.finfo(slopes.dtype).tiny
    root = slopes.sqrt()
    residual = root * drive
    direction, found = residual, torch.zeros_like(residual)
    power = first = residual.square().sum((-1, -2), keepdim=True)
    for _ in range(MAX_ITERATIONS):
        if bool((power <= tolerance**2 * first).all()):
            return drive - between.drop(root * found)
        image = direction + root * between.drop(root * direction)
        step = power / (direction * image).sum((-1, -2), keepdim=True).clamp_min(tiny)
        found = found + step * direction
        residual = residual - step * image
        before, power = power, residual.square().sum((-1, -2), keepdim=True)
        direction = residual + power / before.clamp_min(tiny) * direction
    raise SimulationError(
        f"node voltages did not converge to {tolerance:g} in {MAX_ITERATIONS} steps; lower the wire resistance, "
        "or use float64"
    )


def default_tolerance(like: Tensor) -> float:
    """Relative residual that a dtype can reach."""
    return 1e-12 if like.dtype == torch.float64 else 1e-6

"""Reads of crossbars whose devices are not linear: the circuit of every read, or a linear stand-in.

`nonlinear_currents` solves the circuit of each read by Newton's method ("exact", a few matrix-free
linear solves). `calibrated_conductance` replaces every device by its mean chord conductance over
typical reads, so that one effective matrix serves all reads ("calibrated").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from archsim.analog.circuit import Lines, Wires, default_tolerance, lines, solve_linear
from archsim.analog.wires import effective_matrices
from archsim.errors import ConfigError, SimulationError
from archsim.hardware.devices import LARGEST_DRIVE

CHUNK_CELLS = 1 << 22
"""Device voltages of the reads that are solved at once."""
_MAX_STEPS = 60
"""Newton steps before giving up; 2 to 4 are usual."""
_MAX_HALVINGS = 30


@dataclass(frozen=True)
class Curve:
    """I-V curve of a device, odd and rising: `sinh`: i = g v0 sinh(v / v0); `cubic`: i = g (v + v^3 / v0^2).

    `g` is the conductance at small voltage. Sources: sinh, the usual form for filamentary RRAM
    (Guan et al., IEEE EDL 33(10), 2012); cubic, Milo et al., IRPS 2021, without the even term.

    Raises:
        ConfigError: v0 is not a positive number.
    """

    kind: Literal["sinh", "cubic"]
    v0_v: float
    """Voltage at which the curve bends, in volt."""

    def __post_init__(self) -> None:
        if self.kind not in ("sinh", "cubic"):
            raise ConfigError(f"kind is {self.kind!r}; it must be 'sinh' or 'cubic'")
        if not (math.isfinite(self.v0_v) and self.v0_v > 0):
            raise ConfigError(f"v0_v is {self.v0_v!r}; it must be above 0 V: leave the curve out for linear devices")

    def current(self, g: Tensor, volts: Tensor) -> Tensor:
        """Device current in ampere at `volts`."""
        scaled = volts / self.v0_v
        return g * self.v0_v * (torch.sinh(scaled) if self.kind == "sinh" else scaled + scaled**3)

    def slope(self, g: Tensor, volts: Tensor) -> Tensor:
        """Change of the current per volt, in siemens."""
        scaled = volts / self.v0_v
        return g * (torch.cosh(scaled) if self.kind == "sinh" else 1.0 + 3.0 * scaled**2)

    def chord(self, g: Tensor, volts: Tensor) -> Tensor:
        """Current over voltage, in siemens; the slope where there is no voltage."""
        still = volts == 0
        return torch.where(still, g, self.current(g, volts) / torch.where(still, 1.0, volts))


def nonlinear_currents(g: Tensor, volts: Tensor, wires: Wires, curve: Curve, tolerance: float | None = None) -> Tensor:
    """Column currents of reads, each solved as a circuit of its own.

    Args:
        g: Conductances at small voltage in siemens, shape (..., row, col).
        volts: Row drives in volt, shape (..., row); leading axes broadcast with those of `g`.
        wires: The lines.
        curve: I-V curve of all devices.
        tolerance: Largest voltage error relative to the largest drive; 1e-12 in float64, 5e-6 in float32.

    Returns:
        Ampere, shape (..., col).

    Raises:
        ConfigError: A drive is more than `LARGEST_DRIVE` times v0.
        SimulationError: No solution.
    """
    parts = [
        curve.current(g, nonlinear_voltages(g, part, wires, curve, tolerance)).sum(-2) for part in _chunks(g, volts)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def _chunks(g: Tensor, volts: Tensor) -> Iterator[Tensor]:
    """Reads along the last but one axis of `volts`, few enough at once to bound memory."""
    if volts.dim() < 2:
        return iter((volts,))
    per_read = math.prod(torch.broadcast_shapes(g.shape[:-2], (*volts.shape[:-2], 1))) * g.shape[-2] * g.shape[-1]
    return iter(volts.split(max(1, CHUNK_CELLS // per_read), -2))


def nonlinear_voltages(g: Tensor, volts: Tensor, wires: Wires, curve: Curve, tolerance: float | None = None) -> Tensor:
    """Voltage across every device, shape (..., row, col); arguments as for `nonlinear_currents`.

    Newton's method on `v + drop(i(v)) = drive`, started at the linear circuit; the steps solve to a
    tolerance that tightens with the residual, and are halved until the residual falls.
    """
    largest = float(volts.abs().max()) if volts.numel() else 0.0
    if largest > LARGEST_DRIVE * curve.v0_v * (1 + 1e-6):
        raise ConfigError(
            f"a row is driven with {largest:g} V, more than {LARGEST_DRIVE:g} times v0_v ({curve.v0_v:g} V); "
            "raise v0_v or lower the drive"
        )
    if tolerance is None:
        tolerance = max(default_tolerance(g), 40 * torch.finfo(g.dtype).eps)
    between, drive = lines(wires, g), volts.unsqueeze(-1)
    found = solve_linear(curve.slope(g, torch.zeros_like(g)), drive, between, 1e-2)
    scale = drive.abs().amax((-1, -2), keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    residual = _residual(found, drive, g, between, curve)
    for _ in range(_MAX_STEPS):
        error = float((residual.abs().amax((-1, -2), keepdim=True) / scale).max()) if residual.numel() else 0.0
        if error <= tolerance:
            return found
        forcing = max(min(1e-2, error), default_tolerance(g))
        step = solve_linear(curve.slope(g, found), -residual, between, forcing)
        found, residual = _descend(found, step, residual, drive, g, between, curve)
    raise SimulationError(
        f"voltages of nonlinear devices did not converge: relative residual {error:.1e} after {_MAX_STEPS} Newton "
        f"steps, {tolerance:g} wanted; use float64, or lower the drive or the wire resistance"
    )


def _residual(found: Tensor, drive: Tensor, g: Tensor, between: Lines, curve: Curve) -> Tensor:
    return found + between.drop(curve.current(g, found)) - drive


def _descend(
    found: Tensor, step: Tensor, residual: Tensor, drive: Tensor, g: Tensor, between: Lines, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Go along the step, for each read as far as its residual falls."""
    norm = residual.square().sum((-1, -2), keepdim=True)
    length = torch.ones_like(norm)
    for _ in range(_MAX_HALVINGS):
        ahead = found + length * step
        left = _residual(ahead, drive, g, between, curve)
        worse = ~(left.square().sum((-1, -2), keepdim=True) <= norm)
        if not bool(worse.any()):
            break
        length = torch.where(worse, length / 2, length)
    return ahead, left


def calibrated_conductance(g: Tensor, volts: Tensor, wires: Wires, curve: Curve) -> tuple[Tensor, Tensor]:
    """Linear stand-in for nonlinear devices, fitted to exactly solved typical reads.

    Every device gets its mean chord conductance over the reads that drive its row; where none does,
    it is as much above `g` as the column's other devices are on average. A factor per column then
    fits the currents of the effective matrix to the exact ones by least squares. Reads are
    `volts @ (effective_conductance(chords, ...) * trim)`.

    Args:
        g: Conductances at small voltage in siemens, shape (..., row, col).
        volts: Typical row drives in volt, shape (..., read, row); 8 reads are enough.
        wires: The lines.
        curve: I-V curve of all devices.

    Returns:
        Chord conductances in siemens, shape (..., row, col), and factors, shape (..., 1, col).
    """
    cells = g.unsqueeze(-3)
    across = nonlinear_voltages(cells, volts, wires, curve)
    driven = (volts != 0).unsqueeze(-1).to(g.dtype)
    n_driven = driven.sum(-3)
    steepness = curve.chord(torch.ones_like(cells), across)
    mean = (steepness * driven).sum(-3) / n_driven.clamp_min(1)
    of_column = mean.sum(-2, keepdim=True) / (n_driven > 0).sum(-2, keepdim=True).clamp_min(1)
    chords = g * torch.where(n_driven > 0, mean, of_column)
    exact = curve.current(cells, across).sum(-2)
    linear = volts @ effective_matrices(chords, wires)[0]
    power = linear.square().sum(-2, keepdim=True)
    trim = (exact * linear).sum(-2, keepdim=True) / torch.where(power > 0, power, 1.0)
    return chords, torch.where(power > 0, trim, 1.0)

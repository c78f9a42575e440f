"""A single crossbar for people who have a matrix and no chip: program it, let it age, read it.

`Crossbar` puts together what this package has one by one: devices, wires, nonlinear cells, read
noise and a converter. Layers of a network on a chip are `product`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from archsim.analog.circuit import Wires, device_voltages, lines
from archsim.analog.devices import ChipSeed, cell_conductances
from archsim.analog.nonlinear import Curve, calibrated_conductance, nonlinear_currents, nonlinear_voltages
from archsim.analog.read_noise import noise_variance, standard_normal
from archsim.analog.spice import netlist
from archsim.analog.wires import effective_matrices
from archsim.errors import ConfigError
from archsim.hardware.devices import PRESETS, Device, DevicePhysics

N_TYPICAL_READS = 8
"""Random reads that a linear stand-in for nonlinear devices is fitted to."""
BLOCK_SUMS = 1 << 16
"""Noisy or converted sums computed at once: what a cache holds is fastest."""
_STREAM = "crossbar"


class Crossbar:
    """A real matrix in one array of resistive devices, each weight as the difference of two neighbouring columns.

    A weight w is stored as `g_off + max(w, 0) step` and `g_off + max(-w, 0) step`, with the step such
    that the largest absolute weight has the on conductance. An input is a row voltage in units of
    `v_read_v`: spikes (bool), or real numbers from 0 to 1.

        crossbar = Crossbar(weights, "rram-20k-200k", Wires(100.0, 2.5, 2.5, 50.0), adc_bits=6)
        crossbar.calibrate(spikes[:100])
        outputs = crossbar.read(spikes)

    Every draw follows from `seed`: equal arguments and equal calls give equal results.
    """

    def __init__(
        self,
        weights: Tensor,
        device: Device | str = "rram-20k-200k",
        wires: Wires | None = None,
        *,
        v_read_v: float = 0.2,
        adc_bits: int | None = None,
        activity: float = 0.3,
        seed: int = 0,
    ) -> None:
        """Program a matrix.

        Args:
            weights: Shape (row, col), float32 or float64, finite; the dtype of all computation.
            device: The devices, or the name of a preset; it must have resistances.
            wires: The lines; ideal ones by default.
            v_read_v: Voltage of a row with input 1, above 0.
            adc_bits: Bits of the converters of the column differences, 2 to 24; None: no conversion.
            activity: Typical share of driven rows, for read noise and stand-ins of nonlinear devices.
            seed: Decides all that is random.

        Raises:
            ConfigError: An argument is outside these limits.
        """
        self.device = _preset(device) if isinstance(device, str) else device
        self.wires = Wires() if wires is None else wires
        self.v_read_v, self.adc_bits, self.activity = v_read_v, adc_bits, activity
        self._check()
        self._chip = ChipSeed(seed)
        self._noise = np.random.Generator(np.random.SFC64([seed, 1]))
        self.n_writes = 0
        self._shape = tuple(weights.shape)
        self.program(weights)

    def program(self, weights: Tensor) -> Self:
        """Write another matrix of the same shape; the converters' range is full again."""
        _check_weights(weights)
        if tuple(weights.shape) != self._shape:
            raise ConfigError(
                f"weights have shape {tuple(weights.shape)}; this crossbar holds {self._shape}: "
                "make another for another shape"
            )
        self.weights = weights.detach().clone()
        self.n_writes += 1
        self._physics = self.device.physics
        largest = float(self.weights.abs().max())
        self._scale = largest if largest > 0 else 1.0
        self.full_scale: float | None = None
        self._solve()
        return self

    def age(self, seconds: float) -> Self:
        """Let devices drift and relax until `seconds` after the write; converters keep their range."""
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"seconds is {seconds!r}; the time since the write must be finite and at least 0 s")
        self._physics = replace(self._physics, age_s=float(seconds))
        self._solve()
        return self

    @property
    def matrix(self) -> Tensor:
        """What a read multiplies its inputs by, without noise and conversion, shape (row, col), in units of weights.

        For `nonlinearity: exact` there is no such matrix; this one holds for small voltage.
        """
        return self._matrix

    @property
    def conductance(self) -> Tensor:
        """Conductances of all devices in siemens at small voltage, shape (row, 2 col): positive and negative parts."""
        return self._g

    def read(self, inputs: Tensor) -> Tensor:
        """Weighted sums as the converters give them.

        Args:
            inputs: Shape (..., row): bool, or real numbers from 0 to 1.

        Returns:
            Shape (..., col), in units of weights.
        """
        values = self._checked(inputs)
        if self._variance is None and self.adc_bits is None:
            return self._sums(values)
        reads = values.reshape(-1, values.shape[-1])
        results = values.new_empty(len(reads), self.weights.shape[1])
        size = max(1, BLOCK_SUMS // self.weights.shape[1])
        for block, result in zip(reads.split(size), results.split(size), strict=True):
            result.copy_(self._converted(self._sums(block)))
        return results.view(*values.shape[:-1], -1)

    def calibrate(self, inputs: Tensor) -> Self:
        """Set the converters' full scale to the largest absolute sum of these reads."""
        largest = float(self._sums(self._checked(inputs)).abs().max())
        self.full_scale = largest if largest > 0 else None
        return self

    def voltages(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Voltages of the row lines and of the column lines at every cell in volt, each (..., row, 2 col)."""
        volts = self._volts(inputs)
        if self._curve is None:
            currents = self._g * device_voltages(self._g, volts, self.wires)
        else:
            currents = self._curve.current(self._g, nonlinear_voltages(self._g, volts, self.wires, self._curve))
        between = lines(self.wires, self._g)
        return between.row_volts(volts, currents), between.col_volts(currents)

    def read_energy_j(self, inputs: Tensor, duration_s: float) -> Tensor:
        """Energy that drivers deliver in a read, shape (...): in devices, wires, drivers and sense circuits."""
        volts = self._volts(inputs)
        if self._curve is None:
            _, drawn = effective_matrices(self._g, self.wires, with_input=True)
            assert drawn is not None
            return ((volts @ drawn) * volts).sum(-1) * duration_s
        across = nonlinear_voltages(self._g, volts, self.wires, self._curve)
        return (self._curve.current(self._g, across).sum(-1) * volts).sum(-1) * duration_s

    def to_spice(self, path: Path | str, inputs: Tensor) -> None:
        """Write one read as a SPICE netlist with an operating point; column currents are those of VO0, VO1, ..."""
        elements = netlist(self._g, self._volts(inputs), self.wires, self._curve)
        title = f"* {self._g.shape[0]} x {self._g.shape[1]} cells"
        Path(path).write_text("\n".join([title, *elements, ".op", ".end"]) + "\n", encoding="ascii")

    def __repr__(self) -> str:
        n_rows, n_cols = self.weights.shape
        what = f"{n_rows} x {n_cols} weights in {n_rows} x {2 * n_cols} cells of {self.device.preset}"
        return "\n  ".join([f"Crossbar: {what}, write {self.n_writes}", *self._departures()])

    def _departures(self) -> Iterator[str]:
        """What is not ideal here, one line each."""
        ohms = {name: value for name, value in vars(self.wires).items() if value and name.startswith("r_")}
        if ohms:
            yield "wires: " + ", ".join(f"{name} {value:g}" for name, value in ohms.items())
        for flag in ("double_drive", "double_sense"):
            if getattr(self.wires, flag):
                yield f"wires: {flag}"
        plain = DevicePhysics()
        kept = {"r_on_ohm", "r_off_ohm", "drift_t0_s", "source"}
        for name, value in vars(self._physics).items():
            if name not in kept and value != getattr(plain, name):
                yield f"device: {name} {value}"
        if self.adc_bits is not None:
            scale = "full" if self.full_scale is None else f"calibrated, {self.full_scale:g}"
            yield f"converters: {self.adc_bits} bits, range {scale}"

    def _check(self) -> None:
        if self.device.physics.is_ideal:
            raise ConfigError("device 'ideal' has no resistance; choose a preset that has, such as 'rram-20k-200k'")
        if not 0 < self.v_read_v < float("inf"):
            raise ConfigError(f"v_read_v is {self.v_read_v!r}; it must be finite and above 0 V")
        if self.adc_bits is not None and self.adc_bits not in range(2, 25):
            raise ConfigError(f"adc_bits is {self.adc_bits!r}; it must be 2 to 24, or None for no conversion")
        if not 0 <= self.activity <= 1:
            raise ConfigError(f"activity is {self.activity!r}; it must be a share of rows from 0 to 1")

    def _solve(self) -> None:
        """Find conductances, the effective matrix of column differences and the variance of its noise."""
        physics, dtype = self._physics, self.weights.dtype
        parts = torch.stack([self.weights.clamp(min=0), -self.weights.clamp(max=0)], -1).flatten(-2) / self._scale
        self._g = cell_conductances(parts, 1, physics, self._chip, _STREAM, self.n_writes).to(dtype)
        self._curve = None
        g, trim = self._g, torch.ones((), dtype=dtype)
        if physics.nonlinearity != "off":
            assert physics.nonlinearity_v0_v is not None, "checked by Device"
            self._curve = Curve("sinh", physics.nonlinearity_v0_v)
        if self._curve is not None and physics.nonlinearity == "calibrated":
            generator = self._chip.generator(_STREAM, "typical reads")
            typical = torch.rand(N_TYPICAL_READS, g.shape[0], generator=generator) < self.activity
            g, trim = calibrated_conductance(g, self._volts(typical), self.wires, self._curve)
        self._weight_per_siemens = self._scale / (physics.g_on_s - physics.g_off_s)
        self._matrix = self._weight_per_siemens * _differences(effective_matrices(g, self.wires)[0] * trim)
        self._variance: Tensor | None = None
        if physics.read_noise_sigma_rel > 0:
            variance = noise_variance(g, physics.read_noise_sigma_rel * g, self.wires, self.activity)
            self._variance = self._weight_per_siemens**2 * (variance[:, 0::2] + variance[:, 1::2])

    def _sums(self, values: Tensor) -> Tensor:
        """Weighted sums with noise, before conversion."""
        variance: Tensor | None = None
        if self._physics.nonlinearity == "exact":
            assert self._curve is not None
            currents = nonlinear_currents(self._g, values * self.v_read_v, self.wires, self._curve)
            sums = _differences(currents) * (self._weight_per_siemens / self.v_read_v)
            variance = None if self._variance is None else values.square() @ self._variance
        elif self._variance is None:
            sums = values @ self._matrix
        else:
            sums, variance = values @ self._matrix, values.square() @ self._variance
        if variance is None:
            return sums
        return sums.addcmul_(variance.sqrt_(), standard_normal(tuple(sums.shape), self._noise).to(sums.dtype))

    def _converted(self, sums: Tensor) -> Tensor:
        """Sums rounded to the codes of the converters, if there are any; overwrites its argument."""
        if self.adc_bits is None:
            return sums
        full_scale = self._largest_sum() if self.full_scale is None else self.full_scale
        n_codes = 1 << (self.adc_bits - 1)
        step = full_scale / n_codes
        return sums.div_(step).round_().clamp_(-n_codes, n_codes - 1).mul_(step)

    def _largest_sum(self) -> float:
        """Largest absolute sum that any input can give."""
        parts = (self._matrix.clamp(min=0).sum(0), -self._matrix.clamp(max=0).sum(0))
        return max(float(torch.cat(parts).max()), torch.finfo(self._matrix.dtype).tiny)

    def _volts(self, inputs: Tensor) -> Tensor:
        return self._checked(inputs) * self.v_read_v

    def _checked(self, inputs: Tensor) -> Tensor:
        if inputs.shape[-1:] != self.weights.shape[:1]:
            raise ConfigError(
                f"inputs have shape {tuple(inputs.shape)}; the last axis must be the {self.weights.shape[0]} rows"
            )
        return inputs.to(self.weights.dtype)


def _differences(columns: Tensor) -> Tensor:
    """Positive less negative columns."""
    return columns[..., 0::2] - columns[..., 1::2]


def _preset(name: str) -> Device:
    if name not in PRESETS:
        raise ConfigError(f"device is {name!r}; presets are {', '.join(sorted(PRESETS))}")
    return Device.model_validate({"preset": name})


def _check_weights(weights: Tensor) -> None:
    if weights.dim() != 2 or 0 in weights.shape:
        raise ConfigError(f"weights have shape {tuple(weights.shape)}; they must be (row, col), at least one of each")
    if weights.dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"weights have dtype {weights.dtype}; they must be torch.float32 or torch.float64")
    if not bool(weights.isfinite().all()):
        raise ConfigError("weights are not all finite; replace NaN and infinite ones")

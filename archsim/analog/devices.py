"""Conductances of cells: what a write leaves behind, what time and faults make of it.

Pure functions on stacks of arrays, shape (..., row, col), in siemens; each effect is a function of its
own and does nothing where its parameter is zero. `cell_conductances` is the whole chain. Everything
random comes from a `ChipSeed`, an own stream for each effect, so that switching one on or off leaves the
draws of the others as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from archsim.hardware.devices import DevicePhysics


@dataclass(frozen=True)
class ChipSeed:
    """Which chip of how many: the same seed and chip number draw the same devices."""

    seed: int = 0
    chip: int = 0

    def generator(self, *stream: str | int) -> torch.Generator:
        """Random numbers of one stream, such as ("conv1", "d2d"); independent of every other stream."""
        words = [self.seed, self.chip, *(crc32(str(item).encode()) for item in stream)]
        state = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(state >> 1)


def cell_conductances(
    levels: Tensor, largest_level: int, physics: DevicePhysics, chip: ChipSeed, name: str, write: int = 0
) -> Tensor:
    """Conductance of every cell at the time of reading.

    Order: wanted conductance, nearest settable level, write error, device-to-device spread,
    cycle-to-cycle spread, drift, relaxation, faults, access transistor.

    Args:
        levels: Wanted levels, shape (..., row, col), 0 .. `largest_level`, floating point.
        largest_level: Level that the on resistance stands for.
        physics: The device; not the ideal one.
        chip: Source of everything random.
        name: Stream of the arrays, usually the layer's name.
        write: Number of the write; only the cycle-to-cycle spread and the write error differ from write to write.

    Returns:
        Conductances in siemens, shape and dtype of `levels`.
    """
    g = written(
        settable(wanted(levels, largest_level, physics), physics), physics, chip.generator(name, "write", write)
    )
    g = spread(g, physics.d2d_sigma_rel, chip.generator(name, "d2d"))
    g = spread(g, physics.c2c_sigma_rel, chip.generator(name, "c2c", write))
    g = aged(g, physics, physics.age_s, chip, name)
    g = faulty(g, physics, chip, name)
    return g / (1.0 + g * physics.r_access_ohm)


def wanted(levels: Tensor, largest_level: int, physics: DevicePhysics) -> Tensor:
    """Conductance that stands for a level: linear from the off to the on conductance."""
    return physics.g_off_s + levels * ((physics.g_on_s - physics.g_off_s) / largest_level)


def settable(g: Tensor, physics: DevicePhysics) -> Tensor:
    """The nearest conductance that the device can be set to."""
    if physics.levels_us:
        table = torch.tensor(physics.levels_us, dtype=torch.float64) * 1e-6
        return table[_nearest(g, table)].to(g.dtype)
    if physics.levels is None:
        return g
    step = (physics.g_on_s - physics.g_off_s) / (physics.levels - 1)
    return physics.g_off_s + ((g - physics.g_off_s) / step).round() * step


def written(g: Tensor, physics: DevicePhysics, generator: torch.Generator) -> Tensor:
    """Conductance after a write that does not hit its target; never below zero.

    `normal`: g (1 + s xi). `lognormal`: g exp(s xi - s^2 / 2), whose mean is g. `polynomial`: g + sigma(g) xi
    with sigma a polynomial of g in microsiemens (CrossSim, AIHWKit). Measured levels with a spread of
    their own: g + sigma_level xi.
    """
    if physics.levels_sigma_us:
        sigmas = torch.tensor(physics.levels_sigma_us, dtype=torch.float64) * 1e-6
        table = torch.tensor(physics.levels_us, dtype=torch.float64) * 1e-6
        return (g + sigmas[_nearest(g, table)].to(g.dtype) * _normal(g, generator)).clamp(min=0)
    if physics.programming_error == "polynomial":
        us = g.to(torch.float64) * 1e6
        sigma = sum(factor * us**power for power, factor in enumerate(physics.programming_sigma_us))
        return (g + (torch.as_tensor(sigma).clamp(min=0) * 1e-6).to(g.dtype) * _normal(g, generator)).clamp(min=0)
    sigma_rel = physics.programming_sigma_rel
    if sigma_rel == 0:
        return g
    if physics.programming_error == "lognormal":
        return g * torch.exp(sigma_rel * _normal(g, generator) - sigma_rel**2 / 2)
    return spread(g, sigma_rel, generator)


def spread(g: Tensor, sigma_rel: float, generator: torch.Generator) -> Tensor:
    """Relative normal spread, g (1 + s xi), never below zero."""
    return g if sigma_rel == 0 else (g * (1.0 + sigma_rel * _normal(g, generator))).clamp(min=0)


def aged(g: Tensor, physics: DevicePhysics, age_s: float, chip: ChipSeed, name: str) -> Tensor:
    """Conductance `age_s` seconds after the write.

    Drift: g (age / t0) ** -nu, nu normal around drift_nu from device to device and not below zero (PCM:
    Nandakumar et al., as in AIHWKit). Relaxation: a normal step of retention_sigma_rel times the on
    conductance, times the square root of the decades since t0 (a random walk in log time, assumption).
    """
    if age_s <= physics.drift_t0_s:
        return g
    if physics.drift_nu > 0 or physics.drift_nu_sigma > 0:
        nu = physics.drift_nu + physics.drift_nu_sigma * _normal(g, chip.generator(name, "drift"))
        g = g * (age_s / physics.drift_t0_s) ** -nu.clamp(min=0)
    if physics.retention_sigma_rel > 0:
        decades = math.log10(age_s / physics.drift_t0_s)
        step = physics.retention_sigma_rel * physics.g_on_s * math.sqrt(decades)
        g = (g + step * _normal(g, chip.generator(name, "retention"))).clamp(min=0)
    return g


def faulty(g: Tensor, physics: DevicePhysics, chip: ChipSeed, name: str) -> Tensor:
    """Stuck and open cells, open rows and columns; a cell has one fault at most, an open line wins."""
    on, off, opened = physics.stuck_on_fraction, physics.stuck_off_fraction, physics.open_fraction
    if on + off + opened > 0:
        chance = torch.rand(g.shape, generator=chip.generator(name, "faults"))
        g = torch.where(chance < on, physics.g_on_s, g)
        g = torch.where((chance >= on) & (chance < on + off), physics.g_off_s, g)
        g = torch.where((chance >= on + off) & (chance < on + off + opened), 0.0, g)
    if physics.open_row_fraction > 0:
        chance = torch.rand(g.shape[:-1], generator=chip.generator(name, "open rows"))
        g = g * (chance >= physics.open_row_fraction).unsqueeze(-1)
    if physics.open_col_fraction > 0:
        chance = torch.rand((*g.shape[:-2], g.shape[-1]), generator=chip.generator(name, "open cols"))
        g = g * (chance >= physics.open_col_fraction).unsqueeze(-2)
    return g


def _nearest(g: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of an ascending table; the lower one in a tie."""
    middles = (table[1:] + table[:-1]) / 2
    return torch.bucketize(g.to(torch.float64).contiguous(), middles)


def _normal(g: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(g.shape, generator=generator, dtype=g.dtype)

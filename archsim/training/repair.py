"""Repairs of a network on crossbars that leave its weights alone: digital gains, batch norms adapted or tuned."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from archsim.analog.devices import ChipSeed
from archsim.errors import WorkloadError
from archsim.training.fitting import Recipe, train
from archsim.training.net import Cells, Net, Trace, Weighted


def with_gains(
    net: Net, cells: Sequence[Cells], inputs: Tensor, scope: Literal["layer", "column"] = "layer"
) -> list[Cells]:
    """Cells with digital gains behind them that bring their sums closest to those of the real weights.

    Least squares over a calibration batch that the ideal network runs, `gain = sum(cells * wanted) / sum(cells**2)`,
    the same rule as `mapping.calibration` of a simulated chip; 1 where nothing was seen.

    Args:
        net: The network.
        cells: What layers multiply with on the chip.
        inputs: Calibration batch, see `Net.run`.
        scope: One gain per layer, or one per output channel.
    """
    trace: Trace = []
    with torch.no_grad():
        net(inputs, trace=trace)
        seen = [torch.cat([step[index].inputs for step in trace]) for index in range(len(cells))]
        return [
            _gained(layer, held, values, scope)
            for layer, held, values in zip(net.weighted_layers(), cells, seen, strict=True)
        ]


def _gained(layer: Weighted, cells: Cells, values: Tensor, scope: str) -> Cells:
    values = values if layer.is_conv else values.flatten(1)
    found, wanted = layer.product(values, cells.weight), layer.product(values, layer.weight)
    axes = [axis for axis in range(found.ndim) if axis != 1 or scope == "layer"]
    power = found.square().sum(axes)
    gain = torch.where(power > 0, (found * wanted).sum(axes) / power.clamp(min=1e-30), 1.0)
    gain = gain.view(-1, *[1] * (cells.weight.ndim - 1))
    variance = None if cells.noise_variance is None else cells.noise_variance * gain.square()
    return replace(cells, weight=cells.weight * gain, noise_variance=variance)


def adapt_batch_norm(net: Net, cells: Sequence[Cells], inputs: Tensor, passes: int = 4) -> Net:
    """A copy of the network whose batch norms have the statistics of its sums on the chip.

    Args:
        net: A network with batch norm.
        cells: What layers multiply with on the chip.
        inputs: Batch that statistics are taken of, see `Net.run`.
        passes: Runs that are averaged over; random inputs and noise want several.

    Raises:
        WorkloadError: The network has no batch norm.

    Source: Bhattacharjee et al., arXiv 2305.18416: re-estimated statistics give back most of what static
    non-idealities cost.
    """
    if net.norm == "none":
        raise WorkloadError("the network has no batch norm to adapt; use with_gains, or train it with norm: batch")
    adapted = copy.deepcopy(net).train()
    for module in adapted.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over passes
    with torch.no_grad():
        for _ in range(passes):
            adapted(inputs, cells)
    return adapted.eval()


def tune_batch_norm(net: Net, cells: Sequence[Cells], inputs: Tensor, labels: Tensor, recipe: Recipe) -> Net:
    """A copy of the network whose batch norms are trained for one chip, its statistics, scales and shifts.

    Weights stay as they are, so nothing is written to the crossbars again. Statistics are adapted before and after, as
    scales and shifts of one layer change what the next one sees.

    Args:
        net: A network with batch norm.
        cells: What layers multiply with on the chip.
        inputs: Samples to learn from, see `Net.run`.
        labels: Their classes, see `fitting.train`.
        recipe: How long and how fast.

    Raises:
        WorkloadError: The network has no batch norm.

    Source: Bhattacharjee et al., arXiv 2305.18416: fine-tuning of scale and shift behind adapted statistics.
    """
    tuned = adapt_batch_norm(net, cells, inputs)
    for layer in tuned.weighted_layers():
        layer.requires_grad_(False)
    train(tuned, inputs, labels, recipe, _Programmed(tuple(cells)))
    for layer, original in zip(tuned.weighted_layers(), net.weighted_layers(), strict=True):
        for parameter, given in zip(layer.parameters(), original.parameters(), strict=True):
            parameter.requires_grad_(given.requires_grad)
    return adapt_batch_norm(tuned, cells, inputs)


@dataclass(frozen=True)
class _Programmed:
    """One chip for all of a training."""

    held: tuple[Cells, ...]

    def cells(self, _net: Net, _chip: ChipSeed) -> list[Cells]:
        """The same cells every time."""
        return [replace(cells, weight=cells.weight.detach()) for cells in self.held]

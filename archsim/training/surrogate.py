"""Gradients of steps: spikes and rounded values that training can pass through."""

from __future__ import annotations

import torch
from torch import Tensor


class Spike(torch.autograd.Function):
    """Step function, 1 where `distance >= 0`, whose gradient is that of a fast sigmoid: `1 / (4 |distance| + 1)^2`.

    Source: Zenke and Ganguli, SuperSpike, Neural Computation 30(6), 2018; slope 4 is a choice.
    """

    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Spikes of neurons whose potential less threshold is `distance`, same shape and dtype."""
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Gradient as if the step were soft."""
        (distance,) = ctx.saved_tensors
        return gradient / (4.0 * distance.abs() + 1.0) ** 2


def straight_through(exact: Tensor, changed: Tensor) -> Tensor:
    """Value of `changed`, gradient of `exact`.

    Source: straight-through estimator, Bengio, Leonard and Courville, arXiv 1308.3432.
    """
    return exact + (changed - exact).detach()

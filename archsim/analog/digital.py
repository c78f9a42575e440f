"""The weighted sums of a layer that digital MAC units compute: quantised weights, exact products.

The counterpart of `product` for a layer without crossbars. Entry points: `program_digital`, `digital_sums`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.encoding import quantize_weights


@dataclass(frozen=True)
class DigitalLayer:
    """Integer weights of a layer and what one step of them is worth."""

    integers: Tensor
    """Float64, shape (out_channel, in_channel, kernel_h, kernel_w)."""
    weight_scale: float
    stride: tuple[int, int]
    padding: tuple[int, int]


def program_digital(
    weights: Tensor, weight_bits: int, stride: tuple[int, int], padding: tuple[int, int]
) -> DigitalLayer:
    """Quantise weights of shape (out_channel, in_channel, kernel_h, kernel_w) as those on crossbars are."""
    integers, scale = quantize_weights(weights, weight_bits)
    return DigitalLayer(integers.to(torch.float64), scale, stride, padding)


def digital_sums(layer: DigitalLayer, inputs: Tensor) -> Tensor:
    """Weighted sums in real weight units, float64; `inputs` are integers of shape (frame, channel, height, width)."""
    frames = inputs.to(torch.float64)
    return functional.conv2d(frames, layer.integers, None, layer.stride, layer.padding) * layer.weight_scale

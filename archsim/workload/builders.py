"""Networks of the literature, built from their layer lists, without weights or with random ones.

Without weights (`seed=None`) only shapes are known and activity is an assumption of the workload. With
a seed, weights are drawn so that spikes neither die out nor saturate; they have learnt nothing.
All neurons are IF with threshold 1 and reset by subtraction, the last layer is a readout, pooling
sums spikes (its factor is in the random weights). Batch norm is folded into weights: `fold_batch_norm`.
A block of a transformer is in `attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Literal

import numpy as np

from archsim.workload.attention import spikformer_block
from archsim.workload.network import INPUT, Layer, Network, NeuronModel, Pool, Shape
from archsim.workload.neurons import integrate_and_fire, no_neurons, readout

_CIFAR, _IMAGENET = (3, 32, 32), (3, 224, 224)
_HALF = Pool((2, 2), (2, 2))
_GAIN = 2.4
"""Spread of random weights times sqrt(fan_in). Found by trial: with inputs at rate 0.3 and 4 timesteps every
layer of the networks here then spikes at rates between 0.1 and 0.5."""

Plan = tuple[int | Literal["pool"], ...]
_VGG11: Plan = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
_VGG16: Plan = (
    64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool",
)  # fmt: skip


def mlp(sizes: Sequence[int], seed: int | None = None) -> Network:
    """Fully connected layers `fc1`, `fc2`, ...; `sizes` are the inputs, the hidden layers and the outputs.

    Raises:
        ValueError: Fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes are {list(sizes)}; a network needs at least two, each at least 1")
    stack = _Stack((sizes[0], 1, 1), seed)
    _classify(stack, sizes[1:])
    return stack.network("mlp-" + "-".join(str(size) for size in sizes))


def vgg5(seed: int | None = None) -> Network:
    """Three convolutions and two fully connected layers on 32 x 32 images, 8.7 M weights.

    Source: SATA_Sim, `config/vgg5_cifar10.yaml`: conv 3-64 on 32 x 32, 64-128 and 128-128 on 16 x 16,
    fully connected 8192-1024 and 1024-10.
    """
    return _vgg("vgg5-cifar10", (64, "pool", 128, 128, "pool"), _CIFAR, (1024, 10), seed)


def vgg9(seed: int | None = None) -> Network:
    """Seven convolutions and two fully connected layers on 32 x 32 images, 5.9 M weights.

    Source: SpikeSim (Moitra et al., arXiv 2210.12899): the convolutions of `spikesim_vgg9_convolutions`,
    fully connected 4096-1024 and 1024-10.
    """
    return _vgg("vgg9-cifar10", _SPIKESIM_VGG9, _CIFAR, (1024, 10), seed)


def vgg11(images: Literal["cifar10", "imagenet"] = "cifar10", seed: int | None = None) -> Network:
    """VGG11: eight convolutions, see `vgg16` for what follows them and the source (its table 1, column A)."""
    return _vgg_of("vgg11", _VGG11, images, seed)


def vgg16(images: Literal["cifar10", "imagenet"] = "cifar10", seed: int | None = None) -> Network:
    """VGG16: thirteen convolutions (14.7 M weights) and fully connected layers.

    On ImageNet (224 x 224) these are 25088-4096, 4096-4096 and 4096-1000, 138.3 M weights in all; on
    CIFAR-10 (32 x 32) one of 512-10, as common in implementations for it. Max pooling of the original
    is sum pooling here.
    Source: Simonyan and Zisserman, arXiv 1409.1556, table 1, column D; for CIFAR-10 the repository
    kuangliu/pytorch-cifar, `models/vgg.py`.
    """
    return _vgg_of("vgg16", _VGG16, images, seed)


def resnet19(seed: int | None = None) -> Network:
    """ResNet-19 for CIFAR-10: a convolution, eight residual blocks, two fully connected layers, 12.7 M weights.

    Blocks 1-3 have 128 channels on 32 x 32, 4-6 have 256 on 16 x 16, 7-8 have 512 on 8 x 8; then the
    whole map is pooled, 512-256 and 256-10. What enters a block joins its second convolution before the
    neurons: the spikes as they are, or through 1 x 1 weights with stride 2 (`shortcut`) where the size changes.
    Source: Zheng et al. (tdBN), AAAI 2021, arXiv 2011.05280, ResNet-19.
    """
    stack = _Stack(_CIFAR, seed)
    before = stack.conv("conv1", 128)
    blocks = [(128, 1)] * 3 + [(256, 2)] + [(256, 1)] * 2 + [(512, 2), (512, 1)]
    for index, (channels, stride) in enumerate(blocks, start=1):
        pool = Pool((8, 8), (8, 8)) if index == len(blocks) else None
        before = _basic_block(stack, f"block{index}", before, channels, stride, pool)
    _classify(stack, (256, 10))
    return stack.network("resnet19-cifar10")


_SPIKESIM_VGG9: Plan = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool")


def spikesim_vgg9_convolutions(seed: int | None = None) -> Network:
    """The seven convolutions of the spiking VGG9 for CIFAR-10, 3 x 3 kernels with padding 1.

    Maps are 32, 32, 16, 16, 8, 8, 8 wide; 2 x 2 sum pooling follows the second, fourth and seventh.
    Source: SpikeSim (Moitra et al., arXiv 2210.12899), default layer table of its
    estimator: in_ch 3, 64, 64, 128, 128, 256, 256; out_ch 64, 64, 128, 128, 256, 256, 256.
    """
    return _vgg("vgg9-convolutions", _SPIKESIM_VGG9, _CIFAR, (), seed)


def fold_batch_norm(
    weights: np.ndarray,
    bias: np.ndarray | None,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray]:
    """Fold the batch norm behind weights into them: `gamma * (w x + b - mean) / sqrt(var + eps) + beta`.

    Args:
        weights: Shape (out_channel, ...), any float type, which is kept.
        bias: Shape (out_channel,), or None.
        gamma: Scale of the batch norm, shape (out_channel,), as are the next three.
        beta: Its shift.
        mean: Running mean of its input.
        var: Running variance of its input, at least 0.
        eps: What it adds to the variance; PyTorch's default.

    Returns:
        Weights and bias that make the same output without the batch norm.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 2.
    """
    factor = gamma / np.sqrt(var + eps)
    folded = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    shift = (0.0 if bias is None else bias) - mean
    return folded.astype(weights.dtype), (shift * factor + beta).astype(weights.dtype)


class _Stack:
    """Layers one behind the other; each reads the last one with neurons unless told otherwise."""

    def __init__(self, input_shape: Shape, seed: int | None) -> None:
        self._input_shape = input_shape
        self._random = None if seed is None else np.random.default_rng(seed)
        self._layers: dict[str, Layer] = {}
        self._last = INPUT

    def conv(
        self,
        name: str,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        pool: Pool | None = None,
        source: str | None = None,
        neuron: NeuronModel | None = None,
        adds: tuple[str, ...] = (),
    ) -> str:
        """Append a convolution with odd kernel and padding (kernel - 1) / 2; returns its name."""
        source = self._last if source is None else source
        in_shape, pad = self._shape(source), kernel // 2
        weights = self._draw((channels, in_shape[0], kernel, kernel), source)
        return self._append(
            Layer(
                name, "conv2d", source, in_shape, channels, (kernel, kernel), (stride, stride), (pad, pad),
                weights, None, neuron or integrate_and_fire(), pool, adds=adds,
            )
        )  # fmt: skip

    def linear(self, name: str, outputs: int, neuron: NeuronModel) -> str:
        """Append a fully connected layer over all that the last one emits; returns its name."""
        in_shape = (prod(self._shape(self._last)), 1, 1)
        weights = self._draw((outputs, in_shape[0], 1, 1), self._last)
        return self._append(
            Layer(name, "linear", self._last, in_shape, outputs, (1, 1), (1, 1), (0, 0), weights, None, neuron)
        )

    def network(self, name: str) -> Network:
        """What has been stacked."""
        return Network(name, self._input_shape, tuple(self._layers.values()))

    def _append(self, layer: Layer) -> str:
        self._layers[layer.name] = layer
        if layer.neuron.kind != "none":
            self._last = layer.name
        return layer.name

    def _shape(self, source: str) -> Shape:
        return self._input_shape if source == INPUT else self._layers[source].out_shape

    def _draw(self, shape: tuple[int, int, int, int], source: str) -> np.ndarray | None:
        """Normal weights of spread `_GAIN / sqrt(fan_in)`, less behind a pooling, whose sums are larger."""
        if self._random is None:
            return None
        pool = None if source == INPUT else self._layers[source].pool
        spread = _GAIN / sqrt(prod(shape[1:])) / (prod(pool.kernel) ** 0.5 if pool else 1.0)
        return self._random.normal(0.0, spread, shape).astype(np.float32)


def _vgg_of(name: str, plan: Plan, images: Literal["cifar10", "imagenet"], seed: int | None) -> Network:
    if images == "imagenet":
        return _vgg(f"{name}-imagenet", plan, _IMAGENET, (4096, 4096, 1000), seed)
    return _vgg(f"{name}-cifar10", plan, _CIFAR, (10,), seed)


def _vgg(name: str, plan: Plan, input_shape: Shape, classifier: Sequence[int], seed: int | None) -> Network:
    """3 x 3 convolutions `conv1`, ... by plan, then fully connected layers."""
    stack = _Stack(input_shape, seed)
    n_convs = 0
    for channels, following in zip(plan, (*plan[1:], None), strict=True):
        if channels != "pool":
            n_convs += 1
            stack.conv(f"conv{n_convs}", channels, pool=_HALF if following == "pool" else None)
    _classify(stack, classifier)
    return stack.network(name)


def _classify(stack: _Stack, sizes: Sequence[int]) -> None:
    """Fully connected layers `fc1`, ..., the last a readout."""
    for index, outputs in enumerate(sizes, start=1):
        stack.linear(f"fc{index}", outputs, readout() if index == len(sizes) else integrate_and_fire())


def _basic_block(stack: _Stack, name: str, before: str, channels: int, stride: int, pool: Pool | None) -> str:
    """Two 3 x 3 convolutions and what bypasses them; returns the layer whose spikes leave the block."""
    first = stack.conv(f"{name}.conv1", channels, stride=stride, source=before)
    bypass = before
    if stride != 1:
        bypass = stack.conv(f"{name}.shortcut", channels, 1, stride, source=before, neuron=no_neurons())
    return stack.conv(f"{name}.conv2", channels, source=first, pool=pool, adds=(bypass,))


BUILDERS: dict[str, Callable[[], Network]] = {
    "resnet19-cifar10": resnet19,
    "spikformer-block": spikformer_block,
    "vgg11-cifar10": vgg11,
    "vgg11-imagenet": lambda: vgg11("imagenet"),
    "vgg16-cifar10": vgg16,
    "vgg16-imagenet": lambda: vgg16("imagenet"),
    "vgg5-cifar10": vgg5,
    "vgg9-cifar10": vgg9,
    "vgg9-convolutions": spikesim_vgg9_convolutions,
}
"""Builder names as a workload file writes them; each without weights."""

"""Trains the two shipped networks `digits-cnn` and `digits-mlp` and writes their files.

Run `python workloads/train_digits.py` (needs scikit-learn). Pixels 0..16 enter directly at every
timestep; spikes are trained with a surrogate gradient, weights with 4 bits in the loop, and every
weighted sum with noise as large as a 4-bit converter makes it, so that the networks survive the
crossbars of the presets. The files hold the 4-bit weights. Data: scikit-learn's handwritten digits
(UCI, Alpaydin and Kaynak 1998), stratified 80/20 split, seed 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from archsim.analog.converters import SumHistogram, calibrated_range, quantize_columns
from archsim.analog.encoding import diff_offset, quantize_weights

FOLDER = Path(__file__).resolve().parent
SEED = 0
WEIGHT_BITS = 4
ADC_BITS = 4
N_CALIBRATION = 256
TIMESTEP_S = 1e-3
PIXEL_MAX = 16
SHIFTED_SHARE = 0.3
"""Share of the CNN's batches that are moved by up to one pixel."""


@dataclass(frozen=True)
class Recipe:
    """What to train and for how long."""

    name: str
    n_timesteps: int
    tau_s: float | None
    """Membrane time constant in seconds; None for IF neurons."""
    n_epochs: int
    widths: tuple[int, ...]
    """Channels of the hidden layers."""
    convolutional: bool
    rate_penalty: float
    """Loss per unit of mean spike rate: sparse rows keep the range of the converters small."""

    @property
    def decay(self) -> float:
        """Factor of the potential from one timestep to the next (exponential update)."""
        return math.exp(-TIMESTEP_S / self.tau_s) if self.tau_s else 1.0

    @property
    def input_gain(self) -> float:
        """Factor of the weighted input (exponential update, r = 1)."""
        return 1.0 - self.decay if self.tau_s else 1.0


RECIPES = (
    Recipe(
        "digits-mlp", n_timesteps=5, tau_s=2e-3, n_epochs=120, widths=(128, 64), convolutional=False, rate_penalty=0.5
    ),
    Recipe(
        "digits-cnn", n_timesteps=4, tau_s=None, n_epochs=240, widths=(12, 16, 32), convolutional=True, rate_penalty=0.3
    ),
)


class Spike(torch.autograd.Function):
    """Step function whose gradient is that of a fast sigmoid (Zenke and Ganguli 2018), slope 4."""

    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (distance,) = ctx.saved_tensors
        return gradient / (4.0 * distance.abs() + 1.0) ** 2


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """Value of `rounded`, gradient of `exact`."""
    return exact + (rounded - exact).detach()


class Weighted(nn.Module):
    """Convolution or matrix product with 4-bit weights, read bit by bit through a coarse converter."""

    def __init__(self, weight: Tensor, n_input_bits: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0]))
        self.is_conv = weight.ndim == 4
        self.n_input_bits = n_input_bits

    def product(self, values: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum of the inputs."""
        if self.is_conv:
            return functional.conv2d(values, weight, padding=1)
        return functional.linear(values, weight)

    def forward(self, values: Tensor, noisy: bool) -> Tensor:
        """Weighted sum plus bias; with the converter's rounding error when `noisy`."""
        integers, scale = quantize_weights(self.weight, WEIGHT_BITS)
        weight = straight_through(self.weight, integers.to(self.weight.dtype) * scale)
        exact = self.product(values, weight)
        if noisy:
            with torch.no_grad():
                converted = exact + scale * self.converter_error(values, integers.to(values.dtype))
                gain = (converted * exact).sum() / converted.square().sum().clamp(min=1e-9)
            exact = straight_through(exact, gain * converted)
        return exact + self.bias.view(-1, *[1] * (exact.ndim - 2))

    def converter_error(self, values: Tensor, integers: Tensor) -> Tensor:
        """Difference between converted and exact sums of the stored levels, over all input bits."""
        stored = integers + diff_offset(int(integers.min())) * (integers < 0)
        planes = [(values.to(torch.int32) >> bit) & 1 for bit in range(self.n_input_bits)]
        sums = [self.product(plane.to(values.dtype), stored) for plane in planes]
        histogram = SumHistogram(1, float(max(plane_sums.max() for plane_sums in sums)))
        for bit, plane_sums in enumerate(sums):
            histogram.add(plane_sums.reshape(-1, 1), torch.zeros(1, dtype=torch.int64), torch.tensor([4.0**bit]))
        adc = calibrated_range(histogram, ADC_BITS, from_zero=True)
        error = torch.zeros_like(sums[0])
        for bit, plane_sums in enumerate(sums):
            converted, _ = quantize_columns(plane_sums, adc.low, adc.high, ADC_BITS)
            error += 2**bit * (converted - plane_sums).to(error.dtype)
        return error


class DigitsNet(nn.Module):
    """The spiking network of a recipe; the readout accumulates and its potential is the output."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.convolutional:
            c1, c2, c3 = recipe.widths
            shapes = [(c1, 1, 3, 3), (c2, c1, 3, 3), (c3, c2, 3, 3), (10, 4 * c3)]
            input_bits = [5, 1, 3, 3]
            self.pools = [1, 2, 2]
        else:
            c1, c2 = recipe.widths
            shapes = [(c1, 64), (c2, c1), (10, c2)]
            input_bits = [5, 1, 1]
            self.pools = [1, 1]
        gain = 2.0 / recipe.input_gain
        self.layers = nn.ModuleList()
        for index, (shape, bits) in enumerate(zip(shapes, input_bits, strict=True)):
            fan_in = math.prod(shape[1:])
            weight = torch.randn(shape) * gain / math.sqrt(fan_in) / (PIXEL_MAX / 2 if index == 0 else 1.0)
            self.layers.append(Weighted(weight, bits))

    def forward(self, images: Tensor, noisy: bool = False) -> Tensor:
        """Potential of the readout after all timesteps, shape (sample, class)."""
        *hidden, readout = self.layers
        potentials: list[Tensor | float] = [0.0] * len(hidden)
        output = torch.zeros(())
        self.rate = torch.zeros(())
        first = hidden[0](images if hidden[0].is_conv else images.flatten(1), noisy)
        for _ in range(self.recipe.n_timesteps):
            values = first
            for index, layer in enumerate(hidden):
                weighted = first if index == 0 else layer(values if layer.is_conv else values.flatten(1), noisy)
                potential = self.recipe.decay * potentials[index] + self.recipe.input_gain * weighted
                values = Spike.apply(potential - 1.0)
                self.rate = self.rate + values.mean() / (self.recipe.n_timesteps * len(hidden))
                potentials[index] = potential - values.detach()
                if self.pools[index] > 1:
                    values = functional.avg_pool2d(values, self.pools[index], divisor_override=1)
            output = output + readout(values.flatten(1), noisy)
        return output


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, test images, training labels, test labels; images (sample, 1, 8, 8) as uint8 0..16."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.uint8)
    return train_test_split(images, labels.astype(np.uint8), test_size=0.2, stratify=labels, random_state=SEED)


def shifted(images: Tensor) -> Tensor:
    """The batch moved by up to one pixel in each direction, as augmentation."""
    padded = functional.pad(images, (1, 1, 1, 1))
    y, x = (int(value) for value in torch.randint(0, 3, (2,)))
    return padded[..., y : y + 8, x : x + 8]


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> DigitsNet:
    """Train one network; seeded, so the same call gives the same weights on one machine."""
    torch.manual_seed(SEED)
    network = DigitsNet(recipe)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    batch = 64
    n_batches = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=recipe.n_epochs * n_batches)
    for epoch in range(recipe.n_epochs):
        order = torch.randperm(len(images))
        noisy = epoch >= recipe.n_epochs // 10
        for index in range(n_batches):
            chosen = order[index * batch : (index + 1) * batch]
            moves = recipe.convolutional and float(torch.rand(())) < SHIFTED_SHARE
            outputs = network(shifted(images[chosen]) if moves else images[chosen], noisy)
            loss = functional.cross_entropy(outputs / recipe.n_timesteps, labels[chosen], label_smoothing=0.02)
            loss = loss + recipe.rate_penalty * network.rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            figures = f"loss {float(loss.detach()):.3f}, spike rate {float(network.rate.detach()):.3f}"
            print(f"{recipe.name}: epoch {epoch + 1} of {recipe.n_epochs}, {figures}", flush=True)
    return network


def accuracy(network: DigitsNet, images: Tensor, labels: Tensor, noisy: bool) -> float:
    """Fraction of images classified right."""
    with torch.no_grad():
        return float((network(images, noisy).argmax(1) == labels).float().mean())


def export(network: DigitsNet) -> nir.NIRGraph:
    """The network as NIR: 4-bit weights times their scale, IF or LIF neurons, sum pooling, bare readout."""
    recipe = network.recipe
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array([1, 8, 8] if recipe.convolutional else [64]))}
    shape: tuple[int, ...] = (1, 8, 8) if recipe.convolutional else (64,)
    for index, layer in enumerate(network.layers):
        number = index + 1
        integers, scale = quantize_weights(layer.weight, WEIGHT_BITS)
        weight = (integers.numpy() * scale).astype(np.float32)
        bias = layer.bias.detach().numpy().astype(np.float32)
        if not layer.is_conv:
            if len(shape) == 3:
                nodes["flatten"] = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
            nodes[f"fc{number}"] = nir.Affine(weight, bias)
            shape = (weight.shape[0],)
        else:
            nodes[f"conv{number}"] = nir.Conv2d(shape[1:], weight, 1, 1, 1, 1, bias)
            shape = (weight.shape[0], *shape[1:])
        if index == len(network.layers) - 1:
            break
        ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        if recipe.tau_s is None:
            nodes[f"if{number}"] = nir.IF(r=ones, v_threshold=ones, v_reset=zeros)
        else:
            nodes[f"lif{number}"] = nir.LIF(ones * np.float32(recipe.tau_s), ones, zeros, ones, v_reset=zeros)
        if network.pools[index] > 1:
            size = np.array([network.pools[index]] * 2)
            nodes[f"pool{number}"] = nir.SumPool2d(kernel_size=size, stride=size, padding=np.array([0, 0]))
            shape = (shape[0], shape[1] // size[0], shape[2] // size[1])
    nodes["output"] = nir.Output(np.array([10]))
    return nir.NIRGraph(nodes, list(pairwise(nodes)))


def write_data(train_images: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray) -> None:
    """Held-out images with labels, and training images for calibration; images flat, (sample, 64)."""
    np.savez_compressed(
        FOLDER / "digits.npz",
        images=test_images.reshape(-1, 64),
        labels=test_labels,
        calibration_images=train_images[:N_CALIBRATION].reshape(-1, 64),
    )


def main() -> None:
    """Train both networks and write every file beside this one."""
    torch.set_num_threads(1)
    train_images, test_images, train_labels, test_labels = split_digits()
    write_data(train_images, test_images, test_labels)
    images, held_out = (torch.as_tensor(part, dtype=torch.float32) for part in (train_images, test_images))
    labels, truth = (torch.as_tensor(part, dtype=torch.int64) for part in (train_labels, test_labels))
    for recipe in RECIPES:
        network = train(recipe, images, labels)
        exact, noisy = (accuracy(network, held_out, truth, noise) for noise in (False, True))
        print(f"{recipe.name}: {exact:.4f} exact, {noisy:.4f} with {ADC_BITS}-bit conversion")
        nir.write(FOLDER / f"{recipe.name}.nir", export(network))


if __name__ == "__main__":
    main()

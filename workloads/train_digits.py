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
from pathlib import Path

import nir
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from archsim.analog.converters import SumHistogram, calibrated_range, quantize_columns
from archsim.analog.encoding import diff_offset, quantize_weights
from archsim.training import Net, Neuron, Recipe, Weighted, accuracy, export_nir, train
from archsim.training.net import Cells
from archsim.training.surrogate import straight_through

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
class DigitsRecipe:
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
    DigitsRecipe(
        "digits-mlp", n_timesteps=5, tau_s=2e-3, n_epochs=120, widths=(128, 64), convolutional=False, rate_penalty=0.5
    ),
    DigitsRecipe(
        "digits-cnn", n_timesteps=4, tau_s=None, n_epochs=240, widths=(12, 16, 32), convolutional=True, rate_penalty=0.3
    ),
)


class ConvertedWeighted(Weighted):
    """Weights of 4 bits, read bit by bit through a coarse converter once training `is_noisy`."""

    def __init__(self, weight: Tensor, n_input_bits: int, pool: int) -> None:
        super().__init__(weight, bias=True, padding=1, pool=pool)
        self.n_input_bits = n_input_bits
        self.is_noisy = False

    def sums(self, values: Tensor, cells: Cells | None = None) -> Tensor:
        """Weighted sum plus bias; with the converter's rounding error when `is_noisy`."""
        integers, scale = quantize_weights(self.weight, WEIGHT_BITS)
        weight = straight_through(self.weight, integers.to(self.weight.dtype) * scale)
        exact = self.product(values, weight)
        if self.is_noisy:
            with torch.no_grad():
                converted = exact + scale * self.converter_error(values, integers.to(values.dtype))
                gain = (converted * exact).sum() / converted.square().sum().clamp(min=1e-9)
            exact = straight_through(exact, gain * converted)
        assert self.bias is not None
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


def build(recipe: DigitsRecipe) -> Net:
    """The spiking network of a recipe, untrained; the readout accumulates and its potential is the output."""
    if recipe.convolutional:
        c1, c2, c3 = recipe.widths
        shapes = [(c1, 1, 3, 3), (c2, c1, 3, 3), (c3, c2, 3, 3), (10, 4 * c3)]
        input_bits, pools = [5, 1, 3, 3], [1, 2, 2, 1]
    else:
        c1, c2 = recipe.widths
        shapes = [(c1, 64), (c2, c1), (10, c2)]
        input_bits, pools = [5, 1, 1], [1, 1, 1]
    gain = 2.0 / recipe.input_gain
    layers = []
    for index, (shape, bits, pool) in enumerate(zip(shapes, input_bits, pools, strict=True)):
        fan_in = math.prod(shape[1:])
        weight = torch.randn(shape) * gain / math.sqrt(fan_in) / (PIXEL_MAX / 2 if index == 0 else 1.0)
        layers.append(ConvertedWeighted(weight, bits, pool))
    return Net(layers, Neuron("spiking", recipe.decay, recipe.input_gain), recipe.n_timesteps)


def set_noisy(network: Net, is_noisy: bool) -> None:
    """Switch the converters of all layers on or off."""
    for layer in network.layers:
        layer.is_noisy = is_noisy


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


def train_recipe(recipe: DigitsRecipe, images: Tensor, labels: Tensor) -> Net:
    """Train one network; seeded, so the same call gives the same weights on one machine."""
    torch.manual_seed(SEED)
    network = build(recipe)
    plan = Recipe(
        recipe.n_epochs,
        batch_size=64,
        learning_rate=4e-3,
        schedule="one_cycle",
        label_smoothing=0.02,
        rate_penalty=recipe.rate_penalty,
    )

    def augment(batch: Tensor) -> Tensor:
        moves = recipe.convolutional and float(torch.rand(())) < SHIFTED_SHARE
        return shifted(batch) if moves else batch

    def after_epoch(done: int, loss: float) -> None:
        set_noisy(network, done >= recipe.n_epochs // 10)
        if done % 10 == 0:
            figures = f"loss {loss:.3f}, spike rate {float(network.rate.detach()):.3f}"
            print(f"{recipe.name}: epoch {done} of {recipe.n_epochs}, {figures}", flush=True)

    return train(network, images, labels, plan, augment=augment, after_epoch=after_epoch)


def with_stored_weights(network: Net) -> Net:
    """The network with weights of 4 bits times their scale, as its cells hold them."""
    with torch.no_grad():
        for layer in network.layers:
            integers, scale = quantize_weights(layer.weight, WEIGHT_BITS)
            layer.weight.copy_(torch.as_tensor(integers.numpy() * scale))
    return network


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
        network = train_recipe(recipe, images if recipe.convolutional else images.flatten(1), labels)
        figures = []
        for is_noisy in (False, True):
            set_noisy(network, is_noisy)
            figures.append(accuracy(network, held_out if recipe.convolutional else held_out.flatten(1), truth))
        print(f"{recipe.name}: {figures[0]:.4f} exact, {figures[1]:.4f} with {ADC_BITS}-bit conversion")
        shape = (1, 8, 8) if recipe.convolutional else (64,)
        nir.write(FOLDER / f"{recipe.name}.nir", export_nir(with_stored_weights(network), shape, TIMESTEP_S))


if __name__ == "__main__":
    main()

"""A small spiking CNN for handwritten digits: trained for a chip, exported, run on it.

Shared by the studies of whole networks on a chip: fewer timesteps, pruning, shared neuron units.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import torch
from study import Digits, Point, Study, digits
from torch import Tensor

import archsim
from archsim.analog.devices import ChipSeed
from archsim.analog.encoding import quantize_weights
from archsim.training import Net, Neuron, Recipe, Weighted, export_nir, kept, random_weight, train
from archsim.training.net import Cells
from archsim.training.surrogate import straight_through

CHIP = "spikesim-rram-64"
WIDTHS = (12, 16, 32)
"""Channels of the hidden layers, all with 3 x 3 kernels; the last two sum their spikes over 2 x 2 positions."""
DECAY = 0.9
WEIGHT_BITS = 4
NOISE_REL = 0.03
"""Spread of weights in training, relative to the largest; a stand-in for coarse converters. Source: assumption."""
PIXEL_MAX = 16
N_CALIBRATION = 256
N_EPOCHS = 20
RECIPE = {"chip": CHIP, "widths": WIDTHS, "decay": DECAY, "noise": NOISE_REL, "epochs": N_EPOCHS}
"""What points depend on."""
COSTS = {
    "latency_us": "latency [us]",
    "energy_nj": "energy [nJ]",
    "edp_pj_s": "EDP [pJ s]",
    "area_mm2": "area [mm2]",
    "crossbars": "crossbars",
}
"""Names of what an inference costs, as `figures` has them."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights of 4 bits, with noise that is drawn anew for every batch."""

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """Cells of a layer, with the gradient of its weights."""
        integers, scale = quantize_weights(layer.weight.detach(), WEIGHT_BITS)
        noise = torch.randn(layer.weight.shape, generator=chip.generator(name, "weight noise"))
        noise = noise * NOISE_REL * float(layer.weight.detach().abs().max())
        return Cells(straight_through(layer.weight, integers.to(layer.weight.dtype) * scale + noise))


def pixels() -> Digits:
    """The digits as the integers 0..16 that enter the chip."""
    data = digits()
    return Digits(data.images * PIXEL_MAX, data.labels, data.test_images * PIXEL_MAX, data.test_labels)


def cnn(n_timesteps: int, seed: int, shared_channels: int = 1) -> Net:
    """The untrained network: three convolutions of LIF neurons and a readout."""
    torch.manual_seed(seed)
    channels = (1, *WIDTHS)
    layers = [
        Weighted(random_weight((after, before, 3, 3), 2.0), bias=True, padding=1, pool=1 if before == 1 else 2)
        for before, after in pairwise(channels)
    ]
    with torch.no_grad():
        layers[0].weight.div_(PIXEL_MAX / 2)
    layers.append(Weighted(random_weight((10, WIDTHS[-1] * 4), 1.0), bias=True))
    return Net(layers, Neuron(decay=DECAY, shared_channels=shared_channels), n_timesteps)


def fitted(this: Study, data: Digits, net: Net, n_epochs: int = N_EPOCHS, masks: Sequence[Tensor] | None = None) -> Net:
    """Train a network in place, within its masks if it has some."""
    recipe = Recipe(this.epochs(n_epochs), 64, learning_rate=5e-3, schedule="one_cycle", rate_penalty=0.3)

    def masked(held: Net) -> None:
        if masks is not None:
            kept(held, masks)

    return train(net, data.images, data.labels, recipe, StoredWeights(), after_step=masked)


def on_chip(
    this: Study,
    data: Digits,
    net: Net,
    n_timesteps: int,
    changes: Mapping[str, object] | None = None,
    samples: int = 1,
) -> archsim.Result:
    """Export a network and simulate some of its inferences; accuracy is that of all held-out samples."""
    with tempfile.TemporaryDirectory() as folder:
        network, inputs = Path(folder) / "digits-cnn.nir", Path(folder) / "digits.npz"
        nir.write(network, export_nir(net, (1, 8, 8)))
        np.savez(
            inputs,
            images=data.test_images.numpy().astype(np.uint8),
            labels=data.test_labels.numpy(),
            calibration_images=data.images[: 32 if this.small else N_CALIBRATION].numpy().astype(np.uint8),
        )
        settings = {"reset": "subtract", "timestep_s": 1e-3}
        workload = archsim.load_workload(network, inputs, n_timesteps, settings, samples=40 if this.small else None)
        return archsim.simulate(archsim.load_hardware(CHIP, dict(changes or {})), workload, samples)


def figures(result: archsim.Result) -> Point:
    """Accuracy and costs of an inference; accuracies in percent."""
    summary = result.summary
    return {
        "ideal": 100 * summary["accuracy_ideal"],
        "chip": 100 * summary["accuracy_calibrated"],
        "latency_us": summary["latency_ps"] * 1e-6,
        "energy_nj": summary["energy_per_sample_pj"] * 1e-3,
        "edp_pj_s": summary["edp_pj_s"],
        "area_mm2": summary["area_um2"] * 1e-6,
        "crossbars": summary["n_crossbars"],
    }

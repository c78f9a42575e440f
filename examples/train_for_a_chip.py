"""Train a spiking network for the crossbars of a chip, and write it as NIR."""

import tempfile
from pathlib import Path

import nir
import torch
from sklearn.datasets import load_digits

import archsim
from archsim.training import Net, Neuron, Recipe, Technology, Weighted, accuracy, export_nir, random_weight, train

hardware = archsim.load_hardware(
    "spikesim-rram-64",
    {
        "tile.pe.crossbar.device.preset": "rram-20k-200k",
        "tile.pe.crossbar.device.d2d_sigma_rel": 0.1,
        "tile.pe.crossbar.signed": "differential_arrays",
        "tile.pe.crossbar.r_driver_ohm": 5000,
    },
)
technology = Technology.of(hardware)

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
images, labels = torch.as_tensor(images / 16, dtype=torch.float32)[order], torch.as_tensor(labels)[order]
test = images[1200:], labels[1200:]

torch.manual_seed(0)
layers = [Weighted(random_weight((64, 64))), Weighted(random_weight((10, 64)))]
net = Net(layers, Neuron(decay=0.9), n_timesteps=4)
recipe = Recipe(n_epochs=10, learning_rate=1e-2, logit_gain=4.0)

train(net, images[:1200], labels[:1200], recipe)
before = accuracy(net, *test), accuracy(net, *test, technology)
train(net, images[:1200], labels[:1200], recipe, technology)
after = accuracy(net, *test, technology)
print(f"ideal {before[0]:.0%}, on the chip {before[1]:.0%}, trained on it {after:.0%}")

with tempfile.TemporaryDirectory() as folder:
    nir.write(Path(folder) / "net.nir", export_nir(net, (64,)))
    workload = archsim.load_workload(
        Path(folder) / "net.nir", "poisson:0.3", timesteps=4, settings={"timestep_s": 1e-3, "reset": "subtract"}
    )
print(f"{archsim.map_network(hardware, workload).n_crossbars} crossbars")

"""Technology-aware training: `python reports/p2_technology_aware.py [--small]` writes reports/p2-technology-aware/.

Source and neuron resistance, and variation from chip to chip, degrade networks on large crossbars; training with the
crossbar in the loop gives the accuracy back. After Chakraborty, Roy and Roy, IEEE TETCI 2(5), 2018 (arXiv 1711.08889):
the effects are reproduced qualitatively, on other data. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import torch
from study import GATES, Digits, Figures, Study, digits, study, table

from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed
from archsim.hardware.devices import PRESETS
from archsim.training import Net, Neuron, Recipe, Technology, Weighted, accuracy, random_weight, train
from archsim.training.fitting import Realisable
from archsim.training.net import Cells

Gradient = Literal["full", "straight_through"]

DEVICE = PRESETS["rram-20k-200k"]
LARGEST_WEIGHT = 1.0
N_CHIPS = 10
RESISTANCES = ((300, 0), (1000, 0), (0, 300), (300, 300), (1000, 1000))
SIGMAS = (0.1, 0.3, 0.5)
CLASSIFIER = 2
"""Number of the layer of the CNN that is 4096 x 512."""
CLASSIFIER_OHM = (100, 50)


def technology(source_ohm: float, neuron_ohm: float, **changes: object) -> Technology:
    """Crossbars as large as the layer, with a resistance at every row and every column."""
    return replace(Technology(DEVICE, Wires(source_ohm, 0.0, 0.0, neuron_ohm)), **changes)


@dataclass(frozen=True)
class OneLayer:
    """A technology for one layer; the others are digital."""

    technology: Technology
    number: int

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """Cells of a layer on one chip."""
        return self.technology.realise(layer, name, chip) if name == f"layer{self.number}" else Cells(layer.weight)


def sigmoid_net(*sizes: int) -> Net:
    """A fully connected network of sigmoid neurons without biases; weights are kept within the largest."""
    layers = [Weighted(random_weight((outputs, inputs), 1.0)) for inputs, outputs in pairwise(sizes)]
    return limited(Net(layers, Neuron("sigmoid")))


def cnn() -> Net:
    """Two convolutions on 32 x 32 images, then a classifier of 4096 x 512 x 10; ReLU behind batch norm."""
    layers = [
        Weighted(random_weight((16, 1, 3, 3)), padding=1, pool=2),
        Weighted(random_weight((64, 16, 3, 3)), padding=1, pool=2),
        Weighted(random_weight((512, 4096))),
        Weighted(random_weight((10, 512))),
    ]
    return limited(Net(layers, Neuron("relu"), norm="batch"))


def limited(net: Net) -> Net:
    """The network with weights limited to the full scale of its cells."""
    for layer in net.weighted_layers():
        layer.limit = layer.full_scale = LARGEST_WEIGHT
    return net


@dataclass(frozen=True)
class Setup:
    """A network, its data and how it is trained."""

    study: Study
    data: Digits
    build: Callable[[], Net]
    n_epochs: int

    def trained(self, seed: int, on: Realisable | None, n_epochs: int | None = None, start: Net | None = None) -> Net:
        """Train a network, from scratch or from what another one has learnt."""
        torch.manual_seed(seed)
        net = self.build()
        if start is not None:
            net.load_state_dict(start.state_dict())
        recipe = Recipe(self.study.epochs(n_epochs or self.n_epochs), learning_rate=3e-3, logit_gain=4.0)
        recipe = replace(recipe, keeps_rest=True)
        return train(net, self.data.images, self.data.labels, recipe, on, seed=seed)

    def percent(self, net: Net, on: Realisable | None = None, n_chips: int = 1) -> float:
        """Accuracy on the test images, mean over chips."""
        images, labels = self.data.test_images, self.data.test_labels
        return 100 * float(np.mean([accuracy(net, images, labels, on, chip) for chip in range(n_chips)]))


def resistances(setup: Setup, name: str, ohms: tuple[tuple[int, int], ...]) -> dict[tuple[int, int], Figures]:
    """Accuracy ideal, degraded, and after training with the product model, by source and neuron resistance."""

    def compute(seed: int, source: int, neuron: int) -> dict[str, float]:
        exact = technology(source, neuron)
        fast = replace(exact, circuit="product")
        plain = setup.trained(seed, None)
        aware = setup.trained(seed, fast)
        return {
            "ideal": setup.percent(plain),
            "degraded": setup.percent(plain, exact),
            "predicted": setup.percent(plain, fast),
            "aware": setup.percent(aware, exact),
        }

    return {
        (source, neuron): setup.study.over_seeds(
            f"{name}_{source}_{neuron}",
            {"ohm": [source, neuron], "epochs": setup.n_epochs},
            lambda seed, source=source, neuron=neuron: compute(seed, source, neuron),
        )
        for source, neuron in ohms
    }


def gradients(setup: Setup, name: str, ohm: int, circuits: Sequence[Literal["exact", "product"]]) -> Figures:
    """Full gradient beside straight-through, product model beside exact circuit, both resistances alike."""

    def compute(seed: int) -> dict[str, float]:
        exact = technology(ohm, ohm)
        plain = setup.trained(seed, None)
        found = {"ideal weights": setup.percent(plain, exact)}
        for circuit, gradient in product(circuits, get_args(Gradient)):
            on = replace(exact, circuit=circuit, gradient=gradient)
            found[f"{circuit}, {gradient}"] = setup.percent(setup.trained(seed, on), exact)
        return found

    settings = {"epochs": setup.n_epochs, "ohm": ohm, "circuits": list(circuits)}
    return setup.study.over_seeds(f"gradients_{name}", settings, compute)


def wired(setup: Setup) -> Figures:
    """Fine-tuning on the exact circuit of 32 x 32 crossbars with wires."""

    def compute(seed: int) -> dict[str, float]:
        on = Technology(DEVICE, Wires(1000.0, 5.0, 10.0, 1000.0), rows=32, cols=32)
        plain = setup.trained(seed, None)
        tuned = setup.trained(seed, on, n_epochs=8, start=plain)
        return {"ideal": setup.percent(plain), "degraded": setup.percent(plain, on), "aware": setup.percent(tuned, on)}

    return setup.study.over_seeds("wired", {"epochs": setup.n_epochs}, compute)


def variation(setup: Setup) -> dict[float, Figures]:
    """Chips with spread devices at 300 and 300 ohm: trained without spread, then fine-tuned with a spread of 0.1."""

    def on(sigma: float) -> Technology:
        return technology(300, 300, circuit="product", device=replace(DEVICE, d2d_sigma_rel=sigma))

    def compute(seed: int) -> dict[str, float]:
        plain, aware = setup.trained(seed, None), setup.trained(seed, on(0.0))
        tuned = setup.trained(seed, on(0.1), n_epochs=15, start=aware)
        nets = {"degraded": plain, "aware": aware, "tuned": tuned}
        return {
            f"{name} {sigma}": setup.percent(net, on(sigma), N_CHIPS) for sigma in SIGMAS for name, net in nets.items()
        }

    found = setup.study.over_seeds("variation", {"epochs": setup.n_epochs, "chips": N_CHIPS}, compute)
    return {
        sigma: Figures({name: found.values[f"{name} {sigma}"] for name in ("degraded", "aware", "tuned")})
        for sigma in SIGMAS
    }


def classifier(setup: Setup) -> Figures:
    """The 4096 x 512 layer of the CNN on one pair of crossbars, degraded and fine-tuned."""

    def compute(seed: int) -> dict[str, float]:
        exact = technology(*CLASSIFIER_OHM)
        plain = setup.trained(seed, None)
        tuned = setup.trained(seed, OneLayer(replace(exact, circuit="product"), CLASSIFIER), n_epochs=4, start=plain)
        on = OneLayer(exact, CLASSIFIER)
        return {"ideal": setup.percent(plain), "degraded": setup.percent(plain, on), "aware": setup.percent(tuned, on)}

    return setup.study.over_seeds("classifier", {"epochs": setup.n_epochs, "ohm": CLASSIFIER_OHM}, compute)


def main() -> int:
    """Compute what is missing and write table and figure."""
    this = study("p2-technology-aware", __doc__)
    flat, large = digits().flat(), digits().enlarged(28).flat()
    setups = {size: Setup(this, flat, lambda size=size: sigmoid_net(64, size, 10), n_epochs=80) for size in (128, 512)}
    deep = Setup(this, large, lambda: sigmoid_net(784, 500, 10), n_epochs=25)
    small = {size: resistances(setup, f"64x{size}", ((1000, 0), (3000, 0))) for size, setup in setups.items()}
    ways = {
        "784-500-10, 1000 / 1000 Ohm": gradients(deep, "784x500", 1000, ["product"]),
        "64-128-10, 3000 / 3000 Ohm": gradients(setups[128], "64x128", 3000, ["exact", "product"]),
    }
    wires = wired(setups[128])
    chips = variation(deep)
    main_table = resistances(deep, "784x500", RESISTANCES)
    cnn_figures = classifier(Setup(this, digits().enlarged(32), cnn, n_epochs=6))
    draw(this, main_table)
    return this.write(report(this, small, main_table, ways, wires, chips, cnn_figures))


def report(
    this: Study,
    small: dict[int, dict[tuple[int, int], Figures]],
    main_table: dict[tuple[int, int], Figures],
    ways: dict[str, Figures],
    wires: Figures,
    chips: dict[float, Figures],
    cnn_figures: Figures,
) -> list[str]:
    """Lines of the report."""
    lines = [
        "# Technology-aware training",
        "",
        "Command: `python reports/p2_technology_aware.py`. Networks of sigmoid neurons without biases on",
        "scikit-learn's digits (784 inputs: enlarged); cells of 20 and 200 kOhm, one pair of crossbars per layer;",
        f"accuracy in percent, mean ± standard deviation over {len(this.seeds)} seeds. It reproduces the effects of",
        "Chakraborty, Roy and Roy (TETCI 2018) qualitatively: data, values of resistance and neurons differ from the",
        "paper's. Degraded: trained for ideal weights, run on the exact circuit. Aware: trained with the product",
        "model, run on the exact circuit.",
        "",
        "## Source and neuron resistance",
        "",
        *table(
            ["network", "source / neuron [Ohm]", "ideal", "degraded", "degraded, as the product model has it", "aware"],
            [
                [
                    name,
                    f"{ohms[0]} / {ohms[1]}",
                    *(part.text(key) for key in ("ideal", "degraded", "predicted", "aware")),
                ]
                for name, found in (
                    ("784-500-10", main_table),
                    ("64-512-10", small[512]),
                    ("64-128-10", small[128]),
                )
                for ohms, part in found.items()
            ],
        ),
        "",
        "![Accuracy ideal, degraded and recovered](accuracy.svg)",
        "",
        "## Gradient and model (all run on the exact circuit)",
        "",
        *table(
            ["network", "trained with", "accuracy"],
            [[name, way, found.text(way)] for name, found in ways.items() for way in found.values],
        ),
        "",
        "## Wires (64-128-10, 32 x 32 crossbars, driver and sense 1 kOhm, wires 5 and 10 Ohm per cell)",
        "",
        *table(
            ["ideal", "degraded", "fine-tuned 8 epochs on the exact circuit"],
            [[wires.text(key) for key in ("ideal", "degraded", "aware")]],
        ),
        "",
        f"## Chips (784-500-10, 300 / 300 Ohm, product model, {N_CHIPS} chips per seed)",
        "",
        *table(
            ["spread of devices", "degraded", "aware, trained without spread", "fine-tuned with a spread of 0.1"],
            [[f"{sigma}", *(part.text(key) for key in part.values)] for sigma, part in chips.items()],
        ),
        "",
        "## A CNN whose 4096 x 512 classifier is on one pair of crossbars",
        "",
        f"{CLASSIFIER_OHM[0]} / {CLASSIFIER_OHM[1]} Ohm; ReLU behind batch norm, the other layers digital.",
        "",
        *table(
            ["ideal", "degraded", "fine-tuned 4 epochs"],
            [[cnn_figures.text(key) for key in ("ideal", "degraded", "aware")]],
        ),
        "",
        "## Criteria",
        "",
        *GATES,
    ]
    return lines + criteria(this, small, main_table, ways, chips, cnn_figures)


def criteria(
    this: Study,
    small: dict[int, dict[tuple[int, int], Figures]],
    main_table: dict[tuple[int, int], Figures],
    ways: dict[str, Figures],
    chips: dict[float, Figures],
    cnn_figures: Figures,
) -> list[str]:
    """Rows of the table of pass criteria."""
    rows = []
    for ohm, below, above in ((1000, 70, 92), (3000, 30, 85)):
        degraded, aware = (small[512][ohm, 0].mean(key) for key in ("degraded", "aware"))
        text = f"64-512-10, {ohm} Ohm: degraded below {below}, aware above {above}"
        rows.append(this.gate(text, f"{degraded:.1f}, {aware:.1f}", degraded < below and aware > above))
    ideal, degraded, aware = (main_table[300, 300].mean(key) for key in ("ideal", "degraded", "aware"))
    text = "784-500-10, 300 / 300 Ohm: degraded below 85, aware within 2 points of ideal"
    rows.append(this.gate(text, f"{degraded:.1f}, {aware - ideal:+.1f}", degraded < 85 and ideal - aware < 2))
    lost = {size: found[1000, 0].mean("ideal") - found[1000, 0].mean("degraded") for size, found in small.items()}
    text = "larger crossbars lose more: 512 above 128 hidden neurons at 1000 Ohm"
    rows.append(this.gate(text, f"{lost[512]:.1f} and {lost[128]:.1f} points", lost[512] > lost[128]))
    kept, won = (chips[sigma].mean("tuned") - chips[sigma].mean("aware") for sigma in (0.1, 0.5))
    text = "fine-tuning with spread costs below 0.5 points at 0.1 and gains above 1.5 at 0.5"
    rows.append(this.gate(text, f"{kept:+.1f}, {won:+.1f}", kept > -0.5 and won > 1.5))
    found = next(iter(ways.values()))
    better = found.mean("product, full") - found.mean("product, straight_through")
    rows.append(this.gate("784-500-10: full gradient above straight-through", f"{better:+.1f} points", better > 0))
    ideal, degraded, aware = (cnn_figures.mean(key) for key in ("ideal", "degraded", "aware"))
    text = "4096 x 512 classifier: fine-tuning gains above 10 points and comes within 2 of ideal"
    rows.append(
        this.gate(text, f"{aware - degraded:+.1f}, {aware - ideal:+.1f}", aware > degraded + 10 and ideal - aware < 2)
    )
    return rows


def draw(this: Study, found: dict[tuple[int, int], Figures]) -> None:
    """Bars of the 784-500-10 network."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for number, key in enumerate(("ideal", "degraded", "aware")):
        places = np.arange(len(found)) + 0.27 * (number - 1)
        means, spreads = zip(*((part.mean(key), part.values[key].std()) for part in found.values()), strict=True)
        axes.bar(places, means, 0.25, yerr=spreads, capsize=2, label=key)
    axes.set_xticks(range(len(found)), [f"{source} / {neuron}" for source, neuron in found])
    axes.set(xlabel="source / neuron resistance [Ohm]", ylabel="accuracy [%]", ylim=(0, 100), title="784-500-10")
    axes.legend(loc="lower left")
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "accuracy.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

"""Pruned networks on non-ideal crossbars: `python reports/p1_pruning.py [--small]` writes reports/p1-pruning/.

Structured sparsity saves crossbars and makes what is left more sensitive; weight-constrained training and column
rearrangement are the published repairs. After Bhattacharjee et al., DATE 2022 (arXiv 2201.05229), reproduced
qualitatively on other data, with what of it does not reproduce. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from study import GATES, Digits, Figures, Point, Study, digits, study, table

from archsim.analog.circuit import Wires
from archsim.analog.devices import ChipSeed
from archsim.hardware.devices import PRESETS
from archsim.training import (
    Net,
    Neuron,
    Recipe,
    Squeezed,
    Technology,
    Weighted,
    accuracy,
    arrangement,
    footprint,
    kept,
    prune,
    random_weight,
    sweep_cut_offs,
    train,
    with_gains,
)
from archsim.training.fitting import realised
from archsim.training.pruning import Kind
from archsim.workload.builders import vgg11, vgg16
from archsim.workload.network import Network

SIZE = 32
HIDDEN = 128
WIRES = Wires(1000.0, 5.0, 10.0, 1000.0)
DEVICE = PRESETS["rram-20k-200k"]
WIDE_RANGE = replace(DEVICE, r_off_ohm=2e6)
"""On / off ratio of 100."""
LOW_CURRENT = replace(DEVICE, r_on_ohm=50e3, r_off_ohm=500e3)
SIGMAS = (0.1, 0.2, 0.3)
N_CHIPS = 3
PRUNINGS: dict[str, tuple[Kind, float]] = {
    "unpruned": ("none", 0.0),
    "C/F 0.5": ("filters", 0.5),
    "C/F 0.75": ("filters", 0.75),
    "C/F 0.875": ("filters", 0.875),
    "XCS 0.8": ("columns", 0.8),
    "XRS 0.8": ("rows", 0.8),
}
QUANTILES = (1.0, 0.9, 0.8, 0.6)
N_CONSTRAINED = 10
"""Seeds of weight-constrained training: what it gains differs much from network to network."""
SCALES = ("keep", "remap")
MATRIX = (64, 256)
ORDERS = ("none", "ascending", "descending", "interleave")


def technology(sigma: float = 0.0, **changes: object) -> Technology:
    """Crossbars of 32 x 32 with the parasitics of the group that published the claim."""
    device = replace(DEVICE, d2d_sigma_rel=sigma)
    return replace(Technology(device, WIRES, rows=SIZE, cols=SIZE), **changes)


def trained(this: Study, data: Digits, kind: Kind, sparsity: float, seed: int) -> Net:
    """A network that is trained, pruned by magnitude, and trained again with its masks."""
    torch.manual_seed(seed)
    sizes = (64, HIDDEN, HIDDEN, HIDDEN, 10)
    net = Net(
        [Weighted(random_weight((after, before))) for before, after in pairwise(sizes)], Neuron("relu"), norm="batch"
    )
    train(net, data.images, data.labels, Recipe(this.epochs(10), keeps_rest=True))
    masks = prune(net, kind, sparsity, SIZE)
    recipe = Recipe(this.epochs(40), keeps_rest=True)
    return train(kept(net, masks), data.images, data.labels, recipe, after_step=lambda held: kept(held, masks))


def tuned(this: Study, data: Digits, net: Net, seed: int) -> Net:
    """A few more epochs at a low rate; zeros stay zeros. Equal seeds see the same batches, whatever the cut-off."""
    torch.manual_seed(seed)
    masks = [(layer.weight.detach() != 0).float() for layer in net.weighted_layers()]
    recipe = Recipe(this.epochs(8), learning_rate=5e-4, keeps_rest=True)
    return train(net, data.images, data.labels, recipe, after_step=lambda held: kept(held, masks))


def on_chips(net: Net, on: Squeezed, data: Digits, has_gains: bool) -> float:
    """Accuracy in percent, mean over chips, perhaps with a gain per layer."""
    found = []
    for chip in range(N_CHIPS if on.technology.device.draws_chips else 1):
        with torch.no_grad():
            cells = realised(net, on, ChipSeed(1, chip))
            cells = with_gains(net, cells, data.images[:256]) if has_gains else cells
            right = net(data.test_images, cells).argmax(1) == data.test_labels
        found.append(100 * float(right.float().mean()))
    return float(np.mean(found))


def sparsities(this: Study, data: Digits) -> dict[str, Figures]:
    """Accuracy of pruned networks with wires and spread of devices, NF, crossbars."""

    def compute(kind: Kind, sparsity: float, seed: int) -> Point:
        net = trained(this, data, kind, sparsity, seed)
        weights = [layer.weight.detach() for layer in net.weighted_layers()]
        size, full = (footprint(weights, way, SIZE) for way in (kind, "none"))
        found = {
            "ideal": 100 * accuracy(net, data.test_images, data.test_labels),
            "nf": 100 * Squeezed(technology(), kind).nf(net, ChipSeed()),
            "compression": full.n_crossbars / size.n_crossbars,
            "table bits": size.table_bits,
        }
        for sigma in SIGMAS:
            found[f"{sigma}"] = on_chips(net, Squeezed(technology(sigma), kind), data, has_gains=True)
        for order in ORDERS[1:]:
            arranged = Squeezed(technology(0.2), kind, arrangement("mean", order, "matrix", SIZE))
            found[order] = on_chips(net, arranged, data, has_gains=True)
        return found

    settings = {"hidden": HIDDEN, "size": SIZE, "chips": N_CHIPS}
    return {
        name: this.over_seeds(
            f"sparsity_{kind}_{sparsity}",
            settings,
            lambda seed, kind=kind, sparsity=sparsity: compute(kind, sparsity, seed),
        )
        for name, (kind, sparsity) in PRUNINGS.items()
    }


def constraints(this: Study, data: Digits) -> dict[str, Figures]:
    """Weight-constrained training at several cut-offs, with both mappings."""

    def compute(kind: Kind, sparsity: float, seed: int) -> Point:
        net = trained(this, data, kind, sparsity, seed)
        mild = Squeezed(technology(device=LOW_CURRENT), kind)

        def judge(held: Net) -> Point:
            return {
                "ideal": 100 * accuracy(held, data.test_images, data.test_labels),
                "nf": 100 * mild.nf(held, ChipSeed()),
                "50k": on_chips(held, mild, data, False),
                "20k, 100": on_chips(held, Squeezed(technology(device=WIDE_RANGE), kind), data, False),
                "spread": on_chips(held, Squeezed(technology(0.2), kind), data, True),
            }

        found = sweep_cut_offs(net, QUANTILES, lambda held: tuned(this, data, held, 1000 + seed), judge)
        return {
            f"{quantile} {scale} {key}": value
            for (quantile, scale), values in found.items()
            for key, value in values.items()
        }

    return {
        name: this.over_seeds(
            f"constraint_{PRUNINGS[name][0]}",
            {"quantiles": QUANTILES, "tuning": "same batches"},
            lambda seed, name=name: compute(*PRUNINGS[name], seed),
            N_CONSTRAINED,
        )
        for name in (("unpruned",) if this.small else ("unpruned", "C/F 0.75", "XRS 0.8"))
    }


def rearranged(this: Study) -> Figures:
    """Relative error of products of random matrices whose columns differ in size, by order of the columns."""

    def compute(seed: int) -> Point:
        generator = torch.Generator().manual_seed(seed)
        columns = torch.exp(torch.randn(MATRIX[1], generator=generator))
        matrix = torch.randn(MATRIX, generator=generator) * columns
        spikes = (torch.rand(400, MATRIX[0], generator=generator) < 0.3).float()
        layer = Weighted(matrix.T.contiguous())
        wires = Wires(100.0, 10.0, 10.0, 100.0)
        found = {}
        for order in ORDERS:
            way = None if order == "none" else arrangement("mean", order, "matrix", 64)
            on = Squeezed(Technology(DEVICE, wires, rows=64, cols=64), "none", way)
            with torch.no_grad():
                cells = on.realise(layer, "", ChipSeed())
                gained = with_gains(Net([layer], Neuron("relu")), [cells], spikes)[0]
                for name, held in (("raw", cells), ("gain", gained)):
                    error = layer.product(spikes, held.weight) - layer.product(spikes, layer.weight)
                    found[f"{order} {name}"] = 100 * error.norm() / layer.product(spikes, layer.weight).norm()
        return {key: float(value) for key, value in found.items()}

    return this.over_seeds("rearranged", {"matrix": MATRIX}, compute)


def shapes(this: Study) -> dict[str, Point]:
    """Crossbars and index tables of VGG11 and VGG16 with random weights."""
    found = {}
    for name, build in (("VGG11", vgg11), ("VGG16", vgg16)):
        for way, (kind, sparsity) in PRUNINGS.items():
            for size in (32, 64):
                label = f"{name}_{kind}_{sparsity}_{size}"
                if this.small and (name == "VGG16" or size == 32):
                    continue
                found[f"{name} | {way} | {size}"] = this.point(
                    f"shape_{label}",
                    {"seed": 0},
                    lambda build=build, kind=kind, sparsity=sparsity, size=size: _shape(
                        build(seed=0), kind, sparsity, size
                    ),
                )
    return found


def _shape(network: Network, kind: Kind, sparsity: float, size: int) -> Point:
    """What a network's layers take after pruning; filters go in proportion, the others by magnitude."""
    weights = [torch.as_tensor(layer.weights) for layer in network.layers]
    layers = [
        Weighted(weight.flatten(1) if layer.kind == "linear" else weight)
        for weight, layer in zip(weights, network.layers, strict=True)
    ]
    net = Net(layers, Neuron("relu"))
    kept(net, prune(net, kind, sparsity, size))
    held = [layer.weight.detach() for layer in net.weighted_layers()]
    squeezed, full = footprint(held, kind, size), footprint(held, "none", size)
    return {
        "crossbars": squeezed.n_crossbars,
        "compression": full.n_crossbars / squeezed.n_crossbars,
        "table kib": squeezed.table_bits / 8192,
    }


def main() -> int:
    """Compute what is missing and write table and figure."""
    this, data = study("p1-pruning", __doc__), digits().flat()
    found, order, sizes = sparsities(this, data), rearranged(this), shapes(this)
    limits = constraints(this, data)
    draw(this, found)
    lines = [*introduction(this), *sparsity_tables(found), *size_table(sizes), *constraint_table(this, limits)]
    lines += order_table(found, order)
    return this.write([*lines, *criteria(this, found, limits, order)])


def introduction(this: Study) -> list[str]:
    """What was done."""
    return [
        "# Pruned networks on non-ideal crossbars",
        "",
        "Command: `python reports/p1_pruning.py`. ReLU networks 64-128-128-128-10 with batch norm on",
        "scikit-learn's digits, trained, pruned by magnitude, trained again; crossbars of 32 x 32 (driver and sense",
        "1 kOhm, wires 5 and 10 Ohm per cell, cells of 20 / 200 kOhm), solved exactly; accuracy in percent, mean ±",
        "standard deviation over",
        f"{len(this.seeds)} seeds. Qualitatively after Bhattacharjee et al. (DATE 2022), whose networks and data are",
        "larger and whose cut-offs and orders are not known.",
        "",
    ]


def sparsity_tables(found: dict[str, Figures]) -> list[str]:
    """Accuracy by sparsity."""
    rows = [
        [
            name,
            f"{part.mean('compression'):.2f}x",
            f"{part.mean('table bits') / 8192:.2f}",
            part.text("nf"),
            part.text("ideal"),
            *(part.text(f"{sigma}") for sigma in SIGMAS),
        ]
        for name, part in found.items()
    ]
    header = ["pruning", "compression", "index tables [KiB]", "NF [%]", "ideal", *(f"spread {s}" for s in SIGMAS)]
    return [
        "## Sparsity makes networks sensitive",
        "",
        f"With a gain per layer; spread is that of the devices, {N_CHIPS} chips per seed.",
        "",
        *table(header, rows),
        "",
        "![Loss over the spread of devices](loss.svg)",
        "",
    ]


def size_table(found: dict[str, Point]) -> list[str]:
    """Compression of published shapes."""
    rows = [
        [*label.split(" | "), f"{part['crossbars']:.0f}", f"{part['compression']:.2f}x", f"{part['table kib']:.1f}"]
        for label, part in found.items()
    ]
    return [
        "## Compression of VGG11 and VGG16 for CIFAR-10",
        "",
        "Shapes with random weights, all layers but the classifier pruned; crossbars for both signs.",
        "",
        *table(["network", "pruning", "crossbar", "crossbars", "compression", "index tables [KiB]"], rows),
        "",
    ]


def constraint_table(this: Study, limits: dict[str, Figures]) -> list[str]:
    """Weight-constrained training."""
    keys = ("ideal", "nf", "50k", "20k, 100", "spread")
    ways = [(1.0, "keep", "none"), *((cut, scale, f"{cut}, {scale}") for cut in QUANTILES[1:] for scale in SCALES)]
    rows = [
        [name, way, *(part.text(f"{quantile} {scale} {key}") for key in keys)]
        for name, part in limits.items()
        for quantile, scale, way in ways
    ]
    header = ["network", "cut-off", "ideal", "NF at 50 kOhm [%]", "wires, 50 kOhm"]
    gains = _gains(limits["unpruned"])
    return [
        "## Weight-constrained training",
        "",
        "Cut-off: the quantile of weights above which they are clipped. `keep`: the on conductance stands for the",
        "largest weight of before; `remap`: for the cut-off. All rows had the same extra epochs with the same batches;",
        f"{len(this.some_seeds(N_CONSTRAINED))} seeds, because gains differ much between networks: on wires with",
        f"on / off 100, keep 0.8 gains from {min(gains):+.1f} to {max(gains):+.1f} points in unpruned ones.",
        "",
        *table([*header, "wires, 20 kOhm, on / off 100", "wires and spread 0.2, with gain"], rows),
        "",
        "Keeping the scale lowers conductances and with them what wires cost; it makes the same spread of devices a",
        "larger error. Remapping does the reverse. Which to choose depends on what the chip suffers from.",
        "",
    ]


def _gains(part: Figures) -> np.ndarray:
    """Points that a cut-off of 0.8 with the same scale gains on wires, network by network."""
    return part.values["0.8 keep 20k, 100"] - part.values["1.0 keep 20k, 100"]


def order_table(found: dict[str, Figures], order: Figures) -> list[str]:
    """Column rearrangement."""
    best = max(abs(part.mean(way) - part.mean("0.2")) for part in found.values() for way in ORDERS[1:])
    return [
        "## Column rearrangement",
        "",
        f"Relative error in percent of products with {MATRIX[0]} x {MATRIX[1]} matrices whose columns differ in size",
        "(lognormal), 64 x 64 crossbars, wires 10 Ohm, driver and sense 100 Ohm:",
        "",
        *table(
            ["order", "raw", "gain per layer"],
            [[way, order.text(f"{way} raw"), order.text(f"{way} gain")] for way in ORDERS],
        ),
        "",
        "Without gains, dealing heavy columns out to all crossbars, next to the drivers, is best; sorting light",
        "columns first, so that heavy ones meet in one crossbar, is worst. On the accuracy of the networks above",
        f"(spread 0.2) no order changes the mean by more than {best:.1f} points: the published gain is",
        "not reproduced with differential cells and a scale per layer.",
        "",
    ]


def criteria(this: Study, found: dict[str, Figures], limits: dict[str, Figures], order: Figures) -> list[str]:
    """Table of pass criteria."""
    loss = {name: part.mean("ideal") - part.mean("0.2") for name, part in found.items()}
    filters = [loss[name] for name in ("unpruned", "C/F 0.5", "C/F 0.75", "C/F 0.875")]
    rows = ["## Criteria", "", *GATES]
    text = ", ".join(f"{value:.1f}" for value in filters)
    rows.append(this.gate("loss at spread 0.2 grows with C/F sparsity", text, filters == sorted(filters)))
    others = {name: loss[name] for name in ("XCS 0.8", "XRS 0.8")}
    text = ", ".join(f"{name} {value:.1f}" for name, value in others.items())
    rows.append(this.gate("XCS and XRS lose more than unpruned", text, min(others.values()) > loss["unpruned"]))
    nf = [found[name].mean("nf") for name in ("unpruned", "C/F 0.75")]
    rows.append(this.gate("NF of C/F 0.75 above unpruned", f"{nf[1]:.1f} and {nf[0]:.1f} %", nf[1] > nf[0]))
    part = limits["unpruned"]
    nf = [part.mean(f"{way} nf") for way in ("0.8 keep", "1.0 keep", "0.8 remap")]
    text = ", ".join(f"{value:.1f}" for value in nf)
    rows.append(this.gate("NF: keep below none below remap", text, nf == sorted(nf)))
    for name, part in limits.items():
        gains = _gains(part)
        text = f"{name}: cut-off 0.8, keep gains above 3 points (wires, on / off 100)"
        rows.append(this.gate(text, f"{gains.mean():+.1f} ± {gains.std():.1f}", gains.mean() > 3))
    errors = [order.mean(f"{way} raw") for way in ("interleave", "none", "ascending")]
    text = ", ".join(f"{value:.1f}" for value in errors)
    rows.append(this.gate("error: interleave at most none at most ascending", text, errors == sorted(errors)))
    return rows


def draw(this: Study, found: dict[str, Figures]) -> None:
    """Loss of accuracy over the spread of devices."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for name, part in found.items():
        losses = [part.values["ideal"] - part.values[f"{sigma}"] for sigma in SIGMAS]
        means, spreads = [loss.mean() for loss in losses], [loss.std() for loss in losses]
        axes.errorbar(SIGMAS, means, spreads, capsize=2, marker="o", markersize=3, label=name)
    axes.set(xlabel="relative spread of devices", ylabel="loss of accuracy [points]")
    axes.legend(fontsize="small")
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "loss.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

"""Pruned networks on a chip: `python reports/pruned_networks.py [--small]` writes reports/pruned-networks/.

A small CNN trained, pruned by magnitude, trained again and exported: accuracy on the chip, crossbars, area, latency and
energy, beside the one that was not pruned. Kinds after Bhattacharjee et al., DATE 2022 (arXiv 2201.05229), on other
data; interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import torch
from chip_networks import CHIP, COSTS, N_EPOCHS, RECIPE, cnn, figures, fitted, on_chip, pixels
from study import GATES, Digits, Figures, Point, Study, study, table

from archsim.training import kept, prune, without_filters
from archsim.training.pruning import Kind

SIZE = 16
CHANGES = {
    "tile.pe.crossbar.rows": SIZE,
    "tile.pe.crossbar.cols": SIZE,
    "tile.pe.crossbars": 1,
    "tile.pes": 8,
    "mapping.layout": "dense",
    "mapping.share_tiles": True,
}
"""Crossbars and tiles small enough that this network fills several."""
N_TIMESTEPS = 2
N_FIRST_EPOCHS = 6
"""Epochs before weights are pruned by their magnitude."""
PRUNINGS: dict[str, tuple[Kind, float]] = {
    "unpruned": ("none", 0.0),
    "C/F 0.5": ("filters", 0.5),
    "C/F 0.75": ("filters", 0.75),
    "XRS 0.8": ("rows", 0.8),
    "XCS 0.8": ("columns", 0.8),
}
SQUEEZES = {"none": "none", "filters": "none", "rows": "rows", "columns": "columns"}
"""Values of `mapping.squeeze`; without filters a network is a smaller network."""


def pruned(this: Study, data: Digits) -> dict[str, Figures]:
    """Networks by pruning."""

    def compute(kind: Kind, sparsity: float, seed: int) -> Point:
        net = fitted(this, data, cnn(N_TIMESTEPS, seed), N_FIRST_EPOCHS)
        masks = prune(net, kind, sparsity, SIZE)
        if kind != "filters":
            masks[0] = torch.ones_like(masks[0])  # nine rows and a few columns, which have no segments to spare
        fitted(this, data, kept(net, masks), N_EPOCHS, masks)
        held = without_filters(net, masks) if kind == "filters" else net
        changes = CHANGES | {"mapping.squeeze": SQUEEZES[kind]}
        return figures(on_chip(this, data, held, N_TIMESTEPS, changes))

    settings = RECIPE | {"timesteps": N_TIMESTEPS, "first epochs": N_FIRST_EPOCHS, "changes": CHANGES}
    wanted = dict(list(PRUNINGS.items())[:2]) if this.small else PRUNINGS
    return {
        name: this.over_seeds(
            f"pruned_{kind}_{sparsity}",
            settings,
            lambda seed, kind=kind, sparsity=sparsity: compute(kind, sparsity, seed),
        )
        for name, (kind, sparsity) in wanted.items()
    }


def main() -> int:
    """Compute what is missing and write the tables."""
    this = study("pruned-networks", __doc__)
    found = pruned(this, pixels())
    draw(this, found)
    plain = found["unpruned"]
    lines = [
        "# Pruned networks on a chip",
        "",
        "Command: `python reports/pruned_networks.py`. A CNN of LIF neurons on scikit-learn's digits, trained, pruned",
        f"by magnitude, trained again, all with the same epochs; {N_TIMESTEPS} timesteps on `{CHIP}` with",
        f"crossbars of {SIZE} x {SIZE}, one in a PE, eight PEs in a tile that layers share. Accuracy in percent, mean",
        f"± standard deviation over {len(this.seeds)} seeds; energy with leakage and what index tables cost. C/F:",
        "whole filters; XRS and XCS: row and column segments of a crossbar's length, the first layer and the readout",
        "kept.",
        "",
        *table(
            ["pruning", "ideal", "on the chip", *COSTS.values()],
            [
                [name, part.text("ideal"), part.text("chip"), *(part.brief(key) for key in COSTS)]
                for name, part in found.items()
            ],
        ),
        "",
        "Unpruned over pruned:",
        "",
        *table(
            ["pruning", "accuracy lost on the chip [points]", *(name.split(" [")[0] for name in COSTS.values())],
            [[name, *_gains(plain, part)] for name, part in found.items() if part is not plain],
        ),
        "",
        "![Accuracy over energy of pruned networks](pruned.svg)",
        "",
    ]
    return this.write([*lines, *criteria(this, found)])


def _gains(plain: Figures, part: Figures) -> list[str]:
    lost = plain.values["chip"] - part.values["chip"]
    ratios = [f"{plain.mean(key) / part.mean(key):.2f}x" for key in COSTS]
    return [f"{lost.mean():.1f} ± {lost.std():.1f}", *ratios]


def criteria(this: Study, found: dict[str, Figures]) -> list[str]:
    """Table of pass criteria."""
    rows = ["## Criteria", "", *GATES]
    plain, pruned_ones = found["unpruned"], {name: part for name, part in found.items() if name != "unpruned"}
    for key in ("crossbars", "area_mm2", "energy_nj"):
        ratios = {name: plain.mean(key) / part.mean(key) for name, part in pruned_ones.items()}
        text = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
        rows.append(this.gate(f"{COSTS[key].split(' [')[0]}: every pruning saves", text, min(ratios.values()) > 1))
    if not this.small:
        lost = {name: plain.mean("chip") - part.mean("chip") for name, part in pruned_ones.items()}
        text = ", ".join(f"{name} {value:+.1f}" for name, value in lost.items())
        rows.append(this.gate("C/F 0.75 loses more accuracy than C/F 0.5", text, lost["C/F 0.75"] > lost["C/F 0.5"]))
    return rows


def draw(this: Study, found: dict[str, Figures]) -> None:
    """Accuracy over energy, the area of the chip as that of the points."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for name, part in found.items():
        place = part.mean("energy_nj"), part.mean("chip")
        text = f"{name}: {part.mean('crossbars'):.0f} crossbars, {part.mean('area_mm2'):.2g} mm2"
        points = axes.errorbar(*place, part.values["chip"].std(), capsize=2, marker="o", linestyle="", label=text)
        axes.scatter(*place, 40 * part.mean("area_mm2"), color=points[0].get_color())
    axes.set(xlabel="energy of an inference [nJ]", ylabel="accuracy on the chip [%]")
    axes.legend(fontsize="small", loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "pruned.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

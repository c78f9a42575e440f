"""Channels that share neuron units: `python reports/shared_neurons.py [--small]` writes reports/shared-neurons/.

A small CNN trained for units that 1, 2 or 4 channels share, on chips with such units: accuracy, and area, energy and
power of the neuron modules. After EfficientLIF-Net (Kim et al., arXiv 2305.18360), on other data; interrupted runs go
on where they ended.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from chip_networks import CHIP, DECAY, RECIPE, cnn, figures, fitted, on_chip, pixels
from study import GATES, Digits, Figures, Point, Study, study, table

import archsim
from archsim.training import accuracy

SHARED = (1, 2, 4)
N_TIMESTEPS = 4
MODULE = ("neuron", "v_mem")
"""Kinds of components of a neuron module."""
MODULE_FIGURES = ("module_um2", "module_nj", "module_uw")
PUBLISHED_AREA = {2: 1.38, 4: 2.41}
"""Factors by which the area of LIF units falls, for ResNet18 on SpikeSim's chip. Source: Bhattacharjee et al., "Are
SNNs Truly Energy-efficient?", arXiv 2309.03388, as a public note quotes it."""
PUBLISHED_POWER = {4: 75.1}
"""Percent less power of LIF units that four channels share, on SATA. Source: the same."""


def module_figures(result: archsim.Result) -> Point:
    """Area, energy and mean power of all neuron modules."""
    parts = result.components[result.components["kind"].isin(MODULE)]
    energy_pj = float((parts["energy_dynamic_pj"] + parts["energy_leakage_pj"]).sum())
    return {
        "module_um2": float(parts["area_um2"].sum()),
        "module_nj": energy_pj * 1e-3,
        "module_uw": energy_pj / result.summary["latency_ps"] * 1e6,
    }


def shared(this: Study, data: Digits) -> dict[int, Figures]:
    """Networks trained for units of so many channels; those trained for one also on chips that share."""
    wanted = SHARED[:2] if this.small else SHARED

    def compute(n_shared: int, seed: int) -> Point:
        net = fitted(this, data, cnn(N_TIMESTEPS, seed, n_shared))
        found = {"trained": 100 * accuracy(net, data.test_images, data.test_labels)}
        for other in wanted if n_shared == 1 else (n_shared,):
            result = on_chip(this, data, net, N_TIMESTEPS, {"chip.neuron.shared_channels": other})
            values = figures(result) | module_figures(result)
            found |= values if other == n_shared else {f"unaware {other}": values["chip"]}
        return found

    settings = RECIPE | {"timesteps": N_TIMESTEPS}
    return {
        n_shared: this.over_seeds(
            f"shared_{n_shared}", settings, lambda seed, n_shared=n_shared: compute(n_shared, seed)
        )
        for n_shared in wanted
    }


def main() -> int:
    """Compute what is missing and write the tables."""
    this = study("shared-neurons", __doc__)
    found = shared(this, pixels())
    draw(this, found)
    lines = [
        "# Channels that share neuron units",
        "",
        "Command: `python reports/shared_neurons.py`. With `chip.neuron.shared_channels: k`, k neighbouring channels",
        f"share a unit and its potential. A CNN of LIF neurons (decay {DECAY}) on scikit-learn's digits, {N_TIMESTEPS}",
        f"timesteps, on `{CHIP}`; accuracy in percent, mean ± standard deviation over {len(this.seeds)} seeds.",
        "",
        "## Accuracy",
        "",
        "Aware: trained with `Neuron(shared_channels=k)`. Unaware: trained with a unit for every channel.",
        "",
        *table(
            ["k", "aware, before it is on the chip", "aware, on the chip", "unaware, on the chip"],
            [[f"{k}", part.text("trained"), part.text("chip"), _unaware(found, k)] for k, part in found.items()],
        ),
        "",
        "![Accuracy and neuron modules over channels per unit](shared.svg)",
        "",
        "## Neuron modules",
        "",
        *table(
            [
                "k",
                "area [um2]",
                "energy [nJ]",
                "power [uW]",
                "area smaller by",
                "published",
                "power lower by",
                "published",
            ],
            [[f"{k}", *_module(found, k)] for k in found],
        ),
        "",
        "Published (shape, not promise; arXiv 2309.03388, other networks, other accounts of what a unit is): area of",
        "LIF units of ResNet18 on SpikeSim's chip; power of LIF units on SATA.",
        f"The costs of `{CHIP}` price the memory of potentials and the energy of updates; arithmetic has no area",
        "there, and every channel pays a whole update. The readout shares nothing.",
        "",
        "## The whole chip",
        "",
        *table(
            ["k", "area [mm2]", "energy [nJ]", "latency [us]"],
            [
                [f"{k}", *(part.brief(key) for key in ("area_mm2", "energy_nj", "latency_us"))]
                for k, part in found.items()
            ],
        ),
        "",
        "Neuron modules are a small part of this chip, and they do not set its pace, so sharing changes little of it.",
        "",
    ]
    return this.write([*lines, *criteria(this, found)])


def _unaware(found: dict[int, Figures], k: int) -> str:
    return found[1].text("chip" if k == 1 else f"unaware {k}")


def _falls(found: dict[int, Figures], k: int, key: str) -> float:
    return found[1].mean(key) / found[k].mean(key)


def _module(found: dict[int, Figures], k: int) -> list[str]:
    part = found[k]
    if k == 1:
        return [*(part.brief(key) for key in MODULE_FIGURES), "", "", "", ""]
    area, power = _falls(found, k, "module_um2"), 100 * (1 - 1 / _falls(found, k, "module_uw"))
    published = f"{PUBLISHED_POWER[k]} %" if k in PUBLISHED_POWER else "–"
    return [
        *(part.brief(key) for key in MODULE_FIGURES),
        f"{area:.2f}x",
        f"{PUBLISHED_AREA[k]:.2f}x",
        f"{power:.1f} %",
        published,
    ]


def criteria(this: Study, found: dict[int, Figures]) -> list[str]:
    """Table of pass criteria."""
    rows = ["## Criteria", "", *GATES]
    ways = list(found)
    for k in ways[1:]:
        lost = found[1].mean("chip") - found[k].mean("chip")
        rows.append(this.gate(f"k = {k}: trained for it, at most 3 points lost on the chip", f"{lost:+.1f}", lost <= 3))
        gain = found[k].values["chip"] - found[1].values[f"unaware {k}"]
        text = f"{gain.mean():+.1f} ± {gain.std():.1f}"
        rows.append(this.gate(f"k = {k}: training for it gives back above 5 points", text, gain.mean() > 5))
    for key, name in (("module_um2", "area"), ("module_uw", "power")):
        values = [found[k].mean(key) for k in ways]
        text = ", ".join(f"{value:,.0f}" for value in values)
        rows.append(this.gate(f"{name} of neuron modules falls with k", text, values == sorted(values, reverse=True)))
    return rows


def draw(this: Study, found: dict[int, Figures]) -> None:
    """Accuracy with and without training for it, and what neuron modules need, by channels per unit."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0))
    places = np.arange(len(found))
    unaware = [found[1].values["chip" if k == 1 else f"unaware {k}"] for k in found]
    ways = {"trained for k": [found[k].values["chip"] for k in found], "trained for k = 1": unaware}
    for shift, (name, values) in zip((-0.2, 0.2), ways.items(), strict=True):
        means, spreads = [each.mean() for each in values], [each.std() for each in values]
        left.bar(places + shift, means, 0.38, yerr=spreads, capsize=2, label=name)
    left.set(ylabel="accuracy on the chip [%]", ylim=(0, 115), yticks=range(0, 101, 20))
    left.legend(loc="upper center", ncols=2, fontsize="x-small", frameon=False)
    for shift, (key, name) in zip((-0.2, 0.2), (("module_um2", "area"), ("module_uw", "power")), strict=True):
        right.bar(places + shift, [100 / _falls(found, k, key) for k in found], 0.38, label=name)
    right.set(ylabel="neuron modules [% of k = 1]")
    right.legend(fontsize="x-small", frameon=False)
    for axes in (left, right):
        axes.set_xticks(places, [f"{k}" for k in found])
        axes.set_xlabel("channels per unit, k")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "shared.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

"""Fewer timesteps on a chip: `python reports/fewer_timesteps.py [--small]` writes reports/fewer-timesteps/.

A small CNN trained for 1, 2, 4 and 8 timesteps, exported and run on a chip: accuracy, latency, energy and their
product, beside one trained for 4 that is stopped early, or whose samples end when it is sure of them. Interrupted runs
go on where they ended.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
from chip_networks import CHIP, RECIPE, cnn, figures, fitted, on_chip, pixels
from study import GATES, Digits, Figures, Point, Study, study, table

TIMESTEPS = (1, 2, 4, 8)
STOPPED = 4
"""Timesteps that the network was trained for which is stopped at others."""
FINE_BITS = 6
"""Bits of converters beside the chip's own of 4."""
POLICIES = ("none", "drain", "squash", "wait")
CONFIDENCE = 0.9
N_STREAMED = 12
"""Samples that are timed, one after the other; accuracy is that of all."""
COSTS = {"latency_us": "latency [us]", "energy_nj": "energy [nJ]", "edp_pj_s": "EDP [pJ s]"}


def trained(this: Study, data: Digits) -> dict[int, Figures]:
    """Networks trained for so many timesteps; one of them also stopped at others."""
    wanted = (1, STOPPED) if this.small else TIMESTEPS

    def compute(n_timesteps: int, seed: int) -> Point:
        net = fitted(this, data, cnn(n_timesteps, seed))
        found = figures(on_chip(this, data, net, n_timesteps))
        found["fine"] = figures(on_chip(this, data, net, n_timesteps, {"tile.pe.adc.bits": FINE_BITS}))["chip"]
        for other in wanted if n_timesteps == STOPPED else ():
            values = found if other == STOPPED else figures(on_chip(this, data, net, other))
            found |= {f"stopped {other}": values["chip"], f"stopped ideal {other}": values["ideal"]}
        return found

    return {
        steps: this.over_seeds(
            f"trained_{steps}", RECIPE | {"fine bits": FINE_BITS}, lambda seed, steps=steps: compute(steps, seed)
        )
        for steps in wanted
    }


def dynamic(this: Study, data: Digits) -> dict[str, Figures]:
    """Samples of the network trained for four timesteps that end by themselves, by policy."""
    policies = POLICIES[:2] if this.small else POLICIES

    def compute(seed: int) -> Point:
        net = fitted(this, data, cnn(STOPPED, seed))
        found = {}
        for policy in policies:
            changes = {"mapping.early_exit": policy, "mapping.exit_confidence": CONFIDENCE}
            result = on_chip(this, data, net, STOPPED, changes, 3 if this.small else N_STREAMED)
            values = figures(result) | {
                "steps": result.summary["accuracy_mean_timesteps"] or STOPPED,
                "streamed steps": result.summary["mean_timesteps"],
                "wasted": 100 * result.summary["energy_wasted_pj"] / result.summary["energy_dynamic_pj"],
            }
            found |= {f"{policy} {key}": value for key, value in values.items()}
        return found

    settings = RECIPE | {"confidence": CONFIDENCE, "samples": N_STREAMED}
    found = this.over_seeds("dynamic", settings, compute)
    return {
        policy: Figures(
            {key.removeprefix(f"{policy} "): value for key, value in found.values.items() if key.startswith(policy)}
        )
        for policy in policies
    }


def main() -> int:
    """Compute what is missing and write the tables."""
    this = study("fewer-timesteps", __doc__)
    found, ended = trained(this, pixels()), dynamic(this, pixels())
    draw(this, found, ended)
    lost = [found[steps].mean("fine") - found[steps].mean("chip") for steps in (1, max(found))]
    ratios = [_ratio(found, key) for key in COSTS]
    area = found[STOPPED].brief("area_mm2")
    to_four = found[STOPPED].mean("edp_pj_s") / found[1].mean("edp_pj_s")
    lines = [
        "# Fewer timesteps",
        "",
        "Command: `python reports/fewer_timesteps.py`. A CNN of LIF neurons on scikit-learn's digits, trained anew for",
        f"every T, 4-bit weights, on `{CHIP}`; accuracy in percent, mean ± standard deviation over",
        f"{len(this.seeds)} seeds; energy with leakage. The chip is the same, {area} mm2.",
        "",
        *table(
            ["T", "ideal", "on the chip", f"{FINE_BITS}-bit converters", f"trained for {STOPPED}", *COSTS.values()],
            [
                [
                    f"{steps}",
                    *(part.text(key) for key in ("ideal", "chip", "fine")),
                    found[STOPPED].text(f"stopped {steps}"),
                    *(part.brief(key) for key in COSTS),
                ]
                for steps, part in found.items()
            ],
        ),
        "",
        "![Accuracy over timesteps and over the energy-delay product](timesteps.svg)",
        "",
        f"`trained for {STOPPED}`: on the chip, stopped at T. The chip's 4-bit converters cost {lost[0]:.1f} points at",
        f"T = 1 and {lost[1]:.1f} at T = {max(found)}, compared with {FINE_BITS} bits. That networks with fewer",
        "timesteps survive crossbars better is published for wires and devices: see",
        "[error accumulation](../p0-error-accumulation/README.md).",
        "",
        f"From T = 1 to {max(found)} latency grows {ratios[0]:.1f} times, energy {ratios[1]:.1f} times, their product",
        f"{ratios[2]:.0f} times. Published for VGG-16 (DT-SNN, arXiv 2305.17346): 8 times the latency, 4.9 times the",
        f"energy. From T = 1 to {STOPPED} the product grows {to_four:.1f} times; published for SpikeSim's chip (arXiv",
        "2309.03388): 10.4 times.",
        "",
    ]
    return this.write([*lines, *dynamic_table(this, ended), *criteria(this, found, ended)])


def dynamic_table(this: Study, ended: dict[str, Figures]) -> list[str]:
    """Timesteps, accuracy and costs by policy."""
    rows = [
        [
            policy,
            f"{part.mean('steps'):.2f}",
            part.text("chip"),
            f"{part.mean('streamed steps'):.2f}",
            *(part.brief(key) for key in COSTS),
            part.text("wasted"),
            f"{_saved(ended, policy):.0f} %",
        ]
        for policy, part in ended.items()
    ]
    header = [
        "mapping.early_exit",
        "mean T",
        "on the chip",
        "mean T, timed",
        *COSTS.values(),
        "wasted [%]",
        "EDP saved",
    ]
    return [
        "## Samples that end when the network is sure",
        "",
        f"The network trained for {STOPPED} timesteps, confidence {CONFIDENCE}; accuracy and mean T over all held-out",
        f"samples, costs per sample of {3 if this.small else N_STREAMED} that enter one after the other. `drain`",
        "finishes timesteps that began before the decision, `squash` stops them, `wait` begins none before it.",
        "",
        *table(header, rows),
        "",
        "Published for VGG-16 (DT-SNN, arXiv 2305.17346): mean T of 1.46 saves 80 % of the product at the accuracy of",
        "T = 4.",
        "",
    ]


def _saved(ended: dict[str, Figures], policy: str) -> float:
    return 100 * (1 - ended[policy].mean("edp_pj_s") / ended["none"].mean("edp_pj_s"))


def _ratio(found: dict[int, Figures], key: str) -> float:
    return found[max(found)].mean(key) / found[1].mean(key)


def criteria(this: Study, found: dict[int, Figures], ended: dict[str, Figures]) -> list[str]:
    """Table of pass criteria."""
    rows = ["## Criteria", "", *GATES]
    for key in ("latency_us", "energy_nj"):
        ratio = _ratio(found, key)
        text = f"{COSTS[key].split(' [')[0]} grows 4 to 8.5 times from T = 1 to 8"
        rows.append(this.gate(text, f"{ratio:.1f}", 4 < ratio < 8.5))
    gain = found[1].values["chip"] - found[STOPPED].values["stopped 1"]
    text = f"T = 1: training for it gains above 3 points over stopping the network for T = {STOPPED}"
    rows.append(this.gate(text, f"{gain.mean():+.1f} ± {gain.std():.1f}", gain.mean() > 3))
    lost = found[STOPPED].mean("ideal") - found[1].mean("ideal")
    rows.append(this.gate("T = 1: trained for it, at most 2 points below T = 4, ideal", f"{lost:.1f}", lost <= 2))
    lost = ended["none"].mean("chip") - ended["drain"].mean("chip")
    rows.append(this.gate("samples that end by themselves: at most 1 point lost", f"{lost:+.1f}", lost <= 1))
    if not this.small:
        saved = {policy: _saved(ended, policy) for policy in ("drain", "squash", "wait")}
        text = ", ".join(f"{policy} {share:.0f} %" for policy, share in saved.items())
        rows.append(this.gate("and every policy saves energy-delay product", text, min(saved.values()) > 0))
        wasted = [ended[policy].mean("wasted") for policy in ("drain", "squash", "wait")]
        text = ", ".join(f"{share:.1f} %" for share in wasted)
        rows.append(this.gate("waste: drain above squash above wait", text, wasted[0] > wasted[1] > wasted[2] == 0))
    return rows


def draw(this: Study, found: dict[int, Figures], ended: dict[str, Figures]) -> None:
    """Accuracy over timesteps, and over what they cost."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0), sharey=True)
    steps = list(found)
    ways = {
        "trained for T": [found[n].values["chip"] for n in steps],
        f"trained for {STOPPED}, stopped at T": [found[STOPPED].values[f"stopped {n}"] for n in steps],
    }
    costs = [found[n].mean("edp_pj_s") for n in steps]
    for name, values in ways.items():
        means, spreads = [each.mean() for each in values], [each.std() for each in values]
        left.errorbar(steps, means, spreads, capsize=2, marker="o", markersize=3, label=name)
        right.errorbar(costs, means, spreads, capsize=2, marker="o", markersize=3)
    for policy, marker in zip(list(ended)[1:], "^sD", strict=False):
        place = ended[policy].mean("edp_pj_s"), ended[policy].mean("chip")
        right.plot(*place, f"k{marker}", markersize=4, alpha=0.7, label=f"ends when sure, {policy}")
    left.plot(ended["drain"].mean("steps"), ended["drain"].mean("chip"), "kD", markersize=4, label="ends when sure")
    right.legend(fontsize="x-small", loc="lower right", frameon=False)
    left.set(xlabel="timesteps T", ylabel="accuracy on the chip [%]", xscale="log", xticks=steps)
    left.set_xticklabels([f"{n}" for n in steps])
    left.minorticks_off()
    left.legend(fontsize="x-small", loc="lower right", frameon=False)
    right.set(xlabel="energy-delay product [pJ s]", xscale="log")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "timesteps.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

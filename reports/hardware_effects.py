"""What fewer timesteps and pruning do to a chip: `python reports/hardware_effects.py [--small]`.

Writes reports/hardware-effects/README.md: `digits-cnn` run for 1 to 8 timesteps, its samples that end when the network
is sure of them, and VGG11's shapes with squeezed rows. Nothing is trained. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from study import GATES, Point, Study, study, table

import archsim
from archsim.inference import assumed_activity, recording_of
from archsim.training import Net, Neuron, Weighted, kept, prune
from archsim.workload.builders import vgg11
from archsim.workload.model import Workload
from archsim.workload.network import Network

CHIP, NETWORK = "spikesim-rram-64", "digits-cnn"
TIMESTEPS = (1, 2, 4, 8)
CONFIDENCE = 0.8
N_SAMPLES = 10
POLICIES = ("drain", "squash", "wait")
SPARSITIES = (0.5, 0.8, 0.9)
RATE = 0.1
UNITS = {"latency_ps": ("latency [us]", 1e-6), "energy_dynamic_pj": ("dynamic energy [nJ]", 1e-3)}
SIZES = {"area_um2": ("area [mm2]", 1e-6), "n_crossbars": ("crossbars", 1.0)}


def timesteps(this: Study) -> dict[int, Point]:
    """The network stopped after some timesteps."""

    def compute(steps: int) -> Point:
        summary = archsim.simulate(archsim.load_hardware(CHIP), archsim.load_workload(NETWORK, timesteps=steps)).summary
        return {key: summary[key] for key in (*UNITS, "accuracy_ideal", "accuracy_calibrated")}

    return {steps: this.point(f"timesteps_{steps}", {}, lambda steps=steps: compute(steps)) for steps in TIMESTEPS}


def exits(this: Study) -> dict[str, Point]:
    """Samples that end by themselves."""

    def compute(policy: str) -> Point:
        n_samples = 2 if this.small else N_SAMPLES
        hardware, workload = archsim.load_hardware(CHIP), archsim.load_workload(NETWORK)
        rows = archsim.early_exit(hardware, workload, CONFIDENCE, policy, n_samples)
        energy = rows["energy_pj"] + rows["wasted_pj"]
        return {
            "timesteps": rows["n_timesteps"].mean(),
            "latency_ps": rows["latency_ps"].mean(),
            "energy_dynamic_pj": energy.mean(),
            "wasted": rows["wasted_pj"].sum() / energy.sum(),
            "right": rows["is_right"].sum(),
            "right full": rows["is_right_full"].sum(),
        }

    settings = {"confidence": CONFIDENCE, "samples": N_SAMPLES}
    return {
        policy: this.point(f"exit_{policy}", settings, lambda policy=policy: compute(policy)) for policy in POLICIES
    }


def squeezed(this: Study) -> dict[str, Point]:
    """VGG11's shapes with random weights and assumed spikes, by row sparsity."""

    def compute(sparsity: float) -> Point:
        shapes = vgg11()
        rates = {name: (RATE,) for name in ("input", *(layer.name for layer in shapes.layers))}
        workload = Workload("vgg11", shapes, 1, None, assumed_rates=rates)
        recording = recording_of(assumed_activity(workload, 1, 0), workload)
        changes = {"mapping.layout": "dense"}
        if sparsity:
            changes = {"mapping.squeeze": "rows"}
            workload = replace(workload, network=pruned(vgg11(seed=0), sparsity))
        summary = archsim.simulate(archsim.load_hardware(CHIP, changes), replace(workload, recording=recording)).summary
        return {key: summary[key] for key in (*UNITS, *SIZES)}

    wanted = () if this.small else (0.0, *SPARSITIES)
    return {f"{s}": this.point(f"squeezed_{s}", {"rate": RATE}, lambda s=s: compute(s)) for s in wanted}


def pruned(network: Network, sparsity: float) -> Network:
    """A network whose weakest row segments of 64 columns are zero, all layers but the last."""
    layers = [Weighted(torch.as_tensor(layer.weights).squeeze()) for layer in network.layers]
    net = Net(layers, Neuron())
    kept(net, prune(net, "rows", sparsity, 64))
    held = [
        replace(layer, weights=weighted.weight.detach().numpy().reshape(layer.weights.shape))
        for layer, weighted in zip(network.layers, net.weighted_layers(), strict=True)
    ]
    return replace(network, layers=tuple(held))


def main() -> int:
    """Compute what is missing and write the tables."""
    this = study("hardware-effects", __doc__)
    by_steps, ended, shapes = timesteps(this), exits(this), squeezed(this)
    lines = [
        "# What fewer timesteps and pruning do to a chip",
        "",
        f"Command: `python reports/hardware_effects.py`. Chip `{CHIP}`.",
        "",
        f"## `{NETWORK}` run for T timesteps (it was trained for 4)",
        "",
        *table(
            ["T", "accuracy, ideal", "accuracy on the chip", *(name for name, _ in UNITS.values())],
            [[f"{steps}", *map(_percent, _accuracies(part)), *_costs(part)] for steps, part in by_steps.items()],
        ),
        "",
        "Published for VGG-16 (DT-SNN, arXiv 2305.17346), T from 1 to 8: 4.9 times the energy, 8 times the latency.",
        "",
        "## Samples that end when the network is sure",
        "",
        f"Confidence {CONFIDENCE}, {N_SAMPLES} samples, 4 timesteps at most. Each alone on the",
        "chip; latency until the decision; the energy includes what is wasted.",
        "",
        *table(
            ["policy", "mean T", *(name for name, _ in UNITS.values()), "wasted", "right", "right at T = 4"],
            [[policy, *_exit(part)] for policy, part in ended.items()],
        ),
        "",
    ]
    if shapes:
        lines += [
            "## VGG11 for CIFAR-10 by row sparsity (XRS), `mapping.squeeze: rows`",
            "",
            f"Random weights, assumed rate {RATE}, one timestep, index tables included; sparsity 0: dense layout.",
            "",
            *table(
                ["sparsity", *(name for name, _ in (UNITS | SIZES).values())],
                [[name, *_costs(part)] for name, part in shapes.items()],
            ),
            "",
        ]
    return this.write([*lines, *criteria(this, by_steps, ended, shapes)])


def criteria(this: Study, by_steps: dict[int, Point], ended: dict[str, Point], shapes: dict[str, Point]) -> list[str]:
    """Table of pass criteria."""
    rows = ["## Criteria", "", *GATES]
    ratios = [by_steps[8][key] / by_steps[1][key] for key in UNITS]
    text = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    rows.append(
        this.gate("latency and energy grow 4 to 8.5 times from T = 1 to 8", text, all(4 < r < 8.5 for r in ratios))
    )
    wasted = [ended[policy]["wasted"] for policy in POLICIES]
    text = ", ".join(map(_percent, wasted))
    rows.append(this.gate("waste: drain above squash above wait", text, wasted[0] > wasted[1] > wasted[2] == 0))
    if shapes:
        found = [part["n_crossbars"] for part in shapes.values()]
        text = ", ".join(f"{count:.0f}" for count in found)
        rows.append(this.gate("crossbars fall with row sparsity", text, found == sorted(found, reverse=True)))
        found = [part["energy_dynamic_pj"] * 1e-3 for part in shapes.values()]
        text = ", ".join(f"{energy:.4g}" for energy in found)
        rows.append(this.gate("energy falls with row sparsity", text, found == sorted(found, reverse=True)))
    return rows


def _accuracies(part: Point) -> tuple[float, float]:
    return part["accuracy_ideal"], part["accuracy_calibrated"]


def _exit(part: Point) -> list[str]:
    rights = [f"{part[key]:.0f}" for key in ("right", "right full")]
    return [f"{part['timesteps']:.2f}", *_costs(part), _percent(part["wasted"]), *rights]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _costs(part: Point) -> list[str]:
    return [f"{part[key] * factor:,.4g}" for key, (_, factor) in (UNITS | SIZES).items() if key in part]


if __name__ == "__main__":
    sys.exit(main())

"""What fewer timesteps do to a chip: `python reports/hardware_effects.py [--small]`.

Writes reports/hardware-effects/README.md: `digits-cnn` run for 1 to 8 timesteps, and its samples that end when the
network is sure of them. Nothing is trained. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys

from study import GATES, Point, Study, study, table

import archsim

CHIP, NETWORK = "spikesim-rram-64", "digits-cnn"
TIMESTEPS = (1, 2, 4, 8)
CONFIDENCE = 0.8
N_SAMPLES = 10
POLICIES = ("drain", "squash", "wait")
UNITS = {"latency_ps": ("latency [us]", 1e-6), "energy_dynamic_pj": ("dynamic energy [nJ]", 1e-3)}


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
        hardware = archsim.load_hardware(CHIP, {"mapping.early_exit": policy, "mapping.exit_confidence": CONFIDENCE})
        summary = archsim.simulate(hardware, archsim.load_workload(NETWORK), samples=n_samples).summary
        return {
            "timesteps": summary["mean_timesteps"],
            "begun": summary["mean_timesteps_begun"],
            "latency_ps": summary["latency_ps"],
            "energy_dynamic_pj": summary["energy_dynamic_pj"] / n_samples,
            "wasted": summary["energy_wasted_pj"] / summary["energy_dynamic_pj"],
            "accuracy": summary["accuracy_calibrated"],
        }

    settings = {"confidence": CONFIDENCE, "samples": N_SAMPLES, "stream": "back to back"}
    return {
        policy: this.point(f"exit_{policy}", settings, lambda policy=policy: compute(policy)) for policy in POLICIES
    }


def main() -> int:
    """Compute what is missing and write the tables."""
    this = study("hardware-effects", __doc__)
    by_steps, ended = timesteps(this), exits(this)
    lines = [
        "# What fewer timesteps do to a chip",
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
        f"Confidence {CONFIDENCE}, {N_SAMPLES} samples back to back, 4 timesteps at most (`mapping.early_exit`).",
        "Latency until the decision; the energy is per sample and includes what is wasted; accuracy on the chip is of",
        "all test samples at their exits.",
        "",
        *table(
            ["policy", "mean T", "T begun", *(name for name, _ in UNITS.values()), "wasted", "accuracy"],
            [[policy, *_exit(part)] for policy, part in ended.items()],
        ),
        "",
    ]
    return this.write([*lines, *criteria(this, by_steps, ended)])


def criteria(this: Study, by_steps: dict[int, Point], ended: dict[str, Point]) -> list[str]:
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
    return rows


def _accuracies(part: Point) -> tuple[float, float]:
    return part["accuracy_ideal"], part["accuracy_calibrated"]


def _exit(part: Point) -> list[str]:
    steps = [f"{part[key]:.2f}" for key in ("timesteps", "begun")]
    return [*steps, *_costs(part), _percent(part["wasted"]), _percent(part["accuracy"])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _costs(part: Point) -> list[str]:
    return [f"{part[key] * factor:,.4g}" for key, (_, factor) in UNITS.items()]


if __name__ == "__main__":
    sys.exit(main())

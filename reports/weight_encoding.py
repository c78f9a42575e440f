"""How weights are stored in cells, and what it does: `python reports/weight_encoding.py [--small]`.

Writes reports/weight-encoding/README.md: `digits-cnn` on chips with wires and devices that are not ideal, by scheme of
signs, bits per cell, `mapping.encoding` and `mapping.polarity`; `digits-mlp` too, by scope of the gains. Nothing is
trained. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import torch
from study import GATES, Figures, Point, Study, study, table

import archsim
from archsim.activity import Activity
from archsim.analog.arrays import largest_level
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat, ProgrammedLayer
from archsim.analog.product import read_power_w
from archsim.engine.simulation import simulate_activity
from archsim.inference import infer
from archsim.inference.chip import program
from archsim.mapping import map_network
from archsim.mapping.model import LayerMapping

CHIP, NETWORK = "spikesim-rram-64", "digits-cnn"
NETWORKS, SCOPES = (NETWORK, "digits-mlp"), ("layer", "column", "batch_norm")
DEVICE = {
    "tile.pe.crossbar.device.preset": "rram-20k-200k",
    "tile.pe.crossbar.device.d2d_sigma_rel": 0.1,
    "tile.pe.crossbar.r_driver_ohm": 200.0,
    "tile.pe.crossbar.r_wire_row_ohm": 2.5,
    "tile.pe.crossbar.r_wire_col_ohm": 2.5,
    "tile.pe.crossbar.v_read_v": 0.1,
    "mapping.unused_cells": "open",
}
STORED = {
    "two's complement": {"mapping.encoding": "twos_complement"},
    "standard": {},
    "high resistance": {"mapping.encoding": "high_resistance"},
    "swapped": {"mapping.polarity": "per_crossbar"},
    "both": {"mapping.encoding": "high_resistance", "mapping.polarity": "per_crossbar"},
}
CELLS = {
    "diff, 4 bits": {"tile.pe.crossbar.signed": "diff", "tile.pe.crossbar.bits_per_cell": 4},
    "diff, 1 bit": {"tile.pe.crossbar.signed": "diff", "tile.pe.crossbar.bits_per_cell": 1},
    "offset, 4 bits": {"tile.pe.crossbar.signed": "offset", "tile.pe.crossbar.bits_per_cell": 4},
    "offset, 1 bit": {"tile.pe.crossbar.signed": "offset", "tile.pe.crossbar.bits_per_cell": 1},
}
PAIRS = {"tile.pe.crossbar.signed": "differential", "tile.pe.crossbar.bits_per_cell": 4}
COLUMNS = {
    "hrs": "cells in the lowest quarter [%]",
    "level": "mean level [%]",
    "nf": "NF [%]",
    "power": "power of a read [uW]",
    "raw": "raw [%]",
    "calibrated": "calibrated [%]",
    "read": "reads of a sample [nJ]",
}
COLUMNS_OF_GAINS = {key: COLUMNS[key] for key in ("nf", "raw", "calibrated")}
IN_PER_CENT = ("power", "read")
RATE = 0.1
"""Share of driven rows for the power of a read; that of `digits-cnn`."""
ROWS = InputFormat(1)
Found = dict[tuple[str, str], Figures]


def chips(this: Study) -> Found:
    """Figures of every way to store weights, over chips of their own."""
    plans = {
        (cells, stored): signs | how
        for cells, signs in CELLS.items()
        for stored, how in STORED.items()
        if not (cells.startswith("offset") and stored == "two's complement")
    }
    plans["differential, 4 bits", "standard"] = PAIRS
    if this.small:
        plans = {key: plan for key, plan in plans.items() if key[0] == "offset, 4 bits"}
    found = {}
    for key, plan in plans.items():
        name = "_".join(key).translate({ord(" "): "_", ord(","): None, ord("'"): None})
        of_chips = this.over_seeds(name, DEVICE | plan, lambda seed, plan=plan: compute(this, plan, seed))
        cells = this.point(f"{name}_cells", plan, lambda plan=plan: stored(plan))
        alike = {column: np.full(len(this.seeds), value) for column, value in cells.items()}
        found[key] = Figures({**of_chips.values, **alike})
    return found


def with_gains(this: Study) -> dict[tuple[str, str, str], Figures]:
    """NF and accuracy of two networks with `diff` and cells of 4 bits, by scope of the digital gains."""

    def compute(network: str, changes: dict[str, object], seed: int) -> Point:
        workload = archsim.load_workload(network)
        activity = infer(map_network(archsim.load_hardware(CHIP, changes), workload), workload, 1, seed)
        return accuracies(activity)

    found = {}
    for network, scope, how in () if this.small else product(NETWORKS, SCOPES, ("standard", "high resistance")):
        plan = DEVICE | CELLS["diff, 4 bits"] | STORED[how] | {"mapping.calibration": scope}
        name = f"{network}_{scope}_{how.replace(' ', '_')}"
        found[network, scope, how] = this.over_seeds(
            name, plan, lambda seed, network=network, plan=plan: compute(network, plan, seed)
        )
    return found


def accuracies(activity: Activity) -> Point:
    """NF, mean over layers, and accuracies, all in per cent."""
    return {
        "nf": 100 * float(np.mean([layer.nf for layer in activity.layers.values()])),
        "raw": 100 * activity.accuracy.raw,
        "calibrated": 100 * activity.accuracy.calibrated,
    }


def stored(changes: dict[str, object]) -> Point:
    """Levels of all cells that hold weights or references; they are the same on every chip."""
    hardware, workload = archsim.load_hardware(CHIP, changes), archsim.load_workload(NETWORK)
    mapping = map_network(hardware, workload)
    layers = [program(mapping, mapped, 1.0, ROWS).crossbars for mapped in mapping.layers]
    levels = torch.cat([layer.encoded.cells.flatten() for layer in layers]) / largest_level(hardware)
    return {"hrs": 100 * float((levels < 0.25).double().mean()), "level": 100 * float(levels.mean())}


def compute(this: Study, changes: dict[str, object], seed: int) -> Point:
    """One chip: its cells, its accuracy, the energy of one sample."""
    hardware, workload = archsim.load_hardware(CHIP, DEVICE | changes), archsim.load_workload(NETWORK)
    if this.small:
        data = workload.input
        workload = replace(workload, input=replace(data, values=data.values[:40], labels=data.labels[:40]))
    mapping = map_network(hardware, workload)
    activity = infer(mapping, workload, 1, seed)
    energy = simulate_activity(mapping, workload, activity).components.groupby("kind")["energy_dynamic_pj"].sum()
    layers = [program(mapping, mapped, 1.0, ROWS, ChipSeed(seed)).crossbars for mapped in mapping.layers]
    return {
        "power": 1e6 * sum(mean_power_w(layer, mapped) for layer, mapped in zip(layers, mapping.layers, strict=True)),
        **accuracies(activity),
        "read": float(energy["crossbar"]) * 1e-3,
    }


def mean_power_w(layer: ProgrammedLayer, mapped: LayerMapping) -> float:
    """Mean power of a token's reads when `RATE` of the inputs spike, the same ones whatever the cells hold."""
    generator = torch.Generator().manual_seed(0)
    spikes = torch.rand(4, *mapped.row_layer.in_shape, generator=generator) < RATE
    power = read_power_w(layer, spikes.int(), ROWS)
    assert power is not None, "the chip has a read voltage"
    return float(power.sum(1).mean())


def main() -> int:
    """Compute what is missing and write tables and figure."""
    this = study("weight-encoding", __doc__)
    found, gained = chips(this), with_gains(this)
    draw(this, found)
    rows = [[*key, *(figures.text(column) for column in COLUMNS)] for key, figures in found.items()]
    lines = [
        "# How weights are stored in cells",
        "",
        f"Command: `python reports/weight_encoding.py`. `{NETWORK}` on `{CHIP}` with `rram-20k-200k` cells that",
        "spread by 10 %, drivers of 200 ohm, wires of 2.5 ohm from cell to cell, reads of 0.1 V and open unused cells;",
        "five chips, mean ± standard deviation. Cells in use: the share whose level is in the lowest quarter, and the",
        "mean level, of the largest. NF: mean over layers. Power: all layers' reads of a token, the same tenth of the",
        "inputs driven. Raw and calibrated (one digital gain per layer): accuracy on 360 samples, 99.7 % ideal. Reads",
        "of a sample: energy, with the spikes that this chip makes.",
        "",
        *table(["signs, cells", "stored", *COLUMNS.values()], rows),
        "",
        "![Accuracy by power of a read](accuracy.svg)",
        "",
        "`standard` is SpikeSim's non-ideality-aware encoding with `diff`. Published, of other devices and networks:",
        "it gives back 40 points of accuracy (4-bit VGG16; SpikeSim, arXiv 2210.12899, second-hand), and SwitchX",
        "(ACM 3576195) saves 21 to 22 % of power (binary VGG16). Direction and order can be compared.",
        "",
        "## Beside `standard` on the same chip",
        "",
        *table(["signs, cells", "stored", *(name for name in COLUMNS.values())], differences(found)),
        "",
    ]
    if gained:
        rows = [[*key, *(figures.text(column) for column in COLUMNS_OF_GAINS)] for key, figures in gained.items()]
        lines += [
            "## Two networks and finer gains, `diff` with cells of 4 bits",
            "",
            *table(["network", "gains", "stored", *COLUMNS_OF_GAINS.values()], rows),
            "",
        ]
    return this.write([*lines, *criteria(this, found, gained), "", *notes(found)])


def beside(found: Found, key: tuple[str, str], column: str) -> np.ndarray:
    """Differences to `standard` on the same chips; of energies in per cent."""
    values, usual = found[key].values[column], found[key[0], "standard"].values[column]
    return 100 * (values / usual - 1) if column in IN_PER_CENT else values - usual


def changed(found: Found) -> list[tuple[str, str]]:
    """Everything that is stored in another way than usual."""
    return [key for key in found if key[1] != "standard"]


def differences(found: Found) -> list[list[str]]:
    """Rows of the table of differences, in points, of energies in per cent."""
    rows = []
    for key in changed(found):
        parts = [(beside(found, key, column), " %" if column in IN_PER_CENT else "") for column in COLUMNS]
        rows.append([*key, *(f"{part.mean():+.1f} ± {part.std():.1f}{unit}" for part, unit in parts)])
    return rows


def criteria(this: Study, found: Found, gained: dict[tuple[str, str, str], Figures]) -> list[str]:
    """Table of pass criteria."""
    rows = ["## Criteria", "", *GATES]
    better = [key for key in changed(found) if key[1] != "two's complement"]

    def gate(text: str, keys: list[tuple[str, str]], column: str, sign: int, slack: float = 0.0) -> None:
        means = [float(beside(found, key, column).mean()) for key in keys]
        shown = ", ".join(f"{mean:+.1f}" for mean in means)
        rows.append(this.gate(text, shown, all(sign * mean >= -slack for mean in means)))

    encoded = [key for key in better if key[1] in ("high resistance", "both")]
    gate("encoded: share of cells at high resistance rises or stays", encoded, "hrs", 1)
    gate("encoded: mean level falls or stays", encoded, "level", -1)
    gate("encoded: NF falls or stays", encoded, "nf", -1)
    gate("encoded: calibrated accuracy rises or stays (0.5 points)", encoded, "calibrated", 1, 0.5)
    gate("encoded: power of a read falls or stays", encoded, "power", -1)
    swapped = [key for key in better if key[1] == "swapped"]
    gate("swapped: mean level falls or stays", swapped, "level", -1)
    gate("swapped: NF falls or stays", swapped, "nf", -1)
    gate("swapped: power of a read falls or stays", swapped, "power", -1)
    if gained:
        means = [
            gained[network, scope, "high resistance"].mean("calibrated")
            - gained[network, scope, "standard"].mean("calibrated")
            for network, scope in product(NETWORKS, SCOPES)
        ]
        text = ", ".join(f"{mean:+.1f}" for mean in means)
        rows.append(
            this.gate("encoded: so with any gains, in both networks", text, all(mean >= -0.5 for mean in means))
        )
    twos = [key for key in found if key[1] == "two's complement"]
    if twos:
        gate("two's complement: NF is larger", twos, "nf", 1)
        gate("two's complement: calibrated accuracy is lower", twos, "calibrated", -1)
    return rows


def notes(found: Found) -> list[str]:
    """Where a way that should help does not, by more than its spread."""
    wanted = {"nf": -1, "power": -1, "raw": 1, "calibrated": 1, "read": -1}
    lines = ["## Where it does not hold", ""]
    for key in changed(found):
        for column, sign in wanted.items() if key[1] != "two's complement" else ():
            part = beside(found, key, column)
            if sign * part.mean() < -max(part.std(), 0.05):
                unit = "%" if column in IN_PER_CENT else "points"
                lines.append(f"- {', '.join(key)}: {COLUMNS[column]} {part.mean():+.1f} {unit}")
    why = [
        "Lines take current from sums, while lifts are subtracted in full: all columns of `diff` fall short alike.",
        "Negated columns come out too large instead, and the two kinds compare worse, until gains undo both.",
    ]
    return [*lines, "", *why] if len(lines) > 2 else []


def draw(this: Study, found: Found) -> None:
    """Calibrated accuracy over the power of a read."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, axes = plt.subplots(figsize=(6, 3.4))
    markers = dict(zip(STORED, "xos^D", strict=True))
    for number, cells in enumerate(dict.fromkeys(key[0] for key in found)):
        colour = f"C{number}"
        axes.plot([], [], color=colour, label=cells)
        for key in found:
            if key[0] == cells:
                place = found[key].mean("power"), found[key].mean("calibrated")
                axes.plot(*place, markers[key[1]], color=colour, fillstyle="none")
    for stored_as, marker in markers.items():
        axes.plot([], [], marker, color="black", fillstyle="none", label=stored_as)
    axes.set_xscale("log")
    axes.set_xlabel("power of a read [uW]")
    axes.set_ylabel("calibrated accuracy [%]")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "accuracy.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

"""SATA_Sim regenerated: counts, inference energies, improvement factors and the training calculator, defects included.

References are what the tool stores or prints. The arithmetic is in `sata_counts`, `sata_inference` and
`sata_training`; the simulated platform, `hwconfigs/sata-16x8.yaml`, uses none of it.
Source: RuokaiYin/SATA_Sim at d447058 and 0f0a2f8; Yin et al., arXiv 2204.05422 and arXiv 2309.03388.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path

from archsim.analysis.training_energy import Sparsity, training_energy
from archsim.hardware.reader import load_library
from archsim.validation import sata_inference as inference
from archsim.validation import sata_training as training
from archsim.validation.check import Check
from archsim.validation.sata_counts import COLS, ROWS, LayerCounts, LayerShape, dram_ifmap_reads, layer_counts
from archsim.validation.sata_inference import BETWEEN, EYERISS, LATEST, PUBLISHED, Energy, inference_energy, packed
from archsim.validation.sata_works import CIFARNET, RESNET19, VGG9, WORKS, Regime
from archsim.workload.builders import vgg5

GRID = Path(__file__).parent / "sata_training_grid.csv"
FOUR_DIGITS = 5e-4
FIVE_DIGITS = 5e-5
SIX_DIGITS = 5e-6
"""Half a unit of the last digit of a figure with so many digits, relative, at worst."""

CONV2 = LayerCounts(272687, 269221, 4147200, 36864, 68544, 649682, 36864, 57600)
RESNET_CONV2 = LayerCounts(1070687, 1079653, 16588800, 147456, 137088, 3748404, 147456, 115200)
NETWORKS = (
    ("VGG9", VGG9, LayerCounts(863023, 1466003, 7745376, 3307200, 184448, 950066, 3307200, 149504)),
    ("CIFARNet", CIFARNET, LayerCounts(7608777, 11337385, 87174848, 19828096, 587392, 22693243, 19828096, 486400)),
    ("ResNet-19", RESNET19, LayerCounts(15433150, 18244997, 223162048, 14486912, 1447296, 61465883, 14486912, 1211136)),
)
"""Sums of stored counts, output maps without the words that the tool adds where they overflow half a buffer."""

STORED = {
    "S-BP": (44617153, 4.30086e6, 2.06573e6, 4.35706e6, 1.07236e7, 4.565),
    "BNTT": (18726463, 1.79428e6, 2.06573e6, 1.93461e6, 5.7946e6, 2.900),
    "Direct": (87425155, 8.43729e6, 2.01604e7, 9.7166e6, 3.8314e7, 2.289),
    "TSSL": (49381270, 4.74196e6, 2.01604e7, 6.15704e6, 3.1059e7, 4.881),
    "LTH": (95410747, 8.88696e6, 3.61715e7, 1.18217e7, 5.6880e7, 1.320),
    "TDBN": (79977597, 7.85535e6, 3.61715e7, 1.03777e7, 5.4405e7, 6.776),
}
"""Cycles; computation, DRAM, SRAM and total in nJ; improvement over the inferred baseline."""

LATEST_VGG9 = {
    1: (2329026, 3.236e5, (2.470e5, 2.310e5, 2.182e5), (2.1853e6, 2.1693e6, 2.1565e6)),
    4: (4918095, 5.667e5, (5.819e5, 5.180e5, 4.669e5), (2.7634e6, 2.6994e6, 2.6483e6)),
    8: (8370187, 8.909e5, (1.0286e6, 9.007e5, 7.984e5), (3.5341e6, 3.4063e6, 3.3040e6)),
}
"""By timesteps: cycles, SRAM, computation and total in nJ at the sparsities below."""
LATEST_PACKED = {
    2: (5.017e6, 4.175e6, 3.501e6),
    4: (7.732e6, 6.048e6, 4.700e6),
    8: (1.3161e7, 9.793e6, 7.098e6),
}
LATEST_RESNET19 = {
    4: (79977597, (2.918e7, 2.762e7, 2.637e7)),
    10: (172576497, (5.110e7, 4.719e7, 4.407e7)),
}
SPARSITIES = (0.0, 0.5, 0.9)
STORED_PACKED = {
    2: (1.207e6, 1.941e6, 3.755e5, 3.524e6),
    4: (1.948e6, 2.262e6, 5.354e5, 4.746e6),
    8: (3.429e6, 2.905e6, 8.552e5, 7.189e6),
}
"""Computation, DRAM, SRAM, total in nJ at sparsity 0.9."""
DEFAULT_PRINT = (4798986139.14, 250572776.97, 625845.29, 249946931.68)
"""Total, forward total, its computation and its memory, in 16-bit multiply-accumulates."""

SPARSE = Sparsity(spikes=0.9, potential_gradients=0.8)
"""Assumption: the sparsity of gradients is not published; 0.8 is fitted to the published gain of computation, 5.58."""


def improvement(network: Sequence[LayerShape], counts: LayerCounts, regime: Regime, baseline: Regime) -> float:
    """Energy of the baseline over that of the regime, on the same network, in the published arithmetic."""
    energies = [inference_energy(network, counts, run.timesteps, run.sparsity) for run in (baseline, regime)]
    return energies[0].total_nj / energies[1].total_nj


def checks(progress: Callable[[str, float], None] | None = None) -> Iterator[Check]:
    """Everything that `archsim validate sata` compares."""
    tell = progress or (lambda _phase, _done: None)
    yield from count_checks()
    tell("SATA_Sim", 0.3)
    yield from published_checks()
    tell("SATA_Sim", 0.7)
    yield from latest_checks()
    yield from stored_packed_checks()
    yield from training_checks()
    yield from training_ratio_checks()
    tell("SATA_Sim", 1.0)


def count_checks() -> Iterator[Check]:
    """Cycles and accesses."""
    yield from _count_checks("VGG9 Conv2", layer_counts(VGG9[1]), CONV2)
    yield Check("VGG9 Conv2: dram_ifmap_reads, 8 KB", "", 1814723, dram_ifmap_reads(VGG9[1], ROWS, COLS, 8192))
    yield from _count_checks("ResNet-19 Conv2", layer_counts(RESNET19[1]), RESNET_CONV2)
    for name, network, reference in NETWORKS:
        yield from _count_checks(name, inference.network_counts(network), reference)


def _count_checks(name: str, found: LayerCounts, reference: LayerCounts) -> Iterator[Check]:
    for item in fields(LayerCounts):
        yield Check(f"{name}: {item.name}", "", getattr(reference, item.name), getattr(found, item.name), 0.0)


def published_checks() -> Iterator[Check]:
    """Energies stored for the six works, and their improvement factors."""
    counts = {network: inference.network_counts(network) for _, network, _ in NETWORKS}
    for work in WORKS:
        regime, baseline = work.regime, work.baseline
        found = inference_energy(work.network, counts[work.network], regime.timesteps, regime.sparsity)
        *energies, factor = STORED[work.name]
        yield from _energy_checks(work.name, found, tuple(energies), SIX_DIGITS)
        name = f"{work.name}: improvement over {baseline.timesteps} timesteps"
        ours = improvement(work.network, counts[work.network], regime, baseline)
        yield Check(name, "x", factor, ours, FOUR_DIGITS, note=f"paper {work.sata:g}; the baseline is inferred")


def _energy_checks(name: str, found: Energy, reference: tuple[float, ...], digits: float) -> Iterator[Check]:
    """Cycles exactly; energies to the digits of the reference."""
    cycles, compute_nj, dram_nj, sram_nj, total_nj = reference
    yield Check(f"{name}: cycles", "", cycles, found.cycles, 0.0)
    yield Check(f"{name}: computation", "nJ", compute_nj, found.compute_nj, digits)
    yield Check(f"{name}: DRAM", "nJ", dram_nj, found.dram_nj, digits)
    yield Check(f"{name}: SRAM", "nJ", sram_nj, found.sram_nj, digits)
    yield Check(f"{name}: total", "nJ", total_nj, found.total_nj, FIVE_DIGITS)


def latest_checks() -> Iterator[Check]:
    """The last version of the tool: three platforms and networks over timesteps and sparsity."""
    counts = inference.network_counts(VGG9)
    for timesteps, (cycles, sram_nj, compute_nj, total_nj) in LATEST_VGG9.items():
        energies = [inference_energy(VGG9, counts, timesteps, sparsity, LATEST) for sparsity in SPARSITIES]
        name = f"last version, VGG9, T {timesteps}"
        yield Check(f"{name}: cycles", "", cycles, energies[0].cycles, 0.0)
        yield Check(f"{name}: SRAM", "nJ", sram_nj, energies[0].sram_nj, FOUR_DIGITS)
        yield Check(f"{name}: DRAM", "nJ", 1.6147e6, energies[0].dram_nj, FIVE_DIGITS)
        for sparsity, energy, compute, total in zip(SPARSITIES, energies, compute_nj, total_nj, strict=True):
            yield Check(f"{name}, sparsity {sparsity}: computation", "nJ", compute, energy.compute_nj, FOUR_DIGITS)
            yield Check(f"{name}, sparsity {sparsity}: total", "nJ", total, energy.total_nj, FIVE_DIGITS)
    for timesteps, totals in LATEST_PACKED.items():
        platform = packed(timesteps)
        counts = inference.network_counts(VGG9, platform)
        for sparsity, total in zip(SPARSITIES, totals, strict=True):
            energy = inference_energy(VGG9, counts, timesteps, sparsity, LATEST, platform)
            name = f"last version, VGG9, T {timesteps} packed, sparsity {sparsity}: total"
            yield Check(name, "nJ", total, energy.total_nj, FOUR_DIGITS)
    counts = inference.network_counts(RESNET19)
    for timesteps, (cycles, totals) in LATEST_RESNET19.items():
        for sparsity, total in zip(SPARSITIES, totals, strict=True):
            energy = inference_energy(RESNET19, counts, timesteps, sparsity, LATEST)
            name = f"last version, ResNet-19, T {timesteps}, sparsity {sparsity}"
            yield Check(f"{name}: total", "nJ", total, energy.total_nj, FOUR_DIGITS)
        yield Check(f"last version, ResNet-19, T {timesteps}: cycles", "", cycles, energy.cycles, 0.0)
    unit_uw = [part.every_cycle_uw + part.gated_uw for part in (inference.LIF, inference.SPIKE_MAC)]
    share = unit_uw[0] / (sum(unit_uw) - 2.35 + inference.AND_16_BIT_UW)
    yield Check("share of the neuron unit in a unit's power, 16-bit AND", "%", 61.6, 100 * share, 1e-3)


def stored_packed_checks() -> Iterator[Check]:
    """The spiking network against the ordinary one, as stored: the break-even lies between 2 and 3 timesteps."""
    counts = inference.network_counts(VGG9)
    ordinary = inference_energy(VGG9, counts, 1, 0.5, PUBLISHED, EYERISS)
    note = "stored: 2329030"
    yield Check("stored, VGG9 without spikes: cycles", "", 2329026, ordinary.cycles, 0.0, note=note)
    yield Check("stored, VGG9 without spikes: total", "nJ", 3.8126e6, ordinary.total_nj, FIVE_DIGITS)
    for (timesteps, stored), ratio in zip(STORED_PACKED.items(), (0.92, 1.24, 1.89), strict=True):
        platform = packed(timesteps)
        counts = inference.network_counts(VGG9, platform)
        energy = inference_energy(VGG9, counts, timesteps, 0.9, BETWEEN, platform)
        found = (energy.compute_nj, energy.dram_nj, energy.sram_nj, energy.total_nj)
        parts = ("computation", "DRAM", "SRAM", "total")
        for part, reference, ours in zip(parts, stored, found, strict=True):
            yield Check(f"stored, VGG9, T {timesteps} packed: {part}", "nJ", reference, ours, FOUR_DIGITS)
        name = f"stored, VGG9, T {timesteps}: spikes over no spikes"
        yield Check(name, "x", ratio, energy.total_nj / ordinary.total_nj, 0.005)


def training_checks() -> Iterator[Check]:
    """The training calculator's default print, and its grid of 36 settings by the worst deviation of every column."""
    network, library = vgg5(), load_library("sata-training-65nm")
    setting = training.Setting()
    found = training.printed(training.counts(network, setting), setting.forward_bits, library)
    ours = (found.total, found.fwd_total, found.fwd_comp, found.fwd_mem)
    names = ("total", "forward total", "forward computation", "forward memory")
    for name, reference, figure in zip(names, DEFAULT_PRINT, ours, strict=True):
        yield Check(f"training, defaults: {name}", "MAC", reference, figure, 0.005 / reference)
    worst: dict[str, float] = {}
    with GRID.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, sparsity in product(rows, SPARSITIES):
        bits = int(row["forward_bits"])
        setting = training.Setting(int(row["timesteps"]), bits, spike_sparsity=sparsity)
        found = training.printed(training.counts(network, setting), bits, library)
        for column, name in (("total", f"total_{sparsity:g}"), ("wup_comp", f"wup_comp_{sparsity:g}")):
            worst[column] = max(worst.get(column, 0.0), abs(getattr(found, column) / float(row[name]) - 1))
        for column in ("fwd_comp", "fwd_mem", "bwd_comp", "bwd_mem", "wup_mem"):
            worst[column] = max(worst.get(column, 0.0), abs(getattr(found, column) / float(row[column]) - 1))
    for column, error in worst.items():
        tolerance = FOUR_DIGITS if column == "wup_comp" else SIX_DIGITS
        yield Check(f"training, 36 settings: worst {column}", "", None, error, bounds=(0.0, tolerance))


def training_ratio_checks() -> Iterator[Check]:
    """The corrected training energy against the published ratios of a spiking over an ordinary network."""
    network = vgg5()
    ordinary = training_energy(network, spiking=False).total
    dense = training_energy(network, 8).total
    sparse = training_energy(network, 8, sparsity=SPARSE).total
    fit = "the sparsity of gradients is assumed"
    for name, paper, ours, tolerance, note in (
        ("total, dense", 1.35, dense.total_pj / ordinary.total_pj, 0.05, ""),
        ("computation, dense", 3.28, dense.compute_pj / ordinary.compute_pj, 0.05, ""),
        ("memory, dense", 1.28, dense.memory_pj / ordinary.memory_pj, 0.05, ""),
        ("total, sparse", 1.27, sparse.total_pj / ordinary.total_pj, 0.05, fit),
        ("computation, dense over sparse", 5.58, dense.compute_pj / sparse.compute_pj, 0.01, f"{fit} to give this"),
    ):
        yield Check(f"training, corrected, VGG5, T 8: {name}", "x", paper, ours, tolerance, note=note)

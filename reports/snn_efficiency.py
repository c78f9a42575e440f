"""Are spiking networks efficient on hardware? `python reports/snn_efficiency.py` writes reports/snn-efficiency/.

Improvement factors of six published works over their baselines: estimated from operation counts, on a systolic array
(SATA) and on a crossbar chip (SpikeSim), published figures beside ours. After Yin et al., "Are SNNs Truly
Energy-efficient?", arXiv 2309.03388, Table II. Takes about four minutes of one processor.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import archsim
from archsim.errors import MappingError
from archsim.validation.sata import improvement
from archsim.validation.sata_inference import network_counts
from archsim.validation.sata_works import WORKS, Regime, Work

FOLDER = Path(__file__).resolve().parent / "snn-efficiency"
CHIP, DENSE = "spikesim-rram-64", {"tile.pe.crossbar.zero_skip": False}
CHIP_TIMESTEPS = (1, 2, 3)
"""Timesteps at which the crossbar chip is simulated; its energy grows by the same amount with every further one."""
COLUMNS = ("in_height", "in_width", "in_channels", "out_channels", "kernel_height", "kernel_width", "stride")
INTRO = """# Are spiking networks efficient on hardware?

Command: `python reports/snn_efficiency.py`. Six published works, each over the baseline that it improves on; a
factor is energy of the baseline over energy of the work. **The baselines are inferred**: their timesteps and sparsity
(0.5) are not published, but give the energies stored with SATA_Sim to six digits. Spikes are drawn at one rate for
all layers, as in the original; the sparsity of LTH is that of its weights in the paper and counts as one of spikes, as
in the original. No network is trained here: accuracies are the papers'.

- *Estimated*: FLOPs x timesteps x (1 - sparsity), the count that papers use; published, and by the same formula from
  the inferred baselines (which does not give S-BP and LTH: their estimates rest on other assumptions).
- *SATA*: published; regenerated with the original tool's arithmetic (`archsim.validation`, defects included); and on
  the simulated array `sata-16x8`, where stalls, weights fetched per batch of timesteps, potentials, padding and
  precision count, and buffers leak in both banks.
- *SpikeSim*: published; the crossbar chip in dense, T-linear mode, which is **a ratio of timesteps** and nothing else;
  and the simulated chip `spikesim-rram-64`, dynamic energy, which reads dense or skips silent crossbars.
"""


@lru_cache
def table_of(work: Work, folder: str) -> Path:
    """The work's network as a layer table."""
    path = Path(folder) / f"{work.name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("layer", *COLUMNS))
        for number, layer in enumerate(work.network):
            writer.writerow((f"layer{number}", *(getattr(layer, column) for column in COLUMNS)))
    return path


def energy_pj(hardware: str, changes: dict[str, object], table: Path, timesteps: int, rate: float, key: str) -> float:
    """Energy of an inference, in pJ."""
    print(f"{table.stem} on {hardware}, T {timesteps}, rate {rate:.2f}", file=sys.stderr, flush=True)
    workload = archsim.load_workload(table, timesteps=timesteps, settings={"assumed_rate": rate})
    return float(archsim.simulate(archsim.load_hardware(hardware, changes), workload).summary[key])


def on_array(work: Work, regime: Regime, folder: str) -> tuple[float, int]:
    """Energy on the systolic array in pJ, and the timesteps of a batch: the most that its buffers hold."""
    for batch in (size for size in range(regime.timesteps, 0, -1) if regime.timesteps % size == 0):
        changes = {"mapping.batch_timesteps": batch}
        rate = 1.0 - regime.sparsity
        try:
            return energy_pj("sata-16x8", changes, table_of(work, folder), regime.timesteps, rate, "energy_pj"), batch
        except MappingError:
            continue
    raise MappingError(f"{work.name}: a single timestep does not fit")


def on_chip(work: Work, regime: Regime, folder: str, changes: dict[str, object]) -> float:
    """Dynamic energy on the crossbar chip in pJ, continued in timesteps along the line through those simulated."""
    rate = 1.0 - regime.sparsity
    first, *_, last = (
        energy_pj(CHIP, changes, table_of(work, folder), steps, rate, "energy_dynamic_pj") for steps in CHIP_TIMESTEPS
    )
    slope = (last - first) / (CHIP_TIMESTEPS[-1] - CHIP_TIMESTEPS[0])
    return first + slope * (regime.timesteps - CHIP_TIMESTEPS[0])


def factors(work: Work, folder: str) -> dict[str, float]:
    """All factors of a work."""
    run, base = work.regime, work.baseline
    (energy, batch), (before, batch_before) = (on_array(work, regime, folder) for regime in (run, base))
    chip = {name: [on_chip(work, regime, folder, changes) for regime in (base, run)] for name, changes in MODES.items()}
    return {
        "estimated, paper": work.estimated,
        "estimated, formula": base.timesteps * (1 - base.sparsity) / (run.timesteps * (1 - run.sparsity)),
        "SATA, paper": work.sata,
        "SATA, regenerated": improvement(work.network, network_counts(work.network), run, base),
        "SATA, simulated": before / energy,
        "SpikeSim, paper": work.spikesim,
        "SpikeSim, ratio of T": base.timesteps / run.timesteps,
        **{f"SpikeSim, simulated {name}": energies[0] / energies[1] for name, energies in chip.items()},
        "batch": batch,
        "batch of baseline": batch_before,
    }


MODES: dict[str, dict[str, object]] = {"dense": DENSE, "skipping": {}}


def main() -> int:
    """Simulate everything, write table and figure."""
    with tempfile.TemporaryDirectory() as folder:
        found = {work.name: factors(work, folder) for work in WORKS}
    FOLDER.mkdir(exist_ok=True)
    text = "\n".join([INTRO, *lines(found)]) + "\n"
    (FOLDER / "README.md").write_text(text, encoding="utf-8")
    draw(found)
    print(text)
    return 0


def lines(found: dict[str, dict[str, float]]) -> list[str]:
    """The table, and what it says."""
    names = [name for name in found[WORKS[0].name] if not name.startswith("batch")]
    header = ["work", "accuracy", "T, sparsity", "baseline", *names]
    rows = [
        [
            work.name,
            f"{work.accuracy_percent:g} %",
            f"{work.regime.timesteps}, {work.regime.sparsity:g}",
            f"{work.baseline.timesteps}, {work.baseline.sparsity:g}",
            *(f"{found[work.name][name]:.3g}x" for name in names),
        ]
        for work in WORKS
    ]
    table = [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]
    shrunk = sum(found[work.name]["SATA, simulated"] < work.estimated for work in WORKS)
    batches = "; ".join(
        f"{work.name} {found[work.name]['batch']:.0f} of {work.regime.timesteps}, baseline "
        f"{found[work.name]['batch of baseline']:.0f} of {work.baseline.timesteps}"
        for work in WORKS
    )
    return [
        *table,
        "",
        f"The estimate shrinks on the simulated array for {shrunk} of {len(WORKS)} works. On a systolic array zero",
        "spikes save energy of accumulators and weight scratchpads, but no cycles and no traffic. Its factors are",
        "close to the ratio of timesteps, because everything but the weights of a batch repeats in every timestep;",
        "the original tool finds smaller ones, as it counts the DRAM traffic of maps once for all timesteps and adds",
        "the span of a weight-stationary run once. On the crossbar chip skipping saves next to nothing: few crossbars",
        "are silent, and reading them is a small part of the energy.",
        "",
        f"Timesteps of a batch on the simulated array, as many as its buffers hold: {batches}.",
        f"The crossbar chip is simulated at {CHIP_TIMESTEPS} timesteps and continued on a line.",
        "",
        "![Improvement factors: estimated, on SATA, on SpikeSim](factors.svg)",
    ]


SHOWN = {
    "estimated, paper": "0.75",
    "SATA, paper": "#9ecae1",
    "SATA, regenerated": "#4292c6",
    "SATA, simulated": "#08519c",
    "SpikeSim, paper": "#fdae6b",
    "SpikeSim, ratio of T": "#e6550d",
    "SpikeSim, simulated skipping": "#8c2d04",
}


def draw(found: dict[str, dict[str, float]]) -> None:
    """Bars of every work, on a logarithmic scale."""
    matplotlib.rcParams["svg.hashsalt"] = "archsim"
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    width = 0.8 / len(SHOWN)
    for number, (name, color) in enumerate(SHOWN.items()):
        at = [index + (number - (len(SHOWN) - 1) / 2) * width for index in range(len(WORKS))]
        axes.bar(at, [found[work.name][name] for work in WORKS], width, label=name, color=color)
    axes.set_xticks(range(len(WORKS)), [work.name for work in WORKS])
    axes.set_yscale("log")
    axes.set_ylabel("energy of the baseline over that of the work")
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(FOLDER / "factors.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())

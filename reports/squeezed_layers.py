"""What crossbar-aware pruning saves on a chip: `python reports/squeezed_layers.py [--small]`.

Writes reports/squeezed-layers/: the shapes of VGG11 and VGG16 for CIFAR-10, without and with C/F, XCS and XRS sparsity,
mapped squeezed and simulated with assumed spikes. Nothing is trained. Interrupted runs go on where they ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from study import GATES, Figures, Point, Study, study, table

import archsim
from archsim.hardware.models import Hardware
from archsim.inference import assumed_activity, recording_of
from archsim.training import Net, Neuron, Weighted, kept, prune, without_filters
from archsim.training.pruning import Kind
from archsim.workload.builders import vgg11, vgg16
from archsim.workload.model import Workload
from archsim.workload.network import Network

CHIP = "spikesim-rram-64"
NETWORKS: dict[str, Callable[..., Network]] = {"VGG11": vgg11, "VGG16": vgg16}
CASES = (("VGG11", 9), ("VGG16", 9), ("VGG11", 1))
"""Networks, and crossbars of a PE: those of the chip, or one."""
KINDS: dict[Kind, str] = {"filters": "C/F", "columns": "XCS", "rows": "XRS"}
SPARSITIES = (0.5, 0.8, 0.9)
RATE = 0.1

Case = tuple[str, int]
Way = tuple[Kind, float]
UNPRUNED: Way = ("none", 0.0)


def ways(this: Study) -> list[Way]:
    """Kinds and sparsities that are tried."""
    return [
        UNPRUNED,
        *((kind, sparsity) for kind in KINDS for sparsity in (SPARSITIES[1:2] if this.small else SPARSITIES)),
    ]


def points(this: Study) -> dict[Case, dict[Way, Figures]]:
    """Figures of all simulations; the small version has one network on one chip."""
    found: dict[Case, dict[Way, Figures]] = {}
    for name, crossbars in CASES[:1] if this.small else CASES:
        found[name, crossbars] = {
            (kind, sparsity): this.over_seeds(
                f"{name}_{crossbars}_{kind}_{sparsity}",
                {"rate": RATE, "chip": CHIP},
                lambda seed, name=name, crossbars=crossbars, kind=kind, sparsity=sparsity: simulated(
                    name, crossbars, kind, sparsity, seed
                ),
            )
            for kind, sparsity in ways(this)
        }
    return found


def simulated(name: str, crossbars: int, kind: Kind, sparsity: float, seed: int) -> Point:
    """One sample of one timestep; the spikes of a layer are the same whatever its crossbars leave out."""
    squeeze = kind if kind in ("columns", "rows") else "none"
    changes = {"tile.pe.crossbars": crossbars, "mapping.layout": "dense", "mapping.squeeze": squeeze}
    hardware = archsim.load_hardware(CHIP, changes)
    full = NETWORKS[name](seed=seed)
    held = full if kind == "none" else pruned(full, kind, sparsity, hardware)
    shapes = replace(held, layers=tuple(replace(layer, weights=None) for layer in held.layers))
    rates = {layer: (RATE,) for layer in ("input", *(layer.name for layer in shapes.layers))}
    workload = Workload(name, shapes, 1, None, assumed_rates=rates)
    recording = recording_of(assumed_activity(workload, 1, seed), workload)
    result = archsim.simulate(hardware, replace(workload, network=held, recording=recording))
    tables = result.components[result.components["kind"] == "index_table"]
    n_weights = sum(int((layer.weights != 0).sum()) for layer in held.layers)
    summary = result.summary
    return {
        "weights": n_weights / sum(layer.weights.size for layer in full.layers),
        "crossbars": summary["n_crossbars"],
        "latency": summary["latency_ps"] * 1e-6,
        "energy": summary["energy_pj"] * 1e-6,
        "area": summary["area_um2"] * 1e-6,
        "tables energy": tables[["energy_dynamic_pj", "energy_leakage_pj"]].sum().sum() / summary["energy_pj"],
        "tables area": tables["area_um2"].sum() / summary["area_um2"],
    }


def pruned(network: Network, kind: Kind, sparsity: float, hardware: Hardware) -> Network:
    """The network without its weakest filters or segments, all layers but the last.

    Segments are what a chip can leave out: as many rows as a PE has, or as many columns as a crossbar.
    """
    pe = hardware.tile.pe
    size = pe.crossbars * pe.crossbar.rows if kind == "columns" else pe.crossbar.cols
    layers = [Weighted(torch.as_tensor(layer.weights).squeeze()) for layer in network.layers]
    net = Net(layers, Neuron())
    masks = prune(net, kind, sparsity, size)
    net = without_filters(net, masks) if kind == "filters" else kept(net, masks)
    held = []
    for layer, weighted in zip(network.layers, net.weighted_layers(), strict=True):
        weights = weighted.weight.detach().numpy()
        weights = weights.reshape(*weights.shape[:2], *layer.kernel)
        in_shape = (weights.shape[1], *layer.in_shape[1:])
        held.append(replace(layer, weights=weights, in_shape=in_shape, out_channels=len(weights)))
    return replace(network, layers=tuple(held))


def main() -> int:
    """Compute what is missing and write tables and figure."""
    this = study("squeezed-layers", __doc__)
    found = points(this)
    draw(this, found)
    lines = [
        "# Pruned layers on a chip that leaves out what is empty",
        "",
        f"Command: `python reports/squeezed_layers.py`. Chip `{CHIP}`, dense layout; random weights, all layers but",
        f"the classifier pruned by magnitude, assumed rate {RATE}, one timestep; mean ± standard deviation over",
        f"{len(this.seeds)} seeds. C/F removes filters, and with them rows of the next layer: the network is smaller.",
        "XCS removes columns over the rows of a PE (`mapping.squeeze: columns`), XRS rows over the columns of a",
        "crossbar (`rows`). Compression is the ratio of crossbars. Energy includes leakage; index tables are in both.",
        "",
    ]
    for (name, crossbars), parts in found.items():
        lines += [
            f"## {name} for CIFAR-10, PEs of {crossbars} crossbar{'s' * (crossbars > 1)} of 64 x 64",
            "",
            *rows(parts),
            "",
        ]
    lines += [
        "![Energy over sparsity](energy.svg)",
        "",
        "Where nine crossbars share bit lines, converters of the first layer set the pace: fewer columns (C/F, XCS)",
        "shorten their turns, fewer rows (XRS) do not, and index tables of rows are read with every fetch. Where each",
        "crossbar is a PE, partial sums that arrive over the NoC set the pace, and fewer rows make fewer of them. At",
        "equal sparsity XRS saves more crossbars: rows are packed over the whole kernel, columns over those of a PE.",
        "",
    ]
    return this.write([*lines, *criteria(this, found)])


def rows(parts: dict[Way, Figures]) -> list[str]:
    """The table of one network on one chip."""
    header = [
        "pruning",
        "sparsity",
        "weights left",
        "crossbars",
        "compression",
        "latency [us]",
        "energy [uJ]",
        "area [mm2]",
        "index tables, of energy",
        "of area",
    ]
    unpruned = parts[UNPRUNED].mean("crossbars")
    return table(
        header,
        [
            [
                KINDS.get(kind, "none"),
                f"{sparsity:g}",
                _percent(part.mean("weights")),
                part.text("crossbars"),
                f"{unpruned / part.mean('crossbars'):.2f}x",
                part.text("latency"),
                f"{part.mean('energy'):.2f} ± {part.values['energy'].std():.2f}",
                f"{part.mean('area'):.3g}",
                _percent(part.mean("tables energy")),
                _percent(part.mean("tables area")),
            ]
            for (kind, sparsity), part in parts.items()
        ],
    )


def criteria(this: Study, found: dict[Case, dict[Way, Figures]]) -> list[str]:
    """Table of pass criteria."""
    lines = ["## Criteria", "", *GATES]
    for key, what in (("crossbars", "crossbars fall"), ("energy", "energy falls"), ("area", "area falls")):
        falling = [
            later.mean(key) < earlier.mean(key)
            for parts in found.values()
            for kind in KINDS
            for earlier, later in pairwise([parts[way] for way in parts if way == UNPRUNED or way[0] == kind])
        ]
        text = f"in {sum(falling)} of {len(falling)} steps"
        lines.append(this.gate(f"{what} with every kind of sparsity, step by step", text, all(falling)))
    tables = [
        (parts["columns", sparsity].mean("tables energy"), parts["rows", sparsity].mean("tables energy"))
        for parts in found.values()
        for kind, sparsity in parts
        if kind == "rows"
    ]
    text = ", ".join(f"{_percent(one)} and {_percent(other)}" for one, other in tables)
    holds = all(one < other for one, other in tables)
    lines.append(this.gate("index tables of columns take less of the energy than those of rows", text, holds))
    ratios = [
        part.mean("latency") / parts[UNPRUNED].mean("latency") for parts in found.values() for part in parts.values()
    ]
    lines.append(this.gate("nothing takes longer than the whole network", f"{max(ratios):.2f}", max(ratios) < 1.005))
    return lines


def draw(this: Study, found: dict[Case, dict[Way, Figures]]) -> None:
    """Energy over sparsity, relative to the whole network."""
    plt.rcParams["svg.hashsalt"] = this.name
    figure, panels = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), sharey=True, squeeze=False)
    for axes, ((name, crossbars), parts) in zip(panels[0], found.items(), strict=True):
        for kind, label in KINDS.items():
            mine = [(sparsity, part) for (one, sparsity), part in parts.items() if one in ("none", kind)]
            shares = [part.values["energy"] / parts[UNPRUNED].mean("energy") for _, part in mine]
            means, spreads = [share.mean() for share in shares], [share.std() for share in shares]
            axes.errorbar([s for s, _ in mine], means, spreads, capsize=2, marker="o", markersize=3, label=label)
        axes.set(title=f"{name}, {crossbars} per PE", xlabel="sparsity", ylim=(0, 1.05))
    panels[0][0].set_ylabel("energy, relative")
    panels[0][0].legend(fontsize="small")
    this.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(this.folder / "energy.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    sys.exit(main())

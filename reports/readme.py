"""Writes the figures of README.md and docs/: `python reports/readme.py`; `--check` only says whether they are current.

Runs the examples and `validate spikesim`, puts their tables between the markers in the documents, and
draws the picture. Nothing in those places is written by hand.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich.console import Console

import archsim
from archsim.analysis import breakdown
from archsim.report.terminal import headline_rows, print_result
from archsim.report.text import percent
from archsim.result import Result
from archsim.validation import spikesim

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CHIPS = ROOT / "docs" / "chips.md"
PICTURE = ROOT / "reports" / "digits-cnn" / "energy_by_layer.svg"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
"""Okabe and Ito's palette, legible for colour-blind readers."""
CELLS = {
    "tile.pe.crossbar.device.preset": "rram-20k-200k",
    "tile.pe.crossbar.device.d2d_sigma_rel": 0.1,
    "tile.pe.crossbar.r_driver_ohm": 200,
    "tile.pe.crossbar.r_wire_row_ohm": 2.5,
    "tile.pe.crossbar.r_wire_col_ohm": 2.5,
    "tile.pe.crossbar.signed": "differential",
    "mapping.calibration": "batch_norm",
}
"""What the non-ideal chip of docs/chips.md changes."""
N_CHIPS = 5
VALIDATED = (
    "PE cycle, k = 3",
    "PE cycle, nine crossbars digitised",
    "VGG9 as shipped: energy",
    "VGG9 as shipped: area",
    "VGG9 as shipped, SRAM: energy",
    "simulated: energy of the nine terms",
    "simulated: latency between bottleneck only and no overlap",
)


def main(arguments: list[str]) -> int:
    """Rewrite README's generated parts, or check them."""
    result = archsim.simulate(archsim.load_hardware("spikesim-rram-64"), archsim.load_workload("digits-cnn"))
    readme = _between(README.read_text(encoding="utf-8"), "example", f"```\n{_terminal(result)}\n```")
    files = {
        README: _between(readme, "validate", _validation_table()),
        CHIPS: _between(CHIPS.read_text(encoding="utf-8"), "chips", _chips()),
        PICTURE: _picture(result),
    }
    if "--check" in arguments:
        stale = [path for path, text in files.items() if text != path.read_text(encoding="utf-8")]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date; run python reports/readme.py")
        if not stale:
            print("README.md and docs/ are current")
        return int(bool(stale))
    PICTURE.parent.mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return 0


def _between(text: str, marker: str, content: str) -> str:
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end {marker} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)


def _terminal(result: Result) -> str:
    out = io.StringIO()
    print_result(result, Console(file=out, width=110))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _chips() -> str:
    """The command of a non-ideal chip, its accuracy and the non-ideality factors of its layers."""
    hardware, workload = archsim.load_hardware("spikesim-rram-64", CELLS), archsim.load_workload("digits-cnn")
    result = archsim.simulate(hardware, workload, chips=N_CHIPS)
    changes = [f"--set {key}={value}" for key, value in CELLS.items()]
    lines = [f"archsim run spikesim-rram-64 digits-cnn --chips {N_CHIPS}", *changes]
    rows = [(name, value) for name, value in headline_rows(result.summary) if name.startswith("Accuracy")]
    layers = result.layers.dropna(subset="nf")
    rows += [(f"NF of {', '.join(layers['layer'])}", ", ".join(percent(nf) for nf in layers["nf"]))]
    table = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(["```", " \\\n    ".join(lines), "```", "", *table])


def _validation_table() -> str:
    rows = ["| figure | unit | reference | archsim | error |", "|---|---|---|---|---|"]
    for check in spikesim.checks():
        if check.name in VALIDATED:
            reference = (
                f"{check.reference:.10g}" if check.bounds is None else f"{check.bounds[0]:.4g} .. {check.bounds[1]:.4g}"
            )
            error = "" if check.error_rel is None else f"{check.error_rel:+.1e}"
            rows.append(f"| {check.name} | {check.unit} | {reference} | {check.ours:.10g} | {error} |")
    return "\n".join(rows)


def _picture(result: Result) -> str:
    """Stacked bars: energy per layer by kind of component, leakage beside them; nJ."""
    matplotlib.rcParams["svg.hashsalt"] = "archsim"
    matplotlib.rcParams["svg.fonttype"] = "none"
    matrix = breakdown.energy_by_layer_and_kind(result) / 1e3
    leakage = result.components.groupby("kind")["energy_leakage_pj"].sum() / 1e3
    matrix.loc["leakage"] = leakage.reindex(matrix.columns).fillna(0.0)
    order = matrix.sum().sort_values(ascending=False).index
    shown = list(order[: len(COLOURS) - 1])
    figure = Figure(figsize=(8, 3.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    left = matrix.sum(axis=1) * 0.0
    parts = [(kind.replace("_", " "), matrix[kind]) for kind in shown]
    parts.append(("other", matrix[list(order[len(shown) :])].sum(axis=1)))
    for colour, (label, values) in zip(COLOURS, parts, strict=True):
        axes.barh(matrix.index, values, left=left, color=colour, label=label)
        left = left + values
    axes.invert_yaxis()
    axes.set_xlabel(f"energy of one inference [nJ], {result.summary['workload']} on {result.summary['hardware']}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False, ncols=2, fontsize="small")
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

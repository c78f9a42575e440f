"""Bottleneck reports of two runs: `python reports/bottlenecks.py` writes reports/digits-cnn and reports/vgg9-cifar10.

Each is what `archsim run spikesim-rram-64 WORKLOAD -o DIR` and `archsim report DIR` give: `report.md`, `report.html`,
`findings.json`. With `--check` nothing is written; it says whether the findings are current, numbers to a hundredth
(another processor may round a spike otherwise). Takes about half a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import archsim

TARGET = Path(__file__).resolve().parent
CHIP = "spikesim-rram-64"
WORKLOADS = ("digits-cnn", "vgg9-cifar10")
FINDINGS = "findings.json"
TOLERANCE_REL = 0.01
TOLERANCE_ABS = 1e-3
"""For gains near nothing."""


def main() -> int:
    """Write both reports, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the findings are current")
    check = parser.parse_args().check
    stale = 0
    for workload in WORKLOADS:
        result = explained(workload)
        if not check:
            write(result, TARGET / workload)
            continue
        outdated = differences(stored(workload), archsim.explanation(result))
        stale += bool(outdated)
        print(f"{workload}: {'; '.join(outdated) or 'current'}")
    return 1 if stale else 0


def explained(workload: str) -> archsim.Result:
    """A run with what limits it."""
    print(f"{workload} on {CHIP}", file=sys.stderr)
    result = archsim.simulate(archsim.load_hardware(CHIP), archsim.load_workload(workload))
    archsim.explain(result)
    return result


def write(result: archsim.Result, folder: Path) -> None:
    """Findings and reports into a folder; the table of changes is in the reports."""
    archsim.write_explanation(result, folder)
    (folder / "what_if.csv").unlink()


def stored(workload: str) -> dict[str, Any]:
    """Findings that are checked in."""
    found: dict[str, Any] = json.loads((TARGET / workload / FINDINGS).read_text(encoding="utf-8"))
    return found


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Places where two documents differ, numbers by more than the tolerance."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [text for index, pair in pairs for text in differences(*pair, f"{where}[{index}]")]
    if isinstance(old, float) and isinstance(new, float):
        is_close = math.isclose(old, new, rel_tol=TOLERANCE_REL, abs_tol=TOLERANCE_ABS)
        return [] if is_close else [f"{where} was {old:.6g} and is {new:.6g}"]
    return [] if old == new else [f"{where} was {old!r} and is {new!r}"]


if __name__ == "__main__":
    sys.exit(main())

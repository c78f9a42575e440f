"""Writes the reads that `archsim validate spice` compares with: `python reports/spice_golden.py`, needs ngspice.

ngspice solves every case of `archsim.validation.spice.CASES`; two of 64 x 64 cells take some ten seconds each.
"""

from __future__ import annotations

import json

from archsim.validation import spice


def main() -> None:
    """Solve all cases and store them."""
    reads = {}
    for case in spice.CASES:
        read = spice.ngspice_read(case)
        reads[case.name] = {"columns_a": read.columns_a, "power_w": read.power_w}
        print(f"{case.name}: {read.power_w:.6g} W")
    stored = {"simulator": spice.ngspice_version(), "reads": reads}
    spice.GOLDEN.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Crossbar currents against ngspice: stored results, and fresh ones where ngspice is installed.

The circuits are small netlists of every wire segment, driver and device; ngspice solves them by
modified nodal analysis and shares nothing with archsim. `python reports/spice_golden.py` writes the
stored results.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from archsim.analog.circuit import Wires
from archsim.analog.nonlinear import Curve, nonlinear_voltages
from archsim.analog.spice import netlist
from archsim.analog.wires import effective_matrices
from archsim.errors import SimulationError
from archsim.validation.check import Check

GOLDEN = Path(__file__).parent / "spice_golden.json"
LINEAR_TOLERANCE_REL = 1e-10
NONLINEAR_TOLERANCE_REL = 1e-8
LIVE_CELLS = 512
"""Cells up to which ngspice is run for a comparison; it takes seconds for 64 x 64."""
TIMEOUT_S = 300
V_READ_V = 0.2
_OPTIONS = ".options reltol=1e-9 abstol=1e-18 vntol=1e-14 gmin=1e-20"


@dataclass(frozen=True)
class Case:
    """One read of one crossbar."""

    name: str
    n_rows: int
    n_cols: int
    wires: Wires
    curve: Curve | None = None

    @property
    def conductance(self) -> Tensor:
        """Conductances between 1 / 200 kOhm and 1 / 20 kOhm in a fixed irregular pattern; one cell in 100 is open."""
        row, col = torch.arange(self.n_rows).unsqueeze(1), torch.arange(self.n_cols)
        levels = (37 * row + 61 * col + row * col) % 101
        return torch.where(levels == 100, 0.0, 5e-6 + 4.5e-5 * levels.to(torch.float64) / 100)

    @property
    def volts(self) -> Tensor:
        """About four rows of ten driven, the first among them."""
        row = torch.arange(self.n_rows)
        return V_READ_V * ((3 * row * row + row) % 10 < 4).to(torch.float64)


_PLAIN = Wires(100.0, 2.5, 2.5, 50.0)
_BOTH_ENDS = Wires(100.0, 2.5, 1.7, 50.0, double_drive=True, double_sense=True)
_THIN = Wires(500.0, 25.0, 17.0, 300.0)
CASES = (
    Case("8 x 8", 8, 8, _PLAIN),
    Case("8 x 8, ideal ends", 8, 8, Wires(0.0, 2.5, 2.5, 0.0)),
    Case("5 x 9, ideal rows", 5, 9, Wires(100.0, 0.0, 2.5, 50.0)),
    Case("8 x 12, both ends", 8, 12, _BOTH_ENDS),
    Case("20 x 6, driven from both ends", 20, 6, Wires(100.0, 2.5, 1.7, 50.0, double_drive=True)),
    Case("32 x 32, thin wires", 32, 32, _THIN),
    Case("64 x 64", 64, 64, _PLAIN),
    Case("64 x 64, both ends", 64, 64, _BOTH_ENDS),
    Case("8 x 8, sinh 0.25 V", 8, 8, _THIN, Curve("sinh", 0.25)),
    Case("8 x 8, sinh 0.1 V", 8, 8, _THIN, Curve("sinh", 0.1)),
    Case("12 x 8, sinh 0.1 V, both ends", 12, 8, _BOTH_ENDS, Curve("sinh", 0.1)),
    Case("8 x 12, cubic 0.15 V", 8, 12, _THIN, Curve("cubic", 0.15)),
    Case("24 x 24, sinh 0.15 V", 24, 24, _PLAIN, Curve("sinh", 0.15)),
)


@dataclass(frozen=True)
class Read:
    """What a read gives."""

    columns_a: tuple[float, ...]
    """Current of every column in ampere."""
    power_w: float
    """What all drivers deliver, in watt."""


def checks(progress: Callable[[str, float], None] | None = None) -> Iterator[Check]:
    """Everything that `archsim validate spice` compares."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for number, case in enumerate(CASES):
        if progress is not None:
            progress("ngspice", number / len(CASES))
        read = stored["reads"][case.name]
        reference = Read(tuple(read["columns_a"]), read["power_w"])
        ours = archsim_read(case)
        yield from _compare(case, reference, ours, f"stored, {stored['simulator']}")
        if ngspice_version() is not None and case.n_rows * case.n_cols <= LIVE_CELLS:
            yield from _compare(case, ngspice_read(case), ours, f"run now, {ngspice_version()}")


def archsim_read(case: Case) -> Read:
    """The read as archsim computes it, in float64."""
    g, volts = case.conductance, case.volts
    if case.curve is None:
        matrix, drawn = effective_matrices(g, case.wires, with_input=True)
        assert drawn is not None
        return Read(tuple((volts @ matrix).tolist()), float(volts @ drawn @ volts))
    currents = case.curve.current(g, nonlinear_voltages(g, volts, case.wires, case.curve))
    return Read(tuple(currents.sum(0).tolist()), float(volts @ currents.sum(1)))


def ngspice_version() -> str | None:
    """Name and version of the installed ngspice, such as "ngspice-39"; None without one."""
    if shutil.which("ngspice") is None:
        return None
    shown = subprocess.run(["ngspice", "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    found = re.search(r"ngspice-\S+", shown.stdout)
    return found[0] if found else "ngspice"


def ngspice_read(case: Case) -> Read:
    """The read as ngspice computes it.

    Raises:
        SimulationError: ngspice did not give every current.
    """
    volts = case.volts
    prints = [f"print i(vo{col})" for col in range(case.n_cols)] + [f"print i(vi{row})" for row in range(case.n_rows)]
    lines = [
        f"* {case.name}",
        *netlist(case.conductance, volts, case.wires, case.curve),
        _OPTIONS,
        *(".control", "set numdgt=15", "op", *prints, ".endc", ".end"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crossbar.cir"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        command = ["ngspice", "-n", "-b", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    found = {name: float(value) for name, value in re.findall(r"i\((v[io]\d+)\) = (\S+)", done.stdout.lower())}
    if len(found) < case.n_rows + case.n_cols:
        raise SimulationError(f"ngspice gave {len(found)} currents of '{case.name}': {done.stderr.strip()[-300:]}")
    power_w = -sum(volt * found[f"vi{row}"] for row, volt in enumerate(volts.tolist()))
    return Read(tuple(found[f"vo{col}"] for col in range(case.n_cols)), power_w)


def _compare(case: Case, reference: Read, ours: Read, note: str) -> Iterator[Check]:
    """The column that deviates most, and the power."""
    tolerance = LINEAR_TOLERANCE_REL if case.curve is None else NONLINEAR_TOLERANCE_REL
    pairs = list(zip(reference.columns_a, ours.columns_a, strict=True))
    theirs, mine = max(pairs, key=lambda pair: abs(pair[1] / pair[0] - 1))
    yield Check(f"{case.name}: worst column", "A", theirs, mine, tolerance, note=note)
    yield Check(f"{case.name}: power", "W", reference.power_w, ours.power_w, tolerance, note=note)

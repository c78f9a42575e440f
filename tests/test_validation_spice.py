"""Crossbars against ngspice: stored reads, fresh ones where it is installed, and the netlist itself."""

import shutil

import pytest
import torch

from archsim.analog.circuit import Wires
from archsim.analog.nonlinear import Curve
from archsim.analog.spice import netlist
from archsim.cli import main
from archsim.errors import SimulationError
from archsim.validation import spice

G = torch.tensor([[1e-4, 0.0]], dtype=torch.float64)


@pytest.fixture
def no_ngspice(monkeypatch):
    monkeypatch.setattr(spice, "ngspice_version", lambda: None)


def test_every_stored_read_agrees_to_ten_digits(no_ngspice):
    found = list(spice.checks())
    assert len(found) == 2 * len(spice.CASES)
    assert [check.name for check in found if not check.passed] == []
    assert max(abs(check.error_rel) for check in found) < 1e-11


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
@pytest.mark.parametrize("case", [spice.CASES[i] for i in (0, 3, 9, 11)], ids=lambda case: case.name)
def test_ngspice_run_now_gives_the_same_read(case):
    fresh, ours = spice.ngspice_read(case), spice.archsim_read(case)
    assert ours.columns_a == pytest.approx(fresh.columns_a, rel=1e-10)
    assert ours.power_w == pytest.approx(fresh.power_w, rel=1e-10)


def test_a_read_that_differs_is_exit_code_1(no_ngspice, monkeypatch, capsys):
    monkeypatch.setattr(spice, "CASES", spice.CASES[:1])
    assert main(["validate", "spice"]) == 0
    other = spice.Case(spice.CASES[0].name, 8, 8, Wires(101.0, 2.5, 2.5, 50.0))
    monkeypatch.setattr(spice, "CASES", (other,))
    assert main(["validate", "spice"]) == 1
    assert capsys.readouterr().err == "archsim: out of tolerance: 8 x 8: worst column, 8 x 8: power\n"


def test_an_ngspice_that_gives_no_currents_is_an_error(tmp_path, monkeypatch):
    broken = tmp_path / "ngspice"
    broken.write_text("#!/bin/sh\necho 'no convergence' >&2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert spice.ngspice_version() == "ngspice"
    with pytest.raises(SimulationError) as error:
        spice.ngspice_read(spice.CASES[0])
    assert str(error.value) == "ngspice gave 0 currents of '8 x 8': no convergence"


def test_the_netlist_has_every_segment_and_no_open_cell():
    assert netlist(G, torch.tensor([0.2], dtype=torch.float64), Wires(100.0, 2.0, 0.0, 0.0, double_drive=True)) == [
        "VI0 in0 0 DC 0.2",
        "RD0 in0 r0_0 102.0",
        "RE0 in0 r0_1 102.0",
        "RR0_1 r0_0 r0_1 2.0",
        "VZS0 c0_0 out0 DC 0",
        "VO0 out0 0 DC 0",
        "VZS1 c0_1 out1 DC 0",
        "VO1 out1 0 DC 0",
        "RG0_0 r0_0 c0_0 10000.0",
    ]


@pytest.mark.parametrize(
    ("curve", "line"),
    [
        (Curve("sinh", 0.25), "BG0_0 r0_0 c0_0 I=2.5e-05*sinh((v(r0_0,c0_0)/0.25))"),
        (
            Curve("cubic", 0.5),
            "BG0_0 r0_0 c0_0 I=5e-05*((v(r0_0,c0_0)/0.5)+(v(r0_0,c0_0)/0.5)*(v(r0_0,c0_0)/0.5)*(v(r0_0,c0_0)/0.5))",
        ),
    ],
)
def test_nonlinear_devices_are_current_sources(curve, line):
    assert netlist(G, torch.tensor([0.2], dtype=torch.float64), Wires(), curve)[-1] == line

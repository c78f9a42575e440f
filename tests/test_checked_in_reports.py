"""Reports that are checked in are what their command writes today: findings, to the tolerance of the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

REPORTS = Path(__file__).resolve().parent.parent / "reports"


@pytest.fixture(scope="module")
def command():
    """The script that writes the reports."""
    sys.path.insert(0, str(REPORTS))
    try:
        import bottlenecks
    finally:
        sys.path.remove(str(REPORTS))
    return bottlenecks


@pytest.mark.parametrize("workload", ["digits-cnn", pytest.param("vgg9-cifar10", marks=pytest.mark.slow)])
def test_findings_are_current(command, workload):
    import archsim

    again = json.loads(json.dumps(archsim.explanation(command.explained(workload))))
    assert command.differences(command.stored(workload), again) == []


@pytest.mark.parametrize("workload", ["digits-cnn", "vgg9-cifar10"])
def test_checked_in_reports_are_whole_and_of_no_machine(workload):
    for name in ("report.md", "report.html", "findings.json"):
        text = (REPORTS / workload / name).read_text(encoding="utf-8")
        assert len(text) > 5000
        assert str(REPORTS.parent) not in text
        assert "/tmp/" not in text


def test_differences_are_told_by_place_and_size(command):
    old = {"a": [1.0, {"b": "x"}], "c": 0.0, "n": 3}
    assert command.differences(old, {"a": [1.005, {"b": "x"}], "c": 5e-4, "n": 3}) == []
    assert command.differences(old, {"a": [1.02, {"b": "y"}], "c": 0.0, "n": 4}) == [
        "a[0] was 1 and is 1.02",
        "a[1].b was 'x' and is 'y'",
        "n was 3 and is 4",
    ]
    assert command.differences(old, {"a": [1.0], "n": 3}) == [
        "a was [1.0, {'b': 'x'}] and is [1.0]",
        "c was 0.0 and is None",
    ]

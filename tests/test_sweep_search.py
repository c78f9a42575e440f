"""Adaptive searches: complete, resumable, better than their first proposals."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_sweep import SWEEP, write_sweep

from archsim.errors import ConfigError
from archsim.sweeps.run import run_sweep
from archsim.sweeps.space import load_space

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SPACE = (
    SWEEP.replace("{low: 50.0, high: 200.0, count: 3, scale: log}", "{low: 50.0, high: 200.0, scale: log}")
    + "  mapping.schedule: [pipelined, layer_by_layer]\nconstraints: [chip.noc.flit_bits >= tile.pe.adc.cols_per_adc]\n"
)


def space_of(folder: Path) -> dict[str, object]:
    """The space without its axes."""
    settings = {"workload.assumed_rate": 0.25, "workload.timesteps": 2}
    workloads = [str(folder / "tiny.csv")]
    return {"format_version": 1, "name": "tiny", "hardware": "demo", "workloads": workloads, "set": settings}


@pytest.mark.parametrize("method", ["nsga2", "tpe"])
def test_a_search_uses_its_budget_and_keeps_the_constraints(tmp_path, method):
    space = load_space(write_sweep(tmp_path, SPACE), {"search.method": method, "search.points": 20})
    table = run_sweep(space, output=tmp_path / "out", jobs=1)
    assert len(table) == 20
    assert set(table["status"]) == {"ok"}
    assert (table["chip.noc.flit_bits"] >= table["tile.pe.adc.cols_per_adc"]).all()
    assert table["chip.clock_mhz"].between(50, 200).all()
    design = {"chip.noc.flit_bits": 32, "tile.pe.adc.cols_per_adc": 1, "chip.clock_mhz": 200.0}
    best = run_sweep({**space_of(tmp_path), "points": [design]}, output=tmp_path / "best", jobs=1)
    assert table["latency_ps"].min() < 1.2 * best["latency_ps"][0]


def test_a_stopped_search_goes_on_with_what_it_knows(tmp_path):
    space = load_space(write_sweep(tmp_path, SPACE), {"search.method": "nsga2", "search.points": 12})

    def stop(tally):
        if tally.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(space, output=tmp_path / "out", jobs=1, progress=stop)
    kept = set((tmp_path / "out").glob("points/*/*"))
    table = run_sweep(space, output=tmp_path / "out", jobs=1)
    assert len(table) == 12
    assert kept <= set((tmp_path / "out").glob("points/*/*"))
    pd.testing.assert_frame_equal(run_sweep(space, output=tmp_path / "out", jobs=1), table)


def test_time_is_a_budget_too(tmp_path):
    space = load_space(write_sweep(tmp_path, SPACE), {"search.method": "tpe", "search.minutes": 0.005})
    assert len(run_sweep(space, output=tmp_path / "out", jobs=1)) > 0


def test_a_search_without_a_way_out_of_its_constraints_ends(tmp_path):
    text = SPACE.replace(">= tile.pe.adc.cols_per_adc]", "> 64]")
    space = load_space(write_sweep(tmp_path, text), {"search.method": "nsga2", "search.points": 3})
    with pytest.raises(ConfigError, match=r"^sweep 'tiny': constraints exclude 100 proposals in a row; loosen them"):
        run_sweep(space, output=tmp_path / "out", jobs=1)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    space = load_space(write_sweep(tmp_path, SPACE), {"search.method": "tpe", "search.points": 3})
    with pytest.raises(ConfigError) as fault:
        run_sweep(space, output=tmp_path / "out", jobs=1)
    assert str(fault.value) == "an adaptive search needs the package optuna: pip install 'archsim[search]'"

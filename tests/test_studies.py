"""Experiments under reports/: points are computed once, survive interruptions, and know their settings."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reports"))
from study import Figures, Study, digits


@pytest.fixture
def study(tmp_path):
    return Study("name", tmp_path, small=False)


def test_a_point_is_computed_once(study):
    calls = []
    for _ in range(2):
        assert study.point("a", {"seed": 1}, lambda: calls.append(1) or {"x": 2}) == {"x": 2.0}
    assert calls == [1]
    assert json.loads((study.folder / "points" / "a.json").read_text()) == {"settings": {"seed": 1}, "values": {"x": 2}}


def test_a_point_with_other_settings_is_computed_again(study):
    study.point("a", {"epochs": 1}, lambda: {"x": 1})
    assert study.point("a", {"epochs": 2}, lambda: {"x": 2}) == {"x": 2.0}


def test_an_interrupted_point_leaves_nothing(study):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.point("a", {}, interrupted)
    assert list(study.folder.iterdir()) == []


def test_seeds_are_averaged(study):
    found = study.over_seeds("a", {}, lambda seed: {"x": seed})
    assert found.text("x") == "2.0 ± 1.4"


def test_more_seeds_where_networks_differ_much(study, tmp_path):
    assert len(study.over_seeds("a", {}, lambda seed: {"x": seed}, 10).values["x"]) == 10
    small = Study("name", tmp_path / "small", small=True)
    assert len(small.over_seeds("a", {}, lambda seed: {"x": seed}, 10).values["x"]) == 2


@pytest.mark.parametrize(
    ("values", "text"),
    [([37626.13] * 2, "37,626"), ([74.2312, 74.2313], "74.23"), ([1200, 1210], "1,205 ± 5"), ([0.5, 0.7], "0.6 ± 0.1")],
)
def test_brief_figures_have_a_spread_where_it_shows(values, text):
    assert Figures({"x": np.array(values)}).brief("x") == text


def test_a_failed_criterion_is_an_exit_code(study):
    row = study.gate("it works", "no", holds=False)
    assert row == "| it works | no | no |"
    assert study.write([row]) == 1
    assert (study.folder / "README.md").read_text() == row + "\n"


def test_enlarged_digits_keep_their_range():
    enlarged = digits().enlarged(28)
    assert enlarged.images.shape == (1257, 1, 28, 28)
    assert float(enlarged.images.max()) <= 1

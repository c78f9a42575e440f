"""Fronts, knees, effects and interactions against closed forms and brute force; the report of a sweep."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_sweep import SWEEP, write_sweep

from archsim import cli
from archsim.errors import ConfigError
from archsim.sweeps.findings import short_names
from archsim.sweeps.report import report_sweep
from archsim.sweeps.run import run_sweep
from archsim.sweeps.tradeoffs import distances_to_ideal, effects, factor_of, interactions, pareto_front


@given(arrays(np.int64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(0, 6)))
def test_the_front_is_what_nobody_beats(costs):
    beaten = [any((other <= mine).all() and (other < mine).any() for other in costs) for mine in costs]
    assert pareto_front(costs.astype(float)).tolist() == [not each for each in beaten]


def test_the_knee_is_nearest_to_the_ideal_of_the_scaled_front():
    costs = np.array([[0.0, 1000.0], [1.0, 400.0], [3.0, 100.0], [10.0, 0.0]])
    expected = np.sqrt([0 + 1, 0.01 + 0.16, 0.09 + 0.01, 1 + 0])
    np.testing.assert_allclose(distances_to_ideal(costs), expected)
    assert distances_to_ideal(np.array([[4.0, 4.0]])).tolist() == [0.0]


@pytest.fixture
def factorial():
    """Full grid of three factors at -1, 0, 1."""
    cells = list(product((-1, 0, 1), repeat=3))
    factors = [factor_of(name, [(cell[index],) for cell in cells]) for index, name in enumerate("abc")]
    return factors, np.array(cells, float)


def test_effects_and_interactions_of_a_polynomial(factorial):
    # Var(x) = 2/3 at three levels, so y = 4 a + 2 b + 3 a b has the variances 16 * 2/3, 4 * 2/3 and 9 * 4/9.
    factors, x = factorial
    values = 4 * x[:, 0] + 2 * x[:, 1] + 3 * x[:, 0] * x[:, 1]
    total = 16 * 2 / 3 + 4 * 2 / 3 + 9 * 4 / 9
    found = effects(factors, values)
    assert [effect.factor for effect in found] == ["a", "b", "c"]
    np.testing.assert_allclose([effect.share for effect in found], [32 / 3 / total, 8 / 3 / total, 0], atol=1e-12)
    np.testing.assert_allclose(found[0].means, [-4, 0, 4])
    pairs = {pair.factors: pair.share for pair in interactions(factors, values)}
    np.testing.assert_allclose([pairs["a", "b"], pairs["a", "c"]], [4 / total, 0], atol=1e-12)


def test_a_constant_objective_has_no_effects(factorial):
    factors, x = factorial
    assert [effect.share for effect in effects(factors, np.full(len(x), 0.1))] == [0.0] * 3


def test_many_numbers_are_binned_and_words_are_not():
    numbers = factor_of("x", [(value,) for value in np.linspace(0, 1, 80).tolist()])
    assert numbers.n_levels == 8
    assert np.bincount(numbers.level).tolist() == [10] * 8
    words = factor_of("x", [(word,) for word in "abcdefghijkl"])
    assert words.labels == tuple("abcdefghijkl")
    mixed = factor_of("x", [("balance",), (4,), (2,), ("none",)])
    assert mixed.labels == ("2", "4", "balance", "none")


def test_short_names_tell_keys_apart():
    keys = ("tile.pe.adc.bits", "tile.accumulator.bits", "tile.pe.crossbar.rows", "array.adc.bits", "workload")
    assert short_names(keys) == {
        "tile.pe.adc.bits": "pe.adc.bits",
        "tile.accumulator.bits": "accumulator.bits",
        "tile.pe.crossbar.rows": "crossbar.rows",
        "array.adc.bits": "array.adc.bits",
        "workload": "workload",
    }


# The report

SMALL = SWEEP.split("  tile.pe.adc.cols_per_adc")[0]
"""Its first axis alone."""

QUESTIONS = (
    "What did the sweep find?",
    "Which designs are worth choosing between?",
    "Which key matters most?",
    "How does each key act, and which act together?",
    "How do keys and results hang together?",
    "What limits each design of the front?",
    "Where do these numbers come from?",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run_sweep(write_sweep(folder), output=folder / "out", jobs=1)
    return folder / "out"


def test_the_report_answers_its_questions(swept, capsys):
    assert cli.main(["report", str(swept)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Of 27 designs ")
    assert said.endswith(f"report: {swept / 'report.html'}\n")
    html, markdown = (swept / "report.html").read_text(), (swept / "report.md").read_text()
    assert tuple(re.findall(r"^## (.*)$", markdown, re.M)) == QUESTIONS
    for question in QUESTIONS:
        assert f">{question}</h2>" in html
    assert "<script" not in html


def test_the_report_is_the_same_twice_and_its_front_is_in_the_table(swept):
    texts = []
    for _ in range(2):
        report_sweep(swept)
        texts.append(((swept / "report.html").read_bytes(), (swept / "report.md").read_bytes()))
    assert texts[0] == texts[1]


def test_a_sweep_that_was_stopped_is_reported_as_far_as_it_is(tmp_path, swept):
    folder = tmp_path / "out"
    shutil.copytree(swept, folder)
    for path in sorted(folder.glob("points/*/*"))[:20]:
        path.unlink()
    verdict = report_sweep(folder).verdict
    assert verdict.startswith("Of 7 designs ")
    assert verdict.endswith(" 20 of 27 points are still missing: archsim sweep goes on.")
    for path in folder.glob("points/*/*"):
        path.unlink()
    with pytest.raises(ConfigError) as fault:
        report_sweep(folder)
    assert str(fault.value) == f"{folder}: no point of this sweep is finished; run archsim sweep first"


def test_names_of_strangers_stay_text(tmp_path):
    text = SMALL.replace("name: tiny\n", "name: tiny\ndescription: <script>alert(1)</script>\n")
    run_sweep(write_sweep(tmp_path, text), output=tmp_path / "out", jobs=1)
    report_sweep(tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_points_that_fail_all_are_explained(tmp_path):
    path = write_sweep(tmp_path, SMALL.replace("[8, 16, 32]", "[-1, -2]"))
    run_sweep(path, output=tmp_path / "out", jobs=1)
    page = report_sweep(tmp_path / "out")
    assert page.verdict == "None of the 2 points could be compared; the last section says why."
    assert "failures" in [section.id for section in page.sections]


def test_a_damaged_folder_is_no_sweep(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"format_version": 9}))
    with pytest.raises(ConfigError) as fault:
        report_sweep(tmp_path)
    assert str(fault.value) == f"{tmp_path / 'sweep.json'}: sweep of format 9; this archsim reads 1"

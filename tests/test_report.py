"""The report: complete, self-contained, the same twice, and safe with names from anybody's file."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from tiny_result import tiny_result

from archsim.errors import ConfigError
from archsim.report import charts, text
from archsim.report.html import render_html
from archsim.report.markdown import escape, render_markdown
from archsim.report.page import Bullets, Code, Page, Section, Table
from archsim.report.run_report import report_page, write_report
from archsim.report.terminal import headline_meanings, headline_rows, print_result
from archsim.result import Result

HOSTILE = "</title></svg><script>alert(1)</script>"


class _Page(HTMLParser):
    """Tags of a page, the addresses it loads, and its headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def read(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    return parser


def render_report(result: Result) -> str:
    return render_html(report_page(result))


def terminal_text(result: Result, width: int = 120) -> str:
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def test_every_section_is_there_and_asks_a_question():
    page = report_page(tiny_result())
    written = render_html(page)
    assert len(page.sections) == len({section.id for section in page.sections}) > 10
    for section in page.sections:
        assert f'<h2 id="{section.id}">{section.question}</h2>' in written
        assert f'<a href="#{section.id}">{section.question}</a>' in written
        assert section.question.endswith("?")


# Markdown, read by markdown-it, a parser of its own


def read_markdown(text: str) -> list[tuple[str, str]]:
    """Kind and text of everything that Markdown shows as text."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    shown = [(before.tag, token) for before, token in pairwise(tokens) if token.type == "inline"]
    for _, token in shown:
        assert {child.type for child in token.children} <= {"text", "text_special", "strong_open", "strong_close"}
    return [(tag, "".join(child.content for child in token.children)) for tag, token in shown]


def test_markdown_says_what_the_page_says():
    page = report_page(tiny_result())
    shown = read_markdown(render_markdown(page))
    assert shown[:2] == [("h1", page.title), ("p", page.verdict)]
    assert [text for tag, text in shown if tag == "h2"] == [section.question for section in page.sections]
    headline = next(part for part in page.sections[0].parts if part.kind == "figures")
    cells = [text for tag, text in shown if tag in ("td", "th")]
    assert cells[3 : 3 + 3 * len(headline.rows)] == [cell for row in headline.rows for cell in row]


@pytest.mark.parametrize(
    "name",
    [
        HOSTILE,
        "*a* _b_ `c` [d](e) | f \\ <g> &lt; ~~h~~ a_b_c",
        "# title",
        "- item",
        "+ item",
        "1. one",
        "12) two",
        "===",
    ],
)
def test_markdown_shows_names_letter_by_letter(name):
    table = Table("names", ("layer", "number"), ((name, "1"),), foot=("sum", "1"))
    page = Page(name, name, (Section("one", name, (Bullets((name,)), table)),))
    shown = [text for _, text in read_markdown(render_markdown(page))]
    assert shown == [name, name, name, name, "names:", "layer", "number", name, "1", "sum", "1"]


def test_code_in_markdown_ends_where_it_ends():
    page = Page("a", "b", (Section("one", "c?", (Code("x: |\n  ```\n  <b>\n", "yaml"),)),))
    tokens = MarkdownIt("commonmark").parse(render_markdown(page))
    assert [(token.info, token.content) for token in tokens if token.type == "fence"] == [
        ("yaml", "x: |\n  ```\n  <b>\n")
    ]


def test_text_in_markdown_stays_on_one_line():
    assert escape("two\n\nlines") == "two lines"


# The file


def test_report_is_written_in_the_format_of_its_name(tmp_path):
    for name, begins in (("report.html", "<!doctype html>"), ("report.md", "# tiny-net on tiny-chip\n")):
        write_report(tiny_result(), tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


def test_same_result_gives_the_same_bytes(tmp_path):
    write_report(tiny_result(), tmp_path / "one.html")
    write_report(tiny_result(), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_written_and_loaded_result_gives_the_same_page(tmp_path):
    result = tiny_result()
    assert render_report(Result.load(result.write(tmp_path / "run"))) == render_report(result)


def test_page_is_self_contained_and_small():
    page = render_report(tiny_result())
    parsed = read(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert parsed.handlers == []
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 100_000


def test_many_components_and_layers_stay_below_a_megabyte():
    result = tiny_result()
    result.components = result.components.loc[np.tile(result.components.index, 1000)].reset_index(drop=True)
    result.components["component"] = [f"{name}{index}" for index, name in enumerate(result.components["component"])]
    result.components.loc[:3, "component"] = result.log.components
    assert len(render_report(result)) < 1_000_000


def test_hostile_names_stay_text():
    result = tiny_result((HOSTILE, "$x^2$"), workload=HOSTILE, hardware='" onload="alert(1)')
    result.config, result.notes = f'name: "{HOSTILE}"\n', (HOSTILE,)
    parsed = read(render_report(result))
    assert "script" not in parsed.tags
    assert parsed.handlers == []
    assert parsed.tags.count("title") == read(render_report(tiny_result())).tags.count("title")


def test_control_and_direction_characters_are_made_visible():
    page = render_report(tiny_result(("a\x1b[31m\u202eb", "second")))
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "a�[31m�b" in page


def test_verdict_is_made_from_the_data():
    page = render_report(tiny_result()).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        '<p class="verdict">One inference of tiny-net takes 1 ns and 9.2 pJ on tiny-chip; 54 % of the energy goes into '
        "NoC routers, and 54 % of the total is leakage; 95.0 % of 200 test samples are right (ideal 98.0 %).</p>"
    ) in page


def test_accuracy_names_change_and_standard_error():
    page = render_report(tiny_result())
    assert "changes accuracy by -3.0 percentage points" in page
    assert "standard error of 1.5 points" in page


def test_raw_accuracy_stands_in_where_nothing_is_calibrated():
    page = render_report(tiny_result(accuracy_calibrated=None)).replace("\N{NO-BREAK SPACE}", " ")
    assert "90.0 % of 200 test samples are right" in page


def test_missing_values_are_dashes_and_never_numbers():
    keys = ("tops_per_w", "tops_per_mm2", "edp_pj_s", "activation_sparsity", "effective_acs", "cell_utilisation")
    keys += ("accuracy_ideal", "accuracy_raw", "accuracy_calibrated", "n_accuracy_samples", "synaptic_ops", "area_um2")
    result = tiny_result(**dict.fromkeys(keys))
    rows = dict(headline_rows(result.summary))
    page = render_report(result)
    assert rows["Energy efficiency"] == rows["Accuracy, raw"] == rows["Latency p50 / p99"] == rows["Area"] == "–"
    assert rows["Energy per effective synaptic operation"] == "–"
    assert "its accuracy is not known" in page
    assert re.search(r"\b(nan|None|inf)\b", page) is None


def test_headline_has_units_and_a_meaning_for_each_row():
    rows = dict(headline_rows(tiny_result(n_crossbars=12).summary))
    assert rows["Latency"] == "1 ns"
    assert rows["Dynamic and leakage"] == "4.2 pJ dynamic (45.7 %), 5 pJ leakage (54.3 %)"
    assert rows["Energy per effective synaptic operation"] == "0.92 pJ"
    assert rows["Chip used"] == "1 tile, 1 PE, 12 crossbars"
    assert len(headline_meanings()) == len(rows)


def test_report_and_terminal_show_the_same_headline():
    result = tiny_result()
    page, printed = render_report(result), terminal_text(result)
    for name, value in headline_rows(result.summary):
        assert f'<th scope="row">{name}</th><td class="figure">{value}</td>' in page
        assert name in printed
        assert value in printed


def several_chips() -> Result:
    """Three chips, and layers with a non-ideality factor."""
    raw, calibrated = [0.8, 0.9, 0.85], [0.95, 0.96, 0.97]
    figures = {"accuracy_raw": 0.85, "accuracy_raw_std": 0.05, "accuracy_calibrated": 0.96}
    figures |= {"accuracy_raw_p05": 0.805, "accuracy_raw_p50": 0.85, "accuracy_raw_p95": 0.895, "n_chips": 3}
    figures |= {"accuracy_calibrated_std": 0.01, "accuracy_calibrated_p05": 0.951}
    figures |= {"accuracy_calibrated_p50": 0.96, "accuracy_calibrated_p95": 0.969}
    result = tiny_result(**figures)
    chips = pd.DataFrame({"chip": [0, 1, 2], "accuracy_raw": raw, "accuracy_calibrated": calibrated})
    return replace(result, chips=chips, layers=result.layers.assign(nf=[0.123, None]))


def test_several_chips_are_shown_with_their_spread():
    result = several_chips()
    assert dict(headline_rows(result.summary))["Accuracy, raw"] == "85.0 % of 200 samples, mean of 3 chips ± 5.0 points"
    assert "96.0 % of 200 samples, mean of 3 chips ± 1.0 points" in terminal_text(result)
    page = render_report(result)
    assert "Raw and calibrated are means over 3 chips, each with cells of its own." in page
    assert 'aria-label="Accuracy over 3 chips"' in page
    raw = "".join(
        f'<td class="n">{x}</td>' for x in ("85.0 %", "5.0 points", "80.0 %", "80.5 %", "85.0 %", "89.5 %", "90.0 %")
    )
    assert f'<tr><th scope="row">raw</th>{raw}</tr>' in page


def test_one_chip_has_no_spread():
    assert "chips" not in dict(headline_rows(tiny_result().summary))["Accuracy, raw"]
    assert "Accuracy over" not in render_report(tiny_result())


def test_non_ideality_is_shown_where_there_is_any():
    page, printed = render_report(several_chips()), terminal_text(several_chips())
    assert "12.3 %" in printed
    assert "NF" in printed
    assert '<th scope="col" class="n">NF</th>' in page
    assert "Copies of a layer share one draw of cells" in page
    ideal = render_report(tiny_result())
    assert "non-ideality factor" not in ideal
    assert "Copies of a layer" not in ideal
    assert "NF" not in terminal_text(tiny_result())


def test_terminal_shows_layers_and_leaves_markup_alone():
    printed = terminal_text(tiny_result(("[red]one[/red]", "two\x1b[2J")))
    assert "[red]one[/red]" in printed
    assert "\x1b" not in printed
    assert "25.0 %" in printed
    assert "note: spikes are an assumption" in printed


def test_run_without_energy_or_movement_still_renders():
    result = tiny_result(energy_pj=0.0, energy_dynamic_pj=0.0, energy_leakage_pj=0.0, energy_per_sample_pj=0.0)
    result.components[["energy_dynamic_pj", "energy_leakage_pj"]] = 0.0
    result.log["energy_pj"][:] = 0.0
    result.movement = result.movement.iloc[:0]
    page = render_report(result)
    assert re.search(r"\b(nan|None|inf)\b", page) is None


def test_limits_depend_on_what_the_run_moved():
    result = tiny_result()
    assert "Nothing comes from or goes to a DRAM" in render_report(result)
    result.movement.loc[0, "level"] = "dram"
    assert "Nothing comes from or goes to a DRAM" not in render_report(result)


def test_report_that_cannot_be_written_says_where(tmp_path):
    with pytest.raises(ConfigError, match=r"missing/report\.html: cannot be written"):
        write_report(tiny_result(), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0 %"),
        (1e-5, "<0.1 %"),
        (0.123, "12.3 %"),
        (0.9999, ">99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_percent_does_not_round_to_none_or_all(fraction, expected):
    assert text.percent(fraction) == expected


def test_columns_share_one_unit():
    scale = text.energy_scale([1.5e6, 2.0, 0.0])
    assert [scale.unit, *map(scale.text, (1.5e6, 2.0, 0.0, None))] == ["uJ", "1.500", "<0.001", "0", "–"]


def test_long_names_are_cut_in_the_middle():
    assert text.shorten("a" * 30 + "z" * 30, 11) == "aaaaa…zzzzz"


def test_profile_merges_equal_neighbours():
    segments = charts.profile(np.array([0.0, 1.0, 1.0, 0.5]), "c0")
    assert [(part.left, part.width, part.opacity) for part in segments] == [("25", "50", "1"), ("75", "25", "0.5")]


def test_ticks_are_round_and_inside():
    ticks = charts.time_ticks(543.0, str)
    assert [tick.label for tick in ticks] == ["0.0", "100.0", "200.0", "300.0", "400.0", "500.0"]

"""The report of a run: which sections it has, and the files it is written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archsim.errors import ConfigError
from archsim.report import (
    activity_sections,
    balance_sections,
    efficiency_section,
    energy_sections,
    exit_section,
    floor_sections,
    movement_section,
    roofline_section,
    text_sections,
    time_sections,
    timeline_section,
    trust_sections,
    why_section,
)
from archsim.report.html import render_html
from archsim.report.markdown import render_markdown
from archsim.report.page import Page, Section
from archsim.report.text import plain
from archsim.result import Result

SECTIONS: dict[str, tuple[Callable[[Result], Section | None], ...]] = {
    "Verdict": (text_sections.headline, why_section.why, text_sections.accuracy),
    "Time": (
        time_sections.latency_by_layer,
        time_sections.states,
        timeline_section.window,
        roofline_section.roofline,
        balance_sections.balance,
        activity_sections.timesteps,
        exit_section.exits,
    ),
    "Energy and data": (
        energy_sections.energy_by_layer,
        energy_sections.energy_by_kind,
        movement_section.movement,
        efficiency_section.efficiency,
    ),
    "Chip": (
        floor_sections.noc,
        floor_sections.tiles,
        balance_sections.idle_area,
        activity_sections.sparsity,
        text_sections.components,
        text_sections.layers,
    ),
    "Trust": (
        trust_sections.cross_checks,
        trust_sections.assumptions,
        trust_sections.limits,
        trust_sections.provenance,
    ),
}
"""Every section of a run's report by topic, in order: a function from a result to a section, or to None where the run
has nothing of the kind."""


def report_page(result: Result) -> Page:
    """The report of a run as a page; `render_html` and `render_markdown` write it."""
    found = {topic: [section(result) for section in sections] for topic, sections in SECTIONS.items()}
    shown = {topic: tuple(section for section in sections if section) for topic, sections in found.items()}
    verdict = text_sections.verdict(result)
    if result.paths is not None:
        verdict += f" {why_section.sentences(result)[0]}"
    title = f"{plain(result.summary['workload'])} on {plain(result.summary['hardware'])}"
    topics = tuple((topic, tuple(section.id for section in sections)) for topic, sections in shown.items())
    return Page(title, verdict, tuple(section for sections in shown.values() for section in sections), topics)


def write_report(result: Result, path: Path) -> None:
    """Write the report of a run as one file: Markdown to a `path` that ends in `.md`, else HTML.

    Raises:
        ConfigError: The file cannot be written.
    """
    render = render_markdown if path.suffix == ".md" else render_html
    text = render(report_page(result))
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror}). Choose another path.") from err

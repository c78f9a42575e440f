"""The report of a run: one self-contained HTML file without scripts, equal bytes for equal results."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from archsim.errors import ConfigError
from archsim.report import energy_sections, text_sections, time_sections, why_section
from archsim.report.terminal import headline_meanings, headline_rows
from archsim.report.text import plain
from archsim.result import Result

SECTION_TITLES = {
    "headline": "Is this design any good?",
    "why": "What limits it, and what to change first?",
    "accuracy": "How right are the answers?",
    "energy_layer": "Which layer takes the energy?",
    "energy_kind": "Which kind of component takes the energy?",
    "latency": "When does each layer work?",
    "movement": "How much data moves, and at what cost?",
    "states": "Are the busiest components busy, blocked or starved?",
    "components": "Which components cost the most?",
    "layers": "What does each layer hold and do?",
    "assumptions": "What did this run assume?",
    "limits": "What does the model leave out?",
    "provenance": "Where do these numbers come from?",
}
"""Anchor and title of every section, in order; each title is the question that it answers."""

_UNIT = re.compile(r"(?<=\d) (?=(?:%|[pnum]?s|[pnum]?J)(?!\w))")


def render_report(result: Result) -> str:
    """The report as HTML text."""
    summary = result.summary
    names_and_values = headline_rows(summary)
    headline = [(*row, meaning) for row, meaning in zip(names_and_values, headline_meanings(), strict=True)]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            titles=SECTION_TITLES,
            summary=summary,
            workload=plain(summary["workload"]),
            hardware=plain(summary["hardware"]),
            verdict=text_sections.verdict(result),
            headline=headline,
            why=why_section.why(result),
            accuracy=text_sections.accuracy(summary),
            chips=text_sections.chips(result),
            energy_layer=energy_sections.energy_by_layer(result),
            energy_kind=energy_sections.energy_by_kind(result),
            latency=time_sections.latency_by_layer(result),
            movement=energy_sections.movement(result),
            states=time_sections.states(result),
            components=text_sections.components(result),
            layers=text_sections.layers(result),
            notes=[plain(note) for note in result.notes],
            limits=text_sections.limits(result),
            provenance=text_sections.provenance(summary),
            config=result.config,
        )
    )


def write_report(result: Result, path: Path) -> None:
    """Write the report of a run to file `path`.

    Raises:
        ConfigError: The file cannot be written.
    """
    text = render_report(result)
    try:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror}). Choose another path.") from err


def _keep_units(text: str) -> str:
    """Bind numbers to their units, so that no line of prose ends between them."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("archsim.report"), autoescape=True, undefined=StrictUndefined)
    environment.filters["keep_units"] = _keep_units
    return environment

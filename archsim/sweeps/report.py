"""The report of a sweep: front, knee, what each key does, what limits the best designs. Entry: `report_sweep`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archsim.errors import ConfigError
from archsim.report.html import render_html
from archsim.report.markdown import render_markdown
from archsim.report.page import Page
from archsim.report.text import plain
from archsim.sweeps import sections
from archsim.sweeps.bottlenecks import bottlenecks
from archsim.sweeps.findings import Outcome
from archsim.sweeps.run import plan_of_folder, tasks_of
from archsim.sweeps.store import write_whole
from archsim.sweeps.table import collect, write_table
from archsim.yamlfile import dump_model

HTML, MARKDOWN = "report.html", "report.md"


def report_sweep(folder: Path, progress: Callable[[str, float], None] | None = None) -> Page:
    """Collect the table of a sweep, finished or not, and write its report as HTML and Markdown.

    Args:
        folder: Folder of the sweep.
        progress: Called with a phase's name and the fraction of it that is done.

    Raises:
        ConfigError: The folder is no sweep's, has no point yet, cannot be written, or its chip cannot be loaded.
    """
    plan = plan_of_folder(folder)
    tasks = tasks_of(plan)
    table = collect(plan.store, tasks, plan.space.keys)
    if not len(table):
        raise ConfigError(f"{folder}: no point of this sweep is finished; run archsim sweep first")
    write_table(table, folder)
    outcome = Outcome(plan.space, table.to_pandas(), len(tasks))
    found = []
    if not outcome.rated.empty:
        by_index = {task.point.index: task for task in tasks}
        found = bottlenecks(plan.job, [by_index[index] for index in outcome.front["point"].tolist()], progress)
    parts = (
        sections.overview(outcome),
        sections.front(outcome),
        sections.accuracy(outcome),
        sections.sensitivity(outcome),
        sections.main_effects(outcome),
        sections.lines(outcome),
        sections.limits(outcome, found),
        sections.failures(outcome),
        sections.provenance(outcome, dump_model(plan.space.file)),
    )
    title = f"Sweep {plain(plan.space.file.name)}"
    page = Page(title, sections.verdict(outcome), tuple(section for section in parts if section is not None))
    try:
        write_whole(folder / HTML, render_html(page).encode())
        write_whole(folder / MARKDOWN, render_markdown(page).encode())
    except OSError as err:
        raise ConfigError(f"{folder}: the report cannot be written ({err.strerror})") from err
    return page

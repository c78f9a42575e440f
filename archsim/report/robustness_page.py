"""What `archsim robustness` found, as a page: where errors come from, how they grow, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from archsim.analysis.robustness import Robustness, Trial
from archsim.report.html import render_html
from archsim.report.markdown import render_markdown
from archsim.report.page import Page, Part, Section, Table, Text
from archsim.report.robustness_charts import accumulation, accuracies
from archsim.report.text import DASH, area_scale, percent, plain, points
from archsim.result import FORMAT_VERSION, write_json, write_together

_LAYERS_TEXT = (
    "The error of weighted sums is relative to what the real weights would give for the same inputs, those that "
    "arrive on the chip. Spikes are compared with those of the ideal network: too many or too few until then, mean "
    "over neurons."
)
_REPAIRS_TEXT = (
    "Each was tried alone, sorted by the area of PEs and digital units, then by the numbers that digital calibration "
    "keeps. Retraining comes behind them, for it changes all weights: it costs runs of the chip, epochs times samples, "
    "and those samples are not judged. The best together are hardware repairs, with the weights as they are."
)


def robustness_page(found: Robustness, hardware: str, workload: str) -> Page:
    """The page of what was found for a workload on a chip."""
    sections = (_layers(found), _causes(found), _sizes(found), _repairs(found))
    return Page(f"Robustness of {plain(workload)} on {plain(hardware)}", verdict(found), sections)


def verdict(found: Robustness) -> str:
    """Accuracy, the largest cause and the cheapest repair, in a few sentences."""
    base = found.baseline
    right = f"{percent(base.accuracy)} of {found.n_samples} samples are right on the chip"
    said = [f"{right}, {percent(found.ideal)} in the ideal network."]
    best = next(iter(found.causes), None)
    if best is not None and _gain(best, base) > 0:
        said.append(f"What costs most: {plain(best.name)} would give {points(_gain(best, base))} back.")
    size, repair = found.largest_size, found.cheapest_repair
    within = f"within {points(found.budget)} of the ideal network"
    said.append(f"No tried size of crossbar is {within}." if size is None else f"Up to {size.name} are {within}.")
    if not found.is_within(base):
        said.append(
            f"No tried repair is {within}."
            if repair is None
            else f"The cheapest repair that is: {plain(repair.name)} ({plain(_changes(repair))})."
        )
    return " ".join(said)


def as_json(found: Robustness) -> dict[str, Any]:
    """Everything that was found, for files and pipes; the retrained network is a file of its own."""
    answers = {"largest_size": found.largest_size, "cheapest_repair": found.cheapest_repair}
    fields = asdict(replace(found, tuned=None))
    del fields["tuned"]
    return fields | {name: None if trial is None else trial.name for name, trial in answers.items()}


def write_robustness(
    found: Robustness, page: Page, folder: Path, write_more: Callable[[Path], None] | None = None
) -> None:
    """Write `robustness.json`, `robustness.html` and `robustness.md` to a folder, which is made if need be.

    `write_more` is called with the folder to write what belongs to them: all files are written, or none.
    """

    def write(target: Path) -> None:
        write_json(target / "robustness.json", {"format_version": FORMAT_VERSION, **as_json(found)})
        for suffix, text in (("html", render_html(page)), ("md", render_markdown(page))):
            (target / f"robustness.{suffix}").write_text(text, encoding="utf-8", newline="\n")
        if write_more is not None:
            write_more(target)

    write_together(folder, write)


def _layers(found: Robustness) -> Section:
    n_steps = len(found.layers[0].spike_errors)
    rows = [
        (
            plain(layer.layer),
            percent(layer.error_rel),
            percent(layer.nf),
            *(f"{error:.3f}" if any(layer.spike_errors) else DASH for error in layer.spike_errors),
        )
        for layer in found.layers
    ]
    head = ("layer", "error of sums", "NF", *(f"spikes, t = {step}" for step in range(1, n_steps + 1)))
    table = Table("Errors of every layer, calibrated", head, tuple(rows))
    picture = accumulation(found.layers)
    parts: list[Part] = [Text(_LAYERS_TEXT, "soft"), table]
    if picture is not None:
        parts.insert(1, picture)
    return Section("layers", "Which layers are wrong, and does it add up?", tuple(parts))


def _causes(found: Robustness) -> Section:
    text = "The same chip without one of its non-idealities each; what it would give back."
    rows = [(plain(trial.name), *_accuracies(trial, found.baseline), plain(trial.note)) for trial in found.causes]
    table = Table("Accuracy by what is ideal", ("with", "raw", "final", "gain", "note"), tuple(rows))
    chart = accuracies(found, (found.baseline, *found.causes), table)
    return Section("causes", "Where do errors come from?", (Text(text, "soft"), chart))


def _sizes(found: Robustness) -> Section:
    scale = area_scale([trial.area_um2 or 0.0 for trial in found.sizes])
    rows = [
        (
            trial.name,
            *_accuracies(trial, found.baseline),
            DASH if trial.n_crossbars is None else f"{trial.n_crossbars:,}",
            scale.text(trial.area_um2),
            "yes" if found.is_within(trial) else "no",
            plain(trial.note),
        )
        for trial in found.sizes
    ]
    head = ("crossbar", "raw", "final", "gain", "crossbars", f"area [{scale.unit}]", "within budget", "note")
    table = Table("Accuracy by size, everything else as it is", head, tuple(rows))
    return Section("sizes", "How large may crossbars be?", (accuracies(found, found.sizes, table),))


def _repairs(found: Robustness) -> Section:
    scale = area_scale([trial.area_um2 or 0.0 for trial in found.repairs])
    rows = [
        (
            plain(trial.name),
            plain(_changes(trial)),
            *_accuracies(trial, found.baseline),
            scale.text(trial.area_um2),
            DASH if trial.gain_words is None else f"{trial.gain_words:,}",
            plain(trial.note),
        )
        for trial in (found.baseline, *found.repairs)
    ]
    head = ("repair", "keys", "raw", "final", "gain", f"area [{scale.unit}]", "numbers to keep", "note")
    table = Table("Accuracy with it", head, tuple(rows), n_text=2)
    chart = accuracies(found, (found.baseline, *found.repairs), table)
    return Section("repairs", "What helps, cheapest first?", (Text(_REPAIRS_TEXT, "soft"), chart))


def _accuracies(trial: Trial, baseline: Trial) -> Sequence[str]:
    gain = DASH if trial.accuracy is None else f"{100 * _gain(trial, baseline):+.1f}"
    return percent(trial.raw), percent(trial.accuracy), gain


def _gain(trial: Trial, baseline: Trial) -> float:
    if trial.accuracy is None or baseline.accuracy is None:
        return 0.0
    return trial.accuracy - baseline.accuracy


def _changes(trial: Trial) -> str:
    if trial.n_epochs:
        return f"weights, tuned on {trial.n_epochs} x {trial.n_tuning_samples:,} samples"
    return ", ".join(f"{key}={value}" for key, value in trial.changes.items()) or DASH

"""When samples end, what their answers cost, and what is wasted behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsim.analysis.configuration import setting
from archsim.report import charts
from archsim.report.charts import Bar
from archsim.report.page import Chart, Section, Table, Text
from archsim.report.text import energy_scale, percent, share, time_scale
from archsim.result import Result
from archsim.units import format_energy, format_number

if TYPE_CHECKING:
    import pandas as pd

_POLICIES = {
    "drain": "timesteps that have begun by then run on",
    "squash": "no service of later timesteps starts after that",
    "wait": "no timestep begins before the one before has been judged",
}


def exits(result: Result) -> Section | None:
    """Samples by the timestep that decides them; None where none ends by itself."""
    samples = result.samples
    if samples is None:
        return None
    question = "When does the network stop, and what is wasted?"
    of_step = samples.groupby("timesteps")
    means = of_step[["timesteps_begun", "latency_ps", "energy_pj", "energy_wasted_pj"]].mean()
    counts = of_step.size()
    palette = {"for the answer": "c0", "wasted": "c5"}
    full = float(means["energy_pj"].max())
    bars = tuple(
        Bar(
            _after(steps),
            f"{_samples(counts[steps])}, {format_energy(row.energy_pj)} each",
            charts.stacked(_parts(row), palette.__getitem__, full, _tooltip),
        )
        for steps, row in zip(means.index, means.itertuples(), strict=True)
    )
    section = (Text(_sentence(result)), Chart(question, tuple(palette.items()), bars, _table(means, counts)))
    return Section("exits", question, section)


def _tooltip(name: str, energy_pj: float) -> str:
    return f"{name}: {format_energy(energy_pj)}"


def _parts(row: object) -> list[tuple[str, float]]:
    energy, wasted = float(row.energy_pj), float(row.energy_wasted_pj)  # type: ignore[attr-defined]
    return [("for the answer", energy - wasted), ("wasted", wasted)]


def _sentence(result: Result) -> str:
    summary, policy = result.summary, str(setting(result, "hardware.mapping.early_exit"))
    dynamic, wasted = float(summary["energy_dynamic_pj"]), float(summary["energy_wasted_pj"])
    accuracy = summary.get("accuracy_mean_timesteps")
    of_all = (
        ""
        if accuracy is None or not summary.get("n_accuracy_samples")
        else f" Over all {summary['n_accuracy_samples']} test samples the mean is {format_number(accuracy)}."
    )
    return (
        f"A sample ends when the network is sure of it: after {format_number(summary['mean_timesteps'])} of "
        f"{summary['n_timesteps']} timesteps on average; {_POLICIES[policy]} (mapping.early_exit: {policy}), so it "
        f"begins {format_number(summary['mean_timesteps_begun'])}. {format_energy(wasted)}, {share(wasted, dynamic)} "
        f"of the dynamic energy, is spent on timesteps behind the decision.{of_all}"
    )


def _table(means: pd.DataFrame, counts: pd.Series) -> Table:
    time, energy = time_scale(list(means["latency_ps"])), energy_scale(list(means["energy_pj"]))
    rows = tuple(
        (
            _after(steps),
            format_number(int(counts[steps])),
            percent(counts[steps] / counts.sum()),
            format_number(float(row.timesteps_begun)),
            time.text(float(row.latency_ps)),
            energy.text(float(row.energy_pj)),
            energy.text(float(row.energy_wasted_pj)),
        )
        for steps, row in zip(means.index, means.itertuples(), strict=True)
    )
    energies = (f"dynamic energy [{energy.unit}]", f"wasted [{energy.unit}]")
    head = ("decided", "samples", "share", "timesteps begun", f"latency [{time.unit}]", *energies)
    return Table("Samples by the timestep of their decision, means", head, rows)


def _after(steps: int) -> str:
    return f"after {steps} timestep{'' if steps == 1 else 's'}"


def _samples(count: int) -> str:
    return f"{format_number(int(count))} sample{'' if count == 1 else 's'}"

"""Sections of a sweep's report: each a question, answered from the table of points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from archsim.report import charts
from archsim.report.charts import Bar, Segment
from archsim.report.page import Bullets, Chart, Code, Figures, Folded, Part, Section, Table, Text
from archsim.report.text import DASH, is_missing, kind_label, layer_label, percent, plain, points, shorten
from archsim.sweeps.bottlenecks import MAX_BOTTLENECKS, Bottleneck
from archsim.sweeps.findings import Outcome, figure, short_names, value_text, words
from archsim.sweeps.pictures import parallel_coordinates, scatter
from archsim.sweeps.tradeoffs import Effect, Factor, Interaction, effects, interactions
from archsim.units import format_number
from archsim.version import VERSION

_N_BEST = 12
"""Designs of the front that are listed; the others are folded."""
_N_PAIRS = 5
_LEAST_SHARE = 0.01
"""Part of the variance below which an interaction is not worth a table."""
_N_ERRORS = 10


def verdict(outcome: Outcome) -> str:
    """The sweep in two sentences."""
    if outcome.rated.empty:
        return f"None of the {len(outcome.table)} points could be compared; the last section says why."
    front = outcome.front
    names = " and ".join(filter(None, (", ".join(map(words, outcome.objectives[:-1])), words(outcome.objectives[-1]))))
    knee = front.iloc[0]
    figures = ", ".join(f"{words(name)} {figure(name, knee[name])}" for name in outcome.objectives)
    worth = "one is best" if len(front) == 1 else f"{len(front)} are worth choosing between"
    return (
        f"Of {len(outcome.rated)} designs {worth} by {names}. "
        f"The {'best' if len(front) == 1 else 'knee'} is point {knee['point']}: {outcome.design(knee)}; {figures}."
        + _unfinished(outcome)
    )


def _unfinished(outcome: Outcome) -> str:
    missing = outcome.n_points - len(outcome.table)
    return f" {missing} of {outcome.n_points} points are still missing: archsim sweep goes on." if missing else ""


def overview(outcome: Outcome) -> Section:
    """How many points there are, and the best of each objective."""
    table, done = outcome.table, outcome.done
    total = len(table)
    rows = [
        ("points", format_number(total), "designs of the space with a record"),
        ("failed", format_number(total - len(done)), "designs that cannot be built or run; see the last section"),
    ]
    if not outcome.rated.empty:
        rows.append(("on the Pareto front", format_number(len(outcome.front)), "designs that no other one beats"))
    for name in outcome.objectives:
        maximizes = outcome.space.file.objectives[name] == "maximize"
        best = done.loc[done[name].idxmax() if maximizes else done[name].idxmin()]
        kind = "highest" if maximizes else "lowest"
        rows.append(
            (f"{kind} {words(name)}", figure(name, best[name]), f"point {best['point']}: {outcome.design(best)}")
        )
    parts: list[Part] = [Figures(tuple(rows))]
    if outcome.space.file.description:
        parts.insert(0, Text(plain(outcome.space.file.description)))
    missing = [words(name) for name in outcome.space.file.objectives if name not in outcome.objectives]
    if missing:
        parts.append(Text(f"No point has a figure for {', '.join(missing)}; it is left out here.", "soft"))
    return Section("overview", "What did the sweep find?", tuple(parts))


def front(outcome: Outcome) -> Section | None:
    """The Pareto front, as pictures of two objectives each and as a table."""
    if outcome.rated.empty:
        return None
    names = outcome.objectives
    parts: list[Part] = [
        Text(
            "A design is on the Pareto front if no other one is at least as good in every objective and better in one. "
            "The knee is the design of the front that is nearest to the best of every objective, each scaled to the "
            "front. Listed by that distance."
        )
    ]
    head, rows = _front_rows(outcome)
    varied = [name for name in names if outcome.rated[name].nunique() > 1]
    for first, second in pairwise(varied):
        parts.append(scatter(outcome, first, second))
    parts.append(Table("Designs of the front, nearest to the ideal first", head, rows[:_N_BEST]))
    if rows[_N_BEST:]:
        more = f"{len(rows) - _N_BEST} more designs of the front"
        parts.append(Folded(more, (Table(more, head, rows[_N_BEST:]),), f"{more} are in sweep.csv."))
    return Section("front", "Which designs are worth choosing between?", tuple(parts))


def accuracy(outcome: Outcome) -> Section | None:
    """What accuracy costs in energy, where points have one and chips were sampled."""
    name = next((each for each in ("accuracy_calibrated", "accuracy_raw") if outcome.done[each].notna().any()), None)
    if name is None or outcome.rated.empty or outcome.done[name].nunique() < 2:
        return None
    frame = outcome.done.dropna(subset=[name])
    cheapest = frame.sort_values(["energy_per_sample_pj", "point"], kind="stable")
    steps, best = [], -1.0
    for row in cheapest.to_dict("records"):
        if row[name] > best:
            best = row[name]
            steps.append(row)
    n_chips = int(frame["n_chips"].max())
    text = (
        f"Each row is the design of least energy that is more accurate than all cheaper ones. Accuracy is the mean of "
        f"{n_chips} chips with devices of their own, ± one standard deviation."
        if n_chips > 1
        else "Each row is the design of least energy that is more accurate than all cheaper ones. One chip was "
        "evaluated per point; more of them (chips) show the spread."
    )
    rows = tuple(
        (
            str(row["point"]),
            figure("energy_per_sample_pj", row["energy_per_sample_pj"]),
            percent(row[name]) + (f" ± {points(row[f'{name}_std'])}" if not is_missing(row[f"{name}_std"]) else ""),
            outcome.design(row),
        )
        for row in steps
    )
    picture = scatter(outcome, "energy_per_sample_pj", name)
    table = Table("Accuracy that energy buys", ("point", "energy per sample", words(name), "design"), rows, n_text=4)
    return Section("accuracy", "What does accuracy cost?", (Text(text), picture, table))


def sensitivity(outcome: Outcome) -> Section | None:
    """How much of each objective's variance every key explains."""
    if len(outcome.rated) < 2 or not outcome.factors:
        return None
    found = {name: effects(outcome.factors, outcome.rated[name].to_numpy(float)) for name in outcome.objectives}
    parts: list[Part] = [
        Text(
            "Share of the variance between points that the mean of each value of a key explains (on a full grid the "
            "first-order index of Sobol). What is missing to 100 % is done by keys together. Where points were drawn, "
            "excluded, failed or are missing, shares overlap. The swing is the highest mean of a value over the lowest."
        )
    ]
    for name, each in found.items():
        top = max((effect.share for effect in each), default=0.0)
        bars = tuple(Bar(effect.factor, percent(effect.share), (_bar(effect, top),)) for effect in each)
        rows = tuple((effect.factor, percent(effect.share), _swing(effect)) for effect in each)
        title = f"What moves {words(name)}"
        parts.append(Text(f"{title}: {_ranking(each)}.", "strong"))
        parts.append(Chart(title, (), bars, Table(title, ("key", "share of variance", "swing"), rows)))
    return Section("sensitivity", "Which key matters most?", tuple(parts))


def main_effects(outcome: Outcome) -> Section | None:
    """Mean of every objective at every value of every key, and what pairs of keys do together."""
    if len(outcome.rated) < 2 or not outcome.factors:
        return None
    parts: list[Part] = [
        Text("Means over all points with a value: what the key does on average over everything else that was swept.")
    ]
    columns = {name: outcome.rated[name].to_numpy(float) for name in outcome.objectives}
    means = {
        name: {effect.factor: effect.means for effect in effects(outcome.factors, values)}
        for name, values in columns.items()
    }
    rows = tuple(
        (
            factor.name if not number else "",
            label,
            *(_figure(name, means[name][factor.name][number]) for name in columns),
        )
        for factor in outcome.factors
        for number, label in enumerate(factor.labels)
    )
    head = ("key", "value", *map(words, columns))
    parts.append(Table("Mean of every objective by value", head, rows, n_text=2))
    if len(outcome.factors) > 1:
        parts += [part for name, values in columns.items() for part in _pairs(outcome.factors, name, values)]
    return Section("effects", "How does each key act, and which act together?", tuple(parts))


def lines(outcome: Outcome) -> Section | None:
    """All points as lines through keys and objectives."""
    if len(outcome.rated) < 2:
        return None
    text = Text("One line per point, from its values of the keys to its figures; the table of all points is sweep.csv.")
    return Section("lines", "How do keys and results hang together?", (text, parallel_coordinates(outcome)))


def limits(outcome: Outcome, found: Sequence[Bottleneck]) -> Section | None:
    """What the latency of each design of the front is made of."""
    if not found:
        return None
    left_out = len(outcome.front) - len(found)
    text = "Where most of the first sample's critical path is spent. Every design was simulated again for this."
    if left_out > 0:
        text += f" The {MAX_BOTTLENECKS} designs nearest to the ideal are shown."
    rows = tuple(
        (
            str(each.point),
            kind_label(each.kind),
            layer_label(each.layer),
            percent(each.share),
            figure("latency_ps", each.latency_ps),
            outcome.design(outcome.front[outcome.front["point"] == each.point].iloc[0]),
        )
        for each in found
    )
    head = ("point", "bottleneck", "layer", "share of latency", "latency", "design")
    return Section("limits", "What limits each design of the front?", (Text(text), Table("Bottlenecks", head, rows, 6)))


def failures(outcome: Outcome) -> Section | None:
    """Why points failed, most frequent reason first."""
    failed = outcome.table[outcome.table["status"] != "ok"]
    if failed.empty:
        return None
    counts = failed.groupby("error", sort=True)["point"].agg(["size", "min"])
    counts = counts.sort_values("size", ascending=False, kind="stable")
    rows = tuple(
        (str(int(row["size"])), str(int(row["min"])), plain(shorten(error, 300)))
        for error, row in counts.head(_N_ERRORS).iterrows()
    )
    text = f"{len(failed)} points failed for {len(counts)} reasons. archsim sweep --retry-failed tries them again."
    table = Table("Errors", ("points", "first", "error"), rows, n_text=3)
    return Section("failures", "Which points failed, and why?", (Text(text), table))


def provenance(outcome: Outcome, text: str) -> Section:
    """What was swept, so that somebody can do it again."""
    file = outcome.space.file
    names = short_names(outcome.space.keys)
    keys = tuple(f"{names[key]}: {key}" for key in outcome.space.keys if names[key] != key)
    rows = (
        ("hardware", plain(file.hardware)),
        ("workloads", plain(", ".join(file.workloads))),
        ("samples simulated in time", format_number(file.samples)),
        ("chips per point", format_number(file.chips)),
        ("seed", format_number(file.seed)),
        ("archsim version", VERSION),
    )
    parts: tuple[Part, ...] = (
        Table("Provenance", ("what", "value"), rows, n_text=2),
        *((Bullets(keys),) if keys else ()),
        Folded("Sweep file", (Code(text, "yaml"),), "The sweep file is in sweep.json."),
    )
    return Section("provenance", "Where do these numbers come from?", parts)


def _front_rows(outcome: Outcome) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    names = short_names(outcome.space.keys)
    head = ("point", *(names[key] for key in outcome.space.keys), *map(words, outcome.objectives))
    rows = tuple(
        (
            str(row["point"]),
            *(value_text(row[key]) for key in outcome.space.keys),
            *(figure(name, row[name]) for name in outcome.objectives),
        )
        for row in outcome.front.to_dict("records")
    )
    return head, rows


def _bar(effect: Effect, most: float) -> Segment:
    width = 100 * effect.share / most if most else 0.0
    return Segment("0", charts.number(width), "c0", f"{effect.factor}: {percent(effect.share)}")


def _ranking(found: Sequence[Effect]) -> str:
    named = [effect for effect in found if effect.share >= _LEAST_SHARE]
    return ", then ".join(f"{effect.factor} ({percent(effect.share, 0)})" for effect in named[:3]) or "no key alone"


def _swing(effect: Effect) -> str:
    means = [mean for mean in effect.means if not np.isnan(mean)]
    return f"{max(means) / min(means):.3g} x" if means and min(means) > 0 else DASH


def _figure(name: str, value: float) -> str:
    return DASH if np.isnan(value) else figure(name, value)


def _pairs(factors: Sequence[Factor], name: str, values: np.ndarray) -> list[Part]:
    """Which pairs act together, and the means of the strongest pair."""
    found = [each for each in interactions(factors, values) if each.share >= _LEAST_SHARE][:_N_PAIRS]
    if not found:
        return [Text(f"On {words(name)}, no two keys together explain more than 1 % beyond what each does.", "soft")]
    named = ", ".join(f"{' and '.join(each.factors)} ({percent(each.share)})" for each in found)
    return [Text(f"On {words(name)} act together: {named}."), _grid(factors, name, found[0])]


def _grid(factors: Sequence[Factor], name: str, pair: Interaction) -> Table:
    labels = {factor.name: factor.labels for factor in factors}
    first, second = pair.factors
    rows = tuple(
        (label, *(_figure(name, value) for value in row)) for label, row in zip(labels[first], pair.means, strict=True)
    )
    caption = f"Mean {words(name)}: {first} down, {second} across"
    return Table(caption, (f"{first} \\ {second}", *labels[second]), rows)

"""Sections of the report on balance: area that earns nothing, and layers that are slower than others."""

from __future__ import annotations

from collections.abc import Callable

from archsim.analysis import bounds
from archsim.report import charts
from archsim.report.charts import Bar
from archsim.report.page import Chart, Section, Table, Text
from archsim.report.text import area_scale, kind_label, layer_label, percent, share, shorten, time_scale
from archsim.result import Result
from archsim.units import format_area, format_number

_AREA_CLASSES = (
    ("working", "c2"),
    ("waiting or idle", "c4"),
    ("used, its own time is not counted", "c-other"),
    ("never used", "c5"),
)


def idle_area(result: Result) -> Section:
    """Area by kind of component, split by what it does during the run."""
    question = "Which area earns nothing?"
    frame = result.components
    acts = bounds.is_used(result)
    works = frame["utilisation"].where(frame["busy_ps"] > 0, 0.0)
    timed = acts & (frame["busy_ps"] > 0)
    split = frame[["kind"]].assign(area=frame["area_um2"])
    split["working"] = frame["area_um2"] * works
    split["waiting or idle"] = (frame["area_um2"] * (1 - works)).where(timed, 0.0)
    split["used, its own time is not counted"] = frame["area_um2"].where(acts & ~timed, 0.0)
    split["never used"] = frame["area_um2"].where(~acts, 0.0)
    sums = split.groupby("kind", sort=True).sum().sort_values("area", ascending=False, kind="stable")
    sums = sums[sums["area"] > 0]
    total = float(sums["area"].sum())
    if not total:
        return Section("area", question, (Text("The cost library gives the components of this chip no area."),))
    scale, full = area_scale(list(sums["area"])), float(sums["area"].max())
    palette, names = dict(_AREA_CLASSES), [name for name, _ in _AREA_CLASSES]

    bars = tuple(
        Bar(
            kind_label(kind),
            f"{scale.text(row['area'])} {scale.unit}, {share(row['area'], total)}",
            charts.stacked([(name, row[name]) for name in names], palette.__getitem__, full, _tooltip(kind)),
        )
        for kind, row in sums.iterrows()
    )
    cells = tuple(
        (kind_label(kind), *(scale.text(row[name]) for name in ("area", *names)), share(row["never used"], row["area"]))
        for kind, row in sums.iterrows()
    )
    foot = ("sum", *(scale.text(float(sums[name].sum())) for name in ("area", *names)))
    head = (f"kind of component [{scale.unit}]", "area", *names, "share never used")
    working, waiting, unused = (float(sums[name].sum()) for name in ("working", "waiting or idle", "never used"))
    table = Table("Area by kind and by what it does", head, cells, foot=(*foot, share(unused, total)))
    text = (
        f"{share(unused, total)} of the area of {format_area(total)} is never used in this run; what is used works "
        f"{share(working, working + waiting)} of the time, weighted by area, as far as its time is counted: routers, "
        "and memories whose port belongs to somebody else, have none of their own."
    )
    return Section("area", question, (Text(text), Chart(question, _AREA_CLASSES, bars, table)))


def balance(result: Result) -> Section | None:
    """How long every layer's busiest part works, and how many copies would let all of them keep twice the pace."""
    frame = bounds.stage_times(result)
    if len(frame) < 2:
        return None
    question = "How many copies does each layer need?"
    shared = frame["unit"][frame["unit"].duplicated()]
    if len(shared):
        words = f"Layers take turns on {shorten(shared.iloc[0])}, so none of them sets the pace of the others."
        return Section("balance", question, (Text(words),))
    slowest = float(frame["busy_ps"].max())
    scale = time_scale([slowest])
    first = str(frame.loc[frame["busy_ps"].idxmax(), "layer"])
    bars = tuple(
        Bar(
            layer_label(row["layer"]),
            f"{scale.text(row['busy_ps'])} {scale.unit}",
            charts.stacked([(row["unit"], row["busy_ps"])], lambda _: "c0", slowest, lambda name, _: shorten(name)),
        )
        for row in frame.to_dict("records")
    )
    cells = tuple(
        (
            layer_label(row["layer"]),
            shorten(row["unit"]),
            scale.text(row["busy_ps"]),
            percent(row["busy_ps"] / slowest),
            *(format_number(int(row[name])) for name in ("replication", "n_pes", "copies_for_twice", "pes_for_twice")),
        )
        for row in frame.to_dict("records")
    )
    head = ("layer", "busiest PE or part", f"works [{scale.unit}]", "of the slowest", "copies", "PEs")
    table = Table("Work of every layer", (*head, "copies for twice the pace", "PEs for that"), cells, n_text=2)
    more = [
        f"{layer_label(row['layer'])}: {int(row['copies_for_twice'])}"
        for row in frame.to_dict("records")
        if row["copies_for_twice"] > row["replication"]
    ]
    text = (
        f"The pace of the pipeline is that of {layer_label(first)}. Twice that pace takes these copies: "
        f"{', '.join(more)} (an estimate that divides the work of a layer among its copies; a fully connected layer "
        "gains by copies across samples only). A layer far below the slowest could share its PEs or have fewer."
    )
    return Section("balance", question, (Text(text), Chart(question, (("works", "c0"),), bars, table)))


def _tooltip(kind: object) -> Callable[[str, float], str]:
    return lambda name, value: f"{kind_label(kind)}, {name}: {format_area(value)}"

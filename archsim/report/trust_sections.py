"""Sections of the report on how far it can be trusted: cross-checks, assumptions, limits, where numbers come from."""

from __future__ import annotations

from archsim.analysis import checks, costs
from archsim.analysis.checks import Check
from archsim.report.page import Bullets, Code, Folded, Section, Table, Text
from archsim.report.text import DASH, area_scale, is_missing, percent, plain, share
from archsim.result import Result
from archsim.units import format_energy, format_number, format_time


def cross_checks(result: Result) -> Section:
    """Figures that must agree, worked out twice, and bounds that a run cannot pass."""
    found = checks.cross_checks(result)
    rows = tuple(
        (
            check.name,
            f"{check.left_words} {check.relation} {check.right_words}",
            _figure(check, check.left),
            _figure(check, check.right),
            "yes" if check.holds else "NO",
        )
        for check in found
    )
    failed = [check.name for check in found if not check.holds]
    said = "All checks hold." if not failed else f"NOT all checks hold: {', '.join(failed)}. Please report this bug."
    table = Table("What must agree", ("check", "relation", "one side", "other side", "holds"), rows, n_text=2)
    return Section(
        "checks",
        "Should I believe it?",
        (Text(said, "strong"), table, Text(_CHECKED, "soft"), *map(Text, _estimates(result))),
    )


def _figure(check: Check, value: float) -> str:
    return format_time(value) if check.unit == "ps" else format_energy(value)


_CHECKED = (
    "While it ran, the simulator also checked that every token sent was received, that no part served two at a time, "
    "that no buffer held more than it can, and Little's law with queues counted apart from the log; a run that breaks "
    "one of these laws ends with an error and has no report."
)


def _estimates(result: Result) -> list[str]:
    """What simpler models would have said, and why that differs."""
    one_by_one = checks.one_by_one_ps(result)
    latency = int(result.summary["latency_ps"])
    if not one_by_one or not latency:
        return []
    ratio = one_by_one / latency
    why = (
        "layers and timesteps overlap, which such a sum cannot see"
        if ratio > 1
        else "the rest is waiting, and work of parts that are not the busiest"
    )
    return [
        f"A model that adds layers one after the other, each as long as its busiest PE or part works, would say "
        f"{format_time(one_by_one)} per inference, {format_number(round(ratio, 2), 3)} times what was simulated: {why}."
    ]


def assumptions(result: Result) -> Section:
    """What the run itself noted."""
    none = Text("The run noted no assumptions of its own. Those of the cost library stand beside each of its entries.")
    notes = Bullets(tuple(plain(note) for note in result.notes))
    return Section("assumptions", "What did this run assume?", (notes if notes.items else none,))


def limits(result: Result) -> Section:
    """What the model leaves out, as far as it is known from the result."""
    moved = result.movement
    sentences = [
        "Energy, service times and area are counts of actions times the entries of a cost library. The result is as "
        "good as these entries; supply droop, temperature and variation between chips are not part of it. Control "
        "logic, clock trees and pads cost something only where the library has an entry for them.",
        "Timing is that of services, finite buffers and shared resources, one output position of a layer at a time. "
        "Nothing below that, such as settling inside a converter, is simulated in time.",
    ]
    if not ((moved["class"] == "weights") & moved["level"].isin(("dram", "global_buffer", "noc"))).any():
        sentences.append(
            "Weights are on the crossbars before the run begins: writing them takes neither time nor energy here."
        )
    if result.layers["nf"].notna().any():
        sentences.append(
            "Crossbars are solved as circuits, those of linear cells once per programming. Copies of a layer share one "
            "draw of cells; read noise and bent cells are averaged over reads with a fifth of the rows driven; where "
            "stages overlap, columns are sampled and held while rows are no longer driven."
        )
    if result.samples is not None:
        sentences.append("Finding out whether the network is sure of a sample takes neither time nor energy.")
    if not (moved["level"] == "dram").any():
        sentences.append("Nothing comes from or goes to a DRAM in this run; the host and its link are not included.")
    return Section("limits", "What does the model leave out?", tuple(Text(sentence) for sentence in sentences))


def provenance(result: Result) -> Section:
    """What this run was, so that somebody can do it again."""
    fields = (
        ("hardware", "hardware"),
        ("workload", "workload"),
        ("samples simulated in time", "n_samples"),
        ("timesteps", "n_timesteps"),
        ("seed", "seed"),
        ("engine", "engine"),
        ("services in the event log", "n_services"),
        ("archsim version", "archsim_version"),
        ("format version of the files", "format_version"),
    )
    rows = tuple((name, _fact(result.summary.get(key))) for name, key in fields)
    config = Folded(
        "Resolved configuration of hardware and workload",
        (Code(result.config, "yaml"),),
        "The resolved configuration of hardware and workload is in config.yaml.",
    )
    table = Table("Provenance", ("what", "value"), rows, n_text=2)
    return Section("provenance", "Where do these numbers come from?", (table, *_entries(result), config))


def _entries(result: Result) -> tuple[Text, Table] | tuple[Text]:
    """Every entry of the cost library that the run used."""
    frame = costs.used_entries(result)
    if frame["source"].isna().all():
        return (Text("The result does not say which entries of a cost library it used."),)
    energy, whole = float(frame["energy_pj"].sum()), float(frame["area_um2"].sum())
    area = area_scale(list(frame["area_um2"]))
    rows = tuple(
        (
            plain(row["entry"]),
            DASH if is_missing(row["value"]) else plain(row["value"]),
            DASH if is_missing(row["node_nm"]) else f"{row['node_nm']:g} nm",
            DASH if is_missing(row["kind"]) else plain(row["kind"]),
            DASH if is_missing(row["source"]) else plain(row["source"]),
            share(row["energy_pj"], energy) if row["energy_pj"] else "",
            f"{area.text(row['area_um2'])} {area.unit}" if row["area_um2"] else "",
        )
        for row in frame.to_dict("records")
    )
    assumed = frame[frame["kind"] == costs.ASSUMPTION]
    text = (
        f"Entries of the cost library that this run used, and what rests on each. Assumptions, which nobody published: "
        f"{percent(float(assumed['energy_pj'].sum()) / energy if energy else None)} of the energy and "
        f"{percent(float(assumed['area_um2'].sum()) / whole if whole else None)} of the area. Values are those of the "
        "library, before scaling to this chip."
    )
    head = ("entry", "value", "node", "kind", "source", "energy", "area")
    return Text(text), Table("Entries of the cost library in use", head, rows, n_text=5)


def _fact(value: object) -> str:
    if is_missing(value):
        return DASH
    return format_number(value) if isinstance(value, int) else plain(value)

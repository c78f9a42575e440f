"""Section of the report with a window of the run: what the components do in it, and why they wait in between."""

from __future__ import annotations

from archsim.analysis import timeline
from archsim.analysis.timeline import Services, Window
from archsim.eventlog import CAUSES, EventLog
from archsim.report import charts
from archsim.report.charts import Bar, Segment, Tick
from archsim.report.page import Chart, Section, Text
from archsim.report.text import percent, plain, shorten, time_scale
from archsim.result import Result
from archsim.units import format_number, format_time

_N_COMPONENTS = 16
_WAITS = {
    "data": ("waits for data", "c4"),
    "credit": ("waits for room behind it", "c5"),
    "server": ("waits for its own last service to go", "c6"),
    "arbiter": ("waits for another stream", "c3"),
}


def window(result: Result) -> Section:
    """Busiest components in a window in the middle of the run, with the gaps coloured by cause."""
    question = "What happens in the middle of the run?"
    shown = timeline.middle_window(result)
    names = timeline.acting(result, shown, _N_COMPONENTS)
    if not names or shown[1] <= shown[0]:
        return Section("timeline", question, (Text("Nothing takes time in the middle of this run."),))
    # up to the end of the run: what comes after the window says what the last gap in it waits for
    until = timeline.run_window(result.log)[1]
    rows = [(name, timeline.services(result.log, name, (shown[0], until))) for name in names]
    bars = tuple(_bar(result.log, name, found, shown) for name, found in rows)
    legend = (("works", "c2"), *_WAITS.values())
    length = shown[1] - shown[0]
    text = (
        f"{format_time(length)} from {format_time(shown[0])} on, for some services of what is on the critical path "
        f"longest; of the components that do most there, {len(names)} are shown. The colour of a gap is what the "
        "service after it waited for. A trace of the whole run, for ui.perfetto.dev: archsim report DIR --timeline."
    )
    chart = Chart(question, legend, bars, None, _ticks(shown))
    return Section("timeline", question, (Text(text), chart))


def _bar(log: EventLog, name: str, found: Services, shown: Window) -> Bar:
    """One component: what it does, and its gaps by what ends them."""
    segments: list[Segment] = []
    at, worked = shown[0], 0
    for index in range(len(found)):
        start, end, leave = (
            min(max(int(time), shown[0]), shown[1])
            for time in (
                found.start_ps[index],
                found.start_ps[index] + found.service_ps[index],
                found.leave_ps[index],
            )
        )
        what = (
            f"{log.actions[found.action[index]]} for {log.layers[found.layer[index]]}, timestep "
            f"{found.timestep[index]}, token {found.token[index]}"
        )
        segments += _wait(at, start, CAUSES[found.start_cause[index]], shown)
        if int(found.start_ps[index]) >= shown[1]:
            break
        segments += _segment(start, end, "c2", plain(f"{what}: {format_time(int(found.service_ps[index]))}"), shown)
        segments += _wait(end, leave, CAUSES[found.leave_cause[index]], shown)
        worked += end - start
        at = max(at, leave)
    return Bar(shorten(name), f"works {percent(worked / (shown[1] - shown[0]))}", tuple(segments))


def _wait(first: int, last: int, cause: str, shown: Window) -> list[Segment]:
    words, colour = _WAITS[cause]
    return _segment(first, last, colour, f"{words}: {format_time(last - first)}", shown)


def _segment(first: int, last: int, colour: str, title: str, shown: Window) -> list[Segment]:
    if last <= first:
        return []
    scale = 100 / (shown[1] - shown[0])
    return [Segment(charts.number((first - shown[0]) * scale), charts.number((last - first) * scale), colour, title)]


def _ticks(shown: Window) -> tuple[Tick, ...]:
    """Times since the beginning of the window."""
    scale = time_scale([shown[1] - shown[0]])
    return charts.time_ticks(
        shown[1] - shown[0], lambda time: "0" if time == 0 else f"+{format_number(time / scale.factor)} {scale.unit}"
    )

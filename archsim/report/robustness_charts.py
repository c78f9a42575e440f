"""Pictures of what `archsim robustness` found: accuracies side by side, and errors that add up over timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from archsim.analysis.robustness import LayerError, Robustness, Trial
from archsim.report import charts, drawing
from archsim.report.charts import Bar, Tick
from archsim.report.page import Chart, Picture, Table
from archsim.report.text import percent, plain

_LEGEND = (("within the budget", "c2"), ("below", "c5"))
_FAR = 0.12
"""Share of the axis that the label of a tick takes."""
_HEIGHT_PX, _TOP_PX, _BOTTOM_PX = 200, 16, 172
_LEFT, _RIGHT = 12.0, 97.0


def accuracies(found: Robustness, trials: Sequence[Trial], table: Table) -> Chart:
    """Accuracy of several trials as bars, and where the ideal network is."""
    bars = tuple(_bar(found, trial) for trial in trials)
    return Chart(table.caption, _LEGEND, bars, table, _ticks(found), "accuracy")


def _bar(found: Robustness, trial: Trial) -> Bar:
    name, (_, colour) = plain(trial.name), _LEGEND[0 if found.is_within(trial) else 1]
    parts = charts.stacked(
        [("accuracy", trial.accuracy or 0.0)],
        lambda _: colour,
        1.0,
        lambda _, value: f"{name}: {percent(value)}",
    )
    return Bar(name, percent(trial.accuracy), parts)


def _ticks(found: Robustness) -> tuple[Tick, ...]:
    """Marks at nothing, at the chip as it is and at the ideal network, as far as they have room."""
    base, ideal = found.baseline.accuracy or 0.0, found.ideal
    marks = [(0.0, "0", "start"), (ideal, "ideal", "end" if ideal > 1 - _FAR else "middle")]
    if _FAR < base < ideal - 2 * _FAR:
        marks.insert(1, (base, "as it is", "middle"))
    return tuple(Tick(charts.number(100 * at), label, anchor) for at, label, anchor in marks)


def accumulation(layers: Sequence[LayerError]) -> Picture | None:
    """Spikes too many or too few so far, over timesteps, a line for every layer; None for a single timestep."""
    spiking = [layer for layer in layers if any(layer.spike_errors)]
    if not spiking or len(spiking[0].spike_errors) < 2:
        return None
    n_steps = len(spiking[0].spike_errors)
    most = max(max(layer.spike_errors) for layer in spiking)
    colours = charts.colours([layer.layer for layer in spiking])
    shapes: list[drawing.Shape] = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        shapes += [drawing.stroke((_LEFT, y), (_RIGHT, y), "grid" if share else "axis")]
        shapes += [drawing.label(_LEFT - 1, y + 4, f"{share * most:.2g}", "end", soft=True)]
    every = -(-n_steps // 10)
    for step in range(0, n_steps, every):
        text = f"{'timestep ' if step == 0 else ''}{step + 1}"
        shapes.append(drawing.label(_x(step, n_steps), _BOTTOM_PX + 18, text, "middle", soft=True))
    for layer in spiking:
        colour = colours[layer.layer]
        points = [(_x(step, n_steps), _y(error / most)) for step, error in enumerate(layer.spike_errors)]
        shapes += [drawing.stroke(start, end, colour, 2) for start, end in pairwise(points)]
        shapes += [
            drawing.dot(x, y, 3, colour, f"{plain(layer.layer)}, after {step} timesteps: {error:.3f}")
            for step, ((x, y), error) in enumerate(zip(points, layer.spike_errors, strict=True), 1)
        ]
    legend = tuple((plain(name), colour) for name, colour in colours.items())
    caption = "Spikes too many or too few so far, mean over neurons and samples"
    return Picture(caption, legend, _HEIGHT_PX, tuple(shapes), None, max_width=700)


def _x(step: int, n_steps: int) -> float:
    return _LEFT + 3 + (_RIGHT - _LEFT - 6) * step / (n_steps - 1)


def _y(share: float) -> float:
    return _BOTTOM_PX - (_BOTTOM_PX - _TOP_PX) * share

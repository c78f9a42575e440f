"""Tables of `archsim describe` that every platform has: sizes of parts, and the cost library with its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archsim.hardware import rollup
from archsim.hardware.costs import Entry
from archsim.hardware.platform import Platform
from archsim.units import format_area
from archsim.workload.network import Layer

LAYER_COLUMNS = ("layer", "kind", "input", "neurons", "weights")
"""What every platform's mapping says first of a layer; `layer_cells` are its cells."""


@dataclass(frozen=True)
class Sheet:
    """A titled table of text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def layer_cells(layer: Layer) -> tuple[str, ...]:
    """A layer under `LAYER_COLUMNS`."""
    shapes = ("x".join(map(str, shape)) for shape in (layer.in_shape, layer.conv_shape))
    return layer.name, layer.kind, *shapes, str(layer.n_weights)


def size_sheet(title: str, whole: str, parts: Sequence[rollup.Part]) -> Sheet:
    """Area, leakage and, where the cost library has any, peak power, by kind of part."""
    kinds: dict[str, list[rollup.Part]] = {}
    for part in parts:
        kinds.setdefault(part.kind, []).append(part)
    total = sum(part.area_um2 for part in parts) or 1.0
    has_power = any(part.peak_power_mw for part in parts)
    rows = []
    for name, each, members in [
        *((kind, format_area(members[0].area_um2), members) for kind, members in kinds.items()),
        (whole, "", parts),
    ]:
        area = sum(part.area_um2 for part in members)
        row = (
            name,
            "1" if name == whole else str(len(members)),
            each,
            format_area(area),
            f"{area / total:.1%}",
            f"{sum(part.leakage_mw for part in members):.4g} mW",
        )
        power = _power(sum(part.peak_power_mw for part in members))
        rows.append((*row, power) if has_power else row)
    columns = ("part", "number", "area each", "area", "share", "leakage")
    return Sheet(title, (*columns, "peak power") if has_power else columns, rows)


def cost_sheet(hardware: Platform) -> Sheet:
    """Every entry of the cost library at the values of the hardware, with its source."""
    library = hardware.library
    rows = []
    for name, component in library.components.items():
        parameters = hardware.cost_parameters(name)
        for action, entry in component.actions.items():
            value = library.energy_pj(name, action, **parameters)
            rows.append(_cost_row(f"{name}.{action}", f"{value:.4g} pJ per {entry.per}", entry))
        if component.area is not None:
            area = library.area_um2(name, **parameters)
            rows.append(_cost_row(f"{name}.area", f"{format_area(area)} per {component.area.per}", component.area))
        if component.leakage is not None:
            leakage = library.leakage_mw(name, **parameters)
            rows.append(
                _cost_row(f"{name}.leakage", f"{leakage:.4g} mW per {component.leakage.per}", component.leakage)
            )
        if component.peak_power is not None:
            power = library.peak_power_mw(name, **parameters)
            rows.append(_cost_row(f"{name}.peak_power", f"{_power(power)} per instance", component.peak_power))
    return Sheet(f"Cost library {hardware.costs}", ("entry", "value here", "node", "kind", "source"), rows)


def _power(milliwatts: float) -> str:
    return f"{milliwatts / 1e3:.4g} W" if milliwatts >= 1e3 else f"{milliwatts:.4g} mW"


def _cost_row(name: str, value: str, entry: Entry) -> tuple[str, ...]:
    return name, value, f"{entry.node_nm:g} nm", entry.kind, entry.source

"""Cells, wires and converter errors of a chip in words, for whoever shows hardware or a result."""

from __future__ import annotations

from dataclasses import fields

from archsim.hardware.devices import Device, DevicePhysics
from archsim.hardware.models import Hardware
from archsim.hardware.pe import Adc, Crossbar

_NOMINAL = {"r_on_ohm", "r_off_ohm", "levels_us", "levels_sigma_us", "source"}
"""Fields that are said in other words than their name and value."""


def analog_rows(hardware: Hardware) -> list[tuple[str, str]]:
    """(part, words) for cells, their source, wires and errors of converters; ideal parts but the cells are left out."""
    crossbar, adc = hardware.tile.pe.crossbar, hardware.tile.pe.adc
    rows = [("cells", _cells(crossbar.device)), ("source of cells", _source(crossbar.device))]
    rows += [("wires", _wires(crossbar)), ("ADC errors", _converters(adc))]
    return [(part, words) for part, words in rows if words]


def _cells(device: Device) -> str:
    physics = device.physics
    if physics.is_ideal:
        return "ideal: a cell delivers its level, and wires have no resistance"
    name = "as given" if device.preset == "ideal" else device.preset
    parts = [f"{physics.r_on_ohm:g} ohm on, {physics.r_off_ohm:g} ohm off"]
    if physics.levels_us:
        spread = " with their spreads" if physics.levels_sigma_us else ""
        parts.append(f"{len(physics.levels_us)} measured levels{spread}")
    for item in fields(DevicePhysics):
        value = getattr(physics, item.name)
        if item.name not in _NOMINAL and value != item.default:
            parts.append(f"{item.name} {_plain(value)}")
    return f"{name}: {', '.join(parts)}"


def _source(device: Device) -> str:
    if device.preset == "ideal":
        return ""
    given = [name for name in type(device).model_fields if name != "preset" and getattr(device, name) is not None]
    changed = f"; changed: {', '.join(given)}" if given else ""
    return f"{device.physics.source}{changed}"


def _wires(crossbar: Crossbar) -> str:
    ohms = {
        "driver": crossbar.r_driver_ohm,
        "row wire per cell": crossbar.r_wire_row_ohm,
        "column wire per cell": crossbar.r_wire_col_ohm,
        "sense input": crossbar.r_sense_ohm,
    }
    parts = [f"{name} {value:g} ohm" for name, value in ohms.items() if value]
    if crossbar.drive == "both_sides":
        parts.append("rows driven at both ends")
    if crossbar.sense == "both_sides":
        parts.append("columns sensed at both ends")
    if crossbar.driver_sigma_rel:
        parts.append(f"driver voltages spread by {crossbar.driver_sigma_rel:g}")
    if crossbar.v_read_v is not None:
        parts.append(f"rows driven with {crossbar.v_read_v:g} V")
    return ", ".join(parts)


def _converters(adc: Adc) -> str:
    names = ("inl_lsb", "offset_sigma_lsb", "gain_sigma_rel", "noise_sigma_lsb")
    return ", ".join(f"{name} {getattr(adc, name):g}" for name in names if getattr(adc, name))


def _plain(value: object) -> str:
    """A value as the hardware file would have it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)

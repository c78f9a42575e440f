"""What a reader of a run must know about its chip and its values, in sentences."""

from __future__ import annotations

from archsim.activity import Activity
from archsim.engine.array_folds import passes_of
from archsim.engine.geometry import is_read_once
from archsim.hardware.words import analog_rows
from archsim.mapping import AnyMapping, ArrayMapping, Mapping


def run_notes(mapping: AnyMapping, activity: Activity) -> list[str]:
    """Notes on a run, in the order in which a report shows them."""
    if isinstance(mapping, ArrayMapping):
        return [*_pass_notes(mapping, activity), *_clip_notes(activity)]
    return [
        *_cell_notes(mapping, activity),
        *_unusual_notes(mapping),
        *_round_notes(mapping),
        *_clip_notes(activity),
        *_energy_notes(mapping, activity),
    ]


def _pass_notes(mapping: ArrayMapping, activity: Activity) -> list[str]:
    """Which layers of an array take their inputs bit by bit."""
    pass_bits = mapping.hardware.array.pe.input_bits
    bits = {item.layer.name: activity.layers[item.layer.name].input_bits for item in mapping.layers}
    return [
        f"inputs of layer '{name}' have {count} bits; a PE takes {pass_bits} per cycle, so they pass in "
        f"{passes_of(activity.layers[name], pass_bits)} cycles each"
        for name, count in bits.items()
        if count > pass_bits
    ]


def _cell_notes(mapping: Mapping, activity: Activity) -> list[str]:
    """What cells, wires and converters are where they are not ideal, and whose accuracy is shown."""
    pe = mapping.hardware.tile.pe
    rows = dict(analog_rows(mapping.hardware))
    if pe.crossbar.device.physics.is_ideal:
        rows.pop("cells")
    notes = [f"{part}: {words}" for part, words in rows.items()]
    if notes and activity.kind != "inferred":
        return [*notes, f"the activity is {activity.kind}: spikes and accuracy are not those of these cells"]
    if pe.differs_from_chip_to_chip and activity.accuracy.raw is not None and len(activity.accuracy.chips) < 2:
        notes.append("chips differ, and accuracy is that of one chip; more of them (--chips) show the spread")
    return notes


def _energy_notes(mapping: Mapping, activity: Activity) -> list[str]:
    """Where the circuit's read energy was asked for, but the activity does not come from this chip's circuit."""
    on_crossbars = [layer.layer.name for layer in mapping.layers if not layer.is_digital]
    without = [name for name in on_crossbars if activity.layers[name].read_power_w is None]
    if mapping.hardware.tile.pe.crossbar.v_read_v is None or not without:
        return []
    return [
        f"read energy of {', '.join(without)} is the cost library's, not the circuit's (v_read_v): "
        f"the activity is {activity.kind}, so this chip's crossbars were not solved"
    ]


_UNITS = {
    "mac": "by digital MAC units",
    "product_unit": "by a digital product unit",
    "pe": "on crossbars that are rewritten",
}


def _round_notes(mapping: Mapping) -> list[str]:
    """How often crossbars are written during the run, where the chip does not hold all weights."""
    if mapping.n_rounds == 1:
        return []
    often = "sample" if mapping.hardware.mapping.schedule == "tick_batched" else "timestep"
    return [f"the chip does not hold all weights: crossbars are written in {mapping.n_rounds} rounds per {often}"]


def _unusual_notes(mapping: Mapping) -> list[str]:
    """Which layers are not on crossbars programmed beforehand, and how often they are computed."""
    return [
        f"layer '{layer.layer.name}' is computed {_UNITS[layer.pes[0].unit]}, "
        + ("once per sample" if is_read_once(mapping, layer) else "at every timestep")
        for layer in mapping.layers
        if layer.is_digital or layer.layer.kind == "product"
    ]


def _clip_notes(activity: Activity) -> list[str]:
    """What was cut off on the way through the chip, layer by layer, in the recorded samples."""
    notes = []
    for name, layer in activity.layers.items():
        counts = (
            (layer.clipped_inputs, "input values clipped to the bits that rows carry"),
            (layer.clipped_biases, "biases clipped to the largest weight that cells hold"),
            (layer.clipped_operands, "operand values clipped to mapping.operand_bits"),
            (layer.adc_clips, "conversions outside the converter's range"),
            (layer.v_mem_saturations, "saturated membrane potentials"),
        )
        notes += [f"layer '{name}': {count} {what}" for count, what in counts if count]
    return notes

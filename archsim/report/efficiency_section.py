"""Section of the report on efficiency: the estimate that papers print, why the chip differs, and an ANN beside it."""

from __future__ import annotations

from typing import Any

from archsim.report.page import Part, Section, Table, Text
from archsim.report.text import DASH, Scale, energy_scale, is_missing, plain, share
from archsim.result import Result
from archsim.units import format_energy, format_number, format_time

_ESTIMATES = (
    ("formula_fp32", "dense operations x (1 - sparsity) x 0.9 pJ, 32-bit floating point"),
    ("formula_int8", "dense operations x (1 - sparsity) x 0.03 pJ, 8-bit integer"),
    ("counts_fp32", "ACs x 0.9 pJ + MACs x 4.6 pJ, effective ones, 32-bit floating point"),
    ("counts_int8", "ACs x 0.03 pJ + MACs x 0.23 pJ, effective ones, 8-bit integer"),
)
_PARTS = {
    "first_reads": "reads of the arrays in the first timestep, in place of the estimated accumulates",
    "repeated_reads": "reads of the arrays again in later timesteps",
    "array_writes": "writes of the arrays during the run",
    "data_movement": "data movement: buffers, fetch, H-trees, NoC, ports, DRAM",
    "neuron_and_v_mem": "neuron modules and V_mem",
    "converters": "converters",
    "digital_sums": "digital sums: shift-and-add, accumulators, pooling, digital units, PE arrays",
    "other": "other components",
    "leakage": "leakage",
}
_SOURCES = (
    "Dense operations are those of all timesteps (FLOPs x T); sparsity is that of the activations. Energies of an "
    "operation: Horowitz, ISSCC 2014, 45 nm, without memory and wires. Such estimates leave out what these parts "
    "name; they sum to the difference exactly."
)
_ANN_SOURCES = (
    "The ANN is this network on this chip in one pass: activations are the spike counts of this run, a static input "
    "is as it is; its neurons keep no potential, so V_mem is not accessed. It says nothing about accuracy."
)


def efficiency(result: Result) -> Section | None:
    """Estimate, difference and ANN, where they were worked out."""
    found = result.efficiency
    if found is None:
        return None
    estimate, simulated = found["estimates_pj"]["formula_fp32"], found["simulated_pj"]
    parts: list[Part] = [Text(_verdict(estimate, simulated), "strong")]
    parts += [Text(_ann_verdict(result, found["ann"])), _estimates(found), _parts(found), Text(_SOURCES, "soft")]
    if found["ann"]["reason"] is None:
        parts += [_ann(result, found["ann"]), Text(_ANN_SOURCES, "soft")]
    return Section("efficiency", "How far off is the usual estimate, and would an ANN take less?", tuple(parts))


def _verdict(estimate: float, simulated: float) -> str:
    words = f"Papers' formula gives {format_energy(estimate)} per inference, the simulation {format_energy(simulated)}"
    return f"{words}: {_times(simulated, estimate)}."


def _times(value: float, reference: float) -> str:
    """How a value compares with a reference, in words."""
    if not reference or not value:
        return DASH
    ratio = value / reference
    return f"{format_number(ratio)} times as much" if ratio >= 1 else f"1/{format_number(1 / ratio)} of it"


def _ann_verdict(result: Result, ann: dict[str, Any]) -> str:
    if ann["reason"] is not None:
        return f"There is no comparison with an ANN: {plain(ann['reason'])}."
    figures = f"{format_energy(ann['energy_pj'])} and {format_time(ann['latency_ps'])}"
    words = f"As an ANN with {ann['activation_bits']}-bit activations the same network takes {figures} on this chip. "
    clauses = []
    for key, verb in (
        ("break_even_timesteps_energy", "takes less energy"),
        ("break_even_timesteps_latency", "is faster"),
    ):
        steps = ann[key]
        if is_missing(steps):
            continue
        clauses.append(f"{verb} below {format_number(steps)} timesteps" if steps > 1 else f"never {verb}")
    if not clauses:
        return words
    return f"{words}The spiking network {' and '.join(clauses)}; this run has {_timesteps(result)}."


def _estimates(found: dict[str, Any]) -> Table:
    estimates, simulated = found["estimates_pj"], found["simulated_pj"]
    rows = [(words, format_energy(estimates[key]), _ratio(simulated, estimates[key])) for key, words in _ESTIMATES]
    foot = ("simulated", format_energy(simulated), "1")
    return Table(
        "Estimates and simulation, per inference", ("", "energy", "simulated / estimate"), tuple(rows), foot=foot
    )


def _ratio(value: float, reference: float) -> str:
    return format_number(value / reference) if reference else DASH


def _parts(found: dict[str, Any]) -> Table:
    parts = found["parts_pj"]
    scale = energy_scale([*parts.values(), found["difference_pj"]])
    rows = tuple(
        (words, _signed(scale, parts[key]), share(parts[key], found["simulated_pj"]) if parts[key] > 0 else DASH)
        for key, words in _PARTS.items()
        if key in parts
    )
    head = ("part of the difference", f"energy [{scale.unit}]", "of the simulated energy")
    foot = ("sum: simulated - first estimate", _signed(scale, found["difference_pj"]), "")
    return Table("Where simulation and estimate differ", head, rows, foot=foot)


def _signed(scale: Scale, value: float) -> str:
    return f"−{scale.text(-value)}" if value < 0 else scale.text(value)


def _ann(result: Result, ann: dict[str, Any]) -> Table:
    run, bits = result.summary, ann["activation_bits"]
    costs = (
        (f"this run, {_timesteps(result)} timesteps", run["energy_per_sample_pj"], run["latency_ps"]),
        ("its first timestep alone", ann["snn_first_timestep_pj"], ann["snn_first_timestep_ps"]),
        ("every further timestep", ann["snn_further_timestep_pj"], ann["snn_further_timestep_ps"]),
        (f"ANN, one pass, {bits} bits", ann["energy_pj"], ann["latency_ps"]),
    )
    rows = tuple((words, format_energy(energy_pj), format_time(latency_ps)) for words, energy_pj, latency_ps in costs)
    steps = (_steps(ann["break_even_timesteps_energy"]), _steps(ann["break_even_timesteps_latency"]))
    head = ("", "energy", "latency")
    caption = "Spiking network and ANN on this chip, per inference"
    return Table(caption, head, rows, foot=("break-even timesteps", *steps))


def _timesteps(result: Result) -> str:
    """Timesteps that samples begin, on average."""
    return format_number(result.summary.get("mean_timesteps_begun", result.summary["n_timesteps"]))


def _steps(value: float | None) -> str:
    return DASH if is_missing(value) or value is None else format_number(value)

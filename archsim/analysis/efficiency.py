"""Is a spiking network as efficient on the chip as papers estimate, and does it beat an ordinary network there?

Three questions with figures per sample: what the usual estimate says, where the simulated energy differs from it,
and from how many timesteps on the same network as an ANN (one pass, values of several bits) costs less.

Source of the estimate E = FLOPs x T x (1 - sparsity) x E_AC, and of why it misleads: "Are SNNs truly
energy-efficient? A hardware perspective", ICASSP 2024 (arXiv 2309.03388). Energies of an operation: cost library
`arithmetic-45nm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.engine.simulation import Origin, simulate_activity
from archsim.errors import ConfigError, MappingError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import change_hardware, load_library
from archsim.mapping import map_network
from archsim.result import Result

ANN_BITS = 4
"""Bits of an ANN's activations: those of the ANNs that SpikeSim (Moitra et al., IEEE TCAD 2023) compares with."""

PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("data_movement", ("tile_buffer", "fetch", "index_table", "htree", "router", "link", "port", "input", "output")),
    ("data_movement", ("global_buffer", "dram", "weight_buffer", "ifmap_buffer", "ofmap_buffer", "scratchpad")),
    ("neuron_and_v_mem", ("neuron", "v_mem")),
    ("converters", ("adc", "mux")),
    ("digital_sums", ("shift_add", "row_counter", "accumulator", "pooling")),
    ("digital_sums", ("mac", "mac_weights", "product_unit", "pe_array")),
)
"""Kinds of component whose dynamic energy is a part of the difference; arrays and their drivers are told apart by
what they do, and what is of none of these kinds is `other`."""

_ARRAYS = ("crossbar", "row_driver")
_UNKNOWN_SPIKES = "the run's spikes are not at hand"


def neurobench(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a run under the names of NeuroBench's harness (Yik et al., Nature Communications 2025)."""
    accuracy = summary["accuracy_raw"] if summary["accuracy_calibrated"] is None else summary["accuracy_calibrated"]
    return {
        "Footprint": summary["footprint_bytes"],
        "ConnectionSparsity": summary["connection_sparsity"],
        "ClassificationAccuracy": accuracy,
        "ActivationSparsity": summary["activation_sparsity"],
        "SynapticOperations": {
            "Effective_MACs": summary["effective_macs"],
            "Effective_ACs": summary["effective_acs"],
            "Dense": summary["synaptic_ops"],
        },
    }


def efficiency(result: Result) -> dict[str, Any] | None:
    """Estimate, difference and comparison with an ANN; energies in pJ per sample.

    Args:
        result: A run of this process (`archsim.simulate`), or `archsim.repeat_run` of a loaded one.

    Returns:
        None where no neuron fires, so there is no sparsity to estimate with. Else `estimates_pj` (`formula_fp32`,
        `formula_int8`: dense operations of all timesteps x (1 - activation sparsity) x E_AC; `counts_fp32`,
        `counts_int8`: effective accumulates x E_AC + effective multiply-accumulates x E_MAC), `simulated_pj`,
        `difference_pj` (simulated - `formula_fp32`), `parts_pj`, which sum to the difference (1e-12), and `ann`.
    """
    estimates = estimates_pj(result.summary)
    if estimates is None:
        return None
    simulated = float(result.summary["energy_per_sample_pj"])
    return {
        "estimates_pj": estimates,
        "simulated_pj": simulated,
        "difference_pj": simulated - estimates["formula_fp32"],
        "parts_pj": parts_pj(result, estimates["formula_fp32"]),
        "ann": ann_comparison(result),
    }


def estimates_pj(summary: Mapping[str, Any]) -> dict[str, float] | None:
    """What papers print for a run, pJ per sample; None without activation sparsity."""
    sparsity = summary["activation_sparsity"]
    if sparsity is None:
        return None
    library = load_library("arithmetic-45nm")
    found = {}
    for width in ("fp32", "int8"):
        accumulate = library.action("arithmetic", f"ac_{width}").energy_pj
        multiply = library.action("arithmetic", f"mac_{width}").energy_pj
        found[f"formula_{width}"] = summary["synaptic_ops"] * (1 - sparsity) * accumulate
        found[f"counts_{width}"] = summary["effective_acs"] * accumulate + summary["effective_macs"] * multiply
    return found


def parts_pj(result: Result, estimate_pj: float) -> dict[str, float]:
    """Why the simulated energy is not an estimate: parts in pJ per sample that sum to the difference.

    `first_reads`: reading the arrays in the first timestep, less the estimate, for which they do the accumulates;
    `repeated_reads`: reading them again in later timesteps; `array_writes`; `data_movement`; `neuron_and_v_mem`;
    `converters`; `digital_sums`; `leakage`; `other`. Parts of nothing are left out.
    """
    n_samples = int(result.summary["n_samples"])
    dynamic = result.components.groupby("kind", sort=True)["energy_dynamic_pj"].sum()
    first, later, writes = _array_energy_pj(result)
    found = {"first_reads": first - estimate_pj * n_samples, "repeated_reads": later, "array_writes": writes}
    known = set(_ARRAYS)
    for part, kinds in PARTS:
        known |= set(kinds)
        found[part] = found.get(part, 0.0) + sum(float(dynamic.get(kind, 0.0)) for kind in kinds)
    found["other"] = sum(float(energy) for kind, energy in dynamic.items() if kind not in known)
    found["leakage"] = float(result.components["energy_leakage_pj"].sum())
    return {name: energy / n_samples for name, energy in found.items() if energy}


def _array_energy_pj(result: Result) -> tuple[float, float, float]:
    """Energy of arrays and row drivers over the run: reads of first timesteps, of later ones, writes."""
    log, components = result.log, result.components
    write = log.actions.index("write") if "write" in log.actions else -1
    first, later, writes = [0.0], [0.0], [0.0]
    for name in components["component"][components["kind"].isin(_ARRAYS) & (components["energy_dynamic_pj"] > 0)]:
        step, action, energy = log.services_of(str(name), "timestep", "action", "energy_pj")
        reads = action != write
        first.append(float(energy[reads & (step == 0)].sum()))
        later.append(float(energy[reads & (step > 0)].sum()))
        writes.append(float(energy[~reads].sum()))
    return math.fsum(first), math.fsum(later), math.fsum(writes)


def ann_comparison(result: Result) -> dict[str, Any]:
    """The same network as an ANN on the same chip, and the timesteps from which on it costs less.

    The ANN makes one pass. A static input enters as it is; else a neuron's activation is its spike count over the
    timesteps, in `ANN_BITS` bits, any spike at all being at least 1. Its neurons keep no potential, so accesses of
    V_mem are left out. The energy and latency of T timesteps are those of the first and T - 1 further ones, from
    this run (T: the mean that samples begin) and from its first timestep alone.

    Returns:
        `reason` (why there is no comparison, else None), `activation_bits`, `energy_pj`, `latency_ps`,
        `snn_first_timestep_pj`, `snn_further_timestep_pj` (and `_ps`), `break_even_timesteps_energy` and
        `break_even_timesteps_latency` (real numbers, below which the spiking network costs less; None where a further
        timestep costs nothing).
    """
    reason = _no_ann(result)
    if reason is not None:
        return {"reason": reason}
    origin: Origin = result.origin
    hardware = origin.mapping.hardware
    try:
        on_rows = {"mapping.input_coding": "bit_serial"} if isinstance(hardware, Hardware) else {}
        changed = change_hardware(hardware, {**on_rows, "mapping.input_bits": "auto"})
        ann = simulate_activity(map_network(changed, origin.workload), origin.workload, _ann_activity(origin.activity))
        one = simulate_activity(origin.mapping, origin.workload, _first_timestep(origin.activity))
    except (ConfigError, MappingError) as err:
        return {"reason": str(err)}
    kept_pj = float(ann.components["energy_dynamic_pj"][ann.components["kind"] == "v_mem"].sum())
    found = {
        "reason": None,
        "activation_bits": ANN_BITS,
        "energy_pj": ann.summary["energy_per_sample_pj"] - kept_pj / origin.activity.n_samples,
        "latency_ps": ann.summary["latency_ps"],
    }
    for key, figure, unit in (("energy", "energy_per_sample_pj", "pj"), ("latency", "latency_ps", "ps")):
        first = one.summary[figure]
        further = (result.summary[figure] - first) / (result.summary["mean_timesteps_begun"] - 1)
        found |= {f"snn_first_timestep_{unit}": first, f"snn_further_timestep_{unit}": further}
        found[f"break_even_timesteps_{key}"] = _break_even(found[f"{key}_{unit}"], first, further)
    return found


def _no_ann(result: Result) -> str | None:
    """Why a run cannot be compared with an ANN, in words; None where it can."""
    origin: Origin | None = result.origin
    if origin is None:
        return _UNKNOWN_SPIKES
    layers = origin.mapping.network.layers
    if result.summary["mean_timesteps_begun"] == 1:
        return "the run has one timestep only, so what a further one costs is not known"
    if any(layer.delayed for layer in layers):
        return "the network is recurrent: one pass is not the same network"
    if any(layer.kind == "product" for layer in layers):
        return "the network multiplies activities, which in an ANN takes a softmax that archsim does not have"
    if any(layer.read_power_w is not None for layer in origin.activity.layers.values()):
        return "the read energy is the circuit's (v_read_v), which is known for this run's spikes only"
    return None


def _break_even(ann: float, first: float, further: float) -> float | None:
    """Timesteps at which a cost that grows by `further` per timestep is that of the ANN; None if it does not grow."""
    return 1 + (ann - first) / further if further > 0 else None


def _ann_activity(activity: Activity) -> Activity:
    """One pass with values of several bits in place of all timesteps; nothing ends by itself."""
    layers = {
        name: LayerActivity(_ann_values(layer.inputs), _ann_values(layer.spikes))
        for name, layer in activity.layers.items()
    }
    return replace(activity, layers=layers, n_timesteps=1, exits=None)


def _ann_values(values: np.ndarray) -> np.ndarray:
    """Values of one pass, shape (sample, 1, channel, height, width)."""
    if (values == values[:, :1]).all():
        return values[:, :1]
    rate = values.sum(axis=1, keepdims=True, dtype=np.int64) * (2**ANN_BITS - 1) / values.shape[1]
    return np.ceil(rate).astype(np.int64)


def _first_timestep(activity: Activity) -> Activity:
    """The same activity, ended after its first timestep."""
    layers = {name: LayerActivity(layer.inputs[:, :1], layer.spikes[:, :1]) for name, layer in activity.layers.items()}
    return replace(activity, layers=layers, n_timesteps=1, exits=None)

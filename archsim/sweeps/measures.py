"""Figures of a run that a sweep keeps: columns of its table, and what objectives can be."""

from __future__ import annotations

from typing import Literal

Direction = Literal["minimize", "maximize"]

INTEGERS = (
    *("n_samples", "n_timesteps", "latency_ps", "latency_p50_ps", "latency_p99_ps", "synaptic_ops", "effective_acs"),
    *("effective_macs", "footprint_bytes", "n_accuracy_samples", "n_chips", "n_services", "n_crossbars", "n_pes"),
    "n_tiles",
)
NUMBERS = (
    *("mean_timesteps", "mean_timesteps_begun", "accuracy_mean_timesteps", "energy_wasted_pj"),
    *("latency_per_timestep_ps", "throughput_samples_per_s", "energy_pj", "energy_dynamic_pj", "energy_leakage_pj"),
    *("energy_per_sample_pj", "power_mw", "area_um2", "edp_pj_s", "tops_per_w", "tops_per_mm2"),
    *("activation_sparsity", "connection_sparsity", "cell_utilisation", "accuracy_ideal", "accuracy_raw"),
    *("accuracy_calibrated", "accuracy_raw_std", "accuracy_raw_p05", "accuracy_calibrated_std"),
    "accuracy_calibrated_p05",
)
MEASURES = (*NUMBERS, *INTEGERS)
"""Keys of `summary.json` that are figures."""

DEFAULT_OBJECTIVES: dict[str, Direction] = {"latency_ps": "minimize", "energy_per_sample_pj": "minimize"}

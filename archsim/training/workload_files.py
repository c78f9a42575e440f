"""Writes a workload as files that every command reads: network, input and settings. Entry point: `write_workload`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from archsim.errors import ConfigError
from archsim.training.export import network_nir
from archsim.workload.model import InputData, Workload

SETTINGS = ("timestep_s", "reset", "spikes_per_step", "lif_update")
"""What a network file leaves open; the input is written as the integers that it has become, so encodings are done."""


def require_nir() -> None:
    """Check, before anything long has run, that networks can be written.

    Raises:
        ConfigError: The optional package is missing.
    """
    try:
        import nir  # noqa: F401
    except ImportError as err:
        raise ConfigError(
            "a retrained network is written with the package nir, which is missing: pip install 'archsim[train]', or "
            "leave retraining out (--retrain 0)"
        ) from err


def write_workload(workload: Workload, folder: Path, name: str) -> None:
    """Write `NAME.nir`, `NAME.npz` and `NAME.yaml`; the last is a workload for `archsim run`.

    Args:
        workload: A chain of layers with weights (see `network_nir`) and its input, labels and calibration set.
        folder: An existing folder.
        name: Stem of the files and name of the workload.

    Raises:
        WorkloadError: The network is not one that can be written.
    """
    import nir

    nir.write(folder / f"{name}.nir", network_nir(workload.network, workload.settings))
    assert workload.input is not None, "only workloads with an input have accuracies to keep"
    arrays: dict[str, Any] = _arrays(workload.input, workload.calibration)
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    keys: dict[str, object] = {"format_version": 1, "name": name, "description": f"{workload.name}, retrained"}
    keys |= {"network": f"{name}.nir", "input": f"{name}.npz", "timesteps": workload.n_timesteps}
    keys |= {key: getattr(workload.settings, key) for key in SETTINGS}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in keys.items()]  # JSON scalars are YAML
    (folder / f"{name}.yaml").write_text("".join(lines), encoding="utf-8", newline="\n")


def _arrays(data: InputData, calibration: InputData | None) -> dict[str, np.ndarray]:
    """Keys of an input file, see `workload.inputs`."""
    key = "images" if data.coding == "direct" else "spikes"
    parts = {key: data.values} | ({} if calibration is None else {f"calibration_{key}": calibration.values})
    arrays = {name: values[:, 0] if data.coding == "direct" else values for name, values in parts.items()}
    arrays["scale"] = np.array(data.scale)
    return arrays if data.labels is None else arrays | {"labels": data.labels}

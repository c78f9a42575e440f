"""Activities as plain arrays, and what of a chip they depend on: the spikes of one point serve many others."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from archsim.activity import Accuracy, Activity, ChipAccuracy, LayerActivity
from archsim.analysis.candidates import value_keys
from archsim.hardware.systolic import AnyHardware
from archsim.sweeps.cache import Arrays
from archsim.sweeps.identity import digest
from archsim.version import VERSION

_HEADER = "header"


def activity_key(hardware: AnyHardware, workload_hash: str, samples: int, chips: int, seed: int) -> str:
    """Hash of everything that an activity depends on; chips that differ in their timing alone have one key."""
    return digest(
        {
            "archsim": VERSION,
            "hardware": value_keys(hardware),
            "workload": workload_hash,
            "samples": samples,
            "chips": chips,
            "seed": seed,
        }
    )


def arrays_of(activity: Activity) -> Arrays:
    """An activity as arrays; whatever is none stands in a JSON header."""
    header: dict[str, Any] = {
        "n_samples": activity.n_samples,
        "n_timesteps": activity.n_timesteps,
        "kind": activity.kind,
        "notes": list(activity.notes),
        "accuracy": {**asdict(activity.accuracy), "chips": [asdict(chip) for chip in activity.accuracy.chips]},
        "layers": {},
    }
    arrays: dict[str, np.ndarray] = {}
    for number, (name, layer) in enumerate(activity.layers.items()):
        single = {}
        for item in fields(LayerActivity):
            value = getattr(layer, item.name)
            if isinstance(value, np.ndarray):
                arrays[f"{number}.{item.name}"] = value
            else:
                single[item.name] = value.item() if isinstance(value, np.generic) else value
        header["layers"][name] = single
    for name in ("outputs", "exits"):
        if (values := getattr(activity, name)) is not None:
            arrays[name] = values
    return {_HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays}


def activity_of(arrays: Arrays) -> Activity:
    """The activity that `arrays_of` took apart."""
    header = json.loads(arrays[_HEADER].tobytes().decode())
    layers = {}
    for number, (name, single) in enumerate(header["layers"].items()):
        own: dict[str, Any] = {
            key.split(".", 1)[1]: array for key, array in arrays.items() if key.startswith(f"{number}.")
        }
        layers[name] = LayerActivity(**single, **own)
    accuracy = header["accuracy"]
    chips = tuple(ChipAccuracy(**chip) for chip in accuracy.pop("chips"))
    return Activity(
        layers,
        header["n_samples"],
        header["n_timesteps"],
        header["kind"],
        Accuracy(**accuracy, chips=chips),
        arrays.get("outputs"),
        tuple(header["notes"]),
        arrays.get("exits"),
    )

"""Runs a network through the analog core and records what happened in it; or replays or assumes it.

Entry: `infer`. torch is imported only for networks with weights: a recorded trace is replayed, and
the activity of a network of which only shapes are known is assumed, with numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from archsim.activity import Activity
from archsim.errors import WorkloadError
from archsim.inference.assumed import assumed_activity
from archsim.inference.judging import require_outputs
from archsim.inference.replay import replayed_activity
from archsim.mapping import AnyMapping
from archsim.workload.model import Recording, Workload

if TYPE_CHECKING:
    from archsim.inference.network import IdealRun
    from archsim.workload.network import Network

__all__ = ["assumed_activity", "infer", "record_ideal", "recording_of", "replayed_activity", "run_ideal"]

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done."""


def infer(
    mapping: AnyMapping,
    workload: Workload,
    samples: int = 1,
    seed: int = 0,
    chips: int = 1,
    progress: Progress | None = None,
) -> Activity:
    """Find what the network does on this chip, and how right it is.

    Args:
        mapping: The network on the chip.
        workload: The same network with its input, or a trace.
        samples: First samples to record for timing; accuracy uses all that there are.
        seed: Seed of assumed spikes and of everything random about the chip.
        chips: Chips whose accuracy is evaluated; timing is that of the first.
        progress: Called after every batch.

    Raises:
        WorkloadError: There is no input, or fewer samples or timesteps than asked for.
    """
    if chips != 1 and (workload.recording is not None or not workload.network.has_weights):
        kind = "a recorded trace" if workload.recording is not None else "a network without weights"
        raise WorkloadError(f"workload '{workload.name}' is {kind}, whose accuracy no chip changes; set chips to 1.")
    if workload.recording is not None:
        require_outputs(mapping.hardware, workload.name, "a recorded trace")
        return replayed_activity(workload, mapping.hardware.policy, samples)
    if not workload.network.has_weights:
        require_outputs(mapping.hardware, workload.name, "a network without weights")
        return assumed_activity(workload, samples, seed, mapping.hardware.policy)
    from archsim.inference.network import infer_network  # imports torch

    return infer_network(mapping, workload, samples, seed, chips, progress)


def run_ideal(network: Network, values: np.ndarray, n_timesteps: int, input_scale: float = 1.0) -> IdealRun:
    """Run a network with weights without hardware; see `archsim.inference.network.run_ideal`."""
    from archsim.inference.network import run_ideal as run  # imports torch

    return run(network, values, n_timesteps, input_scale)


def recording_of(activity: Activity, workload: Workload) -> Recording:
    """What a trace keeps of an activity: the spikes of one chip, and its figures."""
    first = next(layer for layer in workload.network.layers if layer.source == "input")
    inputs = activity.layers[first.name].inputs.reshape(
        activity.n_samples, activity.n_timesteps, *workload.network.input_shape
    )
    accuracy = activity.accuracy
    return Recording(
        inputs=inputs,
        spikes={name: layer.spikes for name, layer in activity.layers.items()},
        outputs=activity.outputs,
        accuracy={
            "ideal": accuracy.ideal,
            "raw": accuracy.raw,
            "calibrated": accuracy.calibrated,
            "n_samples": accuracy.n_samples,
        },
        errors_rel={name: layer.error_rel for name, layer in activity.layers.items()},
        notes=activity.notes,
        pooling="any" if activity.kind == "assumed" else "sum",
    )


def record_ideal(workload: Workload, samples: int, seed: int = 0) -> Recording:
    """Record the first samples of a workload without hardware.

    Raises:
        WorkloadError: There is no input, or it has fewer samples.
    """
    if workload.recording is not None:
        return workload.recording
    if not workload.network.has_weights:
        return recording_of(assumed_activity(workload, samples, seed), workload)
    from archsim.inference.network import checked_input, smallest_dtype  # imports torch

    data = checked_input(workload, samples)
    values = data.frame(0, samples, workload.n_timesteps)
    run = run_ideal(workload.network, values, workload.n_timesteps, data.scale)
    return Recording(
        inputs=smallest_dtype(np.ascontiguousarray(values)),
        spikes={name: smallest_dtype(spikes) for name, spikes in run.spikes.items()},
        outputs=run.outputs,
    )

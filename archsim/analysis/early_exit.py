"""Dynamic timesteps: a sample ends when the network is sure of it, and what that saves and wastes on a chip.

Each sample has the chip to itself. What happens until the decision is the same as in a run of all timesteps,
because until then nobody knows of it, so times and energies are read from that run's event log. Three policies say
what becomes of timesteps that have begun by then: `drain` finishes them, `squash` starts no further service, and
`wait` never begins a timestep before the one before is judged. Entry point: `early_exit`.

Source: exit by confidence after DT-SNN (Li et al., DAC 2023, arXiv 2305.17346), with the largest softmax value instead
of its entropy (assumption); judging takes neither time nor energy (assumption).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from archsim.activity import Activity, LayerActivity
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError, MappingError, WorkloadError
from archsim.hardware.models import Hardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.mapping.model import Mapping
from archsim.result import Result
from archsim.workload.model import Workload

if TYPE_CHECKING:
    import pandas as pd

Policy = Literal["drain", "squash", "wait"]
Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done."""


def early_exit(
    hardware: Hardware,
    workload: Workload,
    confidence: float,
    policy: Policy = "drain",
    samples: int = 10,
    seed: int = 0,
    scale: float = 1.0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Let every sample end by itself, and time each alone on the chip.

    Args:
        hardware: The chip.
        workload: A network with weights and its input.
        confidence: Largest value of softmax(scale * output / t) from which timestep t is the last, 0 to 1; 1 exits
            never. Outputs are those of the chip, calibrated where it is.
        policy: What becomes of timesteps that have begun when the decision falls.
        samples: Samples, the first of the input.
        seed: Seed of everything random.
        scale: Factor of the outputs; that of the training's loss, if it had one.
        progress: Called after every sample.

    Returns:
        One row per sample: `n_timesteps` run, `n_begun` (those that were begun), `latency_ps` from injection to
        decision, `energy_pj` (dynamic, of the timesteps that count, without sending the answer), `wasted_pj` (dynamic,
        of the others),
        `leakage_pj` until the decision, `is_right` and `is_right_full` (after all timesteps), missing without labels.

    Raises:
        ConfigError: Confidence or policy is not possible.
        WorkloadError: Only spikes are known of the network, or samples are missing.
        MappingError: The network does not fit, or with `wait` keeps sums of its first timestep.
    """
    import pandas as pd  # heavy, loaded with the first table

    if not 0 <= confidence <= 1 or policy not in get_args(Policy):
        raise ConfigError(
            f"confidence is {confidence!r} and policy {policy!r}; confidence is a probability from 0 to 1, "
            f"the policy {', '.join(get_args(Policy))}"
        )
    if policy == "wait" and hardware.mapping.first_layer == "once":
        raise MappingError(
            "policy wait runs timesteps one by one, and mapping.first_layer: once keeps what the first one computed; "
            "set mapping.first_layer: repeat, or choose drain or squash"
        )
    mapping = map_network(hardware, workload)
    activity = infer(mapping, workload, samples, seed)
    if activity.outputs_over_time is None:
        raise WorkloadError(
            f"workload '{workload.name}' has no weights, so nobody knows when it would be sure; give a network with "
            "weights and an input"
        )
    last = exits(activity.outputs_over_time, confidence, scale)
    labels = None if workload.input is None else workload.input.labels
    rows = []
    for sample, n_timesteps in enumerate(last.tolist()):
        alone = part_of(activity, sample, slice(None))
        run = _one_by_one if policy == "wait" else _all_at_once
        row = {"sample": sample, "n_timesteps": n_timesteps}
        row |= run(mapping, workload, alone, n_timesteps, policy == "drain", seed)
        if labels is not None:
            answers = activity.outputs_over_time[sample].argmax(-1)
            row |= {
                "is_right": answers[n_timesteps - 1] == labels[sample],
                "is_right_full": answers[-1] == labels[sample],
            }
        rows.append(row)
        if progress is not None:
            progress("samples", (sample + 1) / len(last))
    return pd.DataFrame(rows)


def exits(outputs: np.ndarray, confidence: float, scale: float = 1.0) -> np.ndarray:
    """Timesteps that every sample takes, int64, shape (sample,), for outputs of shape (sample, step, class)."""
    n_timesteps = outputs.shape[1]
    logits = scale * outputs / np.arange(1, n_timesteps + 1)[:, None]
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    is_sure = odds.max(-1) / odds.sum(-1) >= confidence
    is_sure[:, -1] = True
    return is_sure.argmax(1) + 1


def part_of(activity: Activity, sample: int, steps: slice) -> Activity:
    """One sample of an activity, and of its timesteps some, with bits per value as the whole has them."""
    layers = {name: _part_of_layer(layer, activity, sample, steps) for name, layer in activity.layers.items()}
    n_timesteps = len(range(*steps.indices(activity.n_timesteps)))
    return replace(activity, layers=layers, n_samples=1, n_timesteps=n_timesteps, outputs=None, outputs_over_time=None)


def _part_of_layer(layer: LayerActivity, activity: Activity, sample: int, steps: slice) -> LayerActivity:
    def part(values: np.ndarray) -> np.ndarray:
        return values[sample : sample + 1, steps]

    power = layer.read_power_w
    if power is not None:
        by_step = power.reshape(activity.n_samples, activity.n_timesteps, -1, power.shape[-1])
        power = part(by_step).reshape(-1, power.shape[-1])
    return replace(
        layer,
        inputs=part(layer.inputs),
        spikes=part(layer.spikes),
        operand=None if layer.operand is None else part(layer.operand),
        read_power_w=power,
        least_bits=(layer.input_bits, layer.operand_bits),
    )


def _all_at_once(
    mapping: Mapping, workload: Workload, alone: Activity, n_timesteps: int, drains: bool, seed: int
) -> dict[str, float]:
    """Timesteps follow each other as the chip lets them; those behind the last are wasted as far as they came."""
    result = simulate_activity(mapping, workload, alone, seed)
    log = result.log
    step, start, energy = log["timestep"], log["start_ps"], log["energy_pj"]
    decision = _decided_ps(mapping, result, n_timesteps)
    begun = {number: int(start[step == number].min()) for number in range(alone.n_timesteps)}
    n_begun = sum(number < n_timesteps or first < decision for number, first in begun.items())
    late = (step >= n_timesteps) & (step < n_begun)
    if not drains:
        late &= start < decision
    until = decision / result.summary["latency_ps"]
    return {
        "n_begun": n_begun,
        "latency_ps": decision,
        "energy_pj": float(energy[(step >= 0) & (step < n_timesteps) & (start < decision)].sum()),
        "wasted_pj": float(energy[late].sum()),
        "leakage_pj": result.summary["energy_leakage_pj"] * until,
    }


def _one_by_one(
    mapping: Mapping, workload: Workload, alone: Activity, n_timesteps: int, _drains: bool, seed: int
) -> dict[str, float]:
    """Every timestep is injected when the one before has been judged."""
    found = {"n_begun": n_timesteps, "latency_ps": 0, "energy_pj": 0.0, "wasted_pj": 0.0, "leakage_pj": 0.0}
    for number in range(n_timesteps):
        result = simulate_activity(mapping, workload, part_of(alone, 0, slice(number, number + 1)), seed)
        decision, log = _decided_ps(mapping, result, 1), result.log
        found["latency_ps"] += decision
        found["energy_pj"] += float(log["energy_pj"][(log["timestep"] >= 0) & (log["start_ps"] < decision)].sum())
        found["leakage_pj"] += result.summary["energy_leakage_pj"] * decision / result.summary["latency_ps"]
    return found


def _decided_ps(mapping: Mapping, result: Result, n_timesteps: int) -> int:
    """When the neurons of the output have taken in a number of timesteps."""
    output = next(item.layer.name for item in reversed(mapping.layers) if mapping.is_output(item.layer))
    log = result.log
    updates = log.actions_of("update") & (log["timestep"] == n_timesteps - 1)
    updates &= log["layer"] == log.layers.index(output)
    return int(log["leave_ps"][updates].max())

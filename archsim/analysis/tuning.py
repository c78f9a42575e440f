"""Retraining among the repairs of `robustness`: what it may learn from, and how it is asked for.

Training itself is the caller's: whoever asks for a robustness report hands in a `Tuner`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from archsim.errors import WorkloadError
from archsim.hardware.models import Hardware
from archsim.workload.model import Workload
from archsim.workload.network import Network

SAMPLES_PER_JUDGED = 4
"""Samples to learn from for each that is judged, at most: retraining then takes less time than all other trials."""
MIN_SAMPLES = 32
"""Samples to learn from, at least (assumption): fewer teach the samples, not the chip."""


class Tuner(Protocol):
    """Changes the weights of a network so that they suit a chip."""

    @property
    def n_epochs(self) -> int:
        """How often every sample is seen."""

    def tune(
        self, hardware: Hardware, workload: Workload, seed: int, progress: Callable[[str, float], None] | None
    ) -> Network:
        """The network of the workload with other weights, learnt from the samples of its input."""


def samples_to_learn_from(workload: Workload, n_judged: int) -> Workload:
    """The workload with samples that are not judged: those behind the first `n_judged`, then its calibration set.

    Labels are left out: what the ideal network says is what the chip shall say.

    Raises:
        WorkloadError: There are too few.
    """
    data = workload.input
    assert data is not None, "robustness has samples"
    parts = [data.values[n_judged:], *([] if workload.calibration is None else [workload.calibration.values])]
    values = np.concatenate([part[:, : workload.n_timesteps] for part in parts])
    if len(values) < MIN_SAMPLES:
        raise WorkloadError(
            f"besides the {n_judged} samples that are judged there are {len(values)} to learn from; retraining takes "
            f"at least {MIN_SAMPLES}. Give an input with more samples, or lower --samples"
        )
    chosen = values[: SAMPLES_PER_JUDGED * n_judged]
    return replace(workload, input=replace(data, values=chosen, labels=None))

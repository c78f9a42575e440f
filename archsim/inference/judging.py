"""When a network is sure of a sample, and what it says then: dynamic timesteps (`mapping.early_exit`).

Source: exit by confidence after DT-SNN (Li et al., DAC 2023, arXiv 2305.17346), with the largest softmax value instead
of its entropy (assumption).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from archsim.errors import WorkloadError
from archsim.hardware.models import Hardware
from archsim.hardware.systolic import AnyHardware


@dataclass(frozen=True)
class Judge:
    """Ends a sample at the first timestep at which the network is sure of it; without a confidence at the last."""

    confidence: float | None = None
    """Largest softmax of `gain * outputs / timesteps` from which a sample ends, above 0 and up to 1."""
    gain: float = 1.0

    @classmethod
    def of(cls, hardware: AnyHardware) -> Self:
        """The judge of a chip."""
        if not isinstance(hardware, Hardware) or hardware.mapping.early_exit == "none":
            return cls()
        return cls(hardware.mapping.exit_confidence, hardware.mapping.exit_gain)

    def exits(self, outputs: np.ndarray) -> np.ndarray:
        """Timesteps that every sample takes, int64, (sample,), for outputs of shape (sample, step, class)."""
        n_samples, n_timesteps = outputs.shape[:2]
        if self.confidence is None:
            return np.full(n_samples, n_timesteps)
        logits = self.gain * outputs / np.arange(1, n_timesteps + 1)[:, None]
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        is_sure = odds.max(-1) / odds.sum(-1) >= self.confidence
        is_sure[:, -1] = True
        return is_sure.argmax(1) + 1

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs with which every sample ends, (sample, class)."""
        return outputs[np.arange(len(outputs)), self.exits(outputs) - 1]

    def n_right(self, outputs: np.ndarray, labels: np.ndarray) -> int:
        """Samples whose last outputs name their label."""
        return int((self.answers(outputs).argmax(1) == labels).sum())


def require_outputs(hardware: AnyHardware, workload: str, what: str) -> None:
    """Refuse to judge a network of which nobody knows what it says after every timestep.

    Raises:
        WorkloadError: The chip ends samples early.
    """
    if Judge.of(hardware).confidence is not None:
        raise WorkloadError(
            f"workload '{workload}' is {what}, so nobody knows when it would be sure of a sample; give a network with "
            "weights and an input, or set mapping.early_exit: none"
        )

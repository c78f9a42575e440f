"""What stands behind the weights of a layer that is trained: spiking units with a gradient, rectifiers, readouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from archsim.errors import WorkloadError
from archsim.training.surrogate import Spike
from archsim.units import ceil_div


@dataclass(frozen=True)
class Neuron:
    """What stands behind the weights of hidden layers.

    `spiking`: `v = decay * v + input_gain * i`, a spike where v >= 1, then v loses 1 (reset `subtract`) or
    becomes 0 (reset `zero`); decay 1 is IF. `relu` and `sigmoid` have no memory and serve networks that are
    converted, or compared with.
    """

    fires: ClassVar[bool] = True
    kind: Literal["spiking", "relu", "sigmoid"] = "spiking"
    decay: float = 1.0
    """Factor of the potential from one timestep to the next, above 0 and up to 1."""
    input_gain: float = 1.0
    """Factor of the weighted input, above 0."""
    reset: Literal["subtract", "zero"] = "subtract"
    shared_channels: int = 1
    """Neighbouring channels that share a unit and its potential at each position, as `chip.neuron.shared_channels` of a
    chip: the unit decays once per timestep, then each channel in turn adds its input, fires and resets. The last unit
    may have fewer."""

    def __post_init__(self) -> None:
        if not (0 < self.decay <= 1 and 0 < self.input_gain < math.inf):
            raise WorkloadError(
                f"decay is {self.decay!r} and input_gain {self.input_gain!r}; "
                "decay must be above 0 and at most 1, input_gain finite and above 0"
            )
        if self.shared_channels < 1 or (self.shared_channels > 1 and self.kind != "spiking"):
            raise WorkloadError(
                f"shared_channels is {self.shared_channels!r} of '{self.kind}' neurons; it must be at least 1; only "
                "'spiking' neurons have a potential that more than one channel can share"
            )

    def step(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor | float, Tensor]:
        """Potentials after one timestep, and what the neurons emit; the reset passes no gradient.

        Args:
            potential: Of before, shape (sample, unit) or (sample, unit, height, width), one unit per
                `shared_channels` channels; 0.0 at rest.
            current: Weighted sums, shape (sample, channel) or (sample, channel, height, width).
        """
        if self.kind == "relu":
            return 0.0, current.relu()
        if self.kind == "sigmoid":
            return 0.0, current.sigmoid()
        if self.shared_channels > 1:
            return self._step_in_turn(potential, current)
        return self._fire(self.decay * potential + self.input_gain * current)

    def _step_in_turn(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor, Tensor]:
        """`step` of units that several channels share; equal to `archsim.analog.neurons.step_shared`, with a gradient.

        Source: LIF sharing across channels, EfficientLIF-Net (Kim et al., arXiv 2305.18360), from its abstract: which
        channels share and in which order is an assumption.
        """
        n_channels, n_shared = current.shape[1], self.shared_channels
        n_units = ceil_div(n_channels, n_shared)
        v = self.decay * potential + current.new_zeros(current.shape[0], n_units, *current.shape[2:])
        turns = [torch.arange(turn, n_channels, n_shared) for turn in range(min(n_shared, n_channels))]
        emitted = []
        for channels in turns:
            # Units that have no channel left for this turn (the last one) keep what they hold.
            now, resting = v[:, : len(channels)], v[:, len(channels) :]
            left, spikes = self._fire(now + self.input_gain * current[:, channels])
            v = torch.cat([left, resting], dim=1)
            emitted.append(spikes)
        return v, torch.cat(emitted, dim=1)[:, torch.cat(turns).argsort()]

    def _fire(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials after firing and reset, and the spikes."""
        spikes = Spike.apply(v - 1.0)
        left = v - spikes.detach() if self.reset == "subtract" else v * (1.0 - spikes.detach())
        return left, spikes


class Dynamics(Protocol):
    """What stands behind the weights of one layer, over time."""

    @property
    def fires(self) -> bool:
        """Whether `step` emits something of its own; else what it emits is the potential, an output."""

    def step(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor | float, Tensor]:
        """Potentials after one timestep (0.0 at rest) and what the neurons emit, for weighted sums of one timestep.

        Where synapses keep a current as well, potentials have a first axis of 2: potential and current.
        """


class Accumulator:
    """A readout that adds its sums up and never fires."""

    fires = False

    def step(self, potential: Tensor | float, current: Tensor) -> tuple[Tensor | float, Tensor]:
        """The sum so far, twice."""
        total = potential + current
        return total, total

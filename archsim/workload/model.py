"""A workload: a network, the values that enter it, and the settings that NIR files leave open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from archsim.workload.network import INPUT, Network


@dataclass(frozen=True)
class InputData:
    """What enters the network, as integers that hardware can put on rows.

    `values` has shape (sample, step, channel, height, width); for direct coding the step axis has
    length 1 and the same frame enters at every timestep. The real input is `values * scale`.
    Negative values make the rows two's complement.
    """

    values: np.ndarray
    scale: float = 1.0
    labels: np.ndarray | None = None
    coding: Literal["direct", "spikes"] = "spikes"

    @property
    def n_samples(self) -> int:
        """Samples held."""
        return int(self.values.shape[0])

    def frame(self, first: int, last: int, n_timesteps: int) -> np.ndarray:
        """Values of samples first..last-1, shape (sample, step, C, H, W) with n_timesteps steps."""
        part = self.values[first:last]
        if self.coding == "direct":
            return np.broadcast_to(part, (part.shape[0], n_timesteps, *part.shape[2:]))
        return part[:, :n_timesteps]


@dataclass(frozen=True)
class WorkloadSettings:
    """What the network file does not say. Every field is also a `--set workload.KEY=VALUE` path."""

    timestep_s: float = 1e-4
    reset: Literal["subtract", "zero"] = "zero"
    spikes_per_step: Literal["one", "many"] = "one"
    lif_update: Literal["exponential", "euler"] = "exponential"
    assumed_rate: float | None = None
    """Weightless networks only: probability that a neuron spikes in a timestep (Bernoulli)."""
    work: str | None = None
    """Layer tables only: which of several networks."""
    encoding: Literal["direct", "rate", "latency", "delta"] = "direct"
    """How images become spikes, see `encoders`; recordings and generators are spikes already."""
    encoding_max: float | None = None
    """Image value that counts as full intensity (rate, latency); None is the largest of the file."""
    delta_threshold: float | None = None
    """Smallest change between two frames that spikes (delta), in the unit of the images."""


@dataclass(frozen=True)
class Recording:
    """What happened in a network once: enough to time it on any chip, without its weights.

    `inputs` has shape (sample, step, channel, height, width); `spikes` holds what each layer's
    neurons emitted, before pooling, same axes. Figures that only a network with weights can have
    (accuracy, errors) travel along.
    """

    inputs: np.ndarray
    spikes: dict[str, np.ndarray]
    outputs: np.ndarray | None = None
    accuracy: dict[str, float | int | None] = field(default_factory=dict)
    errors_rel: dict[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pooling: Literal["sum", "any"] = "sum"
    """What leaves a pooling window: its spike count, or (assumed spikes) whether there was any."""

    @property
    def n_samples(self) -> int:
        """Samples recorded."""
        return int(self.inputs.shape[0])


@dataclass(frozen=True)
class Request:
    """What `load_workload` was asked for, so that it can be asked again from another folder."""

    name_or_path: str
    """Shipped name, or absolute path."""
    input: str | None = None
    """Generator, or absolute path; None: that of the workload file."""
    timesteps: int | None = None
    samples: int | None = None
    seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    """Overrides by key, those of the workload file left out."""


@dataclass(frozen=True)
class Workload:
    """A network with its input, ready to be mapped and run.

    `calibration` holds values for converter ranges and digital gains; they never overlap with the
    labelled samples when the workload ships its own.
    """

    name: str
    network: Network
    n_timesteps: int
    input: InputData | None
    calibration: InputData | None = None
    settings: WorkloadSettings = field(default_factory=WorkloadSettings)
    source: str = ""
    assumed_rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Weightless networks whose table states its activity: probability that a neuron spikes, by layer
    (and `input`) and timestep. It stands before `settings.assumed_rate`; see `rates_of`."""
    recording: Recording | None = None
    """Spikes to replay; then neither weights nor input are needed."""
    request: Request | None = None
    """How it was loaded; None where it was not loaded but made."""

    @property
    def has_static_input(self) -> bool:
        """Whether the same frame enters at every timestep: images coded directly, or values that never change."""
        if self.recording is not None:
            values = self.recording.inputs
        elif self.input is not None:
            values = self.input.values[:, :1] if self.input.coding == "direct" else self.input.values
        else:
            return self.rates_of(INPUT) == (1.0,) * self.n_timesteps
        return bool((values[:, : self.n_timesteps] == values[:, :1]).all())

    def rates_of(self, name: str) -> tuple[float, ...] | None:
        """Assumed probability that a neuron of a layer (or `input`) spikes, by timestep; None where none is assumed."""
        if name in self.assumed_rates:
            return self.assumed_rates[name]
        rate = self.settings.assumed_rate
        return None if rate is None else (rate,) * self.n_timesteps

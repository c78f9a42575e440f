"""Networks that can be trained: a chain of weighted layers, with spiking or continuous neurons between them.

A `Net` runs with its own weights, or with what a technology makes of them (`Cells`), so the same
network is trained, mapped and compared. `export.export_nir` writes it for the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from archsim.errors import WorkloadError
from archsim.training.neurons import Accumulator, Dynamics, Neuron

Coding = Literal["direct", "rate", "spikes"]
Norm = Literal["none", "batch", "per_timestep"]


class Circuit(Protocol):
    """Crossbars, converters, digital gains and the store of potentials of one layer of a chip."""

    @property
    def is_noisy(self) -> bool:
        """Whether the same inputs give other sums each time."""

    def sums(self, values: Tensor) -> Tensor:
        """Weighted sums with bias as the chip delivers them, for inputs of one timestep."""

    def stored(self, potential: Tensor) -> Tensor:
        """Potentials as the chip keeps them until the next timestep."""


@dataclass(frozen=True)
class Cells:
    """What a technology makes of the weights of one layer."""

    weight: Tensor
    """What a read multiplies inputs with, in units and shape of the weights."""
    noise_variance: Tensor | None = None
    """Variance that an input of 1 adds to each sum at every read, same shape; None without read noise."""
    circuit: Circuit | None = None
    """Gives the values of sums and potentials, where they are more than products with `weight`; these then only give
    the gradients (straight through)."""

    @property
    def is_noisy(self) -> bool:
        """Whether the same inputs give other sums each time."""
        return self.noise_variance is not None or (self.circuit is not None and self.circuit.is_noisy)


@dataclass(frozen=True)
class Seen:
    """What one hidden layer or the readout did in one timestep."""

    inputs: Tensor
    """As its rows get them."""
    sums: Tensor
    """Weighted sums with bias, before batch norm."""
    potential: Tensor | float
    """After firing, see `Dynamics.step`; of fewer units than channels where they are shared; of the readout all that it
    has summed up."""
    emitted: Tensor
    """What neurons emitted, before pooling; of the readout its potential."""


Trace = list[list[Seen]]
"""By timestep and layer."""

Mapper = Callable[["Weighted", int], Cells]
"""Gives the cells of a layer, called with the layer and its number."""


class Weighted(nn.Module):
    """A convolution or matrix product, a digital bias, and sum pooling behind the neurons.

    Weights have shape (out, in) or (out_channel, in_channel, kernel_h, kernel_w).
    """

    def __init__(self, weight: Tensor, bias: bool = False, padding: int = 0, stride: int = 1, pool: int = 1) -> None:
        """Wrap initial weights; `pool` is the edge of the square of positions whose spikes are summed."""
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0])) if bias else None
        self.padding, self.stride, self.pool = padding, stride, pool
        self.groups = 1
        """Channel groups; only imported layers have several."""
        self.limit: float | None = None
        """Largest absolute weight that training may leave behind; None: any."""
        self.full_scale: float | None = None
        """Weight that the on conductance stands for; None: the largest absolute weight."""

    @property
    def is_conv(self) -> bool:
        """Whether inputs are maps."""
        return self.weight.ndim == 4

    def product(self, values: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums of the inputs."""
        if self.is_conv:
            return functional.conv2d(values, weight, padding=self.padding, stride=self.stride)
        return functional.linear(values, weight)

    def sums(self, values: Tensor, cells: Cells | None = None) -> Tensor:
        """Weighted sums of the inputs as cells give them, with fresh noise, plus the bias."""
        sums = self.product(values, self.weight if cells is None else cells.weight)
        if cells is not None and cells.noise_variance is not None:
            variance = self.product(values.square(), cells.noise_variance)
            sums = sums + (variance + torch.finfo(sums.dtype).tiny).sqrt() * torch.randn_like(sums)
        sums = sums if self.bias is None else sums + self.bias.view(-1, *[1] * (sums.ndim - 2))
        return sums if cells is None or cells.circuit is None else _valued(sums, cells.circuit.sums(values))

    def emitted(self, values: Tensor) -> Tensor:
        """What leaves the layer where its neurons emit `values`."""
        if self.pool == 1:
            return values
        return functional.avg_pool2d(values, self.pool, divisor_override=1)

    def clip(self) -> None:
        """Bring weights back within `limit`."""
        if self.limit is not None:
            with torch.no_grad():
                self.weight.clamp_(-self.limit, self.limit)


def random_weight(shape: Sequence[int], spread: float = 2.0**0.5) -> Tensor:
    """Normal weights of spread `spread / sqrt(fan_in)`, from torch's global generator."""
    return torch.randn(tuple(shape)) * spread / math.sqrt(math.prod(shape[1:]))


def unrolled(weight: Tensor) -> Tensor:
    """Weights as rows and columns of a crossbar, (row, col): kernel position by position, channels within."""
    return weight.T if weight.ndim == 2 else weight.permute(2, 3, 1, 0).flatten(0, 2)


def rolled(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The reverse of `unrolled`, for weights of a shape."""
    if len(shape) == 2:
        return matrix.T
    outputs, inputs, height, width = shape
    return matrix.reshape(height, width, inputs, outputs).permute(3, 2, 0, 1)


class Net(nn.Module):
    """Weighted layers in a chain; the last is a readout that accumulates its sums and never fires.

    Args:
        layers: Hidden layers, then the readout.
        neuron: What stands behind the hidden layers; or behind every layer, the last included, which then need not be
            a readout: of one that fires, the output is what it has emitted so far.
        n_timesteps: Timesteps of a run; 1 for continuous neurons.
        coding: `direct`: images enter at every timestep; `rate`: Bernoulli spikes of probability pixel
            (0..1), drawn anew at every timestep; `spikes`: inputs have a step axis, (sample, step, ...).
        norm: Batch norm between weights and neurons: none, one for all timesteps (`batch`), or one for each
            (`per_timestep`, without shift: BNTT of Kim and Panda, Frontiers in Neuroscience 2021).

    Raises:
        WorkloadError: There is no layer, or continuous neurons are to run for several timesteps.
    """

    def __init__(
        self,
        layers: Sequence[Weighted],
        neuron: Neuron | Sequence[Dynamics],
        n_timesteps: int = 1,
        coding: Coding = "direct",
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        alike = neuron if isinstance(neuron, Neuron) else Neuron()
        if not layers or n_timesteps < 1 or (alike.kind != "spiking" and n_timesteps > 1):
            raise WorkloadError(
                f"{len(layers)} layers of '{alike.kind}' neurons are to run for {n_timesteps} timesteps; "
                "a network needs a layer and a timestep, and neurons without memory take exactly one"
            )
        self.layers = nn.ModuleList(layers)
        self.neurons: Sequence[Dynamics] = [*[alike] * (len(layers) - 1), Accumulator()]
        """What stands behind every layer, the readout included."""
        self._neuron: Neuron | None = alike
        if not isinstance(neuron, Neuron):
            self.neurons, self._neuron = neuron, None
        self.n_timesteps, self.coding, self.norm = n_timesteps, coding, norm
        n_norms = {"none": 0, "batch": 1, "per_timestep": n_timesteps}[norm]
        self.norms = nn.ModuleList(nn.ModuleList(_norm(layer, norm) for _ in range(n_norms)) for layer in layers[:-1])
        self.rate = torch.zeros(())
        """Mean of what hidden neurons emitted in the last run, over timesteps and layers."""

    @property
    def neuron(self) -> Neuron:
        """What stands behind all hidden layers.

        Raises:
            WorkloadError: Every layer has neurons of its own.
        """
        if self._neuron is None:
            raise WorkloadError(
                "every layer of this network has neurons of its own, those of the network that it was imported from; "
                "write its weights back with export_network()"
            )
        return self._neuron

    def weighted_layers(self) -> list[Weighted]:
        """The layers, with their type."""
        return [layer for layer in self.layers if isinstance(layer, Weighted)]

    def norms_of(self, index: int) -> list[nn.Module]:
        """Batch norms of a hidden layer: none, one, or one for every timestep."""
        norms = self.norms[index]
        assert isinstance(norms, nn.ModuleList), "made so"
        return list(norms)

    def map(self, mapper: Mapper) -> list[Cells]:
        """Cells of all layers."""
        return [mapper(layer, number) for number, layer in enumerate(self.weighted_layers())]

    def forward(self, inputs: Tensor, cells: Sequence[Cells] | None = None, trace: Trace | None = None) -> Tensor:
        """Potential of the readout after the last timestep, shape (sample, class); see `run`."""
        *_, last = self.run(inputs, cells, trace)
        return last

    def run(self, inputs: Tensor, cells: Sequence[Cells] | None = None, trace: Trace | None = None) -> Iterator[Tensor]:
        """Potential of the readout after every timestep, shape (sample, class).

        Args:
            inputs: Images (sample, ...), or spikes (sample, step, ...) with coding `spikes`.
            cells: What layers multiply with, from `map`; their own weights by default.
            trace: Takes what every layer did, timestep by timestep.
        """
        *hidden, readout = self.weighted_layers()
        held: Sequence[Cells | None] = cells or [None] * (len(hidden) + 1)
        # An image that enters unchanged gives the same sums at every timestep, unless reads are noisy.
        repeats = self.coding == "direct" and (held[0] is None or not held[0].is_noisy)
        first = _sums(self.weighted_layers()[0], inputs, held[0]) if repeats else None
        potentials: list[Tensor | float] = [0.0] * len(self.layers)
        output, self.rate = torch.zeros(()), torch.zeros(())
        for step in range(self.n_timesteps):
            values, seen = self._entering(inputs, step), list[Seen]()
            for index, layer in enumerate(hidden):
                entered = values
                sums = first if index == 0 and first is not None else _sums(layer, values, held[index])
                normed = sums
                if self.norm != "none":
                    normed = self.norms_of(index)[min(step, len(self.norms_of(index)) - 1)](sums)
                potentials[index], emitted = _step(self.neurons[index], potentials[index], normed, held[index])
                seen.append(Seen(entered, sums, potentials[index], emitted))
                self.rate = self.rate + emitted.mean() / (self.n_timesteps * len(hidden))
                values = layer.emitted(emitted)
            last = first if not hidden and first is not None else _sums(readout, values, held[-1])
            potentials[-1], emitted = _step(self.neurons[-1], potentials[-1], last, held[-1])
            output = output + readout.emitted(emitted) if self.neurons[-1].fires else emitted
            if trace is not None:
                trace.append([*seen, Seen(values, last, output, output)])
            yield output.flatten(1)

    def _entering(self, inputs: Tensor, step: int) -> Tensor:
        """What enters at a timestep."""
        if self.coding == "spikes":
            return inputs[:, step]
        return (torch.rand_like(inputs) < inputs).to(inputs.dtype) if self.coding == "rate" else inputs


def _step(
    neurons: Dynamics, potential: Tensor | float, current: Tensor, cells: Cells | None
) -> tuple[Tensor | float, Tensor]:
    """One timestep of a layer's neurons, with potentials as the chip keeps them."""
    left, emitted = neurons.step(potential, current)
    if cells is None or cells.circuit is None or not isinstance(left, Tensor):
        return left, emitted
    kept = _valued(left, cells.circuit.stored(left.detach()))
    if neurons.fires:
        return kept, emitted
    return kept, kept if kept.ndim == emitted.ndim else kept[0]


def _valued(exact: Tensor, changed: Tensor) -> Tensor:
    """Values of `changed`, to the last bit, with the gradient of `exact`."""
    return changed + (exact - exact.detach())


def _sums(layer: Weighted, values: Tensor, cells: Cells | None) -> Tensor:
    return layer.sums(values if layer.is_conv else values.flatten(1), cells)


def _norm(layer: Weighted, norm: Norm) -> nn.Module:
    """Batch norm of a layer's channels; without shift where every timestep has its own."""
    made = (nn.BatchNorm2d if layer.is_conv else nn.BatchNorm1d)(layer.weight.shape[0], eps=1e-4)
    made.bias.requires_grad_(norm == "batch")
    return made

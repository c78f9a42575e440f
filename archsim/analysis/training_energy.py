"""What a training step costs on a systolic array: forward, backward and weight update, operations and words.

Backpropagation through time repeats every convolution and every access of potentials and spikes once per
timestep. Three sparsities save operations: of spikes (forward and weight update), of the gradients of potentials
(backward), and of the gradients of the firing function (potential gradients). None of them saves words. Counts are
closed forms, not a simulation. Entry point: `training_energy`.

Source: Yin et al., SATA, TCAD 42(6), 2023 (arXiv 2204.05422) as counted by its released calculator, corrected:
every layer's operations count, fully connected layers use sparsity too, spikes take one bit wherever words take
16, the sparsity of the firing function is used, and weights are updated once per batch. The original arithmetic is
`archsim.validation.sata_training`.
"""

from __future__ import annotations

from dataclasses import dataclass

from archsim.errors import ConfigError
from archsim.hardware.costs import CostLibrary
from archsim.hardware.reader import load_library
from archsim.workload.network import Layer, Network

LIBRARY = "sata-training-65nm"
WORD_BITS = 16
_LEVELS = ("dram", "global_buffer", "scratchpad")


@dataclass(frozen=True)
class Sparsity:
    """Parts of the values that are zero, each 0 to 1."""

    spikes: float = 0.0
    """Of what every layer receives."""
    potential_gradients: float = 0.0
    """Of the loss's gradients with respect to membrane potentials."""
    firing_gradients: float = 0.0
    """Of the surrogate gradients of the firing function."""


@dataclass(frozen=True)
class StageEnergy:
    """Energy of one stage of training per sample, in pJ."""

    compute_pj: float
    dram_pj: float
    global_buffer_pj: float
    scratchpad_pj: float

    @property
    def memory_pj(self) -> float:
        """All memories."""
        return self.dram_pj + self.global_buffer_pj + self.scratchpad_pj

    @property
    def total_pj(self) -> float:
        """Computation and memories."""
        return self.compute_pj + self.memory_pj

    def __add__(self, other: StageEnergy) -> StageEnergy:
        return StageEnergy(
            self.compute_pj + other.compute_pj,
            self.dram_pj + other.dram_pj,
            self.global_buffer_pj + other.global_buffer_pj,
            self.scratchpad_pj + other.scratchpad_pj,
        )


@dataclass(frozen=True)
class TrainingEnergy:
    """Energy of training with one sample."""

    forward: StageEnergy
    backward: StageEnergy
    weight_update: StageEnergy

    @property
    def total(self) -> StageEnergy:
        """All three stages."""
        return self.forward + self.backward + self.weight_update


NO_SPARSITY = Sparsity()


def training_energy(
    network: Network,
    timesteps: int = 1,
    spiking: bool = True,
    sparsity: Sparsity = NO_SPARSITY,
    batch: int = 1,
    library: CostLibrary | None = None,
) -> TrainingEnergy:
    """Energy of training a network with one sample of a batch.

    Args:
        network: Its shapes; weights are not needed.
        timesteps: Timesteps that backpropagation unrolls, at least 1.
        spiking: Inputs of layers are spikes of one bit, gated and added; else 16-bit values, multiplied (an ordinary
            network, usually with one timestep).
        sparsity: What is zero.
        batch: Samples after which weights are fetched, updated and written, at least 1.
        library: Prices per operation and 16-bit word; by default `sata-training-65nm`.

    Raises:
        ConfigError: A number is outside its range, the network multiplies activities, or a price is missing.
    """
    _require_valid(network, timesteps, sparsity, batch)
    prices = _Prices(library or load_library(LIBRARY))
    nothing = StageEnergy(0.0, 0.0, 0.0, 0.0)
    forward, backward, update = nothing, nothing, nothing
    for layer in network.layers:
        sizes = _Sizes.of(layer, timesteps, spiking)
        forward += _forward(sizes, prices, sparsity)
        backward += _backward(sizes, prices, sparsity)
        update += _weight_update(sizes, prices, sparsity, batch)
    return TrainingEnergy(forward, backward, update)


@dataclass(frozen=True)
class _Sizes:
    """Counts of a layer; words have 16 bits."""

    spiking: bool
    timesteps: int
    weights: int
    neurons: int
    """Neurons that fire, in one timestep."""
    outputs: int
    """Output words of one timestep."""
    input_words: float
    """Input words of one timestep."""
    forward_macs: int
    """Products of weights and inputs, all timesteps."""
    backward_macs: int
    """Products of weights and gradients, all timesteps."""

    @classmethod
    def of(cls, layer: Layer, timesteps: int, spiking: bool) -> _Sizes:
        channels, height, width = layer.in_shape
        _, out_height, out_width = layer.conv_shape
        outputs = layer.out_channels * out_height * out_width
        return cls(
            spiking,
            timesteps,
            layer.n_weights,
            outputs if layer.neuron.fires else 0,
            outputs,
            channels * height * width / (WORD_BITS if spiking else 1),
            layer.n_weights * out_height * out_width * timesteps,
            layer.n_weights * height * width * timesteps,
        )


class _Prices:
    """Energy of composite operations and of words, in pJ."""

    def __init__(self, library: CostLibrary) -> None:
        price = library.energy_pj
        multiply, accumulate, gate = (
            price(*entry) for entry in (("multiplier", "multiply"), ("accumulator", "accumulate"), ("and_gate", "gate"))
        )
        add, select, shift = (price(*entry) for entry in (("adder", "add"), ("mux", "select"), ("shifter", "shift")))
        compare, latch = price("comparator", "compare"), price("register", "latch")
        self.multiply_accumulate = multiply + accumulate
        self.gated_accumulate = gate + accumulate
        self.neuron = add + compare + 2 * select + 3 * latch + shift
        """Leak by shift and subtraction, threshold, soft reset (config/sata_config.yaml:20-81)."""
        self.relu = compare
        self.potential_gradient = multiply + 2 * add + select + 2 * shift
        self.firing_share = multiply + add
        """Part of a potential gradient that a zero gradient of the firing function makes needless (assumption)."""
        self.word = {level: price(level, "access") for level in _LEVELS}


def _stage(prices: _Prices, compute_pj: float, dram: float, buffer: float, scratchpad: float) -> StageEnergy:
    words = zip(_LEVELS, (dram, buffer, scratchpad), strict=True)
    return StageEnergy(compute_pj, *(prices.word[level] * count for level, count in words))


def _forward(sizes: _Sizes, prices: _Prices, sparsity: Sparsity) -> StageEnergy:
    mac = prices.gated_accumulate if sizes.spiking else prices.multiply_accumulate
    neuron = prices.neuron if sizes.spiking else prices.relu
    compute = (1.0 - sparsity.spikes) * sizes.forward_macs * mac + sizes.neurons * sizes.timesteps * neuron
    inputs = sizes.timesteps * sizes.input_words
    dram = sizes.weights + sizes.timesteps * sizes.outputs + inputs
    return _stage(prices, compute, dram, 2 * dram, 2 * (sizes.weights + inputs))


def _backward(sizes: _Sizes, prices: _Prices, sparsity: Sparsity) -> StageEnergy:
    compute = (1.0 - sparsity.potential_gradients) * sizes.backward_macs * prices.multiply_accumulate
    if sizes.spiking:
        gradient = prices.potential_gradient - sparsity.firing_gradients * prices.firing_share
        compute += sizes.neurons * sizes.timesteps * gradient
    outputs, inputs = sizes.timesteps * sizes.outputs, sizes.timesteps * sizes.input_words
    buffer = 7 * outputs + 2 * inputs + sizes.weights
    return _stage(prices, compute, outputs + inputs, buffer, sizes.weights + outputs)


def _weight_update(sizes: _Sizes, prices: _Prices, sparsity: Sparsity, batch: int) -> StageEnergy:
    mac = prices.gated_accumulate if sizes.spiking else prices.multiply_accumulate
    compute = (1.0 - sparsity.spikes) * sizes.forward_macs * mac
    outputs, inputs = sizes.timesteps * sizes.outputs, sizes.timesteps * sizes.input_words
    fetched, accumulated = 2 * sizes.weights / batch, 2 * sizes.timesteps * sizes.weights
    buffer = fetched + accumulated + inputs + outputs
    return _stage(prices, compute, fetched, buffer, buffer + accumulated)


def _require_valid(network: Network, timesteps: int, sparsity: Sparsity, batch: int) -> None:
    for name, number in (("timesteps", timesteps), ("batch", batch)):
        if number < 1:
            raise ConfigError(f"training_energy: {name} is {number}; it must be at least 1")
    for name in ("spikes", "potential_gradients", "firing_gradients"):
        part = getattr(sparsity, name)
        if not 0.0 <= part <= 1.0:
            raise ConfigError(f"training_energy: sparsity.{name} is {part}; it must be between 0 and 1")
    product = next((layer.name for layer in network.layers if layer.kind == "product"), None)
    if product is not None:
        raise ConfigError(
            f"training_energy: layer '{product}' multiplies two activities; only layers with weights are counted"
        )

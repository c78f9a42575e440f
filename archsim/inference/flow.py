"""Runs the layers of a network in order of data flow: joins, one-timestep delays, neurons over time.

What a layer's weights do is the caller's: `run_network` asks a function for each layer and hands it
what arrives. Entry points: `run_network`, `fire`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.neurons import filter_current, load_neuron, quantize_potential, step, step_shared
from archsim.units import ceil_div
from archsim.workload.network import INPUT, Layer, Pool


@dataclass(frozen=True)
class State:
    """What neurons keep between timesteps: potentials and synaptic currents, (sample, channel, height, width).

    Where channels share units, there are fewer potentials than channels.
    """

    potential: Tensor
    current: Tensor


@dataclass(frozen=True)
class Arrived:
    """What reaches a layer: integers for its rows, and what joins its weighted sums (0 for nothing)."""

    values: Tensor
    joined: Tensor
    operand: Tensor | None = None
    """What a product layer multiplies the values with, same leading axes."""


@dataclass(frozen=True)
class LayerRun:
    """Values of one layer for one batch; spikes before pooling."""

    spikes: Tensor
    sums: Tensor
    """Weighted sums with bias and all that joins, shape (sample, step or 1, channel, height, width)."""
    state: State
    """After the last timestep."""
    largest_state: float
    n_saturations: Tensor
    """Per sample, like the counts below."""
    inputs: Tensor | None = None
    operand: Tensor | None = None
    n_clipped_inputs: Tensor | int = 0
    n_clipped_operands: Tensor | int = 0
    n_adc_clips: Tensor | int = 0
    squared_error: float = 0.0
    squared_ideal: float = 0.0
    potentials: Tensor | None = None
    """Of a readout: its potentials after every timestep, shape (sample, step, channel, height, width)."""


RunLayer = Callable[[int, Arrived, int, State | None], LayerRun]
"""Runs the layer of an index over a number of timesteps, from a state (None: rest)."""


def run_network(layers: Sequence[Layer], values: np.ndarray, n_timesteps: int, run: RunLayer) -> list[LayerRun]:
    """Run the layers in order of data flow: over all timesteps at once, or step by step where spikes come back."""
    inputs = torch.as_tensor(np.ascontiguousarray(values))
    if not any(layer.delayed for layer in layers):
        return _run_pass(layers, inputs, n_timesteps, run, {}, {})[0]
    parts: list[list[LayerRun]] = []
    states: dict[str, State] = {}
    before = {layer.name: torch.zeros(inputs.shape[0], 1, *layer.out_shape, dtype=torch.int32) for layer in layers}
    for step_index in range(n_timesteps):
        now = inputs[:, min(step_index, inputs.shape[1] - 1)].unsqueeze(1)
        runs, before = _run_pass(layers, now, 1, run, states, before)
        states = {layer.name: part.state for layer, part in zip(layers, runs, strict=True)}
        parts.append(runs)
    return [_in_sequence([runs[index] for runs in parts]) for index in range(len(layers))]


def _run_pass(
    layers: Sequence[Layer],
    inputs: Tensor,
    n_timesteps: int,
    run: RunLayer,
    states: dict[str, State],
    before: dict[str, Tensor],
) -> tuple[list[LayerRun], dict[str, Tensor]]:
    """One pass through the layers; delayed ones read `before` and so come first. Returns what each emits, too."""
    emitted: dict[str, Tensor] = {INPUT: inputs}
    sums: dict[str, Tensor] = {}
    runs: dict[int, LayerRun] = {}
    for index in sorted(range(len(layers)), key=lambda index: not layers[index].delayed):
        layer = layers[index]
        source = before[layer.source] if layer.delayed else emitted[layer.source]
        joined = torch.zeros(())
        for name in layer.adds:
            joined = joined + sums.get(name, emitted[name])
        operand = None if layer.operand is None else emitted[layer.operand]
        arrived = Arrived(layer_input(layer, source), joined, operand)
        done = run(index, arrived, n_timesteps, states.get(layer.name))
        runs[index] = done
        emitted[layer.name] = pooled(done.spikes, layer.pool)
        if layer.neuron.kind == "none":
            sums[layer.name] = done.sums
    return [runs[index] for index in range(len(layers))], emitted


def _in_sequence(parts: list[LayerRun]) -> LayerRun:
    """Runs of single timesteps as one run."""
    inputs = [part.inputs for part in parts if part.inputs is not None]
    operands = [part.operand for part in parts if part.operand is not None]
    potentials = [part.potentials for part in parts if part.potentials is not None]
    return LayerRun(
        spikes=torch.cat([part.spikes for part in parts], dim=1),
        sums=torch.cat([part.sums for part in parts], dim=1),
        state=parts[-1].state,
        largest_state=max(part.largest_state for part in parts),
        n_saturations=torch.stack([part.n_saturations for part in parts]).sum(0),
        inputs=torch.cat(inputs, dim=1) if inputs else None,
        operand=torch.cat(operands, dim=1) if operands else None,
        n_clipped_inputs=sum(part.n_clipped_inputs for part in parts),
        n_clipped_operands=sum(part.n_clipped_operands for part in parts),
        n_adc_clips=sum(part.n_adc_clips for part in parts),
        squared_error=sum(part.squared_error for part in parts),
        squared_ideal=sum(part.squared_ideal for part in parts),
        potentials=torch.cat(potentials, dim=1) if potentials else None,
    )


def layer_input(layer: Layer, values: Tensor) -> Tensor:
    """Values of the feeding layer in this layer's shape (a linear layer flattens channel-major)."""
    return values.reshape(*values.shape[:2], *layer.in_shape)


def pooled(spikes: Tensor, pool: Pool | None) -> Tensor:
    """Sums of spike counts over pooling windows, int32."""
    if pool is None:
        return spikes
    frames = spikes.flatten(0, 1).to(torch.float32)
    sums = functional.avg_pool2d(frames, pool.kernel, pool.stride, divisor_override=1)
    return sums.to(torch.int32).unflatten(0, spikes.shape[:2])


def fire(
    layer: Layer,
    sums: Tensor,
    n_timesteps: int,
    state: State | None,
    v_full_scale: float | None = None,
    v_mem_bits: int = 0,
    n_shared: int = 1,
) -> LayerRun:
    """Update neurons over the timesteps, from a state or from rest (0); one step of sums serves all timesteps.

    State is stored in `v_mem_bits` where a full scale is given, else exactly; `n_shared` channels share each
    potential. Neurons of kind `none` do nothing: their sums join elsewhere. Those of kind `count` are no neurons
    either: whole sums go on.
    """
    shape = (sums.shape[0], ceil_div(sums.shape[2], n_shared), *sums.shape[3:])
    saturations = torch.zeros(sums.shape[0], dtype=torch.int64)
    emitted = torch.zeros(sums.shape[0], n_timesteps, *sums.shape[2:], dtype=torch.int32)
    v, current = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    if layer.neuron.kind == "count":
        emitted = sums.round().clamp(min=0).to(torch.int32)
    if not layer.neuron.has_state:
        return LayerRun(emitted, sums, State(v, current), 0.0, saturations)
    if state is not None:
        v, current = state.potential, state.current
    neuron = load_neuron(layer.neuron)
    has_current = neuron.synapse_decay is not None
    largest, potentials = 0.0, list[Tensor]()
    for index in range(n_timesteps):
        current = filter_current(current, sums[:, min(index, sums.shape[1] - 1)], neuron)
        v, spikes = step(v, current, neuron) if n_shared == 1 else step_shared(v, current, neuron, n_shared)
        if v_full_scale is not None:
            v, saturated = quantize_potential(v, v_full_scale, v_mem_bits)
            saturations += saturated.flatten(1).sum(1)
            if has_current:
                current, saturated = quantize_potential(current, v_full_scale, v_mem_bits)
                saturations += saturated.flatten(1).sum(1)
        largest = max(largest, float(v.abs().max()), float(current.abs().max()) if has_current else 0.0)
        emitted[:, index] = spikes.to(torch.int32)
        if layer.neuron.kind == "accumulate":
            potentials.append(v)
    kept = torch.stack(potentials, dim=1) if potentials else None
    return LayerRun(emitted, sums, State(v, current), largest, saturations, potentials=kept)


def last_layer(layers: Sequence[Layer]) -> int:
    """Index of the layer whose output is the network's: the last one with neurons."""
    return max(index for index, layer in enumerate(layers) if layer.neuron.kind != "none")


def outputs_of(layer: Layer, run: LayerRun) -> np.ndarray:
    """What a last layer tells after every timestep: potentials of a readout, else spikes so far.

    Shape (sample, step, class), float64.
    """
    values = pooled(run.spikes, layer.pool).cumsum(1) if run.potentials is None else run.potentials
    return values.flatten(2).to(torch.float64).numpy()

"""Grows the layers of a network node by node, in the order of the data.

What passes between nodes is one of three values: sums of weights, spikes of a layer (with the factors
that the next weights must take in), and the potential of a readout. Entry point: `build_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import INPUT, Layer, Shape
from archsim.workload.neurons import no_neurons, readout
from archsim.workload.nir_fields import check_size, describe, integers, per_channel, per_neuron
from archsim.workload.nir_flow import INTEGRATORS, POOLS, SPIKING, WEIGHTS, Flow, quoted
from archsim.workload.nir_graph import NirNode, with_article
from archsim.workload.nir_joins import ordered, settle_joins
from archsim.workload.nir_neurons import neuron_model
from archsim.workload.nir_pools import average_factor, merge, read_pool
from archsim.workload.nir_weights import pool_outputs, scale_outputs, weight_layer

_RULE = "a layer is weights, then a neuron, then pooling, then Flatten"


@dataclass(frozen=True)
class _Sums:
    """Weighted sums of a layer that has no neurons yet; `shape` differs from the layer's behind a Flatten."""

    layer: str
    shape: Shape


@dataclass(frozen=True)
class _Spikes:
    """Spikes of a layer, or the network's input, times `scale` (broadcastable to `shape`)."""

    layer: str
    shape: Shape
    scale: np.ndarray


@dataclass(frozen=True)
class _Potential:
    """Potential of neurons that never fire."""

    layer: str
    shape: Shape


_Value: TypeAlias = "_Sums | _Spikes | _Potential"


def build_layers(flow: Flow, input_shape: Shape, settings: WorkloadSettings) -> tuple[Layer, ...]:
    """The layers of a graph, the network's output last.

    Where several edges meet at a neuron their values add. The weights on the longest way from the
    input are the layer of that neuron; other weights become layers without neurons (kind `none`),
    spikes that arrive without weights come from the layer that emits them; `adds` lists both. Weights
    behind a connection of one timestep are `delayed`. The bias of a layer without neurons moves to the
    layer that adds it.

    Raises:
        WorkloadError: An arrangement that is not supported, or shapes and numbers that do not fit.
    """
    builder = _Builder(flow, input_shape, settings)
    for node in flow.nodes:
        builder.add(node)
    return builder.finish()


class _Builder:
    """Holds the layers so far and the value that each node passes on."""

    def __init__(self, flow: Flow, input_shape: Shape, settings: WorkloadSettings) -> None:
        self._flow = flow
        self._nodes = {node.name: node for node in flow.nodes}
        self._settings = settings
        self._input_shape = input_shape
        self._layers: dict[str, Layer] = {}
        self._values: dict[str, _Value] = {}
        self._depth: dict[str, int] = {}
        self._late: set[str] = set()
        self._output = ""

    def add(self, node: NirNode) -> None:
        """Take the next node."""
        self._depth[node.name] = 1 + max((self._depth[name] for name in self._flow.sources[node.name]), default=0)
        steps: list[tuple[tuple[str, ...], Callable[[NirNode], _Value | None]]] = [
            (("Input",), lambda _: _Spikes(INPUT, self._input_shape, np.ones((1, 1, 1)))),
            (WEIGHTS, self._weights), (SPIKING + INTEGRATORS, self._neuron), (POOLS, self._pool),
            (("Scale",), self._scale), (("Flatten",), self._flatten), (("Output",), self._end),
        ]  # fmt: skip
        value = next(step for types, step in steps if node.type in types)(node)
        if value is not None:
            self._values[node.name] = value
        targets = self._flow.targets[node.name]
        if isinstance(value, _Sums) and len(targets) > 1:
            text = f"node '{node.name}' ({node.type}) feeds {quoted(targets)}; weighted sums belong to one neuron"
            raise WorkloadError(text)

    def finish(self) -> tuple[Layer, ...]:
        """Settle what adds to what, and put the layers in the order of the data."""
        return ordered(settle_joins(self._layers, self._late), self._output)

    def _weights(self, node: NirNode) -> _Sums:
        spikes = self._spikes(node, f"follows weights without a neuron; {_RULE}")
        if node.name == INPUT:
            raise WorkloadError(
                f"node '{node.name}' is {with_article(node.type)}; the name '{INPUT}' is kept for what enters"
            )
        layer = weight_layer(node, self._source(node), spikes.shape, spikes.layer, spikes.scale)
        check_size(node, layer.conv_shape)
        self._layers[node.name] = layer
        return _Sums(node.name, layer.conv_shape)

    def _neuron(self, node: NirNode) -> _Value:
        sums = self._join(node)
        layer = self._layers[sums.layer]
        neuron = neuron_model(node, layer.conv_shape, layer.name, self._settings)
        self._layers[layer.name] = replace(layer, neuron=neuron)
        if node.type in INTEGRATORS:
            return _Potential(sums.layer, sums.shape)
        return _Spikes(sums.layer, sums.shape, np.ones((1, 1, 1)))

    def _join(self, node: NirNode) -> _Sums:
        """The weights that a neuron belongs to; what else arrives is noted in their `adds`."""
        arriving = {name: self._values[name] for name in self._flow.sources[node.name]}
        sums = [value for value in arriving.values() if isinstance(value, _Sums)]
        if not sums:
            found = quoted(arriving)
            raise WorkloadError(f"node '{node.name}' ({node.type}) follows {found}, not weights; {_RULE}")
        main = max(sums, key=lambda value: (self._depth[value.layer], self._layers[value.layer].n_weights, value.layer))
        joining = [value.layer for value in sums if value is not main]
        late = [self._recurrent_weights(name, node) for name in self._flow.delayed[node.name]]
        same = [self._identity(name, value, node) for name, value in arriving.items() if not isinstance(value, _Sums)]
        for name in joining:
            self._layers[name] = replace(self._layers[name], neuron=no_neurons())
        self._late.update(late)
        adds = tuple(sorted(joining + late + same))
        if len(set(adds)) < len(adds):
            raise WorkloadError(
                f"node '{node.name}' ({node.type}) receives the same spikes on two ways without weights"
            )
        self._layers[main.layer] = replace(self._layers[main.layer], adds=adds)
        return main

    def _identity(self, name: str, value: _Spikes | _Potential, node: NirNode) -> str:
        """Layer whose spikes join without weights."""
        if isinstance(value, _Potential):
            raise WorkloadError(self._never_fires(name, node))
        if value.layer == INPUT:
            raise WorkloadError(
                f"node '{node.name}' ({node.type}) adds the network's input from '{name}' without weights; "
                "put weights between them"
            )
        if np.any(value.scale != 1.0):
            raise WorkloadError(
                f"node '{node.name}' ({node.type}) adds scaled or averaged spikes from '{name}' without weights; "
                "put weights between them, into which the factor can be folded"
            )
        return value.layer

    def _recurrent_weights(self, name: str, node: NirNode) -> str:
        """Weights of a connection that takes one timestep, found backwards from where it ends."""
        kind = self._nodes[name].type
        while kind not in WEIGHTS:
            if kind in SPIKING:
                raise WorkloadError(
                    f"the connection from '{name}' back to '{node.name}' has no weights; "
                    f"give it some ({', '.join(WEIGHTS)})"
                )
            if kind in INTEGRATORS:
                raise WorkloadError(f"node '{name}' ({kind}) never fires but leads back to '{node.name}'")
            name = self._flow.sources[name][0]
            kind = self._nodes[name].type
        return name

    def _pool(self, node: NirNode) -> _Value:
        value, before = self._values[self._source(node)], self._source(node)
        pool = read_pool(node, before, value.shape)
        factor = np.full((1, 1, 1), average_factor(node, pool))
        if isinstance(value, _Sums):
            layer = pool_outputs(self._layers[value.layer], node, pool)
            self._layers[value.layer] = scale_outputs(layer, node, factor)
            return _Sums(value.layer, self._layers[value.layer].conv_shape)
        spikes = self._spikes(node, "")
        if spikes.layer == INPUT:
            raise WorkloadError(f"node '{node.name}' ({node.type}) comes before the first weights; {_RULE}")
        self._check_only_pooled(node)
        scale = per_channel(spikes.scale)
        if scale is None:
            raise WorkloadError(f"node '{node.name}' ({node.type}) pools values that are scaled one by one")
        layer = self._layers[spikes.layer]
        layer = replace(layer, pool=pool if layer.pool is None else merge(node, layer.pool, pool))
        self._layers[spikes.layer] = layer
        return _Spikes(spikes.layer, layer.out_shape, scale * factor)

    def _check_only_pooled(self, node: NirNode) -> None:
        """A layer has one pooling, so nothing may read its spikes before it."""
        before = self._source(node)
        while True:
            targets = self._flow.targets[before]
            if len(targets) > 1:
                raise WorkloadError(
                    f"node '{before}' feeds {quoted(targets)}; spikes that '{node.name}' ({node.type}) pools "
                    "may go nowhere else"
                )
            if self._nodes[before].type in SPIKING:
                return
            before = self._flow.sources[before][0]

    def _scale(self, node: NirNode) -> _Value:
        value, before = self._values[self._source(node)], self._source(node)
        if isinstance(value, _Sums):
            layer = self._layers[value.layer]
            factors = per_neuron(node, "scale", layer.conv_shape, before)
            self._layers[value.layer] = scale_outputs(layer, node, factors)
            return value
        spikes = self._spikes(node, "")
        return replace(spikes, scale=spikes.scale * per_neuron(node, "scale", spikes.shape, before))

    def _flatten(self, node: NirNode) -> _Value:
        value = self._values[self._source(node)]
        shape = (prod(value.shape), 1, 1)
        if not isinstance(value, _Spikes) or value.scale.size == 1:
            return replace(value, shape=shape)
        return replace(value, shape=shape, scale=np.broadcast_to(value.scale, value.shape).reshape(shape))

    def _end(self, node: NirNode) -> None:
        """Settle the network's output; a common factor of its spikes is dropped."""
        if not self._layers:
            raise WorkloadError(f"the graph has no weights: no {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
        arriving = [self._values[name] for name in self._flow.sources[node.name]]
        value = self._join(node) if any(isinstance(item, _Sums) for item in arriving) else arriving[0]
        if isinstance(value, _Sums):
            self._layers[value.layer] = replace(self._layers[value.layer], neuron=readout())
        elif len(arriving) > 1:
            self._source(node)
        if isinstance(value, _Spikes) and (np.any(value.scale != value.scale.flat[0]) or value.scale.flat[0] <= 0):
            raise WorkloadError(
                f"node '{node.name}' (Output) receives spikes with factors; weights must follow a Scale"
            )
        self._check_output(node, value.shape)
        self._output = value.layer

    def _check_output(self, node: NirNode, shape: Shape) -> None:
        expected = integers(node, "shape") if "shape" in node.fields else [prod(shape)]
        if prod(shape) not in (prod(expected), prod(expected[1:])):
            raise WorkloadError(
                f"node '{node.name}' (Output) expects shape {expected} "
                f"but receives {describe(shape)} values from {quoted(self._flow.sources[node.name])}"
            )

    def _source(self, node: NirNode) -> str:
        """The one node that feeds this one."""
        names = self._flow.sources[node.name] + self._flow.delayed[node.name]
        if len(names) != 1:
            found = f"node '{node.name}' ({node.type}) is fed by {quoted(names)}"
            raise WorkloadError(f"{found}; values add only where weights lead to a neuron or to Output")
        return names[0]

    def _spikes(self, node: NirNode, without_neuron: str) -> _Spikes:
        """What a node receives, which must be spikes."""
        before = self._source(node)
        value = self._values[before]
        if isinstance(value, _Potential):
            raise WorkloadError(self._never_fires(before, node))
        if isinstance(value, _Sums):
            raise WorkloadError(f"node '{node.name}' ({node.type}) {without_neuron}")
        return value

    def _never_fires(self, name: str, node: NirNode) -> str:
        """Text on a readout that is not the end; `name` may be a Flatten behind it."""
        value = self._values[name]
        return (
            f"node '{node.name}' ({node.type}) follows '{name}', the potential of '{value.layer}' whose neurons never "
            f"fire; {', '.join(INTEGRATORS)} must be the last before Output"
        )

"""Layers that join others: what their shapes must be, whose the bias is, and where they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter

from archsim.errors import WorkloadError
from archsim.workload.network import INPUT, Layer
from archsim.workload.neurons import no_neurons
from archsim.workload.nir_fields import describe


def settle_joins(layers: Mapping[str, Layer], late: Collection[str]) -> dict[str, Layer]:
    """The layers by name, with every join checked.

    Layers in `late` become delayed and lose their neurons; layers without neurons hand their bias to the
    one that adds them, so that it is added once, at every timestep.

    Raises:
        WorkloadError: What joins has another shape.
    """
    settled = dict(layers)
    for name in late:
        settled[name] = replace(settled[name], neuron=no_neurons(), delayed=True)
    for main, layer in layers.items():
        for added in layer.adds:
            _check_shapes(layer, settled[added])
            bias = settled[added].bias
            if settled[added].neuron.kind == "none" and bias is not None:
                own = settled[main].bias
                settled[main] = replace(settled[main], bias=bias if own is None else own + bias)
                settled[added] = replace(settled[added], bias=None)
    return settled


def ordered(layers: Mapping[str, Layer], output: str) -> tuple[Layer, ...]:
    """Each layer after its source and what it adds, a delayed one right after its source, the output last.

    A delayed layer whose source is the output stands right before it.

    Raises:
        WorkloadError: Layers follow the output, which only a feedback through neurons can make.
    """
    late = {name for name, layer in layers.items() if layer.delayed}
    needs = {name: {layer.source, *layer.adds} - late - {INPUT} for name, layer in layers.items() if name not in late}
    behind = sorted(name for name, needed in needs.items() if output in needed)
    if behind:
        raise WorkloadError(f"weights '{behind[0]}' lead on from the network's output '{output}' and only feed back")
    names = [name for name in TopologicalSorter(needs).static_order() if name != output] + [output]
    for name in sorted(late):
        source = layers[name].source
        names.insert(names.index(source) + (source != output), name)
    return tuple(layers[name] for name in names)


def _check_shapes(layer: Layer, added: Layer) -> None:
    shape = added.conv_shape if added.neuron.kind == "none" else added.out_shape
    if shape != layer.conv_shape:
        raise WorkloadError(
            f"weights '{layer.name}' make {describe(layer.conv_shape)} values but '{added.name}', which joins them at "
            f"a neuron, {describe(shape)}; what joins must have the same shape"
        )

"""Product layers and the spiking self attention that is built of them.

Tokens are the positions of a map, their features its channels. Queries, keys, values, projection and MLP are
1x1 convolutions; two product layers between them multiply what others emit:

    scores = product_layer("scores", queries, keys, heads, transpose=True)     # Q K^T, whole numbers
    mixed = product_layer("mixed", scores, values, heads, neuron=...)          # (Q K^T) V, then neurons

There is no softmax: scores of spikes are counts, never negative. NIR has no node for such products, so networks
with them are built in Python. Entry points: `product_layer`, `spikformer_block`, `require_products`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from types import MappingProxyType

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.network import INPUT, Layer, Network, NeuronModel
from archsim.workload.neurons import counts, leaky_integrate_and_fire

_GAIN = 4.0
"""Spread of random weights times sqrt(fan_in). Found by trial: with inputs at rate 0.3 and 4 timesteps every layer of
the block with 384 channels then spikes at rates between 0.1 and 0.2; attention over few channels counts too little."""
_SCALE = 0.125
_NO_WEIGHTS: Mapping[str, np.ndarray] = MappingProxyType({})


def product_layer(
    name: str,
    source: Layer,
    operand: Layer,
    heads: int = 1,
    transpose: bool = False,
    neuron: NeuronModel | None = None,
) -> Layer:
    """A layer that multiplies what `source` emits, position by position, with the whole frame that `operand` emits.

    Args:
        name: Name of the new layer.
        source: Layer of which one token comes per position.
        operand: Layer whose frame takes the place of the weights, with as many positions as `source`.
        heads: Groups of channels that are multiplied apart.
        transpose: True multiplies queries by keys, one output channel per head and key; False multiplies scores by
            values, one output channel per channel of `operand`.
        neuron: Neurons behind the sums; by default none, the whole numbers go on.

    Raises:
        WorkloadError: The two do not fit each other; the message gives the shapes.
    """
    positions = prod(operand.out_shape[1:])
    outputs = heads * positions if transpose else operand.out_shape[0]
    layer = Layer(
        name, "product", source.name, source.out_shape, outputs, (1, 1), (1, 1), (0, 0), None, None,
        neuron or counts(), groups=heads, operand=operand.name, transpose=transpose,
    )  # fmt: skip
    for fault in _shape_faults(layer, operand):
        raise WorkloadError(f"layer '{name}': {fault}")
    return layer


def spikformer_block(
    channels: int = 384,
    heads: int = 12,
    tokens: tuple[int, int] = (8, 8),
    hidden: int | None = None,
    seed: int | None = None,
    weights: Mapping[str, np.ndarray] = _NO_WEIGHTS,
) -> Network:
    """One encoder block of Spikformer behind its position embedding; by default that of Spikformer-4-384 on CIFAR-10.

    Layers: `embed` (3x3), `query`, `key`, `value`, `scores` (Q K^T), `mixed` ((Q K^T) V times 0.125, neurons of
    threshold 0.5), `projection`, `mlp1`, `mlp2`; all others are 1x1 with LIF neurons (tau 2, threshold 1, reset to
    zero). Batch norm is folded into weights.

    The shortcuts around attention and MLP join the weighted sums of `projection` and `mlp2` before their neurons,
    where spikes stay spikes; Spikformer adds them behind the neurons, and its blocks pass on counts.

    Args:
        channels: Features of a token.
        heads: Heads of the attention, a divisor of channels.
        tokens: Height and width of the map of tokens.
        hidden: Features inside the MLP; 4 * channels by default.
        seed: Draws random weights, which have learnt nothing; None for shapes only.
        weights: Weights by layer name, shape (out_channel, in_channel, kernel_h, kernel_w), instead of a seed.

    Raises:
        WorkloadError: heads does not divide channels, or weights are missing or of another shape.

    Source: Zhou et al., Spikformer, ICLR 2023 (arXiv 2209.15425), and its repository ZK-Zhou/spikformer,
    `cifar10/model.py`.
    """
    if heads < 1 or channels % heads:
        raise WorkloadError(f"heads is {heads}; it must divide channels, which is {channels}")
    layers: dict[str, Layer] = {}
    random = None if seed is None else np.random.default_rng(seed)

    def append(layer: Layer) -> Layer:
        layers[layer.name] = layer
        return layer

    def conv(name: str, source: Layer | None, outputs: int, kernel: int = 1, adds: tuple[str, ...] = ()) -> Layer:
        in_shape = (channels, *tokens) if source is None else source.out_shape
        shape = (outputs, in_shape[0], kernel, kernel)
        held = _held(name, shape, weights) if weights else None
        if random is not None:
            held = random.normal(0.0, _GAIN / np.sqrt(prod(shape[1:])), shape).astype(np.float32)
        return append(
            Layer(
                name, "conv2d", INPUT if source is None else source.name, in_shape, outputs, (kernel, kernel), (1, 1),
                (kernel // 2, kernel // 2), held, None, leaky_integrate_and_fire(), adds=adds,
            )
        )  # fmt: skip

    embed = conv("embed", None, channels, kernel=3)
    query, key, value = (conv(name, embed, channels) for name in ("query", "key", "value"))
    scores = append(product_layer("scores", query, key, heads, transpose=True))
    neuron = leaky_integrate_and_fire(v_threshold=0.5, gain=_SCALE)
    mixed = append(product_layer("mixed", scores, value, heads, neuron=neuron))
    projection = conv("projection", mixed, channels, adds=("embed",))
    mlp1 = conv("mlp1", projection, hidden or 4 * channels)
    conv("mlp2", mlp1, channels, adds=("projection",))
    return Network(f"spikformer-block-{channels}", (channels, *tokens), tuple(layers.values()))


def require_products(network: Network) -> None:
    """Check every product layer of a network.

    Raises:
        WorkloadError: One does not fit what it reads, or asks for what product layers cannot do.
    """
    for index, layer in enumerate(network.layers):
        before = {item.name: item for item in network.layers[:index]}
        joins = [other.name for other in network.layers if layer.name in other.adds]
        for fault in _faults(layer, before, joins):
            raise WorkloadError(f"network '{network.name}': layer '{layer.name}': {fault}")


def _faults(layer: Layer, before: Mapping[str, Layer], joins: list[str]) -> Iterator[str]:
    """What is wrong with a layer as a product, or with one that is none but has a product's fields."""
    if layer.kind != "product":
        if layer.operand is not None or layer.transpose or layer.neuron.kind == "count":
            yield f"kind is {layer.kind}; operand, transpose and neurons of kind count belong to kind product"
        return
    for key, name in (("source", layer.source), ("operand", layer.operand)):
        if name is None or name not in before:
            yield f"{key} is {name!r}; a product multiplies what two layers before it emit, not the network's input"
        elif before[name].neuron.kind in ("none", "accumulate"):
            yield f"{key} is '{name}', whose neurons are of kind {before[name].neuron.kind} and emit no spikes"
    if layer.delayed:
        yield "delayed is true; source and operand of a product are of the same timestep. Delay the layer behind it"
    if layer.adds or joins:
        what = f"adds {', '.join(layer.adds)}" if layer.adds else f"is in adds of {', '.join(joins)}"
        yield f"{what}; a product takes part in no shortcut. Let the layer behind it add"
    if (layer.kernel, layer.stride, layer.padding, layer.pool) != ((1, 1), (1, 1), (0, 0), None):
        yield "a product has kernel and stride 1, no padding and no pool; pool or slide in the layers around it"
    if layer.weights is not None or layer.bias is not None or layer.neuron.kind == "none":
        yield "a product has no weights, no bias, and neurons of any kind but none"
    source, operand = before.get(layer.source), before.get(layer.operand or "")
    if source is not None and operand is not None:
        if layer.in_shape != source.out_shape:
            yield f"in_shape is {layer.in_shape}; source '{source.name}' emits {source.out_shape}"
        yield from _shape_faults(layer, operand)


def _shape_faults(layer: Layer, operand: Layer) -> Iterator[str]:
    """Whether the shapes of a product fit each other."""
    channels, *source_hw = layer.in_shape
    held, *operand_hw = operand.out_shape
    positions, heads = prod(operand_hw), layer.groups
    if prod(source_hw) != positions:
        yield (
            f"operand '{operand.name}' has {positions} positions and source '{layer.source}' {prod(source_hw)}; "
            "a product needs as many of both"
        )
    elif heads < 1 or channels % heads or held % heads:
        yield f"heads (groups) is {heads}; it must divide {channels} channels of the source and {held} of the operand"
    elif layer.transpose and held != channels:
        yield (
            f"source '{layer.source}' has {channels} channels and operand '{operand.name}' {held}; with transpose "
            "they must be equal"
        )
    elif not layer.transpose and channels != heads * positions:
        yield (
            f"source '{layer.source}' has {channels} channels; without transpose it needs one for each of {heads} "
            f"heads and each of {positions} positions of operand '{operand.name}', {heads * positions}"
        )
    elif layer.out_channels != (expected := heads * positions if layer.transpose else held):
        yield f"out_channels is {layer.out_channels}; this product makes {expected}"


def _held(name: str, shape: tuple[int, int, int, int], weights: Mapping[str, np.ndarray]) -> np.ndarray:
    found = weights.get(name)
    if found is None or found.shape != shape:
        what = "missing" if found is None else f"of shape {found.shape}"
        raise WorkloadError(f"weights of layer '{name}' are {what}; expected {shape}")
    return found

"""Which input a token of a layer needs, how long it is kept, and how large the buffers must be.

Everything here follows from shapes alone, so it is checked before anything has run.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from archsim.activity import LayerActivity
from archsim.components import line_buffer
from archsim.components.line_buffer import Window
from archsim.components.neuron import pool_emits
from archsim.errors import MappingError
from archsim.mapping import LayerMapping, Mapping, rules
from archsim.mapping.model import positions_of
from archsim.mapping.placement import has_chip_neurons
from archsim.mapping.rules import can_keep_sums, shared_channels
from archsim.units import ceil_div
from archsim.workload.network import INPUT, Layer, Shape

_FRAMES = 2
"""Frames over which lags are measured: the second has the first before it, later ones look the same."""


CHIP = -1
"""Stands for the chip's neuron module where a tile would stand."""


def source_shape(mapping: Mapping, layer: LayerMapping) -> Shape:
    """Shape of what the layer reads."""
    source = layer.layer.source
    return mapping.network.input_shape if source == INPUT else mapping.network.layer(source).out_shape


def window(mapping: Mapping, layer: LayerMapping) -> Window:
    """How the layer slides over what it reads."""
    spec = layer.layer
    _, height, width = source_shape(mapping, layer)
    if spec.kind == "linear":
        return Window((height, width), (1, 1), None)
    if spec.kind == "product":
        return Window((height, width), spec.conv_shape[1:], None)
    return Window((height, width), spec.conv_shape[1:], spec.kernel, spec.stride, spec.padding)


def read_window(mapping: Mapping, layer: LayerMapping) -> Window:
    """What the tokens of the layer's PEs are: output positions, or one by one the positions of a streamed map."""
    if layer.streamed_map is None:
        return window(mapping, layer)
    return Window(layer.streamed_map[1:], layer.streamed_map[1:], (1, 1))


def streamed_positions(layer: LayerMapping, row_block: int) -> np.ndarray:
    """Positions of the streamed map, in raster order, of which a row block has rows."""
    assert layer.streamed_map is not None, "only streamed layers take positions one by one"
    found = set().union(*(positions_of(rows) for rows in layer.row_blocks[row_block]))
    return np.array(sorted(y * layer.streamed_map[2] + x for y, x in found))


def crossbars_read(layer: LayerMapping, row_block: int, n_tokens: int) -> int | np.ndarray:
    """Crossbars of a row block that a token drives rows of: all of them, or by position of a streamed map."""
    block = layer.row_blocks[row_block]
    if layer.streamed_map is None:
        return len(block)
    held = Counter(position for rows in block for position in positions_of(rows))
    counts = np.array([held[position] for position in sorted(held)])
    return np.tile(counts, n_tokens // len(counts))


def needs_and_uses(mapping: Mapping, layer: LayerMapping, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Last position that every token of a PE needs, and last token that every position serves; over all frames.

    `steps` are the timesteps of the frames that the PEs read.
    For one of several copies, tokens are those that it serves. A product's token needs its own position and
    the whole frame of the operand, which therefore completes no position before its last (`Intake`).
    """
    reads, n_frames = read_window(mapping, layer), len(steps)
    if layer.layer.kind == "product":
        return np.arange(n_frames * reads.n_outputs, dtype=np.int64), line_buffer.last_uses(reads, n_frames)
    need, last_use = line_buffer.needed_positions(reads, n_frames), line_buffer.last_uses(reads, n_frames)
    if layer.layer.delayed:
        return line_buffer.delayed_needs(need, reads, steps == 0), line_buffer.delayed_uses(last_use, reads)
    if layer.n_copies > 1:
        labels = copy_labels(layer, n_frames)
        return need[labels], np.maximum(np.searchsorted(labels, last_use, side="right") - 1, 0)
    return need, last_use


def copy_tokens(layer: LayerMapping) -> np.ndarray:
    """Output positions of the convolution, within a frame, that a copy serves.

    Behind pooling a copy sends the positions whose number modulo n_copies is its own, so it serves the
    whole windows of those; what no window takes goes to the first copy.
    """
    _, height, width = layer.layer.conv_shape
    positions = np.arange(height * width)
    pool = layer.layer.pool
    if pool is None:
        return positions[positions % layer.n_copies == layer.copy]
    y, x = np.divmod(positions, width)
    _, pooled_height, pooled_width = layer.layer.out_shape
    row, col = y // pool.stride[0], x // pool.stride[1]
    inside = (row < pooled_height) & (col < pooled_width)
    owner = np.where(inside, (row * pooled_width + col) % layer.n_copies, 0)
    return positions[owner == layer.copy]


def copy_labels(layer: LayerMapping, n_frames: int) -> np.ndarray:
    """Number, over all frames, of every output position of the convolution that a copy serves."""
    _, height, width = layer.layer.conv_shape
    return line_buffer.over_frames(copy_tokens(layer), height * width, n_frames)


def copy_outputs(layer: LayerMapping, n_frames: int) -> np.ndarray:
    """Number, over all frames, of every position behind pooling that a copy sends."""
    _, height, width = layer.layer.out_shape
    return line_buffer.over_frames(np.arange(layer.copy, height * width, layer.n_copies), height * width, n_frames)


def buffer_capacity(mapping: Mapping, layer: LayerMapping) -> int:
    """Positions that the layer's line buffers hold; a MappingError gives the minimum where they are too few."""
    reads, spec = read_window(mapping, layer), layer.layer
    by_rows = spec.source != INPUT and not is_staged(mapping, layer) and sends_addresses(mapping, spec.source)
    if spec.delayed:
        least = line_buffer.minimum_capacity(reads, by_rows) + reads.n_inputs
    else:
        needs = [needs_and_uses(mapping, view, np.arange(_FRAMES)) for view in layer.views]
        least = max(line_buffer.least_capacity(reads, *need_and_use, by_rows) for need_and_use in needs)
    return line_buffer.capacity(mapping.hardware, spec.name, reads, least, whole_frames=spec.delayed)


def sends_addresses(mapping: Mapping, name: str) -> bool:
    """Whether a layer sends address events: what neurons fire, unless it also takes a shortcut past others."""
    fires = mapping.network.layer(name).neuron.fires
    return mapping.hardware.chip.noc.spike_encoding == "address_event" and fires and not mapping.joiners(name)


def join_capacity(mapping: Mapping, layer: LayerMapping, joining: str) -> int:
    """Tokens of the layer called `joining` that wait at the neurons of `layer` for its own sums.

    Raises:
        MappingError: `tile.skip_buffer.tokens` is below the lag of the main path, with which the
            shortcut would keep back what the main path needs; the message gives the minimum.
    """
    least, tokens = _join_lag(mapping, layer, joining), mapping.hardware.tile.skip_buffer.tokens
    if tokens == "auto":
        return least + layer.layer.conv_shape[2] + mapping.hardware.tile.pe.latch_depth
    if tokens < least:
        raise MappingError(
            f"tile.skip_buffer.tokens is {tokens}; what '{joining}' adds to layer '{layer.layer.name}' waits for up to "
            f"{least} tokens of the main path. Raise it to {least} or set it to auto."
        )
    return tokens


def v_mem_bits(mapping: Mapping) -> dict[int, int]:
    """Bits of neuron state that each tile stores, of the neurons of its column blocks; or the chip (`CHIP`).

    Neurons of different rounds share the memory one after the other if a round computes all timesteps at once.
    What spills to DRAM takes no room.
    """
    bits, _ = _stored_states(mapping)
    tiles = sorted({tile for tile, _ in bits})
    return {tile: max(n for (at, _), n in bits.items() if at == tile) for tile in tiles}


def spilled_states(mapping: Mapping) -> frozenset[tuple[str, int, int]]:
    """Column blocks whose potentials are in DRAM, as (layer, copy, block): those that came when V_mem was full."""
    return _stored_states(mapping)[1]


def _stored_states(mapping: Mapping) -> tuple[dict[tuple[int, int], int], frozenset[tuple[str, int, int]]]:
    """Bits of state per tile and round that has the memory for itself, and the column blocks that spill."""
    bits: dict[tuple[int, int], int] = {}
    spilled = []
    neuron, takes_turns = mapping.hardware.chip.neuron, mapping.hardware.mapping.schedule == "tick_batched"
    has_limit = neuron.v_mem_kib != "auto" and mapping.hardware.chip.dram.is_present
    for layer in mapping.layers:
        if not layer.layer.neuron.has_state:
            continue
        for view in layer.views:
            for block in view.blocks:
                home = CHIP if has_chip_neurons(mapping.hardware, layer.layer) else view.home_tile(block)
                key = (home, view.rounds[0] if takes_turns else 0)
                potentials, kept = state_bits(mapping, view, block)
                stored = bits.get(key, 0) + kept
                if has_limit and stored + potentials > float(neuron.v_mem_kib) * 8192:
                    spilled.append((layer.layer.name, view.copy, block))
                    potentials = 0
                bits[key] = stored + potentials
    return bits, frozenset(spilled)


def state_bits(mapping: Mapping, layer: LayerMapping, block: int) -> tuple[int, int]:
    """Bits of a column block's potentials, and of the sums that are kept for it."""
    neuron, (first, last) = mapping.hardware.chip.neuron, layer.col_blocks[block]
    n_units = ceil_div(last - first, shared_channels(mapping.hardware, layer.layer))
    n_positions = len(copy_tokens(layer))
    kept_bits = mapping.hardware.tile.accumulator.bits if is_read_once(mapping, layer) else 0
    word_bits = neuron.v_mem_bits * layer.layer.neuron.state_words
    return n_positions * n_units * word_bits, n_positions * (last - first) * kept_bits


def is_staged(mapping: Mapping, layer: LayerMapping) -> bool:
    """Whether the layer reads, and adds, whole frames from the global buffer instead of streams."""
    return rules.is_staged(mapping.hardware.mapping, layer.layer)


def is_read_once(mapping: Mapping, layer: LayerMapping) -> bool:
    """Whether the layer's sums are computed at a sample's first timestep only, and kept.

    Digital first layers do so where the input allows it, all of them together: they share the input port.
    """
    if layer.layer.source != INPUT or mapping.hardware.mapping.first_layer == "repeat":
        return False
    if mapping.hardware.mapping.first_layer == "once":
        return True
    return mapping.has_static_input and all(can_keep_sums(item.layer) for item in mapping.consumers(INPUT))


def input_bits(mapping: Mapping, layer: LayerMapping, values: LayerActivity) -> int:
    """Bits of one input value: on rows each a read; MAC units take any width."""
    return 1 if mapping.hardware.mapping.input_coding == "binary" and not layer.is_digital else values.input_bits


def staged_frames(mapping: Mapping, n_timesteps: int) -> int:
    """Frames that must be complete before a staged layer reads the first of them."""
    return n_timesteps if mapping.hardware.mapping.schedule == "tick_batched" else 1


def check_buffers(mapping: Mapping) -> None:
    """Check line buffers, skip buffers and neuron state stores.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    for layer in mapping.layers:
        buffer_capacity(mapping, layer)
        for joining in layer.layer.adds:
            join_capacity(mapping, layer, joining)
    available = mapping.hardware.chip.neuron.v_mem_kib
    for tile, bits in v_mem_bits(mapping).items():
        if available != "auto" and bits > available * 8192:
            place = "the chip's module" if tile == CHIP else f"tile {tile}"
            raise MappingError(
                f"chip.neuron.v_mem_kib is {available}; {place} holds neurons with {bits} bits of membrane "
                f"potential and needs {bits / 8192:.4g} KiB. Raise it, set it to auto, or choose a chip.dram.kind that "
                "takes the potentials that do not fit."
            )


def main_join_capacity(mapping: Mapping, layer: LayerMapping) -> int:
    """Tokens that a layer's own partial sums can wait for what joins them: a frame unless the shortcut is ahead."""
    ahead = is_staged(mapping, layer) or all(_is_ahead(mapping, layer, joining) for joining in layer.layer.adds)
    return mapping.hardware.tile.pe.latch_depth if ahead else _frame(layer)


def _join_lag(mapping: Mapping, layer: LayerMapping, joining: str) -> int:
    """Tokens of a shortcut that pile up before the main path's first token can join.

    An identity shortcut delivers position p of its origin as token p. Before the main path's token n
    is done it needs the origin up to needed[n], so needed[n] - n tokens wait, and one more. A layer on the
    shortcut holds back in its own line buffer what it has not served: it must have served enough
    for the origin's position needed[n] to have room there.

    Where the paths are not that simple, a frame is always enough: a token depends on its own frame
    alone, and frames are sent one after the other. Staged frames wait in the global buffer: one token is enough.
    """
    side = _side(mapping, joining)
    if is_staged(mapping, layer) or (side is not None and side.layer.delayed):
        return 1
    if not _is_ahead(mapping, layer, joining):
        return _frame(layer)
    needed = _needed_of(mapping, layer, joining if side is None else side.layer.source)
    assert needed is not None, "a shortcut that is ahead starts on the main path"
    tokens = np.arange(len(needed))
    if side is None:
        return int((needed + 1 - tokens).max(initial=1))
    last_use = np.sort(line_buffer.last_uses(window(mapping, side), _FRAMES))
    must_be_free = np.clip(needed + 1 - buffer_capacity(mapping, side), 0, len(last_use))
    served = np.where(must_be_free > 0, last_use[np.maximum(must_be_free - 1, 0)] + 1, 0)
    return int((served - tokens).max(initial=1))


def _is_ahead(mapping: Mapping, layer: LayerMapping, joining: str) -> bool:
    """Whether a shortcut starts on a main path without joins and is never behind it: identity, 1x1 or delayed."""
    side = _side(mapping, joining)
    if side is None:
        return _needed_of(mapping, layer, joining) is not None
    if side.layer.delayed:
        return True
    is_pointwise = side.layer.kind == "conv2d" and side.layer.kernel == (1, 1) and side.layer.padding == (0, 0)
    return is_pointwise and _needed_of(mapping, layer, side.layer.source) is not None


def _side(mapping: Mapping, joining: str) -> LayerMapping | None:
    """The layer without neurons on a shortcut; None for an identity."""
    return next((item for item in mapping.layers if item.layer.name == joining and _is_passing(item.layer)), None)


def _frame(layer: LayerMapping) -> int:
    return layer.layer.conv_shape[1] * layer.layer.conv_shape[2]


def _needed_of(mapping: Mapping, layer: LayerMapping, origin: str) -> np.ndarray | None:
    """Last position of `origin` that each token of a layer depends on; None off its main path, or with a join or a
    product on it.
    """
    if layer.layer.kind == "product":
        return None
    if layer.layer.source == origin:
        return line_buffer.needed_positions(window(mapping, layer), _FRAMES)
    if layer.layer.source == INPUT:
        return None
    source = mapping.layer(layer.layer.source)
    if any(not mapping.layer(name).layer.delayed for name in source.layer.adds):
        return None
    before = _needed_of(mapping, source, origin)
    if before is None:
        return None
    return before[_tokens_of_positions(source.layer)[line_buffer.needed_positions(window(mapping, layer), _FRAMES)]]


def _tokens_of_positions(layer: Layer) -> np.ndarray:
    """Token that completes each position a layer emits, over the frames that lags are measured on."""
    _, height, width = layer.conv_shape
    if layer.pool is None:
        return np.arange(height * width * _FRAMES)
    completes = np.flatnonzero(pool_emits((height, width), layer.pool.kernel, layer.pool.stride))
    return line_buffer.over_frames(completes, height * width, _FRAMES)


def _is_passing(layer: Layer) -> bool:
    return layer.neuron.kind == "none"

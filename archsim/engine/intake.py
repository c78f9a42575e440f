"""Where a layer's inputs arrive: line buffers of its tiles, skip buffers at its neurons, and who fills them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from archsim.components import line_buffer
from archsim.components.netlist import Action, LineBuffer, Target
from archsim.engine import geometry
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping
from archsim.workload.network import INPUT


@dataclass(frozen=True)
class _Feed:
    """One of those that fill a line buffer: who, and as what."""

    name: str
    """The layer, or `input`."""
    source: Source
    is_operand: bool = False


class Intake:
    """Line buffers and skip buffers of all layers."""

    def __init__(self, build: Construction) -> None:
        self.build = build
        self.mapping = build.mapping
        self._buffers: dict[tuple[str, int, int, int], int] = {}
        self._fed_by: dict[tuple[str, int, str, Source], list[tuple[int, int, int]]] = {}
        """What a source of a layer, by its name, feeds in a round: tile, line buffer, number of the source there."""
        self._skip_slots: dict[tuple[str, int, str], int] = {}

    def add(self, layer: LayerMapping) -> None:
        """Add the buffers of one view of a layer."""
        self._add_line_buffers(layer)
        self._add_skip_buffers(layer)

    def buffer(self, layer: LayerMapping, tile: int) -> int:
        """Line buffer of one view of a layer in a tile."""
        return self._buffers[layer.layer.name, layer.rounds[0], layer.copy, tile]

    def skip_slots(self, layer: LayerMapping, block: int) -> list[int]:
        """Channels in which what joins a column block waits, in the order of `Layer.adds`."""
        return [self._skip_slots[layer.layer.name, block, joining] for joining in layer.layer.adds]

    def arrivals(self, layer: LayerMapping, source: Source, stream: Stream) -> list[Arrival]:
        """Line buffers of all copies of a layer that take a stream from one source."""
        store = self._store_action(stream)
        return [
            self._stored(store, tile, Target("buffer", buffer, place))
            for number in layer.rounds
            for tile, buffer, place in self._fed_by.get((layer.layer.name, number, stream.layer, source), [])
        ]

    def joining(self, layer: LayerMapping, block: int, stream: Stream) -> Arrival:
        """Skip buffer of a column block of `layer` that takes a stream of one of the layers it adds."""
        slot = Target("channel", self._skip_slots[layer.layer.name, block, stream.layer])
        return self._stored(self._store_action(stream), layer.home_tile(block), slot)

    def _add_line_buffers(self, layer: LayerMapping) -> None:
        build, mapping = self.build, self.mapping
        capacity = geometry.buffer_capacity(mapping, layer)
        frames = build.read_frames(layer)
        steps = build.step_of if frames == build.every_frame else np.zeros(frames.number, np.int64)
        need, last_use = geometry.needs_and_uses(mapping, layer, steps)
        for tile in layer.tiles:
            feeds = self._feeds(layer, tile)
            n_readers = sum(pe.tile == tile for pe in layer.pes)
            covers = tuple(self._covers(layer, feed) for feed in feeds)
            name, number = layer.layer.name, layer.rounds[0]
            self._buffers[name, number, layer.copy, tile] = len(build.netlist.buffers)
            for place, feed in enumerate(feeds):
                fed = self._fed_by.setdefault((name, number, feed.name, feed.source), [])
                fed.append((tile, len(build.netlist.buffers), place))
            build.netlist.buffers.append(
                LineBuffer(f"tile{tile}.buffer", name, capacity, len(feeds), n_readers, need, last_use, covers)
            )
            sources, operands = ([feed for feed in feeds if feed.is_operand == is_one] for is_one in (False, True))
            build.store(tile, number, capacity * self._channels(layer, sources) * build.emission.input_bits(layer))
            build.store(tile, number, capacity * self._channels(layer, operands) * build.emission.operand_bits(layer))

    def _add_skip_buffers(self, layer: LayerMapping) -> None:
        """Slots at the layer's home tiles for what joins its sums."""
        build = self.build
        for joining in layer.layer.adds:
            capacity = geometry.join_capacity(self.mapping, layer, joining)
            value_bits = build.emission.output_bits(self.mapping.layer(joining))
            for block in layer.blocks:
                (first, last), home = layer.col_blocks[block], layer.home_tile(block)
                name = f"tile{home}.{layer.layer.name}.block{block}.{joining}"
                self._skip_slots[layer.layer.name, block, joining] = build.netlist.channel(name, capacity)
                build.store(home, layer.rounds[0], capacity * (last - first) * value_bits)

    def _feeds(self, layer: LayerMapping, tile: int) -> list[_Feed]:
        """Who sends what a tile needs: its source, then the operand of a product."""
        spec = layer.layer
        pes = [pe for pe in layer.pes if pe.tile == tile]
        blocks = {pe.row_block for pe in pes}
        spans = {(first, last) for block in blocks for held in layer.row_blocks[block] for _, _, first, last in held}
        rows = {(first, last) for first, last in spans if first < layer.n_channels}
        if tile == layer.tiles[0]:
            rows |= _without_rows(layer)
        # a digital unit reads all channels; a tile of nothing but a bias row starts when the first channel arrives
        rows = rows or {(0, spec.in_shape[0] if layer.is_digital else 1)}
        feeds = [_Feed(spec.source, source) for source in self._senders(layer, spec.source, rows)]
        if spec.operand is None:
            return feeds
        # the operand's channels are rows where it is transposed, else columns
        columns = {layer.col_blocks[pe.col_block] for pe in pes}
        senders = self._senders(layer, spec.operand, rows if spec.transpose else columns)
        return feeds + [_Feed(spec.operand, source, is_operand=True) for source in senders]

    def _senders(self, layer: LayerMapping, name: str, spans: set[tuple[int, int]]) -> list[Source]:
        """Column blocks of the copies of a layer that hold spans of channels; a port sends as block 0."""
        if name == INPUT or geometry.is_staged(self.mapping, layer):
            return [Source(0, 0)]
        before = self.mapping.layer(name)
        _, height, width = before.layer.out_shape
        features = height * width if layer.row_layer.kind == "linear" else 1
        needed = [(first // features, (last - 1) // features) for first, last in spans]
        return [
            Source(block, copy)
            for block, (first, last) in enumerate(before.col_blocks)
            if any(first <= high and low < last for low, high in needed)
            for copy in range(before.n_copies)
        ]

    def _covers(self, layer: LayerMapping, feed: _Feed) -> np.ndarray | None:
        """What a sender has covered after 0, 1, 2, ... deliveries; an operand covers frames, and only whole ones."""
        covered = None
        if feed.name != INPUT and not geometry.is_staged(self.mapping, layer):
            covered = self.build.emission.covers(self.mapping.layer(feed.name), [feed.source])[0]
        if not feed.is_operand:
            return covered
        positions = geometry.window(self.mapping, layer).n_inputs
        if covered is None:
            covered = np.arange(self.build.n_frames * positions + 1)
        return covered // positions * positions

    def _channels(self, layer: LayerMapping, feeds: list[_Feed]) -> int:
        """Channels that a tile keeps of what some of its feeds send."""
        if not feeds:
            return 0
        name = feeds[0].name
        if name == INPUT or geometry.is_staged(self.mapping, layer):
            return (
                self.mapping.network.input_shape[0] if name == INPUT else self.mapping.network.layer(name).out_shape[0]
            )
        blocks = self.mapping.layer(name).col_blocks
        return sum(blocks[block][1] - blocks[block][0] for block in {feed.source.block for feed in feeds})

    def _store_action(self, stream: Stream) -> Action:
        """Storing a packet of a stream in a tile buffer that `_stored` names."""
        what = (stream.source, stream.data_class, stream.n_tokens, stream.bits)
        return line_buffer.write_action(self.build.hardware, "", *what)

    def _stored(self, store: Action, tile: int, target: Target) -> Arrival:
        path = f"tile{tile}.buffer"
        assert store.movement is not None, "a packet that is stored has moved"
        return Arrival(self.mapping.nodes[tile], target, (store.at(path, replace(store.movement, destination=path)),))


def _without_rows(layer: LayerMapping) -> set[tuple[int, int]]:
    """Channels that squeezing left without a row anywhere; their spikes still come, to the layer's first tile."""
    if layer.squeeze == "none":
        return set()
    unread = set(range(layer.n_channels))
    for segments in [rows for block in layer.row_blocks for rows in block]:
        unread -= {channel for _, _, first, last in segments for channel in range(first, last)}
    return {(channel, channel + 1) for channel in unread}

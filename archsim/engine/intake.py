"""Where a layer's inputs arrive: line buffers of its tiles, skip buffers at its neurons, and who fills them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from archsim.components import line_buffer
from archsim.components.netlist import Action, LineBuffer, Target
from archsim.engine import geometry
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping
from archsim.workload.network import INPUT


class Intake:
    """Line buffers and skip buffers of all layers."""

    def __init__(self, build: Construction) -> None:
        self.build = build
        self.mapping = build.mapping
        self._buffers: dict[tuple[str, int, int], int] = {}
        self._fed_by: dict[tuple[str, Source], list[tuple[int, int, int]]] = {}
        """What a source of a layer feeds: tile, line buffer, number of the source there."""
        self._skip_slots: dict[tuple[str, int, str], int] = {}

    def add(self, layer: LayerMapping) -> None:
        """Add the buffers of one copy of a layer."""
        self._add_line_buffers(layer)
        self._add_skip_buffers(layer)

    def buffer(self, layer: LayerMapping, tile: int) -> int:
        """Line buffer of a copy of a layer in a tile."""
        return self._buffers[layer.layer.name, layer.copy, tile]

    def skip_slots(self, layer: LayerMapping, block: int) -> list[int]:
        """Channels in which what joins a column block waits, in the order of `Layer.adds`."""
        return [self._skip_slots[layer.layer.name, block, joining] for joining in layer.layer.adds]

    def arrivals(self, layer: LayerMapping, source: Source, stream: Stream) -> list[Arrival]:
        """Line buffers of all copies of a layer that take a stream from one source."""
        store = self._store_action(stream)
        return [
            self._stored(store, tile, Target("buffer", buffer, number))
            for tile, buffer, number in self._fed_by.get((layer.layer.name, source), [])
        ]

    def joining(self, layer: LayerMapping, block: int, stream: Stream) -> Arrival:
        """Skip buffer of a column block of `layer` that takes a stream of one of the layers it adds."""
        slot = Target("channel", self._skip_slots[layer.layer.name, block, stream.layer])
        return self._stored(self._store_action(stream), layer.home_tile(block), slot)

    def _add_line_buffers(self, layer: LayerMapping) -> None:
        build, mapping = self.build, self.mapping
        capacity = geometry.buffer_capacity(mapping, layer)
        n_frames = build.read_frames(layer).number
        need, last_use = geometry.needs_and_uses(mapping, layer, n_frames, build.activity.n_timesteps)
        for tile in layer.tiles:
            sources = self._sources(layer, tile)
            n_readers = sum(pe.tile == tile for pe in layer.pes)
            covers: tuple[np.ndarray | None, ...] = ()
            if layer.layer.source != INPUT and not geometry.is_staged(mapping, layer):
                covers = build.emission.covers(mapping.layer(layer.layer.source), sources)
            name = layer.layer.name
            self._buffers[name, layer.copy, tile] = len(build.netlist.buffers)
            for number, source in enumerate(sources):
                self._fed_by.setdefault((name, source), []).append((tile, len(build.netlist.buffers), number))
            build.netlist.buffers.append(
                LineBuffer(f"tile{tile}.buffer", name, capacity, len(sources), n_readers, need, last_use, covers)
            )
            build.store(tile, capacity * self._source_channels(layer, sources) * build.emission.input_bits(layer))

    def _add_skip_buffers(self, layer: LayerMapping) -> None:
        """Slots at the layer's home tiles for what joins its sums."""
        build = self.build
        for joining in layer.layer.adds:
            capacity = geometry.join_capacity(self.mapping, layer, joining)
            value_bits = build.emission.output_bits(self.mapping.layer(joining))
            for block, (first, last) in enumerate(layer.col_blocks):
                home = layer.home_tile(block)
                name = f"tile{home}.{layer.layer.name}.block{block}.{joining}"
                self._skip_slots[layer.layer.name, block, joining] = build.netlist.channel(name, capacity)
                build.store(home, capacity * (last - first) * value_bits)

    def _sources(self, layer: LayerMapping, tile: int) -> list[Source]:
        """Who sends what a tile needs: column blocks of the copies of the layer before; a port sends as block 0."""
        if layer.layer.source == INPUT or geometry.is_staged(self.mapping, layer):
            return [Source(0, 0)]
        _, height, width = geometry.source_shape(self.mapping, layer)
        features = height * width if layer.row_layer.kind == "linear" else 1
        blocks = {pe.row_block for pe in layer.pes if pe.tile == tile}
        spans = {(first, last) for block in blocks for rows in layer.row_blocks[block] for _, _, first, last in rows}
        inputs = [(first, last) for first, last in spans if first < layer.n_channels]
        # what starts a tile that holds a bias row and nothing else is the arrival of the first channel
        needed = [(first // features, (last - 1) // features) for first, last in inputs or [(0, 1)]]
        before = self.mapping.layer(layer.layer.source)
        return [
            Source(block, copy)
            for block, (first, last) in enumerate(before.col_blocks)
            if any(first <= high and low < last for low, high in needed)
            for copy in range(before.n_copies)
        ]

    def _source_channels(self, layer: LayerMapping, sources: list[Source]) -> int:
        """Channels that a tile keeps of what its layer reads."""
        if layer.layer.source == INPUT or geometry.is_staged(self.mapping, layer):
            return geometry.source_shape(self.mapping, layer)[0]
        blocks = self.mapping.layer(layer.layer.source).col_blocks
        return sum(blocks[block][1] - blocks[block][0] for block in {source.block for source in sources})

    def _store_action(self, stream: Stream) -> Action:
        """Storing a packet of a stream in a tile buffer that `_stored` names."""
        what = (stream.source, stream.data_class, stream.n_tokens, stream.bits)
        return line_buffer.write_action(self.build.hardware, "", *what)

    def _stored(self, store: Action, tile: int, target: Target) -> Arrival:
        path = f"tile{tile}.buffer"
        assert store.movement is not None, "a packet that is stored has moved"
        return Arrival(self.mapping.nodes[tile], target, (store.at(path, replace(store.movement, destination=path)),))

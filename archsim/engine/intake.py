"""Where a layer's inputs arrive: line buffers of its tiles, skip buffers at its neurons, and who fills them."""

from __future__ import annotations

import numpy as np

from archsim.components import line_buffer
from archsim.components.netlist import LineBuffer, Target
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
        arrivals = []
        for view in layer.views:
            for tile in view.tiles:
                sources = self._sources(view, tile)
                if source in sources:
                    target = Target("buffer", self.buffer(view, tile), sources.index(source))
                    arrivals.append(self._stored(stream, tile, target))
        return arrivals

    def joining(self, layer: LayerMapping, block: int, stream: Stream) -> Arrival:
        """Skip buffer of a column block of `layer` that takes a stream of one of the layers it adds."""
        slot = Target("channel", self._skip_slots[layer.layer.name, block, stream.layer])
        return self._stored(stream, layer.home_tile(block), slot)

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

    def _stored(self, stream: Stream, tile: int, target: Target) -> Arrival:
        store = line_buffer.write_action(
            self.build.hardware, f"tile{tile}.buffer", stream.source, stream.data_class, stream.n_tokens, stream.bits
        )
        return Arrival(self.mapping.nodes[tile], target, (store,))

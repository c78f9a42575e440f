"""Whole frames that wait in the global buffer between layers, and the ports that read them back.

Layers that only read share one port and its multicast. What joins other data has ports of its own, one for what it
reads and one for each block that it adds: a port that fed a join and what the join waits for would wait for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsim.components import chip_ports
from archsim.components.netlist import LineBuffer, Target
from archsim.engine import geometry
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.intake import Intake
from archsim.engine.transport import Arrival, Stream
from archsim.eventlog import DataClass
from archsim.mapping import LayerMapping
from archsim.mapping.placement import IO_NODE


class Staging:
    """Frames of all layers whose readers do not take a stream."""

    def __init__(self, build: Construction, intake: Intake) -> None:
        self.build = build
        self.mapping = build.mapping
        self.intake = intake
        self._stages: dict[str, int] = {}

    def arrivals(self, layer: LayerMapping, block: int, stream: Stream) -> list[Arrival]:
        """Where a column block's frames wait for staged readers; the ports that read them come with the first block."""
        name = layer.layer.name
        if not self._readers(name) and not self._joiners(name):
            return []
        if name not in self._stages:
            self._stages[name] = self._add_stage(layer)
        write = chip_ports.stage_write_action(
            self.build.hardware, name, stream.data_class, stream.n_tokens, stream.bits
        )
        source = block * layer.n_copies + layer.copy
        return [Arrival(IO_NODE, Target("buffer", self._stages[name], source), (write,))]

    def _readers(self, name: str) -> list[LayerMapping]:
        return [item for item in self.mapping.consumers(name) if geometry.is_staged(self.mapping, item)]

    def _joiners(self, name: str) -> list[LayerMapping]:
        return [item for item in self.mapping.joiners(name) if geometry.is_staged(self.mapping, item)]

    def _add_stage(self, layer: LayerMapping) -> int:
        build, mapping, name = self.build, self.mapping, layer.layer.name
        channels, height, width = layer.layer.out_shape
        groups, joiners = together(self._readers(name)), self._joiners(name)
        joins = [(item, block) for item in joiners for block in range(len(item.col_blocks))]
        n_tokens = build.n_frames * height * width
        batch = geometry.staged_frames(mapping, build.activity.n_timesteps) * height * width
        build.require_global_buffer(channels * build.emission.output_bits(layer) * batch)
        tokens = np.arange(n_tokens, dtype=np.int64)
        sources = [Source(block, copy) for block in range(len(layer.col_blocks)) for copy in range(layer.n_copies)]
        index = len(build.netlist.buffers)
        build.netlist.buffers.append(
            LineBuffer(
                f"global_buffer.{name}",
                name,
                batch,
                len(sources),
                len(groups) + len(joins),
                (tokens // batch + 1) * batch - 1,
                tokens,
                build.emission.covers(mapping.layer(name), sources),
            )
        )
        for reader, group in enumerate(groups):
            suffix = "" if group == groups[0] else f".{group[0].layer.name}"
            readers = ", ".join(item.layer.name for item in group)
            stream = self._stream(layer, f"global_buffer.{name}.read{suffix}", readers, (0, channels))
            arrivals = [arrival for item in group for arrival in self.intake.arrivals(item, Source(0, 0), stream)]
            self._add_port((index, reader), stream, arrivals)
        for reader, (item, block) in enumerate(joins, len(groups)):
            port = f"global_buffer.{name}.read.{item.layer.name}.block{block}"
            stream = self._stream(layer, port, item.layer.name, item.col_blocks[block])
            self._add_port((index, reader), stream, [self.intake.joining(item, block, stream)])
        return index

    def _stream(self, layer: LayerMapping, port: str, readers: str, channels: tuple[int, int]) -> Stream:
        """What a port reads again: some channels (first, last + 1) of every staged position."""
        build, name, (_, height, width) = self.build, layer.layer.name, layer.layer.out_shape
        n_tokens = build.n_frames * height * width
        bits = (channels[1] - channels[0]) * build.emission.output_bits(layer)
        data_class: DataClass = "partial_sums" if layer.layer.neuron.kind == "none" else "spikes"
        return Stream(port, name, height * width, build.every_frame.steps, n_tokens, bits, data_class, port, readers)

    def _add_port(self, reader: tuple[int, int], stream: Stream, arrivals: list[Arrival]) -> None:
        build = self.build
        outbox = build.channel(f"{stream.name}.out")
        bits = int(stream.bits)
        action = chip_ports.stage_read_action(build.hardware, stream.name, stream.data_class, stream.n_tokens, bits)
        lane = stream.lane((action,), output=outbox)
        lane.reader, lane.release_after = reader, 1
        build.netlist.server(stream.name, "private", lane)
        build.transport.send(stream, outbox, IO_NODE, arrivals)


def together(readers: Sequence[LayerMapping]) -> list[list[LayerMapping]]:
    """Readers that can share a port; those that join other data or read what came before have one of their own."""
    sharing = [item for item in readers if not item.layer.adds and not item.layer.delayed]
    return [group for group in (sharing, *([item] for item in readers if item not in sharing)) if group]

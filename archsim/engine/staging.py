"""Whole frames that wait in the global buffer, or in DRAM, between layers, and the ports that read them back.

Layers that only read share one port and its multicast. What joins other data, or multiplies it, has ports of its own,
one for what it reads and one for each block that it adds: a port that fed both a join and what the join waits for
would wait for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsim.components import chip_ports
from archsim.components.netlist import LineBuffer, Target
from archsim.engine import dram, geometry, global_buffer
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.intake import Intake
from archsim.engine.rounds import Rounds
from archsim.engine.transport import Arrival, Stream
from archsim.eventlog import DataClass
from archsim.mapping import LayerMapping
from archsim.mapping.placement import IO_NODE


class Staging:
    """Frames of all layers whose readers do not take a stream."""

    def __init__(self, build: Construction, intake: Intake, rounds: Rounds) -> None:
        self.build = build
        self.mapping = build.mapping
        self.intake = intake
        self.rounds = rounds
        self._stages: dict[str, list[int]] = {}
        self._spilled: set[str] = set()
        """Layers whose frames wait in DRAM: the global buffer was full when they came, in order of layers."""

    def arrivals(self, layer: LayerMapping, block: int, stream: Stream) -> list[Arrival]:
        """Where a column block's frames wait for staged readers; the ports that read them come with the first block."""
        name = layer.layer.name
        if not self._readers(name) and not self._joiners(name):
            return []
        if name not in self._stages:
            self._stages[name] = self._add_stage(layer)
        build, source = self.build, block * layer.n_copies + layer.copy
        targets = tuple(Target("buffer", index, source) for index in self._stages[name])
        if name in self._spilled:
            return [Arrival(IO_NODE, dram.add_write(build, stream, name, targets))]
        write = chip_ports.stage_write_action(build.hardware, name, stream.data_class, stream.n_tokens, stream.bits)
        _, target = global_buffer.add_write(build, stream, write, targets)
        return [Arrival(IO_NODE, target)]

    def _readers(self, name: str) -> list[LayerMapping]:
        return [item for item in self.mapping.consumers(name) if geometry.is_staged(self.mapping, item)]

    def _joiners(self, name: str) -> list[LayerMapping]:
        return [item for item in self.mapping.joiners(name) if geometry.is_staged(self.mapping, item)]

    def _add_stage(self, layer: LayerMapping) -> list[int]:
        """Add a layer's frames with the ports that read them: one buffer, seen by each round that reads from it."""
        build, name = self.build, layer.layer.name
        channels, height, width = layer.layer.out_shape
        batch = geometry.staged_frames(self.mapping, build.activity.n_timesteps) * height * width
        if not build.stays_on_chip(channels * build.emission.output_bits(layer) * batch):
            self._spilled.add(name)
        readers, joiners = self._readers(name), self._joiners(name)
        numbers = sorted({number for item in (*readers, *joiners) for number in item.rounds})
        return [
            self._add_view(
                layer,
                batch,
                number,
                [item.in_round(number) for item in readers if number in item.rounds],
                [item.in_round(number) for item in joiners if number in item.rounds],
            )
            for number in numbers
        ]

    def _add_view(
        self,
        layer: LayerMapping,
        batch: int,
        number: int,
        readers: list[LayerMapping],
        joiners: list[LayerMapping],
    ) -> int:
        """Frames of a layer, `batch` positions at a time, as its readers and joiners in one round see them."""
        build, name = self.build, layer.layer.name
        channels, height, width = layer.layer.out_shape
        groups, joins = together(readers), [(item, block) for item in joiners for block in item.blocks]
        tokens = np.arange(build.n_frames * height * width, dtype=np.int64)
        sources = [Source(block, copy) for block in range(len(layer.col_blocks)) for copy in range(layer.n_copies)]
        covers = build.emission.covers(self.mapping.layer(name), sources)
        index = len(build.netlist.buffers)
        if self.rounds.number > 1:
            self.rounds.opens(number, Target("buffer", index, len(covers)))
            covers = (*covers, self.rounds.opened(build.every_frame, height * width))
        need, n_ports = (tokens // batch + 1) * batch - 1, len(groups) + len(joins)
        build.netlist.buffers.append(
            LineBuffer(f"global_buffer.{name}", name, batch, len(covers), n_ports, need, tokens, covers)
        )
        for reader, group in enumerate(groups):
            suffix = "" if group == groups[0] else f".{group[0].layer.name}"
            destination = ", ".join(item.layer.name for item in group)
            stream = self._stream(layer, f"global_buffer.{name}.read{suffix}", destination, (0, channels))
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
        if stream.layer in self._spilled:
            outbox = dram.add_read(build, stream, reader)
        else:
            size = (stream.n_tokens, int(stream.bits))
            action = chip_ports.stage_read_action(build.hardware, stream.name, stream.data_class, *size)
            _, outbox = global_buffer.add_read(build, stream, action, reader)
        build.transport.send(stream, outbox, IO_NODE, arrivals)


def together(readers: Sequence[LayerMapping]) -> list[list[LayerMapping]]:
    """Readers that can share a port; those that wait for other data or read what came before have one of their own."""
    sharing = [item for item in readers if not (item.layer.adds or item.layer.operand or item.layer.delayed)]
    return [group for group in (sharing, *([item] for item in readers if item not in sharing)) if group]

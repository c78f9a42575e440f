"""Whole frames that wait in the global buffer between layers, and the ports that read them back."""

from __future__ import annotations

import numpy as np

from archsim.components import chip_ports
from archsim.components.netlist import LineBuffer, Target
from archsim.engine import geometry
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.intake import Intake
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping
from archsim.mapping.placement import IO_NODE


class Staging:
    """Frames of all layers whose readers do not take a stream."""

    def __init__(self, build: Construction, intake: Intake) -> None:
        self.build = build
        self.intake = intake
        self._stages: dict[str, int] = {}

    def arrival(self, layer: LayerMapping, block: int, stream: Stream) -> Arrival:
        """Where a column block's frames wait in the global buffer; the port that reads them comes with the first."""
        name = layer.layer.name
        if name not in self._stages:
            self._stages[name] = self._add_stage(layer)
        write = chip_ports.stage_write_action(self.build.hardware, name, stream.n_tokens, stream.bits)
        source = block * layer.n_copies + layer.copy
        return Arrival(IO_NODE, Target("buffer", self._stages[name], source), (write,))

    def _add_stage(self, layer: LayerMapping) -> int:
        build, mapping, name = self.build, self.build.mapping, layer.layer.name
        channels, height, width = layer.layer.out_shape
        positions = height * width
        n_tokens, bits = build.n_frames * positions, channels * build.emission.output_bits(layer)
        batch = geometry.staged_frames(mapping, build.activity.n_timesteps) * positions
        build.require_global_buffer(bits * batch)
        tokens = np.arange(n_tokens, dtype=np.int64)
        sources = [Source(block, copy) for block in range(len(layer.col_blocks)) for copy in range(layer.n_copies)]
        index = len(build.netlist.buffers)
        build.netlist.buffers.append(
            LineBuffer(
                f"global_buffer.{name}",
                name,
                batch,
                len(sources),
                1,
                (tokens // batch + 1) * batch - 1,
                tokens,
                build.emission.covers(mapping.layer(name), sources),
            )
        )
        readers = [item for item in mapping.consumers(name) if geometry.is_staged(mapping, item)]
        destination = ", ".join(item.layer.name for item in readers)
        port = f"global_buffer.{name}.read"
        stream = Stream(port, name, positions, build.every_frame.steps, n_tokens, bits, "spikes", port, destination)
        outbox = build.channel(f"{port}.out")
        lane = stream.lane((chip_ports.stage_read_action(build.hardware, port, n_tokens, bits),), output=outbox)
        lane.reader, lane.release_after = (index, 0), 1
        build.netlist.server(port, "private", lane)
        arrivals = [arrival for item in readers for arrival in self.intake.arrivals(item, Source(0, 0), stream)]
        build.transport.send(stream, outbox, IO_NODE, arrivals)
        return index

"""Samples that end by themselves, in the netlist: what waits for answers, and which frames lanes serve.

Answers are judged where they leave the chip, when the output port has them; judging takes neither time nor energy
(assumption).
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import LineBuffer, Target
from archsim.engine.construction import Construction
from archsim.engine.emission import Source
from archsim.engine.transport import Stream
from archsim.mapping import LayerMapping
from archsim.workload.network import INPUT


class Judging:
    """Gates of the input ports, for `mapping.early_exit: wait`: a frame enters when the one before has been judged."""

    def __init__(self, build: Construction) -> None:
        self.build = build
        self.is_awaited = build.hardware.mapping.early_exit == "wait" and build.activity.exits is not None
        self._sources = [
            (view.layer.name, view.copy, block)
            for layer in build.mapping.layers
            if build.mapping.is_output(layer.layer)
            for view in layer.views
            for block in view.blocks
        ]
        self._gates: list[int] = []

    def add_gate(self, stream: Stream) -> int:
        """Add the line buffer of an input port's positions: one needs the answer to its place in the frame before.

        Returns its index.
        """
        netlist, tokens = self.build.netlist, np.arange(stream.n_tokens)
        covers = tuple(self._answered(source, stream.positions) for source in self._sources)
        capacity = 1 + max(stream.n_tokens, *map(len, covers))  # it counts, and is never full
        need, last_use = np.maximum(tokens - stream.positions, -1), tokens + stream.positions
        self._gates.append(len(netlist.buffers))
        name = f"{stream.name}.judged"
        netlist.buffers.append(LineBuffer(name, INPUT, capacity, len(covers), 1, need, last_use, covers))
        return self._gates[-1]

    def gates(self, layer: LayerMapping, block: int) -> tuple[Target, ...]:
        """What the answers of a column block open."""
        number = self._sources.index((layer.layer.name, layer.copy, block))
        return tuple(Target("buffer", gate, number) for gate in self._gates)

    def _answered(self, source: tuple[str, int, int], positions: int) -> np.ndarray:
        """Input positions whose frames are answered after 0, 1, 2, ... positions that a source has sent."""
        name, copy, block = source
        layer = self.build.mapping.layer(name)
        _, height, width = layer.layer.out_shape
        sent = self.build.emission.covers(layer, [Source(block, copy)])[0]
        if sent is None:
            sent = np.arange(self.build.n_frames * height * width + 1)
        return sent // (height * width) * positions


def number_frames(build: Construction) -> None:
    """Number the tokens of all lanes by sample and timestep where samples begin different numbers of timesteps."""
    build.netlist.exits = build.activity.exits
    if build.activity.begun is None:
        return
    numbers = build.sample_of * build.activity.n_timesteps + build.step_of
    for lane in build.netlist.lanes():
        if lane.steps == build.every_frame.steps:
            tokens = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
            frame, position = np.divmod(tokens, lane.positions)
            lane.labels = numbers[frame] * lane.positions + position

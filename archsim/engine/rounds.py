"""Rounds of a network that the chip does not hold: when crossbars are written, when data flow, when a round is over.

A batch is what a round computes before the next round's weights come: a frame, or those of all timesteps of a
sample. For every round and batch: all PEs of the round before have sent their sums (`free`); the weights are fetched,
PE by PE in the order of the mapping, and travel to the PEs, each of which writes its rows when all its weights
are there; when every PE has written (`run`), the ports of the round may read what waits in the global buffer.
"""

from __future__ import annotations

import numpy as np

from archsim.components import crossbar, programming
from archsim.components.netlist import Action, Lane, LineBuffer, Target, Wire
from archsim.engine import dram, geometry
from archsim.engine.construction import Construction, Frames
from archsim.engine.transport import Arrival, Stream
from archsim.mapping import LayerMapping, PePlace
from archsim.mapping.placement import IO_NODE
from archsim.mapping.rules import cols_of


class Rounds:
    """Collects what each round's data wait for, and connects the writing of its crossbars."""

    def __init__(self, build: Construction) -> None:
        self.build = build
        self.number = build.mapping.n_rounds
        self.frames_per_batch = geometry.staged_frames(build.mapping, build.activity.n_timesteps)
        self.n_batches = build.n_frames // self.frames_per_batch
        self._gates: dict[int, list[Target]] = {number: [] for number in range(self.number)}
        self._sums: dict[int, list[Lane]] = {number: [] for number in range(self.number)}

    def opens(self, number: int, gate: Target) -> None:
        """Let a round's start be a source of a buffer that the round's ports read."""
        self._gates[number].append(gate)

    def opened(self, frames: Frames, positions: int) -> np.ndarray:
        """Positions of some frames that may flow after 0, 1, 2, ... starts of a round."""
        batch = self._batch(np.arange(frames.number), frames.steps)
        return np.searchsorted(batch, np.arange(self.n_batches + 1)) * positions

    def sends_sums(self, number: int, lane: Lane) -> None:
        """Let a PE of a round be done with a batch when it has sent the batch's last sums over this H-tree lane."""
        self._sums[number].append(lane)

    def connect(self) -> None:
        """Add the writing of crossbars, unless the chip holds all weights and was written before the run."""
        if self.number > 1:
            free = [self._add_free(number) for number in range(self.number)]
            for number, latch in enumerate(free):
                self._add_round(number, latch)

    def _add_round(self, number: int, free: int) -> None:
        build, name = self.build, f"rounds.round{number}"
        requests, written = [], []
        for layer in build.mapping.layers:
            for pe in layer.in_round(number).pes if layer.has_weights_in_cells else ():
                requests.append(build.channel(f"{name}.{pe.path}.request"))
                written.append(self._add_pe(layer, pe, requests[-1]))
        if requests:
            self._add_signal(f"{name}.request", (free,), [Target("channel", request) for request in requests])
        self._add_signal(f"{name}.run", tuple(written) or (free,), self._gates[number])

    def _add_free(self, number: int) -> int:
        """Wait until the round before has run and all its PEs are done; returns the latch that says so."""
        build, before = self.build, self._sums[(number - 1) % self.number]
        is_first = number == 0
        name, index = f"rounds.round{number}.free", len(build.netlist.buffers)
        batches = np.arange(self.n_batches)
        need, last_use = batches - is_first, batches + is_first
        covers = (*(self._done(lane) for lane in before), None)
        capacity = 1 + max([self.n_batches, *(lane.n_tokens for lane in before)])  # it counts, and is never full
        build.netlist.buffers.append(LineBuffer(name, "", capacity, len(covers), 1, need, last_use, covers))
        self._gates[(number - 1) % self.number].append(Target("buffer", index, len(before)))
        for source, lane in enumerate(before):
            target = Target("buffer", index, source)
            lane.wires, lane.reserves = (Wire(target, lane.service_ps),), (target,)
        outbox = build.channel(f"{name}.out")
        lane = self._lane(name, "", programming.control_action("free", self.n_batches), output=outbox)
        lane.reader, lane.release_after = (index, 0), 1
        build.netlist.server(name, "private", lane)
        return outbox

    def _add_pe(self, layer: LayerMapping, pe: PePlace, request: int) -> int:
        """Fetch, transport and writing of one PE's weights; returns the latch that says that they are written."""
        build, hardware = self.build, self.build.hardware
        name, n = f"rounds.round{pe.round}.{pe.path}", self.n_batches
        n_rows = sum(end - start for rows in layer.row_blocks[pe.row_block] for _, _, start, end in rows)
        n_cols = cols_of(hardware, layer.layer, layer.width_of(pe))
        bits = n_rows * layer.width_of(pe) * hardware.mapping.weight_bits
        arrived, written = (build.channel(f"{name}.{what}") for what in ("arrived", "written"))
        port, reader = programming.PORT, layer.layer.name
        stream = Stream(f"{name}.weights", reader, 1, self._steps, n, bits, "weights", port, reader)
        fetched = self._add_fetch(stream, request, bits)
        arrival = Arrival(build.mapping.nodes[pe.tile], Target("channel", arrived))
        build.transport.send(stream, fetched, IO_NODE, [arrival])
        write = crossbar.write_action(hardware, pe.path, n, n_rows, n_cols)
        server = f"{pe.path}.crossbar" if hardware.tile.pe.pipelined else pe.path
        build.netlist.server(server, "private", self._lane(f"{name}.write", reader, write, (arrived,), written))
        return written

    def _add_fetch(self, stream: Stream, request: int, bits: int) -> int:
        """Fetch of one PE's weights, from DRAM if there is any; returns the latch behind it."""
        build = self.build
        if build.hardware.chip.dram.is_present:
            return dram.add_fetch(build, stream, request)
        fetched = build.channel(f"{stream.name}.fetched")
        fetch = programming.fetch_action(build.hardware, stream.layer, self.n_batches, bits)
        lane = self._lane(f"{stream.name}.fetch", stream.layer, fetch, (request,), fetched)
        build.shared(programming.PORT).lanes.append(lane)
        build.netlist.input_lanes.append(lane)
        return fetched

    def _add_signal(self, name: str, inputs: tuple[int, ...], targets: list[Target]) -> None:
        lane = self._lane(name, "", programming.control_action(name.rpartition(".")[2], self.n_batches), inputs)
        lane.wires, lane.reserves = tuple(Wire(target, 0) for target in targets), tuple(targets)
        self.build.shared("rounds").lanes.append(lane)

    def _lane(
        self, name: str, layer: str, action: Action, inputs: tuple[int, ...] = (), output: int | None = None
    ) -> Lane:
        """A lane with a token per batch."""
        return Lane(name, layer, self.n_batches, 1, self._steps, (action,), inputs, output=output)

    @property
    def _steps(self) -> tuple[int, int]:
        """First timestep and number of timesteps of which batches are counted."""
        return 0, self.build.activity.n_timesteps // self.frames_per_batch

    def _batch(self, frames: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
        """Batch of frames that are counted over certain timesteps of every sample: (first, number)."""
        sample, step = np.divmod(frames, steps[1])
        return (sample * self.build.activity.n_timesteps + steps[0] + step) // self.frames_per_batch

    def _done(self, lane: Lane) -> np.ndarray:
        """Batches that a PE is done with after 0, 1, 2, ... tokens of its H-tree lane: those before its next token."""
        tokens = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
        return np.append(self._batch(tokens // lane.positions, lane.steps), self.n_batches)

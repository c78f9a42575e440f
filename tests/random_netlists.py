"""Random netlists that use everything a netlist can hold, small enough to be run with SimPy."""

from __future__ import annotations

from collections import Counter

import numpy as np

from archsim.components.netlist import UNBOUNDED, Action, Lane, LineBuffer, Netlist, Server, Target, Wire, constant


class Growth:
    """A netlist under construction: open streams wait for somebody who takes them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.netlist = Netlist()
        self.streams: list[tuple[int, int]] = []
        """Channels that nobody reads yet, and how many tokens each gets."""
        self.shared = [self.netlist.server(f"shared{index}", "shared") for index in range(int(self.rng.integers(1, 4)))]
        self.used: Counter[str] = Counter()

    def grow(self) -> Netlist:
        steps = (self.stage, self.stage, self.join, self.bus, self.bus, self.link, self.route, self.buffer, self.loop)
        for _ in range(int(self.rng.integers(1, 4))):
            self.source()
        for _ in range(int(self.rng.integers(2, 9))):
            if not self.streams:
                self.source()
            steps[self.rng.integers(len(steps))]()
        while self.streams:
            channel, n = self.take()
            self.private(n, inputs=(channel,))
        self.netlist.servers = [server for server in self.netlist.servers if server.lanes]
        return self.netlist

    # Small pieces

    def services(self, n: int) -> np.ndarray:
        """Constant, uniform, or heavy-tailed with zeros; few values, so that ties abound."""
        kind = self.rng.integers(4)
        if kind == 0:
            return constant(int(self.rng.integers(0, 6)), n)
        if kind == 1:
            return self.rng.integers(0, 9, n)
        self.used["heavy"] += 1
        return self.rng.choice([0, 0, 1, 2, 3, 60], n)

    def lane(self, n: int, **wiring) -> Lane:
        name = f"lane{len(self.netlist.lanes())}"
        parts = tuple(
            Action(name, f"part{index}", self.services(n), constant(1, n), constant(0, n), constant(0, n, np.float64))
            for index in range(int(self.rng.integers(1, 3)))
        )
        return Lane(name, "layer", n, n, (0, 1), parts, **wiring)

    def private(self, n: int, **wiring) -> Lane:
        lane = self.lane(n, **wiring)
        return self.netlist.server(lane.name, "private", lane).lanes[0]

    def channel(self) -> int:
        capacity = int(self.rng.choice([1, 1, 2, 3, UNBOUNDED]))
        self.used[f"depth{capacity}"] += 1
        return self.netlist.channel(f"channel{len(self.netlist.channels)}", capacity)

    def endless(self) -> int:
        return self.netlist.channel(f"channel{len(self.netlist.channels)}", UNBOUNDED)

    def mask(self, n: int) -> np.ndarray | None:
        if n < 2 or self.rng.random() < 0.6:
            return None
        self.used["emit"] += 1
        emit = self.rng.random(n) < 0.6
        emit[self.rng.integers(n)] = True
        return emit

    def take(self) -> tuple[int, int]:
        return self.streams.pop(self.rng.integers(len(self.streams)))

    def open(self, lane: Lane) -> None:
        assert lane.output is not None
        self.streams.append((lane.output, lane.n_emitted))

    def server(self) -> Server:
        """One of the shared servers, or sometimes a shared server of its own."""
        if self.rng.random() < 0.2:
            return self.netlist.server(f"own{len(self.netlist.servers)}", "shared")
        return self.shared[self.rng.integers(len(self.shared))]

    def delays(self, lane: Lane) -> int | np.ndarray:
        """One delay, or one per token sent such that no token overtakes the one before it."""
        if self.rng.random() < 0.5:
            return int(self.rng.integers(0, 7))
        self.used["array delay"] += 1
        return np.sort(self.rng.integers(0, 9, lane.n_emitted))

    # Steps of growth

    def source(self) -> None:
        n = int(self.rng.integers(1, 25))
        if self.rng.random() < 0.3:
            self.used["shared source"] += 1
            lane = self.lane(n, output=self.channel())
            self.server().lanes.append(lane)
        else:
            lane = self.private(n, output=self.channel())
        self.open(lane)

    def stage(self) -> None:
        channel, n = self.take()
        self.open(self.private(n, inputs=(channel,), output=self.channel(), emit=self.mask(n)))

    def twins(self) -> tuple[list[int], int]:
        """Streams of equal length, made by a lane that sends to several places at once."""
        channel, n = self.take()
        ends = [self.endless() for _ in range(int(self.rng.integers(2, 4)))]
        lane = self.lane(n, inputs=(channel,), emit=self.mask(n))
        lane.wires = tuple(Wire(Target("channel", end), self.delays(lane)) for end in ends)
        self.server().lanes.append(lane)
        streams = []
        for end in ends:
            if self.rng.random() < 0.5:
                streams.append(end)
            else:
                streams.append(self.channel())
                self.private(lane.n_emitted, inputs=(end,), output=streams[-1])
        return streams, lane.n_emitted

    def join(self) -> None:
        self.used["join"] += 1
        inputs, n = self.twins()
        lane = self.lane(n, inputs=tuple(inputs), output=self.channel(), emit=self.mask(n))
        if self.rng.random() < 0.5:
            self.netlist.server(lane.name, "private", lane)
        else:
            self.server().lanes.append(lane)
        self.open(lane)

    def bus(self) -> None:
        """Several streams over one shared server."""
        self.used["bus"] += 1
        server = self.server()
        for _ in range(min(len(self.streams), int(self.rng.integers(1, 4)))):
            channel, n = self.take()
            lane = self.lane(n, inputs=(channel,), output=self.channel(), emit=self.mask(n))
            server.lanes.append(lane)
            self.open(lane)

    def link(self) -> None:
        """A cut-through wire into a latch whose slot is reserved, or into an endless one."""
        channel, n = self.take()
        end = self.channel()
        target = Target("channel", end)
        lane = self.lane(n, inputs=(channel,), reserves=(target,), emit=self.mask(n))
        lane.wires = (Wire(target, self.delays(lane)),)
        self.server().lanes.append(lane)
        self.streams.append((end, lane.n_emitted))

    def route(self) -> None:
        """Injection, hops that share servers, ejection into a latch that the injection reserved."""
        self.used["route"] += 1
        channel, n = self.take()
        end, inbox = self.channel(), self.endless()
        target = Target("channel", end)
        lane = self.lane(n, inputs=(channel,), reserves=(target,))
        lane.wires = (Wire(Target("channel", inbox), int(self.rng.integers(0, 4))),)
        self.server().lanes.append(lane)
        for _ in range(int(self.rng.integers(0, 3))):
            onward = self.endless()
            wire = Wire(Target("channel", onward), int(self.rng.integers(0, 4)))
            self.server().lanes.append(self.lane(n, inputs=(inbox,), wires=(wire,)))
            inbox = onward
        lane = self.lane(n, inputs=(inbox,))
        lane.wires = (Wire(target, self.delays(lane)),)
        self.server().lanes.append(lane)
        self.streams.append((end, n))

    def buffer(self) -> None:
        """A line buffer with sources that send all positions, those of a copy, or those that are not silent."""
        inputs, n = self.twins() if self.rng.random() < 0.5 else self.single()
        n_readers = int(self.rng.integers(1, 4))
        n_out = int(self.rng.integers(1, 25))
        need = np.sort(self.rng.integers(-1 if self.rng.random() < 0.2 else 0, n, n_out))
        last_use = np.maximum(np.sort(self.rng.integers(0, n_out, n)), np.searchsorted(need, np.arange(n), "right") - 1)
        last_use = np.maximum.accumulate(last_use)
        released = np.searchsorted(last_use, np.arange(n_out), side="left")
        least = max(int((need + 1 - released).max()), 1)
        capacity = least + int(self.rng.integers(0, 4))
        covers: list[np.ndarray | None] = []
        index = len(self.netlist.buffers)
        for number, channel in enumerate(inputs):
            covers.append(self.sender(channel, n, Target("buffer", index, number)))
        self.netlist.buffers.append(
            LineBuffer(f"buffer{index}", "layer", capacity, len(inputs), n_readers, need, last_use, tuple(covers))
        )
        for reader in range(n_readers):
            parts = {"reader": (index, reader), "output": self.channel(), "emit": self.mask(n_out)}
            if self.rng.random() < 0.3:
                self.used["shared reader"] += 1
                lane = self.lane(n_out, **parts)
                lane.release_after = len(lane.actions)
                self.server().lanes.append(lane)
            else:
                lane = self.private(n_out, **parts)
                lane.release_after = int(self.rng.integers(0, len(lane.actions) + 1))
            self.open(lane)
        self.used["buffer"] += 1

    def single(self) -> tuple[list[int], int]:
        channel, n = self.take()
        return [channel], n

    def sender(self, channel: int, n: int, target: Target) -> np.ndarray | None:
        """A lane that fills a buffer; returns what it has covered after each delivery."""
        lane = self.lane(n, inputs=(channel,), reserves=(target,))
        covers = None
        if self.rng.random() < 0.4:
            self.used["sent positions"] += 1
            lane.emit = self.rng.random(n) < 0.5
            lane.emit[-1] = True
            lane.sent_positions = np.flatnonzero(lane.emit)
            covers = np.concatenate([[0], lane.sent_positions + 1])
            if self.rng.random() < 0.5:
                covers[-1] = n
                covers[:-1] = np.concatenate([lane.sent_positions[:1], lane.sent_positions[1:]])[: len(covers) - 1]
        lane.wires = (Wire(target, self.delays(lane)),)
        self.server().lanes.append(lane)
        return covers

    def loop(self) -> None:
        """A recurrent layer: token g joins what its reader makes of token g - delay."""
        self.used["loop"] += 1
        channel, n = self.take()
        index, delay = len(self.netlist.buffers), int(self.rng.integers(1, 4))
        tokens = np.arange(n)
        capacity = delay + 1 + int(self.rng.integers(0, 3))
        need, last_use = np.maximum(tokens - delay, -1), tokens + delay
        self.netlist.buffers.append(LineBuffer(f"loop{index}", "layer", capacity, 1, 1, need, last_use))
        target = Target("buffer", index)
        back, sums, out = self.channel(), self.channel(), self.endless()
        self.private(n, reader=(index, 0), release_after=1, output=back)
        self.server().lanes.append(self.lane(n, inputs=(back, channel), output=sums))
        wires = (Wire(target, int(self.rng.integers(0, 6))), Wire(Target("channel", out), 0))
        self.server().lanes.append(self.lane(n, inputs=(sums,), wires=wires, reserves=(target,)))
        self.streams.append((out, n))

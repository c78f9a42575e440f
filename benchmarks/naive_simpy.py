"""The same netlist as one would first write it with SimPy: a process per stage, a Store between them.

Services, tokens and delays are those of the netlist. A part that several lanes share is a Resource, held only during
the service (first come, first served; the slot behind it is waited for afterwards), since holding it while
waiting deadlocks at joins; so times agree with archsim's where nothing is shared, and otherwise nearly.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from archsim.components.netlist import Lane, Netlist, Wire

Process = Generator[simpy.Event, Any, None]


class Buffer:
    """A line buffer: events for tokens whose input is not there yet and for positions that have no room yet."""

    def __init__(self, env: simpy.Environment, spec: Any) -> None:
        self.env, self.spec = env, spec
        self.need, self.last_use = spec.need.tolist(), spec.last_use.tolist()
        self.covers = [spec.covered(source).tolist() for source in range(spec.n_sources)]
        self.delivered, self.fetched = [0] * spec.n_sources, [0] * spec.n_readers
        self.complete = self.released = 0
        self.readers: list[tuple[int, simpy.Event]] = []
        self.senders: list[tuple[int, simpy.Event]] = []

    def ready(self, token: int) -> simpy.Event:
        event = self.env.event()
        self.readers.append((self.need[token], event))
        self.look()
        return event

    def room(self, position: int) -> simpy.Event:
        event = self.env.event()
        self.senders.append((position, event))
        self.look()
        return event

    def deliver(self, source: int) -> None:
        self.delivered[source] += 1
        self.complete = min(covers[n] for covers, n in zip(self.covers, self.delivered, strict=True))
        self.look()

    def release(self, reader: int) -> None:
        self.fetched[reader] += 1
        done = min(self.fetched)
        while self.released < len(self.last_use) and self.last_use[self.released] < done:
            self.released += 1
        self.look()

    def look(self) -> None:
        waiting, self.readers = self.readers, []
        for need, event in waiting:
            if need < self.complete:
                event.succeed()
            else:
                self.readers.append((need, event))
        waiting, self.senders = self.senders, []
        for position, event in waiting:
            if position < self.released + self.spec.capacity:
                event.succeed()
            else:
                self.senders.append((position, event))


def run(netlist: Netlist) -> tuple[int, int]:
    """Run a netlist; returns the time of the last event, ps, and the number of services done."""
    env = simpy.Environment()
    stores = [simpy.Store(env, channel.capacity or float("inf")) for channel in netlist.channels]
    buffers = [Buffer(env, spec) for spec in netlist.buffers]
    done = [0]

    def arrive(wire: Wire, delay_ps: int, token: int) -> Process:
        yield env.timeout(delay_ps)
        if wire.target.kind == "channel":
            yield stores[wire.target.index].put(token)
        else:
            buffers[wire.target.index].deliver(wire.target.source)

    def serve(lane: Lane, part: simpy.Resource | None) -> Process:
        services, fetches = lane.service_ps.tolist(), lane.fetch_ps.tolist()
        delays = [np.broadcast_to(wire.delay_ps, lane.n_emitted).tolist() for wire in lane.wires]
        positions = range(lane.n_emitted) if lane.sent_positions is None else lane.sent_positions.tolist()
        rooms = [buffers[target.index] for target in lane.reserves if target.kind == "buffer"]
        sent = 0
        for token, service in enumerate(services):
            emits = lane.emit is None or bool(lane.emit[token])
            if lane.reader:
                yield buffers[lane.reader[0]].ready(token)
            for channel in lane.inputs:
                yield stores[channel].get()
            for buffer in rooms if emits else ():
                yield buffer.room(positions[sent])
            request = part.request() if part else None
            if request:
                yield request
            if lane.reader:
                yield env.timeout(fetches[token])
                buffers[lane.reader[0]].release(lane.reader[1])
                service -= fetches[token]
            if emits:
                for wire, delay in zip(lane.wires, delays, strict=True):
                    env.process(arrive(wire, delay[sent], token))
            yield env.timeout(service)
            if part and request:
                part.release(request)
            if emits and lane.output is not None:
                yield stores[lane.output].put(token)
            sent += emits
            done[0] += 1

    for server in netlist.servers:
        part = simpy.Resource(env) if len(server.lanes) > 1 else None
        for lane in server.lanes:
            env.process(serve(lane, part))
    env.run()
    return int(env.now), done[0]

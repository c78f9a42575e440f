"""Executes a netlist with SimPy, process by process. This is the semantics of archsim.

Entry: `execute`. It builds one process per server, runs until nothing moves, and checks that
everything has drained; if not, the error names the cycle of parts that wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import simpy

from archsim.components.latches import Clock, Latch, LineBufferState
from archsim.components.netlist import Lane, Netlist, Server, Target, Wire, require_executable
from archsim.components.router import LinkState, Router, RouterPort
from archsim.components.servers import Arbitration, Place, Port, PrivateServer, SharedServer
from archsim.components.trace import ExecutionTrace, LaneTrace
from archsim.errors import SimulationError
from archsim.units import format_time

Progress = Callable[[float], None]
AnyServer = PrivateServer | SharedServer | Router

_STEPS_PER_REPORT = 20_000


def execute(netlist: Netlist, progress: Progress | None = None) -> ExecutionTrace:
    """Run a netlist to the end.

    Args:
        netlist: What to run.
        progress: Called now and then with the fraction of services done, 0..1.

    Returns:
        Times and causes of every service, and what the channels counted.

    Raises:
        SimulationError: Tokens are left waiting for each other.
    """
    require_executable(netlist)
    return _Execution(netlist).run(progress)


class _Execution:
    """The run-time objects of one netlist."""

    def __init__(self, netlist: Netlist) -> None:
        self.netlist = netlist
        self.env = Clock()
        self.latches = [Latch(self.env, channel) for channel in netlist.channels]
        self.buffers = [LineBufferState(self.env, buffer) for buffer in netlist.buffers]
        self.links = [LinkState(link) for link in netlist.links]
        self.feeders: dict[Target, AnyServer] = {}
        self.readers: dict[tuple[int, int], AnyServer] = {}
        arbitration = Arbitration(self.env)
        self.servers: list[AnyServer] = []
        for index, spec in enumerate(netlist.servers):
            server = self._server(spec, index, arbitration)
            self._connect(server)
            self.servers.append(server)
        self._join_routers()

    def run(self, progress: Progress | None) -> ExecutionTrace:
        """Start every process and step until nothing is left to happen."""
        for server in self.servers:
            self.env.process(server.run())
        ports = [port for server in self.servers for port in server.ports]
        total = sum(len(port.service_ps) for port in ports) or 1
        try:
            while True:
                for _ in range(_STEPS_PER_REPORT):
                    self.env.step()
                if progress:
                    progress(sum(port.next for port in ports) / total)
        except simpy.core.EmptySchedule:
            pass
        self._require_drained()
        traces = [port.trace(LaneTrace.empty(port.lane)) for port in ports]
        return ExecutionTrace(traces, [latch.statistics() for latch in self.latches], self.env.now_ps)

    def _server(self, spec: Server, index: int, arbitration: Arbitration) -> AnyServer:
        if spec.policy == "router":
            return Router(self.env, spec, index, [self._router_port(lane) for lane in spec.lanes], arbitration)
        ports = [self._port(lane) for lane in spec.lanes]
        if spec.policy == "private":
            return PrivateServer(self.env, spec, ports[0])
        return SharedServer(self.env, spec, index, ports, arbitration)

    def _router_port(self, lane: Lane) -> RouterPort:
        return RouterPort(
            self.env,
            lane,
            [self.latches[index] for index in lane.inputs],
            self.links,
            [self._place(target) for target in lane.reserves],
            [self._sender(lane.name, wire) for wire in lane.wires],
        )

    def _join_routers(self) -> None:
        """Tell every lane of a router which lane feeds it, and which others take on the same packets."""
        takers = {
            target: port
            for server in self.servers
            if isinstance(server, Router)
            for port in server.ports
            if port.entry is not None
            for target in [Target("channel", port.lane.inputs[0])]
        }
        for server in self.servers:
            if isinstance(server, Router):
                for port in server.ports:
                    branches = [takers[wire.target] for wire in port.lane.wires if wire.target in takers]
                    for branch in branches:
                        branch.feeder, branch.branches = port, branches

    def _port(self, lane: Lane) -> Port:
        reserves = [self._place(target) for target in lane.reserves]
        port = Port(
            self.env,
            lane,
            [self.latches[index] for index in lane.inputs],
            self.buffers[lane.reader[0]] if lane.reader else None,
            reserves,
            [self._sender(lane.name, wire) for wire in lane.wires],
        )
        if lane.output is not None:
            port.output = self.latches[lane.output]
        return port

    def _place(self, target: Target) -> Place:
        return self.latches[target.index] if target.kind == "channel" else self.buffers[target.index]

    def _sender(self, name: str, wire: Wire) -> Callable[[int], None]:
        env, target = self.env, wire.target
        if target.kind == "channel":
            latch = self.latches[target.index]

            def arrive(event: simpy.Event) -> None:
                latch.push(cast(int, event.value))
        else:
            buffer = self.buffers[target.index]

            def arrive(event: simpy.Event) -> None:
                buffer.deliver(target.source)

        delays = wire.delay_ps.tolist() if isinstance(wire.delay_ps, np.ndarray) else None
        same_delay = 0 if isinstance(wire.delay_ps, np.ndarray) else wire.delay_ps

        latest_ps = 0

        def send(token: int) -> None:
            nonlocal latest_ps
            delay_ps = same_delay if delays is None else delays[token]
            if env.now_ps + delay_ps < latest_ps:
                raise SimulationError(
                    f"{name}: token {token} would overtake the one before it on its wire, arriving at "
                    f"{format_time(env.now_ps + delay_ps)} instead of at {format_time(latest_ps)} or later"
                )
            latest_ps = env.now_ps + delay_ps
            callbacks = env.timeout(delay_ps, token).callbacks
            assert callbacks is not None, "a new timeout has not been processed"
            callbacks.append(arrive)

        return send

    def _connect(self, server: AnyServer) -> None:
        for port in server.ports:
            lane = port.lane
            for latch in port.inputs:
                latch.consumer = port if isinstance(port, RouterPort) else server
            if port.reader and lane.reader:
                port.reader.readers.append(server)
                self.readers[lane.reader] = server
            for place in port.reserves:
                if isinstance(place, Latch):
                    place.producer = server
                else:
                    place.senders.append(server)
            if port.output is not None:
                port.output.producer = server
                if isinstance(server, SharedServer):
                    port.reserves.append(port.output)
                self.feeders[Target("channel", lane.output or 0)] = server
            for wire in lane.wires:
                self.feeders[wire.target] = server

    def _require_drained(self) -> None:
        stuck = {server.name: server for server in self.servers if any(not port.is_done for port in server.ports)}
        if not stuck:
            return
        n_waiting = sum(len(port.service_ps) - port.next for server in stuck.values() for port in server.ports)
        path = self._wait_cycle(next(iter(stuck.values())))
        is_cycle = path[0] == path[-1] and len(path) > 1
        raise SimulationError(
            f"no progress after t = {format_time(self.env.now_ps)}: {n_waiting} services never finished; "
            f"{'these wait for each other' if is_cycle else 'each waits for the next'}: {' -> '.join(path)}"
        )

    def _wait_cycle(self, server: AnyServer) -> list[str]:
        path: list[AnyServer] = []
        while server not in path:
            path.append(server)
            following = self._waits_for(server)
            if following is None:
                return [item.name for item in path]
            server = following
        return [item.name for item in path[path.index(server) :]] + [server.name]

    def _waits_for(self, server: AnyServer) -> AnyServer | None:
        for port in server.ports:
            if port.is_done:
                continue
            if isinstance(server, PrivateServer) and server.is_blocked:
                return _as_server(port.output.consumer if port.output else None)
            if port.data_ps() is None:
                return self._missing_input(port)
            for place in port.reserves:
                if place.slot_ps(port.next_position()) is None:
                    if isinstance(place, Latch):
                        return _as_server(place.consumer)
                    return self.readers.get((self.buffers.index(place), place.fetched.index(min(place.fetched))))
            if isinstance(port, RouterPort) and port.exit.receiver is not None:
                return port.exit.receiver
        return None

    def _missing_input(self, port: Port) -> AnyServer | None:
        if port.lane.reader:
            delivered, index = self.buffers[port.lane.reader[0]].delivered, port.lane.reader[0]
            return self.feeders.get(Target("buffer", index, delivered.index(min(delivered))))
        for index, latch in zip(port.lane.inputs, port.inputs, strict=True):
            if not latch.arrivals:
                return self.feeders.get(Target("channel", index))
        return None


def _as_server(sleeper: object) -> AnyServer | None:
    if isinstance(sleeper, RouterPort):
        return sleeper.router
    return sleeper if isinstance(sleeper, (PrivateServer, SharedServer, Router)) else None

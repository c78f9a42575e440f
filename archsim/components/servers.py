"""What serves: SimPy processes that take tokens, hold them for their service time, pass them on.

This is the meaning of a netlist. `PrivateServer` blocks after service; `SharedServer` is granted
by `Arbitration` (oldest arrival first, then lowest lane) with its destination slots reserved.
A user's own component is a class with a `run` generator and a `wake` method, like these two and
`router.Router`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import simpy

from archsim.components.latches import Clock, Latch, LineBufferState
from archsim.components.netlist import Lane, Server
from archsim.components.trace import NO_PREDECESSOR, LaneTrace
from archsim.errors import SimulationError
from archsim.eventlog import ARBITER, CREDIT, DATA, SERVER

Process = Generator[simpy.Event, Any, None]
Place = Latch | LineBufferState


class Port:
    """A lane at run time: its inputs, its outputs, and the lists that become its trace."""

    def __init__(
        self,
        env: Clock,
        lane: Lane,
        inputs: list[Latch],
        reader: LineBufferState | None,
        reserves: list[Place],
        send: list[Callable[[int], None]],
    ) -> None:
        self.env = env
        self.lane = lane
        self.inputs = inputs
        self.reader = reader
        self.reserves = reserves
        self.send = send
        self.output: Latch | None = None
        self.service_ps: list[int] = lane.service_ps.tolist()
        self.fetch_ps: list[int] = lane.fetch_ps.tolist() if reader else []
        self.emit: list[bool] | None = None if lane.emit is None else lane.emit.tolist()
        self.positions: list[int] | None = None if lane.sent_positions is None else lane.sent_positions.tolist()
        self.next = 0
        self.n_taken = 0
        self.n_sent = 0
        self.start: list[int] = []
        self.leave: list[int] = []
        self.start_cause: list[int] = []
        self.leave_cause: list[int] = []
        self.predecessor: list[int] = []

    @property
    def is_done(self) -> bool:
        """Whether every token has been started."""
        return self.next >= len(self.service_ps)

    def data_ps(self) -> int | None:
        """Time since which the next token's input has been there; None while it is not."""
        if self.reader:
            return self.reader.ready_ps(self.next)
        arrived = -1
        for latch in self.inputs:
            if not latch.arrivals:
                return None
            arrived = max(arrived, latch.arrivals[0][0])
        return arrived

    def emits(self) -> bool:
        """Whether the next token will produce an output."""
        return self.emit is None or self.emit[self.next]

    def credit_ps(self) -> int | None:
        """Time since which every slot that the next token reserves has been free; None while one is not."""
        freed = -1
        if self.emits():
            position = self.next_position()
            for place in self.reserves:
                slot = place.slot_ps(position)
                if slot is None:
                    return None
                freed = max(freed, slot)
        return freed

    def next_position(self) -> int:
        """Line-buffer position that the next output goes to."""
        return self.n_sent if self.positions is None else self.positions[self.n_sent]

    def take(self) -> None:
        """Remove the next token's input from its latches."""
        for latch in self.inputs:
            latch.pop(self.n_taken)
        self.n_taken += 1

    def log_start(self, cause: int, predecessor: int = NO_PREDECESSOR) -> None:
        """Write down that the next token's service starts now."""
        self.start.append(self.env.now_ps)
        self.start_cause.append(cause)
        self.predecessor.append(predecessor)

    def log_leave(self, cause: int) -> None:
        """Write down that the next token leaves now, and move on to the one after it."""
        self.leave.append(self.env.now_ps)
        self.leave_cause.append(cause)
        self.next += 1

    def trace(self, empty: LaneTrace) -> LaneTrace:
        """Fill the arrays of `empty` with what was written down."""
        n = len(self.leave)
        for array, values in (
            (empty.start_ps, self.start),
            (empty.leave_ps, self.leave),
            (empty.start_cause, self.start_cause),
            (empty.leave_cause, self.leave_cause),
            (empty.predecessor, self.predecessor),
        ):
            array[:n] = values[:n]
        return empty


class PrivateServer:
    """One lane, first come first served, blocking after service."""

    def __init__(self, env: Clock, server: Server, port: Port) -> None:
        self.env = env
        self.name = server.name
        self.ports = [port]
        self.is_blocked = False
        self._sleep: simpy.Event | None = None

    def wake(self) -> None:
        """Look again whether the token can move."""
        if self._sleep is not None:
            event, self._sleep = self._sleep, None
            event.succeed()

    def run(self) -> Process:
        """Serve every token of the lane."""
        port, env = self.ports[0], self.env
        free_ps = -1
        while not port.is_done:
            while (data_ps := port.data_ps()) is None:
                yield self._changed()
            port.take()
            port.log_start(DATA if data_ps >= free_ps else SERVER)
            service = port.service_ps[port.next]
            if port.reader and port.lane.reader:
                fetch = port.fetch_ps[port.next]
                yield env.timeout(fetch)
                port.reader.release(port.lane.reader[1])
                service -= fetch
            yield env.timeout(service)
            free_ps = yield from self._pass_on(port)

    def _pass_on(self, port: Port) -> Generator[simpy.Event, Any, int]:
        end_ps, cause = self.env.now_ps, SERVER
        if port.output is not None and port.emits():
            while (slot_ps := port.output.slot_ps(port.n_sent)) is None:
                self.is_blocked = True
                yield self._changed()
            self.is_blocked = False
            port.output.reserve()
            port.output.push(port.n_sent)
            port.n_sent += 1
            cause = CREDIT if slot_ps >= end_ps else SERVER
        port.log_leave(cause)
        return self.env.now_ps

    def _changed(self) -> simpy.Event:
        self._sleep = self.env.event()
        return self._sleep


class _Instant(simpy.Event):
    """An event that has happened already and only waits for its turn."""

    def __init__(self, env: Clock, callback: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        self.callbacks = [callback]


class Granted(Protocol):
    """Whoever Arbitration decides for."""

    index: int

    def choose(self) -> Any:
        """What to grant, looking only; None if there is nothing."""

    def accept(self, choice: Any) -> None:
        """Start what was chosen."""


class Arbitration:
    """Takes all grant decisions of an instant at once, after everything else of that instant.

    Servers that may grant are asked together and only then told, so no decision depends on the
    order in which the others were taken or in which components were built.
    """

    _LATE = 2
    """SimPy priority behind NORMAL (1)."""

    def __init__(self, env: Clock) -> None:
        self.env = env
        self._asking: dict[int, Granted] = {}

    def request(self, server: Granted) -> None:
        """Ask for a decision at the end of the present instant."""
        if not self._asking:
            self.env.schedule(_Instant(self.env, self._decide), priority=self._LATE)  # type: ignore[arg-type]
        self._asking[server.index] = server

    def _decide(self, _: simpy.Event) -> None:
        servers = [self._asking[index] for index in sorted(self._asking)]
        self._asking = {}
        choices = [server.choose() for server in servers]
        for server, choice in zip(servers, choices, strict=True):
            if choice is not None:
                server.accept(choice)


class SharedServer:
    """Several lanes, one service at a time, granted oldest first and never without a free slot."""

    def __init__(self, env: Clock, server: Server, index: int, ports: list[Port], arbitration: Arbitration) -> None:
        self.env = env
        self.name = server.name
        self.index = index
        self.ports = ports
        self.arbitration = arbitration
        self._grant: simpy.Event | None = None

    def wake(self) -> None:
        """Something changed at a lane: ask for a decision if the server is free."""
        if self._grant is not None:
            self.arbitration.request(self)

    def choose(self) -> tuple[int, int, int] | None:
        """Oldest ready lane as (arrival, lane, credit time); None if no lane is ready."""
        best: tuple[int, int, int] | None = None
        for number, port in enumerate(self.ports):
            if port.is_done or (data_ps := port.data_ps()) is None:
                continue
            if best is not None and data_ps >= best[0]:
                continue
            if (credit_ps := port.credit_ps()) is not None:
                best = (data_ps, number, credit_ps)
        return best

    def accept(self, choice: tuple[int, int, int]) -> None:
        """Start the chosen service."""
        assert self._grant is not None, "only a free server is asked"
        event, self._grant = self._grant, None
        event.succeed(choice)

    def run(self) -> Process:
        """Serve every token of every lane."""
        env, last_lane = self.env, -1
        for number in range(sum(len(port.service_ps) for port in self.ports)):
            self._grant = env.event()
            self.arbitration.request(self)
            data_ps, lane, credit_ps = yield self._grant
            port = self.ports[lane]
            self._log_start(port, data_ps, credit_ps, number, same_lane=last_lane == lane)
            port.take()
            emits, sent = port.emits(), port.n_sent
            if emits:
                for place in port.reserves:
                    place.reserve()
                for send in port.send:
                    send(sent)
                port.n_sent += 1
            yield env.timeout(port.service_ps[port.next])
            if port.reader and port.lane.reader:
                port.reader.release(port.lane.reader[1])
            if emits and port.output is not None:
                port.output.push(sent)
            port.log_leave(SERVER)
            last_lane = lane

    def _log_start(self, port: Port, data_ps: int, credit_ps: int, number: int, same_lane: bool) -> None:
        if data_ps == self.env.now_ps or (data_ps < 0 and not number):
            port.log_start(DATA)
        elif credit_ps == self.env.now_ps:
            port.log_start(CREDIT)
        elif same_lane:
            port.log_start(SERVER)
        elif number:
            port.log_start(ARBITER, number - 1)
        else:
            raise SimulationError(f"{self.name}: a first grant at {self.env.now_ps} ps without a cause")

"""A router: packets cross it flit by flit, from the virtual channels of one link to those of the next.

The first packet of every virtual channel asks for the link it leaves by; requests are granted oldest
first, then lowest lane. A link carries one flit at a time, a link's buffer gives one flit at a time
(to every branch of a multicast at once), and a flit goes only where a slot is free, so packets wait
in the network and not beyond its edges. Timing follows BookSim2's input-queued router, which grants
in turn instead of by age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import simpy

from archsim.components.latches import NEVER, Clock, Latch
from archsim.components.netlist import UNBOUNDED, Lane, Link, Server
from archsim.components.servers import Arbitration, Place, Port, Process
from archsim.components.trace import NO_PREDECESSOR
from archsim.errors import SimulationError
from archsim.eventlog import ARBITER, CREDIT, DATA, SERVER


@dataclass(slots=True)
class VirtualChannel:
    """One queue of a link's buffer, with what its sender knows of it."""

    slots: deque[int]
    """Since when, or from when on, the sender may use each free slot."""
    owner: RouterPort | None = None
    """Lane whose packet is being sent into it."""
    reuse_ps: int = NEVER
    """When it may be granted again."""
    packets: deque[tuple[RouterPort, int]] = field(default_factory=deque)
    """Arrived packets in order: first of the lanes that take them on, and the packet's number in its lane."""
    next_ps: int = NEVER
    """When the first packet may move on."""
    freed_by: int = NO_PREDECESSOR
    """Service of the sending router that gave it back."""
    left_by: int = NO_PREDECESSOR
    """Service of the receiving router that made the first packet the first."""


class LinkState:
    """Run-time state of a link: its virtual channels, and the flits on its way in and out."""

    def __init__(self, link: Link) -> None:
        self.link = link
        depth = 0 if link.depth == UNBOUNDED else link.depth
        self.channels = [VirtualChannel(deque([NEVER] * depth)) for _ in range(link.virtual_channels)]
        self.sender: Router | None = None
        self.receiver: Router | None = None
        self.last = link.virtual_channels - 1
        """Virtual channel granted last; the next grant begins its search behind it."""
        self.free_ps = self.read_free_ps = NEVER
        """When the wires, and the output of the buffer, are free."""
        self.sent_by = self.read_by = NO_PREDECESSOR
        """Services that used them last, of the sending and of the receiving router."""
        self.flit = (NEVER, NEVER, NEVER)
        """Time, virtual channel and token that the buffer gave last."""
        self.before = (NEVER, NO_PREDECESSOR)
        """When its output was free for that, and which service had used it."""

    def slot_ps(self, channel: int) -> int | None:
        """From when on the sender may use the next slot of a virtual channel; None while that is not known."""
        slots = self.channels[channel].slots
        if self.link.depth == UNBOUNDED:
            return NEVER
        return slots[0] if slots else None

    def has_slot(self, channel: int, now_ps: int) -> bool:
        """Whether the sender may use a slot now."""
        slot_ps = self.slot_ps(channel)
        return slot_ps is not None and slot_ps <= now_ps

    def channel_for_head(self, now_ps: int) -> int | None:
        """Next virtual channel, in turn, that is free and has a slot; None if a head must wait."""
        taken = [channel.owner is not None or channel.reuse_ps > now_ps for channel in self.channels]
        if sum(taken) >= self.link.packets:
            return None
        n = len(self.channels)
        in_turn = ((self.last + offset) % n for offset in range(1, n + 1))
        return next((number for number in in_turn if not taken[number] and self.has_slot(number, now_ps)), None)


class RouterPort(Port):
    """A lane of a router at run time: the packets of one stream, from one link to another."""

    def __init__(
        self,
        env: Clock,
        lane: Lane,
        inputs: list[Latch],
        links: list[LinkState],
        reserves: list[Place],
        send: list[Callable[[int], None]],
    ) -> None:
        super().__init__(env, lane, inputs, None, reserves, send)
        passage = lane.passage
        assert passage is not None, "require_executable has seen to it"
        self.name = lane.name
        self.entry = None if passage.entry is None else links[passage.entry]
        self.exit = links[passage.exit]
        self.tails: list[bool] | None = None if passage.tails is None else passage.tails.tolist()
        self.router: Router | None = None
        self.feeder: RouterPort | None = None
        """Lane at the other end of the entry."""
        self.branches: list[RouterPort] = [self]
        """Lanes that take on the same packets, this one among them; the first one speaks for all."""
        self.n_arrived = self.n_heads_arrived = self.n_tails = 0
        self.channels: list[int] = []
        """Virtual channel of every packet sent."""
        self.packet_ps = NEVER
        """When the packet under way arrived, where packets begin."""
        self.last_service = NO_PREDECESSOR
        """Running number, in the router, of this lane's service before."""

    def is_head(self, token: int) -> bool:
        """Whether a token begins a packet."""
        return self.tails is None or token == 0 or self.tails[token - 1]

    def is_tail(self, token: int) -> bool:
        """Whether a token ends a packet."""
        return self.tails is None or self.tails[token]

    def next_position(self) -> int:
        """Line-buffer position that the next packet goes to."""
        return self.n_taken if self.positions is None else self.positions[self.n_taken]

    def wake(self) -> None:
        """A token arrived: a head joins the queue of its virtual channel."""
        if self.feeder is not None and self.entry is not None and self.branches[0] is self:
            if self.is_head(self.n_arrived):
                channel = self.feeder.channels[self.n_heads_arrived]
                self.entry.channels[channel].packets.append((self, self.n_heads_arrived))
                self.n_heads_arrived += 1
            self.n_arrived += 1
        if self.router is not None:
            self.router.wake()

    def arrived_ps(self) -> int | None:
        """Since when the next token has been here; None while it is not."""
        if self.entry is None and not self.is_head(self.next):
            return self.packet_ps
        return self.data_ps()


class Request(NamedTuple):
    """A flit that could go now, if the links on both sides are free."""

    age_ps: int
    number: int
    """Lane within the router."""
    data_ps: int
    credit_ps: int
    channel: int
    """Virtual channel that it goes into."""
    entry_channel: int


class Router:
    """Grants flits their way from link to link."""

    def __init__(self, env: Clock, server: Server, index: int, ports: list[RouterPort], arbitration: Arbitration):
        self.env = env
        self.name = server.name
        self.index = index
        self.ports = ports
        self.arbitration = arbitration
        self.entries = list(dict.fromkeys(port.entry for port in ports if port.entry is not None))
        self.numbers = {id(port): number for number, port in enumerate(ports)}
        self.sources = [port for port in ports if port.entry is None]
        self.n_grants = 0
        self._grant: simpy.Event | None = None
        self._alarms: set[int] = set()
        for port in ports:
            port.router = self
            port.exit.sender = self
        for entry in self.entries:
            entry.receiver = self

    def wake(self) -> None:
        """Something changed: ask for a decision."""
        if self._grant is not None:
            self.arbitration.request(self)

    def wake_at(self, time_ps: int) -> None:
        """Ask for a decision at a later time."""
        if time_ps not in self._alarms:
            self._alarms.add(time_ps)
            callbacks = self.env.timeout(time_ps - self.env.now_ps, time_ps).callbacks
            assert callbacks is not None, "a new timeout has not been processed"
            callbacks.append(self._alarm)

    def _alarm(self, event: simpy.Event) -> None:
        self._alarms.discard(cast(int, event.value))
        self.wake()

    def choose(self) -> list[Request] | None:
        """Requests to grant: oldest first, then lowest lane, one per link on either side; None if there are none."""
        chosen: list[Request] = []
        exits: set[int] = set()
        entries: dict[int, tuple[int, int]] = {}
        for request in sorted(self._requests()):
            port = self.ports[request.number]
            flit = (request.entry_channel, port.next)
            if id(port.exit) in exits or entries.get(id(port.entry), flit) != flit:
                continue
            exits.add(id(port.exit))
            if port.entry is not None:
                entries[id(port.entry)] = flit
            chosen.append(request)
        return chosen or None

    def accept(self, choice: list[Request]) -> None:
        """Start the chosen services."""
        assert self._grant is not None, "only a router that waits is asked"
        event, self._grant = self._grant, None
        event.succeed(choice)

    def run(self) -> Process:
        """Serve every token of every lane."""
        remaining = sum(len(port.service_ps) for port in self.ports)
        while remaining:
            self._grant = self.env.event()
            self.arbitration.request(self)
            requests: list[Request] = yield self._grant
            for request in requests:
                self._start(request)
            remaining -= len(requests)

    def _requests(self) -> list[Request]:
        """Flits that could go now."""
        now = self.env.now_ps
        found = []
        for port in self.sources:
            if not port.is_done:
                found.append(self._request(port, NEVER, NEVER))
        for entry in self.entries:
            for number, channel in enumerate(entry.channels):
                if channel.packets and channel.next_ps <= now:
                    first, packet = channel.packets[0]
                    found += [
                        self._request(port, channel.next_ps, number)
                        for port in first.branches
                        if port.n_tails == packet
                    ]
        return [request for request in found if request is not None]

    def _request(self, port: RouterPort, next_ps: int, entry_channel: int) -> Request | None:
        now, link, token = self.env.now_ps, port.exit, port.next
        if link.free_ps > now or (data_ps := port.arrived_ps()) is None:
            return None
        if (entry := port.entry) is not None and entry.read_free_ps > now and entry.flit != (now, entry_channel, token):
            return None
        is_head = port.is_head(token)
        reserved_ps = port.credit_ps() if is_head else NEVER
        channel = link.channel_for_head(now) if is_head else port.channels[-1]
        if reserved_ps is None or channel is None or not link.has_slot(channel, now):
            return None
        slot_ps = link.slot_ps(channel)
        assert slot_ps is not None, "the slot was found above"
        age_ps = max(data_ps, next_ps if is_head else port.leave[-1])
        return Request(age_ps, self.numbers[id(port)], data_ps, max(reserved_ps, slot_ps), channel, entry_channel)

    def _start(self, request: Request) -> None:
        now, port = self.env.now_ps, self.ports[request.number]
        token, link, entry = port.next, port.exit, port.entry
        is_head, end_ps = port.is_head(token), now + port.service_ps[token]
        self._log_start(port, request)
        if entry is not None or is_head:
            port.packet_ps = request.data_ps
            port.take()
        if is_head:
            for place in port.reserves:
                place.reserve()
            link.last = request.channel
            link.channels[request.channel].owner = port
            port.channels.append(request.channel)
        if link.link.depth != UNBOUNDED:
            link.channels[request.channel].slots.popleft()
        if port.emits():
            for send in port.send:
                send(port.n_sent)
            port.n_sent += 1
        link.free_ps, link.sent_by = end_ps, self.n_grants
        self.wake_at(end_ps)
        if port.is_tail(token):
            self._give_back(link.channels[request.channel], end_ps + link.link.reuse_ps)
        port.leave.append(end_ps)
        port.leave_cause.append(SERVER)
        port.next += 1
        port.n_tails += port.is_tail(token)
        if entry is not None:
            self._leave_entry(port, entry, request.entry_channel, token, end_ps)
        port.last_service = self.n_grants
        self.n_grants += 1

    def _give_back(self, channel: VirtualChannel, reuse_ps: int) -> None:
        channel.owner, channel.reuse_ps, channel.freed_by = None, reuse_ps, self.n_grants
        self.wake_at(reuse_ps)

    def _leave_entry(self, port: RouterPort, entry: LinkState, number: int, token: int, end_ps: int) -> None:
        """The buffer has given a flit; its slot comes free when all branches have taken it."""
        flit = (self.env.now_ps, number, token)
        if entry.flit != flit:
            entry.before = (entry.read_free_ps, entry.read_by)
        entry.flit, entry.read_free_ps, entry.read_by = flit, end_ps, self.n_grants
        if any(branch.next <= token for branch in port.branches):
            return
        channel = entry.channels[number]
        if entry.link.depth != UNBOUNDED and entry.sender is not None:
            credit_ps = self.env.now_ps + entry.link.credit_ps
            channel.slots.append(credit_ps)
            entry.sender.wake_at(credit_ps)
        if port.is_tail(token):
            channel.packets.popleft()
            channel.next_ps, channel.left_by = end_ps + entry.link.next_ps, self.n_grants
            self.wake_at(channel.next_ps)

    def _log_start(self, port: RouterPort, request: Request) -> None:
        now, link, entry = self.env.now_ps, port.exit, port.entry
        if request.data_ps == now or (request.data_ps < 0 and not self.n_grants):
            port.log_start(DATA)
            return
        if request.credit_ps == now:
            port.log_start(CREDIT)
            return
        holders = [(link.free_ps, link.sent_by)]
        if entry is not None:
            is_copy = entry.flit == (now, request.entry_channel, port.next)
            holders.append(entry.before if is_copy else (entry.read_free_ps, entry.read_by))
        if port.is_head(port.next):
            holders += [(channel.reuse_ps, channel.freed_by) for channel in link.channels]
            if entry is not None:
                channel = entry.channels[request.entry_channel]
                holders.append((channel.next_ps, channel.left_by))
        last = max((by for time_ps, by in holders if time_ps == now), default=NO_PREDECESSOR)
        if last == NO_PREDECESSOR:
            raise SimulationError(f"{self.name}: a grant at {now} ps without a cause")
        if last == port.last_service:
            port.log_start(SERVER)
        else:
            port.log_start(ARBITER, last)

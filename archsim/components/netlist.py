"""The netlist: what is connected to what, as plain data that any execution can run.

Tokens are implicit: every lane serves its tokens in order, 0, 1, 2, ..., and arrays hold what each
one costs. A server owns lanes. A `private` server has one lane and blocks after service when its
output is full; a `shared` server grants one of its lanes at a time (oldest arrival, then lowest
lane), and only once the lane's destination slots are reserved, because a shared part that blocks
while it is held deadlocks at a join. A `router` sends over several links at a time, through the
virtual channels of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from archsim.errors import SimulationError
from archsim.eventlog import Movement

UNBOUNDED = 0
"""Capacity of a channel that never blocks."""


@dataclass(frozen=True)
class Action:
    """One row of the event log per token: what a component does during a service.

    Arrays have one entry per token of the lane (broadcast views where constant); `energy_pj` is
    count, bits or rows times the entry of the cost library.
    """

    component: str
    name: str
    duration_ps: np.ndarray
    count: np.ndarray
    bits: np.ndarray
    energy_pj: np.ndarray
    movement: Movement | None = None
    moves: np.ndarray | None = None
    """For which tokens the movement counts; None means all."""

    def renamed(self, name: str, energy_factor: float) -> Action:
        """The same action under another name, its energy times a factor."""
        return replace(self, name=name, energy_pj=self.energy_pj * energy_factor)

    def at(self, component: str, movement: Movement | None = None) -> Action:
        """The same action of another component, its arrays shared; with another movement if one is given."""
        arrays = (self.duration_ps, self.count, self.bits, self.energy_pj)
        return Action(component, self.name, *arrays, movement or self.movement, self.moves)

    def only(self, tokens: np.ndarray) -> Action:
        """The same action at some tokens (bool, one per token); at the others nothing is done."""
        names = ("duration_ps", "count", "bits", "energy_pj")
        return replace(self, **{name: getattr(self, name) * tokens for name in names})

    def without_duration(self) -> Action:
        """The same action, taking no time."""
        return replace(self, duration_ps=constant(0, len(self.duration_ps)))


@dataclass(frozen=True)
class Target:
    """Where a wire ends: a channel, or source `source` of a line buffer."""

    kind: Literal["channel", "buffer"]
    index: int
    source: int = 0


@dataclass(frozen=True)
class Wire:
    """A link without contention: what enters leaves `delay_ps` later, at `target`; one delay, or one per token sent."""

    target: Target
    delay_ps: int | np.ndarray


@dataclass(frozen=True)
class Link:
    """Wires from one router to the next (or into the network, or out of it), with a buffer at their far end.

    The buffer is divided into virtual channels, each a queue of packets of which the first may move on.
    A packet is granted a virtual channel with its head and gives it back after its tail, so flits of
    several packets take turns on the link but never mix in a virtual channel.
    """

    name: str
    virtual_channels: int
    depth: int
    """Tokens that the buffer of a virtual channel holds; UNBOUNDED never blocks."""
    packets: int
    """Packets that may be under way at a time: 1 where the sender has one packet at hand, else `virtual_channels`."""
    reuse_ps: int
    """From the end of a tail's service until its virtual channel may be granted again."""
    next_ps: int
    """From the end of a tail's service at the far end until the packet behind it may move on."""
    credit_ps: int
    """From the grant of a token at the far end until the sender may use its slot."""


@dataclass(frozen=True)
class Passage:
    """How a lane goes through a router: the links (indices) it comes by and leaves by, and its packets."""

    entry: int | None
    """None: packets begin here, one token taken from the inputs for each."""
    exit: int
    tails: np.ndarray | None = None
    """Which tokens end a packet; None: every token is one."""

    def heads(self, n_tokens: int) -> np.ndarray:
        """Which tokens begin a packet."""
        if self.tails is None:
            return np.ones(n_tokens, bool)
        return np.concatenate([[True], self.tails[:-1]])[:n_tokens]


@dataclass
class Lane:
    """One ordered stream of tokens through a server.

    Input is a join of `inputs` (channels, token n of each), or the `reader` (line buffer, reader
    index), or nothing (a source). Output is a channel entered at the end of the service, or `wires`
    entered at its start (a cut-through header runs ahead of its tail), or both; `reserves` lists what must
    have a free slot before a grant.
    """

    name: str
    layer: str
    n_tokens: int
    positions: int
    """Tokens per frame: output positions of a layer at one timestep."""
    steps: tuple[int, int]
    """First timestep and number of timesteps of which a sample sends frames."""
    actions: tuple[Action, ...]
    inputs: tuple[int, ...] = ()
    reader: tuple[int, int] | None = None
    release_after: int = 0
    """Actions after which a reader gives its line-buffer positions free; all of them on a shared server."""
    output: int | None = None
    wires: tuple[Wire, ...] = ()
    reserves: tuple[Target, ...] = ()
    emit: np.ndarray | None = None
    """Which tokens produce an output (pooling emits one per window); None means all."""
    labels: np.ndarray | None = None
    """Number of every token among all positions of all frames, where the lane serves only some of them."""
    sent_positions: np.ndarray | None = None
    """Line-buffer position of every token sent, where silent positions or those of other copies are left out."""
    passage: Passage | None = None
    """Through which ports of a router the lane goes."""

    @property
    def service_ps(self) -> np.ndarray:
        """Total service time of every token, int64."""
        return _sum_durations(self.actions, self.n_tokens)

    @property
    def fetch_ps(self) -> np.ndarray:
        """Part of the service after which line-buffer positions are released, int64."""
        return _sum_durations(self.actions[: self.release_after], self.n_tokens)

    @property
    def n_emitted(self) -> int:
        """Tokens that leave the lane."""
        return self.n_tokens if self.emit is None else int(np.count_nonzero(self.emit))

    @property
    def takes(self) -> np.ndarray | None:
        """Which tokens take something out of the inputs; None means all. Where packets begin, their heads do."""
        if self.passage is None or self.passage.entry is not None or self.passage.tails is None:
            return None
        return self.passage.heads(self.n_tokens)


Policy = Literal["private", "shared", "router"]


@dataclass
class Server:
    """A physical part that serves one token at a time, or a router, of which every link does."""

    name: str
    policy: Policy
    lanes: list[Lane] = field(default_factory=list)


@dataclass(frozen=True)
class Channel:
    """Bounded latch; capacity UNBOUNDED never blocks."""

    name: str
    capacity: int


@dataclass(frozen=True)
class LineBuffer:
    """Input buffer of a tile: positions of the input frames, held until every reader has passed.

    Position m is complete once all sources covered it: after k deliveries a source has covered the
    positions below covers[k] (k where None: it delivers every position). Token g of a reader needs position
    need[g] (non-decreasing; negative: none); position m is free again when all readers fetched token last_use[m].
    A source may send position m while m < released + capacity.
    """

    name: str
    layer: str
    capacity: int
    n_sources: int
    n_readers: int
    need: np.ndarray
    last_use: np.ndarray
    covers: tuple[np.ndarray | None, ...] = ()

    def covered(self, source: int) -> np.ndarray:
        """Positions below which a source has delivered everything, after 0, 1, 2, ... deliveries."""
        stated = self.covers[source] if self.covers else None
        return np.arange(len(self.last_use) + 1) if stated is None else stated

    def n_deliveries(self, source: int) -> int:
        """Deliveries after which a source has covered every position."""
        stated = self.covers[source] if self.covers else None
        return len(self.last_use if stated is None else stated[1:])


@dataclass(frozen=True)
class ComponentInfo:
    """A physical part as the tables list it."""

    path: str
    kind: str
    area_um2: float
    leakage_mw: float


@dataclass
class Netlist:
    """Servers, channels, links and line buffers of one run, plus the parts list."""

    servers: list[Server] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    buffers: list[LineBuffer] = field(default_factory=list)
    components: list[ComponentInfo] = field(default_factory=list)
    input_lanes: list[Lane] = field(default_factory=list)
    """Lanes by which samples, or weights for them, come in: a sample's latency begins with their first service."""
    output_lanes: list[Lane] = field(default_factory=list)
    """Lanes by which results go out: a sample's latency ends with their last leave."""
    exits: np.ndarray | None = None
    """Timesteps after which each sample is decided: its latency ends with the last of these; None: after all."""

    def channel(self, name: str, capacity: int) -> int:
        """Add a channel; returns its index."""
        self.channels.append(Channel(name, capacity))
        return len(self.channels) - 1

    def link(self, link: Link) -> int:
        """Add a link between routers; returns its index."""
        self.links.append(link)
        return len(self.links) - 1

    def server(self, name: str, policy: Policy, *lanes: Lane) -> Server:
        """Add a server; shared ones and routers may get further lanes later."""
        self.servers.append(Server(name, policy, list(lanes)))
        return self.servers[-1]

    def parts(self) -> list[Server]:
        """What serves one token at a time: servers of one name as one, as a physical part may serve in different roles,
        and a router link by link."""
        merged: dict[str, Server] = {}
        for server in self.servers:
            for lane in server.lanes:
                name = self.links[lane.passage.exit].name if lane.passage else server.name
                merged.setdefault(name, Server(name, server.policy)).lanes.append(lane)
        return list(merged.values())

    def lanes(self) -> list[Lane]:
        """All lanes, in the fixed order that trace arrays follow."""
        return [lane for server in self.servers for lane in server.lanes]


def require_executable(netlist: Netlist) -> None:
    """Refuse what no execution can run, instead of leaving it out.

    Raises:
        SimulationError: A server has what its policy does not know, a channel two feeders or two takers, or a
            list another length than the tokens that it describes.
    """
    taken: dict[int, Lane] = {}
    fed: dict[Target, Lane] = {}
    for server in netlist.servers:
        if server.policy == "private" and len(server.lanes) != 1:
            raise SimulationError(f"{server.name}: a private server has {len(server.lanes)} lanes; it must have one")
        for lane in server.lanes:
            if server.policy == "shared" and lane.reader and lane.release_after < len(lane.actions):
                raise SimulationError(
                    f"{lane.name}: a shared server gives positions of a line buffer free when its service ends; "
                    f"release_after is {lane.release_after} of {len(lane.actions)} actions; use a private server"
                )
            if server.policy == "router" and lane.reader:
                raise SimulationError(f"{lane.name}: a router cannot read a line buffer; use a private server")
            if (server.policy == "router") != (lane.passage is not None) or (lane.passage and lane.output is not None):
                raise SimulationError(
                    f"{lane.name}: lanes of routers, and only those, have a passage, and wires instead of an output"
                )
            if server.policy == "private" and (lane.wires or lane.reserves):
                raise SimulationError(
                    f"{lane.name}: a private server has one channel behind it and no wires; use a shared one"
                )
            for channel in lane.inputs:
                _require_alone(netlist.channels[channel].name, "taken from", lane, taken.setdefault(channel, lane))
            for target in _targets(lane):
                name = (netlist.channels if target.kind == "channel" else netlist.buffers)[target.index].name
                _require_alone(name, "fed", lane, fed.setdefault(target, lane))
            _require_lengths(netlist, lane)
    for server in netlist.servers:
        for lane in server.lanes:
            if lane.passage is not None:
                _require_passage(netlist, server, lane, fed)


def _require_passage(netlist: Netlist, server: Server, lane: Lane, fed: dict[Target, Lane]) -> None:
    """Packets reach a lane through one channel, from a lane that leaves by the link they come by."""
    passage = lane.passage
    assert passage is not None, "the caller looked"
    if passage.entry is not None:
        before = fed.get(Target("channel", lane.inputs[0])) if len(lane.inputs) == 1 else None
        if before is None or before.passage is None or before.passage.exit != passage.entry:
            name = netlist.links[passage.entry].name
            raise SimulationError(f"{lane.name}: comes by link {name} but is not fed by one lane that leaves by it")
        if not np.array_equal(before.passage.heads(before.n_tokens), passage.heads(lane.n_tokens)):
            raise SimulationError(f"{lane.name}: its packets have other lengths than those of {before.name}")
    if passage.tails is not None and lane.n_tokens and not passage.tails[-1]:
        raise SimulationError(f"{lane.name}: the last packet has no tail")


def _require_alone(name: str, what: str, lane: Lane, first: Lane) -> None:
    if first is not lane:
        raise SimulationError(f"{name}: is {what} by two lanes, {first.name} and {lane.name}; it must be one")


def _targets(lane: Lane) -> list[Target]:
    output = [] if lane.output is None else [Target("channel", lane.output)]
    return output + [wire.target for wire in lane.wires]


def _require_lengths(netlist: Netlist, lane: Lane) -> None:
    n_sent = lane.n_emitted
    n_placed = n_sent if lane.takes is None else int(np.count_nonzero(lane.takes))
    described = [("emit", lane.emit, lane.n_tokens), ("sent_positions", lane.sent_positions, n_placed)]
    described += [("delay_ps", wire.delay_ps, n_sent) for wire in lane.wires if isinstance(wire.delay_ps, np.ndarray)]
    if lane.passage:
        described.append(("tails", lane.passage.tails, lane.n_tokens))
    described += [("duration_ps", action.duration_ps, lane.n_tokens) for action in lane.actions]
    if lane.reader:
        described.append(("need", netlist.buffers[lane.reader[0]].need, lane.n_tokens))
    for name, values, n in described:
        if values is not None and len(values) != n:
            raise SimulationError(f"{lane.name}: {name} has {len(values)} entries; the lane needs {n}")
    for target in _targets(lane):
        if target.kind == "buffer":
            buffer = netlist.buffers[target.index]
            n_expected = buffer.n_deliveries(target.source)
            if n_sent != n_expected:
                raise SimulationError(f"{lane.name}: sends {n_sent} positions; {buffer.name} expects {n_expected}")


@lru_cache(maxsize=1 << 14)
def constant(value: float, n_tokens: int, dtype: type = np.int64) -> np.ndarray:
    """The same value for every token, without the memory; cannot be written to."""
    return np.broadcast_to(np.asarray(value, dtype), (n_tokens,))


def _sum_durations(actions: tuple[Action, ...], n_tokens: int) -> np.ndarray:
    total = np.zeros(n_tokens, np.int64)
    for action in actions:
        total += action.duration_ps
    return total

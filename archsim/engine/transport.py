"""Carries streams of tokens over the NoC: from a latch at one node to buffers and latches at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from archsim.components import noc
from archsim.components.netlist import UNBOUNDED, Action, Lane, Netlist, Passage, Server, Target, Wire
from archsim.errors import MappingError
from archsim.eventlog import DataClass
from archsim.hardware.models import Hardware


@dataclass(frozen=True)
class Stream:
    """Tokens that travel together: who sends them, how many per frame, how wide."""

    name: str
    layer: str
    positions: int
    steps: tuple[int, int]
    n_tokens: int
    bits: int | np.ndarray
    data_class: DataClass
    source: str
    destination: str
    labels: np.ndarray | None = None
    """Positions (over all frames) that are sent, where silent ones are not."""

    def lane(
        self,
        actions: tuple[Action, ...],
        inputs: tuple[int, ...] = (),
        output: int | None = None,
        wires: tuple[Wire, ...] = (),
        reserves: tuple[Target, ...] = (),
    ) -> Lane:
        """A lane that serves every token of the stream."""
        return Lane(
            self.name,
            self.layer,
            self.n_tokens,
            self.positions,
            self.steps,
            actions,
            inputs,
            output=output,
            wires=wires,
            reserves=reserves,
            labels=self.labels,
            sent_positions=self.labels,
        )


@dataclass(frozen=True)
class Arrival:
    """One destination of a stream: its mesh node, where it ends, what storing it costs."""

    node: int
    target: Target
    stores: tuple[Action, ...] = ()


class Transport:
    """The NoC of a netlist under construction: servers of ports, links and routers, made when first used."""

    def __init__(self, hardware: Hardware, width: int, height: int, netlist: Netlist) -> None:
        self.hardware = hardware
        self.topology = noc.Topology(hardware.chip.noc.topology, width, height)
        self.netlist = netlist
        self._servers: dict[str, Server] = {}
        self._links: dict[str, int] = {}

    def send(self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival]) -> None:
        """Connect a stream's latch with its destinations, whose slots are reserved before injection.

        Raises:
            MappingError: A multicast packet does not fit a virtual channel.
        """
        spec = self.hardware.chip.noc
        tree = noc.multicast_tree(self.topology, origin, [arrival.node for arrival in arrivals])
        if spec.detail == "ideal":
            self._send_ideal(stream, outbox, origin, arrivals, tree)
        elif spec.topology == "bus":
            self._send_over_bus(stream, outbox, arrivals)
        elif spec.detail == "packet" and spec.virtual_channels > 1:
            self._send_packets(stream, outbox, origin, arrivals, tree)
        else:
            self._send_through_routers(stream, outbox, origin, arrivals, tree)

    def _send_ideal(
        self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival], tree: noc.Tree
    ) -> None:
        hardware = self.hardware
        transfer = noc.transfer_action(hardware, self._inject_name(origin), len(tree.links), *_what(stream))
        transfer = transfer.without_duration()
        wires = tuple(
            Wire(
                arrival.target,
                noc.zero_load_ps(hardware, len(self.topology.route(origin, arrival.node)), stream.bits),
            )
            for arrival in arrivals
        )
        if isinstance(stream.bits, np.ndarray):
            # a short packet must not overtake a long one of its own stream
            ahead = np.max([-np.diff(wire.delay_ps, append=np.ravel(wire.delay_ps)[-1:]) for wire in wires], axis=0)
            transfer = replace(transfer, duration_ps=np.maximum(ahead, 0))
        lane = stream.lane((transfer, *_stores(arrivals)), (outbox,), wires=wires, reserves=_targets(arrivals))
        self.netlist.server(f"noc.{stream.name}", "shared", lane)

    def _send_over_bus(self, stream: Stream, outbox: int, arrivals: Sequence[Arrival]) -> None:
        transfer = noc.transfer_action(self.hardware, "noc.bus", 1, *_what(stream))
        delay_ps = noc.zero_load_ps(self.hardware, 1, stream.bits)
        wires = tuple(Wire(arrival.target, delay_ps) for arrival in arrivals)
        lane = stream.lane((transfer, *_stores(arrivals)), (outbox,), wires=wires, reserves=_targets(arrivals))
        self._server("noc.bus", "shared").lanes.append(lane)

    def _send_packets(
        self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival], tree: noc.Tree
    ) -> None:
        hardware = self.hardware
        inboxes = self._inboxes(stream, tree)
        inject = stream.lane(
            (noc.inject_action(hardware, self._inject_name(origin), *_what(stream)),),
            inputs=(outbox,),
            wires=_wires(tree, inboxes, -1, noc.injection_delay_ps(hardware)),
            reserves=_targets(arrivals),
        )
        self._server(self._inject_name(origin), "shared").lanes.append(inject)
        hop, hop_ps = noc.hop_action(hardware, tree.links[0], *_what(stream)), noc.hop_delay_ps(hardware)
        ejection_ps = noc.ejection_delay_ps(hardware, stream.bits)
        ends = _ends(tree, arrivals)
        for index, (router, port) in enumerate(tree.links):
            name, here = f"noc.router{router}.{port}", ends.get(index, [])
            wires = tuple(Wire(arrival.target, ejection_ps) for arrival in here)
            lane = stream.lane(
                (hop.at(name), *_stores(here)),
                inputs=(inboxes[index],),
                wires=wires or _wires(tree, inboxes, index, hop_ps),
            )
            self._server(name, "shared").lanes.append(lane)

    def _send_through_routers(
        self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival], tree: noc.Tree
    ) -> None:
        """Packets with `packet`, else their flits, through virtual channels."""
        hardware = self.hardware
        flits = self._flits(stream, arrivals)
        tails = None if flits is None else flits.tails
        inboxes = self._inboxes(stream, tree)
        delays = (noc.injection_delay_ps(hardware), noc.hop_delay_ps(hardware))
        injection_ps, hop_ps = delays if flits is None else (flits.delays_ps(hardware, delay_ps) for delay_ps in delays)
        inject = noc.inject_action(hardware, self._inject_name(origin), *_what(stream))
        port = self._link(self._inject_name(origin), "injection")
        lane = stream.lane(
            (inject if flits is None else flits.on_link(inject),),
            inputs=(outbox,),
            wires=_wires(tree, inboxes, -1, injection_ps),
            reserves=_targets(arrivals),
        )
        self._enter(self._inject_name(origin), lane, Passage(None, port, tails), flits)
        hop = noc.hop_action(hardware, tree.links[0], *_what(stream))
        ejection_ps = noc.ejection_delay_ps(hardware, stream.bits if flits is None else 1)
        ends = _ends(tree, arrivals)
        links: list[int] = []
        if flits is not None:
            hop = flits.on_link(hop)
        for index, (router, out) in enumerate(tree.links):
            name, here = f"noc.router{router}.{out}", ends.get(index, [])
            links.append(self._link(name, "ejection" if here else "between"))
            entry = port if tree.parents[index] < 0 else links[tree.parents[index]]
            stores = _stores(here) if flits is None else tuple(flits.at(flits.tails, each) for each in _stores(here))
            wires = tuple(Wire(arrival.target, ejection_ps) for arrival in here)
            lane = stream.lane(
                (hop.at(name), *stores), inputs=(inboxes[index],), wires=wires or _wires(tree, inboxes, index, hop_ps)
            )
            lane.sent_positions = None
            lane.emit = tails if here else None
            self._enter(f"noc.router{router}", lane, Passage(entry, links[-1], tails), flits)

    def _enter(self, router: str, lane: Lane, passage: Passage, flits: noc.Flits | None) -> None:
        """Give a router a lane, whose tokens are flits if packets are cut."""
        lane.passage = passage
        if flits is not None:
            packets = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
            lane.labels = np.repeat(packets, flits.sizes)
            lane.n_tokens = flits.n_tokens
        self._server(router, "router").lanes.append(lane)

    def _flits(self, stream: Stream, arrivals: Sequence[Arrival]) -> noc.Flits | None:
        """How packets are cut; None where tokens are whole packets."""
        spec = self.hardware.chip.noc
        if spec.detail == "packet":
            return None
        sizes = np.broadcast_to(noc.n_flits(self.hardware, stream.bits), (stream.n_tokens,))
        longest = int(sizes.max(initial=0))
        if len(arrivals) > 1 and longest > spec.vc_depth_flits:
            raise MappingError(
                f"packets of '{stream.name}' have up to {longest} flits of {spec.flit_bits} bits and go to "
                f"{len(arrivals)} places; chip.noc.vc_depth_flits {spec.vc_depth_flits} must hold one, or its branches "
                f"could block each other. Raise it to {longest}, raise chip.noc.flit_bits, or set "
                "chip.noc.detail: packet."
            )
        return noc.Flits(sizes, noc.flit_ps(self.hardware))

    def _inboxes(self, stream: Stream, tree: noc.Tree) -> list[int]:
        return [self.netlist.channel(f"noc.router{at}.{port}.{stream.name}", UNBOUNDED) for at, port in tree.links]

    def _inject_name(self, node: int) -> str:
        if self.topology.kind == "bus":
            return "noc.bus"
        return f"noc.router{node}.inject" if self.topology.kind == "mesh" else f"noc.node{node}.inject"

    def _link(self, name: str, end: Literal["between", "injection", "ejection"]) -> int:
        if name not in self._links:
            self._links[name] = self.netlist.link(noc.network_link(self.hardware, name, end))
        return self._links[name]

    def _server(self, name: str, policy: Literal["shared", "router"]) -> Server:
        if name not in self._servers:
            self._servers[name] = self.netlist.server(name, policy)
        return self._servers[name]


def _what(stream: Stream) -> tuple[int, int | np.ndarray, str, str, DataClass]:
    return stream.n_tokens, stream.bits, stream.source, stream.destination, stream.data_class


def _wires(tree: noc.Tree, inboxes: list[int], parent: int, delay_ps: int | np.ndarray) -> tuple[Wire, ...]:
    """What goes on after link `parent` of a tree (-1: after injection)."""
    return tuple(Wire(Target("channel", inboxes[child]), delay_ps) for child in tree.children(parent))


def _ends(tree: noc.Tree, arrivals: Sequence[Arrival]) -> dict[int, list[Arrival]]:
    """What arrives behind which link of a tree."""
    found: dict[int, list[Arrival]] = {}
    for arrival, end in zip(arrivals, tree.ends, strict=True):
        found.setdefault(end, []).append(arrival)
    return found


def _stores(arrivals: Sequence[Arrival]) -> tuple[Action, ...]:
    return tuple(action for arrival in arrivals for action in arrival.stores)


def _targets(arrivals: Sequence[Arrival]) -> tuple[Target, ...]:
    return tuple(arrival.target for arrival in arrivals)

"""Carries streams of tokens over the NoC: from a latch at one node to buffers and latches at others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from archsim.components import noc
from archsim.components.netlist import UNBOUNDED, Action, Lane, Netlist, Server, Target, Wire
from archsim.eventlog import DataClass
from archsim.mapping import Mapping


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
    """The NoC of a netlist under construction: servers of ports and links, made when first used."""

    def __init__(self, mapping: Mapping, netlist: Netlist) -> None:
        self.hardware = mapping.hardware
        self.mesh_width = mapping.mesh_width
        self.netlist = netlist
        self._servers: dict[str, Server] = {}

    def send(self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival]) -> None:
        """Connect a stream's latch with its destinations, whose slots are reserved before injection."""
        if self.hardware.chip.noc.detail == "ideal":
            self._send_ideal(stream, outbox, origin, arrivals)
        else:
            self._send_packets(stream, outbox, origin, arrivals)

    def _send_ideal(self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival]) -> None:
        hardware = self.hardware
        tree = noc.multicast_tree(origin, [arrival.node for arrival in arrivals], self.mesh_width)
        what = (stream.n_tokens, stream.bits, stream.source, stream.destination, stream.data_class)
        transfer = noc.ideal_action(hardware, origin, len(tree.links), *what)
        wires = tuple(
            Wire(arrival.target, noc.zero_load_ps(hardware, self._n_routers(origin, arrival.node), stream.bits))
            for arrival in arrivals
        )
        if isinstance(stream.bits, np.ndarray):
            # a short packet must not overtake a long one of its own stream
            ahead = np.max([-np.diff(wire.delay_ps, append=np.ravel(wire.delay_ps)[-1:]) for wire in wires], axis=0)
            transfer = replace(transfer, duration_ps=np.maximum(ahead, 0))
        stores = tuple(action for arrival in arrivals for action in arrival.stores)
        lane = stream.lane((transfer, *stores), inputs=(outbox,), wires=wires, reserves=_targets(arrivals))
        self.netlist.server(f"noc.{stream.name}", "shared", lane)

    def _send_packets(self, stream: Stream, outbox: int, origin: int, arrivals: Sequence[Arrival]) -> None:
        hardware = self.hardware
        tree = noc.multicast_tree(origin, [arrival.node for arrival in arrivals], self.mesh_width)
        inboxes = [self.netlist.channel(f"noc.router{at}.{port}.{stream.name}", UNBOUNDED) for at, port in tree.links]

        def wires_to(parent: int, delay_ps: int) -> tuple[Wire, ...]:
            return tuple(Wire(Target("channel", inboxes[child]), delay_ps) for child in tree.children(parent))

        what = (stream.n_tokens, stream.bits, stream.source, stream.destination, stream.data_class)
        inject = stream.lane(
            (noc.inject_action(hardware, origin, *what),),
            inputs=(outbox,),
            wires=wires_to(-1, noc.injection_delay_ps(hardware)),
            reserves=_targets(arrivals),
        )
        self._server(f"noc.router{origin}.inject").lanes.append(inject)
        hop, hop_ps = noc.hop_action(hardware, tree.links[0], *what), noc.hop_delay_ps(hardware)
        ejection_ps = noc.ejection_delay_ps(hardware, stream.bits)
        ends: dict[int, list[Arrival]] = {}
        for arrival in arrivals:
            ends.setdefault(arrival.node, []).append(arrival)
        for index, (node, port) in enumerate(tree.links):
            name = f"noc.router{node}.{port}"
            here = ends[node] if port == noc.EJECT else []
            stores = [action for arrival in here for action in arrival.stores]
            wires = tuple(Wire(arrival.target, ejection_ps) for arrival in here) or wires_to(index, hop_ps)
            lane = stream.lane((hop.at(name), *stores), inputs=(inboxes[index],), wires=wires)
            self._server(name).lanes.append(lane)

    def _n_routers(self, origin: int, destination: int) -> int:
        return len(noc.xy_route(origin, destination, self.mesh_width))

    def _server(self, name: str) -> Server:
        if name not in self._servers:
            self._servers[name] = self.netlist.server(name, "shared")
        return self._servers[name]


def _targets(arrivals: Sequence[Arrival]) -> tuple[Target, ...]:
    return tuple(arrival.target for arrival in arrivals)

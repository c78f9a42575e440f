"""Network on chip: routes and multicast trees over a mesh, a tree or a bus, and what a packet does on them.

A packet is cut through: its header is granted an output, arrives at the next router
`router_cycles` later, and the link stays busy for as many cycles as the packet has flits. It enters
through the injection port of its node and leaves through the ejection port; zero load takes
router_cycles * routers + 2 + (flits - 1) cycles, as in BookSim2 with its default router pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from archsim.components.netlist import UNBOUNDED, Action, Link, constant
from archsim.components.pricing import cycles_ps, priced_action
from archsim.errors import MappingError
from archsim.eventlog import DataClass, Movement
from archsim.hardware.models import Hardware
from archsim.units import cycles_to_ps

EJECT = "eject"
RouterLink = tuple[int, str]
"""Output port of a router. On a mesh: (node, `east` | `west` | `south` | `north` | `eject`); on a tree: (router, `up`
| `down` and a quadrant | `eject` and the quadrant of a node); on a bus: the bus."""


@dataclass(frozen=True)
class Topology:
    """How the nodes, numbered row by row over a grid, are connected."""

    kind: Literal["mesh", "tree", "bus"]
    width: int
    height: int

    def route(self, source: int, destination: int) -> list[RouterLink]:
        """Links from a node's first router to another node's ejection port.

        Raises:
            MappingError: A node lies beside the network.
        """
        for node in (source, destination):
            if not 0 <= node < self.width * self.height:
                raise MappingError(
                    f"node {node} is not on the {self.kind} of {self.width} x {self.height} nodes, which are 0 to "
                    f"{self.width * self.height - 1}; raise chip.mesh_width or chip.mesh_height"
                )
        if self.kind == "mesh":
            return xy_route(source, destination, self.width)
        if self.kind == "tree":
            return tree_route(source, destination, self.width, self.height)
        return [(0, "bus")]

    @property
    def n_routers(self) -> int:
        """Routers of the network; a bus has one arbiter, priced as a router."""
        if self.kind == "mesh":
            return self.width * self.height
        return sum(width * height for width, height in _levels(self.width, self.height)) if self.kind == "tree" else 1


@dataclass(frozen=True)
class Tree:
    """Multicast tree: routes from one source share their common beginning."""

    links: tuple[RouterLink, ...]
    """Parents before children."""
    parents: tuple[int, ...]
    """Index of the link before; -1 for those of the source's first router."""
    ends: tuple[int, ...]
    """Index of the last link to each destination, in the order given."""

    def children(self, index: int) -> list[int]:
        """Links that a packet takes after link `index` (-1: after injection)."""
        return self._children.get(index, [])

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for child, parent in enumerate(self.parents):
            found.setdefault(parent, []).append(child)
        return found


def xy_route(source: int, destination: int, width: int) -> list[RouterLink]:
    """Links from the source's router to the destination's ejection port, x first."""
    y, x = divmod(source, width)
    to_y, to_x = divmod(destination, width)
    links: list[RouterLink] = []
    while x != to_x:
        step = 1 if to_x > x else -1
        links.append((y * width + x, "east" if step > 0 else "west"))
        x += step
    while y != to_y:
        step = 1 if to_y > y else -1
        links.append((y * width + x, "south" if step > 0 else "north"))
        y += step
    return [*links, (destination, EJECT)]


def tree_route(source: int, destination: int, width: int, height: int) -> list[RouterLink]:
    """Links up to the smallest square that holds both nodes, and down: an H-tree with a router in every H.

    Squares of 2 x 2 nodes share a router, four such squares the next one, and so on; routers are numbered level by
    level, row by row.
    """
    (y, x), (to_y, to_x) = divmod(source, width), divmod(destination, width)
    first, levels = 0, _levels(width, height)
    up: list[RouterLink] = []
    down: list[RouterLink] = []
    for level, (n_across, _) in enumerate(levels):
        quadrant = (to_y & 1) * 2 + (to_x & 1)
        x, y, to_x, to_y = x >> 1, y >> 1, to_x >> 1, to_y >> 1
        port = "down" if level else EJECT
        down.append((first + to_y * n_across + to_x, f"{port}{quadrant}"))
        if (x, y) == (to_x, to_y):
            break
        up.append((first + y * n_across + x, "up"))
        first += n_across * levels[level][1]
    return [*up, *reversed(down)]


def _levels(width: int, height: int) -> list[tuple[int, int]]:
    """Routers of a tree across and down, level by level, up to the single one at its root."""
    levels: list[tuple[int, int]] = []
    while not levels or (width, height) != (1, 1):
        width, height = -(-width // 2), -(-height // 2)
        levels.append((width, height))
    return levels


def multicast_tree(topology: Topology, source: int, destinations: Sequence[int]) -> Tree:
    """Union of the routes from one node to several."""
    numbers: dict[RouterLink, int] = {}
    parents: list[int] = []
    ends: dict[int, int] = {}
    for destination in sorted(set(destinations)):
        parent = -1
        for link in topology.route(source, destination):
            if link not in numbers:
                numbers[link] = len(numbers)
                parents.append(parent)
            parent = numbers[link]
        ends[destination] = parent
    return Tree(tuple(numbers), tuple(parents), tuple(ends[destination] for destination in destinations))


Bits = int | np.ndarray
"""Size of the packets of a stream: one for all, or one per token sent."""


def n_flits(hardware: Hardware, bits: Bits) -> np.ndarray:
    """Flits of a packet; the header travels on sideband wires (assumption)."""
    return np.maximum(1, -(-np.asarray(bits) // hardware.chip.noc.flit_bits))


def flit_ps(hardware: Hardware) -> int:
    """How long a flit holds a link: a NoC cycle."""
    return cycles_to_ps(1, hardware.noc_clock_mhz)


def injection_delay_ps(hardware: Hardware) -> int:
    """From the grant of the injection port to the arrival at the node's own router."""
    return cycles_to_ps(1, hardware.noc_clock_mhz)


def hop_delay_ps(hardware: Hardware) -> int:
    """From the grant of a link to the header's arrival at the next router."""
    return cycles_to_ps(hardware.chip.noc.router_cycles, hardware.noc_clock_mhz)


def ejection_delay_ps(hardware: Hardware, bits: Bits) -> Bits:
    """From the grant of the ejection port to the tail's arrival in the tile."""
    return _delay_ps(hardware, hardware.chip.noc.router_cycles + n_flits(hardware, bits))


def zero_load_ps(hardware: Hardware, n_routers: int, bits: Bits) -> Bits:
    """Latency of a packet that meets nobody: router_cycles * routers + 2 + (flits - 1) cycles."""
    return _delay_ps(hardware, hardware.chip.noc.router_cycles * n_routers + 1 + n_flits(hardware, bits))


def _delay_ps(hardware: Hardware, cycles: np.ndarray) -> Bits:
    delays = cycles_ps(cycles, hardware.noc_clock_mhz)
    return int(delays) if delays.ndim == 0 else delays


def network_link(hardware: Hardware, name: str, end: Literal["between", "injection", "ejection"]) -> Link:
    """A link with virtual channels, timed as in BookSim2 with its default settings.

    A virtual channel is allocated in a cycle of its own, so a packet that waits for it, or behind another one in
    it, follows a cycle after the tail. A flit that is granted in cycle c frees its slot for a grant in cycle c + 3:
    it leaves the buffer, the credit crosses the wire, and takes `credit_delay: 1`. An injection port has one packet
    at hand and allocates as it sends; the tile takes what an ejection port gives, whose slot has been reserved.
    """
    noc = hardware.chip.noc
    one_cycle_ps = flit_ps(hardware)
    is_endless = end == "ejection" or noc.detail == "packet"
    return Link(
        name,
        noc.virtual_channels,
        depth=UNBOUNDED if is_endless else noc.vc_depth_flits,
        packets=1 if end == "injection" else noc.virtual_channels,
        reuse_ps=0 if end == "injection" else one_cycle_ps,
        next_ps=one_cycle_ps,
        credit_ps=cycles_to_ps(3, hardware.noc_clock_mhz),
    )


@dataclass(frozen=True)
class Flits:
    """How the packets of a stream are cut: a token per flit, the packet's price and load at one of them."""

    sizes: np.ndarray
    """Flits of every packet."""
    cycle_ps: int

    @cached_property
    def n_tokens(self) -> int:
        """All flits."""
        return int(self.sizes.sum())

    @cached_property
    def tails(self) -> np.ndarray:
        """Which flits end a packet."""
        tails = np.zeros(self.n_tokens, bool)
        tails[np.cumsum(self.sizes) - 1] = True
        return tails

    @cached_property
    def heads(self) -> np.ndarray:
        """Which flits begin a packet."""
        return np.roll(self.tails, 1)

    def on_link(self, action: Action) -> Action:
        """A packet's action on a link: a cycle per flit, everything else with the head."""
        return replace(self.at(self.heads, action), duration_ps=constant(self.cycle_ps, self.n_tokens))

    def at(self, place: np.ndarray, action: Action) -> Action:
        """A packet's action done by one flit of it, and not by the others."""

        def spread(values: np.ndarray) -> np.ndarray:
            spread = np.zeros(self.n_tokens, values.dtype)
            spread[place] = values
            return spread

        return replace(
            action,
            duration_ps=spread(action.duration_ps),
            count=spread(action.count),
            bits=spread(action.bits),
            energy_pj=spread(action.energy_pj),
            moves=None if action.movement is None else place,
        )

    def delays_ps(self, hardware: Hardware, head_ps: int) -> np.ndarray:
        """From the grant of a flit to its arrival: only a head waits a cycle for its virtual channel."""
        return np.where(self.heads, head_ps, head_ps - flit_ps(hardware))


def inject_action(
    hardware: Hardware, port: str, n_tokens: int, bits: Bits, source: str, destination: str, data_class: DataClass
) -> Action:
    """Send a packet into the network: the port is busy for its flits. Hops carry the energy."""
    return _packet(
        hardware,
        port,
        "inject",
        n_tokens,
        bits,
        energy_hops=0,
        movement=Movement(source, destination, data_class, "noc", packets=1, hops=0),
    )


def hop_action(
    hardware: Hardware,
    link: RouterLink,
    n_tokens: int,
    bits: Bits,
    source: str,
    destination: str,
    data_class: DataClass,
) -> Action:
    """Cross one router and its output link."""
    return _packet(
        hardware,
        f"noc.router{link[0]}.{link[1]}",
        "hop",
        n_tokens,
        bits,
        energy_hops=1,
        movement=Movement(source, destination, data_class, "noc", packets=0, hops=1),
    )


def transfer_action(
    hardware: Hardware,
    port: str,
    n_hops: int,
    n_tokens: int,
    bits: Bits,
    source: str,
    destination: str,
    data_class: DataClass,
) -> Action:
    """Send a packet over all its hops at once."""
    return _packet(
        hardware,
        port,
        "transfer",
        n_tokens,
        bits,
        energy_hops=n_hops,
        movement=Movement(source, destination, data_class, "noc", packets=1, hops=n_hops),
    )


def _packet(
    hardware: Hardware,
    component: str,
    name: str,
    n_tokens: int,
    bits: Bits,
    energy_hops: int,
    movement: Movement,
) -> Action:
    action = priced_action(
        hardware,
        component,
        ("router", "hop"),
        n_tokens,
        duration_ps=cycles_ps(n_flits(hardware, bits), hardware.noc_clock_mhz),
        bits=bits,
        movement=movement,
    )
    return action.renamed(name, energy_hops)

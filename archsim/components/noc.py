"""Network on chip: XY routes and multicast trees over a mesh, and what a packet does on them.

A packet is cut through: its header is granted an output, arrives at the next router
`router_cycles` later, and the link stays busy for as many cycles as the packet has flits. It enters
through the injection port of its node and leaves through the ejection port; zero load takes
router_cycles * routers + 2 + (flits - 1) cycles, as in BookSim2 with its default router pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.eventlog import DataClass, Movement
from archsim.hardware.models import Hardware
from archsim.units import cycles_to_ps

EJECT = "eject"
Link = tuple[int, str]
"""Output port of a router: (node, `east` | `west` | `south` | `north` | `eject`)."""


@dataclass(frozen=True)
class Tree:
    """Multicast tree: XY routes from one source share their common beginning."""

    links: tuple[Link, ...]
    """Parents before children."""
    parents: tuple[int, ...]
    """Index of the link before; -1 for those of the source's router."""

    def children(self, index: int) -> list[int]:
        """Links that a packet takes after link `index` (-1: after injection)."""
        return self._children.get(index, [])

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for child, parent in enumerate(self.parents):
            found.setdefault(parent, []).append(child)
        return found


def xy_route(source: int, destination: int, width: int) -> list[Link]:
    """Links from the source's router to the destination's ejection port, x first."""
    y, x = divmod(source, width)
    to_y, to_x = divmod(destination, width)
    links: list[Link] = []
    while x != to_x:
        step = 1 if to_x > x else -1
        links.append((y * width + x, "east" if step > 0 else "west"))
        x += step
    while y != to_y:
        step = 1 if to_y > y else -1
        links.append((y * width + x, "south" if step > 0 else "north"))
        y += step
    return [*links, (destination, EJECT)]


def multicast_tree(source: int, destinations: list[int], width: int) -> Tree:
    """Union of the XY routes from one node to several."""
    numbers: dict[Link, int] = {}
    parents: list[int] = []
    for destination in sorted(set(destinations)):
        parent = -1
        for link in xy_route(source, destination, width):
            if link not in numbers:
                numbers[link] = len(numbers)
                parents.append(parent)
            parent = numbers[link]
    return Tree(tuple(numbers), tuple(parents))


Bits = int | np.ndarray
"""Size of the packets of a stream: one for all, or one per token sent."""


def n_flits(hardware: Hardware, bits: Bits) -> np.ndarray:
    """Flits of a packet; the header travels on sideband wires (assumption)."""
    return np.maximum(1, -(-np.asarray(bits) // hardware.chip.noc.flit_bits))


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


def inject_action(
    hardware: Hardware, node: int, n_tokens: int, bits: Bits, source: str, destination: str, data_class: DataClass
) -> Action:
    """Send a packet into the network: the port is busy for its flits. Hops carry the energy."""
    return _packet(
        hardware,
        f"noc.router{node}.inject",
        "inject",
        n_tokens,
        bits,
        energy_hops=0,
        movement=Movement(source, destination, data_class, "noc", packets=1, hops=0),
    )


def hop_action(
    hardware: Hardware, link: Link, n_tokens: int, bits: Bits, source: str, destination: str, data_class: DataClass
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


def ideal_action(
    hardware: Hardware,
    node: int,
    n_hops: int,
    n_tokens: int,
    bits: Bits,
    source: str,
    destination: str,
    data_class: DataClass,
) -> Action:
    """Send a packet without contention: no time on the port, energy of all its hops at once."""
    action = _packet(
        hardware,
        f"noc.router{node}.inject",
        "transfer",
        n_tokens,
        bits,
        energy_hops=n_hops,
        movement=Movement(source, destination, data_class, "noc", packets=1, hops=n_hops),
    )
    return action.without_duration()


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

"""Network on chip: routes and trees, zero-load latencies to the cycle, and BookSim2 at low load."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.components import noc
from archsim.components.netlist import UNBOUNDED, Action, Lane, Netlist, Target, Wire, constant
from archsim.engine.simpy_execution import execute
from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware

CYCLE_PS = 2000
BOOKSIM = {(4, 0.01): 16.0, (4, 0.05): 16.054, (8, 0.05): 27.2}
"""Mean packet latency in cycles by (mesh side, flits per node and cycle), measured with BookSim2 (git 28f4329).

Mesh, XY routing, 4 virtual channels, 1-flit packets; uniform traffic, self included; with source queueing.
"""


@lru_cache
def chip() -> Hardware:
    """A mesh clocked at 500 MHz with 32-bit flits and four-cycle routers."""
    return load_hardware("demo")


def grid(side: int, kind: str = "mesh") -> noc.Topology:
    """A square network."""
    return noc.Topology(kind, side, side)


class Mesh:
    """A netlist of packet streams on a square mesh."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.netlist = Netlist()
        self.ports: dict[str, list[Lane]] = {}
        self.sinks: list[Lane] = []
        self.sent: list[np.ndarray] = []

    def stream(self, origin: int, destinations: list[int], sent_cycles: list[int], bits: int = 32) -> None:
        """Packets of one source, generated at the given cycles, to one or several destinations."""
        n, netlist = len(sent_cycles), self.netlist
        times = np.array(sent_cycles, np.int64) * CYCLE_PS
        outbox = self._inbox()
        source = _lane("source", np.diff(times, prepend=0), output=outbox)
        netlist.server("source", "private", source)
        tree = noc.multicast_tree(grid(self.side), origin, destinations)
        inboxes = [self._inbox() for _ in tree.links]

        def wires(parent: int, delay_ps: int) -> tuple[Wire, ...]:
            return tuple(Wire(Target("channel", inboxes[child]), delay_ps) for child in tree.children(parent))

        what = (n, bits, "a", "b", "spikes")
        action = noc.inject_action(chip(), f"{origin}.inject", *what)
        self._port(f"{origin}.inject", action, outbox, wires(-1, noc.injection_delay_ps(chip())))
        for index, link in enumerate(tree.links):
            forward = wires(index, noc.hop_delay_ps(chip()))
            if link[1] == noc.EJECT:
                arrived = self._inbox()
                forward = (Wire(Target("channel", arrived), noc.ejection_delay_ps(chip(), bits)),)
                self.sinks.append(_lane("sink", np.zeros(n, np.int64), inputs=(arrived,)))
                self.sent.append(times)
                netlist.server("sink", "private", self.sinks[-1])
            self._port(f"{link[0]}.{link[1]}", noc.hop_action(chip(), link, *what), inboxes[index], forward)

    def latencies(self) -> np.ndarray:
        """Cycles from generation to the tail's arrival, stream by stream, packet by packet."""
        for name, lanes in self.ports.items():
            self.netlist.server(name, "shared", *lanes)
        trace = execute(self.netlist)
        by_lane = {id(lane): one for lane, one in zip(self.netlist.lanes(), trace.lanes, strict=True)}
        arrivals = [by_lane[id(lane)].start_ps - sent for lane, sent in zip(self.sinks, self.sent, strict=True)]
        return np.concatenate(arrivals) / CYCLE_PS

    def _inbox(self) -> int:
        return self.netlist.channel("inbox", UNBOUNDED)

    def _port(self, name: str, action: Action, inbox: int, wires: tuple[Wire, ...]) -> None:
        n = len(action.duration_ps)
        lane = Lane(name, "layer", n, n, (0, 1), (action,), (inbox,), wires=wires)
        self.ports.setdefault(name, []).append(lane)


def _lane(name: str, service_ps: np.ndarray, **wiring) -> Lane:
    n = len(service_ps)
    action = Action(name, "serve", service_ps, constant(1, n), constant(0, n), constant(0, n, np.float64))
    return Lane(name, "layer", n, n, (0, 1), (action,), **wiring)


def routers(source: int, destination: int, side: int) -> int:
    """Routers on a shortest path, both ends counted."""
    return abs(source % side - destination % side) + abs(source // side - destination // side) + 1


def single(source: int, destination: int, bits: int = 32) -> float:
    """Latency in cycles of the only packet on a 4x4 mesh."""
    mesh = Mesh(4)
    mesh.stream(source, [destination], [7], bits)
    return mesh.latencies().item()


@pytest.mark.parametrize("flits", [1, 5])
@pytest.mark.parametrize("source", range(16))
def test_a_lonely_packet_takes_the_zero_load_cycles(source, flits):
    expected = [4 * routers(source, destination, 4) + 2 + flits - 1 for destination in range(16)]
    assert [single(source, destination, 32 * flits) for destination in range(16)] == expected


@pytest.mark.parametrize("bits", [1, 32, 33, 160])
def test_the_ideal_latency_is_that_of_a_lonely_packet(bits):
    ideal = [noc.zero_load_ps(chip(), len(noc.xy_route(5, destination, 4)), bits) for destination in range(16)]
    assert ideal == [single(5, destination, bits) * CYCLE_PS for destination in range(16)]


@pytest.mark.parametrize(("bits", "flits"), [(0, 1), (1, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_packets_are_cut_in_flits(bits, flits):
    assert noc.n_flits(chip(), bits) == flits


def test_routes_go_along_x_first():
    assert noc.xy_route(9, 3, 4) == [(9, "east"), (10, "east"), (11, "north"), (7, "north"), (3, "eject")]


def test_a_packet_to_its_own_node_only_ejects():
    assert noc.xy_route(6, 6, 4) == [(6, "eject")]


@given(st.integers(1, 9).flatmap(lambda side: st.tuples(st.just(side), *[st.integers(0, side * side - 1)] * 2)))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_routes_walk_from_neighbour_to_neighbour(case):
    side, source, destination = case
    step = {"east": 1, "west": -1, "south": side, "north": -side, "eject": 0}
    route = noc.xy_route(source, destination, side)
    walked = [source + sum(step[port] for _, port in route[:index]) for index in range(len(route))]
    turned = [port in ("north", "south") for _, port in route[:-1]]
    found = (walked, len(route), turned, route[-1])
    assert found == (
        [at for at, _ in route],
        routers(source, destination, side),
        sorted(turned),
        (destination, "eject"),
    )


trees = st.integers(1, 6).flatmap(
    lambda side: st.tuples(
        st.just(side), st.integers(0, side**2 - 1), st.lists(st.integers(0, side**2 - 1), min_size=1, max_size=8)
    )
)


@given(trees)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_tree_is_the_union_of_its_routes(case):
    side, source, destinations = case
    tree = noc.multicast_tree(grid(side), source, destinations)
    routes = {link for destination in destinations for link in noc.xy_route(source, destination, side)}
    assert (set(tree.links), len(tree.links)) == (routes, len(routes))


@given(trees)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_following_parents_gives_the_route_of_every_destination(case):
    side, source, destinations = case
    tree = noc.multicast_tree(grid(side), source, destinations)

    def back(index: int) -> list:
        return [] if index < 0 else [*back(tree.parents[index]), tree.links[index]]

    ends = [back(tree.links.index((destination, "eject"))) for destination in destinations]
    assert ends == [noc.xy_route(source, destination, side) for destination in destinations]


@given(trees)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_parents_stand_before_their_children(case):
    side, source, destinations = case
    tree = noc.multicast_tree(grid(side), source, destinations)
    late = [index for index, parent in enumerate(tree.parents) if parent >= index]
    unheard = [index for index in range(len(tree.links)) if index not in tree.children(tree.parents[index])]
    assert (late, unheard) == ([], [])


def test_a_multicast_reaches_everyone_at_zero_load():
    mesh = Mesh(4)
    mesh.stream(5, [0, 3, 5, 14], [0], bits=96)
    assert sorted(mesh.latencies()) == sorted(4 * routers(5, to, 4) + 2 + 2 for to in (0, 3, 5, 14))


def test_packets_that_share_a_link_go_one_after_the_other():
    """Both arrive at router 1 in the same cycle and leave to the east; each has three flits."""
    mesh = Mesh(4)
    mesh.stream(1, [2], [4], bits=96)
    mesh.stream(0, [2], [0], bits=96)
    assert mesh.latencies().tolist() == [4 * 2 + 2 + 2, 4 * 3 + 2 + 2 + 3]


def test_packets_of_one_node_queue_at_its_injection_port():
    mesh = Mesh(4)
    mesh.stream(0, [1], [0, 0, 0], bits=64)
    assert mesh.latencies().tolist() == [4 * 2 + 2 + 1 + wait for wait in (0, 2, 4)]


def test_packets_to_one_node_queue_at_its_ejection_port():
    mesh = Mesh(4)
    mesh.stream(1, [5], [0], bits=64)
    mesh.stream(4, [5], [0], bits=64)
    assert mesh.latencies().tolist() == [4 * 2 + 2 + 1, 4 * 2 + 2 + 1 + 2]


def uniform_latency(side: int, flit_rate: float, packets_per_pair: int, seed: int) -> float:
    """Mean latency in cycles when every node sends equally often to every node, in random order."""
    rng, n_nodes = np.random.default_rng(seed), side * side
    mesh = Mesh(side)
    for source in range(n_nodes):
        order = rng.permutation(np.tile(np.arange(n_nodes), packets_per_pair))
        sent = np.cumsum(rng.geometric(flit_rate, len(order)))
        for destination in range(n_nodes):
            mesh.stream(source, [destination], sent[order == destination].tolist())
    return float(mesh.latencies().mean())


@pytest.mark.parametrize("flit_rate", [0.01, 0.05])
def test_uniform_traffic_on_4x4_takes_as_long_as_in_booksim(flit_rate):
    assert uniform_latency(4, flit_rate, 10, seed=1) == pytest.approx(BOOKSIM[4, flit_rate], rel=0.02)


@pytest.mark.slow
def test_uniform_traffic_on_8x8_takes_as_long_as_in_booksim():
    assert uniform_latency(8, 0.05, 1, seed=1) == pytest.approx(BOOKSIM[8, 0.05], rel=0.02)


# Trees and buses


def shared_squares(source: int, destination: int, width: int) -> int:
    """Levels up to the smallest square of 2 x 2, 4 x 4, ... nodes that holds both."""
    (y, x), (to_y, to_x) = divmod(source, width), divmod(destination, width)
    return max(1, (x ^ to_x).bit_length(), (y ^ to_y).bit_length())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (4, 4), (5, 3), (8, 8), (1, 7)])
def test_a_tree_goes_up_to_the_smallest_square_that_holds_both_nodes(width, height):
    tree = noc.Topology("tree", width, height)
    for source in range(width * height):
        for destination in range(width * height):
            route = tree.route(source, destination)
            levels = shared_squares(source, destination, width)
            assert len(route) == 2 * levels - 1
            assert [port for _, port in route[: levels - 1]] == ["up"] * (levels - 1)
            assert route[-1][1].startswith("eject")


@pytest.mark.parametrize(("width", "height", "routers"), [(1, 1, 1), (2, 2, 1), (4, 4, 5), (8, 8, 21), (5, 3, 9)])
def test_routers_of_a_tree(width, height, routers):
    tree = noc.Topology("tree", width, height)
    n_nodes = width * height
    used = {router for source in range(n_nodes) for to in range(n_nodes) for router, _ in tree.route(source, to)}
    assert (tree.n_routers, used) == (routers, set(range(routers)))


def test_every_node_of_a_tree_has_its_own_ejection_port_and_root_paths_join():
    tree = noc.Topology("tree", 4, 4)
    ejections = {tree.route(0, to)[-1] for to in range(16)}
    assert len(ejections) == 16
    all_of_them = noc.multicast_tree(tree, 0, list(range(16)))
    assert len(all_of_them.links) == 16 + 3 + 1


def test_a_bus_is_one_link_for_everybody():
    bus = noc.Topology("bus", 4, 4)
    assert [bus.route(0, to) for to in (0, 5, 15)] == [[(0, "bus")]] * 3
    assert noc.multicast_tree(bus, 3, [0, 5, 15]).ends == (0, 0, 0)


@pytest.mark.parametrize("kind", ["mesh", "tree", "bus"])
def test_a_node_beside_the_network_is_an_error(kind):
    with pytest.raises(MappingError) as fault:
        noc.Topology(kind, 3, 2).route(1, 6)
    assert str(fault.value) == (
        f"node 6 is not on the {kind} of 3 x 2 nodes, which are 0 to 5; raise chip.mesh_width or chip.mesh_height"
    )

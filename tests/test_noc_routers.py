"""Routers with virtual channels: flits on one path in closed form, random networks on both engines, chips."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import cycle_stepped_router
import numpy as np
import pytest

from archsim.components.netlist import UNBOUNDED, Action, Lane, Netlist, Target, constant
from archsim.components.trace import ExecutionTrace
from archsim.engine import compiled_execution, simpy_execution
from archsim.engine.conservation import check_trace
from archsim.engine.transport import Arrival, Stream, Transport
from archsim.errors import MappingError, SimulationError
from archsim.hardware.reader import load_hardware

CYCLE_PS = 2000
N_NETWORKS = 60


class Network:
    """Streams of packets over a network of the demo chip's links, with finite inboxes where they arrive."""

    def __init__(self, width: int, height: int, **noc: object) -> None:
        keys = {f"chip.noc.{name}": value for name, value in ({"flit_bits": 32} | noc).items()}
        self.netlist = Netlist()
        self.transport = Transport(load_hardware("demo", keys), width, height, self.netlist)
        self.sinks: list[tuple[np.ndarray, Lane]] = []

    def stream(
        self,
        source: int,
        destinations: list[int],
        cycles: list[int],
        flits: int | list[int] = 1,
        room: int = UNBOUNDED,
        sink_ps: int = 0,
    ) -> None:
        """Packets made in the given cycles; destinations that take `sink_ps` for each and hold `room`."""
        n, created_ps = len(cycles), np.array(cycles) * CYCLE_PS
        bits = 32 * np.array(flits) if isinstance(flits, list) else 32 * flits
        name = f"stream{len(self.netlist.servers)}"
        stream = Stream(name, "layer", n, (0, 1), n, bits, "spikes", "a", "b")
        outbox = self.netlist.channel("outbox", 2)
        self.netlist.server(
            f"{name}.source", "private", stream.lane((wait(np.diff(created_ps, prepend=0)),), output=outbox)
        )
        inboxes = [self.netlist.channel("inbox", room) for _ in destinations]
        arrivals = [Arrival(node, Target("channel", inbox)) for node, inbox in zip(destinations, inboxes, strict=True)]
        self.transport.send(stream, outbox, source, arrivals)
        for number, inbox in enumerate(inboxes):
            sink = stream.lane((wait(constant(sink_ps, n)),), inputs=(inbox,))
            self.netlist.server(f"{name}.sink{number}", "private", sink)
            self.sinks.append((created_ps, sink))

    def latencies(self) -> list[list[float]]:
        """Cycles from creation to the tail's arrival, inbox by inbox (which nobody may leave waiting)."""
        trace = simpy_execution.execute(self.netlist)
        check_trace(self.netlist, trace)
        return [
            ((trace.of(self.netlist, sink).start_ps - created_ps) / CYCLE_PS).tolist()
            for created_ps, sink in self.sinks
        ]


def wait(duration_ps: np.ndarray) -> Action:
    n = len(duration_ps)
    return Action("part", "wait", duration_ps, constant(1, n), constant(0, n), constant(0, n, np.float64))


def alone(source: int, destination: int, flits: int, **noc: object) -> float:
    """Latency of a packet that meets nobody on a 4 x 4 network."""
    network = Network(4, 4, **noc)
    network.stream(source, [destination], [3], flits)
    return network.latencies()[0][0]


# One packet, one path


@pytest.mark.parametrize("flits", [1, 2, 5, 8])
@pytest.mark.parametrize(("detail", "channels"), [("packet", 1), ("flit", 1), ("flit", 4)])
def test_a_lonely_packet_takes_the_zero_load_cycles(detail, channels, flits):
    found = [alone(5, to, flits, detail=detail, virtual_channels=channels) for to in range(16)]
    assert found == [4 * (abs(to % 4 - 1) + abs(to // 4 - 1) + 1) + 2 + flits - 1 for to in range(16)]


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 6, 7, 9])
def test_shallow_virtual_channels_pass_their_depth_in_six_cycles(depth):
    """A flit behind the head arrives after 3 cycles and goes on at once; its credit takes 3 more."""
    flits = 61
    rounds, last = divmod(flits - 1, depth)
    expected = 4 * 2 + 2 + max(6 * rounds + last, flits - 1)
    assert alone(0, 1, flits, detail="flit", vc_depth_flits=depth) == expected


@pytest.mark.parametrize("detail", ["packet", "flit"])
def test_one_virtual_channel_passes_a_packet_in_its_flits_and_a_cycle(detail):
    network = Network(3, 1, detail=detail, virtual_channels=1)
    network.stream(0, [2], [0] * 6, flits=4)
    assert network.latencies()[0] == [4 * 3 + 2 + 3 + 5 * number for number in range(6)]


def test_two_virtual_channels_pass_packets_without_a_gap():
    network = Network(3, 1, detail="flit", virtual_channels=2)
    network.stream(0, [2], [0] * 6, flits=4)
    assert network.latencies()[0] == [4 * 3 + 2 + 3 + 4 * number for number in range(6)]


def blocked_neighbour(channels: int) -> float:
    """A packet from node 0 to node 4, behind one that waits for the link from node 1 to node 2 on a 3 x 2 mesh."""
    network = Network(3, 2, detail="flit", virtual_channels=channels, vc_depth_flits=64)
    network.stream(1, [2], [0], flits=40)
    network.stream(0, [2], [0], flits=2)
    network.stream(0, [4], [1], flits=2)
    return network.latencies()[2][0]


def test_with_one_virtual_channel_a_packet_waits_behind_a_blocked_one_with_two_it_passes():
    assert blocked_neighbour(channels=2) == 4 * 3 + 2 + 1 + 1
    assert blocked_neighbour(channels=1) > 40


@pytest.mark.parametrize(("channels", "arrivals"), [(1, [18, 24]), (2, [21, 23])])
def test_flits_of_two_packets_take_turns_unless_there_is_one_virtual_channel(channels, arrivals):
    """Both heads reach router 1 in cycle 5; alone their tails would arrive in cycle 18."""
    network = Network(3, 1, detail="flit", virtual_channels=channels)
    network.stream(1, [2], [4], flits=5)
    network.stream(0, [2], [0], flits=5)
    (near,), (far,) = network.latencies()
    assert sorted([near + 4, far]) == arrivals
    # one islip iteration allocates two heads a cycle apart, ours at once
    stepped = sorted(cycle_stepped_router.arrivals([(0, 0, 2), (4, 1, 2)], k=3, flits=5, channels=channels))
    assert sum(stepped) - sum(arrivals) == channels - 1


@pytest.mark.parametrize("detail", ["packet", "flit"])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_multicast_reaches_everyone_at_zero_load(detail, channels):
    network = Network(4, 4, detail=detail, virtual_channels=channels)
    network.stream(5, [0, 3, 5, 14], [0], flits=3)
    assert network.latencies() == [[4 * routers + 2 + 2] for routers in (3, 4, 1, 4)]


def test_a_branch_that_waits_does_not_hold_the_others():
    network = Network(3, 3, detail="flit")
    network.stream(4, [5], [0] * 5, flits=8)
    network.stream(3, [5, 7], [1], flits=8)
    (slow,), (other,) = network.latencies()[1:]
    assert 4 * 3 + 2 + 7 <= other <= 4 * 3 + 2 + 7 + 8 < slow


# Links carry a packet once per tree


@pytest.mark.parametrize("topology", ["mesh", "tree"])
@pytest.mark.parametrize("detail", ["packet", "flit"])
def test_every_link_of_a_tree_carries_a_packet_once(topology, detail):
    network = Network(4, 4, detail=detail, topology=topology)
    network.stream(0, [3, 12, 15, 5], [0, 1, 2], flits=2)
    network.latencies()
    hops: Counter[str] = Counter()
    for lane in network.netlist.lanes():
        for action in lane.actions:
            if action.name == "hop":
                moved = np.ones(lane.n_tokens, bool) if action.moves is None else action.moves
                hops[action.component] += int(moved.sum())
                assert (action.bits[moved] == 64).all()
    n_links = {"mesh": 3 + 3 + 3 + 1 + 4, "tree": 2 + 3 + 4 - 1}[topology]
    assert (set(hops.values()), len(hops)) == ({3}, n_links)


# Both engines


def random_network(seed: int) -> Network:
    """Streams of packets of any length between any nodes, some to several; rooms and sinks that hold them up."""
    rng = np.random.default_rng(seed)
    width, height = (int(rng.integers(1, 4)) for _ in range(2))
    detail = str(rng.choice(["flit", "flit", "packet"]))
    network = Network(
        width,
        height,
        detail=detail,
        topology=str(rng.choice(["mesh", "mesh", "tree", "bus"])),
        virtual_channels=1 if detail == "packet" else int(rng.integers(1, 4)),
        vc_depth_flits=int(rng.integers(4, 9)),
        router_cycles=int(rng.integers(1, 6)),
        clock_mhz=float(rng.choice([500, 333, 750])),
    )
    for _ in range(int(rng.integers(1, 12))):
        n, n_to = int(rng.integers(1, 12)), int(rng.choice([1, 1, 1, 2, 3]))
        cycles = np.cumsum(rng.integers(0, int(rng.choice([2, 9, 30])), n)).tolist()
        flits = rng.integers(1, 5, n).tolist() if rng.random() < 0.5 else int(rng.integers(1, 5 if n_to > 1 else 12))
        destinations = rng.integers(0, width * height, n_to).tolist()
        network.stream(
            int(rng.integers(0, width * height)),
            destinations,
            cycles,
            flits,
            room=int(rng.choice([1, 2, UNBOUNDED])),
            sink_ps=int(rng.choice([0, 2000, 9001, 40000])),
        )
    return network


def differences(netlist: Netlist, one: ExecutionTrace, other: ExecutionTrace) -> list[str]:
    wrong = [
        f"{lane.name}.{item.name}"
        for lane, left, right in zip(netlist.lanes(), one.lanes, other.lanes, strict=True)
        for item in fields(left)
        if getattr(left, item.name).tolist() != getattr(right, item.name).tolist()
    ]
    return wrong + ["channels"] * (one.channels != other.channels) + ["end"] * (one.end_ps != other.end_ps)


@pytest.mark.parametrize("seed", range(N_NETWORKS))
def test_random_networks_drain_and_run_alike_on_both_engines(seed):
    netlist = random_network(seed).netlist
    trace = simpy_execution.execute(netlist)
    check_trace(netlist, trace)
    assert differences(netlist, trace, compiled_execution.execute(netlist)) == []


def test_the_random_networks_wait_for_everything():
    causes: Counter[str] = Counter()
    for seed in range(0, N_NETWORKS, 3):
        netlist = random_network(seed).netlist
        trace = compiled_execution.execute(netlist)
        for lane, times in zip(netlist.lanes(), trace.lanes, strict=True):
            if lane.passage is not None:
                causes.update(times.start_cause.tolist())
    assert min(causes[cause] for cause in range(4)) > 20, causes


# Wrong networks


def test_a_multicast_packet_that_no_virtual_channel_holds_is_an_error():
    with pytest.raises(MappingError) as fault:
        Network(2, 2, detail="flit", vc_depth_flits=4).stream(0, [1, 2], [0], flits=5)
    assert str(fault.value) == (
        "packets of 'stream0' have up to 5 flits of 32 bits and go to 2 places; chip.noc.vc_depth_flits 4 must hold "
        "one, or its branches could block each other. Raise it to 5, raise chip.noc.flit_bits, or set "
        "chip.noc.detail: packet."
    )


def test_a_lane_that_comes_by_another_link_than_its_packets_is_refused():
    network = Network(2, 1, detail="flit")
    network.stream(0, [1], [0])
    lane = next(lane for lane in network.netlist.lanes() if lane.passage and lane.passage.entry == 1)
    lane.passage = type(lane.passage)(0, lane.passage.exit)
    with pytest.raises(SimulationError, match=r"comes by link noc\.router0\.inject but is not fed by one lane that"):
        simpy_execution.execute(network.netlist)

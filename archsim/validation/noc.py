"""The NoC alone, under the synthetic traffic of BookSim2: its latencies, and ours beside the stored ones.

The netlist is made of the same links, routers and timing rules as a chip's; only the packets come from
a pattern. Every node starts a packet in every cycle with a fixed probability, at the destination that the
pattern names; the latency of a packet runs from there, so it includes the wait in its source.

Patterns, as BookSim2 defines them (src/traffic.cpp) on a k x k mesh with nodes numbered row by row:
- `uniform`: any node with equal probability, its own included;
- `transpose`: node (x, y) to node (y, x), so the diagonal sends to itself;
- `neighbor`: node (x, y) to node (x + 1, y + 1), modulo k, along both axes;
- `hotspot`: every node, the hot one included, to one node; without a number the seed draws it.

References: BookSim2 (git 28f4329), mesh, dimension-order routing, input-queued routers, islip allocators,
8-flit virtual channels, delays: routing 0, allocation of virtual channels and switches 1, crossbar 1,
credits 1; means over 3 (k = 4) or 2 (k = 8) seeds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from archsim.components.netlist import UNBOUNDED, Action, Lane, Netlist, Target, constant
from archsim.engine.simulation import execute_netlist
from archsim.engine.transport import Arrival, Stream, Transport
from archsim.errors import ConfigError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_chip
from archsim.units import cycles_to_ps
from archsim.validation.check import Check

Pattern = Literal["uniform", "transpose", "neighbor", "hotspot"]
Detail = Literal["packet", "flit"]
REFERENCE = Path(__file__).parent / "booksim_mesh.csv"
FLIT_BITS = 32
VC_DEPTH_FLITS = 8
N_PACKETS = 40_000
"""Packets measured unless cycles are given; with fewer the mean of their distances strays by more than 1 %."""
MIN_CYCLES = 4_000
LARGEST_MESH = 32
TOLERANCES: dict[Detail, dict[float, float]] = {"packet": {0.1: 0.02}, "flit": {0.1: 0.02, 0.2: 0.05}}
"""Largest relative error by detail, up to each offered rate in flits per node and cycle."""
SATURATED = 3.0
"""Mean latency by that at zero load from which on a network counts as saturated; it grows with the cycles measured."""


@dataclass(frozen=True)
class Traffic:
    """Packets on a square mesh: how many nodes on a side, to where, how often, how long, through what."""

    k: int = 8
    pattern: Pattern = "uniform"
    flit_rate: float = 0.1
    """Flits per node and cycle."""
    flits: int = 1
    """Flits of every packet."""
    virtual_channels: int = 4
    detail: Detail = "packet"
    cycles: int | None = None
    """Cycles measured; None: as many as `N_PACKETS` packets take."""
    seed: int = 0
    hotspot: int | None = None
    """Node that `hotspot` traffic goes to; None: the seed draws it."""

    def __post_init__(self) -> None:
        limits = (
            ("k", self.k, 2, LARGEST_MESH, "a mesh has at least 2 x 2 nodes"),
            ("flits", self.flits, 1, 1024, "give a packet 1 to 1024 flits"),
            ("vcs", self.virtual_channels, 1, 64, "give a link 1 to 64 virtual channels"),
            ("cycles", self.cycles or 1, 1, 10_000_000, "leave it out for 40000 packets"),
            ("hotspot", self.hotspot or 0, 0, self.k**2 - 1, f"nodes of a {self.k} x {self.k} mesh"),
            ("seed", self.seed, 0, 2**63, "seeds are not negative"),
        )
        for name, value, least, most, why in limits:
            if not least <= value <= most:
                raise ConfigError(f"--{name} is {value}; it must be {least} to {most}: {why}")
        if not 0 < self.flit_rate <= 1:
            raise ConfigError(
                f"--flit-rate is {self.flit_rate:g}; a node sends more than 0 and at most 1 flit per cycle"
            )
        for name, word, allowed in (
            ("traffic", self.pattern, get_args(Pattern)),
            ("detail", self.detail, get_args(Detail)),
        ):
            if word not in allowed:
                raise ConfigError(f"--{name} is {word!r}; it must be one of {', '.join(allowed)}")
        if self.hotspot is not None and self.pattern != "hotspot":
            raise ConfigError(
                f"--hotspot {self.hotspot} has no meaning with --traffic {self.pattern}; choose --traffic hotspot"
            )

    @property
    def n_nodes(self) -> int:
        """Nodes of the mesh."""
        return self.k**2

    @property
    def measured_cycles(self) -> int:
        """Cycles whose packets are measured."""
        if self.cycles is not None:
            return self.cycles
        return max(MIN_CYCLES, round(N_PACKETS * self.flits / (self.flit_rate * self.n_nodes)))

    @property
    def warm_up_cycles(self) -> int:
        """Cycles before those, whose packets only fill the network."""
        return max(200, self.measured_cycles // 4)


@dataclass(frozen=True)
class Packets:
    """Every packet of a run, in order of creation: cycle, source node, destination node."""

    cycle: np.ndarray
    source: np.ndarray
    destination: np.ndarray


def generate(traffic: Traffic) -> Packets:
    """Draw the packets of a run: warm-up, measurement, and an eighth as long behind it, to keep the network full."""
    rng = np.random.default_rng(traffic.seed)
    n_cycles = traffic.warm_up_cycles + traffic.measured_cycles + max(200, traffic.measured_cycles // 8)
    n_slots = n_cycles * traffic.n_nodes
    gaps = rng.geometric(
        traffic.flit_rate / traffic.flits, int(n_slots * traffic.flit_rate / traffic.flits * 1.2) + 999
    )
    slots = np.cumsum(gaps) - 1
    cycle, source = np.divmod(slots[slots < n_slots], traffic.n_nodes)
    y, x = np.divmod(source, traffic.k)
    if traffic.pattern == "uniform":
        destination = rng.integers(0, traffic.n_nodes, len(source))
    elif traffic.pattern == "transpose":
        destination = x * traffic.k + y
    elif traffic.pattern == "neighbor":
        destination = (y + 1) % traffic.k * traffic.k + (x + 1) % traffic.k
    else:
        drawn = int(rng.integers(0, traffic.n_nodes)) if traffic.hotspot is None else traffic.hotspot
        destination = np.full(len(source), drawn)
    return Packets(cycle, source, destination)


def measure(traffic: Traffic) -> dict[str, Any]:
    """Run a traffic pattern.

    Returns:
        `mean_packet_latency_cycles` and `p99_packet_latency_cycles` from creation to the tail's arrival, of packets
        created in the measured cycles; `mean_routers` that they visit; `accepted_flit_rate`, flits per node and cycle
        that arrive in those cycles; and what was run.

    Raises:
        ConfigError: No packet was created in the measured cycles.
    """
    packets = generate(traffic)
    first, last = traffic.warm_up_cycles, traffic.warm_up_cycles + traffic.measured_cycles
    measured = (packets.cycle >= first) & (packets.cycle < last)
    if not measured.any():
        raise ConfigError(
            f"no packet is created in {traffic.measured_cycles} cycles at {traffic.flit_rate:g} flits per node and "
            "cycle; raise --cycles or --flit-rate"
        )
    arrival = arrival_cycles(traffic, packets)
    latency = (arrival - packets.cycle)[measured]
    n_accepted = int(((arrival >= first) & (arrival < last)).sum())
    (y, x), (to_y, to_x) = (np.divmod(nodes[measured], traffic.k) for nodes in (packets.source, packets.destination))
    return {
        "mean_packet_latency_cycles": float(latency.mean()),
        "p99_packet_latency_cycles": float(np.percentile(latency, 99)),
        "mean_routers": float((np.abs(x - to_x) + np.abs(y - to_y) + 1).mean()),
        "accepted_flit_rate": n_accepted * traffic.flits / (traffic.n_nodes * traffic.measured_cycles),
        "offered_flit_rate": int(measured.sum()) * traffic.flits / (traffic.n_nodes * traffic.measured_cycles),
        "n_packets": int(measured.sum()),
        "cycles": traffic.measured_cycles,
        "warm_up_cycles": traffic.warm_up_cycles,
        "k": traffic.k,
        "traffic": traffic.pattern,
        "hotspot": int(packets.destination[0]) if traffic.pattern == "hotspot" else None,
        "flits": traffic.flits,
        "virtual_channels": traffic.virtual_channels,
        "detail": traffic.detail,
        "seed": traffic.seed,
    }


def arrival_cycles(traffic: Traffic, packets: Packets, engine: str = "auto") -> np.ndarray:
    """When the tail of every packet has arrived in its destination, in cycles, int64."""
    hardware = load_chip(
        "demo",
        {
            "chip.noc.topology": "mesh",
            "chip.noc.detail": traffic.detail,
            "chip.noc.flit_bits": FLIT_BITS,
            "chip.noc.virtual_channels": traffic.virtual_channels,
            "chip.noc.vc_depth_flits": VC_DEPTH_FLITS,
            "chip.noc.router_cycles": 4,
        },
    )
    cycle_ps = cycles_to_ps(1, hardware.noc_clock_mhz)
    netlist, groups = _netlist(hardware, traffic, packets, cycle_ps)
    trace = execute_netlist(netlist, engine)
    arrival = np.empty(len(packets.cycle), np.int64)
    sinks = {id(lane): members for lane, members in groups}
    for lane, times in zip(netlist.lanes(), trace.lanes, strict=True):
        if id(lane) in sinks:
            arrival[sinks[id(lane)]] = times.start_ps // cycle_ps
    return arrival


def _netlist(
    hardware: Hardware, traffic: Traffic, packets: Packets, cycle_ps: int
) -> tuple[Netlist, list[tuple[Lane, np.ndarray]]]:
    """A stream for every pair of nodes that talk; the lanes where packets arrive, and which packets those are."""
    netlist = Netlist()
    transport = Transport(hardware, traffic.k, traffic.k, netlist)
    pairs = packets.source * traffic.n_nodes + packets.destination
    order = np.argsort(pairs, kind="stable")
    groups = []
    for members in np.split(order, np.flatnonzero(np.diff(pairs[order])) + 1):
        source, destination = int(packets.source[members[0]]), int(packets.destination[members[0]])
        name, n = f"{source}.{destination}", len(members)
        stream = Stream(
            name, "traffic", n, (0, 1), n, FLIT_BITS * traffic.flits, "spikes", f"node{source}", f"node{destination}"
        )
        outbox, inbox = netlist.channel(f"outbox{name}", UNBOUNDED), netlist.channel(f"inbox{name}", UNBOUNDED)
        created_ps = np.diff(packets.cycle[members] * cycle_ps, prepend=0)
        netlist.server(f"source{name}", "private", stream.lane((_wait(created_ps),), output=outbox))
        transport.send(stream, outbox, source, [Arrival(destination, Target("channel", inbox))])
        sink = stream.lane((_wait(constant(0, n)),), inputs=(inbox,))
        netlist.server(f"sink{name}", "private", sink)
        groups.append((sink, members))
    return netlist, groups


def _wait(duration_ps: np.ndarray) -> Action:
    n = len(duration_ps)
    return Action("traffic", "wait", duration_ps, constant(1, n), constant(0, n), constant(0.0, n, np.float64))


def checks(progress: Callable[[str, float], None] = lambda *_: None) -> Iterator[Check]:
    """Our mean latencies beside BookSim2's, with whole packets and flit by flit; saturation where it saturates."""
    with REFERENCE.open(newline="") as file:
        rows = [(row, detail) for row in csv.DictReader(file) for detail in TOLERANCES]
    for done, (row, detail) in enumerate(rows):
        progress("traffic", done / len(rows))
        found = _check(row, detail)
        if found is not None:
            yield found


def _check(row: dict[str, str], detail: Detail) -> Check | None:
    """One row; None where neither a latency is promised for this detail nor saturation."""
    flit_rate, flits = float(row["flit_rate"]), int(row["variant"][3:])
    is_stable = row["mean_packet_latency"] != "UNSTABLE"
    tolerance = next((error for most, error in sorted(TOLERANCES[detail].items()) if flit_rate <= most), None)
    is_promised = tolerance is not None if is_stable else detail == "flit"
    if not is_promised:
        return None
    channels, k = int(row["variant"][1]), int(row["k"])
    pattern: Any = row["traffic"]
    ours = measure(Traffic(k, pattern, flit_rate, flits, channels, detail))
    latency = ours["mean_packet_latency_cycles"]
    name = f"{detail}: {k} x {k} {pattern} {flit_rate:g}, {channels} VC, {flits} flit{'s' * (flits > 1)}"
    if not is_stable:
        least = SATURATED * (4 * ours["mean_routers"] + 2 + flits - 1)
        return Check(f"{name}, saturated", "cycles", None, latency, bounds=(least, 1e9))
    return Check(
        f"{name}, mean latency",
        "cycles",
        float(row["mean_packet_latency"]),
        latency,
        tolerance or 0.0,
        note=f"{ours['mean_routers']:.3f} routers, BookSim2 {float(row['hops']):.3f}",
    )

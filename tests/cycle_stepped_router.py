"""A mesh of input-queued routers stepped cycle by cycle, as an oracle: it shares nothing with archsim.

Router pipeline of BookSim2: a head is allocated a virtual channel (one cycle), then every flit the switch
(one cycle); crossbar and wire take two more. Both allocators do one islip iteration: outputs pick an input
in turn, inputs accept an output in turn, and turns go on only where a pick was accepted. Credits are usable
three cycles after a flit left its buffer. Against the stored BookSim2 rows its means differ by less than 0.5 %
up to 0.2 flits per node and cycle once both are taken at the same mean distance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

EAST, WEST, SOUTH, NORTH, LOCAL = range(5)
OPPOSITE = {EAST: WEST, WEST: EAST, SOUTH: NORTH, NORTH: SOUTH}
DEPTH = 8


class _Queue:
    """A virtual channel of an input port."""

    def __init__(self) -> None:
        self.flits: deque[tuple[int, int]] = deque()
        self.stage = "idle"
        self.exit = self.channel = -1


class _Router:
    def __init__(self, channels: int) -> None:
        self.queues = {(port, channel): _Queue() for port in range(5) for channel in range(channels)}
        self.owned = {place: False for place in self.queues}
        self.credits = dict.fromkeys(self.queues, DEPTH)
        self.turn: dict[tuple[str, object], int] = {}
        self.source: deque[int] = deque()
        self.source_owned = [False] * channels
        self.source_credits = [DEPTH] * channels
        self.source_channel, self.source_last, self.source_flit = -1, 0, 0


def arrivals(packets: list[tuple[int, int, int]], k: int, flits: int, channels: int) -> list[int]:
    """Cycle in which the tail of every packet (cycle, source, destination; by cycle) has arrived, on a k x k mesh."""
    routers = [_Router(channels) for _ in range(k * k)]
    done = [-1] * len(packets)
    wires: dict[int, list[tuple[int, int, int, int, int]]] = {}
    credits: dict[int, list[tuple[int, int, int]]] = {}
    created, cycle = 0, 0
    while -1 in done:
        while created < len(packets) and packets[created][0] <= cycle:
            routers[packets[created][1]].source.append(created)
            created += 1
        for node, port, channel in credits.pop(cycle, ()):
            if port == LOCAL:
                routers[node].source_credits[channel] += 1
            else:
                routers[node].credits[port, channel] += 1
        for node, port, channel, packet, flit in wires.pop(cycle, ()):
            routers[node].queues[port, channel].flits.append((packet, flit))
        for node, router in enumerate(routers):
            sent = _inject(router, flits)
            if sent is not None:
                wires.setdefault(cycle + 1, []).append((node, LOCAL, *sent))
            for place, queue, packet, flit in _step(router, node, k, packets, flits):
                back = (node, LOCAL) if place[0] == LOCAL else (_next(node, place[0], k), OPPOSITE[place[0]])
                credits.setdefault(cycle + 3, []).append((*back, place[1]))
                if queue.exit == LOCAL:
                    if flit == flits - 1:
                        done[packet] = cycle + 4
                else:
                    onward = (_next(node, queue.exit, k), OPPOSITE[queue.exit], queue.channel, packet, flit)
                    wires.setdefault(cycle + 3, []).append(onward)
        cycle += 1
    return done


def _next(node: int, port: int, k: int) -> int:
    return node + {EAST: 1, WEST: -1, SOUTH: k, NORTH: -k}[port]


def _inject(router: _Router, flits: int) -> tuple[int, int, int] | None:
    """Channel, packet and flit that the source sends."""
    if not router.source:
        return None
    n = len(router.source_owned)
    if router.source_channel < 0:
        for offset in range(1, n + 1):
            channel = (router.source_last + offset) % n
            if not router.source_owned[channel] and router.source_credits[channel]:
                router.source_channel = router.source_last = channel
                router.source_owned[channel], router.source_flit = True, 0
                break
    channel = router.source_channel
    if channel < 0 or not router.source_credits[channel]:
        return None
    router.source_credits[channel] -= 1
    packet, flit = router.source[0], router.source_flit
    router.source_flit += 1
    if flit == flits - 1:
        router.source_owned[channel], router.source_channel = False, -1
        router.source.popleft()
    return channel, packet, flit


def _step(router: _Router, node: int, k: int, packets: list[tuple[int, int, int]], flits: int) -> Iterator[tuple]:
    """Flits that win the switch: (input port, channel), its queue, packet, flit."""
    busy = {place: queue for place, queue in router.queues.items() if queue.flits}
    for queue in busy.values():
        if queue.stage == "idle":
            queue.stage, queue.exit = "waiting", _exit(node, packets[queue.flits[0][0]][2], k)
    switch = _switch(router, busy)
    _allocate(router, {place: queue for place, queue in busy.items() if queue.stage == "waiting"})
    for place in switch:
        queue = busy[place]
        packet, flit = queue.flits.popleft()
        if queue.exit != LOCAL:
            router.credits[queue.exit, queue.channel] -= 1
        if flit == flits - 1:
            router.owned[queue.exit, queue.channel], queue.stage = False, "idle"
        yield place, queue, packet, flit


def _exit(node: int, destination: int, k: int) -> int:
    (y, x), (to_y, to_x) = divmod(node, k), divmod(destination, k)
    if x != to_x:
        return EAST if to_x > x else WEST
    return LOCAL if y == to_y else SOUTH if to_y > y else NORTH


def _switch(router: _Router, busy: dict[tuple[int, int], _Queue]) -> list[tuple[int, int]]:
    """One flit per input and per output."""
    channels = len(router.source_owned)
    asks: dict[tuple[int, int], int] = {}
    for port, channel in busy:
        queue = busy[port, channel]
        if queue.stage != "active" or not router.credits[queue.exit, queue.channel]:
            continue
        turn = router.turn.get(("channel", port), 0)
        rival = asks.get((port, queue.exit))
        if rival is None or (channel - turn) % channels < (rival - turn) % channels:
            asks[port, queue.exit] = channel
    picks = {}
    for exit_port in {exit_port for _, exit_port in asks}:
        turn = router.turn.get(("output", exit_port), 0)
        picks[exit_port] = min((port for port, to in asks if to == exit_port), key=lambda port: (port - turn) % 5)
    winners = []
    for port in sorted(set(picks.values())):
        turn = router.turn.get(("input", port), 0)
        exit_port = min((to for to, by in picks.items() if by == port), key=lambda to: (to - turn) % 5)
        router.turn["input", port], router.turn["output", exit_port] = exit_port + 1, port + 1
        router.turn["channel", port] = asks[port, exit_port] + 1
        winners.append((port, asks[port, exit_port]))
    return winners


def _allocate(router: _Router, waiting: dict[tuple[int, int], _Queue]) -> None:
    """Output virtual channels for heads at the front of their queues, active from the next cycle on."""
    channels = len(router.source_owned)
    n = 5 * channels
    picks: dict[int, int] = {}
    for port, channel in {(queue.exit, channel) for queue in waiting.values() for channel in range(channels)}:
        if not router.owned[port, channel]:
            output = port * channels + channel
            turn = router.turn.get(("granted", output), 0)
            asking = (at * channels + lane for (at, lane), queue in waiting.items() if queue.exit == port)
            picks[output] = min(asking, key=lambda asks: (asks - turn) % n)
    for place, queue in waiting.items():
        asks = place[0] * channels + place[1]
        offers = [output for output, by in picks.items() if by == asks]
        if offers:
            turn = router.turn.get(("accepted", asks), 0)
            output = min(offers, key=lambda output: (output - turn) % n)
            router.turn["accepted", asks], router.turn["granted", output] = output + 1, asks + 1
            queue.stage, queue.channel = "active", output % channels
            router.owned[queue.exit, queue.channel] = True

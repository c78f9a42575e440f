"""The compiled execution of a netlist: one event loop over integer time, compiled with numba.

It knows nothing of the SimPy execution and shares no timing with it; `archsim.engine.compiled_execution`
fills its tables from a netlist and reads the times back.

Every private lane, shared server and wire has at most one event under way, so an event is the number
of its lane, or of its wire behind all lanes. Events of equal time form a list; a heap orders the lists,
a hash table finds the list of a time. What happens within an instant has one outcome in whatever order
it is worked off, except for grants: they are decided together, once nothing else moves (`_decide`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from archsim.eventlog import ARBITER, CREDIT, DATA, SERVER
from archsim.jit import compiled, inlined

NONE = -1
"""Index that points nowhere; as a time: from the beginning."""

WAITING, FETCHING, SERVING, BLOCKED = range(4)
"""What a private lane does. `FETCHING` ends when its line-buffer positions are given free."""

LANE = np.dtype(
    [
        ("tokens", "i8"),  # where the lane's tokens begin in the trace arrays
        ("service", "i8"),  # where service times begin in `numbers`, `service_step` apart
        ("fetch", "i8"),
        ("emit", "i8"),  # where the mask begins in `emits`; NONE: every token emits
        ("positions", "i8"),  # where positions sent begin in `numbers`; NONE: 0, 1, 2, ...
        ("inputs", "i8"),  # channels, in `numbers`
        ("reserves", "i8"),  # channels, or buffers counted from behind the last channel, in `numbers`
        ("data_ps", "i8"),  # latest arrival among the inputs seen so far of the next token
        ("credit_ps", "i8"),  # latest slot among the reserved places seen so far
        ("end_ps", "i8"),  # end of the service before
        ("leave_ps", "i8"),  # when the token before left
        ("n_tokens", "i4"),
        ("service_step", "i4"),
        ("fetch_step", "i4"),
        ("n_inputs", "i4"),
        ("n_reserves", "i4"),
        ("first_wire", "i4"),
        ("n_wires", "i4"),
        ("server", "i4"),
        ("is_shared", "i4"),
        ("buffer", "i4"),
        ("reader", "i4"),  # in `readers`
        ("output", "i4"),
        ("n_started", "i4"),
        ("n_sent", "i4"),
        ("n_data", "i4"),  # inputs of the next token that are there, counted in order
        ("n_credits", "i4"),  # reserved places that have a slot, counted in order
        ("state", "i4"),
        ("is_ready", "i4"),
        ("is_woken", "i4"),
    ],
    align=True,
)
SERVER_STATE = np.dtype(
    [
        ("first_lane", "i4"),
        ("n_ready", "i4"),
        ("n_grants", "i4"),
        ("last_lane", "i4"),
        ("is_busy", "i4"),
        ("is_asking", "i4"),
    ],
    align=True,
)
CHANNEL = np.dtype(
    [
        ("ring", "i8"),  # where arrival times begin in `arrivals`
        ("consumer_tokens", "i8"),  # where the consumer's tokens begin in the trace arrays
        ("since_ps", "i8"),
        ("integral", "i8"),
        ("capacity", "i4"),
        ("ring_size", "i4"),
        ("consumer", "i4"),
        ("producer", "i4"),
        ("head", "i4"),
        ("n_waiting", "i4"),
        ("n_reserved", "i4"),
        ("n_popped", "i4"),
        ("peak", "i4"),
    ],
    align=True,
)
BUFFER = np.dtype(
    [
        ("need", "i8"),  # in `numbers`
        ("last_use", "i8"),
        ("times", "i8"),  # where positions begin in `complete_ps` and `released_ps`
        ("senders", "i8"),  # lanes, in `numbers`
        ("n_positions", "i4"),
        ("capacity", "i4"),
        ("first_source", "i4"),
        ("n_sources", "i4"),
        ("first_reader", "i4"),
        ("n_readers", "i4"),
        ("n_senders", "i4"),
        ("n_complete", "i4"),
        ("n_released", "i4"),
        ("covered", "i4"),  # positions that all sources have covered
        ("n_slowest", "i4"),  # sources that have covered no more than that
        ("fetched", "i4"),  # tokens that all readers have fetched
        ("n_latest", "i4"),  # readers that have fetched no more than that
    ],
    align=True,
)
SOURCE = np.dtype([("covers", "i8"), ("n_delivered", "i4"), ("covered", "i4")], align=True)
READER = np.dtype([("lane", "i4"), ("n_fetched", "i4")], align=True)
WIRE = np.dtype(
    [
        ("delay", "i8"),  # in `numbers`, `delay_step` apart
        ("arrived_ps", "i8"),
        ("delay_step", "i4"),
        ("lane", "i4"),
        ("channel", "i4"),
        ("buffer", "i4"),
        ("source", "i4"),  # in `sources`
        ("token", "i4"),  # the next one to arrive, among all of the lane
        ("n_arrived", "i4"),
        ("is_pending", "i4"),
    ],
    align=True,
)
EVENT = np.dtype([("time_ps", "i8"), ("following", "i4"), ("colliding", "i4")], align=True)
CLOCK = np.dtype(
    [
        ("now_ps", "i8"),
        ("current", "i4"),  # first event of this instant
        ("n_times", "i4"),
        ("n_woken", "i4"),
        ("n_asking", "i4"),
        ("is_faulty", "i4"),  # tokens overtook each other, or a channel got more than it has room for
    ],
    align=True,
)


class Machine(NamedTuple):
    """A netlist as tables, with the state of its execution and the trace it writes."""

    lanes: np.recarray
    servers: np.recarray
    channels: np.recarray
    buffers: np.recarray
    sources: np.recarray
    readers: np.recarray
    wires: np.recarray
    numbers: np.ndarray
    """int64 lists that the tables point into."""
    emits: np.ndarray
    arrivals: np.ndarray
    """Arrival times of the tokens waiting in each channel: rings."""
    complete_ps: np.ndarray
    released_ps: np.ndarray
    start_ps: np.ndarray
    leave_ps: np.ndarray
    start_cause: np.ndarray
    leave_cause: np.ndarray
    predecessor: np.ndarray
    ready_ps: np.ndarray
    """Heaps of the lanes that each server could grant, with the arrival of their data."""
    ready_lane: np.ndarray
    events: np.recarray
    table: np.ndarray
    """First event of every hash of a time."""
    time_ps: np.ndarray
    """Heap of the times at which something will happen, with the first event of each."""
    time_event: np.ndarray
    woken: np.ndarray
    asking: np.ndarray
    chosen: np.ndarray
    clock: np.recarray


@compiled
def run(m: Machine) -> None:
    """Execute until nothing moves."""
    n_lanes = len(m.lanes)
    clock = m.clock[0]
    for lane in range(n_lanes):
        _wake(m, lane)
    while True:
        if clock.n_woken > 0:
            clock.n_woken -= 1
            lane = m.woken[clock.n_woken]
            m.lanes[lane].is_woken = 0
            if m.lanes[lane].is_shared:
                _look_for_grant(m, lane)
            else:
                _move_private(m, lane)
        elif clock.current != NONE:
            event = clock.current
            clock.current = m.events[event].following
            if event >= n_lanes:
                _arrive(m, event - n_lanes)
            elif m.lanes[event].is_shared:
                _end_shared(m, event)
            else:
                _end_private(m, event)
        elif clock.n_asking > 0:
            _decide(m)
        elif clock.n_times > 0:
            _advance(m)
        else:
            return


# Private lanes


@inlined
def _move_private(m: Machine, number: int) -> None:
    """Pass on what is blocked, then start the next service, as far as either is possible."""
    lane = m.lanes[number]
    if lane.state == BLOCKED and not _pass_on(m, number):
        return
    if lane.state != WAITING or lane.n_started == lane.n_tokens or not _has_data(m, number):
        return
    now = m.clock[0].now_ps
    token = lane.tokens + lane.n_started
    m.start_ps[token] = now
    m.start_cause[token] = DATA if lane.data_ps >= lane.leave_ps else SERVER
    _take(m, number)
    if lane.buffer != NONE:
        lane.state = FETCHING
        _schedule(m, number, now + m.numbers[lane.fetch + lane.n_started * lane.fetch_step])
    else:
        lane.state = SERVING
        _schedule(m, number, now + m.numbers[lane.service + lane.n_started * lane.service_step])


@inlined
def _end_private(m: Machine, number: int) -> None:
    """A fetch or a service of a private lane is over."""
    lane = m.lanes[number]
    token = lane.n_started
    if lane.state == FETCHING:
        _release(m, lane.buffer, lane.reader)
        lane.state = SERVING
        service = m.numbers[lane.service + token * lane.service_step]
        _schedule(m, number, m.start_ps[lane.tokens + token] + service)
        return
    lane.end_ps = m.clock[0].now_ps
    if lane.output != NONE and (lane.emit == NONE or m.emits[lane.emit + token]):
        lane.state = BLOCKED
    else:
        _leave_private(m, number, SERVER)
    _wake(m, number)


@inlined
def _pass_on(m: Machine, number: int) -> bool:
    """Put a finished token into the output channel; False while that has no slot."""
    lane = m.lanes[number]
    if not _has_slot(m, lane.output):
        return False
    cause = CREDIT if _slot_ps(m, lane.output) >= lane.end_ps else SERVER
    m.channels[lane.output].n_reserved += 1
    _push(m, lane.output)
    lane.n_sent += 1
    _leave_private(m, number, cause)
    return True


@inlined
def _leave_private(m: Machine, number: int, cause: int) -> None:
    lane = m.lanes[number]
    token = lane.tokens + lane.n_started
    lane.leave_ps = m.clock[0].now_ps
    m.leave_ps[token] = lane.leave_ps
    m.leave_cause[token] = cause
    lane.n_started += 1
    lane.state = WAITING


# Shared servers


@inlined
def _look_for_grant(m: Machine, number: int) -> None:
    """Enter a lane into its server's heap once its next token has its data and its slots."""
    lane = m.lanes[number]
    if lane.is_ready or lane.n_started == lane.n_tokens or not _has_data(m, number) or not _has_credit(m, number):
        return
    lane.is_ready = 1
    server = m.servers[lane.server]
    first, at = server.first_lane, server.n_ready
    server.n_ready += 1
    while at > 0:
        above = (at - 1) >> 1
        time, other = m.ready_ps[first + above], m.ready_lane[first + above]
        if time < lane.data_ps or (time == lane.data_ps and other < number):
            break
        m.ready_ps[first + at], m.ready_lane[first + at] = time, other
        at = above
    m.ready_ps[first + at], m.ready_lane[first + at] = lane.data_ps, number
    if not server.is_busy:
        _ask(m, lane.server)


@inlined
def _ask(m: Machine, number: int) -> None:
    """Have a free server with a ready lane decide at the end of what is moving now."""
    clock = m.clock[0]
    if not m.servers[number].is_asking:
        m.servers[number].is_asking = 1
        m.asking[clock.n_asking] = number
        clock.n_asking += 1


@inlined
def _decide(m: Machine) -> None:
    """All servers that ask choose their oldest ready lane; only then does any of them start."""
    clock = m.clock[0]
    n_asking, clock.n_asking = clock.n_asking, 0
    for index in range(n_asking):
        m.servers[m.asking[index]].is_asking = 0
        m.chosen[index] = _oldest(m, m.asking[index])
    for index in range(n_asking):
        _grant(m, m.chosen[index])


@inlined
def _oldest(m: Machine, number: int) -> int:
    """Take the first lane off a server's heap."""
    server = m.servers[number]
    first = server.first_lane
    found = m.ready_lane[first]
    server.n_ready -= 1
    n = server.n_ready
    time, lane = m.ready_ps[first + n], m.ready_lane[first + n]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= n:
            break
        if below + 1 < n:
            left, right = m.ready_ps[first + below], m.ready_ps[first + below + 1]
            if right < left or (right == left and m.ready_lane[first + below + 1] < m.ready_lane[first + below]):
                below += 1
        below_ps, below_lane = m.ready_ps[first + below], m.ready_lane[first + below]
        if time < below_ps or (time == below_ps and lane < below_lane):
            break
        m.ready_ps[first + at], m.ready_lane[first + at] = below_ps, below_lane
        at = below
    m.ready_ps[first + at], m.ready_lane[first + at] = time, lane
    return found


@inlined
def _grant(m: Machine, number: int) -> None:
    """Start a service of a shared server; its slots are taken, and its header leaves, at once."""
    lane = m.lanes[number]
    server = m.servers[lane.server]
    now = m.clock[0].now_ps
    token = lane.tokens + lane.n_started
    m.start_ps[token] = now
    if lane.data_ps == now or (lane.data_ps == NONE and server.n_grants == 0):
        m.start_cause[token] = DATA
    elif lane.credit_ps == now:
        m.start_cause[token] = CREDIT
    elif server.last_lane == number:
        m.start_cause[token] = SERVER
    else:
        m.start_cause[token] = ARBITER
        m.predecessor[token] = server.n_grants - 1
    server.n_grants += 1
    server.last_lane = number
    server.is_busy = 1
    _take(m, number)
    if lane.emit == NONE or m.emits[lane.emit + lane.n_started]:
        for index in range(lane.n_reserves):
            place = m.numbers[lane.reserves + index]
            if place < len(m.channels):
                m.channels[place].n_reserved += 1
        for wire in range(lane.first_wire, lane.first_wire + lane.n_wires):
            _send(m, wire, lane.n_sent)
        lane.n_sent += 1
    _schedule(m, number, now + m.numbers[lane.service + lane.n_started * lane.service_step])
    lane.n_started += 1
    lane.is_ready = 0
    lane.n_credits = 0
    lane.credit_ps = NONE
    _wake(m, number)


@inlined
def _end_shared(m: Machine, number: int) -> None:
    """The service that a shared server granted last is over."""
    lane = m.lanes[number]
    server = m.servers[lane.server]
    token = lane.n_started - 1
    if lane.buffer != NONE:
        _release(m, lane.buffer, lane.reader)
    if lane.output != NONE and (lane.emit == NONE or m.emits[lane.emit + token]):
        _push(m, lane.output)
    m.leave_ps[lane.tokens + token] = m.clock[0].now_ps
    m.leave_cause[lane.tokens + token] = SERVER
    server.is_busy = 0
    if server.n_ready > 0:
        _ask(m, lane.server)


@inlined
def _send(m: Machine, number: int, sent: int) -> None:
    """A token enters a wire; only the first of those on their way has an event."""
    wire = m.wires[number]
    now = m.clock[0].now_ps
    arrives = now + m.numbers[wire.delay + sent * wire.delay_step]
    if arrives < wire.arrived_ps:
        m.clock[0].is_faulty = 1
    wire.arrived_ps = arrives
    if not wire.is_pending:
        wire.is_pending = 1
        wire.token = m.lanes[wire.lane].n_started
        _schedule(m, len(m.lanes) + number, arrives)


@inlined
def _arrive(m: Machine, number: int) -> None:
    """A token comes out of a wire; the one behind it is scheduled."""
    wire = m.wires[number]
    lane = m.lanes[wire.lane]
    if wire.channel != NONE:
        _push(m, wire.channel)
    else:
        _deliver(m, wire.buffer, wire.source)
    wire.n_arrived += 1
    if wire.n_arrived == lane.n_sent:
        wire.is_pending = 0
        return
    wire.token += 1
    if lane.emit != NONE:
        while not m.emits[lane.emit + wire.token]:
            wire.token += 1
    sent_ps = m.start_ps[lane.tokens + wire.token]
    _schedule(m, len(m.lanes) + number, sent_ps + m.numbers[wire.delay + wire.n_arrived * wire.delay_step])


# What a token needs before it moves


@inlined
def _has_data(m: Machine, number: int) -> bool:
    """Whether the next token's input is there; `data_ps` then says since when."""
    lane = m.lanes[number]
    if lane.buffer != NONE:
        buffer = m.buffers[lane.buffer]
        need = m.numbers[buffer.need + lane.n_started]
        if need >= buffer.n_complete:
            return False
        lane.data_ps = NONE if need < 0 else m.complete_ps[buffer.times + need]
        return True
    while lane.n_data < lane.n_inputs:
        channel = m.channels[m.numbers[lane.inputs + lane.n_data]]
        if channel.n_waiting == 0:
            return False
        lane.data_ps = max(lane.data_ps, m.arrivals[channel.ring + channel.head])
        lane.n_data += 1
    return True


@inlined
def _has_credit(m: Machine, number: int) -> bool:
    """Whether every place that the next token reserves has room; `credit_ps` then says since when."""
    lane = m.lanes[number]
    if lane.emit != NONE and not m.emits[lane.emit + lane.n_started]:
        return True
    while lane.n_credits < lane.n_reserves:
        place = m.numbers[lane.reserves + lane.n_credits]
        if place < len(m.channels):
            if not _has_slot(m, place):
                return False
            slot_ps = _slot_ps(m, place)
        else:
            buffer = m.buffers[place - len(m.channels)]
            position = lane.n_sent if lane.positions == NONE else m.numbers[lane.positions + lane.n_sent]
            freed_by = position - buffer.capacity
            if freed_by >= buffer.n_released:
                return False
            slot_ps = NONE if freed_by < 0 else m.released_ps[buffer.times + freed_by]
        lane.credit_ps = max(lane.credit_ps, slot_ps)
        lane.n_credits += 1
    return True


@inlined
def _wake(m: Machine, lane: int) -> None:
    """Look at a lane again, as something around it changed."""
    if lane != NONE and not m.lanes[lane].is_woken:
        m.lanes[lane].is_woken = 1
        m.woken[m.clock[0].n_woken] = lane
        m.clock[0].n_woken += 1


# Channels


@inlined
def _has_slot(m: Machine, number: int) -> bool:
    channel = m.channels[number]
    return channel.capacity == 0 or channel.n_reserved < channel.capacity + channel.n_popped


@inlined
def _slot_ps(m: Machine, number: int) -> int:
    """Since when the next slot has been free: the n-th one since token n - capacity was taken."""
    channel = m.channels[number]
    if channel.capacity == 0 or channel.n_reserved < channel.capacity:
        return NONE
    return m.start_ps[channel.consumer_tokens + channel.n_reserved - channel.capacity]


@inlined
def _push(m: Machine, number: int) -> None:
    channel = m.channels[number]
    if channel.n_waiting == channel.ring_size:
        m.clock[0].is_faulty = 1
        return
    _count(m, number)
    at = channel.head + channel.n_waiting
    m.arrivals[channel.ring + (at if at < channel.ring_size else at - channel.ring_size)] = m.clock[0].now_ps
    channel.n_waiting += 1
    channel.peak = max(channel.peak, 1)
    _wake(m, channel.consumer)


@inlined
def _take(m: Machine, number: int) -> None:
    """Take the next token's input out of its channels, whose slots come free."""
    lane = m.lanes[number]
    for index in range(lane.n_inputs):
        place = m.numbers[lane.inputs + index]
        channel = m.channels[place]
        _count(m, place)
        channel.head = channel.head + 1 if channel.head + 1 < channel.ring_size else 0
        channel.n_waiting -= 1
        channel.n_popped += 1
        if channel.capacity > 0:
            _wake(m, channel.producer)
    lane.n_data = 0
    lane.data_ps = NONE


@inlined
def _count(m: Machine, number: int) -> None:
    """Account for the time since a channel's last change."""
    channel = m.channels[number]
    elapsed_ps = m.clock[0].now_ps - channel.since_ps
    if elapsed_ps:
        channel.integral += channel.n_waiting * elapsed_ps
        channel.peak = max(channel.peak, channel.n_waiting)
        channel.since_ps = m.clock[0].now_ps


# Line buffers


@inlined
def _deliver(m: Machine, number: int, source_number: int) -> None:
    """A source has delivered its part of its next position; wake the readers if positions are complete."""
    buffer, source = m.buffers[number], m.sources[source_number]
    source.n_delivered += 1
    was = source.covered
    source.covered = source.n_delivered if source.covers == NONE else m.numbers[source.covers + source.n_delivered]
    if was == buffer.covered and source.covered > was:
        buffer.n_slowest -= 1
        if buffer.n_slowest == 0:
            _find_slowest(m, number)
    if buffer.covered <= buffer.n_complete:
        return
    m.complete_ps[buffer.times + buffer.n_complete : buffer.times + buffer.covered] = m.clock[0].now_ps
    buffer.n_complete = buffer.covered
    for reader in range(buffer.first_reader, buffer.first_reader + buffer.n_readers):
        _wake(m, m.readers[reader].lane)


@inlined
def _find_slowest(m: Machine, number: int) -> None:
    buffer = m.buffers[number]
    buffer.covered = m.sources[buffer.first_source].covered
    for source in range(buffer.first_source, buffer.first_source + buffer.n_sources):
        if m.sources[source].covered < buffer.covered:
            buffer.covered, buffer.n_slowest = m.sources[source].covered, 0
        if m.sources[source].covered == buffer.covered:
            buffer.n_slowest += 1


@inlined
def _release(m: Machine, number: int, reader_number: int) -> None:
    """A reader has fetched its next token; wake the senders if positions came free."""
    buffer, reader = m.buffers[number], m.readers[reader_number]
    if reader.n_fetched == buffer.fetched:
        buffer.n_latest -= 1
    reader.n_fetched += 1
    if buffer.n_latest == 0:
        buffer.fetched += 1
        for each in range(buffer.first_reader, buffer.first_reader + buffer.n_readers):
            if m.readers[each].n_fetched == buffer.fetched:
                buffer.n_latest += 1
    before = buffer.n_released
    while buffer.n_released < buffer.n_positions and m.numbers[buffer.last_use + buffer.n_released] < buffer.fetched:
        m.released_ps[buffer.times + buffer.n_released] = m.clock[0].now_ps
        buffer.n_released += 1
    if buffer.n_released > before:
        for index in range(buffer.n_senders):
            _wake(m, m.numbers[buffer.senders + index])


# Time


@inlined
def _schedule(m: Machine, event: int, time_ps: int) -> None:
    """Let an event happen at a time that is not before now."""
    clock, item = m.clock[0], m.events[event]
    if time_ps == clock.now_ps:
        item.following = clock.current
        clock.current = event
        return
    entry = _entry(m, time_ps)
    first = m.table[entry]
    while first != NONE and m.events[first].time_ps != time_ps:
        first = m.events[first].colliding
    if first != NONE:
        item.following = m.events[first].following
        m.events[first].following = event
        return
    item.time_ps, item.following, item.colliding = time_ps, NONE, m.table[entry]
    m.table[entry] = event
    at = clock.n_times
    clock.n_times += 1
    while at > 0:
        above = (at - 1) >> 1
        if m.time_ps[above] <= time_ps:
            break
        m.time_ps[at], m.time_event[at] = m.time_ps[above], m.time_event[above]
        at = above
    m.time_ps[at], m.time_event[at] = time_ps, event


@inlined
def _advance(m: Machine) -> None:
    """Go to the next time at which something happens."""
    clock = m.clock[0]
    clock.now_ps, first = m.time_ps[0], m.time_event[0]
    clock.current = first
    entry = _entry(m, clock.now_ps)
    if m.table[entry] == first:
        m.table[entry] = m.events[first].colliding
    else:
        before = m.table[entry]
        while m.events[before].colliding != first:
            before = m.events[before].colliding
        m.events[before].colliding = m.events[first].colliding
    clock.n_times -= 1
    n = clock.n_times
    time, event = m.time_ps[n], m.time_event[n]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= n:
            break
        if below + 1 < n and m.time_ps[below + 1] < m.time_ps[below]:
            below += 1
        if time <= m.time_ps[below]:
            break
        m.time_ps[at], m.time_event[at] = m.time_ps[below], m.time_event[below]
        at = below
    m.time_ps[at], m.time_event[at] = time, event


@inlined
def _entry(m: Machine, time_ps: int) -> int:
    """Hash of a time: times are multiples of clock periods, so their low bits say little."""
    return (time_ps ^ (time_ps >> 7) ^ (time_ps >> 19)) & (len(m.table) - 1)

"""The compiled execution of a netlist: one event loop over integer time, compiled with numba.

It knows nothing of the SimPy execution and shares no timing with it; `archsim.engine.compiled_execution`
fills its tables from a netlist and reads the times back.

Every lane, wire, and virtual channel (of three kinds of event) has at most one event under way, so an event
is the number of its lane, of its wire behind all lanes, or of its virtual channel behind those. Events of
equal time form a list; a heap orders the lists, a hash table finds the list of a time. What happens within
an instant has one outcome in whatever order it is worked off, except for grants: they are decided together,
once nothing else moves (`_decide`).

All compiled functions are in this file, as kept machine code is made anew when its file changes, and only then.
"""

from __future__ import annotations

import numpy as np

from archsim.engine.machine import Machine
from archsim.eventlog import ARBITER, CREDIT, DATA, SERVER
from archsim.jit import compiled, inlined

NONE = -1
"""Index that points nowhere; as a time: from the beginning."""

PRIVATE, SHARED, ROUTER = range(3)
"""Policies of servers."""

CREDITED, REUSABLE, MOVABLE = range(3)
"""Events of a virtual channel: a slot may be used, it may be granted again, its first packet may move on."""

WAITING, FETCHING, SERVING, BLOCKED = range(4)
"""What a private lane does. `FETCHING` ends when its line-buffer positions are given free."""


@compiled
def run(m: Machine) -> None:
    """Execute until nothing moves."""
    n_lanes = len(m.lanes)
    first_virtual = n_lanes + len(m.wires)
    clock = m.clock[0]
    for lane in range(n_lanes):
        _wake(m, lane)
    while True:
        if clock.n_planned > 0:
            clock.n_planned -= 1
            _schedule(m, m.planned[clock.n_planned], m.planned_ps[clock.n_planned])
        elif clock.n_woken > 0:
            clock.n_woken -= 1
            lane = m.woken[clock.n_woken]
            m.lanes[lane].is_woken = 0
            if m.lanes[lane].policy == SHARED:
                _look_for_grant(m, lane)
            elif m.lanes[lane].policy == PRIVATE:
                _move_private(m, lane)
            else:
                _look_at_arrivals(m, lane)
        elif clock.current != NONE:
            event = clock.current
            clock.current = m.events[event].following
            if event >= first_virtual:
                _change_virtual(m, (event - first_virtual) // 3, (event - first_virtual) % 3)
            elif event >= n_lanes:
                _arrive(m, event - n_lanes)
            elif m.lanes[event].policy == SHARED:
                _end_shared(m, event)
            elif m.lanes[event].policy == PRIVATE:
                _end_private(m, event)
            else:
                _ask(m, m.lanes[event].server)
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
    """All servers that ask choose their oldest ready lane, routers several; only then does any of them start."""
    clock = m.clock[0]
    n_asking, clock.n_asking = clock.n_asking, 0
    n_chosen = 0
    for index in range(n_asking):
        m.servers[m.asking[index]].is_asking = 0
        if m.servers[m.asking[index]].policy == SHARED:
            m.chosen[n_chosen] = _oldest(m, m.asking[index])
            n_chosen += 1
        else:
            n_chosen = _choose(m, m.asking[index], n_chosen)
    for index in range(n_chosen):
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
    """Start a service of a shared server or router; its slots are taken, and its header leaves, at once."""
    lane = m.lanes[number]
    server = m.servers[lane.server]
    now = m.clock[0].now_ps
    token = lane.tokens + lane.n_started
    end_ps = now + m.numbers[lane.service + lane.n_started * lane.service_step]
    is_shared = lane.policy == SHARED
    is_head = is_shared or _begins(m, lane, lane.n_started)
    m.start_ps[token] = now
    if is_shared:
        _log_grant(m, number)
        server.is_busy = 1
        server.last_lane = number
        lane.is_ready = 0
    else:
        _log_passage(m, number, is_head)
        m.leave_ps[token] = end_ps
        m.leave_cause[token] = SERVER
    if is_head or lane.entry != NONE:
        _take(m, number)
    if lane.emit == NONE or m.emits[lane.emit + lane.n_started]:
        if is_head:
            for index in range(lane.n_reserves):
                place = m.numbers[lane.reserves + index]
                if place < len(m.channels):
                    m.channels[place].n_reserved += 1
        for wire in range(lane.first_wire, lane.first_wire + lane.n_wires):
            _send(m, wire, lane.n_sent)
        lane.n_sent += 1
    if is_head:
        lane.n_credits = 0
        lane.credit_ps = NONE
    _schedule(m, number, end_ps)
    lane.n_started += 1
    if is_shared:
        _wake(m, number)
    else:
        _pass_through(m, number, is_head, end_ps)
    server.n_grants += 1


@inlined
def _log_grant(m: Machine, number: int) -> None:
    """Why a lane of a shared server is served only now."""
    lane = m.lanes[number]
    server = m.servers[lane.server]
    now = m.clock[0].now_ps
    token = lane.tokens + lane.n_started
    if lane.data_ps == now or (lane.data_ps == NONE and server.n_grants == 0):
        m.start_cause[token] = DATA
    elif lane.credit_ps == now:
        m.start_cause[token] = CREDIT
    elif server.last_lane == number:
        m.start_cause[token] = SERVER
    else:
        m.start_cause[token] = ARBITER
        m.predecessor[token] = server.n_grants - 1


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


# Routers


@inlined
def _begins(m: Machine, lane: np.record, token: int) -> bool:
    """Whether a token is the head of a packet."""
    return lane.tails == NONE or token == 0 or m.emits[lane.tails + token - 1]


@compiled
def _look_at_arrivals(m: Machine, number: int) -> None:
    """Heads that have arrived join the queue of their virtual channel; the first of the branches speaks for all."""
    lane = m.lanes[number]
    if lane.n_branches > 0 and m.numbers[lane.branches] == number:
        channel = m.channels[m.numbers[lane.inputs]]
        while lane.n_seen < channel.n_popped + channel.n_waiting:
            if _begins(m, lane, lane.n_seen):
                sent = m.sent_channel[m.lanes[lane.feeder].tokens + lane.n_seen]
                virtual = m.virtual[m.links[lane.entry].first_channel + sent]
                at = virtual.head + virtual.n_packets
                place = virtual.queue + (at if at < virtual.queue_size else at - virtual.queue_size)
                m.queue_lane[place], m.queue_packet[place] = number, lane.n_heads_seen
                virtual.n_packets += 1
                lane.n_heads_seen += 1
            lane.n_seen += 1
    _ask(m, lane.server)


@compiled
def _change_virtual(m: Machine, number: int, what: int) -> None:
    """A time has come for which a virtual channel had been waiting."""
    virtual = m.virtual[number]
    link = m.links[virtual.link]
    if what == CREDITED:
        virtual.n_credited += 1
        virtual.is_pending = 0
        if virtual.n_credited < virtual.n_freed:
            virtual.is_pending = 1
            _plan(m, number, CREDITED, m.slot_ps[virtual.slots + virtual.n_credited % link.depth])
    _ask(m, link.receiver if what == MOVABLE else link.sender)


@inlined
def _plan(m: Machine, number: int, what: int, time_ps: int) -> None:
    """Let something happen to a virtual channel later; put on the heap by the loop, as that is much code."""
    clock = m.clock[0]
    m.planned[clock.n_planned] = len(m.lanes) + len(m.wires) + 3 * number + what
    m.planned_ps[clock.n_planned] = time_ps
    clock.n_planned += 1


@compiled
def _choose(m: Machine, number: int, n_chosen: int) -> int:
    """Append the lanes that a router grants: oldest first, then lowest lane, one per link on either side."""
    server = m.servers[number]
    n = 0
    for index in range(server.n_sources):
        lane = m.numbers[server.sources + index]
        if m.lanes[lane].n_started < m.lanes[lane].n_tokens:
            m.candidates[n] = lane
            n += 1
    for index in range(server.n_entries):
        link = m.links[m.numbers[server.entries + index]]
        for channel in range(link.n_channels):
            virtual = m.virtual[link.first_channel + channel]
            if virtual.n_packets > 0 and virtual.next_ps <= m.clock[0].now_ps:
                first = m.lanes[m.queue_lane[virtual.queue + virtual.head]]
                for branch in range(first.n_branches):
                    lane = m.numbers[first.branches + branch]
                    if m.lanes[lane].n_tails == m.queue_packet[virtual.queue + virtual.head]:
                        m.lanes[lane].entry_channel, m.lanes[lane].next_ps = channel, virtual.next_ps
                        m.candidates[n] = lane
                        n += 1
    n_found, n = n, 0
    for index in range(n_found):
        if _could_go(m, m.candidates[index]):
            m.candidates[n] = m.candidates[index]
            n += 1
    before = n_chosen
    while True:
        best = NONE
        for index in range(n):
            number = m.candidates[index]
            lane = m.lanes[number]
            if m.links[lane.exit].is_taken or (lane.entry != NONE and _is_other_flit(m, lane)):
                continue
            if best == NONE or (lane.age_ps, number) < (m.lanes[best].age_ps, best):
                best = number
        if best == NONE:
            break
        lane = m.lanes[best]
        m.links[lane.exit].is_taken = 1
        if lane.entry != NONE:
            entry = m.links[lane.entry]
            entry.is_read, entry.read_channel, entry.read_token = 1, lane.entry_channel, lane.n_started
        m.chosen[n_chosen] = best
        n_chosen += 1
    for index in range(before, n_chosen):
        lane = m.lanes[m.chosen[index]]
        m.links[lane.exit].is_taken = 0
        if lane.entry != NONE:
            m.links[lane.entry].is_read = 0
    return n_chosen


@inlined
def _is_other_flit(m: Machine, lane: np.record) -> bool:
    """Whether a buffer gives another flit in this decision than the one that a lane asks for."""
    entry = m.links[lane.entry]
    return entry.is_read and (entry.read_channel != lane.entry_channel or entry.read_token != lane.n_started)


@inlined
def _gave(entry: np.record, now_ps: int, channel: int, token: int) -> bool:
    """Whether a buffer has given this flit in this instant, to another branch."""
    return entry.flit_ps == now_ps and entry.flit_channel == channel and entry.flit_token == token


@inlined
def _could_go(m: Machine, number: int) -> bool:
    """Whether a lane's next flit is here, and its links and slots are free; fills in what the grant needs."""
    lane = m.lanes[number]
    link = m.links[lane.exit]
    now = m.clock[0].now_ps
    token = lane.n_started
    is_head = _begins(m, lane, token)
    if link.free_ps > now:
        return False
    if lane.entry != NONE:
        entry = m.links[lane.entry]
        if entry.read_free_ps > now and not _gave(entry, now, lane.entry_channel, token):
            return False
    if is_head or lane.entry != NONE:
        channel = m.channels[m.numbers[lane.inputs]]
        if channel.n_waiting == 0:
            return False
        lane.packet_ps = m.arrivals[channel.ring + channel.head]
    lane.slot_ps = NONE
    if is_head:
        if not _has_credit(m, number):
            return False
        lane.slot_ps = lane.credit_ps
    lane.next_channel = _channel_for_head(m, lane.exit) if is_head else lane.channel
    if lane.next_channel == NONE or not _has_flit_slot(m, lane.exit, lane.next_channel):
        return False
    if link.depth > 0:
        virtual = m.virtual[link.first_channel + lane.next_channel]
        lane.slot_ps = max(lane.slot_ps, m.slot_ps[virtual.slots + virtual.n_used % link.depth])
    since_ps = lane.next_ps if is_head else m.leave_ps[lane.tokens + token - 1]
    lane.age_ps = max(lane.packet_ps, since_ps)
    return True


@inlined
def _channel_for_head(m: Machine, number: int) -> int:
    """Next virtual channel of a link, in turn, that is free and has a slot; NONE if a head must wait."""
    link = m.links[number]
    now = m.clock[0].now_ps
    n_taken = 0
    for channel in range(link.first_channel, link.first_channel + link.n_channels):
        if m.virtual[channel].is_owned or m.virtual[channel].reuse_ps > now:
            n_taken += 1
    if n_taken >= link.packets:
        return NONE
    for offset in range(1, link.n_channels + 1):
        channel = (link.last + offset) % link.n_channels
        virtual = m.virtual[link.first_channel + channel]
        if not virtual.is_owned and virtual.reuse_ps <= now and _has_flit_slot(m, number, channel):
            return channel
    return NONE


@inlined
def _has_flit_slot(m: Machine, number: int, channel: int) -> bool:
    link = m.links[number]
    virtual = m.virtual[link.first_channel + channel]
    if link.depth == 0:
        return True
    if virtual.n_used == virtual.n_freed:
        return False
    return m.slot_ps[virtual.slots + virtual.n_used % link.depth] <= m.clock[0].now_ps


@compiled
def _pass_through(m: Machine, number: int, is_head: bool, end_ps: int) -> None:
    """What a granted flit does to the link it leaves by, and to the one it came by."""
    lane = m.lanes[number]
    link = m.links[lane.exit]
    server = m.servers[lane.server]
    token = lane.n_started - 1
    virtual_number = link.first_channel + lane.next_channel
    virtual = m.virtual[virtual_number]
    if is_head:
        link.last = lane.channel = lane.next_channel
        virtual.is_owned = 1
        m.sent_channel[lane.tokens + token] = lane.channel
    if link.depth > 0:
        virtual.n_used += 1
    link.free_ps, link.sent_by = end_ps, server.n_grants
    is_tail = lane.tails == NONE or m.emits[lane.tails + token]
    if is_tail:
        virtual.is_owned = 0
        virtual.reuse_ps, virtual.freed_by = end_ps + link.reuse_ps, server.n_grants
        _plan(m, virtual_number, REUSABLE, virtual.reuse_ps)
        lane.n_tails += 1
    if lane.entry != NONE:
        _leave_entry(m, number, token, is_tail, end_ps)
    lane.last_service = server.n_grants


@inlined
def _leave_entry(m: Machine, number: int, token: int, is_tail: bool, end_ps: int) -> None:
    """A buffer has given a flit; its slot comes free when all branches have taken it."""
    lane = m.lanes[number]
    entry = m.links[lane.entry]
    server = m.servers[lane.server]
    if not _gave(entry, m.clock[0].now_ps, lane.entry_channel, token):
        entry.before_ps, entry.before_by = entry.read_free_ps, entry.read_by
    entry.read_free_ps, entry.read_by = end_ps, server.n_grants
    entry.flit_ps, entry.flit_channel, entry.flit_token = m.clock[0].now_ps, lane.entry_channel, token
    for index in range(lane.n_branches):
        if m.lanes[m.numbers[lane.branches + index]].n_started <= token:
            return
    virtual_number = entry.first_channel + lane.entry_channel
    virtual = m.virtual[virtual_number]
    if entry.depth > 0:
        credit_ps = m.clock[0].now_ps + entry.credit_ps
        m.slot_ps[virtual.slots + virtual.n_freed % entry.depth] = credit_ps
        virtual.n_freed += 1
        if not virtual.is_pending:
            virtual.is_pending = 1
            _plan(m, virtual_number, CREDITED, credit_ps)
    if is_tail:
        virtual.head = virtual.head + 1 if virtual.head + 1 < virtual.queue_size else 0
        virtual.n_packets -= 1
        virtual.next_ps, virtual.left_by = end_ps + entry.next_ps, server.n_grants
        _plan(m, virtual_number, MOVABLE, virtual.next_ps)


@compiled
def _log_passage(m: Machine, number: int, is_head: bool) -> None:
    """Why a flit goes only now: what came last, among its arrival, its slots, and the services it waited for."""
    lane = m.lanes[number]
    link = m.links[lane.exit]
    now = m.clock[0].now_ps
    token = lane.tokens + lane.n_started
    if lane.packet_ps == now or (lane.packet_ps == NONE and m.servers[lane.server].n_grants == 0):
        m.start_cause[token] = DATA
        return
    if lane.slot_ps == now:
        m.start_cause[token] = CREDIT
        return
    last = link.sent_by if link.free_ps == now else NONE
    if lane.entry != NONE:
        entry = m.links[lane.entry]
        is_copy = _gave(entry, now, lane.entry_channel, lane.n_started)
        read_ps, read_by = (entry.before_ps, entry.before_by) if is_copy else (entry.read_free_ps, entry.read_by)
        if read_ps == now:
            last = max(last, read_by)
    if is_head:
        for channel in range(link.first_channel, link.first_channel + link.n_channels):
            if m.virtual[channel].reuse_ps == now:
                last = max(last, m.virtual[channel].freed_by)
        if lane.entry != NONE:
            virtual = m.virtual[m.links[lane.entry].first_channel + lane.entry_channel]
            if virtual.next_ps == now:
                last = max(last, virtual.left_by)
    if last == lane.last_service:
        m.start_cause[token] = SERVER
    else:
        m.start_cause[token] = ARBITER
        m.predecessor[token] = last


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
            sent = lane.n_tails if lane.policy == ROUTER else lane.n_sent
            position = sent if lane.positions == NONE else m.numbers[lane.positions + sent]
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
    taken = channel.n_reserved - channel.capacity
    return m.start_ps[channel.consumer_tokens + (taken if channel.heads == NONE else m.numbers[channel.heads + taken])]


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

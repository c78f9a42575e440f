"""The tables that the kernel works on: columns of what it knows of every lane, server, channel, ...

`archsim.engine.compiled_execution` fills them from a netlist. All are flat, and rows point to each other by number.
Columns without a comment mean what the netlist's classes say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
        ("policy", "i4"),
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
        # in routers only
        ("tails", "i8"),  # where the mask begins in `emits`; NONE: every token is a packet
        ("branches", "i8"),  # lanes that take on the same packets, in `numbers`
        ("n_branches", "i4"),
        ("entry", "i4"),
        ("exit", "i4"),
        ("feeder", "i4"),
        ("n_seen", "i4"),  # arrived tokens that have been looked at
        ("n_heads_seen", "i4"),
        ("n_tails", "i4"),
        ("channel", "i4"),  # virtual channel that the packet under way goes into
        ("next_channel", "i4"),  # ... that the next flit goes into
        ("entry_channel", "i4"),  # ... that it comes out of
        ("next_ps", "i8"),  # since when its packet has been the first
        ("age_ps", "i8"),  # since when it asks
        ("slot_ps", "i8"),  # since when its slots have been free
        ("packet_ps", "i8"),  # when the packet under way arrived
        ("last_service", "i8"),
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
        ("policy", "i4"),
        ("entries", "i8"),  # links by which packets come, in `numbers`
        ("sources", "i8"),  # lanes whose packets begin here, in `numbers`
        ("n_entries", "i4"),
        ("n_sources", "i4"),
    ],
    align=True,
)
LINK = np.dtype(
    [
        ("free_ps", "i8"),
        ("read_free_ps", "i8"),
        ("sent_by", "i8"),
        ("read_by", "i8"),
        ("flit_ps", "i8"),  # time, virtual channel and token of what the buffer gave last
        ("reuse_ps", "i8"),
        ("next_ps", "i8"),
        ("credit_ps", "i8"),
        ("before_ps", "i8"),  # when its output was free for that, and which service had used it
        ("before_by", "i8"),
        ("flit_channel", "i4"),
        ("flit_token", "i4"),
        ("first_channel", "i4"),
        ("n_channels", "i4"),
        ("depth", "i4"),
        ("packets", "i4"),
        ("last", "i4"),
        ("sender", "i4"),
        ("receiver", "i4"),
        ("is_taken", "i4"),  # by a grant of this decision
        ("is_read", "i4"),
        ("read_channel", "i4"),  # what it gives in this decision
        ("read_token", "i4"),
    ],
    align=True,
)
VIRTUAL = np.dtype(
    [
        ("slots", "i8"),  # where the times of its slots begin in `slot_ps`: a ring as long as the link's depth
        ("queue", "i8"),  # where its packets begin in `queue_lane`, `queue_packet`: rings
        ("reuse_ps", "i8"),
        ("next_ps", "i8"),
        ("freed_by", "i8"),
        ("left_by", "i8"),
        ("link", "i4"),
        ("queue_size", "i4"),
        ("head", "i4"),
        ("n_packets", "i4"),
        ("n_freed", "i4"),  # slots given back, those of the beginning included
        ("n_used", "i4"),
        ("n_credited", "i4"),  # slots given back whose time has come
        ("is_pending", "i4"),
        ("is_owned", "i4"),
    ],
    align=True,
)
CHANNEL = np.dtype(
    [
        ("ring", "i8"),  # where arrival times begin in `arrivals`
        ("consumer_tokens", "i8"),  # where the consumer's tokens begin in the trace arrays
        ("heads", "i8"),  # which of them take something out, in `numbers`; NONE: all
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
        ("n_planned", "i4"),
        ("is_faulty", "i4"),  # tokens overtook each other, or a channel got more than it has room for
    ],
    align=True,
)


class Machine(NamedTuple):
    """A netlist as tables, with the state of its execution and the trace it writes."""

    lanes: np.recarray
    servers: np.recarray
    channels: np.recarray
    links: np.recarray
    virtual: np.recarray
    buffers: np.recarray
    sources: np.recarray
    readers: np.recarray
    wires: np.recarray
    numbers: np.ndarray
    """int64 lists that the tables point into."""
    emits: np.ndarray
    arrivals: np.ndarray
    """Arrival times of the tokens waiting in each channel: rings."""
    slot_ps: np.ndarray
    queue_lane: np.ndarray
    queue_packet: np.ndarray
    sent_channel: np.ndarray
    """Virtual channel of every packet, at its head's place among the tokens of its lane."""
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
    candidates: np.ndarray
    planned: np.ndarray
    planned_ps: np.ndarray
    clock: np.recarray

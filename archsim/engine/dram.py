"""The DRAM channel: one server for the input that is loaded, frames that are spilled, and weights that are reloaded.

Like the port of the global buffer it serves the oldest request first. It sits at the node of the
input and output port (assumption).
"""

from __future__ import annotations

import numpy as np

from archsim.components import chip_ports, dram
from archsim.components.netlist import UNBOUNDED, Action, Lane, Target, Wire
from archsim.engine import global_buffer
from archsim.engine.construction import Construction
from archsim.engine.transport import Stream
from archsim.eventlog import Movement


def add_load(build: Construction, stream: Stream, target: Target) -> None:
    """Load positions of the input to where they wait in the global buffer, as far as there is room for them."""
    hardware, name, n_tokens = build.hardware, f"{stream.name}.load", stream.n_tokens
    request = build.netlist.channel(f"{name}.request", 1)
    build.netlist.server(f"{name}.request", "private", stream.lane((), output=request))
    read = _access(build, stream, "read", Movement("dram", "global_buffer", stream.data_class, "dram"))
    loaded = build.netlist.channel(f"{name}.loaded", UNBOUNDED)  # room in the global buffer is reserved
    lane = stream.lane((read,), inputs=(request,), wires=(_arrival(build, read, loaded),), reserves=(target,))
    build.shared(dram.COMPONENT).lanes.append(lane)
    build.netlist.input_lanes.append(lane)
    write = chip_ports.stage_write_action(hardware, "dram", stream.data_class, n_tokens, stream.bits)
    lane = stream.lane((write,), inputs=(loaded,), wires=(Wire(target, write.duration_ps),))
    build.shared(global_buffer.PORT).lanes.append(lane)


def add_write(build: Construction, stream: Stream, source: str, targets: tuple[Target, ...]) -> Target:
    """Write a stream to DRAM and tell line buffers when a position is there; returns the latch before the channel."""
    action = _access(build, stream, "write", Movement(source, "dram", stream.data_class, "dram"))
    inbox = build.channel(f"{dram.COMPONENT}.{stream.name}.write")
    wires = tuple(Wire(target, action.duration_ps) for target in targets)
    build.shared(dram.COMPONENT).lanes.append(stream.lane((action,), inputs=(inbox,), wires=wires, reserves=targets))
    return Target("channel", inbox)


def add_read(build: Construction, stream: Stream, reader: tuple[int, int]) -> int:
    """Read positions from DRAM when a line buffer says that they are there; returns the latch behind the channel."""
    lane, outbox = _reading(build, stream, Movement("dram", stream.name, stream.data_class, "dram"))
    lane.reader, lane.release_after = reader, 1
    return outbox


def add_fetch(build: Construction, stream: Stream, request: int) -> int:
    """Read a stream from DRAM, a token for every request; returns the latch behind the channel."""
    lane, outbox = _reading(build, stream, Movement("dram", stream.destination, stream.data_class, "dram"))
    lane.inputs = (request,)
    build.netlist.input_lanes.append(lane)
    return outbox


def _reading(build: Construction, stream: Stream, movement: Movement) -> tuple[Lane, int]:
    read = _access(build, stream, "read", movement)
    outbox = build.netlist.channel(f"{stream.name}.out", build.hardware.chip.dram.queue_depth)
    lane = stream.lane((read,), wires=(_arrival(build, read, outbox),), reserves=(Target("channel", outbox),))
    build.shared(dram.COMPONENT).lanes.append(lane)
    return lane, outbox


def _access(build: Construction, stream: Stream, name: str, movement: Movement) -> Action:
    bits = np.broadcast_to(np.asarray(stream.bits, np.int64), (stream.n_tokens,))
    tokens = np.arange(stream.n_tokens) if stream.labels is None else stream.labels
    return dram.access_action(build.hardware, name, bits, tokens // stream.positions, movement)


def _arrival(build: Construction, read: Action, channel: int) -> Wire:
    return Wire(Target("channel", channel), read.duration_ps + dram.latency_ps(build.hardware))

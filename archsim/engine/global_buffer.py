"""The port of the global buffer: one server that everything goes through that is read from it or written to it.

Reads of the network's input and of staged frames, staged writes and outputs are lanes of one port. What has waited
longest goes first: a write since it came, a staged position since its frame is complete, an input position since the
reading of the one before it began.
"""

from __future__ import annotations

from archsim.components.netlist import Action, Lane, Target, Wire
from archsim.engine.construction import Construction
from archsim.engine.transport import Stream

PORT = "global_buffer"


def add_read(
    build: Construction, stream: Stream, action: Action, reader: tuple[int, int] | None = None
) -> tuple[Lane, int]:
    """Read a stream from the buffer.

    Args:
        build: The netlist under construction.
        stream: What is read.
        action: The reading of one token, with the time that it holds the port.
        reader: Line buffer and reader index of what must be there first; None: all of it is there from the beginning.

    Returns:
        The lane of the port, and the latch behind it.
    """
    # one slot more than a latch: the register of the port, which is never held while it is blocked
    outbox = build.netlist.channel(f"{stream.name}.out", build.hardware.tile.pe.latch_depth + 1)
    lane = stream.lane((action,), output=outbox)
    if reader is None:
        request = build.netlist.channel(f"{stream.name}.request", 1)
        build.netlist.server(f"{stream.name}.request", "private", stream.lane((), output=request))
        lane.inputs = (request,)
    else:
        lane.reader, lane.release_after = reader, 1
    build.shared(PORT).lanes.append(lane)
    return lane, outbox


def add_write(
    build: Construction, stream: Stream, action: Action, targets: tuple[Target, ...] = ()
) -> tuple[Lane, Target]:
    """Write a stream to the buffer, and tell line buffers when a position is there; returns the lane and its latch."""
    inbox = build.channel(f"{PORT}.{stream.name}.write")
    wires = tuple(Wire(target, action.duration_ps) for target in targets)
    lane = stream.lane((action,), inputs=(inbox,), wires=wires, reserves=targets)
    build.shared(PORT).lanes.append(lane)
    return lane, Target("channel", inbox)

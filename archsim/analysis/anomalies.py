"""Whether a longer run is an anomaly: nothing is slower, no buffer is smaller, and yet it takes longer.

On private parts and in fixed order that cannot be: times are maxima and sums of services. Where a shared part grants
its oldest request first, a faster part can let another stream through first and delay the one that matters.
Source: Graham, Bounds on Multiprocessing Timing Anomalies, SIAM Journal on Applied Mathematics 17(2), 1969.
"""

from __future__ import annotations

import numpy as np

from archsim.components.netlist import UNBOUNDED, Lane, Netlist


def is_nowhere_slower(netlist: Netlist, before: Netlist) -> bool:
    """Whether a netlist has the lanes of another one, with services, fetches, wires, latches and buffers no worse."""
    lanes, lanes_before = netlist.lanes(), before.lanes()
    if [_shape(lane) for lane in lanes] != [_shape(lane) for lane in lanes_before]:
        return False
    rooms = [(new.capacity, old.capacity) for new, old in zip(netlist.channels, before.channels, strict=True)]
    rooms += [(new.capacity, old.capacity) for new, old in zip(netlist.buffers, before.buffers, strict=True)]
    has_room = all(new == UNBOUNDED or (old != UNBOUNDED and new >= old) for new, old in rooms)
    return has_room and all(_is_no_slower(new, old) for new, old in zip(lanes, lanes_before, strict=True))


def _shape(lane: Lane) -> tuple[object, ...]:
    return lane.name, lane.n_tokens, lane.n_emitted, lane.inputs, lane.reader, lane.output, len(lane.wires)


def _is_no_slower(lane: Lane, before: Lane) -> bool:
    pairs = [(lane.service_ps, before.service_ps), (lane.fetch_ps, before.fetch_ps)]
    pairs += [(np.asarray(w.delay_ps), np.asarray(o.delay_ps)) for w, o in zip(lane.wires, before.wires, strict=True)]
    return all(bool((new <= old).all()) for new, old in pairs)

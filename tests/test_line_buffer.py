"""Line buffer: needs, releases and minimum sizes against loops over windows, and small executions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.components.line_buffer import Window, capacity, last_uses, minimum_capacity, needed_positions
from archsim.components.netlist import UNBOUNDED, Action, Lane, LineBuffer, Netlist, Target, Wire, constant
from archsim.engine.simpy_execution import execute
from archsim.errors import MappingError, SimulationError
from archsim.hardware.reader import load_hardware


@st.composite
def geometries(draw) -> Window:
    """Windows that fit their padded map; padding below the kernel, so that every window sees the map."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = (draw(st.integers(0, kernel[0] - 1)), draw(st.integers(0, kernel[1] - 1)))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = tuple(draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip(kernel, padding, strict=True))
    out = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, kernel, stride, strict=True))
    return Window(size, out, kernel, stride, padding)


def reads(window: Window) -> list[list[int]]:
    """Positions of the map that each token reads, found by walking over its window."""
    tokens = []
    for out_y in range(window.output_hw[0]):
        for out_x in range(window.output_hw[1]):
            seen = []
            for kernel_y in range(window.kernel[0]):
                for kernel_x in range(window.kernel[1]):
                    y = out_y * window.stride[0] + kernel_y - window.padding[0]
                    x = out_x * window.stride[1] + kernel_x - window.padding[1]
                    if 0 <= y < window.map_hw[0] and 0 <= x < window.map_hw[1]:
                        seen.append(y * window.map_hw[1] + x)
            tokens.append(seen)
    return tokens


def brute_needs(window: Window) -> list[int]:
    """Last position that any token up to each one reads."""
    return np.maximum.accumulate([max(seen) for seen in reads(window)]).tolist()


def brute_last_uses(window: Window) -> list[int]:
    """Last token that reads any position up to each one; -1 before the first that is read."""
    last = [-1] * window.n_inputs
    for token, seen in enumerate(reads(window)):
        for position in seen:
            last[position] = token
    return np.maximum.accumulate(last).tolist()


def flow(need: np.ndarray, last_use: np.ndarray, size: int, n_readers: int = 1) -> Netlist:
    """A sender that respects the room in the buffer, and readers that fetch from it."""
    netlist, n_inputs = Netlist(), len(last_use)
    outbox = netlist.channel("outbox", UNBOUNDED)
    netlist.buffers.append(LineBuffer("buffer", "layer", size, 1, n_readers, need, last_use))
    target = Target("buffer", 0)
    netlist.server("source", "private", _lane("source", n_inputs, 1, output=outbox))
    link = _lane("link", n_inputs, 2, inputs=(outbox,), wires=(Wire(target, 3),), reserves=(target,))
    netlist.server("link", "shared", link)
    for index in range(n_readers):
        pe = _lane(f"pe{index}", len(need), 4 + index, reader=(0, index), release_after=1)
        netlist.server(f"pe{index}", "private", pe)
    return netlist


def _lane(name: str, n: int, service: int, **wiring) -> Lane:
    action = Action(name, "serve", constant(service, n), constant(1, n), constant(0, n), constant(0, n, np.float64))
    return Lane(name, "layer", n, n, (0, 1), (action,), **wiring)


def drains(window: Window, size: int) -> bool:
    """Whether two frames pass a buffer of the given size."""
    try:
        execute(flow(needed_positions(window, 2), last_uses(window, 2), size, n_readers=2))
    except SimulationError:
        return False
    return True


@given(geometries())
@settings(derandomize=True, deadline=None, max_examples=200)
def test_needs_are_the_last_position_of_each_window(window):
    assert needed_positions(window, 1).tolist() == brute_needs(window)


@given(geometries())
@settings(derandomize=True, deadline=None, max_examples=200)
def test_positions_are_kept_until_their_last_window(window):
    read = {position for seen in reads(window) for position in seen}
    mine, brute = last_uses(window, 1), brute_last_uses(window)
    assert [mine[m] for m in sorted(read)] == [brute[m] for m in sorted(read)]


@given(geometries())
@settings(derandomize=True, deadline=None, max_examples=200)
def test_positions_that_nobody_reads_are_freed_in_order(window):
    mine = last_uses(window, 1)
    late = [m for m, brute in enumerate(brute_last_uses(window)) if mine[m] < brute]
    assert (late, bool((np.diff(mine) < 0).any())) == ([], False)


@given(geometries(), st.integers(2, 4))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_frames_repeat_with_an_offset(window, n_frames):
    numbers = np.arange(n_frames)[:, None]
    needs = numbers * window.n_inputs + needed_positions(window, 1)
    uses = numbers * window.n_outputs + last_uses(window, 1)
    tiled = [needed_positions(window, n_frames).tolist(), last_uses(window, n_frames).tolist()]
    assert tiled == [needs.ravel().tolist(), uses.ravel().tolist()]


@given(geometries())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_the_minimum_drains_and_one_less_deadlocks(window):
    least = minimum_capacity(window)
    assert (drains(window, least), drains(window, least - 1)) == (True, False)


@given(
    geometries().filter(lambda window: window.kernel[0] >= window.stride[0] and window.kernel[1] >= window.stride[1])
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_the_minimum_holds_every_window_and_not_more(window):
    """Brute force: positions between the oldest one still to be read and the last one needed."""
    last, needs = brute_last_uses(window), brute_needs(window)
    span = [need + 1 - sum(use < token for use in last) for token, need in enumerate(needs)]
    assert minimum_capacity(window) == max(span)


def test_a_frame_buffer_needs_the_whole_frame():
    window = Window((4, 5), (1, 1), None)
    assert (minimum_capacity(window), needed_positions(window, 2).tolist()) == (20, [19, 39])


def test_a_frame_buffer_of_one_frame_drains_and_less_deadlocks():
    window = Window((2, 3), (1, 1), None)
    assert (drains(window, 6), drains(window, 5)) == (True, False)


def test_a_three_by_three_window_needs_two_rows_and_three_positions():
    assert minimum_capacity(Window((8, 8), (6, 6), (3, 3))) == 2 * 8 + 3


def test_automatic_buffers_hold_kernel_and_stride_rows_or_two_frames():
    hardware = load_hardware("demo")
    conv = Window((8, 9), (3, 4), (3, 2), (2, 2))
    assert (capacity(hardware, "a", conv), capacity(hardware, "b", Window((4, 5), (1, 1), None))) == (5 * 9, 2 * 20)


def test_too_few_rows_are_refused_with_the_minimum():
    hardware = load_hardware("demo", {"tile.line_buffer.rows": 2})
    with pytest.raises(MappingError) as caught:
        capacity(hardware, "conv1", Window((8, 8), (6, 6), (3, 3)))
    assert str(caught.value) == (
        "tile.line_buffer.rows is 2; layer 'conv1' needs at least 3 rows of 8 positions. Raise it or set it to auto."
    )


@given(geometries())
@settings(derandomize=True, deadline=None, max_examples=30)
def test_the_rows_that_the_message_asks_for_are_enough(window):
    rows = -(-minimum_capacity(window) // window.map_hw[1])
    assert drains(window, capacity(load_hardware("demo", {"tile.line_buffer.rows": rows}), "layer", window))


def test_a_position_is_free_only_when_its_slowest_reader_has_fetched_it():
    netlist = flow(np.array([0, 1, 2]), np.array([0, 1, 2]), size=1, n_readers=2)
    trace = execute(netlist)
    assert [one.start_ps.tolist() for one in trace.lanes[1:]] == [[1, 9, 17], [4, 12, 20], [4, 12, 20]]


def test_a_position_is_complete_when_its_last_source_has_delivered():
    netlist = Netlist()
    netlist.buffers.append(LineBuffer("buffer", "layer", 4, 2, 1, np.array([0, 1]), np.array([0, 1])))
    for index, service in enumerate([2, 5]):
        outbox = netlist.channel(f"outbox{index}", UNBOUNDED)
        netlist.server(f"source{index}", "private", _lane(f"source{index}", 2, service, output=outbox))
        target = Target("buffer", 0, index)
        link = _lane(f"link{index}", 2, 1, inputs=(outbox,), wires=(Wire(target, 1),), reserves=(target,))
        netlist.server(f"link{index}", "shared", link)
    netlist.server("pe", "private", _lane("pe", 2, 1, reader=(0, 0), release_after=1))
    assert execute(netlist).lanes[-1].start_ps.tolist() == [6, 11]

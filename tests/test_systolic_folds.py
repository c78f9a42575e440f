"""Folds of a systolic array: cycles by hand and by SCALE-Sim's formula, what is not zero, what DRAM brings when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.activity import LayerActivity
from archsim.components.systolic import fold_cycles
from archsim.engine.array_folds import Tiles, fetch_positions, input_tiles, layer_folds, nonzero_inputs, weight_tiles
from archsim.errors import MappingError
from archsim.mapping import ArrayLayer
from archsim.workload.network import INPUT, Layer
from archsim.workload.neurons import integrate_and_fire

# Arrays traced by hand

TWO_BY_TWO = """
cycle  PE00  PE01  PE10  PE11  out
0      k0    .     .     .     .
1      k1    k0    k0    .     .
2      k2    k1    k1    k0    .
3      .     k2    k2    k1    .
4      .     .     .     k2    .
5      .     .     .     .     row1
6      .     .     .     .     row0
"""
"""Outputs stationary, 2 x 2 PEs, three weights per filter: PE (r, c) works on weight k at cycle r + c + k; then the
sums leave through the bottom, a row per cycle."""

THREE_BY_THREE = """
cycle  PE00  PE01  PE02  PE10  PE11  PE12  PE20  PE21  PE22
0      w2    w2    w2    .     .     .     .     .     .
1      w1    w1    w1    w2    w2    w2    .     .     .
2      w0    w0    w0    w1    w1    w1    w2    w2    w2
3      p0    .     .     .     .     .     .     .     .
4      p1    p0    .     p0    .     .     .     .     .
5      .     p1    p0    p1    p0    .     p0    .     .
6      .     .     p1    .     p1    p0    p1    p0    .
7      .     .     .     .     .     p1    .     p1    p0
8      .     .     .     .     .     .     .     .     p1
"""
"""Weights stationary, 3 x 3 PEs, two positions: weights move down for three cycles, the last row's first; then PE
(r, c) works on position p at cycle 3 + r + c + p, and the bottom row's sums leave with the cycle."""


def table(text: str) -> list[list[str]]:
    return [line.split()[1:] for line in text.strip().splitlines()[1:]]


def output_stationary(inputs: np.ndarray, weights: np.ndarray) -> tuple[list[list[str]], np.ndarray]:
    """An array clocked register by register; inputs (row, k) enter left, weights (k, col) on top, both skewed."""
    (rows, depth), cols = inputs.shape, weights.shape[1]
    left, top = np.full((rows, cols), None), np.full((rows, cols), None)
    sums, trace, cycle = np.zeros((rows, cols)), [], 0
    while True:
        left[:, 1:], top[1:] = left[:, :-1].copy(), top[:-1].copy()
        for row in range(rows):
            left[row, 0] = cycle - row if 0 <= cycle - row < depth else None
        for col in range(cols):
            top[0, col] = cycle - col if 0 <= cycle - col < depth else None
        if not any(value is not None for value in left.ravel()):
            break
        assert (left == top).all(), "an input meets the weight of its number"
        for row, col in np.argwhere(left != None):  # noqa: E711
            sums[row, col] += inputs[row, left[row, col]] * weights[top[row, col], col]
        trace.append([f"k{k}" if k is not None else "." for k in left.ravel()] + ["."])
        cycle += 1
    drained = np.zeros_like(sums)
    for row in reversed(range(rows)):
        drained[row] = sums[row]
        trace.append(["."] * rows * cols + [f"row{row}"])
    return trace, drained


def weight_stationary(inputs: np.ndarray, weights: np.ndarray) -> tuple[list[list[str]], np.ndarray]:
    """An array clocked register by register; weights (row, col) move down, then inputs (position, row) enter skewed."""
    rows, cols = weights.shape
    held, trace = np.full(rows, -1), []
    for cycle in range(rows):
        held[1:], held[0] = held[:-1].copy(), rows - 1 - cycle
        trace.append([f"w{held[row]}" if held[row] >= 0 else "." for row in range(rows) for _ in range(cols)])
    assert held.tolist() == list(range(rows))
    sums, left, partial, cycle = np.zeros((len(inputs), cols)), np.full((rows, cols), None), np.zeros((rows, cols)), 0
    while True:
        left[:, 1:] = left[:, :-1].copy()
        for row in range(rows):
            left[row, 0] = cycle - row if 0 <= cycle - row < len(inputs) else None
        if not any(value is not None for value in left.ravel()):
            return trace, sums
        above = np.vstack([np.zeros(cols), partial[:-1]])
        for row, col in np.argwhere(left != None):  # noqa: E711
            partial[row, col] = above[row, col] + inputs[left[row, col], row] * weights[row, col]
        for col in np.flatnonzero(left[-1] != None):  # noqa: E711
            sums[left[-1, col], col] = partial[-1, col]
        trace.append([f"p{p}" if p is not None else "." for p in left.ravel()])
        cycle += 1


def test_a_2_x_2_array_by_hand_with_outputs_stationary():
    inputs, weights = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 0], [2, 1], [0, 3]])
    trace, sums = output_stationary(inputs, weights)
    assert trace == table(TWO_BY_TWO)
    assert sums.tolist() == (inputs @ weights).tolist() == [[5, 11], [14, 23]]
    assert len(trace) == fold_cycles(2, 2, 3) == 7


def test_a_3_x_3_array_by_hand_with_weights_stationary():
    inputs, weights = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 0, 2], [0, 1, 0], [3, 0, 1]])
    trace, sums = weight_stationary(inputs, weights)
    assert trace == table(THREE_BY_THREE)
    assert sums.tolist() == (inputs @ weights).tolist() == [[10, 2, 5], [22, 5, 14]]
    assert len(trace) == fold_cycles(3, 3, 2) == 9


@given(rows=st.integers(1, 5), cols=st.integers(1, 5), streamed=st.integers(1, 7), seed=st.integers(0, 99))
def test_cycles_of_a_fold_are_those_of_an_array_clocked_register_by_register(rows, cols, streamed, seed):
    random = np.random.default_rng(seed)
    inputs, weights = random.integers(-3, 4, (rows, streamed)), random.integers(-3, 4, (streamed, cols))
    trace, sums = output_stationary(inputs, weights)
    assert (len(trace), sums.tolist()) == (fold_cycles(rows, cols, streamed), (inputs @ weights).tolist())
    inputs, weights = random.integers(-3, 4, (streamed, rows)), random.integers(-3, 4, (rows, cols))
    trace, sums = weight_stationary(inputs, weights)
    assert (len(trace), sums.tolist()) == (fold_cycles(rows, cols, streamed), (inputs @ weights).tolist())


@pytest.mark.parametrize(("rows", "cols", "streamed"), [(16, 8, 576), (32, 32, 1024), (8, 128, 1)])
def test_cycles_of_a_fold_are_scale_sims(rows, cols, streamed):
    """Samajdar et al., ISPASS 2020: 2R + C + T - 2 for every dataflow."""
    assert fold_cycles(rows, cols, streamed) == 2 * rows + cols + streamed - 2


# Folds of layers


def layer(kernel: int = 3, stride: int = 1, channels: int = 2, size: int = 6, outputs: int = 5) -> Layer:
    pad = kernel // 2
    return Layer(
        "conv", "conv2d", INPUT, (channels, size, size), outputs, (kernel, kernel), (stride, stride), (pad, pad),
        None, None, integrate_and_fire(),
    )  # fmt: skip


def windows(spec: Layer, frames: np.ndarray) -> np.ndarray:
    """Inputs of every position, weights in the order y, x, channel: shape (frame, position, weight)."""
    pad = [(0, 0), (0, 0), (spec.padding[0],) * 2, (spec.padding[1],) * 2]
    padded = np.pad(frames, pad)
    _, height, width = spec.conv_shape
    return np.stack(
        [
            padded[
                :,
                :,
                y * spec.stride[0] : y * spec.stride[0] + spec.kernel[0],
                x * spec.stride[1] : x * spec.stride[1] + spec.kernel[1],
            ]
            .transpose(0, 2, 3, 1)
            .reshape(len(frames), -1)
            for y in range(height)
            for x in range(width)
        ],
        axis=1,
    )


@given(
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    channels=st.integers(1, 3),
    block=st.integers(1, 9),
    depth_block=st.integers(1, 12),
    pass_bits=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_operations_are_the_inputs_that_are_not_zero(kernel, stride, channels, block, depth_block, pass_bits, seed):
    spec = layer(kernel, stride, channels)
    cut = ArrayLayer(spec, block, min(depth_block, channels * kernel**2), 4)
    inputs = np.random.default_rng(seed).integers(0, 6, (1, 2, *spec.in_shape)).astype(np.uint8)
    counts = nonzero_inputs(cut, LayerActivity(inputs, inputs), pass_bits)
    seen = windows(spec, inputs[0].astype(np.int64))
    expected = np.zeros_like(counts)
    for number in range(-(-max(1, int(inputs.max()).bit_length()) // pass_bits)):
        is_set = (seen >> (number * pass_bits)) % (1 << pass_bits) != 0
        for frame, position, weight in np.argwhere(is_set):
            expected[frame, position // cut.block, weight // cut.depth_block] += 1
    assert counts.tolist() == expected.tolist()


def test_folds_run_by_filters_positions_weights_timesteps():
    spec = layer(kernel=1, channels=4, size=2, outputs=3)
    inputs = np.ones((1, 2, 4, 2, 2), np.uint8)
    folds = layer_folds(ArrayLayer(spec, 3, 2, 2), LayerActivity(inputs, inputs), 1, batched_steps=2)
    assert folds.shape == (1, 2, 2, 2, 2)
    assert folds.step.tolist() == [0, 1] * 8
    assert folds.depth_index.tolist() == [0, 0, 1, 1] * 4
    assert folds.positions.tolist() == [3, 3, 3, 3, 1, 1, 1, 1] * 2
    assert folds.cols.tolist() == [2] * 8 + [1] * 8
    assert folds.labels.tolist() == [step * 8 + fold for fold in range(8) for step in range(2)]
    assert folds.nonzero.tolist() == [6, 6, 6, 6, 2, 2, 2, 2] * 2


def test_weights_come_once_for_all_timesteps_that_follow_each_other():
    spec = layer(outputs=5)
    inputs = np.ones((2, 3, *spec.in_shape), np.uint8)
    cut = ArrayLayer(spec, 16, 18, 4)
    batched = weight_tiles(layer_folds(cut, LayerActivity(inputs, inputs), 1, 3), cut, 8)
    outer = weight_tiles(layer_folds(cut, LayerActivity(inputs, inputs), 1, 1), cut, 8)
    assert batched.bits.tolist() == [18 * 4 * 8, 18 * 8] * 2
    assert outer.bits.tolist() == [18 * 4 * 8, 18 * 8] * 6
    assert (batched.first.tolist(), batched.last.tolist()) == ([0, 9, 18, 27], [8, 17, 26, 35])


def test_input_rows_come_as_position_blocks_need_them():
    """6 x 6 map, 3 x 3 kernel, 12 positions at a time: rows 0-2, then 3-4, then 5; kept if the buffer holds the map."""
    spec = layer(outputs=5)
    inputs = np.ones((1, 1, *spec.in_shape), np.uint8)
    cut = ArrayLayer(spec, 12, 18, 4)
    folds = layer_folds(cut, LayerActivity(inputs, inputs), 1, 1)
    row_bits = 2 * 6
    kept = input_tiles(folds, cut, 1, capacity_bits=6 * row_bits)
    assert kept.bits.tolist() == [3 * row_bits, 2 * row_bits, row_bits]
    assert (kept.first.tolist(), kept.last.tolist()) == ([0, 1, 2], [4, 5, 5])
    again = input_tiles(folds, cut, 1, capacity_bits=6 * row_bits - 1)
    assert again.bits.tolist() == [3 * row_bits, 2 * row_bits, row_bits] * 2
    assert (again.first.tolist(), again.last.tolist()) == ([0, 1, 2, 3, 4, 5], [1, 2, 2, 4, 5, 5])


def tiles(bits: list[int], first: list[int], last: list[int]) -> Tiles:
    return Tiles(*(np.array(values) for values in (bits, first, last, [0] * len(bits))))


def folds_of(number: int) -> object:
    spec = layer(kernel=1, channels=1, size=1, outputs=number)
    inputs = np.ones((1, 1, 1, 1, 1), np.uint8)
    return layer_folds(ArrayLayer(spec, 1, 1, 1), LayerActivity(inputs, inputs), 1, 1)


def test_a_tile_is_fetched_while_the_one_before_is_in_use():
    """Room for two of four tiles, two folds each: the third may come once the first is done, after two folds."""
    found = fetch_positions(tiles([8] * 4, [0, 2, 4, 6], [1, 3, 5, 7]), folds_of(8), 16, "conv", "a buffer")
    assert [max(position - 8 + 1, 0) for position in found] == [0, 0, 2, 4]


def test_with_room_for_one_tile_there_is_no_overlap():
    found = fetch_positions(tiles([8] * 3, [0, 2, 4], [1, 3, 5]), folds_of(6), 8, "conv", "a buffer")
    assert [max(position - 6 + 1, 0) for position in found] == [0, 2, 4]


def test_what_is_needed_at_once_must_fit():
    with pytest.raises(MappingError) as error:
        fetch_positions(tiles([8, 9], [0, 1], [1, 1]), folds_of(2), 16, "conv", "buffers.ifmap_kib")
    assert str(error.value) == (
        "layer 'conv' needs 17 bits of buffers.ifmap_kib at once, which holds 16. Raise it to 1 KiB at least."
    )

"""Layers on resistive crossbars with device spread, against every physical array rebuilt and solved node by node."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import test_read_circuits as circuits
import torch
from nodal_analysis import Mesh, column_currents, node_voltages, read_power
from test_inference import chip, conv

from archsim.analog import arrays
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat
from archsim.analog.product import hardware_sums, read_power_w
from archsim.hardware.models import Hardware
from archsim.inference.chip import program
from archsim.mapping import map_network
from archsim.mapping.model import LayerMapping
from archsim.workload.network import Layer, Network

WIRES = {"r_driver_ohm": 300.0, "r_wire_row_ohm": 8.0, "r_wire_col_ohm": 5.0, "r_sense_ohm": 200.0}
DEVICE = {"r_on_ohm": 2e4, "r_off_ohm": 2e5, "programming_sigma_rel": 0.1, "d2d_sigma_rel": 0.05}
G_OFF, G_ON = 5e-6, 5e-5
V_READ_V = 0.2
SEED = ChipSeed(5, 1)


@dataclass(frozen=True)
class Case:
    """A layer, a chip, and how its inputs reach the rows."""

    layer: Layer
    hardware: Hardware
    n_bits: int = 1
    is_signed: bool = False


def case(layer, n_bits=1, is_signed=False, merge="analog", crossbars=2, weight_bits=4, array=None, **policy) -> Case:
    crossbar = {"rows": 12, "cols": 10, "bits_per_cell": 2, "v_read_v": V_READ_V, **WIRES, "device": DEVICE}
    policy = {"calibration": "none"} | policy
    adc = {"bits": 16, "range": "full"}
    hardware = chip(weight_bits, adc, crossbar | (array or {}), merge, crossbars=crossbars, **policy)
    return Case(layer, hardware, n_bits, is_signed)


def whole_weights(layer: Layer, weight_bits=4, biased=False) -> Layer:
    """The layer with random integer weights that are stored as they are (scale 1), and perhaps integer biases."""
    rng, limit = np.random.default_rng(8), 2 ** (weight_bits - 1) - 1
    weights = rng.integers(-limit, limit + 1, layer.weights.shape)
    weights.flat[0] = -limit
    bias = rng.integers(-limit, limit + 1, layer.out_channels).astype(float) if biased else None
    return replace(layer, weights=weights.astype(float), bias=bias)


def small_conv(**rules) -> Layer:
    return whole_weights(conv("c", "input", (5, 4, 4), 6, kernel=3, stride=2, padding=1), **rules)


def grouped_conv() -> Layer:
    layer = replace(conv("g", "input", (8, 4, 4), 6), groups=2)
    return whole_weights(replace(layer, weights=layer.weights[:, :4]))


def linear(inputs=20, outputs=9, **rules) -> Layer:
    return whole_weights(conv("f", "input", (inputs, 1, 1), outputs, kernel=1, padding=0), **rules)


def pruned(layer: Layer, band: int) -> Layer:
    """The layer without random segments of columns, each `band` unrolled rows long; one column is empty."""
    matrix = layer.weights.transpose(2, 3, 1, 0).reshape(-1, layer.out_channels).copy()
    rng = np.random.default_rng(2)
    for first in range(0, len(matrix), band):
        matrix[first : first + band, rng.random(layer.out_channels) < 0.6] = 0
    matrix[:, 1] = 0
    shape = (*layer.kernel, layer.weights.shape[1], layer.out_channels)
    return replace(layer, weights=matrix.reshape(shape).transpose(3, 2, 0, 1))


LEFT_OUT = {"squeeze": "columns", "array": {"cols": 6, "bits_per_cell": 4}}

CASES = {
    "kernel positions, columns merged": case(small_conv(), n_bits=2),
    "kernel positions, converted one by one": case(small_conv(), merge="digital", crossbars=9),
    "open cells beside the weights": case(small_conv(), unused_cells="open"),
    "two columns per weight": case(small_conv(), array={"signed": "differential"}),
    "two columns per weight in two arrays": case(small_conv(), array={"signed": "differential_arrays", "cols": 16}),
    "reference columns": case(small_conv(), array={"signed": "offset"}, merge="digital"),
    "dense rows": case(small_conv(), layout="dense", crossbars=1),
    "dense rows, two's complement": case(
        small_conv(), n_bits=3, is_signed=True, layout="dense", array={"signed": "differential"}
    ),
    "three slices": case(small_conv(weight_bits=6), weight_bits=6, array={"bits_per_cell": 2}),
    "bias rows": case(small_conv(biased=True), n_bits=2, bias="row", layout="dense"),
    "groups": case(grouped_conv(), crossbars=9, array={"rows": 4}),
    "fully connected": case(linear(), n_bits=2, array={"signed": "differential"}, unused_cells="open"),
    "both ends": case(linear(), array={"drive": "both_sides", "sense": "both_sides"}),
    "columns left out": case(pruned(small_conv(), 24), n_bits=2, **LEFT_OUT),
    "columns left out, open cells": case(pruned(small_conv(), 12), crossbars=1, unused_cells="open", **LEFT_OUT),
    "columns left out, converted one by one": case(
        pruned(linear(20, 16), 12), merge="digital", crossbars=1, **LEFT_OUT
    ),
    "columns left out beside references": case(
        pruned(linear(30, 16), 12), squeeze="columns", crossbars=1, array={"signed": "offset"}
    ),
    "columns left out of two arrays": case(
        pruned(linear(30, 16), 24), squeeze="columns", array={"signed": "differential_arrays"}
    ),
    "uneven drivers": case(linear(biased=True), array={"driver_sigma_rel": 0.05}, bias="row"),
}


def physical_columns(
    hardware: Hardware, weights: np.ndarray, block: tuple[int, int], smallest: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Levels of the arrays that hold a column block of integer weights (row, col), and what their columns count.

    The second array of a pair has shape (physical col, logical col): `sums @ it` are products.
    """
    crossbar = hardware.tile.pe.crossbar
    bits, n_cols, signed = crossbar.bits_per_cell, block[1] - block[0], crossbar.signed
    part = weights[:, block[0] : block[1]].astype(int)
    if signed in ("diff", "offset"):
        lift = 1 << (hardware.mapping.weight_bits - 1)
        if signed == "diff":
            lift = min(2**p for p in range(20) if 2**p >= -smallest)
        stored = part + lift if signed == "offset" else np.where(part < 0, part + lift, part)
        columns = [(stored[:, col], np.eye(n_cols)[col]) for col in range(n_cols)]
        if signed == "offset":
            columns.append((np.full(len(part), lift), -np.ones(n_cols)))
        n_slices = -(-hardware.mapping.weight_bits // bits)
    else:
        columns = []
        for col in range(n_cols):
            columns += [(np.maximum(sign * part[:, col], 0), sign * np.eye(n_cols)[col]) for sign in (1, -1)]
        n_slices = -(-(hardware.mapping.weight_bits - 1) // bits)
    n_signs = len(columns) // n_cols if signed.startswith("differential") else 1
    cells, counts = [], []
    for first in range(0, len(columns), n_signs):
        for index in range(n_slices):
            for values, count in columns[first : first + n_signs]:
                cells.append((values >> (bits * index)) % 2**bits)
                counts.append(count * 2 ** (bits * index))
    levels, counts = np.stack(cells, 1), np.stack(counts)
    return [(levels[:, n::2], counts[n::2]) for n in (0, 1)] if signed == "differential_arrays" else [(levels, counts)]


class Recorded:
    """What was written: wanted levels and conductances of every array, by size, in the order of writing."""

    def __init__(self, monkeypatch):
        self.arrays: dict[tuple[int, ...], list] = {}
        self.factors: dict[tuple[int, ...], list] = {}
        write, factors_of = arrays.cell_conductances, arrays.driver_factors

        def written(levels, largest_level, *rest):
            g = write(levels, largest_level, *rest)
            kept = self.arrays.setdefault(tuple(levels.shape[1:]), [])
            kept += list(zip(levels.numpy().copy(), g.double().numpy(), strict=True))
            return g

        def drawn(hardware, chip_seed, stream, g):
            factors = factors_of(hardware, chip_seed, stream, g)
            self.factors.setdefault(tuple(g.shape[1:]), []).extend(factors.double().numpy())
            return factors

        monkeypatch.setattr(arrays, "_cache", arrays._Cache(0))
        monkeypatch.setattr(arrays, "cell_conductances", written)
        monkeypatch.setattr(arrays, "driver_factors", drawn)

    def next(self, levels: np.ndarray, shape: tuple[int, int], is_open: bool) -> tuple[np.ndarray, np.ndarray]:
        """Conductances and drive factors of the next array of its size, used cells at the sense inputs and drivers."""
        size = levels.shape if is_open else shape
        whole = np.zeros(size)
        whole[size[0] - levels.shape[0] :, : levels.shape[1]] = levels
        found, g = self.arrays[size].pop(0)
        assert np.array_equal(found, whole)
        factors = self.factors[size].pop(0) if size in self.factors else np.ones(size[0])
        return g, factors


def windows(layer: Layer, inputs: np.ndarray) -> np.ndarray:
    """What every position of a frame sees, (frame, y, x, channel, kernel_y, kernel_x)."""
    (pad_y, pad_x), (stride_y, stride_x) = layer.padding, layer.stride
    padded = np.pad(inputs, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, axis=(2, 3))[:, :, ::stride_y, ::stride_x]
    return seen.transpose(0, 2, 3, 1, 4, 5)


def row_values(mapped: LayerMapping, stored: np.ndarray, seen: np.ndarray, rows, bias: np.ndarray):
    """Weights (row, col) of a crossbar and integers on its rows (frame, y, x, row); bias rows carry a one."""
    weights, values = [], []
    n_channels = mapped.layer.in_shape[0]
    for kernel_y, kernel_x, first, last in rows:
        for channel in range(first, last):
            if channel < n_channels:
                weights.append(stored[:, channel, kernel_y, kernel_x])
                values.append(seen[..., channel, kernel_y, kernel_x])
            else:
                weights.append(bias)
                values.append(np.ones(seen.shape[:3], int))
    return np.stack(weights), np.stack(values, -1)


def solved(item: Case, inputs: np.ndarray, recorded: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums (frame, col, y, x) and power per row block (token, row_block) of the arrays, each solved."""
    layer, hardware = item.layer, item.hardware
    crossbar, mapped = hardware.tile.pe.crossbar, mapping_of(item).layers[0]
    assert mapped.n_bias_rows < 2, "the reference knows one bias row"
    step = (G_ON - G_OFF) / (2**crossbar.bits_per_cell - 1)
    stored, bias = layer.full_weights, np.zeros(layer.out_channels) if layer.bias is None else layer.bias
    smallest = int(min(stored.min(), bias.min() if mapped.n_bias_rows else 0))
    seen = windows(layer, inputs)
    sums = np.zeros((*seen.shape[:3], layer.out_channels))
    power = np.zeros((seen[..., 0, 0, 0].size, len(mapped.row_blocks)))
    ohms = [getattr(crossbar, name) for name in WIRES]
    ends = crossbar.drive == "both_sides", crossbar.sense == "both_sides"
    n_arrays = 2 if crossbar.signed == "differential_arrays" else 1
    for row_block, block in enumerate(mapped.row_blocks):
        for rows in block:
            weights, values = row_values(mapped, stored, seen, rows, bias)
            is_bias = np.array([first >= layer.in_shape[0] for _, _, first, last in rows for _ in range(first, last)])
            for place in [pe for pe in mapped.pes if pe.row_block == row_block]:
                held = list(mapped.outputs_of(place))
                part, cols = weights[:, held], (0, len(held))
                for levels, counts in physical_columns(hardware, part, cols, smallest):
                    shape = (crossbar.rows, crossbar.cols // n_arrays)
                    g, factors = recorded.next(levels, shape, hardware.mapping.unused_cells == "open")
                    mesh = Mesh(g, *ohms, *ends)
                    for bit in range(item.n_bits):
                        worth = 2**bit * (-1 if item.is_signed and bit == item.n_bits - 1 else 1)
                        driven = np.where(is_bias, bit == 0, values >> bit & 1)
                        volts = np.zeros((driven[..., 0].size, len(g)))
                        volts[:, len(g) - len(rows_of(rows)) :] = driven.reshape(len(volts), -1)
                        volts *= V_READ_V * factors
                        currents = column_currents(mesh, node_voltages(mesh, volts)[1])
                        in_levels = currents[:, : levels.shape[1]] / (V_READ_V * step)
                        products = (in_levels @ counts).reshape(*sums.shape[:3], -1)
                        sums[..., held] += worth * (products - lifted(item, driven, part, cols, smallest))
                        power[:, row_block] += read_power(mesh, volts)
    return sums.transpose(0, 3, 1, 2), power


def rows_of(segments) -> list[int]:
    return [channel for _, _, first, last in segments for channel in range(first, last)]


def lifted(item: Case, driven: np.ndarray, weights: np.ndarray, cols: tuple[int, int], smallest: int) -> np.ndarray:
    """What `diff` columns deliver nominally beyond the products: lifts of negative weights, cells at level 0."""
    crossbar = item.hardware.tile.pe.crossbar
    if crossbar.signed != "diff":
        return np.zeros(())
    lift = min(2**p for p in range(20) if 2**p >= -smallest)
    n_slices = -(-item.hardware.mapping.weight_bits // crossbar.bits_per_cell)
    worth = sum(2 ** (crossbar.bits_per_cell * index) for index in range(n_slices))
    idle = G_OFF / (G_ON - G_OFF) * (2**crossbar.bits_per_cell - 1) * worth
    return driven @ (lift * (weights[:, cols[0] : cols[1]] < 0) + idle)


def mapping_of(item: Case):
    return map_network(item.hardware, Network("x", item.layer.in_shape, (item.layer,)))


def programmed(item: Case, seed: ChipSeed = SEED):
    mapping = mapping_of(item)
    rows = InputFormat(item.n_bits, item.is_signed)
    return program(mapping, mapping.layers[0], 1.0, rows, seed).crossbars, rows


def random_inputs(item: Case, n_frames=3) -> torch.Tensor:
    low, high = InputFormat(item.n_bits, item.is_signed).limits
    generator = torch.Generator().manual_seed(3)
    return torch.randint(low, high + 1, (n_frames, *item.layer.in_shape), generator=generator)


@pytest.mark.parametrize("name", CASES)
def test_sums_and_power_are_those_of_the_physical_arrays(name, monkeypatch):
    item, recorded = CASES[name], Recorded(monkeypatch)
    layer, rows = programmed(item)
    inputs = random_inputs(item)
    sums, clips = hardware_sums(layer, inputs, rows)
    power = read_power_w(layer, inputs, rows)
    expected, expected_power = solved(item, inputs.numpy(), recorded)
    assert not any(recorded.arrays.values())
    assert int(clips.sum()) == 0
    # Converters of 16 bits over the full range leave this; wires and spread are a thousand times that.
    assert sums.numpy() == pytest.approx(expected, abs=1e-3 * expected.std())
    weights, geometry = torch.as_tensor(item.layer.full_weights), (item.layer.stride, item.layer.padding)
    exact = torch.nn.functional.conv2d(inputs.double(), weights, None, *geometry)
    assert float((exact - torch.as_tensor(expected)).std()) > 0.05 * float(exact.std())
    assert power.numpy() == pytest.approx(expected_power, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("columns left out")])
def test_columns_that_are_left_out_have_no_cells(name):
    layer, _ = programmed(CASES[name])
    mapped = mapping_of(CASES[name]).layers[0]
    widths = {pe: last - first for pe in mapped.pes for first, last in [mapped.col_blocks[pe.col_block]]}
    assert any(mapped.width_of(pe) < width for pe, width in widths.items())
    assert not layer.effective.cells.unflatten(-1, (-1, layer.encoded.cols_per_weight))[:, :, :, 1].any()


@pytest.mark.parametrize("column_merge", ["analog", "digital"])
def test_exact_reads_of_nonlinear_cells_are_those_of_kirchhoffs_law(column_merge, monkeypatch):
    """Every read of every array solved at its nodes by scipy, drivers uneven."""
    device = {"r_on_ohm": 2e3, "r_off_ohm": 2e4, "nonlinearity": "exact", "nonlinearity_v0_v": 0.08}
    array = {"rows": 4, "cols": 4, "signed": "differential", "device": device, "driver_sigma_rel": 0.05}
    item = case(linear(7, 2), merge=column_merge, array=array, unused_cells="open")
    recorded = Recorded(monkeypatch)
    layer, rows = programmed(item)
    inputs = random_inputs(item, n_frames=3)
    sums, _ = hardware_sums(layer, inputs, rows)
    step, expected = (5e-4 - 5e-5) / 3, np.zeros((3, 2))
    for rows_of_crossbar in (slice(0, 4), slice(4, 7)):
        values = inputs[:, rows_of_crossbar, 0, 0].numpy()
        for col in (0, 1):
            weights = item.layer.weights[:, rows_of_crossbar, 0, 0].T
            ((levels, counts),) = physical_columns(item.hardware, weights, (col, col + 1), 0)
            g, factors = recorded.next(levels, (4, 4), is_open=True)
            mesh = Mesh(g, *WIRES.values())
            for frame, drive in enumerate(values * V_READ_V * factors):
                currents = circuits.nodal_currents("sinh", mesh, drive, 0.08)
                expected[frame, col] += float((currents @ counts)[0]) / (V_READ_V * step)
    linear_sums = inputs[:, :, 0, 0].double().numpy() @ item.layer.weights[:, :, 0, 0].T
    assert np.abs(expected - linear_sums).max() > 1.0
    assert sums[:, :, 0, 0].numpy() == pytest.approx(expected, abs=5e-3)

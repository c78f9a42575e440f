"""Service that follows the spikes: closed forms, codes that early stop keeps, and no slowing by sparser input."""

import numpy as np
import pytest
import test_crossbar_chip as chip
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import chip as values_chip

from archsim.activity import Activity, LayerActivity, read_activity
from archsim.analog.calibration import calibrate_ranges
from archsim.analog.layer import InputFormat, LayerGeometry
from archsim.analog.programming import program_layer
from archsim.components import adc
from archsim.errors import ConfigError
from archsim.hardware.reader import load_hardware
from archsim.workload.network import Network

CYCLE_PS = 2000
SPARSE = {
    "tile.pe.fetch": "compressed",
    "tile.pe.crossbar.row_drive": "serial",
    "tile.pe.adc.early_stop": True,
    "tile.silent_sums": "flag",
}


def given_inputs(network: Network, *frames: np.ndarray) -> Activity:
    """One sample whose layers see these input frames, all the same ones."""
    layers = {}
    for layer in network.layers:
        inputs = np.stack([np.resize(frame, layer.in_shape) for frame in frames])[None]
        layers[layer.name] = LayerActivity(inputs, np.zeros((1, len(frames), *layer.conv_shape), int))
    return Activity(layers, 1, len(frames), "recorded")


def busy(overrides: dict, *frames: list[int], **part: str):
    """Rows of the log of one part of the only PE of a network of one layer: 8 inputs, 4 outputs."""
    network = chip.mlp(8, 4)
    one_pe = {"tile.pe.crossbar.rows": 4, "tile.pe.crossbar.cols": 16, "tile.pe.crossbars": 2, "tile.pes": 1}
    each = chip.run(network, given_inputs(network, *map(np.array, frames)), one_pe | overrides)
    frame = each.result.events
    return each, frame[frame["component"] == part["name"]]


@pytest.mark.parametrize(("driven", "bits"), [(0, 0), (1, 3), (2, 6), (3, 8), (8, 8)])
def test_a_compressed_fetch_sends_addresses_or_the_shorter_bitmap(driven, bits):
    """Eight rows: three bits each to name one, eight for all of them."""
    one = [1] * driven + [0] * (8 - driven)
    each, fetch = busy({"tile.pe.fetch": "compressed", "tile.pe.fetch_bits_per_cycle": 2}, one, name="tile0.pe0.fetch")
    library = each.mapping.hardware.library
    read = each.result.events.query("component == 'tile0.buffer' and action == 'read'")
    assert fetch[["bits", "service_ps"]].to_numpy().tolist() == [[bits, max(1, -(-bits // 2)) * CYCLE_PS]]
    assert fetch["energy_pj"].tolist() == [bits * library.energy_pj("fetch", "latch")]
    assert read[["bits", "energy_pj"]].to_numpy().tolist() == [[bits, bits * library.energy_pj("tile_buffer", "read")]]


def test_rows_driven_one_by_one_take_a_cycle_each_in_the_busiest_crossbar():
    """Inputs 3 and 1 have bit 0 set, 3 and 2 bit 1; the first four rows are on the first crossbar."""
    frames = ([3, 1, 0, 2, 1, 0, 0, 0], [0] * 8)
    _, drive = busy({"tile.pe.crossbar.row_drive": "serial"}, *frames, name="tile0.pe0.row_driver")
    assert drive["service_ps"].tolist() == [(2 + 2) * CYCLE_PS, 0]
    assert drive["count"].tolist() == [3 + 2, 0]


@pytest.mark.parametrize(("merge", "bits", "cycles"), [("analog", 4, 4), ("digital", 2 + 4, 4)])
def test_conversions_take_the_bits_that_their_rows_can_reach(merge, bits, cycles):
    """2-bit cells: one driven row reaches 3, three rows 9; six cycles for six bits; two turns of the mux."""
    early = {"tile.pe.adc.early_stop": True, "tile.pe.adc.cycles_per_conversion": 6, "tile.pe.column_merge": merge}
    each, convert = busy(early, [1, 0, 0, 0, 1, 1, 1, 0], [0] * 8, name="tile0.pe0.adc")
    whole = each.mapping.hardware.library.energy_pj("adc", "convert", bits=6)
    mux = 16 // each.mapping.hardware.tile.pe.adcs_per_bank
    assert convert["service_ps"].tolist() == [mux * cycles * CYCLE_PS, 0]
    assert convert["energy_pj"].tolist() == pytest.approx([16 * bits / 6 * whole, 0.0], rel=1e-12)


def test_a_conversion_of_nothing_takes_one_comparison_where_reads_are_not_skipped():
    early = {
        "tile.pe.adc.early_stop": True,
        "tile.pe.adc.cycles_per_conversion": 6,
        "tile.pe.crossbar.zero_skip": False,
    }
    each, convert = busy(early, [0] * 8, name="tile0.pe0.adc")
    assert convert["service_ps"].tolist() == [16 // each.mapping.hardware.tile.pe.adcs_per_bank * CYCLE_PS]


def test_a_silent_token_takes_a_cycle_to_fetch_and_one_to_flag():
    """Two PEs of one row block each; the second sees nothing, so its sums are one bit and nothing is added."""
    network = chip.mlp(8, 4)
    frame = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    each = chip.run(network, given_inputs(network, frame), chip.SMALL | SPARSE | {"tile.htree.bits_per_cycle": 16})
    events = each.result.events
    silent = events[events["component"].astype(str).str.startswith("tile0.pe1.")]
    assert silent.groupby(silent["component"].astype(str))["service_ps"].sum().to_dict() == {
        f"tile0.pe1.{part}": CYCLE_PS if part == "fetch" else 0
        for part in ("adc", "crossbar", "fetch", "mux", "row_driver", "shift_add")
    }
    tree = events[events["component"] == "tile0.htree"].sort_values("bits")
    assert tree[["bits", "service_ps"]].to_numpy().tolist() == [[1, CYCLE_PS], [64, 4 * CYCLE_PS]]
    add = events[(events["component"] == "tile0.accumulator") & (events["action"] == "add")]
    assert add[["count", "service_ps", "energy_pj"]].to_numpy().tolist() == [[0, 0, 0]]


def test_flags_travel_the_network_as_one_flit():
    """Row blocks in two tiles: the silent one sends one bit to the other's accumulator."""
    network = chip.mlp(8, 4)
    frame = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    overrides = chip.SMALL | SPARSE | {"tile.pes": 1}
    movement = chip.run(network, given_inputs(network, frame), overrides).result.movement
    sums = movement.query("level == 'noc' and `class` == 'partial_sums'")
    assert sums[["packets", "bits"]].to_numpy().tolist() == [[1, 1]]


def successive_approximation(sums: np.ndarray, low: np.ndarray, lsb: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Codes found bit by bit from the top, only the lowest `bits` of them tried; ties as rounding to even."""
    codes = np.zeros(sums.shape, int)
    exact = (sums - low) / lsb
    for bit in reversed(range(16)):
        trial = codes + (1 << bit)
        above = (exact > trial - 0.5) | ((exact == trial - 0.5) & (trial % 2 == 0))
        codes = np.where((bit < bits) & above, trial, codes)
    return codes


@pytest.mark.parametrize("range_", ["full", "calibrated"])
@pytest.mark.parametrize("signed", ["diff", "differential", "offset"])
@pytest.mark.parametrize(("cell_bits", "adc_bits"), [(1, 3), (2, 5), (4, 6), (4, 9)])
def test_early_stop_never_changes_a_code(cell_bits, adc_bits, signed, range_):
    """Every conversion of a random layer, bit by bit, with all bits and with those the driven rows can reach."""
    random = np.random.default_rng(adc_bits)
    skips = bool(random.integers(2))
    converter = {"bits": adc_bits, "range": range_, "early_stop": True}
    cells = {"bits_per_cell": cell_bits, "signed": signed, "rows": 32, "zero_skip": skips}
    hardware = values_chip(4, adc=converter, crossbar=cells, crossbars=1)
    geometry = LayerGeometry(((((0, 0, 0, 32),),),), ((0, 4),), frozenset({(0, 0)}), (1, 1), (0, 0), (1, 1))
    rates = random.random((300, 1)) ** 3
    inputs = torch.as_tensor(random.random((300, 32)) < rates, dtype=torch.int32)[..., None, None]
    weights = torch.as_tensor(random.normal(size=(4, 32, 1, 1)))
    layer = calibrate_ranges(program_layer(weights, geometry, hardware), inputs[::7], InputFormat(1))
    driven = inputs[:, :, 0, 0].numpy()
    sums = driven @ layer.encoded.cells[0, 0].numpy().astype(np.float64)
    low, high = layer.ranges.low[0].numpy(), layer.ranges.high[0].numpy()
    lsb = (high - low) / (2**adc_bits - 1)
    resolved = adc.resolved_bits(hardware)[driven.sum(axis=1)][:, None]
    read = driven.any(axis=1) if skips else slice(None)
    whole = successive_approximation(sums, low, lsb, np.full_like(resolved, adc_bits))
    assert (successive_approximation(sums, low, lsb, resolved)[read] == whole[read]).all()
    assert resolved.min() < adc_bits


def durations(spikes: np.ndarray, overrides: dict) -> list[tuple[str, np.ndarray]]:
    """Service times of every part of the PE, token by token."""
    network = chip.mlp(spikes.shape[1], 4)
    hardware = load_hardware("demo", overrides)
    mapping = chip.map_network(hardware, network)
    frames = [frame[:, None, None] for frame in spikes]
    lanes = chip.build_netlist(mapping, given_inputs(network, *frames)).lanes()
    return [(action.component, action.duration_ps) for lane in lanes for action in lane.actions]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_sparser_input_makes_no_service_longer(data):
    """Any set of the options; the input width stays that of the fuller input."""
    chosen = {key: value for key, value in SPARSE.items() if data.draw(st.booleans())}
    chosen |= {"tile.pe.column_merge": data.draw(st.sampled_from(["analog", "digital"]))}
    chosen |= {"tile.pe.adc.cycles_per_conversion": data.draw(st.integers(1, 7)), "mapping.input_bits": 2}
    if "tile.silent_sums" not in chosen:
        chosen |= {"tile.pe.crossbar.zero_skip": data.draw(st.booleans())}
    size = {
        "tile.pe.crossbar.rows": 4,
        "tile.pe.crossbar.cols": 16,
        "tile.pe.crossbars": 2,
        "tile.htree.bits_per_cycle": 8,
    }
    full = np.array(data.draw(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=3)))
    kept = full & np.array(data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12)))
    fuller, sparser = (durations(np.vstack([spikes, np.full(12, 3)]), size | chosen) for spikes in (full, kept))
    longer = [name for (name, before), (_, after) in zip(fuller, sparser, strict=True) if (after > before).any()]
    assert longer == []


@pytest.mark.parametrize("seed", range(5))
def test_sparser_input_is_never_slower_on_private_parts(seed):
    """One PE, one tile, one layer: nothing is shared, so the whole run follows."""
    random = np.random.default_rng(seed)
    network = chip.mlp(8, 4)
    size = {"tile.pe.crossbar.rows": 4, "tile.pe.crossbar.cols": 16, "tile.pe.crossbars": 2, "tile.pes": 1}
    spikes = random.integers(0, 2, (6, 8))
    ends = []
    for _ in range(6):
        ends.append(chip.run(network, given_inputs(network, *spikes), size | SPARSE).trace.end_ps)
        spikes = spikes & random.integers(0, 2, spikes.shape)
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < ends[0]


def test_counts_per_input_bit_against_a_walk_over_rows():
    random = np.random.default_rng(3)
    inputs = random.integers(0, 4, (1, 2, 8, 1, 1))
    blocks = ((((0, 0, 0, 3),), ((0, 0, 3, 8),)),)
    table = np.arange(9) ** 2
    for is_merged in (True, False):
        found = read_activity(inputs, 2, blocks, (1, 1), (0, 0), (1, 1), resolved_bits=table, is_merged=is_merged)
        for token, frame in enumerate(inputs.reshape(2, 8)):
            each = [[int(((part >> bit) & 1).sum()) for part in (frame[:3], frame[3:])] for bit in range(2)]
            seen = [[sum(rows)] if is_merged else rows for rows in each]
            assert found.serial_rows[token, 0] == sum(max(rows) for rows in each)
            assert found.code_bits[token, 0] == sum(n * n for rows in seen for n in rows)
            assert found.slice_bits[token, 0].tolist() == [max(rows) ** 2 for rows in seen]


def test_defaults_do_not_follow_the_spikes():
    """The options at their defaults spelled out give the run that says nothing."""
    network = chip.mlp(10, 6, 3)
    values = chip.activity(network, 2, 3)
    spelled = {
        key: {"compressed": "whole", "serial": "parallel", True: False, "flag": "send"}[value]
        for key, value in SPARSE.items()
    }
    one, other = (chip.run(network, values, chip.SMALL | extra) for extra in ({}, spelled))
    assert chip.arrays(one.trace) == chip.arrays(other.trace)
    assert one.result.summary == other.result.summary


def test_impossible_combinations_name_both_keys():
    def fault(**overrides):
        with pytest.raises(ConfigError) as caught:
            load_hardware("demo", overrides)
        return str(caught.value).split(": ", 1)[1]

    early = {"tile.pe.adc.early_stop": True}
    assert (
        "adc.early_stop stops where sums of whole levels cannot reach, but adc.noise_sigma_lsb makes them differ; "
        "set adc.early_stop: false, or leave adc.noise_sigma_lsb ideal"
    ) in fault(**early, **{"tile.pe.adc.noise_sigma_lsb": 0.5})
    assert "but crossbar.device makes" in fault(**early, **{"tile.pe.crossbar.device.preset": "rram-neurosim"})
    assert (
        "silent_sums is flag and pe.crossbar.zero_skip is false: what is read has sums to send; "
        "set pe.crossbar.zero_skip: true or silent_sums: send"
    ) in fault(**{"tile.silent_sums": "flag", "tile.pe.crossbar.zero_skip": False})

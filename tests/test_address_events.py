"""Address events: what is sent, how wide, when it is known; random networks against bitmap runs and the spikes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_crossbar_chip import neuron
from test_schedules import (
    STAGED,
    ExplainedStreams,
    Simulated,
    conv,
    flow,
    flowing,
    joining,
    pe_energy,
    sent_by,
    simulate,
    unfinished,
    value_bits,
    work,
)

from archsim.mapping import LayerMapping
from archsim.workload.network import INPUT, Network, Pool

SEEDS = range(60)
BY_ADDRESS = {"chip.noc.spike_encoding": "address_event"}


def events(seed: int) -> Simulated:
    """A random case by address, over all schedules and one to four copies."""
    policy = {"mapping.schedule": ("pipelined", *STAGED)[seed % 3], "mapping.replication": 1 + seed // 3 % 4}
    return flow(seed, *BY_ADDRESS.items(), *policy.items())


# What is sent, from the spikes


def emitted(each: Simulated, item: LayerMapping, block: int) -> np.ndarray:
    """Counts behind pooling, shape (frame, y, x, channel), window by window."""
    first, last = item.col_blocks[block]
    spikes = each.activity.layers[item.layer.name].spikes[:, :, first:last]
    spikes = spikes.reshape(each.n_frames, *spikes.shape[2:])
    _, height, width = item.layer.out_shape
    pool = item.layer.pool or Pool((1, 1), (1, 1))
    counts = np.zeros((each.n_frames, height, width, last - first), int)
    for y, x in np.ndindex(height, width):
        rows = slice(y * pool.stride[0], y * pool.stride[0] + pool.kernel[0])
        cols = slice(x * pool.stride[1], x * pool.stride[1] + pool.kernel[1])
        counts[:, y, x] = spikes[:, :, rows, cols].sum(axis=(2, 3))
    return counts


def expected_packets(each: Simulated, item: LayerMapping, block: int, copy: int) -> list[tuple[int, int]]:
    """(Position over all frames, bits) of every packet of a copy: where a channel spiked, or the copy's row ends."""
    counts = emitted(each, item, block)
    frames, height, width, channels = counts.shape
    is_last = item.layer.name == each.mapping.network.layers[-1].name or not each.mapping.consumers(item.layer.name)
    count_bits = max(1, int(each.activity.layers[item.layer.name].spikes.max(initial=0)))
    count_bits *= int(np.prod(item.layer.pool.kernel)) if item.layer.pool else 1
    bits = count_bits.bit_length() if is_last else value_bits(each, item.layer.name)
    per_spike = max(1, (channels - 1).bit_length()) + (bits if bits > 1 else 0)
    found = []
    for frame, y in np.ndindex(frames, height):
        mine = [x for x in range(width) if (y * width + x) % item.n_copies == copy]
        for x in mine:
            n = int(np.count_nonzero(counts[frame, y, x]))
            if n or x == mine[-1]:
                found.append(((frame * height + y) * width + x, 1 + per_spike * n))
    return found


def injected(each: Simulated, stream: str) -> list[tuple[int, int]]:
    """(Position over all frames, bits) of every packet that a stream puts on the NoC, from the netlist."""
    ports = [server for server in each.netlist.servers if server.name != "global_buffer"]
    lanes = [lane for port in ports for lane in port.lanes if lane.name == stream and lane.reserves]
    return [pair for lane in lanes for pair in zip(sent_by(lane).tolist(), lane.actions[0].bits.tolist(), strict=True)]


def streams(each: Simulated) -> list[tuple[LayerMapping, int, int, str]]:
    """Every layer that fires, per column block and copy, with the name of its stream."""
    return [
        (item, block, copy, f"{item.layer.name}.block{block}" + (f".copy{copy}" if item.n_copies > 1 else ""))
        for item in each.mapping.layers
        if item.layer.neuron.kind not in ("none", "accumulate")
        for block in range(len(item.col_blocks))
        for copy in range(item.n_copies)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_packets_are_where_something_spiked_or_a_row_ends(seed):
    each = events(seed)
    wrong = [name for *source, name in streams(each) if injected(each, name) != expected_packets(each, *source)]
    assert wrong == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_movement_table_counts_those_packets_and_their_bits(seed):
    each = events(seed)
    table = each.movement[(each.movement["level"] == "noc") & (each.movement["class"] == "spikes")]
    found = table[["source", "packets", "bits"]].groupby("source").sum()
    sums: dict[str, list[int]] = {}
    for item, block, copy, _ in streams(each):
        packets = expected_packets(each, item, block, copy)
        total = sums.setdefault(item.layer.name, [0, 0])
        total[0] += len(packets)
        total[1] += sum(bits for _, bits in packets)
    assert {name: found.loc[name].tolist() for name in sums} == sums


# Laws


@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_leaves(seed):
    assert unfinished(events(seed)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_values_decide_is_as_with_bitmaps(seed):
    pd.testing.assert_frame_equal(work(events(seed)), work(flow(seed)), check_exact=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_energy_of_pes_is_as_with_bitmaps(seed):
    assert pe_energy(events(seed)) == pe_energy(flow(seed))


@pytest.mark.parametrize("seed", SEEDS[:24])
def test_every_time_follows_from_its_constraints(seed):
    """Starts of fetches are exact: the last packet that told about the input, or the PE itself."""
    assert ExplainedStreams(events(seed)).faults() == []


def window_of(each: Simulated, item: LayerMapping, token: int) -> list[int]:
    """Input positions, within a frame, that one output position reads."""
    spec = item.layer
    _, height, width = each.mapping.network.layer(spec.source).out_shape
    if spec.kind == "linear":
        return list(range(height * width))
    y, x = divmod(token, spec.conv_shape[2])
    rows = [y * spec.stride[0] - spec.padding[0] + k for k in range(spec.kernel[0])]
    cols = [x * spec.stride[1] - spec.padding[1] + k for k in range(spec.kernel[1])]
    return [r * width + c for r in rows for c in cols if 0 <= r < height and 0 <= c < width]


def early_tokens(each: Simulated, item: LayerMapping) -> list[tuple[int, int]]:
    """Tokens fetched before packets at or behind all of their input had come, walked one by one."""
    explained, early = ExplainedStreams(each), []
    source = each.mapping.layer(item.layer.source)
    _, height, width = source.layer.out_shape
    for lane, one in explained.pairs.values():
        if lane.reader is None or lane.layer != item.layer.name:
            continue
        labels = np.arange(lane.n_tokens) if lane.labels is None else lane.labels
        feeds = [part for part in explained.senders.items() if part[0].kind == "buffer"]
        feeds = [(target, sender) for target, sender in feeds if target.index == lane.reader[0]]
        for token, start in zip(labels.tolist(), one.start_ps.tolist(), strict=True):
            frame, at = divmod(token, lane.positions)
            for target, sender in feeds:
                copy = int(sender.name.split(".copy")[1]) if ".copy" in sender.name else 0
                mine = [p for p in window_of(each, item, at) if p % source.n_copies == copy]
                arrived = explained.entered["buffer", target.index, target.source]
                if mine:
                    number = frame * height * width + max(mine)
                    told = arrived[sent_by(sender) >= number]
                    early += [(lane.name, token)] if not len(told) or told.min() > start else []
    return early


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_no_token_is_fetched_before_its_input_could_be_known(seed):
    each = events(seed)
    readers = [item for item in each.mapping.layers if item.layer.source != INPUT]
    assert [early for item in readers for early in early_tokens(each, item)] == []


# Small networks


def two_maps(channels: int = 1) -> Network:
    return Network("two", (1, 5, 5), (conv("a", INPUT, (1, 5, 5), channels), conv("b", "a", (channels, 5, 5), 2)))


@pytest.mark.parametrize("detail", ["ideal", "packet"])
def test_one_channel_that_always_spikes_is_as_fast_as_a_bitmap(detail):
    """Every position is sent in one flit either way."""
    network = two_maps()
    values = flowing(network, 2, 2, 0, 1.0)
    runs = [simulate(network, values, {"chip.noc.detail": detail} | more) for more in ({}, BY_ADDRESS)]
    assert runs[0].latencies_ps == runs[1].latencies_ps


def test_silence_sends_the_end_of_every_row():
    network = two_maps(3)
    each = simulate(network, flowing(network, 1, 2, 0, 0.0), BY_ADDRESS)
    ends = [(frame * 25 + y * 5 + 4, 1) for frame in range(2) for y in range(5)]
    assert injected(each, "a.block0") == injected(each, "b.block0") == ends


def test_a_packet_holds_an_address_per_channel_that_spiked_and_an_end_mark():
    network = two_maps(5)
    values = flowing(network, 1, 1, 0, 0.0)
    values.layers["a"].spikes[0, 0, [0, 3, 4], 2, 1] = 1
    each = simulate(network, values, BY_ADDRESS)
    assert (11, 1 + 3 * 3) in injected(each, "a.block0")


def test_pooled_counts_travel_with_their_address():
    layers = (conv("a", INPUT, (1, 4, 4), 5, pool=Pool((2, 2), (2, 2))), conv("b", "a", (5, 2, 2), 2))
    network = Network("pooled", (1, 4, 4), layers)
    values = flowing(network, 1, 1, 0, 1.0)
    each = simulate(network, values, BY_ADDRESS)
    assert injected(each, "a.block0") == [(p, 1 + 5 * (3 + 3)) for p in range(4)]


def test_what_also_joins_stays_a_bitmap():
    network = joining("shortcut")
    values = flowing(network, 1, 2, 0, 0.1)
    each = simulate(network, values, BY_ADDRESS)
    addressed = {item.layer.name: (item, block, copy) for item, block, copy, _ in streams(each)}
    assert injected(each, "stem.block0") == [(position, 4) for position in range(2 * 16)]
    assert injected(each, "inner.block0") == expected_packets(each, *addressed["inner"])


def test_sums_that_join_stay_whole():
    layers = (
        conv("stem", INPUT, (2, 4, 4), 4),
        conv("inner", "stem", (4, 4, 4), 4),
        conv("side", "stem", (4, 4, 4), 4, 1, neuron=neuron("none")),
        conv("sum", "inner", (4, 4, 4), 4, adds=("side",)),
    )
    network = Network("res", (2, 4, 4), layers)
    each = simulate(network, flowing(network, 1, 2, 0, 0.1), BY_ADDRESS)
    bits = 4 * each.mapping.hardware.tile.accumulator.bits
    addressed = {item.layer.name: (item, block, copy) for item, block, copy, _ in streams(each)}
    assert injected(each, "side.block0") == [(position, bits) for position in range(2 * 16)]
    assert injected(each, "stem.block0") == expected_packets(each, *addressed["stem"])


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["shortcut", "recurrence"])
def test_joins_and_recurrences_drain(kind, rate, depth):
    network = joining(kind)
    chip = {"tile.pe.latch_depth": depth, "tile.pe.crossbar.rows": 4, "chip.noc.flit_bits": 8}
    each = simulate(network, flowing(network, 2, 3, 0, rate), BY_ADDRESS | chip)
    assert (unfinished(each), len(each.latencies_ps)) == ([], 2)


@pytest.mark.parametrize("flit_bits", [1, 8])
@pytest.mark.parametrize("reader", ["layer", "port"])
def test_a_short_packet_does_not_overtake_a_long_one(reader, flit_bits):
    """Columns that all spike and columns that are silent by turns, over endless links."""
    layers = (conv("a", INPUT, (2, 6, 6), 16), conv("b", "a", (16, 6, 6), 4))[: 2 if reader == "layer" else 1]
    network = Network("turns", (2, 6, 6), layers)
    values = flowing(network, 1, 3, 0, 1.0)
    values.layers["a"].spikes[..., 1::2] = 0
    chip = {"chip.noc.detail": "ideal", "chip.noc.flit_bits": flit_bits, "chip.noc.router_cycles": 1}
    assert ExplainedStreams(simulate(network, values, BY_ADDRESS | chip)).faults() == []

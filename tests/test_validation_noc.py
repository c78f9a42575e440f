"""The NoC alone: packet by packet against a cycle-stepped router, means against BookSim2, patterns, the command."""

from __future__ import annotations

import csv
import json

import cycle_stepped_router
import numpy as np
import pytest

from archsim.cli import main
from archsim.errors import ConfigError
from archsim.validation import noc
from archsim.validation.noc import Packets, Traffic

# The same packets through both


def mean_latencies(traffic: Traffic) -> tuple[float, float]:
    """Mean latency in cycles by the cycle-stepped router, and ours, of the same packets."""
    packets = noc.generate(traffic)
    listed = list(zip(packets.cycle.tolist(), packets.source.tolist(), packets.destination.tolist(), strict=True))
    theirs = np.array(cycle_stepped_router.arrivals(listed, traffic.k, traffic.flits, traffic.virtual_channels))
    ours = noc.arrival_cycles(traffic, packets, "compiled")
    return float((theirs - packets.cycle).mean()), float((ours - packets.cycle).mean())


UP_TO_A_TENTH = [
    (4, "uniform", 0.1, 1, 1, 1500),
    (4, "uniform", 0.1, 5, 4, 3000),
    (5, "uniform", 0.1, 3, 2, 1500),
    pytest.param((6, "uniform", 0.1, 5, 1, 1500), marks=pytest.mark.slow),
    (8, "transpose", 0.05, 1, 1, 1200),
    pytest.param((8, "transpose", 0.05, 5, 4, 1500), marks=pytest.mark.slow),
    (5, "neighbor", 0.1, 4, 2, 1500),
    (4, "hotspot", 0.03, 1, 1, 3000),
]
"""Side, pattern, flits per node and cycle, flits, virtual channels, cycles; the busiest link is below half its rate."""
UP_TO_A_FIFTH = [
    (4, "uniform", 0.2, 1, 1, 1500),
    (4, "uniform", 0.2, 8, 2, 3000),
    pytest.param((6, "uniform", 0.2, 5, 4, 1000), marks=pytest.mark.slow),
    (4, "transpose", 0.2, 5, 4, 2000),
]


@pytest.mark.parametrize("detail", ["packet", "flit"])
@pytest.mark.parametrize("case", UP_TO_A_TENTH, ids=str)
def test_up_to_a_tenth_of_a_flit_means_agree_within_two_percent(case, detail):
    k, pattern, flit_rate, flits, channels, cycles = case
    hotspot = 5 if pattern == "hotspot" else None
    theirs, ours = mean_latencies(Traffic(k, pattern, flit_rate, flits, channels, detail, cycles, 1, hotspot))
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("case", UP_TO_A_FIFTH, ids=str)
def test_flit_by_flit_means_agree_within_three_percent_up_to_a_fifth(case):
    k, pattern, flit_rate, flits, channels, cycles = case
    theirs, ours = mean_latencies(Traffic(k, pattern, flit_rate, flits, channels, "flit", cycles, 1))
    assert ours == pytest.approx(theirs, rel=0.03)


def test_one_virtual_channel_saturates_at_half_a_link_and_four_do_not():
    """Node 5 of a 4 x 4 mesh gets 16 x 0.04 flits per cycle; a packet of one flit holds a virtual channel for two."""
    one, four = (noc.measure(Traffic(4, "hotspot", 0.04, 1, channels, "flit", 4000, hotspot=5)) for channels in (1, 4))
    assert one["accepted_flit_rate"] == pytest.approx(0.5 / 16, rel=0.01)
    assert four["accepted_flit_rate"] == pytest.approx(four["offered_flit_rate"], rel=0.02)
    assert one["mean_packet_latency_cycles"] > 10 * four["mean_packet_latency_cycles"]


# BookSim2's own figures


def test_booksim_rows_agree(monkeypatch):
    """A few rows with few packets; `archsim validate noc` compares all of them with many."""
    monkeypatch.setattr(noc, "N_PACKETS", 6_000)
    with noc.REFERENCE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["k"] == "4" and row["flit_rate"] in ("0.1", "0.2")]
    found = [check for row in rows for detail in noc.TOLERANCES if (check := noc._check(row, detail)) is not None]
    assert [check.name for check in found if not check.passed] == []
    assert len(found) == 17


@pytest.mark.slow
def test_all_booksim_rows_agree():
    found = list(noc.checks())
    assert [check.name for check in found if not check.passed] == []


# Patterns


def pairs(pattern: str, k: int = 4, **options) -> dict[int, set[int]]:
    packets = noc.generate(Traffic(k, pattern, 0.5, cycles=400, **options))
    return {node: set(packets.destination[packets.source == node].tolist()) for node in range(k * k)}


def test_transpose_swaps_the_coordinates_and_keeps_the_diagonal():
    assert pairs("transpose") == {4 * y + x: {4 * x + y} for y in range(4) for x in range(4)}


def test_neighbor_is_the_next_node_along_both_axes():
    assert pairs("neighbor") == {4 * y + x: {(y + 1) % 4 * 4 + (x + 1) % 4} for y in range(4) for x in range(4)}


def test_uniform_traffic_goes_everywhere_its_own_node_included():
    assert pairs("uniform") == {node: set(range(16)) for node in range(16)}


def test_hotspot_traffic_goes_to_the_given_node_or_to_one_drawn_from_the_seed():
    assert pairs("hotspot", hotspot=7) == {node: {7} for node in range(16)}
    drawn = {next(iter(pairs("hotspot", seed=seed)[0])) for seed in range(8)}
    assert len(drawn) > 3


def test_packets_start_with_the_asked_probability_in_every_cycle():
    packets = noc.generate(Traffic(4, flit_rate=0.3, flits=3, cycles=20_000, seed=2))
    n_cycles = int(packets.cycle[-1]) + 1
    per_node = np.bincount(packets.source, minlength=16) / n_cycles
    assert per_node == pytest.approx(np.full(16, 0.1), rel=0.06)
    gaps = np.diff(packets.cycle[packets.source == 3])
    assert np.mean(gaps == 1) == pytest.approx(0.1, abs=0.02)
    assert gaps.mean() == pytest.approx(10, rel=0.06)


def test_latency_counts_the_wait_in_the_source():
    packets = Packets(np.zeros(3, np.int64), np.zeros(3, np.int64), np.ones(3, np.int64))
    arrival = noc.arrival_cycles(Traffic(2, flits=4, detail="flit"), packets, "simpy")
    assert sorted(arrival.tolist()) == [4 * 2 + 2 + 3 + wait for wait in (0, 4, 8)]


# The command


def test_a_measurement_prints_its_figures_and_is_repeatable(capsys):
    command = ["validate", "noc", "--k", "3", "--traffic", "uniform", "--flit-rate", "0.1", "--flits", "2"]
    command += ["--vcs", "2", "--detail", "flit", "--cycles", "1000", "--seed", "3", "--json"]
    printed = []
    for _ in range(2):
        assert main(command) == 0
        printed.append(capsys.readouterr().out)
    found = json.loads(printed[0])
    assert printed[0] == printed[1]
    assert found["mean_packet_latency_cycles"] == pytest.approx(4 * found["mean_routers"] + 3, rel=0.05)
    assert found["p99_packet_latency_cycles"] >= found["mean_packet_latency_cycles"]
    assert found["accepted_flit_rate"] == pytest.approx(0.1, rel=0.2)


def test_rows_out_of_tolerance_are_exit_code_1(monkeypatch, capsys):
    with noc.REFERENCE.open(newline="") as file:
        row = next(csv.DictReader(file))
    off = noc._check(row | {"mean_packet_latency": "20"}, "packet")
    monkeypatch.setattr(noc, "checks", lambda progress: iter([off]))
    assert main(["validate", "noc", "--json"]) == 1
    assert "out of tolerance: packet: 4 x 4 uniform 0.01, 4 VC, 1 flit, mean latency" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "1"], "--k is 1; it must be 2 to 32: a mesh has at least 2 x 2 nodes"),
        (["--flit-rate", "0"], "--flit-rate is 0; a node sends more than 0 and at most 1 flit per cycle"),
        (["--flits", "0"], "--flits is 0; it must be 1 to 1024: give a packet 1 to 1024 flits"),
        (["--vcs", "65"], "--vcs is 65; it must be 1 to 64: give a link 1 to 64 virtual channels"),
        (["--traffic", "up"], "--traffic is 'up'; it must be one of uniform, transpose, neighbor, hotspot"),
        (["--detail", "ideal"], "--detail is 'ideal'; it must be one of packet, flit"),
        (["--traffic", "hotspot", "--hotspot", "64"], "--hotspot is 64; it must be 0 to 63: nodes of a 8 x 8 mesh"),
        (["--hotspot", "3"], "--hotspot 3 has no meaning with --traffic uniform; choose --traffic hotspot"),
        (["--seed", "-1"], "--seed is -1; it must be 0 to 9223372036854775808: seeds are not negative"),
        (
            ["--k", "2", "--flit-rate", "0.0001", "--cycles", "3"],
            "no packet is created in 3 cycles at 0.0001 flits per node and cycle; raise --cycles or --flit-rate",
        ),
    ],
)
def test_wrong_options_are_said(options, message, capsys):
    assert main(["validate", "noc", *options]) == 2
    assert capsys.readouterr().err == f"archsim: {message}\n"


def test_traffic_belongs_to_the_noc_alone(capsys):
    assert main(["validate", "spikesim", "--k", "4"]) == 2
    assert capsys.readouterr().err == (
        "archsim: validate spikesim has no traffic; leave the options of `validate noc` out\n"
    )


def test_detail_is_checked_in_python_too():
    with pytest.raises(ConfigError, match="--detail is 'none'"):
        Traffic(detail="none")

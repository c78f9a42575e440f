"""Chips with other networks: what moves and costs stays, both engines agree, paths explain the latency."""

from __future__ import annotations

from functools import lru_cache

import pytest
from test_crossbar_chip import activity

import archsim
from archsim.analysis.critical_path import critical_path
from archsim.components import noc
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError
from archsim.result import Result

NETWORKS = {
    "ideal": {"detail": "ideal"},
    "packet": {"detail": "packet"},
    "one channel": {"detail": "packet", "virtual_channels": 1},
    "flit": {"detail": "flit", "vc_depth_flits": 64},
    "flit, one channel": {"detail": "flit", "virtual_channels": 1, "vc_depth_flits": 16},
    "tree": {"topology": "tree", "detail": "packet"},
    "tree, flit": {"topology": "tree", "detail": "flit", "vc_depth_flits": 16, "spike_encoding": "address_event"},
    "bus": {"topology": "bus", "clock_mhz": 333.0},
}


@lru_cache
def run(name: str, engine: str = "simpy", **more: object) -> Result:
    """digits-cnn on the demo chip with narrow flits, so that packets have several."""
    keys = {f"chip.noc.{key}": value for key, value in ({"flit_bits": 8} | NETWORKS[name] | more).items()}
    workload = archsim.load_workload("digits-cnn", timesteps=2)
    mapping = archsim.map_network(archsim.load_hardware("demo", keys), workload)
    return simulate_activity(mapping, workload, activity(workload.network, 1, 2), engine=engine)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_engines_agree_and_the_path_sums_to_the_latency(name):
    one, other = run(name), run(name, "compiled")
    assert other.summary | {"engine": "simpy"} == one.summary
    assert other.events["start_ps"].tolist() == one.events["start_ps"].tolist()
    assert critical_path(one)["duration_ps"].sum() == one.summary["latency_ps"]


@pytest.mark.parametrize("name", ["one channel", "flit", "flit, one channel"])
def test_the_same_bits_move_over_the_same_hops_at_the_same_energy(name):
    ours, packets = (run(each).movement for each in (name, "packet"))
    columns = ["source", "destination", "class", "level", "packets", "bits", "bit_hops"]
    assert ours[columns].equals(packets[columns])
    assert ours["energy_pj"].to_numpy() == pytest.approx(packets["energy_pj"].to_numpy(), rel=1e-12)


def test_buffers_and_channels_cost_time_and_nothing_else():
    latencies = [run(name).summary["latency_ps"] for name in ("ideal", "packet", "one channel", "flit, one channel")]
    assert latencies == sorted(latencies)
    assert latencies[0] < latencies[-1]


@pytest.mark.parametrize("name", ["packet", "one channel", "flit", "tree", "bus"])
def test_a_faster_network_is_not_slower_on_this_chip(name):
    slow, fast = (run(name, clock_mhz=clock_mhz).summary["latency_ps"] for clock_mhz in (200.0, 400.0))
    assert fast < slow


def test_a_bus_carries_every_packet_once_and_a_tree_has_fewer_routers():
    kinds = {name: run(name).components.set_index("component")["kind"] for name in ("packet", "tree", "bus")}
    n_tiles = run("packet").summary["n_tiles"]
    routers = {name: int((kind == "router").sum()) for name, kind in kinds.items()}
    side = int((n_tiles - 1) ** 0.5) + 1
    assert routers == {
        "packet": side * -(-n_tiles // side),
        "tree": noc.Topology("tree", side, -(-n_tiles // side)).n_routers,
        "bus": 1,
    }
    moved = run("bus").movement
    over_noc = moved[moved["level"] == "noc"]
    assert (over_noc["bits"] == over_noc["bit_hops"]).all()


def test_what_the_keys_allow_is_said():
    with pytest.raises(ConfigError) as fault:
        archsim.load_hardware("demo", {"chip.noc.detail": "flits", "chip.noc.virtual_channels": 0})
    assert str(fault.value) == (
        "--set chip.noc.detail=flits: chip.noc.detail is 'flits'; it must be 'ideal', 'packet' or 'flit'\n"
        "--set chip.noc.virtual_channels=0: chip.noc.virtual_channels is 0; it must be at least 1"
    )

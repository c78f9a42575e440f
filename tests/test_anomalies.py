"""Faster parts: on private parts they never slow a run; on shared ones they can, within bounds, and that is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import test_crossbar_chip as crossbar
from random_netlists import Growth
from test_servers import lane, sink, source
from test_staged_joins import work_bounds_ps

import archsim
from archsim.analysis.anomalies import is_nowhere_slower
from archsim.api import explanation
from archsim.components.netlist import UNBOUNDED, Lane, Netlist, Server
from archsim.components.trace import ExecutionTrace
from archsim.engine import compiled_execution, simpy_execution
from archsim.engine.simulation import simulate_activity
from archsim.errors import SimulationError
from archsim.report.html import render_html
from archsim.report.run_report import report_page


class Unshared(Growth):
    """A netlist in which every part serves one stream, in its order."""

    def server(self) -> Server:
        return self.netlist.server(f"own{len(self.netlist.servers)}", "shared")

    def bus(self) -> None:
        self.link()


def faster(netlist: Netlist, seed: int) -> Netlist:
    """The same netlist with some services and wires shorter, and some latches deeper."""
    rng = np.random.default_rng(seed)

    def shorter(times: np.ndarray) -> np.ndarray:
        return times - rng.integers(0, times + 1) * (rng.random() < 0.3)

    def shortened(each: Lane) -> Lane:
        actions = tuple(replace(action, duration_ps=shorter(action.duration_ps)) for action in each.actions)
        wires = tuple(
            replace(wire, delay_ps=wire.delay_ps // 2 if rng.random() < 0.3 else wire.delay_ps) for wire in each.wires
        )
        return replace(each, actions=actions, wires=wires)

    servers = [replace(server, lanes=[shortened(each) for each in server.lanes]) for server in netlist.servers]
    deeper = [
        replace(channel, capacity=channel.capacity + int(rng.random() < 0.2) * (channel.capacity != UNBOUNDED))
        for channel in netlist.channels
    ]
    return replace(netlist, servers=servers, channels=deeper)


def drained(netlist: Netlist) -> ExecutionTrace | None:
    """What happens; None where tokens wait for each other, which does not depend on times."""
    try:
        return compiled_execution.execute(netlist)
    except SimulationError:
        return None


@pytest.mark.parametrize("seed", range(100))
def test_no_faster_part_delays_any_service_where_none_is_shared(seed):
    netlist = Unshared(seed).grow()
    other = faster(netlist, seed)
    assert is_nowhere_slower(other, netlist)
    trace, sooner = drained(netlist), drained(other)
    if trace is None or sooner is None:
        pytest.skip("this netlist deadlocks")
    for before, after in zip(trace.lanes, sooner.lanes, strict=True):
        assert (after.start_ps <= before.start_ps).all()
        assert (after.leave_ps <= before.leave_ps).all()


@pytest.mark.parametrize("seed", range(100))
def test_runs_with_shared_parts_take_no_less_than_the_busiest_and_no_more_than_all_work(seed):
    netlist = Growth(seed).grow()
    trace = drained(netlist)
    if trace is None:
        pytest.skip("this netlist deadlocks")
    least, largest = work_bounds_ps(netlist)
    assert least <= trace.end_ps <= largest


def overtaking(first_service: int) -> Netlist:
    """Two streams over one shared part; the token of the second one has much to do behind it."""
    netlist = Netlist()
    early, late = source(netlist, "early", [first_service]), source(netlist, "late", [4])
    ends = [netlist.channel(f"end{index}", UNBOUNDED) for index in range(2)]
    netlist.server(
        "bus",
        "shared",
        lane("bus.early", [10], inputs=(early,), output=ends[0]),
        lane("bus.late", [1], inputs=(late,), output=ends[1]),
    )
    sink(netlist, "short", [1], ends[0])
    sink(netlist, "long", [20], ends[1])
    return netlist


def test_a_faster_source_lets_its_token_first_and_lengthens_the_run():
    slow, fast = overtaking(5), overtaking(3)
    assert is_nowhere_slower(fast, slow)
    assert not is_nowhere_slower(slow, fast)
    assert [simpy_execution.execute(netlist).end_ps for netlist in (slow, fast)] == [25, 34]


def test_a_netlist_with_less_room_or_other_parts_is_not_the_same_one_faster():
    netlist = overtaking(5)
    bounded = replace(netlist, channels=[replace(channel, capacity=1) for channel in netlist.channels])
    assert is_nowhere_slower(netlist, bounded)
    assert not is_nowhere_slower(bounded, netlist)
    assert not is_nowhere_slower(replace(netlist, servers=netlist.servers[:-1]), netlist)


def test_what_if_marks_a_deeper_latch_that_lengthens_the_run_and_counts_it():
    workload = archsim.load_workload("digits-cnn", timesteps=2)
    mapping = archsim.map_network(archsim.load_hardware("spikesim-rram-64"), workload)
    result = simulate_activity(mapping, workload, crossbar.activity(workload.network, 1, 2))
    changes = [{"tile.pe.latch_depth": 4}, {"chip.clock_mhz": 200}, {"mapping.share_tiles": True}]
    result.changes = archsim.what_if(result, changes)
    assert result.changes["anomaly"].tolist() == [True, False, None]
    assert result.changes["latency_gain"][0] < 0
    assert explanation(result)["n_anomalies"] == 1
    assert "Anomalies: 1." in render_html(report_page(result))

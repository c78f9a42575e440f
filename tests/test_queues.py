"""Waits and queue depths per component: by hand, by brute force, and by the channels' own counts."""

from __future__ import annotations

import numpy as np
import pytest
import test_crossbar_chip as crossbar
from random_netlists import Growth
from test_servers import lane, pipeline

from archsim.components.netlist import UNBOUNDED, LineBuffer, Netlist, Target, Wire
from archsim.engine.queues import queue_table
from archsim.engine.simpy_execution import execute
from archsim.errors import SimulationError


def test_waits_of_two_stages_by_hand():
    """Tokens come at 2, 4, 6 and are taken at 2, 7, 12; one waits from 4 to 6, two from 6 to 7, one from 7 to 12."""
    netlist = pipeline([[2, 2, 2], [5, 5, 5]], [UNBOUNDED])
    row = queue_table(netlist, execute(netlist)).iloc[0].to_dict()
    assert row == {
        "component": "stage1",
        "n_waits": 3,
        "wait_mean_ps": 3.0,
        "wait_p50_ps": 3,
        "wait_p95_ps": 6,
        "wait_max_ps": 6,
        "depth_mean": 9 / 17,
        "depth_p50": 0,
        "depth_p95": 2,
        "depth_peak": 2,
    }


def test_a_reader_waits_from_the_time_its_window_is_complete():
    netlist = Netlist()
    inbox = netlist.channel("inbox", UNBOUNDED)
    netlist.server("source", "private", lane("source", [1, 1, 1], output=inbox))
    netlist.buffers.append(LineBuffer("buffer", "layer", 3, 1, 1, np.array([1, 1, 2]), np.array([0, 1, 2])))
    target = Target("buffer", 0)
    link = lane("link", [1] * 3, inputs=(inbox,), wires=(Wire(target, 4),), reserves=(target,))
    netlist.server("link", "shared", link)
    netlist.server("pe", "private", lane("pe", [10] * 3, reader=(0, 0), release_after=1))
    row = queue_table(netlist, execute(netlist)).set_index("component").loc["pe"]
    assert tuple(row[["n_waits", "wait_p50_ps", "wait_max_ps", "wait_mean_ps"]]) == (3, 10, 19, (0 + 10 + 19) / 3)


@pytest.mark.parametrize("seed", range(20))
def test_depths_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    services = rng.choice([1, 2, 3, 15], (2, 40)).tolist()
    netlist = pipeline(services, [UNBOUNDED])
    trace = execute(netlist)
    at = np.arange(trace.end_ps)
    came, went = trace.lanes[0].leave_ps, trace.lanes[1].start_ps
    depth = np.sort(((came[:, None] <= at) & (at < went[:, None])).sum(axis=0))
    row = queue_table(netlist, trace).iloc[0]
    ranks = [int(np.ceil(share * len(depth))) - 1 for share in (0.5, 0.95)]
    assert tuple(row[["depth_p50", "depth_p95", "depth_peak"]]) == (*depth[ranks].tolist(), depth[-1])
    assert row["depth_mean"] == pytest.approx(depth.mean(), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_depths_of_latches_agree_with_what_the_channels_counted(seed):
    netlist = Growth(seed).grow()
    try:
        trace = execute(netlist)
    except SimulationError:
        pytest.skip("this netlist deadlocks")
    table = queue_table(netlist, trace).set_index("component")
    for server in netlist.servers:
        name = server.lanes[0].actions[0].component
        counted = sum(trace.channels[index].occupancy_integral_ps for each in server.lanes for index in each.inputs)
        if name in table.index and not any(each.reader for each in server.lanes):
            assert table.loc[name, "depth_mean"] * trace.end_ps == pytest.approx(counted, rel=1e-12)


@pytest.mark.parametrize("seed", range(0, 30, 6))
def test_tables_of_a_chip_are_in_order_and_follow_littles_law(seed):
    each = crossbar.case(seed)
    table, names = each.result.queues, each.result.components["component"].tolist()
    assert [names.index(name) for name in table["component"]] == sorted(map(names.index, table["component"]))
    waits = table["n_waits"] * table["wait_mean_ps"]
    np.testing.assert_allclose(table["depth_mean"] * each.trace.end_ps, waits, rtol=1e-12)
    assert (table[["wait_p50_ps", "wait_p95_ps", "wait_max_ps"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)

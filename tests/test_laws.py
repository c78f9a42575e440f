"""Laws that a run must obey, and what the component table says of time that a part could not use."""

from dataclasses import replace

import numpy as np
import pytest
import test_crossbar_chip as chip
from test_servers import lane, pipeline, sink, source, times

from archsim.components.netlist import (
    UNBOUNDED,
    Action,
    ComponentInfo,
    Lane,
    LineBuffer,
    Netlist,
    Target,
    Wire,
    constant,
)
from archsim.components.trace import ExecutionTrace
from archsim.engine import tables
from archsim.engine.conservation import check_trace
from archsim.engine.log import build_log
from archsim.engine.simpy_execution import execute
from archsim.errors import SimulationError
from archsim.workload.network import Layer, Network, Pool


def test_a_source_lane_of_a_shared_server_starts_at_once():
    netlist = Netlist()
    out = netlist.channel("out", UNBOUNDED)
    netlist.server("bus", "shared", lane("bus0", [2, 2], output=out))
    sink(netlist, "sink", [0, 0], out)
    assert times(netlist)[0][0] == [0, 2]


def test_overlapping_services_break_a_law():
    netlist = pipeline([[5, 5]], [])
    trace = execute(netlist)
    bad = replace(trace.lanes[0], start_ps=np.array([0, 1]), leave_ps=np.array([5, 6]))
    with pytest.raises(SimulationError, match="overlap"):
        check_trace(netlist, ExecutionTrace([bad], trace.channels, 6))


def test_two_lanes_of_a_shared_server_at_once_break_a_law():
    netlist = Netlist()
    a, b = source(netlist, "a", [1]), source(netlist, "b", [1])
    netlist.server("bus", "shared", lane("bus0", [5], inputs=(a,)), lane("bus1", [5], inputs=(b,)))
    trace = execute(netlist)
    one = trace.lanes[3]
    lanes = [*trace.lanes[:3], replace(one, start_ps=np.array([1]), leave_ps=np.array([6]))]
    ch = [trace.channels[0], replace(trace.channels[1], occupancy_integral_ps=0)]
    with pytest.raises(SimulationError):
        check_trace(netlist, ExecutionTrace(lanes, ch, 6))


def test_the_deadlock_message_names_the_source_that_is_late_whatever_the_order_of_servers():
    netlist = Netlist()
    ready, back = source(netlist, "source", [1, 2]), netlist.channel("back", 1)
    netlist.buffers.append(LineBuffer("buffer", "layer", 2, 2, 1, np.array([0, 1]), np.array([0, 1])))
    for index, inbox in ((1, ready), (0, back)):
        target = Target("buffer", 0, index)
        link = lane(f"link{index}", [1, 1], inputs=(inbox,), wires=(Wire(target, 1),), reserves=(target,))
        netlist.server(f"link{index}", "shared", link)
    netlist.server("pe", "private", lane("pe", [1, 1], reader=(0, 0), release_after=1, output=back))
    with pytest.raises(SimulationError, match=r"these wait for each other: link0 -> pe -> link0$"):
        execute(netlist)


def two_part_stage():
    """A converter whose bookkeeping is a second component; blocked from 30 to 60, starved from 60 to 100."""
    netlist = Netlist()
    inbox, out = source(netlist, "source", [0, 1, 2, 100]), netlist.channel("out", 1)

    def act(name, t):
        return Action(name, name, constant(t, 4), constant(1, 4), constant(0, 4), constant(0, 4, float))

    netlist.server(
        "adc", "private", Lane("adc", "layer", 4, 4, (0, 1), (act("adc", 10), act("mux", 0)), (inbox,), output=out)
    )
    sink(netlist, "sink", [50, 1, 1, 1], out)
    netlist.components = [ComponentInfo(name, name, 0.0, 0.0) for name in ("source", "adc", "mux", "sink")]
    return netlist


def test_time_blocked_behind_a_part_is_not_starved():
    netlist = two_part_stage()
    trace = execute(netlist)
    table = tables.component_table(netlist, trace, build_log(netlist, trace))
    row = table[table["component"] == "adc"].to_dict("records")[0]
    assert (row["busy_ps"], row["blocked_ps"], row["starved_ps"]) == (40, 30, 40)


def test_parts_of_a_blocked_pe_that_is_not_pipelined_count_as_blocked():
    network = chip.mlp(8, 8)
    slow = chip.SMALL | {"tile.pe.pipelined": False, "tile.htree.bits_per_cycle": 1, "tile.pe.latch_depth": 1}
    table = chip.run(network, chip.activity(network, 1, 6, rate=1.0), slow).result.components
    adc = table[table["component"] == "tile0.pe0.adc"].to_dict("records")[0]
    assert adc["blocked_ps"] > adc["starved_ps"]


def test_the_queue_before_a_crossbar_is_listed_at_the_crossbar():
    network = chip.mlp(8, 8)
    table = chip.run(network, chip.activity(network, 1, 6, rate=1.0), chip.SMALL).result.components
    peaks = dict(zip(table["component"], table["peak_queue"], strict=False))
    assert [peaks[f"tile0.{part}"] for part in ("pe0.crossbar", "pe0.row_driver", "neuron", "v_mem")] == [1, 0, 1, 0]


def test_pooling_of_a_readout_is_at_the_last_timestep_of_its_sample():
    layer = Layer(
        "conv",
        "conv2d",
        "input",
        (1, 4, 4),
        3,
        (1, 1),
        (1, 1),
        (0, 0),
        None,
        None,
        chip.neuron("accumulate"),
        Pool((2, 2), (2, 2)),
    )
    network = Network("net", (1, 4, 4), (layer,))
    log = chip.run(network, chip.activity(network, 2, 3)).result.log
    rows = log.rows_of("tile0.pooling")
    assert set(zip(log["sample"][rows].tolist(), log["timestep"][rows].tolist(), strict=False)) == {(0, 2), (1, 2)}

"""The compiled execution against the SimPy one: equal times, causes, predecessors, counts, errors and results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
from random_netlists import Growth
from test_address_events import BY_ADDRESS
from test_schedules import flow
from test_servers import lane, pipeline, random_sharing, source

import archsim
from archsim.components.netlist import UNBOUNDED, LineBuffer, Netlist, Target, Wire
from archsim.components.trace import ExecutionTrace
from archsim.engine import compiled_execution, simpy_execution
from archsim.engine.conservation import check_trace
from archsim.engine.simulation import simulate_activity
from archsim.errors import ConfigError, SimulationError

N_NETLISTS = 240


def differences(netlist: Netlist, expected: ExecutionTrace) -> list[str]:
    """What the compiled execution of a netlist has otherwise than a trace: lanes, channels, the end."""
    found = compiled_execution.execute(netlist)
    wrong = [
        f"{each.name}.{item.name}"
        for each, one, other in zip(netlist.lanes(), expected.lanes, found.lanes, strict=True)
        for item in fields(one)
        if getattr(one, item.name).tolist() != getattr(other, item.name).tolist()
    ]
    pairs = zip(netlist.channels, expected.channels, found.channels, strict=True)
    wrong += [channel.name for channel, one, other in pairs if one != other]
    return wrong + ["end"] * (expected.end_ps != found.end_ps)


def outcome(execute, netlist: Netlist) -> ExecutionTrace | str:
    """A trace, or the text of the error."""
    try:
        return execute(netlist)
    except SimulationError as fault:
        return str(fault)


# Random netlists


@pytest.mark.parametrize("seed", range(N_NETLISTS))
def test_random_netlists_run_alike(seed):
    netlist = Growth(seed).grow()
    expected = outcome(simpy_execution.execute, netlist)
    if isinstance(expected, str):
        assert outcome(compiled_execution.execute, netlist) == expected
    else:
        check_trace(netlist, expected)
        assert differences(netlist, expected) == []


def test_the_random_netlists_hold_everything_and_most_of_them_drain():
    used: Counter[str] = Counter()
    n_stuck = 0
    for seed in range(N_NETLISTS):
        growth = Growth(seed)
        n_stuck += isinstance(outcome(compiled_execution.execute, growth.grow()), str)
        used.update(dict.fromkeys(growth.used, 1))
    assert (n_stuck < N_NETLISTS // 5, min(used.values()) > N_NETLISTS // 10, len(used)) == (True, True, 15), used


# Chips


@pytest.mark.parametrize("seed", crossbar.SEEDS)
def test_random_chips_run_alike(seed):
    each = crossbar.case(seed)
    assert differences(each.netlist, each.trace) == []


@pytest.mark.parametrize("seed", joins.SEEDS)
def test_joins_and_recurrences_run_alike(seed):
    each = joins.case(seed)
    assert differences(each.netlist, each.trace) == []


POLICIES = (
    ("mapping.schedule", "layer_by_layer"),
    ("mapping.schedule", "tick_batched"),
    ("mapping.replication", 2),
    ("mapping.fc", "stream"),
    ("mapping.first_layer", "digital"),
    *BY_ADDRESS.items(),
)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: str(policy[1]))
@pytest.mark.parametrize("seed", range(10))
def test_mapping_policies_and_address_events_run_alike(seed, policy):
    each = flow(seed, policy)
    assert differences(each.netlist, each.trace) == []


@pytest.mark.parametrize("schedule", ["pipelined", "layer_by_layer", "tick_batched"])
@pytest.mark.parametrize("workload", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("chip", ["demo", "spikesim-rram-64", "spikesim-sram-64", "isaac-rram-128"])
def test_shipped_chips_and_workloads_give_equal_files(chip, workload, schedule, tmp_path):
    loaded = archsim.load_workload(workload)
    activity = crossbar.activity(loaded.network, 1, loaded.n_timesteps)
    mapping = archsim.map_network(archsim.load_hardware(chip, {"mapping.schedule": schedule}), loaded)
    for engine in ("simpy", "compiled"):
        simulate_activity(mapping, loaded, activity, engine=engine).write(tmp_path / engine)
    found = {path.name: path.read_bytes() for path in (tmp_path / "compiled").iterdir()}
    found["summary.json"] = found["summary.json"].replace(b'"compiled"', b'"simpy"')
    assert found == {path.name: path.read_bytes() for path in (tmp_path / "simpy").iterdir()}


# Which engine runs


def test_auto_takes_the_compiled_engine_for_many_services():
    result = archsim.simulate(archsim.load_hardware("spikesim-rram-64"), archsim.load_workload("vgg9-cifar10"))
    assert (result.summary["engine"], result.summary["n_timesteps"]) == ("compiled", 5)


def test_auto_takes_simpy_for_few_services_and_does_not_wait_for_numba():
    script = (
        "import sys, archsim\n"
        "network = archsim.load_workload('vgg9-cifar10', timesteps=1)\n"
        "result = archsim.simulate(archsim.load_hardware('spikesim-rram-64'), network)\n"
        "print(result.summary['engine'], 'numba' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "simpy False\n"


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        archsim.simulate(archsim.load_hardware("demo"), archsim.load_workload("digits-mlp"), engine="fast")
    assert str(caught.value) == "engine 'fast' is not known; engines are auto, simpy, compiled"


def test_the_same_functions_run_as_plain_python():
    script = (
        "from random_netlists import Growth\n"
        "from test_compiled_execution import differences\n"
        "from archsim.engine import kernel, simpy_execution\n"
        "netlists = [Growth(seed).grow() for seed in (0, 1, 2, 3)]\n"
        "print(type(kernel.run).__name__, [differences(each, simpy_execution.execute(each)) for each in netlists])\n"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("function [[], [], [], []]\n", "")


# Faults


def test_a_deadlock_is_named_as_simpy_names_it():
    netlist = Netlist()
    there, back = netlist.channel("there", 1), netlist.channel("back", 1)
    netlist.server("ping", "private", lane("ping", [1, 1], inputs=(back,), output=there))
    netlist.server("pong", "shared", lane("pong", [1, 1], inputs=(there,), output=back))
    with pytest.raises(SimulationError) as caught:
        compiled_execution.execute(netlist)
    assert str(caught.value) == (
        "no progress after t = 0 ps: 4 services never finished; these wait for each other: ping -> pong -> ping"
    )


@pytest.mark.parametrize("execute", [simpy_execution.execute, compiled_execution.execute])
def test_a_token_that_would_overtake_another_is_refused(execute):
    netlist = Netlist()
    inbox, end = source(netlist, "source", [0, 1]), netlist.channel("end", UNBOUNDED)
    wires = (Wire(Target("channel", end), np.array([9, 2])),)
    netlist.server("link", "shared", lane("link", [1, 1], inputs=(inbox,), wires=wires))
    netlist.server("sink", "private", lane("sink", [0, 0], inputs=(end,)))
    with pytest.raises(SimulationError) as caught:
        execute(netlist)
    assert str(caught.value) == (
        "link: token 1 would overtake the one before it on its wire, arriving at 3 ps instead of at 9 ps or later"
    )


def faulty(name: str) -> Netlist:
    """A pipeline of two stages with one thing that no execution can run."""
    netlist = pipeline([[1, 1, 1], [1, 1, 1]], [1])
    first, second = netlist.lanes()
    if name == "two lanes":
        netlist.servers[0].lanes.append(lane("third", [1]))
    elif name == "shared reader":
        netlist.server("bus", "shared", lane("bus", [1], reader=(0, 0)))
    elif name == "private wires":
        first.wires = (Wire(Target("channel", 0), 1),)
    elif name == "two feeders":
        netlist.server("bus", "shared", lane("bus", [1, 1, 1], output=0))
    elif name == "two takers":
        netlist.server("bus", "shared", lane("bus", [1, 1, 1], inputs=(0,)))
    elif name == "short mask":
        first.emit = np.array([True, False])
    elif name == "too many positions":
        netlist.buffers.append(LineBuffer("buffer", "layer", 2, 1, 1, np.array([0, 1]), np.array([0, 1])))
        wires = (Wire(Target("buffer", 0), 1),)
        netlist.server("bus", "shared", lane("bus", [1, 1, 1], wires=wires))
    else:
        netlist.buffers.append(LineBuffer("buffer", "layer", 3, 1, 1, np.array([0, 1]), np.array([0, 1, 1])))
        second.inputs, second.reader = (), (0, 0)
    return netlist


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("two lanes", "stage0: a private server has 2 lanes; it must have one"),
        (
            "shared reader",
            "bus: a shared server gives positions of a line buffer free when its service ends; "
            "release_after is 0 of 1 actions; use a private server",
        ),
        ("private wires", "stage0: a private server has one channel behind it and no wires; use a shared one"),
        ("two feeders", "latch0: is fed by two lanes, stage0 and bus; it must be one"),
        ("two takers", "latch0: is taken from by two lanes, stage1 and bus; it must be one"),
        ("short mask", "stage0: emit has 2 entries; the lane needs 3"),
        ("too many positions", "bus: sends 3 positions; buffer expects 2"),
        ("short needs", "stage1: need has 2 entries; the lane needs 3"),
    ],
)
@pytest.mark.parametrize("execute", [simpy_execution.execute, compiled_execution.execute])
def test_what_no_execution_can_run_is_refused(execute, name, text):
    with pytest.raises(SimulationError) as caught:
        execute(faulty(name))
    assert str(caught.value) == text


# Counts that do not depend on the order within an instant


@pytest.mark.parametrize("execute", [simpy_execution.execute, compiled_execution.execute])
def test_a_token_that_is_taken_as_it_comes_is_a_queue_of_one_and_not_of_two(execute):
    """At 2 and at 3 one token comes and another goes; never do two wait."""
    netlist = pipeline([[1, 1, 1], [1, 1, 1]], [UNBOUNDED])
    assert [one.peak for one in execute(netlist).channels] == [1]


@pytest.mark.parametrize("seed", range(10))
def test_queues_do_not_depend_on_the_order_of_servers(seed):
    netlist = random_sharing(seed, 2)
    before = simpy_execution.execute(netlist)
    netlist.servers.reverse()
    assert simpy_execution.execute(netlist).channels == before.channels

"""The port of the global buffer: inputs, outputs and staged frames take turns, the oldest first."""

import numpy as np
import pytest
import test_crossbar_chip as chip
from test_compiled_execution import differences
from test_servers import Explained

from archsim.eventlog import CAUSES

CYCLE_PS = 2000


def narrow(schedule: str = "pipelined", steps: int = 4) -> chip.Run:
    """A port of one bit per cycle: inputs take 8 cycles, everything else 4."""
    network = chip.mlp(8, 4, 4)
    overrides = {"chip.global_buffer.bits_per_cycle": 1, "mapping.schedule": schedule}
    return chip.run(network, chip.activity(network, 1, steps, rate=1.0), chip.SMALL | overrides)


@pytest.mark.parametrize(("schedule", "cycles"), [("pipelined", 12), ("layer_by_layer", 20), ("tick_batched", 20)])
def test_everything_that_passes_the_port_takes_its_turn(schedule, cycles):
    """Per frame an input, an output, and with staged frames a write and a read; the port does one at a time."""
    each = narrow(schedule)
    lanes = next(server.lanes for server in each.netlist.servers if server.name == "global_buffer")
    traces = [each.trace.of(each.netlist, lane) for lane in lanes]
    start, leave = (
        np.sort(np.concatenate([getattr(one, name) for one in traces])) for name in ("start_ps", "leave_ps")
    )
    assert (start[1:] >= leave[:-1]).all()
    assert (leave - start).sum() == 4 * cycles * CYCLE_PS
    assert Explained(each.netlist, each.trace).faults() == []
    assert differences(each.netlist, each.trace) == []


def test_at_most_one_input_goes_before_an_output_that_waits():
    log = narrow(steps=30).result.log
    output, inputs = log.rows_of("output"), log.rows_of("input")
    waited = [CAUSES[cause] for cause in log["start_cause"][output]]
    assert "arbiter" in waited  # some outputs found an input at the port
    starts = log["start_ps"][inputs]
    between = [
        int(((starts > at) & (starts < start)).sum())
        for at, start in zip(arrivals(log), log["start_ps"][output], strict=True)
    ]
    assert max(between) == 1  # the one that was asked for when the one before it began


def arrivals(log) -> np.ndarray:
    """When outputs arrive at the port: the tail of their packet behind the ejection port."""
    ejected = log.rows_of("noc.router0.eject") & (log["layer"] == log.layers.index("fc2"))
    return log["start_ps"][ejected] + CYCLE_PS * (4 + 1)


def test_staged_bits_that_are_written_are_read_back():
    movement = narrow("layer_by_layer").result.movement.query("level == 'global_buffer' and `class` == 'spikes'")
    bits = movement.set_index(["source", "destination"])["bits"].to_dict()
    assert bits["fc1", "global_buffer"] == bits["global_buffer", "global_buffer.fc1.read"] == 4 * 4

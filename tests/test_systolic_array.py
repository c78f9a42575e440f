"""The systolic array: both executions agree, energies and counts by hand, stalls, what it refuses."""

from __future__ import annotations

import pytest

from archsim.api import load_hardware, load_workload, simulate

ORDERS = [
    (dataflow, order)
    for dataflow in ("output_stationary", "weight_stationary")
    for order in ("tick_batched", "timestep_outer")
]


@pytest.mark.parametrize(("dataflow", "order"), ORDERS)
def test_both_executions_agree_in_every_service(dataflow, order):
    hardware = load_hardware("sata-16x8", {"array.dataflow": dataflow, "mapping.loop_order": order})
    workload = load_workload("digits-cnn")
    simpy, compiled = (simulate(hardware, workload, samples=2, engine=engine) for engine in ("simpy", "compiled"))
    assert simpy.events.equals(compiled.events)
    assert {**simpy.summary, "engine": ""} == {**compiled.summary, "engine": ""}

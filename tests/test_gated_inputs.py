"""Spikes on the gates of 1T1R cells: same numbers as on the rows where wires are ideal, own circuit where not."""

import numpy as np
import pytest

import archsim
from archsim import api
from archsim.errors import ConfigError

CROSSBAR = "tile.pe.crossbar."
BASE = {
    CROSSBAR + "signed": "differential",
    CROSSBAR + "device.preset": "rram-100k-1m",
    CROSSBAR + "v_read_v": 0.1,
    "tile.pe.adc.bits": 8,
}
GATES = {CROSSBAR + "inputs": "gates"}
LINES = {CROSSBAR + "r_wire_col_ohm": 10.0, CROSSBAR + "r_sense_ohm": 1000.0}


def inferred(changes):
    workload = archsim.load_workload("digits-mlp")
    hardware = archsim.load_hardware("spikesim-rram-64", BASE | changes)
    return api.infer(api.map_network(hardware, workload), workload)


@pytest.fixture(scope="module")
def on_rows():
    return inferred({})


def test_with_ideal_lines_gates_give_what_rows_give(on_rows):
    on_gates = inferred(GATES)
    assert on_gates.accuracy == on_rows.accuracy
    for name, layer in on_rows.layers.items():
        other = on_gates.layers[name]
        np.testing.assert_array_equal(other.spikes, layer.spikes)
        np.testing.assert_allclose(other.read_power_w, layer.read_power_w, rtol=1e-6)


def test_closed_gates_load_no_column(on_rows):
    """Cells of rows at rest load a resistive column; behind closed gates they do not, so the error is smaller."""
    rows, gates = inferred(LINES), inferred(LINES | GATES)
    for name in on_rows.layers:
        assert gates.layers[name].nf == pytest.approx(rows.layers[name].nf, rel=1e-4)
        assert gates.layers[name].error_rel < rows.layers[name].error_rel


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("r_driver_ohm", 100.0, "r_driver_ohm"),
        ("r_wire_row_ohm", 5.0, "r_wire_row_ohm"),
        ("driver_sigma_rel", 0.1, "driver_sigma_rel"),
        ("drive", "both_sides", "drive"),
        ("sense", "both_sides", "sense"),
    ],
)
def test_what_belongs_to_row_lines_is_refused(key, value, named):
    with pytest.raises(ConfigError) as caught:
        archsim.load_hardware("spikesim-rram-64", BASE | GATES | {CROSSBAR + key: value})
    assert (
        f"tile.pe.crossbar: inputs: gates and {named} do not go together: gates carry no current, source lines are "
        f"ideal, cells linear; leave {named} out or set inputs: rows"
    ) in str(caught.value)


def test_gates_need_a_device():
    with pytest.raises(
        ConfigError, match=r"inputs: gates needs conductances; choose a device\.preset other than ideal"
    ):
        archsim.load_hardware("spikesim-rram-64", GATES)

"""Every entry of the cost library moves the totals of a run by its own share, and nothing else."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from archsim.activity import Activity, LayerActivity
from archsim.engine.simulation import simulate_activity
from archsim.eventlog import LEAK, EventLog
from archsim.hardware.costs import CostLibrary
from archsim.hardware.reader import ACTIONS, load_hardware
from archsim.mapping import map_network
from archsim.result import Result
from archsim.workload.model import Workload
from archsim.workload.network import Layer, Network, NeuronModel, Pool

HARDWARE = load_hardware(
    "demo",
    {
        "chip.tiles": 3,
        "mapping.overflow": "reload",
        "mapping.schedule": "tick_batched",
        "tile.pe.crossbar.rows": 4,
        "tile.pe.crossbar.cols": 16,
        "tile.pe.crossbars": 2,
        "tile.pes": 2,
    },
)
"""Two rounds on tiles that do not hold all weights, which are therefore written during the run."""
PLACES = {
    "tile_buffer": (".buffer",),
    "fetch": (".fetch",),
    "row_driver": (".row_driver",),
    "crossbar": (".crossbar",),
    "adc": (".adc",),
    "mux": (".mux",),
    "shift_add": (".shift_add",),
    "htree": (".htree",),
    "accumulator": (".accumulator",),
    "neuron": (".neuron",),
    "v_mem": (".v_mem",),
    "pooling": (".pooling",),
    "router": (".east", ".west", ".north", ".south", ".eject"),
    "global_buffer": ("input", "output", "global_buffer", "global_buffer.conv.read"),
}
"""Ends of the paths of the parts whose actions an entry prices."""
ENTRIES = [(component, action) for component, actions in ACTIONS.items() for action in actions]
ENTRIES = [entry for entry in ENTRIES if not entry[0].startswith(("mac", "product_unit"))]  # no layer is digital here
SIZES = [
    (component, size)
    for component, costs in HARDWARE.library.components.items()
    for size in ("area", "leakage")
    if getattr(costs, size) is not None and not component.startswith(("mac", "product_unit"))
]


def network() -> Network:
    """A pooled convolution whose sums need the accumulator, then a fully connected layer over several tiles."""
    one, zero = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    neuron = NeuronModel("if", decay=one, input_gain=one, v_threshold=one, v_leak=zero, v_reset=zero)
    pool = Pool((2, 2), (2, 2))
    conv = Layer("conv", "conv2d", "input", (2, 5, 5), 5, (2, 2), (1, 1), (0, 0), None, None, neuron, pool)
    fc = Layer("fc", "linear", "conv", (20, 1, 1), 6, (1, 1), (1, 1), (0, 0), None, None, neuron)
    return Network("net", (2, 5, 5), (conv, fc))


@lru_cache
def activity() -> Activity:
    rng = np.random.default_rng(0)
    layers = {
        layer.name: LayerActivity(
            rng.integers(0, 4, (2, 2, *layer.in_shape)), rng.integers(0, 2, (2, 2, *layer.conv_shape))
        )
        for layer in network().layers
    }
    return Activity(layers, 2, 2, "recorded")


def simulated(library: CostLibrary) -> Result:
    hardware = HARDWARE.with_library(library)
    return simulate_activity(map_network(hardware, network()), Workload("net", network(), 2, None), activity())


@lru_cache
def before() -> Result:
    return simulated(HARDWARE.library)


def dearer(component: str, entry: str) -> Result:
    return simulated(HARDWARE.library.with_factor(component, entry, 1.1))


def priced_by(log: EventLog, component: str, action: str) -> np.ndarray:
    """Rows of the log that an entry prices, bool."""
    codes = [code for code, name in enumerate(log.components) if name.endswith(PLACES[component])]
    return np.isin(log["component"], codes) & log.actions_of(action)


@pytest.mark.parametrize(("component", "action"), ENTRIES)
def test_the_run_uses_every_entry(component, action):
    log = before().log
    assert log["energy_pj"][priced_by(log, component, action)].sum() > 0


@pytest.mark.parametrize(("component", "action"), ENTRIES)
def test_an_entry_moves_the_total_by_its_share(component, action):
    log, total = before().log, before().summary["energy_pj"]
    share = log["energy_pj"][priced_by(log, component, action)].sum()
    assert dearer(component, action).summary["energy_pj"] == pytest.approx(total + 0.1 * share, rel=1e-12)


@pytest.mark.parametrize(("component", "action"), ENTRIES)
def test_an_entry_changes_its_own_rows_and_nothing_else(component, action):
    log, after = before().log, dearer(component, action).log
    mine = priced_by(log, component, action)
    changed = [name for name, _ in EventLog.COLUMNS if (after[name] != log[name]).any()]
    expected = np.where(mine, 1.1 * log["energy_pj"], log["energy_pj"])
    same = after["energy_pj"][~mine].tobytes() == log["energy_pj"][~mine].tobytes()
    assert (changed, same, after["energy_pj"]) == (["energy_pj"], True, pytest.approx(expected, rel=1e-12))


@pytest.mark.parametrize(("component", "size"), SIZES)
def test_a_size_moves_its_own_column_by_its_share(component, size):
    column = {"area": "area_um2", "leakage": "energy_leakage_pj"}[size]
    table, after = before().components, dearer(component, size).components
    mine = (table["kind"] == component).to_numpy()
    expected = np.where(mine, 1.1 * table[column], table[column])
    others = [name for name in table.columns if name != column and not after[name].equals(table[name])]
    assert (others, after[column].tolist()) == ([], pytest.approx(expected.tolist(), rel=1e-12))


@pytest.mark.parametrize("component", [component for component, size in SIZES if size == "leakage"])
def test_leakage_moves_the_total_by_its_share(component):
    table, total = before().components, before().summary["energy_pj"]
    share = table["energy_leakage_pj"][table["kind"] == component].sum()
    assert dearer(component, "leakage").summary["energy_pj"] == pytest.approx(total + 0.1 * share, rel=1e-12)


def test_every_picojoule_belongs_to_an_entry():
    log = before().log
    owners = sum(priced_by(log, component, action).astype(int) for component, action in ENTRIES)
    paid = (log["energy_pj"] > 0) & ~log.actions_of(LEAK)
    assert set(owners[paid].tolist()) == {1}

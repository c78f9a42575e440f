"""Any two mapping options together: a run that obeys the conservation laws, or an error that names both sides."""

from dataclasses import replace
from functools import lru_cache, reduce
from itertools import combinations
from operator import getitem

import numpy as np
import pytest
from test_inference import conv, neurons

from archsim.engine.conservation import check_trace
from archsim.engine.log import build_log
from archsim.engine.metrics import synaptic_ops
from archsim.engine.simpy_execution import execute
from archsim.engine.streams import execute_stream
from archsim.engine.tables import component_table, layer_table
from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import load_hardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Network, Pool
from archsim.workload.neurons import no_neurons

OPTIONS = [
    {"mapping.layout": "dense"},
    {"mapping.replication": 2},
    {"mapping.replication": "balance", "chip.tiles": 12},
    {"mapping.share_tiles": True},
    {"mapping.placement": "traffic"},
    {"mapping.bias": "row"},
    {"mapping.unused_cells": "open"},
    {"tile.pe.crossbar.signed": "diff", "mapping.encoding": "high_resistance", "mapping.polarity": "per_crossbar"},
    {"mapping.calibration": "batch_norm"},
    {"mapping.input_coding": "binary"},
    {"mapping.input_bits": 1},
    {"mapping.first_layer": "once"},
    {"mapping.first_layer": "digital"},
    {"mapping.fc": "stream"},
    {"mapping.squeeze": "columns"},
    {"mapping.early_exit": "squash", "mapping.exit_confidence": 0.4},
    {"mapping.early_exit": "wait", "mapping.exit_confidence": 0.4},
    {"mapping.schedule": "layer_by_layer"},
    {"mapping.schedule": "tick_batched"},
    {"mapping.overflow": "reload", "mapping.schedule": "layer_by_layer", "chip.tiles": 2},
    {"chip.neuron.shared_channels": 2},
    {"chip.noc.spike_encoding": "address_event"},
    {"tile.pe.column_merge": "digital"},
    {"chip.neuron.level": "chip"},
    {"tile.pe.fetch": "compressed", "tile.pe.crossbar.row_drive": "serial"},
    {"tile.silent_sums": "flag", "tile.pe.adc.early_stop": True},
]
PAIRS = [one | other for one, other in combinations(OPTIONS, 2) if not set(one) & set(other)]


def named(options: dict) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in options.items())


@lru_cache
def workload(kind: str) -> Workload:
    """Images through a convolution, a shortcut or a recurrent layer, pooling and a fully connected layer."""
    stem = conv("stem", "input", (2, 4, 4), 4, seed=1)
    if kind == "shortcut":
        join = replace(conv("sum", "stem", (4, 4, 4), 4, pool=Pool((2, 2), (2, 2)), seed=2), adds=("stem",))
        middle = (join,)
    else:
        back = replace(conv("back", "sum", (4, 2, 2), 4, neuron=no_neurons(), seed=3), delayed=True, bias=None)
        middle = (back, replace(conv("sum", "stem", (4, 4, 4), 4, stride=2, seed=2), adds=("back",)))
    last = conv("fc", "sum", (16, 1, 1), 3, kernel=1, padding=0, neuron=neurons("accumulate"), seed=4)
    values = np.random.default_rng(0).integers(-6, 7, (1, 1, 2, 4, 4)).astype(np.int8)
    net = Network(kind, (2, 4, 4), (stem, *middle, last))
    return Workload(kind, net, 2, InputData(values, 0.25, None, "direct"))


SIZES = {"tile.pe.crossbar.rows": 16, "tile.pe.crossbar.cols": 16, "tile.pe.crossbars": 2, "chip.noc.detail": "ideal"}
SMALL = load_hardware("demo", SIZES | {"tile.pe.pipelined": False})


def chip_with(options: dict) -> Hardware:
    """A small chip with some keys set, without a file to parse."""
    values = SMALL.model_dump()
    for path, value in options.items():
        *parts, key = path.split(".")
        reduce(getitem, parts, values)[key] = value
    return Hardware.model_validate(values).with_library(SMALL.library)


def outcome(kind: str, options: dict) -> str:
    """`runs`, or the text of the error."""
    try:
        mapping = map_network(chip_with(options), workload(kind))
        values = infer(mapping, workload(kind))
        done = execute_stream(mapping, values, execute)
    except MappingError as err:
        return str(err)
    netlist, trace, values = done.netlist, done.trace, done.activity
    check_trace(netlist, trace)
    log = build_log(netlist, trace)
    energy_pj = log["energy_pj"][~log.is_leakage].sum()
    assert component_table(netlist, trace, log)["energy_dynamic_pj"].sum() == pytest.approx(energy_pj, rel=1e-12)
    layers = layer_table(mapping, values, log, synaptic_ops(mapping.network, values))
    assert layers["energy_pj"].sum() == pytest.approx(energy_pj, rel=1e-12)
    assert (layers["skipped_reads"] >= 0).all()
    return "runs"


SIGN = "mapping.input_bits is 1 and the input has negative values: the only bit is the sign, while mapping.bias: row"


QUICK_SHARE = 2
"""One pair in this many runs by default; the others run with `-m slow`."""
SOME = [pytest.param(pair, marks=pytest.mark.slow if at % QUICK_SHARE else ()) for at, pair in enumerate(PAIRS)]


@pytest.mark.parametrize("options", SOME, ids=named)
def test_two_options_run_or_say_why_not(options):
    found = outcome("shortcut", options)
    if "mapping.squeeze" in options and "mapping.bias" in options:
        assert found.startswith(
            "mapping.squeeze is columns, which leaves out columns whose weights are zero, and mapping."
        )
    elif _ends_samples_otherwise(options):
        assert found.startswith(f"mapping.early_exit is {options['mapping.early_exit']}, which ")
    elif options.get("mapping.input_bits") == 1 and "mapping.bias" in options:
        assert found.startswith(SIGN)
    else:
        assert found == "runs"


def _ends_samples_otherwise(options: dict) -> bool:
    """Whether samples cannot end early with the other option."""
    policy, schedule = options.get("mapping.early_exit"), options.get("mapping.schedule")
    is_read_once = "mapping.first_layer" in options
    return policy is not None and (
        schedule == "tick_batched" or "mapping.overflow" in options or (policy == "wait" and is_read_once)
    )


BATCHED = "mapping.schedule is tick_batched, which computes all timesteps of a layer before those of the next"


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_an_option_runs_with_recurrence_or_says_why_not(options):
    found = outcome("recurrent", options)
    if options.get("mapping.schedule") == "tick_batched":
        assert found.startswith(BATCHED)
    elif options.get("mapping.early_exit") == "wait":
        assert "and layer 'back' (delayed: true) begins with what the timestep before emitted" in found
    elif "mapping.overflow" in options:
        assert "mapping.overflow is reload, but layer 'back' (delayed: true) keeps a frame" in found
    else:
        assert found == "runs"

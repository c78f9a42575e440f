"""Crossbar chips end to end: small networks with hand-made activity against closed forms."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import pytest
from test_servers import Explained

from archsim.activity import Activity, LayerActivity
from archsim.components.netlist import Action, ComponentInfo, Lane, Netlist, constant
from archsim.components.trace import ExecutionTrace
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.log import build_log
from archsim.engine.samples import sample_latencies_ps
from archsim.engine.simpy_execution import execute
from archsim.engine.simulation import Origin, build_result, simulate_activity
from archsim.engine.streams import Execution
from archsim.engine.tables import component_table
from archsim.errors import MappingError
from archsim.eventlog import CAUSES, EventLog
from archsim.hardware.reader import load_hardware
from archsim.mapping import Mapping, map_network
from archsim.result import Result
from archsim.workload.model import Workload
from archsim.workload.network import Layer, Network, NeuronModel, Pool

pytestmark = pytest.mark.many_seeds

SEEDS = range(40)
SMALL = {"tile.pe.crossbar.rows": 4, "tile.pe.crossbar.cols": 16, "tile.pe.crossbars": 1, "tile.pes": 2}
"""Crossbars of 4 rows and 4 weights, one per PE, two PEs per tile."""


@dataclass
class Run:
    """Everything that one simulation made."""

    mapping: Mapping
    activity: Activity
    netlist: Netlist
    trace: ExecutionTrace
    result: Result


def neuron(kind: str = "if") -> NeuronModel:
    one, zero = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    return NeuronModel(kind, decay=one, input_gain=one, v_threshold=one, v_leak=zero, v_reset=zero)


def linear(name: str, source: str, n_in: int, n_out: int, kind: str = "if") -> Layer:
    return Layer(name, "linear", source, (n_in, 1, 1), n_out, (1, 1), (1, 1), (0, 0), None, None, neuron(kind))


def mlp(*sizes: int, last: str = "if") -> Network:
    """Fully connected layers fc1, fc2, ... of the given sizes."""
    kinds = ["if"] * (len(sizes) - 2) + [last]
    layers = [
        linear(f"fc{index + 1}", f"fc{index}" if index else "input", sizes[index], sizes[index + 1], kind)
        for index, kind in enumerate(kinds)
    ]
    return Network("mlp", (sizes[0], 1, 1), tuple(layers))


def activity(network: Network, samples: int, steps: int, seed: int = 0, rate: float = 0.3, high: int = 1) -> Activity:
    """Random inputs for every layer, each on its own: timing does not ask whether they fit together."""
    rng = np.random.default_rng(seed)
    layers = {}
    for layer in network.layers:
        inputs = rng.integers(1, high + 1, (samples, steps, *layer.in_shape)) * (
            rng.random((samples, steps, *layer.in_shape)) < rate
        )
        spikes = (rng.random((samples, steps, *layer.conv_shape)) < rate).astype(np.int64)
        layers[layer.name] = LayerActivity(inputs, spikes if layer.neuron.kind != "accumulate" else spikes * 0)
    return Activity(layers, samples, steps, "recorded")


def run(network: Network, values: Activity, overrides: dict | None = None) -> Run:
    """Map, build, execute, tabulate."""
    mapping = map_network(load_hardware("demo", overrides or {}), network)
    netlist = build_netlist(mapping, values)
    trace = execute(netlist)
    origin, done = Origin(mapping, workload(network), values), Execution(netlist, trace, values)
    return Run(mapping, values, netlist, trace, build_result(origin, done, 0))


def workload(network: Network) -> Workload:
    return Workload(network.name, network, 1, None)


def random_network(rng: np.random.Generator) -> Network:
    """Up to two convolutions, some pooled, then up to two fully connected layers, the last perhaps a readout."""
    shape = (int(rng.integers(1, 7)), int(rng.integers(4, 7)), int(rng.integers(4, 7)))
    layers: list[Layer] = []
    source, network_shape = "input", shape
    for index in range(int(rng.integers(0, 3))):
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        padding = (int(rng.integers(0, kernel[0])), int(rng.integers(0, kernel[1])))
        stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        if any(n + 2 * p < k for n, p, k in zip(shape[1:], padding, kernel, strict=True)):
            break
        out = int(rng.integers(1, 14))
        layer = Layer(f"conv{index}", "conv2d", source, shape, out, kernel, stride, padding, None, None, neuron())
        if min(layer.conv_shape[1:]) >= 2 and rng.random() < 0.5:
            layer = replace(layer, pool=Pool((2, 2), (2, 2) if rng.random() < 0.7 else (1, 1)))
        layers.append(layer)
        source, shape = layer.name, layer.out_shape
    if not layers:
        shape = network_shape = (int(rng.integers(1, 30)), 1, 1)
    n_in = int(np.prod(shape))
    for index in range(int(rng.integers(1, 3))):
        out = int(rng.integers(1, 20))
        layers.append(linear(f"fc{index}", source, n_in, out))
        source, n_in = f"fc{index}", out
    if rng.random() < 0.5:
        layers[-1] = replace(layers[-1], neuron=neuron("accumulate"))
    return Network("random", network_shape, tuple(layers))


def random_overrides(rng: np.random.Generator) -> dict:
    return {
        "tile.pe.crossbar.rows": int(rng.choice([2, 4, 16, 64])),
        "tile.pe.crossbar.cols": int(rng.choice([8, 16, 64])),
        "tile.pe.crossbar.zero_skip": bool(rng.random() < 0.6),
        "tile.pe.crossbar.signed": str(rng.choice(["diff", "differential", "differential_arrays", "offset"])),
        "tile.pe.crossbars": int(rng.choice([1, 3, 9])),
        "tile.pe.pipelined": bool(rng.random() < 0.6),
        "tile.pe.column_merge": str(rng.choice(["analog", "digital"])),
        "tile.pe.latch_depth": int(rng.integers(1, 4)),
        "tile.pe.adc.cycles_per_conversion": int(rng.integers(1, 4)),
        "tile.pes": int(rng.choice([1, 2, 8])),
        "tile.htree.bits_per_cycle": int(rng.choice([16, 256])),
        "chip.neuron.lanes": int(rng.choice([2, 16])),
        "chip.noc.detail": str(rng.choice(["ideal", "packet"])),
        "chip.noc.flit_bits": int(rng.choice([8, 32])),
        "mapping.input_coding": str(rng.choice(["binary", "bit_serial"])),
    }


@lru_cache
def case(seed: int) -> Run:
    """Random network, chip and activity."""
    rng = np.random.default_rng(seed)
    network, overrides = random_network(rng), random_overrides(rng)
    samples, steps = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    rate = float(rng.choice([0.0, 0.05, 0.5]))
    return run(network, activity(network, samples, steps, seed, rate, int(rng.integers(1, 4))), overrides)


def arrays(trace: ExecutionTrace) -> list[list[list[int]]]:
    """Everything that an execution wrote down, as lists."""
    return [[getattr(one, item.name).tolist() for item in fields(one)] for one in trace.lanes]


def layer_rows(each: Run) -> list[dict]:
    """Rows of the layer table without the input port, with the mapped layer under `mapped`."""
    rows = each.result.layers.to_dict("records")[1:]
    return [row | {"mapped": mapped} for row, mapped in zip(rows, each.mapping.layers, strict=True)]


# Conservation


@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_leaves(seed):
    each = case(seed)
    pairs = zip(each.netlist.lanes(), each.trace.lanes, strict=True)
    assert [lane.name for lane, one in pairs if (one.leave_ps < one.start_ps).any() or (one.start_ps < 0).any()] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_energies_of_the_tables_are_the_total(seed):
    result = case(seed).result
    leakage = result.components["energy_leakage_pj"].sum()
    sums = [
        result.components["energy_dynamic_pj"].sum() + leakage,
        result.layers["energy_pj"].sum() + leakage,
        result.log["energy_pj"].sum(),
        result.summary["energy_dynamic_pj"] + result.summary["energy_leakage_pj"],
    ]
    assert sums == [pytest.approx(result.summary["energy_pj"], rel=1e-12)] * 4


@pytest.mark.parametrize("seed", SEEDS)
def test_busy_blocked_starved_and_idle_fill_the_run(seed):
    each = case(seed)
    states = each.result.components[["busy_ps", "blocked_ps", "starved_ps", "idle_ps"]].to_numpy()
    assert (set(states.sum(axis=1)), bool((states < 0).any())) == ({each.trace.end_ps}, False)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_run_is_no_shorter_than_its_busiest_server_and_no_longer_than_all_work(seed):
    each = case(seed)
    servers = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    wires = sum(wire.delay_ps * lane.n_emitted for lane in each.netlist.lanes() for wire in lane.wires)
    assert max(servers) <= each.trace.end_ps <= sum(servers) + wires


@pytest.mark.parametrize("seed", SEEDS)
def test_every_frame_enters_and_leaves_once(seed):
    each = case(seed)
    log, network = each.result.log, each.mapping.network
    last, n_frames = network.layers[-1], each.activity.n_samples * each.activity.n_timesteps
    frames = each.activity.n_samples if last.neuron.kind == "accumulate" else n_frames
    blocks = len(each.mapping.layers[-1].col_blocks)
    counted = [int(log.rows_of("input").sum()), int(log.rows_of("output").sum())]
    sizes = [int(np.prod(network.input_shape[1:])), blocks * int(np.prod(last.out_shape[1:]))]
    assert counted == [n_frames * sizes[0], frames * sizes[1]]


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_a_second_run_writes_the_same_arrays(seed):
    each = case(seed)
    again = execute(build_netlist(each.mapping, each.activity))
    assert (arrays(again), again.channels) == (arrays(each.trace), each.trace.channels)


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_services_of_one_server_do_not_overlap(seed):
    each = case(seed)
    by_lane = {id(lane): one for lane, one in zip(each.netlist.lanes(), each.trace.lanes, strict=True)}
    overlapping = []
    for server in each.netlist.servers:
        start = np.concatenate([by_lane[id(lane)].start_ps for lane in server.lanes])
        leave = np.concatenate([by_lane[id(lane)].leave_ps for lane in server.lanes])
        order = np.lexsort((leave, start))
        if (start[order][1:] < leave[order][:-1]).any():
            overlapping.append(server.name)
    assert overlapping == []


@pytest.mark.parametrize("seed", SEEDS)
def test_every_time_follows_from_its_constraints(seed):
    each = case(seed)
    assert Explained(each.netlist, each.trace).faults() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_no_latch_and_no_line_buffer_holds_more_than_it_has_room_for(seed):
    each = case(seed)
    pairs = zip(each.trace.channels, each.netlist.channels, strict=True)
    full = [spec.name for one, spec in pairs if 0 < spec.capacity < one.peak]
    times = Explained(each.netlist, each.trace)
    for index, buffer in enumerate(each.netlist.buffers):
        freed = np.max([at[buffer.last_use] for at in times.fetched[index]], axis=0)[: -buffer.capacity]
        arrived = [times.entered["buffer", index, source][buffer.capacity :] for source in range(buffer.n_sources)]
        full += [buffer.name for at in arrived if (at < freed).any()]
    assert full == []


# Counts


@pytest.mark.parametrize("seed", SEEDS)
def test_every_weight_is_on_exactly_one_crossbar(seed):
    layers = case(seed).mapping.layers
    rows = [
        [
            (y, x, c)
            for block in one.row_blocks
            for crossbar in block
            for y, x, low, high in crossbar
            for c in range(low, high)
        ]
        for one in layers
    ]
    cols = [[col for low, high in one.col_blocks for col in range(low, high)] for one in layers]
    expected = [(list(np.ndindex(*one.layer.kernel, one.layer.in_shape[0])), one.layer.out_channels) for one in layers]
    found = [(sorted(held), out) for held, out in zip(rows, cols, strict=True)]
    assert found == [(all_rows, list(range(n))) for all_rows, n in expected]


def brute_counts(each: Run, mapped) -> dict[str, int]:
    """Reads, skips, conversions and updates of a layer, window by window, bit by bit."""
    hardware, layer, pe = each.mapping.hardware, mapped.layer, each.mapping.hardware.tile.pe
    inputs = each.activity.layers[layer.name].inputs
    is_binary = hardware.mapping.input_coding == "binary"
    n_bits = 1 if is_binary else max(1, int(inputs.max()).bit_length())
    inputs = (inputs > 0).astype(int) if is_binary else inputs
    has_reference = pe.crossbar.signed == "offset"
    slices = -(-hardware.mapping.weight_bits // pe.crossbar.bits_per_cell)
    cols = layer.out_channels * hardware.cols_per_weight + has_reference * slices * len(mapped.col_blocks)
    counts = {"crossbar_reads": 0, "skipped_reads": 0, "adc_conversions": 0, "neuron_updates": 0}
    for sample, step, out_y, out_x in np.ndindex(*inputs.shape[:2], *layer.conv_shape[1:]):
        counts["neuron_updates"] += layer.out_channels
        frame = np.pad(inputs[sample, step], ((0, 0), *((p, p) for p in layer.padding)))
        for block in mapped.row_blocks:
            for bit in range(n_bits):
                driven = [
                    bool(
                        ((frame[first:last, out_y * layer.stride[0] + y, out_x * layer.stride[1] + x] >> bit) & 1).any()
                    )
                    for ((y, x, first, last),) in block
                ]
                read = driven if pe.crossbar.zero_skip else [True] * len(block)
                counts["crossbar_reads"] += sum(read) * len(mapped.col_blocks)
                counts["skipped_reads"] += (len(block) - sum(read)) * len(mapped.col_blocks)
                counts["adc_conversions"] += cols * (any(read) if pe.column_merge == "analog" else sum(read))
    return counts


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_equal_those_of_a_walk_over_all_windows(seed):
    each = case(seed)
    rows = layer_rows(each)
    expected = [brute_counts(each, row["mapped"]) for row in rows]
    assert [{key: row[key] for key in counts} for row, counts in zip(rows, expected, strict=True)] == expected


def test_counts_without_zero_skip_are_products_of_sizes():
    network = mlp(10, 6, 3)
    each = run(network, activity(network, 2, 3), SMALL | {"tile.pe.crossbar.zero_skip": False})
    counted = each.result.layers[["crossbar_reads", "skipped_reads", "adc_conversions", "neuron_updates"]]
    assert counted.to_numpy()[1:].tolist() == [
        [6 * 3 * 2, 0, 6 * 3 * 6 * 4, 6 * 6],
        [6 * 2 * 1, 0, 6 * 2 * 3 * 4, 6 * 3],
    ]


@pytest.mark.parametrize("seed", SEEDS[:15])
def test_ideal_and_packet_networks_move_the_same_bits(seed):
    each = case(seed)
    other = "packet" if each.mapping.hardware.chip.noc.detail == "ideal" else "ideal"
    hardware = load_hardware("demo", random_overrides_of(seed) | {"chip.noc.detail": other})
    mapping = map_network(hardware, each.mapping.network)
    movement = simulate_activity(mapping, workload(mapping.network), each.activity).movement
    keys = ["source", "destination", "class", "level", "packets", "bits", "bit_hops"]
    assert sorted(movement[keys].to_numpy().tolist()) == sorted(each.result.movement[keys].to_numpy().tolist())


def random_overrides_of(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    random_network(rng)
    return random_overrides(rng)


def placed(positions: list[int], zero_skip: bool) -> dict:
    """First layer of a run whose input spikes are at the given rows of two crossbars of four."""
    network = mlp(8, 4)
    inputs = np.zeros((1, 1, 8, 1, 1), np.int64)
    inputs[0, 0, positions] = 1
    values = Activity({"fc1": LayerActivity(inputs, np.zeros((1, 1, 4, 1, 1), np.int64))}, 1, 1, "recorded")
    row = run(network, values, SMALL | {"tile.pe.crossbar.zero_skip": zero_skip}).result.layers.to_dict("records")[1]
    return {key: row[key] for key in ("crossbar_reads", "skipped_reads", "adc_conversions", "energy_pj")}


def test_spikes_in_one_crossbar_skip_the_other():
    together, apart = placed([0, 1], True), placed([0, 4], True)
    counts = [[one[key] for key in ("crossbar_reads", "skipped_reads", "adc_conversions")] for one in (together, apart)]
    assert (counts, together["energy_pj"] < apart["energy_pj"]) == ([[1, 1, 16], [2, 0, 32]], True)


def test_placement_of_spikes_does_not_matter_without_zero_skip():
    assert placed([0, 1], False) == placed([0, 4], False) | {"crossbar_reads": 2, "skipped_reads": 0}


def lonely_token(pipelined: bool = True) -> Run:
    """Eight spikes through two crossbars of 4 x 4 weights: one token of one timestep."""
    network, widths = mlp(8, 4), {"tile.accumulator.bits": 12, "chip.neuron.v_mem_bits": 10, "chip.neuron.lanes": 2}
    return run(network, activity(network, 1, 1, rate=1.0), SMALL | widths | {"tile.pe.pipelined": pipelined})


def test_actions_of_a_lonely_token_are_those_counted_by_hand():
    log = lonely_token().result.log
    rows = {name: log.actions_of(name) & ~log.is_leakage for name in sorted(log.actions) if name != "leak"}
    assert {name: (int(log["count"][mine].sum()), int(log["bits"][mine].sum())) for name, mine in rows.items()} == {
        "add": (4, 2 * 4 * 12),
        "convert": (32, 32 * 6),
        "drive": (8, 0),
        "hop": (2, 8 + 4),
        "inject": (2, 8 + 4),
        "latch": (2, 8),
        "read": (1 + 2 + 2 + 4, 8 + 8 + 0 + 4 * 10),  # global buffer, line buffer, crossbar, V_mem
        "select": (32, 0),
        "subtract": (2 * 2 * 16, 0),
        "transfer": (2, 2 * 4 * 12),
        "update": (4, 0),
        "write": (1 + 4 + 1, 8 + 4 * 10 + 4),  # line buffer, V_mem, global buffer
        "write_temp": (2 * 8, 0),
    }


def test_a_read_pays_for_every_step_of_the_column_mux():
    table = lonely_token().result.components
    reads = table["energy_dynamic_pj"][table["kind"] == "crossbar"].sum()
    # Two reads of 8 steps; 0.9375 pJ is for 64 x 64 cells.
    assert reads == pytest.approx(2 * 8 * 0.9375 * (4 * 16) / (64 * 64), rel=1e-12)


# Time

TIMELINE = [
    ("input", 0, 1),
    ("noc.router0.inject", 1, 2),
    ("noc.router0.eject", 2, 3),
    ("tile0.pe0.fetch", 7, 8),
    ("tile0.pe1.fetch", 7, 8),
    ("tile0.pe0.crossbar", 8, 13),
    ("tile0.pe1.crossbar", 8, 13),
    ("tile0.pe0.adc", 13, 21),
    ("tile0.pe1.adc", 13, 21),
    ("tile0.pe0.shift_add", 21, 22),
    ("tile0.pe1.shift_add", 21, 22),
    ("tile0.htree", 22, 23),
    ("tile0.htree", 23, 24),
    ("tile0.accumulator", 24, 25),
    ("tile0.v_mem", 25, 27),
    ("tile0.neuron", 27, 29),
    ("tile0.v_mem", 29, 31),
    ("noc.router0.inject", 31, 32),
    ("noc.router0.eject", 32, 33),
    ("output", 37, 38),
]
"""Services of one token in cycles: 16 columns on 2 converters are 8 steps, 4 neurons on 2 lanes 2, a packet home 6."""


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_lonely_token_takes_the_cycles_counted_by_hand(pipelined):
    log = lonely_token(pipelined).result.log
    rows = np.flatnonzero(log["service_ps"] > 0)
    found = [
        (int(log["start_ps"][row]), log.components[log["component"][row]], int(log["leave_ps"][row])) for row in rows
    ]
    assert [(name, start / 2000, leave / 2000) for start, name, leave in sorted(found)] == sorted(
        TIMELINE, key=lambda row: (row[1], row[0])
    )


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_pe_gives_its_positions_free_when_they_are_fetched(pipelined):
    readers = [lane for lane in lonely_token(pipelined).netlist.lanes() if lane.reader]
    assert [lane.fetch_ps.tolist() for lane in readers] == [[2000], [2000]]


def full_stage() -> tuple[Netlist, ExecutionTrace]:
    """Ten ps of conversion, a bookkeeping action without time, a full latch behind, fifty ps at the end."""
    netlist = Netlist(components=[ComponentInfo(name, name, 0.0, 0.0) for name in ("adc", "mux", "htree")])
    latch, emit = netlist.channel("latch", 1), np.array([1, 1, 1, 0], bool)
    stage = Lane("pe", "layer", 4, 4, (0, 1), (action("adc", 10, 4), action("mux", 0, 4)), output=latch, emit=emit)
    netlist.server("pe", "private", stage)
    netlist.server("bus", "private", Lane("bus", "layer", 3, 3, (0, 1), (action("htree", 50, 3),), inputs=(latch,)))
    return netlist, execute(netlist)


def test_a_part_is_blocked_while_its_stage_is_full():
    netlist, trace = full_stage()
    table = component_table(netlist, trace, build_log(netlist, trace)).set_index("component")
    states = table[["busy_ps", "blocked_ps", "starved_ps", "idle_ps"]]
    assert states.loc[["adc", "htree"]].to_numpy().tolist() == [[40, 30, 0, 90], [150, 0, 0, 10]]


def test_the_last_action_of_a_blocked_service_leaves_late():
    log = build_log(*full_stage())
    leaves = [log["leave_ps"][log.rows_of(part)].tolist() for part in ("adc", "mux")]
    assert leaves == [[10, 20, 30, 70], [10, 20, 60, 70]]


def test_only_the_first_action_of_a_service_waits_for_the_server():
    network = mlp(4, 8)  # two column blocks share the neuron module of a tile
    log = run(network, activity(network, 1, 1), SMALL).result.log
    first, second = log.rows_of("tile0.v_mem"), log.rows_of("tile0.neuron")
    causes = [{CAUSES[cause] for cause in log["start_cause"][rows].tolist()} for rows in (first, second)]
    kept = set(log["predecessor"][second].tolist())
    assert ("arbiter" in causes[0], causes[1], kept) == (True, {"data"}, {-1})


def action(component: str, time: int, n: int) -> Action:
    return Action(component, "serve", constant(time, n), constant(1, n), constant(0, n), constant(0, n, np.float64))


def busy(each: Run, suffix: str) -> list[int]:
    table = each.result.components
    return table["busy_ps"][table["component"].str.endswith(suffix)].tolist()


@pytest.mark.parametrize("pipelined", [False, True])
def test_twice_the_cycles_per_conversion_double_the_time_of_every_adc(pipelined):
    network = mlp(10, 6, 3)
    values, overrides = activity(network, 1, 3), SMALL | {"tile.pe.pipelined": pipelined}
    once = run(network, values, overrides)
    twice = run(network, values, overrides | {"tile.pe.adc.cycles_per_conversion": 2})
    assert busy(twice, ".adc") == [2 * time for time in busy(once, ".adc")]


def slowed(tile: int) -> tuple[set[str], set[str]]:
    """Components whose times change, and do not, when the ADCs of one tile take twice as long."""
    network = mlp(8, 8, 8, 4)
    values = activity(network, 1, 1, rate=1.0)
    mapping = map_network(load_hardware("demo", SMALL | {"tile.pes": 4}), network)
    logs = []
    for factor in (1, 2):
        netlist = build_netlist(mapping, values)
        for lane in netlist.lanes():
            lane.actions = tuple(
                replace(action, duration_ps=action.duration_ps * factor)
                if action.component.startswith(f"tile{tile}.pe") and action.component.endswith(".adc")
                else action
                for action in lane.actions
            )
        trace = execute(netlist)
        origin, done = Origin(mapping, workload(network), values), Execution(netlist, trace, values)
        logs.append(build_result(origin, done, 0).log)
    names = {name for name in logs[0].components if logs[0].rows_of(name).any()}
    changed = {name for name in names if any((logs[0][c] != logs[1][c])[logs[0].rows_of(name)].any() for c in TIMES)}
    return changed, names - changed


TIMES = ("start_ps", "service_ps", "leave_ps")


def test_a_slower_adc_moves_its_tile_and_what_follows():
    changed, _ = slowed(1)
    assert changed >= {
        "tile1.pe0.adc",
        "tile1.pe0.shift_add",
        "tile1.neuron",
        "tile2.pe0.fetch",
        "tile2.neuron",
        "output",
    }


def test_a_slower_adc_leaves_alone_what_lies_before_it():
    _, same = slowed(1)
    upstream = {name for name in same | slowed(1)[0] if name.startswith("tile0.")}
    assert same >= upstream | {"input", "tile1.buffer", "tile1.pe0.fetch", "tile1.pe0.crossbar"}


def test_a_readout_leaves_only_at_the_last_timestep():
    network = mlp(8, 8, 4, last="accumulate")
    log = run(network, activity(network, 2, 3), SMALL).result.log
    rows = log.rows_of("output")
    assert sorted(zip(log["sample"][rows].tolist(), log["timestep"][rows].tolist(), strict=True)) == [(0, 2), (1, 2)]


def test_row_blocks_beyond_one_tile_travel_as_partial_sums():
    network = mlp(24, 4)
    each = run(network, activity(network, 1, 3), SMALL)
    table = each.result.movement
    sums = table[(table["class"] == "partial_sums") & (table["level"] == "noc")]
    bits = 4 * each.mapping.hardware.tile.accumulator.bits
    # Six row blocks on three tiles in a row of a 2 x 2 mesh; two of them are at home, the others 2 and 3 links away.
    assert sums[["packets", "bits", "bit_hops"]].to_numpy().tolist() == [
        [4 * 3, 4 * 3 * bits, (2 + 2 + 3 + 3) * 3 * bits]
    ]


def test_partial_sums_on_one_tile_stay_off_the_noc():
    network = mlp(24, 4)
    table = run(network, activity(network, 1, 3), SMALL | {"tile.pes": 8}).result.movement
    assert set(table["level"][table["class"] == "partial_sums"]) == {"htree"}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("detail", ["ideal", "packet"])
def test_many_partial_sums_drain(depth, detail):
    network = mlp(60, 30, 10)
    overrides = SMALL | {"tile.pe.latch_depth": depth, "chip.noc.detail": detail}
    each = run(network, activity(network, 2, 2, rate=0.1), overrides)
    assert int(each.result.log.rows_of("output").sum()) == 2 * 2 * len(each.mapping.layers[-1].col_blocks)


def samples_of(n: int) -> Run:
    network = mlp(8, 8, 4)
    return run(network, activity(network, n, 2), SMALL)


def test_samples_depart_in_order_and_throughput_counts_their_departures():
    each = samples_of(4)
    log = each.result.log
    leaves = [int(log["leave_ps"][log.rows_of("output") & (log["sample"] == sample)].max()) for sample in range(4)]
    rate = 2 / ((leaves[3] - leaves[1]) * 1e-12)
    assert (leaves, each.result.summary["throughput_samples_per_s"]) == (sorted(set(leaves)), pytest.approx(rate))


def test_samples_overlap():
    each = samples_of(4)
    assert each.trace.end_ps < sample_latencies_ps(each.result.log, 4).sum()


def test_latency_is_from_injection_to_the_last_output():
    each = samples_of(2)
    lanes = dict(zip(map(id, each.netlist.lanes()), each.trace.lanes, strict=True))
    entered = lanes[id(each.netlist.input_lanes[0])].start_ps[::2]
    left = lanes[id(each.netlist.output_lanes[0])].leave_ps[1::2]
    assert sample_latencies_ps(each.result.log, 2).tolist() == (left - entered).tolist()


@pytest.mark.parametrize(("n", "missing"), [(2, 3), (3, 2), (19, 2), (20, 0)])
def test_figures_that_need_more_samples_are_null(n, missing):
    keys = ("throughput_samples_per_s", "latency_p50_ps", "latency_p99_ps")
    assert [samples_of(n).result.summary[key] for key in keys].count(None) == missing


# Limits


def test_too_few_rows_of_line_buffer_are_refused_when_the_netlist_is_built():
    layer = Layer("conv", "conv2d", "input", (1, 5, 5), 2, (3, 3), (1, 1), (0, 0), None, None, neuron())
    network = Network("conv", (1, 5, 5), (layer,))
    with pytest.raises(MappingError, match="layer 'conv' needs at least 3 rows of 5 positions"):
        run(network, activity(network, 1, 1), {"tile.line_buffer.rows": 2})


def test_too_little_v_mem_is_refused_with_what_it_needs():
    network = mlp(8, 100)
    with pytest.raises(MappingError, match=r"holds neurons with 1600 bits .* needs 0.1953 KiB"):
        run(network, activity(network, 1, 1), {"chip.neuron.v_mem_kib": 0.1, "tile.pes": 64})


# Files


def test_the_event_log_comes_back_from_parquet(tmp_path):
    log = case(3).result.log
    log.write(tmp_path / "events.parquet")
    back = EventLog.read(tmp_path / "events.parquet")
    names = ("components", "actions", "layers", "movements")
    differing = [name for name, dtype in EventLog.COLUMNS if back[name].tobytes() != log[name].astype(dtype).tobytes()]
    assert (differing, [getattr(back, name) for name in names]) == ([], [getattr(log, name) for name in names])


def test_a_result_comes_back_from_its_folder(tmp_path):
    result = case(3).result
    back = Result.load(result.write(tmp_path / "run"))
    tables = ("components", "layers", "movement")
    assert [back.summary, *(getattr(back, name).to_csv() for name in tables)] == [
        result.summary,
        *(getattr(result, name).to_csv() for name in tables),
    ]


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_a_second_run_writes_the_same_bytes(tmp_path, seed):
    each = case(seed)
    each.result.write(tmp_path / "first")
    simulate_activity(each.mapping, workload(each.mapping.network), each.activity).write(tmp_path / "second")
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    same = [
        name for name in files if (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    ]
    assert same == files

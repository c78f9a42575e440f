"""Networks whose paths join: values against a plain numpy simulation, timing against laws of the trace."""

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import test_crossbar_chip as crossbar
import torch
from test_inference import chip, pairs_of
from torch.nn import functional

from archsim.analog.calibration import calibrate_ranges
from archsim.analog.layer import InputFormat, LayerGeometry
from archsim.analog.product import hardware_sums
from archsim.analog.programming import program_layer
from archsim.components.netlist import Target
from archsim.engine import geometry
from archsim.errors import MappingError, SimulationError
from archsim.hardware.reader import load_hardware
from archsim.inference import infer, run_ideal
from archsim.mapping import map_network
from archsim.workload.model import InputData, Workload
from archsim.workload.network import INPUT, Layer, Network, NeuronModel, Pool
from archsim.workload.neurons import no_neurons, readout

pytestmark = pytest.mark.many_seeds

SEEDS = range(60)
VALUE_SEEDS = SEEDS[:32]
STEPS = 4
FINE = 2.0**-15
"""Step of the weights: with 16 bits, and one weight at the end of the scale, a chip stores them exactly."""


# Random networks. Weights, decays and thresholds are few binary digits long, so every sum is exact in any order.


class Builder:
    """Grows a network layer by layer with random weights and neurons; `last` is the latest one."""

    def __init__(self, rng, shape):
        self.rng, self.shape, self.layers = rng, shape, []

    @property
    def last(self):
        return self.layers[-1].name if self.layers else INPUT

    def shape_of(self, name):
        return self.shape if name == INPUT else next(x.out_shape for x in self.layers if x.name == name)

    def conv(self, name, source, out, kernel=3, stride=1, groups=1, neuron=None, pool=None, in_shape=None, **joins):
        rng, shape = self.rng, in_shape or self.shape_of(source)
        kind = "linear" if kernel == 0 else "conv2d"
        if kernel == 0:
            shape, kernel = (int(np.prod(shape)), 1, 1), 1
        weights = np.clip(rng.normal(0.1, 0.4, (out, shape[0] // groups, kernel, kernel)), -0.9, 0.9)
        weights = np.round(weights / FINE) * FINE
        weights.flat[rng.integers(weights.size)] = 1 - FINE
        passes = neuron is not None and neuron.kind == "none"
        bias = None if passes or rng.random() < 0.5 else np.round(rng.normal(0, 0.2, out) / FINE) * FINE
        sizes = ((kernel, kernel), (stride, stride), (kernel // 2, kernel // 2))
        model = neuron or neurons_of(rng)
        layer = Layer(name, kind, source, shape, out, *sizes, weights, bias, model, None, groups=groups, **joins)
        if pool and min(layer.conv_shape[1:]) >= 2:
            layer = replace(layer, pool=Pool((2, 2), (2, 2)))
        self.layers.append(layer)

    def network(self):
        return Network("random", self.shape, tuple(self.layers))


def neurons_of(rng) -> NeuronModel:
    def full(value):
        return np.full((1, 1, 1), float(value))

    kind = str(rng.choice(["if", "lif", "threshold"]))
    decay = {"if": 1.0, "lif": 0.5, "threshold": 0.0}[kind]
    leak, reset = (0.0, 0.0) if kind == "if" else rng.integers(-2, 3, 2) / 8
    rules = {"reset": str(rng.choice(["subtract", "zero"])), "spikes_per_step": str(rng.choice(["one", "many"]))}
    if kind == "lif" and rng.random() < 0.4:
        rules |= {"synapse_decay": full(0.5), "synapse_gain": full(0.75)}
    return NeuronModel(kind, *map(full, (decay, 1.0, rng.choice([0.5, 1.0]), leak, reset)), **rules)


def leaky_readout() -> NeuronModel:
    return replace(readout(), decay=np.full((1, 1, 1), 0.5))


def grow(rng, kind: str, size: int) -> Network:
    """`residual`, `recurrent`, `grouped`, or `mixed`, which has all of them; the map is `size` x `size`."""
    net = Builder(rng, (int(rng.integers(1, 4)), size, size))
    width = 4
    groups = int(rng.choice([2, 4])) if kind in ("grouped", "mixed") else 1
    net.conv("stem", INPUT, width, kernel=int(rng.choice([1, 3])))
    if kind in ("residual", "mixed"):
        width = add_block(net, "r1", width, groups)
        if kind == "residual" and rng.random() < 0.5:
            width = add_block(net, "r2", width, 1)
    if kind == "grouped":
        net.conv("g1", net.last, 4, groups=int(rng.choice([2, 4])), pool=rng.random() < 0.5)
        net.conv("g2", net.last, int(rng.choice([4, 8])), kernel=1, groups=groups)
    if kind in ("recurrent", "mixed"):
        add_recurrence(net, str(rng.choice(["flat", "wide", "feedback"])))
    if rng.random() < 0.7:
        ends = [None, leaky_readout(), readout()]
        net.conv("end", net.last, int(rng.integers(2, 7)), kernel=0, neuron=ends[rng.integers(3)])
    return net.network()


def add_block(net: Builder, name: str, width: int, groups: int) -> int:
    """Two convolutions with an identity or a 1x1 shortcut around them."""
    rng, origin = net.rng, net.last
    stride = int(rng.choice([1, 2])) if net.shape_of(origin)[1] >= 3 else 1
    out = width if stride == 1 and rng.random() < 0.6 else 2 * width
    net.conv(f"{name}a", origin, out, int(rng.choice([1, 3, 5])), stride, groups)
    if (stride, out) == (1, width):
        joining = origin
    else:
        joining = f"{name}s"
        net.conv(joining, origin, out, 1, stride, neuron=no_neurons())
    net.conv(f"{name}b", f"{name}a", out, int(rng.choice([1, 3])), pool=rng.random() < 0.3, adds=(joining,))
    return out


def add_recurrence(net: Builder, kind: str) -> None:
    """Weights from a layer back to itself, or over two layers: fully connected, or `wide`, 3x3 on a map."""
    origin, kernel = net.last, 3 if kind == "wide" else 0
    net.conv("x", origin, 4, kernel, adds=("back",))
    if kind == "feedback":
        net.conv("y", "x", 5, kernel)
        net.conv("z", "y", 3, kernel)
    net.conv("back", net.last, 4, kernel, neuron=no_neurons(), delayed=True)
    net.layers.insert(-2 if kind == "feedback" else -1, net.layers.pop())  # the output is last


KINDS = ("residual", "recurrent", "grouped", "mixed")


@lru_cache
def random_workload(seed: int) -> Workload:
    rng = np.random.default_rng(seed)
    network = grow(rng, KINDS[seed % 4], int(rng.integers(4, 6)))
    values = rng.integers(0, 2, (2, STEPS, *network.input_shape)).astype(np.uint8)
    return Workload("random", network, STEPS, InputData(values))


# Values


class Reference:
    """One sample of a network, position by position and step by step, in numpy."""

    def __init__(self, network: Network):
        self.network, self.v, self.current, self.before = network, {}, {}, {}

    def run(self, frames):
        """Spikes before pooling by layer, shape (step, ...), and the potentials at the end."""
        steps = [self.step(frame.astype(float)) for frame in frames]
        return {name: np.stack([step[name] for step in steps]) for name in steps[0]}, self.v

    def step(self, frame):
        out, fired, sums = {INPUT: frame}, {}, {}
        for layer in (*(x for x in self.network.layers if x.delayed), *self.network.layers):
            if layer.delayed:
                read = self.before.get(layer.source, np.zeros(self.network.layer(layer.source).out_shape))
            else:
                read = out[layer.source]
            total = self.weighted(layer, read)
            fired[layer.name] = np.zeros(layer.conv_shape)
            if layer.neuron.kind == "none":
                sums[layer.name] = total
                continue
            total = total + sum(sums[name] if name in sums else out[name] for name in layer.adds)
            fired[layer.name] = self.fire(layer, total)
            out[layer.name] = summed(fired[layer.name], layer.pool)
        self.before = out
        return fired

    def weighted(self, layer, read):
        (pad_y, pad_x), (stride_y, stride_x) = layer.padding, layer.stride
        frame = np.pad(read.reshape(layer.in_shape), ((0, 0), (pad_y, pad_y), (pad_x, pad_x)))
        total, per_group = np.zeros(layer.conv_shape), layer.in_shape[0] // layer.groups
        for o, y, x in np.ndindex(*layer.conv_shape):
            first = o // (layer.out_channels // layer.groups) * per_group
            rows = slice(y * stride_y, y * stride_y + layer.kernel[0])
            cols = slice(x * stride_x, x * stride_x + layer.kernel[1])
            total[o, y, x] = (layer.weights[o] * frame[first : first + per_group, rows, cols]).sum()
        return total if layer.bias is None else total + layer.bias[:, None, None]

    def fire(self, layer, i):
        model, v = layer.neuron, self.v.get(layer.name, np.zeros(layer.conv_shape))
        if model.synapse_decay is not None:
            before = self.current.get(layer.name, 0.0)
            i = self.current[layer.name] = model.synapse_decay * before + model.synapse_gain * i
        v = model.v_leak + model.decay * (v - model.v_leak) + model.input_gain * i
        spikes = np.zeros_like(v)
        if model.kind != "accumulate":
            spikes = np.where(v >= model.v_threshold, 1.0, 0.0)
            if model.spikes_per_step == "many":
                spikes *= np.floor(v / model.v_threshold)
            v = v - spikes * model.v_threshold if model.reset == "subtract" else np.where(spikes > 0, model.v_reset, v)
        self.v[layer.name] = v
        return spikes


def summed(spikes, pool):
    if pool is None:
        return spikes
    height, width = (size // 2 for size in spikes.shape[1:])
    return spikes[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).sum((2, 4))


def simulated(workload: Workload):
    """Reference spikes by layer, shape (sample, step, ...), and the network's output per sample."""
    runs = [Reference(workload.network).run(frames) for frames in workload.input.values]
    last = workload.network.layers[-1]
    if last.neuron.kind == "accumulate":
        outputs = [v[last.name].ravel() for _, v in runs]
    else:
        outputs = [sum(summed(one, last.pool) for one in spikes[last.name]).ravel() for spikes, _ in runs]
    return {name: np.stack([spikes[name] for spikes, _ in runs]) for name in runs[0][0]}, np.stack(outputs)


def different(found: dict, expected: dict) -> list[str]:
    return [name for name, spikes in expected.items() if not np.array_equal(found[name], spikes)]


@pytest.mark.parametrize("seed", VALUE_SEEDS)
def test_the_ideal_network_is_the_one_simulated_step_by_step(seed):
    workload = random_workload(seed)
    spikes, outputs = simulated(workload)
    ideal = ideal_of(seed)
    assert (different(ideal.spikes, spikes), ideal.outputs.tolist()) == ([], outputs.tolist())


@lru_cache
def ideal_of(seed: int):
    workload = random_workload(seed)
    return run_ideal(workload.network, workload.input.values, STEPS)


def test_the_random_networks_are_awake():
    quiet = [seed for seed in VALUE_SEEDS if sum(int(spikes.sum()) for spikes in ideal_of(seed).spikes.values()) < 50]
    assert len(quiet) < len(VALUE_SEEDS) / 10


@pytest.mark.parametrize("seed", VALUE_SEEDS)
def test_a_chip_with_fine_weights_and_converters_is_the_ideal_network(seed):
    """Weights on a 16-bit grid, converters of one level per code: nothing is rounded anywhere."""
    workload, rng = random_workload(seed), np.random.default_rng(seed)
    array = {"rows": int(rng.choice([2, 4, 64])), "cols": int(rng.choice([16, 64]))}
    array |= {
        "signed": str(rng.choice(["diff", "differential", "differential_arrays", "offset"])),
        "zero_skip": bool(rng.random() < 0.7),
    }
    policy = {"layout": str(rng.choice(["dense", "kernel_position"])), "share_tiles": bool(rng.random() < 0.5)}
    hardware = chip(16, None, array, str(rng.choice(["analog", "digital"])), **policy)
    activity = infer(map_network(hardware, workload), workload, samples=2)
    ideal = ideal_of(seed)
    found = {name: layer.spikes for name, layer in activity.layers.items()}
    assert (different(found, ideal.spikes), activity.outputs.tolist()) == ([], ideal.outputs.tolist())


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_recorded_inputs_are_what_the_source_emitted_now_or_one_step_before(seed):
    workload = random_workload(seed)
    activity = infer(map_network(chip(16), workload), workload, samples=2)
    wrong = []
    for layer in workload.network.layers:
        emitted = workload.input.values
        if layer.source != INPUT:
            source = workload.network.layer(layer.source)
            spikes = activity.layers[source.name].spikes
            emitted = np.stack([np.stack([summed(step, source.pool) for step in one]) for one in spikes])
        if layer.delayed:
            emitted = np.concatenate([0 * emitted[:, :1], emitted[:, :-1]], axis=1)
        if not np.array_equal(activity.layers[layer.name].inputs, emitted.reshape(2, STEPS, *layer.in_shape)):
            wrong.append(layer.name)
    assert wrong == []


# Neurons in closed form: one synapse of weight w, an input x that never changes


def constant_drive(weight: float, n_steps: int, **changes) -> tuple[np.ndarray, float]:
    """Spikes and last potential of one neuron that receives one spike at every step."""
    fields = {name: np.full((1, 1, 1), float(value)) for name, value in changes.items() if name != "kind"}
    model = replace(readout(), **{"kind": changes.get("kind", "accumulate"), **fields})
    weights = np.full((1, 1, 1, 1), weight)
    layer = Layer("n", "linear", INPUT, (1, 1, 1), 1, (1, 1), (1, 1), (0, 0), weights, None, model)
    frames = np.ones((1, n_steps, 1, 1, 1), np.uint8)
    ideal = run_ideal(Network("one", (1, 1, 1), (layer,)), frames, n_steps)
    return ideal.spikes["n"].ravel(), float(ideal.outputs.item())


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("n_steps", [1, 7, 50])
def test_a_leaky_readout_is_a_geometric_sum(decay, n_steps):
    potential = constant_drive(0.7, n_steps, decay=decay, input_gain=1 - decay)[1]
    assert potential == pytest.approx(0.7 * (1 - decay**n_steps), rel=1e-12)


def test_a_leak_to_a_potential_is_reached_exponentially():
    potential = constant_drive(0.0, 20, decay=0.8, v_leak=-2.0)[1]
    assert potential == pytest.approx(-2.0 * (1 - 0.8**20), rel=1e-12)


@pytest.mark.parametrize(("slow", "fast"), [(0.9, 0.5), (0.6, 0.95)])
def test_a_synapse_before_a_leak_is_a_difference_of_two_exponentials(slow, fast):
    """v_n = sum over m of slow^(n-m) g (1 - fast^(m+1)) / (1 - fast), in closed form."""
    n, gain = 30, 0.25
    potential = constant_drive(1.0, n, decay=slow, synapse_decay=fast, synapse_gain=gain)[1]
    settled = (1 - slow**n) / (1 - slow) - fast * (slow**n - fast**n) / (slow - fast)
    assert potential == pytest.approx(gain / (1 - fast) * settled, rel=1e-12)


@pytest.mark.parametrize(("weight", "fires"), [(0.999, 0), (1.0, 1), (1.5, 1)])
def test_a_threshold_has_no_memory(weight, fires):
    spikes, _ = constant_drive(weight, 6, kind="threshold", decay=0, v_threshold=1)
    assert spikes.tolist() == [fires] * 6


@pytest.mark.parametrize("weight", [0.3125, 0.109375, 0.75])
def test_integrate_and_fire_has_fired_floor_of_all_it_received(weight):
    spikes, _ = constant_drive(weight, 40, kind="if", v_threshold=1)
    assert spikes.cumsum().tolist() == [int(weight * n) for n in range(1, 41)]


def test_a_current_fires_a_neuron_when_its_closed_form_crosses_the_threshold():
    """IF behind a synapse: 0.2 (1 - 0.5^n) / 0.5 each step, so v_n = 0.4 n - 0.4 (1 - 0.5^n) until the first spike."""
    spikes, _ = constant_drive(1.0, 8, kind="if", v_threshold=1, synapse_decay=0.5, synapse_gain=0.2)
    below = [0.4 * n - 0.4 * (1 - 0.5**n) < 1 for n in range(1, 9)]
    assert int(np.flatnonzero(spikes)[0]) == below.index(False)


# Groups


def grouped(groups: int, channels: int, out: int, kernel: int, stride: int, seed: int) -> Layer:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-7, 8, (out, channels // groups, kernel, kernel))
    weights.flat[0] = 7
    sizes = ((kernel, kernel), (stride, stride), (kernel // 2, kernel // 2))
    neuron = crossbar.neuron()
    return Layer("g", "conv2d", INPUT, (channels, 5, 5), out, *sizes, weights, None, neuron, groups=groups)


GROUPS = [(1, 6, 4, 3, 1), (2, 6, 4, 3, 1), (3, 12, 9, 1, 2), (4, 8, 8, 3, 2), (6, 6, 12, 3, 1), (16, 16, 16, 3, 1),
          (5, 10, 5, 5, 1)]  # fmt: skip


@pytest.mark.parametrize("layout", ["kernel_position", "dense"])
@pytest.mark.parametrize("rows", [3, 4, 64])
@pytest.mark.parametrize(("groups", "channels", "out", "kernel", "stride"), GROUPS)
def test_grouped_crossbars_sum_to_torchs_grouped_convolution(groups, channels, out, kernel, stride, rows, layout):
    layer = grouped(groups, channels, out, kernel, stride, rows)
    hardware = chip(crossbar={"rows": rows, "cols": 8}, layout=layout)
    mapped = map_network(hardware, Network("g", layer.in_shape, (layer,))).layers[0]
    geometry_of = LayerGeometry(
        mapped.row_blocks, mapped.col_blocks, pairs_of(mapped), layer.stride, layer.padding, layer.conv_shape[1:]
    )
    inputs = torch.randint(0, 4, (2, *layer.in_shape), generator=torch.Generator().manual_seed(groups))
    programmed = program_layer(torch.as_tensor(layer.full_weights), geometry_of, hardware)
    sums, clips = hardware_sums(calibrate_ranges(programmed, inputs, InputFormat(2)), inputs, InputFormat(2))
    weights = torch.as_tensor(layer.weights).double()
    expected = functional.conv2d(inputs.double(), weights, None, layer.stride, layer.padding, 1, groups)
    assert torch.allclose(sums, expected, rtol=0, atol=1e-9)
    assert int(clips.sum()) == 0


@pytest.mark.parametrize("layout", ["kernel_position", "dense"])
@pytest.mark.parametrize(("groups", "channels", "out", "kernel", "stride"), GROUPS)
def test_blocks_have_a_pe_exactly_where_a_group_connects_them(groups, channels, out, kernel, stride, layout):
    layer = grouped(groups, channels, out, kernel, stride, 1)
    over = {"tile.pe.crossbar.rows": 3, "tile.pe.crossbar.cols": 8, "mapping.layout": layout}
    mapped = map_network(load_hardware("demo", over), Network("g", layer.in_shape, (layer,))).layers[0]
    connected = set()
    for o, c in np.ndindex(out, channels):
        if o // (out // groups) == c // (channels // groups):
            col = next(i for i, (first, last) in enumerate(mapped.col_blocks) if first <= o < last)
            connected |= {
                (row, col)
                for row, block in enumerate(mapped.row_blocks)
                if any(first <= c < last for segments in block for _, _, first, last in segments)
            }
    assert pairs_of(mapped) == connected
    assert len(mapped.pes) == len(connected)


# Timing

CHIPS = {
    "tile.pe.crossbar.rows": (2, 4, 16, 64),
    "tile.pe.crossbar.cols": (8, 16, 64),
    "tile.pe.crossbar.zero_skip": (False, True),
    "tile.pe.crossbars": (1, 4, 9),
    "tile.pe.pipelined": (False, True),
    "tile.pe.column_merge": ("analog", "digital"),
    "tile.pe.latch_depth": (1, 2, 3),
    "tile.pes": (1, 2, 8),
    "tile.htree.bits_per_cycle": (16, 256),
    "chip.noc.detail": ("ideal", "packet"),
    "chip.noc.flit_bits": (8, 32),
    "mapping.layout": ("kernel_position", "dense"),
    "mapping.share_tiles": (False, True),
    "mapping.placement": ("snake", "traffic"),
}


def random_chip(rng) -> dict:
    return {key: values[rng.integers(len(values))] for key, values in CHIPS.items()}


@lru_cache
def case(seed: int) -> crossbar.Run:
    """A random network on a random chip; `build_result` checks the conservation laws."""
    rng = np.random.default_rng(seed)
    network = random_workload(seed).network
    values = crossbar.activity(network, int(rng.integers(1, 3)), int(rng.integers(1, 4)), seed, 0.3)
    return crossbar.run(network, values, random_chip(rng))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_network_drains_between_its_busiest_server_and_the_sum_of_all_work(seed):
    each = case(seed)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    wires = sum(wire.delay_ps * lane.n_emitted for lane in each.netlist.lanes() for wire in lane.wires)
    assert max(work) <= each.trace.end_ps <= sum(work) + wires


@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_of_every_layer_passes_its_neurons_once(seed):
    each = case(seed)
    rows = each.result.layers.set_index("layer")["neuron_updates"].to_dict()
    frames = each.activity.n_samples * each.activity.n_timesteps
    assert {x.name: rows[x.name] for x in each.mapping.network.layers} == {
        x.name: frames * x.n_neurons for x in each.mapping.network.layers
    }


class Arrivals:
    """When the spikes that recurrent weights read reached their tiles, and when tokens that need them started."""

    def __init__(self, each: crossbar.Run, layer: Layer, main: Layer):
        self.layer, self.n_steps = layer, each.activity.n_timesteps
        self.at: dict[Target, np.ndarray] = {}
        self.starts: list[tuple[set[str], np.ndarray]] = []
        """Tiles whose spikes the tokens of a lane need, and when they started."""
        buffers, mapped = each.netlist.buffers, each.mapping.layer(layer.name)
        for lane, times in zip(each.netlist.lanes(), each.trace.lanes, strict=True):
            emitted = slice(None) if lane.emit is None else lane.emit
            for wire in lane.wires:
                self.at[wire.target] = times.start_ps[emitted] + wire.delay_ps
            if lane.reader and buffers[lane.reader[0]].layer == layer.name:
                self.starts.append(({buffers[lane.reader[0]].name}, times.start_ps))
            if lane.layer == main.name and lane.name.endswith(".accumulate"):
                block = int(lane.name.split(".block")[1].split(".")[0])
                self.starts.append(({f"tile{pe.tile}.buffer" for pe in mapped.pes_of(block)}, times.start_ps))
        self.targets = {
            buffer.name: [Target("buffer", index, source) for source in range(buffer.n_sources)]
            for index, buffer in enumerate(buffers)
            if buffer.layer == layer.name
        }

    def too_early(self) -> int:
        """Tokens that start before the spikes of the step before, which their kernel covers, were there."""
        _, height, width = self.layer.conv_shape
        _, map_h, map_w = self.layer.in_shape if self.layer.kind == "conv2d" else (0, 1, 1)
        count = 0
        for tiles, start in self.starts:
            parts = [self.at[target] for tile in tiles for target in self.targets[tile]]
            reached = np.max(parts, axis=0).reshape(-1, self.n_steps, len(parts[0]) // (len(start) // (height * width)))
            tokens = start.reshape(-1, self.n_steps, height, width)
            for sample, step, y, x in np.ndindex(*tokens.shape):
                if step:
                    seen = reached[sample, step - 1]
                    if map_h * map_w == len(seen):
                        seen = seen.reshape(map_h, map_w)[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                    count += int(tokens[sample, step, y, x] < seen.max())
        return count


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if KINDS[seed % 4] in ("recurrent", "mixed")])
def test_no_step_of_a_recurrent_layer_starts_before_its_spikes_of_the_last_step_arrived(seed):
    each = case(seed)
    layers = {layer.name: layer for layer in each.mapping.network.layers}
    arrivals = Arrivals(each, layers["back"], layers["x"])
    assert (len(arrivals.starts) > 1, arrivals.too_early()) == (True, 0)


# The skip buffer


def block(seed: int) -> Network:
    """One residual block, without weights; even seeds have an identity shortcut, odd ones a 1x1 layer."""
    rng = np.random.default_rng(seed)
    net = Builder(rng, (2, int(rng.integers(5, 8)), int(rng.integers(5, 8))))
    net.conv("stem", INPUT, 4, kernel=1)
    stride = 1 if seed % 2 == 0 else int(rng.choice([1, 2]))
    sizes = [int(size) for size in rng.choice([3, 5, 7], int(rng.integers(2, 4)))]
    for index, kernel in enumerate(sizes[:-1]):
        net.conv(f"m{index}", net.last, 4, kernel, stride if index == 0 else 1)
    tail = net.last
    if seed % 2:
        net.conv("short", "stem", 4, 1, stride, neuron=no_neurons())
    net.conv("join", tail, 4, sizes[-1], adds=("short" if seed % 2 else "stem",))
    return net.network()


def skip_chip(tokens) -> dict:
    return {"tile.skip_buffer.tokens": tokens, "tile.pe.latch_depth": 1, "tile.pe.crossbars": 9}


def refusal(network: Network, tokens: int) -> str | None:
    """What `check_buffers` says of a skip buffer; None where it is large enough."""
    try:
        geometry.check_buffers(map_network(load_hardware("demo", skip_chip(tokens)), network))
    except MappingError as fault:
        return str(fault)
    return None


def minimum(network: Network) -> int:
    text = refusal(network, 1)
    return 1 if text is None else int(re.search(r"Raise it to (\d+) or", text)[1])


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_skip_buffer_that_the_message_names_drains(seed):
    network = block(seed)
    tokens = minimum(network)
    each = crossbar.run(network, crossbar.activity(network, 1, 2, seed), skip_chip(tokens))
    peaks = [
        one.peak
        for one, spec in zip(each.trace.channels, each.netlist.channels, strict=True)
        if spec.name.endswith((".join.block0.stem", ".join.block0.short"))
    ]
    assert len(peaks) == 1
    assert peaks[0] <= tokens


@pytest.mark.parametrize("seed", range(20))
def test_one_token_less_is_refused_with_the_minimum(seed):
    network = block(seed)
    tokens, joining = minimum(network), "short" if seed % 2 else "stem"
    assert tokens == 1 or refusal(network, tokens - 1) == (
        f"tile.skip_buffer.tokens is {tokens - 1}; what '{joining}' adds to layer 'join' waits for up to "
        f"{tokens} tokens of the main path. Raise it to {tokens} or set it to auto."
    )


@pytest.mark.parametrize("seed", range(0, 20, 2))
def test_one_token_less_behind_an_identity_would_deadlock(seed, monkeypatch):
    """So the minimum is exact there; in front of a 1x1 layer it does not count the latches of that layer's PE."""
    network = block(seed)
    tokens = minimum(network) - 1
    monkeypatch.setattr(geometry, "join_capacity", lambda *_: tokens)
    with pytest.raises(SimulationError, match="these wait for each other"):
        crossbar.run(network, crossbar.activity(network, 1, 2, seed), skip_chip("auto"))


@pytest.mark.parametrize("seed", [1, 3, 5, 11, 13, 15, 19])
def test_the_minimum_before_a_1x1_layer_is_at_most_its_nine_places_too_large(seed, monkeypatch):
    """Four stages, four latches and the H-tree hold a token each; with them left out the buffer is too small."""
    network = block(seed)
    tokens = max(1, minimum(network) - 10)
    monkeypatch.setattr(geometry, "join_capacity", lambda *_: tokens)
    with pytest.raises(SimulationError, match="these wait for each other"):
        crossbar.run(network, crossbar.activity(network, 1, 2, seed), skip_chip("auto"))


def test_an_identity_shortcut_waits_for_all_that_two_kernels_look_ahead():
    """Two 3x3 kernels reach two rows and two columns ahead: position 2 * 6 + 2 before token 0, 15 tokens."""
    net = Builder(np.random.default_rng(0), (2, 6, 6))
    net.conv("stem", INPUT, 4, kernel=1)
    net.conv("m", "stem", 4)
    net.conv("join", "m", 4, adds=("stem",))
    assert minimum(net.network()) == 15


@pytest.mark.parametrize("case", ["branch", "nested", "slow shortcut"])
def test_joins_of_any_shape_drain_with_automatic_buffers(case):
    net = Builder(np.random.default_rng(0), (3, 8, 8))
    net.conv("a", INPUT, 4, 3)
    if case == "branch":
        net.conv("b", "a", 4, 7)
        net.conv("d", "a", 4, 1)
        net.conv("c", "b", 4, 3, adds=("d",))
    elif case == "nested":
        net.conv("r", "a", 4, 7)
        net.conv("q", "r", 4, 7, neuron=no_neurons())
        net.conv("m1", "a", 4, 1)
        net.conv("m2", "m1", 4, 1, adds=("q",))
        net.conv("c", "m2", 4, 1, adds=("a",))
    else:
        net.conv("b", "a", 4, 5)
        net.conv("b0", "b", 4, 5)
        net.conv("q", "b0", 4, 5, neuron=no_neurons())
        net.conv("m", "a", 4, 1, adds=("q",))
    network = net.network()
    done = crossbar.run(network, crossbar.activity(network, 1, 2), {"tile.pe.latch_depth": 1})
    assert done.result.summary["latency_ps"] > 0

"""Neuron units that channels share: values against a loop over single channels, work and memory in closed form."""

import re
from dataclasses import replace

import nir
import numpy as np
import pytest
import test_crossbar_chip as crossbar
import test_joins as joins
import torch
from test_inference import chip, neurons, small_workload
from test_traces import files_that_differ
from test_traces import run as cli

from archsim.analog.neurons import load_neuron, step, step_shared
from archsim.engine.geometry import v_mem_bits
from archsim.errors import MappingError, WorkloadError
from archsim.hardware.reader import load_hardware
from archsim.inference import infer, run_ideal
from archsim.mapping import map_network
from archsim.training import Net, Neuron, Recipe, Weighted, export_nir, prune, random_weight, train, without_filters
from archsim.workload.loader import load_workload
from archsim.workload.model import InputData
from archsim.workload.network import Network, NeuronModel


def shared_chip(n_shared: int, **more):
    """A chip with fine weights and converters whose units serve so many channels."""
    hardware = chip(16, **more)
    unit = hardware.chip.neuron.model_copy(update={"shared_channels": n_shared})
    return hardware.model_copy(update={"chip": hardware.chip.model_copy(update={"neuron": unit})})


def in_turn(model: NeuronModel, currents: np.ndarray, n_shared: int) -> np.ndarray:
    """Spikes of one sample, currents of shape (step, channel, y, x): unit by unit, channel by channel."""

    def of(name, channel, y, x):
        return float(np.broadcast_to(getattr(model, name), currents.shape[1:])[channel, y, x])

    spikes = np.zeros(currents.shape)
    for unit, y, x in np.ndindex(-(-currents.shape[1] // n_shared), *currents.shape[2:]):
        v, members = 0.0, range(unit * n_shared, min((unit + 1) * n_shared, currents.shape[1]))
        for now in range(len(currents)):
            leak = of("v_leak", members[0], y, x)
            v = leak + of("decay", members[0], y, x) * (v - leak)
            for channel in members:
                v += of("input_gain", channel, y, x) * currents[now, channel, y, x]
                threshold = of("v_threshold", channel, y, x)
                if v >= threshold:
                    count = v // threshold if model.spikes_per_step == "many" else 1
                    spikes[now, channel, y, x] = count
                    v = v - count * threshold if model.reset == "subtract" else of("v_reset", channel, y, x)
    return spikes


@pytest.mark.parametrize("n_shared", [2, 3, 7, 9])
@pytest.mark.parametrize("rules", [{}, {"reset": "zero"}, {"spikes_per_step": "many"}], ids=str)
def test_channels_of_a_unit_take_turns(rules, n_shared):
    """Seven channels of their own gain and threshold, a leak to a potential; dyadic numbers, so sums are exact."""
    rng = np.random.default_rng(n_shared)
    each = {name: rng.integers(4, 13, (7, 1, 1)) / 8 for name in ("input_gain", "v_threshold")}
    whole = {name: np.full((1, 1, 1), value) for name, value in (("decay", 0.5), ("v_leak", 0.25), ("v_reset", -0.5))}
    model = replace(NeuronModel("lif", *[np.ones((1, 1, 1))] * 5), **each, **whole, **rules)
    currents = rng.integers(-8, 25, (5, 7, 2, 3)) / 8
    v, found = torch.zeros(1, -(-7 // n_shared), 2, 3, dtype=torch.float64), []
    for now in currents:
        v, spikes = step_shared(v, torch.as_tensor(now).unsqueeze(0), load_neuron(model), n_shared)
        found.append(spikes[0].numpy())
    assert np.array_equal(np.stack(found), in_turn(model, currents, n_shared))


def test_a_unit_of_one_channel_is_a_neuron():
    model = load_neuron(neurons("lif", decay=0.75, gain=0.5))
    inputs, v = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for one, other in zip(step(v, inputs, model), step_shared(v, inputs, model, 1), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_shared", [2, 3, 7, 9])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("shape", [(7,), (7, 2, 3)], ids=str)
def test_trained_units_move_as_those_of_the_chip(n_shared, reset, shape):
    ours, generator = Neuron(decay=0.75, input_gain=0.5, reset=reset, shared_channels=n_shared), torch.Generator()
    theirs = load_neuron(neurons("lif", decay=0.75, gain=0.5, reset=reset))
    state, v = 0.0, torch.zeros(2, -(-7 // n_shared), *(*shape[1:], 1, 1)[:2], dtype=torch.float64)
    for _ in range(6):
        current = torch.rand(2, *shape, generator=generator, dtype=torch.float64) * 6 - 2
        state, spikes = ours.step(state, current)
        v, expected = step_shared(v, current.reshape(2, 7, *v.shape[2:]), theirs, n_shared)
        assert torch.equal(state, v.reshape(state.shape))
        assert torch.equal(spikes, expected.reshape(spikes.shape))
        assert 0 < float(spikes.mean()) < 1


def test_gradients_pass_from_a_channel_to_those_before_it_in_its_unit():
    current = torch.tensor([[0.9, 0.3, 0.4, 0.1]], requires_grad=True)
    _, spikes = Neuron(shared_channels=2).step(0.0, current)
    assert spikes.tolist() == [[0, 1, 0, 0]]
    (gradient,) = torch.autograd.grad(spikes[0, 1], current)
    assert (gradient[0] != 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize("n_shared", [2, 3])
def test_a_network_trained_to_share_runs_on_the_chip_spike_for_spike(tmp_path, n_shared):
    torch.manual_seed(0)
    shapes = [(5, 2, 3, 3), (6, 5, 3, 3), (4, 6 * 9)]
    layers = [Weighted(random_weight(shape), True, padding=int(len(shape) > 2)) for shape in shapes]
    layers[0].pool = 2
    net = Net(layers, Neuron(decay=0.9, shared_channels=n_shared), n_timesteps=4, norm="batch")
    images = torch.randint(0, 2, (24, 2, 6, 6)).float()
    train(net, images, torch.arange(24) % 4, Recipe(4, batch_size=8))
    nir.write(tmp_path / "net.nir", export_nir(net, (2, 6, 6)))
    workload = load_workload(tmp_path / "net.nir", "poisson:0.5", 4, {"reset": "subtract", "timestep_s": 1e-3})
    workload = replace(workload, input=InputData(images.numpy().astype(np.uint8)[:, None], 1.0, coding="direct"))
    found, trace = infer(map_network(shared_chip(n_shared), workload), workload, samples=24), []
    with torch.no_grad():
        outputs = net(images, trace=trace).numpy()
    for number, layer in enumerate(workload.network.layers[:2]):
        spikes = torch.stack([step[number].emitted for step in trace], dim=1).numpy()
        assert np.array_equal(found.layers[layer.name].spikes, spikes)
        assert spikes.any()
    assert found.outputs == pytest.approx(outputs, abs=1e-2)


def test_what_cannot_share_or_be_taken_from_those_that_share_is_refused():
    for kind, n_shared in (("spiking", 0), ("relu", 2)):
        with pytest.raises(WorkloadError) as caught:
            Neuron(kind, shared_channels=n_shared)
        assert str(caught.value) == (
            f"shared_channels is {n_shared} of '{kind}' neurons; it must be at least 1; only 'spiking' neurons have "
            "a potential that more than one channel can share"
        )
    net = Net([Weighted(random_weight((4, 3))), Weighted(random_weight((2, 4)))], Neuron(shared_channels=2))
    with pytest.raises(WorkloadError, match=r"^neurons have shared_channels 2; without some of its filters a layer"):
        without_filters(net, prune(net, "filters", 0.5, 4))


@pytest.mark.parametrize("cols", [2, 8, 64])
def test_the_chip_shares_and_the_ideal_network_does_not(cols):
    """Groups count over the layer, not over what a crossbar holds, so values do not depend on its columns."""
    workload = small_workload(labels=False)
    hardware = shared_chip(2, crossbar={"cols": 4 * cols})
    found = infer(map_network(hardware, workload), workload, samples=6)
    first, values = workload.network.layers[0], workload.input.values
    padded = np.pad(values.astype(float), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(3, 4))
    currents = np.einsum("stcyxij,ocij->stoyx", windows, first.weights) + first.bias[:, None, None]
    expected = np.stack([in_turn(first.neuron, one, 2) for one in currents])
    assert np.array_equal(found.layers["a"].spikes, expected)
    ideal = run_ideal(workload.network, values, 4).spikes["a"]
    assert not np.array_equal(expected, ideal)
    assert found.layers["a"].error_rel < 1e-3


@pytest.mark.parametrize("n_shared", [1, 2, 4])
def test_readouts_share_nothing(n_shared):
    network = small_workload().network
    readout = replace(network, layers=(replace(network.layers[2], source="input", in_shape=(24, 1, 1)),))
    workload = replace(small_workload(labels=False), network=replace(readout, input_shape=(24, 1, 1)))
    values = np.random.default_rng(1).integers(0, 2, (6, 4, 24, 1, 1)).astype(np.uint8)
    workload = replace(workload, input=replace(workload.input, values=values))
    outputs = infer(map_network(shared_chip(n_shared), workload), workload, samples=6).outputs
    assert outputs == pytest.approx(run_ideal(workload.network, values, 4).outputs, abs=1e-2)


@pytest.mark.parametrize(("n_shared", "lanes"), [(1, 16), (2, 16), (3, 16), (3, 2), (4, 1)])
def test_updates_accesses_and_bits_in_closed_form(n_shared, lanes):
    """10 neurons at 6 tokens: units of up to n channels, one potential each, updates one after the other."""
    over = {"chip.neuron.lanes": lanes, "chip.neuron.cycles_per_update": 3, "chip.neuron.shared_channels": n_shared}
    net = crossbar.mlp(8, 10)
    each = crossbar.run(net, crossbar.activity(net, 2, 3), over)
    parts = each.result.components.set_index("component")
    units = -(-10 // n_shared)
    batches = -(-units // lanes)
    assert parts.loc["tile0.neuron", "n_actions"] == 6 * 10
    assert parts.loc["tile0.v_mem", "n_actions"] == 6 * 2 * units
    assert parts.loc["tile0.v_mem", ["bits_in", "bits_out"]].tolist() == [6 * units * 16] * 2
    assert parts.loc["tile0.neuron", "busy_ps"] == 6 * batches * n_shared * 3 * 2000
    assert parts.loc["tile0.v_mem", "busy_ps"] == 6 * batches * 2 * 2000
    assert v_mem_bits(each.mapping) == {0: units * 16}
    assert parts.loc["tile0.neuron", "energy_dynamic_pj"] == pytest.approx(60 * 0.4795, rel=1e-12)
    area = load_hardware("demo").library.area_um2("v_mem")
    assert parts.loc["tile0.v_mem", "area_um2"] == pytest.approx(units * 16 * area, rel=1e-12)
    assert each.result.layers.set_index("layer").loc["fc1", "neuron_updates"] == 60


def test_units_stay_within_a_column_block():
    hardware = load_hardware("demo", {"tile.pe.crossbar.cols": 40, "chip.neuron.shared_channels": 4})
    assert map_network(hardware, crossbar.mlp(8, 30)).layers[0].col_blocks == ((0, 8), (8, 16), (16, 24), (24, 30))


@pytest.mark.parametrize("seed", joins.SEEDS[:5])
def test_networks_with_shared_units_drain(seed):
    net = joins.random_workload(seed).network
    plain = tuple(replace(x, neuron=replace(x.neuron, synapse_decay=None, synapse_gain=None)) for x in net.layers)
    over = joins.random_chip(np.random.default_rng(seed)) | {"chip.neuron.shared_channels": 2}
    net = replace(net, layers=plain)
    each = crossbar.run(net, crossbar.activity(net, 2, 2, seed), over)
    work = [sum(int(lane.service_ps.sum()) for lane in server.lanes) for server in each.netlist.servers]
    assert max(work) <= each.trace.end_ps


def refused(network: Network, overrides: dict) -> str:
    with pytest.raises(MappingError) as caught:
        map_network(load_hardware("demo", overrides), network)
    return str(caught.value)


def test_more_channels_than_a_crossbar_holds_cannot_share():
    text = refused(crossbar.mlp(8, 4), {"tile.pe.crossbar.cols": 16, "chip.neuron.shared_channels": 5})
    assert text == (
        "chip.neuron.shared_channels is 5, but tile.pe.crossbar.cols 16 holds 4 channels (4 columns per weight), and "
        "those that share a unit must share a crossbar. Lower shared_channels or raise cols to 20."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"synapse_decay": np.ones((1, 1, 1)), "synapse_gain": np.ones((1, 1, 1))},
            "layer 'fc1' keeps a synaptic current per neuron (CubaLIF), which units cannot share.",
        ),
        (
            {"decay": np.array([0.5, 0.5, 0.5, 0.25]).reshape(4, 1, 1)},
            "layer 'fc1' has neurons whose decay differs between the channels of a unit, which leaks only once.",
        ),
    ],
    ids=["current", "decay"],
)
def test_what_a_unit_cannot_share_is_refused(changes, text):
    net = crossbar.mlp(8, 4)
    layer = replace(net.layers[0], neuron=replace(net.layers[0].neuron, **changes))
    found = refused(replace(net, layers=(layer,)), {"chip.neuron.shared_channels": 2})
    assert re.sub(r"^chip.neuron.shared_channels is 2; ", "", found) == f"{text} Set chip.neuron.shared_channels: 1."


def test_a_decay_may_differ_from_unit_to_unit():
    net = crossbar.mlp(8, 4)
    decay = np.array([0.5, 0.5, 0.25, 0.25]).reshape(4, 1, 1)
    layer = replace(net.layers[0], neuron=replace(net.layers[0].neuron, decay=decay))
    hardware = load_hardware("demo", {"chip.neuron.shared_channels": 2})
    assert map_network(hardware, replace(net, layers=(layer,))).n_crossbars == 1


def test_a_replay_is_the_direct_run_to_the_byte(tmp_path):
    change = ("--set", "chip.neuron.shared_channels=2")
    assert cli("record", "digits-mlp", "-o", tmp_path / "t.npz", "--hardware", "demo", *change) == 0
    assert cli("run", "demo", "digits-mlp", "-o", tmp_path / "direct", *change) == 0
    assert cli("run", "demo", tmp_path / "t.npz", "-o", tmp_path / "replay", *change) == 0
    assert files_that_differ(tmp_path / "direct", tmp_path / "replay") == []

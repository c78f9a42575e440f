"""NIR files: what the reader accepts, how it discretises, and the full text of what it refuses."""

import os
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
from nir_graphs import conv, dense, graph, mlp, neuron, pool, save

from archsim.errors import WorkloadError
from archsim.workload import sandbox
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Pool
from archsim.workload.nir_reader import read_nir
from archsim.workload.sandbox import Hdf5Reader

SUPPORTED = (
    "Affine, AvgPool2d, Conv1d, Conv2d, CubaLI, CubaLIF, Flatten, I, IF, Input, LI, LIF, Linear, Output, Scale, "
    "SumPool2d, Threshold"
)
SUBTRACT = WorkloadSettings(reset="subtract")


@pytest.fixture
def read(tmp_path):
    """Write a graph with nir, change raw fields, and read it back."""

    def write_and_read(content, settings=SUBTRACT, fields=None):
        path = save(tmp_path / "net.nir", content)
        with h5py.File(path, "a") as file:
            for key, value in (fields or {}).items():
                if f"node/nodes/{key}" in file:
                    del file[f"node/nodes/{key}"]
                if value is not None:
                    file[f"node/nodes/{key}"] = value
        return read_nir(path, settings)

    return write_and_read


@pytest.fixture
def fault(read, tmp_path):
    """Text of the fault without the folder."""

    def text(*arguments, **options):
        with pytest.raises(WorkloadError) as caught:
            read(*arguments, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text


# What is accepted


def test_a_small_cnn_becomes_layers(read):
    net = read(
        graph(
            [2, 8, 8], [3],
            conv=conv(4, 2), act=neuron((4, 8, 8)), pool=pool(), flat=nir.Flatten(None, 0, -1), fc=dense(3, 64),
        )
    )  # fmt: skip
    first, last = net.layers
    assert (net.name, net.input_shape) == ("net", (2, 8, 8))
    assert (first.name, first.kind, first.source, first.pool) == ("conv", "conv2d", "input", Pool((2, 2), (2, 2)))
    assert (first.conv_shape, first.out_shape, first.bias) == ((4, 8, 8), (4, 4, 4), None)
    assert (last.name, last.kind, last.source, last.in_shape) == ("fc", "linear", "conv", (64, 1, 1))
    assert last.weights.shape == (3, 64, 1, 1)
    assert (last.neuron.kind, last.neuron.decay, last.neuron.v_threshold) == ("accumulate", 1, np.inf)


def test_average_pooling_is_folded_into_the_next_weights(read):
    def net(kind):
        return read(graph([2, 8, 8], [3], conv(4, 2), neuron((4, 8, 8)), pool(kind), nir.Flatten(None), dense(3, 64)))

    summed, averaged = net(nir.SumPool2d), net(nir.AvgPool2d)
    assert averaged.layers[0].pool == summed.layers[0].pool
    np.testing.assert_array_equal(averaged.layers[1].weights, summed.layers[1].weights / 4)
    assert averaged.layers[1].weights.dtype == np.float32


def test_two_poolings_become_one(read):
    net = read(graph([1, 8, 8], [2, 2, 2], conv(2, 1), neuron((2, 8, 8)), pool(), pool()))
    assert net.layers[0].pool == Pool((4, 4), (4, 4))


def test_a_last_average_pooling_leaves_counts(read):
    net = read(graph([1, 8, 8], [2, 4, 4], conv(2, 1), neuron((2, 8, 8)), pool(nir.AvgPool2d)))
    assert net.layers[0].out_shape == (2, 4, 4)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (5, 1, 1)])
def test_neuron_parameters_of_any_extent(read, shape):
    net = read(mlp(), fields={"lif/v_threshold": np.full(shape, 2.5), "lif/v_reset": None})
    model = net.layers[0].neuron
    np.testing.assert_array_equal(np.broadcast_to(model.v_threshold, (5, 1, 1)), np.full((5, 1, 1), 2.5))
    assert model.v_reset.sum() == 0


@pytest.mark.parametrize("value", [2, np.int64(2), [2, 2], np.array([2.0])])
@pytest.mark.parametrize("key", ["conv/stride", "pool/kernel_size"])
def test_sizes_of_any_form(read, key, value):
    fields = {key: value, "act/r": 1.0, "act/v_threshold": 1.0, "act/v_reset": 0.0, "output/shape": [2, 2, 2]}
    if key == "pool/kernel_size":
        fields["output/shape"] = [2, 4, 4]
    layer = read(graph([1, 9, 9], [2], conv=conv(2, 1), act=neuron(), pool=pool()), fields=fields).layers[0]
    assert (layer.stride if key == "conv/stride" else layer.pool.kernel) == (2, 2)


@pytest.mark.parametrize(("word", "padding", "size"), [("same", (1, 1), 8), ("valid", (0, 0), 6)])
def test_padding_may_be_a_word(read, word, padding, size):
    net = read(
        graph([1, 8, 8], [2, size, size], conv=conv(2, 1), lif=neuron((2, size, size))), fields={"conv/padding": word}
    )
    assert (net.layers[0].padding, net.layers[0].out_shape) == (padding, (2, size, size))


@pytest.mark.parametrize("shape", [[8], [1, 8], [5, 8], [1, 1, 8]])
def test_input_and_output_may_carry_a_batch_axis(read, shape):
    net = read(graph(shape, [*shape[:-1], 5], dense(), neuron()))
    assert net.layers[0].in_shape == (8, 1, 1)


def test_a_map_may_carry_a_batch_axis(read):
    assert read(graph([1, 2, 8, 8], [1, 4, 8, 8], conv(4, 2), neuron((4, 8, 8)))).input_shape == (2, 8, 8)


def test_nested_graphs_and_dotted_names_are_flattened(read):
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([8])), "0.fc": dense(), "act": neuron(), "output": nir.Output(np.array([5]))},
        [("act", "output"), ("0.fc", "act"), ("input", "0.fc")],
        type_check=False,
    )
    net = read(graph([8], [3], block=inner, _last=dense(3, 5)))
    assert [(layer.name, layer.source) for layer in net.layers] == [("block.0.fc", "input"), ("_last", "block.0.fc")]


def test_lif_is_discretised_both_ways(read):
    one = np.ones(5)
    lif = nir.LIF(tau=2e-3 * one, r=3 * one, v_leak=0.5 * one, v_threshold=one, v_reset=0 * one)
    exact = read(mlp(lif=lif), WorkloadSettings(timestep_s=1e-3)).layers[0].neuron
    euler = read(mlp(lif=lif), WorkloadSettings(timestep_s=1e-3, lif_update="euler")).layers[0].neuron
    np.testing.assert_allclose(
        [exact.decay, exact.input_gain],
        np.array([[np.exp(-0.5)], [3 - 3 * np.exp(-0.5)]]).reshape(2, 1, 1, 1).repeat(5, 1),
    )
    np.testing.assert_allclose([euler.decay, euler.input_gain], np.array([0.5, 1.5]).reshape(2, 1, 1, 1).repeat(5, 1))
    assert (exact.v_leak[0, 0, 0], exact.reset, exact.spikes_per_step) == (0.5, "zero", "one")


# What is refused


def test_unsupported_nodes_are_named(fault):
    message = f"net.nir: node 'lif' is a Delay, which archsim cannot map; supported: {SUPPORTED}"
    assert fault(mlp(lif=nir.Delay(np.ones(5)))) == message


def test_dangling_edges_are_named(fault):
    net = mlp()
    net.edges.append(("input", "lif1"))
    assert fault(net) == "net.nir: edge ('input', 'lif1') names no node; nodes are fc, input, lif, output"


def test_settings_that_contradict_are_refused(fault):
    assert fault(mlp(), WorkloadSettings(spikes_per_step="many", reset="zero")) == (
        "workload.spikes_per_step is 'many' but workload.reset is 'zero'; a neuron that fires several times "
        "in a timestep subtracts its threshold each time. Set workload.reset to 'subtract'."
    )


RULE = "a layer is weights, then a neuron, then pooling, then Flatten"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fc/weight": np.full((5, 8), np.nan)}, "node 'fc': weight holds 40 values that are NaN or infinite"),
        ({"fc/weight": np.zeros((0, 8))}, "node 'fc': weight is empty, shape (0, 8)"),
        ({"fc/weight": np.zeros(8)}, "node 'fc': weight has shape (8,); Linear needs (out, in)"),
        ({"fc/weight": "heavy"}, "node 'fc': weight is text; it must be numbers"),
        ({"fc/weight": np.zeros(2, complex)}, "node 'fc': weight is of type complex128; it must be numbers"),
        ({"fc/weight": None}, "node 'fc' (Linear) has no weight"),
        ({"fc/weight": np.ones((5, 9))}, "node 'fc' is a Linear for 9 values but receives 8 values from 'input'"),
        ({"lif/r": np.ones(3)}, "node 'lif' is an IF with 3 neurons (r) but receives 5 values from 'fc'"),
        ({"lif/v_threshold": np.zeros(5)}, "node 'lif': v_threshold is 0; it must be above 0"),
        ({"lif/v_threshold": None}, "node 'lif' (IF) has no v_threshold"),
        ({"lif/type": "LIF"}, "node 'lif' (LIF) has no tau"),
        ({"lif/type": 3}, "node 'lif' has no type"),
        ({"input/shape": [0]}, "node 'input' (Input) has shape [0]; every size must be at least 1"),
        (
            {"input/shape": [2, 2, 2, 2, 2]},
            "node 'input' (Input) has shape [2, 2, 2, 2, 2]; it must be (feature), (height, width) or "
            "(channel, height, width), with or without a batch axis",
        ),
        ({"output/shape": [6]}, "node 'output' (Output) expects shape [6] but receives 5 values from 'lif'"),
        ({"output/type": "Input"}, "the graph has 2 nodes of type Input ('input' and 'output'); it must have one"),
    ],
)
def test_faulty_fields_are_named(fault, fields, message):
    assert fault(mlp(), fields=fields) == f"net.nir: {message}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 2}, "node 'n0' is a Conv2d for 4 channels but receives 2 x 8 x 8 values from 'input'"),
        ({"groups": 3}, "node 'n0': groups is 3; it must be a divisor of 4 outputs"),
        ({"dilation": (2, 2)}, "node 'n0' (Conv2d) has dilation [2, 2]; only dilation 1 is supported"),
        ({"stride": 0}, "node 'n0': stride is [0, 0]; it must be one or two whole numbers of at least 1"),
        (
            {"padding": np.array([1, 1, 1])},
            "node 'n0': padding is [1, 1, 1]; it must be one or two whole numbers of at least 0",
        ),
        (
            {"padding": "same", "stride": (2, 2)},
            "node 'n0': padding 'same' with kernel 3 x 3 and stride 2 x 2 pads unevenly; "
            "only odd kernels with stride 1 are supported",
        ),
        (
            {"input_shape": (9, 9)},
            "node 'n0' (Conv2d) says its input_shape is [9, 9] but receives 2 x 8 x 8 values from 'input'",
        ),
        (
            {"weight": np.ones((4, 3, 3, 3))},
            "node 'n0' is a Conv2d for 3 channels but receives 2 x 8 x 8 values from 'input'",
        ),
        (
            {"weight": np.ones((4, 2, 11, 11))},
            "node 'n0': kernel 11 x 11 is larger than the map of 2 x 8 x 8 from 'input' with padding 1 x 1",
        ),
        ({"bias": np.ones(3)}, "node 'n0': bias has 3 values for 4 outputs"),
    ],
)  # fmt: skip
def test_faulty_convolutions_are_named(fault, changes, message):
    assert fault(graph([2, 8, 8], [4, 8, 8], conv(4, 2, **changes), neuron((4, 8, 8)))) == f"net.nir: {message}"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([pool(), conv(4, 2)], f"node 'n0' (SumPool2d) comes before the first weights; {RULE}"),
        ([conv(4, 2), conv(4, 4)], f"node 'n1' (Conv2d) follows weights without a neuron; {RULE}"),
        ([neuron()], f"node 'n0' (IF) follows 'input', not weights; {RULE}"),
        ([conv(4, 2), neuron((4, 8, 8)), neuron((4, 8, 8))], f"node 'n2' (IF) follows 'n1', not weights; {RULE}"),
        (
            [conv(4, 2), neuron((4, 8, 8)), pool(padding=1)],
            "node 'n2' (SumPool2d) has padding 1 x 1; only pooling without padding is supported",
        ),
        (
            [conv(4, 2), neuron((4, 8, 8)), pool(kernel=9)],
            "node 'n2': window 9 x 9 is larger than the map of 4 x 8 x 8 from 'n1'",
        ),
        (
            [conv(4, 2), neuron((4, 8, 8)), pool(kernel=3), pool()],
            "node 'n3' (SumPool2d) pools again behind overlapping windows; use one pooling",
        ),
        ([], "the graph has no weights: no Affine, Conv1d, Conv2d or Linear"),
    ],
)
def test_faulty_orders_are_named(fault, nodes, message):
    assert fault(graph([2, 8, 8], [4, 8, 8], *nodes)) == f"net.nir: {message}"


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            [("input", "a"), ("a", "d"), ("d", "a"), ("a", "b"), ("b", "c"), ("c", "output")],
            "nodes 'd' -> 'a' -> 'd' form a loop without a neuron that fires; nothing delays it",
        ),
        (
            [("input", "a"), ("a", "b"), ("b", "output"), ("b", "b")],
            "the connection from 'b' back to 'b' has no weights; give it some (Affine, Conv1d, Conv2d, Linear)",
        ),
        (
            [("input", "a"), ("a", "b"), ("a", "output"), ("b", "output")],
            "node 'a' (Linear) feeds 'b' and 'output'; weighted sums belong to one neuron",
        ),
        (
            [("input", "a"), ("a", "b"), ("b", "c"), ("input", "c"), ("c", "output")],
            "node 'c' (Linear) is fed by 'b' and 'input'; values add only where weights lead to a neuron or to Output",
        ),
        (
            [("input", "a"), ("a", "b"), ("b", "output"), ("b", "c")],
            "node 'c' leads nowhere; every node must lead to 'output' (Output)",
        ),
        ([("input", "a"), ("a", "output"), ("b", "output")], "node 'b' is not on a way from 'input' to 'output'"),
        (
            [("input", "a"), ("a", "b"), ("b", "input"), ("b", "output")],
            "node 'input' (Input) is fed by 'b'; nothing may feed it",
        ),
        ([("input", "a"), ("a", "output"), ("output", "b")], "node 'output' (Output) feeds 'b'; nothing may follow it"),
        (
            [("input", "a"), ("a", "b"), ("input", "b"), ("b", "output")],
            "node 'b' (IF) adds the network's input from 'input' without weights; put weights between them",
        ),
    ],
)  # fmt: skip
def test_graphs_that_cannot_be_layers_are_refused(fault, edges, message):
    used = {name for edge in edges for name in edge}
    nodes = {"a": dense(8, 8), "b": neuron(8), "c": dense(8, 8), "d": dense(8, 8)}
    net = graph([8], [8], **{name: node for name, node in nodes.items() if name in used})
    net.edges = edges
    assert fault(net) == f"net.nir: {message}"


def test_a_dangling_edge_of_a_nested_graph_is_named(fault):
    inner = graph([8], [5], fc=dense(), lif1=neuron())
    inner.edges.append(("fc", "lif"))
    message = "net.nir: edge ('rnn.fc', 'rnn.lif') names no node; nodes are rnn.fc, rnn.input, rnn.lif1, rnn.output"
    assert fault(graph([8], [5], rnn=inner)) == message


def test_euler_that_would_overshoot_is_refused(fault):
    one = np.ones(5)
    lif = nir.LIF(tau=1e-5 * one, r=one, v_leak=0 * one, v_threshold=one)
    assert fault(mlp(lif=lif), WorkloadSettings(lif_update="euler")) == (
        "net.nir: node 'lif': tau 1e-05 s is below workload.timestep_s 0.0001, where the "
        "Euler update overshoots; use a shorter timestep_s or workload.lif_update exponential"
    )


def test_a_reset_above_the_threshold_is_refused(fault):
    lif = neuron(v_reset=np.full(5, 2.0))
    message = "net.nir: node 'lif': v_reset must be below v_threshold, or it fires at every timestep"
    assert fault(mlp(lif=lif), WorkloadSettings(reset="zero")) == message


def test_a_weight_node_may_not_be_called_input(fault, tmp_path):
    net = nir.NIRGraph(
        {"in": nir.Input(np.array([8])), "input": dense(), "out": nir.Output(np.array([5]))},
        [("in", "input"), ("input", "out")],
        type_check=False,
    )
    assert fault(net) == "net.nir: node 'input' is a Linear; the name 'input' is kept for what enters"


def test_a_single_node_is_no_network(fault):
    assert fault(neuron()) == "net.nir: holds a single IF, not a NIRGraph; wrap it with nir.NIRGraph"


def test_text_called_nir_and_truncated_files_are_told(tmp_path):
    path = save(tmp_path / "net.nir", mlp())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkloadError, match=r"^\S*net.nir: damaged or truncated; the HDF5 library says: .*truncated"):
        read_nir(path, SUBTRACT)
    path.write_text("hello, I am a network\n")
    with pytest.raises(WorkloadError) as caught:
        read_nir(path, SUBTRACT)
    assert str(caught.value) == f"{path}: not an HDF5 file; a NIR network is HDF5, as nir.write makes it"


def test_other_hdf5_files_are_told(tmp_path):
    path = tmp_path / "other.nir"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(WorkloadError, match=r"other.nir: HDF5, but not a NIR file: it has no group 'node'$"):
        read_nir(path, SUBTRACT)


def damage(data, rng):
    """One of: a few bytes changed, the end cut off, a block of zeros."""
    data = bytearray(data)
    kind, position = rng.integers(3), int(rng.integers(len(data)))
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
    elif kind == 1:
        del data[position:]
    else:
        length = min(int(rng.integers(1, 200)), len(data) - position)
        data[position : position + length] = bytes(length)
    return bytes(data)


def fault_of(path):
    try:
        read_nir(path, SUBTRACT)
    except WorkloadError as fault:
        return str(fault)
    return None


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_a_network_or_a_workload_error(tmp_path, monkeypatch, seed):
    impatient = Hdf5Reader(wall_limit_s=2)
    monkeypatch.setattr(sandbox, "_shared_reader", impatient)
    nodes = conv(2, 2), neuron((2, 4, 4)), pool(), nir.Flatten(None), dense(3, 8), neuron(3)
    path = save(tmp_path / "net.nir", graph([2, 4, 4], [3], *nodes))
    whole, rng = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(50):
        path.write_bytes(damage(whole, rng))
        text = fault_of(path)
        assert text is None or (text.startswith(f"{path}: ") and text.isprintable())
    impatient.close()


# Real files


@pytest.fixture
def real_files():
    folder = os.environ.get("ARCHSIM_TEST_DATA")
    if not folder:
        pytest.skip("ARCHSIM_TEST_DATA names no folder with nir/*.nir")
    return Path(folder) / "nir"


def test_the_sinabs_cnn_has_the_shapes_of_its_paper(real_files):
    net = read_nir(real_files / "cnn_sinabs.nir", WorkloadSettings(reset="subtract", spikes_per_step="many"))
    assert net.input_shape == (2, 34, 34)
    two = Pool((2, 2), (2, 2))
    assert [(x.name, x.kind, x.weights.shape, x.stride, x.padding, x.conv_shape, x.pool) for x in net.layers] == [
        ("0", "conv2d", (16, 2, 5, 5), (2, 2), (1, 1), (16, 16, 16), None),
        ("2", "conv2d", (16, 16, 3, 3), (1, 1), (1, 1), (16, 16, 16), two),
        ("5", "conv2d", (8, 16, 3, 3), (1, 1), (1, 1), (8, 8, 8), two),
        ("9", "linear", (256, 128, 1, 1), (1, 1), (0, 0), (256, 1, 1), None),
        ("11", "linear", (10, 256, 1, 1), (1, 1), (0, 0), (10, 1, 1), None),
    ]
    assert sum(layer.n_weights for layer in net.layers) == 39_584
    assert {(x.neuron.kind, x.neuron.reset, x.neuron.spikes_per_step) for x in net.layers} == {
        ("if", "subtract", "many")
    }


def test_the_norse_neuron_spikes_when_the_exact_one_does(real_files):
    layer = read_nir(real_files / "lif_norse.nir", WorkloadSettings()).layers[0]
    current = np.loadtxt(real_files / "lif_exact.csv", delimiter=",", usecols=0)
    model, spikes, v = layer.neuron, [], 0.0
    for row, value in enumerate(current):
        drive = layer.weights.item() * value + (0 if layer.bias is None else layer.bias.item())
        v = model.v_leak.item() + model.decay.item() * (v - model.v_leak.item()) + model.input_gain.item() * drive
        if v >= model.v_threshold.item():
            spikes.append(row)
            v = model.v_reset.item()
    assert spikes == [460, 510, 710, 760]

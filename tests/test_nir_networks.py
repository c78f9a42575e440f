"""NIR nodes and arrangements, each against the graph itself executed node by node."""

from math import prod

import nir
import numpy as np
import pytest
import torch
from nir_graphs import Layers, conv, dense, graph, neuron, pool, save
from torch.nn.functional import avg_pool2d, conv1d, conv2d

from archsim.errors import WorkloadError
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Pool
from archsim.workload.nir_reader import read_nir

SETTINGS = WorkloadSettings(reset="subtract", timestep_s=1e-3)
STEPS = 8


# The graph, executed node by node; an edge of `late` brings what its source made one timestep before.


class Nodes:
    """State and step of every node of a `nir` graph; constants as NIR defines them, no neuron leaks to a potential."""

    def __init__(self, net, late=()):
        self.nodes, self.edges, self.late = net.nodes, net.edges, set(late)
        self.state, self.before = {}, {}

    def run(self, frames):
        """Outputs of shape (step, value) for frames of shape (step, ...)."""
        return torch.stack([self.step(frame) for frame in frames])

    def step(self, frame):
        made = {}
        while len(made) < len(self.nodes):
            for name, node in self.nodes.items():
                needed = [edge for edge in self.edges if edge[1] == name]
                if name not in made and all(edge[0] in made for edge in needed if edge not in self.late):
                    parts = [self.before.get(a, torch.zeros(())) if (a, b) in self.late else made[a] for a, b in needed]
                    made[name] = self.value(name, node, frame if not parts else sum(parts))
        self.before = made
        return made["output"].flatten()

    def value(self, name, node, x):
        t = torch.as_tensor
        match node:
            case nir.Linear() | nir.Affine():
                return t(node.weight).double() @ x.expand(node.weight.shape[1]) + t(getattr(node, "bias", 0.0))
            case nir.Conv1d():
                options = {"stride": node.stride, "padding": node.padding, "groups": node.groups}
                return conv1d(x[None], t(node.weight).double(), t(node.bias).double(), **options)[0]
            case nir.Conv2d():
                options = {"stride": node.stride, "padding": node.padding, "groups": node.groups}
                return conv2d(x[None], t(node.weight).double(), t(node.bias).double(), **options)[0]
            case nir.SumPool2d() | nir.AvgPool2d():
                average = avg_pool2d(x[None], tuple(node.kernel_size), tuple(node.stride))[0]
                return average * (prod(node.kernel_size.tolist()) if isinstance(node, nir.SumPool2d) else 1)
            case nir.Scale():
                return x * t(node.scale)
            case nir.Flatten():
                return x.flatten()
            case nir.Threshold():
                return (x >= t(node.threshold)).double()
            case nir.IF() | nir.LIF() | nir.CubaLIF() | nir.LI() | nir.CubaLI() | nir.I():
                return self.neuron(name, node, x)
        return x

    def neuron(self, name, node, x):
        current, v = self.state.get(name, (torch.zeros(()), torch.zeros(())))
        if hasattr(node, "tau_syn"):
            alpha = np.exp(-1e-3 / node.tau_syn)
            x = current = torch.as_tensor(alpha) * current + torch.as_tensor((1 - alpha) * node.w_in) * x
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        decay = torch.as_tensor(1.0 if tau is None else np.exp(-1e-3 / tau))
        v = decay * v + (1.0 if tau is None else 1 - decay) * torch.as_tensor(node.r) * x
        if not hasattr(node, "v_threshold"):
            self.state[name] = current, v
            return v
        spikes = (v >= torch.as_tensor(node.v_threshold)).double()
        self.state[name] = current, v - spikes * torch.as_tensor(node.v_threshold)
        return spikes


@pytest.fixture
def same(tmp_path):
    """Read a graph, run both forms on random spikes, compare every output; returns the layers."""

    def read_and_compare(net, late=()):
        network = read_nir(save(tmp_path / "net.nir", net), SETTINGS)
        rng = np.random.default_rng(5)
        frames = torch.as_tensor(rng.random((STEPS, *net.nodes["input"].input_type["input"])) < 0.6).double()
        layered = Layers(network).run(frames.reshape(STEPS, *network.input_shape))
        expected = Nodes(net, late).run(frames)
        if any(isinstance(net.nodes[a], nir.Linear | nir.Affine) for a, b in net.edges if b == "output"):
            expected = expected.cumsum(0)  # weights that lead to the output sum over time
        assert expected.count_nonzero() > 5, "the graph must do something"
        np.testing.assert_allclose(layered, expected, rtol=1e-5, atol=1e-6)
        return network.layers

    return read_and_compare


@pytest.fixture
def fault(tmp_path):
    def text(net):
        with pytest.raises(WorkloadError) as caught:
            read_nir(save(tmp_path / "net.nir", net), SETTINGS)
        return str(caught.value).replace(f"{tmp_path}/net.nir: ", "")

    return text


def affine(n_out, n_in, seed=2):
    rng = np.random.default_rng(seed)
    return nir.Affine(rng.normal(size=(n_out, n_in)).astype(np.float32), rng.normal(size=n_out).astype(np.float32))


def cuba(n=5, kind=nir.CubaLIF, **changes):
    one = np.ones(n)
    values = {"tau_syn": 2e-3 * one, "tau_mem": 4e-3 * one, "r": 3 * one, "v_leak": 0 * one, "w_in": 2 * one}
    if kind is nir.CubaLIF:
        values |= {"v_threshold": one / 2}
    return kind(**{**values, **changes})


def wired(net, *edges):
    """The same graph with these edges added."""
    net.edges += edges
    return net


# Nodes


def test_cuba_neurons_have_a_synapse(same):
    (layer,) = same(graph([8], [5], fc=affine(5, 8), lif=cuba()))
    alpha, beta = np.exp(-1 / 2), np.exp(-1 / 4)
    model = layer.neuron
    np.testing.assert_allclose(
        [x.flat[0] for x in (model.synapse_decay, model.synapse_gain, model.decay, model.input_gain)],
        [alpha, 2 * (1 - alpha), beta, 3 * (1 - beta)],
    )
    assert (model.kind, model.state_words) == ("lif", 2)


def test_cuba_neurons_by_euler(tmp_path):
    path = save(tmp_path / "net.nir", graph([8], [5], fc=affine(5, 8), lif=cuba()))
    model = read_nir(path, WorkloadSettings(timestep_s=1e-3, lif_update="euler")).layers[0].neuron
    found = [x.flat[0] for x in (model.synapse_decay, model.synapse_gain, model.decay, model.input_gain)]
    np.testing.assert_allclose(found, [1 / 2, 2 / 2, 3 / 4, 3 / 4])


@pytest.mark.parametrize(
    "node",
    [
        nir.LI(tau=np.full(5, 4e-3), r=np.full(5, 2.0), v_leak=np.zeros(5)),
        nir.I(r=np.full(5, 2.0)),
        cuba(kind=nir.CubaLI),
    ],
    ids=lambda node: type(node).__name__,
)
def test_integrators_are_readouts(same, node):
    (layer,) = same(graph([8], [5], fc=affine(5, 8), li=node))
    assert (layer.neuron.kind, layer.neuron.v_threshold.item()) == ("accumulate", np.inf)
    assert (layer.neuron.synapse_decay is not None) == isinstance(node, nir.CubaLI)


def test_a_threshold_has_no_memory(same):
    (layer,) = same(graph([8], [5], fc=affine(5, 8), step=nir.Threshold(np.full(5, 0.7))))
    model = layer.neuron
    assert (model.kind, model.decay.item(), model.input_gain.item(), model.reset) == ("threshold", 0, 1, "zero")


def test_a_conv1d_is_a_convolution_of_height_1(same):
    rng = np.random.default_rng(4)
    line = nir.Conv1d(9, rng.normal(size=(6, 1, 3)).astype(np.float32), 2, 1, 1, 2, rng.normal(size=6))
    (layer,) = same(graph([2, 9], [6, 5], line=line, act=neuron((6, 5))))
    assert (layer.kind, layer.in_shape, layer.conv_shape) == ("conv2d", (2, 1, 9), (6, 1, 5))
    assert (layer.kernel, layer.stride, layer.padding, layer.groups) == ((1, 3), (1, 2), (0, 1), 2)


def test_convolutions_may_have_groups(same):
    (layer,) = same(graph([4, 6, 6], [8, 6, 6], conv=conv(8, 2, groups=2), act=neuron((8, 6, 6))))
    assert (layer.groups, layer.weights.shape, layer.n_weights) == (2, (8, 2, 3, 3), 144)


@pytest.mark.parametrize("position", [0, 1, 3, 4])
def test_scales_are_folded_into_weights(same, position):
    """Before the first weights, behind weights, behind a neuron, behind a pooling."""
    nodes = [
        conv(4, 2, groups=1, bias=np.full(4, 0.1)), neuron((4, 6, 6)), pool(nir.AvgPool2d),
        nir.Flatten(None, 0), affine(5, 36), nir.I(np.ones(5)),
    ]  # fmt: skip
    n_channels = 2 if position == 0 else 4
    nodes.insert(position, nir.Scale(np.linspace(0.5, 3, n_channels).reshape(-1, 1, 1)))
    if position > 3:
        nodes[position] = nir.Scale(np.linspace(0.5, 3, 36))
    layers = same(graph([2, 6, 6], [5], *nodes))
    assert [layer.kind for layer in layers] == ["conv2d", "linear"]


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
def test_pooling_before_the_neuron_is_folded_into_the_kernel(same, kind):
    nodes = conv(4, 2, stride=2, bias=np.full(4, 0.1)), pool(kind), neuron((4, 4, 4))
    (layer,) = same(graph([2, 17, 17], [4, 4, 4], *nodes))
    assert (layer.kernel, layer.stride, layer.padding, layer.pool) == ((5, 5), (4, 4), (1, 1), None)


# Branches


def residual(shortcut=None, stride=1):
    """input - a - act - (b - act2 - c) + (act or shortcut) - join - pool - flat - fc, with the shortcut's edges."""
    size = 8 // stride
    nodes = {
        "a": conv(4, 2), "act": neuron((4, 8, 8)), "b": conv(4, 4, stride=stride), "act2": neuron((4, size, size)),
        "c": conv(4, 4, bias=np.full(4, 0.2)), "join": neuron((4, size, size)), "pool": pool(nir.AvgPool2d),
        "flat": nir.Flatten(None, 0), "fc": affine(3, size * size),
    }  # fmt: skip
    net = graph([2, 8, 8], [3], **nodes)
    if shortcut is None:
        return wired(net, ("act", "join"))
    net.nodes["short"] = shortcut
    return wired(net, ("act", "short"), ("short", "join"))


def test_an_identity_shortcut_adds_the_spikes_of_a_layer(same):
    layers = {layer.name: layer for layer in same(residual())}
    assert list(layers) == ["a", "b", "c", "fc"]
    assert [layer.adds for layer in layers.values()] == [(), (), ("a",), ()]
    assert (layers["c"].source, layers["c"].neuron.kind, layers["c"].pool) == ("b", "if", Pool((2, 2), (2, 2)))


def test_a_shortcut_with_weights_is_a_layer_without_neurons(same):
    shortcut = conv(4, 4, kernel=1, stride=2, padding=0, bias=np.full(4, 0.3))
    layers = {layer.name: layer for layer in same(residual(shortcut, stride=2))}
    short, main = layers["short"], layers["c"]
    assert list(layers) == ["a", "b", "short", "c", "fc"]
    assert (main.source, main.adds, main.neuron.kind) == ("b", ("short",), "if")
    assert (short.source, short.adds, short.neuron.kind, short.delayed) == ("a", (), "none", False)
    assert short.bias is None
    np.testing.assert_allclose(main.bias, 0.5)


def test_a_scaled_shortcut_without_weights_is_refused(fault):
    assert fault(residual(nir.Scale(np.array([0.5])))) == (
        "node 'join' (IF) adds scaled or averaged spikes from 'short' without weights; "
        "put weights between them, into which the factor can be folded"
    )


def test_what_joins_has_the_same_shape(fault):
    assert fault(residual(stride=2)) == (
        "weights 'c' make 4 x 4 x 4 values but 'a', which joins them at a neuron, 4 x 8 x 8; "
        "what joins must have the same shape"
    )


def test_spikes_that_are_pooled_go_nowhere_else(fault):
    assert fault(residual(pool())) == (
        "node 'act' feeds 'b' and 'short'; spikes that 'short' (SumPool2d) pools may go nowhere else"
    )


def test_two_readouts_add_at_the_output(same):
    net = graph([8], [3], a=dense(5, 8), act=neuron(5), fc=affine(3, 5))
    net.nodes["skip"] = affine(3, 8, seed=7)
    layers = same(wired(net, ("input", "skip"), ("skip", "output")))
    assert [(x.name, x.neuron.kind, x.adds) for x in layers] == [
        ("a", "if", ()), ("skip", "none", ()), ("fc", "accumulate", ("skip",)),
    ]  # fmt: skip


# Recurrence


def test_flat_recurrence_is_a_delayed_layer(same):
    net = graph([8], [3], fc1=affine(5, 8), lif=cuba(), fc2=affine(3, 5), lif2=cuba(3))
    net.nodes["rec"] = affine(5, 5, seed=9)
    bias = net.nodes["fc1"].bias + net.nodes["rec"].bias
    net.nodes["rec"].bias[:] = 0
    layers = same(wired(net, ("lif", "rec"), ("rec", "lif")), late=[("rec", "lif")])
    assert [(x.name, x.source, x.adds, x.delayed, x.neuron.kind) for x in layers] == [
        ("fc1", "input", ("rec",), False, "lif"),
        ("rec", "fc1", (), True, "none"),
        ("fc2", "fc1", (), False, "lif"),
    ]
    assert bias.shape == (5,)


def test_the_bias_of_recurrent_weights_is_constant(tmp_path):
    net = graph([8], [5], fc=affine(5, 8), lif=cuba())
    net.nodes["rec"] = affine(5, 5, seed=9)
    layers = read_nir(save(tmp_path / "n.nir", wired(net, ("lif", "rec"), ("rec", "lif"))), SETTINGS).layers
    assert [(x.name, x.delayed, x.bias is None) for x in layers] == [("rec", True, True), ("fc", False, False)]
    np.testing.assert_allclose(layers[1].bias, net.nodes["fc"].bias + net.nodes["rec"].bias)


def test_nested_recurrence_is_flattened(same, tmp_path):
    inner = {
        "input": nir.Input(np.array([5])), "lif": neuron(5), "w_rec": dense(5, 5), "output": nir.Output(np.array([5])),
    }  # fmt: skip
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    block = nir.NIRGraph(inner, edges, type_check=False)
    nested = read_nir(
        save(tmp_path / "nested.nir", graph([8], [3], fc1=affine(5, 8), rnn=block, fc2=dense(3, 5))), SETTINGS
    )
    flat = graph([8], [3], fc1=affine(5, 8), lif=neuron(5), fc2=dense(3, 5))
    flat.nodes["w_rec"] = dense(5, 5)
    layers = same(wired(flat, ("lif", "w_rec"), ("w_rec", "lif")), late=[("w_rec", "lif")])
    assert [(x.name, x.source, x.adds) for x in nested.layers] == [
        ("fc1", "input", ("rnn.w_rec",)), ("rnn.w_rec", "fc1", ()), ("fc2", "fc1", ()),
    ]  # fmt: skip
    for found, expected in zip(nested.layers, layers, strict=True):
        np.testing.assert_array_equal(found.weights, expected.weights)


def test_feedback_over_two_layers_leads_back_by_one_timestep(same):
    net = graph([8], [5], fc1=affine(5, 8), act1=neuron(), fc2=dense(5, 5), act2=neuron())
    net.nodes["back"] = dense(5, 5)
    layers = same(wired(net, ("act2", "back"), ("back", "act1")), late=[("back", "act1")])
    assert [(x.name, x.source, x.adds, x.delayed) for x in layers] == [
        ("fc1", "input", ("back",), False), ("back", "fc2", (), True), ("fc2", "fc1", (), False),
    ]  # fmt: skip


def test_a_loop_with_two_entries_is_refused(fault):
    net = graph([8], [5], a=dense(), x=neuron(), xy=dense(5, 5), y=neuron())
    net.nodes |= {"b": dense(), "yx": dense(5, 5)}
    text = fault(wired(net, ("input", "b"), ("b", "y"), ("y", "yx"), ("yx", "x")))
    assert text.startswith("nodes 'x' -> 'xy' -> 'y' -> 'yx' -> 'x' form a loop that paths enter at more than one node")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            {"fc": dense(), "li": nir.I(np.ones(5)), "fc2": dense(5, 5)},
            "node 'fc2' (Linear) follows 'li', the potential of 'fc' whose neurons never fire; "
            "CubaLI, I, LI must be the last before Output",
        ),
        (
            {"fc": dense(), "act": neuron(), "scale": nir.Scale(np.arange(1, 6.0))},
            "node 'output' (Output) receives spikes with factors; weights must follow a Scale",
        ),
        (
            {"fc": dense(), "scale": nir.Scale(np.ones(4)), "act": neuron()},
            "node 'scale' is a Scale with 4 values (scale) but receives 5 values from 'fc'",
        ),
        (
            {"fc": dense(), "step": nir.Threshold(np.zeros(5))},
            "node 'step': threshold is 0; it must be above 0",
        ),
        (
            {"fc": dense(), "lif": cuba(tau_syn=np.zeros(5))},
            "node 'lif': tau_syn is 0; it must be above 0",
        ),
    ],
)  # fmt: skip
def test_faulty_uses_are_named(fault, nodes, message):
    assert fault(graph([8], [5], **nodes)) == message


def test_factors_that_vary_over_a_map_are_refused(fault):
    scale = nir.Scale(np.arange(1.0, 65).reshape(1, 8, 8))
    assert fault(graph([1, 8, 8], [2, 8, 8], scale=scale, conv=conv(2, 1), act=neuron((2, 8, 8)))) == (
        "node 'conv' (Conv2d): a factor varies over the positions of a map, which share its weights; "
        "only one factor per channel can be folded"
    )

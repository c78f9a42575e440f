"""A network trained in snnTorch, exported and read back: same shapes, same neurons, same spikes.

The settings that reproduce snnTorch's `Leaky`, spike for spike:

- `workload.lif_update: euler` and `workload.timestep_s: 1e-4`, the step that the exporter assumes: it writes
  tau = dt / (1 - beta) and r = tau / dt, which the Euler update turns back into v = beta * v + i.
- `workload.reset` as the layer's `reset_mechanism`, with the layer's `reset_delay=False`: archsim resets in the
  timestep of the spike, snnTorch by default one later. With `subtract` both agree as long as no potential
  reaches twice the threshold, since snnTorch then owes a reset of the step before.
"""

import warnings

import numpy as np
import pytest

from archsim.inference import run_ideal
from archsim.workload.loader import load_workload

snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
nir = pytest.importorskip("nir")
pytest.importorskip("nirtorch", reason="snntorch exports through nirtorch")
torch = pytest.importorskip("torch")

BETAS = (torch.full((12,), 0.9), torch.linspace(0.5, 0.8, 4))
THRESHOLDS = (torch.full((12,), 1.0), torch.linspace(0.8, 1.1, 4))
N_STEPS = 60


def mlp(reset):
    """16 -> 12 -> 4 with per-neuron beta and threshold, as the exporter needs them."""
    torch.manual_seed(1)
    layers = []
    for n_inputs, beta, threshold in zip((16, 12), BETAS, THRESHOLDS, strict=True):
        linear = torch.nn.Linear(n_inputs, len(beta))
        torch.nn.init.uniform_(linear.weight, -0.1, 0.2)
        layers += [linear, snntorch.Leaky(beta, threshold, init_hidden=True, reset_mechanism=reset, reset_delay=False)]
    return torch.nn.Sequential(*layers)


@pytest.fixture(params=["zero", "subtract"])
def case(request, tmp_path):
    """The network in snnTorch and the same as a workload, driven by the same spikes."""
    from snntorch.export_nir import export_to_nir

    network = mlp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of nirtorch, towards snntorch
        nir.write(tmp_path / "net.nir", export_to_nir(network, torch.zeros(1, 16), ignore_dims=[0]))
    spikes = np.random.default_rng(0).random((N_STEPS, 16)) < 0.4
    np.savez(tmp_path / "spikes.npz", spikes=spikes)
    settings = {"lif_update": "euler", "timestep_s": 1e-4, "reset": request.param}
    return network, spikes, load_workload(tmp_path / "net.nir", tmp_path / "spikes.npz", settings=settings)


def test_shapes_and_parameters_come_through(case):
    network, _, workload = case
    layers = workload.network.layers
    assert [(layer.in_shape[0], layer.out_channels, layer.neuron.kind) for layer in layers] == [
        (16, 12, "lif"),
        (12, 4, "lif"),
    ]
    for layer, linear, beta, threshold in zip(layers, network[::2], BETAS, THRESHOLDS, strict=True):
        np.testing.assert_array_equal(layer.weights[:, :, 0, 0], linear.weight.detach())
        np.testing.assert_array_equal(np.ravel(layer.bias), linear.bias.detach())
        ones = np.ones(len(beta))
        np.testing.assert_allclose(layer.neuron.decay.ravel() * ones, beta, rtol=1e-6)
        np.testing.assert_allclose(layer.neuron.input_gain.ravel() * ones, ones, rtol=1e-6)
        np.testing.assert_allclose(layer.neuron.v_threshold.ravel() * ones, threshold, rtol=1e-6)


def test_spikes_agree_one_by_one(case):
    network, spikes, workload = case
    for neuron in network[1::2]:
        neuron.reset_mem()  # exporting ran one step
    hidden, output = [], []
    with torch.no_grad():
        for frame in torch.tensor(spikes, dtype=torch.float32):
            hidden.append(network[:2](frame[None])[0].numpy())
            output.append(network[2:](torch.tensor(hidden[-1])[None])[0].numpy())
    ours = run_ideal(workload.network, workload.input.values, N_STEPS).spikes
    for layer, theirs in zip(workload.network.layers, (hidden, output), strict=True):
        assert 0.05 < np.mean(theirs) < 0.95
        np.testing.assert_array_equal(ours[layer.name][0, :, :, 0, 0], theirs)

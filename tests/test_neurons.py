"""The neuron update against closed forms, and the V_mem store."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.analog.neurons import filter_current, load_neuron, potential_full_scale, quantize_potential, step
from archsim.workload.network import NeuronModel


def neuron(kind="if", decay=1.0, gain=1.0, threshold=1.0, leak=0.0, v_reset=0.0, **rules):
    values = [np.full(1, value) for value in (decay, gain, threshold, leak, v_reset)]
    return load_neuron(NeuronModel(kind, *values, **rules))


def run(parameters, current: float, n_steps: int) -> tuple[list[float], list[float]]:
    v, potentials, spikes = torch.zeros(1, 1, 1, 1, dtype=torch.float64), [], []
    for _ in range(n_steps):
        v, fired = step(v, torch.full_like(v, current), parameters)
        potentials.append(v.item())
        spikes.append(fired.item())
    return potentials, spikes


def test_lif_below_threshold_charges_exponentially():
    """v(n) = r * i * (1 - exp(-n dt / tau)): the exact solution of the LIF equation at a constant input."""
    decay = math.exp(-1e-4 / 2.5e-3)
    potentials, spikes = run(neuron("lif", decay, 1 - decay, threshold=1.0), 0.9, 100)
    assert potentials == pytest.approx([0.9 * (1 - math.exp(-n * 0.04)) for n in range(1, 101)])
    assert sum(spikes) == 0


def test_lif_returns_to_its_leak_potential():
    potentials, _ = run(neuron("lif", 0.5, 0.5, threshold=10.0, leak=2.0), 0.0, 60)
    assert potentials[:3] == [1.0, 1.5, 1.75]
    assert potentials[-1] == pytest.approx(2.0)


def test_lif_interspike_interval_follows_the_closed_form():
    """From reset to zero the threshold is reached after ceil(tau / dt * ln(i / (i - v_threshold))) steps."""
    _, spikes = run(neuron("lif", math.exp(-0.04), 1 - math.exp(-0.04), reset="zero"), 1.5, 200)
    interval = math.ceil(25 * math.log(1.5 / 0.5))
    assert [index + 1 for index, fired in enumerate(spikes) if fired] == list(range(interval, 201, interval))


@pytest.mark.parametrize("per_step", ["one", "many"])
def test_if_with_subtraction_keeps_charge(per_step):
    potentials, spikes = run(neuron(spikes_per_step=per_step), 2.5, 4)
    assert potentials[-1] + sum(spikes) == pytest.approx(4 * 2.5)
    assert spikes == ([1, 1, 1, 1] if per_step == "one" else [2, 3, 2, 3])


def test_reset_to_zero_forgets_the_excess():
    potentials, spikes = run(neuron(reset="zero", spikes_per_step="many", v_reset=0.25), 3.5, 2)
    assert (potentials, spikes) == ([0.25, 0.25], [3, 3])


def test_readout_accumulates_and_never_fires():
    assert run(neuron("accumulate"), 2.0, 3) == ([2.0, 4.0, 6.0], [0, 0, 0])


def test_parameters_broadcast_per_channel():
    parameters = load_neuron(NeuronModel("if", *(np.full((2, 1, 1), value) for value in (1.0, 1.0)),
                                         np.array([1.0, 4.0]).reshape(2, 1, 1), np.zeros(1), np.zeros(1)))  # fmt: skip
    _, spikes = step(torch.zeros(1, 2, 1, 3), torch.full((1, 2, 1, 3), 2.0, dtype=torch.float64), parameters)
    assert spikes.sum((0, 2, 3)).tolist() == [3, 0]


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 32), st.floats(0.01, 100), st.floats(-1, 1))
def test_stored_potentials_are_off_by_half_a_step(bits, full_scale, place):
    v = torch.tensor([place * full_scale * (1 - 2.0 ** (1 - bits))], dtype=torch.float64)
    stored, saturated = quantize_potential(v, full_scale, bits)
    assert not bool(saturated.any())
    assert abs(stored.item() - v.item()) <= 0.5000001 * full_scale / 2 ** (bits - 1)


def test_store_saturates_at_both_ends():
    stored, saturated = quantize_potential(torch.tensor([-3.0, -2.0, 1.75, 2.0]), 2.0, 4)
    assert stored.tolist() == [-2.0, -2.0, 1.75, 1.75]
    assert saturated.tolist() == [True, False, False, True]


@pytest.mark.parametrize(("largest", "full_scale"), [(0.0, 1.0), (0.5, 1.0), (0.6, 2.0), (3.0, 8.0), (4.0, 8.0)])
def test_full_scale_is_a_power_of_two_with_headroom(largest, full_scale):
    assert potential_full_scale(largest) == full_scale


def test_synaptic_current_is_a_geometric_series():
    model = NeuronModel("lif", *np.ones((5, 1)), synapse_decay=np.full(1, 0.5), synapse_gain=np.full(1, 0.25))
    parameters, current = load_neuron(model), torch.zeros(1)
    for _ in range(20):
        current = filter_current(current, torch.ones(1), parameters)
    assert current.item() == pytest.approx(0.25 / (1 - 0.5) * (1 - 0.5**20))


def test_without_synaptic_state_the_input_passes():
    assert filter_current(torch.ones(1), torch.full((1,), 3.0), neuron()).item() == 3.0


def test_threshold_neurons_have_no_memory():
    assert run(neuron("threshold", decay=0.0, threshold=2.0), 1.9, 3)[1] == [0, 0, 0]

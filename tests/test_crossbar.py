"""A single crossbar that holds a matrix: every effect against its definition."""

import numpy as np
import pytest
import torch
from nodal_analysis import Mesh, node_voltages, read_power

from archsim.analog import Crossbar, Wires, effective_conductance
from archsim.analog.nonlinear import Curve, nonlinear_currents
from archsim.analog.read_noise import standard_normal
from archsim.analog.spice import netlist
from archsim.errors import ConfigError
from archsim.hardware.devices import Device

WIRES = Wires(100.0, 2.5, 1.7, 50.0)
ON_S, OFF_S = 1 / 20e3, 1 / 200e3


def weights(n_rows: int = 24, n_cols: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, n_cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spikes(n_reads: int = 5, n_rows: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.rand(n_reads, n_rows, generator=torch.Generator().manual_seed(seed)) < 0.4


def device(**changes: object) -> Device:
    return Device.model_validate({"preset": "rram-20k-200k", **changes})


def test_a_perfect_crossbar_multiplies():
    matrix = weights()
    crossbar = Crossbar(matrix)
    assert torch.allclose(crossbar.matrix, matrix, rtol=0, atol=1e-14)
    assert torch.allclose(crossbar.read(spikes()), spikes().double() @ matrix, atol=1e-13)
    levels = torch.rand(3, 2, 24, dtype=torch.float64)
    assert torch.allclose(crossbar.read(levels), levels @ matrix, atol=1e-13)
    assert crossbar.read(spikes().float()).dtype == torch.float64


def test_weights_are_differences_of_neighbouring_columns():
    g = Crossbar(torch.tensor([[1.0, -2.0], [0.0, 0.5]])).conductance
    step = (ON_S - OFF_S) / 2
    wanted = OFF_S + step * torch.tensor([[1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.5, 0.0]])
    assert torch.allclose(g, wanted)


def test_a_crossbar_of_zeros_gives_zeros():
    crossbar = Crossbar(torch.zeros(4, 3), adc_bits=4)
    assert torch.equal(crossbar.read(torch.ones(2, 4)), torch.zeros(2, 3))


def test_wires_act_through_the_effective_matrix():
    crossbar = Crossbar(weights(), wires=WIRES)
    effective = effective_conductance(crossbar.conductance, 100.0, 2.5, 1.7, 50.0)
    currents = spikes().double() @ effective
    scale = float(weights().abs().max()) / (ON_S - OFF_S)
    assert torch.allclose(crossbar.read(spikes()), scale * (currents[:, 0::2] - currents[:, 1::2]), rtol=1e-12)


def test_voltages_and_energy_are_those_of_nodal_analysis():
    crossbar = Crossbar(weights(), wires=WIRES, v_read_v=0.3)
    mesh = Mesh(crossbar.conductance.numpy(), 100.0, 2.5, 1.7, 50.0)
    volts = 0.3 * spikes().double().numpy()
    for ours, reference in zip(crossbar.voltages(spikes()), node_voltages(mesh, volts), strict=True):
        assert ours.numpy() == pytest.approx(reference, abs=1e-12)
    assert crossbar.read_energy_j(spikes(), 1e-8).numpy() == pytest.approx(1e-8 * read_power(mesh, volts), rel=1e-12)


def test_a_converter_gives_the_nearest_code_of_its_range():
    exact, crossbar = Crossbar(weights()), Crossbar(weights(), adc_bits=5)
    crossbar.calibrate(spikes(50))
    reads, sums = crossbar.read(spikes(50)), exact.read(spikes(50))
    step = float(sums.abs().max()) / 16
    codes = reads / step
    assert torch.allclose(codes, codes.round(), atol=1e-9)
    assert -16 <= float(codes.min()) <= float(codes.max()) <= 15
    inside = sums < 15.5 * step
    assert float((reads - sums).abs()[inside].max()) <= step / 2 + 1e-12


def test_the_full_range_holds_every_input():
    exact, crossbar = Crossbar(weights()), Crossbar(weights(), adc_bits=8)
    extreme = (weights()[:, 0] < 0).unsqueeze(0)
    largest = max(float(weights().clamp(min=0).sum(0).max()), float(-weights().clamp(max=0).sum(0).min()))
    assert float((crossbar.read(extreme) - exact.read(extreme)).abs().max()) <= largest / 128


def test_read_noise_has_the_spread_of_its_devices():
    crossbar = Crossbar(weights(), device(read_noise_sigma_rel=0.05))
    reads = crossbar.read(spikes(1).expand(20000, 24))
    noise = 0.05 * crossbar.conductance * float(weights().abs().max()) / (ON_S - OFF_S)
    expected = (spikes(1).double() @ (noise[:, 0::2].square() + noise[:, 1::2].square())).sqrt()
    assert torch.allclose(reads.mean(0), spikes(1)[0].double() @ weights(), atol=5 * float(expected.max()) / 20000**0.5)
    assert torch.allclose(reads.std(0), expected[0], rtol=0.03)
    assert not torch.equal(crossbar.read(spikes()), crossbar.read(spikes()))


def test_reads_in_blocks_keep_their_order_and_shape(monkeypatch):
    whole, crossbar = Crossbar(weights()), Crossbar(weights(), adc_bits=20)
    monkeypatch.setattr("archsim.analog.crossbar.BLOCK_SUMS", 3 * 7)
    reads = crossbar.read(spikes(10).view(2, 5, 24))
    assert reads.shape == (2, 5, 7)
    assert torch.allclose(reads, whole.read(spikes(10).view(2, 5, 24)), atol=1e-4)
    assert crossbar.read(spikes(1)[0]).shape == (7,)


def test_fast_normal_numbers_are_normal():
    numbers = standard_normal((3, 100_001), np.random.Generator(np.random.SFC64(0))).double()
    assert numbers.shape == (3, 100_001)
    assert float(numbers.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(numbers.var()) == pytest.approx(1.0, abs=0.01)
    assert float((numbers**4).mean()) == pytest.approx(3.0, abs=0.06)
    for value in (-2.0, -0.5, 0.0, 1.0, 3.0):
        share = float(torch.special.ndtr(torch.tensor(value, dtype=torch.float64)))
        assert float((numbers < value).double().mean()) == pytest.approx(share, abs=0.004)


@pytest.mark.parametrize("mode", ["exact", "calibrated"])
def test_nonlinear_devices(mode):
    crossbar = Crossbar(weights(), device(nonlinearity=mode, nonlinearity_v0_v=0.15), WIRES, activity=0.4)
    currents = nonlinear_currents(crossbar.conductance, 0.2 * spikes(40).double(), WIRES, Curve("sinh", 0.15))
    exact = (currents[:, 0::2] - currents[:, 1::2]) * float(weights().abs().max()) / (0.2 * (ON_S - OFF_S))
    error = (crossbar.read(spikes(40)) - exact).abs().max() / exact.abs().max()
    assert float(error) < (1e-9 if mode == "exact" else 0.01)
    row_volts, col_volts = crossbar.voltages(spikes())
    across = (row_volts - col_volts) / 0.15
    device_currents = crossbar.conductance * 0.15 * torch.sinh(across)
    energy = (device_currents.sum(-1) * 0.2 * spikes()).sum(-1) * 1e-9
    assert torch.allclose(crossbar.read_energy_j(spikes(), 1e-9), energy, rtol=1e-9)


def test_the_same_seed_gives_the_same_crossbar_and_another_write_another_one():
    noisy = device(programming_sigma_rel=0.1, read_noise_sigma_rel=0.01)
    first, second, other = (Crossbar(weights(), noisy, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.read(spikes()), second.read(spikes()))
    assert not torch.equal(first.matrix, other.matrix)
    before = first.matrix
    assert not torch.equal(first.program(weights()).matrix, before)
    assert torch.equal(first.matrix, second.program(weights()).matrix)


def test_age_is_counted_from_the_write():
    crossbar = Crossbar(weights(), device(drift_nu=0.05, drift_t0_s=10.0))
    fresh = crossbar.conductance
    assert torch.allclose(crossbar.age(1000.0).conductance, fresh * 100.0**-0.05)
    assert torch.equal(crossbar.age(0.0).conductance, fresh)
    assert torch.equal(crossbar.age(1000.0).program(weights()).conductance, fresh)


def test_a_netlist_of_a_read_is_written(tmp_path):
    crossbar = Crossbar(weights(), device(nonlinearity="exact", nonlinearity_v0_v=0.2), WIRES)
    crossbar.to_spice(tmp_path / "read.cir", spikes()[0])
    elements = netlist(crossbar.conductance, 0.2 * spikes()[0].double(), WIRES, Curve("sinh", 0.2))
    assert (tmp_path / "read.cir").read_text().splitlines() == ["* 24 x 14 cells", *elements, ".op", ".end"]


def test_repr_lists_what_is_not_ideal():
    crossbar = Crossbar(
        weights(),
        device(read_noise_sigma_rel=0.01, stuck_on_fraction=0.001),
        Wires(100.0, 2.5, double_drive=True),
        adc_bits=6,
    )
    assert repr(crossbar) == (
        "Crossbar: 24 x 7 weights in 24 x 14 cells of rram-20k-200k, write 1\n"
        "  wires: r_driver_ohm 100, r_wire_row_ohm 2.5\n"
        "  wires: double_drive\n"
        "  device: stuck_on_fraction 0.001\n"
        "  device: read_noise_sigma_rel 0.01\n"
        "  converters: 6 bits, range full"
    )
    assert repr(Crossbar(weights())) == "Crossbar: 24 x 7 weights in 24 x 14 cells of rram-20k-200k, write 1"
    assert repr(crossbar.calibrate(torch.ones(1, 24))).endswith(f"calibrated, {crossbar.full_scale:g}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Crossbar(weights(), "ideal"),
            "device 'ideal' has no resistance; choose a preset that has, such as 'rram-20k-200k'",
        ),
        (lambda: Crossbar(weights(), v_read_v=0.0), "v_read_v is 0.0; it must be finite and above 0 V"),
        (
            lambda: Crossbar(weights(), adc_bits=1),
            "adc_bits is 1; it must be 2 to 24, or None for no conversion",
        ),
        (lambda: Crossbar(weights(), activity=1.5), "activity is 1.5; it must be a share of rows from 0 to 1"),
        (
            lambda: Crossbar(weights()[0]),
            "weights have shape (7,); they must be (row, col), at least one of each",
        ),
        (
            lambda: Crossbar(weights().half()),
            "weights have dtype torch.float16; they must be torch.float32 or torch.float64",
        ),
        (lambda: Crossbar(weights() / 0), "weights are not all finite; replace NaN and infinite ones"),
        (
            lambda: Crossbar(weights()).program(weights(3, 3)),
            "weights have shape (3, 3); this crossbar holds (24, 7): make another for another shape",
        ),
        (
            lambda: Crossbar(weights()).age(-1.0),
            "seconds is -1.0; the time since the write must be finite and at least 0 s",
        ),
        (
            lambda: Crossbar(weights()).read(torch.ones(2, 23)),
            "inputs have shape (2, 23); the last axis must be the 24 rows",
        ),
    ],
)
def test_impossible_arguments_are_named(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == message


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"^device is 'rram'; presets are fefet, ideal, .*, sram-mnsim$"):
        Crossbar(weights(), "rram")

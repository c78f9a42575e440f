"""Voltages inside a crossbar, nonlinear devices, gated and floating rows, read noise: against other methods."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nodal_analysis import Mesh, column_currents, node_voltages
from scipy.optimize import root

from archsim.analog import circuit
from archsim.analog.circuit import Wires, device_voltages, lines, solve_linear
from archsim.analog.gated import floating_currents, gated_currents
from archsim.analog.nonlinear import Curve, calibrated_conductance, nonlinear_currents, nonlinear_voltages
from archsim.analog.read_noise import noise_variance
from archsim.analog.wires import effective_conductance, effective_matrices
from archsim.errors import ConfigError, SimulationError

WIRES = Wires(50.0, 2.5, 1.7, 30.0)
ENDS = [WIRES, Wires(50.0, 2.5, 1.7, 30.0, double_drive=True), Wires(50.0, 2.5, 1.7, 30.0, True, True)]


def conductances(*shape: int, seed: int = 0) -> torch.Tensor:
    return 5e-6 + 4.5e-5 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reads(n_reads: int, n_rows: int, activity: float = 0.4, volts: float = 0.2) -> torch.Tensor:
    """Binary drives; the first row is always driven."""
    driven = torch.rand(n_reads, n_rows, generator=torch.Generator().manual_seed(7)) < activity
    driven[:, 0] = True
    return volts * driven.double()


def as_mesh(g: torch.Tensor, wires: Wires) -> Mesh:
    ohms = (wires.r_driver_ohm, wires.r_wire_row_ohm, wires.r_wire_col_ohm, wires.r_sense_ohm)
    return Mesh(g.numpy(), *ohms, wires.double_drive, wires.double_sense)


@pytest.mark.parametrize("wires", ENDS)
def test_voltages_inside_are_those_of_nodal_analysis(wires):
    g, volts = conductances(17, 9), reads(4, 17)
    row_volts, col_volts = node_voltages(as_mesh(g, wires), volts.numpy())
    across = device_voltages(g, volts, wires)
    assert across.numpy() == pytest.approx(row_volts - col_volts, abs=1e-12)
    between = lines(wires, g)
    assert between.row_volts(volts, g * across).numpy() == pytest.approx(row_volts, abs=1e-12)
    assert between.col_volts(g * across).numpy() == pytest.approx(col_volts, abs=1e-12)
    single = device_voltages(g.float(), volts.float(), wires)
    assert single.double().numpy() == pytest.approx(row_volts - col_volts, abs=1e-6)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    ohms=st.tuples(*[st.sampled_from([0.0, 1e-3, 2.0, 300.0])] * 4),
    ends=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 99),
)
def test_single_reads_agree_with_the_effective_matrix(shape, ohms, ends, seed):
    g, wires = conductances(*shape, seed=seed), Wires(*ohms, *ends)
    volts = reads(3, shape[0])
    currents = (g * device_voltages(g, volts, wires)).sum(-2)
    assert torch.allclose(currents, volts @ effective_matrices(g, wires)[0], rtol=1e-9, atol=0.0)


def test_voltages_that_do_not_converge_are_an_error(monkeypatch):
    monkeypatch.setattr(circuit, "MAX_ITERATIONS", 2)
    with pytest.raises(SimulationError) as error:
        device_voltages(conductances(16, 16), reads(1, 16), WIRES)
    assert str(error.value) == (
        "node voltages did not converge to 1e-12 in 2 steps; lower the wire resistance, or use float64"
    )


def current(kind: str, g: np.ndarray, volts: np.ndarray, v0_v: float) -> np.ndarray:
    """The curves of `Curve`, written again."""
    return g * v0_v * np.sinh(volts / v0_v) if kind == "sinh" else g * (volts + volts**3 / v0_v**2)


def nodal_currents(kind: str, mesh: Mesh, volts: np.ndarray, v0_v: float) -> np.ndarray:
    """Column currents of one read from Kirchhoff's law at every node, solved by scipy's hybrid Powell method."""
    (drivers, *_), (senses, *_) = mesh.ends()
    size = 2 * mesh.g.size

    def into_nodes(at: np.ndarray) -> np.ndarray:
        total = np.zeros(size)
        for (first, second, conductance), is_device in zip(mesh.branches(), (False, False, True), strict=True):
            across = at[first] - at[second]
            flow = current(kind, conductance, across, v0_v) if is_device else conductance * across
            np.add.at(total, first, -flow)
            np.add.at(total, second, flow)
        np.add.at(total, drivers[0], drivers[1] * (volts - at[drivers[0]]))
        np.add.at(total, senses[0], -senses[1] * at[senses[0]])
        return total

    start = np.concatenate([part.ravel() for part in node_voltages(mesh, volts[None])])
    at = root(into_nodes, start, tol=1e-14).x
    return senses[1] * at[senses[0]]


@pytest.mark.parametrize("kind", ["sinh", "cubic"])
@pytest.mark.parametrize("v0_v", [0.05, 0.25])
def test_nonlinear_currents_are_those_of_kirchhoffs_law_at_every_node(kind, v0_v):
    g, wires, volts = conductances(5, 4), Wires(500.0, 25.0, 17.0, 300.0), reads(3, 5)
    found = nonlinear_currents(g, volts, wires, Curve(kind, v0_v))
    for ours, drive in zip(found.numpy(), volts.numpy(), strict=True):
        assert ours == pytest.approx(nodal_currents(kind, as_mesh(g, wires), drive, v0_v), rel=1e-9)


@pytest.mark.parametrize("kind", ["sinh", "cubic"])
def test_strongly_bent_devices_still_satisfy_the_circuit(kind):
    g, wires, volts = conductances(32, 32), Wires(500.0, 10.0, 10.0, 500.0), reads(4, 32)
    curve = Curve(kind, 0.02)
    across = nonlinear_voltages(g, volts, wires, curve)
    lost = lines(wires, g).drop(torch.from_numpy(current(kind, g.numpy(), across.numpy(), 0.02)))
    assert torch.allclose(across + lost, volts.unsqueeze(-1).expand_as(across), atol=1e-11)
    single = nonlinear_currents(g.float(), volts.float(), wires, curve).double()
    assert torch.allclose(single, nonlinear_currents(g, volts, wires, curve), rtol=1e-4)


def test_a_curve_that_hardly_bends_is_the_linear_crossbar():
    g, volts = conductances(20, 12), reads(5, 20)
    bent = nonlinear_currents(g, volts, WIRES, Curve("sinh", 1e4))
    assert torch.allclose(bent, volts @ effective_matrices(g, WIRES)[0], rtol=1e-9)


def test_slopes_are_derivatives_and_chords_are_ratios():
    volts = torch.linspace(-0.4, 0.4, 9, dtype=torch.float64, requires_grad=True)
    g = torch.full_like(volts, 3e-5)
    for curve in (Curve("sinh", 0.15), Curve("cubic", 0.3)):
        (slope,) = torch.autograd.grad(curve.current(g, volts).sum(), volts)
        assert torch.allclose(curve.slope(g, volts), slope)
        assert torch.allclose(curve.chord(g, volts) * volts, curve.current(g, volts))
        assert curve.chord(g, volts)[4] == g[4]


def test_reads_in_chunks_and_stacks_of_crossbars_are_reads_one_by_one(monkeypatch):
    g, volts, curve = conductances(3, 1, 12, 10), reads(7, 12), Curve("sinh", 0.2)
    monkeypatch.setattr("archsim.analog.nonlinear.CHUNK_CELLS", 2 * 3 * 120)
    together = nonlinear_currents(g, volts, WIRES, curve)
    assert together.shape == (3, 7, 10)
    for crossbar in range(3):
        for read in range(7):
            alone = nonlinear_currents(g[crossbar, 0], volts[read], WIRES, curve)
            assert torch.allclose(together[crossbar, read], alone, rtol=1e-10)


def test_a_calibrated_matrix_is_nearer_to_the_exact_reads_than_an_uncalibrated_one():
    g, wires, curve = conductances(32, 32), Wires(100.0, 2.5, 2.5, 100.0), Curve("sinh", 0.15)
    volts = reads(40, 32, activity=0.3)
    chords, trim = calibrated_conductance(g, volts[:8], wires, curve)
    exact = nonlinear_currents(g, volts[8:], wires, curve)
    error = (volts[8:] @ (effective_matrices(chords, wires)[0] * trim) / exact - 1).abs()
    at_read_voltage = curve.chord(g, torch.full_like(g, 0.2))
    uncalibrated = (volts[8:] @ effective_matrices(at_read_voltage, wires)[0] / exact - 1).abs()
    assert float(error.max()) < 0.015 < float(uncalibrated.max())
    assert float(error.mean()) < 0.005


def test_calibration_leaves_linear_devices_alone():
    g, volts = conductances(2, 8, 6), reads(4, 8)
    chords, trim = calibrated_conductance(g, volts, WIRES, Curve("cubic", 1e4))
    assert torch.allclose(chords, g, rtol=1e-8)
    assert torch.allclose(trim, torch.ones(2, 1, 6, dtype=torch.float64), rtol=1e-8)


def test_a_row_that_calibration_never_drives_bends_like_the_others_of_its_column():
    g, volts = conductances(5, 3), reads(6, 5)
    volts[:, 2] = 0.0
    chords, _ = calibrated_conductance(g, volts, WIRES, Curve("sinh", 0.1))
    others = [0, 1, 3, 4]
    assert torch.allclose(chords[2] / g[2], (chords[others] / g[others]).mean(0))
    assert float((chords / g).min()) > 1.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Curve("exp", 0.1), "kind is 'exp'; it must be 'sinh' or 'cubic'"),
        (lambda: Curve("sinh", 0.0), "v0_v is 0.0; it must be above 0 V: leave the curve out for linear devices"),
        (
            lambda: nonlinear_currents(conductances(2, 2), reads(1, 2), WIRES, Curve("sinh", 0.019)),
            "a row is driven with 0.2 V, more than 10 times v0_v (0.019 V); raise v0_v or lower the drive",
        ),
    ],
)
def test_impossible_curves_are_named(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize("shape", [(1, 1), (6, 3), (16, 5)])
def test_gated_columns_are_those_of_their_conductance_matrix(shape):
    g, gates = conductances(*shape), (reads(4, shape[0]) > 0).double()
    ours = gated_currents(g, gates, 0.2, 8.0, 40.0)
    for read, gate in enumerate(gates.numpy()):
        for col in range(shape[1]):
            cells = g[:, col].numpy() * gate
            chain = np.diag(np.full(shape[0] - 1, -1 / 8.0), 1)
            matrix = chain + chain.T
            matrix += np.diag(cells - matrix.sum(1))
            matrix[-1, -1] += 1 / 48.0
            at = np.linalg.solve(matrix, cells * 0.2)
            assert ours[read, col].item() == pytest.approx(at[-1] / 48.0, rel=1e-12)


def test_gated_columns_on_ideal_lines_add_their_cells():
    g, gates = conductances(12, 4), (reads(5, 12) > 0).double()
    assert torch.allclose(gated_currents(g, gates, 0.3), 0.3 * gates @ g)


def test_floating_rows_are_rows_behind_an_endless_resistance():
    g, volts = conductances(16, 10), reads(3, 16)
    driven = volts > 0
    matrix, drawn = effective_conductance(g, 50.0, 2.5, 1.7, 30.0, input_conductance=True)
    ours, rows = floating_currents(matrix, drawn, volts, driven)
    for read in range(3):
        driver_ohm = np.where(driven[read].numpy(), 50.0, 1e15)
        _, col_volts = node_voltages(Mesh(g.numpy(), driver_ohm, 2.5, 1.7, 30.0), volts[read : read + 1].numpy())
        currents = column_currents(Mesh(g.numpy(), driver_ohm, 2.5, 1.7, 30.0), col_volts)
        assert ours[read].numpy() == pytest.approx(currents[0], rel=1e-7)
    assert torch.equal(rows[driven], volts[driven])
    assert float((ours / (volts @ matrix) - 1).abs().max()) > 0.005


def test_a_floating_row_without_cells_does_not_matter():
    g = conductances(6, 4)
    g[2] = 0.0
    matrix, drawn = effective_conductance(g, 50.0, 2.5, 1.7, 30.0, input_conductance=True)
    volts = torch.tensor([[0.2, 0.0, 0.0, 0.2, 0.2, 0.2]], dtype=torch.float64)
    with_row, _ = floating_currents(matrix, drawn, volts, volts > 0)
    rest = [0, 1, 3, 4, 5]
    without, _ = floating_currents(matrix[rest], drawn[rest][:, rest], volts[:, rest], volts[:, rest] > 0)
    assert torch.allclose(with_row, without, rtol=1e-12)


def test_read_noise_has_the_spread_of_noisy_crossbars():
    g, wires, sigma_rel = conductances(20, 20), Wires(500.0, 20.0, 20.0, 300.0), 0.02
    noise = torch.randn(2000, 20, 20, generator=torch.Generator().manual_seed(1))
    noisy = effective_matrices(g.float() * (1 + sigma_rel * noise), wires)[0]
    on_matrix = (sigma_rel * effective_matrices(g, wires)[0]).square()
    for activity in (0.1, 0.3, 0.8):
        volts = reads(30, 20, activity)
        spread = (volts.float() @ noisy).std(0).double()
        ours = (volts.square() @ noise_variance(g, sigma_rel * g, wires, activity)).sqrt() / spread
        assert float(ours.mean()) == pytest.approx(1.0, abs=0.03)
        assert float((ours - 1).abs().max()) < 0.15
        assert float(((volts.square() @ on_matrix).sqrt() / spread).mean()) > 1.06


def test_read_noise_matches_the_adjoint_formula_of_single_reads():
    """Var I_j = sum of (sigma v lambda_j)^2 with exactly solved v and lambda, for both precisions and double ends."""
    for wires in ENDS:
        g, sigma = conductances(20, 15), 1e-6 * conductances(20, 15, seed=3) / 5e-5
        volts = reads(30, 20, 0.5)
        sensed = torch.zeros(15, 20, 15, dtype=torch.float64)
        sensed[torch.arange(15), :, torch.arange(15)] = 1.0
        adjoint = solve_linear(g, sensed, lines(wires, g))
        exact = torch.einsum("rkl,jkl->rj", (sigma * device_voltages(g, volts, wires)).square(), adjoint.square())
        ours = volts.square() @ noise_variance(g, sigma, wires, 0.5)
        assert float((ours / exact).sqrt().mean()) == pytest.approx(1.0, abs=0.005)
        single = noise_variance(g.float(), sigma.float(), wires, 0.5)
        assert torch.allclose(single.double(), noise_variance(g, sigma, wires, 0.5), rtol=1e-3)


def test_read_noise_on_ideal_wires_is_that_of_the_devices():
    g = conductances(6, 5)
    assert torch.allclose(noise_variance(g, 0.1 * g, Wires(), 0.5), (0.1 * g).square(), rtol=1e-12)

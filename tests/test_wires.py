"""Effective matrices of resistive crossbars against nodal analysis, closed forms and Kirchhoff's laws."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nodal_analysis import Mesh, column_currents, node_voltages, read_power, row_currents

from archsim import analog
from archsim.analog import effective_conductance
from archsim.errors import ConfigError

OHMS = {"r_driver_ohm": 50.0, "r_wire_row_ohm": 2.5, "r_wire_col_ohm": 1.7, "r_sense_ohm": 30.0}
ENDS = list(itertools.product([False, True], repeat=2))


def conductances(*shape: int, seed: int = 0, on_ohm: float = 20e3, off_ohm: float = 200e3) -> torch.Tensor:
    random = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 1 / off_ohm + (1 / on_ohm - 1 / off_ohm) * random


def worst(found: torch.Tensor, reference: np.ndarray | torch.Tensor) -> float:
    """Largest deviation, relative to the largest reference value."""
    expected = torch.as_tensor(reference).double()
    return float((found.double() - expected).abs().max() / expected.abs().max())


def assert_nodal(g: torch.Tensor, ohms: tuple[float, ...], n_reads: int, **ends: bool) -> None:
    """Column and row currents of random reads (of every single row, too, in small crossbars) are those of the mesh."""
    volts = np.random.default_rng(0).random((n_reads, g.shape[0]))
    volts = np.concatenate([volts, np.eye(g.shape[0])]) if g.shape[0] <= 16 else volts
    mesh = Mesh(g.numpy(), *ohms, **ends)
    row_volts, col_volts = node_voltages(mesh, volts)
    matrix, drawn = effective_conductance(g, *ohms, input_conductance=True, **ends)
    currents = column_currents(mesh, col_volts)
    assert np.abs(volts @ matrix.numpy() / currents - 1).max() <= 1e-9
    assert worst(torch.from_numpy(volts) @ drawn, row_currents(mesh, row_volts, col_volts)) <= 1e-9
    single, single_drawn = effective_conductance(g.float(), *ohms, input_conductance=True, **ends)
    assert np.abs(volts @ single.double().numpy() / currents - 1).max() <= 2e-5
    assert worst(single, matrix) <= 2e-5
    assert worst(single_drawn, drawn) <= 2e-5


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (1, 7), (7, 1), (1, 1), (8, 32), (104, 13), (100, 37), (64, 64)])
@pytest.mark.parametrize(("double_drive", "double_sense"), ENDS)
def test_currents_are_those_of_nodal_analysis(shape, double_drive, double_sense):
    g, ohms = conductances(*shape), tuple(OHMS.values())
    assert_nodal(g, ohms, n_reads=3, double_drive=double_drive, double_sense=double_sense)


def test_currents_of_a_large_crossbar_are_those_of_nodal_analysis():
    assert_nodal(conductances(256, 256), (100.0, 1.0, 1.0, 100.0), n_reads=2)


@pytest.mark.parametrize(
    ("g", "ohms"),
    [
        (conductances(64, 64) * (conductances(64, 64, seed=1) > 1.5e-5), (100.0, 2.5, 2.5, 100.0)),
        (torch.full((64, 64), 1e-3, dtype=torch.float64), (100.0, 2.5, 2.5, 100.0)),
        (torch.where(conductances(64, 64) > 4.9e-5, 1e-2, conductances(64, 64)), (100.0, 2.5, 2.5, 100.0)),
        (conductances(128, 128, on_ohm=5e3, off_ohm=5e5), (1000.0, 50.0, 50.0, 1000.0)),
        (conductances(64, 64), (0.0, 1e-3, 1e-3, 0.0)),
        (conductances(12, 10), (0.0, 1e-3, 2.0, 0.0)),
    ],
    ids=["open cells", "low ohmic", "shorts", "thin wires", "thick wires", "thick rows"],
)
def test_hard_cases_agree_with_nodal_analysis_in_both_precisions(g, ohms):
    assert_nodal(g, ohms, n_reads=3)


def test_two_ideal_sources_on_thick_wires_do_not_drive_a_current_around():
    g, ohms = conductances(64, 64), (0.0, 1e-4, 1e-4, 0.0)
    _, one_end = effective_conductance(g.float(), *ohms, input_conductance=True)
    _, both_ends = effective_conductance(g.float(), *ohms, input_conductance=True, double_drive=True)
    assert worst(both_ends, one_end) <= 1e-5


def test_ideal_wires_leave_the_cells_as_they_are():
    g = conductances(3, 4, 5)
    matrix, drawn = effective_conductance(g, input_conductance=True)
    assert torch.equal(matrix, g)
    assert torch.equal(drawn, torch.diag_embed(g.sum(-1)))


@pytest.mark.parametrize(("double_drive", "double_sense"), ENDS)
def test_ideal_wires_with_real_ends_are_the_limit_of_thin_resistance(double_drive, double_sense):
    g, ends = conductances(17, 12), {"double_drive": double_drive, "double_sense": double_sense}
    closed = effective_conductance(g, 200.0, 0.0, 0.0, 100.0, input_conductance=True, **ends)
    near = effective_conductance(g, 200.0, 1e-9, 1e-9, 100.0, input_conductance=True, **ends)
    for ours, limit in zip(closed, near, strict=True):
        assert worst(ours, limit) <= 1e-11


@pytest.mark.parametrize(("double_drive", "double_sense"), ENDS)
@pytest.mark.parametrize(("row_ohm", "col_ohm"), [(0.0, 2.0), (3.0, 0.0)])
def test_wires_that_are_ideal_in_one_direction_are_the_limit_of_thin_resistance(
    double_drive, double_sense, row_ohm, col_ohm
):
    g, ends = conductances(17, 12), {"double_drive": double_drive, "double_sense": double_sense}
    ours = effective_conductance(g, 0.0, row_ohm, col_ohm, 0.0, **ends)
    assert worst(ours, effective_conductance(g, 0.0, row_ohm or 1e-9, col_ohm or 1e-9, 0.0, **ends)) <= 1e-11


def test_one_cell_is_a_voltage_divider():
    matrix, drawn = effective_conductance(
        torch.tensor([[1e-4]], dtype=torch.float64), 100.0, 2.0, 3.0, 50.0, input_conductance=True
    )
    assert matrix.item() == pytest.approx(1 / (1e4 + 155.0), rel=1e-14)
    assert drawn.item() == pytest.approx(1 / (1e4 + 155.0), rel=1e-14)


shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
ohms = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(shape=shapes, driver=ohms, row=ohms, col=ohms, sense=ohms, ends=st.sampled_from(ENDS), seed=st.integers(0, 99))
def test_what_rows_draw_equals_what_columns_deliver(shape, driver, row, col, sense, ends, seed):
    g = 10 ** (-7 + 7 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    matrix, drawn = effective_conductance(
        g, driver, row, col, sense, input_conductance=True, double_drive=ends[0], double_sense=ends[1]
    )
    scale = float(drawn.max())
    assert float((drawn.sum(-1) - matrix.sum(-1)).abs().max()) <= 1e-10 * scale
    assert float((drawn - drawn.mT).abs().max()) <= 1e-10 * scale
    assert float(torch.linalg.eigvalsh((drawn + drawn.mT) / 2).min()) >= -1e-10 * scale
    assert float(matrix.min()) >= -1e-10 * scale


@settings(deadline=None, derandomize=True, max_examples=30)
@given(shape=shapes, driver=ohms, row=ohms, col=ohms, sense=ohms, seed=st.integers(0, 99))
def test_the_transposed_crossbar_has_the_transposed_matrix(shape, driver, row, col, sense, seed):
    g = conductances(*shape, seed=seed)
    turned = effective_conductance(g.mT.flip(0, 1), sense, col, row, driver)
    assert worst(turned.flip(0, 1).mT, effective_conductance(g, driver, row, col, sense)) <= 1e-10


@settings(deadline=None, derandomize=True, max_examples=30)
@given(shape=shapes, spare_rows=st.integers(0, 9), spare_cols=st.integers(0, 9), seed=st.integers(0, 99))
def test_open_cells_far_from_drivers_and_sense_circuits_change_nothing(shape, spare_rows, spare_cols, seed):
    g = conductances(*shape, seed=seed)
    wider = torch.nn.functional.pad(g, (0, spare_cols, spare_rows, 0))
    ours = effective_conductance(wider, **OHMS)[spare_rows:, : shape[1]]
    assert worst(ours, effective_conductance(g, **OHMS)) <= 1e-12


def test_the_energy_of_a_read_is_that_of_all_branches():
    mesh = Mesh(conductances(32, 24).numpy(), *OHMS.values())
    volts = 0.2 * (np.random.default_rng(0).random((6, 32)) < 0.3)
    _, drawn = effective_conductance(torch.from_numpy(mesh.g), **OHMS, input_conductance=True)
    power = np.einsum("ri,ij,rj->r", volts, drawn.numpy(), volts)
    assert power == pytest.approx(read_power(mesh, volts), rel=1e-12)


@pytest.mark.parametrize("ohms", [tuple(OHMS.values()), (40.0, 0.0, 0.0, 20.0), (0.0, 300.0, 200.0, 0.0)])
@pytest.mark.parametrize("shape", [(6, 11), (2, 12, 9)])
def test_the_gradient_is_that_of_finite_differences(shape, ohms):
    g, direction = conductances(*shape), conductances(*shape, seed=5)
    random = torch.Generator().manual_seed(2)
    weights = torch.randn(shape, generator=random, dtype=torch.float64)
    drawn_weights = torch.randn(*shape[:-1], shape[-2], generator=random, dtype=torch.float64)

    def value(cells: torch.Tensor) -> torch.Tensor:
        matrix, drawn = effective_conductance(cells, *ohms, input_conductance=True)
        return (matrix * weights).sum() + (drawn * drawn_weights).sum()

    cells = g.clone().requires_grad_(True)
    value(cells).backward()
    one, two = (value(g + step * direction) - value(g - step * direction) for step in (1e-3, 2e-3))
    assert float((cells.grad * direction).sum()) == pytest.approx(float(8 * one - two) / 12e-3, rel=1e-6)


def test_a_batch_is_its_crossbars_one_by_one_whatever_the_chunks():
    g = conductances(3, 2, 70, 70)
    together = effective_conductance(g, **OHMS)
    assert together.shape == g.shape
    for index in itertools.product(range(3), range(2)):
        assert worst(together[index], effective_conductance(g[index], **OHMS)) <= 1e-13
    assert torch.equal(effective_conductance(g.mT.contiguous().mT, **OHMS), together)
    assert effective_conductance(g[:0], **OHMS).shape == (0, 2, 70, 70)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"g": torch.tensor([[1e-5, 2e-5], [-1e-5, float("nan")]])},
            "g[1, 0] is -1e-05 siemens; a conductance must be finite and at least 0 (2 of 4 cells are not): "
            "use 0 for an open cell",
        ),
        (
            {"g": torch.ones(2, 2, dtype=torch.int64)},
            "g has dtype torch.int64; it must be torch.float32 or torch.float64: use g.float()",
        ),
        ({"g": torch.ones(4, 0)}, "g has shape (4, 0); it must be (..., row, col) with a row and a column at least"),
        ({"g": torch.ones(4)}, "g has shape (4,); it must be (..., row, col) with a row and a column at least"),
        *(
            ({name: value}, f"{name} is {value!r}; it must be finite and at least 0 ohm: use 0 for an ideal wire")
            for name, value in zip(OHMS, (-1.0, float("nan"), float("inf"), -2), strict=True)
        ),
    ],
)
def test_impossible_arguments_are_named(changes, message):
    with pytest.raises(ConfigError) as error:
        effective_conductance(**({"g": torch.ones(2, 2), **OHMS} | changes))
    assert str(error.value) == message


def test_every_public_name_can_be_had_from_the_package():
    assert set(analog.__all__) <= set(dir(analog))
    assert [name for name in analog.__all__ if getattr(analog, name).__name__ != name] == []
    with pytest.raises(AttributeError, match=r"^module 'archsim.analog' has no attribute 'crossbars'$"):
        _ = analog.crossbars


def test_importing_the_package_does_not_import_torch():
    code = "import archsim, archsim.analog, sys; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"

"""What resistive wires, drivers and sense circuits leave of the cells of a crossbar.

With linear devices the circuit of a crossbar is linear: one effective matrix, found once per
programming, makes every later read an ordinary product. Entry point: `effective_conductance`. The
matrix itself is found in `merging`; this file checks arguments, bounds memory and has the closed
form of ideal wires.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsim.analog.circuit import Wires
from archsim.analog.merging import merge_crossbars
from archsim.errors import ConfigError

CHUNK_CELLS = {"cpu": 1 << 15}
"""Cells of the crossbars merged at once (some 200 bytes of temporary values each): what a cache holds is fastest."""
OTHER_CHUNK_CELLS = 1 << 21
"""The same on other devices, which want long batches."""


@overload
def effective_conductance(
    g: Tensor,
    r_driver_ohm: float = ...,
    r_wire_row_ohm: float = ...,
    r_wire_col_ohm: float = ...,
    r_sense_ohm: float = ...,
    *,
    input_conductance: Literal[False] = ...,
    double_drive: bool = ...,
    double_sense: bool = ...,
) -> Tensor: ...
@overload
def effective_conductance(
    g: Tensor,
    r_driver_ohm: float = ...,
    r_wire_row_ohm: float = ...,
    r_wire_col_ohm: float = ...,
    r_sense_ohm: float = ...,
    *,
    input_conductance: Literal[True],
    double_drive: bool = ...,
    double_sense: bool = ...,
) -> tuple[Tensor, Tensor]: ...
def effective_conductance(
    g: Tensor,
    r_driver_ohm: float = 0.0,
    r_wire_row_ohm: float = 0.0,
    r_wire_col_ohm: float = 0.0,
    r_sense_ohm: float = 0.0,
    *,
    input_conductance: bool = False,
    double_drive: bool = False,
    double_sense: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Output current of every column per volt on every row, in the resistive network of a crossbar.

    Drivers sit on column 0's side, `r_driver_ohm` and one row segment before the first cell; sense
    circuits (virtual grounds) at the last row, one column segment and `r_sense_ohm` behind the last
    cell. Rows that are not driven are held at 0 V by their drivers. The result is exact for linear
    devices (nodal analysis to 1e-12 in float64, about 1e-6 in float32), differentiable in `g`, and
    computed on the device and in the dtype of `g`. A gradient repeats the computation in chunks
    instead of keeping its intermediate values.

    Args:
        g: Conductance of every cell in siemens, finite and 0 or more, float32 or float64, shape
            (..., row, col) with at least one row and column.
        r_driver_ohm: Output resistance of a row driver, 0 or more.
        r_wire_row_ohm: Resistance of a row line from cell to cell, 0 or more.
        r_wire_col_ohm: Resistance of a column line from cell to cell, 0 or more.
        r_sense_ohm: Input resistance of a sense circuit, 0 or more.
        input_conductance: Also return what rows draw: the energy of a read is `v @ y @ v * time`.
        double_drive: Rows are driven from both ends, each through a driver and a segment.
        double_sense: Columns are sensed at both ends; the result is the sum.

    Returns:
        Siemens, shape (..., row, col); with `input_conductance` a pair, the second of shape
        (..., row, row): current drawn from the drivers of one row per volt on another (symmetric).

    Raises:
        ConfigError: A conductance or resistance is negative or not finite, or `g` has no cells or
            another dtype.

    Source: Kirchhoff's laws on the 2-D mesh of a passive crossbar, as in badcrossbar (Joksas and
    Mehonic, SoftwareX 12, 2020).
    """
    wires = Wires(r_driver_ohm, r_wire_row_ohm, r_wire_col_ohm, r_sense_ohm, double_drive, double_sense)
    matrix, drawn = effective_matrices(g, wires, input_conductance)
    return matrix if drawn is None else (matrix, drawn)


def effective_matrices(g: Tensor, wires: Wires, with_input: bool = False) -> tuple[Tensor, Tensor | None]:
    """Effective matrix and, if wanted, input conductance; see `effective_conductance`."""
    check_conductance(g)
    n_rows, n_cols = g.shape[-2:]
    size = max(1, CHUNK_CELLS.get(g.device.type, OTHER_CHUNK_CELLS) // (n_rows * n_cols))
    matrices, inputs = [], []
    for chunk in g.reshape(-1, n_rows, n_cols).split(size):
        if chunk.requires_grad and torch.is_grad_enabled():
            matrix, drawn = checkpoint(_solve, chunk, wires, with_input, use_reentrant=False)
        else:
            matrix, drawn = _solve(chunk, wires, with_input)
        matrices.append(matrix)
        inputs.append(drawn)
    matrix = torch.cat(matrices).reshape(g.shape)
    return matrix, torch.cat(inputs).reshape(*g.shape[:-1], n_rows) if with_input else None


def check_conductance(g: Tensor) -> None:
    """Raise ConfigError unless `g` are conductances of crossbars; see `effective_conductance`."""
    if g.dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"g has dtype {g.dtype}; it must be torch.float32 or torch.float64: use g.float()")
    if g.dim() < 2 or 0 in g.shape[-2:]:
        raise ConfigError(f"g has shape {tuple(g.shape)}; it must be (..., row, col) with a row and a column at least")
    wrong = ~((g.detach() >= 0) & g.detach().isfinite())
    if bool(wrong.any()):
        where = tuple(wrong.nonzero()[0].tolist())
        raise ConfigError(
            f"g{list(where)} is {float(g[where]):g} siemens; a conductance must be finite and at least 0 "
            f"({int(wrong.sum())} of {g.numel()} cells are not): use 0 for an open cell"
        )


def _solve(g: Tensor, wires: Wires, with_input: bool) -> tuple[Tensor, Tensor | None]:
    """Effective matrix and input conductance of crossbars of shape (crossbar, row, col)."""
    wires = wires.without_ideal_lines_fed_twice()
    if wires.r_wire_row_ohm == wires.r_wire_col_ohm == 0.0:
        return _ideal_wires(g, wires.r_driver_ohm, wires.r_sense_ohm, with_input)
    return merge_crossbars(g, wires, with_input)


def _ideal_wires(g: Tensor, driver_ohm: float, sense_ohm: float, with_input: bool) -> tuple[Tensor, Tensor | None]:
    """Closed form without wire resistance: one node per row and column.

    With row voltages `u = a (V + driver (g w))`, `a = 1 / (1 + driver * rowsum)`, and column
    voltages `w = sense * I`: `I = V a g (1 + sense s)^-1`, `s = diag(colsum) - driver g' a g`.

    Source: Kirchhoff's laws, as for the crossbars without wire resistance of Chakraborty, Roy and
    Roy, arXiv 1711.08889.
    """
    share = 1.0 / (1.0 + driver_ohm * g.sum(-1, keepdim=True))
    matrix = share * g
    if sense_ohm > 0.0:
        loads = torch.diag_embed(g.sum(-2)) - driver_ohm * g.mT @ matrix
        eye = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
        matrix = torch.linalg.solve(eye + sense_ohm * loads, matrix, left=False)
    if not with_input:
        return matrix, None
    drawn = torch.diag_embed((share * g).sum(-1)) - sense_ohm * (share * g) @ matrix.mT
    return matrix, drawn

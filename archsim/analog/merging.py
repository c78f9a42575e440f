"""The effective matrix of crossbars with resistive wires, exactly, by merging tiles of cells.

A crossbar is cut into rectangular tiles; each is reduced to the linear map between its ports, and
neighbours are joined until one tile is left (nested dissection). Ports mix voltages and currents
so that the map of a tile with small wire drops is close to the identity: nothing cancels, float32
stays exact to about 1e-6 where nodal analysis loses three digits. All steps are batched products
and small solves in torch, differentiable. Entry point: `merge_crossbars`; the public one, with
checks and closed forms, is `wires.effective_conductance`.

Ports of a tile of p x q cells, each cell with its left row segment and its lower column segment:

    side     input                      output
    left     voltage, p                 current into the tile
    bottom   voltage, q                 current out of the tile
    right    current out of the tile, p voltage
    top      current into the tile, q   voltage

They are stored around the perimeter: left downwards, bottom rightwards, right upwards, top
leftwards. So joining two tiles replaces one side of the first by the other three of the second.

Source: nested dissection (A. George, SIAM J. Numer. Anal. 10(2), 1973) in hybrid (impedance and
admittance mixed) port variables.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial, reduce

import numpy as np
import torch
from torch import Tensor

from archsim.analog.circuit import Wires

LEFT, BOTTOM, RIGHT, TOP = range(4)
LEAF_CELLS = 1 << 15
"""Cells of the leaf tiles that are reduced at once; bounds the memory of large crossbars."""
_SERIES_RADIUS = 0.25
"""Largest spectral radius of wires times devices for which a polynomial replaces a solve: 3 to 8 products."""
_NEUMANN_NORM = 0.06
"""Largest norm of the feedback between two tiles for which its series replaces a solve: at most 6 doublings."""
_NEUMANN_SIDE = 16
"""Widest interface at which the series is faster than a batched solve."""


@dataclass(frozen=True)
class Tiles:
    """A batch of equally shaped tiles: `output = input @ transfer`, ports in perimeter order."""

    transfer: Tensor
    """Shape (tile, input, output); volts and amperes."""
    inputs: tuple[int, ...]
    """Number of inputs on each side: left, bottom, right, top."""
    outputs: tuple[int, ...]
    """Number of outputs on each side."""

    def input_slice(self, side: int) -> slice:
        """Where the inputs of a side are."""
        return slice(sum(self.inputs[:side]), sum(self.inputs[: side + 1]))

    def output_slice(self, side: int) -> slice:
        """Where the outputs of a side are."""
        return slice(sum(self.outputs[:side]), sum(self.outputs[: side + 1]))


def merge_crossbars(g: Tensor, wires: Wires, with_input: bool) -> tuple[Tensor, Tensor | None]:
    """Effective matrices of a batch of crossbars.

    Args:
        g: Conductances in siemens, finite, 0 or more, shape (crossbar, row, col), at least one cell.
        wires: Resistances; with `double_drive` the row segments and with `double_sense` the column
            segments must not be zero.
        with_input: Also give the input conductance.

    Returns:
        Current of a column per volt on a row, shape (crossbar, row, col), and the current that a
        row draws per volt on a row, shape (crossbar, row, row), or None.
    """
    n_crossbars, n_rows, n_cols = g.shape
    height, grid_rows = _cut(n_rows, g.dtype)
    width, grid_cols = _cut(n_cols, g.dtype)
    # Rows of no conductance on top and columns on the right carry no current below and left of them.
    padded = torch.nn.functional.pad(g, (0, grid_cols * width - n_cols, grid_rows * height - n_rows, 0))
    cells = padded.view(n_crossbars, grid_rows, height, grid_cols, width).permute(1, 3, 0, 2, 4)
    parts = cells.reshape(-1, height * width).split(max(1, LEAF_CELLS // (height * width)))
    ports = (height, width, height, width)
    tiles = Tiles(torch.cat([_leaves(part, height, width, wires) for part in parts]), ports, ports)
    edges = _Edges(wires, grid_cols * width - n_cols, grid_rows * height - n_rows, with_input)
    last = _merge_grid(tiles, grid_rows, grid_cols, n_crossbars, edges)
    return _matrices(last, n_rows, n_cols, with_input)


def _cut(n_lines: int, dtype: torch.dtype) -> tuple[int, int]:
    """Lines per tile and number of tiles (a power of two) that cover `n_lines` with the fewest lines to spare."""
    smallest = 5 if dtype == torch.float32 else 4
    if n_lines < smallest:
        return n_lines, 1
    options = []
    for side in range(2 * smallest - 1, smallest - 1, -1):
        n_tiles = 1 << max(0, math.ceil(n_lines / side) - 1).bit_length()
        options.append((side * n_tiles - n_lines, side, n_tiles))
    _, side, n_tiles = min(options, key=lambda option: option[0])
    return side, n_tiles


@dataclass(frozen=True)
class _LeafWires:
    """What is common to all leaf tiles of one size and one kind of wire; ports as in the module docstring."""

    drive: Tensor
    """Open-circuit voltage of every device per unit input, shape (port, device)."""
    sense: Tensor
    """Change of every output per ampere through a device, shape (device, port): by reciprocity the signed drive."""
    through: Tensor
    """What the wires alone pass from inputs to outputs, shape (port, port)."""
    drop: Tensor
    """Voltage lost at a device per ampere through a device, symmetric, shape (device, device), in ohm."""
    largest_drop: float
    """Largest eigenvalue of `drop`, in ohm."""


@lru_cache(maxsize=64)
def _leaf_wires(p: int, q: int, row: float, col: float, dtype: torch.dtype, device: torch.device) -> _LeafWires:
    """Constants of a leaf of p x q cells with `row` and `col` ohm per segment."""
    rows, cols = torch.arange(p, dtype=torch.float64), torch.arange(q, dtype=torch.float64)
    eye_p, eye_q = torch.eye(p, dtype=torch.float64), torch.eye(q, dtype=torch.float64)
    left = eye_p[:, :, None].expand(p, p, q)
    right = -row * (cols + 1) * left
    bottom = -eye_q[:, None, :].expand(q, p, q)
    top = col * (p - rows)[:, None] * bottom
    drive = torch.cat([left, bottom, right.flip(0), top.flip(0)]).reshape(2 * (p + q), p * q)
    sign = torch.cat([torch.ones(p), -torch.ones(q), torch.ones(p), -torch.ones(q)]).to(torch.float64)
    through = torch.zeros(2 * (p + q), 2 * (p + q), dtype=torch.float64)
    at = dict(zip((LEFT, BOTTOM, RIGHT, TOP), torch.arange(2 * (p + q)).split((p, q, p, q)), strict=True))
    through[at[LEFT], at[RIGHT].flip(0)] = through[at[RIGHT].flip(0), at[LEFT]] = 1.0
    through[at[TOP].flip(0), at[BOTTOM]] = through[at[BOTTOM], at[TOP].flip(0)] = 1.0
    through[at[RIGHT], at[RIGHT]] = -q * row
    through[at[TOP], at[TOP]] = p * col
    along_row = row * (torch.minimum(cols[:, None], cols) + 1)
    along_col = col * (p - torch.maximum(rows[:, None], rows))
    drop = torch.kron(eye_p, along_row) + torch.kron(along_col, eye_q)
    on = partial(torch.Tensor.to, device=device, dtype=dtype)
    # min(i, j) has the largest eigenvalue 1 / (4 sin^2(pi / (4 n + 2))).
    largest = sum(r / (4 * math.sin(math.pi / (4 * n + 2)) ** 2) for r, n in ((row, q), (col, p)))
    sense = (drive * sign[:, None]).T.contiguous()
    return _LeafWires(on(drive), on(sense), on(through), on(drop), largest)


def _leaves(g: Tensor, p: int, q: int, wires: Wires) -> Tensor:
    """Transfers of tiles of p x q cells with conductances of shape (tile, device).

    Device currents per unit input are `x = (drive * g) (1 + drop * g)^-1`, and
    `transfer = through + x @ sense`.
    """
    constants = _leaf_wires(p, q, wires.r_wire_row_ohm, wires.r_wire_col_ohm, g.dtype, g.device)
    g = g.unsqueeze(1)
    currents = g * constants.drive
    radius = float(g.detach().max()) * constants.largest_drop if g.numel() else 0.0
    if radius < _SERIES_RADIUS:
        open_circuit = currents
        coefficients = _reciprocal_polynomial(radius, torch.finfo(g.dtype).eps)
        currents = open_circuit * coefficients[-1]
        for coefficient in reversed(coefficients[:-1]):
            currents = torch.add(torch.matmul(currents, constants.drop) * g, open_circuit, alpha=coefficient)
    else:
        eye = torch.eye(p * q, dtype=g.dtype, device=g.device)
        currents = torch.linalg.solve(eye + constants.drop * g, currents, left=False)
    return constants.through + torch.matmul(currents, constants.sense)


def _reciprocal_polynomial(radius: float, eps: float) -> list[float]:
    """Coefficients, lowest power first, of the polynomial that equals 1 / (1 + x) to `eps / 2` on [0, radius].

    Source: Chebyshev interpolation; its error falls by the parameter of the Bernstein ellipse
    through the pole per degree (Trefethen, Approximation Theory and Practice, 2013, ch. 8).
    """
    if radius < eps:
        return [1.0]
    pole = 2.0 / radius + 1.0
    degree = math.ceil(math.log(2.0 / eps) / math.log(pole + math.sqrt(pole * pole - 1.0)))
    fit = np.polynomial.Chebyshev.interpolate(lambda x: 1.0 / (1.0 + x), degree, [0.0, radius])
    return fit.convert(kind=np.polynomial.Polynomial).coef.tolist()


@dataclass(frozen=True)
class _Edges:
    """What the outer edges of the grid are connected to."""

    wires: Wires
    n_spare_cols: int
    n_spare_rows: int
    with_input: bool

    def close(self, tiles: Tiles, sides: Collection[int]) -> Tiles:
        """Connect outer sides to drivers, sense circuits or nothing; drop the ports that are then of no use."""
        wires = self.wires
        if LEFT in sides:
            tiles = _add_series(tiles, LEFT, -wires.r_driver_ohm)
        if BOTTOM in sides:
            tiles = _add_series(tiles, BOTTOM, wires.r_sense_ohm)
        # The second source sits one segment beyond the last cell; spare cells lie between them and are taken off.
        if RIGHT in sides and wires.double_drive:
            tiles = _drive_by_voltage(tiles, RIGHT, wires.r_driver_ohm + (1 - self.n_spare_cols) * wires.r_wire_row_ohm)
        if TOP in sides and wires.double_sense:
            tiles = _drive_by_voltage(tiles, TOP, -wires.r_sense_ohm - (1 - self.n_spare_rows) * wires.r_wire_col_ohm)
        needed_inputs = {LEFT: True, BOTTOM: False, RIGHT: wires.double_drive, TOP: False}
        needed_outputs = {
            LEFT: self.with_input,
            BOTTOM: True,
            RIGHT: self.with_input and wires.double_drive,
            TOP: wires.double_sense,
        }
        return _keep(
            tiles,
            [side for side in range(4) if side not in sides or needed_inputs[side]],
            [side for side in range(4) if side not in sides or needed_outputs[side]],
        )


def _add_series(tiles: Tiles, side: int, signed_ohm: float) -> Tiles:
    """Put resistors before voltage inputs: port voltage = source voltage + signed_ohm * port output."""
    if signed_ohm == 0.0:
        return tiles
    at, out = tiles.input_slice(side), tiles.output_slice(side)
    h = tiles.transfer
    flow = _solve_feedback(signed_ohm * h[:, at, out], h[:, :, out])
    return Tiles(torch.baddbmm(h, flow, h[:, at], alpha=signed_ohm), tiles.inputs, tiles.outputs)


def _drive_by_voltage(tiles: Tiles, side: int, signed_ohm: float) -> Tiles:
    """Put voltage sources with resistors at current inputs: port output = source voltage + signed_ohm * current.

    The inputs of the side become the source voltages, its outputs the currents.
    """
    at, out = tiles.input_slice(side), tiles.output_slice(side)
    h = tiles.transfer
    n_ports = at.stop - at.start
    eye = torch.eye(n_ports, dtype=h.dtype, device=h.device)
    driven = torch.cat([h[:, : at.start], torch.zeros_like(h[:, at]), h[:, at.stop :]], 1)
    open_circuit = torch.cat([h[:, : at.start, out], (-eye).expand(len(h), -1, -1), h[:, at.stop :, out]], 1)
    current = torch.linalg.solve(signed_ohm * eye - h[:, at, out], open_circuit, left=False)
    result = torch.baddbmm(driven, current, h[:, at])
    transfer = torch.cat([result[:, :, : out.start], current, result[:, :, out.stop :]], 2)
    return Tiles(transfer, tiles.inputs, tiles.outputs)


def _keep(tiles: Tiles, input_sides: list[int], output_sides: list[int]) -> Tiles:
    """Tiles with the ports of these sides only."""
    if len(input_sides) == 4 and len(output_sides) == 4:
        return tiles
    h = torch.cat([tiles.transfer[:, tiles.input_slice(side)] for side in input_sides], 1)
    h = torch.cat([h[:, :, tiles.output_slice(side)] for side in output_sides], 2)
    inputs = tuple(n if side in input_sides else 0 for side, n in enumerate(tiles.inputs))
    outputs = tuple(n if side in output_sides else 0 for side, n in enumerate(tiles.outputs))
    return Tiles(h, inputs, outputs)


def _merge_grid(tiles: Tiles, n_rows: int, n_cols: int, n_crossbars: int, edges: _Edges) -> Tiles:
    """Join the tiles of every crossbar, given in the order (row, col, crossbar), into one.

    Equal tiles are joined together in one batch; the last 2 x 2 differ in the ports that they need.
    """
    open_sides = {LEFT, BOTTOM, RIGHT, TOP}
    while n_rows > 2 or n_cols > 2:
        for alone, sides in ((n_cols == 1, {LEFT, RIGHT}), (n_rows == 1, {TOP, BOTTOM})):
            if alone and sides <= open_sides:
                tiles = edges.close(tiles, sides)
                open_sides -= sides
        grid = tiles.transfer.view(n_rows, n_cols, n_crossbars, *tiles.transfer.shape[1:])
        along_rows = n_cols > 1 and (n_rows == 1 or tiles.inputs[TOP] <= tiles.inputs[LEFT])
        pairs = (grid[:, 0::2], grid[:, 1::2]) if along_rows else (grid[0::2], grid[1::2])
        first, second = (Tiles(half.flatten(0, 2), tiles.inputs, tiles.outputs) for half in pairs)
        tiles = _merge(first, second, RIGHT if along_rows else BOTTOM)
        n_rows, n_cols = (n_rows, n_cols // 2) if along_rows else (n_rows // 2, n_cols)
    parts = tiles.transfer.view(n_rows, n_cols, n_crossbars, *tiles.transfer.shape[1:])
    strips = []
    for row in range(n_rows):
        closed = []
        for col in range(n_cols):
            at_edge = {LEFT: col == 0, BOTTOM: row == n_rows - 1, RIGHT: col == n_cols - 1, TOP: row == 0}
            sides = {side for side in open_sides if at_edge[side]}
            closed.append(edges.close(Tiles(parts[row, col], tiles.inputs, tiles.outputs), sides))
        strips.append(reduce(partial(_merge, side=RIGHT), closed))
    return reduce(partial(_merge, side=BOTTOM), strips)


def _merge(first: Tiles, second: Tiles, side: int) -> Tiles:
    """Join tiles pairwise: `second` lies at the right or bottom side of `first`.

    With f what passes from first to second and b what comes back, `f = x_first a_f + b a_bf` and
    `b = x_second c_b + f c_fb` give `f = (x_first a_f + x_second c_b a_bf) (1 - c_fb a_bf)^-1`.
    Facing ports run in opposite directions around their perimeters, hence the flips.
    """
    facing = LEFT if side == RIGHT else TOP
    a, c = first.transfer, second.transfer
    a_in, a_out = first.input_slice(side), first.output_slice(side)
    c_in, c_out = second.input_slice(facing), second.output_slice(facing)
    # Left is the first side of the perimeter and top the last, so the rest of `second` is in one piece.
    rest_in, rest_out = (
        (slice(c_in.stop, None), slice(c_out.stop, None))
        if facing == LEFT
        else (slice(0, c_in.start), slice(0, c_out.start))
    )
    forward = c[:, c_in].flip(1)
    forward_back, forward_out = forward[:, :, c_out].flip(2), forward[:, :, rest_out]
    own_back, own_out = c[:, rest_in, c_out].flip(2), c[:, rest_in, rest_out]
    back = a[:, a_in]
    back_forward = back[:, :, a_out]
    direct = torch.cat([a[:, : a_in.start, a_out], own_back @ back_forward, a[:, a_in.stop :, a_out]], 1)
    to_second = _solve_feedback(forward_back @ back_forward, direct)
    to_first = to_second @ forward_back
    above, below = slice(0, a_in.start), slice(a_in.start + own_back.shape[1], None)
    middle = slice(above.stop, below.start)
    to_first[:, middle] += own_back
    h = torch.cat(
        [to_first @ back[:, :, : a_out.start], to_second @ forward_out, to_first @ back[:, :, a_out.stop :]], 2
    )
    before, after = slice(0, a_out.start), slice(a_out.start + own_out.shape[2], None)
    h[:, middle, before.stop : after.start] += own_out
    for rows, own_rows in ((above, slice(0, a_in.start)), (below, slice(a_in.stop, None))):
        h[:, rows, before] += a[:, own_rows, : a_out.start]
        h[:, rows, after] += a[:, own_rows, a_out.stop :]
    return Tiles(
        h,
        _spliced(first.inputs, second.inputs, side, facing),
        _spliced(first.outputs, second.outputs, side, facing),
    )


def _spliced(first: tuple[int, ...], second: tuple[int, ...], side: int, facing: int) -> tuple[int, ...]:
    """Ports per side of two joined tiles."""
    return tuple(first[k] * (k != side) + second[k] * (k != facing) for k in range(4))


def _solve_feedback(loop: Tensor, direct: Tensor) -> Tensor:
    """`direct (1 - loop)^-1` for batches of matrices; loops of passive networks have no eigenvalue near 1."""
    n_ports = loop.shape[-1]
    eps = torch.finfo(loop.dtype).eps
    if n_ports <= _NEUMANN_SIDE and loop.numel():
        norm = float(loop.detach().abs().sum(-1).max())
        if norm < _NEUMANN_NORM:
            return _neumann_series(loop, direct, math.ceil(math.log(eps / 2) / math.log(norm)) if norm > eps else 1)
    eye = torch.eye(n_ports, dtype=loop.dtype, device=loop.device)
    return torch.linalg.solve(eye - loop, direct, left=False)


def _neumann_series(loop: Tensor, direct: Tensor, n_terms: int) -> Tensor:
    """`direct (1 + loop + loop^2 + ...)` to at least `n_terms` terms, by doubling: (1 + s)(1 + s^2)(1 + s^4) ..."""
    result, power, n_done = direct, loop, 1
    while n_done < n_terms:
        if n_done > 1:
            power = torch.bmm(power, power)
        result = torch.baddbmm(result, result, power)
        n_done *= 2
    return result


def _matrices(last: Tiles, n_rows: int, n_cols: int, with_input: bool) -> tuple[Tensor, Tensor | None]:
    """Effective matrix and input conductance of closed crossbars, without spare rows (top) and columns (right).

    A row may be driven from two ends and a column sensed at two; currents into the crossbar on
    the left and out of it at the bottom count positive.
    """

    def per_row(side: int, ports: Tensor) -> Tensor:
        return (ports.flip(-1) if side == RIGHT else ports)[..., -n_rows:]

    h = last.transfer.transpose(1, 2)
    by_row = sum(per_row(side, h[:, :, last.input_slice(side)]) for side in (LEFT, RIGHT) if last.inputs[side])
    assert isinstance(by_row, Tensor)
    currents = by_row.transpose(1, 2)
    bottom = currents[:, :, last.output_slice(BOTTOM)]
    matrix = bottom - currents[:, :, last.output_slice(TOP)].flip(2) if last.outputs[TOP] else bottom
    matrix = matrix[:, :, :n_cols]
    if not with_input:
        return matrix, None
    drawn = per_row(LEFT, currents[:, :, last.output_slice(LEFT)])
    if last.outputs[RIGHT]:
        drawn = drawn - per_row(RIGHT, currents[:, :, last.output_slice(RIGHT)])
        drawn = _with_balanced_diagonal(drawn, matrix)
    return matrix, drawn


def _with_balanced_diagonal(drawn: Tensor, matrix: Tensor) -> Tensor:
    """Input conductance whose rows add up to those of the effective matrix, by choice of the diagonal.

    Between two ideal sources on one line of small resistance, rounding drives a current around that
    only the diagonal sees; Kirchhoff's current law gives it without.
    """
    others = drawn - torch.diag_embed(drawn.diagonal(dim1=-2, dim2=-1))
    return others + torch.diag_embed(matrix.sum(-1) - others.sum(-1))

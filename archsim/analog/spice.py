"""A crossbar and one read of it as a SPICE netlist, for circuit simulators.

Nodes: `in<row>` behind the ideal row source, `r<row>_<col>` and `c<row>_<col>` the row and column
line at a cell. The current of column j is that of the zero-volt source `VO<j>`.
"""

from __future__ import annotations

from torch import Tensor

from archsim.analog.circuit import Wires
from archsim.analog.nonlinear import Curve


def netlist(g: Tensor, volts: Tensor, wires: Wires, curve: Curve | None = None) -> list[str]:
    """Element lines of a netlist, without title, analysis and `.end`.

    Resistances of zero become zero-volt sources; open cells are left out.

    Args:
        g: Conductances in siemens, at small voltage if there is a curve, shape (row, col).
        volts: Row drives in volt, shape (row,).
        wires: The lines.
        curve: I-V curve of all devices; None for linear ones.
    """
    wires = wires.without_ideal_lines_fed_twice()
    n_rows, n_cols = g.shape
    end_row = wires.r_driver_ohm + wires.r_wire_row_ohm
    end_col = wires.r_sense_ohm + wires.r_wire_col_ohm
    elements = []
    for row, volt in enumerate(volts.tolist()):
        elements.append(f"VI{row} in{row} 0 DC {volt!r}")
        elements.append(_resistor(f"D{row}", f"in{row}", f"r{row}_0", end_row))
        if wires.double_drive:
            elements.append(_resistor(f"E{row}", f"in{row}", f"r{row}_{n_cols - 1}", end_row))
        elements += [
            _resistor(f"R{row}_{col}", f"r{row}_{col - 1}", f"r{row}_{col}", wires.r_wire_row_ohm)
            for col in range(1, n_cols)
        ]
    for col in range(n_cols):
        elements += [
            _resistor(f"C{row}_{col}", f"c{row - 1}_{col}", f"c{row}_{col}", wires.r_wire_col_ohm)
            for row in range(1, n_rows)
        ]
        elements.append(_resistor(f"S{col}", f"c{n_rows - 1}_{col}", f"out{col}", end_col))
        if wires.double_sense:
            elements.append(_resistor(f"T{col}", f"c0_{col}", f"out{col}", end_col))
        elements.append(f"VO{col} out{col} 0 DC 0")
    for row, conductances in enumerate(g.tolist()):
        elements += [_device(f"{row}_{col}", value, curve) for col, value in enumerate(conductances) if value > 0]
    return elements


def _resistor(name: str, first: str, second: str, ohm: float) -> str:
    return f"R{name} {first} {second} {ohm!r}" if ohm > 0 else f"VZ{name} {first} {second} DC 0"


def _device(cell: str, siemens: float, curve: Curve | None) -> str:
    """The device between the row and the column line at a cell."""
    if curve is None:
        return f"RG{cell} r{cell} c{cell} {1.0 / siemens!r}"
    scaled = f"(v(r{cell},c{cell})/{curve.v0_v!r})"
    # A product and not a power: SPICE takes the power of a negative base as that of its absolute value.
    shape = f"sinh({scaled})" if curve.kind == "sinh" else f"({scaled}+{scaled}*{scaled}*{scaled})"
    return f"BG{cell} r{cell} c{cell} I={siemens * curve.v0_v!r}*{shape}"

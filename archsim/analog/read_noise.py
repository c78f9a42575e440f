"""Noise of devices during a read, as it arrives at the columns through resistive lines.

A device's noise current reaches the sense circuit weakened twice: the device sees less than the
drive, and the column line divides what it sends. Noise put on the effective matrix instead counts
other devices' attenuation and is 10 to 70 % too large. Entry point: `noise_variance`.
"""

from __future__ import annotations

from torch import Tensor

from archsim.analog.circuit import Wires, device_voltages

TOLERANCE = 1e-4
"""Relative error of the voltages used: the formula itself is good to about a percent."""


def noise_variance(g: Tensor, sigma_s: Tensor | float, wires: Wires, activity: float) -> Tensor:
    """Variance of column currents per squared volt on a row: `variance = volts**2 @ result`.

    To first order and for independent devices, `Var I_j = sum over k, l of (sigma_kl v_kl lambda_kl)^2`
    with v the voltage across a device and lambda that across it when only sense circuit j drives.
    Column j's own devices dominate. Their lambda is found in the column alone (1 % of deviation);
    their v is V_k times the mean over reads that drive row k and a share `activity` of the others:
    `(1 - activity) * own + activity * together`, own in the row alone, together with all rows driven.
    One normal draw per column is then exact in distribution for normal device noise. Over reads of
    that activity the standard deviation is right to 1 %, in a single read to some percent.

    Args:
        g: Conductances in siemens, shape (..., row, col).
        sigma_s: Standard deviation of each conductance from read to read in siemens, broadcastable to `g`.
        wires: The lines.
        activity: Typical share of driven rows, 0 to 1.

    Returns:
        Siemens squared, shape (..., row, col).

    Source: adjoint sensitivity of a linear network (Director and Rohrer, IEEE Trans. Circuit Theory
    16(3), 1969), mean-field for the reads.
    """
    ones = g.new_ones(g.shape[-2])
    row_alone = Wires(wires.r_driver_ohm, wires.r_wire_row_ohm, double_drive=wires.double_drive)
    col_alone = Wires(
        r_wire_col_ohm=wires.r_wire_col_ohm, r_sense_ohm=wires.r_sense_ohm, double_sense=wires.double_sense
    )
    own = device_voltages(g, ones, row_alone, TOLERANCE)
    together = device_voltages(g, ones, wires, TOLERANCE)
    passed = device_voltages(g, ones, col_alone, TOLERANCE)
    return ((own + activity * (together - own)) * passed * sigma_s).square()

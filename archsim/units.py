"""Integer picoseconds and the way quantities are written for people.

Time inside archsim is an int64 count of picoseconds: sums are exact and ties are real ties.
Energy is float64 picojoule, area square micrometre, leakage milliwatt.
"""

from __future__ import annotations

import math

_TIME_STEPS = ((1_000_000_000_000, "s"), (1_000_000_000, "ms"), (1_000_000, "us"), (1_000, "ns"))
_ENERGY_STEPS = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"))


def cycles_to_ps(n_cycles: int, clock_mhz: float) -> int:
    """Duration of `n_cycles` clock cycles, rounded once to whole picoseconds (ties to even).

    Rounding the product instead of the period keeps long runs of cycles from drifting.
    """
    return round(n_cycles * 1_000_000 / clock_mhz)


def cycles_of(latency_ns: float, clock_mhz: float) -> int:
    """Fewest clock cycles, at least one, that last `latency_ns`; a part in 1e9 short of it is rounding."""
    return max(1, math.ceil(latency_ns * clock_mhz / 1000 * (1 - 1e-9)))


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer that is not below `numerator / denominator`, for positive denominators."""
    return -(-numerator // denominator)


def bits_for(maximum: int) -> int:
    """Width in bits of an unsigned integer up to `maximum`; at least 1."""
    return max(1, int(maximum).bit_length())


def format_time(picoseconds: float | None) -> str:
    """Write a time with the unit people would use, four significant digits."""
    return _format(picoseconds, _TIME_STEPS, "ps")


def format_energy(picojoules: float | None) -> str:
    """Write an energy with the unit people would use, four significant digits."""
    return _format(picojoules, _ENERGY_STEPS, "pJ")


def format_area(square_micrometres: float | None) -> str:
    """Write an area in mm2 from 0.01 mm2 up, else in um2; four significant digits."""
    return _format(square_micrometres, ((1e6, "mm2"),) if (square_micrometres or 0) >= 1e4 else (), "um2")


def format_number(value: float | None, digits: int = 4) -> str:
    """Write a plain number with `digits` significant digits and thousands separators."""
    if value is None:
        return "-"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}"


def _format(value: float | None, steps: tuple[tuple[float, str], ...], base_unit: str) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return f"{value} {base_unit}"
    for factor, unit in steps:
        if abs(value) >= factor or (len(steps) == 1 and unit == "mm2"):
            return f"{value / factor:.4g} {unit}"
    return f"{value:.4g} {base_unit}"

"""Turns counts into energy: one place where an action meets its entry in the cost library."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from archsim.components.netlist import Action, constant
from archsim.eventlog import Movement
from archsim.hardware.platform import Platform


def cycles_ps(n_cycles: ArrayLike, clock_mhz: float) -> np.ndarray:
    """Durations of `n_cycles` cycles in int64 picoseconds, each rounded once, ties to even."""
    return np.rint(np.asarray(n_cycles, np.float64) * 1e6 / clock_mhz).astype(np.int64)


def priced_action(
    hardware: Platform,
    component: str,
    entry: tuple[str, str],
    n_tokens: int,
    *,
    duration_ps: ArrayLike = 0,
    count: ArrayLike = 1,
    repeats: int = 1,
    bits: ArrayLike = 0,
    rows: ArrayLike = 0,
    movement: Movement | None = None,
) -> Action:
    """Build an action whose energy is its counts times a library entry.

    Args:
        hardware: Chip with its cost library.
        component: Path of the part that acts, such as `tile3.pe1.adc`.
        entry: Library entry as (component, action).
        n_tokens: Tokens of the lane; scalars below hold for every one.
        duration_ps: Service time that the action takes.
        count: How often it happens for the token.
        repeats: Energy events per count (a crossbar read goes on through every mux step).
        bits: Bits it touches.
        rows: Rows it drives.
        movement: Where the bits go, for the data-movement table.
    """
    parameters = hardware.cost_parameters(entry[0])
    cost = hardware.library.action(*entry)
    units = {"event": np.multiply(count, repeats), "bit": bits, "row": rows}[cost.per]
    energy_pj = np.asarray(units, np.float64) * hardware.library.energy_pj(entry[0], entry[1], **parameters)
    return Action(
        component,
        entry[1],
        _per_token(duration_ps, n_tokens, np.int64),
        _per_token(count, n_tokens, np.int64),
        _per_token(bits, n_tokens, np.int64),
        _per_token(energy_pj, n_tokens, np.float64),
        movement,
    )


def _per_token(values: ArrayLike, n_tokens: int, dtype: type) -> np.ndarray:
    """One value per token; where all are equal, one value is stored."""
    array: np.ndarray = np.asarray(values, dtype)
    if array.ndim == 0:
        return constant(array.item(), n_tokens, dtype)
    is_constant = len(array) > 0 and array[0] == array[-1] and bool((array == array[0]).all())
    return constant(array[0].item(), n_tokens, dtype) if is_constant else array

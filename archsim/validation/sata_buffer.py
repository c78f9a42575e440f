"""The walk of an output-stationary run through SCALE-Sim's input buffer, compiled: every request in its order."""

from __future__ import annotations

import numpy as np

from archsim.jit import compiled


@compiled
def fetched_words(
    fetched_at: np.ndarray, origin: np.ndarray, offset: np.ndarray, rows: int, col_folds: int, capacity: int
) -> int:
    """Words fetched by all folds; the buffer is emptied whenever `capacity` words have been fetched into it.

    Args:
        fetched_at: Per address, int64: since which emptying it is in the buffer. Negative: never was; the largest
            int64: there is no such word. Written to.
        origin: Address of the first input of every output position.
        offset: Address of every weight's input, counted from the origin.
        rows: Rows of the array, one output position each.
        col_folds: How often all positions pass.
        capacity: Words after which the buffer is emptied.
    """
    n_positions, depth = len(origin), len(offset)
    n_fetched, n_held, emptied = 0, 0, 0
    for _ in range(col_folds):
        for first in range(0, n_positions, rows):
            n_rows = min(rows, n_positions - first)
            for cycle in range(depth + n_rows - 1):
                for row in range(max(0, cycle - depth + 1), min(n_rows, cycle + 1)):
                    address = origin[first + row] + offset[cycle - row]
                    if fetched_at[address] < emptied:
                        fetched_at[address] = emptied
                        n_fetched += 1
                        n_held += 1
                        if n_held == capacity:
                            n_held = 0
                            emptied += 1
    return n_fetched

"""Fully connected layers that take the positions of a map one by one: what passes a PE, and the sum over positions.

A PE sees every position that arrives and reads those that it has rows of. What they convert to is
summed in the accumulator of the PE's own tile; the sum leaves with the last of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from archsim.components import accumulator
from archsim.components.netlist import Action
from archsim.engine.construction import Construction, Tokens
from archsim.mapping import LayerMapping, PePlace


def emits(passing: Tokens, mine: Tokens) -> np.ndarray | None:
    """Which of the tokens that pass a PE it has rows for, bool; None for all of them."""
    if mine.labels is None or mine.number == passing.number:
        return None
    return np.isin(np.arange(passing.number), mine.labels)


def passing_by(actions: tuple[Action, ...], passing: Tokens, mine: Tokens) -> tuple[Action, ...]:
    """Actions on the tokens that a PE has rows for as actions on all that pass; the others take nothing."""
    if mine.labels is None or mine.number == passing.number:
        return actions

    def spread(values: np.ndarray) -> np.ndarray:
        everywhere = np.zeros(passing.number, values.dtype)
        everywhere[mine.labels] = values
        return everywhere

    return tuple(
        replace(
            action,
            duration_ps=spread(action.duration_ps),
            count=spread(action.count),
            bits=spread(action.bits),
            energy_pj=spread(action.energy_pj),
        )
        for action in actions
    )


def add_running_sum(build: Construction, layer: LayerMapping, pe: PePlace, inbox: int, outbox: int) -> None:
    """Sum a PE's conversions over its positions; one vector per frame goes on."""
    tile, tokens = f"tile{pe.tile}", build.row_tokens(layer, pe.row_block)
    width = layer.width_of(pe)
    per_frame = tokens.number // build.read_frames(layer).number
    number = np.arange(tokens.number) % per_frame
    n_values = np.where(number == 0, width, 2 * width)
    add = accumulator.add_action(build.hardware, tile, tokens.number, n_values, width)
    lane = build.layer_lane(f"{pe.path}.running_sum", layer, (add,), tokens, inputs=(inbox,), output=outbox)
    lane.emit = number == per_frame - 1
    build.shared(f"{tile}.accumulator").lanes.append(lane)

"""Sums of a column block's PEs on their way together: which are silent, what is added, where index tables say to."""

from __future__ import annotations

import numpy as np

from archsim.activity import ReadActivity
from archsim.components import accumulator
from archsim.components.netlist import Action
from archsim.engine.construction import Construction
from archsim.mapping import LayerMapping, PePlace
from archsim.mapping.squeeze import table_bits


def silent_tokens(
    build: Construction, layer: LayerMapping, row_block: int, reads: ReadActivity | None
) -> np.ndarray | None:
    """Tokens of which a row block sends a flag instead of sums, bool; None: of none.

    Sums over the positions of a streamed map always leave.
    """
    if build.hardware.tile.silent_sums == "send" or reads is None or layer.streamed_map is not None:
        return None
    served = build.row_tokens(layer, row_block).labels
    slices = reads.active_slices[:, row_block]
    return (slices if served is None else slices[served]) == 0


def accumulate_actions(
    build: Construction, layer: LayerMapping, block: int, reads: ReadActivity | None, n_joining: int
) -> tuple[Action, ...]:
    """What the accumulator of a column block does with each token: read index tables, if there are any, and add.

    Args:
        build: The netlist under construction.
        layer: A copy of a layer.
        block: Number of the column block.
        reads: What the layer's rows see; None for digital units.
        n_joining: Vectors of all outputs that join from other layers.
    """
    tile, pes = f"tile{layer.home_tile(block)}", layer.pes_of(block)
    n_tokens = build.tokens(layer, build.read_frames(layer)).number
    silent = [silent_tokens(build, layer, pe.row_block, reads) for pe in pes]
    first, last = layer.col_blocks[block]
    if layer.squeeze != "columns":
        n_vectors = n_joining + len(pes) - sum(mine.astype(np.int64) for mine in silent if mine is not None)
        outputs = np.minimum(n_vectors, 1) * (last - first)
        return (accumulator.add_action(build.hardware, tile, n_tokens, n_vectors * (last - first), outputs),)
    sent = np.stack([np.full(n_tokens, True) if mine is None else ~mine for mine in silent], axis=1)
    patterns, which = np.unique(sent, axis=0, return_inverse=True)
    arriving = patterns @ _held(layer, pes, first, last) + n_joining
    tables = np.array([table_bits(layer, pe) for pe in pes])
    hardware, at = build.hardware, which.reshape(-1)
    return (
        accumulator.index_action(hardware, tile, n_tokens, patterns.sum(1)[at], (patterns @ tables)[at]),
        accumulator.add_action(hardware, tile, n_tokens, arriving.sum(1)[at], (arriving > 0).sum(1)[at]),
    )


def _held(layer: LayerMapping, pes: tuple[PePlace, ...], first: int, last: int) -> np.ndarray:
    """Which outputs of a column block each PE sends, 0 or 1, int64, shape (pe, output)."""
    held = np.zeros((len(pes), last - first), np.int64)
    for index, pe in enumerate(pes):
        held[index, np.array(layer.outputs_of(pe)) - first] = 1
    return held

"""Layers without weights on the chip: in the product unit of a tile, or on crossbars rewritten for every frame.

Both wait for the whole frame of the operand, which the line buffer keeps together with the source's
(`geometry.needs_and_uses`). A crossbar is written before the first token of a frame is read.
"""

from __future__ import annotations

import numpy as np

from archsim.activity import LayerActivity
from archsim.components import crossbar, product_unit
from archsim.components.netlist import Action
from archsim.engine.construction import Construction
from archsim.engine.intake import Intake
from archsim.mapping import LayerMapping, PePlace
from archsim.mapping.rules import cols_of
from archsim.workload.network import Layer


def add_product_unit(build: Construction, intake: Intake, layer: LayerMapping, unit: PePlace, output: int) -> None:
    """Compute a layer in a product unit, which leaves its sums in a latch."""
    spec = layer.layer
    values = build.activity.layers[spec.name]
    load = product_load(
        spec, values, spec.in_shape[0] * build.emission.input_bits(layer), build.emission.operand_bits(layer)
    )
    actions = product_unit.multiply_actions(build.hardware, f"tile{unit.tile}", unit.path, load)
    reader = (intake.buffer(layer, unit.tile), 0)
    # the operand is in use to the end of the service
    lane = build.layer_lane(unit.path, layer, actions, reader=reader, release_after=len(actions), output=output)
    build.netlist.server(unit.path, "private", lane)


def product_load(layer: Layer, values: LayerActivity, token_bits: int, operand_bits: int) -> product_unit.ProductLoad:
    """What every token of a product layer asks of a unit, in order of sample, step and position."""
    assert values.operand is not None, "products have operands"
    active = values.inputs != 0
    ones = sum((values.operand >> bit) & 1 for bit in range(operand_bits))
    additions = layer.products(active, np.asarray(ones)).sum(axis=2).ravel()
    return product_unit.ProductLoad(
        n_tokens=len(additions),
        token_bits=token_bits,
        row_bits=layer.out_channels // layer.groups * operand_bits,
        active_values=active.sum(axis=2, dtype=np.int64).ravel(),
        additions=additions,
    )


def rewrite_actions(build: Construction, layer: LayerMapping, pe: PePlace) -> tuple[Action, Action]:
    """Fetch a PE's part of the operand and write it, at the first token of every frame.

    Rows that belong to other heads stay zero and are not written.
    """
    hardware, (first, last) = build.hardware, layer.col_blocks[pe.col_block]
    tokens = build.tokens(layer, build.every_frame)
    n_rows = sum(
        layer.layer.connects((row, row + 1), (first, last))
        for rows in layer.row_blocks[pe.row_block]
        for _, _, first_row, last_row in rows
        for row in range(first_row, last_row)
    )
    n_cols = cols_of(hardware, layer.layer, last - first)
    begins = np.arange(tokens.number) % tokens.positions == 0
    load = product_unit.load_operand_action(hardware, f"tile{pe.tile}", pe.path, tokens.number, n_rows * (last - first))
    return load.only(begins), crossbar.write_action(hardware, pe.path, tokens.number, n_rows, n_cols).only(begins)

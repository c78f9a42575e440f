"""How a network is put on a chip of crossbars: the section `mapping` of a hardware file, key by key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from archsim.hardware.platform import Auto, LayerName, Part


class MappingPolicy(Part):
    """How a network is put on the chip."""

    layout: Literal["kernel_position", "dense"] = "kernel_position"
    """`kernel_position`: a crossbar per kernel position and channel block (SpikeSim); `dense`: rows unrolled."""
    weight_bits: Annotated[int, Field(ge=2, le=16)] = 4
    """Bits of a mapped weight, sign included."""
    replication: Literal["none", "balance"] | Annotated[int, Field(ge=1, le=1024)] = "none"
    """Copies of a convolution: `none`, a number, or as many as spare tiles allow for the slowest (`balance`); layers
    that join, come back or are fully connected have one."""
    layer_replication: dict[LayerName, Annotated[int, Field(ge=1, le=1024)]] = Field(default={})
    """Copies of single convolutions, by name of the layer; these stand before `replication`."""
    share_tiles: bool = False
    """`false`: a tile holds PEs of one layer; `true`: a layer goes on where the one before ended."""
    placement: Literal["snake", "traffic"] = "snake"
    """`snake`: tiles in order of layers, row by row; `traffic`: tiles swapped until bits x hops falls no further."""
    overflow: Literal["error", "reload"] = "error"
    """Weights that do not fit: an `error` that says how much is missing, or the layers take turns on the tiles, which
    are written anew for every round (`reload`; it needs a schedule that stages frames)."""
    bias: Literal["digital", "row"] = "digital"
    """`digital`: biases are added before the neuron update; `row`: cells of one more row hold them, driven with input
    bit 0 of every token and quantised with the weights' scale, so larger ones are clipped and counted."""
    unused_cells: Literal["g_min", "open"] = "g_min"
    """Cells beside the weights of a crossbar that is not full: at level 0 (`g_min`) or without conductance (`open`)."""
    calibration: Literal["none", "layer", "tile", "column", "batch_norm"] = "layer"
    """Digital gain fitted on the calibration batch: one per layer, per PE position (`tile`), per column, or none;
    `batch_norm` adds a scale and an offset of every output channel that restore its mean and spread."""
    input_coding: Literal["binary", "bit_serial"] = "bit_serial"
    """`binary`: rows see 0 or 1, larger values are clipped and counted; `bit_serial`: one read per input bit."""
    input_bits: Annotated[int, Field(ge=1, le=16)] | Auto = "auto"
    """Input bits per value with bit_serial; `auto` follows the recorded maximum, a number clips and counts."""
    first_layer: Literal["repeat", "once", "digital"] = "repeat"
    """Direct-coded input: the first layer is read again at every timestep (`repeat`), or at the first one only and
    its sums are kept in V_mem memory (`once`); or MAC units compute it without crossbars, exactly, with quantised
    weights (`digital`), also once where every timestep has the same input."""
    dynamic_products: Literal["digital", "rewrite"] = "digital"
    """Products of two activities (attention): exact in a unit of the tile (`digital`), or on crossbars into which one
    of the two is written in every timestep (`rewrite`)."""
    operand_bits: Annotated[int, Field(ge=1, le=16)] = 1
    """Bits of a value that dynamic_products: rewrite writes to cells; larger values are clipped and counted."""
    encoding: Literal["standard", "high_resistance", "twos_complement"] = "standard"
    """What cells store of weights: `standard` as crossbar.signed says, or the same weights with cells that conduct less
    (`high_resistance`): with `diff` a column of a PE (of a crossbar, with column_merge: digital) stores w or -w and
    lifts what is negative by no more than it needs, with `offset` the reference of a PE is no more than it needs;
    `twos_complement`: with `diff`, lifts of 2^weight_bits. Differential pairs have a cell at level 0 already."""
    polarity: Literal["as_is", "per_crossbar"] = "as_is"
    """`per_crossbar`: slice by slice, a crossbar (with column_merge: analog all of a PE, which share bit lines) stores
    largest level - level where its cells then conduct less; sums count negative, and driven rows are counted, or with
    `offset` the reference is swapped too. Not for differential schemes."""
    squeeze: Literal["none", "rows", "columns"] = "none"
    """What pruning left empty is left out, whatever the layout. `rows`: each column block packs only rows with a weight
    to it; index tables in the PEs say which input drives a row. `columns`: each PE packs only columns with a weight on
    its rows, of wider column blocks; tables at the accumulators say which output a column adds to."""
    early_exit: Literal["none", "drain", "squash", "wait"] = "none"
    """Whether a sample ends once the network is sure of it, and what becomes of later timesteps that began before: they
    run on (`drain`), or start no further service (`squash`); with `wait` none begins before the one before it has been
    judged."""
    exit_confidence: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Confidence from which a sample ends: the largest softmax of exit_gain x outputs / timesteps (DT-SNN)."""
    exit_gain: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Factor of the outputs that confidence is found from: that of the logits in the training's loss."""
    fc: Literal["whole", "stream"] = "whole"
    """`whole`: a fully connected layer waits for the whole frame of a timestep; `stream`: every position that arrives
    drives its own rows, and what each of its reads converts to is added digitally. Recurrent ones stay whole."""
    schedule: Literal["pipelined", "layer_by_layer", "tick_batched"] = "pipelined"
    """`pipelined`: layers overlap as data allows; else frames are staged in the global buffer, and a layer starts
    with a whole frame (`layer_by_layer`) or with those of all timesteps (`tick_batched`)."""

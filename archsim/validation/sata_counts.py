"""Cycles and accesses of a layer on a systolic array, as SATA_Sim counts them: SCALE-Sim v2 in closed form.

A convolution is a product of matrices: output positions x weights of a filter, by weights x filters. Where outputs
are stationary, positions lie along the rows and filters along the columns of the array; where weights are, weights
of a filter lie along the rows. SATA_Sim reads cycles, input and output traffic off an output-stationary run and
everything about filters off a weight-stationary one, both on an array that never waits for memory.

Source: RuokaiYin/SATA_Sim (d447058), scale-sim/run.py:135-168 and its copy of SCALE-Sim v2 (read_buffer_estimate_bw.py,
systolic_compute_os.py). Equal to the results stored there, with two exceptions: SATA_Sim adds a few words to
`dram_ofmap_writes` where an output map overflows half its buffer, and stops `array cols - used cols` cycles before
`os_stop` where the last fold leaves columns unused.

Defects kept here on purpose, and only here:
- an output-stationary fold is one row short of SCALE-Sim's published 2R + C + T - 2;
- padding is left out, so a padded 3 x 3 convolution loses a frame of positions;
- output writes to SRAM count R + C words more per fold;
- `ws_filter_span` is the time over which a whole weight-stationary run reads weights, not the time to load them;
- the input buffer is emptied as a whole whenever its active half has filled up;
- one fold waits for the last to drain, and no fetch ever stalls the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from archsim.errors import WorkloadError
from archsim.units import ceil_div
from archsim.workload.table_rows import LARGEST, Faults, Row, raise_faults, read_rows

ROWS, COLS = 16, 8
IFMAP_BYTES = 32 * 1024
_SETS, _ACTIVE_SETS = 100, 50
_ALWAYS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LayerShape:
    """A layer as SCALE-Sim sees it, without padding; fully connected layers have a 1 x 1 map and kernel."""

    in_height: int
    in_width: int
    in_channels: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride: int = 1

    @property
    def out_height(self) -> int:
        """Output rows, the last of which may reach beyond the input map."""
        return ceil_div(self.in_height - self.kernel_height + self.stride, self.stride)

    @property
    def out_width(self) -> int:
        """Output columns, the last of which may reach beyond the input map."""
        return ceil_div(self.in_width - self.kernel_width + self.stride, self.stride)

    @property
    def positions(self) -> int:
        """Output positions."""
        return self.out_height * self.out_width

    @property
    def depth(self) -> int:
        """Weights of one filter."""
        return self.kernel_height * self.kernel_width * self.in_channels


@dataclass(frozen=True)
class LayerCounts:
    """Cycles, and words read and written, of one layer at one timestep."""

    os_stop: int
    """Cycle of the last output of the output-stationary run."""
    ws_filter_span: int
    """Cycles between the first and the last read of a weight in the weight-stationary run."""
    sram_ifmap_reads: int
    sram_filter_reads: int
    sram_ofmap_writes: int
    dram_ifmap_reads: int
    dram_filter_reads: int
    dram_ofmap_writes: int

    def __add__(self, other: LayerCounts) -> LayerCounts:
        return LayerCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


def layer_counts(layer: LayerShape, rows: int = ROWS, cols: int = COLS, ifmap_bytes: int = IFMAP_BYTES) -> LayerCounts:
    """Counts of one layer.

    Args:
        layer: Its shape.
        rows: Rows of the array.
        cols: Columns of the array.
        ifmap_bytes: Input buffer in bytes, one word each.
    """
    positions, depth, filters = layer.positions, layer.depth, layer.out_channels
    col_folds = ceil_div(filters, cols)
    os_folds = ceil_div(positions, rows) * col_folds
    ws_folds = ceil_div(depth, rows) * col_folds
    return LayerCounts(
        os_stop=os_folds * (rows + cols + depth - 2) - 1,
        ws_filter_span=ws_folds * (2 * rows + cols + positions - 2) - (rows + cols + positions - 2) - 1,
        sram_ifmap_reads=positions * depth * col_folds,
        sram_filter_reads=depth * filters,
        sram_ofmap_writes=positions * filters + os_folds * (rows + cols),
        dram_ifmap_reads=dram_ifmap_reads(layer, rows, cols, ifmap_bytes),
        dram_filter_reads=depth * filters,
        dram_ofmap_writes=positions * filters,
    )


def dram_ifmap_reads(layer: LayerShape, rows: int, cols: int, ifmap_bytes: int) -> int:
    """Words that the output-stationary run fetches into its input buffer.

    Row p of a fold asks for weight k's input at cycle k + p, fold after fold. A word is fetched unless it was
    fetched since the buffer was last emptied, which happens when half of it is full: 50 of 100 sets of
    floor(bytes / 100) words.
    """
    from archsim.validation.sata_buffer import fetched_words  # imports numba

    reach_height = (layer.out_height - 1) * layer.stride + layer.kernel_height
    reach_width = (layer.out_width - 1) * layer.stride + layer.kernel_width
    fetched_at = np.full((reach_height, reach_width, layer.in_channels), _ALWAYS)
    fetched_at[: layer.in_height, : layer.in_width] = -1
    address = np.arange(fetched_at.size).reshape(fetched_at.shape)
    origin = address[:: layer.stride, :: layer.stride, 0][: layer.out_height, : layer.out_width]
    offset = address[: layer.kernel_height, : layer.kernel_width]
    return int(
        fetched_words(
            fetched_at.ravel(),
            origin.ravel().copy(),
            offset.ravel().copy(),
            rows,
            ceil_div(layer.out_channels, cols),
            _ACTIVE_SETS * (ifmap_bytes // _SETS),
        )
    )


def table_counts(path: Path) -> Iterator[tuple[Row, LayerCounts]]:
    """Counts of every row of a layer table.

    Raises:
        WorkloadError: There is no such file, it is faulty, or a kernel does not fit on its map without padding.
    """
    if not path.is_file():
        raise WorkloadError(f"{path}: no such file; give a layer table (.csv)")
    faults: Faults = []
    rows = read_rows(path, faults)
    shapes = [_shape(row, faults) for row in rows]
    raise_faults(path, faults)
    for row, shape in zip(rows, shapes, strict=True):
        yield row, layer_counts(shape)


def _shape(row: Row, faults: Faults) -> LayerShape:
    channels, height, width = row.in_shape
    shape = LayerShape(height, width, channels, row.out_channels, *row.kernel, row.stride)
    if min(shape.out_height, shape.out_width) < 1:
        found = f"kernel {row.kernel[0]} x {row.kernel[1]} is larger than its map of {height} x {width}"
        faults.append((row.line, f"{found}; SATA_Sim has no padding"))
    elif max(channels * height * width, shape.depth * row.out_channels, shape.positions * row.out_channels) > LARGEST:
        faults.append((row.line, f"layer {row.name!r} has more than {LARGEST} inputs, weights or outputs"))
    return shape

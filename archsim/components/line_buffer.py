"""Line buffer of a tile: which input positions a token needs, and how long they are kept.

Positions stream in raster order, frame after frame. The buffer holds `rows` rows of the input map;
a fully connected layer has no rows, it waits for the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import cycles_ps, priced_action
from archsim.errors import MappingError
from archsim.eventlog import DataClass, Movement
from archsim.hardware.models import Hardware
from archsim.units import bits_for, ceil_div


@dataclass(frozen=True)
class Window:
    """Geometry of one layer's reads: sliding window over a map, or (kernel None) the whole frame."""

    map_hw: tuple[int, int]
    output_hw: tuple[int, int]
    kernel: tuple[int, int] | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def n_inputs(self) -> int:
        """Input positions of a frame."""
        return self.map_hw[0] * self.map_hw[1]

    @property
    def n_outputs(self) -> int:
        """Tokens of a frame."""
        return self.output_hw[0] * self.output_hw[1]


def needed_positions(window: Window, n_frames: int) -> np.ndarray:
    """Last input position that each token needs, int64, counted over all frames."""
    if window.kernel is None:
        frame = np.full(window.n_outputs, window.n_inputs - 1)
    else:
        y, x = np.divmod(np.arange(window.n_outputs), window.output_hw[1])
        row = _clip(y * window.stride[0] + window.kernel[0] - 1 - window.padding[0], window.map_hw[0])
        col = _clip(x * window.stride[1] + window.kernel[1] - 1 - window.padding[1], window.map_hw[1])
        frame = np.maximum.accumulate(row * window.map_hw[1] + col)
    return over_frames(frame, window.n_inputs, n_frames)


def last_uses(window: Window, n_frames: int) -> np.ndarray:
    """Last token that reads each input position, int64, counted over all frames."""
    if window.kernel is None:
        frame = np.full(window.n_inputs, window.n_outputs - 1)
    else:
        y, x = np.divmod(np.arange(window.n_inputs), window.map_hw[1])
        row = _clip((y + window.padding[0]) // window.stride[0], window.output_hw[0])
        col = _clip((x + window.padding[1]) // window.stride[1], window.output_hw[1])
        frame = np.maximum.accumulate(row * window.output_hw[1] + col)
    return over_frames(frame, window.n_outputs, n_frames)


def delayed_needs(need: np.ndarray, window: Window, is_first: np.ndarray) -> np.ndarray:
    """Needs of a layer that reads the frame of the timestep before; nothing at a sample's first timestep.

    `is_first` says of every frame whether it is that of a first timestep.
    """
    frames = need.reshape(-1, window.n_outputs) - window.n_inputs
    before = np.maximum((np.arange(len(frames)) - 1) * window.n_inputs - 1, -1)
    return np.where(is_first[:, None], before[:, None], frames).ravel()


def delayed_uses(last_use: np.ndarray, window: Window) -> np.ndarray:
    """Last uses of positions that are read one timestep later."""
    return last_use + window.n_outputs


def minimum_capacity(window: Window, by_rows: bool = False) -> int:
    """Fewest positions that let every token of a layer be served; see `least_capacity`."""
    return least_capacity(window, needed_positions(window, 2), last_uses(window, 2), by_rows)


def least_capacity(window: Window, need: np.ndarray, last_use: np.ndarray, by_rows: bool = False) -> int:
    """Fewest positions that let every token be served: no token may need one that has no room yet.

    `by_rows`: silent positions are known only when the row's last position arrives (address events).

    Before token g is fetched, released(g) positions are free again, those last used before g; its
    last input position need[g] can only be sent if need[g] < released(g) + capacity.
    """
    if by_rows:
        need = (need // window.map_hw[1] + 1) * window.map_hw[1] - 1
    released = np.searchsorted(last_use, np.arange(len(need)), side="left")
    return int((need + 1 - released).max())


def capacity(
    hardware: Hardware, layer: str, window: Window, least: int | None = None, whole_frames: bool = False
) -> int:
    """Positions that the tile buffer of a layer holds.

    Args:
        hardware: The chip.
        layer: Name, for the message.
        window: Geometry of the layer's reads.
        least: Positions without which the layer cannot be served; by default those of a plain layer.
        whole_frames: Whether `auto` takes two frames instead of kernel + stride rows.

    Raises:
        MappingError: `tile.line_buffer.rows` is too small for the layer; the message gives the minimum.
    """
    width, rows = window.map_hw[1], hardware.tile.line_buffer.rows
    least = minimum_capacity(window) if least is None else least
    if rows == "auto":
        if window.kernel is None or whole_frames:
            return max(least, 2 * window.n_inputs)
        return max(least, (window.kernel[0] + window.stride[0]) * width)
    if rows * width < least:
        raise MappingError(
            f"tile.line_buffer.rows is {rows}; layer '{layer}' needs at least {ceil_div(least, width)} rows "
            f"of {width} positions. Raise it or set it to auto."
        )
    return rows * width


def read_actions(
    hardware: Hardware,
    buffer: str,
    pe: str,
    data_class: DataClass,
    n_tokens: int,
    n_crossbars: int | np.ndarray,
    n_bits: int,
    active_rows: np.ndarray,
) -> tuple[Action, Action]:
    """Load the row registers of the PE's crossbars that are read from the tile buffer, once per input bit.

    Whole registers take the time of all the PE's. Compressed, a token sends the addresses of its driven
    rows, or the bitmap where that is shorter (on sideband wires: which of them; assumption). A silent token
    takes the one cycle in which its emptiness is seen.
    """
    pe_spec = hardware.tile.pe
    n_rows = pe_spec.crossbars * pe_spec.crossbar.rows
    bits: int | np.ndarray = n_crossbars * pe_spec.crossbar.rows * n_bits
    moved: int | np.ndarray = n_rows * n_bits
    if pe_spec.fetch == "compressed":
        moved = bits = np.minimum(bits, active_rows * bits_for(n_rows - 1))
    cycles = np.maximum(1, -(-moved // pe_spec.fetch_bits_per_cycle))
    return (
        priced_action(
            hardware,
            buffer,
            ("tile_buffer", "read"),
            n_tokens,
            count=n_bits,
            bits=bits,
            movement=Movement(buffer, pe, data_class, "tile_buffer"),
        ),
        priced_action(
            hardware,
            f"{pe}.fetch",
            ("fetch", "latch"),
            n_tokens,
            duration_ps=cycles_ps(cycles, hardware.chip.clock_mhz),
            count=n_bits,
            bits=bits,
        ),
    )


def index_action(hardware: Hardware, pe: str, n_tokens: int, table_bits: int, n_bits: int) -> Action:
    """Read the index table of a squeezed PE, once per input bit, in the cycles of the fetch (assumption)."""
    return priced_action(
        hardware, f"{pe}.index_table", ("index_table", "read"), n_tokens, count=n_bits, bits=table_bits * n_bits
    )


def write_action(
    hardware: Hardware, buffer: str, source: str, data_class: DataClass, n_tokens: int, bits: int | np.ndarray
) -> Action:
    """Store an arriving packet; the ejection port sets the pace, so it takes no time of its own."""
    movement = Movement(source, buffer, data_class, "tile_buffer")
    return priced_action(hardware, buffer, ("tile_buffer", "write"), n_tokens, bits=bits, movement=movement)


def _clip(values: np.ndarray, size: int) -> np.ndarray:
    return np.clip(values, 0, size - 1)


def over_frames(frame: np.ndarray, per_frame: int, n_frames: int) -> np.ndarray:
    """Numbers within a frame as numbers over all frames, int64; `per_frame` is what one frame counts."""
    return (np.arange(n_frames, dtype=np.int64)[:, None] * per_frame + frame).ravel()

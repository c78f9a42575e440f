"""Rounds: layers that do not fit on the chip at once take turns on its tiles.

The network is placed as if there were tiles enough, and the row of tiles is cut into rounds. A layer stays in one
round if the chip can hold it, else its column blocks are dealt out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.mapping.model import LayerMapping, PePlace
from archsim.workload.network import Network


def fold(hardware: Hardware, network: Network, layers: Sequence[LayerMapping], n_tiles: int) -> list[LayerMapping]:
    """Cut a placement on any number of tiles into rounds on `n_tiles` tiles.

    A digital layer is not written, so it opens no round of its own, and its units are not shared with other rounds.

    Raises:
        MappingError: The schedule keeps no frames between rounds, the network is recurrent, or a column block alone
            needs more tiles than there are; the message gives a way out.
    """
    _require_frames(hardware, network, layers, n_tiles)
    folded: list[LayerMapping] = []
    first_tile, number, has_pes = 0, 0, False
    for layer in layers:
        pes: list[PePlace] = []
        for unit in _units(layer, n_tiles):
            if unit[-1].tile - first_tile >= n_tiles:
                first_tile, number, has_pes = unit[0].tile, number + has_pes, False
            if unit[-1].tile - first_tile >= n_tiles:
                raise MappingError(_too_large(hardware, layer, unit, n_tiles))
            turn = [replace(pe, tile=pe.tile - first_tile, round=number) for pe in unit]
            pes += _numbered(turn, folded) if layer.is_digital else turn
            has_pes = has_pes or not layer.is_digital
        folded.append(replace(layer, pes=tuple(pes)))
    return folded


def _units(layer: LayerMapping, n_tiles: int) -> Iterator[tuple[PePlace, ...]]:
    """What stays together: the layer, or each column block of each copy where the layer is larger than the chip."""
    if layer.tiles[-1] - layer.tiles[0] < n_tiles:
        yield layer.pes
        return
    for key in dict.fromkeys((pe.copy, pe.col_block) for pe in layer.pes):
        yield tuple(pe for pe in layer.pes if (pe.copy, pe.col_block) == key)


def _numbered(units: list[PePlace], folded: list[LayerMapping]) -> list[PePlace]:
    """Digital units of a layer in one tile, counted on behind those of other layers, whatever their round."""
    first = sum((one.tile, one.unit) == (units[0].tile, units[0].unit) for item in folded for one in item.pes)
    return [replace(unit, pe=first + index) for index, unit in enumerate(units)]


def _require_frames(hardware: Hardware, network: Network, layers: Sequence[LayerMapping], n_tiles: int) -> None:
    needed = max(layer.tiles[-1] for layer in layers) + 1
    shortage = f"network '{network.name}' needs {needed} tiles, chip '{hardware.name}' has {n_tiles}"
    if hardware.mapping.schedule == "pipelined":
        raise MappingError(
            f"{shortage}; mapping.overflow is reload, which keeps frames in the global buffer from round to round, but "
            f"mapping.schedule is pipelined. Set mapping.schedule: tick_batched or layer_by_layer, or raise chip.tiles "
            f"to {needed}."
        )
    for layer in layers:
        if layer.layer.delayed:
            raise MappingError(
                f"{shortage}; mapping.overflow is reload, but layer '{layer.layer.name}' (delayed: true) keeps a frame "
                f"in its tile for the next timestep while other rounds use the tile. Raise chip.tiles to {needed}."
            )


def _too_large(hardware: Hardware, layer: LayerMapping, block: Sequence[PePlace], n_tiles: int) -> str:
    least = block[-1].tile - block[0].tile + 1
    return (
        f"one column block of layer '{layer.layer.name}' has {len(block)} PEs and needs {least} tiles of "
        f"{hardware.tile.pes} PEs; chip '{hardware.name}' has {n_tiles}. With mapping.overflow: reload, a column block "
        f"is written at once: raise chip.tiles to {least} at least."
    )

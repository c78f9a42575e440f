"""What every layer puts on the wire: width of a value, which positions are sent, bits of a packet.

With bitmaps every position is sent, one value per channel. With address events silent positions are
not, and since silence cannot be seen, the last position of a row always is. Copies of a layer send the
positions they serve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from archsim.activity import Activity
from archsim.engine import geometry
from archsim.mapping import LayerMapping, Mapping
from archsim.units import bits_for


@dataclass(frozen=True)
class Source:
    """Who fills a line buffer: a column block of one copy of the layer before."""

    block: int
    copy: int


class Emission:
    """Emissions of all layers for one activity; what is asked twice is worked out once."""

    def __init__(self, mapping: Mapping, activity: Activity) -> None:
        self.mapping = mapping
        self.activity = activity
        self.n_frames = len(activity.frames[0])
        self._sent: dict[tuple[str, int, int], np.ndarray] = {}

    def input_bits(self, layer: LayerMapping) -> int:
        """Bits of one input value of a layer."""
        return geometry.input_bits(self.mapping, layer, self.activity.layers[layer.layer.name])

    def operand_bits(self, layer: LayerMapping) -> int:
        """Bits of one value of a product's operand; as many as its cells take where it is written to crossbars."""
        if not layer.is_digital:
            return self.mapping.hardware.mapping.operand_bits
        return self.activity.layers[layer.layer.name].operand_bits

    def output_bits(self, layer: LayerMapping) -> int:
        """Width of one value on the wire: what readers take, a shortcut adds, or the output port stores."""
        name, spec = layer.layer.name, layer.layer
        if spec.neuron.kind == "none":
            return self.mapping.hardware.tile.accumulator.bits
        if spec.neuron.kind == "accumulate":
            return self.mapping.hardware.chip.neuron.v_mem_bits
        consumers = self.mapping.consumers(name)
        widths = [self.input_bits(consumer) for consumer in consumers if consumer.layer.source == name]
        widths += [self.operand_bits(consumer) for consumer in consumers if consumer.layer.operand == name]
        if self.mapping.is_output(spec) or self.mapping.joiners(name):
            largest = int(self.activity.layers[name].spikes.max(initial=0))
            widths.append(bits_for(largest * (math.prod(spec.pool.kernel) if spec.pool else 1)))
        return max(widths)

    def _emitted(self, layer: LayerMapping, block: int) -> np.ndarray:
        """Spike counts of a column block behind pooling, shape (position of all frames, channel)."""
        first, last = layer.col_blocks[block]
        counts = layer.layer.emitted(self.activity.layers[layer.layer.name].spikes[:, :, first:last])
        return np.moveaxis(counts, 2, -1).reshape(-1, last - first)

    def sent(self, layer: LayerMapping, block: int) -> np.ndarray | None:
        """Positions (over all frames) that a column block of a copy sends; None for all positions there are."""
        by_address = geometry.sends_addresses(self.mapping, layer.layer.name)
        if layer.n_copies == 1 and not by_address:
            return None
        key = (layer.layer.name, block, layer.copy)
        if key not in self._sent:
            duty = geometry.copy_outputs(layer, self.n_frames)
            if by_address:
                width = layer.layer.out_shape[2]
                fired = np.asarray(self._emitted(layer, block).any(axis=1))[duty]
                ends_row = np.append(duty[1:] // width != duty[:-1] // width, True)
                duty = duty[fired | ends_row]
            self._sent[key] = duty
        return self._sent[key]

    def sends(self, layer: LayerMapping, block: int) -> np.ndarray | None:
        """Whether a copy sends each position that it has (over all frames), bool; None for all of them."""
        sent = self.sent(layer, block)
        if sent is None or not geometry.sends_addresses(self.mapping, layer.layer.name):
            return None
        return np.isin(geometry.copy_outputs(layer, self.n_frames), sent)

    def packet_bits(self, layer: LayerMapping, block: int, labels: np.ndarray | None) -> int | np.ndarray:
        """Bits of a packet: a value per channel; by address, one per spiking channel, its count where that can exceed
        one, and an end mark."""
        first, last = layer.col_blocks[block]
        value_bits = self.output_bits(layer)
        if labels is None or not geometry.sends_addresses(self.mapping, layer.layer.name):
            return (last - first) * value_bits
        per_spike = bits_for(last - first - 1) + (value_bits if value_bits > 1 else 0)
        return 1 + per_spike * np.count_nonzero(self._emitted(layer, block)[labels], axis=1)

    def covers(self, layer: LayerMapping, sources: list[Source]) -> tuple[np.ndarray | None, ...]:
        """What each source has covered after 0, 1, 2, ... deliveries: all of its positions before its next one."""
        return tuple(self._covered_by(replace(layer, copy=source.copy), source.block) for source in sources)

    def _covered_by(self, layer: LayerMapping, block: int) -> np.ndarray | None:
        sent = self.sent(layer, block)
        if sent is None:
            return None
        duty = geometry.copy_outputs(layer, self.n_frames)
        end = self.n_frames * layer.layer.out_shape[1] * layer.layer.out_shape[2]
        after = np.append(duty, end)[np.searchsorted(duty, sent, side="right")]
        return np.concatenate([duty[:1], after])

"""What every part of the builder needs: the mapping, the activity, the netlist so far, and how lanes are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from archsim.activity import Activity
from archsim.components.line_buffer import over_frames
from archsim.components.netlist import Action, Lane, Netlist, Server
from archsim.engine import geometry
from archsim.engine.emission import Emission
from archsim.engine.transport import Transport
from archsim.errors import MappingError
from archsim.mapping import LayerMapping, Mapping


@dataclass(frozen=True)
class Frames:
    """How many frames a lane serves, and of which timesteps of a sample they are: (first, number)."""

    number: int
    steps: tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """What a lane serves: how many tokens, and of how many positions per frame."""

    number: int
    positions: int
    steps: tuple[int, int]
    labels: np.ndarray | None = None
    """Their positions over all frames; None where they are all there are."""


class Construction:
    """A netlist under construction, and the servers that several lanes share."""

    def __init__(self, mapping: Mapping, activity: Activity) -> None:
        self.mapping = mapping
        self.hardware = mapping.hardware
        self.activity = activity
        self.sample_of, self.step_of = activity.frames
        """Sample and timestep of every frame."""
        self.n_frames = len(self.sample_of)
        self.every_frame = Frames(self.n_frames, (0, activity.n_timesteps))
        self.first_frames = Frames(activity.n_samples, (0, 1))
        self.netlist = Netlist()
        self.emission = Emission(mapping, activity)
        self.transport = Transport(self.hardware, mapping.mesh_width, mapping.mesh_height, self.netlist)
        self.spilled_states = geometry.spilled_states(mapping)
        """Column blocks whose potentials are in DRAM: (layer, copy, block)."""
        self._stored_bits: dict[tuple[int, int], int] = {}
        self._shared: dict[str, Server] = {}
        self._global_buffer_bits = 0

    def channel(self, name: str) -> int:
        """Add a latch as deep as those of a PE; returns its index."""
        return self.netlist.channel(name, self.hardware.tile.pe.latch_depth)

    def shared(self, name: str) -> Server:
        """The server of a part that serves several lanes, made when first used."""
        if name not in self._shared:
            self._shared[name] = self.netlist.server(name, "shared")
        return self._shared[name]

    def store(self, tile: int, number: int, bits: int) -> None:
        """Take room in the input buffer of a tile, in one of the rounds that share it."""
        self._stored_bits[tile, number] = self._stored_bits.get((tile, number), 0) + bits

    def stored_bits(self, tile: int) -> int:
        """Bits that the input buffer of a tile must hold, in any round."""
        return max((bits for (at, _), bits in self._stored_bits.items() if at == tile), default=0)

    def require_global_buffer(self, bits: int, is_staged: bool = False) -> None:
        """Take room for frames in the global buffer: the network's input, and whatever is staged.

        Raises:
            MappingError: It is too small.
        """
        self._global_buffer_bits += bits
        kib = self.hardware.chip.global_buffer.kib
        if self._global_buffer_bits > kib * 8192:
            raise MappingError(
                f"the frames that network '{self.mapping.network.name}' keeps in the global buffer have "
                f"{self._global_buffer_bits} bits or more; chip.global_buffer.kib {kib} holds {kib * 8192}. "
                f"Raise it to {-(-self._global_buffer_bits // 8192)} at least"
                + (", or choose a chip.dram.kind that takes what is staged." if is_staged else ".")
            )

    def stays_on_chip(self, bits: int) -> bool:
        """Take room for staged frames in the global buffer; False where they do not fit and there is DRAM to spill to.

        Raises:
            MappingError: They do not fit, and there is no DRAM.
        """
        has_room = self._global_buffer_bits + bits <= self.hardware.chip.global_buffer.kib * 8192
        if has_room or not self.hardware.chip.dram.is_present:
            self.require_global_buffer(bits, is_staged=True)
            return True
        return False

    def read_frames(self, layer: LayerMapping) -> Frames:
        """Frames of which a layer's crossbars are read: all, or a sample's first where it is read once."""
        return self.first_frames if geometry.is_read_once(self.mapping, layer) else self.every_frame

    def tokens(self, layer: LayerMapping, frames: Frames) -> Tokens:
        """Output positions that a copy of a layer serves."""
        positions = geometry.window(self.mapping, layer).n_outputs
        if layer.n_copies == 1:
            return Tokens(frames.number * positions, positions, frames.steps)
        labels = geometry.copy_labels(layer, frames.number)
        return Tokens(len(labels), positions, frames.steps, labels)

    def read_tokens(self, layer: LayerMapping) -> Tokens:
        """What passes the PEs of a copy: its output positions, or the positions of a streamed map."""
        frames = self.read_frames(layer)
        if layer.streamed_map is None:
            return self.tokens(layer, frames)
        positions = geometry.read_window(self.mapping, layer).n_outputs
        return Tokens(frames.number * positions, positions, frames.steps)

    def row_tokens(self, layer: LayerMapping, row_block: int) -> Tokens:
        """Of what passes the PEs of a copy, the tokens that a row block has rows for."""
        passing = self.read_tokens(layer)
        if layer.streamed_map is None:
            return passing
        positions = geometry.streamed_positions(layer, row_block)
        if len(positions) == passing.positions:
            return passing
        labels = over_frames(positions, passing.positions, self.read_frames(layer).number)
        return replace(passing, number=len(labels), labels=labels)

    def block_name(self, layer: LayerMapping, block: int) -> str:
        """Name of what belongs to a column block of a copy."""
        copy = f".copy{layer.copy}" if layer.n_copies > 1 else ""
        return f"{layer.layer.name}.block{block}{copy}"

    def layer_lane(
        self,
        name: str,
        layer: LayerMapping,
        actions: tuple[Action, ...],
        tokens: Tokens | None = None,
        inputs: tuple[int, ...] = (),
        reader: tuple[int, int] | None = None,
        release_after: int = 0,
        output: int | None = None,
    ) -> Lane:
        """A lane that serves the output positions of a copy of a layer in every frame unless other tokens are given."""
        tokens = tokens or self.tokens(layer, self.every_frame)
        return Lane(
            name,
            layer.layer.name,
            tokens.number,
            tokens.positions,
            tokens.steps,
            actions,
            inputs,
            reader,
            release_after,
            output,
            labels=tokens.labels,
        )

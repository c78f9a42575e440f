"""What exists: the frozen models behind a hardware file, key by key.

A hardware file reads like a datasheet, outside in: chip, tile, PE (`pe`), crossbar, ADC, then the mapping
policy (`policy`). Every key has a bound, its unit in its name and one sentence below it; the sentence becomes
the description in the JSON schema. Reading files is `reader`'s job, prices are `costs`'.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archsim.errors import ConfigError
from archsim.hardware.dram import Dram
from archsim.hardware.pe import Pe
from archsim.hardware.platform import Auto, Bits, ClockMhz, Group, Part, Platform, PositiveInt, Side, Width
from archsim.hardware.policy import MappingPolicy
from archsim.units import ceil_div, cycles_of


class Noc(Part):
    """Network between tiles: virtual cut-through, multicast, a destination slot reserved for every packet."""

    topology: Literal["mesh", "tree", "bus"] = "mesh"
    """`mesh`: a router per tile, XY routing; `tree`: an H-tree, a router for every four tiles, for every four of those,
    and so on; `bus`: one packet at a time, heard by all."""
    detail: Literal["ideal", "packet", "flit"] = "packet"
    """`ideal`: zero-load latency and endless bandwidth; `packet`: one event per packet and hop, endless buffers;
    `flit`: one event per flit and hop, virtual channels with finite buffers (on a bus: like `packet`)."""
    clock_mhz: ClockMhz | Auto = "auto"
    """Clock of routers and links in MHz; `auto` takes the chip's clock."""
    flit_bits: Width = 64
    """Payload bits that a link carries per NoC cycle."""
    virtual_channels: Annotated[int, Field(ge=1, le=64)] = 4
    """Queues at the end of each link, in which packets pass each other. With `packet`, two or more count as enough for
    any number of packets."""
    vc_depth_flits: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Flits that a virtual channel holds, with `detail: flit`; a multicast packet must fit."""
    router_cycles: Annotated[int, Field(ge=1, le=1000)] = 4
    """NoC cycles from a header's grant in one router to its arrival in the next (BookSim2 default pipeline: 4)."""
    spike_encoding: Literal["bitmap", "address_event"] = "bitmap"
    """`bitmap`: a packet holds one value per channel, zeros included; `address_event`: the addresses of what spiked,
    silent positions send nothing, and the last position of a row always sends (silence cannot be seen)."""


class GlobalBuffer(Part):
    """Chip-level memory that feeds the input port and takes the outputs."""

    kib: PositiveInt = 64
    """Capacity in KiB; the input frame of one timestep must fit."""
    bits_per_cycle: Width = 256
    """Read and write width in bits per chip clock cycle."""


class Neuron(Part):
    """Neuron module: integrates, leaks, fires, resets; its V_mem lives in SRAM."""

    level: Literal["tile", "chip"] = "tile"
    """`tile`: every tile has its own neuron module; `chip`: all share one, sums travel there and spikes from there."""
    lanes: PositiveInt = 64
    """Neurons updated side by side."""
    cycles_per_update: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Chip cycles of one update of all lanes, V_mem accesses excluded."""
    v_mem_bits: Bits = 16
    """Bits of one membrane potential, sign included; values are quantised and saturate."""
    v_mem_bits_per_cycle: Width | Auto = "auto"
    """Bits that the V_mem port moves per chip cycle, reads and writes one after the other; `auto` is as wide as the
    lanes."""
    v_mem_kib: Annotated[float, Field(gt=0, le=1_000_000)] | Auto = "auto"
    """V_mem capacity of one neuron module in KiB; `auto` takes what the mapping needs."""
    shared_channels: Annotated[int, Field(ge=1, le=1024)] = 1
    """Neighbouring channels that share a unit and its potential at each position: within a timestep it leaks once, and
    each channel in turn adds its input, fires and resets. Readouts share nothing."""


class Chip(Part):
    """Everything outside the tiles."""

    clock_mhz: ClockMhz
    """Clock of tiles, PEs, neuron modules and buffers in MHz."""
    tiles: PositiveInt | Auto = "auto"
    """Number of tiles; `auto` takes what the mapping needs."""
    mesh_width: Side | Auto = "auto"
    """Columns of the mesh; `auto` makes the mesh as square as it goes."""
    mesh_height: Side | Auto = "auto"
    """Rows of the mesh; `auto` makes the mesh as square as it goes."""
    noc: Noc = Noc()
    """Network between the tiles."""
    global_buffer: GlobalBuffer = GlobalBuffer()
    """Chip-level input and output memory."""
    dram: Dram = Dram()
    """Memory behind the input and output port."""
    neuron: Neuron = Neuron()
    """Neuron module."""


class LineBuffer(Part):
    """Input buffer of a tile: rows of the layer's input frame."""

    rows: PositiveInt | Auto = "auto"
    """Input rows held; `auto` is kernel + stride rows, or two whole frames before a fully connected layer."""


class SkipBuffer(Part):
    """Holds what takes a shortcut until the main path's sums arrive."""

    tokens: PositiveInt | Auto = "auto"
    """Output positions held per column block; `auto` is the lag of the main path, a row, and the latch depth."""


class Htree(Part):
    """Tree that carries the PEs' results to the tile's accumulator; one transfer at a time."""

    bits_per_cycle: Width = 1024
    """Width in bits per chip clock cycle."""


class Accumulator(Part):
    """Adds the partial sums of the row blocks of one column block."""

    bits: Bits = 16
    """Width of a partial sum in bits, on the H-tree, on the NoC and in the adder."""
    lanes: PositiveInt = 64
    """Additions per chip clock cycle."""


class Mac(Part):
    """Digital unit that multiplies and adds, one per column block of a digital first layer."""

    lanes: PositiveInt = 64
    """Products with their additions per chip clock cycle."""


class ProductUnit(Part):
    """Digital multiply-accumulate unit for products of two activities, in tiles that need one."""

    lanes: PositiveInt = 64
    """Additions per chip clock cycle; an operand value takes one for each of its bits."""


class Tile(Part):
    """Group of PEs with their buffer, H-tree, accumulator."""

    pes: Group = 8
    """PEs in a tile."""
    line_buffer: LineBuffer = LineBuffer()
    """Input buffer."""
    skip_buffer: SkipBuffer = SkipBuffer()
    """Buffer of residual connections."""
    htree: Htree = Htree()
    """Result tree."""
    silent_sums: Literal["send", "flag"] = "send"
    """What a PE none of whose rows is driven passes on: sums of zero like any others (`send`), or one bit that says so
    (`flag`) and that nobody adds; `flag` needs zero_skip."""
    accumulator: Accumulator = Accumulator()
    """Partial-sum adder."""
    mac: Mac = Mac()
    """Digital MAC units, in tiles that hold a digital first layer."""
    product_unit: ProductUnit = ProductUnit()
    """Unit of layers that have no weights (attention)."""
    pe: Pe
    """The PEs."""

    @model_validator(mode="after")
    def _flags_need_skipped_reads(self) -> Self:
        if self.silent_sums == "flag" and not self.pe.crossbar.zero_skip:
            raise ValueError(
                "silent_sums is flag and pe.crossbar.zero_skip is false: what is read has sums to send; "
                "set pe.crossbar.zero_skip: true or silent_sums: send"
            )
        return self


class Hardware(Platform):
    """A chip of crossbars: what a hardware file of kind crossbar_chip holds."""

    kind: Literal["crossbar_chip"]
    """Platform: a chip of in-memory-computing crossbars."""
    chip: Chip
    """Clock, mesh, memories, neuron modules."""
    tile: Tile
    """The tiles, all alike."""
    mapping: MappingPolicy = MappingPolicy()
    """Mapping policy."""

    @property
    def policy(self) -> MappingPolicy:
        """How values are taken by rows and cells."""
        return self.mapping

    def cost_parameters(self, component: str) -> dict[str, float]:
        """Parameters that the entries of a component may scale with, at the values of this chip."""
        pe = self.tile.pe
        parameters: dict[str, dict[str, float]] = {
            "crossbar": {"rows": pe.crossbar.rows, "cols": pe.crossbar.cols},
            "adc": {"bits": pe.adc.bits},
            "mux": {"cols_per_adc": pe.adc.cols_per_adc},
            "accumulator": {"bits": self.tile.accumulator.bits},
            "mac": {"bits": self.mapping.weight_bits},
            "product_unit": {"bits": self.tile.accumulator.bits},
            "neuron": {"bits": self.chip.neuron.v_mem_bits},
        }
        return parameters.get(component, {})

    @model_validator(mode="after")
    def _weight_fits_the_columns(self) -> Self:
        needed = self.cols_per_weight + self.reference_cols
        if needed > self.tile.pe.crossbar.cols:
            raise ValueError(
                f"one weight takes {needed} columns ({self.mapping.weight_bits} bits, "
                f"{self.tile.pe.crossbar.bits_per_cell} per cell, signed: {self.tile.pe.crossbar.signed}); "
                f"crossbar.cols is {self.tile.pe.crossbar.cols}"
            )
        return self

    @model_validator(mode="after")
    def _pairs_of_cells_stay(self) -> Self:
        signed, policy = self.tile.pe.crossbar.signed, self.mapping
        for key, value, usual in (
            ("encoding", policy.encoding, "standard"),
            ("polarity", policy.polarity, "as_is"),
        ):
            if value != usual and self._signs == 2:
                raise ValueError(
                    f"mapping.{key} is {value} and tile.pe.crossbar.signed is {signed}, where one cell of each pair is "
                    f"at level 0 already; set mapping.{key}: {usual}, or tile.pe.crossbar.signed: diff or offset"
                )
        if policy.encoding == "twos_complement" and signed == "offset":
            raise ValueError(
                "mapping.encoding is twos_complement and tile.pe.crossbar.signed is offset, which stores no weight as "
                "it is; set mapping.encoding: standard, or tile.pe.crossbar.signed: diff"
            )
        return self

    @property
    def counts_rows(self) -> bool:
        """Whether PEs count driven rows, which undoes a swapped polarity where no reference column does."""
        return self.mapping.polarity == "per_crossbar" and self.tile.pe.crossbar.signed == "diff"

    @model_validator(mode="after")
    def _operand_fits_the_columns(self) -> Self:
        if self.cols_per_operand > self.tile.pe.crossbar.cols:
            raise ValueError(
                f"one operand value takes {self.cols_per_operand} columns (mapping.operand_bits "
                f"{self.mapping.operand_bits}, {self.tile.pe.crossbar.bits_per_cell} bits per cell); "
                f"crossbar.cols is {self.tile.pe.crossbar.cols}"
            )
        return self

    @property
    def magnitude_bits(self) -> int:
        """Bits stored per weight: `diff` and `offset` store w + 2^n in n + 1 = weight_bits bits, the others |w|."""
        return self.mapping.weight_bits - (1 if self._signs == 2 else 0)

    @property
    def _signs(self) -> int:
        """Columns for one slice of a weight: positive and negative part, or one for both."""
        return 2 if self.tile.pe.crossbar.signed.startswith("differential") else 1

    @property
    def weight_slices(self) -> int:
        """Cells that hold one stored magnitude."""
        return ceil_div(self.magnitude_bits, self.tile.pe.crossbar.bits_per_cell)

    @property
    def cols_per_weight(self) -> int:
        """Physical columns that one logical column takes."""
        return self.weight_slices * self._signs

    @property
    def reference_cols(self) -> int:
        """Physical columns of a crossbar that hold the reference of its weights."""
        return self.weight_slices if self.tile.pe.crossbar.signed == "offset" else 0

    @property
    def largest_level(self) -> int:
        """Largest level that a cell holds of a weight."""
        return (1 << min(self.tile.pe.crossbar.bits_per_cell, self.magnitude_bits)) - 1

    @property
    def largest_operand_level(self) -> int:
        """Largest level that a cell holds of an operand."""
        return (1 << min(self.tile.pe.crossbar.bits_per_cell, self.mapping.operand_bits)) - 1

    @property
    def cols_per_operand(self) -> int:
        """Physical columns that one value of an operand takes; operands are never negative."""
        return ceil_div(self.mapping.operand_bits, self.tile.pe.crossbar.bits_per_cell)

    @property
    def row_write_cycles(self) -> int:
        """Chip cycles to write one row of cells.

        Raises:
            ConfigError: They follow the cost library, and its entry has no time.
        """
        given = self.tile.pe.crossbar.write_cycles
        if given != "auto":
            return given
        latency_ns = self.library.action("crossbar", "write").latency_ns
        if latency_ns is None:
            raise ConfigError(
                f"tile.pe.crossbar.write_cycles is auto; crossbar.write of cost library '{self.library.name}' has no "
                "latency_ns. Give either of them a number."
            )
        return cycles_of(latency_ns, self.chip.clock_mhz)

    @property
    def noc_clock_mhz(self) -> float:
        """Clock of the NoC in MHz."""
        return self.chip.clock_mhz if self.chip.noc.clock_mhz == "auto" else self.chip.noc.clock_mhz

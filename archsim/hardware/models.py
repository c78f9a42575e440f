"""What exists: the frozen models behind a hardware file, key by key.

A hardware file reads like a datasheet, outside in: chip, tile, PE, crossbar, ADC, then the mapping
policy. Every key has a bound, its unit in its name and one sentence below it; the sentence becomes
the description in the JSON schema. Reading files is `reader`'s job, prices are `costs`'.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archsim.errors import ConfigError
from archsim.hardware.devices import LARGEST_DRIVE, Device, DevicePhysics
from archsim.hardware.dram import Dram
from archsim.hardware.platform import ClockMhz, Part, Platform
from archsim.units import ceil_div, cycles_of

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=1_048_576)]
Side = Annotated[int, Field(ge=1, le=1024)]
Group = Annotated[int, Field(ge=1, le=4096)]
Bits = Annotated[int, Field(ge=1, le=32)]
Resistance = Annotated[float, Field(ge=0, le=1e9)]
Switch = Annotated[bool, Field(strict=False)]
N_SIGMA = 6
"""Standard deviations that a bound on something random allows for."""
LayerName = Annotated[str, Field(min_length=1, max_length=200)]


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


class Crossbar(Part):
    """Array of memory cells: rows are word lines and inputs, cols are bit lines and outputs."""

    rows: Annotated[int, Field(ge=1, le=8192)]
    """Word lines."""
    cols: Annotated[int, Field(ge=1, le=8192)]
    """Bit lines."""
    bits_per_cell: Annotated[int, Field(ge=1, le=8)] = 4
    """Bits that one cell stores; a wider weight is cut in slices over neighbouring columns."""
    signed: Literal["diff", "differential", "differential_arrays", "offset"] = "diff"
    """`diff`: negative weights stored as w + 2^n, corrected digitally; `differential`: two
    neighbouring columns per weight; `differential_arrays`: two columns, in two arrays of half the columns; `offset`:
    every weight stored as w + 2^n, and a reference column of 2^n in every crossbar that is converted and subtracted."""
    read_cycles: PositiveInt = 2
    """Chip cycles from driving the rows to settled bit-line currents."""
    write_cycles: PositiveInt | Auto = "auto"
    """Chip cycles to write one row of cells, all columns at once; `auto` takes the time in the cost library."""
    zero_skip: Switch = True
    """Skip the read of a crossbar none of whose rows has a spike."""
    inputs: Literal["rows", "gates"] = "rows"
    """What spikes drive: `rows`, whose voltage the cells see (1R, 1S1R, or 1T1R with all gates on), or the `gates` of
    1T1R cells between ideal source lines at v_read_v and the columns; then only cells of driven rows conduct."""
    row_drive: Literal["parallel", "serial"] = "parallel"
    """`parallel`: a bitmap sets all row drivers at once; `serial`: a decoder sets them address by address, one driven
    row of every crossbar per chip cycle, before all of them are driven together."""
    v_read_v: Annotated[float, Field(gt=0, le=100)] | None = None
    """Voltage of a driven row in volt. With it and a device the energy of a read is that of the circuit, s^T Y s;
    without it the cost library's."""
    r_driver_ohm: Resistance = 0.0
    """Resistance of a row's driver in ohm."""
    r_wire_row_ohm: Resistance = 0.0
    """Resistance of a row wire from cell to cell in ohm."""
    r_wire_col_ohm: Resistance = 0.0
    """Resistance of a column wire from cell to cell in ohm."""
    r_sense_ohm: Resistance = 0.0
    """Resistance of a column's sense input in ohm."""
    drive: Literal["one_side", "both_sides"] = "one_side"
    """Rows driven at their first column only, or at both ends."""
    sense: Literal["one_side", "both_sides"] = "one_side"
    """Columns sensed at their last row only, or at both ends."""
    driver_sigma_rel: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Spread of the drivers' voltages, relative, fixed per row of a chip."""
    device: Device = Device()
    """What the cells are made of."""

    @model_validator(mode="after")
    def _circuit_has_a_device(self) -> Self:
        if self.device.table is not None:  # checked once the table has been read
            return self
        physics = self.device.physics
        circuit = ("r_driver_ohm", "r_wire_row_ohm", "r_wire_col_ohm", "r_sense_ohm", "v_read_v", "driver_sigma_rel")
        wanting = next((name for name in circuit if getattr(self, name)), None)
        if physics.is_ideal and wanting is not None:
            raise ValueError(
                f"{wanting} needs conductances, and device.preset: ideal has none; "
                f"choose a device.preset, give device.r_on_ohm and device.r_off_ohm, or leave {wanting} out"
            )
        if self.inputs == "gates":
            self._check_gates()
        if physics.nonlinearity != "off":
            self._check_drive(physics)
        return self

    @property
    def differs_from_chip_to_chip(self) -> bool:
        """Whether cells or drivers are drawn for every chip."""
        return self.device.physics.draws_chips or self.driver_sigma_rel > 0

    def _check_drive(self, physics: DevicePhysics) -> None:
        """Nonlinear devices need a voltage within the range of their curve, whatever a driver adds to it."""
        v0_v = physics.nonlinearity_v0_v
        if self.v_read_v is None:
            raise ValueError(
                f"device.nonlinearity: {physics.nonlinearity} needs v_read_v, the voltage of a driven row; "
                "give it, or device.nonlinearity: off"
            )
        largest = self.v_read_v * (1.0 + N_SIGMA * self.driver_sigma_rel)
        if v0_v is not None and largest > LARGEST_DRIVE * v0_v:
            spread = f" with {N_SIGMA} times driver_sigma_rel" if self.driver_sigma_rel else ""
            raise ValueError(
                f"v_read_v{spread} is {largest:g} V, more than {LARGEST_DRIVE:g} times device.nonlinearity_v0_v "
                f"({v0_v:g} V); lower v_read_v or raise device.nonlinearity_v0_v"
            )

    def _check_gates(self) -> None:
        """Gates carry no current and source lines are ideal, so what belongs to row lines has no meaning."""
        clash = [name for name in ("r_driver_ohm", "r_wire_row_ohm", "driver_sigma_rel") if getattr(self, name) > 0]
        clash += [name for name in ("drive", "sense") if getattr(self, name) == "both_sides"]
        clash += ["device.nonlinearity"] if self.device.physics.nonlinearity != "off" else []
        if clash:
            raise ValueError(
                f"inputs: gates and {clash[0]} do not go together: gates carry no current, source lines are ideal, "
                f"cells linear; leave {clash[0]} out or set inputs: rows"
            )
        if self.device.physics.is_ideal and self.device.table is None:
            raise ValueError("inputs: gates needs conductances; choose a device.preset other than ideal")


class Adc(Part):
    """Column converters of a PE behind a column multiplexer."""

    bits: Annotated[int, Field(ge=1, le=16)] = 6
    """Resolution in bits."""
    count: PositiveInt | Auto = "auto"
    """Converters per bank, a bank per PE (analog merge) or per crossbar (digital); `auto` is cols / cols_per_adc."""
    cols_per_adc: PositiveInt = 8
    """Columns that share one converter."""
    cycles_per_conversion: PositiveInt = 1
    """Chip cycles of one conversion."""
    early_stop: Switch = False
    """Resolve only the bits that the driven rows can reach, ceil(log2(rows x largest level + 1)), each in its share of
    cycles_per_conversion and of the energy (successive approximation)."""
    range: Literal["full", "calibrated"] = "calibrated"
    """Input range: `full` is every row active with the largest level; `calibrated` follows the calibration batch."""
    range_scope: Literal["layer", "tile", "column"] = "layer"
    """What shares a calibrated range: the columns of a `layer`, of one PE position (`tile`), or none (`column`)."""
    inl_lsb: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Largest deviation of the transfer curve from its straight line, in codes: a bow over the range, with a sign of
    its own in every converter."""
    offset_sigma_lsb: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Spread of the converters' offsets, in codes."""
    gain_sigma_rel: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Spread of the converters' gains, relative."""
    noise_sigma_lsb: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Noise of every conversion, in codes."""


class Mac(Part):
    """Digital unit that multiplies and adds, one per column block of a digital first layer."""

    lanes: PositiveInt = 64
    """Products with their additions per chip clock cycle."""


class Pe(Part):
    """Processing element: crossbars that share their columns, one ADC bank, shift-and-add."""

    crossbars: Group = 9
    """Crossbars in a PE."""
    pipelined: bool = False
    """`false`: one token holds the PE throughout; `true`: fetch, read, conversion and shift-add overlap."""
    column_merge: Literal["analog", "digital"] = "analog"
    """`analog`: the PE's crossbars share bit lines, one conversion per column; `digital`: one per crossbar."""
    latch_depth: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    """Tokens held by the latch behind each stage."""
    fetch_bits_per_cycle: Width = 144
    """Bits per chip cycle from the tile buffer to the PE's row registers."""
    fetch: Literal["whole", "compressed"] = "whole"
    """`whole`: every row register is loaded, one bit per row; `compressed`: the tile buffer holds addresses of driven
    rows and sends these, unless the bitmap is shorter; at least one cycle."""
    shift_add_cycles: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Chip cycles to combine the codes of one input slice."""
    crossbar: Crossbar
    """The array."""
    adc: Adc = Adc()
    """The converters."""

    @model_validator(mode="after")
    def _enough_adcs(self) -> Self:
        adc = self.adc
        if adc.count != "auto" and adc.count * adc.cols_per_adc < self.crossbar.cols:
            raise ValueError(
                f"adc.count ({adc.count}) x adc.cols_per_adc ({adc.cols_per_adc}) serves "
                f"{adc.count * adc.cols_per_adc} columns; crossbar.cols is {self.crossbar.cols}; "
                "raise one of them or set adc.count: auto"
            )
        return self

    @model_validator(mode="after")
    def _early_stop_keeps_codes(self) -> Self:
        adc, device = self.adc, self.crossbar.device
        if not adc.early_stop:
            return self
        errors = ("inl_lsb", "offset_sigma_lsb", "gain_sigma_rel", "noise_sigma_lsb")
        wanting = [f"adc.{name}" for name in errors if getattr(adc, name)]
        if not device.physics.is_ideal or device.table is not None:
            wanting.append("crossbar.device")
        if wanting:
            raise ValueError(
                f"adc.early_stop stops where sums of whole levels cannot reach, but {wanting[0]} makes them differ; "
                f"set adc.early_stop: false, or leave {wanting[0]} ideal"
            )
        return self

    @property
    def differs_from_chip_to_chip(self) -> bool:
        """Whether anything in a PE is drawn for every chip."""
        drawn = (self.adc.inl_lsb, self.adc.offset_sigma_lsb, self.adc.gain_sigma_rel, self.adc.noise_sigma_lsb)
        return self.crossbar.differs_from_chip_to_chip or any(drawn)

    @property
    def adcs_per_bank(self) -> int:
        """Converters of one bank."""
        return ceil_div(self.crossbar.cols, self.adc.cols_per_adc) if self.adc.count == "auto" else self.adc.count

    @property
    def adc_banks(self) -> int:
        """Banks in a PE: one for merged columns, else one per crossbar."""
        return 1 if self.column_merge == "analog" else self.crossbars


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

"""What a processing element is made of: crossbars, converters and what combines their codes, key by key."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archsim.hardware.devices import LARGEST_DRIVE, Device, DevicePhysics
from archsim.hardware.platform import Auto, Group, Part, PositiveInt, Resistance, Switch, Width
from archsim.units import ceil_div

N_SIGMA = 6
"""Standard deviations that a bound on something random allows for."""


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

"""Off-chip memory behind the chip's port: one DRAM channel, its bandwidth, latency, bursts and rows.

`Dram` is the `chip.dram` section of a hardware file: a kind, and keys that take the place of the
kind's values. `Dram.channel` is the two merged; `CHANNELS` holds the kinds and their sources. What a bit
costs is in the cost library, component `dram_KIND`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
Bytes = Annotated[int, Field(ge=1, le=1 << 20)]
Nanoseconds = Annotated[float, Field(ge=0, le=1e6)]


@dataclass(frozen=True)
class Channel:
    """A DRAM channel with every value decided."""

    gb_per_s: float
    latency_ns: float
    burst_bytes: int
    page_bytes: int
    row_open_ns: float


CHANNELS = {
    "lpddr4": Channel(gb_per_s=6.4, latency_ns=21.875, burst_bytes=32, page_bytes=2048, row_open_ns=35.0),
    "ddr3": Channel(gb_per_s=12.8, latency_ns=13.75, burst_bytes=64, page_bytes=8192, row_open_ns=27.5),
    "hbm2": Channel(gb_per_s=32.0, latency_ns=14.0, burst_bytes=64, page_bytes=1024, row_open_ns=28.0),
}
"""One channel of each kind.

`lpddr4`: LPDDR4-3200, one x16 channel: 3.2 Gb/s x 16; burst of 16; 1024 columns of 16 bits; latency CL + tDQSCK (32 + 3
cycles of 0.625 ns), row tRP + tRCD (27 + 29 cycles). Source: table of Ramulator (src/LPDDR4.h) from JESD209-4.
`ddr3`: DDR3-1600 11-11-11, one rank of 64 bits: 1.6 Gb/s x 64; burst of 8; eight devices of 1 KB rows; CL 11 and tRP +
tRCD 22 cycles of 1.25 ns. Source: JEDEC JESD79-3F, speed bin DDR3-1600K.
`hbm2`: HBM2 at 2 Gb/s, one of eight channels of 128 bits; burst of 4; 64 columns of 128 bits; CL 14 ns, tRP + tRCD
28 ns. Source: DRAMsim3, configs/HBM2_8Gb_x128.ini.
"""


class Dram(BaseModel):
    """DRAM channel at the node of the input and output port; a key that is `auto` has the kind's value."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    kind: Literal["none", "lpddr4", "ddr3", "hbm2"] = "none"
    """`none`: there is no DRAM; `lpddr4`: one x16 channel of LPDDR4-3200; `ddr3`: one 64-bit channel of DDR3-1600;
    `hbm2`: one 128-bit channel of HBM2."""
    gb_per_s: Annotated[float, Field(gt=0, le=1e6)] | Auto = "auto"
    """Bandwidth of the channel in 10^9 bytes per second."""
    latency_ns: Nanoseconds | Auto = "auto"
    """Time in ns from the end of a read on the channel to its arrival on chip."""
    burst_bytes: Bytes | Auto = "auto"
    """Bytes of a burst, the least that is moved."""
    page_bytes: Bytes | Auto = "auto"
    """Bytes of a row, whole bursts."""
    row_open_ns: Nanoseconds | Auto = "auto"
    """Time in ns that the channel waits for a row to be closed and another opened."""
    page_policy: Literal["open", "closed"] = "open"
    """`open`: a stream opens a row when it comes to one; `closed`: with every access."""
    queue_depth: Annotated[int, Field(ge=1, le=4096)] = 16
    """Positions of a stream that are under way from DRAM at once (DRAMsim3: transaction queue of 16)."""
    input: Literal["on_chip", "load"] = "on_chip"
    """`on_chip`: input frames are in the global buffer when a run begins; `load`: they come from DRAM, which counts."""

    @model_validator(mode="after")
    def _keys_need_a_kind(self) -> Self:
        defaults = type(self).model_fields.items()
        given = [name for name, key in defaults if name != "kind" and getattr(self, name) != key.default]
        if self.kind == "none" and given:
            raise ValueError(
                f"{given[0]} is given and kind is none; choose kind: lpddr4, ddr3 or hbm2, or leave {given[0]} out"
            )
        if self.kind != "none" and self.channel.page_bytes % self.channel.burst_bytes:
            raise ValueError(
                f"page_bytes {self.channel.page_bytes} is no multiple of burst_bytes {self.channel.burst_bytes}; "
                "a row holds whole bursts"
            )
        return self

    @property
    def is_present(self) -> bool:
        """Whether there is any."""
        return self.kind != "none"

    @property
    def channel(self) -> Channel:
        """Values of the channel: those given, else the kind's."""
        kind = CHANNELS[self.kind]
        values = {item.name: getattr(self, item.name) for item in fields(Channel)}
        return Channel(**{name: getattr(kind, name) if value == "auto" else value for name, value in values.items()})

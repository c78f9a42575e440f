"""Memory devices: what a cell's conductance is, and how it departs from what was written.

`Device` is the `tile.pe.crossbar.device` section of a hardware file: a preset, and keys that take the
place of the preset's values. `Device.physics` is the two merged. Presets and their sources: `PRESETS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from archsim.errors import ConfigError

Ohm = Annotated[float, Field(ge=1e-3, le=1e15)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Relative = Annotated[float, Field(ge=0, le=10)]
Coefficient = Annotated[float, Field(ge=-1e6, le=1e6)]
LevelTable = Annotated[tuple[Annotated[float, Field(ge=0, le=1e9)], ...], Field(max_length=65536, strict=False)]
Nonlinearity = Literal["off", "calibrated", "exact"]
LARGEST_DRIVE = 10.0
"""Largest ratio of a drive to v0: a sinh device then conducts 1100 times better than at small voltage."""
PresetName = Literal[
    "ideal",
    "rram-20k-200k",
    "rram-100k-1m",
    "rram-mnsim",
    "rram-neurosim",
    "rram-wan-2022",
    "rram-milo-2021",
    "rram-cmo-hfox",
    "pcm-joshi-2020",
    "sonos-40nm",
    "fefet",
    "sram-mnsim",
]


@dataclass(frozen=True)
class DevicePhysics:
    """A device with every value decided. Conductances in siemens follow from the resistances."""

    r_on_ohm: float | None = None
    """Resistance of the largest level; None: an ideal cell, whose current is its level and nothing else."""
    r_off_ohm: float | None = None
    """Resistance of level 0."""
    levels: int | None = None
    """Levels that a cell can be set to, evenly spaced in conductance; None: as many as bits_per_cell asks for."""
    levels_us: tuple[float, ...] = ()
    """Conductances that a cell can be set to, ascending, where they were measured."""
    levels_sigma_us: tuple[float, ...] = ()
    """Measured spread of each of `levels_us`."""
    programming_error: str = "normal"
    programming_sigma_rel: float = 0.0
    programming_sigma_us: tuple[float, ...] = ()
    d2d_sigma_rel: float = 0.0
    c2c_sigma_rel: float = 0.0
    stuck_on_fraction: float = 0.0
    stuck_off_fraction: float = 0.0
    open_fraction: float = 0.0
    open_row_fraction: float = 0.0
    open_col_fraction: float = 0.0
    drift_nu: float = 0.0
    drift_nu_sigma: float = 0.0
    drift_t0_s: float = 1.0
    retention_sigma_rel: float = 0.0
    age_s: float = 0.0
    read_noise_sigma_rel: float = 0.0
    r_access_ohm: float = 0.0
    nonlinearity: str = "off"
    nonlinearity_v0_v: float | None = None
    source: str = field(default="", compare=False)

    @property
    def is_ideal(self) -> bool:
        """Whether cells deliver their level and nothing else."""
        return self.r_on_ohm is None

    @property
    def g_on_s(self) -> float:
        """Conductance of the largest level in siemens."""
        assert self.r_on_ohm is not None, "an ideal cell has no conductance"
        return 1.0 / self.r_on_ohm

    @property
    def g_off_s(self) -> float:
        """Conductance of level 0 in siemens."""
        assert self.r_off_ohm is not None, "an ideal cell has no conductance"
        return 1.0 / self.r_off_ohm

    @property
    def draws_chips(self) -> bool:
        """Whether two chips of this device differ."""
        rule = self.programming_sigma_us if self.programming_error == "polynomial" else (self.programming_sigma_rel,)
        spreads = (
            *(self.levels_sigma_us or rule),
            self.d2d_sigma_rel,
            self.c2c_sigma_rel,
            self.stuck_on_fraction,
            self.stuck_off_fraction,
            self.open_fraction,
            self.open_row_fraction,
            self.open_col_fraction,
            self.drift_nu_sigma * self.age_s,
            self.retention_sigma_rel * self.age_s,
            self.read_noise_sigma_rel,
        )
        return any(spreads)


PRESETS: dict[str, DevicePhysics] = {
    "ideal": DevicePhysics(source="no device: a cell delivers its level"),
    "rram-20k-200k": DevicePhysics(
        r_on_ohm=20e3,
        r_off_ohm=200e3,
        source="SpikeSim (arXiv 2210.12899) released code: base resistance about 20 kOhm, off 200 kOhm",
    ),
    "rram-100k-1m": DevicePhysics(
        r_on_ohm=100e3,
        r_off_ohm=1e6,
        source="TxSim (Roy et al., TVLSI 2021): Ag/Si, 100 kOhm and 1 MOhm, as cited second hand",
    ),
    "rram-mnsim": DevicePhysics(
        r_on_ohm=10e3,
        r_off_ohm=1e6,
        d2d_sigma_rel=0.01,
        stuck_on_fraction=0.001,
        stuck_off_fraction=0.001,
        source="MNSIM 2.0 SimConfig: 10 kOhm, 1 MOhm, variation 1 %, stuck-at faults 0.1 % + 0.1 %",
    ),
    "rram-neurosim": DevicePhysics(
        r_on_ohm=100e3,
        r_off_ohm=1.7e6,
        r_access_ohm=25e3,
        source="NeuroSim 1.4 defaults: 100 kOhm, on/off 17, access transistor a quarter of the on resistance",
    ),
    "rram-wan-2022": DevicePhysics(
        r_on_ohm=25e3,
        r_off_ohm=1e6,
        programming_error="polynomial",
        programming_sigma_us=(1.053, 0.2374, -1.167e-2, 1.536e-4),
        read_noise_sigma_rel=0.01,
        source="NeuRRAM (Wan et al., Nature 2022), error polynomial as in CrossSim; "
        "G <= 40 uS; 1 uS off is an assumption",
    ),
    "rram-milo-2021": DevicePhysics(
        r_on_ohm=1e6 / 225,
        r_off_ohm=1e6 / 50,
        programming_error="polynomial",
        programming_sigma_us=(4.782, -0.009107),
        source="Milo et al., IRPS 2021, as in CrossSim: 50 to 225 uS, error polynomial",
    ),
    "rram-cmo-hfox": DevicePhysics(
        r_on_ohm=1e6 / 88.19,
        r_off_ohm=1e6 / 9,
        programming_sigma_rel=0.002,
        source="CMO/HfOx ReRAM (IBM) as in AIHWKit: 9 to 88.19 uS; the acceptance range of 0.2 % taken as sigma "
        "is an assumption",
    ),
    "pcm-joshi-2020": DevicePhysics(
        r_on_ohm=1e6 / 25,
        r_off_ohm=1e6 / 0.25,
        programming_error="polynomial",
        programming_sigma_us=(0.28638599, 0.07585724, -0.00178767),
        drift_nu=0.05,
        drift_t0_s=20.0,
        source="Joshi et al., Nature Communications 2020, as in CrossSim: 0.25 to 25 uS, error polynomial; "
        "drift exponent 0.05 and t0 20 s as in AIHWKit's PCM model",
    ),
    "sonos-40nm": DevicePhysics(
        r_on_ohm=1e6 / 16,
        r_off_ohm=1e13 / 16,
        source="SONOS 40 nm (IEDM 2022) as in CrossSim: 16 uS, on/off 1e7",
    ),
    "fefet": DevicePhysics(
        r_on_ohm=559e3,
        r_off_ohm=559e3 * 45,
        source="assumption: FeFET 559 kOhm, on/off 45, recalled from NeuroSim's device table",
    ),
    "sram-mnsim": DevicePhysics(
        r_on_ohm=1.7e6,
        r_off_ohm=1.7e9,
        source="MNSIM 2.0: SRAM cell as 1.7 MOhm; a thousandth of it when off is an assumption",
    ),
}
"""Devices by name; conductances above are in microsiemens where the source gives them so."""


class Device(BaseModel):
    """Memory device of a cell; a key that is not given has the preset's value."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    preset: PresetName = "ideal"
    """Device whose values hold where no key below is given; `ideal` has no resistance, a cell delivers its level."""
    r_on_ohm: Ohm | None = None
    """Resistance of the largest level in ohm."""
    r_off_ohm: Ohm | None = None
    """Resistance of level 0 in ohm."""
    levels: Annotated[int, Field(ge=2, le=65536)] | None = None
    """Levels that a cell can be set to, evenly spaced in conductance; a wanted level goes to the nearest."""
    table: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.csv$", max_length=80)] | None = None
    """CSV file beside the hardware file with measured levels: columns level (0, 1, 2, ...), g_us and, if
    wanted, sigma_us. Read once, it stands as levels_us and levels_sigma_us."""
    levels_us: LevelTable | None = None
    """Conductances that a cell can be set to, in microsiemens, ascending; a wanted level goes to the nearest. First
    and last take the place of r_off_ohm and r_on_ohm."""
    levels_sigma_us: LevelTable | None = None
    """Standard deviation of a write of each of levels_us, in microsiemens."""
    programming_error: Literal["normal", "lognormal", "polynomial"] | None = None
    """Error of a write: relative `normal` or mean-preserving `lognormal` with programming_sigma_rel, or an absolute
    normal error whose sigma is a `polynomial` of the conductance, programming_sigma_us."""
    programming_sigma_rel: Relative | None = None
    """Standard deviation of a write, relative to the conductance."""
    programming_sigma_us: Annotated[tuple[Coefficient, ...], Field(max_length=8, strict=False)] | None = None
    """Sigma in microsiemens as a polynomial of G in microsiemens, constant term first."""
    d2d_sigma_rel: Relative | None = None
    """Device-to-device spread, relative; a device keeps its own factor over all writes."""
    c2c_sigma_rel: Relative | None = None
    """Cycle-to-cycle spread, relative; drawn anew at every write."""
    stuck_on_fraction: Fraction | None = None
    """Cells stuck at the on resistance."""
    stuck_off_fraction: Fraction | None = None
    """Cells stuck at the off resistance."""
    open_fraction: Fraction | None = None
    """Cells without any conductance."""
    open_row_fraction: Fraction | None = None
    """Rows whose cells are all open."""
    open_col_fraction: Fraction | None = None
    """Columns whose cells are all open."""
    drift_nu: Annotated[float, Field(ge=0, le=2)] | None = None
    """Exponent of drift: G falls as (age_s / drift_t0_s) ** -drift_nu once older than drift_t0_s."""
    drift_nu_sigma: Annotated[float, Field(ge=0, le=2)] | None = None
    """Standard deviation of the exponent from device to device."""
    drift_t0_s: Annotated[float, Field(ge=1e-9, le=1e12)] | None = None
    """Age at which conductances were verified, in seconds."""
    retention_sigma_rel: Relative | None = None
    """Random relaxation per decade of age beyond drift_t0_s, relative to the on conductance."""
    age_s: Annotated[float, Field(ge=0, le=1e12)] | None = None
    """Seconds since programming."""
    read_noise_sigma_rel: Relative | None = None
    """Standard deviation of a cell's conductance from read to read, relative."""
    r_access_ohm: Annotated[float, Field(ge=0, le=1e12)] | None = None
    """Access transistor in series with every cell, gate on, in ohm."""
    nonlinearity: Nonlinearity | None = None
    """I-V curve i = G v0 sinh(v / v0): `exact` solves the circuit for every read, `calibrated` replaces each cell by
    its mean chord conductance, `off` is linear."""
    nonlinearity_v0_v: Annotated[float, Field(gt=0, le=1000)] | None = None
    """v0 of the sinh curve in volt."""

    @property
    def physics(self) -> DevicePhysics:
        """The preset with the given keys in place of its values.

        Raises:
            ConfigError: The levels are still in a file.
        """
        if self.table is not None:
            raise ConfigError(
                f"device.table ({self.table}) has not been read; load the hardware file using load_hardware, or give "
                "device.levels_us"
            )
        given: dict[str, Any] = {
            item.name: value
            for item in fields(DevicePhysics)
            if item.name != "source" and (value := getattr(self, item.name, None)) is not None
        }
        if self.levels_us and len(self.levels_us) > 1 and self.levels_us[0] > 0:
            given |= {"r_off_ohm": 1e6 / self.levels_us[0], "r_on_ohm": 1e6 / self.levels_us[-1]}
        return replace(PRESETS[self.preset], **given)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self._check_levels()
        if self.table is None:  # with a table, all this is checked once it has been read
            found = self.physics
            self._check_resistances(found)
            self._check_faults(found)
            self._check_writes(found)
            if found.nonlinearity != "off" and found.nonlinearity_v0_v is None:
                raise ValueError(
                    f"nonlinearity: {found.nonlinearity} needs nonlinearity_v0_v, the v0 of the sinh curve; "
                    "give it, or nonlinearity: off"
                )
        return self

    def _given(self, *names: str) -> str | None:
        """The first of these keys that has a value."""
        return next((name for name in names if getattr(self, name) is not None), None)

    def _check_levels(self) -> None:
        """What can be wrong with levels, before anything else is known."""
        for source in ("table", "levels_us"):
            others = ("r_on_ohm", "r_off_ohm", "levels", *(("levels_us", "levels_sigma_us") * (source == "table")))
            clash = self._given(*others)
            if getattr(self, source) is not None and clash is not None:
                raise ValueError(f"{clash} and {source} are both given; the table decides it, leave one of them out")
        if self.levels_us is not None:
            if len(self.levels_us) < 2 or self.levels_us[0] <= 0:
                raise ValueError("levels_us needs two conductances or more, all above 0 uS; add what is missing")
            for index, (low, high) in enumerate(pairwise(self.levels_us), start=1):
                if high <= low:
                    found = f"entry {index} ({high:g} uS) is not above entry {index - 1} ({low:g} uS)"
                    raise ValueError(f"levels_us must ascend; {found}; sort them, levels_sigma_us with them")
        if self.levels_sigma_us is not None and len(self.levels_sigma_us) != len(self.levels_us or ()):
            raise ValueError(
                f"levels_sigma_us has {len(self.levels_sigma_us)} entries, levels_us {len(self.levels_us or ())}; "
                "give one sigma for each level"
            )

    def _check_resistances(self, found: DevicePhysics) -> None:
        if (found.r_on_ohm is None) != (found.r_off_ohm is None):
            missing = "r_off_ohm" if found.r_off_ohm is None else "r_on_ohm"
            raise ValueError(f"{missing} is missing; give both r_on_ohm and r_off_ohm, or a preset that has them")
        if found.r_on_ohm is None or found.r_off_ohm is None:
            given = self._given(*(name for name in type(self).model_fields if name != "preset"))
            if given is not None:
                raise ValueError(f"{given} needs a device: give r_on_ohm and r_off_ohm, or a preset other than ideal")
        elif found.r_on_ohm >= found.r_off_ohm:
            raise ValueError(f"r_on_ohm ({found.r_on_ohm:g}) must be below r_off_ohm ({found.r_off_ohm:g}); swap them")

    def _check_faults(self, found: DevicePhysics) -> None:
        faulty = found.stuck_on_fraction + found.stuck_off_fraction + found.open_fraction
        if faulty > 1:
            raise ValueError(
                f"stuck_on_fraction + stuck_off_fraction + open_fraction is {faulty:g}; together at most 1, lower one "
                "of them"
            )

    def _check_writes(self, found: DevicePhysics) -> None:
        """One rule for what a write misses."""
        clash = self._given("programming_error", "programming_sigma_rel", "programming_sigma_us")
        if self.levels_sigma_us is not None and clash is not None:
            raise ValueError(
                f"{clash} and levels_sigma_us are both given, and both say what a write misses; leave one of them out"
            )
        if found.levels_sigma_us:
            return
        if found.programming_error == "polynomial" and not found.programming_sigma_us:
            raise ValueError(
                "programming_error: polynomial needs programming_sigma_us, constant term first; "
                "give it, or programming_error: normal"
            )
        if found.programming_error == "polynomial" and found.programming_sigma_rel > 0:
            raise ValueError(
                "programming_sigma_rel is for programming_error: normal or lognormal, not polynomial; "
                "set one of them, or programming_sigma_rel: 0"
            )
        if found.programming_error != "polynomial" and self.programming_sigma_us:
            raise ValueError(
                f"programming_sigma_us is for programming_error: polynomial, not {found.programming_error}; "
                "set that, or leave programming_sigma_us out"
            )


assert set(PRESETS) == set(get_args(PresetName)), "every preset has its name in the schema"

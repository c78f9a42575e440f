"""From a file name to hardware that can be simulated: reads, checks, attaches the cost library.

Main entry points: `load_hardware`, `load_costs`, `hardware_schema`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from archsim.errors import ConfigError
from archsim.hardware.costs import CostLibrary
from archsim.hardware.levels import read_levels
from archsim.hardware.models import Hardware
from archsim.hardware.platform import Part
from archsim.hardware.systolic import AnyHardware, SystolicArray
from archsim.shipped import find_file, shipped_folder, shipped_names
from archsim.units import cycles_of
from archsim.yamlfile import NO_OVERRIDES, build_model, read_model

H = TypeVar("H", bound=AnyHardware)

ACTIONS = {
    "tile_buffer": ("read", "write"),
    "fetch": ("latch",),
    "row_driver": ("drive",),
    "crossbar": ("read", "write"),
    "adc": ("convert",),
    "mux": ("select",),
    "shift_add": ("write_temp", "subtract"),
    "htree": ("transfer",),
    "accumulator": ("add",),
    "product_unit": ("accumulate",),
    "mac": ("multiply_add",),
    "mac_weights": ("read",),
    "neuron": ("update",),
    "v_mem": ("read", "write"),
    "pooling": ("add",),
    "router": ("hop",),
    "global_buffer": ("read", "write"),
}
"""Actions that the simulation of a crossbar chip counts; a cost library must price all of them, and those of
DRAM, index tables and row counters if any."""

ARRAY_ACTIONS = {
    "scratchpad": ("access",),
    "weight_buffer": ("read", "write"),
    "ifmap_buffer": ("read", "write"),
    "ofmap_buffer": ("read", "write"),
    "pooling": ("add",),
}
"""Those of a systolic array, beside its PEs and neuron units, of which it has one kind."""

_CYCLES = (
    ("tile.pe.adc.cycles_per_conversion", "adc", "convert"),
    ("tile.pe.crossbar.read_cycles", "crossbar", "read"),
    ("tile.pe.crossbar.write_cycles", "crossbar", "write"),
)


def load_hardware(name_or_path: str | Path, overrides: Mapping[str, object] = NO_OVERRIDES) -> AnyHardware:
    """Load a hardware file together with its cost library.

    Args:
        name_or_path: A path, or the name of a shipped file.
        overrides: Dotted path -> value, such as `{"tile.pe.adc.bits": 6}`.

    Raises:
        ConfigError: All faults of the file and of how it fits its cost library, one line each.
    """
    path = find_file(str(name_or_path), "hwconfigs", ".yaml", ConfigError)
    hardware = read_model(path, _model_of, ConfigError, overrides, lambda found: _faults(found, path))
    if isinstance(hardware, Hardware):
        hardware = _with_levels(hardware, path)
    return hardware.with_library(load_costs(path, hardware))


def load_chip(name_or_path: str | Path, overrides: Mapping[str, object] = NO_OVERRIDES) -> Hardware:
    """Load a hardware file that must be a crossbar chip; see `load_hardware`.

    Raises:
        ConfigError: It is another platform, or faulty.
    """
    return require_chip(load_hardware(name_or_path, overrides))


def require_chip(hardware: AnyHardware) -> Hardware:
    """The hardware, which must be a crossbar chip.

    Raises:
        ConfigError: It is another platform.
    """
    if not isinstance(hardware, Hardware):
        raise ConfigError(f"hardware '{hardware.name}' is of kind {hardware.kind}; it must be a crossbar_chip here")
    return hardware


class _UnknownKind(Part):
    """A file whose kind is none of those that there are: it is not valid, and only the kind is wrong with it."""

    model_config = ConfigDict(extra="allow")
    kind: Literal["crossbar_chip", "systolic_array"]


def _model_of(values: Mapping[Any, object]) -> type[AnyHardware]:
    """The model of a hardware file, by its kind; a file without one is read as a crossbar chip, which says so."""
    kind = values.get("kind", "crossbar_chip")
    if kind == "systolic_array":
        return SystolicArray
    return Hardware if kind == "crossbar_chip" else cast("type[AnyHardware]", _UnknownKind)


def change_hardware(hardware: H, changes: Mapping[str, object]) -> H:
    """The hardware with some keys changed, checked as if its file had been loaded with them; prices stay.

    Raises:
        ConfigError: All faults of the changes, and of what they make of the hardware.
    """

    def library_of(found: AnyHardware) -> CostLibrary:
        return hardware.library if found.costs == hardware.costs else load_library(found.costs)

    def faults(found: AnyHardware) -> Iterator[tuple[str, str]]:
        if isinstance(found, Hardware) and found.tile.pe.crossbar.device.table is not None:
            key = "tile.pe.crossbar.device.table"
            yield key, f"{key} names a file beside the hardware file; it can only be set when that file is loaded"
        try:
            library = library_of(found)
        except ConfigError as err:
            yield "costs", str(err)
        else:
            yield from _cost_faults(found, library)

    kind = type(hardware)
    changed: AnyHardware = build_model(hardware.model_dump(), hardware.name, kind, ConfigError, changes, faults)
    return cast("H", changed.with_library(library_of(changed)))


def load_costs(hardware_file: Path | None, hardware: AnyHardware) -> CostLibrary:
    """Load the cost library that the hardware names: beside its file, in `costs/` beside it, else shipped.

    Raises:
        ConfigError: There is no such library, it is faulty, or it is for another node.
    """
    library = _read_costs(_find_costs(hardware_file, hardware.costs))
    hardware.with_library(library)
    return library


def load_library(name: str) -> CostLibrary:
    """Load a shipped cost library by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    return _read_costs(_find_costs(None, name))


def needed_actions(hardware: AnyHardware) -> dict[str, tuple[str, ...]]:
    """Actions that the cost library of a chip must price, by component."""
    dram, actions = hardware.chip.dram, ACTIONS
    if isinstance(hardware, SystolicArray):
        pe = hardware.array.pe
        actions = ARRAY_ACTIONS | {f"{pe.mac}_mac": ("cycle", "accumulate"), pe.neuron: ("cycle", "update")}
    else:
        actions = ACTIONS | ({"index_table": ("read",)} if hardware.mapping.squeeze != "none" else {})
        actions = actions | ({"row_counter": ("count",)} if hardware.counts_rows else {})
    return actions | ({f"dram_{dram.kind}": ("read", "write")} if dram.is_present else {})


def hardware_schema() -> dict[str, Any]:
    """JSON schema of a hardware file, for editors."""
    either: TypeAdapter[AnyHardware] = TypeAdapter(Annotated[AnyHardware, Field(discriminator="kind")])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **either.json_schema()}


def _with_levels(hardware: Hardware, path: Path) -> Hardware:
    """The hardware with its device's table of levels written out, so that it needs no file beside it.

    Raises:
        ConfigError: The table cannot be read.
        ValidationError: Its levels do not go with the rest of the hardware.
    """
    table = hardware.tile.pe.crossbar.device.table
    if table is None:
        return hardware
    levels, sigmas = read_levels(path.parent, table)
    values = hardware.model_dump()
    values["tile"]["pe"]["crossbar"]["device"] |= {"table": None, "levels_us": levels, "levels_sigma_us": sigmas}
    return Hardware.model_validate(values)


def _table_faults(hardware: Hardware, path: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with the device's table of levels, and with what it makes of the hardware."""
    try:
        _with_levels(hardware, path)
    except ConfigError as err:
        for fault in str(err).splitlines():
            yield "tile.pe.crossbar.device.table", fault
    except ValidationError as err:
        for item in err.errors():
            dotted = ".".join(map(str, item["loc"]))
            yield dotted, f"{dotted}: {item['msg'].removeprefix('Value error, ')}"


def _faults(hardware: AnyHardware, path: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with valid hardware in view of the files beside it, its cost library above all: (key, fault)."""
    if isinstance(hardware, Hardware):
        yield from _table_faults(hardware, path)
    try:
        costs_file = _find_costs(path, hardware.costs)
    except ConfigError as err:
        yield "costs", str(err)
        return
    yield from _cost_faults(hardware, _read_costs(costs_file))


def _cost_faults(hardware: AnyHardware, library: CostLibrary) -> Iterator[tuple[str, str]]:
    """What is wrong with valid hardware in view of its cost library: (key, fault)."""
    if library.node_nm != hardware.node_nm:
        where = f"node_nm is {hardware.node_nm}; cost library '{library.name}' is for {library.node_nm}"
        yield "node_nm", f"{where}; they must be equal"
    for component, actions in needed_actions(hardware).items():
        for action in actions:
            try:
                library.energy_pj(component, action, **hardware.cost_parameters(component))
            except ConfigError as err:
                yield "costs", str(err)
        try:
            library.area_um2(component, **hardware.cost_parameters(component))
            library.leakage_mw(component, **hardware.cost_parameters(component))
            library.peak_power_mw(component, **hardware.cost_parameters(component))
        except ConfigError as err:
            yield "costs", str(err)
    if not isinstance(hardware, Hardware):
        return
    yield from _too_few_cycles(hardware, library)
    costs = library.components.get("crossbar")
    if library.node_nm == hardware.node_nm and costs is not None and "write" in costs.actions:
        try:
            _ = hardware.with_library(library).row_write_cycles
        except ConfigError as err:
            yield "tile.pe.crossbar.write_cycles", str(err)


def _too_few_cycles(hardware: Hardware, library: CostLibrary) -> Iterator[tuple[str, str]]:
    """Stages that get less time than the library's entry needs."""
    clock_mhz, pe = hardware.chip.clock_mhz, hardware.tile.pe
    for (dotted, component, action), cycles in zip(
        _CYCLES, (pe.adc.cycles_per_conversion, pe.crossbar.read_cycles, pe.crossbar.write_cycles), strict=True
    ):
        costs = library.components.get(component)
        needed_ns = costs.actions[action].latency_ns if costs is not None and action in costs.actions else None
        if needed_ns is None or cycles == "auto" or cycles * 1000 / clock_mhz >= needed_ns * (1 - 1e-9):
            continue
        enough = cycles_of(needed_ns, clock_mhz)
        given = f"{dotted} is {cycles} ({cycles * 1000 / clock_mhz:.4g} ns at {clock_mhz:g} MHz)"
        needed = f"{component}.{action} of cost library '{library.name}' takes {needed_ns:g} ns"
        yield dotted, f"{given}; {needed}; set it to at least {enough} or lower chip.clock_mhz"


def _find_costs(hardware_file: Path | None, name: str) -> Path:
    beside = [] if hardware_file is None else [hardware_file.parent, hardware_file.parent / "costs"]
    for folder in (*beside, shipped_folder("hwconfigs") / "costs"):
        path = folder / f"{name}.yaml"
        if path.is_file() and not (hardware_file is not None and path.samefile(hardware_file)):
            return path
    names = ", ".join(shipped_names("hwconfigs/costs", ".yaml"))
    raise ConfigError(f"costs is {name!r}; there is no {name}.yaml beside the hardware file; shipped are {names}")


def _read_costs(path: Path) -> CostLibrary:
    status = path.stat()
    return _read_version(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _read_version(path: Path, mtime_ns: int, size: int) -> CostLibrary:
    """Read a library once; the time stamp and size in the key notice an edit."""
    return read_model(path, CostLibrary, ConfigError, check=lambda library: _misnamed(library, path))


def _misnamed(library: CostLibrary, path: Path) -> Iterator[tuple[str, str]]:
    if library.name != path.stem:
        yield "name", f"name is {library.name!r}; it must be the file's name, {path.stem!r}"

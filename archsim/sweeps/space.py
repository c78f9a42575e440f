"""The space of a sweep: which chips and workloads, which keys with which values, what is wanted of them.

Entry point: `load_space`. A space is plain data; its points are numbered from 0 in an order that only the file decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from archsim.errors import ArchsimError, ConfigError
from archsim.hardware.reader import load_hardware
from archsim.hardware.systolic import AnyHardware
from archsim.shipped import find_file
from archsim.sweeps.axes import MAX_POINTS, Axis, Keys, Range, Value, Values, drawn, grid, n_combinations
from archsim.sweeps.constraints import Constraint, parse_constraint
from archsim.sweeps.measures import DEFAULT_OBJECTIVES, MEASURES, Direction
from archsim.workload.files import SettingsKeys
from archsim.yamlfile import NO_OVERRIDES, build_model, read_model, unknown_key

WORKLOAD = "workload"
WORKLOAD_KEYS = ("timesteps", "input", *SettingsKeys.model_fields)
"""Keys of a workload that a sweep can change, behind `workload.`."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
_Table = dict[str, Value]


class Draw(Keys):
    """Points drawn from the axes instead of their grid."""

    method: Literal["random", "latin_hypercube"]
    """Every axis on its own, or from every axis one value of each of `points` equal parts."""
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    """Points to draw; those that constraints exclude are left out."""
    seed: Seed = 0
    """Seed of the draw."""


class Search(Keys):
    """Points chosen in view of what earlier ones gave, by Optuna."""

    method: Literal["nsga2", "tpe"]
    """Genetic search (NSGA-II) or tree-structured Parzen estimators."""
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)] | None = None
    """Points to try; with `minutes` the budget that is used up first."""
    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Time to search in one call."""
    seed: Seed = 0
    """Seed of the search."""


class SweepFile(Keys):
    """A sweep file."""

    format_version: Literal[1]
    """Version of this file format."""
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.-]+$")
    """Name that reports and folders show."""
    description: str = ""
    """What the sweep is to find out."""
    hardware: str = Field(min_length=1)
    """The chip that is changed: a shipped name, or a file beside this one."""
    workloads: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=100)]
    """Shipped names, or files beside this one; several are an axis of their own."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Samples whose timing is simulated at every point."""
    chips: Annotated[int, Field(ge=1)] = 1
    """Chips, each with devices of its own, whose accuracy is evaluated at every point."""
    seed: Seed = 0
    """Seed of everything random within a point."""
    set: _Table = Field(default={})
    """Keys with the same value at all points."""
    axes: dict[str, Values | Range] = Field(default={})
    """Key -> values, as a list or a range (low, high, and step or count)."""
    zip: Annotated[tuple[dict[str, Values], ...], Field(strict=False)] = ()
    """Groups of keys that change together: lists of one length."""
    points: Annotated[tuple[_Table, ...], Field(strict=False, max_length=MAX_POINTS)] = ()
    """The points themselves, instead of axes."""
    draw: Draw | None = None
    """Draws points instead of taking all combinations."""
    search: Search | None = None
    """Searches adaptively instead of taking all combinations."""
    constraints: Annotated[tuple[str, ...], Field(strict=False, max_length=100)] = ()
    """What must hold between keys, such as `tile.pe.adc.bits <= 8`; other points are left out."""
    objectives: dict[str, Direction] = DEFAULT_OBJECTIVES
    """Result -> minimize or maximize."""


@dataclass(frozen=True)
class Point:
    """One design: its number, its workload, and its keys' values (those of the workload start with `workload.`)."""

    index: int
    workload: str
    values: dict[str, Value]

    @property
    def hardware(self) -> dict[str, Value]:
        """Keys of the chip."""
        return {key: value for key, value in self.values.items() if not key.startswith(f"{WORKLOAD}.")}

    @property
    def settings(self) -> dict[str, Value]:
        """Keys of the workload, without `workload.`."""
        return {
            key.removeprefix(f"{WORKLOAD}."): value
            for key, value in self.values.items()
            if key.startswith(f"{WORKLOAD}.")
        }


@dataclass(frozen=True)
class Space:
    """A checked sweep file with the chip that it changes and the places of its workloads."""

    file: SweepFile
    hardware: AnyHardware
    """The chip with the keys of `set`."""
    folder: Path
    """Where files that it names lie."""

    @cached_property
    def places(self) -> dict[str, str]:
        """Name of a workload in the file -> shipped name or path."""
        return {workload: _beside(self.folder, workload) for workload in self.file.workloads}

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """Axes in the order of the file, workloads first where there are several; none for listed points."""
        several = len(self.file.workloads) > 1
        axes = [Axis((WORKLOAD,), tuple((name,) for name in self.file.workloads))] if several else []
        axes += [
            Axis((key,), values if isinstance(values, Range) else tuple((value,) for value in values))
            for key, values in self.file.axes.items()
        ]
        axes += [Axis(tuple(group), tuple(zip(*group.values(), strict=True))) for group in self.file.zip]
        return tuple(axes)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys that differ between points, `workload` among them where there are several."""
        listed = dict.fromkeys(key for point in self.file.points for key in point)
        return (*(key for axis in self.axes for key in axis.keys), *listed)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints, parsed."""
        return tuple(parse_constraint(text) for text in self.file.constraints)

    def points(self) -> tuple[Point, ...]:
        """All points that satisfy the constraints, numbered from 0.

        Raises:
            ConfigError: There are too many, or none, or a constraint cannot be computed.
        """
        found: list[Point] = []
        excluded = [0] * len(self.constraints)
        for candidate in self._candidates():
            broken = self.broken_by(candidate)
            if broken is None:
                found.append(self.point(len(found), candidate))
            else:
                excluded[broken] += 1
        if not found:
            raise ConfigError(_nothing_left(self, excluded))
        return tuple(found)

    def point(self, index: int, values: Mapping[str, Value]) -> Point:
        """A point from the values of all axes."""
        own = dict(values)
        workload = str(own.pop(WORKLOAD, self.file.workloads[0]))
        fixed = {key: value for key, value in self.file.set.items() if key.startswith(f"{WORKLOAD}.")}
        return Point(index, workload, fixed | own)

    def broken_by(self, values: Mapping[str, Value]) -> int | None:
        """Number of the first constraint that values break; None where all hold."""
        for number, constraint in enumerate(self.constraints):
            if not constraint.holds(lambda key: self._value(key, values)):
                return number
        return None

    def _candidates(self) -> Iterator[dict[str, Value]]:
        file = self.file
        if file.points:
            for listed in file.points:
                for name in file.workloads:
                    yield {WORKLOAD: name, **listed} if len(file.workloads) > 1 else listed
        elif file.draw is not None:
            yield from drawn(self.axes, file.draw.points, file.draw.seed, file.draw.method)
        else:
            if n_combinations(self.axes) > MAX_POINTS:
                raise ConfigError(
                    f"sweep '{file.name}' has {n_combinations(self.axes)} combinations; {MAX_POINTS} are the most. "
                    "Draw some of them (draw), or search (search)."
                )
            yield from grid(self.axes)

    def _value(self, key: str, values: Mapping[str, Value]) -> Any:
        """Value of any key at a point."""
        if key == WORKLOAD:
            return values.get(WORKLOAD, self.file.workloads[0])
        if key in values or key in self.file.set:
            return values[key] if key in values else self.file.set[key]
        value: Any = self.hardware
        for part in key.split("."):
            value = getattr(value, part, None)
        return value


def load_space(
    source: str | Path | Mapping[str, object],
    overrides: Mapping[str, object] = NO_OVERRIDES,
    folder: Path | None = None,
) -> Space:
    """Load a sweep.

    Args:
        source: A shipped name, a path, or the content of such a file as a mapping.
        overrides: Keys of the file with other values, such as `{"search.method": "nsga2", "search.points": 100}`.
        folder: Where the files that a mapping names lie; by default here.

    Raises:
        ConfigError: All faults of the file: keys that do not exist, with the likely one; axes without values;
            constraints that are none; objectives that are no result.
    """
    if isinstance(source, Mapping):
        around = folder or Path()
        file = build_model(source, "sweep", SweepFile, ConfigError, overrides, lambda found: _faults(found, around))
    else:
        path = find_file(str(source), "sweepconfigs", ".yaml", ConfigError)
        around = path.parent
        file = read_model(path, SweepFile, ConfigError, overrides, lambda found: _faults(found, around))
    return Space(file, _base(file, around), around)


def _base(file: SweepFile, folder: Path) -> AnyHardware:
    fixed = {key: value for key, value in file.set.items() if not key.startswith(f"{WORKLOAD}.")}
    return load_hardware(_beside(folder, file.hardware), fixed)


def _beside(folder: Path, name: str) -> str:
    """A file beside the sweep file, else a shipped name, which the loader looks up."""
    beside = folder / name
    return str(beside) if beside.is_file() else name


_Place = tuple[object, ...]
_Fault = tuple[_Place, str]


def _faults(file: SweepFile, folder: Path) -> Iterator[_Fault]:
    """What is wrong with a valid sweep file: (place, fault)."""
    try:
        hardware = load_hardware(_beside(folder, file.hardware))
    except ArchsimError as err:
        yield ("hardware",), str(err)
        return
    yield from _axis_faults(file)
    places: list[tuple[_Place, str]] = [(("set", key), key) for key in file.set]
    places += [(("axes", key), key) for key in file.axes]
    places += [(("zip", number, key), key) for number, group in enumerate(file.zip) for key in group]
    places += [(("points", number, key), key) for number, point in enumerate(file.points) for key in point]
    seen: dict[str, _Place] = {}
    for place, key in places:
        fault = _key_fault(hardware, key)
        if fault is not None:
            yield place, fault
        elif place[0] != "points":
            if key in seen:
                yield place, f"{key} is given twice; the first is in {seen[key][0]}"
            seen[key] = place
    for number, text in enumerate(file.constraints):
        yield from ((("constraints", number), fault) for fault in _constraint_faults(file, hardware, text))
    if not file.objectives:
        yield ("objectives",), "objectives are empty; name a result, such as latency_ps: minimize"
    for name in file.objectives:
        if name not in MEASURES:
            yield ("objectives", name), f"objective {name!r} is no result; {_likely(name, MEASURES)}"
    if not any(fault for place, key in places for fault in [_key_fault(hardware, key)]):
        try:
            _base(file, folder)
        except ArchsimError as err:
            yield ("set",), str(err)


def _axis_faults(file: SweepFile) -> Iterator[_Fault]:
    if bool(file.axes or file.zip) == bool(file.points):
        yield ("points" if file.points else "axes",), "a sweep has axes (and zip), or points; give one of them"
    if file.points and (file.draw or file.search):
        yield ("points",), "listed points are taken as they are; remove draw and search"
    if file.draw is not None and file.search is not None:
        yield ("search",), "points are either drawn or searched; remove draw or search"
    if file.search is not None and file.search.points is None and file.search.minutes is None:
        yield ("search",), "search has no budget; give points or minutes"
    for key, values in file.axes.items():
        place = ("axes", key)
        if isinstance(values, Range):
            fault = values.fault()
            if fault is not None:
                yield place, f"{key}: {fault}"
            elif values.is_continuous and file.draw is None and file.search is None:
                yield place, f"{key} is a range without step or count; give one, or draw or search points"
        elif not values:
            yield place, f"{key} has no values; list at least one"
        elif len(set(map(repr, values))) < len(values):
            yield place, f"{key} lists a value twice"
    for number, group in enumerate(file.zip):
        lengths = {key: len(values) for key, values in group.items()}
        if not lengths or min(lengths.values()) == 0:
            yield ("zip", number), "a group of zip has no values; list at least one for every key"
        elif len(set(lengths.values())) > 1:
            each = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            yield ("zip", number), f"lists of a group differ in length: {each}"


def _key_fault(hardware: AnyHardware, key: str) -> str | None:
    if key.startswith(f"{WORKLOAD}."):
        name = key.removeprefix(f"{WORKLOAD}.")
        return None if name in WORKLOAD_KEYS else f"unknown key {key}; {_likely(name, WORKLOAD_KEYS, f'{WORKLOAD}.')}"
    if key == WORKLOAD:
        return "unknown key workload; several workloads are listed under workloads"
    return unknown_key(type(hardware), key)


def _constraint_faults(file: SweepFile, hardware: AnyHardware, text: str) -> Iterator[str]:
    try:
        constraint = parse_constraint(text)
    except ConfigError as err:
        yield str(err)
        return
    given = {*file.set, *file.axes, *(key for group in file.zip for key in group), WORKLOAD}
    if file.points:
        given |= set.intersection(*(set(point) for point in file.points))
    for key in constraint.keys:
        fault = None if key in given else _key_fault(hardware, key)
        if fault is not None:
            yield f"constraint '{text}': {fault}"
        elif key.startswith(f"{WORKLOAD}.") and key not in given:
            yield f"constraint '{text}': {key} has no value here; add it to set or axes"


def _likely(name: str, known: tuple[str, ...], prefix: str = "") -> str:
    """The nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(prefix + item for item in known)}"


def _nothing_left(space: Space, excluded: list[int]) -> str:
    total = sum(excluded)
    worst = max(range(len(excluded)), key=excluded.__getitem__)
    return (
        f"sweep '{space.file.name}': constraints exclude all {total} points; "
        f"'{space.constraints[worst].text}' excludes {excluded[worst]} of them. Loosen it or widen the axes."
    )

"""What happened on the chip: one row per service, in columns. Everything else is computed from it.

Rows are sorted by component (in the order of the parts list) and, within one, by start time.
Columns: times in integer picoseconds, codes into the name lists, counts, bits, energy in pJ.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from archsim.errors import SimulationError

if TYPE_CHECKING:
    import pandas as pd

DataClass = Literal["spikes", "partial_sums", "inputs", "weights", "v_mem"]
Level = Literal["dram", "global_buffer", "noc", "htree", "tile_buffer", "pe", "crossbar"]

CAUSES = ("data", "credit", "server", "arbiter")
DATA, CREDIT, SERVER, ARBITER = range(4)
"""Why a service could not start or leave earlier; among equals the first in this order is logged.

start: `data` its input came then; `server` the part was busy with its own stream; `arbiter` it was
busy with another stream's; `credit` a reserved slot came free then.
leave: `server` its service ended then; `credit` it waited for a slot behind it.
"""

LEAK = "leak"
"""Action of the one leakage row that every leaking component has."""

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Movement:
    """Bits going from one place to another, for the data-movement table.

    A service counts as `packets` packets of its bits, and moves them over `hops` links; on the NoC
    the injection counts the packet and every hop counts a link.
    """

    source: str
    destination: str
    data_class: DataClass
    level: Level
    packets: int = 1
    hops: int = 1


@dataclass(frozen=True)
class Totals:
    """Sums over rows that agree in component, action, layer and movement; a group may be split over several entries.

    Codes int32; `n_rows`, `n_moving` (rows that have bits), `count`, `bits` and times int64, exact; energies in pJ,
    float64.
    """

    component: np.ndarray
    action: np.ndarray
    layer: np.ndarray
    movement: np.ndarray
    n_rows: np.ndarray
    n_moving: np.ndarray
    count: np.ndarray
    bits: np.ndarray
    service_ps: np.ndarray
    energy_pj: np.ndarray
    first_start_ps: np.ndarray
    last_leave_ps: np.ndarray

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> Totals:
        """Totals of rows that are all at hand."""
        keys = ("component", "action", "layer", "movement")
        groups = np.zeros(len(columns["start_ps"]), np.int64)
        for name in keys:
            groups = groups * (int(columns[name].max(initial=0)) + 2) + columns[name] + 1
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        n = len(first)

        def exact(name: str, start: int = 0, sums: np.ufunc = np.add) -> np.ndarray:
            total = np.full(n, start, np.int64)
            sums.at(total, group, columns[name])
            return total

        component, action, layer, movement = (columns[name][first] for name in keys)
        return cls(
            component=component,
            action=action,
            layer=layer,
            movement=movement,
            n_rows=np.bincount(group, minlength=n),
            n_moving=np.bincount(group[columns["bits"] > 0], minlength=n),
            count=exact("count"),
            bits=exact("bits"),
            service_ps=exact("service_ps"),
            energy_pj=np.bincount(group, weights=columns["energy_pj"], minlength=n),
            first_start_ps=exact("start_ps", np.iinfo(np.int64).max, np.minimum),
            last_leave_ps=exact("leave_ps", 0, np.maximum),
        )

    def and_those_of(self, columns: Mapping[str, np.ndarray]) -> Totals:
        """These totals, and those of further rows."""
        more = Totals.of(columns)
        both = {item.name: np.append(getattr(self, item.name), getattr(more, item.name)) for item in fields(self)}
        return Totals(**both)


class LazyColumns(Mapping[str, np.ndarray]):
    """Columns that are worked out when they are asked for, because all of them together would not fit in memory."""

    n_rows: int

    @abstractmethod
    def parts(self, names: Sequence[str], rows: slice) -> list[np.ndarray]:
        """Some neighbouring rows of several columns."""

    @abstractmethod
    def span(self, component: int) -> slice:
        """Rows of a component."""

    @abstractmethod
    def totals(self) -> Totals:
        """Sums of rows that agree in component, action, layer and movement."""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.parts((name,), slice(0, self.n_rows))[0]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in EventLog.COLUMNS)

    def __len__(self) -> int:
        return len(EventLog.COLUMNS)


@dataclass(frozen=True)
class EventLog:
    """Columns of equal length, and the names behind the codes."""

    columns: dict[str, np.ndarray] | LazyColumns
    components: list[str]
    actions: list[str]
    layers: list[str]
    movements: list[Movement]
    """What the `movement` column points to; -1 there means that no bits moved."""

    COLUMNS = (
        ("start_ps", np.int64),
        ("service_ps", np.int64),
        ("leave_ps", np.int64),
        ("component", np.int32),
        ("action", np.int32),
        ("layer", np.int32),
        ("timestep", np.int32),
        ("token", np.int32),
        ("sample", np.int32),
        ("count", np.int64),
        ("bits", np.int64),
        ("energy_pj", np.float64),
        ("start_cause", np.int8),
        ("leave_cause", np.int8),
        ("predecessor", np.int64),
        ("movement", np.int32),
    )

    def __len__(self) -> int:
        return self.columns.n_rows if isinstance(self.columns, LazyColumns) else len(self.columns["start_ps"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def parts(self, names: Sequence[str], rows: slice) -> list[np.ndarray]:
        """Some neighbouring rows of several columns, which of a large log take less memory than all of them."""
        if isinstance(self.columns, LazyColumns):
            return self.columns.parts(names, rows)
        return [self.columns[name][rows] for name in names]

    def services_of(self, component: str, *names: str) -> list[np.ndarray]:
        """Columns of a component's services, without leakage; empty if nobody of that name acted."""
        rows = self._span(self._codes[component]) if component in self._codes else slice(0, 0)
        action, *columns = self.parts(("action", *names), rows)
        return [column[action != self.leak] for column in columns]

    @cached_property
    def totals(self) -> Totals:
        """Sums per component, action, layer and movement; every table of a run is computed from them."""
        return self.columns.totals() if isinstance(self.columns, LazyColumns) else Totals.of(self.columns)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.components)}

    @property
    def leak(self) -> int:
        """Code of the action of leakage rows; -1 if nothing leaks."""
        return self.actions.index(LEAK) if LEAK in self.actions else -1

    def _span(self, component: int) -> slice:
        if isinstance(self.columns, LazyColumns):
            return self.columns.span(component)
        return slice(int(self._first_rows[component]), int(self._first_rows[component + 1]))

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """First row of every component, and the number of rows; searched for in the column's own type, uncopied."""
        codes = self.columns["component"]
        return np.searchsorted(codes, np.arange(len(self.components) + 1, dtype=codes.dtype))

    @property
    def is_leakage(self) -> np.ndarray:
        """Which rows are leakage, bool."""
        return self.columns["action"] == self.leak

    def _none(self) -> np.ndarray:
        return np.zeros(len(self), bool)

    def rows_of(self, component: str) -> np.ndarray:
        """Which rows belong to a component, bool; none if nobody of that name acted."""
        if component not in self.components:
            return self._none()
        return (self.columns["component"] == self.components.index(component)) & ~self.is_leakage

    def actions_of(self, action: str) -> np.ndarray:
        """Which rows are of an action, bool."""
        return self.columns["action"] == self.actions.index(action) if action in self.actions else self._none()

    def to_frame(self) -> pd.DataFrame:
        """The log as a DataFrame, names as categories."""
        import pandas as pd  # heavy, and not every run needs it

        columns = [name for name, _ in self.COLUMNS]
        frame: dict[str, Any] = dict(zip(columns, self.parts(columns, slice(0, len(self))), strict=True))
        for column, names in self._names():
            frame[column] = pd.Categorical.from_codes(frame[column].astype(np.int64), names)
        return pd.DataFrame(frame)

    def write(self, path: Path) -> None:
        """Write Parquet: zstd, integers delta-encoded, names as dictionaries."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {name: pa.from_numpy_dtype(dtype) for name, dtype in self.COLUMNS}
        types |= {name: pa.dictionary(pa.int32(), pa.string()) for name, _ in self._names()}
        metadata = {
            "archsim.format_version": str(FORMAT_VERSION),
            "archsim.movements": json.dumps([asdict(movement) for movement in self.movements]),
        }
        dictionary = [column for column, _ in self._names()] + ["energy_pj", "movement", "sample", "timestep"]
        delta = {name: "DELTA_BINARY_PACKED" for name, dtype in self.COLUMNS if dtype != np.float64}
        with pq.ParquetWriter(
            path,
            pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()], metadata),
            compression="zstd",
            use_dictionary=dictionary,
            write_statistics=["start_ps"],
            column_encoding={name: encoding for name, encoding in delta.items() if name not in dictionary},
        ) as writer:
            known = {column: pa.array(names, pa.string()) for column, names in self._names()}
            for first in range(0, len(self), _ROWS_PER_GROUP):
                parts = self.parts(list(types), slice(first, first + _ROWS_PER_GROUP))
                arrays: dict[str, Any] = {name: pa.array(part) for name, part in zip(types, parts, strict=True)}
                for column, names in known.items():
                    arrays[column] = pa.DictionaryArray.from_arrays(arrays[column].cast(pa.int32()), names)
                writer.write_table(pa.table(arrays, schema=writer.schema))

    @classmethod
    def read(cls, path: Path) -> EventLog:
        """Read what `write` wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if metadata.get("archsim.format_version") != str(FORMAT_VERSION):
            raise SimulationError(
                f"{path}: event log of format {metadata.get('archsim.format_version')!r}; this archsim reads "
                f"{FORMAT_VERSION}. Run the simulation again."
            )
        columns: dict[str, np.ndarray] = {}
        names: dict[str, list[str]] = {}
        for name, dtype in cls.COLUMNS:
            array = table.column(name).combine_chunks()
            if isinstance(array, pa.ChunkedArray):
                array = array.chunk(0)
            if pa.types.is_dictionary(array.type):
                names[name] = array.dictionary.to_pylist()
                array = array.indices
            columns[name] = array.to_numpy(zero_copy_only=False).astype(dtype)
        movements = [Movement(**fields) for fields in json.loads(metadata["archsim.movements"])]
        return cls(columns, names["component"], names["action"], names["layer"], movements)

    def _names(self) -> tuple[tuple[str, list[str]], ...]:
        return (
            ("component", self.components),
            ("action", self.actions),
            ("layer", self.layers),
            ("start_cause", list(CAUSES)),
            ("leave_cause", list(CAUSES)),
        )


_ROWS_PER_GROUP = 1 << 20
"""Rows of a row group of the file. A log streams to disk group by group: no more rows than this are in memory, some
80 MiB, while fewer would compress less."""

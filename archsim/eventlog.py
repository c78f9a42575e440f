"""What happened on the chip: one row per service, in columns. Everything else is computed from it.

Rows are sorted by component (in the order of the parts list) and, within one, by start time.
Columns: times in integer picoseconds, codes into the name lists, counts, bits, energy in pJ.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
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
class EventLog:
    """Columns of equal length, and the names behind the codes."""

    columns: dict[str, np.ndarray]
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
        return len(self.columns["start_ps"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def is_leakage(self) -> np.ndarray:
        """Which rows are leakage, bool."""
        return self.columns["action"] == self.actions.index(LEAK) if LEAK in self.actions else self._none()

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

        frame: dict[str, Any] = dict(self.columns)
        for column, names in self._names():
            frame[column] = pd.Categorical.from_codes(self.columns[column].astype(np.int64), names)
        return pd.DataFrame(frame)

    def write(self, path: Path) -> None:
        """Write Parquet: zstd, integers delta-encoded, names as dictionaries."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays: dict[str, Any] = {}
        for name, _ in self.COLUMNS:
            arrays[name] = pa.array(self.columns[name])
        for column, names in self._names():
            codes = pa.array(self.columns[column].astype(np.int32))
            arrays[column] = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
        metadata = {
            "archsim.format_version": str(FORMAT_VERSION),
            "archsim.movements": json.dumps([asdict(movement) for movement in self.movements]),
        }
        dictionary = [column for column, _ in self._names()] + ["energy_pj", "movement", "sample", "timestep"]
        delta = {name: "DELTA_BINARY_PACKED" for name, dtype in self.COLUMNS if dtype != np.float64}
        table = pa.table(arrays).replace_schema_metadata(metadata)
        pq.write_table(
            table,
            path,
            compression="zstd",
            use_dictionary=dictionary,
            column_encoding={name: encoding for name, encoding in delta.items() if name not in dictionary},
        )

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

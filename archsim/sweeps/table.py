"""The table of a sweep: one row per point in the order of the space, from the records that are there.

Columns: `point`, `key`, `status`, `workload`, the keys that differ between points, the figures of `measures`, `error`.
Numbers keep all their digits; what does not apply is empty. Equal records give equal bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.errors import ConfigError
from archsim.sweeps.axes import Value
from archsim.sweeps.evaluation import Task
from archsim.sweeps.measures import INTEGERS, MEASURES, NUMBERS
from archsim.sweeps.space import WORKLOAD
from archsim.sweeps.store import Store, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET, CSV = "sweep.parquet", "sweep.csv"


def collect(store: Store, tasks: Iterable[Task], keys: Sequence[str]) -> pa.Table:
    """Table of the points that have a record.

    Args:
        store: Where the records are.
        tasks: The points, in order.
        keys: Keys that get a column.
    """
    import pyarrow as pa

    axes = [key for key in keys if key != WORKLOAD]
    columns: dict[str, list[Any]] = {
        name: [] for name in ("point", "key", "status", WORKLOAD, *axes, *MEASURES, "error")
    }
    for task in tasks:
        record = store.read(task.key)
        if record is None:
            continue
        summary = record["summary"] or {}
        row: dict[str, Any] = {"point": task.point.index, WORKLOAD: task.point.workload}
        row |= {name: record[name] for name in ("key", "status", "error")}
        row |= {key: task.point.values.get(key) for key in axes}
        row |= {name: summary.get(name) for name in MEASURES}
        for name, value in row.items():
            columns[name].append(value)
    types = {"point": pa.int64()}
    types |= {name: pa.string() for name in ("key", "status", WORKLOAD, "error")}
    types |= {name: pa.int64() for name in INTEGERS} | {name: pa.float64() for name in NUMBERS}
    for key in axes:
        types[key], columns[key] = _typed(columns[key])
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})


def write_table(table: pa.Table, folder: Path) -> None:
    """Write the table as Parquet and CSV.

    Raises:
        ConfigError: The folder cannot be written.
    """
    import pyarrow.parquet as pq

    parquet = io.BytesIO()
    pq.write_table(table, parquet, compression="zstd")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(map(_text, column.to_pylist()) for column in table.columns), strict=True))
    try:
        write_whole(folder / PARQUET, parquet.getvalue())
        write_whole(folder / CSV, text.getvalue().encode())
    except OSError as err:
        raise ConfigError(f"{folder}: the table cannot be written ({err.strerror}); all records are kept") from err


def _typed(values: list[Value]) -> tuple[pa.DataType, list[Any]]:
    """Type of an axis' column: whole numbers, numbers or truth where all values are, else text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_(), list(values)
    if kinds == {int}:
        return pa.int64(), list(values)
    if kinds and kinds <= {int, float}:
        return pa.float64(), [None if value is None else float(value) for value in values]
    return pa.string(), [None if value is None else _text(value) for value in values]


def _text(value: Value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)

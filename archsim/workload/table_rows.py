"""The rows of a layer table (CSV) as checked values; `layer_table` makes a network of them.

Faults are collected with their lines, so that a table is corrected in one go. Entry point: `read_rows`.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

from archsim.errors import WorkloadError
from archsim.workload.network import INPUT, Shape
from archsim.workload.sandbox import check_readable

MAX_BYTES = 1 << 20
MAX_FAULTS_SHOWN = 40
LARGEST = 2**28
_COUNTS = (
    "in_height", "in_width", "in_channels", "out_channels", "kernel_height", "kernel_width", "stride",
)  # fmt: skip
_REQUIRED = ("layer", *_COUNTS)
_OPTIONAL = ("work", "padding", "sparsity")

Faults = list[tuple[int, str]]
"""Line of the file and what is wrong there."""


@dataclass(frozen=True)
class Row:
    """One layer as the table has it, and the line where it stands."""

    line: int
    work: str
    name: str
    in_shape: Shape
    out_channels: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    sparsity: tuple[float, ...]

    @property
    def is_linear(self) -> bool:
        """Whether it is fully connected."""
        return self.in_shape[1:] == (1, 1) and self.kernel == (1, 1)


def read_rows(path: Path, faults: Faults) -> list[Row]:
    """The rows of a file; what is wrong with some is added to `faults`, and they are left out.

    Raises:
        WorkloadError: The file cannot be read, or is no CSV table.
    """
    check_readable(path)
    if path.stat().st_size > MAX_BYTES:
        raise WorkloadError(f"{path}: {path.stat().st_size} bytes; a table of layers has at most {MAX_BYTES}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [cell.strip() for cell in next(reader, [])]
            found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as err:
        raise WorkloadError(f"{path}: not a CSV table ({err})") from err
    _check_columns(columns, faults)
    rows = [] if faults else [_row(line, columns, cells, faults) for line, cells in found if any(cells)]
    if not rows and not faults:
        faults.append((1, "no rows; a table has a row of column names, then one row per layer"))
    valid = [row for row in rows if row is not None]
    _check_names(valid, faults)
    return valid


def _check_columns(columns: list[str], faults: Faults) -> None:
    known = (*_REQUIRED, *_OPTIONAL)
    steps = [column for column in columns if column.startswith("sparsity_")]
    for column in sorted(set(columns)):
        if column not in known and column not in steps:
            close = difflib.get_close_matches(column, known, 1)
            advice = f"did you mean {close[0]!r}?" if close else f"columns are {', '.join(known)}"
            faults.append((1, f"unknown column {column!r}; {advice}"))
        elif columns.count(column) > 1:
            faults.append((1, f"column {column!r} appears {columns.count(column)} times"))
    faults += [(1, f"no column {column!r}") for column in _REQUIRED if column not in columns]
    expected = [f"sparsity_{step}" for step in range(len(steps))]
    if sorted(steps) != sorted(expected):
        faults.append((1, f"columns {', '.join(sorted(steps))}; timesteps count from 0 without gaps: sparsity_0, ..."))
    if steps and "sparsity" in columns:
        faults.append((1, "both 'sparsity' and 'sparsity_0'; a table has one of them"))


def _row(line: int, columns: list[str], cells: list[str], faults: Faults) -> Row | None:
    if len(cells) != len(columns):
        faults.append((line, f"{len(cells)} cells; the table has {len(columns)} columns"))
        return None
    n_before = len(faults)
    by_name = dict(zip(columns, cells, strict=True))
    counts = {name: _count(line, name, by_name[name], 1, faults) for name in _COUNTS}
    kernel = counts["kernel_height"], counts["kernel_width"]
    in_shape = counts["in_channels"], counts["in_height"], counts["in_width"]
    padding = _padding(line, by_name.get("padding"), kernel, faults)
    steps = sorted((name for name in columns if name.startswith("sparsity_")), key=lambda name: int(name[9:]))
    names = ["sparsity"] if "sparsity" in columns else steps
    sparsity = tuple(_part(line, name, by_name[name], faults) for name in names)
    if not by_name["layer"].isprintable() or by_name["layer"] in ("", INPUT):
        faults.append((line, f"layer is {by_name['layer']!r}; it must be a name other than '{INPUT}'"))
    if len(faults) > n_before:
        return None
    work, name = by_name.get("work", ""), by_name["layer"]
    return Row(line, work, name, in_shape, counts["out_channels"], kernel, counts["stride"], padding, sparsity)


def _count(line: int, name: str, text: str, lowest: int, faults: Faults) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and lowest <= int(text) <= LARGEST:
        return int(text)
    faults.append((line, f"{name} is {text!r}; it must be a whole number of at least {lowest}"))
    return lowest


def _part(line: int, name: str, text: str, faults: Faults) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        faults.append((line, f"{name} is {text!r}; it must be a number from 0 to 1"))
    return value


def _padding(line: int, text: str | None, kernel: tuple[int, int], faults: Faults) -> tuple[int, int]:
    if text is not None:
        padding = _count(line, "padding", text, 0, faults)
        return padding, padding
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        found = f"kernel {kernel[0]} x {kernel[1]} is even"
        faults.append((line, f"{found}, so its padding cannot be inferred; add a column 'padding'"))
    return kernel[0] // 2, kernel[1] // 2


def _check_names(rows: list[Row], faults: Faults) -> None:
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        line = first.setdefault((row.work, row.name), row.line)
        if line != row.line:
            faults.append((row.line, f"layer {row.name!r} appears again (first in line {line})"))


def raise_faults(path: Path, faults: Faults) -> None:
    """Raise a WorkloadError with one line per fault, if there are any."""
    if not faults:
        return
    lines = [f"{path}:{line}: {text}" for line, text in sorted(faults, key=lambda fault: fault[0])]
    more = len(lines) - MAX_FAULTS_SHOWN
    raise WorkloadError("\n".join([*lines[:MAX_FAULTS_SHOWN], *([f"{path}: and {more} more"] if more > 0 else [])]))

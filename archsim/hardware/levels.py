"""Measured levels of a device: a CSV file beside the hardware file, with columns level, g_us and perhaps sigma_us.

Entry point: `read_levels`.
"""

from __future__ import annotations

import csv
import math
from io import StringIO
from pathlib import Path

from archsim.errors import ConfigError
from archsim.yamlfile import read_text

COLUMNS = (["level", "g_us"], ["level", "g_us", "sigma_us"])
MAX_LEVELS = 65536
MAX_FAULTS_SHOWN = 20
LARGEST_US = 1e9
"""Largest conductance in microsiemens, as for `levels_us`."""

Levels = tuple[tuple[float, ...], tuple[float, ...] | None]
"""Conductances in microsiemens, ascending, and their standard deviations or None."""


def read_levels(folder: Path, name: str) -> Levels:
    """Read the levels that a device can be set to.

    Args:
        folder: Where the hardware file lies; the table lies in it, too.
        name: Name of the table, without folders.

    Raises:
        ConfigError: One line per fault, `file:line: what is found; what is allowed`.
    """
    path = folder / name
    if path.resolve().parent != folder.resolve():
        raise ConfigError(f"{path}: leads out of the hardware file's folder; put the table itself there")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; device.table is a CSV file beside the hardware file")
    reader = csv.reader(StringIO(read_text(path, ConfigError, "a CSV table"), newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as err:
        raise ConfigError(f"{path}:{reader.line_num}: not a CSV table: {err}; write plain numbers and commas") from err
    faults, rows = _rows([(line, cells) for line, cells in lines if any(cells)])
    if faults:
        shown = [f"{path}:{line}: {text}" for line, text in faults[:MAX_FAULTS_SHOWN]]
        raise ConfigError("\n".join(shown + [f"{path}: ... and more faults"] * (len(faults) > MAX_FAULTS_SHOWN)))
    conductances, *sigmas = zip(*rows, strict=True)
    return conductances, sigmas[0] if sigmas else None


def _rows(lines: list[tuple[int, list[str]]]) -> tuple[list[tuple[int, str]], list[tuple[float, ...]]]:
    """Faults with their lines, and the numbers behind the level of every row."""
    if not lines or lines[0][1] not in COLUMNS:
        found = "the file is empty" if not lines else f"columns are {', '.join(lines[0][1])[:60]}"
        return [(lines[0][0] if lines else 1, f"{found}; they must be level,g_us or level,g_us,sigma_us")], []
    columns, faults, rows = lines[0][1], list[tuple[int, str]](), list[tuple[float, ...]]()
    if not 2 <= len(lines) - 1 <= MAX_LEVELS:
        faults.append((lines[-1][0], f"{len(lines) - 1} levels; there must be 2 to {MAX_LEVELS}"))
    for index, (line, cells) in enumerate(lines[1 : MAX_LEVELS + 1]):
        if len(cells) != len(columns):
            faults.append((line, f"{len(cells)} cells; the table has {len(columns)} columns"))
            continue
        if cells[0] != str(index):
            faults.append((line, f"level is {cells[0][:40]!r}; levels count 0, 1, 2, ..., so it must be {index}"))
        row = tuple(_number(text) for text in cells[1:])
        if not 0 < row[0] <= LARGEST_US:
            faults.append((line, f"g_us is {cells[1][:40]!r}; it must be a number above 0 and at most {LARGEST_US:g}"))
        elif rows and row[0] <= rows[-1][0]:
            faults.append((line, f"g_us is {row[0]:g}, not above the level before ({rows[-1][0]:g}); sort the levels"))
        if len(row) > 1 and not 0 <= row[1] <= LARGEST_US:
            faults.append((line, f"sigma_us is {cells[2][:40]!r}; it must be a number from 0 to {LARGEST_US:g}"))
        rows.append(row)
    return faults, rows


def _number(text: str) -> float:
    """The number that a cell holds; NaN for everything else."""
    try:
        return float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan

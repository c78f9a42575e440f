"""A finished run: summary, tables, event log, and the files they are written to.

Every table is computed from the event log plus facts that do not happen in time (areas, sizes,
accuracy). `write` is all or nothing: files appear under their names only when all are complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.errors import ConfigError
from archsim.eventlog import EventLog

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT_VERSION = 1
TABLES = ("components", "layers", "movement", "chips")
LATER_TABLES = ("queues", "tiles", "spikes", "samples")
PATHS = "critical_path.parquet"
CHANGES = "what_if.csv"
FINDINGS = "findings.json"
TIMELINE = "timeline.json.gz"
EXPLANATION = (CHANGES, FINDINGS, "report.md", TIMELINE)
"""Files that `archsim report` adds to a run's; those of an earlier run in the folder would be about another chip."""


@dataclass(frozen=True)
class Later:
    """Parts of a result that many runs never ask for; each is worked out, or read, when it is."""

    config: Callable[[], str]
    queues: Callable[[], pd.DataFrame | None] = lambda: None
    paths: Callable[[], pd.DataFrame | None] = lambda: None
    tiles: Callable[[], pd.DataFrame | None] = lambda: None
    spikes: Callable[[], pd.DataFrame | None] = lambda: None
    samples: Callable[[], pd.DataFrame | None] = lambda: None
    waits: Callable[[], Mapping[str, tuple[np.ndarray, np.ndarray]] | None] = lambda: None


@dataclass
class Result:
    """What `simulate` returns."""

    summary: dict[str, Any]
    components: pd.DataFrame
    layers: pd.DataFrame
    movement: pd.DataFrame
    log: EventLog
    chips: pd.DataFrame
    """Accuracy of every simulated chip."""
    notes: tuple[str, ...] = ()
    """Assumptions of this run that a reader must know."""
    wall_clock: dict[str, Any] = field(default_factory=dict)
    """Facts about the machine and the seconds spent; the only thing that differs between equal runs."""
    later: Later = field(default=Later(lambda: ""), repr=False)
    """How configuration, queues, paths, tiles, spikes and waits are found when they are asked for."""
    origin: Any = field(default=None, repr=False)
    """Mapping, workload and activity of the run (`archsim.engine.simulation.Origin`); None in loaded results."""
    changes: pd.DataFrame | None = None
    """What changes of the chip would do, once `archsim.what_if` was asked."""
    efficiency: dict[str, Any] | None = None
    """The usual estimate and an ANN beside the run (`archsim.analysis.efficiency`), once that was asked."""
    kept: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Tables that took a pass over the log, by name, for those who ask again."""

    @cached_property
    def config(self) -> str:
        """Resolved hardware, cost library and workload, YAML."""
        return self.later.config()

    @cached_property
    def queues(self) -> pd.DataFrame | None:
        """Waits and queue depths per component; None in results of an archsim that did not write them."""
        return self.later.queues()

    @cached_property
    def paths(self) -> pd.DataFrame | None:
        """Critical paths of all samples, one row per segment; None in results of an archsim that did not write them."""
        return self.later.paths()

    @cached_property
    def tiles(self) -> pd.DataFrame | None:
        """Where every tile is on the NoC and what it holds; None where there are no tiles, or none were written."""
        return self.later.tiles()

    @cached_property
    def spikes(self) -> pd.DataFrame | None:
        """Spikes of every layer at every timestep; None in results of an archsim that did not write them."""
        return self.later.spikes()

    @cached_property
    def samples(self) -> pd.DataFrame | None:
        """When every sample was decided and what it cost; None where no sample ends by itself."""
        return self.later.samples()

    @property
    def waits(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]] | None:
        """Begin and end of every wait for every component, int64 ps; None in loaded results, whose files lack them."""
        return self.later.waits()

    @property
    def events(self) -> pd.DataFrame:
        """The event log as a DataFrame, one row per service."""
        return self.log.to_frame()

    def write(self, path: str | Path, extra: Mapping[str, Callable[[Path], None]] | None = None) -> Path:
        """Write all files of the run into folder `path`.

        Args:
            path: Folder; made if missing. Files of an earlier run in it are replaced.
            extra: Further files as name -> function that writes it to the path it is given.

        Raises:
            ConfigError: The folder cannot be written.
        """
        writers = dict(extra or {})

        def write_files(folder: Path) -> None:
            self._write_files(folder)
            for name, writer in writers.items():
                writer(folder / name)

        target = write_together(Path(path), write_files)
        tables = [f"{name}.csv" for name in LATER_TABLES if getattr(self, name) is None]
        for name in (*EXPLANATION, *tables):
            if name not in writers:
                (target / name).unlink(missing_ok=True)
        return target

    def _write_files(self, folder: Path) -> None:
        write_json(folder / "summary.json", self.summary)
        for name in TABLES:
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        self.log.write(folder / "events.parquet")
        for name in LATER_TABLES:
            table = getattr(self, name)
            if table is not None:
                table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        if self.paths is not None:
            _write_paths(self.paths, folder / PATHS)
        (folder / "config.yaml").write_text(self.config, encoding="utf-8")
        run = {"format_version": FORMAT_VERSION, "notes": list(self.notes), **self.wall_clock}
        write_json(folder / "run.json", run)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a folder that `write` wrote.

        Raises:
            ConfigError: Files are missing or of another format version.
        """
        import pandas as pd  # heavy, and most commands never load a result

        folder = Path(path)
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            tables = {
                name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""]) for name in TABLES
            }
            config = (folder / "config.yaml").read_text(encoding="utf-8")
            log = EventLog.read(folder / "events.parquet")
        except (OSError, ValueError) as err:
            raise ConfigError(f"{folder}: not a complete result folder of archsim ({err})") from err
        if summary.get("format_version") != FORMAT_VERSION:
            raise ConfigError(
                f"{folder}: result of format {summary.get('format_version')!r}; this archsim reads {FORMAT_VERSION}. "
                "Run the simulation again."
            )
        notes = tuple(run.pop("notes", ()))
        return cls(
            summary,
            tables["components"],
            tables["layers"],
            tables["movement"],
            log,
            tables["chips"],
            notes,
            run,
            Later(
                config=lambda: config,
                paths=partial(_read_paths, folder / PATHS),
                **{name: partial(_read_table, folder / f"{name}.csv") for name in LATER_TABLES},
            ),
            changes=_read_table(folder / CHANGES),
            efficiency=_read_efficiency(folder / FINDINGS),
        )


def write_together(target: Path, write: Callable[[Path], None]) -> Path:
    """Write files into folder `target`, all of them or none.

    Args:
        target: Folder; made if missing. Files of the same names are replaced, others stay.
        write: Called with an empty folder to write them to.

    Raises:
        ConfigError: The folder cannot be written.
    """
    require_writable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as err:
        raise ConfigError(f"{target}: cannot be written ({err.strerror}). Choose another -o.") from err
    try:
        write(staging)
        target.mkdir(exist_ok=True)
        for file in sorted(staging.iterdir()):
            os.replace(file, target / file.name)
    except OSError as err:
        raise ConfigError(f"{target}: cannot be written ({err.strerror}). Choose another -o.") from err
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def require_writable(folder: Path) -> None:
    """Check, before anything long has run, that a result could be written to a folder.

    Raises:
        ConfigError: It is a file, or it or the nearest folder above it that exists cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; the result needs a folder. Choose another -o.")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"{folder}: cannot be written (no permission to write in {nearest}). Choose another -o.")


def _write_paths(paths: pd.DataFrame, path: Path) -> None:
    """Write Parquet: zstd, names as dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(paths[name].to_numpy()) for name in paths.columns})
    pq.write_table(table, path, compression="zstd")


def _read_table(path: Path) -> pd.DataFrame | None:
    """A table that may be missing; names such as `nan` stay names."""
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else None


def _read_paths(path: Path) -> pd.DataFrame | None:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pandas() if path.exists() else None


def _read_efficiency(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["efficiency"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ConfigError(f"{path}: not findings of archsim ({err}). Delete it and run archsim report.") from err
    return dict(found) if found else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON with stable formatting; numbers keep all their digits."""
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")

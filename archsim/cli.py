"""The `archsim` command: arguments in, tables and files out. The only file that prints.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the
simulation or a validation failed, 2 bad input. Heavy packages are imported inside the commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.errors import ArchsimError, ConfigError
from archsim.version import VERSION

if TYPE_CHECKING:
    from rich.console import Console

    from archsim.hardware.systolic import AnyHardware
    from archsim.sweeps.driver import Tally
    from archsim.workload.model import Workload

DEFAULT_HARDWARE = "spikesim-rram-64"
DEFAULT_WORKLOAD = "digits-cnn"
WHOLE_RUN = "all"
TUNED = "tuned"
"""Stem of the files of a retrained network."""
RUNS_FOLDER = Path("reports") / "runs"
QUIET_SECONDS = 2.0
"""Work shorter than this shows no progress."""
FILE_COLUMNS = 160
"""Width of tables that go to a file or pipe."""


def entry() -> None:
    """Console script."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ArchsimError as err:
        print(f"archsim: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("archsim: stopped; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archsim",
        description="Simulate spiking networks on in-memory-computing hardware: latency, energy, area, "
        "data movement and accuracy, event by event.",
    )
    parser.add_argument("--version", action="version", version=f"archsim {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="simulate a workload on a chip and write the result")
    run.add_argument("hardware", metavar="HW", nargs="?", default=DEFAULT_HARDWARE, help="shipped name or YAML file")
    run.add_argument(
        "workload",
        metavar="WORKLOAD",
        nargs="?",
        default=DEFAULT_WORKLOAD,
        help="shipped name, YAML, .nir, layer table or trace",
    )
    run.add_argument("-o", "--output", metavar="DIR", type=Path, help="folder to write (default: a new one)")
    run.add_argument("--samples", metavar="N", type=int, default=1, help="samples whose timing is simulated")
    run.add_argument("--engine", default="auto", help="auto (by size), simpy or compiled")
    run.add_argument("--seed", metavar="S", type=int, default=0, help="seed of everything random")
    run.add_argument("--chips", metavar="N", type=int, default=1, help="chips whose accuracy is evaluated")
    _add_timeline_option(run)
    _add_workload_options(run)
    _add_common_options(run)
    run.set_defaults(command=_run)

    report = commands.add_parser(
        "report", help="say what limits finished runs and what to change first: repeats each run and tries changes"
    )
    report.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folder of a run or a sweep")
    report.add_argument("--redraw", action="store_true", help="write the reports again from what the folder holds")
    _add_timeline_option(report)
    report.add_argument("--json", action="store_true", help="print what was found as JSON only")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="say what differs between two runs, and in which component and layer")
    compare.add_argument("before", metavar="DIR", type=Path, help="folder of a run")
    compare.add_argument("after", metavar="DIR", type=Path, help="folder of the run that is compared with it")
    compare.add_argument("-o", "--output", metavar="DIR", type=Path, help="folder for compare.html, .md and .json")
    compare.add_argument("--json", action="store_true", help="print JSON only")
    compare.set_defaults(command=_compare)

    describe = commands.add_parser("describe", help="check the files; show hierarchy, area, costs and mapping")
    describe.add_argument("hardware", metavar="HW", help="shipped name or YAML file")
    describe.add_argument("workload", metavar="WORKLOAD", nargs="?", help="shipped name, YAML or .nir file")
    _add_workload_options(describe)
    _add_common_options(describe)
    describe.set_defaults(command=_describe)

    record = commands.add_parser("record", help="store the spikes of every layer as a trace that any chip can replay")
    record.add_argument("workload", metavar="WORKLOAD", help="shipped name, YAML, .nir or layer table")
    record.add_argument("-o", "--output", metavar="TRACE", type=Path, required=True, help="trace to write (.npz)")
    record.add_argument("--hardware", metavar="HW", help="record the network on this chip (default: the ideal network)")
    record.add_argument("--samples", metavar="N", type=int, default=1, help="samples to record")
    record.add_argument("--seed", metavar="S", type=int, default=0, help="seed of everything random")
    _add_workload_options(record)
    _add_common_options(record)
    record.set_defaults(command=_record)

    sweep = commands.add_parser("sweep", help="simulate many designs; goes on where it was stopped")
    sweep.add_argument("space", metavar="SWEEP", help="sweep file (YAML) or shipped name")
    sweep.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder to write (default: reports/sweeps/NAME)"
    )
    sweep.add_argument("--jobs", metavar="N", type=int, help="processes (default: one per processor)")
    sweep.add_argument("--executor", choices=["local", "dask"], default="local", help="who evaluates points")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="with --executor dask: a running scheduler, or its file")
    sweep.add_argument("--retry-failed", action="store_true", help="simulate failed points again")
    sweep.add_argument("--cache-mib", metavar="N", type=int, help="limit of the work kept for other points")
    sweep.add_argument("--search", metavar="METHOD", help="search instead: nsga2 or tpe (extra 'search')")
    sweep.add_argument("--points", metavar="N", type=int, help="with --search: points to try")
    sweep.add_argument("--minutes", metavar="M", type=float, help="with --search: time to search")
    sweep.add_argument("--json", action="store_true", help="print JSON only")
    sweep.set_defaults(command=_sweep)

    robustness = commands.add_parser(
        "robustness", help="say where errors come from, how large crossbars may be, and what repairs help"
    )
    robustness.add_argument("hardware", metavar="HW", help="shipped name or YAML file")
    robustness.add_argument("workload", metavar="WORKLOAD", help="shipped name, YAML or .nir file")
    robustness.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder for the report and robustness.json"
    )
    robustness.add_argument("--budget", metavar="SHARE", type=float, default=0.01, help="accuracy that may be lost")
    robustness.add_argument("--samples", metavar="N", type=int, default=120, help="samples classified, at most")
    robustness.add_argument("--chips", metavar="N", type=int, default=1, help="chips that accuracy is a mean over")
    robustness.add_argument("--seed", metavar="S", type=int, default=0, help="seed of everything random")
    robustness.add_argument(
        "--retrain", metavar="EPOCHS", type=int, default=10, help="epochs of retraining on the chip; 0: not tried"
    )
    _add_workload_options(robustness)
    _add_common_options(robustness)
    robustness.set_defaults(command=_robustness)

    validate = commands.add_parser("validate", help="compare with a published model, a circuit or a network simulator")
    validate.add_argument("reference", choices=["spikesim", "sata", "spice", "noc"], help="what to compare with")
    validate.add_argument("--json", action="store_true", help="print JSON only")
    validate.add_argument(
        "--network", metavar="TABLE", type=Path, help="with sata: print the counts of the layers of a table (.csv)"
    )
    traffic = validate.add_argument_group(
        "traffic", "with noc: measure one pattern on a mesh instead of comparing with BookSim2"
    )
    traffic.add_argument("--k", type=int, metavar="K", help="nodes on a side of the mesh (default 8)")
    traffic.add_argument(
        "--traffic", dest="pattern", metavar="PATTERN", help="uniform (default), transpose, neighbor or hotspot"
    )
    traffic.add_argument("--hotspot", type=int, metavar="NODE", help="where hotspot traffic goes (default: drawn)")
    traffic.add_argument("--flit-rate", type=float, metavar="R", help="flits per node and cycle (default 0.1)")
    traffic.add_argument("--flits", type=int, metavar="P", help="flits per packet (default 1)")
    traffic.add_argument("--vcs", dest="virtual_channels", type=int, metavar="V", help="virtual channels (default 4)")
    traffic.add_argument("--detail", metavar="DETAIL", help="packet (default) or flit")
    traffic.add_argument("--cycles", type=int, metavar="N", help="cycles measured (default: 40000 packets)")
    traffic.add_argument("--seed", type=int, metavar="S", help="seed of the traffic (default 0)")
    validate.set_defaults(command=_validate)

    schema = commands.add_parser("schema", help="print the JSON schema of hardware files")
    schema.set_defaults(command=_schema)
    return parser


def _add_workload_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", metavar="X", help="input file (.npz, .npy, HDF5) or generator such as poisson:0.1")
    parser.add_argument("--timesteps", metavar="T", type=int, help="timesteps to run")


def _add_timeline_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeline",
        metavar="WINDOW",
        nargs="?",
        const=WHOLE_RUN,
        help="also write timeline.json.gz for ui.perfetto.dev: a window such as 10us:20us, or the run from its start",
    )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change one key, such as tile.pe.adc.bits=5 or workload.reset=zero; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")


# Commands


def _run(options: argparse.Namespace) -> int:
    from archsim import api
    from archsim.result import TIMELINE, require_writable

    hardware, workload = _load(options)
    assert hardware is not None, "run always has a chip"
    assert workload is not None, "run always has a workload"
    target = options.output or _new_run_folder(hardware, workload)
    require_writable(target)
    window = _window(options)
    began = time.perf_counter()
    with _Progress(enabled=not options.json) as progress:
        result = api.simulate(
            hardware, workload, options.samples, options.seed, options.engine, options.chips, progress.update
        )
    result.wall_clock["command_s"] = round(time.perf_counter() - began, 3)
    files: dict[str, Callable[[Path], None]] = {"report.html": partial(api.write_report, result)}
    if options.timeline is not None:
        files[TIMELINE] = partial(api.write_timeline, result, window=window)
    written = result.write(target, files)
    if options.json:
        print(json.dumps(result.summary, indent=2))
        return 0
    from archsim.report.terminal import print_result

    print_result(result, _console())
    print(f"report: {written / 'report.html'}")
    if options.timeline is not None:
        print(f"timeline: {written / TIMELINE}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from archsim.sweeps.store import is_sweep

    found = []
    for folder in options.folders:
        found.append(_report_sweep(folder, options) if is_sweep(folder) else _report_run(folder, options))
        if not options.json:
            print(f"report: {folder / 'report.html'}")
    if options.json:
        print(json.dumps(found, indent=2))
    return 0


def _report_run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Explain one run; returns what `--json` shows of it."""
    from archsim import api
    from archsim.report.why_section import sentences
    from archsim.result import TIMELINE, Result, require_writable

    window = _window(options)
    result = Result.load(folder)
    require_writable(folder)
    repeated = result
    if not options.redraw:
        with _Progress(enabled=not options.json) as progress:
            repeated = api.explain(result, progress.update)
    api.write_explanation(result, folder)
    if options.timeline is not None:
        # files do not hold how long queues were; a repeated run knows
        api.write_timeline(repeated, folder / TIMELINE, window)
        if not options.json:
            print(f"timeline: {folder / TIMELINE}")
    if not options.json:
        for sentence in sentences(result):
            print(sentence)
    return {"folder": str(folder), **api.explanation(result)}


def _report_sweep(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Show the trade-offs of one sweep; returns what `--json` shows of it."""
    from archsim.sweeps.report import report_sweep

    with _Progress(enabled=not options.json) as progress:
        page = report_sweep(folder, progress.update)
    if not options.json:
        print(page.verdict)
    return {"folder": str(folder), "verdict": page.verdict}


def _sweep(options: argparse.Namespace) -> int:
    from archsim.sweeps.run import DEFAULT_FOLDER, n_processors, run_sweep
    from archsim.sweeps.space import load_space

    searched = {"method": options.search, "points": options.points, "minutes": options.minutes}
    overrides = {f"search.{key}": value for key, value in searched.items() if value is not None}
    space = load_space(options.space, overrides)
    folder = options.output or DEFAULT_FOLDER / space.file.name
    if options.scheduler is not None and options.executor != "dask":
        raise ConfigError("--scheduler belongs to --executor dask")
    given: dict[str, Any] = {"output": folder, "jobs": options.jobs, "retry_failed": options.retry_failed}
    if options.cache_mib is not None:
        given["cache_mib"] = options.cache_mib
    try:
        with ExitStack() as stack:
            given["progress"] = stack.enter_context(_Progress(enabled=not options.json)).points
            if options.executor == "dask":
                from archsim.sweeps.dask_cluster import dask_executor

                client = dask_executor(options.scheduler, options.jobs or n_processors())
                given["executor"], given["jobs"] = stack.enter_context(client)
            table = run_sweep(space, **given)
    except KeyboardInterrupt:
        print(f"archsim: stopped; finished points are kept, and the same command goes on: {folder}", file=sys.stderr)
        return 130
    n_failed = int((table["status"] == "failed").sum())
    if options.json:
        print(json.dumps({"folder": str(folder), "points": len(table), "failed": n_failed}, indent=2))
    else:
        print(f"{len(table)} points, {n_failed} failed: {folder / 'sweep.csv'}; archsim report {folder} compares them")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from archsim import api
    from archsim.report.compare_page import compare_page, verdict
    from archsim.result import Result, require_writable

    if options.output is not None:
        require_writable(options.output)
    before, after = (Result.load(folder) for folder in (options.before, options.after))
    found = api.compare(before, after)
    labels = (str(options.before), str(options.after))
    if options.before.name != options.after.name:
        labels = (options.before.name, options.after.name)
    if options.output is not None:
        api.write_comparison(found, labels, options.output)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for sentence in verdict(found, labels):
        print(sentence)
    console = _console()
    for section in compare_page(found, labels).sections:
        for table in section.tables:
            _print_table(console, table.caption, table.head, [*table.rows, *([table.foot] if table.foot else [])])
    if options.output is not None:
        print(f"report: {options.output / 'compare.html'}")
    return 0


def _describe(options: argparse.Namespace) -> int:
    from archsim.engine.platforms import check_buffers
    from archsim.mapping import map_network
    from archsim.report.describe import hardware_sheets, mapping_sheets

    hardware, workload = _load(options)
    assert hardware is not None, "describe always has a chip"
    sheets = list(hardware_sheets(hardware))
    if workload is not None:
        mapping = map_network(hardware, workload)
        check_buffers(mapping)
        sheets += mapping_sheets(mapping)
    if options.json:
        print(
            json.dumps(
                {sheet.title: [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows] for sheet in sheets},
                indent=2,
            )
        )
        return 0
    console = _console()
    for sheet in sheets:
        _print_table(console, sheet.title, sheet.columns, sheet.rows)
    return 0


def _record(options: argparse.Namespace) -> int:
    from archsim import api
    from archsim.workload.trace import write_trace

    if options.output.suffix != ".npz":
        raise ConfigError(f"{options.output}: a trace is an .npz file; give it that ending")
    hardware, workload = _load(options)
    assert workload is not None, "record always has a workload"
    recording = api.record(workload, hardware, options.samples, options.seed)
    write_trace(options.output, workload, recording)
    spikes = {name: int(values.sum()) for name, values in recording.spikes.items()}
    if options.json:
        print(json.dumps({"trace": str(options.output), "samples": recording.n_samples, "spikes": spikes}, indent=2))
        return 0
    rows = [(name, f"{count:,}") for name, count in spikes.items()]
    _print_table(_console(), f"{workload.name}, {recording.n_samples} sample(s)", ("layer", "spikes"), rows)
    print(f"trace: {options.output}")
    return 0


def _robustness(options: argparse.Namespace) -> int:
    from archsim import api
    from archsim.hardware.reader import require_chip
    from archsim.result import require_writable

    hardware, workload = _load(options)
    assert hardware is not None, "robustness always has a chip"
    assert workload is not None, "robustness always has a workload"
    from archsim.report import robustness_page as pages  # these are heavy, and faults of files are told without them
    from archsim.training.workload_files import require_nir, write_workload

    if options.output is not None:
        require_writable(options.output)
        if options.retrain:
            require_nir()
    given = {name: getattr(options, name) for name in ("budget", "samples", "chips", "seed")}
    with _Progress(enabled=not options.json) as progress:
        found = api.robustness(
            require_chip(hardware), workload, **given, progress=progress.update, retrain_epochs=options.retrain
        )
    page = pages.robustness_page(found, hardware.name, workload.name)
    if options.output is not None:
        tuned = None if found.tuned is None else partial(write_workload, found.tuned, name=TUNED)
        pages.write_robustness(found, page, options.output, tuned)
    if options.json:
        print(json.dumps(pages.as_json(found), indent=2))
        return 0
    console = _console()
    for section in page.sections:
        for table in section.tables:
            _print_table(console, section.question, table.head, table.rows)
    print(page.verdict)
    if options.output is not None:
        print(f"report: {options.output / 'robustness.html'}")
        if found.tuned is not None:
            again = ["archsim", "run", options.hardware, f"{options.output / TUNED}.yaml"]
            keys = [key for key in options.overrides if not key.startswith("workload.")]  # those are in the file
            print(f"retrained network: {shlex.join([*again, *(part for key in keys for part in ('--set', key))])}")
    return 0


TRAFFIC_OPTIONS = (
    "k",
    "pattern",
    "hotspot",
    "flit_rate",
    "flits",
    "virtual_channels",
    "detail",
    "cycles",
    "seed",
)
"""Options of `validate noc`, under the names of `validation.noc.Traffic`."""


def _validate(options: argparse.Namespace) -> int:
    from importlib import import_module

    given = {name: getattr(options, name) for name in TRAFFIC_OPTIONS if getattr(options, name) is not None}
    if given and options.reference != "noc":
        raise ConfigError(f"validate {options.reference} has no traffic; leave the options of `validate noc` out")
    if given:
        return _measure_traffic(given, options.json)
    if options.network is not None:
        return _count_layers(options)
    reference = import_module(f"archsim.validation.{options.reference}")
    with _Progress(enabled=not options.json) as progress:
        checks = list(reference.checks(progress.update))
    if options.json:
        print(json.dumps([_check_fields(check) for check in checks], indent=2))
    else:
        rows = [
            (
                check.name,
                check.unit,
                _reference_text(check),
                f"{check.ours:.10g}",
                "" if check.error_rel is None else f"{check.error_rel:+.2e}",
                "ok" if check.passed else "OUT OF TOLERANCE",
                check.note,
            )
            for check in checks
        ]
        columns = ("figure", "unit", "reference", "archsim", "error", "", "note")
        _print_table(_console(), f"validate {options.reference}", columns, rows)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        print(f"archsim: out of tolerance: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measure_traffic(given: dict[str, Any], as_json: bool) -> int:
    from archsim.validation import noc

    found = noc.measure(noc.Traffic(**given))
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [(name, f"{value:.6g}" if isinstance(value, float) else str(value)) for name, value in found.items()]
    _print_table(_console(), "validate noc", ("figure", "archsim"), rows)
    return 0


def _count_layers(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from archsim.validation.sata_counts import table_counts

    if options.reference != "sata":
        raise ConfigError(f"validate {options.reference} counts no layers; --network belongs to `validate sata`")
    counts = [
        {**({"work": row.work} if row.work else {}), "layer": row.name, **asdict(found)}
        for row, found in table_counts(options.network)
    ]
    if options.json:
        print(json.dumps(counts, indent=2))
        return 0
    rows = [[str(value) for value in layer.values()] for layer in counts]
    _print_table(_console(), "validate sata: counts per timestep", list(counts[0]), rows)
    return 0


def _schema(options: argparse.Namespace) -> int:
    from archsim.hardware.reader import hardware_schema

    print(json.dumps(hardware_schema(), indent=2))
    return 0


# What they share


def _load(options: argparse.Namespace) -> tuple[AnyHardware | None, Workload | None]:
    """Read the files a command names, hardware first; nothing heavy is imported when they are faulty."""
    from archsim.api import load_hardware, load_workload, split_overrides
    from archsim.yamlfile import parse_override

    overrides: dict[str, object] = dict(parse_override(text, ConfigError) for text in options.overrides)
    for_hardware, for_workload = split_overrides(overrides)
    if options.hardware is None and for_hardware:
        raise ConfigError(f"--set {next(iter(for_hardware))}: there is no chip to change; give --hardware")
    hardware = load_hardware(options.hardware, for_hardware) if options.hardware is not None else None
    if options.workload is None:
        return hardware, None
    seed = getattr(options, "seed", 0)
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be at least 0")
    if getattr(options, "samples", 1) < 1:
        raise ConfigError(f"--samples is {options.samples}; it must be at least 1")
    is_generated = options.input is not None and not Path(options.input).exists()
    workload = load_workload(
        options.workload,
        options.input,
        options.timesteps,
        for_workload,
        samples=getattr(options, "samples", None) if is_generated else None,
        seed=seed,
    )
    return hardware, workload


def _window(options: argparse.Namespace) -> tuple[int, int] | None:
    """Window of the timeline that was asked for, in ps; None for all of the run."""
    from archsim.analysis.timeline import parse_window

    return None if options.timeline in (None, WHOLE_RUN) else parse_window(options.timeline)


def _new_run_folder(hardware: AnyHardware, workload: Workload) -> Path:
    """First free folder of this pair under reports/runs."""
    number = 1
    while (folder := RUNS_FOLDER / f"{hardware.name}_{_file_name(workload.name)}_{number:03d}").exists():
        number += 1
    return folder


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:80]


def _check_fields(check: Any) -> dict[str, Any]:
    return {
        "name": check.name,
        "unit": check.unit,
        "reference": check.reference,
        "bounds": check.bounds,
        "ours": check.ours,
        "error_rel": check.error_rel,
        "tolerance_rel": check.tolerance_rel,
        "passed": check.passed,
        "note": check.note,
    }


def _reference_text(check: Any) -> str:
    if check.bounds is not None:
        return f"{check.bounds[0]:.4g} .. {check.bounds[1]:.4g}"
    return f"{check.reference:.10g}"


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=FILE_COLUMNS)


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


class _Progress(AbstractContextManager["_Progress"]):
    """Bars on standard error for work that takes longer than two seconds; plain lines when it is no terminal."""

    LINE_SECONDS = 10.0

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._began = self._last_line = time.monotonic()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def update(self, phase: str, fraction: float) -> None:
        """Show how far a phase is."""
        now = time.monotonic()
        if not self.enabled or now - self._began < QUIET_SECONDS:
            return
        if not sys.stderr.isatty():
            if now - self._last_line >= self.LINE_SECONDS:
                self._last_line = now
                print(f"{phase}: {fraction:.0%}", file=sys.stderr)
            return
        bars = self._started()
        if phase not in self._tasks:
            self._tasks[phase] = bars.add_task(phase, total=1.0)
        bars.update(self._tasks[phase], completed=fraction)

    def points(self, tally: Tally) -> None:
        """Show how far a sweep is."""
        now = time.monotonic()
        if not self.enabled or now - self._began < QUIET_SECONDS:
            return
        if sys.stderr.isatty():
            bars = self._started()
            if not self._tasks:
                self._tasks["sweep"] = bars.add_task("", total=tally.total)
            bars.update(self._tasks["sweep"], completed=tally.done, description=tally.words())
        elif now - self._last_line >= self.LINE_SECONDS or tally.done == tally.total:
            self._last_line = now
            print(tally.words(), file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _started(self) -> Any:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bars = Progress(console=Console(stderr=True), transient=True)
            self._bars.start()
        return self._bars


if __name__ == "__main__":
    entry()

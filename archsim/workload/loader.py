"""Loads a workload: a shipped name, a workload file, a NIR file or a layer table, with its input and settings.

Entry point: `load_workload`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from archsim.errors import WorkloadError
from archsim.shipped import find_file
from archsim.workload.builders import BUILDERS
from archsim.workload.files import SettingsKeys, WorkloadFile, workload_faults
from archsim.workload.generators import generate_input, is_generator
from archsim.workload.inputs import read_input
from archsim.workload.layer_table import assumed_rates, read_layer_table
from archsim.workload.model import InputData, Request, Workload, WorkloadSettings
from archsim.workload.network import Network
from archsim.workload.nir_reader import read_nir
from archsim.workload.trace import is_trace, read_trace
from archsim.yamlfile import read_model

_NO_SETTINGS: Mapping[str, object] = MappingProxyType({})
_INPUT_KINDS = "a file (.npz, .npy, .h5, .nir) or a generator (poisson:RATE, constant:K, burst:PERIOD:LENGTH:COUNT)"


def load_workload(
    name_or_path: str | Path,
    input: str | Path | None = None,  # the public name of the option
    timesteps: int | None = None,
    settings: Mapping[str, object] = _NO_SETTINGS,
    samples: int | None = None,
    seed: int = 0,
) -> Workload:
    """Load a network together with what enters it.

    Args:
        name_or_path: Name of a shipped workload, or path of a workload file (.yaml), network (.nir),
            layer table (.csv) or trace (.npz).
        input: `.npz` file or generator text; replaces the input of a workload file.
        timesteps: Steps to run; by default those of the workload file, else all of the recording.
            Images and generators have no length of their own and need it.
        settings: Overrides by key, such as `{"reset": "subtract"}`; see `SettingsKeys`.
        samples: Number of samples, the first of a file; by default all of a file, 1 of a generator.
        seed: Seed of generators.

    Raises:
        WorkloadError: Something named here is missing, damaged, contradicts the rest or is too short.
    """
    path = find_file(str(name_or_path), "workloads", ".yaml", WorkloadError)
    _check_count("timesteps", timesteps)
    _check_count("samples", samples)
    text = None if input is None else str(input)
    is_shipped = not Path(name_or_path).is_file()
    request = Request(
        str(name_or_path) if is_shipped else str(path.absolute()),
        text if text is None or not Path(text).exists() else str(Path(text).absolute()),
        timesteps,
        samples,
        seed,
        {key: value.item() if hasattr(value, "item") else value for key, value in settings.items()},
    )
    loaded = _load(path, text, timesteps, settings, samples, seed)
    return replace(loaded, request=request, source=request.name_or_path if is_shipped else loaded.source)


def _load(
    path: Path, text: str | None, timesteps: int | None, settings: Mapping[str, object], samples: int | None, seed: int
) -> Workload:
    if path.suffix == ".nir":
        bare = _bare_settings(settings)
        _check_for_nir(bare)
        return _assemble(path.stem, read_nir(path, bare), path, text, timesteps, samples, seed, bare)
    if path.suffix == ".npz" and is_trace(path):
        return _replayed(path, text, timesteps, settings)
    if path.suffix == ".csv":
        return _from_table(None, path, path, text, timesteps, _bare_settings(settings))
    if path.suffix not in (".yaml", ".yml"):
        kinds = "a workload file (.yaml), a network (.nir), a layer table (.csv) or a trace (.npz)"
        raise WorkloadError(f"{path}: a workload is a shipped name, {kinds}")
    file = _read_file(path, settings)
    steps = file.timesteps if timesteps is None else timesteps
    if file.builder is not None:
        return _weightless(file, path, text, steps)
    if file.table is not None:
        return _from_table(file.name, path.with_name(file.table), path, text, steps, file.settings())
    assert file.network is not None
    network = replace(read_nir(path.with_name(file.network), file.settings()), name=file.name)
    if text is None and file.input is not None:
        text = str(path.with_name(file.input))
    return _assemble(file.name, network, path, text, steps, samples, seed, file.settings())


def _replayed(path: Path, text: str | None, timesteps: int | None, settings: Mapping[str, object]) -> Workload:
    """A trace, which brings input, timesteps and settings of its own."""
    workload = read_trace(path)
    if text is not None or settings:
        what = f"--input {text}" if text is not None else f"workload.{next(iter(settings))}"
        raise WorkloadError(
            f"{path}: a trace is replayed as it was recorded; {what} cannot change it. Record it again."
        )
    if timesteps not in (None, workload.n_timesteps):
        raise WorkloadError(f"{path}: the trace has {workload.n_timesteps} timesteps; {timesteps} were asked for")
    return workload


def _read_file(path: Path, overrides: Mapping[str, object]) -> WorkloadFile:
    try:
        return read_model(path, WorkloadFile, WorkloadError, overrides, workload_faults)
    except WorkloadError as fault:
        raise WorkloadError(_as_typed(fault)) from fault


def _bare_settings(overrides: Mapping[str, object]) -> WorkloadSettings:
    """Settings of a workload that has no file: the overrides over an empty one."""
    with tempfile.TemporaryDirectory(prefix="archsim-") as folder:
        empty = Path(folder) / "settings.yaml"
        empty.write_text("{}\n")
        try:
            return read_model(empty, SettingsKeys, WorkloadError, overrides).settings()
        except WorkloadError as fault:
            raise WorkloadError(_as_typed(fault)) from fault


def _check_for_nir(settings: WorkloadSettings) -> None:
    if settings.assumed_rate is not None:
        raise WorkloadError("workload.assumed_rate: the network has weights, so its activity is computed; remove it")
    if settings.work is not None:
        raise WorkloadError("workload.work: only a layer table (.csv) holds several works; remove it")


def _as_typed(fault: WorkloadError) -> str:
    """The message with overrides written as on the command line, under `workload.`."""
    return re.sub(r"--set (?=[\w.-]+=)", "--set workload.", str(fault))


def _weightless(file: WorkloadFile, path: Path, text: str | None, timesteps: int | None) -> Workload:
    assert file.builder is not None
    steps = _assumed_steps(path, text, timesteps)
    network = replace(BUILDERS[file.builder](), name=file.name)
    return Workload(file.name, network, steps, None, None, file.settings(), str(path))


def _from_table(
    name: str | None, table_path: Path, path: Path, text: str | None, timesteps: int | None, settings: WorkloadSettings
) -> Workload:
    """A layer table with the activity it states, or with `assumed_rate` where it states none."""
    table = read_layer_table(table_path, settings.work)
    n_stated = table.n_timesteps
    if n_stated is not None and timesteps is not None and timesteps > n_stated:
        raise WorkloadError(f"{table_path}: states the sparsity of {n_stated} timesteps; {timesteps} were asked for")
    steps = _assumed_steps(path, text, timesteps or n_stated)
    if not table.input_rates and settings.assumed_rate is None:
        advice = "give workload.assumed_rate, the activity to assume (0 to 1)"
        raise WorkloadError(f"{table_path}: has no column 'sparsity'; {advice}")
    rates = assumed_rates(table, steps, settings.assumed_rate)
    network = table.network if name is None else replace(table.network, name=name)
    return Workload(network.name, network, steps, None, None, settings, str(path), rates)


def _assumed_steps(path: Path, text: str | None, timesteps: int | None) -> int:
    """Timesteps of a network of shapes, which takes no input."""
    if text is not None:
        raise WorkloadError(f"{path}: the network has shapes only, its activity is assumed; it takes no input ({text})")
    if timesteps is None:
        raise WorkloadError(f"{path}: the network has shapes only; give timesteps, the steps to assume")
    return timesteps


def _assemble(
    name: str,
    network: Network,
    path: Path,
    text: str | None,
    timesteps: int | None,
    samples: int | None,
    seed: int,
    settings: WorkloadSettings,
) -> Workload:
    if text is None:
        raise WorkloadError(f"{path}: names no input; give one with --input: {_INPUT_KINDS}")
    calibration: InputData | None = None
    if is_generator(text) and not Path(text).exists():
        if timesteps is None:
            raise WorkloadError(f"{text}: a generator has no length of its own; give --timesteps")
        data = generate_input(text, network, timesteps, samples or 1, seed)
    else:
        data, calibration = read_input(Path(text), network, settings, timesteps, seed)
        data = _first_samples(text, data, samples)
    n_timesteps = _length(text, data, timesteps)
    if calibration is not None:
        calibration = _first_steps(calibration, _length(f"{text}: calibration", calibration, n_timesteps))
    return Workload(name, network, n_timesteps, _first_steps(data, n_timesteps), calibration, settings, str(path))


def _length(text: str, data: InputData, timesteps: int | None) -> int:
    n_steps = data.values.shape[1]
    if data.coding == "direct":
        if timesteps is None:
            raise WorkloadError(f"{text}: images enter at every timestep and have no length; give --timesteps")
        return timesteps
    if timesteps is not None and timesteps > n_steps:
        raise WorkloadError(f"{text}: holds {n_steps} timesteps; {timesteps} were asked for")
    return timesteps or n_steps


def _first_steps(data: InputData, n_timesteps: int) -> InputData:
    return data if data.coding == "direct" else replace(data, values=data.values[:, :n_timesteps])


def _first_samples(text: str, data: InputData, samples: int | None) -> InputData:
    if samples is None:
        return data
    if samples > data.n_samples:
        raise WorkloadError(f"{text}: holds {data.n_samples} samples; {samples} were asked for")
    labels = None if data.labels is None else data.labels[:samples]
    return replace(data, values=data.values[:samples], labels=labels)


def _check_count(name: str, count: int | None) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise WorkloadError(f"{name} is {count!r}; it must be a whole number of at least 1")

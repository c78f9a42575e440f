"""A finished run once more: read what it was from its `config.yaml`, simulate it again, check that it is the same.

Files of a run hold no spikes, so whatever asks what would be otherwise starts here. Entry: `repeat_run`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from archsim.engine.platforms import check_buffers
from archsim.engine.simulation import Progress, simulate_activity
from archsim.errors import ConfigError
from archsim.hardware.costs import CostLibrary
from archsim.hardware.systolic import AnyHardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.result import Result
from archsim.workload.loader import load_workload
from archsim.yamlfile import read_model

M = TypeVar("M", bound=BaseModel)


class _Request(BaseModel):
    """How the workload was loaded (`archsim.workload.model.Request`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name_or_path: str
    input: str | None
    timesteps: int | None
    samples: int | None
    seed: int
    settings: dict[str, Any]


class _Workload(BaseModel):
    """The part of the workload's section that says how to load it; what it resolved to is for readers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request: _Request | None = Field(default=None)


class _Config(BaseModel):
    """What `config.yaml` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hardware: AnyHardware = Field(discriminator="kind")
    cost_library: CostLibrary
    workload: _Workload


def repeat_run(result: Result, progress: Progress | None = None) -> Result:
    """Simulate a loaded run again, so that its spikes are at hand (`Result.origin`).

    Args:
        result: A run, as `Result.load` gives it; one of this process is returned as it is.
        progress: Called with a phase's name and the fraction of it that is done.

    Raises:
        ConfigError: The run does not say how its workload was loaded, or what it gives now differs from what was
            written; the message names the figures.
        WorkloadError: The workload is not where it was.
    """
    if result.origin is not None:
        return result
    config = read_config(result.config, _Config)
    request = config.workload.request
    if request is None:
        raise ConfigError(
            f"workload '{result.summary['workload']}' was not loaded from a file, so its run cannot be repeated; "
            "keep the result of archsim.simulate and call archsim.what_if with it"
        )
    workload = load_workload(**dict(request))
    mapping = map_network(config.hardware.with_library(config.cost_library), workload)
    check_buffers(mapping)
    seed, n_samples = int(result.summary["seed"]), int(result.summary["n_samples"])
    n_chips = int(result.summary.get("n_chips") or 1)
    activity = infer(mapping, workload, n_samples, seed, n_chips, progress)
    again = simulate_activity(mapping, workload, activity, seed, str(result.summary["engine"]), progress)
    _require_equal(result, again)
    return again


def read_config(text: str, model: type[M]) -> M:
    """Read the text of a run's `config.yaml` into a model.

    Raises:
        ConfigError: It is not what the model says; the message gives the lines.
    """
    with TemporaryDirectory(prefix="archsim-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return read_model(path, model, ConfigError)
        except ConfigError as err:
            raise ConfigError(str(err).replace(str(path), "config.yaml")) from err


def _require_equal(result: Result, again: Result) -> None:
    """Check that a repeated run is the run that was written."""
    old, new = result.summary, again.summary
    changed = [key for key in new if key != "archsim_version" and old.get(key) != new[key]]
    if not changed:
        return
    first, n_others = changed[0], len(changed) - 1
    others = f" ({n_others} other figures differ, too)" if n_others else ""
    versions = {str(old.get("archsim_version")), str(new["archsim_version"])}
    why = "its workload has changed since" if len(versions) == 1 else f"archsim was {old.get('archsim_version')} then"
    raise ConfigError(
        f"this run of '{old['workload']}' on '{old['hardware']}' comes out differently now: {first} is "
        f"{new[first]!r} and was {old.get(first)!r}{others}; {why}.\n"
        "Run the simulation again."
    )

"""The keys of a workload file, and the rules between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from archsim.workload.builders import BUILDERS
from archsim.workload.model import WorkloadSettings
from archsim.workload.nir_neurons import contradiction

_DEFAULT = WorkloadSettings()


def _plain_name(name: str) -> str:
    if any(char in name for char in "/\\:") or name.startswith(".") or not name.isprintable():
        raise ValueError(f"{name!r} is not a plain file name; the file must lie beside this one")
    return name


FileName = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]


class SettingsKeys(BaseModel):
    """What a network file leaves open; also `--set workload.KEY=VALUE`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    timestep_s: float = Field(default=_DEFAULT.timestep_s, gt=0, allow_inf_nan=False)
    """Length of a timestep in seconds, against which LIF time constants are measured."""
    reset: Literal["subtract", "zero"] = _DEFAULT.reset
    """What a spike does to the potential: subtract the threshold, or set it to v_reset."""
    spikes_per_step: Literal["one", "many"] = _DEFAULT.spikes_per_step
    """Whether a neuron may emit floor(v / v_threshold) spikes in a timestep; needs reset subtract."""
    lif_update: Literal["exponential", "euler"] = _DEFAULT.lif_update
    """Discretisation of the leak: decay exp(-dt / tau) or 1 - dt / tau."""
    assumed_rate: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Networks without weights only: probability that a neuron spikes in a timestep. Where a layer table
    states its sparsity, that of the last layer only."""
    work: str | None = None
    """Layer tables only: which network, where the table holds several."""
    encoding: Literal["direct", "rate", "latency", "delta"] = _DEFAULT.encoding
    """How images enter: the same frame at every timestep, or as random, first or changing spikes."""
    encoding_max: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Image value that counts as full intensity for rate and latency; by default the largest of the file."""
    delta_threshold: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Encoding delta only: smallest change between two frames that spikes, in the unit of the images."""

    def settings(self) -> WorkloadSettings:
        """The settings alone."""
        return WorkloadSettings(**{key: getattr(self, key) for key in SettingsKeys.model_fields})


class WorkloadFile(SettingsKeys):
    """A workload: a network, its input and its settings."""

    format_version: Literal[1]
    """Version of this file format."""
    name: str = Field(min_length=1, max_length=100)
    """Name that reports show."""
    description: str = ""
    """One sentence on what it is and where it comes from."""
    network: FileName | None = None
    """NIR file beside this file."""
    builder: Literal[tuple(BUILDERS)] | None = None  # type: ignore[valid-type]
    """Built-in network of which only the shapes are known, instead of a file."""
    table: FileName | None = None
    """Layer table (.csv) beside this file, of which only the shapes are known, instead of a network."""
    input: FileName | None = None
    """Input file (.npz) beside this file."""
    timesteps: int | None = Field(default=None, ge=1)
    """Timesteps to run; by default all of a recording."""


def workload_faults(file: WorkloadFile) -> Iterator[tuple[str, str]]:
    """Faults beyond single keys, as (key, what is wrong)."""
    if [file.network, file.builder, file.table].count(None) != 2:
        yield "name", "a workload has either network, builder or table, exactly one of them"
    if (file.builder or file.table) is not None and file.input is not None:
        yield "input", "the network has no weights that an input could drive; remove input"
    if file.builder is not None and file.assumed_rate is None:
        yield "builder", "a builder's network has no weights; give assumed_rate, the activity to assume (0 to 1)"
    if file.network is not None and file.assumed_rate is not None:
        yield "assumed_rate", "the network has weights, so its activity is computed; remove assumed_rate"
    if file.table is None and file.work is not None:
        yield "work", "only a layer table holds several works; remove work"
    fault = contradiction(file.spikes_per_step, file.reset)
    if fault:
        yield "spikes_per_step", fault

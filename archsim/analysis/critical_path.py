"""What a sample's latency is made of: its critical path, the path as a stack, and what binds together.

The path itself is found by `archsim.engine.critical_path` and written with every result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsim.errors import ConfigError
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd


def critical_path(result: Result, sample: int = 0) -> pd.DataFrame:
    """Why a sample took as long as it did, in order of time.

    Args:
        result: A run, or a loaded one.
        sample: Number of the sample, from 0.

    Returns:
        One row per segment: `component`, `action` (`delay`: on a wire or in a router's pipeline), `layer`, `timestep`,
        `cause` (why the service started no earlier: `data`, `credit`, `server`, `arbiter`), `duration_ps`, `start_ps`,
        `co_component` (a part that ended something needed at the same instant, so that shortening this segment alone
        gains nothing; empty if there is none). Durations sum to the latency exactly.

    Raises:
        ConfigError: There is no such sample, or the result was written without paths.
    """
    n_samples = int(result.summary["n_samples"])
    if not 0 <= sample < n_samples:
        known = "sample 0 only" if n_samples == 1 else f"samples 0 to {n_samples - 1}"
        raise ConfigError(f"sample {sample} is not in this result; it has {known}. Simulate more with --samples.")
    paths = result.paths
    if paths is None:
        raise ConfigError(
            "this result was written without critical paths (no critical_path.parquet in its folder). "
            "Run the simulation again."
        )
    mine = paths[paths["sample"] == sample].reset_index(drop=True)
    return mine[["component", "action", "layer", "timestep", "cause", "duration_ps", "start_ps", "co_component"]]


def latency_stack(result: Result, sample: int = 0) -> pd.DataFrame:
    """The critical path summed by kind of component, layer and cause, longest first.

    Columns: `kind`, `layer`, `cause`, `n_segments`, `duration_ps`, `share` of the latency.

    Raises:
        ConfigError: As `critical_path`.
    """
    path = critical_path(result, sample)
    grouped = path.assign(kind=path["component"].map(kinds_of(result))).groupby(["kind", "layer", "cause"], sort=True)
    stack = grouped["duration_ps"].agg(n_segments="size", duration_ps="sum").reset_index()
    stack["share"] = stack["duration_ps"] / max(int(path["duration_ps"].sum()), 1)
    return stack.sort_values("duration_ps", ascending=False, kind="stable").reset_index(drop=True)


def kinds_of(result: Result) -> dict[str, str]:
    """Kind of every component."""
    return dict(zip(result.components["component"].astype(str), result.components["kind"].astype(str), strict=True))


def co_critical(result: Result, sample: int = 0) -> list[tuple[str, str, int]]:
    """Pairs of components that bind at the same time, as (on the path, beside it, ps of the path), longest first.

    Raises:
        ConfigError: As `critical_path`.
    """
    path = critical_path(result, sample)
    tied = path[path["co_component"] != ""]
    sums = tied.groupby(["component", "co_component"], sort=True)["duration_ps"].sum()
    return [(*pair, int(sum_ps)) for pair, sum_ps in sums.sort_values(ascending=False, kind="stable").items()]

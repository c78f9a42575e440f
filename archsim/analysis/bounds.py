"""What a layer could do at most, and what it does: ceilings by kind of component, and the work that bounds a run.

A component that works for a time t cannot be done before t, however well everything around it is arranged. So the work
of a layer, over the time that its busiest component of a kind works for it, is a ceiling that no schedule and no
faster part of another kind can lift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archsim.analysis.breakdown import latency_by_layer
from archsim.analysis.critical_path import kinds_of
from archsim.result import Result

if TYPE_CHECKING:
    import pandas as pd

BITS_PER_BYTE = 8
PE = "pe"
"""Kind of a whole PE, whose parts are components of kinds of their own."""


def layer_bounds(result: Result) -> pd.DataFrame:
    """How long the busiest component of every kind works for every layer; one row per layer and kind.

    Columns: `layer`, `kind`, `component` (the busiest; the first of equals), `busy_ps`. A PE that is busy while any of
    its parts is counts as a component of kind `pe`.
    """
    import pandas as pd  # heavy, loaded with the first table

    log, totals = result.log, result.log.totals
    kind_of = kinds_of(result)
    works = (totals.action != log.leak) & (totals.service_ps > 0)
    n = len(log.components)
    cells, busy = np.unique(totals.layer[works].astype(np.int64) * n + totals.component[works], return_inverse=True)
    sums = np.zeros(len(cells), np.int64)
    np.add.at(sums, busy, totals.service_ps[works])
    frame = pd.DataFrame({"layer": cells // n, "component": cells % n, "busy_ps": sums})
    frame["kind"] = [kind_of.get(log.components[code], "") for code in frame["component"]]
    first = frame.groupby(["layer", "kind"], sort=True)["busy_ps"].idxmax()
    frame = frame.loc[first].reset_index(drop=True)
    frame["layer"] = [log.layers[code] for code in frame["layer"]]
    frame["component"] = [log.components[code] for code in frame["component"]]
    units = stage_times(result)[["layer", "unit", "busy_ps"]].rename(columns={"unit": "component"})
    units = units[~units["component"].isin(log.components)].assign(kind=PE)
    return pd.concat([units, frame], ignore_index=True)[["layer", "kind", "component", "busy_ps"]]


def moved_bytes(result: Result) -> dict[str, float]:
    """Bytes moved for every layer, all samples: every movement counts once, whatever the number of links."""
    log, totals = result.log, result.log.totals
    packets = np.array([movement.packets for movement in log.movements] + [0], np.int64)
    bits = totals.bits * packets[totals.movement]
    sums = np.zeros(len(log.layers), np.int64)
    np.add.at(sums, totals.layer, bits)
    return {name: float(total) / BITS_PER_BYTE for name, total in zip(log.layers, sums, strict=True)}


def roofline(result: Result) -> pd.DataFrame | None:
    """Synaptic operations per byte moved and per second of every layer; None where operations are not known.

    Columns: `layer`, `synaptic_ops` (dense, all samples), `ops_per_byte`, `ops_per_s` over the layer's window from
    first start to last leave. Layers without operations or movement are left out.
    """
    if "synaptic_ops" not in result.layers:
        return None
    frame = result.layers[["layer", "synaptic_ops", "first_start_ps", "last_leave_ps"]].dropna()
    frame = frame.assign(bytes=frame["layer"].map(moved_bytes(result)).fillna(0.0))
    seconds = (frame["last_leave_ps"] - frame["first_start_ps"]) * 1e-12
    frame = frame[(frame["synaptic_ops"] > 0) & (frame["bytes"] > 0) & (seconds > 0)]
    frame = frame.assign(ops_per_byte=frame["synaptic_ops"] / frame["bytes"], ops_per_s=frame["synaptic_ops"] / seconds)
    return frame[["layer", "synaptic_ops", "ops_per_byte", "ops_per_s"]].reset_index(drop=True)


def is_used(result: Result) -> pd.Series:
    """Whether every component did anything (rows of `Result.components`): it or its ports act, or bits go in or out."""
    parts = result.components
    names = parts["component"].astype(str)
    acting = set(names[parts["n_actions"] > 0])
    acting |= {name.rsplit(".", 1)[0] for name in acting if "." in name}
    moving = result.movement[result.movement["bits"] > 0]
    acting |= set(moving["source"].astype(str)) | set(moving["destination"].astype(str))
    return names.isin(acting)


def stage_times(result: Result) -> pd.DataFrame:
    """How long the busiest PE or part works for every layer with neurons, and copies for twice the slowest's pace.

    Columns: `layer`, `unit`, `busy_ps` over the whole run, `replication`, `n_pes`, `copies_for_twice`: as many that
    each works half as long as the slowest layer's busiest unit now, were a layer's work divided evenly;
    `pes_for_twice`.
    """
    frame = latency_by_layer(result)[["layer", "busiest_unit", "unit_busy_ps"]]
    frame = frame.rename(columns={"busiest_unit": "unit", "unit_busy_ps": "busy_ps"})
    frame = frame.merge(result.layers[["layer", "n_neurons", "replication", "n_pes"]], on="layer")
    frame = frame[(frame["n_neurons"] > 0) & (frame["busy_ps"] > 0)].drop(columns="n_neurons").reset_index(drop=True)
    copies, half = frame["replication"].to_numpy(), max(float(frame["busy_ps"].max() if len(frame) else 0) / 2, 1.0)
    needed = np.ceil(frame["busy_ps"].to_numpy() * copies / half - 1e-9).astype(np.int64)
    frame["copies_for_twice"] = np.maximum(needed, copies)
    frame["pes_for_twice"] = frame["n_pes"] // np.maximum(copies, 1) * frame["copies_for_twice"]
    return frame

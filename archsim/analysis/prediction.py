"""What a change would do, predicted: the run's netlist with the changed service times, executed again.

The network stays where it is on the chip. A copied layer is the same layer served faster: its PEs by the number of
its copies, what its tiles share (H-tree, accumulator, neurons, injection) and the partial sums between them by the
number of tiles that these take. What a changed chip does exactly, with its network mapped anew, is
`archsim.analysis.what_if`'s to verify.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from archsim.analysis.anomalies import is_nowhere_slower
from archsim.analysis.candidates import COPIES, Change
from archsim.components.netlist import Action, Lane, Netlist
from archsim.engine.platforms import build_netlist, check_buffers
from archsim.engine.simulation import Origin, build_result, execute_netlist
from archsim.engine.streams import execute_stream
from archsim.hardware.reader import change_hardware
from archsim.mapping import AnyMapping, ArrayMapping, Mapping, map_network
from archsim.result import Result


@dataclass(frozen=True)
class Prediction:
    """Figures of the changed chip, per sample."""

    latency_ps: int
    energy_pj: float
    area_um2: float
    is_exact: bool
    """Whether this is a simulation of the changed chip already, as the network is mapped as before."""
    is_anomaly: bool = False
    """Whether the whole run takes longer although nothing is slower."""


def changed_mapping(origin: Origin, change: Change) -> AnyMapping:
    """The network of a run on the changed chip.

    Raises:
        ConfigError: A value is not possible.
        MappingError: The network does not fit.
    """
    mapping = map_network(change_hardware(origin.mapping.hardware, change), origin.workload)
    check_buffers(mapping)
    return mapping


def predict(result: Result, change: Change, changed: AnyMapping) -> Prediction | None:
    """Run the netlist of a run of this process with a change; `changed` is `changed_mapping` of it.

    None where the change, its copies of layers aside, puts the network elsewhere on the chip.
    """
    origin: Origin = result.origin
    services = {key: value for key, value in change.items() if key not in COPIES}
    base = changed if len(services) == len(change) else changed_mapping(origin, services)
    if _places(base) != _places(origin.mapping):
        return None
    is_exact = _places(changed) == _places(base)

    def serve_faster(netlist: Netlist) -> None:
        if isinstance(base, Mapping) and isinstance(changed, Mapping) and not is_exact:
            _serve_faster(netlist, base, changed)

    done = execute_stream(base, origin.activity, execute_netlist, serve_faster)
    summary = build_result(origin._replace(mapping=base), done, int(result.summary["seed"])).summary
    latency_ps, area_um2, energy_pj = summary["latency_ps"], summary["area_um2"], summary["energy_per_sample_pj"]
    if not is_exact:
        copied = build_netlist(changed, done.activity)
        area_um2 = sum(part.area_um2 for part in copied.components)
        energy_pj = _energy_pj(copied, done.trace.end_ps) / int(result.summary["n_samples"])
    is_longer = done.trace.end_ps > int(result.log.totals.last_leave_ps.max())
    is_anomaly = is_longer and is_nowhere_slower(done.netlist, build_netlist(origin.mapping, done.activity))
    return Prediction(latency_ps, energy_pj, area_um2, is_exact, is_anomaly)


def _energy_pj(netlist: Netlist, length_ps: int) -> float:
    """Energy of a netlist's actions, which does not ask when they happen, and of leakage over a run's length."""
    dynamic_pj = sum(float(action.energy_pj.sum()) for lane in netlist.lanes() for action in lane.actions)
    return dynamic_pj + sum(part.leakage_mw for part in netlist.components) * length_ps * _PJ_PER_MW_PS


_PJ_PER_MW_PS = 1e-3


def _places(mapping: AnyMapping) -> tuple[object, ...]:
    """All of a mapping but the chip's keys; nothing on an array, which is simulated anew with every change."""
    if isinstance(mapping, ArrayMapping):
        return ()
    return mapping.layers, mapping.n_tiles, mapping.mesh_width, mapping.mesh_height, mapping.nodes


def _serve_faster(netlist: Netlist, base: Mapping, changed: Mapping) -> None:
    """Shorten the services of layers that have more copies in another mapping."""
    factors: dict[str, tuple[Fraction, Fraction]] = {}
    for old, new in zip(base.layers, changed.layers, strict=True):
        copies, tiles = Fraction(new.n_copies, old.n_copies), Fraction(len(new.tiles), len(old.tiles))
        factors[old.layer.name] = copies, tiles
    pes = {pe.path for layer in base.layers for pe in layer.pes}
    for lane in netlist.lanes():
        copies, tiles = factors.get(lane.layer, (Fraction(1), Fraction(1)))
        if any(".".join(action.component.split(".")[:2]) in pes for action in lane.actions):
            _shorten(lane, float(copies))
        elif all(_is_of_one_copy(action) for action in lane.actions):
            _shorten(lane, float(tiles))


def _is_of_one_copy(action: Action) -> bool:
    """Whether every copy of a layer has this for itself: what is in its tiles, injection, partial sums on the NoC."""
    carries_sums = action.movement is not None and action.movement.data_class == "partial_sums"
    return action.component.startswith("tile") or action.component.endswith(".inject") or carries_sums


def _shorten(lane: Lane, factor: float) -> None:
    if factor == 1:
        return

    def shorter(action: Action) -> Action:
        return replace(action, duration_ps=np.rint(action.duration_ps / factor).astype(np.int64))

    lane.actions = tuple(shorter(action) for action in lane.actions)

"""Spikes from HDF5 recordings: NIRData and SONATA, told apart by their content.

Texts raised here do not name the file: `inputs.read_input` puts it in front.
Formats: `nir.NIRGraphData` of the reference package, version 1.0.8, times in seconds; SONATA, Dai et al., PLoS
Computational Biology 16(2), 2020, spike files. Entry point: `hdf5_events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isclose, prod

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.input_arrays import LARGEST, Events, whole
from archsim.workload.network import INPUT, Shape
from archsim.workload.recordings import UNITS, bin_times, check_neurons, event_place, refuse_first, times_column
from archsim.workload.sandbox import Hdf5File, Hdf5Tree, Hdf5Value

_SORTINGS = ("none", "by_id", "by_time", "by_timestamp")


def hdf5_events(file: Hdf5File, shape: Shape, timestep_s: float) -> Events:
    """Bin the spikes of an HDF5 file; its content says whether it is NIRData or SONATA."""
    kind = file.attributes.get("/", {}).get("__type__")
    if kind == "NIRGraphData":
        return _nir_events(file, shape, timestep_s)
    if "spikes" in file.tree:
        return _sonata_events(file, shape, timestep_s)
    if "node" in file.tree:
        raise WorkloadError("holds a NIR network, not spikes; name it as the workload and give spikes with --input")
    raise WorkloadError("HDF5, but neither NIRData (nir.write_data) nor SONATA (a group 'spikes')")


def _nir_events(file: Hdf5File, shape: Shape, timestep_s: float) -> Events:
    nodes = _group(file.tree, "nodes")
    for name in nodes:
        if file.attributes.get(f"/nodes/{name}", {}).get("__type__") == "NIRGraphData":
            raise WorkloadError(f"node '{name}' is a nested NIRGraphData; only flat recordings are read")
    node = _choose(nodes, INPUT, "node")
    observables = _group(_group(nodes, node), "observables")
    observable = _choose(observables, "spikes", f"observable of node '{node}'")
    where = f"node '{node}', observable '{observable}'"
    fields = _group(observables, observable)
    attributes = file.attributes.get(f"/nodes/{node}/observables/{observable}", {})
    makers = {"TimeGriddedData": _gridded, "EventData": _listed, "ValuedEventData": _listed}
    kind = attributes.get("__type__")
    if not isinstance(kind, str) or kind not in makers:
        raise WorkloadError(f"{where} is of type {kind!r}; types are {', '.join(makers)}")
    try:
        return makers[kind](fields, attributes, shape, timestep_s)
    except WorkloadError as fault:
        raise WorkloadError(f"{where}: {fault}") from None


def _gridded(fields: Hdf5Tree, attributes: Hdf5Tree, shape: Shape, timestep_s: float) -> Events:
    data, n_neurons = _numbers(fields, "data"), prod(shape)
    if data.ndim != 3 or 0 in data.shape or data.shape[2] != n_neurons:
        raise WorkloadError(f"data has shape {data.shape}; this network needs (sample, step, {n_neurons})")
    dt = _number(attributes, "dt")
    if not isclose(dt, timestep_s, rel_tol=1e-6):
        advice = f"set workload.timestep_s={dt:g} or bin the recording anew"
        raise WorkloadError(f"its steps are {dt:g} s but workload.timestep_s is {timestep_s:g}; {advice}")
    counts = _counts(data, "data")
    samples, steps, neurons = np.nonzero(counts)
    found = counts[samples, steps, neurons].astype(np.int64)
    return Events(samples, steps, neurons, found, data.shape[0], data.shape[1])


def _listed(fields: Hdf5Tree, attributes: Hdf5Tree, shape: Shape, timestep_s: float) -> Events:
    columns = {key: _numbers(fields, key) for key in ("idx", "time", "value") if key in fields or key != "value"}
    idx, time = columns["idx"], columns["time"]
    shapes = {key: column.shape for key, column in columns.items()}
    if idx.ndim != 2 or len(set(shapes.values())) > 1:
        raise WorkloadError(f"has {_pairs(shapes)}; all must be (sample, event)")
    if idx.shape[0] < 1:
        raise WorkloadError("holds no samples")
    declared = _number(attributes, "n_neurons")
    if declared != prod(shape):
        raise WorkloadError(f"n_neurons is {declared:g} but layer 'input' has {prod(shape)} neurons")
    indices = whole(idx, "idx").astype(np.int64)
    samples, events = np.nonzero(indices != -1)  # where there is no event the index is -1 and the time infinite

    def place(i: int) -> str:
        return f"event {events[i]} of sample {samples[i]}"

    neurons = indices[samples, events]
    check_neurons(neurons, shape, place)
    t_max = _number(attributes, "t_max")
    times = times_column(time[samples, events])
    steps = bin_times(times, "s", timestep_s, place)
    refuse_first(
        times > t_max * (1 + 1e-9),
        place,
        lambda i: f"t is {times[i]:g} s, behind the end of the recording, {t_max:g} s",
    )
    counts = np.ones_like(steps)
    if "value" in columns:
        counts = _counts(columns["value"][samples, events], "value").astype(np.int64)
    last_edge = int(bin_times(np.array([t_max]), "s", timestep_s, lambda _: "t_max")[0])
    is_partial = last_edge * timestep_s < t_max * (1 - 1e-9)
    n_steps = max(last_edge + is_partial, int(steps.max(initial=0)) + 1)
    return Events(samples, steps, neurons, counts, idx.shape[0], n_steps)


def _sonata_events(file: Hdf5File, shape: Shape, timestep_s: float) -> Events:
    populations = _group(file.tree, "spikes")
    if "timestamps" in populations:
        raise WorkloadError("its spikes belong to no population; SONATA keeps them in /spikes/<population>/timestamps")
    population = _choose(populations, INPUT, "population")
    fields = _group(populations, population)
    path = f"/spikes/{population}"
    times, ids = (_numbers(fields, key).ravel() for key in ("timestamps", "node_ids"))
    if times.size != ids.size:
        raise WorkloadError(f"population '{population}' has {times.size} timestamps but {ids.size} node_ids")
    if not times.size:
        raise WorkloadError(f"population '{population}' has no spikes")
    unit = file.attributes.get(f"{path}/timestamps", {}).get("units", "ms")
    if not isinstance(unit, str) or unit not in UNITS:
        raise WorkloadError(f"units of {path}/timestamps are {unit!r}; units are {', '.join(UNITS)}")
    neurons = whole(ids, "node_ids").astype(np.int64)
    check_neurons(neurons, shape, event_place)
    steps = bin_times(times_column(times), unit, timestep_s, event_place)
    _check_sorting(file.attributes.get(path, {}).get("sorting", "none"), times, neurons)
    return Events(np.zeros_like(steps), steps, neurons, np.ones_like(steps), 1, int(steps.max()) + 1)


def _check_sorting(sorting: Hdf5Value, times: np.ndarray, neurons: np.ndarray) -> None:
    """Refuse lists that are not in the order they claim: something in them is wrong."""
    if not isinstance(sorting, str) or sorting not in _SORTINGS:
        raise WorkloadError(f"sorting is {sorting!r}; it is one of {', '.join(_SORTINGS)}")
    keys = {"none": times[:0], "by_id": neurons}.get(sorting, times)
    falls = np.flatnonzero(keys[1:] < keys[:-1])
    if falls.size:
        i = int(falls[0])
        raise WorkloadError(f"sorting is {sorting!r} but event {i + 1} ({keys[i + 1]:g}) lies behind {i} ({keys[i]:g})")


def _counts(array: np.ndarray, key: str) -> np.ndarray:
    counts = whole(array, key)
    if counts.size and counts.min() < 0:
        raise WorkloadError(f"{key!r} holds {counts.min()}; spike counts cannot be negative")
    if counts.sum(dtype=np.int64) > LARGEST:
        raise WorkloadError(f"{key!r} sums to {counts.sum(dtype=np.int64)} spikes; at most {LARGEST} are supported")
    return counts


def _choose(members: Iterable[str], preferred: str, what: str) -> str:
    """The preferred member, or the only one."""
    names = sorted(members)
    if preferred in names or len(names) == 1:
        return preferred if preferred in names else names[0]
    listed = ", ".join(f"'{name}'" for name in names[:10]) or "none"
    raise WorkloadError(f"which {what} enters the network? call it '{preferred}' or keep one; there are {listed}")


def _group(tree: Mapping[str, Hdf5Value], name: str) -> Hdf5Tree:
    value = tree.get(name)
    if not isinstance(value, dict):
        raise WorkloadError(f"has no group '{name}'")
    return value


def _numbers(tree: Hdf5Tree, name: str) -> np.ndarray:
    value = tree.get(name)
    if not isinstance(value, np.ndarray):
        raise WorkloadError(f"has no numbers under '{name}'")
    return value


def _number(attributes: Hdf5Tree, name: str) -> float:
    value = attributes.get(name)
    if not isinstance(value, np.ndarray) or value.size != 1 or not np.isfinite(value).all():
        raise WorkloadError(f"attribute '{name}' must be one finite number")
    return float(value.item())


def _pairs(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key} of shape {shape}" for key, shape in shapes.items())

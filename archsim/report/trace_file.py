"""A run as a trace that ui.perfetto.dev and chrome://tracing open: one track per server slot, counters for queues.

Format: Trace Event Format, JSON object form (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
Its times are microseconds; they are written with six decimals, so every picosecond is kept. Equal results give equal
bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archsim.analysis import timeline
from archsim.analysis.timeline import Services, Window
from archsim.errors import ConfigError
from archsim.eventlog import CAUSES, EventLog
from archsim.report.text import plain
from archsim.result import Result

N_SERVICES = 200_000
"""Services that a trace has room for: Perfetto opens as many within seconds."""

_GROUP = re.compile(r"^(tile\d+|noc|[^.]+)")
_PS_PER_US = 1_000_000


def write_trace(result: Result, path: Path, window: Window | None = None) -> None:
    """Write the services of a window as gzipped JSON.

    Args:
        result: A run, or a loaded one.
        path: File to write, ends in `.json.gz`.
        window: First and last picosecond; the whole run without. It is cut where more than `N_SERVICES` services
            have begun; the file says what it holds in `otherData.window_ps`.

    Raises:
        ConfigError: The file cannot be written.
    """
    shown = _fitting(result.log, window or timeline.run_window(result.log))
    buffer = io.BytesIO()
    # neither time nor name in the gzip header, which would differ from run to run
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as file:
        head = {"archsim": result.summary["archsim_version"], "window_ps": list(shown), "times": "us from the start"}
        file.write(f'{{"displayTimeUnit":"ns","otherData":{json.dumps(head)},"traceEvents":[\n'.encode())
        for index, event in enumerate(_events(result, shown)):
            file.write((",\n" if index else "").encode() + event.encode())
        file.write(b"\n]}\n")
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror}). Choose another path.") from err


def _fitting(log: EventLog, window: Window) -> Window:
    """The window, cut at the start of the first service that has no room."""
    begun = np.concatenate([np.zeros(0, np.int64), *(_starts(log, name, window) for name in log.components)])
    if len(begun) <= N_SERVICES:
        return window
    return window[0], int(np.partition(begun, N_SERVICES)[N_SERVICES])


def _starts(log: EventLog, component: str, window: Window) -> np.ndarray:
    start, service, leave = log.services_of(component, "start_ps", "service_ps", "leave_ps")
    return start[(service > 0) & (start < window[1]) & (leave > window[0])]


def _events(result: Result, window: Window) -> Iterator[str]:
    """Names of processes and tracks, spans, counters: one line of JSON each."""
    log = result.log
    processes: dict[str, int] = {}
    track = 0
    for name in log.components:
        found = timeline.services(log, name, window)
        if not len(found):
            continue
        group = _group(name)
        yield from _process(processes, group)
        process = processes[group]
        slots = slots_of(found.start_ps, found.start_ps + found.service_ps)
        n_slots = int(slots.max()) + 1
        for slot in range(n_slots):
            label = name.removeprefix(f"{group}.")
            yield _meta("thread_name", process, track + slot + 1, f"{label} #{slot}" if n_slots > 1 else label)
        yield from _spans(log, found, process, slots + track + 1)
        track += n_slots
    for name, (begin, end) in (result.waits or {}).items():
        lasting = (end > begin) & (begin < window[1]) & (end > window[0])
        if lasting.any():
            yield from _process(processes, _group(name))
            yield from _counter(f"waiting at {name}", processes[_group(name)], begin[lasting], end[lasting], window)


def slots_of(start_ps: np.ndarray, end_ps: np.ndarray) -> np.ndarray:
    """Lowest free slot of every service, in order of start; 0 everywhere unless services overlap."""
    slots = np.zeros(len(start_ps), np.int64)
    if (start_ps[1:] >= np.maximum.accumulate(end_ps)[:-1]).all():
        return slots
    free: list[int] = []
    for index, (start, end) in enumerate(zip(start_ps.tolist(), end_ps.tolist(), strict=True)):
        slot = next((slot for slot, until in enumerate(free) if until <= start), len(free))
        free[slot : slot + 1] = [end]
        slots[index] = slot
    return slots


def _group(component: str) -> str:
    """The tile, or the NoC, or the part of the chip that a component belongs to."""
    match = _GROUP.match(component)
    return match.group(1) if match else component


def _process(processes: dict[str, int], group: str) -> Iterator[str]:
    """The name of a group, which is a process to the viewer, when it is first met."""
    if group not in processes:
        processes[group] = len(processes) + 1
        yield _meta("process_name", processes[group], 0, group)


def _meta(kind: str, process: int, track: int, name: str) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": process, "tid": track, "args": {"name": plain(name)}})


def _spans(log: EventLog, found: Services, process: int, tracks: np.ndarray) -> Iterator[str]:
    layers, actions = [plain(name) for name in log.layers], log.actions
    columns: Sequence[list[Any]] = [getattr(found, name).tolist() for name in Services.__dataclass_fields__]
    for track, row in zip(tracks.tolist(), zip(*columns, strict=True), strict=True):
        start, service, leave, layer, timestep, token, sample, action, count, energy, start_cause, leave_cause = row
        args = {
            "layer": layers[layer],
            "timestep": timestep,
            "token": token,
            "sample": sample,
            "count": count,
            "energy_pj": energy,
            "start_cause": CAUSES[start_cause],
        }
        if leave > start + service:
            args |= {"blocked_us": (leave - start - service) / _PS_PER_US, "leave_cause": CAUSES[leave_cause]}
        name = json.dumps(f"{layers[layer]} {actions[action]}")
        yield (
            f'{{"ph":"X","name":{name},"pid":{process},"tid":{track},"ts":{_us(start)},"dur":{_us(service)},'
            f'"args":{json.dumps(args)}}}'
        )


def _counter(name: str, process: int, begin: np.ndarray, end: np.ndarray, window: Window) -> Iterator[str]:
    """How many tokens wait, wherever that changes in the window, from when they begin and end to."""
    times = np.concatenate([np.maximum(begin, window[0]), end])
    steps = np.repeat([1, -1], len(begin))
    at, index = np.unique(times, return_inverse=True)
    depth = np.cumsum(np.bincount(index, weights=steps, minlength=len(at))).astype(np.int64)
    inside = at <= window[1]
    label = json.dumps(plain(name))
    for time, waiting in zip(at[inside].tolist(), depth[inside].tolist(), strict=True):
        yield f'{{"ph":"C","name":{label},"pid":{process},"ts":{_us(time)},"args":{{"tokens":{waiting}}}}}'


def _us(picoseconds: int) -> str:
    """Microseconds with all picoseconds."""
    whole, rest = divmod(picoseconds, _PS_PER_US)
    return f"{whole}.{rest:06d}"

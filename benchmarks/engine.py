"""Speed and memory of the compiled engine: `python benchmarks/engine.py [CASE...]`, every case in a process of its own.

CPU seconds of one thread. `engine` is writing the netlist into tables, the event kernel and the trace; `log` is the
event log as the tables of a run need it; `file` is working out its rows and writing them to Parquet. Ratios are
between naive SimPy (`naive_simpy.py`) and the engine on the same netlist in the same process. The log is no part of
naive SimPy; `with log` adds it to the engine's side only. Compilation happens once per installation, printed apart.
Every figure with a floor says whether it is on the right side of it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive_simpy
import numpy as np

import archsim
from archsim.components.netlist import Action, Lane, Netlist, constant
from archsim.engine.crossbar_chip import build_netlist
from archsim.engine.log import build_log

CHIP = "spikesim-rram-64"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg9": ("vgg9-cifar10", {}),
    "resnet19": ("resnet19-cifar10", {}),
    "vgg16-cifar10": ("vgg16-cifar10", {}),
    "vgg16-ideal": ("vgg16-imagenet", {"chip.noc.detail": "ideal"}),
    "vgg16-mesh": ("vgg16-imagenet", {}),
}
"""Workload and overrides."""

FLOORS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "vgg9": (("engine_ratio", ">=", 40),),
    "vgg16-ideal": (("engine_ratio", ">=", 60), ("engine_s", "<=", 2)),
    "vgg16-mesh": (("log_ratio", ">=", 20), ("engine_and_log_s", "<=", 6), ("peak_mib", "<=", 1536)),
}
"""What the engine is held to: figure, side and value."""
MOST_GROWTH = 1.5
"""Of the cost per service from VGG9 to VGG16 with the same network on chip."""

Figures = dict[str, float]


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def warm_up() -> float:
    """Seconds to compile the kernel, or to load it if that was done before."""
    from archsim.engine import compiled_execution

    work = Action("part", "work", constant(1, 2), constant(1, 2), constant(0, 2), constant(0, 2, np.float64))
    netlist = Netlist()
    netlist.server("part", "private", Lane("part", "", 2, 2, (0, 1), (work,)))
    return cpu_seconds(lambda: compiled_execution.execute(netlist))[0]


def netlist_of(workload: str, overrides: dict[str, Any]) -> tuple[float, Netlist]:
    chip, loaded = archsim.load_hardware(CHIP, overrides), archsim.load_workload(workload)
    mapping = archsim.map_network(chip, loaded)
    activity = archsim.infer(mapping, loaded)
    return cpu_seconds(lambda: build_netlist(mapping, activity))


def n_services(netlist: Netlist) -> int:
    return sum(lane.n_tokens for lane in netlist.lanes())


def measure(name: str) -> Figures:
    """Figures of one case; the netlist is executed three times, and the fastest counts."""
    from archsim.engine.compiled_execution import execute

    found: Figures = {"load_s": warm_up()}
    found["netlist_s"], netlist = netlist_of(*CASES[name])
    found["services"] = number = n_services(netlist)
    engine_s, trace = min((cpu_seconds(lambda: execute(netlist)) for _ in range(3)), key=lambda pair: pair[0])
    log_s, log = cpu_seconds(lambda: (lambda log: (log.totals, log)[1])(build_log(netlist, trace)))
    found |= {"engine_s": engine_s, "ns_per_service": 1e9 * engine_s / number, "log_s": log_s, "rows": len(log)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        found["file_s"], _ = cpu_seconds(lambda: log.write(path))
        found["bytes_per_row"] = path.stat().st_size / len(log)
    found["peak_mib"] = peak_mib()
    naive_s, (end_ps, done) = cpu_seconds(lambda: naive_simpy.run(netlist))
    assert done == number, "naive SimPy serves every token"
    found |= {"naive_s": naive_s, "naive_us_per_service": 1e6 * naive_s / done, "makespans": end_ps / trace.end_ps}
    found["engine_and_log_s"] = engine_s + log_s
    found |= {"engine_ratio": naive_s / engine_s, "log_ratio": naive_s / (engine_s + log_s)}
    return found


def show(name: str, found: Figures) -> None:
    print(
        f"{name}: {found['services']:,.0f} services, {found['rows']:,.0f} rows; "
        f"netlist {found['netlist_s']:.2f} s, engine {found['engine_s']:.2f} s ({found['ns_per_service']:.0f} ns a "
        f"service), log {found['log_s']:.2f} s, file {found['file_s']:.2f} s ({found['bytes_per_row']:.2f} bytes a "
        f"row); peak {found['peak_mib']:.0f} MiB; kernel loaded in {found['load_s']:.2f} s\n"
        f"  naive SimPy: {found['naive_s']:.1f} s ({found['naive_us_per_service']:.1f} us a service), makespan "
        f"{found['makespans']:.3f} of archsim's; engine {found['engine_ratio']:.0f} times, with log "
        f"{found['log_ratio']:.0f} times as fast"
    )
    for figure, side, floor in FLOORS.get(name, ()):
        hold(figure, found[figure], side, floor)


def hold(figure: str, value: float, side: str, floor: float) -> None:
    holds = value >= floor if side == ">=" else value <= floor
    print(f"  {figure} {value:.2f} {side} {floor:g}: {'holds' if holds else 'MISSED'}", flush=True)


def compile_seconds() -> float:
    """Time to compile the kernel from nothing, in a process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "import engine; print(engine.warm_up())"]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    print(f"compiling the kernel, once per installation: {compile_seconds():.1f} s", flush=True)
    found: dict[str, Figures] = {}
    for name in sys.argv[1:] or CASES:
        command = [sys.executable, __file__, "--alone", name]
        found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        show(name, found[name])
    if {"vgg9", "vgg16-mesh"} <= set(found):
        growth = found["vgg16-mesh"]["ns_per_service"] / found["vgg9"]["ns_per_service"]
        print("cost per service, VGG16 over VGG9:")
        hold("growth", growth, "<=", MOST_GROWTH)


if __name__ == "__main__":
    main()

"""Speed and memory of the compiled engine: `python benchmarks/engine.py [CASE...]`, every case in a process of its own.

CPU seconds of one thread. `engine` is writing the netlist into tables, the event kernel and the trace; `log` is the
event log as the tables of a run need it; `file` is working out its rows and writing them to Parquet. The ratio
is between naive SimPy (`naive_simpy.py`) and the engine on the same netlist in the same process; where that
netlist would take naive SimPy minutes, both run fewer timesteps and the line says so. The log is no part of
naive SimPy; `with log` adds it to the engine's side only. Compilation happens once per installation, printed apart.
"""

from __future__ import annotations

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
CASES: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "vgg9": ("vgg9-cifar10", {}, None),
    "resnet19": ("resnet19-cifar10", {}, None),
    "vgg16-cifar10": ("vgg16-cifar10", {}, None),
    "vgg16-ideal": ("vgg16-imagenet", {"chip.noc.detail": "ideal"}, 1),
    "vgg16-mesh": ("vgg16-imagenet", {}, 1),
}
"""Workload, overrides, and timesteps of the comparison with naive SimPy (None: all)."""


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


def netlist_of(workload: str, overrides: dict[str, Any], timesteps: int | None) -> tuple[float, Netlist]:
    chip, loaded = archsim.load_hardware(CHIP, overrides), archsim.load_workload(workload, timesteps=timesteps)
    mapping = archsim.map_network(chip, loaded)
    activity = archsim.infer(mapping, loaded)
    return cpu_seconds(lambda: build_netlist(mapping, activity))


def n_services(netlist: Netlist) -> int:
    return sum(lane.n_tokens for lane in netlist.lanes())


def measure(name: str) -> None:
    from archsim.engine.compiled_execution import execute

    workload, overrides, compared_steps = CASES[name]
    loading = warm_up()
    building, netlist = netlist_of(workload, overrides, None)
    running, trace = min((cpu_seconds(lambda: execute(netlist)) for _ in range(3)), key=lambda pair: pair[0])
    logging, log = cpu_seconds(lambda: (lambda log: (log.totals, log)[1])(build_log(netlist, trace)))
    number, peak = n_services(netlist), peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        writing, _ = cpu_seconds(lambda: log.write(path))
        size = path.stat().st_size
    print(
        f"{name}: {number:,} services, {len(log):,} rows; netlist {building:.2f} s, engine {running:.2f} s "
        f"({1e9 * running / number:.0f} ns a service), log {logging:.2f} s, file {writing:.2f} s "
        f"({size / len(log):.2f} bytes a row); peak {peak} MiB, with file {peak_mib()} MiB; "
        f"kernel loaded in {loading:.2f} s",
        flush=True,
    )
    if compared_steps is not None:
        del trace, log
        _, netlist = netlist_of(workload, overrides, compared_steps)
        running, trace = min((cpu_seconds(lambda: execute(netlist)) for _ in range(3)), key=lambda pair: pair[0])
        logging, _ = cpu_seconds(lambda: build_log(netlist, trace).totals)
    naive, (end_ps, done) = cpu_seconds(lambda: naive_simpy.run(netlist))
    steps = "" if compared_steps is None else f" with {compared_steps} timestep"
    print(
        f"  naive SimPy{steps}: {naive:.1f} s for {done:,} of {n_services(netlist):,} services "
        f"({1e6 * naive / done:.1f} us a service), makespan {end_ps / trace.end_ps:.3f} of archsim's; "
        f"engine {naive / running:.0f} times, with log {naive / (running + logging):.0f} times as fast"
    )


def compile_seconds() -> float:
    """Time to compile the kernel from nothing, in a process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "import engine; print(engine.warm_up())"]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    names = sys.argv[1:] or list(CASES)
    if len(names) == 1:
        measure(names[0])
        return
    print(f"compiling the kernel, once per installation: {compile_seconds():.1f} s")
    for name in names:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()

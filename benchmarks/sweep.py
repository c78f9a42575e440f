"""What a sweep costs: time of many timing points, gain of a second process, memory, and cost per point as sweeps grow.

    python benchmarks/sweep.py [--points 1000] [--largest 5000]

Points are `vgg9-cifar10` on changed chips, from activity found once; growth is measured with a small network, so that
the sweep itself weighs most. Ratios hold on any machine, times on this one; CPU times leave out what else it does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from archsim.sweeps.driver import Driver
from archsim.sweeps.plan import Plan
from archsim.sweeps.run import run_sweep, tasks_of
from archsim.sweeps.space import load_space
from archsim.sweeps.workers import Processes

LIMIT_S, LIMIT_SPEED_UP, GOAL_CPU_S = 120.0, 1.8, 0.1
CHIP = "spikesim-rram-64"
N_SPEED_UP = 60
TABLE = """layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride
conv,4,4,2,4,3,3,1
fc,1,1,64,10,1,1,1
"""


def vgg9(n_points: int) -> dict[str, Any]:
    """Points that differ in widths and clock alone, so that all share one activity."""
    clocks = {"low": 100.0, "high": 400.0, "count": max(2, -(-n_points // 20))}
    axes = {
        "chip.noc.flit_bits": [16, 32, 48, 64, 128],
        "tile.htree.bits_per_cycle": [256, 512, 1024, 2048],
        "chip.clock_mhz": clocks,
    }
    return {"format_version": 1, "name": "vgg9", "hardware": CHIP, "workloads": ["vgg9-cifar10"], "axes": axes}


def small(folder: Path, n_points: int) -> dict[str, Any]:
    """As many points of a network of two layers."""
    (folder / "small.csv").write_text(TABLE)
    return {
        "format_version": 1,
        "name": "small",
        "hardware": "demo",
        "workloads": [str(folder / "small.csv")],
        "set": {"workload.assumed_rate": 0.25, "workload.timesteps": 1},
        "axes": {"chip.clock_mhz": {"low": 50.0, "high": 200.0, "count": n_points}},
    }


def used(whose: int) -> tuple[float, float]:
    """CPU seconds, and MiB of the largest process."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure_points(n_points: int, folder: Path) -> None:
    """Time and CPU of a whole sweep, start to table."""
    children, own, began = used(resource.RUSAGE_CHILDREN)[0], used(resource.RUSAGE_SELF)[0], time.perf_counter()
    table = run_sweep(vgg9(n_points), output=folder / "many", jobs=2)
    seconds = time.perf_counter() - began
    workers = (used(resource.RUSAGE_CHILDREN)[0] - children) / len(table)
    parent = (used(resource.RUSAGE_SELF)[0] - own) / len(table)
    verdict = "below" if seconds < LIMIT_S * len(table) / 1000 else "ABOVE"
    print(f"{len(table)} points of vgg9-cifar10 on two processes: {seconds:.1f} s, {verdict} {LIMIT_S:g} s per 1000")
    print(f"  CPU per point: workers {workers:.3f} s with their start (goal {GOAL_CPU_S:g} s), parent {parent:.4f} s")


def measure_speed_up(folder: Path) -> None:
    """Two warm processes against one on the same points: by the clock, and by the CPU time that they take.

    The clock is right where nothing else runs. The CPU time of all processes, parent included, says what two idle
    processors would give: twice the work per second, less what working side by side adds.
    """
    plan = Plan.of(load_space(vgg9(N_SPEED_UP)), folder / "speed-up")
    tasks = tasks_of(plan)[:N_SPEED_UP]
    seconds, cpu = {}, {}
    for n_workers in (1, 2):
        workers = Processes(n_workers)
        driver = Driver(plan.job, plan.store, workers, lambda task, record: None)
        driver.run(tasks[: 4 * n_workers])  # loads code and workload in every process
        pids = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        before, began = _cpu_of(pids), time.perf_counter()
        driver.run(tasks)
        seconds[n_workers], cpu[n_workers] = time.perf_counter() - began, _cpu_of(pids) - before
        workers.stop()
    by_clock, by_work = seconds[1] / seconds[2], 2 * cpu[1] / cpu[2]
    verdict = "above" if by_work >= LIMIT_SPEED_UP else "BELOW"
    print(
        f"speed-up of two processes: {by_work:.2f} by CPU time, {verdict} {LIMIT_SPEED_UP}; {by_clock:.2f} by the clock"
    )


def _cpu_of(pids: list[int]) -> float:
    """CPU seconds of processes and of this one."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + used(resource.RUSAGE_SELF)[0]


def measure_growth(largest: int, folder: Path) -> None:
    """CPU and memory of small points as sweeps grow, in one process, and of going on when all is there."""
    sizes = sorted({min(100, largest), min(1000, largest), largest})
    first = None
    for n_points in sizes:
        before = used(resource.RUSAGE_SELF)[0]
        space = small(folder, n_points)
        run_sweep(space, output=folder / f"small-{n_points}", jobs=1)
        cpu_s, peak_mib = used(resource.RUSAGE_SELF)
        each = (cpu_s - before) / n_points
        first = first or each
        run_sweep(space, output=folder / f"small-{n_points}", jobs=1)
        again = (used(resource.RUSAGE_SELF)[0] - cpu_s) / n_points
        print(
            f"{n_points} small points: {each * 1e3:.2f} ms of CPU each, {each / first:.2f} x that of {sizes[0]}; "
            f"peak memory {peak_mib:.0f} MiB; resuming costs {again * 1e3:.2f} ms each"
        )


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--largest", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archsim-") as name:
        folder = Path(name)
        measure_growth(options.largest, folder)
        measure_speed_up(folder)
        measure_points(options.points, folder)


if __name__ == "__main__":
    main()

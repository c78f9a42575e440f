"""Speed of the systolic array against SATA_Sim: `python benchmarks/systolic.py`, every case in a process of its own.

CPU seconds of one simulation, from the layer table or shape to the finished tables; loading Python and its packages is
printed apart. SATA_Sim steps an array that never waits cycle by cycle: about 246 CPU seconds for the VGG9 of BNTT,
which it finished, and about 6500 for ResNet-19, extrapolated from its first layers (RuokaiYin/SATA_Sim at d447058).
"""

from __future__ import annotations

import subprocess
import sys
import time

CASES = {"vgg9-cifar10": 246.0, "resnet19-cifar10": 6500.0}
"""Workload and CPU seconds of SATA_Sim on the network of that name."""


def measure(workload_name: str) -> None:
    """Print one row of the table."""
    import archsim
    from archsim.engine import compiled_execution

    assert compiled_execution, "loads the compiled engine"
    loading_s = time.process_time()
    began = time.process_time()
    workload = archsim.load_workload(workload_name)
    result = archsim.simulate(archsim.load_hardware("sata-16x8"), workload, engine="compiled")
    took_s = time.process_time() - began
    theirs_s = CASES[workload_name]
    print(
        f"| {workload_name}, {workload.n_timesteps} timesteps | {result.summary['n_services']:,} | {loading_s:.1f} | "
        f"{took_s:.2f} | {theirs_s:.0f} | {theirs_s / took_s:.0f}x |",
        flush=True,
    )


def main() -> int:
    """Measure every case, or the one that the command line names."""
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return 0
    print("| network | services | loading [CPU s] | simulation [CPU s] | SATA_Sim [CPU s] | ratio |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for name in CASES:
        subprocess.run([sys.executable, __file__, name], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What exactness costs: `python benchmarks/crossbar.py`. CPU time of one thread, least of several runs, as ratios.

Reads: `Crossbar.read` against the bare product of the same inputs with a matrix of the size of the
weights, and of the size of the array. Programming: the effective matrix of all wires, against
solving the circuit read by read, with a sparse direct solver (set up, factorised and solved for one
input, as badcrossbar does) and by conjugate gradients.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from archsim.analog import Crossbar, Wires, effective_conductance
from archsim.analog.circuit import device_voltages
from archsim.hardware.devices import Device

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from nodal_analysis import Mesh, column_currents, node_voltages

OHMS = (100.0, 2.5, 2.5, 50.0)
N_READS = 4096


def cpu_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Least process time of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def conductances(*shape: int) -> torch.Tensor:
    return 5e-6 + 4.5e-5 * torch.rand(shape)


def reads() -> None:
    """Reads of n x n weights in an array of n x 2n cells, against products with matrices of either size."""
    print(f"{N_READS} reads of n x n weights in pairs of columns; x: CPU time over that of the bare product")
    print("     n   bare n x n | all wires | wires, read noise, 6-bit converter | the same over bare n x 2n")
    for side in (64, 128, 256, 512):
        inputs, weights = (torch.rand(N_READS, side) < 0.3).float(), torch.randn(side, side)
        array = torch.rand(side, 2 * side)
        wired = Crossbar(weights, "rram-20k-200k", Wires(*OHMS))
        noisy = Device(preset="rram-20k-200k", read_noise_sigma_rel=0.02)
        full = Crossbar(weights, noisy, Wires(*OHMS), adc_bits=6).calibrate(inputs)
        bare = cpu_seconds(lambda i=inputs, w=weights: i @ w)
        bare_array = cpu_seconds(lambda i=inputs, a=array: i @ a)
        of_wired, of_full = (cpu_seconds(lambda i=inputs, c=crossbar: c.read(i)) for crossbar in (wired, full))
        print(
            f"  {side:4} {1e6 * bare / N_READS:7.3f} us   | {of_wired / bare:6.2f} x  | {of_full / bare:6.2f} x"
            f"{'':25}| {of_full / bare_array:6.2f} x"
        )


def programming() -> None:
    """The effective matrix, once per programming."""
    print("programming, float32, per crossbar")
    for n_crossbars, side in ((1000, 64), (100, 128), (10, 256)):
        g = conductances(n_crossbars, side, side)
        matrix = cpu_seconds(lambda g=g: effective_conductance(g, *OHMS), 2) / n_crossbars
        both = cpu_seconds(lambda g=g: effective_conductance(g, *OHMS, input_conductance=True), 2) / n_crossbars
        print(
            f"  {side:4} x {side:<4} {1e3 * matrix:8.2f} ms, with input conductance {1e3 * both:8.2f} ms; "
            f"{n_crossbars} crossbars: {n_crossbars * matrix:.2f} s"
        )


def circuits_per_read() -> None:
    """One read solved as a circuit, against programming once and against a programmed read."""
    print("one read solved as a circuit: time | programmings it pays for | programmed reads in that time | error")
    for side in (64, 128):
        g = conductances(side, side)
        volts = 0.2 * (torch.rand(1, side) < 0.3).float()
        effective = effective_conductance(g, *OHMS)
        program = cpu_seconds(lambda g=g: effective_conductance(g, *OHMS))
        batch = (torch.rand(N_READS, side) < 0.3).float()
        read = cpu_seconds(lambda b=batch, e=effective: b @ e) / N_READS
        mesh, wires = Mesh(g.double().numpy(), *OHMS), Wires(*OHMS)
        methods = {
            "sparse solve": lambda m=mesh, v=volts: column_currents(m, node_voltages(m, v.double().numpy())[1]),
            "conjugate gradients": lambda g=g, v=volts, w=wires: (g * device_voltages(g, v, w)).sum(-2).numpy(),
        }
        for name, solve in methods.items():
            seconds = cpu_seconds(solve, 3)
            error = abs((volts @ effective).numpy() / solve() - 1).max()
            print(
                f"  {side:4} x {side:<4} {name:20} {1e3 * seconds:8.2f} ms | {seconds / program:7.2f} | "
                f"{seconds / read:10.0f} | {error:.1e}"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reads()
    programming()
    circuits_per_read()

"""Accuracy over crossbar size and ADC bits, chip by chip: `python benchmarks/accuracy_sweep.py [--chips 20]`.

digits-cnn on devices with spread behind resistive wires. Cells are programmed once per size and chip
and kept for all ADC resolutions; the times of programming, cold and kept, say what that saves. The
last column is the time of a chip over that of the same chip with ideal cells. CPU time of one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from archsim.activity import Accuracy
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat
from archsim.api import infer, load_hardware, load_workload, map_network
from archsim.inference.chip import program
from archsim.mapping import Mapping

CELLS = {
    "device.preset": "rram-20k-200k",
    "device.d2d_sigma_rel": 0.1,
    "r_driver_ohm": 200,
    "r_wire_row_ohm": 2.5,
    "r_wire_col_ohm": 2.5,
    "r_sense_ohm": 200,
}
Result = TypeVar("Result")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """A result and the process time that it took."""
    began = time.process_time()
    result = call()
    return result, time.process_time() - began


def mapped(size: int, bits: int, cells: dict[str, object]) -> Mapping:
    """digits-cnn on crossbars of one size with converters of one resolution."""
    changes = {f"tile.pe.crossbar.{key}": value for key, value in cells.items()}
    changes |= {"tile.pe.crossbar.rows": size, "tile.pe.crossbar.cols": size, "tile.pe.adc.bits": bits}
    changes |= {"tile.pe.crossbar.signed": "differential"}
    return map_network(load_hardware("spikesim-rram-64", changes), load_workload("digits-cnn"))


def program_all(mapping: Mapping, chips: int) -> None:
    """Write every layer of every chip."""
    for chip in range(chips):
        for layer in mapping.layers:
            program(mapping, layer, 1.0, InputFormat(1), ChipSeed(0, chip))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 6, 8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload, saved = load_workload("digits-cnn"), 0.0
    for size in options.sizes:
        mappings = {bits: mapped(size, bits, CELLS) for bits in options.bits}
        first = mappings[options.bits[0]]
        (_, cold), (_, kept) = (timed(lambda m=first: program_all(m, options.chips)) for _ in range(2))
        saved += (cold - kept) * (len(options.bits) - 1)
        print(f"{size} x {size}: {options.chips} chips programmed in {cold:.2f} s, taken from memory in {kept:.2f} s")
        for bits, mapping in mappings.items():
            ideal = mapped(size, bits, {})
            _, of_ideal = timed(lambda m=ideal: infer(m, workload))
            _, of_one = timed(lambda m=mapping: infer(m, workload))
            activity, seconds = timed(lambda m=mapping: infer(m, workload, chips=options.chips))
            print(
                f"  {bits} bits: {summary(activity.accuracy)}; {seconds:.1f} s, {of_one / of_ideal:.2f} x ideal cells"
            )
    n_points = len(options.sizes) * len(options.bits)
    print(f"{n_points} points of {options.chips} chips; keeping programmed crossbars saved {saved:.1f} s")


def summary(accuracy: Accuracy) -> str:
    """Mean and standard deviation over chips, raw and calibrated, in percent."""
    parts = []
    for kind in ("raw", "calibrated"):
        each = torch.tensor([getattr(chip, kind) for chip in accuracy.chips], dtype=torch.float64) * 100
        parts.append(f"{kind} {float(each.mean()):5.1f} ± {float(each.std(correction=min(1, len(each) - 1))):.1f} %")
    return ", ".join(parts)


if __name__ == "__main__":
    main()

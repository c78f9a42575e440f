"""A sweep of a small network without weights, whose points take some milliseconds each."""

from __future__ import annotations

from pathlib import Path

TABLE = """layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride
conv,4,4,2,4,3,3,1
fc,1,1,64,10,1,1,1
"""
SWEEP = """format_version: 1
name: tiny
hardware: demo
workloads: [tiny.csv]
set: {workload.assumed_rate: 0.25, workload.timesteps: 2}
axes:
  chip.noc.flit_bits: [8, 16, 32]
  tile.pe.adc.cols_per_adc: [1, 4, 16]
  chip.clock_mhz: {low: 50.0, high: 200.0, count: 3, scale: log}
"""
N_POINTS = 27
LONG_SWEEP = SWEEP.replace("count: 3", "count: 60")


def write_sweep(folder: Path, text: str = SWEEP) -> Path:
    """Write the sweep and its network; returns the sweep file."""
    (folder / "tiny.csv").write_text(TABLE)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"

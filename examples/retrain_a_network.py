"""Retrain a network of one's own for a chip that spoils it, and write it as a workload."""

import tempfile
from dataclasses import replace
from pathlib import Path

import archsim
from archsim.training import retrain, write_workload

hardware = archsim.load_hardware(
    "demo",
    {
        "tile.pe.crossbar.device.preset": "rram-20k-200k",
        "tile.pe.crossbar.device.d2d_sigma_rel": 0.1,
        "tile.pe.crossbar.r_driver_ohm": 2500,
        "mapping.calibration": "none",
    },
)
workload = archsim.load_workload("digits-mlp")
data = workload.input
judged = replace(workload, input=replace(data, values=data.values[:120], labels=data.labels[:120]))
taught = replace(workload, input=replace(data, values=data.values[120:], labels=None))

before = archsim.infer(archsim.map_network(hardware, judged), judged, chips=3).accuracy
tuned = replace(judged, network=retrain(hardware, taught, n_epochs=8))
after = archsim.infer(archsim.map_network(hardware, tuned), tuned, chips=3).accuracy
print(f"ideal {before.ideal:.0%}, on the chip {before.raw:.0%}, retrained {after.raw:.0%}")

with tempfile.TemporaryDirectory() as folder:
    write_workload(tuned, Path(folder), "tuned")
    again = archsim.load_workload(Path(folder) / "tuned.yaml")
print(f"written and read again: {archsim.map_network(hardware, again).n_crossbars} crossbars")

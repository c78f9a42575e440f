"""Fewer or more columns per converter: the same network on three variants of a chip."""

import archsim

workload = archsim.load_workload("digits-mlp")
print("columns per ADC   latency     area")
for cols_per_adc in (4, 8, 16):
    hardware = archsim.load_hardware("demo", {"tile.pe.adc.cols_per_adc": cols_per_adc})
    summary = archsim.simulate(hardware, workload).summary
    print(f"{cols_per_adc:15}   {summary['latency_ps'] / 1e6:4.2f} us   {summary['area_um2'] / 1e6:.3f} mm2")

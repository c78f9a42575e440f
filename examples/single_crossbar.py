"""A matrix in one crossbar: what wires, devices and converters leave of a product, and what a read costs."""

import torch

from archsim.analog import Crossbar, Wires
from archsim.hardware.devices import Device

torch.manual_seed(0)
weights, spikes = torch.randn(64, 16), torch.rand(1000, 64) < 0.2
device = Device(preset="rram-100k-1m", programming_sigma_rel=0.05, read_noise_sigma_rel=0.02)
crossbar = Crossbar(weights, device, Wires(100.0, 2.5, 2.5, 50.0), adc_bits=6, seed=1).calibrate(spikes)
print(crossbar)

exact, read = spikes.float() @ weights, crossbar.read(spikes)
print(f"error       {float((read - exact).square().mean().sqrt() / exact.std()):.1%} of the spread of the sums")
far_end = crossbar.voltages(spikes)[0][..., -1][spikes]
print(f"far end     {float(far_end.mean()):.4f} V of 0.2 V reach the last cell of a driven row")
print(f"energy      {float(crossbar.read_energy_j(spikes, 10e-9).mean()) * 1e15:.1f} fJ per read of 10 ns")

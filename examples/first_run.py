"""A trained network on a chip, in eight statements: how long, how much, how right, and where it went."""

import archsim

hardware = archsim.load_hardware("spikesim-rram-64")
workload = archsim.load_workload("digits-cnn")
result = archsim.simulate(hardware, workload)
summary = result.summary

print(f"latency    {summary['latency_ps'] / 1e6:.2f} us")
print(f"energy     {summary['energy_per_sample_pj'] / 1e3:.1f} nJ")
print(f"accuracy   {summary['accuracy_calibrated']:.1%} of {summary['n_accuracy_samples']} samples")
by_kind = result.components.groupby("kind")["energy_dynamic_pj"].sum().sort_values(ascending=False)
for kind, energy_pj in by_kind.head(3).items():
    print(f"{kind:10} {energy_pj / summary['energy_dynamic_pj']:.0%} of the dynamic energy")

"""Training energy as SATA_Sim's calculator adds it up, defects included.

The corrected energy is `analysis.training_energy`. Energies are in units of one 16-bit
multiply-accumulate, as it prints them.
Source: RuokaiYin/SATA_Sim (d447058), training_energy_cal/get_workload.py:33-65 and get_arch_energy.py.

Defects kept here on purpose, and only here:
- a fully connected layer overwrites the forward operations counted before it, so those of convolutions vanish and
  forward energy does not depend on spikes;
- fully connected layers use no sparsity, the last one is left out, and the sparsity of the firing function is unused;
- spikes are packed by the forward bit width in all stages, while their words are charged with 16 bits in two of them;
- every forward energy is proportional to the bit width, that of memory words included;
- weights are fetched and written for every sample.
"""

from __future__ import annotations

from dataclasses import dataclass

from archsim.hardware.costs import CostLibrary
from archsim.workload.network import Network

WORD_BITS = 16


@dataclass(frozen=True)
class Setting:
    """What the calculator is asked for; its defaults."""

    timesteps: int = 4
    forward_bits: int = 2
    spike_sparsity: float = 0.9
    gradient_sparsity: float = 0.7


@dataclass(frozen=True)
class Counts:
    """Operations and words of one sample, as counted."""

    lif: float
    mac_fwd: float
    pgu: float
    mac_bwd: float
    mac_wup: float
    dram_fwd: float
    glb_fwd: float
    spad_fwd: float
    dram_bwd: float
    glb_bwd: float
    spad_bwd: float
    dram_wup: float
    glb_wup: float
    spad_wup: float


@dataclass(frozen=True)
class Printed:
    """The calculator's figures, in 16-bit multiply-accumulates."""

    fwd_comp: float
    fwd_mem: float
    bwd_comp: float
    bwd_mem: float
    wup_comp: float
    wup_mem: float

    @property
    def fwd_total(self) -> float:
        """Forward stage."""
        return self.fwd_comp + self.fwd_mem

    @property
    def total(self) -> float:
        """All stages."""
        return self.fwd_total + self.bwd_comp + self.bwd_mem + self.wup_comp + self.wup_mem


def counts(network: Network, setting: Setting, keeps_forward: bool = False) -> Counts:
    """Operations and words.

    Args:
        network: Its last layer is left out.
        setting: Timesteps, bits, sparsities.
        keeps_forward: Without the first defect: forward operations of all layers are summed.
    """
    found = dict.fromkeys(Counts.__dataclass_fields__, 0.0)
    for layer in network.layers[:-1]:
        channels, height, width = layer.in_shape
        _, out_height, out_width = layer.conv_shape
        weights, outputs = layer.n_weights, layer.out_channels * out_height * out_width
        is_linear, steps = layer.kind == "linear", setting.timesteps
        executed = 1.0 if is_linear else 1.0 - setting.spike_sparsity
        propagated = 1.0 if is_linear else 1.0 - setting.gradient_sparsity
        inputs = channels * height * width / setting.forward_bits
        if is_linear and not keeps_forward:
            found["mac_fwd"] = 0.0
        added = Counts(
            lif=outputs * steps,
            mac_fwd=executed * weights * out_height * out_width * steps,
            pgu=outputs * steps,
            mac_bwd=propagated * weights * height * width * steps,
            mac_wup=executed * weights * out_height * out_width * steps,
            dram_fwd=weights + (outputs + inputs) * steps,
            glb_fwd=2 * (weights + (outputs + inputs) * steps),
            spad_fwd=2 * (weights + inputs * steps),
            dram_bwd=(outputs + inputs) * steps,
            glb_bwd=(7 * outputs + 2 * inputs) * steps + weights,
            spad_bwd=weights + outputs * steps,
            dram_wup=2 * weights,
            glb_wup=2 * (1 + steps) * weights + (outputs + inputs) * steps,
            spad_wup=2 * (1 + 2 * steps) * weights + (outputs + inputs) * steps,
        )
        for name in found:
            found[name] += getattr(added, name)
    return Counts(**found)


def printed(counted: Counts, forward_bits: int, library: CostLibrary) -> Printed:
    """Energies of counted operations and words, with the prices of `sata-training-65nm`."""
    price = library.energy_pj
    multiply, accumulate = price("multiplier", "multiply"), price("accumulator", "accumulate")
    add, select, shift = price("adder", "add"), price("mux", "select"), price("shifter", "shift")
    gated = accumulate + price("and_gate", "gate")
    lif = add + price("comparator", "compare") + 2 * select + 3 * price("register", "latch") + shift
    pgu = multiply + 2 * add + select + 2 * shift
    full = multiply + accumulate
    width = forward_bits / WORD_BITS

    def memory(stage: str) -> float:
        levels = (("dram", "dram"), ("glb", "global_buffer"), ("spad", "scratchpad"))
        return float(sum(getattr(counted, f"{level}_{stage}") * price(name, "access") for level, name in levels))

    return Printed(
        fwd_comp=(counted.lif * lif + counted.mac_fwd * gated) * width / full,
        fwd_mem=memory("fwd") * width / full,
        bwd_comp=(counted.pgu * pgu + counted.mac_bwd * full) / full,
        bwd_mem=memory("bwd") / full,
        wup_comp=counted.mac_wup * gated / full,
        wup_mem=memory("wup") / full,
    )

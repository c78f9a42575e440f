"""Inference energy as SATA_Sim adds it up, in the version of the published results and in the last one.

Power of a part is charged per executed operation where its clock is gated (`gated`), else in every cycle to every
processing element. Nothing of this is used by the simulated platform.

Source: RuokaiYin/SATA_Sim, inference-energy-cal/energy-cal.py at 0f0a2f8 (`PUBLISHED`, behind Table II of Yin et
al., arXiv 2309.03388) and d447058 (`LATEST`); part powers hw_kernels.py, 28 nm; memories CACTI 7, as mem-stat.yaml
stores them.

Defects kept here on purpose, and only here:
- zero spikes save energy of operations, never cycles or traffic;
- a spike in memory costs a whole byte (`PUBLISHED`); fully connected layers count as padded 1 x 1 maps with a
  3 x 3 neighbourhood, nine times too many operations (`PUBLISHED`); output maps are written to SRAM once, not in every
  timestep (`PUBLISHED`), and to DRAM once in both;
- operations assume padding of 1, cycles and traffic none; layers share one sparsity;
- a DRAM access of 32 bits is charged for every byte, an SRAM access of 32 bytes for every word; DRAM writes cost reads;
- memory leakage is that of one bank of two; membrane potentials cost no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from archsim.validation.sata_counts import LayerCounts, LayerShape, layer_counts

CLOCK_MHZ = 400
N_PES = 128
PADDING = 1
WEIGHT_BITS = 8
BYTE_BITS = 8
SPAD_BYTE_UW, SPAD_BYTE_LEAK_NW = 12.49, 20.1
"""An 8-bit register; every byte of a scratchpad is charged in every access (comp-utils.py)."""
AND_16_BIT_UW = 4.74
"""A 16-bit AND, with which the neuron unit's share of a unit's power is the published 61.6 %."""


@dataclass(frozen=True)
class PartPower:
    """Power of one part of a processing element."""

    every_cycle_uw: float
    gated_uw: float
    """Charged for every operation that is executed: with a non-zero spike, or once per neuron and timestep."""
    leakage_nw: int
    """Rounded, as the tool stores it."""

    @classmethod
    def scratchpads(cls, every_cycle_bytes: int, gated_bytes: int) -> PartPower:
        """Scratchpads of register bytes."""
        leakage = (every_cycle_bytes + gated_bytes) * SPAD_BYTE_LEAK_NW
        return cls(every_cycle_bytes * SPAD_BYTE_UW, gated_bytes * SPAD_BYTE_UW, round(leakage))


SPIKE_MAC = PartPower(2.35 + 16.89, 25.11, 62)
"""8-bit AND and adder in every cycle, 16-bit accumulate register gated."""
LIF = PartPower(19.55 + 36.7, 6.37 + 12.49, 84)
"""16-bit comparator and subtractor in every cycle, 4-bit threshold and 8-bit potential register gated."""


SCRATCHPADS = PartPower.scratchpads(9 + 8, 9)
"""9 bytes of spikes and 8 of partial sums in every cycle, 9 bytes of weights gated."""


@dataclass(frozen=True)
class Arithmetic:
    """What differs between versions of the tool."""

    scales_with_bits: bool
    """Memory energy is that of a byte times bits / 8, instead of a byte per word."""
    pads_fully_connected: bool
    """Fully connected layers count as padded convolutions."""
    writes_every_timestep: bool
    """Output maps are written to SRAM in every timestep."""


PUBLISHED = Arithmetic(False, True, False)
BETWEEN = Arithmetic(True, True, True)
"""Behind the stored results of the packed variant (32d1bf7)."""
LATEST = Arithmetic(True, False, True)


@dataclass(frozen=True)
class Platform:
    """What a run is charged with."""

    mac: PartPower = SPIKE_MAC
    neuron: PartPower = LIF
    scratchpads: PartPower = SCRATCHPADS
    input_bits: int = 1
    output_bits: int = 1
    ifmap_bytes: int = 32 * 1024
    ifmap_read_nj: float = 0.0110295
    ifmap_leakage_mw: float = 6.25862
    filter_read_nj: float = 0.0286315
    filter_leakage_mw: float = 24.9086
    ofmap_write_nj: float = 0.012772
    ofmap_leakage_mw: float = 6.25862
    dram_nj: float = 0.468762


SATA = Platform()
EYERISS = Platform(
    mac=PartPower(16.89 + 2 * 12.49 + 25.11, 82.1 + 25.11, 199),
    neuron=PartPower(19.55, 0.0, 18),
    scratchpads=PartPower.scratchpads(96, 224),
    input_bits=8,
    output_bits=8,
)
"""The network without spikes: 8-bit multiplier, comparator as ReLU, scratchpads of 320 bytes, as stored
(results/eyeriss-8bit)."""


def packed(timesteps: int) -> Platform:
    """The variant whose words hold the spikes of all timesteps of a neuron (archs/eyeriss-T*-config.yaml)."""
    return Platform(
        scratchpads=PartPower.scratchpads(9 + 64, 288),
        input_bits=timesteps,
        output_bits=8,
        ifmap_bytes=8 * 1024,
        ifmap_read_nj=0.00665794,
        ifmap_leakage_mw=1.81265,
    )


@dataclass(frozen=True)
class Energy:
    """Energy of one inference in nJ, and its cycles."""

    cycles: int
    compute_nj: float
    dram_nj: float
    sram_nj: float

    @property
    def time_ms(self) -> float:
        """Time of an inference in ms."""
        return self.cycles * 1e-3 / CLOCK_MHZ

    @property
    def total_nj(self) -> float:
        """Everything in nJ."""
        return self.compute_nj + self.dram_nj + self.sram_nj


def network_counts(network: Sequence[LayerShape], platform: Platform = SATA) -> LayerCounts:
    """Counts of a network at one timestep."""
    return reduce(add, (layer_counts(layer, ifmap_bytes=platform.ifmap_bytes) for layer in network))


def operations(network: Sequence[LayerShape], arithmetic: Arithmetic) -> tuple[int, int]:
    """Multiply-accumulates, zeros included, and neuron updates of a network at one timestep."""
    macs = updates = 0
    for layer in network:
        is_linear = (layer.in_height, layer.in_width, layer.kernel_height, layer.kernel_width) == (1, 1, 1, 1)
        margin = 0 if is_linear and not arithmetic.pads_fully_connected else 2 * PADDING
        height = (layer.in_height + margin - layer.kernel_height) // layer.stride + 1
        width = (layer.in_width + margin - layer.kernel_width) // layer.stride + 1
        updates += layer.out_channels * height * width
        macs += layer.out_channels * height * width * layer.depth
    return macs, updates


def inference_energy(
    network: Sequence[LayerShape],
    counts: LayerCounts,
    timesteps: int,
    sparsity: float,
    arithmetic: Arithmetic = PUBLISHED,
    platform: Platform = SATA,
) -> Energy:
    """Energy of one inference.

    Args:
        network: Shapes of its layers.
        counts: Their sum, from `network_counts`.
        timesteps: Timesteps.
        sparsity: Part of the spikes that are zero, of all layers alike.
        arithmetic: Version of the tool.
        platform: Powers and memories.
    """
    cycles = counts.os_stop * timesteps + counts.ws_filter_span
    cycle_s = 1e-6 / CLOCK_MHZ
    macs, updates = operations(network, arithmetic)
    executed = macs * timesteps * (1.0 - sparsity)
    done = ((platform.mac, executed), (platform.scratchpads, executed), (platform.neuron, updates * timesteps))
    compute_nj = sum(
        (part.gated_uw * n_operations + (part.every_cycle_uw + part.leakage_nw * 1e-3) * cycles * N_PES) * cycle_s * 1e3
        for part, n_operations in done
    )
    shares = [
        bits / BYTE_BITS if arithmetic.scales_with_bits else 1.0
        for bits in (platform.input_bits, WEIGHT_BITS, platform.output_bits)
    ]
    traffic = (counts.dram_ifmap_reads, counts.dram_filter_reads, counts.dram_ofmap_writes)
    dram_nj = sum(platform.dram_nj * share * words for share, words in zip(shares, traffic, strict=True))
    writes = counts.sram_ofmap_writes * (timesteps if arithmetic.writes_every_timestep else 1)
    leakage_mw = platform.ifmap_leakage_mw + platform.filter_leakage_mw + platform.ofmap_leakage_mw
    sram_nj = (
        platform.ifmap_read_nj * shares[0] * counts.sram_ifmap_reads
        + platform.filter_read_nj * shares[1] * counts.sram_filter_reads
        + platform.ofmap_write_nj * shares[2] * writes
        + leakage_mw * cycles * cycle_s * 1e6
    )
    return Energy(cycles, compute_nj, dram_nj, sram_nj)

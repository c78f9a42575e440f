"""What exists on a systolic array: the models behind a hardware file of kind systolic_array, key by key.

An array of processing elements between three global buffers and a DRAM channel, as SATA (Yin et al., TCAD
42(6), 2023, arXiv 2204.05422) and Eyeriss have it. Keys, bounds and descriptions are as in `models`; head, DRAM
and cost library are the same.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archsim.hardware.dram import Dram
from archsim.hardware.models import Hardware
from archsim.hardware.platform import Auto, Bits, ClockMhz, Part, Platform, PositiveInt, Width
from archsim.hardware.policy import MappingPolicy

Bytes = Annotated[int, Field(ge=0, le=65_536)]


class ArrayPe(Part):
    """Processing element: one operation per cycle, its scratchpads, and a neuron unit."""

    mac: Literal["spike", "multiply"] = "spike"
    """`spike`: a spike gates a weight, which is added; `multiply`: input and weight are multiplied."""
    input_bits: Bits = 1
    """Bits of an input that a PE takes in a cycle: 1 with mac: spike. Wider values take several cycles, bit by bit."""
    neuron: Literal["lif", "relu"] = "lif"
    """Unit behind the accumulator: leaky integrate and fire, or a comparator."""
    psum_bits: Bits = 16
    """Bits of a partial sum."""
    input_spad_bytes: Bytes = 9
    """Scratchpad of inputs in bytes, charged in every cycle."""
    weight_spad_bytes: Bytes = 9
    """Scratchpad of weights in bytes, read only where the input is not zero."""
    psum_spad_bytes: Bytes = 8
    """Scratchpad of partial sums in bytes, charged in every cycle."""

    @model_validator(mode="after")
    def _a_spike_has_one_bit(self) -> Self:
        if self.mac == "spike" and self.input_bits != 1:
            raise ValueError(
                f"mac is spike and input_bits is {self.input_bits}; a spike is 1 bit; or set mac: multiply"
            )
        return self


class Array(Part):
    """Array of PEs, between which inputs, weights and sums move by one PE per cycle."""

    rows: Annotated[int, Field(ge=1, le=1024)]
    """Rows of PEs: output positions, or weights of a filter, side by side."""
    cols: Annotated[int, Field(ge=1, le=1024)]
    """Columns of PEs: filters side by side."""
    dataflow: Literal["output_stationary", "weight_stationary"] = "output_stationary"
    """`output_stationary`: a PE keeps one output's sum, weights and inputs stream by; `weight_stationary`: a PE keeps
    one weight, inputs and sums stream by, and sums of several folds meet in the ofmap buffer."""
    pe: ArrayPe = ArrayPe()
    """The PEs, all alike."""

    @property
    def n_pes(self) -> int:
        """PEs of the array."""
        return self.rows * self.cols


class Buffers(Part):
    """Global buffers: each is filled for the next fold while the array reads for this one."""

    weight_kib: PositiveInt
    """Capacity of the weight buffer in KiB; the weights of one column fold must fit."""
    ifmap_kib: PositiveInt
    """Capacity of the input buffer in KiB; the inputs of neighbouring folds must fit."""
    ofmap_kib: PositiveInt
    """Capacity of the output buffer in KiB: spikes, partial sums between folds, and potentials where they fit."""
    bits_per_cycle: Width = 256
    """Bits that each buffer reads and writes per chip clock cycle; what does not keep up holds the array."""


class ArrayNeuron(Part):
    """Neuron units of the PEs."""

    cycles_per_update: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Chip cycles of an update, all PEs side by side."""
    v_mem_bits: Bits = 8
    """Bits of one membrane potential, sign included; values are quantised and saturate."""

    @property
    def shared_channels(self) -> int:
        """Channels that share a potential: every neuron has its own."""
        return 1


class ArrayChip(Part):
    """Everything around the array."""

    clock_mhz: ClockMhz
    """Clock of array and buffers in MHz."""
    dram: Dram
    """Memory behind the buffers; every layer's weights, inputs and outputs pass it."""
    neuron: ArrayNeuron = ArrayNeuron()
    """Neuron units."""

    @model_validator(mode="after")
    def _there_is_dram(self) -> Self:
        if not self.dram.is_present:
            raise ValueError("dram.kind is none, but a systolic array keeps weights and maps in DRAM; choose a kind")
        if self.dram.input != "load":
            raise ValueError("dram.input is on_chip, but a systolic array loads every map from DRAM; set it to load")
        return self


class ArrayPolicy(Part):
    """How a network is put on the array."""

    weight_bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Bits of a weight, sign included."""
    loop_order: Literal["tick_batched", "timestep_outer"] = "tick_batched"
    """`tick_batched`: all timesteps of a fold follow each other, so weights come from DRAM once and, with
    dataflow: output_stationary, potentials stay in the PEs; `timestep_outer`: the whole network runs once per
    timestep, fetching weights each time and keeping potentials in the ofmap buffer or, if they do not fit, in DRAM."""
    batch_timesteps: PositiveInt | Auto = "auto"
    """With loop_order: tick_batched, timesteps that follow each other; `auto` is all of them. The whole network runs
    once for every batch of a number of timesteps, whose inputs the buffers must hold."""
    input_bits: Annotated[int, Field(ge=1, le=16)] | Auto = "auto"
    """Bits of the network's input values; `auto` follows the largest, a number clips and counts."""

    @model_validator(mode="after")
    def _one_timestep_is_no_batch(self) -> Self:
        if self.loop_order == "timestep_outer" and self.batch_timesteps not in ("auto", 1):
            raise ValueError(
                f"loop_order is timestep_outer and batch_timesteps is {self.batch_timesteps}; "
                "choose loop_order: tick_batched, or leave batch_timesteps out"
            )
        return self


class SystolicArray(Platform):
    """A systolic array: what a hardware file of kind systolic_array holds."""

    kind: Literal["systolic_array"]
    """Platform: an array of processing elements with global buffers and DRAM."""
    chip: ArrayChip
    """Clock, DRAM, neuron units."""
    array: Array
    """The array."""
    buffers: Buffers
    """Global buffers."""
    mapping: ArrayPolicy = ArrayPolicy()
    """Mapping policy."""

    @classmethod
    def hint_on_unknown_key(cls, path: tuple[object, ...]) -> str | None:
        """What to say of a key that this kind does not have and crossbar chips do; None where they have not either."""
        models: list[type[Part]] = [Hardware]
        for key in path[:-1]:
            models = [part for model in models for part in _sections(model, key)]
        if not any(path[-1] in model.model_fields for model in models):
            return None
        return "it belongs to kind: crossbar_chip, so leave it out of a systolic array"

    def cost_parameters(self, component: str) -> dict[str, float]:
        """Parameters that the entries of a component may scale with, at the values of this array."""
        buffers = self.buffers
        parameters: dict[str, dict[str, float]] = {
            "weight_buffer": {"kib": buffers.weight_kib},
            "ifmap_buffer": {"kib": buffers.ifmap_kib},
            "ofmap_buffer": {"kib": buffers.ofmap_kib},
            "spike_mac": {"bits": self.mapping.weight_bits},
            "multiply_mac": {"bits": self.mapping.weight_bits},
        }
        return parameters.get(component, {})

    @property
    def policy(self) -> MappingPolicy:
        """How values are taken: as wide as they are, weights quantised, nothing analog."""
        return MappingPolicy(
            weight_bits=self.mapping.weight_bits, input_bits=self.mapping.input_bits, calibration="none"
        )


AnyHardware = Hardware | SystolicArray


def _sections(model: type[Part], key: object) -> list[type[Part]]:
    info = model.model_fields.get(str(key))
    found = info.annotation if info is not None else None
    return [found] if isinstance(found, type) and issubclass(found, Part) else []

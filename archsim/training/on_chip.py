"""A simulated chip in the training loop: the analog core itself gives the values, exact products the gradients.

Everything that `archsim run` does to values is in them by construction: quantised weights in bit slices under any
scheme of signs, devices, wires, converters with their ranges, digital gains, stored potentials. Entry point: `OnChip`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from archsim.analog.devices import ChipSeed
from archsim.analog.neurons import quantize_potential
from archsim.errors import WorkloadError
from archsim.hardware.systolic import AnyHardware
from archsim.inference.chip import ChipLayer, layer_sums, rewritten
from archsim.inference.network import calibrated_chip
from archsim.mapping import AnyMapping, ArrayLayer, LayerMapping, map_network
from archsim.mapping.rules import shared_channels
from archsim.training.importing import export_network
from archsim.training.net import Cells, Net
from archsim.workload.model import Workload


class OnChip:
    """A chip that holds the weights of a network while it is trained, in place of a `Technology`.

    Every batch is written to a chip and run there as `archsim.infer` does it; gradients are those of exact products
    (straight through). Converter ranges, gains and V_mem stores are fitted to a calibration batch on the first chip,
    and anew every `refit_every` chips; in between they stay, which costs little and saves three runs of that batch.
    """

    def __init__(self, hardware: AnyHardware, workload: Workload, refit_every: int = 1) -> None:
        """Take a chip for training.

        Args:
            hardware: The chip.
            workload: The network that `import_network` was given, and what ranges and gains are fitted to: its
                calibration set, else the first samples of its input.
            refit_every: Chips, that is batches of training, from one fit to the next.

        Raises:
            WorkloadError: Channels share neurons there.
        """
        if any(shared_channels(hardware, layer) > 1 for layer in workload.network.layers):
            raise WorkloadError(
                "on this chip channels share neurons (chip.neuron.shared_channels), with which an imported network "
                "cannot be trained; set it to 1, or train a Net with Neuron(shared_channels=...)"
            )
        self.hardware, self.workload, self.refit_every = hardware, workload, refit_every
        self._fitted: list[ChipLayer] = []
        self._n_since = 0

    def cells(self, net: Net, chip: ChipSeed) -> list[Cells]:
        """Cells of all layers on one chip.

        Raises:
            MappingError: The network does not fit.
            WorkloadError: There is no input.
        """
        workload = replace(self.workload, network=export_network(net, self.workload.network))
        mapping = map_network(self.hardware, workload)
        with torch.no_grad():
            layers = self._programmed(mapping, workload, chip)
        held = zip(net.weighted_layers(), layers, strict=True)
        return [Cells(layer.weight, circuit=ChipCircuit(programmed)) for layer, programmed in held]

    def _programmed(self, mapping: AnyMapping, workload: Workload, chip: ChipSeed) -> list[ChipLayer]:
        if self._n_since % self.refit_every == 0:
            self._fitted = calibrated_chip(mapping, workload, chip)
            self._n_since = 1
            return self._fitted
        self._n_since += 1
        mapped: Sequence[LayerMapping | ArrayLayer] = mapping.layers
        pairs = zip(mapped, self._fitted, strict=True)
        return [rewritten(mapping, layer, fitted, chip) for layer, fitted in pairs]


@dataclass(frozen=True)
class ChipCircuit:
    """What one layer of a chip does to values."""

    layer: ChipLayer

    @property
    def is_noisy(self) -> bool:
        """Whether the same inputs give other sums each time."""
        return self.layer.is_noisy

    def sums(self, values: Tensor) -> Tensor:
        """Weighted sums with bias of one timestep's inputs, shape (sample, channel, height, width)."""
        with torch.no_grad():
            integers = (values / self.layer.input_scale).round().to(torch.int32)
            return layer_sums(self.layer, integers.reshape(len(values), 1, *self.layer.layer.in_shape))[:, 0]

    def stored(self, potential: Tensor) -> Tensor:
        """Potentials as words of the V_mem store."""
        full_scale = self.layer.v_full_scale
        assert full_scale is not None, "set by calibration"
        return quantize_potential(potential, full_scale, self.layer.v_mem_bits)[0]

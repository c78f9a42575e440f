"""Retraining as a repair: a network learns to say on a chip what it says without one. Entry point: `retrain`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod

import torch
from torch import Tensor

from archsim.errors import WorkloadError
from archsim.hardware.systolic import AnyHardware
from archsim.training.fitting import Recipe, train
from archsim.training.importing import export_network, import_network
from archsim.training.net import Net
from archsim.training.on_chip import OnChip
from archsim.training.pruning import kept
from archsim.workload.model import InputData, Workload
from archsim.workload.network import Network

BATCH_SIZE = 16
BATCH_ELEMENTS = 1 << 22
"""Values of the largest layer over all timesteps in one batch, at most; gradients keep several times as many."""
LEARNING_RATE = 0.02
"""Share of a layer's RMS weight that a step changes a weight by, at most. Found by trial, as the next one."""
LOGIT_SPREAD = 3.0
"""Spread of the ideal network's outputs as the loss sees them; the more, the harder its answers."""
N_CALIBRATION = 64
"""Samples that ranges and gains are fitted to once per epoch, at most."""
FIRST_SEED = 1 << 31
"""Chips of training are numbered apart from those that a network is judged on."""

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done."""


def retrain(
    hardware: AnyHardware, workload: Workload, n_epochs: int, seed: int = 0, progress: Progress | None = None
) -> Network:
    """Tune the weights of a network on simulated chips; every batch runs on one that has never been seen before.

    The loss is the cross entropy with the answers of the network without a chip, so samples need no labels. Weights
    that are 0 stay 0, so that a pruned network keeps its crossbars; biases are tuned as well.

    Args:
        hardware: The chip.
        workload: The network, and in its input the samples to learn from. Ranges and gains of the chip are fitted to
            its calibration set, else to the first of these samples.
        n_epochs: How often every sample is seen, at least 1.
        seed: Seed of the order of samples and of the chips.
        progress: Called after every batch.

    Returns:
        The network with other weights and biases.

    Raises:
        WorkloadError: There is no input, a layer cannot be trained (`import_network`), the network says the same of
            every sample, or channels share neurons.
        MappingError: The network does not fit.

    Source: answers of a network as its copy's targets: Hinton, Vinyals and Dean, arXiv 1503.02531.
    """
    data = workload.input
    if data is None or n_epochs < 1:
        raise WorkloadError(
            f"workload '{workload.name}' has {0 if data is None else data.n_samples} samples to learn from and epochs "
            f"is {n_epochs}; retraining needs at least one of each"
        )
    net = import_network(workload.network, workload.n_timesteps, data.coding)
    inputs = _real(data, workload.n_timesteps)
    with torch.no_grad():
        answers = net(inputs) / net.n_timesteps
    spread = float(answers.std())
    if not 0 < spread < inf:
        raise WorkloadError(
            f"network '{workload.network.name}': without a chip its outputs for {len(inputs)} samples have a spread of "
            f"{spread:g}; there is nothing to learn from them. Check its weights and its input"
        )
    gain = LOGIT_SPREAD / spread
    largest = max(max(layer.n_neurons, prod(layer.in_shape)) for layer in workload.network.layers)
    batch_size = max(1, min(BATCH_SIZE, BATCH_ELEMENTS // (largest * workload.n_timesteps), len(inputs)))
    n_batches = -(-len(inputs) // batch_size)
    recipe = Recipe(n_epochs, batch_size, LEARNING_RATE, is_relative=True, logit_gain=gain, keeps_rest=True)
    on_chip = OnChip(hardware, _with_short_calibration(workload), refit_every=n_batches)
    after_step = _Keeper(net, n_epochs * n_batches, progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        targets = (answers * gain).softmax(1)
        train(net, inputs, targets, recipe, on_chip, after_step=after_step, seed=seed + FIRST_SEED)
    return export_network(net, workload.network)


@dataclass(frozen=True)
class Retraining:
    """`retrain` for a number of epochs, as a repair that `archsim.robustness` tries."""

    n_epochs: int

    def tune(self, hardware: AnyHardware, workload: Workload, seed: int, progress: Progress | None) -> Network:
        """The network with weights that the chip suits; see `retrain`."""
        return retrain(hardware, workload, self.n_epochs, seed, progress)


class _Keeper:
    """Puts weights that were 0 back to 0 after every step, and tells how far training is."""

    def __init__(self, net: Net, n_steps: int, progress: Progress | None) -> None:
        self._masks = [layer.weight.detach() != 0 for layer in net.weighted_layers()]
        self._n_steps, self._n_done, self._progress = n_steps, 0, progress

    def __call__(self, net: Net) -> None:
        kept(net, self._masks)
        self._n_done += 1
        if self._progress is not None:
            self._progress("retraining", self._n_done / self._n_steps)


def _real(data: InputData, n_timesteps: int) -> Tensor:
    """Inputs as real values, with a step axis unless the same frame enters at every timestep."""
    values = data.values[:, 0] if data.coding == "direct" else data.values[:, :n_timesteps]
    return torch.as_tensor(values).to(torch.float64) * data.scale


def _with_short_calibration(workload: Workload) -> Workload:
    source = workload.input if workload.calibration is None else workload.calibration
    assert source is not None, "checked by retrain"
    return replace(workload, calibration=replace(source, values=source.values[:N_CALIBRATION], labels=None))

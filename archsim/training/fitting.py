"""Training by back-propagation through time, with or without the hardware in the loop. Entry point: `train`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.devices import ChipSeed
from archsim.training.net import Cells, Net, Weighted


class Realisable(Protocol):
    """What the hardware makes of weights: `technology.Technology`, or noise."""

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """Cells of a layer on one chip."""


@runtime_checkable
class WholeChip(Protocol):
    """Hardware that gets all layers at once, because it is fitted layer by layer: `on_chip.OnChip`."""

    def cells(self, net: Net, chip: ChipSeed) -> list[Cells]:
        """Cells of all layers on one chip."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train: Adam, cross entropy."""

    n_epochs: int = 30
    batch_size: int = 100
    learning_rate: float = 2e-3
    is_relative: bool = False
    """Whether the learning rate is a share of the RMS weight of each layer."""
    schedule: str = "cosine"
    """`cosine`: falls to zero once per epoch; `one_cycle`: rises and falls, once per batch."""
    logit_gain: float = 1.0
    """Factor of the readout's mean over timesteps in the loss."""
    label_smoothing: float = 0.0
    rate_penalty: float = 0.0
    """Loss per unit of mean spike rate; sparse rows keep converter ranges small."""
    keeps_rest: bool = False
    """Whether samples that do not fill a batch are used too."""
    max_gradient: float | None = None
    """Largest norm of a batch's gradient; longer ones are shortened. None: any."""


def train(
    net: Net,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    technology: Realisable | WholeChip | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
    after_step: Callable[[Net], None] | None = None,
    seed: int = 0,
) -> Net:
    """Train a network in place.

    With a technology every batch runs on a chip that has never been seen before, and gradients pass through
    its circuit to the weights, which are what a chip is programmed with in the end. Order and augmentation come
    from torch's global generator: seed it for equal results.

    Args:
        net: The network; left in evaluation mode.
        inputs: Shape (sample, ...); see `Net.run`.
        labels: Class numbers, int64, shape (sample,); or probabilities of classes, shape (sample, class).
        recipe: How long and how fast.
        technology: The hardware in the loop; None for ideal weights.
        augment: Changes every batch of inputs.
        after_epoch: Called with the number of epochs done and the last batch's loss.
        after_step: Called behind every optimiser step, to put weights back where they must be (masks, limits).
        seed: Seed of the chips.

    Returns:
        The network.
    """
    optimizer = torch.optim.Adam(_parameter_groups(net, recipe), lr=recipe.learning_rate)
    n_full = len(inputs) // recipe.batch_size
    n_batches = n_full + (recipe.keeps_rest and len(inputs) % recipe.batch_size > 0)
    scheduler = _scheduler(optimizer, recipe, n_batches)
    n_steps = 0
    for epoch in range(recipe.n_epochs):
        net.train()
        order = torch.randperm(len(inputs))
        for batch in range(n_batches):
            chosen = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            values = inputs[chosen] if augment is None else augment(inputs[chosen])
            cells = None if technology is None else realised(net, technology, ChipSeed(seed, n_steps))
            logits = net(values, cells) / net.n_timesteps * recipe.logit_gain
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing)
            loss = loss + recipe.rate_penalty * net.rate
            optimizer.zero_grad()
            loss.backward()
            if recipe.max_gradient is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.max_gradient)
            optimizer.step()
            for layer in net.weighted_layers():
                layer.clip()
            if after_step is not None:
                after_step(net)
            if recipe.schedule == "one_cycle":
                scheduler.step()
            n_steps += 1
        if recipe.schedule == "cosine":
            scheduler.step()
        if after_epoch is not None:
            after_epoch(epoch + 1, float(loss.detach()))
    net.rate = net.rate.detach()
    net.eval()
    return net


def realised(net: Net, technology: Realisable | WholeChip, chip: ChipSeed) -> list[Cells]:
    """What a chip makes of all layers of a network."""
    if isinstance(technology, WholeChip):
        return technology.cells(net, chip)
    return net.map(lambda layer, number: technology.realise(layer, f"layer{number}", chip))


def accuracy(
    net: Net, inputs: Tensor, labels: Tensor, technology: Realisable | WholeChip | None = None, chip: int = 0
) -> float:
    """Share of samples classified right, on chip number `chip` of a technology or with ideal weights.

    Chips are numbered apart from those of training.
    """
    with torch.no_grad():
        cells = None if technology is None else realised(net, technology, ChipSeed(1 << 31, chip))
        return float((net(inputs, cells).argmax(1) == labels).float().mean())


def _parameter_groups(net: Net, recipe: Recipe) -> Iterable[dict[str, Any]]:
    """Parameters, each layer's with a learning rate of its own if rates are relative."""
    if not recipe.is_relative:
        return [{"params": net.parameters()}]
    return [
        {"params": layer.parameters(), "lr": recipe.learning_rate * float(layer.weight.detach().square().mean().sqrt())}
        for layer in net.weighted_layers()
    ]


def _scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, n_batches: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "one_cycle":
        steps = recipe.n_epochs * n_batches
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=steps)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.n_epochs)

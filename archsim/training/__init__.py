"""Hardware-aware training and repair: spiking networks that are trained for the crossbars that will hold them.

Public names are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archsim.training.constraint import constrain, sweep_cut_offs
    from archsim.training.conversion import convert
    from archsim.training.export import export_nir, network_nir
    from archsim.training.fitting import Recipe, accuracy, train
    from archsim.training.importing import export_network, import_network
    from archsim.training.net import Net, Weighted, random_weight
    from archsim.training.neurons import Neuron
    from archsim.training.on_chip import OnChip
    from archsim.training.pruning import Squeezed, arrangement, footprint, kept, prune, squeeze, without_filters
    from archsim.training.repair import adapt_batch_norm, tune_batch_norm, with_gains
    from archsim.training.retraining import retrain
    from archsim.training.technology import Technology, WeightNoise
    from archsim.training.workload_files import write_workload

__all__ = [
    "Net",
    "Neuron",
    "OnChip",
    "Recipe",
    "Squeezed",
    "Technology",
    "WeightNoise",
    "Weighted",
    "accuracy",
    "adapt_batch_norm",
    "arrangement",
    "constrain",
    "convert",
    "export_network",
    "export_nir",
    "footprint",
    "import_network",
    "kept",
    "network_nir",
    "prune",
    "random_weight",
    "retrain",
    "squeeze",
    "sweep_cut_offs",
    "train",
    "tune_batch_norm",
    "with_gains",
    "without_filters",
    "write_workload",
]

_HOMES = {
    "Net": "net",
    "Neuron": "neurons",
    "OnChip": "on_chip",
    "Recipe": "fitting",
    "Squeezed": "pruning",
    "Technology": "technology",
    "WeightNoise": "technology",
    "Weighted": "net",
    "accuracy": "fitting",
    "adapt_batch_norm": "repair",
    "arrangement": "pruning",
    "constrain": "constraint",
    "convert": "conversion",
    "export_network": "importing",
    "export_nir": "export",
    "footprint": "pruning",
    "import_network": "importing",
    "kept": "pruning",
    "network_nir": "export",
    "prune": "pruning",
    "random_weight": "net",
    "retrain": "retraining",
    "squeeze": "pruning",
    "sweep_cut_offs": "constraint",
    "train": "fitting",
    "tune_batch_norm": "repair",
    "with_gains": "repair",
    "without_filters": "pruning",
    "write_workload": "workload_files",
}
"""Module of every public name."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'archsim.training' has no attribute {name!r}")
    return getattr(import_module(f"archsim.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Hardware-aware training and repair: spiking networks that are trained for the crossbars that will hold them.

Public names are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archsim.training.conversion import convert
    from archsim.training.export import export_nir
    from archsim.training.fitting import Recipe, accuracy, train
    from archsim.training.net import Net, Neuron, Weighted, random_weight
    from archsim.training.repair import adapt_batch_norm, with_gains
    from archsim.training.technology import Technology, WeightNoise

__all__ = [
    "Net",
    "Neuron",
    "Recipe",
    "Technology",
    "WeightNoise",
    "Weighted",
    "accuracy",
    "adapt_batch_norm",
    "convert",
    "export_nir",
    "random_weight",
    "train",
    "with_gains",
]

_HOMES = {
    "Net": "net",
    "Neuron": "net",
    "Recipe": "fitting",
    "Technology": "technology",
    "WeightNoise": "technology",
    "Weighted": "net",
    "accuracy": "fitting",
    "adapt_batch_norm": "repair",
    "convert": "conversion",
    "export_nir": "export",
    "random_weight": "net",
    "train": "fitting",
    "with_gains": "repair",
}
"""Module of every public name."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'archsim.training' has no attribute {name!r}")
    return getattr(import_module(f"archsim.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

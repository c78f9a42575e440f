"""What value: weight encoding, crossbar circuits, converters and neurons, in torch; never the time they take.

Public names are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archsim.analog.circuit import Wires
    from archsim.analog.crossbar import Crossbar
    from archsim.analog.gated import floating_currents, gated_currents
    from archsim.analog.nonlinear import Curve, nonlinear_currents
    from archsim.analog.wires import effective_conductance

__all__ = [
    "Crossbar",
    "Curve",
    "Wires",
    "effective_conductance",
    "floating_currents",
    "gated_currents",
    "nonlinear_currents",
]

_HOMES = {
    "Crossbar": "crossbar",
    "Curve": "nonlinear",
    "Wires": "circuit",
    "effective_conductance": "wires",
    "floating_currents": "gated",
    "gated_currents": "gated",
    "nonlinear_currents": "nonlinear",
}
"""Module of every public name."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'archsim.analog' has no attribute {name!r}")
    return getattr(import_module(f"archsim.analog.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

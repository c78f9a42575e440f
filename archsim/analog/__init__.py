"""What value: weight encoding, column sums, converters and neurons, in torch; never the time they take.

Public names are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["effective_conductance"]

if TYPE_CHECKING:
    from archsim.analog.wires import effective_conductance


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'archsim.analog' has no attribute {name!r}")
    from archsim.analog import wires

    return getattr(wires, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

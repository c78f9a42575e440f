"""One comparison of a reference with our own figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A figure with its reference: equal within `tolerance_rel`, or inside `bounds`."""

    name: str
    unit: str
    reference: float | None
    ours: float
    tolerance_rel: float = 1e-9
    bounds: tuple[float, float] | None = None
    note: str = ""

    @property
    def error_rel(self) -> float | None:
        """Signed relative deviation from the reference; None where there are only bounds."""
        if self.reference is None:
            return None
        return (self.ours - self.reference) / self.reference if self.reference else self.ours

    @property
    def passed(self) -> bool:
        """Whether the figure is within its tolerance or bounds."""
        if self.bounds is not None:
            return self.bounds[0] <= self.ours <= self.bounds[1]
        error = self.error_rel
        return error is not None and abs(error) <= self.tolerance_rel

"""What differs between platforms when a run is built and summed up: crossbar chips and systolic arrays."""

from __future__ import annotations

from typing import Any

from archsim.activity import Activity
from archsim.components.netlist import Netlist
from archsim.engine import geometry
from archsim.engine.crossbar_chip import build_netlist as build_chip_netlist
from archsim.engine.systolic_array import build_array_netlist
from archsim.mapping import AnyMapping, ArrayMapping


def build_netlist(mapping: AnyMapping, activity: Activity) -> Netlist:
    """Connect every part that a mapping uses; see `crossbar_chip` and `systolic_array`.

    Raises:
        MappingError: A buffer is too small; the message gives the minimum.
    """
    if isinstance(mapping, ArrayMapping):
        return build_array_netlist(mapping, activity)
    return build_chip_netlist(mapping, activity)


def check_buffers(mapping: AnyMapping) -> None:
    """Check the buffers of a crossbar chip before anything long runs; those of an array follow from its inputs.

    Raises:
        MappingError: A buffer is smaller than its layer needs; the message gives the minimum.
    """
    if not isinstance(mapping, ArrayMapping):
        geometry.check_buffers(mapping)


def platform_figures(mapping: AnyMapping) -> dict[str, Any]:
    """Figures of the summary that say how much of the hardware a network takes; None where there is no such thing."""
    if isinstance(mapping, ArrayMapping):
        n_pes = mapping.hardware.array.n_pes
        return {"n_crossbars": None, "n_pes": n_pes, "n_tiles": None, "cell_utilisation": None}
    return {
        "n_crossbars": mapping.n_crossbars,
        "n_pes": mapping.n_pes,
        "n_tiles": mapping.n_tiles_used,
        "cell_utilisation": mapping.cell_utilisation,
    }

"""Where: which weights sit on which crossbar, PE, tile and mesh node; which fold of an array a layer is cut into."""

from __future__ import annotations

from typing import overload

from archsim.errors import MappingError
from archsim.hardware.models import Hardware
from archsim.hardware.systolic import AnyHardware, SystolicArray
from archsim.mapping.model import LayerMapping, Mapping, PePlace
from archsim.mapping.partition import map_network as map_on_chip
from archsim.mapping.systolic import ArrayLayer, ArrayMapping, map_on_array
from archsim.workload.model import Workload
from archsim.workload.network import Network

__all__ = [
    "AnyMapping",
    "ArrayLayer",
    "ArrayMapping",
    "LayerMapping",
    "Mapping",
    "PePlace",
    "map_network",
]

AnyMapping = Mapping | ArrayMapping


@overload
def map_network(hardware: Hardware, workload: Workload | Network) -> Mapping: ...
@overload
def map_network(hardware: SystolicArray, workload: Workload | Network) -> ArrayMapping: ...
@overload
def map_network(hardware: AnyHardware, workload: Workload | Network) -> AnyMapping: ...
def map_network(hardware: AnyHardware, workload: Workload | Network) -> AnyMapping:
    """Put every layer of a network on the hardware; see `partition.map_network` and `systolic.map_on_array`.

    Raises:
        MappingError: It does not fit, or a layer cannot run there.
        WorkloadError: A product layer does not fit what it reads.
    """
    if isinstance(hardware, Hardware):
        return map_on_chip(hardware, workload)
    if not isinstance(workload, Workload):
        raise MappingError(
            f"network '{workload.name}': an array batches timesteps; map a workload, which says how many"
        )
    return map_on_array(hardware, workload.network, workload.n_timesteps)

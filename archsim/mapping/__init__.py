"""Where: which weights sit on which crossbar, PE, tile and mesh node."""

from archsim.mapping.model import LayerMapping, Mapping, PePlace
from archsim.mapping.partition import map_network

__all__ = ["LayerMapping", "Mapping", "PePlace", "map_network"]

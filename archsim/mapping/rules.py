"""What the mapping policy means for one layer."""

from __future__ import annotations

from archsim.hardware.models import MappingPolicy
from archsim.workload.network import INPUT, Layer


def is_digital(policy: MappingPolicy, layer: Layer) -> bool:
    """Whether digital MAC units compute a layer: one that reads the network's input, with first_layer: digital."""
    return policy.first_layer == "digital" and layer.source == INPUT


def has_bias_row(policy: MappingPolicy, layer: Layer) -> bool:
    """Whether the biases of a layer are stored in cells."""
    return policy.bias == "row" and layer.bias is not None and not is_digital(policy, layer)

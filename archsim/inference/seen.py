"""Values of a recording or assumption as a chip sees them: clipped to what its rows and cells carry, without torch."""

from __future__ import annotations

import numpy as np

from archsim.activity import LayerActivity
from archsim.hardware.policy import MappingPolicy
from archsim.mapping.rules import is_digital
from archsim.workload.network import Layer


def layer_activity(
    layer: Layer,
    policy: MappingPolicy,
    inputs: np.ndarray,
    operand: np.ndarray | None,
    spikes: np.ndarray,
    error_rel: float | None = None,
) -> LayerActivity:
    """Activity of a layer whose source and operand emit `inputs` and `operand`.

    Digital units take them as they are.
    """
    if is_digital(policy, layer):
        return LayerActivity(inputs, spikes, operand, error_rel=error_rel)
    rows = _on_rows(inputs, policy)
    cells = None if operand is None else np.minimum(operand, 2**policy.operand_bits - 1)
    return LayerActivity(
        rows,
        spikes,
        cells,
        clipped_inputs=int(np.count_nonzero(rows != inputs)),
        clipped_operands=0 if cells is None else int(np.count_nonzero(cells != operand)),
        error_rel=error_rel,
    )


def _on_rows(values: np.ndarray, policy: MappingPolicy) -> np.ndarray:
    if policy.input_coding == "binary":
        return np.clip(values, 0, 1)
    if policy.input_bits == "auto":
        return values
    half = 1 << (policy.input_bits - 1)
    limits = (-half, half - 1) if values.min(initial=0) < 0 else (0, 2 * half - 1)
    return np.clip(values, *limits)

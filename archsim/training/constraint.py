"""Weight-constrained training: weights are cut off, so that devices stay at low conductance, or use the range better.

Entry points: `constrain`, and `sweep_cut_offs` to find the best cut-off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from archsim.errors import WorkloadError
from archsim.training.net import Net

Scale = Literal["keep", "remap"]


def constrain(net: Net, quantile: float, scale: Scale) -> Net:
    """Limit every layer's weights to a quantile of their magnitudes, in place; training then keeps the limit.

    Args:
        net: A trained network; zeros (pruned weights) do not count.
        quantile: Share of weights that stay as they are, above 0 and up to 1.
        scale: `keep`: the on conductance goes on standing for the largest weight there was, so all cells have lower
            conductance and columns lose less; `remap`: it stands for the cut-off, so the same variation of devices
            is a smaller error.

    Raises:
        WorkloadError: The quantile is outside its limits, or a layer has no weights but zeros.

    Source: weight-constrained training of arXiv 2201.05229 (its cut-off and mapping are reconstructions; `keep` is
    the reading under which it raises the share of low conductances).
    """
    if not 0 < quantile <= 1:
        raise WorkloadError(f"quantile is {quantile!r}; the share of weights that stay is above 0 and at most 1")
    for number, layer in enumerate(net.weighted_layers()):
        magnitudes = layer.weight.detach().abs()
        if not bool(magnitudes.any()):
            raise WorkloadError(f"layer {number} has no weight other than 0; there is nothing to constrain")
        layer.limit = float(torch.quantile(magnitudes[magnitudes > 0], quantile))
        layer.full_scale = float(magnitudes.max()) if scale == "keep" else layer.limit
        layer.clip()
    return net


def sweep_cut_offs(
    net: Net,
    quantiles: Sequence[float],
    tune: Callable[[Net], Net],
    judge: Callable[[Net], Mapping[str, float]],
) -> dict[tuple[float, Scale], Mapping[str, float]]:
    """Constrain and fine-tune copies of a network at several cut-offs, with both mappings.

    The trade-off: `keep` helps against wires and sense inputs, `remap` against the variation of devices.

    Args:
        net: A trained network, left as it is.
        quantiles: Cut-offs, see `constrain`; 1 constrains nothing, but is fine-tuned as well.
        tune: Trains a network in place for a few epochs.
        judge: Figures of a network, such as its accuracy on several technologies.

    Returns:
        Figures by quantile and mapping.
    """
    found: dict[tuple[float, Scale], Mapping[str, float]] = {}
    for quantile in quantiles:
        tuned = tune(constrain(copy.deepcopy(net), quantile, "keep"))
        found[quantile, "keep"] = judge(tuned)
        for layer in tuned.weighted_layers():
            layer.full_scale = layer.limit
        found[quantile, "remap"] = judge(tuned)
    return found

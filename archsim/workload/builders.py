"""Networks of which only the shapes are known; their activity is an assumption of the workload."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from archsim.workload.network import INPUT, Layer, Network, NeuronModel, Pool


def spikesim_vgg9_convolutions() -> Network:
    """The seven convolutions of the spiking VGG9 for CIFAR-10, 3 x 3 kernels with padding 1.

    Maps are 32, 32, 16, 16, 8, 8, 8 wide; 2 x 2 sum pooling follows the second, fourth and seventh.
    Weights are None. Source: SpikeSim (Moitra et al., arXiv 2210.12899), default layer table of its
    estimator: in_ch 3, 64, 64, 128, 128, 256, 256; out_ch 64, 64, 128, 128, 256, 256, 256.
    """
    channels = (3, 64, 64, 128, 128, 256, 256, 256)
    layers: list[Layer] = []
    shape = (3, 32, 32)
    for index, out_channels in enumerate(channels[1:]):
        pool = Pool((2, 2), (2, 2)) if index in (1, 3, 6) else None
        source = layers[-1].name if layers else INPUT
        layer = Layer(
            f"conv{index + 1}", "conv2d", source, shape, out_channels, (3, 3), (1, 1), (1, 1), None, None, _if(), pool
        )
        layers.append(layer)
        shape = layer.out_shape
    return Network("vgg9-convolutions", (3, 32, 32), tuple(layers))


def _if() -> NeuronModel:
    one, zero = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    return NeuronModel("if", decay=one, input_gain=one, v_threshold=one, v_leak=zero, v_reset=zero)


BUILDERS: dict[str, Callable[[], Network]] = {"vgg9-convolutions": spikesim_vgg9_convolutions}
"""Builder names as a workload file writes them."""

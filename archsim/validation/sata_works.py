"""The six published works that were compared on both platforms: their networks, timesteps, sparsities, factors.

Networks are listed as SATA_Sim's workload files hold them: (map side, input channels, output channels, stride) of 3 x 3
convolutions, then (inputs, outputs) of fully connected layers. Baselines (timesteps and sparsity of the network
that a work improves on) are not published; they are inferred from the results stored with the tool, whose
energies they give to six digits.

Source: Yin et al., "Are SNNs Truly Energy-efficient?", arXiv 2309.03388, Table II; networks and stored results
RuokaiYin/SATA_Sim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archsim.validation.sata_counts import LayerShape


def _shapes(
    convolutions: Sequence[tuple[int, int, int, int]], fully_connected: Sequence[tuple[int, int]]
) -> tuple[LayerShape, ...]:
    layers = [LayerShape(side, side, inputs, outputs, 3, 3, stride) for side, inputs, outputs, stride in convolutions]
    return (*layers, *(LayerShape(1, 1, inputs, outputs, 1, 1) for inputs, outputs in fully_connected))


VGG9 = _shapes(
    [
        (32, 3, 64, 1),
        (32, 64, 64, 1),
        (16, 64, 128, 1),
        (8, 128, 128, 1),
        (4, 128, 256, 1),
        (4, 256, 256, 1),
        (4, 256, 256, 1),
    ],
    [(1024, 1024), (1024, 512)],
)
CIFARNET = _shapes(
    [(32, 3, 128, 1), (32, 128, 256, 1), (16, 256, 512, 1), (8, 512, 1024, 1), (4, 1024, 512, 1)],
    [(8192, 1024), (1024, 512)],
)
RESNET19 = _shapes(
    [
        (32, 3, 128, 1),
        *[(32, 128, 128, 1)] * 6,
        (32, 128, 256, 2),
        *[(16, 256, 256, 1)] * 5,
        (16, 256, 512, 2),
        *[(8, 512, 512, 1)] * 3,
    ],
    [(8192, 256)],
)


@dataclass(frozen=True)
class Regime:
    """How long and how sparse a network runs."""

    timesteps: int
    sparsity: float


@dataclass(frozen=True)
class Work:
    """One row of the published comparison."""

    name: str
    network: tuple[LayerShape, ...]
    regime: Regime
    baseline: Regime
    """Inferred, see the module."""
    accuracy_percent: float
    estimated: float
    """Improvement by the operation count that papers use: FLOPs x timesteps x (1 - sparsity) x energy of an AC."""
    sata: float
    """Improvement found on the systolic array."""
    spikesim: float
    """Improvement found on the crossbar chip."""


WORKS = (
    Work("S-BP", VGG9, Regime(50, 0.90), Regime(260, 0.5), 89.3, 10, 4.5, 5.2),
    Work("BNTT", VGG9, Regime(20, 0.91), Regime(80, 0.5), 90.3, 20, 2.8, 4),
    Work("Direct", CIFARNET, Regime(10, 0.90), Regime(40, 0.5), 90.5, 20, 2.3, 4),
    Work("TSSL", CIFARNET, Regime(5, 0.90), Regime(80, 0.5), 91.4, 80, 4.9, 16),
    Work("LTH", RESNET19, Regime(5, 0.98), Regime(10, 0.5), 93.2, 15, 1.3, 2),
    Work("TDBN", RESNET19, Regime(4, 0.85), Regime(100, 0.5), 92.9, 83, 6.8, 25),
)
"""In the order of the published table."""

"""Reads a table of layers, as publications print it, into a network of shapes and the activity it states.

A CSV file with one row per layer and the columns

- `layer`, `in_height`, `in_width`, `in_channels`, `out_channels`, `kernel_height`, `kernel_width`, `stride`;
- optional `work`: the network that a row belongs to, where the file holds several;
- optional `padding`; without it odd kernels are padded by (kernel - 1) / 2;
- optional `sparsity`, or `sparsity_0`, `sparsity_1`, ... per timestep: the part of the row's inputs
  that are silent in a timestep, 0 to 1.

Each row receives what the row before emits; where its map is smaller there is pooling between them,
by a whole factor. A row of 1 x 1 map and 1 x 1 kernel is fully connected and flattens the map before it.
Every layer has neurons that fire. Source of the form: the workload tables of SATA_Sim and NICE, whose
sparsity is that of a layer's input. Entry points: `read_layer_table`, `assumed_rates`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from math import gcd, prod
from pathlib import Path

from archsim.errors import WorkloadError
from archsim.workload.network import INPUT, Layer, Network, Pool, Shape
from archsim.workload.neurons import integrate_and_fire
from archsim.workload.table_rows import LARGEST, Faults, Row, raise_faults, read_rows


@dataclass(frozen=True)
class LayerTable:
    """A network of shapes, and what its table says about the activity."""

    network: Network
    input_rates: dict[str, tuple[float, ...]]
    """Part of a layer's inputs that spike, by layer; one value, or one per timestep. Empty without sparsity columns."""
    n_timesteps: int | None
    """Timesteps that the table describes, where it has one sparsity for each."""


def read_layer_table(path: Path, work: str | None = None) -> LayerTable:
    """Read one network of a table.

    Args:
        path: The CSV file, UTF-8, at most 1 MiB.
        work: Which network, where the column `work` names several.

    Raises:
        WorkloadError: One line per fault of the file, `file:line: what is found; what is allowed`.
    """
    faults: Faults = []
    rows = read_rows(path, faults)
    raise_faults(path, faults)
    chosen = _choose(path, rows, work)
    layers = _layers(chosen, faults)
    raise_faults(path, faults)
    rates = {row.name: tuple(1.0 - value for value in row.sparsity) for row in chosen if row.sparsity}
    name = f"{path.stem}-{chosen[0].work}" if chosen[0].work else path.stem
    n_steps = len(chosen[0].sparsity)
    network = Network(name, chosen[0].in_shape, tuple(layers))
    return LayerTable(network, rates, n_steps if n_steps > 1 else None)


def assumed_rates(table: LayerTable, n_timesteps: int, last: float | None = None) -> dict[str, tuple[float, ...]]:
    """Probability that a neuron spikes, by layer (and `input`) and timestep.

    A layer spikes at the rate at which the next one receives; where sum pooling of n neurons lies
    between, at 1 - (1 - rate) ** (1 / n), with which one of them spikes at that rate.

    Args:
        table: With or without sparsity.
        n_timesteps: Timesteps to assume.
        last: Rate of the last layer, of which the table says nothing; by default that of its input.

    Returns:
        Tuples of n_timesteps rates, or nothing where the table has no sparsity.
    """
    if not table.input_rates:
        return {}
    layers = table.network.layers
    steps = {name: (rates * n_timesteps)[:n_timesteps] for name, rates in table.input_rates.items()}
    rates = {INPUT: steps[layers[0].name]}
    for layer, following in pairwise(layers):
        n_pooled = prod(layer.pool.kernel) if layer.pool else 1
        rates[layer.name] = tuple(1.0 - (1.0 - rate) ** (1.0 / n_pooled) for rate in steps[following.name])
    rates[layers[-1].name] = steps[layers[-1].name] if last is None else (last,) * n_timesteps
    return rates


def _choose(path: Path, rows: list[Row], work: str | None) -> list[Row]:
    works = list(dict.fromkeys(row.work for row in rows))
    if work is None and len(works) == 1:
        return rows
    known = ", ".join(works)
    if work is None:
        raise WorkloadError(f"{path}: holds several works ({known}); choose one with workload.work")
    if work not in works:
        close = get_close_matches(work, works, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"works are {known}"
        raise WorkloadError(f"{path}: no work {work!r}; {advice}")
    return [row for row in rows if row.work == work]


def _layers(rows: list[Row], faults: Faults) -> list[Layer]:
    layers: list[Layer] = []
    for row in rows:
        if layers:
            pool = _pool_between(layers[-1], row, faults)
            layers[-1] = replace(layers[-1], pool=pool)
        source = layers[-1].name if layers else INPUT
        layer = Layer(
            row.name, "linear" if row.is_linear else "conv2d", source, row.in_shape, row.out_channels, row.kernel,
            (row.stride, row.stride), row.padding, None, None, integrate_and_fire(),
        )  # fmt: skip
        if min(layer.conv_shape) < 1:
            found = f"kernel {row.kernel[0]} x {row.kernel[1]} is larger than its map of {_shown(row.in_shape)}"
            faults.append((row.line, f"{found} with padding {row.padding[0]} x {row.padding[1]}"))
        elif max(prod(layer.conv_shape), prod(row.in_shape), layer.n_weights) > LARGEST:
            faults.append((row.line, f"layer {row.name!r} has more than {LARGEST} inputs, weights or neurons"))
        layers.append(layer)
    return layers


def _pool_between(before: Layer, row: Row, faults: Faults) -> Pool | None:
    """The pooling that makes what a layer emits what the next row receives; None where they are equal."""
    channels, height, width = before.conv_shape
    receives = f"layer {row.name!r} receives {_shown(row.in_shape)} values"
    emits = f"{before.name!r} emits {_shown(before.conv_shape)}"
    if min(height, width) < 1:
        return None
    if row.is_linear:
        common = gcd(height, width)
        for factor in (factor for factor in range(1, common + 1) if common % factor == 0):
            if channels * (height // factor) * (width // factor) == row.in_shape[0]:
                return Pool((factor, factor), (factor, factor)) if factor > 1 else None
        faults.append((row.line, f"{receives} but {emits}; no pooling of it has as many values"))
        return None
    if row.in_shape[0] != channels:
        faults.append((row.line, f"{receives} but {emits}; channels must be equal"))
        return None
    if height % row.in_shape[1] or width % row.in_shape[2]:
        faults.append((row.line, f"{receives} but {emits}; the map must be the same, or smaller by a whole factor"))
        return None
    window = height // row.in_shape[1], width // row.in_shape[2]
    return Pool(window, window) if window != (1, 1) else None


def _shown(shape: Shape) -> str:
    return " x ".join(str(size) for size in shape)

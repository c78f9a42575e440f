"""Structured pruning for crossbars, and the squeeze that turns it into fewer of them.

Kinds, on the matrix of a layer as crossbars have it (rows are inputs):

- `filters` (C/F): whole columns, and the rows of the next layer that they feed;
- `columns` (XCS): column segments as long as a crossbar is high, within its band of rows;
- `rows` (XRS): row segments as long as a crossbar is wide, within its band of columns.

Zero segments are squeezed out, and what is left is packed densely; index tables say where it belongs. Entry
points: `prune`, `kept`, `squeeze`, `without_filters`, and `Squeezed` for the values on crossbars.

Source: T. Bhattacharjee et al., DATE 2022 (arXiv 2201.05229), whose abstract names the kinds and the squeeze;
scores (mean square of a segment) and the exact rules are reconstructions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from archsim.analog.devices import ChipSeed
from archsim.errors import WorkloadError
from archsim.training.net import Cells, Net, Weighted, rolled, unrolled
from archsim.training.technology import Technology
from archsim.units import ceil_div

Kind = Literal["none", "filters", "columns", "rows"]
Order = Callable[[Tensor], Tensor]
"""Gives the order of the columns of a dense matrix, see `arrangement`."""


def prune(net: Net, kind: Kind, sparsity: float, size: int) -> list[Tensor]:
    """Masks that keep what matters most by magnitude: all layers but the readout lose a share of their weights.

    Args:
        net: A network that has been trained for a while.
        kind: What is removed together.
        sparsity: Share that is removed, 0 or more and below 1.
        size: Rows and columns of a crossbar.

    Returns:
        Masks of 0 and 1, one per layer, in the shape of its weights. `filters` also masks the rows of the next layer.

    Raises:
        WorkloadError: The sparsity or size is outside these limits.
    """
    if not 0 <= sparsity < 1 or size < 1:
        raise WorkloadError(f"sparsity is {sparsity!r} and size {size!r}; sparsity is 0 <= s < 1, size at least 1")
    layers = net.weighted_layers()
    matrices = [unrolled(layer.weight.detach()) for layer in layers]
    masks = [torch.ones_like(matrix) for matrix in matrices]
    for index, matrix in enumerate(matrices[:-1]):
        if kind == "filters":
            lasting = _strongest(matrix.square().mean(0), sparsity)
            masks[index] *= lasting
            masks[index + 1] *= _rows_fed(lasting, layers[index + 1]).unsqueeze(1)
        elif kind == "columns":
            masks[index] *= _segments(matrix, size, sparsity)
        elif kind == "rows":
            masks[index] *= _segments(matrix.T, size, sparsity).T
    return [rolled(mask, layer.weight.shape) for mask, layer in zip(masks, layers, strict=True)]


def kept(net: Net, masks: Sequence[Tensor]) -> Net:
    """Set masked weights to zero in place; `train(after_step=...)` takes it to keep them there."""
    with torch.no_grad():
        for layer, mask in zip(net.weighted_layers(), masks, strict=True):
            layer.weight.mul_(mask)
    return net


def without_filters(net: Net, masks: Sequence[Tensor]) -> Net:
    """A smaller network without the filters that masks of kind `filters` remove; its outputs are the same.

    What biases or batch norm make of a removed filter reaches nothing, since the rows it feeds are masked as well.

    Raises:
        WorkloadError: Channels share neuron units, so that a removed one would leave its unit to others.
    """
    if net.neuron.shared_channels > 1:
        raise WorkloadError(
            f"neurons have shared_channels {net.neuron.shared_channels}; without some of its filters a layer has other "
            "channels side by side, whose units would emit other spikes. Remove filters first, then train with sharing."
        )
    layers, columns = net.weighted_layers(), [_used(mask) for mask in masks]
    columns[-1] = torch.arange(layers[-1].weight.shape[0])
    made, rows = [], torch.arange(layers[0].weight.shape[1])
    for index, layer in enumerate(layers):
        weight = layer.weight.detach()[columns[index]][:, rows].clone()
        smaller = Weighted(weight, layer.bias is not None, layer.padding, layer.stride, layer.pool)
        if smaller.bias is not None and layer.bias is not None:
            with torch.no_grad():
                smaller.bias.copy_(layer.bias[columns[index]])
        smaller.limit, smaller.full_scale = layer.limit, layer.full_scale
        made.append(smaller)
        if index + 1 < len(layers):
            chosen = torch.zeros(layer.weight.shape[0])
            chosen[columns[index]] = 1
            per_kernel = layers[index + 1].weight[0, 0].numel()
            fed = _rows_fed(chosen, layers[index + 1])
            rows = fed[: len(fed) // per_kernel].nonzero().flatten()
    result = Net(made, net.neuron, net.n_timesteps, net.coding, net.norm)
    for index, used in enumerate(columns[:-1]):
        for old, new in zip(net.norms_of(index), result.norms_of(index), strict=True):
            _copy_norm(old, new, used)
    return result.eval()


@dataclass(frozen=True)
class Block:
    """A dense part of a squeezed matrix: the rows and columns of the layer that it holds, in order."""

    rows: Tensor
    """Index table of the rows, int64."""
    cols: Tensor
    """Index table of the columns, int64."""

    def n_tiles(self, size: int) -> int:
        """Pieces of size x size that it is cut into."""
        return ceil_div(len(self.rows), size) * ceil_div(len(self.cols), size)


def squeeze(weight: Tensor, kind: Kind, size: int) -> list[Block]:
    """Dense parts of the weights of a layer once what is zero for its kind of pruning is squeezed out.

    Args:
        weight: Weights, (out, in) or (out, in, kernel_h, kernel_w); zeros count, not magnitudes.
        kind: `none` keeps the whole matrix.
        size: Rows and columns of a crossbar.
    """
    used = unrolled(weight) != 0
    n_rows, n_cols = used.shape
    every_row, every_col = torch.arange(n_rows), torch.arange(n_cols)
    if kind == "none":
        return [Block(every_row, every_col)]
    if kind == "filters":
        blocks = [Block(every_row[used.any(1)], every_col[used.any(0)])]
    elif kind == "columns":
        blocks = [Block(band, every_col[used[band].any(0)]) for band in every_row.split(size)]
    else:
        blocks = [Block(every_row[used[:, band].any(1)], band) for band in every_col.split(size)]
    return [block for block in blocks if len(block.rows) and len(block.cols)]


@dataclass(frozen=True)
class Footprint:
    """What the squeezed layers of a network take."""

    n_crossbars: int
    """Crossbars for positive and negative weights."""
    table_bits: int
    """Bits of the index tables: an output per crossbar column (`columns`), an input per crossbar row (`rows`)."""


def footprint(weights: Sequence[Tensor], kind: Kind, size: int) -> Footprint:
    """Crossbars and index tables of layers; `none` counts them unpruned.

    Source: compression rate of arXiv 2201.05229 as the ratio of crossbars without and with the squeeze. Filters
    need no table: the layers before and behind are smaller as well.
    """
    n_crossbars = table_bits = 0
    for weight in weights:
        n_rows, n_cols = unrolled(weight).shape
        for block in squeeze(weight, kind, size):
            n_crossbars += 2 * block.n_tiles(size)
            if kind == "columns":
                table_bits += len(block.cols) * (n_cols - 1).bit_length()
            elif kind == "rows":
                table_bits += len(block.rows) * (n_rows - 1).bit_length()
    return Footprint(n_crossbars, table_bits)


def arrangement(
    metric: Literal["mean", "std", "max", "mean_std"],
    order: Literal["ascending", "descending", "interleave"],
    position: Literal["matrix", "crossbar"],
    size: int,
) -> Order:
    """How columns are rearranged before a dense matrix is cut; outputs are put back digitally, which is free.

    Args:
        metric: Statistic of the absolute weights of a column; `mean_std` is their product.
        order: `ascending` puts light columns first, next to the drivers; `descending` heavy ones; `interleave`
            deals heavy columns out to all crossbars, the heaviest of each next to its drivers.
        position: Columns move anywhere in the `matrix`, or only within their `crossbar`.
        size: Columns of a crossbar.

    Source: column rearrangement of arXiv 2201.05229, whose metric and direction are not known.
    """

    def ordered(matrix: Tensor) -> Tensor:
        magnitudes = matrix.detach().abs()
        mean, spread = magnitudes.mean(0), magnitudes.std(0, correction=0)
        score = {"mean": mean, "std": spread, "max": magnitudes.amax(0), "mean_std": mean * spread}[metric]
        places = torch.arange(len(score))
        if position == "crossbar":
            return torch.cat([part[_ranks(score[part], order, size)] for part in places.split(size)])
        return _ranks(score, order, size)

    return ordered


@dataclass(frozen=True)
class Squeezed:
    """A technology whose crossbars hold squeezed layers, with their columns perhaps rearranged."""

    technology: Technology
    kind: Kind
    order: Order | None = None

    def realise(self, layer: Weighted, name: str, chip: ChipSeed) -> Cells:
        """Cells of a layer on one chip; squeezed weights are exactly zero."""
        matrix = unrolled(layer.weight)
        scale = float(matrix.detach().abs().max()) if layer.full_scale is None else layer.full_scale
        found = torch.zeros_like(matrix)
        for number, block in enumerate(self.blocks(layer)):
            part = matrix[block.rows][:, block.cols].unsqueeze(0)
            effective, _ = self.technology.effective(part, scale, f"{name}/{number}", chip)
            found = found.index_put((block.rows.unsqueeze(1), block.cols), effective[0])
        return Cells(rolled(found, layer.weight.shape))

    def blocks(self, layer: Weighted) -> list[Block]:
        """Dense parts of a layer in the order of their columns."""
        assert self.technology.rows is not None, "squeezing is to the size of a crossbar"
        blocks = squeeze(layer.weight.detach(), self.kind, self.technology.rows)
        if self.order is None:
            return blocks
        matrix = unrolled(layer.weight.detach())
        return [Block(block.rows, block.cols[self.order(matrix[block.rows][:, block.cols])]) for block in blocks]

    def nf(self, net: Net, chip: ChipSeed) -> float:
        """Non-ideality factor: mean share of its current that a column loses, over all crossbars of a network."""
        lost = []
        for number, layer in enumerate(net.weighted_layers()):
            matrix = unrolled(layer.weight.detach())
            scale = float(matrix.abs().max()) if layer.full_scale is None else layer.full_scale
            for block in self.blocks(layer):
                part = matrix[block.rows][:, block.cols] / scale
                lost.append(self.technology.shortfalls(part.unsqueeze(0), f"layer{number}", chip))
        return float(torch.cat(lost).mean())


def _strongest(scores: Tensor, sparsity: float) -> Tensor:
    """1 for the highest scores, 0 for a share `sparsity` of the lowest, of the shape of `scores`."""
    n_removed = int(scores.numel() * sparsity)
    lasting = torch.ones(scores.numel())
    lasting[scores.flatten().argsort()[:n_removed]] = 0
    return lasting.view_as(scores)


def _segments(matrix: Tensor, size: int, sparsity: float) -> Tensor:
    """Mask that removes the weakest column segments of `size` rows."""
    bands = matrix.split(size)
    scores = torch.stack([band.square().mean(0) for band in bands])
    lasting = _strongest(scores, sparsity)
    return torch.cat([row.expand_as(band) for row, band in zip(lasting, bands, strict=True)])


def _rows_fed(channels: Tensor, following: Weighted) -> Tensor:
    """Which rows of the next layer's matrix the channels feed, a value of `channels` for each."""
    n_inputs = following.weight.shape[1]
    per_channel = channels.repeat_interleave(n_inputs // len(channels))  # a flattened map is channel-major
    return per_channel.repeat(following.weight[0, 0].numel())


def _used(mask: Tensor) -> Tensor:
    """Output channels that a mask leaves any weight."""
    return mask.flatten(1).any(1).nonzero().flatten()


def _ranks(score: Tensor, order: str, size: int) -> Tensor:
    """Columns of one matrix in order."""
    falling = score.argsort(descending=True)
    if order == "ascending":
        return falling.flip(0)
    if order == "descending":
        return falling
    room = [min(size, len(score) - first) for first in range(0, len(score), size)]
    places = [(tile, depth) for depth in range(size) for tile, space in enumerate(room) if depth < space]
    return falling[sorted(range(len(places)), key=places.__getitem__)]


def _copy_norm(old: nn.Module, new: nn.Module, channels: Tensor) -> None:
    """Take over the batch norm of some channels."""
    state = copy.deepcopy(old.state_dict())
    new.load_state_dict({key: value if value.ndim == 0 else value[channels] for key, value in state.items()})

"""The softmax contrastive loss over tiles, in two passes: sums of rows and columns, then gradients.

    loss = 1/2N sum over rows and columns of  log_sum - positive_sum / positive_count
    derivative by logit ij = 1/2N (softmax over row i + softmax over column j - shares of the targets)

Shapes: n pairs of this process, N pairs of all, D width; R rows and C columns of a tile.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from nunbit.losses.ranks import Ring, Tensors
from nunbit.losses.tiles import Gradients, Tile, Tiles


class Sums(NamedTuple):
    """What the loss needs to know of each row, or of each column.

    Attributes:
        log_sum: (n,), log of the sum of exp(logits).
        positive_sum: (n,), of the logits of positives.
        positive_count: (n,), how many these are.
    """

    log_sum: Tensor
    positive_sum: Tensor
    positive_count: Tensor

    @classmethod
    def of_nothing(cls, count: int, like: Tensor) -> Self:
        """``count`` rows before any tile, of the type and device of ``like``."""
        zeros = like.new_zeros(count)
        return cls(torch.full_like(zeros, -torch.inf), zeros, zeros.clone())

    def add(self, tile: Tile, *, columns: bool) -> None:
        """Take in the rows of a tile, or its columns; ``tile.spare`` is overwritten."""
        dim, place = (0, tile.columns) if columns else (1, tile.rows)
        highest = tile.logits.amax(dim, keepdim=True)
        part = torch.sub(tile.logits, highest, out=tile.spare).exp_().sum(dim).log_().add_(highest.squeeze(dim))
        known = self.log_sum[place]
        torch.logaddexp(known, part, out=known)
        if tile.positives is not None:
            found, values = tile.positives[1 - dim], tile.logits[tile.positives]
            self.positive_sum[place].index_add_(0, found, values)
            self.positive_count[place].index_add_(0, found, torch.ones_like(values))

    def loss(self) -> Tensor:
        """0-d, the cross-entropies of all rows, summed."""
        return (self.log_sum - self.positive_sum / self.positive_count).sum()


def softmax(tiles: Tiles, scale: Tensor, route: Ring, *, gradients: bool) -> tuple[Tensor, Gradients | None]:
    """The loss over all ranks, and this rank's gradients where they are asked for."""
    share = 1 / (2 * len(tiles) * route.world)
    shared = route.share(tiles.shared)
    rows = Sums.of_nothing(len(tiles), scale)

    def measure(own: bool, block: Tensors, sums: Tensors) -> None:
        columns = Sums(*sums)
        for tile in tiles.walk(own, block):
            rows.add(tile, columns=False)
            columns.add(tile, columns=True)

    columns = Sums(*route.tour(measure, shared, Sums.of_nothing(len(tiles), scale), logs=1))
    loss = route.total((rows.loss() + columns.loss()) * share)
    if not gradients:
        return loss, None
    of_images, of_texts = tiles.zeros(), tiles.zeros()

    def derive(own: bool, block: Tensors, sums: Tensors) -> None:
        *_, log_sum, count = block
        for tile in tiles.walk(own, block):
            weights = torch.sub(tile.logits, rows.log_sum[tile.rows, None], out=tile.spare).exp_()
            weights += tile.logits.sub_(log_sum[tile.columns]).exp_()
            if tile.positives is not None:
                row, column = tile.positives
                target = 1 / rows.positive_count[tile.rows][row] + 1 / count[tile.columns][column]
                weights.index_put_(tile.positives, -target, accumulate=True)
            tiles.add_gradients(tile, weights, of_images, sums[0])

    shared = (*shared, *route.share((columns.log_sum, columns.positive_count)))
    (of_texts,) = route.tour(derive, shared, (of_texts,))
    return loss, tiles.finish(of_images, of_texts, share)

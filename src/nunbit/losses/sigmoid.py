"""The sigmoid contrastive loss over tiles, in one pass: each pair is judged by itself.

    loss = 1/N sum over ij of  softplus(-z_ij logit_ij)        z = 1 for positives, else -1
    derivative by logit ij = -1/N  z_ij sigmoid(-z_ij logit_ij)

Shapes: n pairs of this process, N pairs of all, D width; R rows and C columns of a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nunbit.losses.ranks import Ring, Tensors
from nunbit.losses.tiles import Gradients, Tile, Tiles


def sigmoid(tiles: Tiles, bias: Tensor, route: Ring, *, gradients: bool) -> tuple[Tensor, Gradients | None]:
    """The loss over all ranks, and this rank's gradients where they are asked for; ``bias`` is 0-d."""
    share = 1 / (len(tiles) * route.world)
    zero = torch.zeros_like(bias)
    losses, of_bias = bias.new_zeros(len(tiles)), bias.new_zeros(len(tiles))
    of_images = tiles.zeros() if gradients else zero

    def judge(own: bool, block: Tensors, sums: Tensors) -> None:
        for tile in tiles.walk(own, block):
            tile.logits.add_(bias)
            _turn_positives(tile)
            losses[tile.rows] += torch.logaddexp(tile.logits, zero, out=tile.spare).sum(1)  # softplus
            if gradients:
                tile.logits.sigmoid_()
                _turn_positives(tile)
                of_bias[tile.rows] += tile.logits.sum(1)
                tiles.add_gradients(tile, tile.logits, of_images, sums[0])

    sums = route.tour(judge, route.share(tiles.shared), (tiles.zeros(),) if gradients else ())
    loss = route.total(losses.sum() * share)
    return loss, tiles.finish(of_images, sums[0], share, of_bias.sum() * share) if gradients else None


def _turn_positives(tile: Tile) -> None:
    """Change the sign of the positives: then a number is high where a pair is taken for what it is not."""
    if tile.positives is not None:
        tile.logits[tile.positives] = -tile.logits[tile.positives]

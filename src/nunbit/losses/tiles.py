"""A block of similarities, one tile at a time, in buffers that are made once.

A block is all pictures of this process against the texts of one process. Both losses of `nunbit.losses.tiled` are made
of what is here, so a tile is computed in one place whether its texts are at home or came from another process.

Shapes: n pairs of this process, D width; R rows and C columns of a tile, P positives in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nunbit.losses.identities import Identities
from nunbit.losses.ranks import Tensors

TILE = 1024
"""Rows and columns of a tile: large enough for products at full speed, small enough for a processor's cache."""


class Tile(NamedTuple):
    """One part of a block. The next tile overwrites ``logits`` and ``spare``.

    Attributes:
        rows: Which pictures.
        columns: Which texts.
        logits: (R, C), with the scale, in the type of sums; whoever works on the tile may change it.
        spare: (R, C) of the same type, to write to.
        images: (R, D), times the scale.
        texts: (C, D).
        positives: Row and column in the tile of each, (P,) both; None where there is none.
    """

    rows: slice
    columns: slice
    logits: Tensor
    spare: Tensor
    images: Tensor
    texts: Tensor
    positives: tuple[Tensor, Tensor] | None


class Gradients(NamedTuple):
    """Of a loss: by both sides (n, D), by scale and bias (0-d), all in the type of sums."""

    images: Tensor
    texts: Tensor
    scale: Tensor
    bias: Tensor | None


class Tiles:
    """Walks over blocks.

    Products are computed in the type of the embeddings; sums, exponentials and gradients in ``dtype``.

    Args:
        images: (n, D) float32, float64 or bfloat16.
        texts: (n, D), the same.
        identities: Of the pairs; None where row i belongs to row i only.
        scale: 0-d of ``dtype``, factor on the products.
        size: Rows and columns of a tile.

    Attributes:
        dtype: The type of sums.
        shared: What other processes need of this one's texts.
    """

    def __init__(
        self, images: Tensor, texts: Tensor, identities: Identities | None, scale: Tensor, *, size: int
    ) -> None:
        self.dtype = scale.dtype
        self.shared: Tensors = (texts, *(identities or ()))
        self._images, self._identities, self._scale, self._size = images, identities, scale, size
        side = min(size, len(images))
        self._logits = images.new_empty(side * side, dtype=self.dtype)
        self._spare = torch.empty_like(self._logits)
        self._exact = images.dtype == self.dtype
        if not self._exact:
            self._rounded = images.new_empty(side * side)
            self._step = images.new_empty(side * images.shape[1])

    def __len__(self) -> int:
        """Pairs of this process."""
        return len(self._images)

    def zeros(self) -> Tensor:
        """(n, D) for `add_gradients`."""
        return torch.zeros_like(self._images, dtype=self.dtype, memory_format=torch.contiguous_format)

    def walk(self, own: bool, shared: Tensors) -> Iterator[Tile]:
        """All tiles of a block, row by row.

        Args:
            own: Whether the texts belong to this process's pictures.
            shared: What `shared` is on the process that they came from; more may follow.
        """
        others = Identities(*shared[1:3]) if self._identities is not None else None
        for rows in slices(len(self._images), self._size):
            images = self._images[rows] * self._scale  # (R, D)
            for columns in slices(len(shared[0]), self._size):
                texts = shared[0][columns]
                logits = _view(self._logits, len(images), len(texts))
                if self._exact:
                    torch.mm(images, texts.T, out=logits)
                else:
                    logits.copy_(torch.mm(images, texts.T, out=_view(self._rounded, *logits.shape)))
                positives = None
                if self._identities is not None and others is not None:
                    positives = self._identities.tile(rows, others, columns)
                elif own and rows == columns:
                    positives = (torch.arange(len(texts), device=texts.device),) * 2
                yield Tile(rows, columns, logits, _view(self._spare, *logits.shape), images, texts, positives)

    def add_gradients(self, tile: Tile, weights: Tensor, of_images: Tensor, of_texts: Tensor) -> None:
        """Add what a tile contributes.

        Args:
            tile: The tile.
            weights: (R, C), the derivative by the tile's logits.
            of_images: (n, D); ``weights @ texts`` is added to the tile's rows, without the scale.
            of_texts: (n, D); ``weights.T @ (scale * images)`` is added to the tile's columns.
        """
        pictures, texts = of_images[tile.rows], of_texts[tile.columns]
        if self._exact:
            pictures.addmm_(weights, tile.texts)
            texts.addmm_(weights.T, tile.images)
            return
        rounded = _view(self._rounded, *weights.shape).copy_(weights)
        # Added up in float32: what one tile adds is far smaller than the last digit of a sum in bfloat16.
        pictures += torch.mm(rounded, tile.texts, out=_view(self._step, *pictures.shape))
        texts += torch.mm(rounded.T, tile.images, out=_view(self._step, *texts.shape))

    def finish(self, of_images: Tensor, of_texts: Tensor, factor: float, bias: Tensor | None = None) -> Gradients:
        """Gradients from the sums of `add_gradients`, in the same memory, all times ``factor``."""
        by_row = of_images.new_empty(len(of_images))
        for rows in slices(len(of_images), self._size):  # in one go the product would be a third (n, D)
            torch.sum(self._images[rows] * of_images[rows], 1, out=by_row[rows])
        # Logits are linear in the scale, so the pictures' sums hold its gradient already.
        scale = by_row.sum() * factor
        return Gradients(of_images.mul_(self._scale * factor), of_texts.mul_(factor), scale, bias)


def slices(count: int, size: int) -> Iterator[slice]:
    """``count`` items, at most ``size`` at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _view(buffer: Tensor, rows: int, columns: int) -> Tensor:
    return buffer[: rows * columns].view(rows, columns)

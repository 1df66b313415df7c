"""Batches of embeddings for tests of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.losses import Identities


class Batch(NamedTuple):
    """N pairs, with what a loss needs besides them."""

    images: Tensor
    texts: Tensor
    scale: Tensor
    bias: Tensor | None = None
    identities: Identities | None = None

    def part(self, rank: int, count: int) -> Batch:
        """The pairs of one rank."""
        place = slice(rank * count, (rank + 1) * count)
        ids = None if self.identities is None else Identities(*(one[place] for one in self.identities))
        sides = [side.detach()[place].requires_grad_() for side in (self.images, self.texts)]
        return Batch(*sides, self.scale, self.bias, ids)

    def to(self, dtype: torch.dtype) -> Batch:
        """The same in another type."""
        images, texts, scale, bias = (
            None if one is None else one.detach().to(dtype).requires_grad_() for one in self[:4]
        )
        assert images is not None and texts is not None and scale is not None
        return Batch(images, texts, scale, bias, self.identities)


def make_batch(count: int, *, width: int = 8, seed: int = 0, duplicates: bool = False) -> Batch:
    """Unit rows in float64; with duplicates some pictures and some texts are there several times."""
    generator = torch.Generator().manual_seed(seed)

    def rows() -> Tensor:
        return functional.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)

    def ids(kinds: int) -> Tensor:
        return torch.randint(0, max(1, kinds), (count,), generator=generator)

    pictures, texts = rows(), rows()
    identities = Identities(ids(2 * count), ids(count)) if duplicates else None
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (9.0, -3.0))
    return Batch(pictures.requires_grad_(), texts.requires_grad_(), scale, bias, identities)


def with_gradients(loss: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its gradients by name."""
    names = ("images", "texts", "scale", "bias")
    leaves = {name: one for name, one in zip(names, batch[:4], strict=True) if one is not None}
    value = loss(batch)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return value.detach(), {name: one for name, one in zip(leaves, found, strict=True) if one is not None}

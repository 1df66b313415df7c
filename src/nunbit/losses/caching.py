"""Gradient caching (GradCache, arXiv 2101.06983): the gradient of one large batch, with the activations of a small one.

    pass 1      encode chunk by chunk without a graph; keep embeddings and the state of random numbers
    between     loss over all embeddings; its gradient by each of them
    pass 2      encode chunk by chunk again with a graph, from the same random numbers; go back from those gradients

It costs a second forward pass. The result is that of one batch, where a model treats the items of a batch apart: a
batch norm in training mode does not, sees chunks, and counts each of them twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from nunbit.errors import UsageError

T = TypeVar("T")

DRIFT = 0.01
"""How far, relative to its size, the second encoding of a chunk may be from the first: rounding, not dropout."""


def cached_backward(
    encode: Callable[[T], tuple[Tensor, Tensor]], chunks: Sequence[T], loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Add the gradient of one batch, given in chunks, to the parameters that ``encode`` and ``loss`` use.

    Parameters that only the loss uses (``logit_scale``, ``logit_bias``) get theirs between the passes. Where a wrapper
    averages gradients over processes in every ``backward``, let it do so for the last chunk only.

    Args:
        encode: A chunk → image embeddings (B, D) and text embeddings (B, D). Its random choices, dropout among them,
            must come from torch's generator of the CPU or of the current CUDA device.
        chunks: What ``encode`` takes, part by part. With one part there is nothing to cache, and it is encoded once.
        loss: Image and text embeddings (N, D) of all chunks → 0-d.

    Returns:
        0-d, the loss, without a graph.

    Raises:
        UsageError: There are no chunks, or a chunk was encoded otherwise the second time.

    Example:
        >>> loss = cached_backward(lambda c: clip(*c), chunks, lambda i, t: tiled_softmax(i, t, clip.logit_scale.exp()))
    """
    if not chunks:
        raise UsageError("there are no chunks to encode", hint="give at least one")
    if len(chunks) == 1:
        value = loss(*encode(chunks[0]))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    states, encoded = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_RandomState.now())
            encoded.append(encode(chunk))
    sides = [torch.cat(parts).requires_grad_() for parts in zip(*encoded, strict=True)]  # (N, D) twice
    value = loss(*sides)
    value.backward()  # type: ignore[no-untyped-call]
    start = 0
    for chunk, state, first in zip(chunks, states, encoded, strict=True):
        with state.again():
            again = encode(chunk)
        place = slice(start, start := start + len(first[0]))
        _go_back(again, [side[place].detach() for side in sides], [_part(side.grad, place) for side in sides])
    return value.detach()


@dataclass(frozen=True, slots=True)
class _RandomState:
    """Where torch's generators stood."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls) -> Self:
        on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if on_cuda else None)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers in the block, and go on after it as if nothing had been drawn."""
        devices = [] if self.cuda is None else [torch.cuda.current_device()]
        with torch.random.fork_rng(devices):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda)
            yield


def _go_back(again: Sequence[Tensor], first: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Pass 2 of one chunk: from the gradients by its embeddings to those by parameters."""
    for second, before in zip(again, first, strict=True):
        if (second.detach() - before).norm() > DRIFT * before.norm():
            raise UsageError(
                "a chunk was encoded otherwise the second time, so its gradient would be wrong",
                hint="make random choices before encode, or from torch's generators",
            )
    # A frozen tower's embeddings have no graph, and a loss may leave a side out.
    pairs = [(one, by) for one, by in zip(again, gradients, strict=True) if one.requires_grad and by is not None]
    if pairs:
        torch.autograd.backward([one for one, _ in pairs], [by for _, by in pairs])


def _part(gradient: Tensor | None, place: slice) -> Tensor | None:
    return None if gradient is None else gradient[place]

"""The contrastive losses of `nunbit.losses.plain`, exact, without the (N, N) matrix, on one process or on several.

Loss and gradients are computed together, tile by tile, when the loss is called: the softmax in two passes (the sums of
rows and columns, then the gradients), the sigmoid in one. What is kept for ``backward`` is the gradients themselves.

On several ranks the value is the mean over the pairs of all of them, the same everywhere. ``backward`` gives each rank
the gradient of that one value by its own embeddings, and of ``logit_scale`` and ``logit_bias`` by its own pictures: its
share. So the gradients of parameters are *summed* over ranks, not averaged.

Shapes: n pairs of this process, N pairs of all, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nunbit.errors import UsageError
from nunbit.losses.identities import Identities
from nunbit.losses.ranks import Ranks, check_alike, route_of
from nunbit.losses.sigmoid import sigmoid
from nunbit.losses.softmax import softmax
from nunbit.losses.tiles import TILE, Tiles

Scalar: TypeAlias = Tensor | float
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def tiled_softmax(
    images: Tensor,
    texts: Tensor,
    logit_scale: Scalar,
    identities: Identities | None = None,
    *,
    ranks: Ranks | None = None,
    tile: int = TILE,
) -> Tensor:
    """`nunbit.losses.softmax_contrastive` in bounded memory: two gradients (n, D) and a few tiles.

    With embeddings in bfloat16 the products are computed in it, several times quicker on processors that know it. The
    value is float32 then, gradients are added up in float32, and both are right to two or three digits.

    Args:
        images: (n, D) unit rows; float32, float64 or bfloat16.
        texts: (n, D) unit rows of the same type; row i belongs to row i of ``images``.
        logit_scale: Positive factor on the cosines, a number or 0-d.
        identities: Which pairs share a picture or a text and are positives, too. By default each pair stands alone.
        ranks: The processes that share the batch, each with n pairs; None is this one alone.
        tile: Rows and columns computed at a time. It changes speed and memory, and the result by rounding only.

    Returns:
        0-d, float64 for float64 and float32 else. Its ``backward`` can be called once.

    Raises:
        UsageError: Shapes or types that do not fit, or that differ between ranks.

    Example:
        >>> loss = tiled_softmax(images, texts, log_scale.exp(), Identities(picture_ids, text_ids))
        >>> loss.backward()
    """
    return _apply(images, texts, (logit_scale, None), _Call(identities, ranks, tile))


def tiled_sigmoid(
    images: Tensor,
    texts: Tensor,
    logit_scale: Scalar,
    logit_bias: Scalar,
    identities: Identities | None = None,
    *,
    ranks: Ranks | None = None,
    tile: int = TILE,
) -> Tensor:
    """`nunbit.losses.sigmoid_contrastive` in bounded memory: two gradients (n, D) and a few tiles.

    Args:
        images: (n, D) unit rows; float32, float64 or bfloat16, with the same effect as in `tiled_softmax`.
        texts: (n, D) unit rows of the same type; row i belongs to row i of ``images``.
        logit_scale: Positive factor on the cosines, a number or 0-d.
        logit_bias: Added to all logits, a number or 0-d.
        identities: Which pairs share a picture or a text and are positives, too. By default each pair stands alone.
        ranks: The processes that share the batch, each with n pairs; None is this one alone.
        tile: Rows and columns computed at a time. It changes speed and memory, and the result by rounding only.

    Returns:
        0-d, float64 for float64 and float32 else. Its ``backward`` can be called once.

    Raises:
        UsageError: Shapes or types that do not fit, or that differ between ranks.
    """
    return _apply(images, texts, (logit_scale, logit_bias), _Call(identities, ranks, tile))


@dataclass(frozen=True, slots=True)
class _Call:
    """What a loss is computed with, but for what has a gradient; see `tiled_softmax`."""

    identities: Identities | None
    ranks: Ranks | None
    tile: int


def _apply(images: Tensor, texts: Tensor, scale_and_bias: tuple[Scalar, Scalar | None], call: _Call) -> Tensor:
    _check(images, texts, scale_and_bias, call)
    inputs = (images, texts, *scale_and_bias)
    wanted = torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in inputs)
    loss: Tensor = _Tiled.apply(*inputs, call, wanted)  # type: ignore[no-untyped-call]
    return loss


class _Tiled(torch.autograd.Function):
    """Computes gradients together with the loss, and hands them over in ``backward``."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, scale: Scalar, bias: Scalar | None, call: _Call, wanted: bool
    ) -> Tensor:
        route = route_of(call.ranks)
        names = ("pairs", "width", f"the type (its place in {DTYPES})", "identities", "gradients")
        kinds = (DTYPES.index(images.dtype), call.identities is not None, wanted)
        check_alike(route, names, (*images.shape, *kinds), images.device)
        factor = _number(scale, images)
        tiles = Tiles(images, texts, call.identities, factor, size=call.tile)
        if bias is None:
            loss, gradients = softmax(tiles, factor, route, gradients=wanted)
        else:
            loss, gradients = sigmoid(tiles, _number(bias, images), route, gradients=wanted)
        ctx.gradients = None
        if gradients is not None:
            pairs = zip(gradients, (images, texts, scale, bias), strict=True)
            ctx.gradients = [
                one.to(like) if one is not None and isinstance(like, Tensor) else None for one, like in pairs
            ]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if ctx.gradients is None:
            raise UsageError("backward was already called on this loss", hint="compute the loss again")
        # Let go of, so that autograd can keep the memory as a leaf's gradient instead of copying it.
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [one if one is None else one.mul_(upstream.to(one.device)) for one in gradients]
        return *scaled, None, None


def _number(value: Scalar, embeddings: Tensor) -> Tensor:
    """0-d in the type of sums: float64 for float64, else float32."""
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    return torch.as_tensor(value, dtype=dtype, device=embeddings.device)


def _check(images: Tensor, texts: Tensor, scale_and_bias: tuple[Scalar, Scalar | None], call: _Call) -> None:
    if images.ndim != 2 or images.shape != texts.shape or len(images) == 0:
        raise UsageError(f"images are {tuple(images.shape)} and texts {tuple(texts.shape)}, expected twice (n, D)")
    if images.dtype != texts.dtype or images.device != texts.device:
        kinds = f"images are {images.dtype} on {images.device}, texts {texts.dtype} on {texts.device}"
        raise UsageError(kinds, hint="give both the same type and device")
    if images.dtype not in DTYPES:
        raise UsageError(f"embeddings are {images.dtype}", hint=f"one of: {', '.join(map(str, DTYPES))}")
    for name, value in zip(("logit_scale", "logit_bias"), scale_and_bias, strict=True):
        if isinstance(value, Tensor) and value.ndim > 0:
            raise UsageError(f"{name} is {tuple(value.shape)}, expected a number or 0-d", hint="squeeze() it")
    for ids in call.identities or ():
        if ids.shape != images.shape[:1] or ids.is_floating_point():
            raise UsageError(f"identities are {tuple(ids.shape)} of {ids.dtype}, expected ({len(images)},) of int64")
    if call.tile < 1:
        raise UsageError(f"tile is {call.tile}, it must be at least 1")

"""Contrastive losses as they are written: pure functions that hold the (N, N) matrix of similarities.

They are what `nunbit.losses.tiled` must agree with, and the simplest choice for small batches.

Shapes: N pairs, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.errors import UsageError


def softmax_contrastive(
    left: Tensor, right: Tensor, logit_scale: Tensor | float, positives: Tensor | None = None
) -> Tensor:
    """Symmetric softmax contrastive loss (CLIP, arXiv 2103.00020; with several positives UniCL, arXiv 2204.03610).

    ``mean over both directions of  -log softmax(logit_scale * left @ right.T)[i, i]``

    With ``positives`` the target of a row is uniform over those of the row, and so for columns:
    ``logsumexp_j(s_ij) - mean of s_ij over its positives j``.

    It is ln N where all similarities are equal. With the diagonal alone it tends to 0 where each pair stands alone.

    Args:
        left: (N, D) unit rows.
        right: (N, D) unit rows; row i belongs to row i of ``left``.
        logit_scale: Positive factor on the cosines.
        positives: (N, N) bool, which rows belong together, as `nunbit.losses.same` makes it; at least one in each row
            and column. By default the diagonal.

    Returns:
        A scalar.

    Raises:
        UsageError: ``positives`` is of another shape or type, or leaves a row or a column without any.
    """
    if positives is not None:
        _check_positives(positives, len(left))
        if not (positives.any(0).all() and positives.any(1).all()):
            raise UsageError("a row or a column has no positive", hint="each row belongs at least to its own pair")
        similar = logit_scale * left @ right.T  # (N, N)
        return (_uniform_target(similar, positives) + _uniform_target(similar.T, positives.T)) / 2
    logits = logit_scale * left @ right.T  # (N, N)
    target = torch.arange(len(left), device=left.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def sigmoid_contrastive(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    positives: Tensor | None = None,
) -> Tensor:
    """Sigmoid contrastive loss (SigLIP, arXiv 2303.15343): each of the N² pairs by itself.

    ``-1/N sum over i, j of log sigmoid(z_ij (logit_scale * left_i @ right_j + logit_bias))``

    z is 1 for positives and -1 for all other pairs.

    With all similarities 0 and bias b it is ``softplus(-b) + (N - 1) softplus(b)``: near -b for the usual b = -10, as
    long as N is far below ``exp(-b)``.

    Args:
        left: (N, D) unit rows.
        right: (N, D) unit rows; row i belongs to row i of ``left``.
        logit_scale: Positive factor on the cosines.
        logit_bias: Added to all logits.
        positives: (N, N) bool, which rows belong together, as `nunbit.losses.same` makes it. By default the diagonal.

    Returns:
        A scalar.

    Raises:
        UsageError: ``positives`` is of another shape or type.
    """
    if positives is None:
        positives = torch.eye(len(left), dtype=torch.bool, device=left.device)
    _check_positives(positives, len(left))
    logits = logit_scale * left @ right.T + logit_bias  # (N, N)
    return -functional.logsigmoid(torch.where(positives, logits, -logits)).sum() / len(left)


def _uniform_target(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over rows of the cross-entropy with a target that is uniform over the positives."""
    chosen = (logits * positives).sum(1) / positives.sum(1)  # (N,)
    return (logits.logsumexp(1) - chosen).mean()


def _check_positives(positives: Tensor, count: int) -> None:
    if positives.shape != (count, count) or positives.dtype != torch.bool:
        shape = tuple(positives.shape)
        raise UsageError(f"positives are {shape} of {positives.dtype}, expected ({count}, {count}) of torch.bool")

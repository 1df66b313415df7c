"""Contrastive losses: pure functions of embeddings; they know no model.

Shapes: N pairs, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softmax_contrastive(left: Tensor, right: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Symmetric softmax contrastive loss (CLIP, arXiv 2103.00020).

    ``mean over both directions of  -log softmax(logit_scale * left @ right.T)[i, i]``

    It is ln N where all similarities are equal, and tends to 0 where each pair stands alone.

    Args:
        left: (N, D) unit rows.
        right: (N, D) unit rows; row i belongs to row i of ``left``.
        logit_scale: Positive factor on the cosines.

    Returns:
        A scalar.
    """
    logits = logit_scale * left @ right.T  # (N, N)
    target = torch.arange(len(left), device=left.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2

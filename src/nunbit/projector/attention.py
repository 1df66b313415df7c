"""Attention of one set of tokens to another, for projectors with queries.

Shapes: B batch, Q queries, K keys, H heads, S width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nunbit.layers import attend


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionSizes:
    """What decides the shape of a `CrossAttention`.

    Attributes:
        query_size: Width of the queries, and of what comes out.
        key_size: Width of what is looked at.
        num_heads: H.
        head_size: S.
        bias: The maps have biases.
    """

    query_size: int
    key_size: int
    num_heads: int
    head_size: int
    bias: bool = True


class CrossAttention(nn.Module):
    """``softmax(q k^T / sqrt(S)) v`` (arXiv 1706.03762), with queries from one place, keys and values from another.

    Args:
        sizes: Widths and heads.
    """

    def __init__(self, sizes: CrossAttentionSizes) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        inner = sizes.num_heads * sizes.head_size
        self.query = nn.Linear(sizes.query_size, inner, bias=sizes.bias)
        self.key = nn.Linear(sizes.key_size, inner, bias=sizes.bias)
        self.value = nn.Linear(sizes.key_size, inner, bias=sizes.bias)
        self.out = nn.Linear(inner, sizes.query_size, bias=sizes.bias)

    def forward(self, x: Tensor, context: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Look at other tokens.

        Args:
            x: (B, Q, query_size).
            context: (B, K, key_size).
            attention_mask: Bool, broadcastable to (B, H, Q, K); false keys are not looked at.

        Returns:
            (B, Q, query_size).
        """
        query, key, value = self._heads(self.query(x)), self._heads(self.key(context)), self._heads(self.value(context))
        mixed = attend(query, key, value, attention_mask, training=self.training)  # (B, H, Q, S)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, tokens, S)

"""Resamplers: a fixed number of learned queries looks at the patches and at each other.

In both kinds keys and values come from patches and queries together. Flamingo's (arXiv 2204.14198)::

    q = q + attention(norm(q), [norm(p); norm(q)])          no biases
    q = q + mlp(norm(q))                                    GELU, no biases

mPLUG-Owl's abstractor (arXiv 2304.14178) adds to the normed queries, and its MLP has a gate::

    n = norm(q);  q = n + attention(n, [n; norm(p)])
    q = q + w2(norm(silu(w1 z) * w3 z))     z = norm(q)

Flamingo ends in a layer norm. A linear map to the language model's width stands behind both.

Shapes: B batch, P patches, D width of the patch features, Q queries, W width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.projector.attention import CrossAttention, CrossAttentionSizes
from nunbit.projector.config import ResamplerConfig


class GatedMlp(nn.Module):
    """``w2(norm(silu(w1 x) * w3 x))``: SwiGLU (arXiv 2002.05202) with a norm inside.

    Args:
        hidden_size: D.
        intermediate_size: Width inside.
        eps: Of the norm.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, eps: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(hidden_size, intermediate_size)
        self.w2 = nn.Linear(intermediate_size, hidden_size)
        self.w3 = nn.Linear(hidden_size, intermediate_size)
        self.norm = nn.LayerNorm(intermediate_size, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        out: Tensor = self.w2(self.norm(functional.silu(self.w1(x)) * self.w3(x)))
        return out


class ResamplerBlock(nn.Module):
    """One block of either kind.

    Args:
        config: The kind and its sizes.
        hidden_size: D.
    """

    def __init__(self, config: ResamplerConfig, hidden_size: int) -> None:
        super().__init__()
        self.perceiver = config.block == "perceiver"
        eps = config.layer_norm_eps
        self.query_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.patch_norm = nn.LayerNorm(hidden_size, eps=eps)
        sizes = CrossAttentionSizes(
            query_size=hidden_size,
            key_size=hidden_size,
            num_heads=config.num_attention_heads,
            head_size=config.head_size,
            bias=not self.perceiver,
        )
        self.attention = CrossAttention(sizes)
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=eps)
        inner = config.intermediate_size or 4 * hidden_size
        self.mlp: nn.Module = (
            nn.Sequential(
                nn.Linear(hidden_size, inner, bias=False), nn.GELU(), nn.Linear(inner, hidden_size, bias=False)
            )
            if self.perceiver
            else GatedMlp(hidden_size, inner, eps)
        )

    def forward(self, queries: Tensor, image_features: Tensor, mask: Tensor | None) -> Tensor:
        """(B, Q, D), patches (B, P, D) and a mask over keys (B, 1, 1, P + Q), patches first → (B, Q, D)."""
        normed = self.query_norm(queries)
        context = torch.cat([self.patch_norm(image_features), normed], dim=1)  # attention does not mind the order
        queries = (queries if self.perceiver else normed) + self.attention(normed, context, mask)
        out: Tensor = queries + self.mlp(self.mlp_norm(queries))
        return out


class Resampler(nn.Module):
    """A resampler and the linear map behind it, with random weights.

    Args:
        config: The kind and its sizes.
        hidden_size: D.
        output_size: W.
    """

    def __init__(self, config: ResamplerConfig, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.output_size = config, hidden_size, output_size
        self.queries = nn.Parameter(torch.randn(config.num_queries, hidden_size))
        self.blocks = nn.ModuleList(ResamplerBlock(config, hidden_size) for _ in range(config.num_hidden_layers))
        last = config.block == "perceiver"
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps) if last else nn.Identity()
        self.projection = nn.Linear(hidden_size, output_size)
        self.end_token = nn.Parameter(torch.randn(output_size)) if config.end_token else None

    def num_tokens(self, num_patches: int) -> int:
        """Q, whatever P is, with the end token."""
        return self.config.num_tokens(num_patches)

    def forward(self, image_features: Tensor, *, patch_mask: Tensor | None = None) -> Tensor:
        """Tokens for a language model.

        Args:
            image_features: (B, P, D) floating.
            patch_mask: (B, P) bool, true where there is a patch; by default everywhere.

        Returns:
            (B, Q, W), with the end token (B, Q + 1, W).
        """
        tokens: Tensor = self.projection(self.query_features(image_features, patch_mask=patch_mask))
        if self.end_token is None:
            return tokens
        return torch.cat([tokens, self.end_token.expand(tokens.shape[0], 1, -1)], dim=1)

    def query_features(self, image_features: Tensor, *, patch_mask: Tensor | None = None) -> Tensor:
        """What the queries have gathered, before the linear map: as `forward` takes it → (B, Q, D)."""
        queries = self.queries.expand(image_features.shape[0], -1, -1)  # (B, Q, D)
        mask = None
        if patch_mask is not None:
            mask = torch.cat([patch_mask, patch_mask.new_ones(queries.shape[:2])], dim=1)[:, None, None]
        for block in self.blocks:
            queries = block(queries, image_features, mask)
        normed: Tensor = self.norm(queries)
        return normed

"""The text encoder of CLIP (causal, read at its end token) and of SigLIP (bidirectional, read at its last token).

::

    ids (B, T) → token + position embeddings (B, T, D) → blocks → norm → one token (B, D) → projection (B, E)

Shapes: B batch, T tokens, V vocabulary, D width, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nunbit.errors import ConfigError, UsageError
from nunbit.layers import Activation, make_blocks, run_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """What decides the shape of a text encoder. Names are those of Hugging Face's configurations.

    Attributes:
        vocab_size: V.
        max_position_embeddings: The most tokens that it reads.
        hidden_size: D.
        num_hidden_layers: Blocks.
        num_attention_heads: H, a divisor of ``hidden_size``.
        intermediate_size: Width inside of the MLPs.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Added to the variance in layer norms.
        causal: A token looks at itself and at those before it only. Then padding behind the text changes nothing;
            without it, padding is part of the answer.
        pooling: ``end_token``: the first ``end_token_id``; ``last``: the last position, padding or not.
        end_token_id: What closes every text.
        projection_size: E.
        projection_bias: The projection has a bias (SigLIP).
    """

    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Activation
    layer_norm_eps: float
    causal: bool
    pooling: Literal["end_token", "last"]
    end_token_id: int
    projection_size: int
    projection_bias: bool

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if not 0 <= self.end_token_id < self.vocab_size:
            raise ConfigError(f"end_token_id is {self.end_token_id}, the vocabulary has {self.vocab_size} tokens")


class TextTransformer(nn.Module):
    """A transformer over sub-word tokens.

    Args:
        config: Sizes and choices.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Parameter(0.01 * torch.randn(config.max_position_embeddings, width))
        self.blocks = make_blocks(config)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(width, config.projection_size, bias=config.projection_bias)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, embeddings: Tensor | None = None
    ) -> Tensor:
        """Token features behind the final norm.

        Args:
            input_ids: (B, T) int64, T at most ``max_position_embeddings``.
            attention_mask: (B, T) bool or int, nonzero where a token may be looked at; by default everywhere, as CLIP
                and SigLIP were trained.
            embeddings: (B, T, D) instead of those of the tokens: prompts that are learned are no tokens.

        Returns:
            (B, T, D).

        Raises:
            UsageError: More tokens than there are positions.
        """
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise UsageError(
                f"{length} tokens, this text encoder reads {self.config.max_position_embeddings}",
                hint="cut the text with the model's own tokenizer",
            )
        tokens = self.token_embedding(input_ids) if embeddings is None else embeddings
        x = tokens + self.position_embedding[:length]  # (B, T, D)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]  # (B, 1, 1, T)
        causal = self.config.causal
        if mask is not None and causal:
            mask = mask & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()  # (B, 1, T, T)
            causal = False
        features: Tensor = self.norm(run_blocks(self.blocks, x, mask, causal=causal))
        return features

    def text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, embeddings: Tensor | None = None
    ) -> Tensor:
        """The text's feature, not of unit length: as `forward` takes it → (B, E)."""
        tokens = self(input_ids, attention_mask, embeddings=embeddings)
        if self.config.pooling == "last":
            pooled = tokens[:, -1]
        else:
            end = (input_ids == self.config.end_token_id).int().argmax(1)  # the first one: padding may be the same
            pooled = tokens[torch.arange(tokens.shape[0], device=tokens.device), end]  # (B, D)
        features: Tensor = self.projection(pooled)
        return features

"""The Q-Former of BLIP-2 (arXiv 2301.12597), of InstructBLIP (arXiv 2305.06500) and of MiniGPT-4 (arXiv 2304.10592).

A BERT in post-norm form. Its tokens are learned queries and, in InstructBLIP, those of the instruction; all look at
each other, and in every n-th layer the queries look at the patches::

    x = norm(x + attention(x))
    x[:Q] = norm(x[:Q] + cross_attention(x[:Q], image_features))     every n-th layer
    x[:Q] = norm(x[:Q] + mlp(x[:Q]));  x[Q:] = norm(x[Q:] + text_mlp(x[Q:]))

What it says of the queries goes through one linear map; the instruction's tokens are dropped.

Shapes: B batch, P patches, D width of the patch features, Q queries, T tokens of the instruction, H width inside, W
width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nunbit.errors import UsageError
from nunbit.layers import Attention, Mlp
from nunbit.projector.attention import CrossAttention, CrossAttentionSizes
from nunbit.projector.config import QFormerConfig

_STD = 0.02  # BERT's initialization


class QFormerLayer(nn.Module):
    """One layer, with or without a look at the patches.

    Args:
        config: Sizes.
        context_size: D; None for a layer that does not look at the patches.
    """

    def __init__(self, config: QFormerConfig, context_size: int | None) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.cross_attention = self.cross_norm = None
        if context_size is not None:
            sizes = CrossAttentionSizes(
                query_size=width, key_size=context_size, num_heads=heads, head_size=width // heads
            )
            self.cross_attention = CrossAttention(sizes)
            self.cross_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, config.intermediate_size, config.hidden_act)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.text_mlp = self.text_norm = None
        if config.vocab_size is not None:
            self.text_mlp = Mlp(width, config.intermediate_size, config.hidden_act)
            self.text_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.num_queries = config.num_queries

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None, context_mask: Tensor | None) -> Tensor:
        """(B, Q + T, H), patches (B, P, D) and masks over keys, (B, 1, 1, Q + T) and (B, 1, 1, P) → (B, Q + T, H)."""
        x = self.attention_norm(x + self.attention(x, mask))
        gathered, text = x[:, : self.num_queries], x[:, self.num_queries :]
        if self.cross_attention is not None and self.cross_norm is not None:
            gathered = self.cross_norm(gathered + self.cross_attention(gathered, context, context_mask))
        queries: Tensor = self.mlp_norm(gathered + self.mlp(gathered))
        if self.text_mlp is None or self.text_norm is None:
            return queries
        return torch.cat([queries, self.text_norm(text + self.text_mlp(text))], dim=1)


class QFormer(nn.Module):
    """A Q-Former and the linear map behind it, with random weights.

    Args:
        config: Sizes.
        hidden_size: D.
        output_size: W.
    """

    def __init__(self, config: QFormerConfig, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.output_size = config, hidden_size, output_size
        width, every = config.hidden_size, config.cross_attention_frequency
        self.queries = nn.Parameter(_STD * torch.randn(config.num_queries, width))
        self.token_embedding = self.position_embedding = None
        if config.vocab_size is not None:
            self.token_embedding = nn.Embedding(config.vocab_size, width)
            self.position_embedding = nn.Parameter(_STD * torch.randn(config.max_position_embeddings, width))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, None if number % every else hidden_size) for number in range(config.num_hidden_layers)
        )
        self.projection = nn.Linear(width, output_size)
        self.apply(_initialize)

    def num_tokens(self, num_patches: int) -> int:
        """Q, whatever P is."""
        return self.config.num_tokens(num_patches)

    def forward(
        self,
        image_features: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        patch_mask: Tensor | None = None,
    ) -> Tensor:
        """Tokens for a language model: (B, Q, W); the arguments are those of `query_features`."""
        tokens: Tensor = self.projection(
            self.query_features(image_features, input_ids, attention_mask, patch_mask=patch_mask)
        )
        return tokens

    def query_features(
        self,
        image_features: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        patch_mask: Tensor | None = None,
    ) -> Tensor:
        """What the queries have gathered, before the linear map.

        Args:
            image_features: (B, P, D) floating.
            input_ids: (B, T) int64, the instruction in the Q-Former's own vocabulary; by default none is read.
            attention_mask: (B, T) bool or int, nonzero where there is a token; by default everywhere.
            patch_mask: (B, P) bool, true where there is a patch; by default everywhere.

        Returns:
            (B, Q, H).

        Raises:
            UsageError: An instruction for a Q-Former that reads none, or a longer one than it reads.
        """
        batch = image_features.shape[0]
        x = self.queries.expand(batch, -1, -1)  # (B, Q, H)
        mask = None
        if input_ids is not None:
            x = torch.cat([x, self._embed(input_ids)], dim=1)  # (B, Q + T, H)
            if attention_mask is not None:
                mask = torch.cat([attention_mask.new_ones(batch, self.config.num_queries), attention_mask], dim=1)
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, image_features, _over_keys(mask), _over_keys(patch_mask))
        gathered: Tensor = x[:, : self.config.num_queries]
        return gathered

    def _embed(self, input_ids: Tensor) -> Tensor:
        if self.token_embedding is None or self.position_embedding is None:
            raise UsageError("this Q-Former reads no instructions", hint="give it a vocab_size")
        length, most = input_ids.shape[1], self.config.max_position_embeddings
        if length > most:
            raise UsageError(f"an instruction of {length} tokens, this Q-Former reads {most}")
        embedded: Tensor = self.token_embedding(input_ids) + self.position_embedding[:length]
        return embedded


def _over_keys(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.bool()[:, None, None]  # (B, 1, 1, K)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)

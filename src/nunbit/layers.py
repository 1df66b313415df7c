"""What both towers are made of: activations, attention, MLP, pre-norm blocks.

Place in the river: below the towers. A transformer encoder in the pre-norm form of CLIP, SigLIP and ViT
(arXiv 2002.04745)::

    x = x + attention(norm1(x))
    x = x + mlp(norm2(x))

Shapes: B batch, T tokens, D width (``hidden_size``), H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nunbit.errors import UsageError

Activation: TypeAlias = Literal["quick_gelu", "gelu", "gelu_tanh"]


def quick_gelu(x: Tensor) -> Tensor:
    """``x * sigmoid(1.702 x)``: the approximation that OpenAI's CLIP was trained with.

    It differs from `gelu` by up to 0.02, which is enough to spoil a model that was trained with the other one.
    """
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class Attention(nn.Module):
    """Multi-head self-attention, ``softmax(q k^T / sqrt(D / H)) v`` (arXiv 1706.03762).

    Queries, keys and values come from one matrix, so that one product computes all three.

    Args:
        hidden_size: D, a multiple of ``num_heads``.
        num_heads: H.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Mix tokens.

        Args:
            x: (B, T, D).
            attention_mask: Bool, broadcastable to (B, H, T, T); false keys are not looked at.
            causal: A token looks at itself and at those before it. Not together with a mask.

        Returns:
            (B, T, D).
        """
        query, key, value = self._split(x)
        mixed = attend(query, key, value, attention_mask, causal=causal, training=self.training)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)
        return out

    def probabilities(self, x: Tensor) -> Tensor:
        """How much each token looks at each other one: (B, T, D) → (B, H, T, T), rows sum to 1."""
        query, key, _ = self._split(x)
        return torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, D / H)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # three of (B, H, T, D / H)
        return query, key, value


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    causal: bool = False,
    training: bool = False,
) -> Tensor:
    """Attention by whichever kernel is quicker; the arguments and the result are those of `plain_attention`.

    ``training``: a backward pass may follow.
    """
    if training and _plain_is_quicker(query):
        return plain_attention(query, key, value, attention_mask, causal=causal)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, is_causal=causal)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """Attention as two matrix products with a softmax between, computed in float32.

    Args:
        query: (B, H, T, D / H). ``key`` and ``value`` are like it, of another T when there is no causal order.
        key: What is looked at.
        value: What is taken from there.
        attention_mask: As `Attention.forward` takes it.
        causal: As `Attention.forward` takes it.

    Returns:
        (B, H, T, D / H).
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, T, T)
    if causal:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _plain_is_quicker(query: Tensor) -> bool:
    """In training: the backward pass of the fused kernel is the slower one in bfloat16 on a CPU, by far.

    Whether there will be one is not asked: gradient caching encodes twice, first without, and must see the same.
    """
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


class Mlp(nn.Module):
    """Two linear maps with an activation between: D → ``intermediate_size`` → D."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Block(nn.Module):
    """One pre-norm transformer block.

    Attributes:
        recompute: Keep only the input for the backward pass and compute the rest again there (arXiv 1604.06174): a
            third more work for a fraction of the memory.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, intermediate_size: int, *, activation: Activation, eps: float
    ) -> None:
        super().__init__()
        self.recompute = False
        self.norm1 = nn.LayerNorm(hidden_size, eps=eps)
        self.attention = Attention(hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=eps)
        self.mlp = Mlp(hidden_size, intermediate_size, activation)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """(B, T, D) → (B, T, D); the arguments are those of `Attention.forward`."""
        if self.recompute and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(self._compute, x, attention_mask, causal, use_reentrant=False)
            return recomputed
        return self._compute(x, attention_mask, causal)

    def _compute(self, x: Tensor, attention_mask: Tensor | None, causal: bool) -> Tensor:
        x = x + self.attention(self.norm1(x), attention_mask, causal=causal)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class BlockSizes(Protocol):
    """What a tower's configuration says about its blocks."""

    @property
    def hidden_size(self) -> int:
        """D."""

    @property
    def num_hidden_layers(self) -> int:
        """L."""

    @property
    def num_attention_heads(self) -> int:
        """H."""

    @property
    def intermediate_size(self) -> int:
        """Width inside of the MLPs."""

    @property
    def hidden_act(self) -> Activation:
        """Activation of the MLPs."""

    @property
    def layer_norm_eps(self) -> float:
        """Added to the variance in layer norms."""


def make_blocks(sizes: BlockSizes) -> nn.ModuleList:
    """L blocks with CLIP's initialization: what is added to the residual stream is scaled down by ``sqrt(2 L)``."""
    width, count = sizes.hidden_size, sizes.num_hidden_layers
    blocks = nn.ModuleList(
        Block(
            width,
            sizes.num_attention_heads,
            sizes.intermediate_size,
            activation=sizes.hidden_act,
            eps=sizes.layer_norm_eps,
        )
        for _ in range(count)
    )
    for block in blocks:
        assert isinstance(block, Block)
        for linear, std in (
            (block.attention.qkv, width**-0.5),
            (block.attention.out, width**-0.5 * (2 * count) ** -0.5),
            (block.mlp.fc1, (2 * width) ** -0.5),
            (block.mlp.fc2, width**-0.5 * (2 * count) ** -0.5),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
    return blocks


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    attention_mask: Tensor | None = None,
    *,
    causal: bool = False,
    layer: int | None = None,
) -> Tensor:
    """Pass tokens through blocks.

    Args:
        blocks: L blocks.
        x: (B, T, D).
        attention_mask: As `Attention.forward` takes it.
        causal: As `Attention.forward` takes it.
        layer: Stop after so many blocks: 0 is the input, L all of them; counted from the end when negative, so that
            -1 is all of them and -2 all but the last (as ``hidden_states`` are numbered in `transformers`).

    Returns:
        (B, T, D).
    """
    count = len(blocks) if layer is None else (layer if layer >= 0 else len(blocks) + 1 + layer)
    if not 0 <= count <= len(blocks):
        raise UsageError(f"layer {layer} of a tower with {len(blocks)} blocks")
    for block in list(blocks)[:count]:
        x = block(x, attention_mask, causal=causal)
    return x

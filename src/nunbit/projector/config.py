"""What decides a projector, as data: its kind, its sizes, and how many tokens it makes of a picture.

Shapes: P patches, D width of the patch features, Q tokens, W width of the language model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nunbit.errors import ConfigError
from nunbit.layers import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearConfig:
    """One linear map, patch by patch (LLaVA 1.0, arXiv 2304.08485).

    Attributes:
        bias: The map has a bias.
    """

    bias: bool = True
    kind: Literal["linear"] = "linear"

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches: the same."""
        return num_patches


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpConfig:
    """Two linear maps with an activation between, patch by patch: D → W → W (LLaVA 1.5, arXiv 2310.03744).

    Attributes:
        hidden_act: The activation.
        bias: The maps have biases.
    """

    hidden_act: Activation = "gelu"
    bias: bool = True
    kind: Literal["mlp"] = "mlp"

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches: the same."""
        return num_patches


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelShuffleConfig:
    """Each square of patches becomes one token with all of their features (SmolVLM, arXiv 2504.05299; nanoVLM).

    Attributes:
        factor: Side of that square, in patches; it divides the side of the grid.
        mlp: Two maps with an activation between instead of one: factor² D → W → W.
        hidden_act: The activation of the MLP.
        bias: The maps have biases.
    """

    factor: int
    mlp: bool = False
    hidden_act: Activation = "gelu"
    bias: bool = False
    kind: Literal["pixel-shuffle"] = "pixel-shuffle"

    def __post_init__(self) -> None:
        _at_least_one(factor=self.factor)

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches: P / factor².

        Raises:
            ConfigError: The patches are no square grid, or its side is no multiple of ``factor``.
        """
        side = math.isqrt(num_patches)
        if num_patches < 1 or side * side != num_patches:
            raise ConfigError(f"{num_patches} patches are no square grid, and a pixel shuffle needs one")
        if side % self.factor:
            raise ConfigError(f"a grid of {side} x {side} patches cannot be cut into squares of {self.factor}")
        return (side // self.factor) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class QFormerConfig:
    """The Q-Former: a BERT whose learned queries look at the patches (BLIP-2, arXiv 2301.12597), and a linear map.

    The defaults are the published sizes. MiniGPT-4 (arXiv 2304.10592) has the same one.

    Attributes:
        num_queries: Q.
        hidden_size: H, the width inside.
        num_hidden_layers: Layers.
        num_attention_heads: A divisor of ``hidden_size``.
        intermediate_size: Width inside of the MLPs.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Added to the variance in layer norms.
        cross_attention_frequency: Every so many layers, beginning with the first, look at the patches.
        vocab_size: Tokens of the instruction that the queries can also read (InstructBLIP, arXiv 2305.06500), in the
            vocabulary of BERT; None: they read none.
        max_position_embeddings: The most tokens of an instruction.
    """

    num_queries: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    cross_attention_frequency: int = 2
    vocab_size: int | None = None
    max_position_embeddings: int = 512
    kind: Literal["q-former"] = "q-former"

    def __post_init__(self) -> None:
        _at_least_one(
            num_queries=self.num_queries,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            cross_attention_frequency=self.cross_attention_frequency,
            vocab_size=self.vocab_size or 1,
            max_position_embeddings=self.max_position_embeddings,
        )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")

    def num_tokens(self, num_patches: int) -> int:
        """Q, whatever P is."""
        return self.num_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class ResamplerConfig:
    """Learned queries that look at the patches and at each other, of the patches' own width, and a linear map.

    Attributes:
        block: ``perceiver``: Flamingo's resampler (arXiv 2204.14198). ``abstractor``: mPLUG-Owl's (arXiv 2304.14178).
        num_queries: Learned queries.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads.
        head_size: Width of a head.
        intermediate_size: Width inside of the MLPs; None: four times the width of the patches (Flamingo).
        layer_norm_eps: Added to the variance in layer norms.
        end_token: A learned token behind those of the queries (mPLUG-Owl).
    """

    block: Literal["perceiver", "abstractor"] = "perceiver"
    num_queries: int = 64
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    head_size: int = 64
    intermediate_size: int | None = None
    layer_norm_eps: float = 1e-5
    end_token: bool = False
    kind: Literal["resampler"] = "resampler"

    def __post_init__(self) -> None:
        _at_least_one(
            num_queries=self.num_queries,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            head_size=self.head_size,
            intermediate_size=1 if self.intermediate_size is None else self.intermediate_size,
        )

    def num_tokens(self, num_patches: int) -> int:
        """Q, whatever P is: one for each query, and the end token."""
        return self.num_queries + self.end_token


ProjectorConfig: TypeAlias = LinearConfig | MlpConfig | PixelShuffleConfig | QFormerConfig | ResamplerConfig


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}, expected at least 1")

"""Projectors: patch features of a vision encoder (B, P, D) → tokens for a language model (B, Q, W).

The contract that every one keeps, and that a vision-language model builds on:

* ``hidden_size`` D and ``output_size`` W;
* ``projector(image_features)`` → (B, Q, W), not of unit length;
* ``projector.num_tokens(P)`` → Q, as its configuration says without any weights.

=================  ===================================================  =============  ======================
``kind``           what                                                 Q              who
=================  ===================================================  =============  ======================
``linear``         one linear map                                       P              LLaVA 1.0
``mlp``            two with an activation between                       P              LLaVA 1.5
``pixel-shuffle``  a square of patches becomes one token, a linear map  P / factor²    SmolVLM, nanoVLM
``q-former``       a BERT whose queries look at the patches             queries        BLIP-2, InstructBLIP
``resampler``      queries that look at the patches and at each other   queries        Flamingo, mPLUG-Owl
=================  ===================================================  =============  ======================
"""

from __future__ import annotations

from typing import TypeAlias

from nunbit.errors import ConfigError
from nunbit.projector.config import (
    LinearConfig,
    MlpConfig,
    PixelShuffleConfig,
    ProjectorConfig,
    QFormerConfig,
    ResamplerConfig,
)
from nunbit.projector.maps import LinearProjector, MlpProjector, PixelShuffleProjector
from nunbit.projector.q_former import QFormer
from nunbit.projector.resampler import Resampler

__all__ = [
    "LinearConfig",
    "LinearProjector",
    "MlpConfig",
    "MlpProjector",
    "PixelShuffleConfig",
    "PixelShuffleProjector",
    "Projector",
    "ProjectorConfig",
    "QFormer",
    "QFormerConfig",
    "Resampler",
    "ResamplerConfig",
    "make_projector",
]

Projector: TypeAlias = LinearProjector | MlpProjector | PixelShuffleProjector | QFormer | Resampler


def make_projector(config: ProjectorConfig, hidden_size: int, output_size: int) -> Projector:
    """Build the projector that a configuration describes, with random weights.

    Args:
        config: Its kind and sizes.
        hidden_size: D, the width of the vision encoder's patch features.
        output_size: W, the width of the language model's input.

    Example:
        >>> projector = make_projector(PixelShuffleConfig(factor=4), 768, 576)  # SmolVLM-256M's
        >>> projector(torch.zeros(1, 1024, 768)).shape
        torch.Size([1, 64, 576])
    """
    if min(hidden_size, output_size) < 1:
        raise ConfigError(f"a projector from a width of {hidden_size} to {output_size}: both must be at least 1")
    match config:
        case LinearConfig():
            return LinearProjector(config, hidden_size, output_size)
        case MlpConfig():
            return MlpProjector(config, hidden_size, output_size)
        case PixelShuffleConfig():
            return PixelShuffleProjector(config, hidden_size, output_size)
        case QFormerConfig():
            return QFormer(config, hidden_size, output_size)
        case ResamplerConfig():
            return Resampler(config, hidden_size, output_size)

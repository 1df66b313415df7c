"""Projectors that look at each patch, or at each square of patches, by itself.

Shapes: B batch, P patches, D width of the patch features, Q tokens, W width of the language model, f factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nunbit.layers import ACTIVATIONS
from nunbit.projector.config import LinearConfig, MlpConfig, PixelShuffleConfig


class LinearProjector(nn.Module):
    """One linear map: ``image_features @ W^T + b``.

    Args:
        config: Whether there is a bias.
        hidden_size: D.
        output_size: W.
    """

    def __init__(self, config: LinearConfig, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.output_size = config, hidden_size, output_size
        self.projection = nn.Linear(hidden_size, output_size, bias=config.bias)

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches."""
        return self.config.num_tokens(num_patches)

    def forward(self, image_features: Tensor) -> Tensor:
        """(B, P, D) floating → (B, P, W)."""
        tokens: Tensor = self.projection(image_features)
        return tokens


class MlpProjector(nn.Module):
    """Two linear maps with an activation between: D → W → W.

    Args:
        config: The activation, and whether there are biases.
        hidden_size: D.
        output_size: W.
    """

    def __init__(self, config: MlpConfig, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.output_size = config, hidden_size, output_size
        self.fc1 = nn.Linear(hidden_size, output_size, bias=config.bias)
        self.fc2 = nn.Linear(output_size, output_size, bias=config.bias)

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches."""
        return self.config.num_tokens(num_patches)

    def forward(self, image_features: Tensor) -> Tensor:
        """(B, P, D) floating → (B, P, W)."""
        tokens: Tensor = self.fc2(ACTIVATIONS[self.config.hidden_act](self.fc1(image_features)))
        return tokens


class PixelShuffleProjector(nn.Module):
    """Gather each square of f × f patches into one token, then map it: f² D → W, or f² D → W → W.

    Args:
        config: f, and what maps.
        hidden_size: D.
        output_size: W.
    """

    def __init__(self, config: PixelShuffleConfig, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.output_size = config, hidden_size, output_size
        width = hidden_size * config.factor**2
        self.projection: LinearProjector | MlpProjector = (
            MlpProjector(MlpConfig(hidden_act=config.hidden_act, bias=config.bias), width, output_size)
            if config.mlp
            else LinearProjector(LinearConfig(bias=config.bias), width, output_size)
        )

    def num_tokens(self, num_patches: int) -> int:
        """Q of P patches; an error where they cannot be cut into squares."""
        return self.config.num_tokens(num_patches)

    def forward(self, image_features: Tensor) -> Tensor:
        """(B, P, D) floating, a square grid row by row → (B, P / f², W).

        Raises:
            ConfigError: The patches are no square grid, or its side is no multiple of f.
        """
        self.num_tokens(image_features.shape[1])
        tokens: Tensor = self.projection(pixel_shuffle(image_features, self.config.factor))
        return tokens


def pixel_shuffle(image_features: Tensor, factor: int) -> Tensor:
    """Gather squares of patches: (B, P, D), a square grid row by row → (B, P / f², f² D).

    The features of a square stand in the order (row, column, D), the rows of squares as those of patches.
    """
    side = math.isqrt(image_features.shape[1]) // factor
    grid = torch.unflatten(image_features, 1, (side, factor, side, factor))  # (B, h, dh, w, dw, D)
    return grid.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, h w, dh dw D)

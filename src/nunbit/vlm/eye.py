"""The eye: a vision encoder, read at one layer.

Shapes: K pictures, S side in pixels, P patches, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.loading import STARTER, load
from nunbit.starter.bridge import TEXT_SIZE as EMBEDDING_SIZE
from nunbit.starter.model import PREPROCESSING, Starter
from nunbit.starter.picture_tower import FEATURE_SIZE
from nunbit.vision_encoder import VisionTransformer, make_vision_encoder
from nunbit.vision_encoder.naflex import cut_into_patches
from nunbit.vlm.config import AnyEyeConfig, EyeConfig, StarterEyeConfig

_CELL = 32
_MIDDLE_BLOCK = 15  # the last one with cells of 16 pixels
_MIDDLE_CHANNELS = 120
_MIDDLE_SCALE = 7.0  # deviation of those channels over photographs of many things


class Eye(nn.Module):
    """A vision encoder of this project, with random weights.

    Args:
        config: The encoder, and what of it is read.

    Attributes:
        config: As given.
        preprocessing: Pictures → pixels.
        encoder: The vision encoder.
        hidden_size: D.
    """

    def __init__(self, config: EyeConfig) -> None:
        super().__init__()
        self.config, self.preprocessing = config, config.preprocessing
        self.encoder = make_vision_encoder(config.vision)
        self.hidden_size = int(self.encoder.hidden_size)

    @property
    def num_patches(self) -> int:
        """P."""
        return int(self.encoder.num_patches) + self.config.class_token

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Whose weights it looks with."""
        return (self.encoder,)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) floating, normalized → (K, P, D)."""
        features: Tensor
        if isinstance(self.encoder, VisionTransformer):
            features = self.encoder(pixel_values, layer=self.config.layer, class_token=self.config.class_token)
        else:
            features = self.encoder(pixel_values)
        return features


class StarterEye(nn.Module):
    """The starter's eye: its picture tower read at two depths, and what all of the picture means in its space of words.

    A cell of 32 pixels has

    * the last map's 1280 channels, which know what there is;
    * those of its four cells of 16 pixels from the middle of the tower, 4 x 120, which know better where, and of which
      color;
    * the picture's embedding, 512 numbers, the same in all cells, in which words have their places as well: what a
      language model learns to read there from a few pictures holds for words that no picture taught.

    Each is scaled to about unit variance. The weights are those of packages, and never learn.

    Args:
        config: The size of the pictures.

    Attributes:
        config: As given.
        preprocessing: Pictures → pixels.
        hidden_size: D.
    """

    def __init__(self, config: StarterEyeConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = replace(PREPROCESSING, image_size=config.image_size)
        self.hidden_size = FEATURE_SIZE + 4 * _MIDDLE_CHANNELS + EMBEDDING_SIZE

    @property
    def num_patches(self) -> int:
        """P."""
        return (self.config.image_size // _CELL) ** 2

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Whose weights it looks with."""
        return (self._starter.picture_tower, self._starter.bridge)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) float32, normalized → (K, P, D)."""
        if pixel_values.device.type == "meta":  # shapes alone are asked for
            return pixel_values.new_empty(len(pixel_values), self.num_patches, self.hidden_size)
        tower, bridge = self._starter.picture_tower, self._starter.bridge
        pixels = pixel_values.cpu().float().contiguous(memory_format=torch.channels_last)
        middle = tower.blocks[:_MIDDLE_BLOCK](tower.stem(pixels))
        fine = cut_into_patches(middle, 2) / _MIDDLE_SCALE  # before later blocks write over it
        last = tower.head(tower.blocks[_MIDDLE_BLOCK:](middle))
        pooled = last.mean((2, 3))
        meaning = bridge.encode_image(pooled, tower.classifier(pooled))
        return torch.cat([last.flatten(2).mT, fine, self._everywhere(meaning)], dim=2).to(pixel_values.device)

    def imagine(self, texts: Sequence[str], *, noise: float = 0.04) -> Tensor:
        """Features of pictures that are only described: the meaning alone, and nothing in any place.

        Words and pictures lie in one space, but not in the same part of it; with noise, what is learned from words
        holds for pictures (CapDec, arXiv 2211.00575). A text is always given the same noise.

        Args:
            texts: K descriptions.
            noise: Its deviation, on unit rows.

        Returns:
            (K, P, D) float32.
        """
        rows = torch.from_numpy(self._starter.encode_texts(list(texts)))
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        drawn = [torch.randn(EMBEDDING_SIZE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noisy = functional.normalize(rows + noise * torch.stack(drawn), dim=1)
        nothing = torch.zeros(len(rows), self.num_patches, self.hidden_size - EMBEDDING_SIZE)
        return torch.cat([nothing, self._everywhere(noisy)], dim=2)

    def _everywhere(self, meaning: Tensor) -> Tensor:
        return torch.mul(meaning, EMBEDDING_SIZE**0.5)[:, None].expand(-1, self.num_patches, -1)

    @cached_property
    def _starter(self) -> Starter:
        starter: Starter = load(STARTER, engine="torch").towers  # type: ignore[assignment]
        return starter


AnyEye: TypeAlias = Eye | StarterEye


def make_eye(config: AnyEyeConfig) -> AnyEye:
    """Build the eye that a configuration describes: a vision encoder with random weights, or the starter's."""
    return Eye(config) if isinstance(config, EyeConfig) else StarterEye(config)

"""The eye: a vision encoder, read at one layer.

Shapes: K pictures, S side in pixels, P patches, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nunbit.starter.model import PREPROCESSING
from nunbit.starter.packages import PICTURE_WEIGHTS
from nunbit.starter.picture_tower import FEATURE_SIZE, LITE2, EfficientNetLite, load_efficientnet_lite
from nunbit.vision_encoder import VisionTransformer, make_vision_encoder
from nunbit.vision_encoder.naflex import cut_into_patches
from nunbit.vlm.config import AnyEyeConfig, EyeConfig, StarterEyeConfig

_CELL = 32
_MIDDLE_BLOCK = 15  # the last one with cells of 16 pixels
_MIDDLE_CHANNELS = 120


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

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) floating, normalized → (K, P, D)."""
        features: Tensor
        if isinstance(self.encoder, VisionTransformer):
            features = self.encoder(pixel_values, layer=self.config.layer, class_token=self.config.class_token)
        else:
            features = self.encoder(pixel_values)
        return features


class StarterEye(nn.Module):
    """The starter's picture tower, EfficientNet-Lite2, read at two depths.

    A cell of 32 pixels has the last map's 1280 channels, which know what there is, and those of its four cells of 16
    pixels from the middle, which know better where, and of which color.

    Args:
        config: The size of the pictures.

    Attributes:
        config: As given.
        preprocessing: Pictures → pixels.
        tower: The picture tower, with random weights; `make_eye` gives it the published ones.
        hidden_size: D.
    """

    def __init__(self, config: StarterEyeConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = replace(PREPROCESSING, image_size=config.image_size)
        self.tower = EfficientNetLite(LITE2).eval()
        self.hidden_size = FEATURE_SIZE + 4 * _MIDDLE_CHANNELS

    @property
    def num_patches(self) -> int:
        """P."""
        return (self.config.image_size // _CELL) ** 2

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(K, 3, S, S) float32, normalized → (K, P, D)."""
        tower = self.tower
        middle = tower.blocks[:_MIDDLE_BLOCK](tower.stem(pixel_values))
        fine = cut_into_patches(middle, 2)  # before later blocks write over it
        last = tower.head(tower.blocks[_MIDDLE_BLOCK:](middle))
        return torch.cat([last.flatten(2).mT, fine], dim=2)


AnyEye: TypeAlias = Eye | StarterEye


def make_eye(config: AnyEyeConfig) -> AnyEye:
    """Build the eye that a configuration describes.

    Args:
        config: A vision encoder gets random weights, the starter its published ones.

    Raises:
        ModelNotFound: The package with the starter's weights is not installed.
    """
    if isinstance(config, EyeConfig):
        return Eye(config)
    eye = StarterEye(config)
    if eye.tower.classifier.weight.device.type != "meta":  # no weights are wanted where shapes alone are
        eye.tower = load_efficientnet_lite(PICTURE_WEIGHTS.locate(), LITE2)
    return eye

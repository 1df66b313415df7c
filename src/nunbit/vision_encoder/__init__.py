"""Vision encoders: a picture → patch features (B, P, D) and one feature (B, E).

The contract that every one keeps, and that projectors and dual encoders build on:

* ``hidden_size`` D, ``num_patches`` P (at ``image_size``), ``image_size`` in pixels, ``output_size`` E;
* ``encoder(pixel_values)`` → patch features (B, P, D), before pooling;
* ``encoder.image_features(pixel_values)`` → (B, E), not of unit length.
"""

from __future__ import annotations

from typing import TypeAlias

from nunbit.vision_encoder.config import ResNetConfig, TimmConfig, VisionConfig, VitConfig
from nunbit.vision_encoder.naflex import PatchBatch, pad_patches
from nunbit.vision_encoder.resnet import ClipResNet
from nunbit.vision_encoder.timm_backbone import TimmBackbone
from nunbit.vision_encoder.vit import VisionTransformer

__all__ = [
    "ClipResNet",
    "PatchBatch",
    "ResNetConfig",
    "TimmBackbone",
    "TimmConfig",
    "VisionConfig",
    "VisionEncoder",
    "VisionTransformer",
    "VitConfig",
    "make_vision_encoder",
    "pad_patches",
]

VisionEncoder: TypeAlias = VisionTransformer | ClipResNet | TimmBackbone


def make_vision_encoder(config: VisionConfig) -> VisionEncoder:
    """Build the encoder that a configuration describes, with random weights."""
    if isinstance(config, VitConfig):
        return VisionTransformer(config)
    if isinstance(config, ResNetConfig):
        return ClipResNet(config)
    return TimmBackbone(config)

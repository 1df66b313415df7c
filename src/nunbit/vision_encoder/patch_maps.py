"""Features of patches, for whoever asks where something is: maps of several layers on one grid.

Shapes: B batch, H W pixels, P patches, h w cells of the grid, C channels, D the channels of all maps together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.errors import UsageError
from nunbit.vision_encoder.config import VitConfig
from nunbit.vision_encoder.resnet import ClipResNet
from nunbit.vision_encoder.timm_backbone import TimmBackbone
from nunbit.vision_encoder.vit import VisionTransformer

NEIGHBORHOOD = 3


def join_maps(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Bring convolutional maps to one grid, as PatchCore does (arXiv 2106.08265, section 3.1).

    Every cell becomes the mean of its 3 x 3 neighborhood, so that it knows a little of what is around it; then each map
    is resized bilinearly.

    Args:
        maps: (B, C_i, h_i, w_i) floating.
        grid: h, w.

    Returns:
        (B, h, w, D).
    """
    around = [
        functional.avg_pool2d(one, NEIGHBORHOOD, stride=1, padding=NEIGHBORHOOD // 2, count_include_pad=False)
        for one in maps
    ]
    resized = [functional.interpolate(one, size=grid, mode="bilinear", align_corners=False) for one in around]
    return torch.cat(resized, dim=1).permute(0, 2, 3, 1)


def patch_size_of(encoder: VisionTransformer | ClipResNet | TimmBackbone) -> int:
    """Side of the square of pixels that a patch feature stands for.

    Raises:
        UsageError: The encoder takes pictures of any proportions (NaFlex), or lays its patches on no square grid.
    """
    config = encoder.config
    if isinstance(config, VitConfig) and config.flexible:
        raise UsageError(
            "this encoder takes pictures of any proportions (NaFlex), and gives no map of patch features",
            hint="take a model of one picture size, such as siglip2-b-16-224",
        )
    if isinstance(config, VitConfig):
        return int(config.patch_size)
    side = math.isqrt(encoder.num_patches)
    if side * side != encoder.num_patches:
        raise UsageError(f"this encoder has {encoder.num_patches} patches, which lie on no square grid")
    return int(encoder.image_size) // side


def patch_map(
    encoder: VisionTransformer | ClipResNet | TimmBackbone, pixel_values: Tensor, layers: Sequence[int] | None
) -> Tensor:
    """Patch features of a vision encoder, as they are.

    Args:
        encoder: Of one picture size.
        pixel_values: (B, 3, H, W), H and W multiples of the patch size.
        layers: Behind which blocks of a ViT, side by side; by default behind half of them: later ones tell what a
            picture is about rather than what is where. None for all other encoders, which are read at their last stage.

    Returns:
        (B, h, w, D).

    Raises:
        UsageError: As in `patch_size_of`; or ``layers`` of an encoder that is not read at several.
    """
    side = patch_size_of(encoder)
    height, width = pixel_values.shape[-2] // side, pixel_values.shape[-1] // side
    if layers is None and isinstance(encoder, VisionTransformer):
        layers = [encoder.config.num_hidden_layers // 2]
    behind: list[int | None] = [*layers] if layers else [None]
    found = torch.cat([encoder(pixel_values, layer=layer) for layer in behind], dim=-1)  # (B, P, D)
    return found.reshape(len(found), height, width, -1)

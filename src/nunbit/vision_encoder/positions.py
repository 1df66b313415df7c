"""Learned positions on a square grid, resized for pictures of other sizes and proportions.

Shapes: G the learned grid's side, h w a picture's patches down and across, D width, B batch, N padded patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.vision_encoder.config import Interpolation


def resize_grid(positions: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Resize a grid of position embeddings.

    Args:
        positions: (G * G, D), row by row.
        height: h, in patches.
        width: w, in patches.
        interpolation: The kernel, and whether it is widened when the grid shrinks.

    Returns:
        (h * w, D), row by row; the very same values when the size does not change.
    """
    side = round(positions.shape[0] ** 0.5)
    if (height, width) == (side, side):
        return positions
    mode, _, antialias = interpolation.partition("_")
    grid = torch.unflatten(positions.float(), 0, (1, side, side)).permute(0, 3, 1, 2)  # (1, D, G, G)
    resized = functional.interpolate(grid, (height, width), mode=mode, align_corners=False, antialias=bool(antialias))
    return resized.permute(0, 2, 3, 1).flatten(0, 2).to(positions.dtype)  # (h * w, D)


def resize_each(positions: Tensor, spatial_shapes: Tensor, length: int, interpolation: Interpolation) -> Tensor:
    """Resize a grid once for every picture of a batch, and pad.

    Args:
        positions: (G * G, D).
        spatial_shapes: (B, 2) int, patches down and across of each picture.
        length: N, at least the most patches of any picture.
        interpolation: As in `resize_grid`.

    Returns:
        (B, N, D); zero beyond a picture's patches, where nobody looks.
    """
    padded = positions.new_zeros(len(spatial_shapes), length, positions.shape[1])
    sizes: dict[tuple[int, int], list[int]] = {}
    for number, (height, width) in enumerate(spatial_shapes.tolist()):
        sizes.setdefault((height, width), []).append(number)
    for (height, width), rows in sizes.items():  # pictures of one size share the work
        padded[torch.tensor(rows), : height * width] = resize_grid(positions, height, width, interpolation)
    return padded

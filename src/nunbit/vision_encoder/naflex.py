"""Pictures of several sizes in one batch, as SigLIP 2's NaFlex takes them (arXiv 2502.14786).

Shapes: B batch, C channels 3, p patch side, N padded patches, h w a picture's patches down and across.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Pictures cut into patches and padded to one length.

    Attributes:
        patches: (B, N, C * p * p) floating; zeros where there is no patch.
        attention_mask: (B, N) bool; true where there is one.
        spatial_shapes: (B, 2) int64; patches down and across.
    """

    patches: Tensor
    attention_mask: Tensor
    spatial_shapes: Tensor


def cut_into_patches(pixel_values: Tensor, patch_size: int) -> Tensor:
    """(..., C, h * p, w * p) → (..., h * w, C * p * p): row by row, in each patch channel by channel."""
    height, width = (side // patch_size for side in pixel_values.shape[-2:])
    columns = torch.unflatten(pixel_values, -1, (width, patch_size))
    grid = torch.unflatten(columns, -3, (height, patch_size))  # (..., C, h, p, w, p)
    order = (-4, -2, -5, -3, -1)
    lead = range(grid.ndim - 5)
    return grid.permute(*lead, *(grid.ndim + axis for axis in order)).flatten(-5, -4).flatten(-3)


def pad_patches(pictures: Sequence[Tensor], patch_size: int) -> PatchBatch:
    """Cut pictures of different sizes into patches and pad them to the longest.

    Args:
        pictures: B tensors (C, h_i * p, w_i * p).
        patch_size: p.
    """
    cut = [cut_into_patches(picture, patch_size) for picture in pictures]
    lengths = torch.tensor([len(patches) for patches in cut])
    patches = torch.nn.utils.rnn.pad_sequence(cut, batch_first=True)  # (B, N, C * p * p)
    attention_mask = torch.arange(patches.shape[1]) < lengths[:, None]
    shapes = torch.tensor([[side // patch_size for side in picture.shape[-2:]] for picture in pictures])
    return PatchBatch(patches, attention_mask, shapes)

"""The Vision Transformer of CLIP, SigLIP, SigLIP 2 and plain ViT.

A picture is cut into patches, each patch becomes a vector, a position is added, blocks mix them, and one vector is
pooled from them::

    pixels (B, 3, H, W) → patches (B, P, D) → [class | patches] + positions → [norm] → blocks → norm → pooling
                                                                                             → [projection] (B, E)

Shapes: B batch, H W pixels, p patch side, P patches, T tokens (P, or P + 1 with a class token), D width, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.errors import UsageError
from nunbit.layers import Mlp, make_blocks, run_blocks
from nunbit.vision_encoder.config import VitConfig
from nunbit.vision_encoder.naflex import PatchBatch
from nunbit.vision_encoder.positions import resize_each, resize_grid


class AttentionPooling(nn.Module):
    """SigLIP's MAP head: a learned query looks at all tokens, then an MLP (arXiv 2106.04560, appendix).

    ``y = attention(probe, x, x);  pooled = y + mlp(norm(y))``
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.probe = nn.Parameter(width**-0.5 * torch.randn(width))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, D). ``attention_mask``: (B, T) bool, false tokens are not looked at."""
        query = self.query(self.probe).unflatten(-1, (1, self.num_heads, 1, -1)).expand(x.shape[0], -1, -1, -1)
        key, value = self.key_value(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if attention_mask is None else attention_mask[:, None, None]  # (B, 1, 1, T)
        looked = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # (B, H, 1, D / H)
        y = self.out(looked.flatten(1))  # (B, D)
        pooled: Tensor = y + self.mlp(self.norm(y))
        return pooled


class VisionTransformer(nn.Module):
    """A ViT. Publishes ``hidden_size``, ``num_patches`` and ``image_size`` for whatever stands behind it.

    Args:
        config: Sizes and choices.

    Example:
        >>> encoder = VisionTransformer(config)
        >>> encoder(torch.zeros(2, 3, 224, 224)).shape  # a picture of 224 pixels in patches of 32
        torch.Size([2, 49, 768])
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size, self.image_size = config.hidden_size, config.image_size
        self.num_patches = config.grid_size**2
        width = config.hidden_size
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=config.patch_bias)
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width)) if config.class_token else None
        positions = self.num_patches + config.class_token
        self.position_embedding = nn.Parameter(width**-0.5 * torch.randn(positions, width))
        self.pre_norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = make_blocks(config)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pooling = AttentionPooling(config) if config.pooling == "attention" else None
        projection = config.projection_size
        self.projection = nn.Identity() if projection is None else nn.Linear(width, projection, bias=False)

    @property
    def output_size(self) -> int:
        """E, the width of `image_features`."""
        return self.config.projection_size or self.config.hidden_size

    def forward(
        self, pixel_values: Tensor | PatchBatch, *, layer: int | None = None, class_token: bool = False
    ) -> Tensor:
        """Patch features, for projectors and maps.

        Args:
            pixel_values: (B, 3, H, W) floating, normalized, H and W at least a patch; or, with ``flexible``, pictures
                of several sizes.
            layer: None: behind the last block and the final norm. A number: behind that block, without the norm, as
                in `nunbit.layers.run_blocks`; LLaVA reads -2.
            class_token: Give the class token, too, in front of the patches, as BLIP-2 reads it.

        Returns:
            (B, P, D), row by row; (B, 1 + P, D) with the class token.

        Raises:
            UsageError: The class token is asked for, and there is none.
        """
        if class_token and not self.config.class_token:
            raise UsageError("this vision encoder has no class token")
        tokens, mask = self._embed(pixel_values)
        tokens = run_blocks(self.blocks, tokens, _over_keys(mask), layer=layer)
        if layer is None:
            tokens = self.norm(tokens)
        return tokens if class_token else tokens[:, int(self.config.class_token) :]

    def image_features(self, pixel_values: Tensor | PatchBatch) -> Tensor:
        """The picture's feature, not of unit length: as `forward` takes it → (B, E)."""
        tokens, mask = self._embed(pixel_values)
        tokens = run_blocks(self.blocks, tokens, _over_keys(mask))
        features: Tensor = self.projection(self._pool(tokens, mask))
        return features

    def _pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        pooled: Tensor
        if self.config.pooling == "class_token":
            pooled = self.norm(tokens[:, 0])  # the norm of one token is that of all tokens, cheaper
            return pooled
        normed: Tensor = self.norm(tokens)
        if self.pooling is not None:
            pooled = self.pooling(normed, mask)
            return pooled
        patches = normed[:, int(self.config.class_token) :]
        if mask is None:
            return patches.mean(1)
        return (patches * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def _embed(self, pixel_values: Tensor | PatchBatch) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) before the first block, and the mask (B, T) of a padded batch."""
        if isinstance(pixel_values, PatchBatch):
            tokens = self._embed_padded(pixel_values)
            return self.pre_norm(tokens), pixel_values.attention_mask
        if self.class_token is None:
            patches, positions = self._embed_patches(pixel_values, self.position_embedding)
            return self.pre_norm(patches + positions), None
        patches, positions = self._embed_patches(pixel_values, self.position_embedding[1:])
        first = (self.class_token + self.position_embedding[0]).expand(patches.shape[0], 1, -1)
        return self.pre_norm(torch.cat([first, patches + positions], dim=1)), None  # (B, 1 + P, D)

    def _embed_patches(self, pixel_values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.patch_embedding(pixel_values)  # (B, D, h, w)
        height, width = grid.shape[-2:]
        resized = resize_grid(positions, height, width, self.config.position_interpolation)
        return grid.flatten(2).transpose(1, 2), resized  # (B, P, D) and (P, D)

    def _embed_padded(self, batch: PatchBatch) -> Tensor:
        if self.class_token is not None:
            raise UsageError("a padded batch has no place for a class token")
        weight, bias = self.patch_embedding.weight.flatten(1), self.patch_embedding.bias
        patches = functional.linear(batch.patches.to(weight.dtype), weight, bias)  # (B, N, D)
        interpolation = self.config.position_interpolation
        return patches + resize_each(self.position_embedding, batch.spatial_shapes, patches.shape[1], interpolation)


def _over_keys(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None, None]  # (B, 1, 1, T)

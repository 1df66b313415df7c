"""Small picture towers: a backbone, and a linear map of its features into the teacher's space.

Shapes: B batch, S side in pixels, F features, E width of the teacher's space.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from nunbit.distilled.config import LiteTower, TimmTower, TowerConfig
from nunbit.starter.picture_tower import FEATURE_SIZE, LITE0, LiteBackbone, fold_norms
from nunbit.vision_encoder import TimmBackbone, TimmConfig, VisionTransformer, VitConfig


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 without its classifier, and a linear map into the teacher's space.

    Its batch norms are folded also while it learns: it starts near its teacher, and statistics of small batches would
    throw it far off; without them a step is quicker, too.

    Args:
        embedding_size: E.
    """

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.backbone = fold_norms(LiteBackbone(LITE0).eval())
        self.projection = nn.Linear(FEATURE_SIZE, embedding_size)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) float32, normalized → (B, E), not of unit length."""
        projected: Tensor = self.projection(self.backbone.features(pixel_values))
        return projected


class PictureTower(nn.Module):
    """A student's picture tower: pixels → unit rows of its teacher's space.

    Args:
        config: Its kind and sizes; weights are random.
        embedding_size: E.
    """

    def __init__(self, config: TowerConfig, embedding_size: int) -> None:
        super().__init__()
        self.encoder = _make_encoder(config, embedding_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) float32, normalized → (B, E) unit rows."""
        return functional.normalize(self.encoder.image_features(pixel_values), dim=-1)


def _make_encoder(config: TowerConfig, embedding_size: int) -> LiteEncoder | VisionTransformer | TimmBackbone:
    if isinstance(config, LiteTower):
        return LiteEncoder(embedding_size)
    if isinstance(config, TimmTower):
        return TimmBackbone(
            TimmConfig(
                model_name=config.model_name,
                image_size=config.image_size,
                pool="",
                projection="linear",
                projection_bias=False,
                projection_size=embedding_size,
            )
        )
    return VisionTransformer(
        VitConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=4 * config.hidden_size,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
            class_token=False,
            patch_bias=True,
            pre_norm=False,
            pooling="mean",
            projection_size=embedding_size,
        )
    )

"""What decides the shape of a vision encoder, as data. Names are those of Hugging Face's configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nunbit.errors import ConfigError
from nunbit.layers import Activation

Interpolation: TypeAlias = Literal["bicubic", "bicubic_antialias", "bilinear_antialias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """A Vision Transformer (arXiv 2010.11929), as CLIP, SigLIP and ViT use it.

    Attributes:
        image_size: Side of the square that the position embeddings were learned for, in pixels.
        patch_size: Side of a patch, in pixels.
        hidden_size: D.
        num_hidden_layers: Blocks.
        num_attention_heads: H, a divisor of ``hidden_size``.
        intermediate_size: Width inside of the MLPs.
        hidden_act: Activation of the MLPs.
        layer_norm_eps: Added to the variance in layer norms.
        class_token: A learned token in front of the patches.
        patch_bias: The patch embedding has a bias.
        pre_norm: A layer norm before the first block (CLIP).
        pooling: What becomes the picture's feature: the class token, the mean of the patches, or attention with a
            learned query (SigLIP's MAP head).
        projection_size: Width of a bias-free linear map after pooling; None for none.
        position_interpolation: How position embeddings are resized for pictures of another size: ``bicubic``
            (transformers), ``bicubic_antialias`` (open_clip), ``bilinear_antialias`` (NaFlex).
        flexible: SigLIP 2's NaFlex: any proportions, several sizes in one batch. ``image_size`` then is
            ``patch_size`` times the side of the square grid that the position embeddings were learned on.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Activation
    layer_norm_eps: float
    class_token: bool
    patch_bias: bool
    pre_norm: bool
    pooling: Literal["class_token", "mean", "attention"]
    projection_size: int | None
    position_interpolation: Interpolation = "bicubic"
    flexible: bool = False
    kind: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        if min(self.image_size, self.patch_size, self.hidden_size, self.num_attention_heads) < 1:
            raise ConfigError(f"{self}: sizes must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if self.pooling == "class_token" and not self.class_token:
            raise ConfigError("pooling is 'class_token', but there is no class token")
        if self.image_size < self.patch_size:
            raise ConfigError(f"pictures of {self.image_size} pixels hold no patch of {self.patch_size}")

    @property
    def grid_size(self) -> int:
        """Patches a side at the native size; what is left of a picture beyond whole patches is not looked at."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """CLIP's ResNet (arXiv 2103.00020, section 2.4).

    Attributes:
        image_size: Side of the square picture, in pixels, a multiple of 32.
        layers: Bottlenecks in each of the four stages.
        width: Channels after the stem; features have 32 times as many.
        num_attention_heads: Heads of the attention pooling.
        projection_size: Width of the picture's feature.
        position_interpolation: How the pooling's positions are resized for pictures of another size.
    """

    image_size: int
    layers: tuple[int, int, int, int]
    width: int
    num_attention_heads: int
    projection_size: int
    position_interpolation: Interpolation = "bicubic_antialias"
    kind: Literal["resnet"] = "resnet"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmConfig:
    """A backbone of the timm library, with the head that open_clip puts on it.

    Attributes:
        model_name: timm's name, without a tag of pretrained weights.
        image_size: Side of the square picture, in pixels.
        pool: timm's ``global_pool``; empty for the backbone's own.
        projection: ``linear`` or ``mlp`` head behind the backbone; ``trunk``: the backbone's own classifier does it;
            ``none``: its features are the embedding.
        projection_bias: That last map has a bias.
        projection_size: Width of the picture's feature.
    """

    model_name: str
    image_size: int
    pool: str
    projection: Literal["linear", "mlp", "trunk", "none"]
    projection_bias: bool
    projection_size: int
    kind: Literal["timm"] = "timm"


VisionConfig: TypeAlias = VitConfig | ResNetConfig | TimmConfig

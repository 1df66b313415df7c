"""What a distilled encoder is but for its weights, as data; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from nunbit.errors import ConfigError
from nunbit.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteTower:
    """EfficientNet-Lite0 (arXiv 1905.11946), which starts from its published ImageNet weights.

    Attributes:
        image_size: S. At 144 it takes less than a fifth of the starter's compute.
    """

    image_size: int = 144
    kind: Literal["efficientnet-lite0"] = "efficientnet-lite0"

    def __post_init__(self) -> None:
        _check_size(self.image_size, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class VitTower:
    """A Vision Transformer (arXiv 2010.11929) from scratch, for who has pictures by the hundred thousand.

    Attributes:
        image_size: S.
        patch_size: Side of a patch, in pixels.
        hidden_size: F.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of each.
    """

    image_size: int = 144
    patch_size: int = 16
    hidden_size: int = 192
    num_hidden_layers: int = 12
    num_attention_heads: int = 3
    kind: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        _check_size(self.image_size, self.patch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmTower:
    """Any backbone of timm, from scratch. Needs ``pip install 'nunbit[timm]'`` wherever it is loaded.

    Attributes:
        model_name: timm's name, without a tag of pretrained weights.
        image_size: S.
    """

    model_name: str
    image_size: int = 144
    kind: Literal["timm"] = "timm"

    def __post_init__(self) -> None:
        _check_size(self.image_size, 32)


TowerConfig: TypeAlias = LiteTower | VitTower | TimmTower


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherInfo:
    """Who taught.

    Attributes:
        model: Name, folder or hub id, as `nunbit.load` takes it.
        fingerprint: The teacher's.
        logit_scale: The teacher's factor on similarities.
        logit_bias: As in `nunbit.encode.Encoder`.
    """

    model: str
    fingerprint: str
    logit_scale: float
    logit_bias: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilledConfig:
    """All of a distilled encoder but its weights.

    Attributes:
        tower: The picture tower.
        embedding_size: E, of the teacher's space.
        preprocessing: Pictures → pixels.
        teacher: Who taught.
        license: Of the weights.
        provenance: How it came about, as names and plain values.
    """

    tower: TowerConfig
    embedding_size: int
    preprocessing: Preprocessing
    teacher: TeacherInfo
    license: str
    provenance: Mapping[str, Any]


def _check_size(image_size: int, least: int) -> None:
    if image_size < least:
        raise ConfigError(f"image_size is {image_size}, this tower needs at least {least}")

"""Any backbone of the timm library as a vision encoder: PE-Core, MobileCLIP, ConvNeXt, EVA and the rest.

The head is the one that open_clip puts behind a backbone, so that its weights load. timm is an extra
(``pip install 'nunbit[timm]'``).

Shapes: B batch, H W pixels, P patches or cells, D width, E embedding.
"""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nunbit.errors import ConfigError, UnsupportedModel, UsageError
from nunbit.torchvision_import import import_torchvision
from nunbit.vision_encoder.config import TimmConfig

_NAME = re.compile(r"[a-z0-9_]+")


def import_timm() -> ModuleType:
    """Import timm, also beside a torchvision whose compiled part does not fit the installed torch.

    Raises:
        UnsupportedModel: timm is not installed.
    """
    import_torchvision()
    try:
        return import_module("timm")
    except ImportError as error:
        hint = "pip install 'nunbit[timm]'"
        raise UnsupportedModel(f"this model's vision encoder needs timm: {error}", hint=hint) from error


class TimmBackbone(nn.Module):
    """A timm backbone with a projection. Publishes ``hidden_size``, ``num_patches`` and ``image_size``.

    Raises:
        UnsupportedModel: timm is not installed.
        ConfigError: timm knows no backbone of that name.
    """

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        if not _NAME.fullmatch(config.model_name):  # timm fetches what looks like a hub id, or opens a folder
            raise ConfigError(f"{config.model_name!r} is no name of a timm backbone")
        timm = import_timm()
        self.config = config
        self.image_size, self.output_size = config.image_size, config.projection_size
        try:
            self.trunk = timm.create_model(config.model_name, **self._trunk_options())
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            known = f"timm {timm.__version__} has no backbone {config.model_name!r} with the pooling {config.pool!r}"
            raise ConfigError(known) from error
        if config.projection in ("linear", "mlp"):
            self.trunk.reset_classifier(0, **({"global_pool": config.pool} if config.pool else {}))
        self.head = _make_head(config, self.trunk.num_features)
        self.hidden_size = int(self.trunk.num_features)
        self.num_patches = self._count_patches()

    def forward(self, pixel_values: Tensor, *, layer: int | None = None) -> Tensor:
        """Patches or cells of the last stage: (B, 3, H, W) → (B, P, D). ``layer`` must be None."""
        if layer is not None:
            raise UsageError("timm backbones are read at their last stage: layer must be None")
        features: Tensor = self.trunk.forward_features(pixel_values)
        if features.ndim == 4:
            channels_last = features.shape[-1] == self.hidden_size != features.shape[1]
            return features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        return features[:, int(getattr(self.trunk, "num_prefix_tokens", 0)) :]

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """The picture's feature, not of unit length: (B, 3, H, W) → (B, E)."""
        features: Tensor = self.head(self.trunk(pixel_values))
        return features

    def _trunk_options(self) -> dict[str, Any]:
        if self.config.projection in ("linear", "mlp"):
            return {"pretrained": False}
        classes = self.config.projection_size if self.config.projection == "trunk" else 0
        return {"pretrained": False, "num_classes": classes, "global_pool": self.config.pool}

    def _count_patches(self) -> int:
        size = (1, 3, self.image_size, self.image_size)
        reference = next(self.trunk.parameters())
        training = self.trunk.training
        with torch.no_grad():
            patches = self.eval()(torch.empty(size, device=reference.device, dtype=reference.dtype)).shape[1]
        self.train(training)
        return int(patches)


def _make_head(config: TimmConfig, width: int) -> nn.Sequential:
    """open_clip's heads, under its names; without its dropouts, which are off when a model answers."""
    head = nn.Sequential()
    if config.projection == "linear":
        head.add_module("proj", nn.Linear(width, config.projection_size, bias=config.projection_bias))
    elif config.projection == "mlp":
        mlp = nn.Sequential()
        mlp.add_module("fc1", nn.Linear(width, 2 * config.projection_size))
        mlp.add_module("act", nn.GELU())
        mlp.add_module("fc2", nn.Linear(2 * config.projection_size, config.projection_size, config.projection_bias))
        head.add_module("mlp", mlp)
    return head

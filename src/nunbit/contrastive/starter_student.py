"""The starter as it is trained: its towers are locked, its bridge learns, or adapters on the bridge's maps do.

Shapes: N pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nunbit.contrastive.config import ModelConfig
from nunbit.contrastive.starter_bridge import save_bridge
from nunbit.contrastive.students import MAX_SCALE, LockedWidths, append_provenance
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import ConfigError
from nunbit.loading import load
from nunbit.lora import add_lora, merge_lora
from nunbit.starter.bridge import FEATURE_SIZE, NUM_CLASSES, TEXT_SIZE, Bridge
from nunbit.starter.model import PREPROCESSING, Starter

if TYPE_CHECKING:
    from nunbit.types import FloatArray


class _LockedTower(Starter):
    """The starter's picture tower alone: a row is its 1,280 features and 1,000 logits."""

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(N, 3, 260, 260) → (N, 2280)."""
        return np.concatenate(self.features(np.asarray(pixel_values)), axis=1)


class StarterStudent:
    """The starter: its towers are locked always, its bridge learns.

    Args:
        folder: A starter model folder.
        config: What learns.
        license: Of the trained weights; empty: that of the starter.
        name: What they are called.

    Raises:
        ConfigError: A setting that has no meaning for it.
    """

    def __init__(self, folder: Path, config: ModelConfig, *, license: str, name: str) -> None:
        if config.layer_decay != 1 or config.recompute or config.locked:
            message = "the starter has no blocks and its towers are locked always"
            raise ConfigError(message, hint="leave out model.layer_decay, model.recompute and model.locked")
        if config.objective not in (None, "softmax"):
            raise ConfigError("the starter was trained with the softmax objective", hint="leave model.objective out")
        self._tower = _LockedTower(folder)
        self._starter: Starter = load(folder, engine="torch").model
        self.start_fingerprint = self._starter.fingerprint
        self.name = name
        self._license = license
        self.preprocessing = PREPROCESSING
        self.locked = LockedWidths(FEATURE_SIZE + NUM_CLASSES, TEXT_SIZE)
        self.module = self._starter.bridge.requires_grad_(True)
        if config.lora is not None:
            add_lora(self.module, config.lora)
            self.module.log_scale.requires_grad_(True)

    def locked_image_encoder(self) -> Encoder:
        """Its rows are 1,280 features and 1,000 logits."""
        width = FEATURE_SIZE + NUM_CLASSES
        return Encoder(self._tower, EncoderInfo(self.name, width, self.preprocessing))

    def locked_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """Sentence embeddings."""
        return self._starter.text_tower.encode(texts)

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """There are none: the text tower takes texts as they are, and is locked."""
        raise ConfigError("the starter's text tower has no token ids")

    def embed_image(self, inputs: Tensor) -> Tensor:
        """(N, 2280) → (N, 512)."""
        bridge: Bridge = self.module
        return bridge.encode_image(inputs[:, :FEATURE_SIZE], inputs[:, FEATURE_SIZE:])

    def embed_text(self, inputs: Tensor) -> Tensor:
        """(N, 512) → (N, 512)."""
        bridge: Bridge = self.module
        return bridge.encode_text(inputs)

    def scale_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The bridge's factor, and no bias."""
        return self.module.log_scale.exp(), None

    @torch.no_grad()
    def constrain(self) -> None:
        """Clamp the logarithm."""
        self.module.log_scale.clamp_(0, math.log(MAX_SCALE))

    def rate_factor(self, name: str) -> float:
        """The same for all of the bridge."""
        return 1.0

    def merge(self) -> None:
        """Turn adapters into plain weights."""
        merge_lora(self.module)

    def divide(self) -> None:
        """Refuse: there is little to divide."""
        raise ConfigError("training.fsdp: the starter's bridge is small, every process can hold it")

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write a starter model folder."""
        save_bridge(self.module, folder, provenance, license=self._license)
        card = f"# {self.name}\n\nnunbit's starter with a bridge that was trained further.\n"
        (folder / "README.md").write_text(card, encoding="utf-8")
        append_provenance(folder, provenance)

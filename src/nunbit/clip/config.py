"""What decides a dual encoder, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nunbit.errors import ConfigError
from nunbit.text_encoder import TextConfig
from nunbit.vision_encoder.config import VisionConfig, VitConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Two towers and how their cosines become probabilities.

    Attributes:
        vision: The vision encoder.
        text: The text encoder, of the same embedding size.
        objective: ``softmax`` (CLIP, arXiv 2103.00020): probabilities over the given texts. ``sigmoid`` (SigLIP,
            arXiv 2303.15343): a probability for each pair by itself, with a learned ``logit_bias``.
    """

    vision: VisionConfig
    text: TextConfig
    objective: Literal["softmax", "sigmoid"]

    def __post_init__(self) -> None:
        size = self.vision.projection_size
        if size is None and isinstance(self.vision, VitConfig):
            size = self.vision.hidden_size
        if size != self.text.projection_size:
            raise ConfigError(f"pictures become {size} numbers and texts {self.text.projection_size}")

    @property
    def embedding_size(self) -> int:
        """E, the width of the shared space."""
        return self.text.projection_size

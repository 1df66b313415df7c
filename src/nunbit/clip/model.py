"""The dual encoder: one tower for pictures, one for texts, one space.

``logits_per_image = exp(logit_scale) * image_embeddings @ text_embeddings.T [+ logit_bias]``

CLIP (arXiv 2103.00020) reads a row of logits by softmax, SigLIP (arXiv 2303.15343) each logit by sigmoid.

Shapes: B pictures, M texts, T tokens, H W pixels, E embedding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nunbit.clip.config import ClipConfig
from nunbit.text_encoder import TextTransformer
from nunbit.vision_encoder import PatchBatch, make_vision_encoder


class ClipOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        logits_per_image: (B, M).
        image_embeddings: (B, E) unit rows.
        text_embeddings: (M, E) unit rows.
    """

    logits_per_image: Tensor
    image_embeddings: Tensor
    text_embeddings: Tensor


class Clip(nn.Module):
    """A dual encoder of any family, with random weights until some are loaded.

    Args:
        config: Its towers and objective.

    Attributes:
        logit_scale: The logarithm of the factor on cosines; starts at ln(1 / 0.07) (CLIP) or ln 10 (SigLIP).
        logit_bias: Added to logits, starts at -10; None for the softmax objective.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = make_vision_encoder(config.vision)
        self.text_encoder = TextTransformer(config.text)
        sigmoid = config.objective == "sigmoid"
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10 if sigmoid else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None

    def embed_image(self, pixel_values: Tensor | PatchBatch) -> Tensor:
        """Embed pictures.

        Args:
            pixel_values: (B, 3, H, W) floating, as the model's preprocessing makes it; or pictures of several sizes.

        Returns:
            (B, E) unit rows.
        """
        return functional.normalize(self.vision_encoder.image_features(pixel_values), dim=-1)  # type: ignore[arg-type]

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed texts.

        Args:
            input_ids: (M, T) int64, as the model's tokenizer makes it, padding included.
            attention_mask: (M, T), nonzero where a token may be looked at; by default everywhere.

        Returns:
            (M, E) unit rows.
        """
        return functional.normalize(self.text_encoder.text_features(input_ids, attention_mask), dim=-1)

    def forward(
        self, pixel_values: Tensor | PatchBatch, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> ClipOutput:
        """Compare every picture with every text; the arguments are those of `embed_image` and `embed_text`."""
        image_embeddings = self.embed_image(pixel_values)
        text_embeddings = self.embed_text(input_ids, attention_mask)
        logits = self.logit_scale.exp() * image_embeddings @ text_embeddings.T  # (B, M)
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return ClipOutput(logits, image_embeddings, text_embeddings)

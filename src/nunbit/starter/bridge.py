"""The bridge: two small linear maps that make one space of the picture tower and the text tower.

A picture is what its 1,000 class probabilities say, in the words of those classes, corrected by its features; a text
is its sentence embedding, turned a little::

    image = unit(P_hat @ class_vectors + standardize(features) @ feature_map)     P_hat = sqrt(P) / sum(sqrt(P))
    text  = unit((sentence - text_mean) @ text_map + text_bias)

At initialization ``class_vectors`` are the centered sentence embeddings of the class names, ``feature_map`` is zero and
``text_map`` the identity: a convex combination of semantic embeddings (ConSE, arXiv 1312.5650), which serves labels
that are ImageNet concepts. Contrastive training on captioned photographs then lets the features speak for what the
classes have no word for.

Shapes: B batch, N texts, F features 1280, C classes 1000, D width 512.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_CLASSES = 1000
FEATURE_SIZE = 1280
TEXT_SIZE = 512


class Bridge(nn.Module):
    """Picture features + class logits, and sentence embeddings → unit rows of one space.

    Args:
        embedding_size: D. The identity start of the text map needs it to equal the sentence width, 512.
    """

    feature_mean: Tensor
    feature_std: Tensor
    text_mean: Tensor

    def __init__(self, embedding_size: int = TEXT_SIZE) -> None:
        super().__init__()
        self.class_vectors = nn.Parameter(torch.zeros(NUM_CLASSES, embedding_size))
        self.feature_map = nn.Parameter(torch.zeros(FEATURE_SIZE, embedding_size))
        self.text_map = nn.Parameter(torch.eye(TEXT_SIZE, embedding_size))
        self.text_bias = nn.Parameter(torch.zeros(embedding_size))
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        self.register_buffer("feature_mean", torch.zeros(FEATURE_SIZE))
        self.register_buffer("feature_std", torch.ones(FEATURE_SIZE))
        self.register_buffer("text_mean", torch.zeros(TEXT_SIZE))

    def image_inputs(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the image side is linear in.

        Args:
            features: (B, 1280) float32.
            logits: (B, 1000) float32.

        Returns:
            Flattened probabilities (B, 1000), rows sum to 1, and standardized features (B, 1280) of about unit norm.
        """
        flattened = functional.softmax(logits / 2, dim=-1)  # softmax(l / 2) is sqrt(softmax(l)), normalized
        standardized = (features - self.feature_mean) / self.feature_std / FEATURE_SIZE**0.5
        return flattened, standardized

    def project_image(self, probabilities: Tensor, features: Tensor) -> Tensor:
        """Outputs of ``image_inputs`` → (B, D) unit rows."""
        return functional.normalize(probabilities @ self.class_vectors + features @ self.feature_map, dim=-1)

    def encode_image(self, features: Tensor, logits: Tensor) -> Tensor:
        """(B, 1280) features and (B, 1000) logits → (B, D) unit rows."""
        return self.project_image(*self.image_inputs(features, logits))

    def encode_text(self, sentences: Tensor) -> Tensor:
        """(N, 512) sentence embeddings → (N, D) unit rows."""
        return functional.normalize((sentences - self.text_mean) @ self.text_map + self.text_bias, dim=-1)

"""A vision encoder with a head over fixed classes: a ViT as a classifier, and the start of transfer learning.

Shapes: B batch, H W pixels, E the encoder's feature, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from nunbit.vision_encoder import PatchBatch, VisionEncoder


class ImageClassifier(nn.Module):
    """Feature → class logits.

    ``logits = out(feature)``, or with a hidden layer ``out(gelu(hidden(norm(feature))))``.

    Args:
        vision_encoder: Any vision encoder, usually with pretrained weights.
        num_classes: C.
        hidden_size: Width of the head's hidden layer; None for a linear head (arXiv 2010.11929 fine-tunes so).

    Example:
        >>> classifier = ImageClassifier(encoder.model.vision_encoder, num_classes=3, hidden_size=256)
        >>> classifier(pixel_values).shape
        torch.Size([2, 3])
    """

    def __init__(self, vision_encoder: VisionEncoder, num_classes: int, *, hidden_size: int | None = None) -> None:
        super().__init__()
        self.vision_encoder = vision_encoder
        width = vision_encoder.output_size
        self.head = nn.Sequential()
        if hidden_size is not None:
            self.head.add_module("norm", nn.LayerNorm(width))
            self.head.add_module("hidden", nn.Linear(width, hidden_size))
            self.head.add_module("activation", nn.GELU())
            width = hidden_size
        out = nn.Linear(width, num_classes)
        # Zeros: all classes are equally likely at first, and the loss starts at ln C whatever the features are.
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
        self.head.add_module("out", out)

    def forward(self, pixel_values: Tensor | PatchBatch) -> Tensor:
        """(B, 3, H, W), as the encoder's preprocessing makes it → (B, C)."""
        logits: Tensor = self.head(self.vision_encoder.image_features(pixel_values))  # type: ignore[arg-type]
        return logits

"""An eye, a projector and a language model as one module.

Shapes: B samples, T tokens, K pictures in all samples, S side of a picture in pixels, P patches, D width of the patch
features, Q tokens of a picture, W width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nunbit.errors import UsageError
from nunbit.language_model import LanguageModel, LanguageModelOutput, LanguageTokenizer
from nunbit.projector import Projector, QFormer, make_projector
from nunbit.vlm.config import VlmConfig
from nunbit.vlm.eye import AnyEye, make_eye

IMAGE_TOKEN_ID = -200
"""Stands where a token of a picture goes, Q times for each. It is no id of any vocabulary, so no text can forge it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VlmInputs:
    """What a vision-language model reads.

    Attributes:
        input_ids: (B, T) int64, `IMAGE_TOKEN_ID` where tokens of pictures go, in the order of the pictures.
        attention_mask: (B, T) bool, true where there is a token; padding may stand on either side. Where several
            samples are packed into a row, (B, 1, T, T) bool, true where a token looks at another.
        position_ids: (B, T) int64, by default counted along the mask.
        pixel_values: (K, 3, S, S) floating, normalized; None when there are no pictures, or
        image_features: (K, P, D), what the eye says of them, is given instead.
        instruction_ids: (K, T') int64, what the projector reads beside a picture, in its own vocabulary.
        instruction_mask: (K, T') bool.
        labels: int64, -100 where nothing is asked: (B, T), of an encoder-decoder the answer (B, T').
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    pixel_values: Tensor | None = None
    image_features: Tensor | None = None
    instruction_ids: Tensor | None = None
    instruction_mask: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> VlmInputs:
        """The same on another device."""
        moved = {
            name: value.to(device) for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


class VisionLanguageModel(nn.Module):
    """A language model that sees.

    Args:
        config: What it is.
        language_model: Answers; of the configuration's sizes.

    Attributes:
        config: As given.
        eye: Pictures → features of patches.
        projector: Features → tokens.
        language_model: As given.
        instruction_tokenizer: Of the projector, where it reads the user's words and has a vocabulary of its own.

    Example:
        >>> model = VisionLanguageModel(config, make_language_model(config.language_model))
        >>> model(VlmInputs(input_ids=torch.tensor([[IMAGE_TOKEN_ID] * 49 + [5, 6]]), pixel_values=pixels)).logits.shape
        torch.Size([1, 51, 49152])
    """

    def __init__(self, config: VlmConfig, language_model: LanguageModel) -> None:
        super().__init__()
        self.config = config
        self.eye: AnyEye = make_eye(config.eye)
        self.projector: Projector = make_projector(config.projector, self.eye.hidden_size, language_model.hidden_size)
        self.language_model = language_model
        self.instruction_tokenizer: LanguageTokenizer | None = None

    @property
    def tokens_per_picture(self) -> int:
        """Q."""
        return self.projector.num_tokens(self.eye.num_patches)

    @property
    def reads_instruction(self) -> bool:
        """The projector reads the user's words beside each picture (InstructBLIP)."""
        return isinstance(self.projector, QFormer) and self.projector.config.vocab_size is not None

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """What the eye says: (K, 3, S, S) → (K, P, D). While the eye is frozen this never changes, and can be kept."""
        features: Tensor = self.eye(pixel_values)
        return features

    def image_tokens(self, inputs: VlmInputs) -> Tensor | None:
        """Pictures or their features → (K, Q, W); None when there are none."""
        features = inputs.image_features
        if features is None:
            if inputs.pixel_values is None:
                return None
            features = self.image_features(inputs.pixel_values)
        features = features.to(next(self.projector.parameters()).dtype)  # an eye may compute in another one
        tokens: Tensor
        if self.reads_instruction:
            if inputs.instruction_ids is None:
                raise UsageError("the projector of this model reads the question, too", hint="give instruction_ids")
            tokens = self.projector(features, inputs.instruction_ids, inputs.instruction_mask)
        else:
            tokens = self.projector(features)
        return tokens

    def embed(self, input_ids: Tensor, image_tokens: Tensor | None) -> Tensor:
        """Words and pictures → what the language model reads.

        Args:
            input_ids: (B, T) int64, `IMAGE_TOKEN_ID` where tokens of pictures go.
            image_tokens: (K, Q, W), in the order of their places, row by row; None: there are no places.

        Returns:
            (B, T, W).

        Raises:
            UsageError: There are more or fewer places than tokens.
        """
        places = input_ids == IMAGE_TOKEN_ID
        embedded = self.language_model.embed(input_ids.masked_fill(places, 0))
        given = 0 if image_tokens is None else image_tokens.shape[0] * image_tokens.shape[1]
        if int(places.sum()) != given:
            raise UsageError(
                f"the text has {int(places.sum())} places for tokens of pictures, and there are {given}",
                hint=f"a picture takes {self.tokens_per_picture} places",
            )
        if image_tokens is None:
            return embedded
        mixed = embedded.clone()
        mixed[places] = image_tokens.flatten(0, 1).to(mixed.dtype)
        return mixed

    def forward(self, inputs: VlmInputs) -> LanguageModelOutput:
        """Predict each next token; of an encoder-decoder, each next token of the answer.

        Raises:
            UsageError: Places and pictures differ in number, or as in `nunbit.language_model.LanguageModel.forward`.
        """
        embedded = self.embed(inputs.input_ids, self.image_tokens(inputs))
        output: LanguageModelOutput = self.language_model(
            embedded, inputs.attention_mask, labels=inputs.labels, position_ids=inputs.position_ids
        )
        return output

"""Samples of one conversation each → what a model reads together.

Shapes: B samples, T tokens, T' tokens of an answer or an instruction, K looks, S side of the eye's pictures, P patches,
D width of the patch features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from nunbit.errors import UsageError
from nunbit.language_model.model import IGNORED
from nunbit.vlm.conversation import ConversationEncoder, Encoded, Turn
from nunbit.vlm.looking import Looker
from nunbit.vlm.model import VisionLanguageModel, VlmInputs

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.language_model import LanguageTokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One conversation, written down.

    Attributes:
        encoded: Ids and labels.
        pixel_values: (K, 3, S, S) float32, all looks in the order of their places; None where there are none, or
        image_features: (K, P, D) is given instead.
        instruction: What a Q-Former reads beside each picture; () for other projectors.
    """

    encoded: Encoded
    pixel_values: Tensor | None = None
    image_features: Tensor | None = None
    instruction: tuple[int, ...] = ()

    @property
    def looks(self) -> int:
        """K."""
        given = self.pixel_values if self.image_features is None else self.image_features
        return 0 if given is None else len(given)


class SampleReader:
    """Conversations and pictures → samples, for one model.

    Args:
        model: Whose.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        config, self.tokenizer = model.config, model.language_model.tokenizer
        self.looker = Looker(model.eye.preprocessing, model.tokens_per_picture, config.tiles)
        self.conversations = ConversationEncoder(config.chat, config.marks, self.tokenizer)
        self._instruction_tokenizer: LanguageTokenizer | None = None
        if model.reads_instruction:
            self._instruction_tokenizer = model.instruction_tokenizer or self.tokenizer

    def read(self, turns: Sequence[Turn], images: Sequence[Image.Image], *, answer: bool = False) -> Sample:
        """Write down a conversation with its pictures.

        Args:
            turns: As `ConversationEncoder.encode` takes them.
            images: In mode RGB, one for each place.
            answer: The conversation ends with a question.
        """
        layouts = [self.looker.layout(*image.size) for image in images]
        encoded = self.conversations.encode(turns, layouts, answer=answer)
        pixels = [self.looker.pixels(image) for image in images]
        looks = torch.from_numpy(np.concatenate(pixels)) if pixels else None
        return Sample(encoded, looks, instruction=self.instruction(turns))

    def instruction(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The last question, for a Q-Former that reads it; else ()."""
        if self._instruction_tokenizer is None:
            return ()
        return tuple(self._instruction_tokenizer.encode(self.conversations.instruction(turns)))


def collate(
    samples: Sequence[Sample], *, pad: Literal["left", "right"] = "right", encoder_decoder: bool = False
) -> VlmInputs:
    """Put samples side by side.

    Args:
        samples: At least one.
        pad: Where shorter ones are filled up; on the left for generation.
        encoder_decoder: The last answer is what the decoder says, and not part of what the encoder reads.

    Raises:
        UsageError: Some samples have pixels and others features.
    """
    encoded = [sample.encoded for sample in samples]
    if encoder_decoder:
        encoded = [_question(one) for one in encoded]
        labels = _pad([_last_answer(sample.encoded) for sample in samples], IGNORED, "right")
    else:
        labels = _pad([one.labels for one in encoded], IGNORED, pad)
    lengths = torch.tensor([len(one.input_ids) for one in encoded])
    order = torch.arange(int(lengths.max()))
    if pad == "left":
        order = order.flip(0)
    pixels = [sample.pixel_values for sample in samples if sample.pixel_values is not None]
    features = [sample.image_features for sample in samples if sample.image_features is not None]
    if pixels and features:
        raise UsageError("some samples have pixels and others features of pictures")
    instructions = [list(sample.instruction) for sample in samples for _ in range(sample.looks) if sample.instruction]
    return VlmInputs(
        input_ids=_pad([one.input_ids for one in encoded], 0, pad),
        attention_mask=order < lengths[:, None],
        pixel_values=torch.cat(pixels) if pixels else None,
        image_features=torch.cat(features) if features else None,
        instruction_ids=_pad(instructions, 0, "right") if instructions else None,
        instruction_mask=_pad([[1] * len(one) for one in instructions], 0, "right").bool() if instructions else None,
        labels=labels,
    )


def pack(samples: Sequence[Sample]) -> VlmInputs:
    """Put samples behind each other in one row: no token is spent on padding, and none looks at another sample.

    Args:
        samples: At least one.

    Returns:
        One row; the first token of each sample is asked nothing, whatever its label says.
    """
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    for number, sample in enumerate(samples):
        length = len(sample.encoded.input_ids)
        ids += sample.encoded.input_ids
        labels += [IGNORED, *sample.encoded.labels[1:]]
        positions += range(length)
        owners += [number] * length
    one = collate(samples)
    owner = torch.tensor(owners)
    causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    return VlmInputs(
        input_ids=torch.tensor([ids]),
        attention_mask=(causal & (owner[:, None] == owner))[None, None],
        position_ids=torch.tensor([positions]),
        pixel_values=one.pixel_values,
        image_features=one.image_features,
        instruction_ids=one.instruction_ids,
        instruction_mask=one.instruction_mask,
        labels=torch.tensor([labels]),
    )


def _pad(rows: Sequence[Sequence[int]], value: int, where: Literal["left", "right"]) -> Tensor:
    longest = max(map(len, rows))
    filled = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor(
        [[*fill, *row] if where == "left" else [*row, *fill] for row, fill in zip(rows, filled, strict=True)]
    )


def _question(encoded: Encoded) -> Encoded:
    """All up to the last answer."""
    end = len(encoded.labels)
    while end and encoded.labels[end - 1] != IGNORED:
        end -= 1
    return Encoded(encoded.input_ids[:end], encoded.labels[:end])


def _last_answer(encoded: Encoded) -> list[int]:
    return encoded.labels[len(_question(encoded).labels) :]

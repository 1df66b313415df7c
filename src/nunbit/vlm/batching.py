"""Samples of one conversation each → what a model reads together.

Shapes: B samples, T tokens, T' tokens of an answer or an instruction, K looks, S side of the eye's pictures, P patches,
D width of the patch features.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from nunbit.errors import UsageError
from nunbit.language_model.model import IGNORED
from nunbit.vlm.config import ChatFormat, PictureMarks
from nunbit.vlm.conversation import ConversationEncoder, Encoded, Turn
from nunbit.vlm.looking import Looker
from nunbit.vlm.model import IMAGE_TOKEN_ID, VisionLanguageModel, VlmInputs

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

    def plain(self) -> SampleReader:
        """The same, writing a picture, its caption and a new line, without any format (LLaVA's first stage)."""
        other = copy(self)
        other.conversations = ConversationEncoder(ChatFormat(answer_after="\n"), PictureMarks(), self.tokenizer)
        return other

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
        labels = _pad([last_answer(sample.encoded) for sample in samples], IGNORED, "right")
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


def pack(bundles: Sequence[Sequence[Sample]]) -> VlmInputs:
    """Put samples behind each other in one row: no token is spent on padding, and none looks at another sample.

    Samples of a bundle are about the same pictures: what their texts have in common up to the first difference, the
    pictures among it, stands in the row once, and all of them look at it. Every token sees what it sees alone, at the
    same distance.

    Args:
        bundles: At least one, each of at least one sample.

    Returns:
        One row; the first token of each sample is asked nothing, whatever its label says.
    """
    row = _Row()
    shown: list[Sample] = []
    for bundle in bundles:
        shown += bundle[:1] if row.add(bundle) else bundle
    one = collate(shown)
    owner, branch = torch.tensor(row.owners), torch.tensor(row.branches)
    common = (branch == _COMMON)[None] | (branch[:, None] == branch)
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    return VlmInputs(
        input_ids=torch.tensor([row.ids]),
        attention_mask=(causal & common & (owner[:, None] == owner))[None, None],
        position_ids=torch.tensor([row.positions]),
        pixel_values=one.pixel_values,
        image_features=one.image_features,
        instruction_ids=one.instruction_ids,
        instruction_mask=one.instruction_mask,
        labels=torch.tensor([row.labels]),
    )


_COMMON = -1


@dataclass(slots=True)
class _Row:
    """Tokens of several samples; of each the bundle that owns it and the sample within, or `_COMMON`."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)

    def add(self, bundle: Sequence[Sample]) -> bool:
        """Whether the samples share their pictures; else each has its own."""
        owner = self.owners[-1] + 1 if self.owners else 0
        alike = len(bundle) > 1 and len({sample.instruction for sample in bundle}) == 1  # else pictures are read apart
        shared = common_prefix([sample.encoded for sample in bundle]) if alike else 0
        first = bundle[0].encoded
        self._extend(first.input_ids[:shared], [IGNORED] * shared, 0, (owner, _COMMON))
        for number, sample in enumerate(bundle):
            encoded = sample.encoded
            labels = [IGNORED, *encoded.labels[1:]] if shared == 0 else encoded.labels[shared:]
            self._extend(encoded.input_ids[shared:], labels, shared, (owner, number))
        return shared > 0 or len(bundle) == 1

    def _extend(self, ids: Sequence[int], labels: Sequence[int], start: int, of: tuple[int, int]) -> None:
        self.ids += ids
        self.labels += labels
        self.positions += range(start, start + len(ids))
        self.owners += [of[0]] * len(ids)
        self.branches += [of[1]] * len(ids)


def common_prefix(encoded: Sequence[Encoded]) -> int:
    """How many tokens all begin with, if these hold all pictures, and what follows each is asked nothing; else 0."""
    first = encoded[0].input_ids
    shared = min(len(one.input_ids) for one in encoded)
    for one in encoded[1:]:
        differing = (number for number in range(shared) if one.input_ids[number] != first[number])
        shared = next(differing, shared)
    for one in encoded:
        asked = next((number for number, label in enumerate(one.labels) if label != IGNORED), len(one.labels))
        shared = min(shared, asked - 1)
    last = len(first) - first[::-1].index(IMAGE_TOKEN_ID) if IMAGE_TOKEN_ID in first else 0
    return shared if shared >= last > 0 else 0


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


def last_answer(encoded: Encoded) -> list[int]:
    """The labels of the last answer, which is what the decoder of an encoder-decoder says."""
    return encoded.labels[len(_question(encoded).labels) :]

"""The language model, asked for one token after another.

Shapes: B answers, T tokens, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nunbit.errors import UsageError
from nunbit.generate.prefix import PrefixCache, keys_of
from nunbit.language_model.transformers_model import import_transformers
from nunbit.vlm.batching import Sample, collate
from nunbit.vlm.conversation import Encoded
from nunbit.vlm.model import IMAGE_TOKEN_ID, VisionLanguageModel


class Decoding(Protocol):
    """Answers that are being said."""

    room: int
    """How many tokens an answer can have."""

    def first(self) -> Tensor:
        """(B, V): what the answers begin with."""

    def next(self, tokens: Sequence[int]) -> Tensor:
        """(B, V): what follows, when B tokens were chosen."""

    def close(self) -> None:
        """Nothing more is asked."""


class CausalDecoding:
    """One sequence for the question and its answer.

    Args:
        model: Answers.
        samples: Conversations that end with a question.
        prefixes: Where what was read before is kept; it is used of one conversation alone.

    Raises:
        UsageError: A conversation is longer than the model can read.
    """

    def __init__(self, model: VisionLanguageModel, samples: Sequence[Sample], prefixes: PrefixCache | None) -> None:
        self._model, self._samples, self._prefixes = model, samples, prefixes
        self.room = room_of(model, max(len(sample.encoded.input_ids) for sample in samples))
        self._device = _device_of(model)
        self._cache: Any = None
        self._keys = keys_of(samples[0]) if prefixes is not None else []
        self._mask = torch.zeros(0)

    @torch.inference_mode()
    def first(self) -> Tensor:
        """As `Decoding.first`."""
        samples, read = list(self._samples), 0
        if self._prefixes is not None:
            self._cache, read = self._prefixes.take(self._keys)
            samples = [rest_of(samples[0], read)]
        if self._cache is None:
            self._cache = import_transformers().DynamicCache(config=self._model.language_model.model.config)
        inputs = collate(samples, pad="left").to(self._device)
        assert inputs.attention_mask is not None
        before = torch.ones(len(samples), read, dtype=torch.long, device=self._device)
        self._mask = torch.cat([before, inputs.attention_mask.long()], dim=1)
        embedded = self._model.embed(inputs.input_ids, self._model.image_tokens(inputs))
        return self._model.language_model.step(embedded, self._mask, self._cache)

    @torch.inference_mode()
    def next(self, tokens: Sequence[int]) -> Tensor:
        """As `Decoding.next`."""
        if self._prefixes is not None:
            self._keys.append(tokens[0])
        ids = torch.tensor(tokens, device=self._device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        language_model = self._model.language_model
        return language_model.step(language_model.embed(ids), self._mask, self._cache)

    def close(self) -> None:
        """As `Decoding.close`: what was read is kept."""
        if self._prefixes is not None and self._cache is not None:
            self._prefixes.keep(self._keys, self._cache)


class EncoderDecoderDecoding:
    """The question goes through an encoder once, a decoder answers.

    Args:
        model: Answers.
        samples: Conversations that end with a question.
    """

    def __init__(self, model: VisionLanguageModel, samples: Sequence[Sample]) -> None:
        self._model, self._samples = model, samples
        self.room = room_of(model, 1)
        self._device = _device_of(model)
        self._encoded: Any = None
        self._mask = torch.zeros(0)
        transformers = import_transformers()
        self._cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())

    @torch.inference_mode()
    def first(self) -> Tensor:
        """As `Decoding.first`."""
        # On the right: an encoder that learned its positions takes no others.
        inputs = replace(collate(self._samples, encoder_decoder=True), labels=None).to(self._device)
        assert inputs.attention_mask is not None
        self._mask = inputs.attention_mask.long()
        embedded = self._model.embed(inputs.input_ids, self._model.image_tokens(inputs))
        inner = self._model.language_model.model
        self._encoded = inner.get_encoder()(inputs_embeds=embedded, attention_mask=self._mask)
        return self.next([_start_of(inner)] * len(self._samples))

    @torch.inference_mode()
    def next(self, tokens: Sequence[int]) -> Tensor:
        """As `Decoding.next`."""
        ids = torch.tensor(tokens, device=self._device)[:, None]
        return self._model.language_model.step(
            None, self._mask, self._cache, encoded=self._encoded, decoder_input_ids=ids
        )

    def close(self) -> None:
        """As `Decoding.close`: an encoder reads forward and backward, so nothing of it serves another question."""


def _device_of(model: VisionLanguageModel) -> torch.device:
    return next(model.parameters()).device


def room_of(model: VisionLanguageModel, taken: int) -> int:
    """How many tokens are left to an answer behind so many.

    Raises:
        UsageError: None.
    """
    config = model.language_model.model.config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None)
    if most is None:  # positions without a limit (T5)
        return 1 << 30
    if taken >= most:
        hint = "shorten the conversation, or show fewer or smaller pictures"
        raise UsageError(f"the conversation has {taken} tokens, and the model reads {most} at most", hint=hint)
    return int(most) - taken


def _start_of(model: Any) -> int:
    """What a decoder begins with."""
    for config in (model.config, model.generation_config):
        if (token := getattr(config, "decoder_start_token_id", None)) is not None:
            return int(token)
    raise UsageError("the model does not say what its decoder begins with", hint="set decoder_start_token_id")


def rest_of(sample: Sample, read: int) -> Sample:
    """What of a sample stands behind its first tokens; no look is cut."""
    ids, labels = sample.encoded.input_ids, sample.encoded.labels
    places = ids.count(IMAGE_TOKEN_ID)
    looks = sample.looks * ids[read:].count(IMAGE_TOKEN_ID) // places if places else 0
    pixels, features = sample.pixel_values, sample.image_features
    return replace(
        sample,
        encoded=Encoded(ids[read:], labels[read:]),
        pixel_values=pixels[len(pixels) - looks :] if pixels is not None and looks else None,
        image_features=features[len(features) - looks :] if features is not None and looks else None,
    )

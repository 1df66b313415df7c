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
from nunbit.generate.prefix import keys_of, rest_of
from nunbit.generate.sessions import Session
from nunbit.language_model.transformers_model import import_transformers
from nunbit.vlm.batching import Sample, collate
from nunbit.vlm.model import VisionLanguageModel


class Decoding(Protocol):
    """Answers that are being said."""

    rooms: list[int]
    """How many tokens each answer can have."""

    def first(self) -> Tensor:
        """(B, V): what the answers begin with."""

    def next(self, tokens: Sequence[int | None]) -> Tensor:
        """(B, V): what follows, when B tokens were chosen; None for one that has ended, whose row says nothing."""

    def close(self) -> None:
        """Nothing more is asked."""


class CausalDecoding:
    """One sequence for the question and its answer.

    Args:
        model: Its eye and projector look, its tokens' vectors are taken.
        samples: Conversations that end with a question.
        session: Reads them; not begun.
        remember: One conversation alone goes on from what it has in common with those before, and is remembered.

    Raises:
        UsageError: A conversation is longer than the model can read.
    """

    def __init__(
        self, model: VisionLanguageModel, samples: Sequence[Sample], session: Session, *, remember: bool = True
    ) -> None:
        self._model, self._samples, self._session = model, samples, session
        lengths = [len(sample.encoded.input_ids) for sample in samples]
        if not model.language_model.takes_positions:  # it counts padding, too
            lengths = [max(lengths)] * len(samples)
        self.rooms = [room_of(model, length) for length in lengths]
        self._device = _device_of(model)
        self._keys = keys_of(samples[0]) if remember and len(samples) == 1 else []
        self._mask = torch.zeros(0)

    @torch.inference_mode()
    def first(self) -> Tensor:
        """As `Decoding.first`."""
        read = self._session.begin(self._keys)
        samples = [rest_of(self._samples[0], read)] if read else self._samples
        inputs = collate(samples, pad="left").to(self._device)
        assert inputs.attention_mask is not None
        before = torch.ones(len(samples), read, dtype=torch.bool, device=self._device)
        self._mask = torch.cat([before, inputs.attention_mask.bool()], dim=1)
        if self._session.eye is not None and inputs.pixel_values is not None:
            inputs = replace(inputs, pixel_values=None, image_features=self._session.eye(inputs.pixel_values))
        embedded = self._model.embed(inputs.input_ids, self._model.image_tokens(inputs))
        return self._session.read(embedded, self._mask)

    @torch.inference_mode()
    def next(self, tokens: Sequence[int | None]) -> Tensor:
        """As `Decoding.next`."""
        if self._keys:
            self._keys += [token for token in tokens if token is not None]
        goes_on = torch.tensor([[token is not None] for token in tokens], device=self._device)
        self._mask = torch.cat([self._mask, goes_on], dim=1)  # padding takes no position, of which there may be no more
        return self._session.read(self._model.language_model.embed(_ids(tokens, self._device)), self._mask)

    def close(self) -> None:
        """As `Decoding.close`."""
        self._session.end(self._keys)


class EncoderDecoderDecoding:
    """The question goes through an encoder once, a decoder answers.

    Args:
        model: Answers.
        samples: Conversations that end with a question.
    """

    def __init__(self, model: VisionLanguageModel, samples: Sequence[Sample]) -> None:
        self._model, self._samples = model, samples
        self.rooms = [room_of(model, 1)] * len(samples)
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
    def next(self, tokens: Sequence[int | None]) -> Tensor:
        """As `Decoding.next`."""
        ids = _ids(tokens, self._device)
        return self._model.language_model.step(
            None, self._mask, self._cache, encoded=self._encoded, decoder_input_ids=ids
        )

    def close(self) -> None:
        """As `Decoding.close`: an encoder reads forward and backward, so nothing of it serves another question."""


def _ids(tokens: Sequence[int | None], device: torch.device) -> Tensor:
    return torch.tensor([[token or 0] for token in tokens], device=device)


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

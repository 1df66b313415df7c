"""The contract behind which a language model stands.

Shapes: B batch, T tokens, S tokens of an answer, W width (``hidden_size``), V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional

from nunbit.errors import UsageError

IGNORED = -100
"""The label of a token that is not asked."""


class LanguageTokenizer(Protocol):
    """What is asked of a tokenizer; those of `transformers` have it."""

    @property
    def eos_token_id(self) -> int | None:
        """What ends an answer."""

    @property
    def bos_token_id(self) -> int | None:
        """What stands in front of all texts, of some."""

    @property
    def pad_token_id(self) -> int | None:
        """What fills up a batch."""

    def __len__(self) -> int: ...

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Text → ids; with ``split_special_tokens`` marks such as ``<|im_end|>`` are letters like others."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Ids → text."""

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> Any:
        """Messages with ``role`` and ``content`` → one text (``tokenize=False``), as the model was trained on it."""


class LanguageModelOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        logits: (B, T, V), of an encoder-decoder (B, S, V).
        loss: A scalar, the mean of ``-log p(token)`` over all labels but -100; None when no labels were given.
    """

    logits: Tensor
    loss: Tensor | None


class LanguageModel(nn.Module):
    """A language model that reads vectors instead of token ids.

    Args:
        model: A model of `transformers` with a language modeling head.
        tokenizer: Its tokenizer; None for a model that only computes.

    Attributes:
        model: As given: for generation, and for adapters.

    Example:
        >>> language_model = load_language_model("smollm2-135m-instruct")
        >>> ids = torch.tensor([language_model.tokenizer.encode("A cat sits on the")])
        >>> language_model(language_model.embed(ids)).logits.shape
        torch.Size([1, 5, 49152])
    """

    def __init__(self, model: Any, tokenizer: LanguageTokenizer | None = None) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer
        taken = inspect.signature(model.forward).parameters
        self.takes_positions, self._takes_places = "position_ids" in taken, "logits_to_keep" in taken

    @property
    def hidden_size(self) -> int:
        """W, the width of the embeddings that it reads; a few models are wider inside (OPT-350m)."""
        return int(self._embeddings.weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """V, the rows of the embedding matrix; there may be more of them than the tokenizer has tokens."""
        return int(self._embeddings.weight.shape[0])

    @property
    def is_encoder_decoder(self) -> bool:
        """The input goes through an encoder, and a decoder answers (T5), instead of one sequence for both."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def tokenizer(self) -> LanguageTokenizer:
        """The tokenizer.

        Raises:
            UsageError: The model was made without one.
        """
        if self._tokenizer is None:
            raise UsageError("this language model has no tokenizer", hint="give one when it is made")
        return self._tokenizer

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids (B, T) int64 → what the model reads, (B, T, W)."""
        embedded: Tensor = self._embeddings(input_ids)
        return embedded

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> LanguageModelOutput:
        """Predict each next token.

        Args:
            inputs_embeds: (B, T, W), as `embed` gives them or a projector does.
            attention_mask: (B, T) bool or int, nonzero where there is a token; padding may stand on either side, and
                positions are counted without it. By default there is none. Or (B, 1, T, T) bool, true where a token
                looks at another, for samples that are packed into one row.
            labels: int64, -100 where nothing is asked. Of a causal model (B, T): the input's own ids; the shift by
                one happens here. Of an encoder-decoder (B, S): the answer.
            decoder_input_ids: (B, S) int64, what an encoder-decoder has said so far; follows from ``labels``.
            position_ids: (B, T) int64; by default counted along a mask (B, T), or from 0.

        Raises:
            UsageError: Labels of another shape, or of an encoder-decoder neither labels nor ``decoder_input_ids``; or
                packed samples for a model that takes no positions.
        """
        inputs = self._inputs(inputs_embeds, attention_mask, position_ids)
        if self.is_encoder_decoder:
            if labels is None and decoder_input_ids is None:
                raise UsageError("an encoder-decoder needs labels or decoder_input_ids to answer")
            inputs["decoder_input_ids"] = decoder_input_ids
        elif decoder_input_ids is not None:
            raise UsageError("a causal language model has no decoder of its own", hint="leave decoder_input_ids out")
        elif labels is not None and labels.shape != inputs_embeds.shape[:2]:
            shapes = f"{tuple(labels.shape)} for an input of {tuple(inputs_embeds.shape[:2])} tokens"
            raise UsageError(
                f"labels have the shape {shapes}", hint="a label for every token, -100 where none is asked"
            )
        output = self.model(**inputs, labels=labels)
        return LanguageModelOutput(output.logits, output.loss)

    def loss(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor,
        *,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The summed ``-log p(token)`` over all labels but -100, a scalar; the arguments are those of `forward`.

        As `forward` has it, times the number of labels; but logits, which of a large vocabulary are most of the memory,
        are computed at those places alone where some sample is asked something.
        """
        if self.is_encoder_decoder or not self._takes_places:
            mean: Tensor = self(inputs_embeds, attention_mask, labels=labels, position_ids=position_ids).loss
            return mean * self.count_labels(labels)
        inputs = self._inputs(inputs_embeds, attention_mask, position_ids)
        places = (labels[:, 1:] != IGNORED).any(0).nonzero().flatten()
        logits = self.model(**inputs, logits_to_keep=places).logits
        asked = labels[:, 1:][:, places].flatten()
        return functional.cross_entropy(logits.flatten(0, 1).float(), asked, ignore_index=IGNORED, reduction="sum")

    def step(
        self,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor,
        cache: Any,
        *,
        encoded: Any = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Tensor:
        """Go on from what was read before, for generation.

        Args:
            inputs_embeds: (B, T, W), what is new; None for an encoder-decoder.
            attention_mask: (B, T' + T) int64, of what was read before and of what is new; of an encoder-decoder that
                of its encoder.
            cache: A cache of `transformers` with the T' tokens before; what is new is added in place.
            encoded: What the encoder of an encoder-decoder says.
            decoder_input_ids: (B, 1) int64, what its decoder said last.

        Returns:
            (B, V) floating, logits of what comes next.
        """
        if self.is_encoder_decoder:
            inputs = {"encoder_outputs": encoded, "decoder_input_ids": decoder_input_ids}
            inputs["attention_mask"] = attention_mask
        else:
            assert inputs_embeds is not None
            inputs = self._inputs(inputs_embeds, attention_mask, None)
            if "position_ids" in inputs:
                inputs["position_ids"] = inputs["position_ids"][:, -inputs_embeds.shape[1] :]
        if self._takes_places:
            inputs["logits_to_keep"] = 1  # of a large vocabulary, the others would be most of the memory
        logits: Tensor = self.model(**inputs | {"use_cache": True, "cache": cache}).logits
        return logits[:, -1]

    def count_labels(self, labels: Tensor) -> int:
        """How many tokens are asked: of a causal model never the first of a row, which nothing comes before."""
        asked = labels if self.is_encoder_decoder else labels[:, 1:]
        return int((asked != IGNORED).sum())

    def _inputs(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {"inputs_embeds": inputs_embeds, "use_cache": False}
        if position_ids is not None and not self.takes_positions:
            raise UsageError(
                "this language model counts its positions itself, so samples cannot share a row", hint="do not pack"
            )
        if attention_mask is not None and attention_mask.ndim == 2:
            inputs["attention_mask"] = attention_mask.long()
            if position_ids is None and self.takes_positions:  # left padding would move the words of models that
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)  # learned their positions
        elif attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        return inputs

    @property
    def _embeddings(self) -> Any:
        return self.model.get_input_embeddings()

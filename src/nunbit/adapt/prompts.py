"""Prompt tuning (CoOp, arXiv 2109.01134): the words around a label become vectors that learn.

The text tower stays as it is; gradients go through it to the vectors, which all classes share. Of the starter, whose
text tower is no torch module, what is shared and learned is a vector added to the sentence embeddings.

Shapes: N examples, C classes, T tokens, M learned vectors, D width of the text tower, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from nunbit.adapt.rung import PromptTower, Rung, text_head
from nunbit.adapt.trained import descend
from nunbit.clip import Clip
from nunbit.errors import UsageError
from nunbit.head import Head
from nunbit.starter.model import Starter

if TYPE_CHECKING:
    from nunbit.adapt.rung import Targets
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

WORDS = "a photo of a"
"""What the vectors start from."""


class ClipPrompts:
    """The text tower of a `Clip`; the vectors stand where the tokens of ``words`` stood.

    Args:
        encoder: On torch.
        names: C labels.
        words: M tokens before each label.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str], words: str = WORDS) -> None:
        self._clip: Clip = encoder.model
        ids = torch.from_numpy(encoder.tokenizer([f"{words} {name}." for name in names]))  # (C, T)
        with torch.no_grad():
            self._embeddings = self._clip.text_encoder.token_embedding(ids)  # (C, T, D)
        self._ids = ids
        (alone,) = encoder.tokenizer([words])
        (empty,) = encoder.tokenizer(["."])
        self._first = int(alone[0] == empty[0])  # behind the token that starts every text, where there is one
        common = slice(self._first, min(len(alone), ids.shape[1]))
        same = (ids[:, common] == torch.from_numpy(alone[common])).all(0)
        self._count = int(same.int().cumprod(0).sum())
        if self._count == 0:
            raise UsageError(f"the tokens of {words!r} change with what follows them: prompts cannot be tuned")

    def start(self) -> Tensor:
        """(M, D)."""
        vectors: Tensor = self._embeddings[0, self._first : self._first + self._count].clone()
        return vectors

    def embed(self, context: Tensor) -> Tensor:
        """(M, D) → (C, E) unit rows."""
        before, after = self._embeddings[:, : self._first], self._embeddings[:, self._first + self._count :]
        shared = context.expand(len(self._ids), -1, -1)
        embeddings = torch.cat([before, shared, after], dim=1)  # (C, T, D)
        features = self._clip.text_encoder.text_features(self._ids, embeddings=embeddings)
        return functional.normalize(features, dim=-1)


class StarterPrompts:
    """The starter's side of texts.

    Args:
        encoder: The starter, on torch.
        names: C labels.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        starter: Starter = encoder.model
        self._bridge = starter.bridge
        self._sentences = torch.from_numpy(starter.text_tower.encode(names))

    def start(self) -> Tensor:
        """Zeros, (512,)."""
        return torch.zeros(self._sentences.shape[1])

    def embed(self, context: Tensor) -> Tensor:
        """(512,) → (C, 512) unit rows."""
        return self._bridge.encode_text(self._sentences + context)


def open_prompts(encoder: Encoder, names: Sequence[str]) -> PromptTower:
    """The prompts of an encoder.

    Args:
        encoder: On whatever engine; its torch model is loaded where it is not there.
        names: C labels.

    Raises:
        UsageError: Its text tower cannot be reached.
    """
    from nunbit.loading import load

    if not encoder.engine.name.startswith("torch"):
        encoder = load(encoder.name, engine="torch")
    if isinstance(encoder.model, Clip):
        return ClipPrompts(encoder, names)
    if isinstance(encoder.model, Starter):
        return StarterPrompts(encoder, names)
    raise UsageError(f"the text tower of {encoder.name} cannot be reached: its prompts cannot be tuned")


class PromptTuning(Rung):
    """CoOp: what stands before every label is learned; ends as rows of weights, so that it costs nothing later."""

    NAME = "prompt-tuning"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"steps": 50, "learning_rate": 2e-3}
    NEEDS_TOWER = True

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        tower = self.classes.prompts
        if tower is None:
            raise UsageError("prompt tuning needs the text tower", hint="class_texts(..., prompts=True)")
        context = tower.start().requires_grad_(True)
        inputs = torch.from_numpy(rows)
        bias = (self.classes.logit_bias or 0.0) if multi_label else 0.0

        def logits(chosen: Tensor) -> Tensor:
            rows: Tensor = tower.embed(context)
            return self.classes.logit_scale * inputs[chosen] @ rows.T + bias

        descend([context], logits, targets, multi_label, self.settings)
        with torch.no_grad():
            return text_head(self.classes, tower.embed(context).numpy(), multi_label=multi_label)

"""What reads conversations, one token behind another, and remembers them while they go on.

Shapes: B answers, T new tokens, N tokens in all, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from nunbit.generate.prefix import Key, PrefixCache
from nunbit.language_model import LanguageModel
from nunbit.language_model.transformers_model import import_transformers

Look: TypeAlias = Callable[[Tensor], Tensor]
"""(K, 3, S, S) pixels → (K, P, D) patch features."""


class Session(Protocol):
    """One conversation that is being read, or several side by side."""

    eye: Look | None
    """Looks at pictures; None: the model's own eye."""

    def begin(self, keys: Sequence[Key]) -> int:
        """Before anything is read.

        Args:
            keys: Of the one conversation (`nunbit.generate.prefix.keys_of`); none where nothing shall be remembered.

        Returns:
            So many of its tokens were read before, and need not be given.
        """

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Go on from what was read before.

        Args:
            inputs_embeds: (B, T, W) floating, what is new.
            attention_mask: (B, N) bool, of what was read before and of what is new; padding stands on the left.

        Returns:
            (B, V) floating, logits of what comes next.
        """

    def end(self, keys: Sequence[Key]) -> None:
        """Nothing more is read.

        Args:
            keys: Of all that was given, to be remembered by.
        """


class TorchSession:
    """The language model itself.

    Args:
        language_model: Not an encoder-decoder.
        prefixes: Where what was read is remembered; by default nowhere.
    """

    eye: Look | None = None

    def __init__(self, language_model: LanguageModel, prefixes: PrefixCache | None = None) -> None:
        self._model, self._prefixes = language_model, prefixes or PrefixCache(0)
        self._cache: Any = None

    def begin(self, keys: Sequence[Key]) -> int:
        """As `Session.begin`."""
        self._cache, read = self._prefixes.take(keys)
        if self._cache is None:
            self._cache = import_transformers().DynamicCache(config=self._model.model.config)
        return read

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Session.read`."""
        return self._model.step(inputs_embeds, attention_mask.long(), self._cache)

    def end(self, keys: Sequence[Key]) -> None:
        """As `Session.end`."""
        if self._cache is not None:
            self._prefixes.keep(keys, self._cache)

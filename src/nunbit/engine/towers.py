"""A prepared engine as `nunbit.encode.Encoder` runs it; torch is loaded only when something else is asked of it.

Shapes: B batch, N texts, E embedding.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from nunbit.config import from_plain
from nunbit.encode import DualEncoder, Encoder
from nunbit.errors import NunbitWarning, UsageError, WeightsError
from nunbit.text import TokenizerConfig
from nunbit.text.batches import batches_by_length
from nunbit.text.saved import restore_tokenizer

if TYPE_CHECKING:
    from nunbit.engine.record import Record
    from nunbit.text import Tokenizer
    from nunbit.types import FloatArray

Run: TypeAlias = Callable[[Any], "FloatArray"]
"""What a tower takes → rows (B, E); may be called from several threads."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the work is done; each is made when it is first needed.

    Attributes:
        image: Makes what runs the picture tower.
        text: Makes what runs the text tower; None where ``original`` embeds texts without torch.
        original: Loads the encoder that was compiled.
        tokenizer: The folder with the vocabulary.
    """

    image: Callable[[], Run]
    text: Callable[[], Run] | None
    original: Callable[[], Encoder]
    tokenizer: Path


class CompiledEncoder(Encoder):
    """An encoder that another engine than torch computes."""

    towers: CompiledTowers

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model folder of the encoder that was compiled, with its golden outputs, in float32."""
        self.towers.original.save_pretrained(folder)

    @property
    def _patches(self) -> NoReturn:
        raise UsageError(
            f"{self.name} is compiled and gives embeddings alone, no patch features",
            hint='load it with engine="torch"',
        )


class CompiledTowers:
    """The towers of an encoder, run by another engine than torch.

    Args:
        record: What is known about the encoder.
        parts: Where the work is done.
    """

    def __init__(self, record: Record, parts: Parts) -> None:
        self._record = record
        self._parts = parts
        self._lock = threading.RLock()  # several threads encode, one compiles

    @property
    def fingerprint(self) -> str:
        """Of the encoder that was compiled: engines that agree are one encoder."""
        return self._record.fingerprint

    @property
    def logit_scale(self) -> float:
        """As in `Encoder.logit_scale`."""
        return self._record.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """As in `Encoder.logit_bias`."""
        return self._record.logit_bias

    @property
    def model(self) -> NoReturn:
        """There is no torch module to look into or to train.

        Raises:
            UsageError: Always, with the remedy.
        """
        raise UsageError("this encoder is compiled and has no torch module", hint='load it with engine="torch"')

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Texts → token ids; None where the model takes texts as they are."""
        settings = self._record.tokenizer
        return (
            None
            if settings is None
            else restore_tokenizer(self._parts.tokenizer, from_plain(TokenizerConfig, settings))
        )

    def encode_pixels(self, pixel_values: FloatArray | Sequence[FloatArray]) -> FloatArray:
        """(B, 3, S, S) float32 → (B, E) unit rows."""
        with self._lock:
            run = self._image
        rows = _unit(run(np.asarray(pixel_values, np.float32)))
        return rows if np.isfinite(rows).all() else self._ask_original().encode_pixels(pixel_values)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, E) unit rows."""
        if self._parts.text is None:
            return self.original.towers.encode_texts(texts)
        with self._lock:
            run, tokenizer = self._text, self.tokenizer
        assert tokenizer is not None  # what compiles a text tower has saved its tokenizer
        rows = np.empty((len(texts), self._record.embedding_size), np.float32)
        for numbers, ids in batches_by_length(tokenizer(texts), tokenizer.config):
            rows[numbers] = _unit(run(ids))
        return rows if np.isfinite(rows).all() else self._ask_original().encode_texts(texts)

    def programs(self) -> dict[str, Any]:
        """Those of the encoder that was compiled."""
        return self.original.towers.programs()

    def save(self, folder: Path) -> None:
        """Write the encoder that was compiled, in float32."""
        self.original.towers.save(folder)

    def _ask_original(self) -> DualEncoder:
        """What computes inputs for which the engine gave no numbers.

        OpenVINO 2026.4 does so in bfloat16 on processors with AMX, now and then and for any input.
        """
        message = "the engine gave no numbers for some inputs, which torch computes instead"
        warnings.warn(NunbitWarning(f"{message}; engine='openvino-fp32' avoids that"), stacklevel=3)
        return self.original.towers

    @cached_property
    def _image(self) -> Run:
        return self._parts.image()

    @cached_property
    def _text(self) -> Run:
        assert self._parts.text is not None
        return self._parts.text()

    @property
    def original(self) -> Encoder:
        """The encoder that was compiled, loaded with torch when this is first asked for.

        Raises:
            WeightsError: Its files are others by now.
        """
        with self._lock:
            return self._original

    @cached_property
    def _original(self) -> Encoder:
        encoder = self._parts.original()
        if encoder.fingerprint != self.fingerprint:
            hint = "load it again; to change a model that is in use, write it into another folder"
            raise WeightsError(f"the files of {encoder.name} were changed after it was loaded", hint=hint)
        return encoder


def _unit(rows: FloatArray) -> FloatArray:
    """Rounding to 8 or 16 bits leaves rows of nearly unit length."""
    unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit

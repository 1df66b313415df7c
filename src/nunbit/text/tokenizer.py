"""Sub-word tokenizers: texts → (N, T) ids that the model was trained to read.

The cutting itself is done by two libraries: `tokenizers` (byte-pair encoding and whatever a ``tokenizer.json`` says)
and `sentencepiece`. What decides whether an encoder answers right is around it, and lives here: canonicalization, begin
and end marks, cutting at the limit, padding.

Shapes: N texts, T tokens.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from nunbit.errors import NunbitWarning, UsageError
from nunbit.text.canonical import Canonicalization, canonicalizer

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer as RustTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """What decides a model's token ids, beside its vocabulary.

    Attributes:
        kind: ``clip_bpe``: CLIP's byte-pair encoding; ``tokenizer_json``: as that file says; ``sentencepiece``.
        canonicalization: What is done to a text first.
        context_length: The most tokens, marks included. A longer text is cut, and keeps its end mark.
        begin_token_id: In front of every text; None for none.
        end_token_id: Behind every text.
        pad_token_id: Fills rows.
        padding: ``max_length``: to ``context_length``, where padding is part of the answer (SigLIP); ``longest``: to
            the longest text of the call, where it is not (CLIP).
        padding_side: Where it goes.
    """

    kind: Literal["clip_bpe", "tokenizer_json", "sentencepiece"]
    canonicalization: Canonicalization
    context_length: int
    begin_token_id: int | None
    end_token_id: int
    pad_token_id: int
    padding: Literal["max_length", "longest"]
    padding_side: Literal["right", "left"] = "right"


class Vocabulary(Protocol):
    """What cuts a canonical text into ids, without marks."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """N texts → N lists of ids."""

    def digest(self) -> str:
        """sha256 (hex) over all that decides the ids."""

    def token(self, number: int) -> str:
        """The spelling of an id."""

    def highest_id(self) -> int:
        """The highest id that a text may become."""

    def save(self, folder: Path) -> None:
        """Write the files that it can be read from again."""


class Tokenizer:
    """Texts → ids.

    Args:
        vocabulary: Cuts texts.
        config: Everything around that.
    """

    def __init__(self, vocabulary: Vocabulary, config: TokenizerConfig) -> None:
        self.vocabulary = vocabulary
        self.config = config
        self._canonicalize = canonicalizer(config.canonicalization)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Cut texts into tokens.

        Args:
            texts: N texts; an empty one becomes its marks alone.

        Returns:
            (N, T) int64, T as ``padding`` says.

        Raises:
            UsageError: One string instead of several.

        Warns:
            NunbitWarning: Once a call, when texts were cut at the model's limit.
        """
        if isinstance(texts, str):
            raise UsageError("a tokenizer takes a list of texts, got one string", hint=f"write [{texts[:40]!r}]")
        c = self.config
        prepared = texts if self._canonicalize is None else [self._canonicalize(text) for text in texts]
        cut = self.vocabulary.encode(prepared)
        begin = [] if c.begin_token_id is None else [c.begin_token_id]
        room = c.context_length - len(begin) - 1
        too_long = [number for number, ids in enumerate(cut) if len(ids) > room]
        if too_long:
            first = texts[too_long[0]]
            message = f"{len(too_long)} of {len(texts)} texts are longer than {c.context_length} tokens and were cut"
            warnings.warn(f"{message}; the first begins {first[:40]!r}", NunbitWarning, stacklevel=2)
        rows = [[*begin, *ids[:room], c.end_token_id] for ids in cut]
        longest = max(map(len, rows), default=0)
        padded = np.full(
            (len(rows), c.context_length if c.padding == "max_length" else longest), c.pad_token_id, np.int64
        )
        for number, row in enumerate(rows):
            start = padded.shape[1] - len(row) if c.padding_side == "left" else 0
            padded[number, start : start + len(row)] = row
        return padded


class RustVocabulary:
    """A tokenizer of the `tokenizers` library.

    Args:
        tokenizer: Cuts canonical texts; what it says of padding and truncation is switched off.
        identity: Everything that decides the ids, as text: libraries write the same tokenizer differently with time.
    """

    def __init__(self, tokenizer: RustTokenizer, identity: str) -> None:
        self._tokenizer = tokenizer
        self._identity = identity
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """N texts → N lists of ids."""
        return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def digest(self) -> str:
        """sha256 over all that decides the ids."""
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def token(self, number: int) -> str:
        """The spelling of an id."""
        return str(self._tokenizer.id_to_token(number))

    def highest_id(self) -> int:
        """The highest id that a text may become."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        self._tokenizer.save(str(folder / "tokenizer.json"))


class SentencePieceVocabulary:
    """A SentencePiece model, cut as SigLIP's are: with a space in front of the text, whatever the model file says.

    Args:
        path: ``spiece.model``.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._path = path
        self._processor = SentencePieceProcessor(model_file=str(path))
        # Unless something stands before it, the library may drop the leading space: a piece that is dropped again.
        self._guard = self._processor.id_to_piece(self._processor.unk_id())
        self._guard_length = len(self._processor.encode(self._guard))

    def token_id(self, piece: str) -> int:
        """The id of a piece."""
        return int(self._processor.piece_to_id(piece))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """N texts → N lists of ids."""
        guarded = [f"{self._guard}\u2581{text.replace(chr(0x2581), ' ').strip()}" for text in texts]
        return [ids[self._guard_length :] for ids in self._processor.encode(guarded)]

    def digest(self) -> str:
        """sha256 of the model file."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def token(self, number: int) -> str:
        """The spelling of an id."""
        return str(self._processor.id_to_piece(number))

    def highest_id(self) -> int:
        """The highest id that a text may become."""
        return int(self._processor.vocab_size()) - 1

    def save(self, folder: Path) -> None:
        """Copy the model file."""
        if self._path.resolve() != (folder / "spiece.model").resolve():
            shutil.copyfile(self._path, folder / "spiece.model")

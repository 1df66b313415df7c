"""A tokenizer that this project saved → the tokenizer."""

from __future__ import annotations

from pathlib import Path

from nunbit.text.clip_bpe import Dialect, make_vocabulary, read_byte_pairs
from nunbit.text.json_vocabulary import read_json_tokenizer
from nunbit.text.tokenizer import SentencePieceVocabulary, Tokenizer, TokenizerConfig


def restore_tokenizer(folder: Path, settings: TokenizerConfig) -> Tokenizer:
    """Read a vocabulary of our own folder, whose settings are known."""
    if settings.kind == "clip_bpe":
        dialect: Dialect = "transformers" if settings.canonicalization == "nfc_lower" else "open_clip"
        return Tokenizer(make_vocabulary(read_byte_pairs(folder), dialect), settings)
    if settings.kind == "sentencepiece":
        return Tokenizer(SentencePieceVocabulary(folder / "spiece.model"), settings)
    file = read_json_tokenizer(folder)  # lower case is part of the saved file
    return Tokenizer(file.vocabulary(file.marks), settings)

"""Texts in, token ids out: each model's own canonicalization, vocabulary, length and padding; and prompt templates."""

from nunbit.text.tokenizer import Tokenizer, TokenizerConfig

__all__ = ["Tokenizer", "TokenizerConfig"]

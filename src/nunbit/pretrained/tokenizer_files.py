"""Tokenizers ↔ the files of a model folder, for each family."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nunbit.clip import ClipConfig
from nunbit.errors import UnsupportedModel
from nunbit.pretrained.parts import read_json, write_json
from nunbit.text import Tokenizer, TokenizerConfig
from nunbit.text.canonical import Canonicalization
from nunbit.text.clip_bpe import BEGIN, END, Dialect, make_vocabulary, read_byte_pairs
from nunbit.text.tokenizer import RustVocabulary, SentencePieceVocabulary

_CLEANING: dict[str, Canonicalization] = {
    "lower": "repair_lower",
    "whitespace": "repair",
    "canonicalize": "repair_words",
}
_CLASSES = {"clip_bpe": "CLIPTokenizer", "sentencepiece": "SiglipTokenizer", "tokenizer_json": "TokenizersBackend"}


def read_clip_tokenizer(folder: Path, config: ClipConfig, dialect: Dialect) -> Tokenizer:
    """Read CLIP's byte-pair encoding as `transformers` or open_clip applies it.

    Raises:
        UnsupportedModel: There is no vocabulary, or it is not the model's.
    """
    pairs = read_byte_pairs(folder)
    text = config.text
    begin, end = (pairs.vocabulary.get(mark) for mark in (BEGIN, END))
    if begin is None or end is None or max(pairs.vocabulary.values()) >= text.vocab_size:
        raise UnsupportedModel(f"{folder}: the vocabulary ({len(pairs.vocabulary)}) is not CLIP's ({text.vocab_size})")
    padding = 0  # open_clip
    if dialect == "transformers":
        padding = pairs.vocabulary.get(_special(folder, "pad_token") or END, end)
    settings = TokenizerConfig(
        kind="clip_bpe",
        canonicalization="nfc_lower" if dialect == "transformers" else "repair_lower",
        context_length=text.max_position_embeddings,
        begin_token_id=begin,
        end_token_id=end,
        pad_token_id=padding,
        padding="longest" if text.causal and text.pooling == "end_token" else "max_length",
    )
    return Tokenizer(make_vocabulary(pairs, dialect), settings)


def read_siglip_tokenizer(folder: Path, context_length: int) -> Tokenizer:
    """Read SigLIP's SentencePiece model or SigLIP 2's ``tokenizer.json`` as `transformers` applies them."""
    if (folder / "spiece.model").is_file():
        pieces = SentencePieceVocabulary(folder / "spiece.model")
        end = pieces.token_id(_special(folder, "eos_token") or "</s>")
        pad = pieces.token_id(_special(folder, "pad_token") or "</s>")
        cased = _tokenizer_config(folder).get("do_lower_case") is False
        cleaning: Canonicalization = "cased_words" if cased else "words"
        settings = _padded("sentencepiece", cleaning, context_length, end, pad, _side(folder))
        return Tokenizer(pieces, settings)
    tokens = _json_tokens(folder)
    gemma = _is_gemma(tokens)
    vocabulary, end, pad = _read_json_vocabulary(folder, tokens, lower=gemma)
    cleaning = "lower" if gemma else "words"
    return Tokenizer(vocabulary, _padded("tokenizer_json", cleaning, context_length, end, pad, _side(folder)))


def read_open_clip_tokenizer(folder: Path, config: ClipConfig, text_cfg: Mapping[str, Any]) -> Tokenizer:
    """Read the tokenizer that open_clip would take for this text encoder."""
    cleaning = str((text_cfg.get("tokenizer_kwargs") or {}).get("clean", ""))
    if not text_cfg.get("hf_tokenizer_name"):
        tokenizer = read_clip_tokenizer(folder, config, "open_clip")
        canonicalization = _CLEANING[cleaning or "lower"]
        return Tokenizer(tokenizer.vocabulary, replace(tokenizer.config, canonicalization=canonicalization))
    vocabulary, end, pad = _read_json_vocabulary(folder, _json_tokens(folder), lower=False)
    canonicalization = _CLEANING[cleaning or "whitespace"]
    length = config.text.max_position_embeddings
    return Tokenizer(vocabulary, _padded("tokenizer_json", canonicalization, length, end, pad, _side(folder)))


def restore_tokenizer(folder: Path, settings: TokenizerConfig) -> Tokenizer:
    """Read a vocabulary of our own folder, whose settings are known."""
    if settings.kind == "clip_bpe":
        dialect: Dialect = "transformers" if settings.canonicalization == "nfc_lower" else "open_clip"
        return Tokenizer(make_vocabulary(read_byte_pairs(folder), dialect), settings)
    if settings.kind == "sentencepiece":
        return Tokenizer(SentencePieceVocabulary(folder / "spiece.model"), settings)
    tokens = {number: token for token, number in _json_tokens(folder).items()}
    # Lower case is part of the saved file.
    vocabulary = RustVocabulary.from_file(folder / "tokenizer.json", end_token=tokens[settings.end_token_id])
    return Tokenizer(vocabulary, settings)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the vocabulary and what `transformers` wants to know of it."""
    tokenizer.vocabulary.save(folder)
    config = tokenizer.config
    marks = {"eos_token": config.end_token_id, "pad_token": config.pad_token_id}
    if config.begin_token_id is not None:
        marks["bos_token"] = config.begin_token_id
    content: dict[str, Any] = {
        "tokenizer_class": _CLASSES[config.kind],
        "model_max_length": config.context_length,
        "padding_side": config.padding_side,
        **{name: tokenizer.vocabulary.token(number) for name, number in marks.items()},
    }
    if config.canonicalization == "lower":
        content |= {"tokenizer_class": "Siglip2Tokenizer", "add_bos_token": False, "add_eos_token": True}
    write_json(folder / "tokenizer_config.json", content)


def _padded(
    kind: Any, canonicalization: Canonicalization, length: int, end: int, pad: int, side: Any
) -> TokenizerConfig:
    return TokenizerConfig(
        kind=kind,
        canonicalization=canonicalization,
        context_length=length,
        begin_token_id=None,
        end_token_id=end,
        pad_token_id=pad,
        padding="max_length",
        padding_side=side,
    )


def _json_tokens(folder: Path) -> dict[str, int]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = "copy tokenizer.json (or spiece.model) from where the model is from"
        raise UnsupportedModel(f"{folder} has no tokenizer.json", hint=hint)
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    listed = (
        vocabulary if isinstance(vocabulary, dict) else {piece: number for number, (piece, _) in enumerate(vocabulary)}
    )
    return listed | {token["content"]: token["id"] for token in content.get("added_tokens", [])}


def _is_gemma(tokens: Mapping[str, int]) -> bool:
    return "<eos>" in tokens  # T5's vocabularies, SigLIP's first, have "</s>"


def _read_json_vocabulary(folder: Path, tokens: Mapping[str, int], *, lower: bool) -> tuple[RustVocabulary, int, int]:
    """A ``tokenizer.json``, its end token and its padding token, as the folder or else the family names them."""
    gemma = _is_gemma(tokens)
    end = _special(folder, "eos_token") or ("<eos>" if gemma else "</s>")
    pad = _special(folder, "pad_token") or ("<pad>" if gemma else "</s>")
    if missing := [name for name in (end, pad) if name not in tokens]:
        raise UnsupportedModel(f"{folder}: the vocabulary has no {', '.join(missing)}")
    vocabulary = RustVocabulary.from_file(folder / "tokenizer.json", end_token=end, lower=lower)
    return vocabulary, tokens[end], tokens[pad]


def _special(folder: Path, name: str) -> str | None:
    """A mark's spelling as the tokenizer's configuration gives it."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            value = json.loads((folder / file).read_text(encoding="utf-8")).get(name)
            if value is not None:
                return str(value["content"] if isinstance(value, Mapping) else value)
    return None


def _side(folder: Path) -> str:
    return "left" if _tokenizer_config(folder).get("padding_side") == "left" else "right"


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}

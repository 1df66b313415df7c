"""Tokenizers ↔ the files of a model folder, for each family."""

from __future__ import annotations

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
from nunbit.text.json_vocabulary import JsonTokenizer, Marks, read_json_tokenizer
from nunbit.text.tokenizer import SentencePieceVocabulary

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
        named = {_special(folder, f"{which}_token") for which in ("bos", "eos", "unk", "pad")} - {None, BEGIN, END}
        # It looks for them in a text first: with "!" for padding, a text is cut at each "!".
        pairs = replace(pairs, added=pairs.added | {m: pairs.vocabulary[m] for m in named if m in pairs.vocabulary})
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
    file = read_json_tokenizer(folder)
    gemma = "<eos>" in file.tokens  # T5's vocabularies, which SigLIP's first have, know "</s>"
    cleaning = "lower" if gemma else "words"
    return _json_tokenizer(file, folder, cleaning, context_length)


def read_open_clip_tokenizer(folder: Path, config: ClipConfig, text_cfg: Mapping[str, Any]) -> Tokenizer:
    """Read the tokenizer that open_clip would take for this text encoder."""
    cleaning = str((text_cfg.get("tokenizer_kwargs") or {}).get("clean", ""))
    if not text_cfg.get("hf_tokenizer_name"):
        tokenizer = read_clip_tokenizer(folder, config, "open_clip")
        canonicalization = _CLEANING[cleaning or "lower"]
        return Tokenizer(tokenizer.vocabulary, replace(tokenizer.config, canonicalization=canonicalization))
    file, length = read_json_tokenizer(folder), config.text.max_position_embeddings
    return _json_tokenizer(file, folder, _CLEANING[cleaning or "whitespace"], length)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the vocabulary and what `transformers` wants to know of it."""
    tokenizer.vocabulary.save(folder)
    config = tokenizer.config
    # Where padding changes nothing it is written as the end mark: open_clip pads with "!", and a text that has one
    # would be cut at it by `transformers`, which looks for the padding mark in texts.
    pad = config.end_token_id if config.padding == "longest" else config.pad_token_id
    marks = {"eos_token": config.end_token_id, "pad_token": pad}
    if config.begin_token_id is not None:
        marks["bos_token"] = config.begin_token_id
    content: dict[str, Any] = {
        "tokenizer_class": _CLASSES[config.kind],
        "model_max_length": config.context_length,
        "padding_side": config.padding_side,
        **{name: tokenizer.vocabulary.token(number) for name, number in marks.items()},
    }
    if config.kind == "sentencepiece":
        content["do_lower_case"] = config.canonicalization == "words"
    if config.canonicalization == "lower":
        content |= {"tokenizer_class": "Siglip2Tokenizer", "add_bos_token": False, "add_eos_token": True}
    write_json(folder / "tokenizer_config.json", content)


def transformers_cuts_alike(config: TokenizerConfig) -> bool:
    """Tell whether `transformers` has a tokenizer that prepares texts in this way."""
    known = {
        "clip_bpe": ("nfc_lower", "repair_lower"),  # it repairs nothing, which few texts need
        "sentencepiece": ("words", "cased_words"),
        "tokenizer_json": ("lower",),
    }
    return config.canonicalization in known[config.kind]


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


def _json_tokenizer(file: JsonTokenizer, folder: Path, cleaning: Canonicalization, length: int) -> Tokenizer:
    """A ``tokenizer.json`` with its marks; what it leaves open is as the folder, or else the family, has it."""
    gemma = "<eos>" in file.tokens
    end = file.marks.end or _special(folder, "eos_token") or ("<eos>" if gemma else "</s>")
    # Gemma's own file opens a text with a mark; SigLIP 2 closes it instead.
    begin = None if gemma and file.marks.end is None else file.marks.begin
    pad = _special(folder, "pad_token") or ("<pad>" if gemma or (begin and "<pad>" in file.tokens) else "</s>")
    if missing := [name for name in (end, pad) if name not in file.tokens]:
        raise UnsupportedModel(f"{folder}: the vocabulary has no {', '.join(missing)}")
    settings = _padded("tokenizer_json", cleaning, length, file.tokens[end], file.tokens[pad], _side(folder))
    settings = replace(settings, begin_token_id=None if begin is None else file.tokens[begin])
    return Tokenizer(file.vocabulary(Marks(begin, end), lower=cleaning == "lower"), settings)


def _special(folder: Path, name: str) -> str | None:
    """A mark's spelling as the tokenizer's configuration gives it."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            value = read_json(folder / file).get(name)
            if value is not None:
                return str(value["content"] if isinstance(value, Mapping) else value)
    return None


def _side(folder: Path) -> str:
    return "left" if _tokenizer_config(folder).get("padding_side") == "left" else "right"


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}

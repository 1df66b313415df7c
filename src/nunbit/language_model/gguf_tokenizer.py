"""The tokenizer that a GGUF file carries: byte pairs (GPT-2's, with every digit by itself), as SmolLM2 has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nunbit.errors import UnsupportedModel
from nunbit.language_model.transformers_model import import_transformers

_KEY = "tokenizer.ggml"
_CONTROL, _ADDED = 3, 4  # token types: marks such as <|im_end|>, and texts that are never cut


def read_tokenizer(metadata: Mapping[str, Any], path: Path) -> Any:
    """Build the tokenizer, with the file's chat template if it has one.

    Args:
        metadata: The file's key-value pairs.
        path: The file, for messages.

    Returns:
        A ``PreTrainedTokenizerFast``, padding on the left as generation in batches needs it.

    Raises:
        UnsupportedModel: Another kind of tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = metadata.get(f"{_KEY}.model"), metadata.get(f"{_KEY}.pre")
    if kind != ("gpt2", "smollm"):
        raise UnsupportedModel(f"{path.name} has a tokenizer of the kind {kind}; only ('gpt2', 'smollm') is known here")
    if metadata.get(f"{_KEY}.add_bos_token") or metadata.get(f"{_KEY}.add_eos_token"):
        raise UnsupportedModel(f"{path.name} adds marks to every text, which this kind of tokenizer does not do")
    tokens, types = metadata[f"{_KEY}.tokens"], metadata[f"{_KEY}.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata[f"{_KEY}.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    marked = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in (_CONTROL, _ADDED)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token, kind in marked if kind == _CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in marked if kind == _ADDED])
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {ours: metadata.get(f"{_KEY}.{theirs}_token_id") for theirs, ours in names.items()}
    wrapped = import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": tokens[number] for name, number in ids.items() if number is not None},
    )
    wrapped.chat_template = metadata.get("tokenizer.chat_template")
    return wrapped

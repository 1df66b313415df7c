"""A vocabulary of one's own: CLIP's kind of byte-pair encoding, learned from the texts that will teach a model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from unicodedata import normalize

from nunbit.errors import UsageError
from nunbit.text.clip_bpe import BEGIN, END, END_OF_WORD, WORDS, BytePairs, byte_characters, make_vocabulary
from nunbit.text.tokenizer import Tokenizer, TokenizerConfig


def learn_tokenizer(texts: Iterable[str], *, vocabulary_size: int, context_length: int) -> Tokenizer:
    """Learn merges of bytes (arXiv 1508.07909) within words, as CLIP's tokenizer cuts them.

    Any text can be cut, in any script: what was never merged is bytes. Equal texts in equal order give equal merges.

    Args:
        texts: What to learn from.
        vocabulary_size: The most tokens, the two marks and the 512 bytes (inside of a word and at its end) included.
        context_length: The most tokens that a text may become.

    Raises:
        UsageError: The vocabulary is too small for the bytes.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as RustTokenizer

    units = list(byte_characters().values())
    ends = [unit + END_OF_WORD for unit in units]
    base = [*units, *ends]
    if vocabulary_size < len(base) + 2:
        raise UsageError(f"a vocabulary of {vocabulary_size} tokens, expected at least {len(base) + 2}")
    learner = RustTokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    words = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 2,
        initial_alphabet=units,
        # Known from the start, or the trainer numbers them as it meets them, in another order in every process, and
        # decides between equally frequent pairs by that.
        special_tokens=ends,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator((normalize("NFC", text).lower() for text in texts), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = list(dict.fromkeys([*base, *("".join(pair) for pair in merges)]))[: vocabulary_size - 2]
    kept = set(tokens)
    merges = [pair for pair in merges if "".join(pair) in kept]
    vocabulary = {token: number for number, token in enumerate([*tokens, BEGIN, END])}
    settings = TokenizerConfig(
        kind="clip_bpe",
        canonicalization="nfc_lower",
        context_length=context_length,
        begin_token_id=vocabulary[BEGIN],
        end_token_id=vocabulary[END],
        pad_token_id=vocabulary[END],
        padding="longest",
    )
    return Tokenizer(make_vocabulary(BytePairs(vocabulary, merges), "transformers"), settings)

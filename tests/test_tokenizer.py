"""Token ids: equal to published ones and to the reference tokenizers, on captions and on anything people can type."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from clip_models import write_byte_pairs, write_gemma, write_sentencepiece
from nunbit.errors import NunbitWarning, UnsupportedModel, UsageError
from nunbit.pretrained.tokenizer_files import read_clip_tokenizer, read_siglip_tokenizer
from nunbit.pretrained.transformers_folder import clip_config
from nunbit.text import Tokenizer, TokenizerConfig
from nunbit.text.canonical import Canonicalization, canonicalizer
from nunbit.text.clip_bpe import BEGIN, END, BytePairs, Dialect, make_vocabulary, read_byte_pairs

transformers = pytest.importorskip("transformers")
open_clip = pytest.importorskip("open_clip")

# Hangul, its parts, emoji, controls, combining marks, joiners, other scripts, digits of other scripts, private use.
RANGES = (
    (0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3130, 0x318F), (0x1F300, 0x1FAFF), (0x20, 0x7E), (0x20, 0x7E), (0, 0x1F),
    (0x7F, 0x9F), (0x300, 0x36F), (0x200B, 0x200F), (0xFE00, 0xFE0F), (0x4E00, 0x9FFF), (0xFF00, 0xFFEF),
    (0xA0, 0x17F), (0x370, 0x3FF), (0x2028, 0x202F), (0x660, 0x669), (0xE000, 0xE010),
)  # fmt: skip
SENTENCES = (
    "두 마리의 개가 해변에서 뛰논다",
    "고양이 🐈‍⬛ sits on 소파",
    "It's I'LL they'Ve 3ㆍ1절",
    "ＡＢＣ １２３ ①",
    "ＩＸ ⅸ",
    "İstanbul ΑΣ ß",
)


def strange_texts(count: int = 1000) -> list[str]:
    rng = random.Random(0)
    texts = ["", " ", "\n\t", "x" * 300, "&amp;lt;b&gt;", "â€œquotedâ€", "👨‍👩‍👧‍👦" * 20, *SENTENCES]
    while len(texts) < count:
        pools = rng.sample(RANGES, 2)
        characters = (chr(rng.randint(*rng.choice(pools))) for _ in range(rng.randint(1, 60)))
        texts.append("".join(characters))
    return texts


@pytest.fixture(scope="module")
def pairs(shared: Path) -> BytePairs:
    return read_byte_pairs(shared / "golden/openai_clip")


@pytest.fixture(scope="module")
def captions(shared: Path) -> list[str]:
    content = json.loads((shared / "data/coco/captions_val2017.json").read_text(encoding="utf-8"))
    return [row["caption"] for row in content["annotations"]]


def clip_tokenizer(pairs: BytePairs, dialect: Dialect) -> Tokenizer:
    config = TokenizerConfig(
        kind="clip_bpe",
        canonicalization="nfc_lower" if dialect == "transformers" else "repair_lower",
        context_length=77,
        begin_token_id=pairs.vocabulary[BEGIN],
        end_token_id=pairs.vocabulary[END],
        pad_token_id=0,
        padding="max_length",
    )
    return Tokenizer(make_vocabulary(pairs, dialect), config)


def cut(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NunbitWarning)
        return tokenizer(texts)


@pytest.mark.parametrize("dialect", ["transformers", "open_clip"])
def test_published_token_ids(pairs: BytePairs, shared: Path, dialect: Dialect) -> None:
    golden = json.loads((shared / "golden/golden.json").read_text(encoding="utf-8"))
    tokenizer = clip_tokenizer(pairs, dialect)
    diagram, astronaut = golden["clip_vit_b32_CLIP.png"], golden["clip_vit_b32_astronaut"]
    for text, expected in [
        *zip(diagram["texts"], diagram["token_ids"], strict=True),
        (astronaut["text"], astronaut["token_ids"]),
    ]:
        assert tokenizer([text])[0, : len(expected)].tolist() == expected


def test_open_clips_tokenizer_on_captions_and_strange_texts(pairs: BytePairs, captions: list[str]) -> None:
    assert len(captions) == 25_014
    texts = captions + strange_texts()
    reference = open_clip.tokenizer.SimpleTokenizer()(texts).numpy()
    np.testing.assert_array_equal(cut(clip_tokenizer(pairs, "open_clip"), texts), reference)


def test_transformers_tokenizer_on_captions_and_strange_texts(pairs: BytePairs, captions: list[str]) -> None:
    reference = transformers.CLIPTokenizer(vocab=pairs.vocabulary, merges=pairs.merges)
    texts = captions + strange_texts()
    expected = reference(texts, padding="max_length", truncation=True, max_length=77, return_tensors="np")
    ids = cut(clip_tokenizer(pairs, "transformers"), texts)
    seen = expected["attention_mask"].astype(bool)  # they pad with the end token, open_clip with zeros
    np.testing.assert_array_equal(ids[seen], expected["input_ids"][seen])
    assert not ids[~seen].any()


@pytest.mark.parametrize("lower", [True, False])
def test_siglips_sentencepiece_on_captions_and_strange_texts(tmp_path: Path, captions: list[str], lower: bool) -> None:
    write_sentencepiece(tmp_path)
    reference = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=64, do_lower_case=lower)
    reference.save_pretrained(tmp_path)
    tokenizer = read_siglip_tokenizer(tmp_path, 64)
    texts = captions[:2000] + strange_texts()
    expected = [reference(text, padding="max_length", truncation=True, max_length=64)["input_ids"] for text in texts]
    np.testing.assert_array_equal(cut(tokenizer, texts), np.array(expected))


def test_siglip2s_tokenizer_on_captions_and_strange_texts(tmp_path: Path, captions: list[str]) -> None:
    write_gemma(tmp_path)
    options = {"model_max_length": 64, "padding_side": "right", "add_eos_token": True}
    reference = transformers.Siglip2Tokenizer.from_pretrained(tmp_path, **options)
    tokenizer = read_siglip_tokenizer(tmp_path, 64)
    texts = captions + strange_texts()
    expected = reference(texts, padding="max_length", truncation=True, max_length=64, return_tensors="np")
    np.testing.assert_array_equal(cut(tokenizer, texts), expected["input_ids"])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("words", "It's  A_dog, 'really'!", "its adog really"),
        ("repair", "  Ａ &amp;  b ", "A & b"),
        ("repair_lower", "Ａ &amp;amp; B", "a & b"),
        ("repair_words", "It's A_dog!", "its a dog"),
    ],
)
def test_canonicalization(name: Canonicalization, text: str, expected: str) -> None:
    function = canonicalizer(name)
    assert function is not None and function(text) == expected


def test_left_padding_and_marks(tmp_path: Path) -> None:
    write_byte_pairs(tmp_path)
    vocabulary = make_vocabulary(read_byte_pairs(tmp_path), "transformers")
    config = TokenizerConfig(
        kind="clip_bpe", canonicalization="nfc_lower", context_length=6, begin_token_id=1, end_token_id=2,
        pad_token_id=3, padding="max_length", padding_side="left",
    )  # fmt: skip
    with pytest.warns(NunbitWarning, match="1 of 2"):
        ids = Tokenizer(vocabulary, config)(["", "a man riding a wave on a board"])
    assert ids[0].tolist() == [3, 3, 3, 3, 1, 2]
    assert ids[1, 0] == 1 and ids[1, -1] == 2
    assert Tokenizer(vocabulary, config)([]).shape == (0, 6)


def test_added_tokens_are_found_whole_as_the_reference_finds_them(tmp_path: Path) -> None:
    write_byte_pairs(tmp_path)
    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    reference.add_tokens(["<my-cat>", "누비"])
    reference.save_pretrained(tmp_path)
    pairs = read_byte_pairs(tmp_path)
    assert list(pairs.added) == ["<my-cat>", "누비"]
    texts = ["a photo of <my-cat>", "누비 on a sofa", "<my-cat>누비", "a my-cat"]
    own = make_vocabulary(pairs, "transformers").encode(texts)
    assert own == [reference(text, add_special_tokens=False)["input_ids"] for text in texts]


@pytest.mark.parametrize("pad", ["!", "<|endoftext|>"])
def test_a_padding_mark_in_a_text_cuts_it_as_in_the_reference(tmp_path: Path, pad: str) -> None:
    size = write_byte_pairs(tmp_path)
    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path, pad_token=pad, model_max_length=24)
    reference.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "!"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")  # old files name it elsewhere only
    text = {"vocab_size": size, "max_position_embeddings": 24, "eos_token_id": size - 1}
    tokenizer = read_clip_tokenizer(tmp_path, clip_config({"text_config": text}), "transformers")
    texts = ["wow! a cat!", "a cat", "!"]
    expected = reference(texts, padding=True, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(tokenizer(texts), expected)


def test_one_string_is_an_error_not_a_list_of_letters(pairs: BytePairs) -> None:
    with pytest.raises(UsageError, match="got one string"):
        clip_tokenizer(pairs, "open_clip")("a cat")


def test_all_forms_of_the_vocabulary_are_the_same(pairs: BytePairs, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/vocab.json").write_text(json.dumps(pairs.vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs.merges)]
    (tmp_path / "files/merges.txt").write_text("\n".join(lines))
    make_vocabulary(pairs, "transformers").save(tmp_path)
    assert read_byte_pairs(tmp_path) == read_byte_pairs(tmp_path / "files") == pairs
    with pytest.raises(UnsupportedModel, match="no vocabulary"):
        read_byte_pairs(tmp_path / "nowhere")

"""Tokens → pieces of text: nothing comes that is not certain, and nothing of what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from nunbit.generate.answer_text import AnswerText, Endings, endings_of
from nunbit.vlm.config import ChatFormat
from tiny_vlm import byte_tokenizer as make_tokenizer


def say(text: str, endings: Endings, limit: int = 9999) -> tuple[list[str], bool]:
    """The pieces that come when a text is said byte by byte, and whether it was ended."""
    tokenizer = make_tokenizer()
    answer = AnswerText(tokenizer, endings, limit)
    pieces = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        pieces.append(answer.add(token))
        if answer.done:
            break
    return [piece for piece in (*pieces, answer.finish()) if piece], not answer.cut


def test_no_character_comes_in_parts() -> None:
    text = "고양이 🐈 a"
    pieces, done = say(text, Endings())
    assert pieces == list(text) and not done
    assert say("", Endings()) == ([], False)


@pytest.mark.parametrize(
    ("text", "stop", "wanted", "done"),
    [
        ("a cat###Human: b", ("###",), "a cat", True),
        ("a c#a##t", ("###",), "a c#a##t", False),
        ("ab##", ("###",), "ab##", False),
        ("aab", ("ab", "b"), "a", True),
        ("고양이 끝입니다", ("끝",), "고양이 ", True),
        ("xaabab", ("abab", "aabb"), "xa", True),
    ],
)
def test_nothing_of_a_stop_text_comes(text: str, stop: tuple[str, ...], wanted: str, done: bool) -> None:
    pieces, ended = say(text, Endings(stop=stop))
    assert ("".join(pieces), ended) == (wanted, done)
    assert all(wanted.startswith("".join(pieces[: number + 1])) for number in range(len(pieces)))


def test_an_answer_ends_at_marks_and_end_tokens() -> None:
    tokenizer = make_tokenizer()
    special = endings_of(ChatFormat(answer_after="<|im_end|>", answer_lead=" "), tokenizer, ("stop",))
    assert special.ids == {tokenizer.eos_token_id} and len(special.mark) == 1 and special.stop == ("stop",)
    assert say(" a cat<|im_end|>b", special) == (list("a cat"), True)
    assert say("a cat</s>b", special) == (list("a cat"), True)
    assert say("  a stove", special)[0] == [" ", "a", " ", "stov", "e"]
    letters = endings_of(ChatFormat(answer_after="##"), tokenizer, ())
    assert letters.stop == ("##",) and say("a#b##c", letters) == (["a", "#b"], True)
    assert endings_of(ChatFormat(), tokenizer, ()).mark == ()
    two = Endings(mark=tuple(tokenizer.encode("<|im_end|>\n")))
    assert say("a<|im_end|>b<|im_end|>\nc", two) == (["a", "b"], True)
    two = Endings(mark=tuple(tokenizer.encode("\n<|im_end|>")))
    assert say("a\nb\n<|im_end|>c", two) == (["a", "\nb"], True)
    lead = Endings(lead="A: ")
    assert [say(text, lead)[0] for text in ("A: cat", "A", "A cat")] == [list("cat"), ["A"], ["A ", "c", "a", "t"]]


def test_of_a_character_that_was_cut_nothing_comes() -> None:
    for limit, wanted in ((1, "a"), (2, "a"), (3, "a"), (4, "a고"), (5, "a고"), (7, "a고양")):
        pieces, ended = say("a고양", Endings(), limit)
        assert ("".join(pieces), ended) == (wanted, False)
    assert say("a�</s>", endings_of(ChatFormat(), make_tokenizer(), ())) == (["a", "�"], True)


class Counting:
    """A tokenizer that notes how much it decodes at once."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.most = inner, 0

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        self.most = max(self.most, len(ids))
        return str(self.inner.decode(ids, **options))


def spaced_tokenizer() -> Any:
    """As SentencePiece writes: a word's space is part of it, the first one's is left out, other bytes come singly."""
    words = ["▁a", "▁cat", "s", "."]
    vocabulary = {token: number for number, token in enumerate([*words, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    replaced, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replaced, decoders.ByteFallback(), decoders.Fuse(), strip])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<img>"])


@pytest.mark.parametrize("kind", ["bytes", "spaced"])
def test_long_answers_are_not_decoded_again_and_again(kind: str) -> None:
    if kind == "bytes":
        inner = make_tokenizer()
        ids = inner.encode("고양이 🐈 a cat, 그리고 👩‍👩‍👧‍👦 here. " * 20, add_special_tokens=False)
    else:
        inner = spaced_tokenizer()
        ids = [token for number in range(99) for token in (0, 1, *(4 + byte for byte in "🐈고".encode()), number % 4)]
        ids += [*[inner.convert_tokens_to_ids("<img>")] * 50, 1, 1]
    tokenizer = Counting(inner)
    answer = AnswerText(tokenizer, Endings(), len(ids) + 1)  # type: ignore[arg-type]
    pieces = [*map(answer.add, ids), answer.finish()]
    assert "".join(pieces) == inner.decode(ids, skip_special_tokens=True)
    assert len(ids) > 600 and tokenizer.most < 100

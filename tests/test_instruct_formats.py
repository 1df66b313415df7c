"""Conversations in the three shapes of data, and the doctor that looks at them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nunbit.errors import UsageError
from nunbit.instruct.doctor import examine
from nunbit.instruct.formats import Conversation, Described, read_conversations, write_conversations
from nunbit.types import Rejected
from nunbit.vlm.batching import SampleReader
from nunbit.vlm.conversation import PICTURE, Turn
from tiny_vlm import noise, shared_vlm

LLAVA = {
    "id": "one",
    "image": "a.png",
    "conversations": [
        {"from": "human", "value": "<image>\n무엇인가요?"},
        {"from": "gpt", "value": "고양이"},
    ],
}
MESSAGES = {
    "id": "one",
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "무엇인가요?"}]},
        {"role": "assistant", "content": "고양이"},
    ],
    "images": [{"path": "a.png"}],
}
CAULDRON = {"id": "one", "texts": [{"user": "무엇인가요?", "assistant": "고양이"}], "images": ["a.png"]}


def read(path: Path) -> tuple[list[Conversation], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(read_conversations(path, rejected.append)), rejected


@pytest.mark.parametrize("row", [LLAVA, MESSAGES, CAULDRON], ids=["llava", "messages", "cauldron"])
@pytest.mark.parametrize("lines", [True, False], ids=["jsonl", "json"])
def test_the_three_shapes_say_the_same(row: dict[str, object], lines: bool, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(row) + "\n" if lines else json.dumps([row]), encoding="utf-8")
    (found,), rejected = read(path)
    assert found == Conversation(
        "one", (Turn("user", (PICTURE, "무엇인가요?")), Turn("assistant", ("고양이",))), (tmp_path / "a.png",)
    )
    assert rejected == []


@pytest.mark.parametrize("form", ["llava", "messages", "cauldron"])
def test_what_is_written_is_read(form: str, tmp_path: Path) -> None:
    several = Conversation(
        "two",
        (
            Turn("user", (PICTURE, PICTURE, "Same?")),
            Turn("assistant", ("no",)),
            Turn("user", ("Why?",)),
            Turn("assistant", ("One is\nred.",)),
        ),
        (tmp_path / "a.png", Path("/elsewhere/b.png")),
    )
    text = Conversation("three", (Turn("user", ("Hi",)), Turn("assistant", ("Hello",))), ())
    told = Conversation(
        "four", (Turn("user", (PICTURE, "What?")), Turn("assistant", ("a dog",))), (Described("a dog runs"),)
    )
    write_conversations(tmp_path / "out.jsonl", [several, text, told], form)  # type: ignore[arg-type]
    assert read(tmp_path / "out.jsonl") == ([several, text, told], [])


def test_a_shape_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    late = Conversation(
        "late",
        (
            Turn("user", ("Hi",)),
            Turn("assistant", ("Hello",)),
            Turn("user", (PICTURE, "And this?")),
            Turn("assistant", ("a dog",)),
        ),
        (Path("a.png"),),
    )
    with pytest.raises(UsageError, match="late does not fit the format cauldron"):
        write_conversations(tmp_path / "out.jsonl", [late], "cauldron")
    with pytest.raises(UsageError, match="no format 'lava'"):
        write_conversations(tmp_path / "out.jsonl", [late], "lava")  # type: ignore[arg-type]


def test_rows_that_are_no_conversations_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [
        "{",
        json.dumps({"id": "x", "question": "?"}),
        json.dumps(LLAVA),
        "[]",
        json.dumps({"texts": [{"user": 1}]}),
        json.dumps(LLAVA | {"id": "typo", "conversations": [{"from": "humn", "value": "<image>"}]}),
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    found, rejected = read(path)
    assert [one.id for one in found] == ["one"]
    assert {one.path: one.detail for one in rejected} == {
        "data.jsonl:1": "line 1 is no JSON",
        "x": "none of conversations, messages, texts is there",
        "data.jsonl:4": "[]",
        "data.jsonl:5": "'assistant' is missing in it",
        "typo": "'humn' speaks, expected one of human, user, gpt, assistant, system",
    }
    with pytest.raises(UsageError, match="nowhere.jsonl cannot be read: No such file"):
        read(tmp_path / "nowhere.jsonl")
    path.write_text("[1, ", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read(path)


def test_the_doctor_names_each_sample_that_would_teach_nothing(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    turns = LLAVA["conversations"]
    rows = [
        LLAVA,
        LLAVA | {"id": "again"},
        LLAVA | {"id": "gone", "image": "gone.png"},
        LLAVA | {"id": "broken", "image": "broken.png"},
        {"id": "unmarked", "image": "a.png", "conversations": [{"from": "human", "value": "What?"}, turns[1]]},
        {"id": "silent", "image": "a.png", "conversations": [turns[0], {"from": "gpt", "value": " "}]},
        {
            "id": "long",
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>" + "very " * 99}, turns[1]],
        },
        {"id": "reversed", "conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Hello"}]},
        {"id": "nothing"},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = examine(path, SampleReader(shared_vlm("llava")), max_tokens=300)
    assert (found.samples, found.usable, found.pictures) == (9, 2, 1)
    assert {problem.path: problem.reason for problem in found.problems} == {
        "nothing": "no conversation",
        "again": "said twice",
        "gone": "picture is missing",
        "broken": "picture cannot be read",
        "unmarked": "marks do not match",
        "silent": "empty answer",
        "long": "loss would be zero",
        "reversed": "no conversation",
    }
    assert found.kinds["no conversation"] == 2
    assert found.answer_tokens == 2 * (len(" 고양이".encode()) + 1)

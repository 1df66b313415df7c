"""``nunbit chat``, ``ask`` and ``caption``, with a tiny model folder and an endpoint of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib import request

import pytest
from click.testing import CliRunner, Result

from browser import running_server
from fake_endpoint import FakeEndpoint, serve
from nunbit.chat.local import LocalTalker
from nunbit.cli import chat as chat_module
from nunbit.cli import nunbit
from nunbit.vlm.folder import VlmDescription, write_vlm
from tiny_vlm import make_lively_vlm as make_vlm
from tiny_vlm import picture

SHORT = ("--max-new-tokens", "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a model, pictures and what is none."""
    folder = tmp_path_factory.mktemp("talk")
    model = make_vlm("minigpt4")
    write_vlm(folder / "tiny-vlm", model, VlmDescription(config=model.config))
    (folder / "photos").mkdir()
    for number in range(2):
        picture(number).save(folder / "photos" / f"{number}.png")
    picture().save(folder / "photo.png")
    (folder / "photos" / "깨진.png").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEER_KEY", "sk-very-secret")


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with serve() as told:
        yield told


def run(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(nunbit, list(arguments), input=typed, standalone_mode=False)


def fails(*arguments: str, typed: str = "") -> str:
    """What stands on stderr when a command fails."""
    result = CliRunner().invoke(nunbit, list(arguments), input=typed)
    assert result.exit_code in (1, 2), result.output
    return result.stderr


def test_a_model_of_this_machine_is_asked() -> None:
    result = run("ask", "photo.png", "What is it?", "--model", "tiny-vlm", *SHORT, "--json")
    row = json.loads(result.stdout)
    assert set(row) == {"model", "answer", "seconds"} and row["model"] == "tiny-vlm" and row["answer"]
    assert "loading tiny-vlm" in result.stderr and result.return_value == 0
    drawn = [run("ask", "photo.png", "?", "--model", "tiny-vlm", *SHORT, "--temperature", "2").stdout for _ in "ab"]
    other = run("ask", "photo.png", "?", "--model", "tiny-vlm", *SHORT, "--temperature", "2", "--seed", "1").stdout
    assert drawn[0] == drawn[1] != other


def test_several_are_asked_side_by_side(endpoint: FakeEndpoint) -> None:
    models = ("--model", "tiny-vlm", "--model", f"{endpoint.url}#seer")
    result = run("ask", "photo.png", "What is it?", *models, *SHORT)
    assert result.return_value == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("──")] == [
        "── tiny-vlm",
        f"── {endpoint.url}#seer",
    ]
    assert "\nA 고양이.\n(" in result.stdout
    endpoint.status, endpoint.error = 404, {"error": {"message": "model 'seer' not found"}}
    result = run("ask", "photo.png", "What is it?", *models, *SHORT, "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["answer"] and set(second) == {"model", "error", "hint"} and "not found" in second["error"]
    assert result.return_value == 1
    result = run("ask", "photo.png", "What is it?", *models, *SHORT)
    assert f"\n── {endpoint.url}#seer\nerror: http" in result.stdout and "\nhint: " in result.stdout
    message = fails("ask", "photo.png", "What is it?", *models[2:])
    assert message.startswith("error: ") and "\nhint: " in message


def test_a_key_goes_to_its_own_host_alone(endpoint: FakeEndpoint) -> None:
    def keys(*arguments: str) -> list[str | None]:
        endpoint.asked.clear()
        assert run("ask", "photo.png", "?", *arguments).exit_code == 0
        return [headers.get("Authorization") for _, headers, _ in endpoint.asked]

    model = f"{endpoint.url}#seer"
    host = endpoint.url.split("/")[2]
    assert keys("--model", model) == [None]
    assert keys("--model", model, "--model", model, "--key-env", "SEER_KEY") == ["Bearer sk-very-secret"] * 2
    assert keys("--model", model, "--key-env", f"{host}=SEER_KEY") == ["Bearer sk-very-secret"]
    two = ("ask", "photo.png", "?", "--model", model, "--model", "https://elsewhere.example/v1#x")
    assert "whose key it is" in fails(*two, "--key-env", "SEER_KEY")
    assert "which no --model names" in fails(*two, "--key-env", "other=SEER_KEY")
    assert "for 0 endpoints" in fails("ask", "photo.png", "?", "--model", "tiny-vlm", "--key-env", "SEER_KEY")
    with serve() as other:
        models = ("--model", model, "--model", f"{other.url}#seer")
        assert keys(*models, "--key-env", f"{host}=SEER_KEY") == ["Bearer sk-very-secret"]
        assert [headers.get("Authorization") for _, headers, _ in other.asked] == [None]


def test_a_chat_remembers(endpoint: FakeEndpoint) -> None:
    talk = ("chat", "photo.png", "photos/1.png", "--model", f"{endpoint.url}#seer", "--system", "Be short.")
    for more, typed in ((("--say", "What?", "--say", "Sure?"), ""), ((), "What?\n\n  \nSure?")):
        endpoint.asked.clear()
        result = run(*talk, *more, typed=typed)
        assert result.stdout == "A 고양이.\nA 고양이.\n"
        first, second = (body["messages"] for _, _, body in endpoint.asked)
        assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
        assert second[:2] == first and second[2]["content"] == "A 고양이." and second[3]["content"] == "Sure?"
        assert [part["type"] for part in first[1]["content"]] == ["image_url", "image_url", "text"]


def test_a_person_can_go_on_after_an_error(endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.status, endpoint.error = 429, {"error": "slow down"}
    talk = ("chat", "photo.png", "--model", f"{endpoint.url}#seer")
    assert "slow down" in fails(*talk, typed="What?\nAgain?\n") and len(endpoint.asked) == 1
    monkeypatch.setattr(chat_module, "_is_person", lambda: True)
    result = run(*talk, typed="What?\nAgain?\n")
    assert result.exit_code == 0 and result.stderr.count("hint: wait") == 2 and result.stderr.startswith("> error")
    contents = [[message["content"] for message in body["messages"]] for _, _, body in endpoint.asked[-2:]]
    assert [[part["type"] for part in only] for (only,) in contents] == [["image_url", "text"]] * 2


def test_words_of_a_model_move_no_cursor(endpoint: FakeEndpoint) -> None:
    endpoint.pieces = ("\x1b[2J고", "\tB\r\nC\x07",)  # fmt: skip
    assert run("ask", "photo.png", "?", "--model", endpoint.url).stdout == "\\x1b[2J고\tB\nC\\x07\n"
    result = run("ask", "photo.png", "?", "--model", endpoint.url, "--json")
    assert json.loads(result.stdout)["answer"] == "\x1b[2J고\tB\r\nC\x07"


def test_captions_come_for_every_picture_that_can_be_read(endpoint: FakeEndpoint, folder: Path) -> None:
    result = run("caption", "photos", "--model", "tiny-vlm", "--json", *SHORT)
    rows = list(map(json.loads, result.stdout.splitlines()))
    assert [row["path"] for row in rows] == [str(folder / "photos" / f"{number}.png") for number in range(2)]
    assert all(set(row) == {"path", "caption"} for row in rows)
    assert "깨진.png: empty file" in result.stderr and result.return_value == 1
    endpoint.pieces = ("two\n", "lines\n")
    result = run("caption", "photo.png", "photos/0.png", "--model", endpoint.url, "--say", "설명해.")
    assert result.stdout.splitlines()[0] == f"{folder / 'photo.png'}: two\\nlines" and result.return_value == 0
    assert [body["messages"][0]["content"][1]["text"] for _, _, body in endpoint.asked if body] == ["설명해."] * 2


def test_pictures_are_captioned_side_by_side(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked_together: list[int] = []

    def answer(self: LocalTalker, asked: list[Any], config: Any) -> list[str]:
        asked_together.append(len(asked))
        return [str(messages[0].parts[0].getpixel((0, 0))) for messages in asked]

    plain = run("caption", "photos", "--model", "tiny-vlm", *SHORT).stdout
    assert plain == "".join(run("caption", f"photos/{n}.png", "--model", "tiny-vlm", *SHORT).stdout for n in range(2))
    monkeypatch.setattr(LocalTalker, "answer", answer)
    rows = map(json.loads, run("caption", "photos", "--model", "tiny-vlm", "--json", *SHORT).stdout.splitlines())
    expected = {str(folder / "photos" / f"{n}.png"): str(picture(n).getpixel((0, 0))) for n in range(2)}
    assert {row["path"]: row["caption"] for row in rows} == expected
    assert asked_together == [2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "photo.png", "?", "--model", "nothing"], "no vision-language model 'nothing'"),
        (["ask", "nothing.png", "?", "--model", "tiny-vlm"], "nothing.png"),
        (["ask", "photo.png", "?"], "Missing option '--model'"),
        (["ask", "photo.png", "?", "--model", "tiny-vlm", "--stop", ""], "empty text"),
        (["ask", "photo.png", "?", "--model", "tiny-vlm", "--temperature", "nan"], "temperature is nan"),
        (["chat", "photo.png", "--model", "http://127.0.0.1:9/v1#x", "--say", "?"], "cannot be reached"),
        (["caption", "nowhere", "--model", "tiny-vlm"], "there is no file or folder nowhere"),
        (["caption", "photo.png", "--model", "http://127.0.0.1/v1#x", "--key-env", "NO_KEY"], "NO_KEY is not set"),
    ],
)
def test_errors_are_a_line_and_a_hint(arguments: list[str], words: str) -> None:
    message: Any = fails(*arguments)
    assert words in message and "Traceback" not in message


def test_a_served_endpoint_gets_its_key(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    serving = ("--model", "starter", "--chat", f"{endpoint.url}#seer", "--key-env", "SEER_KEY")
    with running_server(tmp_path / "x.nunbit", *serving) as address:
        body = {"messages": [{"role": "user", "content": "What?"}]}
        asked = request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode())
        asked.add_header("content-type", "application/json")
        with request.urlopen(asked, timeout=20) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"] == "A 고양이."
    assert endpoint.asked[-1][1]["Authorization"] == "Bearer sk-very-secret"
    said = fails("serve", "--in", "y.nunbit", "--model", "starter", "--chat", "tiny-vlm", "--key-env", "SEER_KEY")
    assert "--chat names no endpoint" in said

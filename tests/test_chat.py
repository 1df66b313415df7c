"""Talkers: our own folders, and endpoints with all that they refuse."""

from __future__ import annotations

import base64
import io
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fake_endpoint import serve
from nunbit.chat import Message, answer_each, open_talker
from nunbit.chat.local import LocalTalker
from nunbit.chat.remote import MAX_SIDE, RemoteTalker, data_url
from nunbit.errors import EndpointError, ModelNotFound, UsageError
from nunbit.generate import GenerationConfig, Generator
from nunbit.packaged_files import sha256_of
from nunbit.vlm.folder import VlmDescription, read_description, write_vlm
from nunbit.vlm.loading import find_vlm
from tiny_vlm import make_lively_vlm as make_vlm
from tiny_vlm import picture, question

SECRET = "sk-very-secret"
CONFIG = GenerationConfig(max_new_tokens=16)
ASKED = [Message("user", (picture(), "What is it?"))]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_KEY", SECRET)


def say(talker: Any, messages: list[Message] = ASKED, config: GenerationConfig = CONFIG) -> str:
    return "".join(talker.talk(messages, config))


def test_who_answers_one_after_another_is_asked_when_an_answer_is_wanted() -> None:
    with serve() as endpoint:
        endpoint.pieces = ("A ", "cat")
        answers = answer_each(open_talker(f"{endpoint.url}#seer"), [ASKED, ASKED], CONFIG)
        assert next(answers) == "A cat"
        assert len([body for _, _, body in endpoint.asked if body]) == 1
        assert list(answers) == ["A cat"]


def test_a_folder_says_what_its_model_says(tmp_path: Path) -> None:
    model = make_vlm("minigpt4")
    write_vlm(tmp_path, model, VlmDescription(config=model.config))
    talker = open_talker(str(tmp_path))
    assert isinstance(talker, LocalTalker) and talker.name == str(tmp_path)
    generator = Generator(model)
    (wanted,) = generator.answer([generator.reader.read(question("What is it?"), [picture()], answer=True)], CONFIG)
    assert say(talker) == wanted != ""
    more = [*ASKED, Message("assistant", (wanted,)), Message("user", ("And ", picture(1), "?"))]
    assert say(talker, more)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no vision-language model 'nothing'"):
        open_talker("nothing")
    with pytest.raises(ModelNotFound):
        open_talker(str(tmp_path))


def test_an_endpoint_is_asked_as_it_is_documented() -> None:
    messages = [
        Message("system", ("Be short.",)),
        *ASKED,
        Message("assistant", ("A cat.",)),
        Message("user", ("Sure?",)),
    ]
    with serve() as endpoint:
        talker = open_talker(f"{endpoint.url}/#seer-2", key_variable="SEER_KEY")
        pieces = list(talker.talk(messages, GenerationConfig(temperature=0.5, top_p=0.9, seed=3, stop=("###",))))
        assert pieces == ["A ", "고양", "이."]
        ((path, headers, body),) = endpoint.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    system, first, *rest = body.pop("messages")
    drawn = {"temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert body == {"model": "seer-2", "stream": True, "max_tokens": 256, "stop": ["###"], **drawn}
    assert system == {"role": "system", "content": "Be short."}
    shown, words = first["content"]
    assert words == {"type": "text", "text": "What is it?"} and shown["type"] == "image_url"
    assert shown["image_url"]["url"] == data_url(picture())
    assert rest == [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]


def test_pictures_are_sent_in_a_sensible_size() -> None:
    kind, _, content = data_url(Image.new("RGB", (3000, 1500), "red")).partition(",")
    assert kind == "data:image/jpeg;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    assert sent.size == (MAX_SIDE, MAX_SIDE // 2) and sent.format == "JPEG"
    small = Image.open(io.BytesIO(base64.b64decode(data_url(picture()).partition(",")[2])))
    assert small.size == picture().size


def test_an_endpoint_without_streams_or_with_newer_words_answers_too() -> None:
    with serve(streams=False, refuses="max_tokens") as endpoint:
        assert say(RemoteTalker(f"{endpoint.url}#seer")) == "A 고양이."
        first, second = (body for _, _, body in endpoint.asked)
    assert first["max_tokens"] == second["max_completion_tokens"] == 16 and "max_tokens" not in second
    with serve(refuses="max_completion_tokens", status=400, error={"error": "max_completion_tokens"}) as endpoint:
        with pytest.raises(EndpointError):
            say(RemoteTalker(f"{endpoint.url}#seer"))
        assert len(endpoint.asked) == 2


def test_the_only_model_needs_no_name() -> None:
    with serve() as endpoint:
        assert say(RemoteTalker(endpoint.url)) == "A 고양이."
        assert [path for path, _, _ in endpoint.asked] == ["/v1/models", "/v1/chat/completions"]
        assert endpoint.asked[1][2]["model"] == "seer" and "Authorization" not in endpoint.asked[1][1]
        endpoint.models = ("seer", "blind")
        with pytest.raises(UsageError, match="has 2 models") as caught:
            say(RemoteTalker(endpoint.url))
        assert "seer, blind" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "error", "message", "hint"),
    [
        (401, {"error": {"message": f"No key {SECRET}"}}, r"answered 401 Unauthorized: No key \*\*\*", "--key-env"),
        (403, {"detail": "no"}, "answered 403 Forbidden: no", "another key"),
        (404, {"error": {"message": "model 'x' not found"}}, "answered 404 Not Found: model 'x' not found", "#"),
        (400, {"error": {"message": "image_url is only for certain models"}}, "answered 400", "no pictures"),
        (413, {"error": "too large"}, "answered 413.*too large", "smaller pictures"),
        (422, {"message": ["a", "b"]}, r"answered 422.*\[\"a\", \"b\"\]", "settings"),
        (429, {"error": {"message": "slow down"}}, "answered 429", "wait"),
        (500, {"error": {"message": "\x1b[31mbroken\nhere"}}, r"answered 500.*\\x1b\[31mbroken\\nhere", "try again"),
        (302, {}, "answered 302", "know"),
    ],
)  # fmt: skip
def test_refusals_are_told_with_a_remedy(status: int, error: Any, message: str, hint: str) -> None:
    with serve(status=status, error=error) as endpoint:
        with pytest.raises(EndpointError, match=message) as caught:
            say(RemoteTalker(f"{endpoint.url}#seer", key_variable="SEER_KEY"))
        assert hint in caught.value.hint
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert len(endpoint.asked) == 1  # a redirect is not followed


def test_what_is_no_answer_is_told() -> None:
    with serve(raw=b"<html>") as endpoint:
        talker = RemoteTalker(f"{endpoint.url}#seer", key_variable="SEER_KEY")
        words = b'data: {"choices": [{"delta": {"content": "A"}}]}\n\n'
        for raw in (b"<html>", words):
            endpoint.raw = raw
            with pytest.raises(EndpointError, match="broke off"):
                say(talker)
        endpoint.raw = words + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
        assert say(talker) == "A"
        for raw in (b"data: <html>\n", b"data: [1]\n"):
            endpoint.raw = raw
            with pytest.raises(EndpointError, match="something else than an answer"):
                say(talker)
        endpoint.raw = words + b'data: {"error": {"message": "no ' + SECRET.encode() + b'"}}\n\n'
        with pytest.raises(EndpointError, match=r"answered an error: no \*\*\*"):
            say(talker)
        endpoint.status, endpoint.raw = 502, b"<html>"
        with pytest.raises(EndpointError, match="answered 502 Bad Gateway") as caught:
            say(talker)
        assert caught.value.message.endswith("Gateway")


def test_silence_and_absence_are_told() -> None:
    with serve(silence=10.0) as endpoint:
        with pytest.raises(EndpointError, match="said nothing for 0 seconds"):
            say(RemoteTalker(f"{endpoint.url}#seer", seconds=0.2))
        url = endpoint.url
    with pytest.raises(EndpointError, match="cannot be reached: Connection refused"):
        say(RemoteTalker(f"{url}#seer"))


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_KEY", SECRET + "\nX-More: 1")
    with serve() as endpoint, pytest.raises(EndpointError) as caught:
        say(RemoteTalker(f"{endpoint.url}#seer", key_variable="SEER_KEY"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http:///v1", "https://user:word@host/v1", "http://"])
def test_urls_that_cannot_be_meant_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be meant") as caught:
        RemoteTalker(url)
    assert "word" not in str(caught.value)


def test_a_variable_without_a_key_and_an_order_that_is_none_are_refused() -> None:
    with pytest.raises(UsageError, match="NO_SUCH_KEY is not set"):
        RemoteTalker("http://127.0.0.1/v1#x", key_variable="NO_SUCH_KEY")
    with serve() as endpoint:
        with pytest.raises(UsageError, match="expected a question"):
            say(RemoteTalker(f"{endpoint.url}#seer"), [*ASKED, Message("assistant", ("x",))])
        assert endpoint.asked == []


def test_the_packages_own_model_is_whole() -> None:
    folder = find_vlm("starter")
    described = read_description(folder)
    assert described.language_model == "smollm2-135m-instruct"
    content = json.loads((folder / "nunbit_vlm.json").read_text(encoding="utf-8"))
    assert content["sha256"] == sha256_of(folder / "model.safetensors")
    assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")

"""``POST /v1/chat/completions``: as the model itself answers, in OpenAI's form, one at a time, and what is refused."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from fake_talker import FakeTalker
from nunbit.chat import Message, Talker, open_talker
from nunbit.errors import EndpointError, UsageError
from nunbit.generate import GenerationConfig
from nunbit.images import open_image
from nunbit.serve.settings import Limits, Settings
from nunbit.vlm.folder import VlmDescription, write_vlm
from serving import Client, data_url, metric, png, serving, wait_until
from tiny_vlm import make_lively_vlm

CHAT = "/v1/chat/completions"
SHORT = 12


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Talker:
    folder = tmp_path_factory.mktemp("models") / "tiny-vlm"
    model = make_lively_vlm("minigpt4")
    write_vlm(folder, model, VlmDescription(config=model.config))
    return open_talker(str(folder))


@pytest.fixture(scope="module")
def client(talker: Talker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    limits = Limits(pixels=2000, chat_tokens=64, chat_messages=6, chat_pictures=3)
    folder = tmp_path_factory.mktemp("served")
    with serving(Settings(folder / "x.nunbit", port=0, limits=limits), talker=talker) as client:
        yield client


def speak(client: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.address}/v1", api_key="none", max_retries=0)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def shown(content: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(content)}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def decoded(seed: int) -> Image.Image:
    return open_image(png(seed))[0]


def said_by(talker: Talker, messages: list[Message], **drawn: Any) -> str:
    return "".join(talker.talk(messages, GenerationConfig(max_new_tokens=SHORT, **drawn)))


@pytest.mark.parametrize("words", ["What is it?", "이것은 뭐야?"])
def test_plain_and_streamed_it_says_what_its_talker_says(client: Client, talker: Talker, words: str) -> None:
    wanted = said_by(talker, [Message("user", (decoded(1), words))])
    asked: Any = {"model": "tiny-vlm", "messages": [user(shown(png(1)), text(words))], "max_tokens": SHORT}
    plain = speak(client).chat.completions.create(**asked)
    assert plain.choices[0].message.content == wanted != ""
    assert (plain.model, plain.choices[0].finish_reason) == ("tiny-vlm", "length")
    assert plain.usage and plain.usage.prompt_tokens == len(words.split())
    chunks = list(speak(client).chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *pieces, last, counted = chunks
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == wanted
    assert last.choices[0].finish_reason == "length" and counted.usage == plain.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_every_part_of_a_conversation_counts(client: Client, talker: Talker) -> None:
    messages = [
        {"role": "developer", "content": "Be short."},
        user(text("First "), shown(png(1)), text("then "), shown(png(2))),
        {"role": "assistant", "content": [text("one"), text(" two")]},
        {"role": "user", "content": "다음은?"},
    ]
    same = [
        Message("system", ("Be short.",)),
        Message("user", ("First ", decoded(1), "then ", decoded(2))),
        Message("assistant", ("one", " two")),
        Message("user", ("다음은?",)),
    ]
    drawn: dict[str, Any] = {"temperature": 0.9, "top_p": 0.8, "seed": 7}
    wanted = said_by(talker, same, **drawn)
    body = {"messages": messages, "max_completion_tokens": SHORT, **drawn}
    assert answer_of(client, body) == wanted != said_by(talker, same)
    assert answer_of(client, {**body, "stop": wanted[2:4]}) == wanted[: wanted.index(wanted[2:4])]


def test_an_answer_ends_by_itself(client: Client, talker: Talker) -> None:
    whole = said_by(talker, [Message("user", ("Hi",))])
    body = {"messages": [user(text("Hi"))], "max_tokens": SHORT, "stop": [whole[3]]}
    assert client("POST", CHAT, body).json["choices"][0]["finish_reason"] == "stop"


def test_models_lists_what_answers(client: Client) -> None:
    assert [model.id for model in speak(client).models.list().data] == ["fake", "tiny-vlm"]
    assert client("GET", "/v1/models/tiny-vlm").json["id"] == "tiny-vlm"
    assert client("GET", "/v1/models/other").status == 404
    assert client("GET", "/v1/session").json["chat"] is True


HI = [user(text("Hi"))]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"messages": HI, "model": "gpt-4o"}, 404, "no_such_model", "'tiny-vlm' answers"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": "http://a.example/b.png"}})]},
         400, "remote_url", "data:image"),
        ({"messages": [user({"type": "image_url", "image_url": {"url": "/etc/passwd"}})]},
         400, "remote_url", "fetched from nowhere"),
        ({"messages": [user(shown(b"GIF89a, or not"))]}, 400, "bad_picture", "the given bytes"),
        ({"messages": [user(*[shown(png(1))] * 3)]}, 200, "", ""),
        ({"messages": [user(*[shown(png(1))] * 4)]}, 413, "too_many", "4 pictures, at most 3"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400, "bad_request", "the user first"),
        ({"messages": [*HI, *HI]}, 400, "bad_request", "speak in turn"),
        ({"messages": [{"role": "system", "content": [shown(png(1))]}, *HI]}, 400, "bad_request", "Only users show"),
        ({"messages": [*HI, {"role": "assistant", "content": "Hi"}] * 3 + HI}, 413, "too_many", "7 messages"),
        ({"messages": [user(text("long " * 1999))]}, 400, "bad_request", "reads"),
        ({"messages": HI, "max_tokens": 65}, 413, "too_many", "65 tokens of an answer, at most 64"),
        ({"messages": []}, 400, "bad_request", "messages"),
        ({"messages": HI, "n": 2}, 400, "bad_request", "n:"),
        ({"messages": HI, "stop": [""]}, 400, "bad_request", "stop"),
        ({"messages": HI, "tools": []}, 400, "bad_request", "tools"),
    ],
)  # fmt: skip
def test_what_is_refused(client: Client, body: Any, status: int, code: str, words: str, stream: bool) -> None:
    answer = client("POST", CHAT, {"max_tokens": 2, **body, "stream": stream})
    assert answer.status == status, answer.content
    if status != 200:
        error = answer.json["error"]
        assert error["code"] == code and words in error["message"]
        assert "/tmp" not in error["message"]


def test_pictures_together_have_a_limit(client: Client) -> None:
    large = io.BytesIO()
    Image.new("RGB", (60, 30)).save(
        large, "PNG"
    )  # 1800 pixels of the 2000 that a request may have; the others have 600
    for pictures, status in (([large.getvalue()], 200), ([large.getvalue(), png(1)], 413), ([png(1)] * 3, 200)):
        assert client("POST", CHAT, {"messages": [user(*map(shown, pictures))], "max_tokens": 2}).status == status


def test_a_server_without_such_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    with serving(Settings(tmp_path / "x.nunbit", port=0)) as client:
        answer = client("POST", CHAT, {"messages": HI})
        assert (answer.status, answer.json["error"]["code"]) == (404, "no_chat")
        assert "--chat MODEL" in answer.json["error"]["hint"]
        assert client("GET", "/v1/session").json["chat"] is False
        assert len(client("GET", "/v1/models").json["data"]) == 1


def ask(words: str, **more: Any) -> dict[str, Any]:
    return {"messages": [user(text(words))], "max_tokens": 3, **more}


def answer_of(client: Client, body: Any) -> str:
    answer = client("POST", CHAT, body)
    assert answer.status == 200, answer.content
    content: str = answer.json["choices"][0]["message"]["content"]
    return content


def test_two_clients_are_answered_one_after_the_other(tmp_path: Path) -> None:
    slow = FakeTalker()
    with serving(Settings(tmp_path / "x.nunbit", port=0), talker=slow) as client, ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(answer_of, client, ask(words)) for words in "ab"]
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 2)
        slow.allowed.release(6)
        assert [answer.result() for answer in answers] == ["a0 a1 a2 ", "b0 b1 b2 "]
        assert slow.most_at_once == 1
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 0)


def test_too_many_who_wait_are_sent_away(tmp_path: Path) -> None:
    slow = FakeTalker()
    settings = Settings(tmp_path / "x.nunbit", port=0, limits=Limits(chat_waiting=1))
    with serving(settings, talker=slow) as client, ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(answer_of, client, ask("a")) for _ in range(2)]
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 2)
        assert client("POST", CHAT, {"messages": [*HI, *HI]}).status == 400  # what is no conversation waits for nothing
        refused = client("POST", CHAT, ask("b"))
        assert (refused.status, refused.json["error"]["code"], refused.headers["retry-after"]) == (429, "too_busy", "5")
        slow.allowed.release(6)
        assert [answer.result() for answer in answers] == ["a0 a1 a2 "] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_answer(tmp_path: Path, stream: bool) -> None:
    slow = FakeTalker()
    with serving(Settings(tmp_path / "x.nunbit", port=0), talker=slow) as client:
        leaving, waiting = (begin(client, ask(words, max_tokens=999, stream=stream)) for words in ("a", "b"))
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 2)
        slow.allowed.release(2)
        if stream:
            answer = leaving.getresponse()
            wait_until(lambda: b"a1" in answer.readline())
        waiting.close()
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 1)  # the one that was not begun is gone at once
        leaving.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: metric(client, "nunbit_open_requests") == 1)
        slow.allowed.release(1)
        wait_until(lambda: metric(client, "nunbit_chat_waiting") == 0)
        assert (slow.asked, slow.ended) == (["a"], ["a"])
        slow.allowed.release(3)
        assert answer_of(client, ask("c")).startswith("c0 c1")


def begin(client: Client, body: Any) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(client.address.removeprefix("http://"), timeout=20)
    connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
    wait_until(lambda: metric(client, "nunbit_open_requests") > 1)
    return connection


def test_a_streamed_answer_may_take_long_as_long_as_it_goes_on(tmp_path: Path) -> None:
    slow = FakeTalker()
    limits = Limits(seconds=5.0)  # ten times the pause below, so that a busy machine breaks nothing off
    with serving(Settings(tmp_path / "x.nunbit", port=0, limits=limits), talker=slow) as client:
        slow.allowed.release()
        begun = time.monotonic()
        chunks = iter(speak(client).chat.completions.create(model="fake", **ask("a", stream=True, max_tokens=999)))
        while time.monotonic() < begun + limits.seconds + 1:
            next(chunks)
            time.sleep(0.5)
            slow.allowed.release()
        slow.allowed.release(999)
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"


def test_an_answer_that_does_not_go_on_is_too_slow(tmp_path: Path) -> None:
    slow = FakeTalker()
    with serving(Settings(tmp_path / "x.nunbit", port=0, limits=Limits(seconds=1.0)), talker=slow) as client:
        assert client("POST", CHAT, ask("b")).status == 504
        slow.allowed.release(9)


class Failing:
    """An endpoint that breaks off, or refuses."""

    name = "https://far.example/v1#seer"

    def __init__(self, pieces: list[str], error: Exception) -> None:
        self.pieces, self.error = pieces, error

    def talk(self, messages: Sequence[Message], config: GenerationConfig) -> Generator[str, None, bool]:
        yield from self.pieces
        raise self.error


def test_an_endpoint_that_fails_is_told_of_without_its_address(tmp_path: Path) -> None:
    failing = Failing([], EndpointError("https://far.example/v1 broke off", hint="try again"))
    with serving(Settings(tmp_path / "x.nunbit", port=0), talker=failing) as client:
        assert client("GET", "/v1/models/seer").status == 200
        answer = client("POST", CHAT, ask("a", stream=True))
        assert (answer.status, answer.json["error"]["code"]) == (503, "chat_unreachable")
        assert b"far.example" not in answer.content
        failing.pieces.append("A ")
        with pytest.raises(openai.APIError, match="cannot be reached"):
            list(speak(client).chat.completions.create(model="seer", **ask("a", stream=True)))
        failing.pieces.clear()
        failing.error = UsageError(f"{failing.name} takes no pictures")
        refused = client("POST", CHAT, ask("a"))
        assert (refused.status, refused.json["error"]["message"]) == (400, "seer takes no pictures")

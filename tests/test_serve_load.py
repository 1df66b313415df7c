"""More than a server can do at once: it refuses in time, forgets who has left, and goes on searching."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from index_fakes import FakeTowers, make_encoder, picture
from nunbit.index import Index
from nunbit.serve.settings import Limits, Settings
from serving import Client, data_url, metric, png, serving, wait_until

INSIDE = 4


class GatedTowers(FakeTowers):
    """Towers whose batches of pictures wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.before_batch = self._wait

    def _wait(self) -> None:
        self.inside.set()
        self.gate.wait(30)


@pytest.fixture
def towers() -> GatedTowers:
    return GatedTowers()


@pytest.fixture
def client(tmp_path: Path, towers: GatedTowers) -> Iterator[Client]:
    for number in range(6):
        picture(tmp_path / "album" / f"{number}.png", number)
    with Index.open(tmp_path / "x.nunbit", make_encoder()):
        pass
    settings = Settings(tmp_path / "x.nunbit", root=tmp_path / "album", port=0, limits=Limits(waiting=INSIDE))
    with serving(settings, towers) as client:
        yield client
        towers.gate.set()


def test_whoever_does_not_fit_is_told_when_to_come_again(client: Client, towers: GatedTowers) -> None:
    towers.gate.clear()
    look = [{"image": data_url(png(number))} for number in range(INSIDE + 3)]
    with ThreadPoolExecutor(len(look)) as threads:
        inside = [threads.submit(client, "POST", "/v1/search", body) for body in look[:INSIDE]]
        wait_until(lambda: metric(client, "nunbit_waiting") == INSIDE)
        for body in look[INSIDE:]:
            refused = client("POST", "/v1/search", body)
            assert (refused.status, refused.json["error"]["code"]) == (429, "too_busy")
            assert int(refused.headers["retry-after"]) >= 1
        assert client("GET", "/v1/items").status == 200  # what needs no encoder is answered meanwhile
        towers.gate.set()
        assert [one.result().status for one in inside] == [200] * INSIDE
    assert client("POST", "/v1/search", look[-1]).status == 200


def test_who_leaves_costs_nothing_more(client: Client, towers: GatedTowers) -> None:
    towers.gate.clear()
    towers.inside.clear()
    body = json.dumps({"image": data_url(png(1))}).encode()
    address = client.address.removeprefix("http://").split(":")
    with ThreadPoolExecutor(1) as threads:
        stays = threads.submit(client, "POST", "/v1/search", {"image": data_url(png(0))})
        assert towers.inside.wait(20)  # or who leaves would share the batch of who stays
        before = towers.encoded
        gone = socket.create_connection((address[0], int(address[1])))
        head = f"POST /v1/search HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: {len(body)}\r\n\r\n"
        gone.sendall(head.encode() + body)
        wait_until(lambda: metric(client, "nunbit_waiting") == 2)
        gone.close()
        wait_until(lambda: metric(client, "nunbit_waiting") == 1)
        towers.gate.set()
        assert stays.result().status == 200
    assert client("POST", "/v1/search", {"image": data_url(png(2))}).status == 200  # comes after what was dropped
    assert towers.encoded == before + 2


def test_searching_and_adding_go_on_while_a_folder_is_indexed(client: Client, towers: GatedTowers) -> None:
    assert client("POST", "/v1/items", {"items": [{"image": data_url(png(7)), "name": "first"}]}).status == 201
    let_through = threading.Semaphore(0)
    inside = threading.Event()

    def before_batch() -> None:
        if threading.current_thread().name.startswith("nunbit-encode"):
            return  # a request's
        inside.set()
        let_through.acquire(timeout=30)

    towers.before_batch = before_batch
    assert client("POST", "/v1/indexing", {"paths": ["."]}).status == 202
    assert inside.wait(20)
    assert client("GET", "/v1/indexing").json["state"] == "running"
    assert client("POST", "/v1/search", {"text": "a dog"}).json["data"][0]["name"] == "first"
    assert client("POST", "/v1/search", {"image": data_url(png(8))}).status == 200
    assert client("POST", "/v1/items", {"items": [{"image": data_url(png(8)), "name": "second"}]}).status == 201
    assert client("GET", "/v1/items").json["total"] == 2
    again = client("POST", "/v1/indexing", {"paths": ["."]})
    assert (again.status, again.json["error"]["code"]) == (409, "indexing_runs")
    for _ in range(10):
        let_through.release()
    wait_until(lambda: client("GET", "/v1/indexing").json["state"] == "done")
    assert client("GET", "/v1/items").json["total"] == 8

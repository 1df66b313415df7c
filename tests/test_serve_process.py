"""A server process that is killed, asked to stop, or backed up in the middle of its work: nothing is lost or halved."""

from __future__ import annotations

import random
import signal
import threading
import time
import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from http.client import HTTPException
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from index_fakes import make_encoder
from nunbit.errors import StoreError, StoreNotFound, UsageError
from nunbit.index import Index, back_up
from serving import Client, metric, multipart, png, server_process, wait_until

CLIENTS = 8
KILLS = 4
FULL = 5  # pictures that are acknowledged before anything happens: the work is in full swing


@dataclass
class Work:
    """What eight clients have sent, and what was acknowledged, over any number of servers."""

    seeds: count[int] = field(default_factory=count)
    sent: dict[str, bytes] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)

    def client(self, client: Client, over: threading.Event) -> None:
        """Add pictures, and delete every fourth, until the server is gone or this is over."""
        while not over.is_set():
            content = png(next(self.seeds))
            id_ = blake2b(content, digest_size=16).hexdigest()
            self.sent[id_] = content
            body, kind = multipart(content)
            try:
                answer = client("POST", "/v1/items", body, content_type=kind)
                self.statuses.append(answer.status)
                if answer.status == 201:
                    self.added.add(id_)
                    if int(id_, 16) % 4 == 0:
                        self.deleting.add(id_)
                        if client("DELETE", f"/v1/items/{id_}").status == 200:
                            self.deleted.add(id_)
            except (OSError, HTTPException):
                return

    def against(self, client: Client, seconds: float, then: Callable[[], None]) -> None:
        """Let eight clients work, and after some seconds do something in the midst of it."""
        over, before = threading.Event(), len(self.added)
        with ThreadPoolExecutor(CLIENTS) as clients:
            try:
                for _ in range(CLIENTS):
                    clients.submit(self.client, client, over)
                wait_until(lambda: len(self.added) >= before + FULL)
                time.sleep(seconds)
                then()
            finally:
                over.set()

        assert set(self.statuses) <= {201}

    def check(self, folder: Path) -> None:
        """Check that an index has what was acknowledged, and of everything else all or nothing."""
        with Index.open(folder, make_encoder()) as index:
            index.remove_orphans()
            items = {item.id: item for item in index.items()}
            assert self.added - self.deleting <= set(items) <= set(self.sent)
            assert not self.deleted & set(items)
            files = {path for path in index.uploads.folder.rglob("*") if path.is_file()}
            assert files == {Path(item.path) for item in items.values()}
            rows = index.get_embeddings(list(items))
            for (id_, item), row in zip(items.items(), rows, strict=True):
                assert Path(item.path).read_bytes() == self.sent[id_]
                np.testing.assert_allclose(row, make_encoder().encode_image([item.path])[0], atol=1e-6)


def test_kill_9_while_eight_clients_add(tmp_path: Path) -> None:
    work = Work()
    for kill in range(KILLS):
        with server_process(tmp_path / "x.nunbit", 0.01) as (process, client):
            delay = random.Random(kill).uniform(0, 0.4)
            work.against(client, delay, process.kill)
            assert process.wait() == -signal.SIGKILL
        work.check(tmp_path / "x.nunbit")
    with server_process(tmp_path / "x.nunbit") as (_, client):
        assert client("GET", "/v1/items").json["total"] >= len(work.added - work.deleting)
        some = next(iter(work.added - work.deleting))
        assert client("GET", f"/v1/items/{some}/thumbnail").status == 200


def test_a_server_that_is_asked_to_stop_answers_everybody(tmp_path: Path) -> None:
    work = Work()
    with server_process(tmp_path / "x.nunbit", 0.5) as (process, client):
        inside = [png(10_000 + number) for number in range(12)]
        answers: list[int] = []

        def send(content: bytes) -> None:
            body, kind = multipart(content)
            answers.append(client("POST", "/v1/items", body, content_type=kind).status)

        with ThreadPoolExecutor(len(inside)) as clients:
            waiting = [clients.submit(send, content) for content in inside]
            wait_until(lambda: metric(client, "nunbit_open_requests") > len(inside))  # and the one that asks
            process.terminate()
            for one in waiting:
                one.result()
        assert answers == [201] * len(inside)
        assert process.wait(20) in (0, -signal.SIGTERM)
    work.sent = {blake2b(content, digest_size=16).hexdigest(): content for content in inside}
    work.added = set(work.sent)
    work.check(tmp_path / "x.nunbit")
    with pytest.raises(urllib.error.URLError):
        client("GET", "/healthz")


def test_a_backup_of_a_server_at_work_is_whole(tmp_path: Path) -> None:
    work = Work()
    with server_process(tmp_path / "x.nunbit") as (_, client):
        client("POST", "/v1/labels", {"name": "동물", "labels": ["cat", "말"]})
        sure: set[str] = set()

        def backups() -> None:
            for number in range(3):
                time.sleep(0.3)
                sure.update(work.added)
                back_up(tmp_path / "x.nunbit", tmp_path / f"backup-{number}")

        work.against(client, 0, backups)
    for number in range(3):
        copy = Work(sent=work.sent)
        copy.check(tmp_path / f"backup-{number}")
    with server_process(tmp_path / "backup-2") as (_, client):
        there = {item["id"] for item in client("GET", "/v1/items?limit=1000").json["data"]}
        assert sure - work.deleting <= there
        assert client("GET", "/v1/labels").json["data"][0]["name"] == "동물"
    with Index.open(tmp_path / "backup-2", make_encoder()) as index:
        assert len(index) == len(there)


def test_what_cannot_be_backed_up(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        back_up(tmp_path / "nowhere", tmp_path / "copy")
    with Index.open(tmp_path / "x.nunbit", make_encoder()):
        pass
    assert back_up(tmp_path / "x.nunbit", tmp_path / "copy").pictures == 0
    with pytest.raises(UsageError, match="is there already"):
        back_up(tmp_path / "x.nunbit", tmp_path / "copy")
    identity = tmp_path / "x.nunbit" / "index.json"
    identity.write_text(identity.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(StoreError, match="earlier release"):
        back_up(tmp_path / "x.nunbit", tmp_path / "other")

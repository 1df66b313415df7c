"""Commits, full disks, several processes, and the folder of an index."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from index_fakes import SIZE, FakeTowers, counts, ledger, make_encoder, picture
from nunbit.errors import (
    EncoderMismatch,
    NunbitError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreNotFound,
)
from nunbit.index import Index
from nunbit.index import add as add_module
from nunbit.index import store as store_module
from nunbit.index.store import Store


def test_an_interrupt_keeps_what_was_encoded(index: Index, album: Path, towers: FakeTowers) -> None:
    def interrupt() -> None:
        if towers.encoded >= 4:
            raise KeyboardInterrupt

    towers.before_batch = interrupt
    with pytest.raises(KeyboardInterrupt):
        index.add([album])
    assert len(index) == 4
    towers.before_batch = lambda: None
    assert counts(index.add([album])) == (1, 0, 4, 0, 0)


def test_commits_are_small(index: Index, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    real = Store.upsert
    monkeypatch.setattr(Store, "upsert", lambda self, rows: (commits.append(len(rows)), real(self, rows))[1])
    monkeypatch.setattr(add_module, "_COMMIT_ROWS", 2)
    monkeypatch.setattr(add_module, "_CHUNK", 3)
    assert index.add([album]).added == 5
    assert commits == [2, 2, 1]
    monkeypatch.setattr(add_module, "_COMMIT_SECONDS", 0.0)
    picture(album / "a.png", 90)
    picture(album / "b.png", 91)
    assert index.add([album]).updated == 2
    assert commits[3:] == [1, 1]


def test_a_full_disk(index: Index, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store._merge
    calls: list[int] = []
    errors = [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /x/y.rs:258:9"),
    ]

    def merge(self: Store, rows: Any) -> None:
        calls.append(1)
        if len(calls) in (2, 4):
            with store_module.store_errors(self._folder):
                raise errors[len(calls) // 2 - 1]
        real(self, rows)

    monkeypatch.setattr(add_module, "_COMMIT_ROWS", 2)
    monkeypatch.setattr(Store, "_merge", merge)
    (album / "0.jpg").write_bytes(b"")
    for committed in (2, 4):
        with pytest.raises(StoreFull, match="disk is full") as caught:
            index.add([album])
        assert "run again" in caught.value.hint
        assert len(index) == committed
        assert ledger(index) == {str(album / "0.jpg"): "empty file"}
    assert counts(index.add([album])) == (1, 0, 4, 0, 1)


def fill_up(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass


def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk to fill can only be mounted by root")
    try:
        for number in range(40):
            picture(tmp_path / f"p/{number}.png", number)
        with Index.open(disk / "x", make_encoder()) as index:
            index.add([tmp_path / f"p/{number}.png" for number in range(10)])
            fill_up(disk / "ballast")
            with pytest.raises(StoreFull):
                index.add([tmp_path / "p"])
            assert len(index) == 10
            (disk / "ballast").unlink()
            assert counts(index.add([tmp_path / "p"])) == (30, 0, 10, 0, 0)
            assert len({item.id for item in index.items()}) == len(index) == 40
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.filterwarnings("ignore:optimize")
def test_the_folder_does_not_grow_without_bound(
    index: Index, album: Path, towers: FakeTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_RETENTION", timedelta(0))
    monkeypatch.setattr(store_module, "_MANY_FILES", 3)

    def files() -> int:
        return sum(len(names) for _, _, names in os.walk(index.ledger_path.parent))

    index.add([album])
    sizes = []
    for seed in range(12):
        picture(album / "a.png", 200 + seed)
        index.add([album])
        sizes.append(files())
    assert max(sizes) < 25
    assert len(index) == 5


def test_one_writer(index: Index, album: Path, tmp_path: Path, towers: FakeTowers) -> None:
    index.add([album / "a.png"])
    other = Index.open(tmp_path / "x.nunbit", make_encoder())
    busy: list[str] = []

    def try_to_write() -> None:
        for call in (lambda: other.add([album]), lambda: other.remove(["0" * 32]), lambda: index.add([album])):
            with pytest.raises(StoreBusy) as caught:
                call()
            busy.append(caught.value.message)
        assert len(other.search("x")) == 1  # reading is possible

    towers.before_batch = try_to_write
    index.add([album / "b.png"])
    towers.before_batch = lambda: None
    assert len(busy) == 3
    assert all(str(tmp_path / "x.nunbit") in message for message in busy)
    assert other.add([album]).added == 3


def test_the_lock_ends_with_the_process_that_holds_it(index: Index, album: Path, tmp_path: Path) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    lock = tmp_path / "x.nunbit/writer.lock"
    command = [sys.executable, "-c", hold, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreBusy):
            index.add([album])
        process.kill()
        process.wait()
    assert index.add([album]).added == 5


@pytest.mark.filterwarnings("ignore:optimize")
def test_readers_see_whole_commits_while_somebody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Index
) -> None:
    monkeypatch.setattr(add_module, "_COMMIT_ROWS", 5)
    monkeypatch.setattr(store_module, "_MANY_FILES", 3)
    for number in range(60):
        picture(tmp_path / f"p/{number:02}.png", number)
    sizes: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        with Index.open(tmp_path / "x.nunbit", make_encoder(), create=False) as reader:
            try:
                while not done.is_set():
                    ids = [item.id for item in reader.items()]
                    assert len(set(ids)) == len(ids)
                    assert len(reader.search("x", top_k=100)) >= len(ids)
                    sizes.append(len(ids))
                    done.wait(0.01)
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    index.add([tmp_path / "p"])
    done.wait(0.1)
    done.set()
    thread.join()
    assert failures == []
    assert sizes == sorted(sizes)
    assert all(size % 5 == 0 for size in sizes)
    assert sizes[-1] == 60


def test_another_encoder_is_refused(tmp_path: Path, album: Path) -> None:
    with Index.open(tmp_path / "x", make_encoder("a" * 64)) as index:
        index.add([album])
    with pytest.raises(EncoderMismatch) as caught:
        Index.open(tmp_path / "x", make_encoder("b" * 64))
    assert "'fake' (aaaaaaaaaaaa)" in caught.value.message
    assert "'fake' (bbbbbbbbbbbb)" in caught.value.message
    assert caught.value.hint
    with Index.open(tmp_path / "x", make_encoder("a" * 64)) as index:
        assert len(index) == 5


def test_index_json(tmp_path: Path) -> None:
    Index.open(tmp_path / "new/x", make_encoder()).close()
    content = json.loads((tmp_path / "new/x/index.json").read_text())
    assert content.pop("created")
    encoder = {"name": "fake", "fingerprint": "f" * 64, "embedding_size": SIZE}
    assert content == {"format_version": 2, "encoder": encoder}
    assert {path.name for path in (tmp_path / "new/x").iterdir()} == {"index.json", "writer.lock"}


def test_a_missing_index(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(StoreNotFound) as caught:
            Index.open(folder, make_encoder(), create=False)
        assert "nunbit index PHOTOS --into" in caught.value.hint
    assert not (tmp_path / "none").exists()


def test_a_foreign_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "mine", tmp_path / "file"):
        for create in (True, False):
            with pytest.raises(StoreError) as caught:
                Index.open(folder, make_encoder(), create=create)
            assert caught.value.hint
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_what_a_killed_creation_leaves_is_taken_over(tmp_path: Path, album: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "writer.lock").touch()
    (folder / "index.json.123.tmp").write_text("{")
    with Index.open(folder, make_encoder()) as index:
        (folder / "pictures.lance/_versions").mkdir(parents=True)  # and a table that was not committed yet
        assert len(index) == 0
        assert index.add([album]).added == 5


def test_two_creators_agree(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    with (folder / "writer.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def other_process() -> None:
            encoder = {"name": "fake", "fingerprint": "other", "embedding_size": SIZE}
            (folder / "index.json").write_text(json.dumps({"format_version": 1, "encoder": encoder}))

        timer = threading.Timer(0.2, other_process)
        timer.start()
        with pytest.raises(EncoderMismatch):
            Index.open(folder, make_encoder())
        timer.join()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format_version": 1, "encoder": 3}', '{"format_version": 99, "encoder": {}}', "\0\0"],
)
def test_a_damaged_identity(tmp_path: Path, content: str) -> None:
    Index.open(tmp_path / "x", make_encoder()).close()
    (tmp_path / "x/index.json").write_text(content)
    with pytest.raises(StoreError) as caught:
        Index.open(tmp_path / "x", make_encoder())
    assert caught.value.hint


def test_a_newer_format(tmp_path: Path) -> None:
    Index.open(tmp_path / "x", make_encoder()).close()
    path = tmp_path / "x/index.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(StoreError, match="format version 99"):
        Index.open(tmp_path / "x", make_encoder())


def test_a_damaged_table(index: Index, album: Path, tmp_path: Path) -> None:
    index.add([album])
    for manifest in (tmp_path / "x.nunbit/pictures.lance/_versions").glob("*.manifest"):
        manifest.write_bytes(b"rubbish")
    with Index.open(tmp_path / "x.nunbit", make_encoder()) as damaged:
        calls: list[Callable[[], object]] = [
            lambda: damaged.search("x", where="width > 1"),
            lambda: len(damaged),
            lambda: damaged.add([album]),
        ]
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.hint


def test_a_closed_index(index: Index, album: Path) -> None:
    index.close()
    index.close()
    calls: list[Callable[[], object]] = [
        lambda: index.add([album]),
        lambda: index.search("x"),
        lambda: index.remove([]),
        lambda: len(index),
        lambda: list(index.items()),
        lambda: index.__enter__(),
    ]
    for call in calls:
        with pytest.raises(NunbitError, match="closed"):
            call()


def test_importing_is_cheap() -> None:
    code = "import sys, nunbit.index; print([m for m in ('lancedb', 'pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

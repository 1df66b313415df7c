"""Whatever happens to the file that keeps embeddings of labels: no error, and never a wrong answer."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from index_fakes import make_encoder
from label_fakes import WordTowers
from nunbit import row_cache as cache
from nunbit.caches import VARIABLE
from nunbit.encode import Encoder, EncoderInfo
from nunbit.errors import NunbitWarning
from nunbit.labels.embedding import embed_labels
from test_label_cache import NAMES, ask, database, query, run_here, start


@contextlib.contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    "change",
    [
        "row = substr(row, 5)",
        "row = zeroblob(length(row))",
        "row = 'a text'",
        "row = 7",
        "checksum = 'x'",
        "row = (SELECT row FROM rows WHERE id = 1), checksum = (SELECT checksum FROM rows WHERE id = 1)",
    ],
)
def test_rows_that_cannot_be_right_are_replaced(change: str) -> None:
    ask(NAMES)
    query(f"UPDATE rows SET {change} WHERE id > 1")
    assert ask(NAMES)[1] >= len(NAMES) - 1
    assert ask(NAMES)[1] == 0


def test_rows_of_another_length_are_replaced() -> None:
    class NarrowTowers(WordTowers):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode_texts(texts)[:, :5]

    ask(NAMES)
    towers = NarrowTowers()
    towers.fingerprint = "a" * 64  # that of the other
    encoder = Encoder(towers, EncoderInfo("narrow", 5, make_encoder().preprocessing))
    for _ in range(2):
        assert embed_labels(encoder, NAMES, ["{}"]).shape == (len(NAMES), 5)
    assert towers.encoded == len(NAMES)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_replaced(content: bytes) -> None:
    database().write_bytes(content)
    with no_warning():
        assert ask(NAMES)[1] == len(NAMES)
        assert ask(NAMES)[1] == 0


def test_a_database_of_something_else_is_replaced() -> None:
    query("CREATE TABLE rows (name TEXT)")
    with no_warning():
        assert ask(NAMES)[1] == len(NAMES)
        assert ask(NAMES)[1] == 0


def test_damage_that_an_error_quotes() -> None:
    ask(NAMES)
    database().write_bytes(
        database().read_bytes().replace(b"CREATE INDEX rows_used", b"CR\xff\xfe\x9bE INDEX rows_used")
    )
    with no_warning():
        assert ask(NAMES)[1] == len(NAMES)
        assert ask(NAMES)[1] == 0


def test_damage_anywhere_reaches_no_answer() -> None:
    names = [f"label {number}" for number in range(400)]
    ask(names)
    whole = database().read_bytes()
    rng = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NunbitWarning)
        for turn in range(60):
            broken = bytearray(whole[: rng.randrange(len(whole))] if turn % 4 == 0 else whole)
            for _ in range(rng.choice([1, 10, 1000])):
                # half of it in the first pages, where the structure lies
                at = rng.randrange(len(broken) if rng.random() < 0.5 else min(len(broken), 2000) or 1)
                broken[at : at + 1] = rng.randbytes(1)
            database().write_bytes(broken)
            ask(names)
            ask(names[::-1])


def test_nothing_can_be_kept_where_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with pytest.warns(NunbitWarning, match="not kept for the next time") as caught:
        assert ask(NAMES)[1] == len(NAMES)
    assert len(caught) == 1
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/x")
    with pytest.warns(NunbitWarning, match="not kept for the next time"):
        ask(NAMES)


def test_the_warning_is_shown_once() -> None:
    database().mkdir()
    shown = run_here("from test_label_cache import *; [ask([str(number)]) for number in range(3)]")[1]
    assert shown.count("not kept for the next time") == 1


@pytest.fixture
def read_only() -> Iterator[None]:
    """The cache has ``NAMES``, and this process may only read it, even if it is root's."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, folder)
        ask(NAMES)
        for path in (Path(folder), database().parent, database()):
            path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            database().parent.chmod(0o755)
            Path(folder).chmod(0o755)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_cache_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_warning():
        assert ask(NAMES)[1] == 0
        monkeypatch.setattr(cache, "FRESH_SECONDS", -1)
        assert ask(NAMES)[1] == 0  # and not marked
    with pytest.warns(NunbitWarning, match="not kept") as caught:
        assert ask([*NAMES, "new"])[1] == 1
    assert len(caught) == 1


@pytest.mark.parametrize("filled", [0, 400])
def test_a_full_disk(filled: int) -> None:
    ask([f"old {number}" for number in range(filled)] or ["x"])
    size = database().stat().st_size
    if not filled:
        database().unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if filled else 1000, before[1]))
    names = [f"new {number}" for number in range(900)]
    try:
        with pytest.warns(NunbitWarning, match="not kept") as caught:
            assert ask(names)[1] == 900
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caught) == 1
    if filled:
        assert ask([f"old {number}" for number in range(filled)])[1] == 0
    assert ask(names)[1] == 900
    assert ask(names)[1] == 0


def test_while_somebody_else_holds_it_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(NAMES)
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(database(), isolation_level=None)) as other, no_warning():
        other.execute("BEGIN EXCLUSIVE")
        begun = time.perf_counter()
        assert ask(NAMES)[1] == len(NAMES)
        assert time.perf_counter() - begun < 1
    assert ask(NAMES)[1] == 0


def test_python_without_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with no_warning():
        assert [ask(NAMES)[1], ask(NAMES)[1]] == [len(NAMES), len(NAMES)]


WRITER = """
import itertools, warnings
from test_label_cache import *
warnings.simplefilter("error")
for turn in itertools.islice(itertools.count(), {turns}):
    ask([f"{{turn % 9}} {{number}}" for number in range(50)])
    if turn == 0:
        print("begun", flush=True)
    if turn % 9 == 8:
        query("DELETE FROM rows WHERE id % 3 = 0")
"""


def test_threads_and_processes_at_once() -> None:
    processes = [start(WRITER.format(turns=40)) for _ in range(3)]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for turn in range(60):
                ask([f"{turn % 9} {number}" for number in range(50)])
        except BaseException as error:
            failures.append(error)

    with no_warning():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert query("PRAGMA integrity_check") == [("ok",)]


def test_a_kill_in_the_middle() -> None:
    for turn in range(4):
        with start(WRITER.format(turns=None)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.05 + 0.03 * turn)
            process.kill()
        with no_warning():
            ask([f"{turn} {number}" for number in range(50)])
        assert query("PRAGMA integrity_check") == [("ok",)]

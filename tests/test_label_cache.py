"""Embeddings of labels that are kept: each is computed once, and in time let go of."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from index_fakes import FakeTowers, make_encoder, picture, unit
from label_fakes import WIDTH, WordTowers, word_encoder
from nunbit import row_cache as cache
from nunbit.caches import cache_folder
from nunbit.cli import nunbit as nunbit_command
from nunbit.encode import Encoder, EncoderInfo, EngineInfo
from nunbit.labels import LabelSet, embedding
from nunbit.labels.embedding import embed_labels, embed_labels_uncached

HERE = Path(__file__).parent
NAMES = ["red cat", "고양이", "a {brace}", "dog", "🐈 {} "]
TWO = ("a {}", "the {}")


def database() -> Path:
    return cache_folder("labels") / cache.FILE


def ask(names: Sequence[str], templates: Sequence[str] = ("{}",), **options: str) -> tuple[np.ndarray, int]:
    """Rows, and how many texts had to be embedded for them; the rows are compared with the truth."""
    towers = WordTowers()
    encoder = word_encoder(towers, **options)
    rows = embed_labels(encoder, names, templates)
    asked = towers.encoded
    np.testing.assert_allclose(rows, embed_labels_uncached(encoder, names, templates), atol=1e-6)
    return rows, asked


def crash_if_asked(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError(f"asked for {texts}")


def query(statement: str) -> list[tuple[int, ...]]:
    with contextlib.closing(sqlite3.connect(database(), isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def run_here(code: str) -> tuple[str, str]:
    """What Python code prints in a process of its own, which has the modules of the tests."""
    process = start(code)
    output = process.communicate()
    assert process.returncode == 0
    return output


def start(code: str) -> subprocess.Popen[str]:
    """Start such a process."""
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# What is computed and what is read


@pytest.mark.parametrize("templates", [("{}",), TWO])
def test_a_second_time_nothing_is_embedded_and_the_rows_are_bit_equal(templates: tuple[str, ...]) -> None:
    first, asked = ask(NAMES, templates)
    assert asked == len(NAMES) * len(templates)
    second, asked = ask(NAMES, templates)
    assert asked == 0
    assert second.dtype == np.float32 and second.flags.writeable
    assert second.tobytes() == first.tobytes()


def test_the_mean_over_templates_is_kept_and_not_made_unit() -> None:
    rows = [ask(["red cat"], TWO)[0] for _ in range(2)][1]
    assert np.linalg.norm(rows) < 0.99


def test_only_what_is_missing_is_embedded_once_and_the_order_is_kept() -> None:
    ask(["b", "d"])
    names = ["a", "b", "c", "a", "d", "b", "a"]
    assert ask(names)[1] == 2  # a and c; `ask` compares the order
    assert ask(names[::-1])[1] == 0


def test_a_label_that_is_no_unicode() -> None:
    rows = [embed_labels(make_encoder(), ["\udc80", "\udc81x"], ["{}"]) for _ in range(2)]
    np.testing.assert_array_equal(*rows)


def test_a_label_in_several_calls_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "TEXTS_AT_ONCE", 4)
    names = [f"label {number}" for number in range(7)]
    assert ask(names, TWO)[1] == 14
    assert ask(names, TWO)[1] == 0


def test_what_was_embedded_before_an_interruption_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "TEXTS_AT_ONCE", 4)

    class Interrupted(WordTowers):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            if self.encoded == 8:
                raise KeyboardInterrupt
            return super().encode_texts(texts)

    names = [f"label {number}" for number in range(12)]
    with pytest.raises(KeyboardInterrupt):
        embed_labels(word_encoder(Interrupted()), names, ["{}"])
    assert ask(names)[1] == 4


def test_another_process_reads_what_this_one_embedded() -> None:
    ask(NAMES[:4], TWO)
    code = f"from test_label_cache import *; print(ask(NAMES[:4], {TWO})[1])"
    assert run_here(code)[0].strip() == "0"


def test_every_part_of_the_key_counts() -> None:
    def asked(fingerprint: str = "a" * 64, engine: str = "torch", templates: Sequence[str] = TWO) -> int:
        towers = WordTowers()
        towers.fingerprint = fingerprint
        info = EncoderInfo("words", WIDTH, make_encoder().preprocessing, EngineInfo(engine))
        embed_labels(Encoder(towers, info), ["cat"], templates)
        return towers.encoded

    assert asked() == 2
    others = [asked("b" * 64), asked(engine="other"), asked(templates=TWO[::-1]), asked(templates=["a {}"])]
    assert others == [2, 2, 2, 1]
    assert asked() == 0


def test_a_model_that_was_trained_in_place_gets_new_rows(tmp_path: Path) -> None:
    import torch

    from clip_models import make_towers

    towers = make_towers(tmp_path)
    encoder = Encoder(towers, EncoderInfo("tiny", 24, towers.settings.preprocessing))
    before = embed_labels(encoder, ["cat", "dog"], ["{}"])
    with torch.no_grad():
        for tensor in towers.model.parameters():
            tensor.mul_(1.5)
    after = embed_labels(encoder, ["cat", "dog"], ["{}"])
    np.testing.assert_allclose(after, encoder.encode_text(["cat", "dog"]), atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_the_command_recognizes_a_second_time_without_the_text_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnceTowers(FakeTowers):
        encode_texts = staticmethod(crash_if_asked)

    def call(towers: FakeTowers) -> str:
        monkeypatch.setattr("nunbit.loading.load", lambda *_, **__: make_encoder(towers=towers))
        arguments = ["recognize", str(file), "--labels", "a,bb", "--templates", "openai7", "--json"]
        return CliRunner().invoke(nunbit_command, arguments, catch_exceptions=False).stdout

    file = picture(tmp_path / "a.png", 1)
    first = call(FakeTowers())
    assert '"bb"' in first
    assert call(OnceTowers()) == first


def test_label_sets_neither_fill_nor_read_it(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    LabelSet.build(tmp_path / "labels.txt", tmp_path / "set", word_encoder())
    assert not database().exists()


def test_more_labels_than_half_of_it_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", 2 * 2000 * 4 * WIDTH)
    ask(NAMES)
    many = [f"label {number}" for number in range(2001)]
    assert [ask(many)[1], ask(many)[1], ask(NAMES)[1]] == [2001, 2001, 0]
    assert [ask(many[:1000])[1], ask(many[:1000])[1]] == [1000, 0]


# Its size and its speed


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(cache, "time", clock)
    monkeypatch.setattr(cache, "LIMIT_BYTES", 60 * cache.PAGE_BYTES)
    now = 1_700_000_000
    ask(["cat"]), ask(["dog"])
    for day in range(40):
        now += 86_401
        ask([f"{day} {number}" for number in range(200)])
        assert ask(["cat"])[1] == 0  # it is used every day, and so stays
        assert database().stat().st_size < 65 * cache.PAGE_BYTES
    assert ask(["dog"])[1] == 1
    assert ask([f"39 {number}" for number in range(200)])[1] == 0


def test_reading_does_not_write_within_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(NAMES)
    before = database().stat().st_mtime_ns
    ask(NAMES)
    assert database().stat().st_mtime_ns == before
    later = time.time() + 86_500
    monkeypatch.setattr(cache, "time", SimpleNamespace(time=lambda: later))
    ask(NAMES)
    ((used,),) = query("SELECT min(used) FROM rows")
    assert used == int(later)


def test_a_thousand_labels_are_read_in_an_instant() -> None:
    class WideTowers(FakeTowers):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            return unit(np.random.default_rng(0).normal(size=(len(texts), 512)))

    names = [f"label {number}" for number in range(1000)]
    encoder = Encoder(WideTowers(), EncoderInfo("wide", 512, make_encoder().preprocessing))
    embed_labels(encoder, names, ["{}"])
    together, alone = [], []
    for number in range(20):
        begun = time.perf_counter()
        embed_labels(encoder, names, ["{}"])
        together.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        embed_labels(encoder, names[number : number + 1], ["{}"])
        alone.append(time.perf_counter() - begun)
    assert min(together) < 100 * min(alone)  # in one go, and not one by one


def test_importing_does_not_import_the_database() -> None:
    code = "import sys, nunbit.cli, nunbit.recognition, nunbit.labels; print('sqlite3' in sys.modules)"
    assert run_here(code)[0].strip() == "False"

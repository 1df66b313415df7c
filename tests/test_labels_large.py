"""Label sets that are too large to be compared in full: recall, probabilities, memory, kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from label_fakes import word_encoder
from nunbit.labels import LabelSet, vectors
from nunbit.labels.search import EXACT_ROWS
from nunbit.recognition import Labels

COUNT = 50_000
CLUSTERS = 300
KILLS = 6


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [f"c{number % CLUSTERS} {number}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("large")
    (folder / "labels.txt").write_text("\n".join(names))
    LabelSet.build(folder / "labels.txt", folder / "set", word_encoder())
    return folder / "set"


@pytest.fixture(scope="module")
def rows(names: list[str]) -> np.ndarray:
    return word_encoder().encode_text(names)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    """Half near the labels, half far from all of them, as pictures are."""
    near = word_encoder().encode_text([f"c{number} unseen" for number in range(150)])
    far = np.random.default_rng(5).normal(size=near.shape).astype(np.float32)
    return np.concatenate([near, far / np.linalg.norm(far, axis=1, keepdims=True)])


@pytest.mark.parametrize("threads", [1, 2])
def test_recall_of_the_ten_nearest(
    folder: Path, names: list[str], rows: np.ndarray, queries: np.ndarray, threads: int
) -> None:
    labels = LabelSet.open(folder, word_encoder())
    assert not labels.exact
    truth = [{names[at] for at in best} for best in np.argsort(-(queries @ rows.T), axis=1)[:, :10]]
    found = labels.search(queries, 10, threads=threads)
    recall = np.mean([len(best & {hit.label for hit in hits}) / 10 for best, hits in zip(truth, found, strict=True)])
    assert recall >= 0.99
    one_by_one = [labels.search(query[None], 10)[0] for query in queries[:20]]
    assert [[hit.label for hit in hits] for hits in one_by_one] == [[hit.label for hit in hits] for hits in found[:20]]


def test_more_labels_than_the_lists_of_a_search_hold(folder: Path) -> None:
    labels = LabelSet.open(folder, word_encoder())
    (hits,) = labels.search(word_encoder().encode_text(["c1 unseen"]), COUNT + 5)
    assert len({hit.label for hit in hits}) == len(hits) == COUNT
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)


def test_synonyms_that_fill_the_candidates_hide_no_label(tmp_path: Path) -> None:
    rest = [f"c{number % 50} {number}" for number in range(9000)]
    rows = [{"name": "cat", "synonyms": [f"cat {number}" for number in range(25_000)]}, *({"name": n} for n in rest)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels, report = LabelSet.build(tmp_path / "a.jsonl", tmp_path / "set", word_encoder())
    assert report.rows == 34_001 and not labels.exact
    (hits,) = labels.search(word_encoder().encode_text(["cat 7"]), 5)
    assert (hits[0].label, hits[0].text) == ("cat", "cat 7")
    assert len({hit.label for hit in hits}) == 5


def test_probabilities_count_the_labels_that_are_not_shown(
    folder: Path, names: list[str], rows: np.ndarray, queries: np.ndarray
) -> None:
    encoder = word_encoder()
    labels = LabelSet.open(folder, encoder)
    everything = Labels.from_embeddings(names, rows, logit_scale=encoder.logit_scale)
    shown = labels.predict(queries, 5)
    off = []
    for query, predictions in zip(queries, shown, strict=True):
        exact = everything.probability(everything.similarity(query))
        place = {name: at for at, name in enumerate(names)}
        off += [p.probability / exact[place[p.label]] - 1 for p in predictions[:1]]
    assert np.median(np.abs(off)) < 0.02
    assert np.quantile(np.abs(off), 0.95) < 0.1
    head_only = [np.exp(20 * (p[0].similarity - 1)) for p in shown]
    assert max(head_only) <= 1 and np.mean([sum(x.probability for x in p) for p in shown]) < 0.9


def test_added_and_removed_labels_of_a_large_set(folder: Path) -> None:
    encoder = word_encoder()
    labels = LabelSet.open(folder, encoder)
    start = time.perf_counter()
    labels.add(["brand new"])
    labels.remove(["c7 7", "brand new"])
    assert time.perf_counter() - start < 0.5
    found = LabelSet.open(folder, encoder).search(encoder.encode_text(["c7 7", "brand new"]), 10)
    assert {hit.label for hits in found for hit in hits}.isdisjoint({"c7 7", "brand new"})
    assert labels.add(["c7 7"]) == 1
    assert labels.search(encoder.encode_text(["c7 7"]), 1)[0][0].similarity == pytest.approx(1, abs=1e-5)
    labels._identity.journal(folder).unlink()


def test_opening_maps_and_does_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr("nunbit.labels.base.from_fixed", lambda *args: reads.append(1) or vectors.from_fixed(*args))
    labels = LabelSet.open(folder)
    assert isinstance(labels._base.lead, np.memmap)
    assert not labels._base._vectors.flags.owndata and not labels._base.row_label.flags.owndata
    assert labels.get("c5 5") is not None and "nowhere" not in labels
    assert not reads


BUILDER = """
import sys, time
from label_fakes import WordTowers, word_encoder
from nunbit.labels import LabelSet, build
build.SHARD_ROWS = 500
towers = WordTowers()
encode = towers.encode_texts
towers.encode_texts = lambda texts: (time.sleep(0.02), encode(texts))[1]
print("ready", flush=True)
LabelSet.build(sys.argv[1], sys.argv[2], word_encoder(towers))
print(towers.encoded, flush=True)
"""


def run_builder(file: Path, into: Path, wait: Callable[[], float] | None) -> int | None:
    """Run a build; kill it after a while if there is a ``wait``. Texts embedded by a run that ended, else None."""
    command = [sys.executable, "-c", BUILDER, str(file), str(into)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if wait is None:
            return int(process.communicate()[0])
        time.sleep(wait())
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
    return None


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_builds_end_like_one_that_was_not(tmp_path: Path) -> None:
    rng = random.Random(3)
    file = tmp_path / "labels.txt"
    count = EXACT_ROWS + 500
    file.write_text("\n".join(f"c{number % 90} {number}" for number in range(count)))
    assert run_builder(file, tmp_path / "whole", None) == count
    killed, patience, done = tmp_path / "killed", 1.0, 0
    for number in range(3 * KILLS):
        run_builder(file, killed, lambda patience=patience: patience * rng.uniform(0.1, 0.8))  # type: ignore[misc]
        done = len(list((killed / "building").glob("shard-*.npz")))
        if done or (killed / "labels.json").exists():
            if number >= KILLS - 1:
                break
        else:
            patience *= 1.3  # a busy machine
    assert done > 0 or (killed / "labels.json").exists(), "no kill came after the first shard"
    embedded = run_builder(file, tmp_path / "killed", None)
    assert embedded is not None and embedded <= count - done * 500
    if embedded < count and content(tmp_path / "killed") != content(tmp_path / "whole"):
        generations = [LabelSet.open(tmp_path / name).identity.generation for name in ("killed", "whole")]
        assert generations[0] > generations[1]  # a kill came after the last step: then this was one build more

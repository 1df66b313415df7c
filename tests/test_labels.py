"""Label sets: what a file says, what a search finds, what is kept."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from label_fakes import WIDTH, WordTowers, word_encoder
from nunbit.errors import EncoderMismatch, StoreBusy, StoreError, StoreNotFound, UsageError
from nunbit.labels import LabelEntry, LabelSet
from nunbit.labels.files import read_labels
from nunbit.labels.folder import writer_lock
from nunbit.labels.vectors import from_fixed, to_fixed
from nunbit.recognition import Labels


def build(folder: Path, names: list[str], **options: object) -> LabelSet:
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / "labels.txt"
    file.write_text("\n".join(names), encoding="utf-8")
    return LabelSet.build(file, folder / "set", word_encoder(), **options)[0]  # type: ignore[arg-type]


@pytest.fixture
def animals(tmp_path: Path) -> LabelSet:
    file = tmp_path / "animals.jsonl"
    rows = [
        {"name": "animal"},
        {"name": "mammal", "parents": ["animal"]},
        {"name": "고양이", "synonyms": ["cat", "나비"], "parents": "mammal; pet"},
        {"name": "dog", "synonyms": "개;hound", "parent": "mammal"},
        {"name": "ouroboros", "parents": ["serpent"]},
        {"name": "serpent", "parents": ["ouroboros"]},
    ]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return LabelSet.build(file, tmp_path / "set", word_encoder())[0]


def test_bad_rows_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    good = {"name": " red \t panda ", "synonyms": ["red panda", "firefox", ""]}
    lines = [json.dumps(good).encode(), b"", b"{", b"[1]", b"\xff\xfe", b'{"name": 3}', b'{"name": ""}']
    lines += [b'{"name": "a", "synonyms": [1]}', json.dumps({"name": "x" * 1001}).encode()]
    lines += [b'{"name": "red panda", "synonyms": ["wah"], "parent": "mammal"}']
    file.write_bytes(b"\n".join(lines))
    found = read_labels(file)
    assert found.entries == [LabelEntry("red panda", ("firefox", "wah"), ("mammal",))]
    assert found.merged == 1
    assert found.reasons == {
        "empty": 2,
        "not JSON": 1,
        "not a JSON object": 1,
        "not UTF-8": 1,
        "no name": 1,
        "synonyms or parents that are no texts": 1,
        "too long": 1,
    }
    assert [row.line for row in found.rejected] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_tables_and_lists(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes(
        '\ufeffName,price,Synonyms,parent\n"cup, red",1,mug; 컵,dish\n,2,,\n\xff'.encode("utf-8") + b"\xff\nb\n"
    )
    found = read_labels(table)
    assert found.entries == [LabelEntry("cup, red", ("mug", "컵"), ("dish",)), LabelEntry("b")]
    assert found.reasons == {"empty": 1, "not UTF-8": 1}
    text = tmp_path / "a.txt"
    text.write_text("가\n" + unicodedata.normalize("NFD", "가") + "\n\n나\n", encoding="utf-8")
    found = read_labels(text)
    assert ([entry.name for entry in found.entries], found.merged) == (["가", "나"], 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "no label in a.txt: 2 empty"),
        ("a.csv", "label\nx\n", "no column 'name'"),
        ("a.xls", "", "ends in '.xls'"),
    ],
)
def test_files_that_cannot_be_meant(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / name)
    with pytest.raises(UsageError, match="there is no file"):
        read_labels(tmp_path / "nowhere.txt")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_a_small_set_is_searched_like_brute_force(
    tmp_path_factory: pytest.TempPathFactory, count: int, top_k: int, seed: int, gone: int
) -> None:
    names = [f"w{number % 7} {number}" for number in range(count)]
    labels = build(tmp_path_factory.mktemp("set"), names)
    removed = names[: min(gone, count - 1)]
    labels.remove(removed)
    left = [name for name in names if name not in removed]
    queries = np.random.default_rng(seed).normal(size=(3, WIDTH)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    truth = queries @ word_encoder().encode_text(left).T
    for hits, similarity in zip(labels.search(queries, top_k), truth, strict=True):
        best = np.argsort(-similarity)[:top_k]
        assert len({hit.label for hit in hits}) == len(hits)
        # rows that differ by less than sixteen bits tell may change places
        np.testing.assert_allclose([similarity[left.index(hit.label)] for hit in hits], similarity[best], atol=3e-5)
        np.testing.assert_allclose([hit.similarity for hit in hits], similarity[best], atol=3e-5)


def test_synonyms_answer_with_their_label_once(animals: LabelSet) -> None:
    encoder = word_encoder()
    for text, label in (("cat", "고양이"), ("나비", "고양이"), ("hound", "dog"), ("개", "dog")):
        hits = animals.search(encoder.encode_text([text]), 6)[0]
        assert (hits[0].label, hits[0].text) == (label, text)
        assert hits[0].similarity == pytest.approx(1, abs=1e-5)
        assert len({hit.label for hit in hits}) == len(hits) == 6


def test_hierarchy(animals: LabelSet) -> None:
    assert animals.ancestors("고양이") == ["mammal", "pet", "animal"]
    assert animals.ancestors("animal") == []
    assert animals.ancestors("serpent") == ["ouroboros"]  # a circle ends
    with pytest.raises(UsageError, match="no label 'cat'"):
        animals.ancestors("cat")


def test_what_is_added_and_removed_stays(animals: LabelSet) -> None:
    encoder = word_encoder()
    panda = LabelEntry("red panda", ("레서판다",), ("mammal",))
    assert animals.add([panda, "dog"]) == 1  # dog was there: it loses its synonyms
    assert animals.remove(["고양이", "unicorn"]) == 1
    for labels in (animals, LabelSet.open(animals.folder, encoder)):
        assert len(labels) == 6
        assert "고양이" not in labels and labels.get("red panda") == panda and labels.get("dog") == LabelEntry("dog")
        assert labels.ancestors("red panda") == ["mammal", "animal"]
        found = labels.search(encoder.encode_text(["레서판다", "고양이", "개"]), 10)
        assert (found[0][0].label, found[0][0].text) == ("red panda", "레서판다")
        assert [len(hits) for hits in found] == [6, 6, 6]
        assert all(hit.text not in ("고양이", "cat", "개") for hits in found for hit in hits)
    assert animals.remove(["red panda"]) == 1
    assert len(LabelSet.open(animals.folder)) == 5


def test_two_openers_see_each_other_before_they_write(animals: LabelSet) -> None:
    other = LabelSet.open(animals.folder, word_encoder())
    animals.add(["lion"])
    assert other.add(["lion", "tiger"]) == 1
    assert len(other) == len(LabelSet.open(animals.folder)) == 8
    with writer_lock(animals.folder), pytest.raises(StoreBusy):
        animals.add(["bear"])


def test_compacting_embeds_nothing_and_changes_no_answer(animals: LabelSet) -> None:
    towers = WordTowers()
    encoder = word_encoder(towers)
    animals.add([LabelEntry("red panda", ("레서판다",))])
    animals.remove(["animal"])
    labels = LabelSet.open(animals.folder, encoder)
    query = word_encoder().encode_text(["레서판다 cat"])
    before = labels.search(query, 10)[0]
    labels.compact()
    assert towers.encoded == 0 and labels.changes == 0
    assert [hit.label for hit in labels.search(query, 10)[0]] == [hit.label for hit in before]
    assert sorted(path.name.split("-")[0] for path in labels.folder.iterdir()) == ["base", "labels.json", "writer.lock"]


def test_building_again_embeds_only_what_is_new(tmp_path: Path) -> None:
    build(tmp_path, ["cat", "dog"]).add(["lion", "bear"])
    towers = WordTowers()
    (tmp_path / "more.txt").write_text("dog\nlion\nwolf\n")
    labels, report = LabelSet.build(tmp_path / "more.txt", tmp_path / "set", word_encoder(towers))
    assert (towers.encoded, report.embedded, report.reused) == (1, 1, 2)
    assert [entry.name for entry in labels.entries()] == ["dog", "lion", "wolf"]


def test_another_encoder_or_other_templates_are_refused(animals: LabelSet, tmp_path: Path) -> None:
    other = word_encoder(fingerprint="b" * 64)
    with pytest.raises(EncoderMismatch, match="'words' .aaaaaaaaaaaa.*'words' .bbbbbbbbbbbb."):
        LabelSet.open(animals.folder, other)
    file = tmp_path / "animals.jsonl"
    with pytest.raises(EncoderMismatch, match="bbbbbbbbbbbb"):
        LabelSet.build(file, animals.folder, other)
    with pytest.raises(EncoderMismatch, match=r"\['\{\}'\].*a photo of a"):
        LabelSet.build(file, animals.folder, word_encoder(), templates="photo")


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat")
    with pytest.raises(StoreError, match="something else"):
        LabelSet.build(tmp_path / "a.txt", tmp_path, word_encoder())
    with pytest.raises(StoreNotFound, match="no label set"):
        LabelSet.open(tmp_path / "nowhere", word_encoder())
    labels = build(tmp_path / "x", ["cat"])
    (labels.identity.base_folder(labels.folder) / "vectors.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        LabelSet.open(labels.folder)


@pytest.mark.parametrize("bias", [None, -3.0])
def test_probabilities_of_a_small_set_are_those_of_its_labels_given_one_by_one(
    tmp_path: Path, bias: float | None
) -> None:
    names = [f"w{number % 5} {number}" for number in range(60)]
    folder = build(tmp_path, names, templates=["a {}", "the {}"]).folder
    encoder = word_encoder(bias=bias)
    labels = LabelSet.open(folder, encoder)
    labels.add(["extra"])
    labels.remove([names[0]])
    query = encoder.encode_text(["a w3 12"])
    expected = Labels(encoder, [*names[1:], "extra"], templates=["a {}", "the {}"]).predict(query[0], 7)
    (predicted,) = labels.predict(query, 7)
    assert [p.label for p in predicted] == [p.label for p in expected]
    np.testing.assert_allclose([p.probability for p in predicted], [p.probability for p in expected], rtol=1e-4)


def test_calls_that_cannot_be_meant(animals: LabelSet) -> None:
    with pytest.raises(UsageError, match="top_k"):
        animals.search(np.zeros((1, WIDTH), np.float32), 0)
    with pytest.raises(UsageError, match="shape"):
        animals.search(np.zeros(WIDTH, np.float32))
    with pytest.raises(UsageError, match="empty"):
        animals.add([" "])
    with pytest.raises(UsageError, match="without its encoder"):
        LabelSet.open(animals.folder).add(["x"])


def test_a_journal_line_cut_off_by_a_kill_is_passed_over(animals: LabelSet) -> None:
    animals.add(["lion"])
    path = animals.identity.journal(animals.folder)
    path.write_bytes(path.read_bytes() + b'{"add": {"na')
    labels = LabelSet.open(animals.folder, word_encoder())
    assert len(labels) == 7
    labels.add(["tiger"])
    assert {"lion", "tiger"} <= {entry.name for entry in LabelSet.open(animals.folder).entries()}


def test_fixed_point_is_close() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(from_fixed(*to_fixed(rows)) @ rows.T - rows @ rows.T).max() < 1e-5


def test_what_another_file_has_begun_is_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.labels.build.SHARD_ROWS", 2)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ["a", "b", "c"], progress=stop)
    with pytest.raises(StoreNotFound, match="no finished label set"):
        LabelSet.open(tmp_path / "set")
    labels = build(tmp_path, ["x", "y", "c"])
    assert labels.search(word_encoder().encode_text(["x"]), 1)[0][0].similarity == pytest.approx(1, abs=1e-5)

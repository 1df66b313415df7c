"""From sorted pictures to a head on the disk and back, with everything that people get wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from index_fakes import FakeTowers, make_encoder, picture
from nunbit.adapt import (
    FitOptions,
    Promises,
    class_texts,
    embed_examples,
    fit_head,
    read_descriptions,
    read_examples,
    write_questions,
)
from nunbit.cli import nunbit as command_line
from nunbit.errors import ConfigError, EncoderMismatch, StoreError, StoreNotFound, UsageError
from nunbit.head import AnswerSets, Cache, Calibration, FeatureAdapter, Head, Unknown, is_head, load_head, save_head


@pytest.fixture
def sorted_pictures(tmp_path: Path) -> Path:
    """Two classes of four pictures."""
    for number in range(8):
        picture(tmp_path / "sorted" / ("빨간_컵" if number % 2 else "plate") / f"{number}.png", number)
    return tmp_path / "sorted"


def test_folders_are_classes(sorted_pictures: Path) -> None:
    examples = read_examples(sorted_pictures, ["a spoon"])
    assert examples.classnames == ("plate", "빨간 컵", "a spoon")
    assert [one.labels for one in examples.examples] == [("plate",)] * 4 + [("빨간 컵",)] * 4
    assert not examples.multi_label


def test_tables_are_classes_and_may_have_several_labels(sorted_pictures: Path, tmp_path: Path) -> None:
    rows = [{"image": "sorted/plate/0.png", "label": "plate"}, {"image": "sorted/빨간_컵/1.png", "label": "cup"}]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not read_examples(tmp_path / "one.jsonl").multi_label
    (tmp_path / "one.csv").write_text("image,label\nsorted/plate/0.png,plate\nsorted/빨간_컵/1.png,cup\n")
    assert read_examples(tmp_path / "one.csv").classnames == ("plate", "cup")
    rows.append({"image": "sorted/plate/2.png", "labels": ["plate", "cup"]})
    (tmp_path / "several.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    several = read_examples(tmp_path / "several.jsonl")
    assert several.multi_label
    shots, _, _ = embed_examples(make_encoder(), several)
    assert shots.targets.tolist() == [[True, False], [False, True], [True, True]]
    rows.append({"image": "sorted/plate/4.png", "labels": []})
    (tmp_path / "none.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shots, _, _ = embed_examples(make_encoder(), read_examples(tmp_path / "none.jsonl"))
    assert shots.targets[3].tolist() == [False, False]


def test_what_cannot_be_meant_is_named(sorted_pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(sorted_pictures / "plate", tmp_path / "single" / "plate")
    with pytest.raises(UsageError, match="holds one class, 'plate', expected 2"):
        read_examples(tmp_path / "single")
    assert read_examples(tmp_path / "single", ["cup"]).classnames == ("plate", "cup")
    picture(sorted_pictures / "Plate" / "9.png", 9)
    with pytest.raises(UsageError, match="'Plate' and 'plate'"):
        read_examples(sorted_pictures)
    shutil.rmtree(sorted_pictures / "Plate")
    with pytest.raises(UsageError, match="differ in capitals alone"):
        read_examples(sorted_pictures, ["PLATE"])
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "b").mkdir()
    with pytest.raises(UsageError, match="holds no example"):
        read_examples(tmp_path / "empty")


def test_labels_in_another_unicode_form_are_the_same(sorted_pictures: Path) -> None:
    import unicodedata

    apart = unicodedata.normalize("NFD", "빨간 컵")
    examples = read_examples(sorted_pictures, [apart])
    assert examples.classnames == ("plate", "빨간 컵")


def test_copies_and_contradictions_are_set_aside(sorted_pictures: Path) -> None:
    shutil.copy(sorted_pictures / "plate/0.png", sorted_pictures / "plate/copy.png")
    shutil.copy(sorted_pictures / "plate/2.png", sorted_pictures / "빨간_컵/wrong.png")
    (sorted_pictures / "plate/broken.png").write_bytes(b"no picture")
    shots, kept, rejected = embed_examples(make_encoder(), read_examples(sorted_pictures))
    reasons = {Path(one.path).name: one.reason for one in rejected}
    assert reasons["copy.png"] == "copy"
    assert reasons["2.png"] == reasons["wrong.png"] == "in several classes"
    assert "broken.png" in reasons
    detail = next(one.detail for one in rejected if one.path.endswith("wrong.png"))
    assert "빨간 컵 here and plate in" in detail and "2.png" in detail
    assert len(shots.rows) == len(kept) == 7


def test_a_class_of_broken_files_stays_by_its_words(sorted_pictures: Path) -> None:
    for path in (sorted_pictures / "plate").iterdir():
        path.write_bytes(b"no picture")
    fitted = fit_head(make_encoder(), read_examples(sorted_pictures), FitOptions(rungs=["zero-shot", "nearest-mean"]))
    assert fitted.head.classnames == ("plate", "빨간 컵")
    assert len(fitted.rejected) == 4
    for path in (sorted_pictures / "빨간_컵").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="no example could be used"):
        fit_head(make_encoder(), read_examples(sorted_pictures))


def test_pictures_are_looked_at_once(sorted_pictures: Path) -> None:
    towers = FakeTowers()
    first = embed_examples(make_encoder("c" * 64, towers), read_examples(sorted_pictures))[0]
    assert towers.encoded == 8
    picture(sorted_pictures / "plate" / "new.png", 77)
    second = embed_examples(make_encoder("c" * 64, towers), read_examples(sorted_pictures))[0]
    assert towers.encoded == 9
    np.testing.assert_array_equal(second.rows[:4], first.rows[:4])
    embed_examples(make_encoder("e" * 64, towers), read_examples(sorted_pictures))
    assert towers.encoded == 18  # another encoder


def make_head() -> Head:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Head(
        ("빨간 컵", "plate", "spoon"),
        draw(3, 8),
        draw(3),
        cache=Cache(draw(5, 8), np.eye(5, 3, dtype=np.float32), 2.0, 1.5),
        adapter=FeatureAdapter(draw(2, 8), draw(8, 2), 0.25),
        calibration=Calibration(np.array([0.5, 1.0, 2.0]), np.array([0.0, 0.1, -0.1])),
        unknown=Unknown("neighbors", 0.3, 0.05, draw(5, 8), draw(0, 8)),
        answers=AnswerSets(0.3, 0.9),
    )


def test_a_head_comes_back_as_it_was(tmp_path: Path) -> None:
    encoder, head = make_encoder(), make_head()
    save_head(head, tmp_path / "head", encoder, {"rung": "none"})
    rows = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    again = load_head(tmp_path / "head", encoder)
    np.testing.assert_array_equal(again.probability(rows), head.probability(rows))
    np.testing.assert_array_equal(again.is_unknown(rows), head.is_unknown(rows))
    assert again.classnames == head.classnames and again.answers == head.answers
    plain = replace(head, cache=None, adapter=None, calibration=None, unknown=None, answers=None, multi_label=True)
    save_head(plain, tmp_path / "head", encoder, {})
    np.testing.assert_array_equal(load_head(tmp_path / "head", encoder).probability(rows), plain.probability(rows))


def test_a_head_is_bound_to_its_encoder_and_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "head"
    with pytest.raises(StoreNotFound, match="no head"):
        load_head(folder, make_encoder())
    save_head(make_head(), folder, make_encoder(), {})
    with pytest.raises(EncoderMismatch, match=r"made with fake \(ffffffffffff\), not with fake \(eeeeeeeeeeee\)"):
        load_head(folder, make_encoder("e" * 64))
    content = bytearray((folder / "head.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "head.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match="sha256 differs"):
        load_head(folder, make_encoder())
    save_head(make_head(), folder, make_encoder(), {})
    described = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    del described["numbers"]
    (folder / "head.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match="damaged: 'numbers'"):
        load_head(folder, make_encoder())
    (folder / "head.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match="damaged"):
        load_head(folder, make_encoder())
    assert is_head(folder)


def test_predictions_are_ordered_and_named() -> None:
    head = make_head()
    row = np.random.default_rng(2).normal(size=8).astype(np.float32)
    predictions = head.predict(row / np.linalg.norm(row))
    assert [p.probability for p in predictions] == sorted((p.probability for p in predictions), reverse=True)
    assert sum(p.probability for p in predictions) == pytest.approx(1)
    assert {p.label for p in predictions} == set(head.classnames)
    assert len(head.predict(row, 1)) == 1
    with pytest.raises(UsageError, match="top_k"):
        head.predict(row, 0)
    with pytest.raises(UsageError, match=r"expected \(N, 8\)"):
        head.logits(np.zeros((1, 9), np.float32))


def test_fit_and_recognize_on_the_command_line(
    sorted_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nunbit.loading.load", lambda *_, **__: make_encoder())
    into = tmp_path / "my.head"
    ran = CliRunner().invoke(command_line, ["adapt", "fit", str(sorted_pictures), "--into", str(into)])
    assert ran.exit_code == 0, ran.output
    assert "8 examples, 2 classes, 4 each" in ran.output
    assert "> " in ran.output
    ran = CliRunner().invoke(
        command_line,
        ["adapt", "fit", str(sorted_pictures), "--into", str(into), "--labels", "a spoon", "--json"],
    )
    table = json.loads(ran.stdout)
    assert table["classes"] == 3 and len(table["rungs"]) == 6
    about = json.loads((into / "head.json").read_text(encoding="utf-8"))["about"]
    assert about["rung"] == table["rung"]
    some = str(sorted_pictures / "plate" / "0.png")
    ran = CliRunner().invoke(command_line, ["recognize", some, "--labels", str(into), "--model", "fake", "--json"])
    assert ran.exit_code == 0, ran.output
    assert {row["label"] for row in json.loads(ran.stdout)["predictions"]} == {"plate", "빨간 컵", "a spoon"}
    assert json.loads(ran.stdout)["unknown"] in (True, False)
    assert set(json.loads(ran.stdout)["answers"]) <= {"plate", "빨간 컵", "a spoon"}
    for meant in (str(tmp_path / "mine.head"), "mine.head", str(sorted_pictures)):
        ran = CliRunner().invoke(command_line, ["recognize", some, "--labels", meant])
        assert ran.exit_code == 2 and f"the folder {meant}" in ran.output
    ran = CliRunner().invoke(command_line, ["recognize", some, "--labels", str(into), "--model", "x", "--templates", "photo"])
    assert ran.exit_code == 2 and "no effect on a head" in ran.output
    described = json.loads((into / "head.json").read_text(encoding="utf-8"))
    described["encoder"]["name"] = "someone/else"
    (into / "head.json").write_text(json.dumps(described))
    ran = CliRunner().invoke(command_line, ["recognize", some, "--labels", str(into)])
    assert ran.exit_code == 2 and "give --model someone/else" in ran.output  # nothing is fetched unasked
    ran = CliRunner().invoke(command_line, ["adapt", "fit", str(sorted_pictures), "--into", str(into), "--rungs", "x"])
    assert ran.exit_code == 2 and "there is no rung 'x'" in ran.output


def test_promises_are_settings(sorted_pictures: Path, tmp_path: Path) -> None:
    encoder, examples = make_encoder(), read_examples(sorted_pictures)
    (tmp_path / "words.txt").write_text("plate\na dog\na house in the woods\n하늘\n\n", encoding="utf-8")
    for way in ("neighbors", "energy", "negatives", "none"):
        promises = Promises(unknown=way, negatives=str(tmp_path / "words.txt"), coverage=0.75)  # type: ignore[arg-type]
        head = fit_head(encoder, examples, FitOptions(rungs=["nearest-mean"], promises=promises)).head
        assert head.answers is not None and head.answers.coverage == 0.75
        save_head(head, tmp_path / way, encoder, {})
        again = load_head(tmp_path / way, encoder)
        rows = encoder.encode_image([str(path) for path in sorted(sorted_pictures.glob("*/*"))])
        if way == "none":
            assert again.is_unknown(rows) is None
            continue
        found = again.is_unknown(rows)
        assert found is not None and again.unknown is not None and again.unknown.way == way
        np.testing.assert_array_equal(found, head.is_unknown(rows))
    with pytest.raises(UsageError, match="cannot be read"):
        fit_head(encoder, examples, FitOptions(promises=Promises(unknown="negatives", negatives="/nowhere")))
    with pytest.raises(ConfigError, match="coverage is 1"):
        Promises(coverage=1)
    ran = CliRunner().invoke(
        command_line, ["adapt", "fit", str(sorted_pictures), "--into", "x", "--set", "unknwon=none"]
    )
    assert ran.exit_code != 0 and "did you mean 'unknown'" in ran.output


def test_answers_are_what_is_probable_enough() -> None:
    head = replace(make_head(), answers=AnswerSets(0.2, 0.9))
    rows = np.random.default_rng(3).normal(size=(20, 8)).astype(np.float32)
    for row in rows:
        found = head.recognize(row, 1, path="a.jpg")
        likely = {name for name, p in zip(head.classnames, head.probability(row[None])[0], strict=True) if p >= 0.2}
        assert found.path == "a.jpg" and len(found.predictions) == 1
        assert found.answers is not None and set(found.answers) == likely
        assert found.unknown == bool(head.is_unknown(row[None])[0])  # type: ignore[index]


def test_descriptions_go_out_as_questions_and_come_back(sorted_pictures: Path, tmp_path: Path) -> None:
    examples, encoder = read_examples(sorted_pictures), make_encoder()
    write_questions(examples.classnames, tmp_path / "ask.jsonl")
    with pytest.raises(UsageError, match="describes nothing yet"):
        read_descriptions(tmp_path / "ask.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "ask.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "빨간 컵" in rows[1]["questions"][0]
    rows[1]["descriptions"] = ["손잡이가 달린 붉은 그릇", " "]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_descriptions(tmp_path / "ask.jsonl")
    assert read == {"빨간 컵": ("손잡이가 달린 붉은 그릇",)}
    (tmp_path / "one.json").write_text(json.dumps({"plate": ["flat"], "빨간 컵": []}))
    assert read_descriptions(tmp_path / "one.json") == {"plate": ("flat",)}
    classes = class_texts(encoder, examples.classnames, descriptions=read)
    assert classes.described is not None
    said = encoder.encode_text(["빨간 컵", "손잡이가 달린 붉은 그릇"]).mean(0)
    np.testing.assert_allclose(classes.described[1], said / np.linalg.norm(said), atol=1e-6)
    np.testing.assert_array_equal(classes.described[0], classes.rows[0])  # not described
    fitted = fit_head(encoder, examples, FitOptions(rungs=["descriptions"], descriptions=read))
    np.testing.assert_allclose(fitted.head.weights, 100 * classes.described, rtol=1e-5)
    with pytest.raises(UsageError, match="'plat' is described and is no class"):
        class_texts(encoder, examples.classnames, descriptions={"plat": ("flat",)})
    (tmp_path / "bad.jsonl").write_text('{"label": "plate"}\n')
    with pytest.raises(UsageError, match="holds no descriptions"):
        read_descriptions(tmp_path / "bad.jsonl")

"""One very thing: it is found among its kind, what may be it teaches nothing, and labels lose little."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from index_fakes import make_encoder, picture
from nunbit.adapt import ClassTexts, ConceptPictures, concept_page, learn_concept
from nunbit.cli import nunbit as command_line
from nunbit.errors import UsageError
from nunbit.head import describe_head, load_head
from nunbit.index import Index

WIDTH, SCALE = 24, 12.0


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_kind(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five photographs of a thing, an index of its kind with six more of it at the end, and where those are."""
    rng = np.random.default_rng(seed)
    kind = rng.normal(size=WIDTH)
    thing = kind + 0.8 * rng.normal(size=WIDTH)
    photographs = unit(thing + 0.45 * rng.normal(size=(5, WIDTH)))
    others = unit(kind + 0.8 * rng.normal(size=(150, WIDTH)) + 0.3 * rng.normal(size=(150, WIDTH)))
    more = unit(thing + 0.45 * rng.normal(size=(6, WIDTH)))
    return photographs, np.concatenate([others, more]), np.arange(150, 156)


def test_the_thing_is_found_among_its_kind() -> None:
    photographs, index, same = make_kind()
    concept = learn_concept("my mug", photographs, index, logit_scale=SCALE)
    assert concept.head.classnames == ("my mug", "something else")
    best = np.argsort(-concept.scores)[:6]
    assert len(set(best.tolist()) & set(same.tolist())) >= 5
    plain = np.argsort(-(index @ photographs.mean(0)))[:6]
    assert len(set(best.tolist()) & set(same.tolist())) >= len(set(plain.tolist()) & set(same.tolist()))
    np.testing.assert_allclose(
        concept.head.logits(index)[:, 0] - concept.head.logits(index)[:, 1], concept.scores, atol=1e-4
    )
    assert len(concept.found) == 5 and (concept.found == 0).sum() >= 4


def test_what_may_be_the_thing_is_no_negative_and_few_others_are_called_so() -> None:
    photographs, index, _ = make_kind()
    with_itself = np.concatenate([index, photographs[:2]])
    concept = learn_concept("it", photographs, with_itself, logit_scale=SCALE, false_alarms=0.01)
    assert {len(index), len(index) + 1} <= set(concept.perhaps.tolist())
    assert not set(concept.perhaps.tolist()) & set(concept.hard.tolist())
    others = np.setdiff1d(np.arange(len(with_itself)), concept.perhaps)
    assert (concept.scores[others] > 0).mean() <= 0.01
    alone = learn_concept("it", photographs[:1], with_itself, logit_scale=SCALE)
    assert alone.perhaps.tolist() == [len(index)] and len(alone.found) == 0


def test_labels_keep_their_odds_and_what_they_lose_is_counted() -> None:
    photographs, index, _ = make_kind()
    rng = np.random.default_rng(3)
    labels = ClassTexts(("cup", "접시"), unit(rng.normal(size=(2, WIDTH))), SCALE)
    concept = learn_concept("my mug", photographs, index, labels, logit_scale=SCALE, false_alarms=0.1)
    logits = concept.head.logits(index)
    np.testing.assert_allclose(logits[:, 1:], SCALE * index.astype(float) @ labels.rows.T, atol=1e-5)
    others = np.setdiff1d(np.arange(len(index)), concept.perhaps)
    before, now = logits[others, 1:].argmax(1), logits[others].argmax(1)
    assert concept.before.tolist() == np.bincount(before, minlength=2).tolist()
    assert concept.taken.tolist() == [int(((before == n) & (now == 0)).sum()) for n in range(2)]
    rest = np.log(np.exp(logits[:, 1:]).sum(1))
    np.testing.assert_allclose(logits[:, 0] - rest, concept.scores, atol=1e-3)


def test_near_duplicates_of_a_photograph_are_left_out_with_it() -> None:
    photographs, index, _ = make_kind()
    twice = np.concatenate([photographs, photographs])
    found = learn_concept("it", twice, index, logit_scale=SCALE, groups=np.tile(np.arange(5), 2)).found
    alone = learn_concept("it", photographs, index, logit_scale=SCALE).found
    assert len(found) == 10 and found[:5].tolist() == found[5:].tolist()
    assert abs(int(found[:5].sum()) - int(alone.sum())) <= 3  # not all found by their twins
    burst = learn_concept("it", twice[[0, 5]], index, logit_scale=SCALE, groups=np.zeros(2, np.int64))
    assert len(burst.found) == 0


def test_what_cannot_be_learned_is_named() -> None:
    photographs, index, _ = make_kind()
    with pytest.raises(UsageError, match="no photograph"):
        learn_concept("it", photographs[:0], index, logit_scale=SCALE)
    with pytest.raises(UsageError, match="no picture of anything else"):
        learn_concept("it", photographs, photographs[:0], logit_scale=SCALE)
    labels = ClassTexts(("it",), index[:1], SCALE)
    with pytest.raises(UsageError, match="'it' is the thing and a label"):
        learn_concept("it", photographs, index, labels, logit_scale=SCALE)


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    photographs, index, _ = make_kind()
    labels = ClassTexts(("<b>", "접시"), index[:2], SCALE)
    concept = learn_concept("<i>mug", photographs, index, labels, logit_scale=SCALE)
    shown = str(picture(tmp_path / "a.png", 1))
    pictures = ConceptPictures([shown] * 5, [shown] * len(index))
    page = concept_page(concept, pictures).decode()
    assert "<i>mug" not in page and "&lt;i&gt;mug" in page and "<b>" not in page
    assert "data:image/jpeg" in page and 'src="http' not in page and "접시" in page


def test_on_the_command_line_and_in_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder()
    monkeypatch.setattr("nunbit.loading.load", lambda *_, **__: encoder)
    for number in range(12):
        picture(tmp_path / "photos" / f"{number}.png", number)
    for number in range(3):
        picture(tmp_path / "mug" / f"{number}.png", 100 + number)
    (tmp_path / "mug" / "broken.png").write_bytes(b"no picture")
    with Index.open(tmp_path / "x.nunbit", encoder) as index:
        index.add([tmp_path / "photos"])
    into, page = tmp_path / "mug.head", tmp_path / "pages" / "mug.html"
    given = [
        "adapt",
        "concept",
        "내 컵",
        str(tmp_path / "mug"),
        "--in",
        str(tmp_path / "x.nunbit"),
        "--into",
        str(into),
    ]
    ran = CliRunner().invoke(command_line, [*given, "--labels", "cup, plate", "--report", str(page), "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["photographs"] == 3 and said["rejected"] == 1 and set(said["labels"]) == {"cup", "plate"}
    assert describe_head(into)["about"]["kind"] == "concept" and page.is_file()
    head = load_head(into, encoder)
    assert head.classnames == ("내 컵", "cup", "plate")
    ran = CliRunner().invoke(command_line, ["search", str(into), "--in", str(tmp_path / "x.nunbit"), "--json"])
    found = [Path(json.loads(line)["path"]).name for line in ran.stdout.splitlines()]
    rows = encoder.encode_image([tmp_path / "photos" / f"{number}.png" for number in range(12)])
    assert found == [f"{n}.png" for n in np.argsort(-(rows @ head.weights[0]), kind="stable")[:10]]
    ran = CliRunner().invoke(command_line, ["search", "other.head", "--in", str(tmp_path / "x.nunbit")])
    assert ran.exit_code != 0 and "no head in other.head" in ran.output
    ran = CliRunner().invoke(command_line, [*given[:3], str(tmp_path / "nothing"), *given[4:]])
    assert ran.exit_code != 0

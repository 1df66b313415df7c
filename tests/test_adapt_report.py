"""What a study measures is what it says, on pictures that taught nothing; and the page shows it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from index_fakes import make_encoder, picture
from nunbit.adapt import FitOptions, Promises, make_study, read_examples, report_page
from nunbit.adapt.calibration import calibration_error
from nunbit.adapt.figures import _smallest_sets, measure_probabilities, measure_unknown
from nunbit.adapt.study import AUTO, DRAWS, draw
from nunbit.cli import nunbit as command_line
from nunbit.errors import UsageError
from nunbit.head import AnswerSets, Calibration, Head
from nunbit.head.head import probability_of
from test_adapt_rungs import make_task

QUICK = FitOptions(rungs=["zero-shot", "nearest-mean", "tip-adapter"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four classes of seven pictures, the hue of each its class's."""
    for number in range(28):
        place = tmp_path / "sorted" / ("cup", "접시", "<b>fork", "spoon")[number % 4]
        picture(place / f"{number}.png", number)
    return tmp_path / "sorted"


def test_plain_sets_reach_what_they_add_up_to() -> None:
    probability = np.array([[0.62, 0.3, 0.08], [0.2, 0.35, 0.45], [1.0, 0.0, 0.0]])
    assert _smallest_sets(probability, 0.9).tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert _smallest_sets(probability, 0.5).tolist() == [
        [True, False, False],
        [False, True, True],
        [True, False, False],
    ]


def test_probabilities_are_measured_against_the_truth() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5)).astype(np.float32)
    head = Head(
        ("a", "b", "c"),
        rng.normal(size=(3, 5)).astype(np.float32),
        np.zeros(3, np.float32),
        calibration=Calibration(np.full(3, 0.5), np.zeros(3)),
        answers=AnswerSets(0.2, 0.9),
    )
    odds = head.probability(rows)
    targets = np.eye(3, dtype=bool)[[rng.choice(3, p=row) for row in odds]]
    found = measure_probabilities(head, rows, targets)
    assert found.accuracy == pytest.approx(targets[np.arange(400), odds.argmax(1)].mean())
    plain = probability_of(head.logits(rows), None, multi_label=False)
    assert (found.plain_error, found.error) == (calibration_error(plain, targets), calibration_error(odds, targets))
    assert found.error < found.plain_error
    assert found.reached == pytest.approx((odds[targets] >= 0.2).mean())
    assert found.set_size == pytest.approx((odds >= 0.2).sum(1).mean())
    assert found.plain_reached is not None and found.plain_reached < 1


def test_unknown_is_measured_on_classes_that_were_not_learned() -> None:
    classes, taught = make_task(12, noise=0.4)
    _, asked = make_task(12, noise=0.4)
    asked = replace(asked, rows=make_task(12, noise=0.45)[1].rows)
    found = measure_unknown(classes, taught, asked, np.array([0, 1]), "neighbors", rung="nearest-mean")
    inside = asked.targets[:, :2].any(1)
    assert (len(found.known), len(found.strange)) == (inside.sum(), (~inside).sum())
    nearest = np.sort(asked.rows @ taught.rows[taught.targets[:, :2].any(1)].T, axis=1)[:, -3:].mean(1)
    np.testing.assert_allclose(found.strange, nearest[~inside], atol=1e-5)
    pairs = found.known[:, None] > found.strange[None]
    assert found.auroc == pytest.approx(pairs.mean()) and found.auroc > 0.9
    assert found.found == pytest.approx((found.strange < found.threshold).mean())
    assert 0 <= found.false_alarms <= 0.3 and 0.4 < found.plain_auroc <= 1


def test_a_third_measures_and_taught_nothing(folder: Path) -> None:
    (folder / "cup" / "broken.png").write_bytes(b"no picture")
    study = make_study(make_encoder(), read_examples(folder), QUICK)
    assert len(study.pictures) == 8 and len(study.fitted.examples) == 20  # two of the seven of each class
    assert not {one.name for one in study.pictures} & {one.name for one in study.fitted.examples}
    assert set(study.curves) == {"zero-shot", "nearest-mean", "tip-adapter", AUTO}
    assert set(study.curves[AUTO]) == {1, 2, 4} and all(len(v) == DRAWS for v in study.curves[AUTO].values())
    assert [one.reason for one in study.rejected] == ["not an image"]
    taught = draw(study.fitted.shots.targets, 4, 1)
    assert study.fitted.shots.targets[taught].sum(0).tolist() == [4] * 4
    assert (taught != draw(study.fitted.shots.targets, 4, 2)).any()
    assert len(study.unknown) == 2


def test_other_pictures_may_measure(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "test" / "cup" / f"{number}.png", 500 + number)
    test = read_examples(tmp_path / "test", at_least=1)
    study = make_study(make_encoder(), read_examples(folder), QUICK, test=test)
    assert study.apart and len(study.pictures) == 3 and len(study.fitted.examples) == 28
    assert study.measured.targets.argmax(1).tolist() == [study.fitted.head.classnames.index("cup")] * 3
    said = study.fitted.head.probability(study.measured.rows).argmax(1)
    assert study.probabilities.accuracy == pytest.approx((said == study.measured.targets.argmax(1)).mean())
    shutil.copy(folder / "cup" / "0.png", tmp_path / "test" / "cup" / "again.png")
    with_copy = read_examples(tmp_path / "test", at_least=1)
    study = make_study(make_encoder(), read_examples(folder), QUICK, test=with_copy)
    assert len(study.pictures) == 3 and [one.reason for one in study.rejected] == ["taught"]
    with pytest.raises(UsageError, match="all pictures to measure on are examples"):
        make_study(make_encoder(), read_examples(folder), QUICK, test=read_examples(folder))
    picture(tmp_path / "test" / "knife" / "1.png", 9)
    with pytest.raises(UsageError, match="'knife', which has no example"):
        make_study(make_encoder(), read_examples(folder), QUICK, test=read_examples(tmp_path / "test"))


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "few" / ("a", "b")[number % 2] / f"{number}.png", number)
    with pytest.raises(UsageError, match="nothing to measure on"):
        make_study(make_encoder(), read_examples(tmp_path / "few"), QUICK)
    rows = [{"image": "few/a/0.png", "labels": ["a", "b"]}, {"image": "few/b/1.png", "labels": ["b"]}]
    (tmp_path / "several.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="one label a picture"):
        make_study(make_encoder(), read_examples(tmp_path / "several.jsonl"), QUICK)


def test_the_page_has_its_figures_and_escapes_names(folder: Path) -> None:
    study = make_study(make_encoder(), read_examples(folder), replace(QUICK, promises=Promises(coverage=0.8)))
    page = report_page(study, "<i>mine", "fake").decode()
    for words in (
        "Accuracy by shots",
        "The ladder",
        "How often answers are right",
        "What is taken for what",
        "Unknown",
    ):
        assert words in page
    assert "<b>fork" not in page and "&lt;b&gt;fork" in page and "<i>mine" not in page and "접시" in page
    assert f"{100 * study.probabilities.accuracy:.1f} %" in page
    assert page.count("<svg") == 4 and 'src="http' not in page
    assert 'data-x="shots"' in page


def test_on_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.loading.load", lambda *_, **__: make_encoder())
    into = tmp_path / "pages" / "report.html"
    given = ["adapt", "report", str(folder), "--into", str(into), "--rungs", "zero-shot,nearest-mean"]
    ran = CliRunner().invoke(command_line, [*given, "--set", "unknown=energy", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert into.is_file() and set(said["accuracy_by_shots"]) == {"zero-shot", "nearest-mean", "auto"}
    assert len(said["unknown"]) == 2 and said["coverage"] == 0.9
    ran = CliRunner().invoke(command_line, [*given, "--set", "unknown=none"])
    assert ran.exit_code == 0 and "of 8 pictures" in ran.output

"""Zero-shot evaluation on folders whose right figures were counted by hand."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from index_fakes import SIZE, FakeTowers, make_encoder
from nunbit.cli import nunbit as nunbit_command
from nunbit.encode import Encoder
from nunbit.errors import UsageError
from nunbit.zero_shot import ClassAccuracy, labels_ahead, zero_shot

NAMES = ["ant", "bee", "cat", "dog", "elk deer", "fox", "gnu"]


class LevelTowers(FakeTowers):
    """A picture's similarity with the k-th of ``NAMES`` rises with the brightness of its k-th pixel."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names
        self.texts: list[str] = []

    def encode_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        rows: np.ndarray = pixel_values.mean(1).reshape(len(pixel_values), -1)[:, :SIZE]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        inside = [max((name for name in self.names if name in text), key=len) for text in texts]
        return np.eye(SIZE, dtype=np.float32)[[self.names.index(name) for name in inside]]


def levels_encoder(names: Sequence[str] = NAMES) -> Encoder:
    return make_encoder(towers=LevelTowers(names))


def draw(path: Path, truth: int, rank: int, *, tie: bool = False) -> None:
    """Draw a picture whose right label comes at ``rank``; with ``tie`` the label behind it is as similar."""
    others = [k for k in range(len(NAMES)) if k != truth]
    order = [*others[: rank - 1], truth, *others[rank - 1 :]]
    levels = {label: 220 - 20 * place for place, label in enumerate(order)}
    if tie:
        levels[order[rank]] = levels[truth]
    save(path, [levels[k] for k in range(len(NAMES))])


def save(path: Path, levels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(36, np.uint8)
    pixels[: len(levels)] = levels
    Image.fromarray(np.repeat(pixels.reshape(6, 6, 1), 3, axis=2)).save(path)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Nine readable pictures of seven classes, a broken one, and what is no class."""
    folder = tmp_path / "zoo"
    for number, rank in enumerate([1, 1, 1, 2]):
        draw(folder / "ant" / ("deep" if number else "") / f"{number}.png", 0, rank)
    draw(folder / "bee" / "0.png", 1, 1)
    draw(folder / "cat" / "0.png", 2, 5)
    draw(folder / "cat" / "1.png", 2, 6)
    draw(folder / "dog" / "0.png", 3, 1, tie=True)
    save(folder / "elk_deer" / "0.png", [200] * len(NAMES))
    (folder / "fox").mkdir()
    (folder / "fox" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "gnu").mkdir()
    (folder / ".hidden").mkdir()
    draw(folder / "loose.png", 0, 1)
    return folder


def test_every_figure_is_the_one_counted_by_hand(zoo: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = zero_shot(levels_encoder(), zoo, progress=lambda done, total: seen.append((done, total)))
    assert report.per_class == {
        "ant": ClassAccuracy(75.0, 4),
        "bee": ClassAccuracy(100.0, 1),
        "cat": ClassAccuracy(0.0, 2),
        "dog": ClassAccuracy(0.0, 1),  # a tie for the first place is not won
        "elk deer": ClassAccuracy(0.0, 1),  # all seven tie: not among the first five either
    }
    assert (report.classes, report.count) == (7, 9)
    assert report.top1 == pytest.approx(100 * 4 / 9)
    assert report.top5 == pytest.approx(100 * 7 / 9)  # ant 4, bee 1, cat 1, dog 1
    assert report.macro == pytest.approx(175 / 5)
    assert [Path(item.path).name for item in report.rejected] == ["broken.jpg"]
    assert seen == [(done, 10) for done in range(1, 11)]
    assert report.seconds > 0


def test_labels_are_put_into_the_templates(zoo: Path) -> None:
    towers = LevelTowers(NAMES)
    zero_shot(make_encoder(towers=towers), zoo, templates="photo")
    assert towers.texts == [f"a photo of a {name}." for name in NAMES]


def test_top_5_of_fewer_classes_is_all_of_them(tmp_path: Path) -> None:
    draw(tmp_path / "ant" / "0.png", 0, 7)
    draw(tmp_path / "bee" / "0.png", 1, 1)
    report = zero_shot(levels_encoder(), tmp_path)
    assert (report.top1, report.top5, report.classes) == (50, 100, 2)


def test_a_picture_without_a_number_is_not_right() -> None:
    assert labels_ahead(np.full(7, np.nan, np.float32), 0) == 6
    assert labels_ahead(np.array([0.5, np.nan, 0.1], np.float32), 0) == 1


def test_labels_of_the_callers_choice(zoo: Path) -> None:
    korean = ["개미", "벌", "고양이", "개", "사슴", "여우", "누"]
    folders = ["ant", "bee", "cat", "dog", "elk_deer", "fox", "gnu"]
    report = zero_shot(levels_encoder(korean), zoo, classnames=dict(zip(folders, korean, strict=True)))
    assert report.top1 == pytest.approx(100 * 4 / 9)
    assert list(report.per_class) == ["개미", "벌", "고양이", "개", "사슴"]


def test_folders_with_the_same_label_are_one_class(tmp_path: Path) -> None:
    draw(tmp_path / "red_ant" / "0.png", 0, 1)
    draw(tmp_path / "red-ant" / "0.png", 0, 2)
    draw(tmp_path / "bee" / "0.png", 1, 1)
    assert set(zero_shot(levels_encoder(), tmp_path).per_class) == {"bee", "red ant"}
    merged = {"red_ant": "ant", "red-ant": "ant ", "bee": "bee"}
    report = zero_shot(levels_encoder(), tmp_path, classnames=merged)
    assert report.per_class == {"bee": ClassAccuracy(100.0, 1), "ant": ClassAccuracy(50.0, 2)}


def test_a_korean_folder_name_in_single_letters_is_the_same_name(tmp_path: Path) -> None:
    for name, truth in (("개미", 0), ("벌", 1)):
        draw(tmp_path / unicodedata.normalize("NFD", name) / "0.png", truth, 1)
    report = zero_shot(levels_encoder(), tmp_path, classnames={"개미": "ant", "벌": "bee"})
    assert report.top1 == 100
    assert set(zero_shot(levels_encoder(["개미", "벌"]), tmp_path).per_class) == {"개미", "벌"}


def test_what_cannot_be_meant(zoo: Path, tmp_path: Path) -> None:
    encoder = levels_encoder()
    names = {path.name: path.name for path in zoo.iterdir() if path.is_dir() and path.name != ".hidden"}
    with pytest.raises(UsageError, match="is no folder"):
        zero_shot(encoder, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds 0 classes"):
        zero_shot(encoder, zoo / "ant" / "deep")
    with pytest.raises(UsageError, match="holds 1 class,"):
        zero_shot(encoder, zoo, classnames=dict.fromkeys(names, "animal"))
    with pytest.raises(UsageError, match="no label for the folder 'gnu'"):
        zero_shot(encoder, zoo, classnames={name: name for name in names if name != "gnu"})
    with pytest.raises(UsageError, match="label for 'gnoo', which is no folder"):
        zero_shot(encoder, zoo, classnames=names | {"gnoo": "gnu"})
    for name in ("ant", "bee"):
        (tmp_path / "bad" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="put pictures into"):
        zero_shot(encoder, tmp_path / "bad")
    (tmp_path / "bad" / "ant" / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match="the first was set aside: empty file"):
        zero_shot(encoder, tmp_path / "bad")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> LevelTowers:
    """What the command line loads, whatever the model is called."""
    towers = LevelTowers(NAMES)
    monkeypatch.setattr("nunbit.loading.load", lambda *_, **__: make_encoder(towers=towers))
    return towers


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(nunbit_command, ["eval", *map(str, arguments)])


def test_the_command_prints_the_figures(zoo: Path, loaded: LevelTowers) -> None:
    result = call("zeroshot", zoo, "--templates", "photo", "--per-class")
    assert result.exit_code == 0, result.output
    assert re.findall(r"^(top-1|top-5|mean of the classes) +([\d.]+) %$", result.stdout, re.M) == [
        ("top-1", "44.4"), ("top-5", "77.8"), ("mean of the classes", "35.0"),
    ]  # fmt: skip
    table = [line.split(maxsplit=2) for line in result.stdout.splitlines()[-5:]]
    assert [row[2] for row in table] == ["cat", "dog", "elk deer", "ant", "bee"]
    assert table[-2] == ["75.0", "4", "ant"]
    assert "broken.jpg" in result.stderr
    assert loaded.texts == [f"a photo of a {name}." for name in NAMES]


@pytest.mark.usefixtures("loaded")
def test_the_command_prints_the_documented_json(zoo: Path) -> None:
    (line,) = call("zeroshot", zoo, "--json").stdout.splitlines()
    row = json.loads(line)
    assert row.pop("seconds") >= 0
    assert row == {
        "folder": str(zoo), "model": "starter", "templates": "none", "classes": 7, "pictures": 9, "rejected": 1,
        "top1": 44.44, "top5": 77.78, "macro": 35.0,
    }  # fmt: skip
    row = json.loads(call("zeroshot", zoo, "--json", "--per-class").stdout)
    assert list(row["per_class"]) == ["cat", "dog", "elk deer", "ant", "bee"]
    assert row["per_class"]["ant"] == {"accuracy": 75.0, "count": 4}


@pytest.mark.usefixtures("loaded")
def test_examples_of_the_help_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "clothing/test/ant/0.png", 0, 1)
    draw(tmp_path / "clothing/test/bee/0.png", 1, 1)
    (tmp_path / "korean.json").write_text('{"ant": "bee", "bee": "ant"}', encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^\s+nunbit eval (.*)$", call("zeroshot", "--help").stdout, re.M)
    assert len(examples) == 3
    for line in examples:
        result = call(*shlex.split(line))
        assert result.exit_code == 0, result.output
        assert "top-2" in result.output or "--json" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"ant": 1}'])
def test_a_file_of_class_names_that_is_none(text: str, zoo: Path, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(text, encoding="utf-8")
    result = call("zeroshot", zoo, "--classnames", file)
    assert result.exit_code == 2
    assert '{"folder": "label", ...}' in result.output


def test_the_starters_study_is_still_there() -> None:
    assert "--wordnet" in call("starter", "--help").stdout
    assert "Missing option '--data'" in call("starter").output

"""What the starter's vision-language model learns from, on a few made-up records."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nunbit.errors import UsageError
from nunbit.instruct import starter_lessons
from nunbit.instruct.easy_vqa import ask
from nunbit.instruct.formats import Conversation, Described, read_conversations
from nunbit.instruct.starter_lessons import NAME_DRAWING, write_starter_lessons

LICENSES = ("Attribution License", "Attribution-NonCommercial License", "Attribution-NoDerivs License")


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small COCO; easy-VQA, whose package is not installed everywhere, has one question here."""
    drawn = [ask("easy-vqa", tmp_path / "drawn.png", "what shape is it?", "circle")]
    monkeypatch.setattr(starter_lessons, "read_easy_vqa", lambda split: drawn)
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    rows, annotations = [], []
    for number, license_name in enumerate(LICENSES):
        name = f"{number:012d}.png"
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(folder / "images" / name)
        boxes = [{"category": kind, "bbox": [0.1, 0.1, 0.4, 0.4]} for kind in ("dog", "dog", "car")]
        rows.append({"image": name, "license": license_name, "captions": ["Two dogs."], "instances": boxes})
    for number in (7, 8):
        annotations += [{"image_id": number, "caption": f"A cat, {number}-{one}."} for one in range(5)]
    (folder / "captions_boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "captions_val2017.json").write_text(json.dumps({"annotations": annotations}))
    return folder


def read(path: Path) -> list[Conversation]:
    refused: list[Any] = []
    found = list(read_conversations(path, refused.append))
    assert not refused
    return found


def test_pictures_are_found_from_wherever_the_command_was_called(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_starter_lessons(Path("coco"), Path("run") / "lessons")
    assert set(files) == {"captions", "photos", "described", "easy-vqa", "held-out"}
    for name in ("captions", "photos", "held-out"):
        shown = {image for one in read(files[name]) for image in one.images if isinstance(image, Path)}
        assert shown
        assert all(image.is_file() for image in shown), name


def test_only_photographs_that_may_teach_do(coco: Path, tmp_path: Path) -> None:
    files = write_starter_lessons(coco, tmp_path / "lessons")
    shown = {
        name: {image.stem for one in read(files[name]) for image in one.images if isinstance(image, Path)}
        for name in ("captions", "photos", "held-out")
    }
    assert shown == {"captions": {"0" * 12}, "photos": {"0" * 12}, "held-out": {"0" * 11 + "1"}}
    described = {image.text for one in read(files["described"]) for image in one.images if isinstance(image, Described)}
    assert all(text.startswith("A cat") for text in described)


def test_boxes_become_a_caption(coco: Path, tmp_path: Path) -> None:
    files = write_starter_lessons(coco, tmp_path / "lessons")
    said = [one.turns[-1].parts[0] for one in read(files["captions"])]
    assert "A picture of a car and two dogs." in said


def test_drawings_are_named_in_their_first_words(coco: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(tmp_path / "cake.png")
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"image": "cake.png", "texts": ["birthday cake", "생일 케이크"], "license": "CC-BY-4.0"},
        {"image": "cake.png", "texts": ["cake"], "license": "CC-BY-SA-4.0"},
    ]
    pairs.write_text("\n".join(json.dumps(row) for row in rows))
    files = write_starter_lessons(coco, tmp_path / "lessons", [pairs])
    (only,) = read(files["drawings"])  # who learns from the other must be shared alike
    assert [turn.parts[-1] for turn in only.turns] == [NAME_DRAWING, "birthday cake"]
    assert only.images == (tmp_path / "cake.png",)
    with pytest.raises(UsageError, match="nowhere"):
        write_starter_lessons(coco, tmp_path / "lessons", [tmp_path / "nowhere.jsonl"])


def test_clip_art_is_named_by_titles_of_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    make_pairs = importlib.import_module("clip_art_pairs").make_pairs
    art = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{}</dc:title></svg>'
    titles = {"hen": "A  Hen", "gull_archit_01": "gabbiano", "a": "Icon 7", "b": "", "c": "broken<", "lost": "Lost"}
    titles |= {f"same{number}": "Set of buttons" for number in range(4)}
    for kind in ("svg", "png"):
        (tmp_path / kind / "birds").mkdir(parents=True)
    for stem, title in titles.items():
        (tmp_path / "svg" / "birds" / f"{stem}.svg").write_text(art.format(title))
        if stem != "lost":
            (tmp_path / "png" / "birds" / f"{stem}.png").write_bytes(b"")
    rows, left_out = make_pairs(tmp_path)
    png = str(tmp_path / "png" / "birds" / "hen.png")
    assert rows == [{"image": png, "text": "a hen", "license": "public domain"}]
    assert left_out == {
        "a title of no thing": 1,
        "no title": 2,
        "a title in Italian": 1,
        "no PNG": 1,
        "a title of many": 4,
    }

"""`benchmarks/emoji_pairs.py` on small fakes of the packages."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nunbit.errors import UsageError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
EYE = "1F441-FE0F-200D-1F5E8-FE0F"
FLAG = "1F1F0-1F1F7"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><rect width="20" height="10" fill="red"/></svg>'
ICONS = {
    "emojione-v1": ("flag-for-south-korea", "happy"),
    "streamline": ("whale-1", "whale-2"),
    "circle-flags": ("kr", "xx"),
    "flag-icons": ("kr-1x1", "kr-4x3"),
}
ICON = '<rect width="10" height="10" fill="blue"/>'


def entry(hexcode: str, label: str, group: int | None, *tags: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"hexcode": hexcode, "label": label, "emoji": "x", "version": 1, **more}
    return found | ({} if group is None else {"group": group}) | ({"tags": list(tags)} if tags else {})


ENGLISH = [
    entry("1F600", "grinning face", 0, "face", "smile"),
    entry(EYE, "eye in speech bubble", 0, "witness"),
    entry("1F44B", "waving hand", 1, "hello", skins=[entry("1F44B-1F3FB", "waving hand: light skin tone", 1)]),
    entry(FLAG, "flag: South Korea", 9, "KR", "flag"),
    entry("1F3FB", "light skin tone", 2),
    entry("1F1E6", "regional indicator A", None),
    entry("1F40B", "whale", 3),
]
KOREAN_LABELS = ["활짝 웃는 얼굴", "말풍선 속 눈", "흔드는 손", "깃발: 대한민국", "하얀 피부", "지역 지표 A", "고래"]


def korean() -> list[dict[str, Any]]:
    apart = {"활짝 웃는 얼굴": "\u1112\u116a\u11af짝  웃는 얼굴"}  # decomposed, and with two spaces
    return [row | {"label": apart.get(label, label)} for row, label in zip(ENGLISH, KOREAN_LABELS, strict=True)]


def png(color: tuple[int, int, int, int] = (255, 0, 0, 255), size: tuple[int, int] = (64, 64)) -> bytes:
    picture = Image.new("RGBA", size)
    picture.paste(color, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def drawings(style: Any) -> dict[str, bytes]:
    if style.ending == ".json":
        names = ICONS.get(style.name, ("whale", "grinningface", "wavinghandsign", "nobodyknows"))
        icons = {"icons": {name: {"body": ICON} for name in names}, "width": 10, "height": 10}
        points = {"1f600": "happy"} if "happy" in names else {}
        return {style.members: json.dumps(icons).encode(), "package/chars.json": json.dumps(points).encode()}
    data = SVG.encode() if style.ending == ".svg" else png(size=(256, 128) if style.ending == ".webp" else (64, 64))
    files = {f"{style.members}{name}{style.ending}": data for name in ("1f600", "1F441-200D-1F5E8", FLAG, "1f3fb")}
    return files | {f"{style.members}readme.txt": b"no drawing", f"{style.members}1f40b.gif": data}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, its packages replaced by fakes in ``tmp_path``."""
    pytest.importorskip("resvg_py", reason="drawing SVG needs resvg-py")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("emoji_pairs")
    names = {"package/en/data.json": ENGLISH, "package/ko/data.json": korean()}
    files = {script.LABELS: {name: json.dumps(rows).encode() for name, rows in names.items()}}
    for style in script.STYLES:
        files[style.package] = drawings(style)
    broken = {"package/img/twitter/64/1f44b.png": png()[:80], "package/img/twitter/64/1f40b.png": png((0, 0, 0, 0))}
    files["emoji-datasource-twitter@16.0.0"] |= broken
    fakes = {}
    for package, members in files.items():
        name, _, version = package.rpartition("@")
        path = tmp_path / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
        fakes[package] = pack(path, members)
    assert fakes.keys() == script.PACKAGES.keys()
    for package, sha512 in fakes.items():
        monkeypatch.setitem(script.PACKAGES, package, sha512)
    return script


def make(script: Any, tmp_path: Path) -> Path:
    into = tmp_path / "pairs"
    script.make_pairs(into, script.find_packages(into, tmp_path))
    return into


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_base_emoji_have_labels_in_both_languages(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    english = ["grinning face", "eye in speech bubble", "waving hand", "flag: South Korea", "whale"]
    assert (into / "labels-en.txt").read_text(encoding="utf-8").splitlines() == english
    assert (into / "labels-ko.txt").read_text(encoding="utf-8").splitlines()[::4] == ["활짝 웃는 얼굴", "고래"]
    assert [row["labels"]["en"] for row in read(into / "concepts.jsonl")] == english


def test_rows_say_what_is_drawn_by_whom_in_both_languages(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    rows = {row["image"]: row for part in made.PARTS for row in read(into / f"{part}.jsonl")}
    first = rows["drawings/openmoji/1f600.png"]
    assert first == {
        "image": "drawings/openmoji/1f600.png",
        "texts": [
            "grinning face",
            "grinning face: face, smile",
            "활짝 웃는 얼굴",
            "활짝 웃는 얼굴: face, smile",
        ],
        "languages": ["en", "en", "ko", "ko"],
        "concept": "1f600",
        "style": "openmoji",
        "license": "CC-BY-SA-4.0",
    }
    assert rows["drawings/fxemoji/1f40b.png"]["texts"] == ["whale", "고래"]


def test_each_part_has_its_styles_and_they_find_their_emoji(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    found: dict[str, list[str]] = {}
    for part in ("train", "validation", "test"):
        for row in read(into / f"{part}.jsonl"):
            assert next(style.part for style in made.STYLES if style.name == row["style"]) == part
            found.setdefault(row["style"], []).append(row["concept"])
    usual = ["1f600", EYE.lower(), FLAG.lower()]
    assert found.pop("fxemoji") == ["1f600", "1f44b", "1f40b"]  # by emojibase's name, or Unicode's
    assert found.pop("streamline") == ["1f40b"]  # the first of two
    assert found.pop("emojione-v1") == ["1f600", FLAG.lower()]  # by the code points that the set names, and as a flag
    assert found.pop("circle-flags") == found.pop("flag-icons") == [FLAG.lower()]
    for name in ("fluent-3d", "fluent-flat", "fluent-modern"):
        assert found.pop(name) == usual[:2]  # no flags of unknown origin
    assert all(concepts == usual for concepts in found.values())
    assert len(found) == len(made.STYLES) - 8


def test_no_artist_is_in_two_parts(made: Any) -> None:
    parts: dict[str, set[str]] = {}
    for style in made.STYLES:
        parts.setdefault(style.by, set()).add(style.part)
    assert all(len(used) == 1 for used in parts.values())
    assert {part for used in parts.values() for part in used} == set(made.PARTS)


def test_drawings_are_small_squares_that_keep_their_transparency(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    for style in ("google", "fluent-3d", "fluent-flat", "fxemoji"):
        with Image.open(into / "drawings" / style / "1f600.png") as picture:
            assert picture.mode == "RGBA"
            assert picture.size == ((64, 64) if style == "google" else (made.SIDE, made.SIDE))
            alpha = np.asarray(picture)[:, :, 3]
        assert alpha[32, 32] == 255
        assert (alpha[2, 32] == 0) == (style != "fxemoji")  # the others are wider than high, or have a margin


def test_what_cannot_be_used_is_set_aside_with_a_reason(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    rejected = {row["path"]: row["reason"] for row in read(into / "set_aside.jsonl")}
    assert rejected == {"twitter/1f44b.png": "damaged", "twitter/1f40b.png": "blank"}
    assert not (into / "drawings/twitter/1f40b.png").exists()


def test_a_second_run_writes_the_same_bytes(made: Any, tmp_path: Path) -> None:
    files = {path: path.read_bytes() for path in make(made, tmp_path).rglob("*") if path.is_file()}
    assert {path: path.read_bytes() for path in make(made, tmp_path).rglob("*") if path.is_file()} == files
    assert len(files) > 30


def test_sources_are_named_with_licence_and_checksum(made: Any, tmp_path: Path) -> None:
    into = make(made, tmp_path)
    sources = json.loads((into / "sources.json").read_text(encoding="utf-8"))
    assert sources["labels"]["concepts"] == 5
    for style in sources["styles"]:
        assert style["sha512"] == made.PACKAGES[style["package"]]
        assert style["license"]
        assert f"| {style['part']} | {style['name']} | {style['drawings']} |" in (into / "README.md").read_text()


def test_another_package_than_the_one_that_is_meant_is_refused(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "openmoji-17.0.0.tgz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="is not the openmoji@17.0.0 that is meant"):
        make(made, tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match="npm pack openmoji@17.0.0"):
        make(made, tmp_path)


def test_without_npm_the_error_says_what_to_do(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="give --packages"):
        made.find_packages(tmp_path / "pairs", None)

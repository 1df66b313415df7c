"""What is not a record is set aside, with its place and its reason, and what is no source is refused."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from nunbit.data import SourceConfig, open_source
from nunbit.errors import ConfigError, UsageError
from nunbit.types import ImageText, Rejected
from picture_sources import good, png, reasons, rows, write_parquet

ROWS = rows(10)


def test_bad_lines_of_json_are_set_aside(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"image": "a.png", "text": "good"}',
        b"",
        b'{"image": "a.png"',
        b"[1]",
        b'{"image": "a.png", "text": "   "}',
        b'{"text": "x"}',
        b'{"image": 3, "text": "x"}',
        b'{"image": "a.png", "text": 3}',
        b'{"image": "a.png", "text": "\xff"}',
        b'{"image": "a.png", "text": "\\ud800"}',
        b'{"image": "a.png", "text": "\xed\xa0\x80"}',
        b'{"image": "https://example.org/a.png", "text": "x"}',
        b'{"image": "a.png", "text": ' + b"[" * 100_000,
        b'{"image": "a.png", "text": "\\ud83d\\ude00 \xed\x95\x9c"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    source = open_source(SourceConfig(str(tmp_path / "a.jsonl")))
    found = list(source.records())
    assert [item.texts[0] for item in found if isinstance(item, ImageText)] == ["good", "😀 한"]
    assert [(item.path, item.reason) for item in found if isinstance(item, Rejected)] == [
        (f"a:a.jsonl:{line}", reason)
        for line, reason in [
            (3, "broken JSON"),
            (4, "not an object"),
            (5, "no text"),
            (6, "no picture"),
            (7, "no picture"),
            (8, "not a text"),
            (9, "not UTF-8"),
            (10, "broken JSON"),
            (11, "not UTF-8"),
            (12, "picture elsewhere"),
            (13, "broken JSON"),
        ]
    ]
    assert source.count() == 14


def test_a_line_that_never_ends_is_set_aside_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.tables.LINE_BYTES", 1000)
    long = json.dumps({"image": "b.png", "text": "x" * 5000})
    text = '{"image": "a.png", "text": "x"}\n' + long + '\n{"image": "c.png", "text": "y"}\n'
    (tmp_path / "a.jsonl").write_text(text)
    found = list(open_source(SourceConfig(str(tmp_path / "a.jsonl"))).records())
    assert [getattr(item, "reason", "") for item in found] == ["", "too many bytes", ""]


def test_bad_rows_of_csv_are_set_aside(tmp_path: Path) -> None:
    content = 'image,text\na.png,좋다\nb.png,a,b\nc.png\n\n"d.png","two\nlines"\n'.encode()
    content += b"e.png," + "나쁘다".encode("cp949") + b"\nf.png,good\n"
    content += b'g.png,"' + b"x" * 140_000 + b"\n"
    (tmp_path / "a.csv").write_bytes(content)
    found = list(open_source(SourceConfig(str(tmp_path / "a.csv"))).records())
    assert [(getattr(item, "key", None) or item.path, getattr(item, "reason", "")) for item in found] == [
        ("a:a.csv:2", ""),
        ("a:a.csv:3", "too many fields"),
        ("a:a.csv:4", "no text"),
        ("a:a.csv:6", ""),
        ("a:a.csv:8", "not UTF-8"),
        ("a:a.csv:9", ""),
        ("a:a.csv:10", "broken row"),
    ]


def test_a_csv_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("사진,글\na,b\n".encode("cp949"))
    with pytest.raises(ConfigError, match="UTF-8"):
        open_source(SourceConfig(str(tmp_path / "a.csv")))
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(ConfigError, match="empty"):
        open_source(SourceConfig(str(tmp_path / "a.csv")))


def test_pictures_inside_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.rows.IMAGE_BYTES", 1000)
    table = [
        {"image": {"bytes": png(1), "path": "x"}, "text": "one", "vector": b"\0", "tags": [{"a": 1}]},
        {"image": {"bytes": None, "path": "x.png"}, "text": "two", "vector": b"\0", "tags": []},
        {"image": {"bytes": b"x" * 1001, "path": None}, "text": "three", "vector": b"\0", "tags": None},
    ]
    found = list(open_source(SourceConfig(str(write_parquet(tmp_path / "a.parquet", table)))).records())
    assert found[0] == ImageText("a:a.parquet:0", png(1), ("one",), "a", {"tags": [{"a": 1}]})
    assert found[1] == ImageText("a:a.parquet:1", str(tmp_path / "x.png"), ("two",), "a", {"tags": []})
    assert found[2].reason == "too many bytes"
    plain = write_parquet(tmp_path / "b.parquet", [{"image": png(2), "text": "x"}])
    assert good(open_source(SourceConfig(str(plain))))[0].image == png(2)


def test_a_damaged_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS, group=5)
    content = bytearray(path.read_bytes())
    content[4:120] = b"\xff" * 116
    path.write_bytes(content)
    source = open_source(SourceConfig(str(path)))
    found = list(source.records())
    assert [item.reason for item in found if isinstance(item, Rejected)] == ["damaged"]
    assert len(found) >= 6  # the second row group is whole
    path.write_bytes(b"no parquet at all")
    with pytest.raises(UsageError, match="cannot be read"):
        open_source(SourceConfig(str(path))).count()


def test_a_compressed_file_that_ends_early(tmp_path: Path) -> None:
    content = b"".join(
        json.dumps({"image": f"{n}.png", "text": os.urandom(9).hex()}).encode() + b"\n" for n in range(99)
    )
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content)[:-500])
    source = open_source(SourceConfig(str(tmp_path / "a.jsonl.gz")))
    found = list(source.records())
    assert isinstance(found[0], ImageText)
    assert reasons(source) == ["damaged"]


def test_coco_sets_aside_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.coco._CHUNK", 7)  # every value lies across the edge of a piece
    whole = {
        "images": [{"id": 1, "file_name": "하나.jpg"}, {"id": 2, "file_name": "2.jpg"}, {"id": "3"}, 4],
        "annotations": [{"image_id": 1, "caption": "둘째"}, {"image_id": 9, "caption": "x"}, {"image_id": 1}],
        "n": 123456789,
    }
    (tmp_path / "c.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8-sig")
    found = list(open_source(SourceConfig(str(tmp_path / "c.json"), images="/p")).records())
    assert found[0] == ImageText("c:c.json:1", "/p/하나.jpg", ("둘째",), "c", {"id": 1})
    assert [item.reason for item in found[1:]] == ["no text", "no picture"] + ["unknown entry"] * 3


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [', '{"images": [{"id": 1}', "nonsense", "{}", "[" * 10**5])
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match="not a file of COCO captions"):
        open_source(SourceConfig(str(tmp_path / "c.json"))).count()


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.data.folders.TEXT_BYTES", 100)
    album = tmp_path / "앨범"
    for name in ("a.jpg", "b.PNG", "c.jpg", "d.jpg", "e.jpg", ".h.jpg", "deep/f.webp", "deep/.hidden/g.jpg"):
        (album / name).parent.mkdir(parents=True, exist_ok=True)
        (album / name).write_bytes(b"x")
    (album / "a.txt").write_text("하나\n\n two \n", encoding="utf-8")
    (album / "a.json").write_text('{"caption": ["two", "셋"], "by": "me"}', encoding="utf-8")
    (album / "b.txt").write_bytes("나쁘다".encode("cp949"))
    (album / "c.json").write_text("{")
    (album / "d.txt").write_text("x" * 101)
    (album / "deep" / "f.txt").write_text("leaf")
    (album / "deep" / "up").symlink_to(album)
    (album / "gone.jpg").symlink_to(album / "nowhere")
    source = open_source(SourceConfig(str(album)))
    found = list(source.records())
    assert found[0] == ImageText("앨범:a.jpg", str(album / "a.jpg"), ("하나", "two", "셋"), "앨범", {"by": "me"})
    assert [getattr(item, "reason", "") for item in found] == [
        "",
        "not UTF-8",
        "broken JSON",
        "too many bytes",
        "no text",
        "",
    ]
    assert source.count() == 6


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    (rejected,) = open_source(SourceConfig(str(tmp_path), name="x")).records()
    assert rejected == Rejected("x:\\udcff.jpg", "name is not UTF-8", rejected.detail)

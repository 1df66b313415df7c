"""Records of every kind of source: the same ones, in order, in shares; and what is set aside."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from nunbit.config import from_plain
from nunbit.data import Shard, SourceConfig, open_source
from nunbit.errors import ConfigError, UsageError
from picture_sources import (
    good,
    members,
    png,
    rows,
    write_coco,
    write_csv,
    write_folder,
    write_jsonl,
    write_parquet,
    write_tar,
)

ROWS = rows(10)
MAKERS: dict[str, Any] = {
    "pairs.jsonl": write_jsonl,
    "pairs.csv": write_csv,
    "pairs.tsv": write_csv,
    "pairs.parquet": write_parquet,
    "captions.json": write_coco,
    "shard.tar": lambda path, content: write_tar(path, members(content)),
    "shard.tar.gz": lambda path, content: write_tar(path, members(content), "w:gz"),
    "folder": write_folder,
}


@pytest.fixture(params=MAKERS)
def source_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = MAKERS[request.param](tmp_path / request.param, ROWS)
    return made


def test_every_kind_gives_the_same_records(source_path: Path) -> None:
    source = open_source(SourceConfig(str(source_path)))
    records = good(source)
    order = sorted(records, key=lambda record: int(record.metadata["n"]))
    assert [record.texts for record in order] == [(row["text"],) for row in ROWS]
    assert len({record.key for record in records}) == 10
    assert {record.source for record in records} == {source.name} == {source_path.name.split(".")[0]}
    assert good(source) == records
    for row, record in zip(ROWS, order, strict=True):
        base = source_path if source_path.is_dir() else source_path.parent
        if ".tar" in source_path.name:
            assert record.image == png(row["n"])
        else:
            assert record.image == str(base / row["image"])
    if source_path.name != "folder":
        assert order == records  # folders list names: 1, 10, 2


def test_counts_are_known_or_honestly_unknown(source_path: Path) -> None:
    known = open_source(SourceConfig(str(source_path))).count()
    assert known == (None if ".tar" in source_path.name else 10)


@pytest.mark.parametrize("count", [2, 3, 4, 50])
def test_shares_are_disjoint_and_complete(source_path: Path, count: int) -> None:
    source = open_source(SourceConfig(str(source_path)))
    shares = [[record.key for record in source.records(Shard(i, count))] for i in range(count)]
    assert sorted(chain(*shares)) == sorted(record.key for record in good(source))
    assert sum(map(bool, shares)) == min(count, 10)


def test_shares_of_shards_are_whole_shards(tmp_path: Path) -> None:
    for number in range(4):
        write_tar(tmp_path / f"{number:03d}.tar", members(rows(3, number * 3)))
    source = open_source(SourceConfig(str(tmp_path / "{000..003}.tar"), name="s"))
    keys = [record.key for record in source.records(Shard(1, 2))]
    assert [key.split(":")[1] for key in keys] == ["001.tar"] * 3 + ["003.tar"] * 3
    assert [r.key for r in source.records(Shard(3, 5))][:1] == ["s:001.tar:사진/3"]


def test_a_shard_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="shard 2 of 2"):
        Shard(2, 2)


def test_the_signature_follows_files_not_places(source_path: Path, tmp_path: Path) -> None:
    before = open_source(SourceConfig(str(source_path))).signature()
    moved = tmp_path / "elsewhere" / source_path.name
    moved.parent.mkdir()
    source_path.rename(moved)
    again = SourceConfig(str(moved))
    assert open_source(again).signature() == before
    assert open_source(SourceConfig(str(moved), name="other")).signature() == before
    if moved.suffix != ".json":
        assert open_source(SourceConfig(str(moved), texts=("text",))).signature() != before
    touched = next(moved.rglob("*.json")) if moved.is_dir() else moved
    os.utime(touched, (1, 1))
    assert open_source(again).signature() != before


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "folder"])
def test_memory_urls_give_the_same_texts(name: str, tmp_path: Path) -> None:
    import fsspec

    made: Path = MAKERS[name](tmp_path / name, ROWS)
    system = fsspec.filesystem("memory")
    system.pipe_file(f"/{name}/{name}", made.read_bytes())
    system.pipe_file(f"/{name}/사진/3.png", png(3))
    source = open_source(SourceConfig(f"memory://{name}/{name}"))
    local = open_source(SourceConfig(f"file://{made}"))
    assert [(r.key, r.texts) for r in good(source)] == [(r.key, r.texts) for r in good(local)]
    by_number = {int(record.metadata["n"]): record.image for record in good(source)}
    assert by_number[3] == png(3)
    if ".tar" not in name:
        assert by_number[4] == f"memory:///{name}/사진/4.png"  # not there: whoever opens it will say so
    assert source.count() == local.count() or name.endswith(("csv", "tsv", "jsonl"))
    system.rm(f"/{name}", recursive=True)


def test_a_remote_folder(tmp_path: Path) -> None:
    import fsspec

    write_folder(tmp_path / "album", ROWS)
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "album"), "/album", recursive=True)
    here, there = (open_source(SourceConfig(path)) for path in (str(tmp_path / "album"), "memory://album"))
    assert [(r.key, r.texts) for r in good(there)] == [(r.key, r.texts) for r in good(here)]
    assert [r.image for r in good(there)] == [Path(str(r.image)).read_bytes() for r in good(here)]
    system.rm("/album", recursive=True)


def test_only_urls_bring_in_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert len(good(open_source(SourceConfig(f"file://{tmp_path}/a.jsonl")))) == 10
    with pytest.raises(UsageError, match="memory://a"):
        open_source(SourceConfig("memory://a.jsonl"))


def test_columns_hold_texts_or_lists_and_every_one_is_taken(tmp_path: Path) -> None:
    row = {"image": "a.png", "texts": [" one ", "", "two"], "caption": "two", "captions": ["셋"], "license": "CC0"}
    (record,) = good(open_source(SourceConfig(str(write_jsonl(tmp_path / "a.jsonl", [row])))))
    assert record.texts == ("one", "two", "셋")
    assert record.metadata == {"license": "CC0"}


def test_own_columns_and_picture_folder(tmp_path: Path) -> None:
    rows_ = [{"파일": "a.png", "설명": "고양이", "url": "u"}, {"파일": "/b/c.png", "설명": "개", "url": "v"}]
    for path in (write_csv(tmp_path / "a.csv", rows_), write_jsonl(tmp_path / "a.jsonl", rows_)):
        plain = {"path": str(path), "image": "파일", "texts": ["설명"], "images": "/pictures"}
        records = good(open_source(from_plain(SourceConfig, plain)))
        assert [r.image for r in records] == ["/pictures/a.png", "/b/c.png"]
        assert [r.metadata for r in records] == [{"url": "u"}, {"url": "v"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"image": "imgae"}, "no column imgae; there are: image, text, n", "did you mean 'image'?"),
        ({"texts": ("texxt",)}, "no column texxt", "did you mean 'text'?"),
        ({"image": "n", "texts": ("text", "imag")}, "no column imag", "did you mean 'image'?"),
        ({"texts": ("zzz",)}, "no column zzz", "name the columns: texts"),
    ],
)
def test_a_wrong_column_is_an_error_with_a_proposal(
    tmp_path: Path, name: str, settings: Any, message: str, hint: str
) -> None:
    MAKERS[f"pairs.{name.split('.')[1]}"](tmp_path / name, ROWS)
    with pytest.raises(ConfigError) as caught:
        list(open_source(SourceConfig(str(tmp_path / name), **settings)).records())
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_typo_beside_a_good_column_is_noticed_in_json_lines_too(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"image": "a", "text": "x", "title": "y"}])
    with pytest.raises(ConfigError, match="did you mean 'title'"):
        open_source(SourceConfig(str(path), texts=("text", "titel")))
    assert len(good(open_source(SourceConfig(str(path), texts=("text", "rare"))))) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.jsonl", "there is no"),
        ("nowhere/*.tar", "no file matches"),
        ("a{0..1}.jsonl", "a1.jsonl"),
        ("a{0..99999999}.jsonl", "at most 1,000,000"),
        ("{1..999}{1..999}{1..999}.jsonl", "more than 1,000,000"),
        ("a0.xyz", "of no kind"),
        ("tables", "is it meant"),
        ("nonsense://a.csv", "nonsense"),
    ],
)
def test_what_is_not_there_or_not_clear_is_refused(tmp_path: Path, path: str, message: str) -> None:
    for name in ("a0.jsonl", "a0.xyz", "tables/metadata.csv", "tables/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image,text\n")
    with pytest.raises(UsageError, match=message):
        open_source(SourceConfig(path if "://" in path else str(tmp_path / path)))


@pytest.mark.parametrize(
    "settings", [{"path": ""}, {"weight": 0.0}, {"weight": float("nan")}, {"texts": "caption"}, {"image": ""}]
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, settings: Any) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ConfigError):
        open_source(SourceConfig(**{"path": str(tmp_path / "a.jsonl")} | settings))


def test_a_file_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a[1]{x}.jsonl", ROWS)
    assert len(good(open_source(SourceConfig(str(tmp_path / "a[1]{x}.jsonl"))))) == 10


def test_several_files_and_a_folder_of_files(tmp_path: Path) -> None:
    for number, place in enumerate(["a", "b"]):
        (tmp_path / "set" / place).mkdir(parents=True)
        write_parquet(tmp_path / "set" / place / "x.parquet", rows(5, 5 * number))
    source = open_source(SourceConfig(str(tmp_path / "set/*/x.parquet")))
    assert [r.key for r in good(source)][4:6] == ["set:a/x.parquet:4", "set:b/x.parquet:0"]
    one = open_source(SourceConfig(str(tmp_path / "set/a"), kind="parquet"))
    assert [r.key for r in good(one)][:1] == ["x:x.parquet:0"]
    with pytest.raises(UsageError, match="no jsonl file"):
        open_source(SourceConfig(str(tmp_path / "set/a"), kind="jsonl"))


def test_coco_of_the_shared_data(shared: Path) -> None:
    source = open_source(SourceConfig(str(shared / "data/coco/captions_val2017.json")))
    whole = json.loads((shared / "data/coco/captions_val2017.json").read_text(encoding="utf-8"))
    texts = {row["caption"].strip() for row in whole["annotations"]}
    records = good(source)
    assert len(records) == source.count() == len(whole["images"])
    assert {text for record in records for text in record.texts} == texts


def test_nothing_heavy_is_imported() -> None:
    import subprocess

    code = "import sys, nunbit.data; print([m for m in ('torch', 'pyarrow', 'fsspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

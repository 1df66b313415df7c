"""``nunbit curate``: its folder, which is read again, and its page."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shlex
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from curate_fakes import names, record, scene
from nunbit.cli import nunbit as cli
from nunbit.curate import CurationConfig, curate
from nunbit.curate.output import Origin, write_curation
from nunbit.curate.report import report_page
from nunbit.data import SourceConfig, open_source
from nunbit.pages.histograms import Histogram, draw_histogram
from nunbit.types import ImageText


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["curate", *map(str, arguments)], catch_exceptions=True)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Rows with relative paths and Korean names; of six pictures four stay."""
    folder = tmp_path / "모음"
    texts = {
        "가.png": ["노란 장면"],
        "나.jpg": ["a scene <b>twice</b>"],
        "라.png": ["a third scene"],
        "마.png": ["클릭"],
    }
    for seed, name in enumerate(texts):
        record(folder, name, scene(seed), "x", **({"quality": 95} if name.endswith("jpg") else {}))
    record(folder, "다.jpg", scene(1).resize((100, 75)), "x", quality=60)
    record(folder, "바.png", scene(9), "x")
    (folder / "깨진.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    texts |= {"다.jpg": ["a small copy"], "바.png": ["IMG_1.png", "바다"], "깨진.jpg": ["a broken one"]}
    rows = [{"image": name, "texts": given, "license": "CC0", "caption": None} for name, given in texts.items()]
    listing = folder / "pairs.jsonl"
    listing.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return listing


def test_the_folder_says_what_stays_what_went_and_how(pairs: Path, tmp_path: Path) -> None:
    result = run(pairs, "--into", tmp_path / "out", "--split", "0.5,0.25,0.25", "--set", "min_side=50", "--json")
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)
    assert (counts["records"], counts["kept"], counts["texts"]) == (7, 4, 4)
    assert {name: step["records"] for name, step in counts["dropped"].items()} == {
        "broken": 1, "boilerplate": 1, "near_hash": 1,
    }  # fmt: skip
    out = tmp_path / "out"
    kept = lines(out / "kept.jsonl")
    assert [Path(row["image"]).name for row in kept] == ["가.png", "나.jpg", "라.png", "바.png"]
    assert kept[3]["texts"] == ["바다"] and all(row["license"] == "CC0" for row in kept)
    sides = [lines(out / f"{name}.jsonl") for name in ("train", "validation", "test")]
    assert sorted(row["key"] for side in sides for row in side) == sorted(row["key"] for row in kept)
    dropped = {row["filter"]: row for row in lines(out / "dropped.jsonl") if "text" not in row}
    assert dropped["near_hash"]["twin"] == kept[1]["key"] and dropped["near_hash"]["score"] <= 8
    assert "cut off" in dropped["broken"]["detail"] or "header" in dropped["broken"]["detail"]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["rules"]["min_side"] == 50 and config["rules"]["split"] == [0.5, 0.25, 0.25]
    assert config["sources"][str(pairs)] and len(config["data_fingerprint"]) == 64 and config["versions"]["pillow"]


def test_a_second_run_writes_the_same_bytes_and_what_is_kept_can_be_curated_again(pairs: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    assert run(pairs, "--into", out, "--split", "0.5,0.5").exit_code == 0
    before = files(out)
    assert run(pairs, "--into", out, "--split", "0.5,0.5").exit_code == 0
    assert files(out) == before
    assert run(out / "kept.jsonl", "--into", again, "--split", "0.5,0.5").exit_code == 0
    for name in ("kept.jsonl", "train.jsonl", "validation.jsonl"):
        assert (again / name).read_bytes() == before[name]
    assert run(pairs, "--into", out).exit_code == 0
    assert not (out / "train.jsonl").exists()  # of the run before, which divided


def test_pictures_of_tar_shards_are_copied_and_only_those_that_stay(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for number, (seed, side) in enumerate([(0, 160), (1, 160), (0, 120), (2, 16)]):
            stream = io.BytesIO()
            scene(seed).resize((side, side * 3 // 4)).save(stream, "JPEG", quality=90)
            for ending, data in (("jpg", stream.getvalue()), ("txt", f"장면 {number}번".encode())):
                info = tarfile.TarInfo(f"{number:03}.{ending}")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    out = tmp_path / "out"
    assert run(tmp_path / "shard.tar", "--into", out, "--set", "merge_texts=false").exit_code == 0
    rows = lines(out / "kept.jsonl")
    assert [row["texts"] for row in rows] == [["장면 0번"], ["장면 1번"]]
    assert sorted(row["image"] for row in rows) == sorted(f"images/{path.name}" for path in (out / "images").iterdir())
    os.rename(out, tmp_path / "moved")
    records = list(open_source(SourceConfig(str(tmp_path / "moved" / "kept.jsonl"))).records())
    assert all(isinstance(item, ImageText) and Image.open(str(item.image)).width == 160 for item in records)


def test_pictures_lie_below_the_folder_that_is_named(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_bytes(pairs.read_bytes())
    result = run(tmp_path / "elsewhere.jsonl", "--images", pairs.parent, "--into", tmp_path / "out", "--json")
    assert json.loads(result.stdout)["kept"] == 4


def test_columns_that_would_be_taken_for_texts_are_given_other_names(tmp_path: Path) -> None:
    item = record(tmp_path, "a.png", scene(0), "a text that stays")
    odd = ImageText(item.key, item.image, item.texts, "made", {"caption": "IMG_1.jpg", "n": 3, "key": "first:1"})
    write_curation(curate([odd], CurationConfig()), tmp_path / "out", Origin({}))
    (read,) = open_source(SourceConfig(str(tmp_path / "out" / "kept.jsonl"))).records()
    assert isinstance(read, ImageText) and read.texts == item.texts
    assert read.metadata == {"key": "first:1", "source": "made", "other_caption": "IMG_1.jpg", "n": 3}


def test_the_page_is_one_file_and_nothing_in_it_is_taken_for_html(pairs: Path, tmp_path: Path) -> None:
    run(pairs, "--into", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page and html.escape("a scene <b>twice</b>") in page and "노란 장면" in page
    assert "http" not in page and 'src="data:image/jpeg;base64,' in page
    assert page.count("<figcaption>goes") == page.count("<figcaption>stays") == 1
    assert "Near duplicates, by how they look" in page and page.count("<svg") == 3


def test_the_page_stays_small_whatever_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.pages.thumbnails._ALL", 12_000)
    records = [record(tmp_path, f"{n}.png", scene(n), f"the scene {n}") for n in range(20)]
    assert len(report_page(curate(records, CurationConfig(min_side=300)))) < 20_000
    empty = report_page(curate([], CurationConfig()))
    assert "Of 0 records 0 stay" in empty


def test_a_histogram_counts_every_value_once() -> None:
    figure = draw_histogram(Histogram("<t>", [1, 1, 2, 3, 90], [1, 3]))
    assert "&lt;t&gt;" in figure and sum(int(part.split("<")[0]) for part in figure.split(": ")[1:]) == 7
    assert draw_histogram(Histogram("t", [4, 4], [])).count("<rect") == 1
    assert draw_histogram(Histogram("t", [], [])) == ""


def test_examples_of_the_help_run(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.chdir(pairs.parent)
    Path("rules.yaml").write_text("min_side: 64\n", encoding="utf-8")
    examples = re.findall(r"^\s+nunbit curate (.*)$", run("--help").output, re.MULTILINE)
    assert len(examples) == 3
    for line in examples:
        result = run(*shlex.split(line))
        assert result.exit_code == 0, (line, result.output)


def test_every_rule_is_explained() -> None:
    listed = run("--set", "help").output.splitlines()
    assert [line.split()[0] for line in listed] == [field.name for field in fields(CurationConfig)]
    assert all(len(line) > 40 for line in listed)


def test_two_runs_at_a_time_are_refused(pairs: Path, tmp_path: Path) -> None:
    from nunbit.durable import only_writer

    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out" / "writer.lock", "out"):
        result = run(pairs, "--into", tmp_path / "out")
    assert result.exit_code == 1 and not (tmp_path / "out" / "kept.jsonl").exists()


def test_real_photographs_stay_and_their_twins_go(shared: Path, tmp_path: Path) -> None:
    photos = sorted((shared / "data" / "coco" / "images").glob("*.jpg"))[:24]
    records = [ImageText(f"coco:{path.name}", str(path), (f"a photograph called {path.stem}",)) for path in photos]
    for path in photos:
        with Image.open(path) as image:
            half = image.convert("RGB").resize((image.width // 2, image.height // 2))
        records.append(record(tmp_path, path.name, half, "a smaller one", quality=70))
    curation = curate(records, CurationConfig())
    assert names(curation.kept) == {path.name for path in photos} and len(curation.kept) == 24
    assert {item.filter for item in curation.dropped} == {"near_hash"}

"""Saved pages, in English and Korean, become pairs; what does not is told."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nunbit.cli import nunbit
from nunbit.data import SourceConfig, open_source
from nunbit.data.harvest import harvest
from nunbit.durable import only_writer
from nunbit.errors import StoreBusy, UsageError
from picture_sources import good

ENGLISH = """<!DOCTYPE html>
<!-- saved from url=(0026)https://zoo.example/animals -->
<html lang="en"><head><title>The  animals of our zoo</title>
<link rel="license" href="https://creativecommons.org/licenses/by/4.0/"></head><body>
<h1>Animals</h1><h2>Cats</h2>
<figure><img src="./animals_files/cat.jpg" alt="A tabby cat" title="Minka">
<figcaption>Minka, <em>asleep</em> on<br>the sofa</figcaption></figure>
<h2>Dogs</h2>
<p><img src="animals_files/dog%20one.png"><img src="animals_files/dog.png?v=2" alt="A dog"></p>
<picture><source srcset="https://zoo.example/big.webp 2x, https://zoo.example/small.webp">
<img data-src="/lazy.jpg" src="animals_files/spacer.gif" alt="A horse"></picture>
<img src="animals_files/cat.jpg" alt="The cat again">
<img src="animals_files/line.png" alt=""><img src="animals_files/i.png" width="16" height="16" alt="icon">
<img src="animals_files/small.png" alt="small"><img src="animals_files/broken.png" alt="broken">
<img src="mailto:x" alt="gone"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="dot">
</body></html>"""

KOREAN = """<html><head><meta http-equiv="Content-Type" content="text/html; charset=euc-kr">
<title>우리 동네 똠방각하</title></head><body><h3>아침 풍경</h3>
<img src="그림/바다.png" alt="해 뜨는 바다"><img src="없음.png" alt="없는 그림"></body></html>"""


def picture(size: int = 40, kind: str = "PNG", seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    (folder / "animals_files").mkdir(parents=True)
    (folder / "animals.html").write_text(ENGLISH, encoding="utf-8")
    for name, data in {
        "cat.jpg": picture(kind="JPEG"),
        "dog one.png": picture(seed=1),
        "dog.png": picture(seed=2),
        "line.png": picture(),
        "i.png": picture(),
        "small.png": picture(31),
        "spacer.gif": picture(1, "GIF"),
        "broken.png": b"no picture",
    }.items():
        (folder / "animals_files" / name).write_bytes(data)
    (folder / "한국" / "그림").mkdir(parents=True)
    (folder / "한국" / "동네.htm").write_bytes(KOREAN.encode("cp949"))
    (folder / "한국" / "그림" / "바다.png").write_bytes(picture(seed=3))
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_warc(path: Path, answers: Iterable[tuple[str, str, bytes]]) -> Path:
    """Answers (address, headers of the server, content) as a crawler keeps them."""
    records = []
    for url, headers, content in answers:
        block = f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + content
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
        head += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
        records.append(head.encode() + block + b"\r\n\r\n")
    packed = path.name.endswith(".gz")
    path.write_bytes(b"".join(gzip.compress(record) if packed else record for record in records))
    return path


def test_a_page_gives_pairs_with_all_its_texts(pages: Path, tmp_path: Path) -> None:
    report = harvest([str(pages / "animals.html")], tmp_path / "out")
    files = pages / "animals_files"
    about = {"page": "https://zoo.example/animals", "language": "en"}
    about["license"] = "https://creativecommons.org/licenses/by/4.0/"
    pairs = {row["image"]: row for row in lines(tmp_path / "out" / "pairs.jsonl")}
    assert pairs[str(files / "cat.jpg")] == {
        "image": str(files / "cat.jpg"),
        "texts": [
            "A tabby cat",
            "Minka, asleep on the sofa",
            "Minka",
            "Cats",
            "Animals",
            "The animals of our zoo",
            "The cat again",
            "Dogs",
        ],
        "text_kinds": ["alt", "caption", "title", "heading", "heading", "page title", "alt", "heading"],
        **about,
        "width": 40,
        "height": 40,
    }
    assert pairs[str(files / "dog one.png")]["texts"] == ["Dogs", "Animals", "The animals of our zoo"]
    assert pairs[str(files / "dog.png")]["texts"][0] == "A dog"
    assert len(pairs) == report.pairs == 3
    (remote,) = lines(tmp_path / "out" / "remote.jsonl")
    assert remote["url"] == "https://zoo.example/big.webp"
    assert remote["texts"][0] == "A horse"
    assert remote["license"] == about["license"]
    assert report.remote == report.pages == 1


def test_what_is_set_aside_is_told(pages: Path, tmp_path: Path) -> None:
    report = harvest([str(pages / "animals.html")], tmp_path / "out")
    ledger = {row["path"].rpartition("/")[2]: row["reason"] for row in lines(tmp_path / "out" / "ledger.jsonl")}
    assert ledger == {
        "line.png": "empty alt",
        "i.png": "icon",
        "small.png": "icon",
        "broken.png": "not an image",
        "mailto:x": "not saved",
        "gif;base64,R0lGODlhAQABAAAAACw=": "inline, too small",
    }
    assert sum(report.reasons.values()) == 6
    assert all("zoo.example" in row["detail"] for row in lines(tmp_path / "out" / "ledger.jsonl"))


def test_korean_pages_in_old_encodings(pages: Path, tmp_path: Path) -> None:
    harvest([str(pages / "한국")], tmp_path / "out")
    (pair,) = lines(tmp_path / "out" / "pairs.jsonl")
    assert pair["image"] == str(pages / "한국/그림/바다.png")
    assert pair["texts"] == ["해 뜨는 바다", "아침 풍경", "우리 동네 똠방각하"]  # the last is CP949, not EUC-KR
    assert pair["page"] == str(pages / "한국/동네.htm")
    (row,) = lines(tmp_path / "out" / "ledger.jsonl")
    assert (row["path"], row["reason"]) == ("없음.png", "not saved")


def test_what_is_written_is_a_source(pages: Path, tmp_path: Path) -> None:
    inlined = base64.b64encode(picture(seed=9)).decode()
    (pages / "inline.html").write_text(f'<title>In</title><img src="data:image/png;base64,{inlined}" alt="noise">')
    report = harvest([str(pages)], tmp_path / "out")
    records = good(open_source(SourceConfig(str(tmp_path / "out" / "pairs.jsonl"))))
    assert len(records) == report.pairs == 5
    for record in records:
        Image.open(str(record.image)).load()
    inline = next(record for record in records if "noise" in record.texts)
    assert Path(str(inline.image)).read_bytes() == picture(seed=9)
    assert Path(str(inline.image)).parent == tmp_path / "out" / "images"
    assert inline.metadata["text_kinds"] == ["alt", "page title"]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_archives(tmp_path: Path, name: str) -> None:
    page = '<meta charset=utf-8><base href="/img/"><title>바다</title><img src="바다.png" alt="푸른 바다">'
    page += "<img src=a.jpg alt=a>"
    page += (
        '<img src="//cdn.example/x.gif#top" alt="x"><img src="big.png" alt="bad"><img src="//cdn.example/no" alt="no">'
    )
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (page.encode()[:50], page.encode()[50:]))
    answers = [
        ("http://sea.example/img/%EB%B0%94%EB%8B%A4.png", "Content-Type: image/png", picture(seed=1)),
        ("http://sea.example/", "Content-Type: text/html\r\nTransfer-Encoding: chunked", chunked + b"0\r\n\r\n"),
        (
            "http://cdn.example/x.gif",
            "Content-Type: image/gif\r\nContent-Encoding: gzip",
            gzip.compress(picture(50, "GIF")),
        ),
        ("http://sea.example/img/big.png", "Content-Type: image/png", b"<html>not found</html>"),
        ("http://sea.example/img/unused.png", "Content-Type: image/png", picture(seed=4)),
        (
            "http://sea.example/two",
            'Content-Type: text/html; charset="EUC-KR"',
            '<img src=/img/바다.png alt="둘">'.encode("euc-kr"),
        ),
    ]
    report = harvest([str(write_warc(tmp_path / name, answers))], tmp_path / "out")
    sea, gif, again = lines(tmp_path / "out" / "pairs.jsonl")
    assert (tmp_path / "out" / sea["image"]).read_bytes() == picture(seed=1)
    assert sea["texts"] == ["푸른 바다", "바다"]
    assert sea["url"] == "http://sea.example/img/%EB%B0%94%EB%8B%A4.png"
    assert sea["page"] == "http://sea.example/"
    assert (tmp_path / "out" / gif["image"]).read_bytes() == picture(50, "GIF")
    assert (again["image"], again["texts"]) == (sea["image"], ["둘"])
    assert [row["url"] for row in lines(tmp_path / "out" / "remote.jsonl")] == [
        "http://sea.example/img/a.jpg",
        "http://cdn.example/no",
    ]
    assert [row["reason"] for row in lines(tmp_path / "out" / "ledger.jsonl")] == ["not an image"]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    assert (report.pages, report.pairs, report.remote) == (2, 3, 2)


def test_a_page_finds_its_pictures_in_another_archive(tmp_path: Path) -> None:
    write_warc(tmp_path / "0.warc", [("http://a.example/p.png", "Content-Type: image/png", picture())])
    write_warc(tmp_path / "1.warc", [("http://a.example/", "Content-Type: text/html", b"<img src=p.png alt=p>")])
    assert harvest([str(tmp_path)], tmp_path.parent / "out").pairs == 1


def test_a_second_run_gives_the_same_bytes(pages: Path, tmp_path: Path) -> None:
    write_warc(pages / "a.warc.gz", [("http://a.example/", "Content-Type: text/html", b"<img src=/p.png alt=p>")])
    runs = []
    for _ in range(2):
        harvest([str(pages), str(pages / "animals.html")], tmp_path / "out")
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        runs.append({path.name: path.read_bytes() for path in files})
    assert runs[0] == runs[1]
    assert {"pairs.jsonl", "remote.jsonl", "ledger.jsonl"} < set(runs[0])


def test_an_interrupted_run_leaves_what_was_there(pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvest([str(pages)], tmp_path / "out")
    before = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    (pages / "new.html").write_text('<img src="animals_files/cat.jpg" alt="new">')

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nunbit.data.harvest.sync_file_system", stop)
    with pytest.raises(KeyboardInterrupt):
        harvest([str(pages)], tmp_path / "out")
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == before
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_pictures_outside_of_what_was_given_are_not_taken(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    (pages / "link.png").symlink_to(tmp_path / "secret.png")
    for address in ("../secret.png", str(tmp_path / "secret.png"), f"file://{tmp_path}/secret.png", "link.png", "a\0b"):
        (pages / "x.html").write_text(f'<img src="{address}" alt="x">', encoding="utf-8")
        report = harvest([str(pages / "x.html")], tmp_path / "out")
        assert (report.pairs, report.reasons) == (0, {"not saved": 1}), address
    for address in ("/animals_files/cat.jpg", f"file://{pages}/animals_files/cat.jpg"):
        (pages / "한국" / "x.html").write_text(f'<img src="{address}" alt="x">', encoding="utf-8")
        assert harvest([str(pages)], tmp_path / "out").pairs == 5, address


def test_paths_without_pages_and_a_folder_in_use(pages: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no saved page found"):
        harvest([str(tmp_path / "empty")], tmp_path / "out")
    with pytest.raises(UsageError, match="there is no"):
        harvest([str(tmp_path / "nowhere.html")], tmp_path / "out")
    with pytest.raises(UsageError, match="is a URL"):
        harvest(["https://zoo.example/"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out" / "writer.lock", "out"), pytest.raises(StoreBusy):
        harvest([str(pages)], tmp_path / "out")


def test_without_lxml_the_hint_says_what_to_install(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    with pytest.raises(UsageError, match=r"nunbit\[harvest\]"):
        harvest([str(pages)], tmp_path / "out")


def test_the_command(pages: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(nunbit, ["harvest", str(pages), "--into", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'out'}: 4 pairs of 2 pages, 1 pictures not saved\n"
    assert "2 set aside: icon\n" in result.stderr
    result = CliRunner().invoke(nunbit, ["harvest", str(pages), "--into", str(tmp_path / "out"), "--json"])
    row = json.loads(result.stdout)
    assert (row["pages"], row["pairs"], row["remote"], row["set_aside"]["icon"]) == (2, 4, 1, 2)

"""Pages and archives that nobody should trust: bounded time and memory, and no errors but those that are announced."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nunbit.data.harvest import PAGE_BYTES, harvest
from nunbit.data.html_pages import PICTURES, TEXT_LENGTH, candidates, decode_page, read_page
from nunbit.data.saved_pages import SavedFile, full_address, inline_bytes, local_path
from nunbit.data.warcs import DamagedArchive, UnusableContent, read_answers

MB = 1 << 20
RECORD = (
    b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: application/http\r\n"
    b"Content-Length: %d\r\n\r\n%s\r\n\r\n"
)


def record(body: bytes, headers: bytes = b"Content-Type: text/html") -> bytes:
    block = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + body
    return RECORD % (len(block), block)


@pytest.mark.parametrize(
    "content",
    [
        b"<div>" * 300_000,
        b"<b>" * 300_000,
        b"<figure>" * 100_000 + b"<figcaption>x" * 100_000,
        b"<table><a><p>" * 100_000,
        b"<!--" * 300_000,
        b"<" * 1_000_000,
        b"<img " + b"a=1 " * 300_000,
        b"<h1>" * 100_000 + b"x" * MB,
        b"<picture>" + b"<source srcset='a 1x, b 2x'>" * 50_000,
        b"&amp" * 500_000,
        b"<title>" + b"x" * (4 * MB),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_no_page_takes_long(content: bytes) -> None:
    before = time.process_time()
    page = read_page(content + b"<img src=x alt=y>")
    assert time.process_time() - before < 5
    assert len(page.title) <= TEXT_LENGTH
    assert len(page.pictures) <= 1


def test_what_one_page_can_hold_is_bounded() -> None:
    page = read_page(b"<img src=x alt=y>" * (PICTURES + 7))
    assert (len(page.pictures), page.more) == (PICTURES, 7)
    long = b"x" * (TEXT_LENGTH + 1)
    (picture,) = read_page(
        b"<title>" + long + b"</title><h1>" + long + b"</h1><figure><img alt='" + long + b"' src='" + long * 2 + b"'"
        b" srcset='" + b"a 1x, " * 100_000 + b"'><figcaption>" + long + b"</figcaption></figure>"
    ).pictures
    assert (picture.alt, picture.caption, picture.headings) == ("", "", ())
    assert picture.addresses == ("a",)
    exact = read_page(b"<img src=x alt='" + long[1:] + b"'>").pictures[0]
    assert exact.alt == "x" * TEXT_LENGTH


def test_a_page_of_one_huge_line_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(b"<img src=x alt='" + b"x" * PAGE_BYTES + b"'>")
    (tmp_path / "b.warc").write_bytes(record(b"x" * (PAGE_BYTES + 1)))
    packed = record(gzip.compress(b"\0" * (PAGE_BYTES + 1)), b"Content-Type: text/html\r\nContent-Encoding: gzip")
    (tmp_path / "c.warc").write_bytes(packed)
    report = harvest([str(tmp_path)], tmp_path.parent / "out")
    assert report.reasons == {"too many bytes": 3}
    assert report.pages == 0


PIECES = b"<img src=a alt='|<figure>|</figure>|<figcaption>|</h1>|<h2>|<picture>|<title>|<source srcset=|'>|>|\0"
PIECES += b"|<a rel=license href=|<base href=|<!--|-->|<svg>|<html lang=|<script>|</script>|\xff\xfe|&#xd800;| "
PIECES += b"|\xc7\xd1|\xed\x95\x9c"


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES.split(b"|")) | st.binary(max_size=8), max_size=30).map(b"".join),
    st.sampled_from(["", "utf-8", "euc-kr", "nonsense", "utf-7", "zlib", "idna", "x" * 500, "\0"]),
)
def test_any_bytes_are_a_page(data: bytes, charset: str) -> None:
    for picture in read_page(data, charset).pictures:
        for text in (*picture.addresses, picture.alt or "", picture.title, picture.caption, *picture.headings):
            text.encode()


@given(st.text() | st.lists(st.sampled_from(["a", ",", " ", "1x", "640w", "b.jpg", "\t"])).map("".join))
def test_any_text_is_a_list_of_candidates(value: str) -> None:
    for size, address in candidates(value):
        assert size >= 0
        assert address
        assert address in value


@given(st.text(max_size=30), st.sampled_from(["", "http://a.example/b/c", "http://[::1", "x"]))
def test_any_text_is_an_address_or_none(address: str, base: str) -> None:
    full = full_address(address, base)
    assert not full or full.startswith(("http://", "https://"))
    assert full_address(full, "") == full
    inline_bytes("data:" + address, 100)
    local_path(address, SavedFile("/nowhere/a.html", 1, "/nowhere"))


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("한글".encode(), "", "한글"),
        ("\ufeff한글".encode("utf-8"), "euc-kr", "한글"),
        ("\ufeff한글".encode("utf-16-le"), "", "한글"),
        ("똠".encode("cp949"), "EUC-KR", "똠"),
        ("똠".encode("cp949"), "ks_c_5601-1987", "똠"),
        (b"<meta charset=euc-kr>" + "한글".encode("cp949"), "", "<meta charset=euc-kr>한글"),
        (b"<meta charset=euc-kr>" + "한글".encode(), "", "<meta charset=euc-kr>한글"),  # saved anew, the name left
        ("한글 사진".encode("euc-kr"), "", "한글 사진"),
        ("café olé".encode("latin-1"), "", "café olé"),
        ("“café”".encode("cp1252"), "iso-8859-1", "“café”"),
        ("한".encode("cp949") + b"\xff", "euc-kr", "한\ufffd"),
        (b"plain", "unicode_escape", "plain"),
    ],
)
def test_encodings(data: bytes, charset: str, text: str) -> None:
    assert decode_page(data, charset) == text


@pytest.mark.parametrize(
    "archive",
    [
        b"not an archive",
        b"WARC/1.0\r\n" + b"a: b\r\n" * 2000,
        b"WARC/1.0\r\nContent-Length: -1\r\n\r\n",
        b"WARC/1.0\r\nContent-Length: 9" + b"9" * 100 + b"\r\n\r\n",
        b"WARC/1.0\r\nContent-Length: 1000000000000\r\n\r\nshort",
        b"WARC/1.0\r\n\r\n",
        record(b"x")[:-6],
        b"x" * 300_000,
    ],
    ids=lambda archive: repr(archive[-20:]),
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_archive_gives_what_came_before_and_says_so(tmp_path: Path, archive: bytes, packed: bool) -> None:
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    content = record(b"<img src=http://b.example/x alt=x>") + archive
    path.write_bytes(gzip.compress(content) if packed else content)
    report = harvest([str(path)], tmp_path / "out")
    assert report.remote == 1
    assert report.reasons == {"damaged archive": 1}
    with pytest.raises(DamagedArchive):
        list(read_answers(str(path)))


def test_a_packed_archive_that_ends_early(tmp_path: Path) -> None:
    whole = gzip.compress(record(b"<img src=http://b.example/x alt=x>"))
    (tmp_path / "a.warc.gz").write_bytes(whole + whole[:-9])
    report = harvest([str(tmp_path)], tmp_path.parent / "out")
    assert report.reasons == {"damaged archive": 1}
    assert report.remote >= 1


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (b"Transfer-Encoding: chunked", b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
        (b"Transfer-Encoding: chunked", b"already whole", b"already whole"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\nzz\r\n", b"hello"),
        (b"Transfer-Encoding: chunked", b"-5\r\nhello", b""),
        (b"Content-Encoding: gzip", b"already whole", b"already whole"),
        (b"Content-Encoding: deflate", gzip.zlib.compress(b"hello"), b"hello"),
        (b"Content-Encoding: deflate", gzip.zlib.compress(b"hello")[2:-4], b"hello"),
        (b"Content-Encoding: identity\r\nX-Long: a\r\n b", b"hello", b"hello"),
        (b"Content-Encoding: br", b"hello", None),
        (b"Content-Encoding: gzip", b"\x1f\x8bnot really", None),
    ],
)
def test_contents_are_unpacked(tmp_path: Path, headers: bytes, body: bytes, expected: bytes | None) -> None:
    (tmp_path / "a.warc").write_bytes(record(body, headers) + record(b"next"))
    answers = read_answers(str(tmp_path / "a.warc"))
    first = next(answers)
    if expected is None:
        with pytest.raises(UnusableContent):
            first.content(100)
    else:
        assert first.content(100) == expected
    assert next(answers).content(100) == b"next"


def test_limits_of_contents(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(record(b"x" * 101) + record(b"x" * 100))
    answers = read_answers(str(tmp_path / "a.warc"))
    with pytest.raises(UnusableContent):
        next(answers).content(100)
    assert next(answers).content(100) == b"x" * 100


def test_only_good_answers_count(tmp_path: Path) -> None:
    other = record(b"gone").replace(b" 200 OK", b" 404 No")
    request = record(b"x").replace(b"WARC-Type: response", b"WARC-Type: request ")
    resource = b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: <http://a.example/r>\r\n"
    resource += b"Content-Type: image/png\r\nContent-Length: 1\r\n\r\nx\r\n\r\n"
    (tmp_path / "a.warc").write_bytes(other + request + resource)
    (answer,) = read_answers(str(tmp_path / "a.warc"))
    assert (answer.url, answer.type) == ("http://a.example/r", "image/png")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), max_size=6))
def test_any_archive_ends_in_answers_or_the_announced_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(
        record(b"a") + record(b"<img>", b"Content-Encoding: gzip") + record(b"1\r\nb", b"Transfer-Encoding: chunked")
    )
    for place, piece in changes:
        place %= len(data)
        data[place : place + len(piece)] = piece
    path = tmp_path_factory.getbasetemp() / "mutated.warc"
    path.write_bytes(data)
    try:
        for answer in read_answers(str(path)):
            try:
                answer.content(1000)
            except UnusableContent:
                continue
    except DamagedArchive:
        pass

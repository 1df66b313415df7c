"""Hostile pictures, bodies, paths, addresses and keys: each is answered as expected, and the server stays well.

What hurts below that, on the wire, is in test_serve_hostile_wire.py.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from bad_pictures import encoded, photo, png, png_chunk
from hostile import (
    Watched,
    animation,
    assert_error,
    gif_frame,
    jpeg_of_many_scans,
    little_memory,
    png_of_packed,
    tiff_of_packed,
    watched,
    webp_canvas,
    zeros_packed,
)
from index_fakes import FakeTowers
from nunbit.serve.settings import Limits, Settings
from serving import Answer, data_url, serving

ID = "0" * 32
JSON_ROUTES = [
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/search"),
    ("POST", "/v1/recognize"),
    ("POST", "/v1/recognize/items"),
    ("POST", "/v1/items"),
    ("PUT", f"/v1/items/{ID}"),
    ("PATCH", f"/v1/items/{ID}"),
    ("POST", "/v1/labels"),
    ("PUT", "/v1/labels/animals"),
    ("POST", "/v1/indexing"),
]
JPEG = encoded(photo(), "JPEG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
LIMITS = Limits(pixels=1_000_000, body_bytes=8 << 20, rate=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Watched]:
    with watched(folder, LIMITS) as client:
        yield client


@pytest.fixture
def client(server: Watched) -> Iterator[Watched]:
    """The server, which must be well after each test."""
    yield server
    assert server("GET", "/healthz").json["status"] == "ok"


def upload(client: Watched, path: str, *parts: tuple[bytes, bytes], method: str = "POST", kind: str = "") -> Answer:
    """Send parts of a multipart body, each the parameters of its Content-Disposition and its content."""
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; " + given + b"\r\nContent-Type: text/html\r\n\r\n" + content + b"\r\n"
        for given, content in parts
    )
    return client(method, path, body + b"--x--\r\n", content_type=kind or "multipart/form-data; boundary=x")


def upload_picture(client: Watched, path: str, content: bytes, name: bytes = b"a.jpg") -> Answer:
    return upload(client, path, (b'name="file"; filename="' + name + b'"', content))


def text_chunks() -> bytes:
    packed = zlib.compress(bytes(1 << 20))
    return b"".join(png_chunk(b"zTXt", b"k%d\0\0" % number + packed) for number in range(100))


PICTURES: dict[str, tuple[Callable[[], bytes], int]] = {
    "1x1": (lambda: encoded(Image.new("RGB", (1, 1)), "PNG"), 200),
    "a very long one": (lambda: encoded(Image.new("RGB", (1, 20_000)), "PNG"), 200),
    "png that says it is huge": (lambda: png(100_000, 100_000, 8, 2, bytes(1000)), 413),
    "png that is a little too large": (lambda: png_of_packed(1001, 1000, zlib.compress(bytes(3004 * 1000))), 413),
    "png of 4 gigabytes in 12 bytes a megabyte": (lambda: png_of_packed(4, 4, zeros_packed(4096)), 200),
    "png of packed texts": (lambda: png_of_packed(4, 4, zlib.compress(bytes(52)), text_chunks()), 400),
    "tiff of 4 gigabytes": (lambda: tiff_of_packed(64, 64, zeros_packed(4096)), 200),
    "tiff that says it is huge": (lambda: tiff_of_packed(100_000, 100_000, zlib.compress(bytes(1000))), 413),
    "webp on a huge canvas": (lambda: webp_canvas(16_383, 16_383), 413),
    "webp on a canvas that is too large": (lambda: webp_canvas(1001, 1000), 413),
    "gif frame larger than its canvas": (lambda: gif_frame(4, 65_535), 413),
    "gif of many frames": (lambda: animation("GIF", 2000), 200),
    "apng of many frames": (lambda: animation("PNG", 2000), 200),
    "webp of many frames": (lambda: animation("WEBP", 2000), 200),
    "jpeg of many scans": (lambda: jpeg_of_many_scans(5000), 400),
    "ppm of many comments": (lambda: b"P2 64 64 255\n" + b"#\n" * 50_000 + b"0 " * 4096, 400),
    "truncated jpeg": (lambda: JPEG[: len(JPEG) // 2], 400),
    "jpeg that says it is huge": (lambda: JPEG.replace(b"\0\x30\0\x40\x03", b"\xff\xff\xff\xff\x03"), 413),
    "jpeg with fewer pixels than it says": (lambda: JPEG.replace(b"\0\x30\0\x40\x03", b"\0\xff\0\xff\x03"), 200),
    "png cut in its header": (lambda: encoded(photo(), "PNG")[:20], 400),
    "webp that lies about its length": (lambda: encoded(photo(), "WEBP").replace(b"RIFF", b"RIFX"), 400),
    "svg": (lambda: SVG, 400),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", 400),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj\n", 400),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), 400),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", 400),
    "nothing": (lambda: b"", 400),
    "jpeg with html behind it": (lambda: JPEG + b"<script>alert(1)</script>", 200),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_odd_picture_has_its_status_and_costs_no_memory(client: Watched, name: str) -> None:
    make, status = PICTURES[name]
    content = make()
    started = time.monotonic()
    with little_memory():
        answers = [upload_picture(client, "/v1/embeddings", content)]
        if content:
            answers.append(client("POST", "/v1/embeddings", {"input": {"image": data_url(content)}}))
        for answer in answers:
            assert answer.status == status
            assert status == 200 or answer.json["error"]["code"] == "bad_picture"
        assert upload_picture(client, "/v1/items", content).status == (201 if status == 200 else status)
    assert time.monotonic() - started < 20  # far more than any of them takes; unchecked, the worst take hours


@pytest.mark.parametrize("name", [b"a.html", b"a.svg", b"a.jpg.php", b"\xff\xfe.exe"])
def test_a_jpeg_that_is_also_a_page_comes_back_as_a_new_jpeg_only(client: Watched, folder: Path, name: bytes) -> None:
    content = JPEG + name + b"<script>alert(1)</script>"
    item = upload_picture(client, "/v1/items", content, name).json["data"][0]
    thumbnail = client("GET", f"/v1/items/{item['id']}/thumbnail?size=160")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.headers["x-content-type-options"] == "nosniff"
    assert thumbnail.content.startswith(b"\xff\xd8\xff")
    assert b"script" not in thumbnail.content
    assert {path.suffix for path in (folder / "x.nunbit" / "uploads").rglob("*") if item["id"] in path.name} == {".jpg"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"../../../../etc/passwd", "passwd"),
        (b"..\\\\..\\\\keys.json", "keys.json"),
        (b"/etc/cron.d/job", "job"),
        (b"a\0b.png", "ab.png"),
        ("\u202egnp.exe".encode(), "gnp.exe"),
        (b"\x7f\x1b[31m.png", "[31m.png"),
        (b"..", ".."),
        (b"n" * 3000, "n" * 255),
    ],
)
def test_a_file_is_stored_below_uploads_whatever_it_is_called(
    client: Watched, folder: Path, given: bytes, kept: str
) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}
    answer = upload_picture(client, "/v1/items", JPEG + given, given)
    item = answer.json["data"][0]
    assert item["name"] == kept
    uploads = folder / "x.nunbit" / "uploads"
    new = {path for path in folder.rglob("*") if path.is_file() and path not in before}
    stored = [path for path in new if "pictures.lance" not in str(path)]
    assert [path.parent for path in stored] == [uploads / item["id"][:2]]
    assert (answer.status, stored[0].suffix) == (201, ".jpg")


BODIES: dict[str, tuple[bytes, int, str]] = {
    "deep lists": (b"[" * 100_000, 400, "too_many_values"),
    "deep objects": (b'{"filter":' * 20_000, 400, "bad_request"),
    "deep and closed": (b'{"filter":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}}", 400, "bad_request"),
    "no JSON": (b"\xff\xfe\0", 400, "bad_request"),
    "half of JSON": (b'{"text": "a', 400, "bad_request"),
    "a list": (b"[]", 400, "bad_request"),
    "null": (b"null", 400, "bad_request"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), 400, "bad_request"),
    "a lone surrogate": (b'{"text": "\\ud800"}', 400, "bad_request"),
    "a bad byte": (b'{"text": "\xff"}', 400, "bad_request"),
    "a number without end": (b'{"limit": ' + b"9" * 100_000 + b"}", 400, "bad_request"),
    "another field": (b'{"__class__": "x"}', 400, "bad_request"),
    "very many values": (b'{"input": [' + b"1," * 500_000 + b"1]}", 400, "too_many_values"),
    "very many texts": (b'{"labels": [' + b'"",' * 500_000 + b'""]}', 400, "too_many_values"),
    "very many fields": (b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}", 400, "too_many_values"),
    "quotes": (b'"\\' * 1_000_000, 400, "bad_request"),
}


@pytest.mark.parametrize("name", BODIES)
def test_each_bad_body_is_refused_by_each_route(client: Watched, name: str) -> None:
    content, status, code = BODIES[name]
    with little_memory():
        for method, path in JSON_ROUTES:
            assert_error(client(method, path, content), status, code)


VALUES: list[tuple[str, str, bytes, int, str]] = [
    ("POST", "/v1/search", b'{"text": "a", "limit": 1e999}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"text": "a", "offset": 1' + b"0" * 30 + b"}", 400, "bad_request"),
    ("POST", "/v1/search", b'{"text": "a", "min_similarity": NaN}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"query": [{"text": "a", "weight": Infinity}]}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"query": [{"text": "a", "weight": 0}]}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"query": [{"text": "a"}, {"text": "a", "weight": -1}]}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"text": "a\\u0000b"}', 200, ""),
    ("POST", "/v1/search", b'{"text": " \\t "}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"text": "' + b"a" * 10_001 + b'"}', 400, "bad_request"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"width": NaN}}', 400, "bad_filter"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"width": 1' + b"0" * 4000 + b"}}", 400, "bad_filter"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"width": "' + b"\\u0000" * 100_000 + b'"}}', 400, "bad_filter"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"path": {"contains": "/"}}}', 400, "bad_filter"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"modified": "9999-12-31T23:59:59-23:59"}}', 400, "bad_filter"),
    ("POST", "/v1/search", b'{"text": "a", "filter": {"attributes.a": {"gt": {}, "in": [[]]}}}', 200, ""),
    ("POST", "/v1/recognize/items", b'{"labels": ["a"], "bin": 1' + b"0" * 30 + b"}", 400, "bad_request"),
    (
        "POST",
        "/v1/recognize/items",
        b'{"labels": ["a"], "templates": "' + b"a" * 5_000_000 + b'{}"}',
        400,
        "bad_request",
    ),
    ("POST", "/v1/embeddings", b'{"input": "data:' + b";a" * 2_000_000 + b'"}', 400, "bad_request"),
    ("POST", "/v1/embeddings", b'{"input": {"image": "data:' + b";a" * 4_000_000 + b'"}}', 400, "remote_url"),
    ("POST", "/v1/embeddings", b'{"input": {"image": "data:image/png;base64,*"}}', 400, "bad_picture"),
    ("POST", "/v1/embeddings", b'{"input": {"image": "===="}}', 400, "bad_picture"),
    ("POST", "/v1/embeddings", json.dumps({"input": ["a"] * 257}).encode(), 413, "too_many"),
    ("PATCH", f"/v1/items/{ID}", b'{"attributes": {"a": Infinity}}', 400, "bad_request"),
    ("PATCH", f"/v1/items/{ID}", b'{"attributes": {"a": "' + b"a" * 10_001 + b'"}}', 400, "bad_request"),
    (
        "PATCH",
        f"/v1/items/{ID}",
        json.dumps({"attributes": {str(n): n for n in range(101)}}).encode(),
        400,
        "bad_request",
    ),
    ("POST", "/v1/labels", b'{"name": "a", "labels": ["a"], "templates": "{}{}"}', 400, "bad_request"),
    ("POST", "/v1/labels", b'{"name": "a", "labels": ["a", " a"]}', 400, "bad_request"),
    ("POST", "/v1/labels", b'{"name": "../keys", "labels": ["a"]}', 400, "bad_request"),
    ("POST", "/v1/labels", b'{"name": "a\\n", "labels": ["a"]}', 400, "bad_request"),
]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_each_bad_value_has_its_status(client: Watched, number: int) -> None:
    method, path, body, status, code = VALUES[number]
    with little_memory():
        answer = client(method, path, body)
    assert answer.status == status, answer.content
    assert not code or answer.json["error"]["code"] == code


@pytest.mark.parametrize(
    ("path", "name"),
    [("/v1/embeddings", "input"), ("/v1/items", "items"), ("/v1/recognize", "images"), ("/v1/recognize", "items")],
)
def test_not_all_that_is_wrong_is_noted(client: Watched, path: str, name: str) -> None:
    answer = client("POST", path, {name: [1] * 20_000})
    assert_error(answer, 400, "bad_request")
    found = re.fullmatch(r"and (\d+) more|/openapi.json .*", answer.json["error"]["hint"])
    assert found is not None and int(found[1] or 0) < 10


def test_a_failure_has_the_shape_of_all_errors(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError(f"{tmp_path} cannot be read")

    towers = FakeTowers()
    with serving(Settings(tmp_path / "x.nunbit", port=0), towers) as plain:
        towers.before_batch = fail
        client = Watched(plain.address, (str(tmp_path),))
        assert_error(client("POST", "/v1/embeddings", {"input": {"image": data_url(JPEG)}}), 500, "server_error")


@pytest.mark.parametrize("filter", ["[", "[]", "1", "[" * 9000, '{"width":NaN}', '{"a":1}', '{"name":"\\ud800"'])
def test_a_filter_in_a_query_is_checked(client: Watched, filter: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in filter.encode())
    assert_error(client("GET", f"/v1/items?filter={quoted}"), 400, "bad_filter")
    many = json.dumps({f"attributes.{n}": {"ne": 1} for n in range(65)}).replace(" ", "").replace('"', "%22")
    assert_error(client("GET", f"/v1/map?filter={many}"), 400, "bad_filter")


MULTIPART: dict[str, tuple[str, bytes, int, str]] = {
    "no boundary": ("multipart/form-data", b"--x--", 400, "bad_multipart"),
    "an empty boundary": ("multipart/form-data; boundary=", b"--x--", 400, "bad_multipart"),
    "a boundary of 20,000": (f"multipart/form-data; boundary={'x' * 20_000}", b"--x--", 400, "bad_multipart"),
    "another boundary": ("multipart/form-data; boundary=y", b"--x\r\n\r\n--x--", 400, "bad_multipart"),
    "no end": ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; na", 400, "bad_multipart"),
    "a part without name": ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n", 400, "bad_multipart"),
    "half of a file": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + JPEG[:999],
        400,
        "bad_multipart",
    ),
    "a charset of nothing": (
        "multipart/form-data; boundary=x; charset=undefined",
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\na\r\n--x--\r\n',
        400,
        "bad_multipart",
    ),
    "mixed": ("multipart/mixed; boundary=x", b"--x--", 415, "bad_content_type"),
    "a form": ("application/x-www-form-urlencoded", b"text=a", 415, "bad_content_type"),
    "plain text": ("text/plain", b'{"text": "a"}', 415, "bad_content_type"),
}


@pytest.mark.parametrize("name", MULTIPART)
def test_each_bad_form_is_refused_by_each_route(client: Watched, name: str) -> None:
    kind, body, status, code = MULTIPART[name]
    for method, path in JSON_ROUTES:
        assert_error(client(method, path, body, content_type=kind), status, code)


PARTS: dict[str, tuple[tuple[bytes, bytes], int, int, str]] = {
    "thousands of files": ((b'name="file"; filename="a"', b"a"), 3000, 400, "bad_multipart"),
    "thousands of fields": ((b'name="text"', b"a"), 3000, 400, "bad_multipart"),
    "as many fields as may be": ((b'name="text"', b"a"), 1000, 400, "bad_request"),
    "more pictures than may be": ((b'name="file"; filename="a"', b"a"), 300, 413, "too_many"),
    "a file in another field": ((b'name="text"; filename="a"', b"a"), 1, 400, "bad_multipart"),
    "a field of two megabytes": ((b'name="text"', b"a" * (2 << 20)), 1, 400, "bad_multipart"),
    "a field of deep lists": ((b'name="query"', b"[" * 20_000), 1, 400, "bad_request"),
    "a field of NaN": ((b'name="query"', b'{"text": "a", "weight": NaN}'), 1, 400, "bad_request"),
    "a field of surrogates": ((b'name="filter"', b'{"\\ud800": "\\udfff"}'), 1, 400, "bad_filter"),
    "fields of many values": ((b'name="query"', b"[" + b"[]," * 20_000 + b"[]]"), 3, 400, "too_many_values"),
    "a field of half a megabyte of values": (
        (b'name="query"', b"[" + b"[]," * 150_000 + b"[]]"),
        1,
        400,
        "too_many_values",
    ),
    "a name of JSON": ((b'name="{\\"a\\": [\xff\x00"', b"a"), 1, 400, "bad_request"),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_odd_form_has_its_status(client: Watched, name: str) -> None:
    part, count, status, code = PARTS[name]
    text = [] if b"filename" in part[0] or b"text" in part[0] else [(b'name="text"', b"a")]
    with little_memory():
        assert_error(upload(client, "/v1/search", *text, *[part] * count), status, code)

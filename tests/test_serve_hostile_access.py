"""Hostile paths, addresses, hosts and keys: nothing outside is read, asked or changed."""

from __future__ import annotations

import base64
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostile import Watched, assert_error, watched
from index_fakes import picture
from nunbit.serve.keys import KeyFile, Scope
from nunbit.serve.settings import Limits
from serving import data_url, png

ID = "0" * 32
LIMITS = Limits(rate=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("served"), LIMITS) as client:
        yield client


@pytest.fixture
def client(server: Watched) -> Iterator[Watched]:
    """The server, which must be well after each test."""
    yield server
    assert server("GET", "/healthz").json["status"] == "ok"


LABELS = {"labels": ["a"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/page/../../etc/passwd", None, 404, "no_such_path"),
        ("GET", "/page/%2e%2e%2f%2e%2e%2fserver.py", None, 404, "no_such_path"),
        ("GET", "/page/..%5c..%5cserver.py", None, 404, "no_such_page"),
        ("GET", "/page/%2fetc%2fpasswd", None, 404, "no_such_path"),
        ("GET", "/page/%c0%ae%c0%ae", None, 404, "no_such_page"),
        ("GET", "/page/..", None, 404, "no_such_page"),
        ("GET", "/page/app.js%00.html", None, 404, "no_such_page"),
        ("GET", "//etc/passwd", None, 404, "no_such_path"),
        ("GET", "/keys.json", None, 404, "no_such_path"),
        ("GET", "/v1/items/../../keys.json", None, 404, "no_such_path"),
        ("GET", "/v1/items/..%2f..%2fkeys.json", None, 404, "no_such_path"),
        ("GET", "/v1/items/%2e%2e/thumbnail", None, 400, "bad_request"),
        ("GET", f"/v1/items/{ID}%0a", None, 400, "bad_request"),
        ("GET", f"/v1/items/{ID}%00/thumbnail", None, 400, "bad_request"),
        ("GET", f"/v1/items/{'F' * 32}", None, 400, "bad_request"),
        ("PUT", "/v1/items/..%5c" + "0" * 29, {"image": data_url(png(1))}, 400, "bad_request"),
        ("DELETE", "/v1/items/%2e%2e", None, 400, "bad_request"),
        ("PUT", "/v1/labels/..%2fkeys", LABELS, 404, "no_such_path"),
        ("PUT", "/v1/labels/..%5ckeys", LABELS, 400, "bad_name"),
        ("PUT", "/v1/labels/%2e%2e", LABELS, 400, "bad_name"),
        ("PUT", "/v1/labels/a%00", LABELS, 400, "bad_name"),
        ("PUT", "/v1/labels/a%0a", LABELS, 400, "bad_name"),
        ("PUT", "/v1/labels/" + "a" * 65, LABELS, 400, "bad_request"),
        ("DELETE", "/v1/labels/..%5ckeys", None, 404, "no_such_label_set"),
        ("GET", "/v1/models/../../etc/passwd", None, 404, "no_such_model"),
        ("POST", "/v1/recognize/items", {"label_set": "../keys"}, 404, "no_such_label_set"),
        ("POST", "/v1/indexing", {"paths": [".."]}, 403, "outside_root"),
        ("POST", "/v1/indexing", {"paths": [".", "0.png/../../../etc"]}, 403, "outside_root"),
        ("POST", "/v1/indexing", {"paths": ["/etc/passwd"]}, 403, "outside_root"),
        ("POST", "/v1/indexing", {"paths": ["/no/such/folder"]}, 403, "outside_root"),
        ("POST", "/v1/indexing", {"paths": ["../album-2"]}, 403, "outside_root"),
        ("POST", "/v1/indexing", {"paths": ["..\\.."]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["%2e%2e"]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["~root"]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["file:///etc/passwd"]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["a\0b"]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["a" * 4000]}, 404, "no_such_path"),
        ("POST", "/v1/indexing", {"paths": ["a" * 5000]}, 400, "bad_request"),
        ("POST", "/v1/indexing", {"paths": ["."] * 101}, 400, "bad_request"),
    ],
)
def test_no_path_leads_out(client: Watched, method: str, path: str, body: Any, status: int, code: str) -> None:
    assert_error(client(method, path, body), status, code)


def test_links_that_lead_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "secret.png", 99)
    with watched(tmp_path / "served", LIMITS) as client:
        album = tmp_path / "served" / "album"
        items = client("GET", "/v1/items").json["data"]
        stolen = next(item for item in items if item["name"] == "0.png")
        (album / "0.png").unlink()
        (album / "0.png").symlink_to(outside)
        (album / "folder").symlink_to(outside.parent)
        (album / "loop").symlink_to(album / "loop")
        assert_error(client("GET", f"/v1/items/{stolen['id']}/thumbnail"), 404, "outside_root")
        part = {"item": stolen["id"], "region": [0, 0, 1, 1]}
        assert_error(client("POST", "/v1/search", {"query": [part]}), 404, "outside_root")
        for path, status, code in (("0.png", 403, "outside_root"), ("folder", 403, "outside_root"), ("loop", 404, "")):
            answer = client("POST", "/v1/indexing", {"paths": [path]})
            assert answer.status == status
            assert not code or answer.json["error"]["code"] == code
        assert client("POST", "/v1/indexing", {}).status == 202
        end = time.monotonic() + 20
        while (progress := client("GET", "/v1/indexing").json)["state"] == "running" and time.monotonic() < end:
            time.sleep(0.02)
        assert (progress["state"], progress["added"], progress["updated"]) == ("done", 0, 0)
        assert "secret.png" not in str(client("GET", "/v1/items").json)


REMOTE = ["http://{0}/a.png", "HTTPS://{0}/a.png", "ftp://{0}/a.png", "file:///etc/passwd", "gopher://{0}/_GET"]
REMOTE += ["dict://{0}/x", "jar:http://{0}!/a", "http://example.com@{0}/", "http:/\\{0}/", "h+t-t.p://{0}/"]
NO_PICTURE = [
    "//{0}/a.png",
    " http://{0}/a.png",
    "\\\\{0}\\a.png",
    "url(http://{0}/)",
    "data:text/uri-list,http://{0}/",
]
NO_PICTURE += [
    "data:image/png;base64,http://{0}/a.png",
    "data:;base64,{svg}",
    "data:image/svg+xml;base64,{svg}",
    "{svg}",
]
NO_PICTURE += ["/etc/passwd", "../album/0.png"]


@pytest.mark.parametrize(
    ("text", "code"), [(t, "remote_url") for t in REMOTE] + [(t, "bad_picture") for t in NO_PICTURE]
)
def test_nothing_is_fetched_from_anywhere(client: Watched, text: str, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = f"127.0.0.1:{listener.getsockname()[1]}"
        svg = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="http://{here}/"/></svg>'
        url = text.format(here, svg=base64.b64encode(svg.encode()).decode())
        for path, body in [
            ("/v1/embeddings", {"input": {"image": url}}),
            ("/v1/embeddings", {"input": [{"type": "image_url", "image_url": {"url": url}}]}),
            ("/v1/search", {"image": url}),
            ("/v1/search", {"query": [{"image": url, "region": [0, 0, 1, 1]}]}),
            ("/v1/recognize", {"images": [url, {"image": url}], "labels": ["a", "b"]}),
            ("/v1/items", {"items": [{"image": url}]}),
        ]:
            assert_error(client("POST", path, body), 400, code)
        assert_error(client("PUT", f"/v1/items/{ID}", {"image": url}), 400, code)
        assert client("POST", "/v1/embeddings", {"input": url}).status in (200, 400)  # as a text
        assert select.select([listener], [], [], 0)[0] == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ("Host: evil.example", 421, "unknown_host"),
        ("Host: 127.0.0.1.evil.example", 421, "unknown_host"),
        ("Host: 127.0.0.1@evil.example", 421, "unknown_host"),
        ("Host: localhost.", 421, "unknown_host"),
        ("Host: 127.1", 421, "unknown_host"),
        ("Host: [", 421, "unknown_host"),
        ("Host: [::1", 421, "unknown_host"),
        ("Host: \xbd\u00e9", 421, "unknown_host"),
        ("Host: ", 421, "unknown_host"),
        ("Host: localhost:99999999", 200, ""),
        ("Host: [::1]:80", 200, ""),
        ("Host: 127.0.0.1\r\nOrigin: http://evil.example", 403, "foreign_origin"),
        ("Host: 127.0.0.1\r\nOrigin: null", 403, "foreign_origin"),
        ("Host: 127.0.0.1\r\nOrigin: http://[", 403, "foreign_origin"),
        ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1.evil.example", 403, "foreign_origin"),
        ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1:1", 403, "foreign_origin"),
        ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1", 200, ""),
        ("Host: 127.0.0.1\r\nX-Forwarded-Host: evil.example\r\nX-Request-Id: <script>", 200, ""),
    ],
)
def test_only_its_own_hosts_and_pages_may_call(client: Watched, headers: str, status: int, code: str) -> None:
    head = f"POST /v1/search HTTP/1.1\r\n{headers}\r\nConnection: close\r\nContent-Length: 13\r\n\r\n"
    answer = client.raw(head.encode("latin-1") + b'{"text": "a"}')
    assert answer.status == status
    assert not code or answer.json["error"]["code"] == code
    assert "<" not in answer.headers["x-request-id"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, KeyFile, str]]:
    folder = tmp_path_factory.mktemp("locked")
    file = KeyFile(folder / "keys.json")
    key = file.add("reader", Scope.READ)
    with watched(folder, LIMITS, keys=folder / "keys.json") as client:
        yield client, file, key


def test_each_wrong_key_is_refused(keys: tuple[Watched, KeyFile, str]) -> None:
    client, _, key = keys
    wrong = [
        key.lower(),
        key.upper(),
        key[:-1],
        f"{key}x",
        key[3:],
        "nb-",
        "*",
        "\xe9" * 9,
        "x" * 20_000,
        f"{key},{key}",
    ]
    for given in wrong:
        assert_error(client("GET", "/v1/items", authorization=f"Bearer {given}"), 401, "wrong_key")
    assert_error(client("GET", "/v1/items", cookie="nunbit_key=nb-wrong"), 401, "wrong_key")
    for given in ("", "Bearer", "Bearer ", "Bearer\t", key, f"Basic {key}", f"Token {key}", f"Bearer{key}"):
        assert_error(client("GET", "/v1/items", authorization=given), 401, "no_key")
    for name in ("key", "api_key", "access_token", "token", "authorization"):
        assert_error(client("GET", f"/v1/items?{name}={key}"), 401, "no_key")
    assert_error(client("GET", "/v1/items", x_api_key=key), 401, "no_key")
    assert_error(client("GET", "/v1/items", cookie=f"key={key}; other={key}"), 401, "no_key")
    for right in ({"authorization": f"bearer {key}"}, {"cookie": f"nunbit_key={key}"}):
        assert client("GET", "/v1/items", **right).status == 200


def test_each_route_needs_a_key_of_its_scope(keys: tuple[Watched, KeyFile, str]) -> None:
    client, file, key = keys
    public = {"/healthz", "/readyz", "/v1/session"}
    writing = set()
    for path, operations in client("GET", "/openapi.json").json["paths"].items():
        for method in operations:
            if path in public:
                continue
            full = path.replace("{id}", ID).replace("{name}", "a").replace("{model}", "a")
            body = None if method in ("get", "delete") else {}
            assert_error(client(method.upper(), full, body), 401, "no_key")
            answer = client(method.upper(), full, body, authorization=f"Bearer {key}")
            assert answer.status != 401
            if answer.status == 403:
                assert answer.json["error"]["code"] == "not_allowed"
                writing.add(f"{method} {path}")
    assert writing == {
        "post /v1/items",
        "put /v1/items/{id}",
        "patch /v1/items/{id}",
        "delete /v1/items/{id}",
        "post /v1/labels",
        "put /v1/labels/{name}",
        "delete /v1/labels/{name}",
        "post /v1/indexing",
        "delete /v1/indexing",
    }
    writes = {"authorization": f"Bearer {file.add('writer', Scope.WRITE)}"}
    assert_error(client("POST", "/v1/indexing", {}, **writes), 403, "not_allowed")
    assert_error(client("DELETE", f"/v1/items/{ID}", **writes), 404, "no_such_item")
    file.revoke("writer")
    assert_error(client("DELETE", f"/v1/items/{ID}", **writes), 401, "wrong_key")


def test_a_key_is_never_shown(keys: tuple[Watched, KeyFile, str]) -> None:
    client, _, key = keys
    given = {"authorization": f"Bearer {key}"}
    for path in ("/v1/session", "/v1/models", "/metrics", "/openapi.json", "/", "/v1/indexing"):
        answer = client("GET", path, **given)
        assert key not in f"{answer.headers}{answer.content.decode()}"
    cookie = client("POST", "/v1/session", {}, **given).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie

"""The API over a real socket, spoken to as clients do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from index_fakes import FakeTowers, make_encoder, picture
from nunbit.head import AnswerSets, Head, Unknown, save_head
from nunbit.index import Index
from nunbit.serve.keys import KeyFile, Scope
from nunbit.serve.settings import Limits, Settings
from serving import Client, data_url, multipart, png, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for number in range(5):
        picture(folder / "album" / f"{number}.png", number, (400 + number, 300))
    with Index.open(folder / "x.nunbit", make_encoder()) as index:
        index.add([folder / "album"])
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with serving(Settings(folder / "x.nunbit", root=folder / "album", port=0)) as client:
        yield client


def test_the_openai_client_works_unchanged(client: Client) -> None:
    openai = OpenAI(base_url=f"{client.address}/v1", api_key="none", max_retries=0)
    model = openai.models.list().data[0].id
    rows = openai.embeddings.create(model=model, input=["a dog", "개", data_url(png(1))]).data
    plain = openai.embeddings.create(model=model, input="a dog", encoding_format="float").data[0].embedding
    assert len(rows) == 3
    assert rows[0].embedding == pytest.approx(plain, abs=1e-6)
    assert np.linalg.norm(rows[2].embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [160, 320, 640, 1280])
def test_thumbnails_of_every_size(client: Client, size: int) -> None:
    item = client("GET", "/v1/items?limit=1").json["data"][0]
    path = f"/v1/items/{item['id']}/thumbnail?size={size}"
    answer = client("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert max(Image.open(io.BytesIO(answer.content)).size) == min(size, item["width"])
    assert client("GET", path, if_none_match=answer.headers["etag"]).status == 304


def test_items_are_added_found_changed_and_deleted(client: Client, folder: Path) -> None:
    before = client("GET", "/v1/items").json["total"]
    images = [{"image": data_url(png(7)), "name": "mug.png", "attributes": {"sku": "A-17"}}, {"image": "bm8="}]
    added = client("POST", "/v1/items", {"items": images})
    assert added.status == 201
    assert [row["reason"] for row in added.json["rejected"]] == ["not an image"]
    item = added.json["data"][0]
    found = client("POST", "/v1/search", {"image": data_url(png(7)), "filter": {"attributes.sku": "A-17"}}).json
    assert [match["id"] for match in found["data"]] == [item["id"]]
    assert found["data"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert client("PATCH", f"/v1/items/{item['id']}", {"name": "cup"}).json["name"] == "cup"
    assert client("DELETE", f"/v1/items/{item['id']}").json["deleted"] is True
    assert client("GET", f"/v1/items/{item['id']}").status == 404
    assert client("GET", "/v1/items").json["total"] == before
    assert str(folder) not in added.content.decode() + json.dumps(found)


def test_what_is_similar_sorted_and_mapped(client: Client) -> None:
    items = client("GET", "/v1/items").json
    assert client("GET", "/healthz").json["status"] == "ok"
    best = client("POST", "/v1/search", {"item": items["data"][0]["id"], "limit": 1}).json
    assert best["data"][0]["id"] == items["data"][0]["id"]
    bins = client("POST", "/v1/recognize/items", {"labels": ["cat", "a dog"]}).json
    assert sum(one["count"] for one in bins["data"]) == bins["total"] == items["total"]
    assert len(client("GET", "/v1/map").json["ids"]) == items["total"]
    assert client("POST", "/v1/labels", {"name": "동물", "labels": ["cat", "말"]}).status == 201
    named = client("POST", "/v1/recognize", {"images": [data_url(png(3))], "label_set": "동물"}).json
    assert sum(p["probability"] for p in named["data"][0]["predictions"]) == pytest.approx(1, abs=1e-4)
    assert b"nunbit_requests_total" in client("GET", "/metrics").content


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/search", {"txt": "a dog"}, 400, "bad_request"),
        ("POST", "/v1/search", b"{", 400, "bad_request"),
        ("POST", "/v1/search", {"text": "a", "filter": {"path": "/etc"}}, 400, "bad_filter"),
        ("POST", "/v1/embeddings", {"input": {"image": "http://169.254.169.254/"}}, 400, "remote_url"),
        ("POST", "/v1/embeddings", {"input": "a", "model": "other"}, 404, "no_such_model"),
        ("POST", "/v1/embeddings", {"input": "   "}, 400, "bad_request"),
        ("POST", "/v1/indexing", {"paths": ["../"]}, 403, "outside_root"),
        ("GET", "/v1/items/" + "0" * 32, None, 404, "no_such_item"),
        ("GET", "/page/../../etc/passwd", None, 404, "no_such_path"),
        ("PUT", "/v1/search", {}, 405, "bad_method"),
    ],
)
def test_errors_have_openais_shape(client: Client, method: str, path: str, body: Any, status: int, code: str) -> None:
    answer = client(method, path, body)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert set(answer.json["error"]) == {"message", "type", "param", "code", "hint"}
    assert answer.headers["x-request-id"]


def test_a_page_of_another_site_changes_nothing(client: Client) -> None:
    assert client("POST", "/v1/search", {"text": "a"}, origin="http://evil.example").status == 403
    assert client("POST", "/v1/search", {"text": "a"}, origin=client.address).status == 200
    assert client("GET", "/v1/items", host="evil.example").status == 421


def test_keys_scopes_and_limits(folder: Path) -> None:
    keys = KeyFile(folder / "keys.json")
    reads, writes = keys.add("reader", Scope.READ), keys.add("writer", Scope.WRITE)
    limits = Limits(body_bytes=10_000, rate=0.001, burst=4)
    with serving(Settings(folder / "x.nunbit", port=0, keys=folder / "keys.json", limits=limits)) as client:
        assert client("GET", "/v1/items").status == 401
        assert client("GET", "/v1/items", authorization="Bearer wrong").status == 401
        assert client("GET", "/v1/items", authorization=f"Bearer {reads}").status == 200
        assert client("DELETE", "/v1/items/" + "0" * 32, authorization=f"Bearer {reads}").status == 403
        assert client("DELETE", "/v1/items/" + "0" * 32, authorization=f"Bearer {writes}").status == 404
        large = client("POST", "/v1/search", b"x" * 10_001, authorization=f"Bearer {writes}")
        assert (large.status, large.json["error"]["code"]) == (413, "too_large")
        statuses = [client("GET", "/v1/items", authorization=f"Bearer {reads}").status for _ in range(3)]
        assert statuses == [200, 200, 429]
        keys.revoke("writer")
        assert client("GET", "/v1/items", authorization=f"Bearer {writes}").status == 401


def test_a_picture_that_is_sent_again_keeps_what_people_gave_it(client: Client) -> None:
    content = png(21)
    first = {"image": data_url(content), "name": "mug.png", "attributes": {"sku": "A-17"}}
    (item,) = client("POST", "/v1/items", {"items": [first]}).json["data"]
    body, kind = multipart(content)
    (again,) = client("POST", "/v1/items", body, content_type=kind).json["data"]
    assert (again["id"], again["name"], again["attributes"]) == (item["id"], "mug.png", {"sku": "A-17"})
    body, kind = multipart(png(22))
    put = client("PUT", f"/v1/items/{item['id']}", body, content_type=kind).json
    assert (put["name"], put["attributes"]) == ("mug.png", {"sku": "A-17"})
    new = {"image": data_url(png(23)), "name": "cup.png", "attributes": {"color": "red"}}
    put = client("PUT", f"/v1/items/{item['id']}", new).json
    assert (put["name"], put["attributes"]) == ("cup.png", {"sku": "A-17", "color": "red"})
    assert client("DELETE", f"/v1/items/{item['id']}").status == 200


def test_the_picture_of_an_indexed_file_is_not_replaced(client: Client) -> None:
    item = next(one for one in client("GET", "/v1/items").json["data"] if not one["uploaded"])
    answer = client("PUT", f"/v1/items/{item['id']}", {"image": data_url(png(24))})
    assert (answer.status, answer.json["error"]["code"]) == (409, "not_uploaded")


def test_a_file_where_none_is_taken_is_refused(client: Client) -> None:
    item = client("GET", "/v1/items?limit=1").json["data"][0]
    body, kind = multipart(png(25))
    answer = client("PATCH", f"/v1/items/{item['id']}", body, content_type=kind)
    assert (answer.status, answer.json["error"]["param"]) == (400, "file")


def test_too_many_texts_of_labels_are_refused(client: Client) -> None:
    labels = [f"label {number}" for number in range(200)]
    answer = client("POST", "/v1/recognize/items", {"labels": labels, "templates": "openai80"})
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_many")


def test_a_key_may_be_made_before_the_index(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "x.nunbit" / "keys.json").add("owner", Scope.ADMIN)
    with serving(Settings(tmp_path / "x.nunbit", port=0)) as client:
        assert client("GET", "/v1/items").status == 401
        assert client("GET", "/v1/items", authorization=f"Bearer {key}").status == 200


def test_a_page_of_an_allowed_origin_can_read_refusals(folder: Path) -> None:
    shop = "https://shop.example"
    settings = Settings(folder / "x.nunbit", port=0, origins=(shop,), limits=Limits(body_bytes=10))
    with serving(settings) as client:
        headers = {"access_control_request_method": "POST", "access_control_request_headers": "x-stainless-os"}
        assert client("OPTIONS", "/v1/search", origin=shop, **headers).status == 200
        refused = client("POST", "/v1/search", {"text": "a dog"}, origin=shop)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (413, shop)
        assert "Retry-After" in refused.headers["access-control-expose-headers"]


def test_health_costs_one_check_a_second(folder: Path) -> None:
    towers = FakeTowers()
    with serving(Settings(folder / "x.nunbit", port=0), towers) as client:
        before = towers.encoded
        assert [client("GET", "/healthz").status for _ in range(20)] == [200] * 20
        assert towers.encoded - before <= 3  # 20 calls take well below 3 seconds
        assert client("GET", "/readyz").status == 200


def test_a_head_is_offered_like_a_label_set(folder: Path, tmp_path: Path) -> None:
    encoder = make_encoder()
    index = tmp_path / "x.nunbit"
    with Index.open(index, encoder) as made:
        made.add([folder / "album"])
    weights = 20 * encoder.encode_text(["one", "another one", "a third one"])
    head = Head(
        ("컵", "plate", "spoon"),
        weights,
        np.zeros(3, np.float32),
        unknown=Unknown("energy", 8.0, 0.05, weights[:0], weights[:0]),
        answers=AnswerSets(0.2, 0.9),
    )
    save_head(head, tmp_path / "products.head", encoder, {})
    with serving(Settings(index, port=0, label_sets={"products": tmp_path / "products.head"})) as client:
        (kept,) = client("GET", "/v1/labels").json["data"]
        assert (kept["name"], kept["count"], kept["labels"]) == ("products", 3, None)
        item = client("GET", "/v1/items").json["data"][0]["id"]
        said = client("POST", "/v1/recognize", {"items": [item], "label_set": "products"}).json["data"][0]
        (row,) = client("POST", "/v1/recognize", {"items": [item], "labels": ["x"]}).json["data"]
        assert row["unknown"] is None and row["answers"] is None  # words alone cannot tell
        bins = client("POST", "/v1/recognize/items", {"label_set": "products"}).json
        assert client("DELETE", "/v1/labels/products").status == 403
        assert client("PUT", "/v1/labels/products", {"labels": ["a"]}).status == 409
    with Index.open(index, encoder) as made, made.snapshot() as parts:
        vectors = {one.id: row for items, rows in parts for one, row in zip(items, rows, strict=True)}
    expected = head.recognize(vectors[item])
    assert said["predictions"][0]["label"] == expected.predictions[0].label
    assert said["predictions"][0]["probability"] == pytest.approx(expected.predictions[0].probability, abs=1e-5)
    assert (said["unknown"], tuple(said["answers"])) == (expected.unknown, expected.answers)
    judged = head.judge(np.stack(list(vectors.values())))
    assert judged.unknown is not None and 0 < judged.unknown.sum() < len(vectors)
    counts = {one["label"]: one["count"] for one in bins["data"]}
    assert counts[None] == judged.unknown.sum()
    for number, name in enumerate(head.classnames):
        assert counts[name] == (~judged.unknown & (judged.best == number)).sum()

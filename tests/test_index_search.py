"""Search, filters and reading: exact, in a fixed order, and clear about what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from index_fakes import SIZE, make_encoder, names, picture, unit
from nunbit.errors import (
    ImageError,
    UsageError,
)
from nunbit.index import Index, Item
from nunbit.index.rows import Row, picture_id
from nunbit.index.store import Store


def fill(folder: Path, vectors: np.ndarray, widths: Sequence[int]) -> Index:
    index = Index.open(folder, make_encoder())
    store = Store(folder, SIZE)
    rows = [
        Row(
            f"{n:032x}",
            f"/{n}.jpg",
            1,
            2,
            widths[n],
            3,
            "JPEG",
            "2024-05-01T12:30:00" if n % 2 else None,
            "",
            "",
            "",
            vector,
        )
        for n, vector in enumerate(vectors)
    ]
    np.random.default_rng(0).shuffle(rows)  # the order in the table is not that of ids
    for start in range(0, len(rows), 7):
        store.upsert(rows[start : start + 7])
    return index


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    distinct=st.integers(1, 40),
    top_k=st.integers(1, 50),
    bound=st.none() | st.integers(-1, 10),
)
def test_search_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, distinct: int, top_k: int, bound: int | None
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(distinct, SIZE)))[rng.integers(0, distinct, rows)]  # with equals among them
    widths = rng.integers(0, 10, rows).tolist()
    query = rng.normal(size=SIZE).astype(np.float32) * 3
    with fill(tmp_path_factory.mktemp("index"), vectors, widths) as index:
        found = index.search_vector(query, top_k, None if bound is None else f"width < {bound}")
    similarities = vectors.astype(np.float64) @ query / np.linalg.norm(query)
    allowed = [n for n in range(rows) if bound is None or widths[n] < bound]
    best = sorted(allowed, key=lambda n: (-round(similarities[n], 5), n))[:top_k]
    assert [match.rank for match in found] == list(range(1, len(best) + 1))
    np.testing.assert_allclose([match.similarity for match in found], similarities[best], atol=2e-6)
    if len(np.unique(np.round(similarities, 5))) == len(np.unique(similarities)):  # rounding merged no neighbors
        assert [int(match.id, 16) for match in found] == best


def test_equals_are_ordered_by_id_even_where_they_are_cut_off(tmp_path: Path) -> None:
    same = unit(np.ones((30, SIZE)))
    with fill(tmp_path / "x", same[::-1], range(30)) as index:
        for top_k in (1, 4, 29, 30, 100):
            found = [int(match.id, 16) for match in index.search_vector(same[0], top_k)]
            assert found == list(range(min(top_k, 30)))
        assert [match.similarity for match in index.search_vector(-same[0], 2)] == pytest.approx([-1, -1])
        assert all(-1 <= match.similarity <= 1 for match in index.search_vector(same[0] * 7, 30))


def test_search_by_text_and_by_picture(index: Index, album: Path) -> None:
    index.add([album])
    assert [match.rank for match in index.search("a dog", top_k=3)] == [1, 2, 3]
    best = index.search(image=album / "b.png", top_k=1)[0]
    assert (best.path, best.id) == (str(album / "b.png"), picture_id(str(album / "b.png")))
    assert best.similarity == pytest.approx(1, abs=1e-5)
    assert best.metadata["width"] == 12
    with pytest.raises(ImageError):
        index.search(image=b"no picture")


def test_metadata_and_filters(index: Index, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[306] = "2024:05:01 12:30:00"
    taken = picture(tmp_path / "p/사진\n1.jpg", 1, (40, 30), exif=exif)
    picture(tmp_path / "p/old.png", 2)
    index.add([tmp_path / "p"])
    item = next(iter(index.items("width >= 40 AND format = 'JPEG' AND taken >= date '2024-05-01'")))
    assert isinstance(item, Item)
    assert (item.path, item.id) == (str(taken), picture_id(str(taken)))
    assert dict(item.metadata) == {
        "size": taken.stat().st_size,
        "mtime_ns": taken.stat().st_mtime_ns,
        "width": 40,
        "height": 30,
        "format": "JPEG",
        "taken": "2024-05-01T12:30:00",
        "content_hash": item.metadata["content_hash"],
    }
    assert len(item.metadata["content_hash"]) == 32
    assert [Path(match.path).name for match in index.search("x", where="taken IS NULL")] == ["old.png"]
    assert index.search("x", where="path LIKE '%사진%' AND height > 30") == []


@pytest.mark.parametrize(
    "where",
    ["nope > 3", "width >", "width", "", "width = 'x'", "width > 1; and more", "width / 0 > 1", "width > 1 -- more"],
)
def test_a_bad_filter_is_named(index: Index, album: Path, where: str) -> None:
    index.add([album])
    for call in (lambda: index.search("x", where=where), lambda: list(index.items(where))):
        with pytest.raises(UsageError, match="the columns are id, path, size, mtime_ns, width") as caught:
            call()
        assert "width >= 640" in caught.value.hint
        assert ".rs:" not in caught.value.message
        assert "\n" not in caught.value.message


def test_bad_calls(index: Index, album: Path) -> None:
    assert (index.search("x"), list(index.items()), len(index), index.remove(["0" * 32])) == ([], [], 0, 0)
    index.add([album])
    bad: list[Callable[[], object]] = [
        lambda: index.search("x", top_k=0),
        lambda: index.search(),
        lambda: index.search("x", image=album / "a.png"),
        lambda: index.search("  "),
        lambda: index.search_vector(np.ones(SIZE + 1, np.float32)),
        lambda: index.search_vector(np.zeros(SIZE, np.float32)),
        lambda: index.search_vector(np.full(SIZE, np.nan, np.float32)),
        lambda: index.add(str(album)),
        lambda: index.remove("0" * 32),
        lambda: index.get_embeddings(["' OR 1=1 --"]),
    ]
    for call in bad:
        with pytest.raises(UsageError):
            call()
    assert len(index) == 5


def test_embeddings_and_remove(index: Index, album: Path) -> None:
    index.add([album])
    paths = [album / "sub/d.jpg", album / "a.png", album / "sub/d.jpg"]
    ids = [picture_id(str(path)) for path in paths]
    np.testing.assert_allclose(index.get_embeddings(ids), make_encoder().encode_image(paths), atol=1e-6)
    assert index.get_embeddings([]).shape == (0, SIZE)
    assert index.remove([ids[0], "0" * 32]) == 1
    assert names(index) == ["a.png", "b.png", "c.png", "e.png"]

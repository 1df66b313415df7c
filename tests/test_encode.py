"""Batch size, order and threads change no embedding; bad pictures are named, never lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nunbit.encode import Encoded, Encoder, encode_stream
from nunbit.errors import ImageError, UsageError
from nunbit.types import Rejected

NAMES = ("chelsea.png", "coffee.png", "rocket.jpg", "page.png", "astronaut.png", "coins.png")


@pytest.fixture(scope="module")
def rows(starter: Encoder, photos: Path) -> np.ndarray:
    """Each picture alone, one at a time, on one thread: the plain way."""
    return np.concatenate([starter.encode_image([photos / n], batch_size=1, threads=1) for n in NAMES])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(NAMES))), batch_size=st.integers(1, 7), threads=st.integers(1, 4))
def test_batching_changes_nothing(
    starter: Encoder, photos: Path, rows: np.ndarray, order: list[int], batch_size: int, threads: int
) -> None:
    again = starter.encode_image([photos / NAMES[i] for i in order], batch_size=batch_size, threads=threads)
    np.testing.assert_allclose(again, rows[order], atol=1e-5)


def test_rows_are_unit_float32(starter: Encoder, rows: np.ndarray) -> None:
    texts = starter.encode_text(["a cat", "고양이"])
    for matrix in (rows, texts):
        assert matrix.dtype == np.float32
        assert matrix.shape[1] == starter.embedding_size
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_text_order_and_company_change_nothing(starter: Encoder) -> None:
    texts = ["a cat", "고양이가 창가에 앉아 있다", "x", "two dogs on a beach at sunset " * 20]
    together = starter.encode_text(texts)
    alone = np.concatenate([starter.encode_text([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_path_bytes_pixels_and_picture_agree(starter: Encoder, photos: Path) -> None:
    from PIL import Image

    path = photos / "coffee.png"
    with Image.open(path) as image:
        kinds = [path, path.read_bytes(), image.convert("RGB"), np.asarray(image.convert("RGB"))]
        got = starter.encode_image(kinds)
    np.testing.assert_allclose(got, np.repeat(got[:1], 4, axis=0), atol=1e-5)


def test_a_bad_picture_is_set_aside_in_its_place(starter: Encoder, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a picture")
    items = list(encode_stream(starter, [photos / "coffee.png", bad, photos / "rocket.jpg"], batch_size=2))
    assert [type(item) for item in items] == [Encoded, Rejected, Encoded]
    assert items[1] == Rejected(str(bad), "not an image", items[1].detail)
    with pytest.raises(ImageError, match="bad.jpg"):
        starter.encode_image([photos / "coffee.png", bad])


def test_the_stream_reads_only_a_little_ahead(starter: Encoder, photos: Path) -> None:
    taken = 0

    def endless():  # noqa: ANN202
        nonlocal taken
        while True:
            taken += 1
            yield photos / "coins.png"

    stream = encode_stream(starter, endless(), batch_size=2, threads=2)
    next(stream)
    stream.close()
    assert taken <= 2 * 2 + 2 + 2


def test_nothing_gives_nothing(starter: Encoder) -> None:
    assert starter.encode_image([]).shape == (0, starter.embedding_size)
    assert starter.encode_text([]).shape == (0, starter.embedding_size)


@pytest.mark.parametrize("texts", ["a cat", ["a cat", "  "]])
def test_texts_that_cannot_be_meant(starter: Encoder, texts: list[str]) -> None:
    with pytest.raises(UsageError):
        starter.encode_text(texts)

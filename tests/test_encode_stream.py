"""Forward passes side by side: order kept, memory bounded, and nobody hangs or swallows what went wrong."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nunbit.encode as encode_module
from index_fakes import SIZE, FakeTowers
from nunbit.encode import Encoded, Encoder, EncoderInfo, EngineInfo, encode_stream
from nunbit.errors import ImageError, UsageError
from nunbit.images import open_image
from nunbit.preprocessing import Preprocessing
from nunbit.types import Rejected

PICTURES = [np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8) for seed in range(40)]


class SlowTowers(FakeTowers):
    """Each batch takes another time; knows how many were encoded at once, and in which threads."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()
        self.most = self._now = 0
        self._rng = np.random.default_rng(0)
        self._lock = threading.Lock()
        self.sizes: list[int] = []

    def encode_pixels(self, pixel_values: Any) -> Any:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.current_thread().name)
            self.sizes.append(len(pixel_values))
            pause = self._rng.uniform(0, 0.02)
        try:
            time.sleep(pause)
            return super().encode_pixels(pixel_values)
        finally:
            with self._lock:
                self._now -= 1


def make(towers: FakeTowers, concurrency: int, batch_size: int = 2) -> Encoder:
    preprocessing = Preprocessing(6, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash", "bilinear")
    return Encoder(towers, EncoderInfo("slow", SIZE, preprocessing, EngineInfo("slow", batch_size, concurrency)))


def test_order_is_kept_and_rows_are_equal() -> None:
    towers = SlowTowers()
    alone = make(FakeTowers(), 1).encode_image(PICTURES)
    np.testing.assert_allclose(make(towers, 3).encode_image(PICTURES), alone, atol=1e-6)
    assert 1 < towers.most <= 3
    bad = [*PICTURES[:5], b"no picture", *PICTURES[5:]]
    items = list(encode_stream(make(SlowTowers(), 3), bad))
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["not an image"]
    for item, source in zip(items, bad, strict=True):
        assert isinstance(item, Rejected) or item.source is source


def test_one_at_a_time_stays_in_the_thread_that_reads() -> None:
    towers = SlowTowers()
    make(towers, 1).encode_image(PICTURES)
    assert towers.threads == {threading.current_thread().name}


def test_the_batch_size_is_the_engines_unless_given() -> None:
    towers = SlowTowers()
    make(towers, 1, batch_size=16).encode_image(PICTURES)
    make(towers, 1, batch_size=16).encode_image(PICTURES[:6], batch_size=3)
    assert towers.sizes == [16, 16, 8, 3, 3]
    with pytest.raises(UsageError):
        list(encode_stream(make(towers, 1), PICTURES, batch_size=0))


@pytest.mark.parametrize(("concurrency", "batch_size", "threads"), [(1, 2, 2), (3, 2, 2), (3, 4, 1), (2, 1, 5)])
def test_little_is_read_ahead_of_a_reader_who_holds(concurrency: int, batch_size: int, threads: int) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        for picture in itertools.cycle(PICTURES):
            taken += 1
            yield picture

    towers = SlowTowers()
    stream = encode_stream(make(towers, concurrency, batch_size), endless(), threads=threads)
    for read in range(1, 30):
        assert isinstance(next(stream), Encoded)
        if read in (1, 29):
            time.sleep(0.1)
        assert taken - read <= (concurrency + 1) * batch_size + 2 * batch_size + threads
    stream.close()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_closing_early_stops_all_threads(concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    opened = 0

    def open_slowly(source: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        time.sleep(0.03)
        return open_image(source, **options)

    monkeypatch.setattr(encode_module, "open_image", open_slowly)
    stream = encode_stream(make(SlowTowers(), concurrency, batch_size=8), itertools.cycle(PICTURES), threads=1)
    next(stream)
    then = opened
    stream.close()
    assert opened <= then + 2
    assert threading.active_count() == before


def test_closing_early_encodes_nothing_more() -> None:
    towers = SlowTowers()
    towers.before_batch = lambda: time.sleep(0.2)
    stream = encode_stream(make(towers, 2), itertools.cycle(PICTURES))
    next(stream)
    stream.close()
    assert len(towers.sizes) <= 1 + 2 + 1, "more than what was under way"


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError("the engine broke"), KeyboardInterrupt()], ids=type)
def test_what_goes_wrong_comes_out_behind_the_rows_before_it(concurrency: int, error: BaseException) -> None:
    class BrokenTowers(FakeTowers):
        def encode_pixels(self, pixel_values: Any) -> Any:
            if np.array_equal(pixel_values[0], broken):
                raise error
            return super().encode_pixels(pixel_values)

    encoder = make(BrokenTowers(), concurrency)
    broken = encoder.preprocessing(Image.fromarray(PICTURES[6]))
    before = threading.active_count()
    stream = encode_stream(encoder, itertools.cycle(PICTURES))
    assert len(list(itertools.islice(stream, 6))) == 6
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error
    assert threading.active_count() == before


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_source_that_fails_and_a_reader_that_gives_up(concurrency: int) -> None:
    def failing() -> Iterator[Any]:
        yield from PICTURES[:3]
        raise ValueError("no more")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no more"):
        list(encode_stream(make(SlowTowers(), concurrency), failing()))
    assert threading.active_count() == before
    with pytest.raises(ImageError):
        make(SlowTowers(), concurrency).encode_image([*PICTURES, b"no picture", *PICTURES])

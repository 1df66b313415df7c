"""Near duplicates: hashes survive what happens to pictures, searches find what comparing all pairs finds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from curate_fakes import scene
from nunbit.curate.facts import measure, one_color, sharpness
from nunbit.curate.hamming import HashTable
from nunbit.curate.near import Groups, Looks, find_twins, search_embeddings, search_looks
from nunbit.curate.perceptual import color_layout, layout_similarity, perceptual_hash


def hashes(seed: int, count: int, flips: int) -> np.ndarray:
    """Random hashes, half of which are others with a few bits changed."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    changed = first.copy()
    for _ in range(flips):
        changed ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    return np.concatenate([first, changed])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


@given(st.integers(0, 1000), st.integers(0, 16), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_the_table_finds_every_hash_within_the_radius_and_no_other(seed: int, radius: int, flips: int) -> None:
    every = hashes(seed, 40, flips)
    queries = hashes(seed + 1, 5, 3)
    queries[:5] = every[:5]
    found = set()
    for left, right, distances in HashTable(every).search(queries, radius):
        for a, b, distance in zip(left.tolist(), right.tolist(), distances.tolist(), strict=True):
            assert distance == int(queries[a] ^ every[b]).bit_count()
            found.add((a, b))
    apart = np.bitwise_count(queries[:, None] ^ every[None])
    assert found == {(int(a), int(b)) for a, b in zip(*np.nonzero(apart <= radius), strict=True)}


def test_a_hundred_thousand_times_the_same_hash_is_searched_in_parts() -> None:
    same = np.zeros(20_000, np.uint64)
    largest = max(len(found) for found, _, _ in HashTable(same).search(same[:200], 0))
    assert largest <= 1 << 20


def test_a_hash_survives_what_happens_to_pictures() -> None:
    for seed in range(12):
        image = scene(seed, (320, 240))
        twins = [
            image.resize((100, 75)),
            jpeg(image, 25),
            ImageEnhance.Brightness(image).enhance(0.8),
            image.convert("L"),
        ]
        twins.append(image.crop((3, 2, 317, 238)))
        original = perceptual_hash(image)
        assert all((original ^ perceptual_hash(twin)).bit_count() <= 10 for twin in twins)


def test_other_pictures_have_other_hashes() -> None:
    every = np.array([perceptual_hash(scene(seed)) for seed in range(60)], np.uint64)
    apart = np.bitwise_count(every[:, None] ^ every[None])
    assert apart[np.triu_indices(60, 1)].min() > 10


def test_a_hash_is_that_of_the_low_frequencies() -> None:
    """One wave across, two down: of the low frequencies only that coefficient and the mean are above the median."""
    down, across = np.mgrid[:32, :32]
    wave = 128 + 100 * np.cos(np.pi * (2 * across + 1) / 64) * np.cos(2 * np.pi * (2 * down + 1) / 64)
    bits = f"{perceptual_hash(Image.fromarray(np.rint(wave).astype(np.uint8))):064b}"
    assert bits[0] == "1" and bits[2 * 8 + 1] == "1"


def test_grids_of_colors_tell_pictures_apart_that_differ_in_color_alone() -> None:
    image = scene(1)
    other = Image.merge("RGB", image.split()[::-1])
    layouts = np.stack([np.frombuffer(color_layout(one), np.uint8) for one in (image, image, other, jpeg(image, 30))])
    same = layout_similarity(layouts[[0, 0, 0]], layouts[[1, 2, 3]])
    assert same[0] == pytest.approx(1, abs=1e-5) and same[2] > 0.98 and same[1] < 0.9
    flat = np.full((1, 192), 7, np.uint8)
    assert layout_similarity(flat, flat + 100)[0] == 1


def looks_of(images: list[Image.Image]) -> Looks:
    layouts = np.stack([np.frombuffer(color_layout(image), np.uint8) for image in images])
    return Looks(np.array([perceptual_hash(image) for image in images], np.uint64), layouts)


def test_what_stays_is_never_near_and_what_goes_has_one_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    every = hashes(3, 120, 4)
    every = np.concatenate([every, every[:40] ^ np.uint64(0xF0), every[:40]])
    looks = Looks(every, np.zeros((len(every), 192), np.uint8))
    order = rng.permutation(len(every)).tolist()
    expected = _greedy(every, order, 6)
    for block in (7, 64, 4096):
        monkeypatch.setattr("nunbit.curate.near._BLOCK", block)
        twins = find_twins(order, search_looks(looks, 6))
        assert set(twins) == expected
        for row, twin in twins.items():
            assert twin.row not in twins and int(every[row] ^ every[twin.row]).bit_count() == twin.nearness <= 6


def _greedy(every: np.ndarray, order: list[int], radius: int) -> set[int]:
    stay: list[int] = []
    for row in order:
        if all(int(every[row] ^ every[other]).bit_count() > radius for other in stay):
            stay.append(row)
    return set(order) - set(stay)


def test_a_near_hash_alone_is_no_twin() -> None:
    image = scene(1)
    pictures = [image, Image.merge("RGB", [image.convert("L")] * 3), jpeg(image, 40)]
    assert set(find_twins([0, 1, 2], search_looks(looks_of(pictures), 10))) == {2}


def test_embeddings_find_twins_that_look_alike_only() -> None:
    """The encoder takes the first five for one; the third has another hash, the fourth other colors."""
    grid = np.random.default_rng(0).integers(0, 256, 192, dtype=np.uint8)
    hashes = np.array([0, 2**18 - 1, 2**19 - 1, 0, 1, 0], np.uint64)
    looks = Looks(hashes, np.stack([grid, grid, grid, grid[::-1], grid, grid]))
    rows = np.tile(np.eye(8, dtype=np.float16)[0], (6, 1))
    rows[5] = np.eye(8)[1]
    assert set(find_twins(range(6), search_embeddings(rows, looks, 0.9))) == {1, 4}


def test_groups_reach_through_others_and_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nunbit.curate.near._BLOCK", 3)
    chain = np.array([(1 << (4 * step)) - 1 for step in range(12)], np.uint64)  # each 4 bits from the next
    far = np.array([0xAAAA_AAAA_AAAA_AAAA, 0x5555_5555_5555_5555], np.uint64)
    looks = Looks(np.concatenate([chain, far]), np.zeros((14, 192), np.uint8))
    groups = Groups(14)
    groups.join_near(range(14), search_looks(looks, 4))
    assert [groups.find(row) for row in range(14)] == [0] * 12 + [12, 13]


def test_facts_are_those_of_the_picture(tmp_path: Path) -> None:
    scene(5, (300, 200)).save(tmp_path / "a.png")
    scene(5, (300, 200)).save(tmp_path / "b.bmp")
    facts, other = measure(str(tmp_path / "a.png")), measure((tmp_path / "b.bmp").read_bytes())
    assert (facts.width, facts.height, facts.short_side, facts.aspect) == (300, 200, 200, 1.5)
    assert facts.pixels == other.pixels and facts.sha256 != other.sha256 and len(facts.layout) == 192


def test_the_same_pixels_in_another_shape_are_another_picture(tmp_path: Path) -> None:
    for name, size in (("wide.png", (20, 10)), ("tall.png", (10, 20))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    assert measure(str(tmp_path / "wide.png")).pixels != measure(str(tmp_path / "tall.png")).pixels


def test_sharpness_falls_with_blur_and_one_color_is_a_share() -> None:
    image = scene(2, (200, 200))
    assert sharpness(image) > 10 * sharpness(image.resize((25, 25)).resize((200, 200)))
    assert sharpness(Image.new("L", (2, 9))) == 0
    page = Image.new("RGB", (64, 64), "white")
    page.paste((0, 0, 0), (0, 0, 64, 16))
    assert one_color(page) == pytest.approx(0.75)

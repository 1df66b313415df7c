"""Curation: what stays does not depend on order, stays when curated again, and each that goes has its reason."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

import bad_pictures
from curate_fakes import FakeEmbedder, names, record, scene, scenes
from nunbit.curate import Curation, CurationConfig, Embedder, curate
from nunbit.curate.balance import balance, find_concepts, stable_order
from nunbit.curate.filters import FILTERS
from nunbit.curate.splits import choose_sides, group_records
from nunbit.errors import ConfigError
from nunbit.types import ImageText, Rejected


def went(curation: Curation) -> dict[str, set[str]]:
    """Filter → names of the pictures that went by it."""
    found: dict[str, set[str]] = {}
    for item in curation.dropped:
        if not item.text:
            found.setdefault(item.filter, set()).add(item.key.rpartition(":")[2])
    return found


@pytest.fixture
def mess(tmp_path: Path) -> list[ImageText]:
    """Two pictures that stay, and one for every filter of pictures."""
    one = scene(0, (320, 240))
    one.save(tmp_path / "exif.jpg", quality=95)
    copy = ImageText("made:복사본.jpg", str(tmp_path / "one.png"), ("한 장면",))
    return [
        record(tmp_path, "one.png", one, "the longest text of them"),
        copy,
        record(tmp_path, "one.bmp", one, "short one"),
        record(tmp_path, "half.jpg", one.resize((300, 225)), "half of it", quality=95),
        record(tmp_path, "two.png", scene(1), "another scene", "IMG_0001.jpg"),
        record(tmp_path, "icon.png", scene(2, (16, 16))),
        record(tmp_path, "strip.png", scene(3, (700, 70))),
        record(tmp_path, "white.png", Image.new("RGB", (90, 90), "white")),
        record(tmp_path, "blur.png", scene(4).filter(ImageFilter.GaussianBlur(9))),
        record(tmp_path, "huge.png", scene(5, (1200, 300))),
        record(tmp_path, "words.png", scene(6), "logo", "2024-05-01"),
        ImageText("made:gone.png", str(tmp_path / "gone.png"), ("it is gone",)),
        ImageText("made:broken.jpg", str(bad_pictures.truncated_jpeg(tmp_path).path), ("it is broken",)),
        ImageText("made:bytes", b"no picture at all", ("bytes of a text",)),
    ]


RULES = CurationConfig(min_sharpness=10, max_side=1000)


def test_each_filter_takes_out_what_it_is_for(mess: list[ImageText]) -> None:
    unreadable = Rejected("made:row 7", "no text", "nothing in texts")
    curation = curate([*mess, unreadable], RULES)
    assert went(curation) == {
        "unreadable": {"row 7"},
        "broken": {"gone.png", "broken.jpg", "bytes"},
        "min_side": {"icon.png"},
        "max_side": {"huge.png"},
        "max_aspect": {"strip.png"},
        "blank": {"white.png"},
        "blurred": {"blur.png"},
        "boilerplate": {"words.png"},
        "same_bytes": {"복사본.jpg"},
        "same_pixels": {"one.bmp"},
        "near_hash": {"half.jpg"},
    }
    assert [record.key for record in curation.kept] == ["made:one.png", "made:two.png"]
    assert curation.kept[1].texts == ("another scene",)
    assert {item.text for item in curation.dropped if item.text} == {"IMG_0001.jpg", "logo", "2024-05-01"}
    twins = {item.twin for item in curation.dropped if item.twin}
    assert twins == {"made:one.png"}
    assert sum(step.records for step in curation.steps) + len(curation.kept) == curation.seen == 15
    assert [step.filter for step in curation.steps] == [name for name in FILTERS if name in went(curation)]


def test_every_filter_can_be_turned_off(mess: list[ImageText]) -> None:
    off = CurationConfig(
        min_side=0, max_aspect=0, max_one_color=1, min_sharpness=0, min_characters=0, max_characters=0,
        boilerplate=False, exact_duplicates=False, near_distance=-1,
    )  # fmt: skip
    curation = curate(mess, off)
    assert set(went(curation)) == {"broken"}
    assert all(record.texts == given.texts for record, given in zip(curation.kept, mess[:11], strict=True))


def test_copies_give_their_texts_to_the_one_that_stays(mess: list[ImageText]) -> None:
    kept = curate(mess[:3], RULES).kept
    assert kept[0].texts == ("the longest text of them", "short one", "한 장면")
    assert curate(mess[:3], replace(RULES, merge_texts=False)).kept[0].texts == ("the longest text of them",)


def test_the_one_with_most_pixels_then_the_longest_text_then_the_first_key_stays(tmp_path: Path) -> None:
    image = scene(0)
    small = record(tmp_path, "a.png", image.resize((80, 60)), "by far the longest of all texts")
    first, second = record(tmp_path, "b.png", image, "a text"), record(tmp_path, "c.png", image, "a longer text")
    third = record(tmp_path, "d.png", image, "A longer text")
    assert names(curate([small, first, second, third], CurationConfig()).kept) == {"c.png"}


def test_what_stays_does_not_depend_on_the_order(mess: list[ImageText], tmp_path: Path) -> None:
    records = [*mess, *scenes(tmp_path, 30, start=10)]
    rules = replace(RULES, max_repeats=5, balance_cap=4, balance_min_count=3, split=(0.5, 0.5))
    first = curate(records, rules)
    sides = {first.kept[place].key: name for name, places in first.splits.items() for place in places}
    for seed in range(3):
        shuffled = random.Random(seed).sample(records, len(records))
        again = curate(shuffled, rules, threads=1 + seed)
        assert {(r.key, r.texts) for r in again.kept} == {(r.key, r.texts) for r in first.kept}
        assert {again.kept[p].key: name for name, places in again.splits.items() for p in places} == sides


def test_what_stayed_stays(mess: list[ImageText], tmp_path: Path) -> None:
    fake = FakeEmbedder().embedder()
    more = [record(tmp_path, f"s{n}.png", scene(n), f"like {n}", "a picture of scenes") for n in range(20, 45)]
    more += [record(tmp_path, f"w{n}.png", scene(n), f"like {n + 100}") for n in range(45, 60)]
    rules = replace(
        RULES,
        max_repeats=30,
        min_similarity=0.2,
        top_similarity=0.8,
        balance_cap=9,
        balance_min_count=5,
        split=(0.6, 0.4),
    )
    first = curate([*mess, *more], rules, embedder=fake)
    assert {"similarity", "top_similarity", "balance"} <= set(went(first)), went(first).keys()
    second = curate(first.kept, rules, embedder=fake)
    assert second.dropped == []
    assert second.kept == first.kept and second.splits == first.splits
    stricter = curate(first.kept, replace(rules, top_similarity=0.5), embedder=fake)
    assert len(stricter.kept) < len(first.kept)  # other rules, judged again


def test_texts_of_too_many_pictures_go_and_copies_count_once(tmp_path: Path) -> None:
    records = [record(tmp_path, f"{n}.png", scene(n), "the same words", f"number {n} here") for n in range(4)]
    records += [replace(records[0], key=f"made:copy {n}") for n in range(3)]
    assert all("the same words" in r.texts for r in curate(records, CurationConfig(max_repeats=4)).kept)
    curation = curate(records, CurationConfig(max_repeats=3))
    assert len(curation.kept) == 4 and all(r.texts == (f"number {n} here",) for n, r in enumerate(curation.kept))


def test_similarity_drops_the_text_then_the_record(tmp_path: Path) -> None:
    records = [
        record(tmp_path, "fits.png", scene(1), "like 1", "like 900"),
        record(tmp_path, "not.png", scene(2), "like 901"),
    ]
    curation = curate(records, CurationConfig(min_similarity=0.9), embedder=FakeEmbedder().embedder())
    assert [r.texts for r in curation.kept] == [("like 1",)]
    assert went(curation) == {"similarity": {"not.png"}}
    with pytest.raises(ConfigError, match="needs an encoder"):
        curate(records, CurationConfig(min_similarity=0.9))


def test_embeddings_and_facts_are_measured_once(mess: list[ImageText], tmp_path: Path) -> None:
    fake, cache = FakeEmbedder(), tmp_path / "cache"
    first = curate(mess, RULES, embedder=fake.embedder(), keep_in=cache)
    done = fake.embedded
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes() + b'{"half a line')  # as a killed run leaves it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nunbit.curate.measuring.measure", lambda image: pytest.fail(f"{image} was decoded again"))
        second = curate(mess[:11], RULES, embedder=fake.embedder(), keep_in=cache)
    assert fake.embedded == done and second.kept == first.kept
    record(tmp_path, "two.png", scene(77), "another scene")
    changed = curate(mess[:11], RULES, embedder=fake.embedder(), keep_in=cache)
    assert changed.pool.facts[4] != second.pool.facts[4] and fake.embedded == done + 1
    with pytest.MonkeyPatch.context() as patch:  # what came behind half a line is read
        patch.setattr("nunbit.curate.measuring.measure", lambda image: pytest.fail(f"{image} was decoded again"))
        last = curate(mess[:11], RULES, embedder=fake.embedder(), keep_in=cache)
    assert last.pool.facts[4] == changed.pool.facts[4]


WORDS = ("dog", "cat", "bus", "고양이", "tree")


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=3), min_size=1, max_size=60),
    st.integers(1, 12),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_balance_keeps_rare_concepts_whole_and_is_stable(
    texts: list[list[str]], cap: int, given_list: bool, others: bool
) -> None:
    rows = {row: [" ".join(words)] for row, words in enumerate(texts)}
    order = {row: stable_order(0, str(row)) for row in rows}
    concepts = find_concepts(rows, WORDS if given_list else (), min(3, cap))
    gone = balance(concepts, order, cap, others)
    stay = {row: texts for row, texts in rows.items() if row not in gone}
    for rare in (of for of in concepts.values() if len(of) <= cap):
        assert set(rare) <= set(stay)
    assert all(len(stay.keys() & of) >= min(cap, len(of)) for of in concepts.values())
    again = find_concepts(stay, WORDS if given_list else (), min(3, cap))
    assert balance(again, {row: order[row] for row in stay}, cap, others) == {}
    if len(concepts) == 1 and not others:
        assert len(stay) == min(cap, len(next(iter(concepts.values()))))


def test_another_seed_draws_others() -> None:
    rows = {row: ["dog"] for row in range(100)}
    concepts = find_concepts(rows, ["dog"], 1)
    kept = [rows.keys() - balance(concepts, {r: stable_order(s, str(r)) for r in rows}, 10, True) for s in (0, 1)]
    assert len(kept[0]) == len(kept[1]) == 10 and kept[0] != kept[1]


def test_near_ones_and_identical_texts_are_on_one_side(tmp_path: Path) -> None:
    off = CurationConfig(near_distance=-1, exact_duplicates=False, split=(0.4, 0.3, 0.3))
    records = []
    for n in range(24):
        records += [
            record(tmp_path, f"{n}.png", scene(n), f"the text of {n}"),
            record(tmp_path, f"{n}.jpg", scene(n).resize((90, 68)), f"a small one of {n}", quality=50),
            record(tmp_path, f"{n} far.png", scene(n + 500), f"The  text of {n}"),
        ]
    curation = curate(records, off)
    side = {r.key: name for name, places in curation.splits.items() for r in (curation.kept[p] for p in places)}
    assert len(side) == 72 and curation.groups == (24, 3) and set(side.values()) == {"train", "validation", "test"}
    assert all(len({side[f"made:{n}.png"], side[f"made:{n}.jpg"], side[f"made:{n} far.png"]}) == 1 for n in range(24))
    turned = curate(records[::-1], off)
    assert side == {turned.kept[p].key: name for name, places in turned.splits.items() for p in places}
    apart = curate(records, replace(off, split_texts=False, split_distance=-1))
    assert apart.groups == (72, 1)


def test_near_embeddings_are_on_one_side_more_widely_than_they_are_duplicates(tmp_path: Path) -> None:
    image = scene(0)
    records = [record(tmp_path, "a.png", image), record(tmp_path, "b.png", image.crop((4, 3, 156, 117)))]
    pair = iter([[1.0, 0.0], [0.95, 0.3122]])
    embedder = Embedder(
        "fake",
        lambda images: (np.array(next(pair), np.float32) for _ in images),
        lambda texts: np.ones((len(texts), 2), np.float32),
    )
    rules = CurationConfig(near_distance=-1, split_distance=-1, split=(0.5, 0.5))
    curation = curate(records, rules, embedder=embedder)
    assert len(curation.kept) == 2 and curation.groups == (1, 2)


def test_later_records_move_nothing_and_shares_are_met() -> None:
    hashes = [f"{number * 7919 % 100_003:064x}" for number in range(4000)]
    sides = choose_sides(range(4000), hashes, (0.8, 0.1, 0.1), 5)
    assert choose_sides(range(3000), hashes[:3000], (0.8, 0.1, 0.1), 5) == sides[:3000]
    counts = Counter(sides)
    assert abs(counts[0] - 3200) < 120 and abs(counts[1] - 400) < 90 and abs(counts[2] - 400) < 90
    assert choose_sides(range(4000), hashes, (0.8, 0.1, 0.1), 6) != sides
    assert group_records(None, ["a", "b", "a"], []) == [0, 1, 0]


def test_the_title_of_a_page_does_not_put_all_its_pictures_on_one_side() -> None:
    pictures = [str(number) for number in range(30)]
    titled = [("Our shop", f"cup {number}") for number in range(30)]
    assert group_records(titled, pictures, []) == list(range(30))
    titled[7] = ("Our shop", "CUP 3")  # said of two pictures alone
    assert group_records(titled, pictures, [])[7] == 3
    few = [("Our shop",)] * 10
    assert group_records(few, pictures[:10], []) == [0] * 10

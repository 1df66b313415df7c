"""Stores of features, retrieval, batches, students."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_toys import make_pairs
from nunbit.contrastive.batches import BatchMaker, draw_texts, identity, number_of
from nunbit.contrastive.clip_student import ClipStudent
from nunbit.contrastive.config import DataConfig, ModelConfig, ScratchConfig, TowerSize
from nunbit.contrastive.start import make_student
from nunbit.contrastive.students import Student
from nunbit.contrastive.validation import Pairs, Retrieval, choose_alpha, measure_retrieval
from nunbit.data import Mixture, SourceConfig
from nunbit.errors import ConfigError, UsageError
from nunbit.lora import LoraConfig
from nunbit.text.learned import learn_tokenizer
from nunbit.training.distributed import World
from nunbit.training.feature_store import FeatureStore
from nunbit.types import ImageText

TINY = ScratchConfig(
    image_size=16,
    vision=TowerSize(hidden_size=16, num_hidden_layers=2, num_attention_heads=2),
    text=TowerSize(hidden_size=16, num_hidden_layers=3, num_attention_heads=2),
    embedding_size=8,
    vocabulary_size=530,
    context_length=16,
)


def square(some: list[int]) -> tuple[list[str], np.ndarray]:
    kept = [number for number in some if number % 7]
    return [str(number) for number in kept], np.array([[n, n * n] for n in kept], np.float32).reshape(-1, 2)


def test_a_store_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    whole = FeatureStore(tmp_path / "whole", "x", 2)
    assert list(whole.fill(range(20), square, group=6)) == [6, 12, 18, 20]
    broken = FeatureStore(tmp_path / "broken", "x", 2)
    filling: Iterator[int] = broken.fill(range(20), square, group=6)
    next(filling), next(filling)
    keys, rows = tmp_path / "broken" / "x.keys.jsonl", tmp_path / "broken" / "x.f32"
    keys.write_bytes(keys.read_bytes()[:-3])  # as a kill leaves it
    rows.write_bytes(rows.read_bytes() + b"\0\0\0")
    again = FeatureStore(tmp_path / "broken", "x", 2)
    computed: list[int] = []
    list(again.fill(range(20), lambda some: (computed.extend(some), square(some))[1], group=6))
    assert computed == list(range(6, 20))
    assert rows.read_bytes() == (tmp_path / "whole" / "x.f32").read_bytes()
    assert again.rows(["3", "19"]).tolist() == [[3, 9], [19, 361]]
    assert "7" not in again and "8" in again and len(again) == 17


def slow_ranks(queries: np.ndarray, answers: np.ndarray, right: list[set[int]]) -> list[int]:
    ranks = []
    for query, own in zip(queries, right, strict=True):
        near = answers @ query
        best = max(near[list(own)])
        ranks.append(sum(1 for number, value in enumerate(near) if number not in own and value >= best))
    return ranks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), pictures=st.integers(1, 9), kinds=st.integers(1, 5))
def test_retrieval_is_what_one_would_count(seed: int, pictures: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    words = [[f"text {rng.integers(6)}" for _ in range(rng.integers(1, 3))] for _ in range(pictures)]
    groups = [int(rng.integers(kinds)) for _ in range(pictures)]
    pairs = Pairs.of(words, groups)
    images = rng.integers(-2, 3, (pictures, 3)).astype(np.float32)  # whole numbers: with ties
    texts = rng.integers(-2, 3, (len(pairs.texts), 3)).astype(np.float32)
    found = measure_retrieval(images, texts, pairs)
    texts_of = [set(numbers) for numbers in pairs.texts_of]
    for number, group in enumerate(groups):
        same = {text for other, kind in zip(words, groups, strict=True) if kind == group for text in other}
        assert {pairs.texts[text] for text in texts_of[number]} == same
    pictures_of = [{p for p in range(pictures) if text in texts_of[p]} for text in range(len(texts))]
    there, back = slow_ranks(images, texts, texts_of), slow_ranks(texts, images, pictures_of)
    assert found.image_to_text_r1 == pytest.approx(100 * np.mean([rank < 1 for rank in there]))
    assert found.text_to_image_r5 == pytest.approx(100 * np.mean([rank < 5 for rank in back]))
    assert found.mean_r1 == (found.image_to_text_r1 + found.text_to_image_r1) / 2


def test_equal_answers_win_nothing() -> None:
    pairs = Pairs.of([["a"], ["b"]], [0, 1])
    same = np.ones((2, 3), np.float32)
    assert measure_retrieval(same, same, pairs).image_to_text_r1 == 0


def test_a_model_that_gives_no_numbers_is_never_right() -> None:
    pairs = Pairs.of([["a"], ["b"]], [0, 1])
    good, nothing = np.eye(2, 3, dtype=np.float32), np.full((2, 3), np.nan, np.float32)
    assert measure_retrieval(good, good, pairs).mean_r1 == 100
    assert measure_retrieval(nothing, good, pairs).mean_r1 == 0
    assert measure_retrieval(good, nothing, pairs).mean_r1 == 0


def at(*firsts: float) -> list[Retrieval]:
    return [Retrieval(first, 0, first, 0) for first in firsts]


def test_the_way_back_stops_at_the_best_place_nearest_to_the_start() -> None:
    alpha, found = choose_alpha(lambda share: at(100 - abs(share - 0.45)))
    assert alpha == 0.4 and len(found) == 11
    assert choose_alpha(lambda share: at(1.0))[0] == 0


def test_what_must_not_be_forgotten_stops_the_way() -> None:
    def measure(share: float) -> list[Retrieval]:
        return at(20 + 70 * share, 50 - 10 * share)

    assert choose_alpha(measure)[0] == 1
    assert choose_alpha(measure, may_lose=3.0)[0] == 0.3
    assert choose_alpha(measure, may_lose=0.0)[0] == 0


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return make_pairs(tmp_path / "짝")


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return make_student(ModelConfig(scratch=TINY), ["a red circle", "빨간 원"], name="tiny", license="")


def maker(pairs: Path, student: Student, *, rank: int = 0, size: int = 1, **settings_: object) -> BatchMaker:
    data = DataConfig(train=(SourceConfig(str(pairs / "train.jsonl")),), batch_size=12, **settings_)  # type: ignore[arg-type]
    mixture = Mixture(data.train, seed=0)
    return BatchMaker(student, mixture, data, seed=0, world=World(rank, size))


def test_batches_are_the_same_from_wherever_one_starts(pairs: Path, student: Student) -> None:
    stream, later = maker(pairs, student).batches(0), maker(pairs, student).batches(3)
    for _ in range(3):
        next(stream)
    for _ in range(4):
        one, other = next(stream), next(later)
        assert torch.equal(one.images, other.images) and torch.equal(one.texts, other.texts)
        assert torch.equal(one.identities.pictures, other.identities.pictures)


def test_processes_share_a_batch(pairs: Path, student: Student) -> None:
    whole = maker(pairs, student).batches(2)
    shares = [maker(pairs, student, rank=rank, size=3).batches(2) for rank in range(3)]
    for _ in range(4):
        batch, parts = next(whole), [next(share) for share in shares]
        texts = [set(map(tuple, part.identities.texts[:, None].tolist())) for part in parts]
        assert sum(len(part.images) for part in parts) == 12 and all(len(part.images) == 4 for part in parts)
        joined = torch.cat([part.identities.texts for part in parts])
        same = joined == batch.identities.texts
        assert same.float().mean() >= 11 / 12, texts  # a broken picture is replaced within a share


def test_a_broken_picture_is_replaced_and_told(pairs: Path, student: Student) -> None:
    making = maker(pairs, student)
    told = []
    making.set_aside = told.append
    stream = making.batches(0)
    batches = [next(stream) for _ in range(5)]  # 60 of 55 records
    assert {Path(item.path).name for item in told} == {"broken.png"}
    assert all(len(batch.images) == 12 for batch in batches)
    twice = [len(torch.unique(batch.identities.pictures)) for batch in batches]
    assert min(twice) == 11


def test_a_column_says_what_belongs_together(pairs: Path, student: Student) -> None:
    batch = next(maker(pairs, student, positives="kind").batches(0))
    assert len(torch.unique(batch.identities.pictures)) <= 10  # nine kinds and the broken one
    record = ImageText("k", "a/../b.png", ("x",), "s", {"kind": "pear"})
    assert identity(record, "") == identity(ImageText("other", "b.png", ("y",)), "kind") == "b.png"
    assert identity(record, "kind") != "b.png"
    assert number_of("같다") == number_of("같다") != number_of("다르다")
    assert -(2**63) <= number_of(b"x") < 2**63


def test_every_text_of_a_record_is_drawn() -> None:
    record = ImageText("k", "p", ("one", "two", "three"))
    drawn = [draw_texts(record, 1, 0, position)[0] for position in range(60)]
    assert set(drawn) == {"one", "two", "three"}
    assert sorted(draw_texts(record, 3, 0, 7)) == ["one", "three", "two"]
    assert sorted(draw_texts(record, 4, 0, 7))[1:] != sorted(draw_texts(record, 4, 0, 7))[:-1]
    assert draw_texts(ImageText("k", "p", ("one",)), 2, 0, 7) == ["one", "one"]
    assert drawn == [draw_texts(record, 1, 0, position)[0] for position in range(60)]


def test_a_batch_that_processes_cannot_share_is_refused(pairs: Path, student: Student) -> None:
    with pytest.raises(UsageError, match="12, which 5 processes cannot share"):
        maker(pairs, student, size=5)


def test_several_texts_of_a_picture_are_neighbors(pairs: Path, student: Student) -> None:
    batch = next(maker(pairs, student, texts_per_picture=2).batches(0))
    assert (len(batch.images), len(batch.texts), batch.texts_per_picture) == (12, 24, 2)
    assert torch.equal(batch.identities.pictures[::2], batch.identities.pictures[1::2])
    assert not torch.equal(batch.identities.texts[::2], batch.identities.texts[1::2])
    parts = batch.chunks(5)
    assert [len(part.texts) for part in parts] == [10, 10, 4]


def test_chunks_are_the_batch(pairs: Path, student: Student) -> None:
    batch = next(maker(pairs, student).batches(0))
    parts = batch.chunks(5)
    assert [len(part.images) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat([part.texts for part in parts]), batch.texts)
    assert batch.chunks(None) == [batch]


def test_blocks_near_the_input_learn_slower(student: Student) -> None:
    torch.manual_seed(0)
    decayed = make_student(ModelConfig(scratch=TINY, layer_decay=0.5), ["x"], name="tiny", license="")
    factors = {name: decayed.rate_factor(name) for name, _ in decayed.module.named_parameters()}
    assert factors["vision_encoder.blocks.1.mlp.fc1.weight"] == 0.5
    assert factors["vision_encoder.blocks.0.mlp.fc1.weight"] == 0.25
    assert factors["vision_encoder.patch_embedding.weight"] == 0.125
    assert factors["text_encoder.token_embedding.weight"] == 0.0625
    assert factors["vision_encoder.projection.weight"] == factors["text_encoder.norm.bias"] == 1
    assert factors["logit_scale"] == 1
    assert student.rate_factor("vision_encoder.blocks.0.mlp.fc1.weight") == 1


@pytest.mark.parametrize(("start", "kept"), [(50.0, 100.0), (117.3, 117.3)])
def test_a_start_with_a_larger_scale_keeps_it(start: float, kept: float) -> None:
    made = make_student(ModelConfig(scratch=TINY), ["x"], name="tiny", license="")
    with torch.no_grad():
        made.module.logit_scale.fill_(math.log(start))
    again = ClipStudent(made.module, made.settings, ModelConfig(scratch=TINY), license="", name="tiny")
    with torch.no_grad():
        made.module.logit_scale.fill_(9.0)
    again.constrain()
    assert again.scale_and_bias()[0].item() == pytest.approx(kept)


@pytest.fixture
def saved(tmp_path: Path, student: Student) -> str:
    student.save(tmp_path / "model", {})
    return str(tmp_path / "model")


def test_a_locked_tower_does_not_learn(saved: str) -> None:
    locked = make_student(ModelConfig(start=saved, locked=("vision",)), [], name="x", license="")
    learning = {name.split(".")[0] for name, p in locked.module.named_parameters() if p.requires_grad}
    assert learning == {"text_encoder", "logit_scale"}
    assert (locked.locked.image, locked.locked.text) == (8, None)
    pixels = torch.randn(2, 3, 16, 16).numpy()
    rows = locked.locked_image_encoder().encode_pixels(pixels)
    assert {name.split(".")[0] for name, p in locked.module.named_parameters() if p.requires_grad} == learning
    torch.testing.assert_close(locked.embed_image(torch.from_numpy(rows)), torch.from_numpy(rows))


def test_adapters_on_a_locked_tower_make_no_sense(saved: str) -> None:
    config = ModelConfig(start=saved, locked=("vision",), lora=LoraConfig(rank=2))
    with pytest.raises(ConfigError, match="the vision tower is locked"):
        make_student(config, [], name="x", license="")
    text = LoraConfig(rank=2, targets=("text_encoder.blocks.*.weight",))
    adapted = make_student(ModelConfig(start=saved, locked=("vision",), lora=text), [], name="x", license="")
    learning = [name for name, p in adapted.module.named_parameters() if p.requires_grad]
    assert "logit_scale" in learning and all("lora" not in name for name in learning)
    assert all(name.startswith("text_encoder") for name in learning if name != "logit_scale")


def test_another_objective_than_the_start_has_is_refused(saved: str) -> None:
    with pytest.raises(ConfigError, match="objective is sigmoid"):
        make_student(ModelConfig(start=saved, objective="sigmoid"), [], name="x", license="")


def test_a_learned_tokenizer_cuts_anything_and_comes_back(tmp_path: Path, student: Student) -> None:
    tokenizer = learn_tokenizer(["빨간 사과", "a red apple", "red apples"] * 20, vocabulary_size=600, context_length=12)
    ids = tokenizer(["a red apple", "빨간 사과", "見たことのない", ""])
    assert ids.shape[1] <= 12 and ids.max() == tokenizer.config.end_token_id < 600
    assert len(tokenizer(["red"])[0]) == 3  # begin, one learned word, end
    again = learn_tokenizer(["빨간 사과", "a red apple", "red apples"] * 20, vocabulary_size=600, context_length=12)
    assert again.vocabulary.digest() == tokenizer.vocabulary.digest()


def test_another_process_learns_the_same_vocabulary() -> None:
    """With many pairs that are equally frequent, which something has to decide between."""
    code = (
        "from nunbit.text.learned import learn_tokenizer\n"
        "import random; draw = random.Random(0)\n"
        "words = [''.join(draw.choices('abcdefgh가나다', k=draw.randint(2, 7))) for _ in range(900)]\n"
        "print(learn_tokenizer(words, vocabulary_size=900, context_length=12).vocabulary.digest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(3)]
    assert len({run.stdout for run in runs}) == 1

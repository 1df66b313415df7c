"""The loss, the bridge's start, its training on made-up lessons, WordNet's reader, the metrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from nunbit.contrastive.starter_bridge import BridgeRecipe, imagined_probabilities, initial_bridge, train_bridge
from nunbit.contrastive.starter_lessons import Lessons
from nunbit.data import CaptionedPhoto, read_captioned_photos
from nunbit.evaluate import recall_at
from nunbit.losses import softmax_contrastive
from nunbit.wordnet import ancestors, read_nouns

RECIPE = BridgeRecipe(steps=4, class_batch=50, caption_batch=8)


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    draw = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> torch.Tensor:
        return functional.normalize(torch.randn(*shape, generator=draw), dim=-1)

    return Lessons(
        class_texts=tuple(unit(3, 512) for _ in range(1000)),
        class_similarity=torch.eye(1000),
        photo_features=torch.rand(6, 1280, generator=draw),
        photo_logits=torch.randn(6, 1000, generator=draw),
        photo_captions=tuple(unit(2, 512) for _ in range(6)),
        caption_groups=unit(10, 5, 512),
    )


def test_uniform_similarities_cost_ln_n() -> None:
    rows = torch.ones(7, 4) / 2
    assert softmax_contrastive(rows, rows, 10.0).item() == pytest.approx(math.log(7), abs=1e-6)


def test_the_loss_prefers_the_right_pairs() -> None:
    rows = torch.eye(5)
    assert softmax_contrastive(rows, rows, 30.0) < 1e-6 < softmax_contrastive(rows, rows.roll(1, 0), 30.0)


def test_training_repeats_from_its_seed(lessons: Lessons) -> None:
    first, again, other = (train_bridge(lessons, BridgeRecipe(**{**_sizes(), "seed": seed})) for seed in (0, 0, 1))
    assert torch.equal(first.class_vectors, again.class_vectors)
    assert not torch.equal(first.class_vectors, other.class_vectors)


def test_training_lowers_the_photographs_loss(lessons: Lessons) -> None:
    captions = torch.stack([rows[0] for rows in lessons.photo_captions])

    def loss(bridge: torch.nn.Module) -> float:
        images = bridge.encode_image(lessons.photo_features, lessons.photo_logits)
        return softmax_contrastive(images, bridge.encode_text(captions), 15.0).item()

    assert loss(train_bridge(lessons, BridgeRecipe(**{**_sizes(), "steps": 20}))) < loss(initial_bridge(lessons))


def test_imagined_probabilities_peak_on_their_class() -> None:
    classes = np.array([3, 7])
    got = imagined_probabilities(torch.eye(10), classes, np.random.default_rng(0))
    assert got.argmax(1).tolist() == [3, 7]
    torch.testing.assert_close(got.sum(1), torch.ones(2))


def test_ties_win_nothing() -> None:
    owners = np.arange(10)
    assert recall_at(np.zeros((10, 10), np.float32), owners, 5) == 0
    assert recall_at(np.eye(10, dtype=np.float32), owners, 1) == 100


@pytest.mark.parametrize(
    ("license_name", "split"),
    [
        ("Attribution License", "train"),
        ("Attribution-NonCommercial License", "dev"),
        ("Attribution-NonCommercial-NoDerivs License", "test"),
        ("Attribution-NoDerivs License", "test"),
    ],
)
def test_the_licence_decides_the_split(license_name: str, split: str) -> None:
    assert CaptionedPhoto(Path("x.jpg"), (), license_name).split == split


def test_wordnet_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(
        "  1 a licence line\n"
        "00000001 03 n 01 entity 0 000 | that which exists\n"
        '00000002 05 n 02 big_cat 0 cat 1 001 @ 00000001 n 0000 | a large feline; "lions"\n',
        encoding="latin-1",
    )
    nouns = read_nouns(tmp_path)
    assert nouns["00000002"].lemmas == ("big cat", "cat")
    assert nouns["00000002"].gloss == "a large feline"
    assert ancestors(nouns, "00000002") == ["00000002", "00000001"]


def test_shared_photographs_have_every_split(shared: Path) -> None:
    photos = read_captioned_photos(shared / "data" / "coco")
    assert {photo.split for photo in photos} == {"train", "dev", "test"}
    assert all(photo.path.is_file() for photo in photos)


def _sizes() -> dict[str, int]:
    return {"steps": RECIPE.steps, "class_batch": RECIPE.class_batch, "caption_batch": RECIPE.caption_batch}

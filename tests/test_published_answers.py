"""Published weights give published answers. Fetches from the hub, so it runs only when asked: ``make test-hub``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import nunbit
from nunbit.images import open_image

pytestmark = pytest.mark.hub


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        ("openai-vit-b-32", "clip_vit_b32_coco_cats"),
        ("siglip-b-16-224", "siglip_base_patch16_224_coco_cats"),
    ],
)
def test_published_logits(model: str, entry: str, shared: Path) -> None:
    golden = json.loads((shared / "golden/golden.json").read_text(encoding="utf-8"))[entry]
    encoder = nunbit.load(model)
    image, _ = open_image(shared / "golden" / golden["image"])
    pixels = torch.from_numpy(encoder.preprocessing(image))[None]
    ids = torch.from_numpy(encoder.tokenizer(golden["texts"]))
    with torch.inference_mode():
        logits = encoder.model(pixels, ids).logits_per_image[0].numpy()
    np.testing.assert_allclose(logits, golden["logits_per_image"], atol=2e-2)


def test_published_features_of_clip_b32(shared: Path) -> None:
    encoder = nunbit.load("openai-vit-b-32")
    features = shared / "golden/vit_b32_features"
    rows = encoder.encode_image([shared / "golden/openai_clip/CLIP.png"])
    expected = np.load(features / "image_features.npy").reshape(1, -1)
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected), atol=1e-4)
    texts = np.load(features / "text_features.npy").reshape(3, -1)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_text(["a diagram", "a dog", "a cat"]), texts, atol=1e-4)

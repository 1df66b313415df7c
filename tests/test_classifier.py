"""A ViT as a classifier: equal to the reference, and a head that starts without an opinion."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from clip_models import pictures, randomize
from nunbit.classifier import ImageClassifier
from nunbit.errors import UnsupportedModel
from nunbit.pretrained.vit_folder import load_classifier

transformers = pytest.importorskip("transformers")


def test_a_vit_folder_equals_the_reference(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=16,
        id2label={0: "cat", 1: "dog", 2: "개"},
    )  # fmt: skip
    reference = randomize(transformers.ViTForImageClassification(config))
    reference.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path)
    classifier = load_classifier(tmp_path)
    assert classifier.classnames == ("cat", "dog", "개")
    for count in (1, 7):
        images = pictures(count)
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        own = torch.stack([torch.from_numpy(classifier.preprocessing(image)) for image in images])
        assert (own - pixels).abs().max() <= 1.01 / 255 / 0.5
        with torch.inference_mode():
            torch.testing.assert_close(classifier.model(pixels), reference(pixels).logits, atol=1e-5, rtol=0)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UnsupportedModel, match="expected 'vit'"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("hidden_size", [None, 32])
def test_a_new_head_starts_at_ln_c_and_learns(hidden_size: int | None) -> None:
    from nunbit.vision_encoder import VisionTransformer, VitConfig

    torch.manual_seed(0)
    config = VitConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        hidden_act="gelu", layer_norm_eps=1e-6, class_token=True, patch_bias=True, pre_norm=False,
        pooling="class_token", projection_size=None,
    )  # fmt: skip
    classifier = ImageClassifier(VisionTransformer(config), 4, hidden_size=hidden_size)
    pixels, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    loss = functional.cross_entropy(classifier(pixels), labels)
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(classifier(pixels), labels).backward()
        optimizer.step()
    assert functional.cross_entropy(classifier(pixels), labels).item() < 0.3

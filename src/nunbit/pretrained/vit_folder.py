"""ViT classifiers of `transformers`: ``config.json`` with model_type vit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nunbit.classifier import ImageClassifier
from nunbit.errors import UnsupportedModel
from nunbit.preprocessing import AnyPreprocessing
from nunbit.pretrained.image_processor import read_image_processor
from nunbit.pretrained.parts import activation, read_json, square
from nunbit.pretrained.transformers_folder import WEIGHTS
from nunbit.pretrained.transformers_names import vit_rules
from nunbit.pretrained.weights import find_weights, fit_tensors, read_tensors
from nunbit.vision_encoder import VisionTransformer, VitConfig


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier that was read.

    Attributes:
        model: Ready to answer.
        preprocessing: Pictures → pixels.
        classnames: One for each logit.
    """

    model: ImageClassifier
    preprocessing: AnyPreprocessing
    classnames: tuple[str, ...]


def load_classifier(folder: Path) -> Classifier:
    """Read a ``ViTForImageClassification`` folder.

    Raises:
        UnsupportedModel: It is something else, or has parts that are not known here.
        WeightsError: Tensors are missing, unexpected, misshapen or damaged.
    """
    content = read_json(folder / "config.json")
    if content.get("model_type") != "vit":
        raise UnsupportedModel(f"{folder} is a {content.get('model_type')!r} model, expected 'vit'")
    config = vit_config(content)
    labels = content.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what is assumed where nothing is said
    with torch.device("meta"):
        model = ImageClassifier(VisionTransformer(config), len(labels))
    tensors = read_tensors(find_weights(folder, WEIGHTS))
    state = fit_tensors(tensors, model, vit_rules(config, classifier=True), where=str(folder))
    model.load_state_dict(state, assign=True)
    classnames = tuple(labels[key] for key in sorted(labels, key=int))
    return Classifier(model.eval().requires_grad_(False), read_image_processor(folder), classnames)


def vit_config(content: dict[str, Any]) -> VitConfig:
    """The tower of a ``vit`` configuration."""
    if not content.get("qkv_bias", True):
        raise UnsupportedModel("a ViT without biases in its attention is not known here")
    return VitConfig(
        image_size=square(content.get("image_size", 224), "image_size"),
        patch_size=square(content.get("patch_size", 16), "patch_size"),
        hidden_size=int(content.get("hidden_size", 768)),
        num_hidden_layers=int(content.get("num_hidden_layers", 12)),
        num_attention_heads=int(content.get("num_attention_heads", 12)),
        intermediate_size=int(content.get("intermediate_size", 3072)),
        hidden_act=activation(content.get("hidden_act", "gelu")),
        layer_norm_eps=float(content.get("layer_norm_eps", 1e-12)),
        class_token=True,
        patch_bias=True,
        pre_norm=False,
        pooling="class_token",
        projection_size=None,
    )

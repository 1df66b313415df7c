"""Training of the starter's bridge: locked towers, three softmax contrastive lessons, seconds on a CPU.

    class words    a made-up picture of a class, peaked on it and spread over look-alikes  ↔  its words
    photographs    a captioned photograph  ↔  one of its captions
    captions       a caption  ↔  another caption of the same picture

The recipe was chosen on the ``dev`` split alone. The ``test`` split is read by ``nunbit.evaluate`` only.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nunbit.contrastive.starter_lessons import Lessons, LessonSources, read_lessons
from nunbit.losses import softmax_contrastive
from nunbit.packaged_files import sha256_of
from nunbit.starter.bridge import Bridge
from nunbit.starter.model import MODEL_TYPE, SHIPPED, Starter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BridgeRecipe:
    """Everything that decides the trained file.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak for the class vectors; the other maps learn at 0.3 of it.
        weight_decay: Of AdamW.
        dropout: On the photographs' features, against learning 142 photographs by heart.
        class_batch: Classes a step.
        caption_batch: Caption pairs a step.
        seed: Of every random choice.
    """

    steps: int = 60
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    class_batch: int = 400
    caption_batch: int = 384
    seed: int = 0


def train_bridge(lessons: Lessons, recipe: BridgeRecipe) -> Bridge:
    """Learn the bridge.

    Args:
        lessons: Cached tower outputs.
        recipe: Sizes, rates, seed; the same recipe and lessons give the same bridge.

    Returns:
        The trained bridge, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    bridge = initial_bridge(lessons)
    slow = [bridge.feature_map, bridge.text_map, bridge.text_bias, bridge.log_scale]
    rates = [recipe.learning_rate, 0.3 * recipe.learning_rate]
    groups = [{"params": [bridge.class_vectors], "lr": rates[0]}, {"params": slow, "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, recipe.steps, pct_start=0.1)
    for step in range(recipe.steps):
        loss = (
            _photo_loss(bridge, lessons, recipe, rng)
            + _class_loss(bridge, lessons, recipe, rng)
            + _caption_loss(bridge, lessons, recipe, rng)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        log.info("step %d of %d: loss %.3f", step + 1, recipe.steps, loss.item())
    return bridge.eval().requires_grad_(False)


def initial_bridge(lessons: Lessons) -> Bridge:
    """The bridge before training: centered class words, features silent, text untouched (ConSE)."""
    bridge = Bridge()
    names = functional.normalize(torch.stack([rows[0] for rows in lessons.class_texts]), dim=-1)  # (C, S)
    with torch.no_grad():
        bridge.text_mean.copy_(names.mean(0))
        # The factor sets the words' weight against the features', both of which share one learning rate.
        bridge.class_vectors.copy_(3 * (names - names.mean(0)))
        bridge.feature_mean.copy_(lessons.photo_features.mean(0))
        bridge.feature_std.copy_(lessons.photo_features.std(0) + 1e-3)
        bridge.log_scale.fill_(math.log(15))
    return bridge


def _photo_loss(bridge: Bridge, lessons: Lessons, recipe: BridgeRecipe, rng: np.random.Generator) -> Tensor:
    probabilities, features = bridge.image_inputs(lessons.photo_features, lessons.photo_logits)
    images = bridge.project_image(probabilities, functional.dropout(features, recipe.dropout))
    captions = torch.stack([rows[rng.integers(len(rows))] for rows in lessons.photo_captions])
    return softmax_contrastive(images, bridge.encode_text(captions), bridge.log_scale.exp())


def _class_loss(bridge: Bridge, lessons: Lessons, recipe: BridgeRecipe, rng: np.random.Generator) -> Tensor:
    classes = rng.choice(len(lessons.class_texts), recipe.class_batch, replace=False)
    images = bridge.project_image(
        imagined_probabilities(lessons.class_similarity, classes, rng),
        torch.zeros(len(classes), len(bridge.feature_map)),
    )
    words = torch.stack([lessons.class_texts[c][1 + rng.integers(len(lessons.class_texts[c]) - 1)] for c in classes])
    return softmax_contrastive(images, bridge.encode_text(words), bridge.log_scale.exp())


def _caption_loss(bridge: Bridge, lessons: Lessons, recipe: BridgeRecipe, rng: np.random.Generator) -> Tensor:
    chosen = rng.choice(len(lessons.caption_groups), recipe.caption_batch, replace=False)
    left = lessons.caption_groups[chosen, int(rng.integers(2))]
    right = lessons.caption_groups[chosen, 2 + int(rng.integers(3))]
    return softmax_contrastive(bridge.encode_text(left), bridge.encode_text(right), bridge.log_scale.exp())


def imagined_probabilities(similarity: Tensor, classes: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Flattened class probabilities that a picture of each class might have.

    Args:
        similarity: (C, C) cosines between classes.
        classes: (B,) class numbers.
        rng: Draws how sure the picture tower is of each.

    Returns:
        (B, C) float32, rows sum to 1.
    """
    sharpness = rng.uniform(4, 14, (len(classes), 1))
    logits = similarity[classes].double() * torch.from_numpy(sharpness)
    logits[range(len(classes)), classes] += torch.from_numpy(rng.uniform(0, 4, len(classes)))
    return functional.softmax(logits / 2, dim=-1).float()


def save_bridge(bridge: Bridge, folder: Path, recipe: Mapping[str, Any], *, license: str = "") -> None:
    """Write ``model.safetensors`` (float16) and ``config.json`` into a model folder.

    Args:
        bridge: Trained.
        folder: Made when it is not there.
        recipe: How it was trained, as plain values.
        license: Of the weights; empty: that of the starter.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in bridge.state_dict().items()}, weights)
    config = {
        "model_type": MODEL_TYPE,
        "embedding_size": bridge.class_vectors.shape[1],
        "logit_scale": round(float(bridge.log_scale.detach().exp()), 4),
        "languages": ["en", "ko"],
        "license": license or "Apache-2.0",
        "sha256": sha256_of(weights),
        "recipe": dict(recipe),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def train_starter(sources: LessonSources, folder: Path, recipe: BridgeRecipe) -> None:
    """Read the lessons, learn the bridge, write the model folder."""
    lessons = read_lessons(sources, Starter(SHIPPED))
    save_bridge(train_bridge(lessons, recipe), folder, asdict(recipe))

"""Small colored shapes with words in two languages: enough to learn from in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

COLORS = {"red": ("빨간", (220, 30, 30)), "green": ("초록", (30, 170, 30)), "blue": ("파란", (30, 30, 220))}
SHAPES = {"circle": "원", "square": "사각형", "cross": "십자"}
RECIPE: dict[str, Any] = {
    "model": {
        "scratch": {
            "image_size": 16,
            "patch_size": 8,
            "vision": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "text": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "embedding_size": 16,
            "vocabulary_size": 540,
            "context_length": 24,
        }
    },
    "data": {
        "train": [{"path": "train.jsonl"}],
        "validation": [{"path": "validation.jsonl"}],
        "batch_size": 16,
        "augmentation": {"crop": [0.8, 1.2], "rotate": 10, "hue": 0.02, "erase": 0.2},
    },
    "training": {
        "steps": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "precision": "float32",
        "device": "cpu",
        "ema_decay": 0.9,
        "evaluate_every": 4,
        "checkpoint_every": 3,
        "log_every": 1,
    },
}


def draw(shape: str, color: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """A shape somewhere on a light ground."""
    image = Image.new("RGB", (24, 24), tuple(int(value) for value in rng.integers(200, 255, 3)))
    pen, r = ImageDraw.Draw(image), int(rng.integers(4, 9))
    x, y = (int(value) for value in rng.integers(r, 24 - r, 2))
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=color)
    else:
        pen.line((x - r, y, x + r, y), fill=color, width=3)
        pen.line((x, y - r, x, y + r), fill=color, width=3)
    return image


def make_pairs(folder: Path) -> Path:
    """Write ``train.jsonl`` (54 pictures and one that is broken), ``validation.jsonl`` and the pictures."""
    rng = np.random.default_rng(0)
    (folder / "그림").mkdir(parents=True)
    number = 0
    for name, count in (("train", 6), ("validation", 2)):
        rows = []
        for english, (korean, color) in COLORS.items():
            for shape, shape_korean in SHAPES.items():
                for _ in range(count):
                    path = folder / "그림" / f"{number}.png"
                    draw(shape, color, rng).save(path)
                    texts = [f"a {english} {shape}", f"{korean} {shape_korean}"]
                    rows.append({"image": f"그림/{path.name}", "texts": texts, "kind": f"{english} {shape}"})
                    number += 1
        if name == "train":
            (folder / "그림" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
            rows.append({"image": "그림/broken.png", "texts": ["a broken picture"], "kind": "broken"})
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_recipe(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write ``recipe.yaml`` beside the pairs; ``changes`` replaces whole settings by dotted names."""
    recipe = json.loads(json.dumps(RECIPE))
    for name, value in (changes or {}).items():
        *above, last = name.split(".")
        place = recipe
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path

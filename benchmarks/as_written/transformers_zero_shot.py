"""Pictures and labels → similarities, with transformers: each call embeds both.

Usage: transformers_zero_shot.py MODEL PICTURES LABELS.json OUT.npy [--batch 32] [--bf16]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from peers import import_transformers
from report import report
from resident import resident_mb

CLIPModel, CLIPTokenizer = import_transformers()
from transformers import CLIPImageProcessor  # noqa: E402

base = resident_mb()

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pictures", type=Path)
parser.add_argument("labels", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--bf16", action="store_true")
arguments = parser.parse_args()

dtype = torch.bfloat16 if arguments.bf16 else torch.float32
model = CLIPModel.from_pretrained(arguments.model, dtype=dtype).eval()
processor = CLIPImageProcessor.from_pretrained(arguments.model)
tokenizer = CLIPTokenizer.from_pretrained(arguments.model)


def unit(features: object) -> torch.Tensor:
    """Rows of unit length."""
    rows = getattr(features, "pooler_output", features).float()
    return rows / rows.norm(dim=-1, keepdim=True)


def embed_pictures(files: list[Path]) -> torch.Tensor:
    """(B, E)."""
    inputs = processor(images=[Image.open(file).convert("RGB") for file in files], return_tensors="pt")
    return unit(model.get_image_features(pixel_values=inputs["pixel_values"].to(dtype)))


def embed_labels(labels: list[str]) -> torch.Tensor:
    """(B, E)."""
    texts = [f"a photo of a {label}." for label in labels]
    return unit(model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")))


def similarities(files: list[Path], labels: list[str]) -> torch.Tensor:
    """(N, C) cosines."""
    size = arguments.batch
    with torch.no_grad():
        classes = torch.cat([embed_labels(labels[at : at + size]) for at in range(0, len(labels), size)])
        pictures = torch.cat([embed_pictures(files[at : at + size]) for at in range(0, len(files), size)])
        return pictures @ classes.T


files, labels = sorted(arguments.pictures.glob("*.jpg")), json.loads(arguments.labels.read_text())
similarities(files[:2], labels[:2])  # nothing is kept between calls: a short first one is as good as a whole one
start = time.perf_counter()
found = similarities(files, labels)
found.topk(5)
seconds = time.perf_counter() - start
np.save(arguments.out, found.numpy())
report(len(files), seconds, base, arguments.out)

"""A folder of pictures → embeddings on disk, with transformers.

Usage: transformers_folder.py MODEL PICTURES OUT.npy --batch 32 [--bf16]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from peers import import_transformers
from report import report
from resident import resident_mb

CLIPModel, _ = import_transformers()
from transformers import CLIPImageProcessor  # noqa: E402

base = resident_mb()

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pictures", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--bf16", action="store_true")
arguments = parser.parse_args()

dtype = torch.bfloat16 if arguments.bf16 else torch.float32
model = CLIPModel.from_pretrained(arguments.model, dtype=dtype).eval()
processor = CLIPImageProcessor.from_pretrained(arguments.model)


def embed(some: list[Path]) -> torch.Tensor:
    """(B, E)."""
    inputs = processor(images=[Image.open(file).convert("RGB") for file in some], return_tensors="pt")
    features = model.get_image_features(pixel_values=inputs["pixel_values"].to(dtype))
    features = getattr(features, "pooler_output", features).float()
    return features / features.norm(dim=-1, keepdim=True)


files = sorted(arguments.pictures.glob("*.jpg"))
with torch.no_grad():
    embed(files[:1])  # warm up
    start = time.perf_counter()
    batches = range(0, len(files), arguments.batch)
    rows = torch.cat([embed(files[at : at + arguments.batch]) for at in batches])
np.save(arguments.out, rows.numpy())
report(len(files), time.perf_counter() - start, base, arguments.out)

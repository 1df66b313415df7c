"""Pictures and labels → similarities, with open_clip: each call embeds both.

Usage: open_clip_zero_shot.py MODEL PICTURES LABELS.json OUT.npy [--workers 2] [--batch 32]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from peers import import_open_clip
from pictures_dataset import Pictures
from report import report
from resident import resident_mb

open_clip = import_open_clip()
base = resident_mb()

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pictures", type=Path)
parser.add_argument("labels", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--batch", type=int, default=32)
arguments = parser.parse_args()

model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{arguments.model}")
model.eval()
tokenizer = open_clip.get_tokenizer(f"local-dir:{arguments.model}")


def similarities(files: list[Path], labels: list[str]) -> torch.Tensor:
    """(N, C) cosines."""
    loader = DataLoader(Pictures(files, preprocess), batch_size=arguments.batch, num_workers=arguments.workers)
    with torch.no_grad():
        texts = tokenizer([f"a photo of a {label}." for label in labels]).split(arguments.batch)
        classes = torch.cat([model.encode_text(some, normalize=True) for some in texts])
        pictures = torch.cat([model.encode_image(some, normalize=True) for some in loader])
        return pictures @ classes.T


files, labels = sorted(arguments.pictures.glob("*.jpg")), json.loads(arguments.labels.read_text())
similarities(files[:2], labels[:2])  # nothing is kept between calls: a short first one is as good as a whole one
start = time.perf_counter()
found = similarities(files, labels)
found.topk(5)
seconds = time.perf_counter() - start
np.save(arguments.out, found.numpy())
report(len(files), seconds, base, arguments.out)

"""A folder of pictures → embeddings on disk, with open_clip and torch's DataLoader.

Usage: open_clip_folder.py MODEL PICTURES OUT.npy --workers 2 --batch 32
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
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
parser.add_argument("out", type=Path)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--bf16", action="store_true")
arguments = parser.parse_args()

model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{arguments.model}")
model.eval()
files = sorted(arguments.pictures.glob("*.jpg"))
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
    model.encode_image(preprocess(Image.open(files[0]))[None])  # warm up
    start = time.perf_counter()
    loader = DataLoader(Pictures(files, preprocess), batch_size=arguments.batch, num_workers=arguments.workers)
    rows = torch.cat([model.encode_image(pixels, normalize=True).float() for pixels in loader])
np.save(arguments.out, rows.numpy())
report(len(files), time.perf_counter() - start, base, arguments.out)

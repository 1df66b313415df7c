"""A folder of pictures → embeddings on disk, with nunbit.

Usage: nunbit_folder.py MODEL PICTURES OUT.npy [--engine auto]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import nunbit
from nunbit.encode import Rejected, encode_stream
from nunbit.engine.openvino_models import import_openvino

from report import report
from resident import resident_mb

import_openvino()
base = resident_mb()

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pictures", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--engine", default="auto")
arguments = parser.parse_args()

encoder = nunbit.load(arguments.model, engine=arguments.engine)
files = sorted(arguments.pictures.glob("*.jpg"))
encoder.encode_image(files[:1])  # warm up
start = time.perf_counter()
rows = [item.embedding for item in encode_stream(encoder, files) if not isinstance(item, Rejected)]
np.save(arguments.out, np.stack(rows))
report(len(files), time.perf_counter() - start, base, arguments.out)

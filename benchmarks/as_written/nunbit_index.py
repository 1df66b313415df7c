"""A folder of pictures → an index that can be searched, with nunbit.

Usage: nunbit_index.py MODEL PICTURES [--out OUT.npy]: what is in the index, in the order of the files' names
"""

import argparse
import importlib
import tempfile
import time
from pathlib import Path

import numpy as np
import nunbit
from nunbit.engine.openvino_models import import_openvino

from report import report
from resident import resident_mb

importlib.import_module("lancedb")
import_openvino()
base = resident_mb()

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pictures", type=Path)
parser.add_argument("--out", type=Path)
arguments = parser.parse_args()

encoder = nunbit.load(arguments.model)
with tempfile.TemporaryDirectory() as scratch, nunbit.Index.open(Path(scratch, "photos.nunbit"), encoder) as index:
    encoder.encode_image([next(arguments.pictures.glob("*.jpg"))])  # warm up
    start = time.perf_counter()
    done = index.add([arguments.pictures])
    seconds = time.perf_counter() - start
    if arguments.out:
        items = sorted(index.items(), key=lambda item: item.path)
        np.save(arguments.out, index.get_embeddings([item.id for item in items]))
report(done.added, seconds, base, arguments.out)

"""Pictures and labels → similarities, with nunbit: labels are known from the first call on.

Usage: nunbit_zero_shot.py MODEL PICTURES LABELS.json OUT.npy
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import nunbit
from nunbit.engine.openvino_models import import_openvino
from nunbit.recognition import Labels

from report import report
from resident import resident_mb

import_openvino()
base = resident_mb()

model, pictures, labels_file, out = sys.argv[1:]
encoder = nunbit.load(model)
files, names = sorted(Path(pictures).glob("*.jpg")), json.loads(Path(labels_file).read_text())
nunbit.recognize(encoder, files[:2], names, templates=["a photo of a {}."])  # the first call
start = time.perf_counter()
nunbit.recognize(encoder, files, names, templates=["a photo of a {}."], top_k=5)
seconds = time.perf_counter() - start
labels = Labels(encoder, names, templates=["a photo of a {}."])
np.save(out, np.stack([labels.similarity(row) for row in encoder.encode_image(files)]))
report(len(files), seconds, base, Path(out))

"""Open a model with one library, embed inputs once: for the memory that it takes.

Usage: one_library.py NAME MODEL INPUTS BATCH: pixels in a file of numpy, or texts in one of JSON
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from peers import import_open_clip, import_transformers, in_batches, open_library
from report import report
from resident import resident_mb

name, model, inputs, batch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
package, how = name.split()
if package == "open_clip":
    import_open_clip()
elif package == "transformers":
    import_transformers()
elif how == "torch":
    importlib.import_module("torch")
else:
    importlib.import_module("nunbit.engine.openvino_models").import_openvino()
importlib.import_module("nunbit.loading")
given = np.load(inputs) if inputs.suffix == ".npy" else json.loads(inputs.read_text())
base = resident_mb()
library = open_library(name, model)
start = time.perf_counter()
rows = in_batches(library.pictures if inputs.suffix == ".npy" else library.texts, given, batch)
report(len(rows), time.perf_counter() - start, base)

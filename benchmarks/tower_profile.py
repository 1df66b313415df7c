"""Which operations take the time of a picture tower in OpenVINO: what explains a share of the ceiling.

Usage: python benchmarks/tower_profile.py [--model B16] [--engine openvino-int8] [--batch 8]

The tower that nunbit prepared is compiled once more, with OpenVINO's counters on, which cost a little time.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np

from pages import table

RUNS = 5
MOST = 8


def profile(folder: Path, engine: str, pixels: np.ndarray) -> str:
    """A table of the kinds of operations, the slowest first.

    Args:
        folder: A model whose engines are prepared.
        engine: ``openvino-fp32``, ``openvino-bf16`` or ``openvino-int8``.
        pixels: (B, 3, S, S) float32.
    """
    spent, seconds = _counters(folder, engine.rpartition("-")[2], pixels)
    total = sum(spent.values())
    rows = [
        [kind, how, f"{1e3 * time_ / len(pixels):.2f}", f"{100 * time_ / total:.0f} %"]
        for (kind, how), time_ in spent.most_common(MOST)
    ]
    whole = f"{1e3 * seconds / len(pixels):.2f} ms a picture in all, {1e3 * total / len(pixels):.2f} in operations"
    shown = table(["operation", "computed by", "ms", "share"], rows)
    return f"Profile of {engine}, batch {len(pixels)}: {whole}.\n\n{shown}"


def _counters(folder: Path, precision: str, pixels: np.ndarray) -> tuple[Counter[tuple[str, str]], float]:
    """Of the quickest run, seconds by kind of operation and what computed it, and of all of it."""
    from nunbit.engine.machine import this_machine
    from nunbit.engine.openvino_models import import_openvino
    from nunbit.engine.record import engine_folder, file_states, known_fingerprint
    from nunbit.loading import model_source

    machine, files = this_machine(), model_source(folder, str(folder)).files
    fingerprint = known_fingerprint(file_states(files))
    assert fingerprint is not None  # it was prepared
    path = engine_folder(fingerprint, machine) / f"image-{'int8' if precision == 'int8' else 'fp32'}.xml"
    half = precision == "bf16" or (precision == "int8" and machine.has_bf16)
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": machine.cores,
        "NUM_STREAMS": "1",
        "PERF_COUNT": True,
    }
    request = import_openvino().Core().compile_model(str(path), "CPU", settings).create_infer_request()
    request.infer([pixels])
    quickest, spent = float("inf"), Counter[tuple[str, str]]()
    for _ in range(RUNS):
        start = time.perf_counter()
        request.infer([pixels])
        seconds = time.perf_counter() - start
        if seconds < quickest:
            quickest, spent = seconds, Counter()
            for node in request.profiling_info:
                if node.real_time.total_seconds() > 0:
                    spent[node.node_type, node.exec_type] += node.real_time.total_seconds()
    return spent, quickest


def main() -> None:
    """Print one profile."""
    from peers import Nunbit, as_square_pixels, nunbit_engines
    from pictures import MODELS
    from random_models import model_folder
    from side_by_side import own_cache, parser, photographs, pin

    made = parser(__doc__)
    made.add_argument("--model", choices=MODELS, default="B16")
    made.add_argument("--engine", default="openvino-int8")
    made.add_argument("--batch", type=int, default=8)
    arguments: argparse.Namespace = made.parse_args()
    pin(1)
    own_cache(arguments.scratch, 1)
    folder = model_folder(MODELS[arguments.model], arguments.scratch, arguments.shared)
    nunbit_engines(folder)
    pixels = as_square_pixels(photographs(arguments.shared, arguments.batch), Nunbit(folder, "auto").encoder)
    print(profile(folder, arguments.engine, pixels))


if __name__ == "__main__":
    main()

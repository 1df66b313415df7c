"""How quick each step from a file to an embedding is on this machine, by itself and all together.

Place in the river: files → `images` → `preprocessing` → an engine; above `nunbit.encode`, which joins them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nunbit.cores import usable_cores
from nunbit.encode import Encoder, encode_stream
from nunbit.errors import ImageError, UsageError
from nunbit.images import open_image

MOST_PICTURES = 256
MOST_PIXELS = 150_000_000
"""So much is held in memory, decoded."""


@dataclass(frozen=True, slots=True)
class StageSpeed:
    """One step.

    Attributes:
        stage: ``read``, ``decode``, ``resize and normalize``, ``encode`` or ``all together``.
        alone: Pictures a second in one thread; None where a step uses all cores by itself.
        threads: Pictures a second in as many threads as the step is given.
    """

    stage: str
    alone: float | None
    threads: float


def measure_stages(
    encoder: Encoder, files: Sequence[Path], *, exact: bool = False, seconds: float = 1.0
) -> list[StageSpeed]:
    """Time every step on the same pictures, each with what the step before left in memory.

    Args:
        encoder: Any encoder.
        files: Pictures; the first that can be read are used, at most `MOST_PICTURES`.
        exact: Decode every picture in full.
        seconds: How long to measure each step, at least; it is measured twice where threads matter.

    Raises:
        UsageError: None of the files can be read.
    """
    needed = None if exact else encoder.preprocessing.resized
    good = _readable(files)
    contents = [path.read_bytes() for path in good]
    decoded = [open_image(content, needed=needed) for content in contents]
    pixels = [encoder.preprocessing(*picture) for picture in decoded]
    size = encoder.engine.batch_size
    batches: list[Any] = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    if len({picture.shape for picture in pixels}) == 1:
        batches = [np.stack(batch) for batch in batches]
    cores = usable_cores()

    def speed(step: Callable[[Any], object], items: Sequence[Any], threads: int) -> float:
        return _rate(step, items, threads, seconds) * len(good) / len(items)

    stages = [
        StageSpeed(name, speed(step, items, 1), speed(step, items, cores))
        for name, step, items in (
            ("read", Path.read_bytes, good),
            ("decode", lambda content: open_image(content, needed=needed), contents),
            ("resize and normalize", lambda picture: encoder.preprocessing(*picture), decoded),
        )
    ]
    together = speed(lambda paths: list(encode_stream(encoder, paths, exact=exact)), [good], 1)
    encoding = speed(encoder.encode_pixels, batches, encoder.engine.concurrency)
    return [*stages, StageSpeed("encode", None, encoding), StageSpeed("all together", None, together)]


def _readable(files: Sequence[Path]) -> list[Path]:
    good: list[Path] = []
    pixels = 0
    for path in files:
        try:
            _, info = open_image(path)
        except ImageError:
            continue
        good.append(path)
        pixels += info.width * info.height
        if len(good) == MOST_PICTURES or pixels > MOST_PIXELS:
            break
    if not good:
        raise UsageError("none of the pictures can be read", hint="give a folder of photographs")
    return good


def _rate(step: Callable[[Any], object], items: Sequence[Any], threads: int, seconds: float) -> float:
    """Items a second over whole rounds; the first round, in which caches fill, does not count."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(step, items))
        rounds, passed, start = 0, 0.0, time.perf_counter()
        while passed < seconds:
            list(pool.map(step, items))
            rounds, passed = rounds + 1, time.perf_counter() - start
    return rounds * len(items) / passed

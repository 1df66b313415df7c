"""What the tests of the index share: an encoder that takes no time, pictures, and short ways to look at results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nunbit.encode import Encoder, EncoderInfo
from nunbit.index import AddReport, Index
from nunbit.preprocessing import Preprocessing

SIZE = 8  # D of the fake


class FakeTowers:
    """Embeds the mean of each ninth of a picture, without the last; counts what it is asked."""

    model = tokenizer = logit_bias = None
    logit_scale = 100.0

    def __init__(self) -> None:
        self.fingerprint = "f" * 64
        self.encoded = 0
        self.before_batch: Callable[[], None] = lambda: None

    def encode_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        self.before_batch()
        self.encoded += len(pixel_values)
        cells = pixel_values.mean(1).reshape(len(pixel_values), 3, 2, 3, 2).mean((2, 4)).reshape(-1, 9)
        return unit(cells[:, :SIZE])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.stack([np.random.default_rng(len(text)).normal(size=SIZE) for text in texts]))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_encoder(fingerprint: str = "f" * 64, towers: FakeTowers | None = None) -> Encoder:
    preprocessing = Preprocessing(6, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash", "bilinear")
    towers = towers or FakeTowers()
    towers.fingerprint = fingerprint
    return Encoder(towers, EncoderInfo("fake", SIZE, preprocessing))


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 9), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def touch(path: Path) -> None:
    """Give a file another time, as an editor that writes the same bytes again does."""
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))


def counts(report: AddReport) -> tuple[int, int, int, int, int]:
    return (report.added, report.updated, report.unchanged, report.removed, len(report.rejected))


def names(index: Index) -> list[str]:
    return sorted(Path(item.path).name for item in index.items())


def ledger(index: Index) -> dict[str, str]:
    """Give path → reason, and check that no path has two lines."""
    lines = index.ledger_path.read_text(encoding="utf-8").split("\n")[:-1] if index.ledger_path.exists() else []
    entries = [json.loads(line) for line in lines]
    assert all(set(entry) == {"path", "reason", "detail"} for entry in entries)
    assert len({entry["path"] for entry in entries}) == len(entries)
    return {entry["path"]: entry["reason"] for entry in entries}


def make_album(folder: Path) -> Path:
    """Make a folder with five good pictures."""
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/d.jpg", "sub/deep/e.png")):
        picture(folder / name, seed)
    return folder

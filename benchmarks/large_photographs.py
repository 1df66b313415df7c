"""Photographs of 12 megapixels, made of small ones: enlarged, with grain such as a camera's, as JPEG of quality 90."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4000, 3000)
QUALITY = 90


def large_photographs(files: Sequence[Path], folder: Path) -> Path:
    """Make one of each file, where it was not made before."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, file in enumerate(files):
        path = folder / f"{number:04}.jpg"
        grain = rng.normal(0, 4, SIZE[::-1]).astype(np.float32)
        coarse = rng.normal(0, 6, (SIZE[1] // 4, SIZE[0] // 4)).astype(np.float32)
        if path.is_file():
            continue  # its grain was drawn nevertheless, so that the next ones are the same in any case
        picture = Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        detail = grain + np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
        levels = np.asarray(picture, np.float32) + detail[..., None]
        draft = path.with_suffix(".draft")
        Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).save(draft, "JPEG", quality=QUALITY)
        draft.replace(path)
    return folder

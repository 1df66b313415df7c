"""What the tests of curation share: pictures that look different, records of them, and a quick encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nunbit.curate import Embedder
from nunbit.images import open_image
from nunbit.types import ImageText

SIZE = 16


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Give a picture of soft blobs and some grain, another one for each seed."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(blobs, np.int16) + grain, 0, 255).astype(np.uint8))


def record(folder: Path, name: str, image: Image.Image, *texts: str, **options: Any) -> ImageText:
    """Save a picture and give its record."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return ImageText(f"made:{name}", str(path), texts or (f"a scene that is called {name.split('.')[0]}",), "made")


def scenes(folder: Path, count: int, start: int = 0) -> list[ImageText]:
    """Give records of so many different pictures."""
    return [
        record(folder, f"{seed:03}.png", scene(seed), f"scene number {seed} of all") for seed in range(start, count)
    ]


def names(records: Sequence[ImageText]) -> set[str]:
    return {Path(str(item.image)).name for item in records}


class FakeEmbedder:
    """Embeds pictures by the first bytes of their colors; a text ``like SEED`` as the scene of that seed."""

    def __init__(self) -> None:
        self.embedded = 0

    def embedder(self) -> Embedder:
        return Embedder("fake", self._images, self._texts)

    def _images(self, sources: Sequence[str | bytes]) -> Iterator[np.ndarray]:
        for source in sources:
            self.embedded += 1
            yield _row(open_image(source)[0])

    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            seed = int(text.split()[-1]) if text.startswith("like ") else 10_000 + len(text)
            rows.append(_row(scene(seed)))
        return np.stack(rows)


def _row(image: Image.Image) -> np.ndarray:
    cells = np.asarray(image.convert("RGB").resize((4, 4), Image.Resampling.BOX), np.float32).reshape(-1)
    cells = cells - cells.mean()
    return (cells / np.linalg.norm(cells)).astype(np.float32)

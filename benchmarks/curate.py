"""How many near duplicates curation finds, how many it is wrong about, and how long it takes among 100,000 pictures.

Usage: python benchmarks/curate.py --pictures DIR [--model starter] [--count 100000]

Twins are made of photographs: smaller, compressed again, cropped, brighter, all of these at once, turned to gray, and
mirrored. Thresholds were chosen on every second photograph (``--half dev``); what counts is measured on the others. A
wrong pair is one of two different photographs, of all pairs that there are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nunbit.curate.near import Groups, Looks, find_twins, search_embeddings, search_looks
from nunbit.curate.perceptual import color_layout, perceptual_hash
from nunbit.curate.rules import CurationConfig
from nunbit.images import open_image
from PIL import Image, ImageEnhance

RULES = CurationConfig()


def main() -> None:
    """Measure quality where there are pictures, then speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--others", type=Path, help="Pictures without twins, for wrong pairs alone.")
    parser.add_argument("--distance", type=int, default=RULES.near_distance)
    parser.add_argument("--half", choices=("dev", "test"), default="test")
    parser.add_argument("--model", default="")
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.pictures:
        encoder = _load(arguments.model)
        files = sorted(arguments.pictures.rglob("*.jpg"))[arguments.half == "test" :: 2]
        quality(files, encoder, arguments.distance)
        if arguments.others:
            others = sorted(arguments.others.rglob("*.jpg"))
            images = [open_image(file)[0] for file in others]
            wrong_pairs(f"{arguments.others.name}, {len(others)} pictures", images, encoder, arguments.distance)
    if arguments.count:
        speed(arguments.count)


def quality(files: list[Path], encoder: Any, distance: int) -> None:
    """Print how many twins of each kind are found, and how many wrong pairs."""
    originals = [open_image(file)[0] for file in files]
    twins: dict[str, list[Image.Image]] = {}
    for file, image in zip(files, originals, strict=True):
        rng = np.random.default_rng(int(hashlib.sha256(file.name.encode()).hexdigest()[:8], 16))
        for kind, twin in make_twins(image, rng):
            twins.setdefault(kind, []).append(twin)
    looks, rows = measure(originals, encoder)
    print(f"{len(files)} photographs; found of each kind, by looks{' and then with the encoder' if encoder else ''}:")
    count = len(files)
    for kind, images in twins.items():
        other, their_rows = measure(images, encoder)
        both = Looks(np.concatenate([looks.hashes, other.hashes]), np.concatenate([looks.layouts, other.layouts]))
        shares = []
        for search in searches(both, None if encoder is None else np.concatenate([rows, their_rows]), distance):
            found = {(int(a), int(b)) for left, right, _ in search(np.arange(count), np.arange(count, 2 * count))
                     for a, b in zip(left, right, strict=True)}  # fmt: skip
            shares.append(found)
        right = [{a for a, b in found if b - count == a} for found in shares]
        either = len(set().union(*right)) / count
        wrong = len({pair for found in shares for pair in found if pair[1] - count != pair[0]})
        print(f"  {kind:32} {len(right[0]) / count:6.1%} {either:6.1%}   wrong: {wrong}")
    wrong_pairs("the photographs among themselves", originals, encoder, distance)


def wrong_pairs(name: str, images: list[Image.Image], encoder: Any, distance: int) -> None:
    """Print how many pairs of different pictures are taken for twins."""
    looks, rows = measure(images, encoder)
    every = np.arange(len(images))
    counts = []
    for search in searches(looks, rows if encoder else None, distance):
        pairs = {(int(a), int(b)) for left, right, _ in search(every, every) for a, b in zip(left, right, strict=True)}
        counts.append(sum(a < b for a, b in pairs))
    print(f"{name}: wrong pairs by looks{' and by the encoder' if encoder else ''}: "
          f"{', '.join(map(str, counts))} of {len(images) * (len(images) - 1) // 2:,}")  # fmt: skip


def searches(looks: Looks, rows: Any, distance: int) -> list[Any]:
    """The searches of the default rules, but for the distance."""
    found = [search_looks(looks, distance)]
    return found if rows is None else [*found, search_embeddings(rows, looks, RULES.near_similarity)]


def measure(images: list[Image.Image], encoder: Any) -> tuple[Looks, Any]:
    """Hashes and grids as curation takes them, and embeddings."""
    small = [image.copy() for image in images]
    for image in small:
        image.thumbnail((256, 256))
    hashes = np.array([perceptual_hash(image) for image in small], np.uint64)
    layouts = np.stack([np.frombuffer(color_layout(image), np.uint8) for image in small])
    rows = encoder.encode_image(images).astype(np.float16) if encoder else np.zeros((len(images), 1), np.float16)
    return Looks(hashes, layouts), rows


def make_twins(image: Image.Image, rng: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """What happens to a picture on its way through the web."""
    width, height = image.size
    yield "half the size", image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    yield "a quarter of the size", image.resize((max(width // 4, 1), max(height // 4, 1)), Image.Resampling.BILINEAR)
    yield "JPEG quality 50", jpeg(image, 50)
    yield "JPEG quality 20", jpeg(image, 20)
    for part in (0.03, 0.06, 0.1):
        yield f"cropped by {part:.0%}", crop(image, part, rng)
    yield "brightness 1.2", ImageEnhance.Brightness(image).enhance(1.2)
    yield "brightness 0.7", ImageEnhance.Brightness(image).enhance(0.7)
    yield "contrast 1.3", ImageEnhance.Contrast(image).enhance(1.3)
    smaller = crop(image, 0.03, rng).resize((width * 2 // 3, height * 2 // 3))
    yield "cropped 3%, 2/3, brighter, JPEG 60", jpeg(ImageEnhance.Brightness(smaller).enhance(1.1), 60)
    yield "gray", image.convert("L").convert("RGB")
    yield "mirrored", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and read again."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def crop(image: Image.Image, part: float, rng: np.random.Generator) -> Image.Image:
    """Cut off a part of both sides, somewhere."""
    width, height = image.size
    left, top = (int(rng.integers(0, side - int(side * (1 - part)) + 1)) for side in (width, height))
    return image.crop((left, top, left + int(width * (1 - part)), top + int(height * (1 - part))))


def speed(count: int) -> None:
    """Print the time of each search among made hashes and embeddings, a tenth of which are twins of others.

    Hashes are spread as those of photographs are: around a few hundred of them, with a third of the bits changed.
    """
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 1 << 64, 500, dtype=np.uint64)
    changes = np.packbits(rng.random((count, 64)) < 0.33, axis=1).view(np.uint64)[:, 0]
    hashes = centers[rng.integers(0, 500, count)] ^ changes
    layouts = rng.integers(0, 256, (count, 192), dtype=np.uint8)
    rows = rng.standard_normal((count, 512), np.float32)
    twins, of = rng.permutation(count)[: count // 10], rng.integers(0, count, count // 10)
    hashes[twins], layouts[twins] = hashes[of] ^ np.uint64(0b1001), layouts[of]
    rows[twins] = rows[of] + 0.1 * rng.standard_normal((len(of), 512), np.float32)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    looks, order = Looks(hashes, layouts), rng.permutation(count).tolist()
    print(f"{count:,} pictures, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, work in (
        ("near duplicates by hashes", lambda: find_twins(order, search_looks(looks, RULES.near_distance))),
        ("groups of the split by hashes", lambda: Groups(count).join_near(range(count), search_looks(looks, 12, 0.95))),
        ("near duplicates by embeddings", lambda: find_twins(order, search_embeddings(rows, looks, 0.96))),
    ):
        start = time.perf_counter()
        found = work()
        suffix = f", {len(found):,} go" if isinstance(found, dict) else ""
        print(f"  {name}: {time.perf_counter() - start:.1f} s{suffix}", flush=True)
    print(f"  peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _load(model: str) -> Any:
    if not model:
        return None
    import nunbit

    return nunbit.load(model)


if __name__ == "__main__":
    main()

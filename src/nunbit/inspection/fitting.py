"""Good parts → a memory bank and a threshold.

Every part is looked at twice: once for the bank, once to be scored by a bank that never saw it. Keeping all features
in between would cost two gigabytes for fifty photographs of 12 megapixels.

Shapes: N good parts, D channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import ImageError, UsageError
from nunbit.images import open_image
from nunbit.inspection.memory_bank import MemoryBank, make_bank
from nunbit.inspection.patches import Look, patch_grid
from nunbit.inspection.threshold import Threshold, set_threshold
from nunbit.types import Rejected

if TYPE_CHECKING:
    from PIL import Image

    from nunbit.console import ShowProgress
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray, ImageSource

CANDIDATES = 20_000
FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How an inspector learns what is good.

    Attributes:
        false_alarms: Share of good parts that may be called defective, in (0, 1).
        places_above: As in `nunbit.inspection.threshold.set_threshold`: the lower, the smaller are regions.
        scale: As in `nunbit.inspection.Look`.
        layers: As in `nunbit.inspection.Look`.
        rows: Features that the bank holds at most. They are chosen from `CANDIDATES`, drawn at random, as many from
            each part.
        seed: Of every random choice.

    Raises:
        UsageError: A value outside of its range.
    """

    false_alarms: float = 0.05
    places_above: float = 0.0003
    scale: float = 1.0
    layers: tuple[int, ...] | None = None
    rows: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.false_alarms < 1 and 0 < self.places_above < 1) or self.rows < 1:
            raise UsageError(f"{self}: expected false_alarms and places_above in (0, 1), and at least one row")

    @property
    def look(self) -> Look:
        """Scale and layers, as pictures are looked at."""
        return Look(self.scale, self.layers)


def fit_bank(
    encoder: Encoder,
    pictures: Sequence[ImageSource],
    options: FitOptions,
    set_aside: Callable[[Rejected], None] | None,
    progress: ShowProgress | None,
) -> tuple[MemoryBank, Threshold]:
    """Learn what good parts look like; the arguments are those of `nunbit.inspection.Inspector.fit`."""
    show = progress or (lambda done, total, note="": None)
    rng = np.random.default_rng(options.seed)
    kept: list[ImageSource] = []
    drawn: list[FloatArray] = []
    for number, (source, picture) in enumerate(_good(pictures, set_aside), start=1):
        features = _features(encoder, picture, options.look)
        kept.append(source)
        drawn.append(features[rng.permutation(len(features))[: max(1, CANDIDATES // len(pictures))]])
        show(number, 2 * len(pictures))
    if len(kept) < 2:
        raise UsageError(
            f"{len(kept)} good part{'s' * (len(kept) != 1)}, expected at least 2: the line between good and defective "
            "is set on parts that the bank does not know",
            hint="give 5 to 50 pictures of good parts, as different as good parts are",
        )
    distances: list[FloatArray] = []
    folds = min(FOLDS, len(kept))
    for fold in range(folds):
        known = np.concatenate([some for number, some in enumerate(drawn) if number % folds != fold])
        bank = make_bank(known, options.rows, seed=options.seed)
        for source in kept[fold::folds]:
            picture, _ = open_image(source)
            distances.append(bank.distances(_features(encoder, picture, options.look)))
            show(len(kept) + len(distances), 2 * len(kept))
    bank = make_bank(np.concatenate(drawn), options.rows, seed=options.seed)
    return bank, set_threshold(distances, options.false_alarms, options.places_above)


def _features(encoder: Encoder, picture: Image.Image, look: Look) -> FloatArray:
    """All patches of a picture, (P, D)."""
    grid = patch_grid(encoder, picture, look)
    return grid.reshape(-1, grid.shape[-1])


def _good(
    pictures: Sequence[ImageSource], set_aside: Callable[[Rejected], None] | None
) -> Iterator[tuple[ImageSource, Image.Image]]:
    """Pictures that can be read, each once: a copy in another fold would make the threshold too low."""
    seen: dict[bytes, str] = {}
    for number, source in enumerate(pictures, start=1):
        name = f"picture {number}" if isinstance(source, bytes) or not hasattr(source, "__fspath__") else str(source)
        name = source if isinstance(source, str) else name
        try:
            picture, _ = open_image(source)
        except ImageError as error:
            if set_aside is None:
                raise
            set_aside(Rejected(name, error.reason, error.message))
            continue
        key = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
        if key in seen:
            rejected = Rejected(name, "copy", f"the same picture as {seen[key]}")
            if set_aside is not None:
                set_aside(rejected)
            continue
        seen[key] = name
        yield source, picture

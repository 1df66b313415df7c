"""From good parts alone: what is wrong with another part, and where.

Place in the river: pictures → `patches` → `memory_bank` → a score, a heat map and regions. Good parts teach what is
normal; what is far from all of it is a defect, of a kind that nobody had to show (PatchCore, arXiv 2106.08265).

Shapes: H W pixels, h w cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from nunbit.images import open_image
from nunbit.inspection.files import read_inspector, write_inspector
from nunbit.inspection.fitting import FitOptions, fit_bank
from nunbit.inspection.memory_bank import MemoryBank
from nunbit.inspection.patches import Look, patch_grid
from nunbit.inspection.regions import Region, find_regions, heat_map
from nunbit.inspection.threshold import Threshold

if TYPE_CHECKING:
    from nunbit.console import ShowProgress
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray, ImageSource, Rejected


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What was found on one part.

    Attributes:
        score: The largest distance of a patch to what good parts show, at least 0; its unit is the encoder's.
        threshold: Parts with a higher score are defective.
        heat_map: (H, W) float32, distances in the unit of the score.
        regions: Where it is defective, the worst first; none on a good part.
    """

    score: float
    threshold: float
    heat_map: FloatArray
    regions: tuple[Region, ...]

    @property
    def is_defective(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold


class Inspector:
    """Knows what good parts look like to an encoder.

    Args:
        encoder: One with patch features: the starter, or a CLIP or SigLIP, with ``engine="torch"``.
        bank: Patches of good parts.
        threshold: From which score on a part is defective.
        look: How pictures were looked at, and are.

    Example:
        >>> inspector = Inspector.fit(nunbit.load(engine="torch"), ["good-1.jpg", "good-2.jpg", ...])
        >>> inspector.inspect("part.jpg").regions
        (Region(left=184, top=480, right=248, bottom=544, score=14.2, kinds=()),)
    """

    def __init__(self, encoder: Encoder, bank: MemoryBank, threshold: Threshold, look: Look) -> None:
        self.encoder = encoder
        self.bank = bank
        self.threshold = threshold
        self.look = look

    @classmethod
    def fit(
        cls,
        encoder: Encoder,
        pictures: Sequence[ImageSource],
        options: FitOptions | None = None,
        *,
        set_aside: Callable[[Rejected], None] | None = None,
        progress: ShowProgress | None = None,
    ) -> Self:
        """Learn from good parts.

        Args:
            encoder: See above.
            pictures: Of good parts, at least 2, better 5 to 50, at one scale; as `Encoder.encode_image` takes them.
                The same picture twice counts once.
            options: False alarms, scale, layers, size of the bank.
            set_aside: Told of each picture that cannot be used, or is there twice. Without it the first one that
                cannot be read is an error.
            progress: Told how far the work has come.

        Raises:
            UsageError: Too few pictures, or the encoder has no patch features.
            ImageError: A picture cannot be read.
        """
        chosen = options or FitOptions()
        bank, threshold = fit_bank(encoder, pictures, chosen, set_aside, progress)
        return cls(encoder, bank, threshold, chosen.look)

    def inspect(self, picture: ImageSource) -> Inspection:
        """Look for defects.

        Args:
            picture: At the scale of the good parts; its sides may be others.

        Raises:
            ImageError: It cannot be read.
        """
        image, _ = open_image(picture)
        grid = patch_grid(self.encoder, image, self.look)
        distances = self.bank.distances(grid.reshape(-1, grid.shape[-1])).reshape(grid.shape[:2])
        cell = self.encoder.patch_size / self.look.scale
        score = float(distances.max())
        defective = score > self.threshold.value
        regions = find_regions(distances, self.threshold.places, cell, image.size) if defective else ()
        return Inspection(score, self.threshold.value, heat_map(distances, cell, image.size), regions)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all of it but the encoder, to whose fingerprint it is bound; one that is there is replaced."""
        write_inspector(folder, self.encoder, self.bank, self.look, self.threshold)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], encoder: Encoder) -> Self:
        """Read it again.

        Args:
            folder: As `save` wrote it.
            encoder: The one that it was made with.

        Raises:
            StoreNotFound: There is no inspector.
            StoreError: Its files are damaged.
            EncoderMismatch: It was made with another encoder; both are named.
        """
        bank, look, threshold = read_inspector(folder, encoder)
        return cls(encoder, bank, threshold, look)

"""Records of captioned photographs, with the licence that says what they may be used for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from nunbit.errors import UsageError

Split: TypeAlias = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True)
class CaptionedPhoto:
    """One photograph and what several people wrote about it."""

    path: Path
    captions: tuple[str, ...]
    license: str

    @property
    def split(self) -> Split:
        """The split that the licence puts it in.

        Licences that forbid derivatives: ``test``, read by the final evaluation only. Other non-commercial ones:
        ``dev``, for choosing. The rest may teach weights that a business ships: ``train``.
        """
        if "NoDerivs" in self.license:
            return "test"
        return "dev" if "NonCommercial" in self.license else "train"


def read_captioned_photos(folder: Path) -> list[CaptionedPhoto]:
    """Read ``folder/captions_boxes.jsonl`` and the photographs in ``folder/images``.

    Raises:
        UsageError: The file is not there.
    """
    listing = folder / "captions_boxes.jsonl"
    if not listing.is_file():
        raise UsageError(f"there is no {listing}", hint="give the folder that holds captions_boxes.jsonl and images/")
    rows = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    return [CaptionedPhoto(folder / "images" / row["image"], tuple(row["captions"]), row["license"]) for row in rows]


def read_caption_groups(annotations: Path, *, exclude: set[str]) -> list[tuple[str, ...]]:
    """Captions of the same picture, from a COCO captions file, in the order of picture ids.

    Args:
        annotations: COCO's ``captions_*.json``.
        exclude: Picture ids as twelve digits, left out: those whose photographs are used elsewhere.

    Returns:
        For each picture with at least five captions, five of them.
    """
    groups: dict[int, list[str]] = {}
    for row in json.loads(annotations.read_text(encoding="utf-8"))["annotations"]:
        groups.setdefault(row["image_id"], []).append(row["caption"].strip())
    kept = (item for item in sorted(groups.items()) if f"{item[0]:012d}" not in exclude)
    return [tuple(captions[:5]) for _, captions in kept if len(captions) >= 5]

"""What the starter's vision-language model learns from: photographs, drawings, and pictures that are only described.

There are few photographs whose licences let their pupils be shipped (142, 116 of them with boxes). The starter's eye
shares a space with words, so captions of other photographs stand for these: a caption is the picture, and what several
people wrote of it says what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nunbit.data.captioned_photos import CaptionedPhoto, Split, read_caption_groups, read_captioned_photos
from nunbit.data.opening import open_source
from nunbit.data.source import SourceConfig
from nunbit.errors import UsageError
from nunbit.instruct.easy_vqa import ask, read_easy_vqa
from nunbit.instruct.formats import Conversation, Described, write_conversations
from nunbit.instruct.rules import Box, Statistics, colors, counts, listing, mentioned, positions, presence
from nunbit.types import Rejected

DESCRIBE = "Describe the picture."
NAME_DRAWING = "What does the drawing show?"
_ROUNDS = 4  # of questions about each photograph, with other negatives
_SEED = 20_260
_OTHER_WORDS = {
    "person": ("man", "woman", "boy", "girl", "child", "kid", "lady", "guy", "player", "men", "women", "children"),
    "airplane": ("plane", "jet"),
    "bicycle": ("bike",),
    "cell phone": ("phone",),
    "couch": ("sofa",),
    "dining table": ("table",),
    "donut": ("doughnut",),
    "handbag": ("purse",),
    "hot dog": ("hotdog",),
    "motorcycle": ("motorbike",),
    "potted plant": ("plant",),
    "refrigerator": ("fridge",),
    "sports ball": ("ball",),
    "teddy bear": ("stuffed animal",),
    "tv": ("television",),
    "wine glass": ("wine",),
    "cow": ("cattle",),
    "truck": ("van",),
    "boat": ("ship",),
    "remote": ("controller",),
}


@dataclass(frozen=True, slots=True)
class BoxedPhoto:
    """A photograph with captions and boxes.

    Attributes:
        photo: The photograph.
        boxes: All that there are of COCO's categories; None where nobody drew any.
    """

    photo: CaptionedPhoto
    boxes: tuple[Box, ...] | None

    @property
    def present(self) -> set[str]:
        """Categories that are there."""
        return {box.category for box in self.boxes or ()}


def read_boxed_photos(folder: Path) -> list[BoxedPhoto]:
    """Read ``folder/captions_boxes.jsonl``.

    Raises:
        UsageError: The file is not there.
    """
    photos = read_captioned_photos(folder)
    rows = (folder / "captions_boxes.jsonl").read_text(encoding="utf-8").splitlines()
    return [BoxedPhoto(photo, _boxes(json.loads(row))) for photo, row in zip(photos, rows, strict=True)]


def statistics_of(photos: Sequence[BoxedPhoto], split: Split = "train") -> Statistics:
    """How often COCO's categories come in the photographs of a split."""
    categories = sorted({name for one in photos for name in one.present})
    return Statistics([one.present for one in photos if one.photo.split == split and one.boxes], categories)


def write_starter_lessons(coco: Path, into: Path, drawings: Sequence[Path] = ()) -> dict[str, Path]:
    """Write the files that the starter's model learns from.

    Args:
        coco: Holds ``captions_boxes.jsonl``, ``images/`` and ``captions_val2017.json``.
        into: A folder; made when it is not there.
        drawings: Pairs of drawings and their names, as `nunbit.data` reads them. Of each, the first text is taken.

    Returns:
        Files by name: ``captions`` and, where there are some, ``drawings`` for the first stage; ``photos``,
        ``described`` and ``easy-vqa`` for the second; ``held-out``, of photographs that teach nothing.

    Raises:
        UsageError: Files of ``coco`` are missing, or of ``drawings``.
        ModelNotFound: The package ``easy-vqa`` is not installed.
    """
    into.mkdir(parents=True, exist_ok=True)
    coco = coco.resolve()  # what a file names without a root starts from that file
    photos = read_boxed_photos(coco)
    statistics = statistics_of(photos)
    train = [one for one in photos if one.photo.split == "train"]
    dev = [one for one in photos if one.photo.split == "dev"]
    groups = read_caption_groups(coco / "captions_val2017.json", exclude={one.photo.path.stem for one in photos})
    rng = np.random.default_rng(_SEED)
    sets = {
        "captions": [*_captions(train), *_captions_of_described(groups, rng)],
        "drawings": [one for path in drawings for one in _drawings(path)],
        "photos": list(_about_photos(train, statistics, rng, rounds=_ROUNDS)),
        "described": list(_about_described(groups, statistics, rng)),
        "easy-vqa": read_easy_vqa("train"),
        "held-out": list(_about_photos(dev, statistics, rng, rounds=1)),
    }
    files = {name: into / f"{name}.jsonl" for name, conversations in sets.items() if conversations}
    for name, file in files.items():
        write_conversations(file, sets[name], "messages")
    return files


def _captions(photos: Sequence[BoxedPhoto]) -> Iterator[Conversation]:
    for one in photos:
        listed = listing(one.boxes or ())
        for number, caption in enumerate((*one.photo.captions, *filter(None, (listed,)))):
            yield ask(f"{one.photo.path.stem}-{number}", one.photo.path, DESCRIBE, caption)


def _drawings(path: Path) -> Iterator[Conversation]:
    """Names of drawings whose licence, where one is written, lets their pupils be shipped under any other."""
    for record in open_source(SourceConfig(str(path))).records():
        if isinstance(record, Rejected):
            raise UsageError(f"{path}: {record.reason}: {record.detail}")
        if not isinstance(record.image, str):
            raise UsageError(f"{path} holds pictures themselves, expected paths of pictures")
        if "-SA" not in str(record.metadata.get("license", "")):
            yield ask(f"drawing-{record.key}", Path(record.image).resolve(), NAME_DRAWING, record.texts[0])


def _captions_of_described(groups: Sequence[tuple[str, ...]], rng: np.random.Generator) -> Iterator[Conversation]:
    """One caption is the picture, another one is what is said of it."""
    for number, group in enumerate(groups):
        shown, said = rng.permutation(len(group))[:2]
        yield ask(f"described-{number}", Described(group[shown]), DESCRIBE, group[said])


def _about_photos(
    photos: Sequence[BoxedPhoto], statistics: Statistics, rng: np.random.Generator, *, rounds: int
) -> Iterator[Conversation]:
    for one in photos:
        name, path = one.photo.path.stem, one.photo.path
        boxes = one.boxes or ()
        questions = [(DESCRIBE, caption) for caption in one.photo.captions]
        questions += [*counts(boxes), *positions(boxes), *colors(one.present, one.photo.captions)]
        if one.boxes is not None:
            questions += [question for _ in range(rounds) for question in presence(one.present, statistics, rng)]
        for number, (question, answer) in enumerate(dict.fromkeys(questions)):
            yield ask(f"{name}-{number}", path, question, answer)


def _about_described(
    groups: Sequence[tuple[str, ...]], statistics: Statistics, rng: np.random.Generator
) -> Iterator[Conversation]:
    for number, group in enumerate(groups):
        shown, said = rng.permutation(len(group))[:2]
        picture = Described(group[shown])
        questions = presence(mentioned(statistics.categories, group, _OTHER_WORDS), statistics, rng, most=3)
        questions += [*colors(set(statistics.categories), group), (DESCRIBE, group[said])]
        for place, (question, answer) in enumerate(questions):
            yield ask(f"described-{number}-{place}", picture, question, answer)


def _boxes(row: Mapping[str, Any]) -> tuple[Box, ...] | None:
    found = row.get("instances")
    if not found:
        return None
    return tuple(Box(one["category"], one["bbox"][0], one["bbox"][2], bool(one.get("iscrowd"))) for one in found)

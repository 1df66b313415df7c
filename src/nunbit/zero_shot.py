"""How often an encoder names pictures right that are sorted into a folder a class, without having been taught them.

Place in the river: folder of classes → `picture_files` → `encode` → `recognition` → counts.

Shapes: C classes, D width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nunbit.class_folders import class_folders, class_pictures
from nunbit.encode import Encoder, encode_stream
from nunbit.errors import UsageError
from nunbit.recognition import Labels
from nunbit.types import Rejected

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

TOP = 5
"""How many guesses the looser of the two accuracies allows."""


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """One class: top-1 accuracy out of 100, and over how many pictures."""

    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class ZeroShotReport:
    """Accuracies out of 100. A label that ties with the right one counts as ahead of it, so equal answers win nothing.

    Attributes:
        top1: Pictures whose right label comes first.
        top5: Pictures whose right label is among the first 5, or among all when there are fewer classes.
        macro: Mean of the classes' top-1: a class with few pictures weighs as much as one with many.
        per_class: By label. A class without a readable picture competes with the others but has no entry.
        classes: C, how many labels competed.
        count: Pictures that were encoded.
        rejected: Pictures that were set aside; they count nowhere.
        seconds: How long it took.
    """

    top1: float
    top5: float
    macro: float
    per_class: Mapping[str, ClassAccuracy]
    classes: int
    count: int
    rejected: tuple[Rejected, ...]
    seconds: float


def zero_shot(
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    templates: str | Sequence[str] = "none",
    classnames: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    exact: bool = False,
) -> ZeroShotReport:
    """Measure an encoder on ``folder/<class>/pictures``.

    Args:
        encoder: Any encoder.
        folder: Holds a folder a class, with its pictures there or below. Hidden folders and loose files are no class.
        templates: Sentences to put the labels into, as in `nunbit.recognition.Labels`.
        classnames: Label of every folder, by the folder's name. By default the name itself, with underscores and
            hyphens read as spaces. Folders with the same label are one class.
        progress: Called with how many pictures are dealt with, and how many there are.
        exact: Decode large JPEGs in full, as in ``Encoder.encode_image``.

    Raises:
        UsageError: Fewer than two classes, no readable picture, or ``classnames`` that do not fit the folders.

    Example:
        >>> round(zero_shot(encoder, "clothing/test", templates="photo").top1, 1)
        30.4
    """
    start = time.perf_counter()
    folders = class_folders(Path(folder), classnames)
    labels = Labels(encoder, list(dict.fromkeys(folders.values())), templates=templates)
    position = {label: number for number, label in enumerate(labels.classnames)}
    found = list(class_pictures(folders))
    rejected = [path for path, _ in found if isinstance(path, Rejected)]
    files = [(path, position[label]) for path, label in found if not isinstance(path, Rejected)]
    tally = _Tally(len(labels.classnames))
    stream = encode_stream(encoder, (path for path, _ in files), exact=exact)
    for done, (item, (_, truth)) in enumerate(zip(stream, files, strict=True), start=1):
        if isinstance(item, Rejected):
            rejected.append(item)
        else:
            tally.add(truth, labels_ahead(labels.similarity(item.embedding), truth))
        if progress is not None:
            progress(done, len(files))
    if not tally.pictures.any():
        reason = f"the first was set aside: {rejected[0].reason}" if rejected else "put pictures into the class folders"
        raise UsageError(f"no picture in {os.fspath(folder)} could be used", hint=reason)
    return tally.report(labels.classnames, tuple(rejected), time.perf_counter() - start)


def labels_ahead(similarity: FloatArray, truth: int) -> int:
    """How many labels beat the right one or tie with it; something that is not a number does as well.

    Args:
        similarity: (C,) cosines of one picture.
        truth: Position of the right label.
    """
    return len(similarity) - 1 - int((similarity < similarity[truth]).sum())


class _Tally:
    """Counts by class."""

    def __init__(self, classes: int) -> None:
        self.pictures: npt.NDArray[np.int64] = np.zeros(classes, np.int64)  # (C,), as the next two
        self._first = np.zeros_like(self.pictures)
        self._among_top = np.zeros_like(self.pictures)

    def add(self, truth: int, ahead: int) -> None:
        self.pictures[truth] += 1
        self._first[truth] += ahead == 0
        self._among_top[truth] += ahead < TOP

    def report(self, classnames: list[str], rejected: tuple[Rejected, ...], seconds: float) -> ZeroShotReport:
        count = int(self.pictures.sum())
        per_class = {
            name: ClassAccuracy(100 * int(first) / int(total), int(total))
            for name, first, total in zip(classnames, self._first, self.pictures, strict=True)
            if total
        }
        return ZeroShotReport(
            top1=100 * int(self._first.sum()) / count,
            top5=100 * int(self._among_top.sum()) / count,
            macro=sum(row.accuracy for row in per_class.values()) / len(per_class),
            per_class=per_class,
            classes=len(classnames),
            count=count,
            rejected=rejected,
            seconds=seconds,
        )

"""Photographs that people sorted, divided into what may teach and what is measured on; and how shots are drawn.

Sets: clothing (10 classes), grocery (81 products), grocery-coarse (the same photographs by kind of product), and
pcb (the defects of circuit boards, cut out of the photographs, by kind; boards are divided in half, by name).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nunbit.adapt import ClassTexts, Example, Examples, Shots, Towers, class_texts, embed_examples
from PIL import Image

if TYPE_CHECKING:
    from nunbit.encode import Encoder

Parts = tuple[list[Example], list[Example]]

DEFECTS = {1: "open", 2: "short", 3: "mouse bite", 4: "spur", 5: "copper", 6: "pin hole"}
AROUND = 24
"""Pixels of the board that stay around a defect."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """A set: what may teach, and what is measured on."""

    classes: ClassTexts
    train: Shots
    test: Shots

    def dev(self) -> Sorted:
        """The same without the test photographs: those that may teach, divided in half."""
        teaches = np.random.default_rng(0).random(len(self.train.rows)) < 0.5
        return Sorted(self.classes, self.train.part(teaches), self.train.part(~teaches))


def read_sorted(name: str, encoder: Encoder, data: Path, scratch: Path, towers: Towers | None = None) -> Sorted:
    """Read and embed a set; with ``towers`` their inputs, too."""
    parts = SETS[name](data, scratch)
    names = tuple(dict.fromkeys(one.labels[0] for one in parts[0]))
    shots = []
    for part in parts:
        found, kept, _ = embed_examples(encoder, Examples(names, tuple(part), False, ()))
        inputs = None if towers is None else towers.inputs([one.image for one in kept])
        shots.append(replace(found, inputs=inputs))
    return Sorted(replace(class_texts(encoder, names), towers=towers), *shots)


def _from_folders(folder: Path, labels: dict[str, str] | None = None) -> Parts:
    train, test = (
        [
            Example(str(path), str(path), (labels[path.parent.name] if labels else _words(path.parent.name),))
            for path in sorted((folder / part).glob("*/*"))
        ]
        for part in ("train", "test")
    )
    return train, test


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _coarse(data: Path, _: Path) -> Parts:
    lines = (data / "grocery/classes.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = {Path(row["image"]).stem: _words(row["coarse"]) for row in map(json.loads, lines)}
    return _from_folders(data / "grocery", kinds)


@dataclass(frozen=True, slots=True)
class Defect:
    """A place on a board, in pixels, and what is wrong there."""

    box: tuple[int, int, int, int]
    label: str


def read_defects(data: Path, board: str) -> list[Defect]:
    """What is wrong with a board of DeepPCB."""
    lines = [line for line in (data / f"deeppcb/boxes/{board}.txt").read_text().split("\n") if line.strip()]
    numbers = [tuple(map(int, line.replace(",", " ").split())) for line in lines]
    return [
        Defect((left, top, right, bottom), f"{DEFECTS[kind]} on a circuit board")
        for left, top, right, bottom, kind in numbers
    ]


def cut_defects(data: Path, board: str, scratch: Path) -> Iterator[Example]:
    """Its defects as pictures of their own, with a little of what is around them."""
    with Image.open(data / f"deeppcb/images/{board}_test.jpg") as opened:
        picture = opened.convert("RGB")
    for place, defect in enumerate(read_defects(data, board)):
        left, top, right, bottom = defect.box
        file = scratch / f"{board}-{place}.png"
        picture.crop((left - AROUND, top - AROUND, right + AROUND, bottom + AROUND)).save(file)
        yield Example(str(file), str(file), (defect.label,))


def _defects(data: Path, scratch: Path) -> Parts:
    boards = sorted(path.stem for path in (data / "deeppcb/boxes").glob("*.txt"))
    train, test = ([one for board in boards[half::2] for one in cut_defects(data, board, scratch)] for half in (0, 1))
    return train, test


SETS: dict[str, Callable[[Path, Path], Parts]] = {
    "clothing": lambda data, _: _from_folders(data / "clothing"),
    "grocery": lambda data, _: _from_folders(data / "grocery"),
    "grocery-coarse": _coarse,
    "pcb": _defects,
}

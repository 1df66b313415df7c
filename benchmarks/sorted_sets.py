"""Photographs that people sorted, divided into what may teach and what is measured on; and how shots are drawn.

Sets: clothing (10 classes), grocery (81 products), grocery-coarse (the same photographs by kind of product), and
pcb (the defects of circuit boards, cut out of the photographs, by kind; boards are divided in half, by name).
"""

from __future__ import annotations

import json
from collections.abc import Callable
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


def _defects(data: Path, scratch: Path) -> Parts:
    boards = sorted((data / "deeppcb/boxes").glob("*.txt"))
    parts: Parts = ([], [])
    for number, board in enumerate(boards):
        with Image.open(data / f"deeppcb/images/{board.stem}_test.jpg") as opened:
            picture = opened.convert("RGB")
        for place, line in enumerate(board.read_text().split("\n")):
            if not line.strip():
                continue
            left, top, right, bottom, kind = map(int, line.replace(",", " ").split())
            file = scratch / f"{board.stem}-{place}.png"
            picture.crop((left - AROUND, top - AROUND, right + AROUND, bottom + AROUND)).save(file)
            parts[number % 2].append(Example(str(file), str(file), (f"{DEFECTS[kind]} on a circuit board",)))
    return parts


SETS: dict[str, Callable[[Path, Path], Parts]] = {
    "clothing": lambda data, _: _from_folders(data / "clothing"),
    "grocery": lambda data, _: _from_folders(data / "grocery"),
    "grocery-coarse": _coarse,
    "pcb": _defects,
}

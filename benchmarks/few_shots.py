"""The ladder of `nunbit.adapt` on photographs that nobody chose for it: every rung, and what the examples chose.

Usage: python benchmarks/few_shots.py --data ../shared/data [--model NAME] [--sets clothing,...] [--page]

Protocol: k in {1, 2, 4, 8, 16} pictures a class are drawn from the training photographs, five times with other seeds.
Rungs, settings and ``auto`` see these and the labels' words alone. Each head is then measured on the test photographs,
which are used for nothing else: what had to be chosen was chosen with ``--dev``. Where a class has fewer than k
training photographs, all of them are taken.

Sets: clothing (10 classes), grocery (81 products), grocery-coarse (the same photographs by kind of product), and
pcb (the defects of circuit boards, cut out of the photographs, by kind; boards are divided in half, by name).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import nunbit
from nunbit.adapt import ON_EMBEDDINGS, ClassTexts, Example, Examples, Shots, class_texts, climb, embed_examples
from nunbit.console import track
from PIL import Image

from pages import Page, table

if TYPE_CHECKING:
    from nunbit.encode import Encoder

KS = (1, 2, 4, 8, 16)
SEEDS = range(5)
AUTO = "auto"
DEFECTS = {1: "open", 2: "short", 3: "mouse bite", 4: "spur", 5: "copper", 6: "pin hole"}
AROUND = 24
"""Pixels of the board that stay around a defect."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """A set: what may teach, and what is measured on."""

    classes: ClassTexts
    train: Shots
    test: Shots


@dataclass(frozen=True, slots=True)
class Trial:
    """One draw: accuracy out of 100 of each rung and of ``auto``, what ``auto`` took, and how long all of it took."""

    shots: int
    seed: int
    accuracy: dict[str, float]
    chosen: str
    seconds: float


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds clothing/, grocery/ and deeppcb/")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--sets", default=",".join(SETS), help=f"between commas: {', '.join(SETS)}")
    parser.add_argument("--dev", action="store_true", help="to choose by: divide the training photographs in half")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    encoder = nunbit.load(options.model)
    page = Page("few-shots", f"Learning from k pictures a class: {encoder.name}")
    page.add("Accuracy on the test photographs, %, mean of five draws; after ± the deviation of one draw.")
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            data = SETS[name](encoder, options.data, Path(scratch))
        if options.dev:
            teaches = np.random.default_rng(0).random(len(data.train.rows)) < 0.5
            data = Sorted(data.classes, data.train.part(teaches), data.train.part(~teaches))
        trials = list(track(_trials(data), label=name, total=len(KS) * len(SEEDS)))
        page.add(_section(name, data, trials))
    page.close(to_file=options.page)


def _trials(data: Sorted) -> Iterator[Trial]:
    for shots in KS:
        for seed in SEEDS:
            yield _trial(data, shots, seed)


def _trial(data: Sorted, shots: int, seed: int) -> Trial:
    chosen = draw(data.train, shots, seed)
    start = time.perf_counter()
    ladder = climb(data.classes, data.train.part(chosen))
    seconds = time.perf_counter() - start
    accuracy = {result.name: _accuracy(result.head.logits(data.test.rows), data.test) for result in ladder.results}
    return Trial(shots, seed, accuracy | {AUTO: accuracy[ladder.best.name]}, ladder.best.name, seconds)


def draw(shots: Shots, count: int, seed: int) -> np.ndarray:
    """(N,) bool: so many examples of each class, or all of a class that has fewer."""
    rng = np.random.default_rng([seed, count])
    chosen = np.zeros(len(shots.rows), bool)
    for one in range(shots.targets.shape[1]):
        members = np.flatnonzero(shots.targets[:, one])
        chosen[rng.permutation(members)[:count]] = True
    return chosen


def _accuracy(logits: np.ndarray, shots: Shots) -> float:
    return 100 * float((logits.argmax(1) == shots.targets.argmax(1)).mean())


def _section(name: str, data: Sorted, trials: Sequence[Trial]) -> str:
    by_rung: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        for rung, value in trial.accuracy.items():
            by_rung[rung][trial.shots].append(value)
    rows = [
        [rung, *(f"{np.mean(by_rung[rung][k]):.1f} ± {np.std(by_rung[rung][k]):.1f}" for k in KS)]
        for rung in (*ON_EMBEDDINGS, AUTO)
    ]
    means = {
        rung: float(np.mean([value for values in found.values() for value in values]))
        for rung, found in by_rung.items()
    }
    best = max((rung for rung in means if rung != AUTO), key=lambda rung: means[rung])
    gap = means[AUTO] - means[best]
    below = [t for t in trials if t.accuracy[AUTO] < t.accuracy["zero-shot"] - _half_interval(t, data)]
    slowest = max(trials, key=lambda trial: trial.seconds)
    taken = ", ".join(f"{k}: {_most([t.chosen for t in trials if t.shots == k])}" for k in KS)
    return (
        f"## {name}: {len(data.classes.names)} classes, {len(data.test.rows)} test pictures\n\n"
        + table(["k", *map(str, KS)], rows)
        + f"\n\n`auto` took most often: {taken}. On the mean over k it is {gap:+.1f} points from the best rung, {best} "
        f"(bar: at least -1.0): {'met' if gap >= -1 else 'not met'}. Draws in which it is below zero-shot by more than "
        f"the interval: {len(below)} of {len(trials)} (bar: 0). Slowest climb from embeddings: "
        f"{slowest.seconds:.1f} s, k = {slowest.shots}."
    )


def _half_interval(trial: Trial, data: Sorted) -> float:
    """Half of the 95 % interval of an accuracy over the test pictures, in points."""
    share = trial.accuracy["zero-shot"] / 100
    return 196 * float(np.sqrt(max(share * (1 - share), 1e-4) / len(data.test.rows)))


def _most(names: Sequence[str]) -> str:
    return max(sorted(set(names)), key=names.count)


def _from_folders(encoder: Encoder, folder: Path, labels: dict[str, str] | None) -> Sorted:
    parts = []
    for part in ("train", "test"):
        found = [
            Example(str(path), str(path), (labels[path.parent.name] if labels else _words(path.parent.name),))
            for path in sorted((folder / part).glob("*/*"))
        ]
        parts.append(found)
    return _sorted(encoder, *parts)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _sorted(encoder: Encoder, train: list[Example], test: list[Example]) -> Sorted:
    names = tuple(dict.fromkeys(one.labels[0] for one in train))
    shots = [embed_examples(encoder, Examples(names, tuple(part), False, ()))[0] for part in (train, test)]
    return Sorted(class_texts(encoder, names), *shots)


def _coarse(encoder: Encoder, data: Path, _: Path) -> Sorted:
    lines = (data / "grocery/classes.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = {Path(row["image"]).stem: _words(row["coarse"]) for row in map(json.loads, lines)}
    return _from_folders(encoder, data / "grocery", kinds)


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
        Defect((left, top, right, bottom), f"{DEFECTS[k]} on a circuit board")
        for left, top, right, bottom, k in numbers
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


def _defects(encoder: Encoder, data: Path, scratch: Path) -> Sorted:
    boards = sorted(path.stem for path in (data / "deeppcb/boxes").glob("*.txt"))
    parts = [[one for board in boards[half::2] for one in cut_defects(data, board, scratch)] for half in (0, 1)]
    return _sorted(encoder, *parts)


SETS: dict[str, Callable[[Encoder, Path, Path], Sorted]] = {
    "clothing": lambda encoder, data, _: _from_folders(encoder, data / "clothing", None),
    "grocery": lambda encoder, data, _: _from_folders(encoder, data / "grocery", None),
    "grocery-coarse": _coarse,
    "pcb": _defects,
}


if __name__ == "__main__":
    main()

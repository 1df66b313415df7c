"""Inspection of circuit boards from good ones alone: whether, where, and which kind of defect.

Usage: python benchmarks/inspection.py --data ../shared/data [--dev] [--page]

DeepPCB: 100 boards, each a template (the good part), a photograph with defects, and boxes around these. Every board has
a layout of its own. Half of the boards, every other one by name, is for choosing (--dev); the other half is reported.

Protocol: a half is divided in two folds. The templates of one fold teach, the boards of the other one are tested: their
templates are good, their photographs defective. Then the folds change places. So no layout that is tested was seen;
this is harder than a factory, where a part looks like the one before. That case is shown beside it: each board's own
template is added to the bank. It says nothing of whether good parts are told from bad ones, for the good one is known.

Kinds: heads learn from k defects of each kind, cut out of the fold that teaches, five times with other seeds; then they
name the regions that were found on the other fold. A region's truth is the box that it covers most.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import nunbit
from nunbit.adapt import Examples, LinearProbe, class_texts, climb, embed_examples
from nunbit.adapt.study import draw
from nunbit.adapt.unknown import auroc
from nunbit.console import say, track
from nunbit.encode import Encoder, EncoderInfo
from nunbit.head import Head
from nunbit.images import open_image
from nunbit.inspection import FitOptions, Inspection, Inspector, MemoryBank, Region, cut_regions, patch_grid
from nunbit.inspection.kinds import MARGIN
from PIL import Image

from few_shots import KS, SEEDS
from pages import Page, table
from sorted_sets import DEFECTS, Defect, cut_defects, read_defects

GOOD_PARTS = (5, 25)
BAR = 0.85
MARGINS = (0, 8, 16, 24, 32)
_TRIES = 100


class Remembering(Encoder):
    """An encoder that looks at each tile once, so that many settings can be measured."""

    def __init__(self, encoder: Encoder) -> None:
        info = EncoderInfo(encoder.name, encoder.embedding_size, encoder.preprocessing, encoder.engine)
        super().__init__(encoder.towers, info)
        self._seen: dict[bytes, np.ndarray] = {}

    def patch_features(self, pixel_values: np.ndarray, *, layers: Sequence[int] | None = None) -> np.ndarray:
        """As any encoder gives them."""
        key = hashlib.sha256(pixel_values.tobytes() + repr(layers).encode()).digest()
        if key not in self._seen:
            self._seen[key] = super().patch_features(pixel_values, layers=layers)
        return self._seen[key]


@dataclass(slots=True)
class Found:
    """What was found on the boards of both folds: all that figures are made of.

    Attributes:
        good: Scores of templates, in lines (score / threshold), since each fold has its own.
        bad: The same of boards with defects.
        inside: Highest values of the heat map in true boxes, by kind.
        outside: The same in boxes of the same sizes that touch no true one.
        pixels: Values of every fourth pixel, and whether it lies in a true box.
        reached: For each true box whether a region touches it.
        regions: Regions on defective boards; those that touch no true box.
    """

    good: list[float] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)
    inside: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    outside: list[float] = field(default_factory=list)
    pixels: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    regions: list[bool] = field(default_factory=list)

    def add_bad(self, found: Inspection, defects: Sequence[Defect], rng: np.random.Generator) -> None:
        """Take in a board with defects."""
        heat = found.heat_map / found.threshold
        mask = np.zeros(heat.shape, bool)
        for defect in defects:
            mask[_cut(defect.box)] = True
        self.bad.append(found.score / found.threshold)
        self.pixels.append((heat[::2, ::2].ravel(), mask[::2, ::2].ravel()))
        for defect in defects:
            self.inside[defect.label].append(float(heat[_cut(defect.box)].max()))
            self.outside += _elsewhere(heat, mask, defect.box, rng)
            self.reached.append(any(_overlap(region.box, defect.box) for region in found.regions))
        self.regions += [any(_overlap(region.box, one.box) for one in defects) for region in found.regions]

    def add_good(self, found: Inspection) -> None:
        """Take in a good board."""
        heat = found.heat_map[::2, ::2].ravel() / found.threshold
        self.good.append(found.score / found.threshold)
        self.pixels.append((heat, np.zeros(len(heat), bool)))

    def by_kind(self) -> dict[str, float]:
        """AUROC of boxes, of each kind of defect."""
        return {label: _auroc(self.inside[label], self.outside) for label in sorted(self.inside)}

    def row(self) -> list[str]:
        """AUROC of pictures, pixels, boxes; then what the threshold does, in percent; then regions."""
        values, masks = (np.concatenate(some) for some in zip(*self.pixels, strict=True))
        inside = [value for some in self.inside.values() for value in some]
        picture = f"{_auroc(self.bad, self.good):.3f}" if self.good else ""
        alarms = f"{100 * np.mean(np.array(self.good) > 1):.0f}" if self.good else ""
        return [
            picture,
            f"{_auroc(values[masks], values[~masks]):.3f}",
            f"{_auroc(inside, self.outside):.3f}",
            alarms,
            f"{100 * np.mean(np.array(self.bad) > 1):.0f}",
            f"{100 * np.mean(self.reached):.0f}",
            f"{100 * np.mean(self.regions):.0f}",
        ]


HEAD = ["AUROC, pictures", "pixels", "boxes", "good called bad, %", "bad called bad, %", "defects reached, %"]
HEAD.append("regions that are defects, %")


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds deeppcb/")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=FitOptions().rows)
    parser.add_argument("--places-above", type=float, default=FitOptions().places_above)
    parser.add_argument("--dev", action="store_true", help="to choose by: the other half of the boards")
    parser.add_argument("--boards", type=int, help="so many of them alone, to see whether it runs")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    encoder = Remembering(nunbit.load(options.model, engine="torch"))
    half = sorted(path.stem for path in (options.data / "deeppcb/boxes").glob("*.txt"))[options.dev :: 2]
    half = half[: options.boards]
    boards = Boards(encoder, options.data, (half[0::2], half[1::2]))
    page = Page("inspection", f"Circuit boards, inspected from good ones alone: {encoder.name}")
    page.add(__doc__.partition("\n\n")[2].partition("\n\n")[2].strip())
    page.add(f"{len(half)} boards {'to choose by' if options.dev else 'that nothing was chosen by'}.")
    how = FitOptions(scale=options.scale, rows=options.rows, places_above=options.places_above)
    fitted = {count: boards.fit(how, count) for count in track(GOOD_PARTS, label="learning", total=len(GOOD_PARTS))}
    page.add(_where(boards, fitted))
    say(page.parts[-1])  # the rest takes minutes
    page.add(_kinds(boards, fitted[GOOD_PARTS[-1]], margins=MARGINS if options.dev else (MARGIN,)))
    page.close(to_file=options.page)


@dataclass(frozen=True, slots=True)
class Boards:
    """Two folds of boards, by name."""

    encoder: Encoder
    data: Path
    folds: tuple[list[str], list[str]]

    def fit(self, how: FitOptions, count: int) -> list[Inspector]:
        """An inspector for each fold, from so many templates of the other."""
        return [Inspector.fit(self.encoder, self._draw(fold, count), how) for fold in self.folds[::-1]]

    def test(self, inspectors: Sequence[Inspector]) -> Iterator[tuple[Inspector, str]]:
        """Every board with the inspector that does not know it."""
        for inspector, fold in zip(inspectors, self.folds, strict=True):
            for board in fold:
                yield inspector, board

    def picture(self, board: str, kind: str) -> str:
        """The path of a ``temp`` or ``test`` picture."""
        return str(self.data / f"deeppcb/images/{board}_{kind}.jpg")

    def _draw(self, fold: Sequence[str], count: int) -> list[str]:
        order = np.random.default_rng(0).permutation(len(fold))
        return [self.picture(fold[number], "temp") for number in order[:count]]


def _where(boards: Boards, fitted: dict[int, list[Inspector]]) -> str:
    rows, seconds, by_kind = [], [], {}
    for count, inspectors in fitted.items():
        found, rng = Found(), np.random.default_rng(0)
        for inspector, board in track(
            boards.test(inspectors), label=f"{count} good", total=sum(map(len, boards.folds))
        ):
            found.add_good(inspector.inspect(boards.picture(board, "temp")))
            start = time.perf_counter()
            inspected = inspector.inspect(boards.picture(board, "test"))
            seconds.append(time.perf_counter() - start)
            found.add_bad(inspected, read_defects(boards.data, board), rng)
        rows.append([f"{count} other boards", *found.row()])
        by_kind = found.by_kind()
    known = _with_own(boards, fitted[GOOD_PARTS[-1]])
    rows.append([f"the same {GOOD_PARTS[-1]}, and its own template", *known.row()])
    first = seconds[: sum(map(len, boards.folds))]  # later ones remember their tiles
    bank = fitted[GOOD_PARTS[-1]][0].bank.rows
    lines = [inspectors[0].threshold.words() for inspectors in fitted.values()]
    met = "met" if float(rows[-2][3]) >= BAR else "not met"
    return (
        table(["good parts", *HEAD], rows)
        + f"\n\nBar, AUROC of boxes from {GOOD_PARTS[-1]} other boards: at least {BAR}. Found {rows[-2][3]}: {met}. By "
        + "kind: "
        + ", ".join(f"{label.removesuffix(' on a circuit board')} {value:.3f}" for label, value in by_kind.items())
        + f".\n\nA picture of 640 × 640 takes {np.median(first):.2f} s (median of {len(first)}); the bank holds "
        f"{len(bank):,} patches of {bank.shape[1]} numbers, {bank.nbytes / 1e6:.1f} MB.\n\nWhat the threshold "
        "promises, for boards like those that taught: "
        + "; ".join(f"{n}: {line}" for n, line in zip(fitted, lines, strict=True))
        + "."
    )


def _with_own(boards: Boards, inspectors: Sequence[Inspector]) -> Found:
    found, rng = Found(), np.random.default_rng(0)
    for inspector, board in boards.test(inspectors):
        template, _ = open_image(boards.picture(board, "temp"))
        own = patch_grid(boards.encoder, template, inspector.look)
        bank = MemoryBank(np.concatenate([inspector.bank.rows, own.reshape(-1, own.shape[-1])]))
        knowing = Inspector(boards.encoder, bank, inspector.threshold, inspector.look)
        found.add_bad(knowing.inspect(boards.picture(board, "test")), read_defects(boards.data, board), rng)
    return found


def _kinds(boards: Boards, inspectors: Sequence[Inspector], margins: Sequence[int]) -> str:
    """Accuracy of kinds of found regions, by shots."""
    right: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for inspector, fold, other in zip(inspectors, boards.folds, boards.folds[::-1], strict=True):
        crops: dict[int, list[Image.Image]] = defaultdict(list)
        truths: list[str] = []
        for board in fold:
            picture, _ = open_image(boards.picture(board, "test"))
            defects = read_defects(boards.data, board)
            told = [(one, truth) for one in inspector.inspect(picture).regions if (truth := _truth(one, defects))]
            truths += [truth for _, truth in told]
            for margin in margins:
                crops[margin] += cut_regions(picture, [region for region, _ in told], margin)
        rows = {margin: boards.encoder.encode_image(crops[margin]) for margin in margins}
        for shots, head in _heads(boards, other):
            for margin in margins:
                said = [head.classnames[best] for best in head.logits(rows[margin]).argmax(1)]
                right[margin, shots] += [one == truth for one, truth in zip(said, truths, strict=True)]
    count = len(right[margins[0], KS[0]]) // len(SEEDS)
    table_rows = [
        [f"{margin} pixels around", *(f"{100 * np.mean(right[margin, k]):.1f}" for k in KS)] for margin in margins
    ]
    return (
        f"## Kinds: {len(DEFECTS)}, named on {count} regions that touch a true box\n\nAccuracy by shots a kind, %, "
        f"mean of {len(SEEDS)} draws (by chance {100 / len(DEFECTS):.0f}); heads are linear probes.\n\n"
        + table(["shots", *map(str, KS)], table_rows)
    )


def _heads(boards: Boards, fold: Sequence[str]) -> list[tuple[int, Head]]:
    """A head for each number of shots and seed."""
    with tempfile.TemporaryDirectory() as scratch:
        examples = [one for board in fold for one in cut_defects(boards.data, board, Path(scratch))]
        names = tuple(dict.fromkeys(one.labels[0] for one in examples))
        shots, _, _ = embed_examples(boards.encoder, Examples(names, tuple(examples), False, ()))
    classes = class_texts(boards.encoder, names)
    draws = [(k, seed) for k in KS for seed in SEEDS]
    return [
        (k, climb(classes, shots.part(draw(shots.targets, k, seed)), [LinearProbe.NAME]).best.head)
        for k, seed in track(draws, label="heads", total=len(draws))
    ]


def _truth(region: Region, defects: Sequence[Defect]) -> str | None:
    best = max(defects, key=lambda one: _overlap(region.box, one.box))
    return best.label if _overlap(region.box, best.box) else None


def _overlap(one: Sequence[int], other: Sequence[int]) -> int:
    """Pixels that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _elsewhere(
    heat: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator
) -> list[float]:
    """The highest value in a box of that size, somewhere where no true box is; none where none was found."""
    width, height = box[2] - box[0], box[3] - box[1]
    for _ in range(_TRIES):
        left, top = (int(rng.integers(length + 1)) for length in (mask.shape[1] - width, mask.shape[0] - height))
        place = _cut((left, top, left + width, top + height))
        if not mask[place].any():
            return [float(heat[place].max())]
    return []


def _cut(box: Sequence[int]) -> tuple[slice, slice]:
    return slice(box[1], box[3]), slice(box[0], box[2])


def _auroc(high: Sequence[float] | np.ndarray, low: Sequence[float] | np.ndarray) -> float:
    return auroc(np.asarray(high, float), np.asarray(low, float))


if __name__ == "__main__":
    main()

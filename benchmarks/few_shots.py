"""The ladder of `nunbit.adapt` on photographs that nobody chose for it: every rung, and what the examples chose.

Usage: python benchmarks/few_shots.py --data ../shared/data [--model NAME] [--sets clothing,...] [--rungs a,b] [--page]

Protocol: k in {1, 2, 4, 8, 16} pictures a class are drawn from the training photographs, five times with other seeds.
Rungs, settings and ``auto`` see these and the labels' words alone. Each head is then measured on the test photographs,
which are used for nothing else: what had to be chosen was chosen with ``--dev``. Where a class has fewer than k
training photographs, all of them are taken.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import nunbit
from nunbit.adapt import ON_EMBEDDINGS, RUNGS, Shots, Towers, climb
from nunbit.adapt.study import draw
from nunbit.adapt.towers import TunedHead
from nunbit.console import track
from nunbit.head import Head

from pages import Page, table
from sorted_sets import SETS, Sorted, read_sorted

KS = (1, 2, 4, 8, 16)
SEEDS = range(5)
AUTO = "auto"


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
    parser.add_argument("--rungs", default=",".join(ON_EMBEDDINGS), help=f"between commas, of: {', '.join(RUNGS)}")
    parser.add_argument("--dev", action="store_true", help="to choose by: divide the training photographs in half")
    parser.add_argument("--page", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    encoder = nunbit.load(options.model)
    page = Page("few-shots", f"Learning from k pictures a class: {encoder.name}")
    page.add("Accuracy on the test photographs, %, mean of five draws; after ± the deviation of one draw.")
    rungs = options.rungs.split(",")
    towers = Towers(encoder) if any(RUNGS[name].NEEDS_PICTURES for name in rungs) else None
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            data = read_sorted(name, encoder, options.data, Path(scratch), towers)
        if options.dev:
            data = data.dev()
        trials = list(track(_trials(data, rungs), label=name, total=len(KS) * len(SEEDS)))
        page.add(_section(name, data, trials))
    page.close(to_file=options.page)


def _trials(data: Sorted, rungs: Sequence[str]) -> Iterator[Trial]:
    for shots in KS:
        for seed in SEEDS:
            yield _trial(data, rungs, shots, seed)


def _trial(data: Sorted, rungs: Sequence[str], shots: int, seed: int) -> Trial:
    chosen = draw(data.train.targets, shots, seed)
    start = time.perf_counter()
    ladder = climb(data.classes, data.train.part(chosen), rungs)
    seconds = time.perf_counter() - start
    accuracy = {result.name: _accuracy(result.head, data.test) for result in ladder.results}
    return Trial(shots, seed, accuracy | {AUTO: accuracy[ladder.best.name]}, ladder.best.name, seconds)


def _accuracy(head: Head | TunedHead, shots: Shots) -> float:
    rows = shots.inputs if isinstance(head, TunedHead) else shots.rows
    return 100 * float((head.logits(rows).argmax(1) == shots.targets.argmax(1)).mean())


def _section(name: str, data: Sorted, trials: Sequence[Trial]) -> str:
    by_rung: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        for rung, value in trial.accuracy.items():
            by_rung[rung][trial.shots].append(value)
    rows = [
        [rung, *(f"{np.mean(by_rung[rung][k]):.1f} ± {np.std(by_rung[rung][k]):.1f}" for k in KS)] for rung in by_rung
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


if __name__ == "__main__":
    main()

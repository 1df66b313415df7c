"""All rungs on the same embeddings; which one is best is decided by the given examples alone.

Every example is said by heads that learned without it. The settings of a rung are chosen by that, and so that the
choice is not measured on what it was made by, for each fold by the other folds. `USUAL` is taken unless another rung is
clearly better; where no class has two examples nothing can be held out, and nothing can be.

Shapes: N examples, C classes, D width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nunbit.adapt.calibration import calibrate, likelihood
from nunbit.adapt.folds import ALWAYS_TAUGHT, make_folds
from nunbit.adapt.prompts import PromptTuning
from nunbit.adapt.rung import ClassTexts, Rung
from nunbit.adapt.towers import FineTuning, LowRankTuning, TunedHead
from nunbit.adapt.trained import Adapter, LinearProbe, TipAdapterTrained
from nunbit.adapt.training_free import Described, NearestMean, TipAdapter, ZeroShot
from nunbit.errors import UsageError
from nunbit.head import Head

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.rung import Logits, Targets
    from nunbit.console import ShowProgress
    from nunbit.types import FloatArray

RUNGS: dict[str, type[Rung]] = {
    rung.NAME: rung
    for rung in (
        ZeroShot,
        Described,
        NearestMean,
        TipAdapter,
        TipAdapterTrained,
        Adapter,
        LinearProbe,
        PromptTuning,
        LowRankTuning,
        FineTuning,
    )
}
"""From what needs least to what needs most: of equals the first is taken."""

ON_EMBEDDINGS = tuple(
    name for name, rung in RUNGS.items() if not (rung.NEEDS_TOWER or rung.NEEDS_DESCRIPTIONS or rung.NEEDS_PICTURES)
)
"""Those that need nothing but examples and words, and learn in seconds."""

USUAL = LinearProbe.NAME

_WORTH_THREADS = 2e8
"""Examples times classes times width from which on more threads than one are quicker; below they take twice as long."""


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """Examples of classes.

    Attributes:
        rows: (N, D) float32 unit rows of the pictures.
        targets: (N, C) bool.
        multi_label: A picture may show several classes, or none.
        groups: (N,) pictures of one group are held out together; None: each stands alone.
        inputs: (N, ...) float32, what `nunbit.adapt.towers.Towers.inputs` makes of the pictures, for rungs that change
            the picture tower.
    """

    rows: FloatArray
    targets: Targets
    multi_label: bool = False
    groups: npt.NDArray[np.int64] | None = None
    inputs: FloatArray | None = None

    def seen_by(self, rung: type[Rung]) -> FloatArray:
        """What a rung learns from and judges: embeddings, or the inputs of the tower that it changes."""
        if not rung.NEEDS_PICTURES:
            return self.rows
        if self.inputs is None:
            raise UsageError(f"{rung.NAME} changes the picture tower and needs its inputs", hint="Shots(inputs=...)")
        return self.inputs

    def part(self, wanted: npt.NDArray[np.bool_]) -> Shots:
        """Some of the examples."""
        groups = None if self.groups is None else self.groups[wanted]
        inputs = None if self.inputs is None else self.inputs[wanted]
        return Shots(self.rows[wanted], self.targets[wanted], self.multi_label, groups, inputs)


@dataclass(frozen=True, slots=True, eq=False)
class RungResult:
    """How one rung did.

    Attributes:
        name: Of the rung.
        accuracy: Share of the held-out examples that it said right, out of 100; of several labels, of all judgments.
            None where nothing could be held out.
        interval: 95 % of it (Wilson).
        setting: What was chosen among the rung's candidates.
        seconds: Learning with the chosen setting.
        megabytes: Of the head.
        held_out: (N, C) logits of held-out examples, of the chosen setting; NaN for those never held out.
        right: (K,) whether each of the K examples that were held out was said right; of several labels, the share.
        head: Learned from all examples.
    """

    name: str
    accuracy: float | None
    interval: tuple[float, float] | None
    setting: dict[str, float]
    seconds: float
    megabytes: float
    held_out: Logits
    right: npt.NDArray[np.float64]
    head: Head | TunedHead


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """All rungs that were tried, and the one that won."""

    results: tuple[RungResult, ...]
    best: RungResult


def climb(
    classes: ClassTexts,
    shots: Shots,
    rungs: Sequence[str] = ON_EMBEDDINGS,
    *,
    seed: int = 0,
    progress: ShowProgress | None = None,
) -> Ladder:
    """Try rungs, and choose.

    Args:
        classes: What can be said.
        shots: Examples, of as many classes as have any.
        rungs: Names of `RUNGS`.
        seed: Of how examples are held out.
        progress: Told how many trainings are done, and of how many: of each rung one a fold, and the last.

    Raises:
        UsageError: An unknown rung, no rung, or no example.
    """
    unknown = [name for name in rungs if name not in RUNGS]
    if unknown or not rungs:
        what = f"there is no rung {unknown[0]!r}" if unknown else "no rung is given"
        raise UsageError(what, hint=f"there are: {', '.join(RUNGS)}")
    if len(shots.rows) == 0:
        raise UsageError("there is no example", hint="give at least one picture of at least one class")
    folds = make_folds(shots.targets, shots.groups, seed=seed)
    ordered = sorted(rungs, key=list(RUNGS).index)
    each = folds.max(initial=ALWAYS_TAUGHT) + 2
    small = len(shots.rows) * classes.rows.size < _WORTH_THREADS
    results = []
    for number, name in enumerate(ordered):

        def done(trainings: int, before: int = number * each, name: str = name) -> None:
            if progress is not None:
                progress(before + trainings, each * len(ordered), name)

        with _one_thread(small and not RUNGS[name].NEEDS_PICTURES):
            results.append(_try(RUNGS[name], classes, shots, folds, done))
    return Ladder(tuple(results), _choose(results))


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Keep torch to one thread where that is wanted: many small steps lose more by meeting than they gain."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choose(results: Sequence[RungResult]) -> RungResult:
    """The most accurate of those that are surely better than `USUAL`, else that one.

    Surely: by a sign test on the same held-out examples, at 5 %. The best of many by a few examples is mostly luck; and
    heads that judge held-out examples learned from fewer than the last one will, so that a close call is one for
    learning. Where `USUAL` was not tried, what needs least takes its place.
    """
    named = {result.name: result for result in results}
    usual = named.get(USUAL, results[0])
    if usual.accuracy is None:
        return named.get(USUAL, results[-1])
    usual = next(
        result for result in results if np.array_equal(result.right, usual.right)
    )  # what needs less is as good
    better = [result for result in results if _surely_better(result.right, usual.right)]
    return max([usual, *better], key=lambda result: result.accuracy or 0.0)  # max keeps the first of equals


def _surely_better(right: npt.NDArray[np.float64], usual: npt.NDArray[np.float64], level: float = 0.05) -> bool:
    """(K,) against (K,): whether so many more wins than losses come by chance in less than ``level`` of all cases."""
    wins, losses = int((right > usual).sum()), int((right < usual).sum())
    differ = wins + losses
    by_chance = sum(math.comb(differ, count) for count in range(wins, differ + 1))
    return bool(by_chance < level * 2**differ)


def _try(
    rung: type[Rung],
    classes: ClassTexts,
    shots: Shots,
    folds: npt.NDArray[np.int64],
    done: Callable[[int], None],
) -> RungResult:
    held_out = _held_out(rung, classes, shots, folds, done)  # (candidates, N, C)
    tested = folds != ALWAYS_TAUGHT
    judged = _calibrated(held_out, shots.targets, folds) if shots.multi_label else held_out
    right = _right(judged[:, tested], shots.part(tested))  # (candidates, tested)
    likely = _likelihood(judged[:, tested], shots.part(tested))
    chosen, accuracy, interval = _default_candidate(rung), None, None
    honest = np.zeros(0)
    if tested.any():
        chosen = _best(right, likely)
        honest = np.empty(right.shape[1])
        for this in _folds_of(folds[tested]):
            honest[this] = right[_best(right[:, ~this], likely[:, ~this]), this]
        accuracy = 100 * float(honest.mean())
        interval = wilson(float(honest.mean()), len(honest))
    start = time.perf_counter()
    setting = dict(rung.CANDIDATES[chosen])
    head = rung(classes, **setting)._learn(shots.seen_by(rung), shots.targets, shots.multi_label)
    seconds = time.perf_counter() - start
    done(folds.max(initial=ALWAYS_TAUGHT) + 2)
    return RungResult(
        rung.NAME,
        accuracy,
        interval,
        setting,
        seconds,
        head.bytes / 1e6,
        held_out[chosen],
        honest,
        head,
    )


def _calibrated(held_out: Logits, targets: Targets, folds: npt.NDArray[np.int64]) -> Logits:
    """(candidates, N, C) → the same, each fold calibrated by the others.

    Where each label is judged by itself, an encoder that compares labels has no line between yes and no of its own.
    """
    judged = held_out.copy()
    for fold in np.unique(folds[folds != ALWAYS_TAUGHT]):
        others = (folds != fold) & (folds != ALWAYS_TAUGHT)
        for one in range(len(held_out)) if others.any() else ():
            found = calibrate(held_out[one, others], targets[others], multi_label=True)
            judged[one, folds == fold] = held_out[one, folds == fold] * found.factor + found.offset
    return judged


def _folds_of(folds: npt.NDArray[np.int64]) -> list[npt.NDArray[np.bool_]]:
    return [folds == fold for fold in np.unique(folds)]


def _held_out(
    rung: type[Rung],
    classes: ClassTexts,
    shots: Shots,
    folds: npt.NDArray[np.int64],
    done: Callable[[int], None],
) -> Logits:
    """What each candidate says of each example when it was not taught it."""
    said: Logits = np.full((len(rung.CANDIDATES), *shots.targets.shape), np.nan)
    for fold in range(folds.max(initial=ALWAYS_TAUGHT) + 1):
        left = folds == fold
        taught = shots.part(~left)
        heads = rung.path(classes, taught.seen_by(rung), taught.targets, shots.multi_label)
        for number, head in enumerate(heads):
            said[number, left] = head.logits(shots.seen_by(rung)[left])
        done(fold + 1)
    return said


def _right(logits: Logits, shots: Shots) -> npt.NDArray[np.float64]:
    """(candidates, N, C) → (candidates, N): whether an example was said right; of several labels, the share."""
    if shots.multi_label:
        shares: npt.NDArray[np.float64] = ((logits >= 0) == shots.targets).mean(2)
        return shares
    hits: npt.NDArray[np.float64] = (logits.argmax(2) == shots.targets.argmax(1)).astype(np.float64)
    return hits


def _likelihood(logits: Logits, shots: Shots) -> npt.NDArray[np.float64]:
    """(candidates, N, C) → (candidates, N): log-probability of the truth, for choosing between equals."""
    return np.stack([likelihood(one, shots.targets, None, shots.multi_label) for one in logits])


def _best(right: npt.NDArray[np.float64], likely: npt.NDArray[np.float64]) -> int:
    """The candidate with most right, of equals the most likely one."""
    if right.shape[1] == 0:
        return 0
    return int(np.lexsort((likely.mean(1), right.mean(1)))[-1])


def _default_candidate(rung: type[Rung]) -> int:
    """The candidate that equals the rung's defaults, where nothing can be held out to choose another."""
    for number, one in enumerate(rung.CANDIDATES):
        if all(rung.DEFAULTS[name] == value for name, value in one.items()):
            return number
    return 0


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of so many, out of 100 (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return 100 * (middle - half), 100 * (middle + half)

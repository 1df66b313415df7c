"""How good a head is on pictures that taught it nothing: its probabilities, its sets of answers, what it calls unknown.

Place in the river: a head and pictures with known labels → numbers, for reports and benchmarks. Each stands beside the
same number of the plain softmax over the rung's logits.

Shapes: N pictures, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.calibration import calibration_error
from nunbit.adapt.ladder import climb
from nunbit.adapt.unknown import auroc, set_unknown
from nunbit.head import Head
from nunbit.head.head import probability_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.ladder import Shots
    from nunbit.adapt.rung import ClassTexts, Logits, Targets
    from nunbit.head.unknown import Way
    from nunbit.types import FloatArray

    Familiarity = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbabilityFigures:
    """What probabilities are worth.

    Attributes:
        accuracy: Share of right answers, out of 1.
        plain_error: Expected calibration error of the plain softmax, out of 1.
        error: The same after calibration.
        coverage: What was promised; None where nothing was.
        reached: How often the set of answers held the right one.
        set_size: Answers in a set, on average.
        plain_reached: How often the smallest set held it, whose plain probabilities add up to what was promised.
        plain_set_size: Answers in such a set, on average.
    """

    accuracy: float
    plain_error: float
    error: float
    coverage: float | None
    reached: float | None
    set_size: float | None
    plain_reached: float | None
    plain_set_size: float | None


def measure_probabilities(head: Head, rows: FloatArray, targets: Targets) -> ProbabilityFigures:
    """Compare probabilities and sets of answers with the truth.

    Args:
        head: For one label a picture.
        rows: (N, D) unit rows of its encoder.
        targets: (N, C) bool.
    """
    logits = head.logits(rows)
    plain, tuned = (probability_of(logits, how, multi_label=False) for how in (None, head.calibration))
    right = targets[np.arange(len(targets)), tuned.argmax(1)]
    reached = size = plain_reached = plain_size = coverage = None
    if head.answers is not None:
        coverage = head.answers.coverage
        held, naive = tuned >= head.answers.threshold, _smallest_sets(plain, coverage)
        reached, size = float(held[targets].mean()), float(held.sum(1).mean())
        plain_reached, plain_size = float(naive[targets].mean()), float(naive.sum(1).mean())
    return ProbabilityFigures(
        float(right.mean()),
        calibration_error(plain, targets),
        calibration_error(tuned, targets),
        coverage,
        reached,
        size,
        plain_reached,
        plain_size,
    )


def _smallest_sets(probability: Logits, coverage: float) -> npt.NDArray[np.bool_]:
    """(N, C) the most probable classes of each picture, as many as are needed to reach ``coverage`` together."""
    order = np.argsort(-probability, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probability, order, 1), axis=1)
    taken = np.zeros(probability.shape, bool)
    np.put_along_axis(taken, order, np.roll(sums < coverage, 1, axis=1) | (np.arange(sums.shape[1]) == 0), 1)
    return taken


@dataclass(frozen=True, slots=True, eq=False)
class UnknownFigures:
    """How well pictures of no class are told from others.

    Attributes:
        known: Familiarity of pictures of the classes.
        strange: The same of pictures of none.
        threshold: What is less familiar is called unknown.
        plain_known: Largest plain probability of pictures of the classes.
        plain_strange: The same of pictures of none.
    """

    known: Familiarity
    strange: Familiarity
    threshold: float
    plain_known: Familiarity
    plain_strange: Familiarity

    @property
    def auroc(self) -> float:
        """How often a known picture is more familiar than a strange one."""
        return auroc(self.known, self.strange)

    @property
    def plain_auroc(self) -> float:
        """The same by the largest plain probability (arXiv 1610.02136)."""
        return auroc(self.plain_known, self.plain_strange)

    @property
    def false_alarms(self) -> float:
        """Share of known pictures that are called unknown."""
        return float((self.known < self.threshold).mean())

    @property
    def found(self) -> float:
        """Share of strange pictures that are called unknown."""
        return float((self.strange < self.threshold).mean())


def measure_unknown(
    classes: ClassTexts,
    teaching: Shots,
    measured: Shots,
    known: npt.NDArray[np.intp],
    way: Way,
    *,
    rung: str,
    false_alarms: float = 0.05,
    negatives: FloatArray | None = None,
) -> UnknownFigures | None:
    """Learn some of the classes, and see what becomes of pictures of the others.

    Args:
        classes: All of them.
        teaching: Their examples; those of other classes than ``known`` teach nothing.
        measured: Pictures that taught nothing.
        known: Positions of the classes that are learned, at least two.
        way: As in `nunbit.head.Unknown`.
        rung: On embeddings, which learns them.
        false_alarms: Share of known pictures that may be called unknown.
        negatives: (M, D) rows of words that are no class, for the way ``negatives``.

    Returns:
        None where there are too few examples to tell what is unknown.
    """
    words = classes.part(known)
    taught = teaching.part(np.asarray(teaching.targets[:, known].any(1)))
    taught = replace(taught, targets=taught.targets[:, known])
    best = climb(words, taught, [rung]).best
    said = best.held_out[np.isfinite(best.held_out).all(1)]
    unknown = set_unknown(way, words, taught, said, false_alarms=false_alarms, negatives=negatives)
    if unknown is None:
        return None
    logits = best.head.logits(measured.rows)
    familiarity = unknown.familiarity(measured.rows, logits)
    plain = probability_of(logits, None, multi_label=False).max(1)
    inside = measured.targets[:, known].any(1)
    return UnknownFigures(familiarity[inside], familiarity[~inside], unknown.threshold, plain[inside], plain[~inside])

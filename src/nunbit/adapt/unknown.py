"""Setting the line between known and unknown on the examples alone, and choosing words that are no class.

Shapes: N examples, K of them held out, C classes, M words, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nunbit.head.unknown import Unknown, Way, energy, nearness, share_of_classes

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.ladder import Shots
    from nunbit.adapt.rung import ClassTexts, Logits
    from nunbit.types import FloatArray

FAR_ENOUGH = 0.85
"""Share of candidate words that are dropped for being near to a class: the most distant rest are negatives."""


def set_unknown(
    way: Way,
    classes: ClassTexts,
    shots: Shots,
    said: Logits,
    *,
    false_alarms: float,
    negatives: FloatArray | None = None,
) -> Unknown | None:
    """Find the threshold.

    Args:
        way: As in `nunbit.head.unknown.Unknown`.
        classes: The head's.
        shots: Its examples.
        said: (K, C) what the head's rung said of examples that it was not taught.
        false_alarms: Share of known pictures that may be called unknown, in (0, 1).
        negatives: (M, D) rows of words that are no class, as `far_words` chooses them.

    Returns:
        None where there are too few examples that are not near duplicates to tell how near others are.
    """
    empty = np.empty((0, shots.rows.shape[1]), np.float32)
    if way == "neighbors":
        own = np.eye(len(shots.rows), dtype=bool)
        if shots.groups is not None:
            own = shots.groups[:, None] == shots.groups[None, :]
        found, rows, positives = nearness(shots.rows, shots.rows, without=own), shots.rows, empty
        found = found[np.isfinite(found)]
        if len(found) == 0:
            return None
    elif way == "energy":
        found, rows, positives = energy(said), empty, empty
    else:
        assert negatives is not None
        found = share_of_classes(shots.rows, classes.rows, negatives, classes.logit_scale)
        rows, positives = negatives, classes.rows
    return Unknown(way, threshold_of(found, false_alarms), false_alarms, rows, positives, classes.logit_scale)


def threshold_of(familiarity: npt.NDArray[np.float64], false_alarms: float) -> float:
    """The familiarity that a share ``1 - false_alarms`` of known pictures reaches; below all where none is known."""
    if len(familiarity) == 0:
        return -np.inf
    return float(np.quantile(familiarity, false_alarms, method="lower"))


def far_words(rows: FloatArray, classes: FloatArray, *, count: int = 1000) -> npt.NDArray[np.int64]:
    """Choose negative labels: those that are far from every class (arXiv 2403.20078, there: NegMining).

    Args:
        rows: (M, D) unit rows of candidate words.
        classes: (C, D) unit rows of the classes' words.
        count: The most that are chosen.

    Returns:
        Positions of the chosen ones, the farthest first. How near a word is counts by the 95th percentile of its
        cosines with the classes, as published, which a single odd class does not decide.
    """
    near = np.quantile(rows @ classes.T, 0.95, axis=1)  # (M,)
    usable = max(1, round(len(rows) * (1 - FAR_ENOUGH)))
    return np.argsort(near, kind="stable")[: min(count, usable)]


def auroc(known: npt.NDArray[np.float64], unknown: npt.NDArray[np.float64]) -> float:
    """How often a known picture is more familiar than an unknown one; ties count half. In [0, 1]."""
    ordered = np.sort(unknown)
    below = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right")
    return float(below.sum() / (2 * len(known) * len(unknown)))

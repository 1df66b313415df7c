"""Holding examples out: each is said by what was learned without it.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.rung import Targets

    Folds = npt.NDArray[np.int64]

MOST_FOLDS = 5
ALWAYS_TAUGHT = -1
"""The fold of examples that are never held out: nothing else would teach their class."""


def make_folds(
    targets: Targets, groups: npt.NDArray[np.int64] | None = None, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Give every example a fold, each class spread over the folds.

    Args:
        targets: (N, C) bool.
        groups: (N,): examples of one group (near duplicates, one object) share a fold. None: each stands alone.
        seed: Of the shuffle.

    Returns:
        (N,) folds from 0 to at most `MOST_FOLDS` - 1; `ALWAYS_TAUGHT` for the only example or group of a class.
    """
    count = len(targets)
    groups = np.arange(count) if groups is None else groups
    rng = np.random.default_rng(seed)
    names, members = np.unique(groups, return_inverse=True)
    shown = np.zeros((len(names), targets.shape[1]), bool)
    np.logical_or.at(shown, members, targets)
    per_class = shown.sum(0)  # groups that show each class
    number = int(min(MOST_FOLDS, per_class.max(initial=0)))
    folds = np.full(len(names), ALWAYS_TAUGHT, np.int64)
    if number < 2:
        return folds[members]
    filled = np.zeros((targets.shape[1], number), np.int64)
    rarest_first = sorted(rng.permutation(len(names)), key=lambda group: _rarity(shown[group], per_class))
    for group in rarest_first:
        classes = np.flatnonzero(shown[group])
        if (per_class[classes] < 2).any():
            continue
        load = filled[classes].sum(0) + filled.sum(0) / (1e3 * count)  # the emptiest fold where classes do not decide
        folds[group] = int(load.argmin())
        filled[classes, folds[group]] += 1
    return folds[members]


def _rarity(shown: npt.NDArray[np.bool_], per_class: Folds) -> int:
    return int(per_class[shown].min()) if shown.any() else int(per_class.max())

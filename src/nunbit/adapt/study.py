"""What examples are worth: every rung at every number of shots, measured on pictures that taught nothing.

Place in the river: examples → a part that teaches and a part that measures → figures, which the report draws.

Shapes: N pictures, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.examples import Example, Examples, embed_examples
from nunbit.adapt.figures import ProbabilityFigures, UnknownFigures, measure_probabilities, measure_unknown
from nunbit.adapt.fitting import FitOptions, Fitted, fit_head
from nunbit.adapt.ladder import ON_EMBEDDINGS, Shots, climb
from nunbit.adapt.near import near_groups
from nunbit.adapt.promises import negative_rows
from nunbit.adapt.trained import LinearProbe
from nunbit.errors import UsageError
from nunbit.types import Rejected

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.console import ShowProgress
    from nunbit.encode import Encoder

AUTO = "auto"
SHOTS = (1, 2, 4, 8, 16)
DRAWS = 3
_MEASURES = 3
"""Of so many pictures of a class one measures, where no other pictures are given to measure on."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What was found.

    Attributes:
        fitted: Learned from all that teaches.
        curves: Rung, or ``auto`` → shots → accuracy of each draw, out of 100.
        measured: What was measured on; rows are those of the head's encoder.
        pictures: Of the same, in the same order.
        probabilities: Of the head.
        unknown: Of heads that know half of the classes, for each half; empty where there are fewer than four classes.
        rejected: What was set aside.
        apart: The pictures that were measured on were given, not taken from the examples.
    """

    fitted: Fitted
    curves: Mapping[str, Mapping[int, list[float]]]
    measured: Shots
    pictures: tuple[Example, ...]
    probabilities: ProbabilityFigures
    unknown: tuple[UnknownFigures, ...]
    rejected: tuple[Rejected, ...]
    apart: bool


def make_study(
    encoder: Encoder,
    examples: Examples,
    options: FitOptions | None = None,
    *,
    test: Examples | None = None,
    progress: ShowProgress | None = None,
) -> Study:
    """Measure.

    Args:
        encoder: Any encoder.
        examples: One label each. Without ``test`` a third of each class, near duplicates together, is kept to measure.
        options: As for `fit_head`.
        test: Pictures to measure on, of the same classes.
        progress: Told what is being done, and how much of it is done.

    Raises:
        UsageError: Several labels a picture, nothing to measure on, or other classes in ``test``.
    """
    options = options or FitOptions()
    if examples.multi_label or (test is not None and test.multi_label):
        raise UsageError("a picture has several labels, or none: the report is for one label a picture")
    if test is None:
        teaching, test = _divided(encoder, examples, progress)
        apart = False
    else:
        teaching, apart = examples, True
        strange = sorted({one.labels[0] for one in test.examples} - set(examples.classnames))
        if strange:
            raise UsageError(f"the pictures to measure on have the class {strange[0]!r}, which has no example")
    fitted = fit_head(encoder, teaching, options, progress=progress)
    embedding = None if progress is None else partial(progress, note="embedding")
    same = replace(test, classnames=teaching.classnames)
    measured, pictures, rejected = embed_examples(encoder, same, progress=embedding)
    measured, pictures, near = _apart(fitted, measured, pictures)
    curves = _curves(fitted, measured, progress)
    if fitted.tuned is not None:
        assert fitted.classes.towers is not None
        inputs = fitted.classes.towers.inputs([one.image for one in pictures])
        rows = fitted.tuned.embed(inputs)
    else:
        rows = measured.rows
    probabilities = measure_probabilities(fitted.head, rows, measured.targets)
    unknown = _unknown(encoder, fitted, measured, options)
    shown = replace(measured, rows=rows)
    return Study(fitted, curves, shown, pictures, probabilities, unknown, (*fitted.rejected, *rejected, *near), apart)


def _apart(
    fitted: Fitted, measured: Shots, pictures: tuple[Example, ...]
) -> tuple[Shots, tuple[Example, ...], list[Rejected]]:
    """Leave out what is, or nearly is, a picture that taught."""
    taught = len(fitted.examples)
    images = [one.image for one in (*fitted.examples, *pictures)]
    groups = near_groups(images, np.concatenate([fitted.shots.rows, measured.rows]))
    known = np.isin(groups[taught:], groups[:taught])
    rejected = [
        Rejected(one.name, "taught", f"it is, or nearly is, {fitted.examples[groups[taught + row]].name}")
        for row, one in enumerate(pictures)
        if known[row]
    ]
    if known.all():
        raise UsageError("all pictures to measure on are examples, or nearly", hint="give others with --test")
    kept = tuple(one for one, taken in zip(pictures, known, strict=True) if not taken)
    return measured.part(~known), kept, rejected


def draw(targets: npt.NDArray[np.bool_], count: int, seed: int) -> npt.NDArray[np.bool_]:
    """(N, C) → (N,): so many examples of each class, or all of a class that has fewer."""
    rng = np.random.default_rng([seed, count])
    chosen = np.zeros(len(targets), bool)
    for one in range(targets.shape[1]):
        chosen[rng.permutation(np.flatnonzero(targets[:, one]))[:count]] = True
    return chosen


def _divided(encoder: Encoder, examples: Examples, progress: ShowProgress | None) -> tuple[Examples, Examples]:
    embedding = None if progress is None else partial(progress, note="embedding")
    shots, kept, rejected = embed_examples(encoder, examples, progress=embedding)
    assert shots.groups is not None
    measures = np.zeros(len(kept), bool)
    rng = np.random.default_rng(0)
    for one in range(shots.targets.shape[1]):
        groups = rng.permutation(np.unique(shots.groups[shots.targets[:, one]]))
        measures |= np.isin(shots.groups, groups[: len(groups) // _MEASURES])
    if not measures.any():
        message = "no class has three different pictures: there is nothing to measure on"
        raise UsageError(message, hint="give more pictures, or others to measure on with --test")
    parts = (tuple(one for one, taken in zip(kept, side, strict=True) if taken) for side in (~measures, measures))
    taught, asked = (replace(examples, examples=part, rejected=()) for part in parts)
    return replace(taught, rejected=rejected), asked


def _curves(fitted: Fitted, measured: Shots, progress: ShowProgress | None) -> dict[str, dict[int, list[float]]]:
    """Rungs on embeddings alone: a tower is not changed again for every draw."""
    rungs = [one.name for one in fitted.ladder.results if one.name in ON_EMBEDDINGS]
    curves: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    truth = measured.targets.argmax(1)
    shots = fitted.shots
    most = int(shots.targets.sum(0).max())
    counts = [count for count in SHOTS if count <= most]
    for number, (count, seed) in enumerate((count, seed) for count in counts for seed in range(DRAWS) if rungs):
        ladder = climb(fitted.classes, replace(shots, inputs=None).part(draw(shots.targets, count, seed)), rungs)
        right = {one.name: one.head.logits(measured.rows).argmax(1) == truth for one in ladder.results}
        for name, said in (right | {AUTO: right[ladder.best.name]}).items():
            curves[name][count].append(100 * float(said.mean()))
        if progress is not None:
            progress(number + 1, DRAWS * len(counts), "shots")
    return curves


def _unknown(encoder: Encoder, fitted: Fitted, measured: Shots, options: FitOptions) -> tuple[UnknownFigures, ...]:
    way = options.promises.unknown
    if way == "none":
        return ()
    taught = np.flatnonzero(fitted.shots.targets.any(0))
    halves: Sequence[npt.NDArray[np.intp]] = (taught[::2], taught[1::2])
    best = fitted.ladder.best.name
    rung = best if best in ON_EMBEDDINGS else LinearProbe.NAME
    found = []
    for half in halves:
        inside = measured.targets[:, half].any(1)
        if len(half) < 2 or inside.all() or not inside.any():
            continue
        negatives = negative_rows(encoder, fitted.classes.part(half), options.promises, options.templates)
        figures = measure_unknown(
            fitted.classes,
            fitted.shots,
            measured,
            half,
            way,
            rung=rung,
            false_alarms=options.promises.false_alarms,
            negatives=negatives,
        )
        found += [] if figures is None else [figures]
    return tuple(found)

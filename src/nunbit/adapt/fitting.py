"""Examples and words → the best head: the whole of `nunbit adapt fit`.

Place in the river: `examples` → `ladder` → `calibration` → a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.calibration import calibrate, calibration_error, conformal_threshold
from nunbit.adapt.descriptions import embed_descriptions
from nunbit.adapt.examples import Example, Examples, embed_examples
from nunbit.adapt.ladder import ON_EMBEDDINGS, RUNGS, Ladder, Shots, climb
from nunbit.adapt.prompts import open_prompts
from nunbit.adapt.rung import ClassTexts, unit
from nunbit.adapt.unknown import set_unknown
from nunbit.head import Head
from nunbit.head.head import probability_of
from nunbit.labels.embedding import embed_labels
from nunbit.text.templates import get_templates
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.encode import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How a head is learned.

    Attributes:
        templates: Sentences to put the labels into, as in `nunbit.recognition.Labels`.
        descriptions: Sentences by label, for the rung ``descriptions``.
        rungs: Which are tried; one is simply learned.
        coverage: How often the set of answers shall hold the right one.
        false_alarms: Share of pictures of the classes that may be called unknown.
    """

    templates: str | Sequence[str] = "none"
    descriptions: Mapping[str, Sequence[str]] | None = None
    rungs: Sequence[str] = ON_EMBEDDINGS
    coverage: float = 0.9
    false_alarms: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What `fit_head` found.

    Attributes:
        head: The best rung's, calibrated.
        ladder: All rungs.
        shots: Rows and targets it was learned from.
        examples: The pictures they are of.
        rejected: What was set aside.
        calibration_error: Of the held-out examples, out of 1: as the rung says it, and calibrated. None where nothing
            was held out, or a picture may have several labels.
        set_threshold: A class with at least this probability belongs to the set that holds the right one as often as
            ``coverage`` says; None as above.
    """

    head: Head
    ladder: Ladder
    shots: Shots
    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    calibration_error: tuple[float, float] | None
    set_threshold: float | None


def class_texts(
    encoder: Encoder,
    names: Sequence[str],
    templates: str | Sequence[str] = "none",
    *,
    prompts: bool = False,
    descriptions: Mapping[str, Sequence[str]] | None = None,
) -> ClassTexts:
    """What an encoder makes of the words of classes, as `nunbit.recognition.Labels` has them.

    Args:
        encoder: Any encoder.
        names: C labels.
        templates: Sentences to put the labels into.
        prompts: Open the text tower as well, for prompt tuning.
        descriptions: Sentences by label, as `nunbit.adapt.descriptions.read_descriptions` gives them.
    """
    rows = unit(embed_labels(encoder, names, get_templates(templates)))
    tower = open_prompts(encoder, names) if prompts else None
    described = None if descriptions is None else embed_descriptions(encoder, names, rows, descriptions)
    return ClassTexts(tuple(names), rows, encoder.logit_scale, encoder.logit_bias, tower, described)


def fit_head(
    encoder: Encoder,
    examples: Examples,
    options: FitOptions = FitOptions(),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Learn from examples.

    Args:
        encoder: Any encoder.
        examples: As `nunbit.adapt.examples.read_examples` finds them.
        options: What is tried, and what is promised.
        progress: Told how many pictures are embedded, and of how many.

    Raises:
        UsageError: As in `embed_examples` and `climb`.
    """
    shots, kept, rejected = embed_examples(encoder, examples, progress=progress)
    rungs = options.rungs
    classes = class_texts(
        encoder,
        examples.classnames,
        options.templates,
        prompts=any(RUNGS[name].NEEDS_TOWER for name in rungs if name in RUNGS),
        descriptions=options.descriptions,
    )
    ladder = climb(classes, shots, rungs)
    best = ladder.best
    known = np.isfinite(best.held_out).all(1)
    if not known.any():
        return Fitted(best.head, ladder, shots, kept, rejected, None, None)
    said, targets = best.held_out[known], shots.targets[known]
    calibration = calibrate(said, targets, multi_label=shots.multi_label)
    unknown = set_unknown("neighbors", classes, shots, best, false_alarms=options.false_alarms)
    head = replace(best.head, calibration=calibration, unknown=unknown)
    if shots.multi_label:
        return Fitted(head, ladder, shots, kept, rejected, None, None)
    plain, tuned = (probability_of(said, how, multi_label=False) for how in (None, calibration))
    errors = calibration_error(plain, targets), calibration_error(tuned, targets)
    return Fitted(head, ladder, shots, kept, rejected, errors, conformal_threshold(tuned, targets, options.coverage))

"""Examples and words → the best head: the whole of `nunbit adapt fit`.

Place in the river: `examples` → `ladder` → `calibration` → a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nunbit.adapt.calibration import calibrate, calibration_error, conformal_threshold
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
    encoder: Encoder, names: Sequence[str], templates: str | Sequence[str] = "none", *, prompts: bool = False
) -> ClassTexts:
    """What an encoder makes of the words of classes, as `nunbit.recognition.Labels` has them.

    Args:
        encoder: Any encoder.
        names: C labels.
        templates: Sentences to put the labels into.
        prompts: Open the text tower as well, for prompt tuning.
    """
    rows = unit(embed_labels(encoder, names, get_templates(templates)))
    tower = open_prompts(encoder, names) if prompts else None
    return ClassTexts(tuple(names), rows, encoder.logit_scale, encoder.logit_bias, tower)


def fit_head(
    encoder: Encoder,
    examples: Examples,
    *,
    templates: str | Sequence[str] = "none",
    rungs: Sequence[str] = ON_EMBEDDINGS,
    coverage: float = 0.9,
    false_alarms: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Learn from examples.

    Args:
        encoder: Any encoder.
        examples: As `nunbit.adapt.examples.read_examples` finds them.
        templates: Sentences to put the labels into.
        rungs: Which are tried; one is simply learned.
        coverage: How often the set of answers shall hold the right one.
        false_alarms: Share of pictures of the classes that may be called unknown.
        progress: Told how many pictures are embedded, and of how many.
        tell: Told what is being done.

    Raises:
        UsageError: As in `embed_examples` and `climb`.
    """
    shots, kept, rejected = embed_examples(encoder, examples, progress=progress)
    prompts = any(RUNGS[name].NEEDS_TOWER for name in rungs if name in RUNGS)
    classes = class_texts(encoder, examples.classnames, templates, prompts=prompts)
    ladder = climb(classes, shots, rungs, progress=tell)
    best = ladder.best
    known = np.isfinite(best.held_out).all(1)
    if not known.any():
        return Fitted(best.head, ladder, shots, kept, rejected, None, None)
    said, targets = best.held_out[known], shots.targets[known]
    calibration = calibrate(said, targets, multi_label=shots.multi_label)
    unknown = set_unknown("neighbors", classes, shots, best, false_alarms=false_alarms)
    head = replace(best.head, calibration=calibration, unknown=unknown)
    if shots.multi_label:
        return Fitted(head, ladder, shots, kept, rejected, None, None)
    plain, tuned = (probability_of(said, how, multi_label=False) for how in (None, calibration))
    errors = calibration_error(plain, targets), calibration_error(tuned, targets)
    return Fitted(head, ladder, shots, kept, rejected, errors, conformal_threshold(tuned, targets, coverage))

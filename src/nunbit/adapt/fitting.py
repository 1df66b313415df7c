"""Examples and words → the best head: the whole of `nunbit adapt fit`.

Place in the river: `examples` → `ladder` → `promises` → a head.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nunbit.adapt.descriptions import embed_descriptions
from nunbit.adapt.examples import Example, Examples, embed_examples
from nunbit.adapt.ladder import ON_EMBEDDINGS, RUNGS, Ladder, Shots, climb
from nunbit.adapt.promises import Measured, Promises, keep_promises, negative_rows
from nunbit.adapt.prompts import open_prompts
from nunbit.adapt.rung import ClassTexts, unit
from nunbit.adapt.towers import Towers, TunedHead
from nunbit.head import Head, save_head
from nunbit.head.files import ENCODER
from nunbit.labels.embedding import embed_labels
from nunbit.loading import load
from nunbit.text.templates import get_templates
from nunbit.types import Rejected

if TYPE_CHECKING:
    from nunbit.console import ShowProgress
    from nunbit.encode import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How a head is learned.

    Attributes:
        templates: Sentences to put the labels into, as in `nunbit.recognition.Labels`.
        descriptions: Sentences by label, for the rung ``descriptions``.
        rungs: Which are tried; one is simply learned.
        promises: How sure probabilities, sets of answers and "unknown" are to be.
    """

    templates: str | Sequence[str] = "none"
    descriptions: Mapping[str, Sequence[str]] | None = None
    rungs: Sequence[str] = ON_EMBEDDINGS
    promises: Promises = field(default_factory=Promises)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What `fit_head` found.

    Attributes:
        head: The best rung's, calibrated.
        classes: What can be said, in words.
        ladder: All rungs.
        shots: Rows and targets it was learned from; the rows are those of the encoder that was given.
        examples: The pictures they are of.
        rejected: What was set aside.
        measured: What probabilities are worth; None where nothing was held out, or a picture may have several labels.
        tuned: The picture tower that the head needs, where the best rung changed it.
    """

    head: Head
    classes: ClassTexts
    ladder: Ladder
    shots: Shots
    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    measured: Measured | None
    tuned: TunedHead | None


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
    return ClassTexts(tuple(names), rows, encoder.logit_scale, encoder.logit_bias, prompts=tower, described=described)


def fit_head(
    encoder: Encoder,
    examples: Examples,
    options: FitOptions = FitOptions(),
    *,
    progress: ShowProgress | None = None,
) -> Fitted:
    """Learn from examples.

    Args:
        encoder: Any encoder.
        examples: As `nunbit.adapt.examples.read_examples` finds them.
        options: What is tried, and what is promised.
        progress: Told how many pictures are embedded, then how many trainings are done, and of how many.

    Raises:
        UsageError: As in `embed_examples` and `climb`.
    """
    embedding = None if progress is None else partial(progress, note="embedding")
    shots, kept, rejected = embed_examples(encoder, examples, progress=embedding)
    known = [RUNGS[name] for name in options.rungs if name in RUNGS]
    classes = class_texts(
        encoder,
        examples.classnames,
        options.templates,
        prompts=any(rung.NEEDS_TOWER for rung in known),
        descriptions=options.descriptions,
    )
    if any(rung.NEEDS_PICTURES for rung in known):
        towers = Towers(encoder)
        classes = replace(classes, towers=towers)
        shots = replace(shots, inputs=towers.inputs([one.image for one in kept], progress=progress))
    negatives = negative_rows(encoder, classes, options.promises, options.templates)
    ladder = climb(classes, shots, options.rungs, progress=progress)
    found = ladder.best.head
    tuned = found if isinstance(found, TunedHead) else None
    head, promises = found if isinstance(found, Head) else found.head, options.promises
    if tuned is not None and promises.unknown != "none":
        promises = replace(promises, unknown="energy")  # to the tower its own examples are nearer than any others
    head, measured = keep_promises(head, ladder.best.held_out, classes, shots, promises, negatives)
    return Fitted(head, classes, ladder, shots, kept, rejected, measured, tuned)


def save_fitted(fitted: Fitted, folder: str | os.PathLike[str], encoder: Encoder, about: Mapping[str, Any]) -> None:
    """Write the head; where its rung changed the picture tower, with the changed encoder inside of its folder.

    Args:
        fitted: As `fit_head` gave it.
        folder: Of the head; made when it is not there.
        encoder: That `fit_head` was given.
        about: How it came about, as plain values.
    """
    if fitted.tuned is None:
        save_head(fitted.head, folder, encoder, about)
        return
    place = Path(folder) / ENCODER
    fitted.tuned.save_encoder(place, {"start": encoder.name, "rung": fitted.ladder.best.name})
    save_head(fitted.head, folder, load(place, engine="torch"), about, inside=True)

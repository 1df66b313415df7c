"""What a head promises beside its labels: how sure sets of answers are, and how rarely it calls what it knows unknown.

Place in the river: the best rung and what it said of held-out examples → calibration, answer sets, the line to unknown.

Shapes: N examples, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from nunbit.adapt.calibration import calibrate, calibration_error, conformal_threshold
from nunbit.adapt.unknown import far_words, set_unknown
from nunbit.errors import ConfigError, UsageError
from nunbit.head import AnswerSets, Head
from nunbit.head.head import probability_of
from nunbit.labels.embedding import embed_labels
from nunbit.text.templates import get_templates
from nunbit.wordnet import read_nouns

if TYPE_CHECKING:
    from nunbit.adapt.ladder import Shots
    from nunbit.adapt.rung import ClassTexts, Logits, Targets
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

WORDNET = "/usr/share/wordnet"
_CANDIDATES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """What is promised, as settings: ``--set coverage=0.95``.

    Attributes:
        coverage: How often the set of possible answers holds the right one, in (0, 1).
        unknown: How what belongs to no class is told: ``neighbors``, ``energy`` or ``negatives``, as in
            `nunbit.head.Unknown`; ``none``: everything belongs to some class.
        false_alarms: Share of pictures of the classes that may be called unknown, in (0, 1).
        negatives: For ``negatives``: a text file with a word a line, or the folder of WordNet's database files.
    """

    coverage: float = 0.9
    unknown: Literal["neighbors", "energy", "negatives", "none"] = "neighbors"
    false_alarms: float = 0.05
    negatives: str = WORDNET

    def __post_init__(self) -> None:
        for name in ("coverage", "false_alarms"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0 and less than 1")


@dataclass(frozen=True, slots=True)
class Measured:
    """What probabilities are worth, on the held-out examples.

    Attributes:
        plain_error: Expected calibration error of what the rung says, out of 1.
        calibrated_error: The same after calibration, half of the examples calibrated by the other half.
    """

    plain_error: float
    calibrated_error: float


def keep_promises(
    head: Head, held_out: Logits, classes: ClassTexts, shots: Shots, promises: Promises, negatives: FloatArray | None
) -> tuple[Head, Measured | None]:
    """Calibrate a head and set its thresholds.

    Args:
        head: Of the best rung.
        held_out: (N, C) what that rung said of examples that it was not taught; NaN for those never held out.
        classes: The head's.
        shots: Its examples; their rows are of the head's encoder.
        promises: What is promised.
        negatives: As `negative_rows` gives them.

    Returns:
        The head. As it was, and None, where nothing was held out; None as well where a picture may have several labels.
    """
    known = np.isfinite(held_out).all(1)
    if not known.any():
        return head, None
    said, targets = held_out[known], shots.targets[known]
    calibration = calibrate(said, targets, multi_label=shots.multi_label)
    unknown = None
    if promises.unknown != "none":
        unknown = set_unknown(
            promises.unknown, classes, shots, said, false_alarms=promises.false_alarms, negatives=negatives
        )
    head = replace(head, calibration=calibration, unknown=unknown)
    if shots.multi_label:
        return head, None
    plain, tuned = (probability_of(said, how, multi_label=False) for how in (None, calibration))
    measured = Measured(calibration_error(plain, targets), calibration_error(_cross_fitted(said, targets), targets))
    answers = AnswerSets(conformal_threshold(tuned, targets, promises.coverage), promises.coverage)
    return replace(head, answers=answers), measured


def _cross_fitted(said: Logits, targets: Targets) -> Logits:
    """(K, C) probabilities of held-out examples, those of each half calibrated by the other."""
    probability = np.empty_like(said)
    half = np.random.default_rng(0).permutation(len(said)) < len(said) // 2
    for part in (half, ~half):
        calibration = calibrate(said[~part], targets[~part], multi_label=False)
        probability[part] = probability_of(said[part], calibration, multi_label=False)
    return probability


def negative_rows(
    encoder: Encoder, classes: ClassTexts, promises: Promises, templates: str | Sequence[str] = "none"
) -> FloatArray | None:
    """(M, D) rows of words that are no class, where these are needed; None where they are not.

    Raises:
        UsageError: There are no such words.
    """
    if promises.unknown != "negatives":
        return None
    words = _words(Path(promises.negatives), set(classes.names))
    rows = embed_labels(encoder, words, get_templates(templates))
    return rows[far_words(rows, classes.rows)]


def _words(place: Path, without: set[str]) -> list[str]:
    """Words of a file, or WordNet's nouns, evenly chosen where there are too many."""
    if place.is_dir():
        found = [synset.lemmas[0] for synset in read_nouns(place).values()]
        found = [word for word in found if word.islower()]  # names of people and places are no kinds of things
    else:
        try:
            found = place.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            hint = "give a text file with a word a line, or WordNet's folder (Debian: wordnet-base)"
            raise UsageError(f"the negative words in {place} cannot be read", hint=hint) from error
    taken = {name.casefold() for name in without}
    words = [word.strip() for word in dict.fromkeys(found) if word.strip() and word.strip().casefold() not in taken]
    if not words:
        raise UsageError(f"{place} holds no word that is not a class already")
    return words[:: -(-len(words) // _CANDIDATES)]

"""What the rungs of the ladder share: classes with their words, and scikit-learn's way to be called.

Shapes: N pictures, C classes, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from nunbit.errors import UsageError
from nunbit.head import Head
from nunbit.head.head import probability_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.adapt.towers import Towers, TunedHead
    from nunbit.types import FloatArray

    Logits = npt.NDArray[np.float64]
    Targets = npt.NDArray[np.bool_]


class PromptTower(Protocol):
    """A text tower, seen from the vectors around the labels that prompt tuning learns."""

    def start(self) -> Any:
        """The vectors before learning, a tensor."""

    def embed(self, context: Any) -> Any:
        """Vectors → (C, D) unit rows of all classes, with gradients."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassTexts:
    """Classes, and what an encoder makes of their words.

    Attributes:
        names: C labels.
        rows: (C, D) float32 unit rows.
        logit_scale: The encoder's factor on similarities.
        logit_bias: What it adds to them, where it judges each label by itself.
        prompts: The text tower, for the rung that learns through it.
        towers: The picture tower, for rungs that change it.
        described: (C, D) unit rows of words and descriptions together, where there are descriptions.
    """

    names: tuple[str, ...]
    rows: FloatArray
    logit_scale: float
    logit_bias: float | None = None
    prompts: PromptTower | None = None
    towers: Towers | None = None
    described: FloatArray | None = None

    def part(self, wanted: npt.NDArray[np.intp]) -> ClassTexts:
        """Some of the classes, by position; without the towers, which know all of them."""
        described = None if self.described is None else self.described[wanted]
        names = tuple(self.names[place] for place in wanted.tolist())
        return ClassTexts(names, self.rows[wanted], self.logit_scale, self.logit_bias, described=described)

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.names):
            raise UsageError(f"{len(self.names)} classes have rows {self.rows.shape}, expected ({len(self.names)}, D)")


class Rung(ABC):
    """One way to learn classes from examples and words.

    Args:
        classes: What can be said about a picture. A class without any example stays among them, by its words.
        **settings: Of the rung; see its ``DEFAULTS``.

    Attributes:
        head: What was learned; there after `fit`.

    Example:
        >>> probe = LinearProbe(classes).fit(rows, ["cat", "dog", "cat"])
        >>> probe.predict(more_rows)
        array(['dog'], dtype='<U3')
    """

    NAME: ClassVar[str]
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    CANDIDATES: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Settings that are tried where examples are held out; those not named are the defaults."""
    NEEDS_DESCRIPTIONS: ClassVar[bool] = False
    """It uses `ClassTexts.described`."""
    NEEDS_TOWER: ClassVar[bool] = False
    """It learns through the text tower, `ClassTexts.prompts`: minutes instead of seconds with a large one."""
    NEEDS_PICTURES: ClassVar[bool] = False
    """It changes the picture tower, `ClassTexts.towers`: what it is given are no embeddings, but the tower's inputs."""

    head: Head | TunedHead

    def __init__(self, classes: ClassTexts, **settings: Any) -> None:
        unknown = settings.keys() - self.DEFAULTS.keys()
        if unknown:
            raise UsageError(f"{self.NAME} has no setting {min(unknown)!r}", hint=f"it has: {', '.join(self.DEFAULTS)}")
        self.classes = classes
        self.settings: dict[str, Any] = dict(self.DEFAULTS) | settings

    def fit(self, rows: FloatArray, targets: Any) -> Self:
        """Learn.

        Args:
            rows: (N, D) float32 unit rows.
            targets: What each picture shows: N labels, N positions of labels, or (N, C) bool, where a picture may have
                several labels or none.

        Raises:
            UsageError: Targets that are no classes, or another number of them.
        """
        truth, multi_label = as_targets(targets, self.classes.names)
        if len(truth) != len(rows):
            raise UsageError(f"{len(rows)} pictures have {len(truth)} targets")
        self.head = self._learn(np.asarray(rows, np.float32), truth, multi_label)
        return self

    def decision_function(self, rows: FloatArray) -> Logits:
        """(N, D) unit rows → (N, C) logits."""
        return self.head.logits(rows)

    def predict_proba(self, rows: FloatArray) -> Logits:
        """(N, D) unit rows → (N, C) in [0, 1], not calibrated."""
        return probability_of(self.head.logits(rows), None, multi_label=self.head.multi_label)

    def predict(self, rows: FloatArray) -> npt.NDArray[Any]:
        """(N, D) unit rows → N labels; of a head for several labels (N, C) bool, true from 50 % on."""
        probability = self.predict_proba(rows)
        if self.head.multi_label:
            several: Targets = probability >= 0.5
            return several
        labels: npt.NDArray[Any] = np.array(self.classes.names)[probability.argmax(1)]
        return labels

    @classmethod
    def path(
        cls, classes: ClassTexts, rows: FloatArray, targets: Targets, multi_label: bool
    ) -> Sequence[Head | TunedHead]:
        """What is learned with each of the ``CANDIDATES``; rungs that can learn them together do."""
        return [cls(classes, **one)._learn(rows, targets, multi_label) for one in cls.CANDIDATES]

    @abstractmethod
    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head | TunedHead:
        """(N, D) rows and (N, C) targets → a head."""


def as_targets(targets: Any, names: tuple[str, ...]) -> tuple[Targets, bool]:
    """Labels, positions or a table of bool → (N, C) bool, and whether a picture may have several.

    Raises:
        UsageError: Something that is none of these classes.
    """
    given = np.asarray(targets)
    if given.ndim == 2 and given.shape[1] == len(names) and np.isin(given, (0, 1)).all():
        return given.astype(bool), True
    if given.ndim != 1:
        raise UsageError(f"targets have shape {given.shape}", hint=f"give N labels, or (N, {len(names)}) of 0 and 1")
    if given.dtype.kind in "UO":
        position = {name: number for number, name in enumerate(names)}
        strange = next((label for label in given if label not in position), None)
        if strange is not None:
            raise UsageError(f"{str(strange)!r} is none of the classes", hint=f"they are: {', '.join(names[:10])}")
        given = np.array([position[label] for label in given], np.int64)
    if given.dtype.kind not in "iu" or (len(given) and not 0 <= given.min() <= given.max() < len(names)):
        raise UsageError(f"targets are not positions from 0 to {len(names) - 1}")
    table = np.zeros((len(given), len(names)), bool)
    table[np.arange(len(given)), given] = True
    return table, False


def text_head(classes: ClassTexts, weights: FloatArray, *, multi_label: bool) -> Head:
    """Unit rows (C, D) as a head, with the encoder's factor and bias.

    Where labels compete one bias for all changes nothing. Where each is judged by itself, an encoder that has none
    (CLIP) would call half of everything probable: the bias that makes labels as likely as their number suggests at the
    mean similarity is left to `nunbit.adapt.calibration`, and 0 stands here.
    """
    bias = classes.logit_bias if multi_label and classes.logit_bias is not None else 0.0
    count = len(classes.names)
    return Head(
        classes.names,
        (classes.logit_scale * weights).astype(np.float32),
        np.full(count, bias, np.float32),
        multi_label=multi_label,
    )


def unit(rows: FloatArray) -> FloatArray:
    """Rows of length 1."""
    made: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return made.astype(np.float32)

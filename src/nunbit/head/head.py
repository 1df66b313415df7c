"""An embedding → a logit and a probability for each class: every rung of `nunbit.adapt` ends as one of these.

Place in the river: `encode` → `head` → recognition, the server. Arrays and numpy only.

Shapes: N pictures, C classes, D width, K keys of a cache, H width inside of an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nunbit.errors import UsageError
from nunbit.head.unknown import Unknown
from nunbit.types import Prediction, Recognition

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

    Logits = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Tip-Adapter's memory of examples (arXiv 2111.03930).

    Attributes:
        keys: (K, D) float32.
        values: (K, C) float32, what each key votes for.
        alpha: Factor on the votes.
        beta: How quickly a vote fades with distance.
    """

    keys: FloatArray
    values: FloatArray
    alpha: float
    beta: float

    def votes(self, rows: FloatArray) -> Logits:
        """``alpha * exp(-beta * (1 - rows @ keys.T)) @ values``, (N, C)."""
        affinity: Logits = np.exp(-self.beta * (1 - rows.astype(np.float64) @ self.keys.T))  # (N, K)
        votes: Logits = self.alpha * (affinity @ self.values)
        return votes


@dataclass(frozen=True, slots=True, eq=False)
class FeatureAdapter:
    """CLIP-Adapter's bottleneck on picture embeddings (arXiv 2110.04544).

    Attributes:
        down: (H, D) float32.
        up: (D, H) float32.
        ratio: How much of the result is the bottleneck's, in [0, 1].
    """

    down: FloatArray
    up: FloatArray
    ratio: float

    def adapt(self, rows: FloatArray) -> FloatArray:
        """``(1 - ratio) * rows + ratio * relu(up @ relu(down @ rows))``, made unit: (N, D)."""
        hidden = np.maximum(rows @ self.down.T, 0)  # (N, H)
        mixed = (1 - self.ratio) * rows + self.ratio * np.maximum(hidden @ self.up.T, 0)
        unit: FloatArray = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
        return unit


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What makes probabilities mean something: ``factor * logit + offset`` (vector scaling, arXiv 1706.04599).

    Attributes:
        factor: (C,) float64; all alike for temperature scaling.
        offset: (C,) float64; all 0 for temperature scaling.
    """

    factor: Logits
    offset: Logits


@dataclass(frozen=True, slots=True)
class AnswerSets:
    """From which probability on a class is among the answers, so that these hold the right one as often as is said.

    Attributes:
        threshold: In [0, 1]; 0 where there were too few examples to promise anything: then every class is an answer.
        coverage: How often the answers hold the right class, of pictures like the examples (split conformal,
            arXiv 2107.07511).
    """

    threshold: float
    coverage: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What labels, or a head, say of many pictures.

    Attributes:
        best: (N,) positions of the labels that fit best.
        probability: (N, C) in [0, 1].
        similarity: (N, C) cosines.
        unknown: (N,) whether a picture belongs to none; None where that cannot be told.
    """

    best: npt.NDArray[np.intp]
    probability: Logits
    similarity: FloatArray
    unknown: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Classes over the embeddings of one encoder.

    Attributes:
        classnames: C labels.
        weights: (C, D) float32, with the factor on similarities in them.
        bias: (C,) float32.
        cache: Added to what weights say, if there is one.
        adapter: Changes embeddings before weights and cache see them, if there is one.
        multi_label: Each class is judged by itself, so that a picture may have several or none; else they compete.
        calibration: None before it is known: probabilities are not calibrated then.
        unknown: How what belongs to no class is told; None: everything belongs to some class.
        answers: Which classes are possible answers; None: that was not measured.
    """

    classnames: tuple[str, ...]
    weights: FloatArray
    bias: FloatArray
    cache: Cache | None = None
    adapter: FeatureAdapter | None = None
    multi_label: bool = False
    calibration: Calibration | None = None
    unknown: Unknown | None = None
    answers: AnswerSets | None = None

    def __post_init__(self) -> None:
        classes = len(self.classnames)
        if self.weights.shape[:1] != (classes,) or self.bias.shape != (classes,):
            shapes = f"weights {self.weights.shape} and bias {self.bias.shape}"
            raise UsageError(f"{classes} classes have {shapes}, expected ({classes}, D) and ({classes},)")

    @property
    def embedding_size(self) -> int:
        """D."""
        return int(self.weights.shape[1])

    @property
    def bytes(self) -> int:
        """What its arrays take."""
        arrays = [self.weights, self.bias]
        arrays += [self.cache.keys, self.cache.values] if self.cache else []
        arrays += [self.adapter.down, self.adapter.up] if self.adapter else []
        arrays += [self.unknown.rows, self.unknown.positives] if self.unknown else []
        return sum(array.nbytes for array in arrays)

    def logits(self, rows: FloatArray) -> Logits:
        """Before calibration.

        Args:
            rows: (N, D) unit rows of the head's encoder.

        Returns:
            (N, C) float64.
        """
        if rows.ndim != 2 or rows.shape[1] != self.embedding_size:
            raise UsageError(f"embeddings have shape {rows.shape}, expected (N, {self.embedding_size})")
        if self.adapter is not None:
            rows = self.adapter.adapt(rows)
        logits: Logits = rows.astype(np.float64) @ self.weights.T + self.bias
        return logits if self.cache is None else logits + self.cache.votes(rows)

    def probability(self, rows: FloatArray) -> Logits:
        """(N, D) unit rows → (N, C) float64 in [0, 1]: calibrated if the head is; rows sum to 1 unless multi-label."""
        return probability_of(self.logits(rows), self.calibration, multi_label=self.multi_label)

    def is_unknown(self, rows: FloatArray) -> npt.NDArray[np.bool_] | None:
        """Tell which pictures belong to none of the classes.

        Args:
            rows: (N, D) unit rows.

        Returns:
            (N,); None where the head was not told how to tell.
        """
        if self.unknown is None:
            return None
        found: npt.NDArray[np.bool_] = self.unknown.familiarity(rows, self.logits(rows)) < self.unknown.threshold
        return found

    def judge(self, rows: FloatArray) -> Judged:
        """(N, D) unit rows of the head's encoder → all that it says of them."""
        probability = self.probability(rows)
        length = np.linalg.norm(self.weights, axis=1)
        cosines = rows @ self.weights.T / np.maximum(length, 1e-12)
        return Judged(probability.argmax(1), probability, cosines, self.is_unknown(rows))

    def predict(self, embedding: FloatArray, top_k: int | None = None) -> tuple[Prediction, ...]:
        """The classes of one picture, most probable first; of equals the one that was named first.

        Args:
            embedding: (D,) unit row of the head's encoder.
            top_k: Keep that many; all by default. Probabilities are made from all, kept or not.

        Returns:
            Predictions. ``similarity`` is the cosine of the picture and the direction that was learned for the class.

        Raises:
            UsageError: ``top_k`` is below 1.
        """
        return self.recognize(embedding, top_k).predictions

    def recognize(self, embedding: FloatArray, top_k: int | None = None, *, path: str = "") -> Recognition:
        """`predict`, with all that the head knows of one picture: whether it is unknown, and its possible answers.

        Args:
            embedding: (D,) unit row of the head's encoder.
            top_k: Predictions that are kept; the possible answers are not cut.
            path: Where the picture is.
        """
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}, it must be at least 1")
        judged = self.judge(embedding[None])
        probability, cosines = judged.probability[0], judged.similarity[0]
        order = np.argsort(-probability, kind="stable")
        predictions = [Prediction(self.classnames[n], float(probability[n]), float(cosines[n])) for n in order[:top_k]]
        answers = None
        if self.answers is not None:
            answers = tuple(self.classnames[n] for n in order if probability[n] >= self.answers.threshold)
        unknown = None if judged.unknown is None else bool(judged.unknown[0])
        return Recognition(path, tuple(predictions), unknown, answers)


def probability_of(logits: Logits, calibration: Calibration | None, *, multi_label: bool) -> Logits:
    """(..., C) logits → probabilities: a softmax over the classes, or for several labels a sigmoid of each."""
    if calibration is not None:
        logits = logits * calibration.factor + calibration.offset
    if multi_label:
        sigmoid: Logits = np.exp(-np.logaddexp(0, -logits))
        return sigmoid
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    softmax: Logits = odds / odds.sum(axis=-1, keepdims=True)
    return softmax

"""One very thing, such as "my mug", from a few photographs of it, told from everything that is like it.

Place in the river: photographs, and the rows of an index, of which those most like them are the hard negatives → a head
with one class more. Nothing else changes: with labels given, the concept becomes a class beside their words, whose odds
among each other stay what they were.

Shapes: P photographs, M pictures of the index, C labels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from nunbit.adapt.rung import ClassTexts, unit
from nunbit.errors import UsageError
from nunbit.head import Head
from nunbit.head.unknown import energy

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

    Numbers = npt.NDArray[np.float64]

SOMETHING_ELSE = "something else"
"""The other class, where no labels are given."""

HARD = 200
"""Pictures of the index, those most like the photographs, that the concept is told from."""

STRENGTH = 0.01
"""How strongly the direction of the concept is held at the mean of the photographs."""


@dataclass(frozen=True, slots=True, eq=False)
class Concept:
    """What was learned.

    Attributes:
        head: Its first class is the concept.
        found: (P,) for each photograph, how many pictures of the index, without those that may show the thing, are
            more like the concept that was learned without it and its near duplicates: 0 is best. Empty where nothing
            else would be left to learn from.
        perhaps: Positions in the index of pictures that may show the thing itself: they are no negatives.
        hard: Positions of those that were told from it.
        before: (C,) how many pictures of the index each label had without the concept; empty without labels.
        taken: (C,) how many of those are called the concept now: what was forgotten.
        scores: (M,) what the pictures of the index have, in logits; above 0 they are called the concept.
    """

    head: Head
    found: npt.NDArray[np.int64]
    perhaps: npt.NDArray[np.intp]
    hard: npt.NDArray[np.intp]
    before: npt.NDArray[np.int64]
    taken: npt.NDArray[np.int64]
    scores: Numbers


def learn_concept(
    name: str,
    photographs: FloatArray,
    index: FloatArray,
    labels: ClassTexts | None = None,
    *,
    logit_scale: float,
    groups: npt.NDArray[np.int64] | None = None,
    false_alarms: float = 0.01,
) -> Concept:
    """Learn one thing.

    Minimizes, over a direction ``w`` and an offset ``b``, with ``z = scale * (w @ x) + b - rest(x)`` and ``rest`` the
    log-sum-exp of the labels' logits, or 0 without labels::

        mean of softplus(-z) over photographs / 2 + mean of softplus(z) over hard negatives / 2
        + STRENGTH / 2 * |w - mean of the photographs|^2

    Then ``b`` is lowered until at most ``false_alarms`` of the index, without what may show it, is called the concept.

    Args:
        name: Of the thing.
        photographs: (P, D) unit rows.
        index: (M, D) unit rows, with or without the photographs themselves.
        labels: Other classes, by their words.
        logit_scale: The encoder's factor.
        groups: (P,) photographs of one group, near duplicates, are left out together; None: each stands alone.
        false_alarms: Share of other pictures that may be called by its name, in [0, 1).

    Raises:
        UsageError: No photograph, an index that has nothing else, or a label of the same name.
    """
    if len(photographs) == 0:
        raise UsageError("there is no photograph of it")
    if labels is not None and name in labels.names:
        raise UsageError(f"{name!r} is the thing and a label", hint="leave it out of --labels")
    groups = np.arange(len(photographs)) if groups is None else groups
    perhaps = _perhaps(photographs, index, groups)
    others = np.setdiff1d(np.arange(len(index)), perhaps)
    if len(others) == 0:
        raise UsageError("the index has no picture of anything else", hint="index other pictures, best of its kind")
    likest = unit(photographs.mean(0, keepdims=True))[0]
    hard = others[np.argsort(-(index[others] @ likest), kind="stable")[:HARD]]
    learner = _Learner(labels, logit_scale, index[hard], index[others], false_alarms)
    weights, bias = learner.learn(photographs)
    found: list[int] = []
    for group in groups if len(np.unique(groups)) > 1 else ():
        direction, offset = learner.learn(photographs[groups != group])
        own = learner.scores(photographs[len(found) : len(found) + 1], direction, offset)[0]
        found.append(int((learner.scores(index[others], direction, offset) > own).sum()))
    head = learner.head(name, weights, bias)
    scores = learner.scores(index, weights, bias)
    before, taken = _forgotten(labels, index[others], scores[others])
    return Concept(head, np.array(found, np.int64), perhaps, hard, before, taken, scores)


def _perhaps(photographs: FloatArray, index: FloatArray, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """What is as near to a photograph as the photographs are to each other may be the thing itself."""
    among = photographs @ photographs.T
    among[groups[:, None] == groups[None, :]] = -1.0
    line = float(np.median(among.max(1))) if len(np.unique(groups)) > 1 else 0.999  # alone: the very same picture
    return np.flatnonzero((index @ photographs.T).max(1, initial=-1.0) >= line)


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    """What does not change from one learning to the next."""

    labels: ClassTexts | None
    logit_scale: float
    hard: FloatArray
    others: FloatArray
    false_alarms: float

    def learn(self, photographs: FloatArray) -> tuple[FloatArray, float]:
        """(P, D) → direction (D,) and offset."""
        start = torch.from_numpy(unit(photographs.mean(0, keepdims=True))[0])
        shown, hard = torch.from_numpy(photographs), torch.from_numpy(self.hard)
        rests = [torch.from_numpy(self._rest(rows)).float() for rows in (photographs, self.hard)]
        weights = start.clone().requires_grad_(True)
        bias = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            right = self.logit_scale * shown @ weights + bias - rests[0]
            wrong = self.logit_scale * hard @ weights + bias - rests[1]
            loss = (functional.softplus(-right).mean() + functional.softplus(wrong).mean()) / 2
            loss = loss + STRENGTH / 2 * (weights - start).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        direction: FloatArray = weights.detach().numpy()
        offset = float(bias.detach())
        scores = self.scores(self.others, direction, offset)
        highest = float(np.quantile(scores, 1 - self.false_alarms, method="higher"))
        return direction, offset - max(highest, 0.0)

    def scores(self, rows: FloatArray, direction: FloatArray, offset: float) -> Numbers:
        """(N, D) → (N,) how much rather the concept than anything else, in logits."""
        found: Numbers = self.logit_scale * (rows.astype(np.float64) @ direction) + offset - self._rest(rows)
        return found

    def head(self, name: str, direction: FloatArray, offset: float) -> Head:
        """The concept beside the labels' words, or beside everything else."""
        rows = np.zeros((1, len(direction)), np.float32) if self.labels is None else self.labels.rows
        names = (SOMETHING_ELSE,) if self.labels is None else self.labels.names
        weights = self.logit_scale * np.concatenate([direction[None], rows])
        bias = np.zeros(1 + len(rows), np.float32)
        bias[0] = offset
        return Head((name, *names), weights.astype(np.float32), bias)

    def _rest(self, rows: FloatArray) -> Numbers:
        if self.labels is None:
            return np.zeros(len(rows))
        return energy(self.logit_scale * (rows.astype(np.float64) @ self.labels.rows.T))


def _forgotten(
    labels: ClassTexts | None, others: FloatArray, scores: Numbers
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many pictures each label had, and how many of these have gone to the concept."""
    if labels is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    logits = labels.logit_scale * (others.astype(np.float64) @ labels.rows.T)
    best = logits.argmax(1)
    gone = scores + energy(logits) > logits.max(1)  # the concept's own logit against the best label's
    count = len(labels.names)
    return np.bincount(best, minlength=count), np.bincount(best[gone], minlength=count)


def most_alike(concept: Concept, count: int) -> Sequence[int]:
    """Positions in the index of the pictures that are most like the concept, the likest first."""
    order: list[int] = np.argsort(-concept.scores, kind="stable")[:count].tolist()
    return order

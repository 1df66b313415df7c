"""Logits → probabilities that mean something, measured on examples that were held out.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nunbit.head import Calibration
from nunbit.head.head import probability_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from nunbit.adapt.rung import Logits, Targets

BINS = 15
_EXAMPLES_A_CLASS = 10  # with fewer a factor and an offset for each class learn the noise
_HOLD = 1e-2


def calibrate(logits: Logits, targets: Targets, *, multi_label: bool, seed: int = 0) -> Calibration:
    """Choose between one temperature and a factor and offset a class by likelihood on halves held out.

    Args:
        logits: (N, C) of examples that the head was not taught; those of NaN are left out.
        targets: (N, C) bool.
        multi_label: Each class is judged by itself: its temperature comes with an offset, since an encoder that
            compares labels knows no "none of them".
        seed: Of the halves.
    """
    known = np.isfinite(logits).all(1)
    logits, targets = logits[known], targets[known]
    classes = targets.shape[1]
    if len(logits) < 2:
        return Calibration(np.ones(classes), np.zeros(classes))
    kinds: list[Callable[..., Calibration]] = [_temperature]
    if targets.sum(0).min() >= _EXAMPLES_A_CLASS:
        kinds.append(_vector)
    if len(kinds) == 1:
        return _temperature(logits, targets, multi_label)
    half = np.random.default_rng(seed).permutation(len(logits)) < len(logits) // 2
    likely = [
        sum(
            mean_likelihood(logits[~part], targets[~part], kind(logits[part], targets[part], multi_label), multi_label)
            for part in (half, ~half)
        )
        for kind in kinds
    ]
    return kinds[int(np.argmax(likely))](logits, targets, multi_label)


def mean_likelihood(logits: Logits, targets: Targets, calibration: Calibration | None, multi_label: bool) -> float:
    """Mean log-probability of the truth a picture, in nats."""
    return float(likelihood(logits, targets, calibration, multi_label).mean())


def likelihood(logits: Logits, targets: Targets, calibration: Calibration | None, multi_label: bool) -> Logits:
    """Log-probability of the truth, in nats: (N, C) → (N,); of several labels the sum."""
    probability = np.clip(probability_of(logits, calibration, multi_label=multi_label), 1e-12, 1 - 1e-12)
    wrong = np.log1p(-probability) if multi_label else 0.0
    found: Logits = np.where(targets, np.log(probability), wrong).sum(1)
    return found


def calibration_error(probability: Logits, targets: Targets) -> float:
    """Expected calibration error of the answers that come first (arXiv 1706.04599): 15 bins of equal width, out of 1.

    Args:
        probability: (N, C), rows sum to 1.
        targets: (N, C) bool.
    """
    confidence, right = probability.max(1), targets[np.arange(len(targets)), probability.argmax(1)]
    return float(sum(abs(gap) * share for _, _, gap, share in reliability(confidence, right)))


def reliability(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> list[tuple[float, float, float, float]]:
    """What a reliability diagram draws.

    Returns:
        For each bin with answers in it: mean confidence, share of right answers, their difference, share of answers.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        sure, hits = float(confidence[inside].mean()), float(right[inside].mean())
        rows.append((sure, hits, sure - hits, float(inside.mean())))
    return rows


def conformal_threshold(probability: Logits, targets: Targets, coverage: float) -> float:
    """The probability from which on a class belongs to the set of answers (split conformal, arXiv 2107.07511).

    A set of all classes with at least this probability holds the right one in ``coverage`` of new pictures, if these
    are like the examples. 0 where there are too few examples to promise it: then every class belongs to every set.

    Args:
        probability: (N, C) of examples that were held out.
        targets: (N, C) bool, one a row.
        coverage: In (0, 1).
    """
    true = np.sort(probability[targets])
    allowed = int(round((len(true) + 1) * (1 - coverage), 9))  # so many may be missed; 10 * (1 - 0.9) is not quite 1
    return float(true[allowed - 1]) if allowed >= 1 else 0.0


def _temperature(logits: Logits, targets: Targets, multi_label: bool) -> Calibration:
    """One factor for all classes, and for several labels one offset."""

    def form(parameters: Tensor) -> tuple[Tensor, Tensor]:
        return parameters[0].exp(), parameters[1] if multi_label else torch.zeros(())

    return _fit(logits, targets, multi_label, form, 2)


def _vector(logits: Logits, targets: Targets, multi_label: bool) -> Calibration:
    """A factor and an offset for each class, held near one factor for all."""
    classes = targets.shape[1]

    def form(parameters: Tensor) -> tuple[Tensor, Tensor]:
        return (parameters[0] + parameters[1 : classes + 1]).exp(), parameters[classes + 1 :]

    return _fit(logits, targets, multi_label, form, 2 * classes + 1)


def _fit(
    logits: Logits,
    targets: Targets,
    multi_label: bool,
    form: Callable[[Tensor], tuple[Tensor, Tensor]],
    count: int,
) -> Calibration:
    """Most likely parameters, from factor 1 and offset 0, in float64."""
    given, truth = torch.from_numpy(logits), torch.from_numpy(targets)
    parameters = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        factor, offset = form(parameters)
        scaled = given * factor + offset
        if multi_label:
            loss = functional.binary_cross_entropy_with_logits(scaled, truth.double(), reduction="sum") / len(given)
        else:
            loss = functional.cross_entropy(scaled, truth.int().argmax(1))
        loss = loss + _HOLD * parameters[1:].square().mean() if count > 2 else loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        factor, offset = form(parameters)
        classes = logits.shape[1]
        return Calibration(factor.expand(classes).numpy().copy(), offset.expand(classes).numpy().copy())

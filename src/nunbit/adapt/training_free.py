"""Rungs that count and average, and learn nothing step by step.

Shapes: N examples, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nunbit.adapt.rung import ClassTexts, Rung, text_head, unit
from nunbit.errors import UsageError
from nunbit.head import Cache, Head

if TYPE_CHECKING:
    from nunbit.adapt.rung import Targets
    from nunbit.types import FloatArray


class ZeroShot(Rung):
    """The words alone (arXiv 2103.00020, section 3.1): ``logit_scale * cos(picture, label)``. Examples are not used."""

    NAME = "zero-shot"

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        return text_head(self.classes, self.classes.rows, multi_label=multi_label)


class Described(Rung):
    """The words, and what a language model says that they look like (arXiv 2209.03320). Examples are not used."""

    NAME = "descriptions"
    NEEDS_DESCRIPTIONS = True

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        if self.classes.described is None:
            raise UsageError("there are no descriptions of the classes", hint="give --descriptions FILE")
        return text_head(self.classes, self.classes.described, multi_label=multi_label)


class NearestMean(Rung):
    """The mean of a class's examples, blended with its words (arXiv 1703.05175; blended as in 2111.03930).

    ``w_c = unit(examples * mean_c + words * text_c)``: ``words`` says how many examples the words are worth; 0 is the
    plain mean. A class without examples keeps its words.
    """

    NAME = "nearest-mean"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"words": 1.0}
    CANDIDATES = ({"words": 0.0}, {"words": 1.0}, {"words": 4.0})

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        counts = targets.sum(0)[:, None]  # (C, 1)
        sums = targets.T.astype(np.float32) @ rows  # (C, D)
        centers = unit(sums) * np.minimum(counts, 1)
        words = np.where(counts > 0, self.settings["words"], 1.0)
        weights = unit(counts * centers + words * self.classes.rows)
        return text_head(self.classes, weights, multi_label=multi_label)


class TipAdapter(Rung):
    """Tip-Adapter (arXiv 2111.03930): words, and examples that vote by ``alpha * exp(-beta * (1 - cosine))``.

    The published factor on cosines of words is 100; here it is the encoder's own, and votes are put on its scale by
    the same share, so that ``alpha`` means what it means there.
    """

    NAME = "tip-adapter"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"alpha": 1.0, "beta": 5.5}
    CANDIDATES = tuple({"alpha": alpha, "beta": beta} for alpha in (0.3, 1.0, 3.0, 10.0) for beta in (1.0, 5.5, 15.0))

    def _learn(self, rows: FloatArray, targets: Targets, multi_label: bool) -> Head:
        base = text_head(self.classes, self.classes.rows, multi_label=multi_label)
        return with_cache(base, make_cache(self.classes, rows, targets, **self.settings))


def make_cache(classes: ClassTexts, rows: FloatArray, targets: Targets, *, alpha: float, beta: float) -> Cache:
    """Tip-Adapter's cache of all examples."""
    return Cache(rows, targets.astype(np.float32), alpha * classes.logit_scale / PUBLISHED_SCALE, beta)


def with_cache(head: Head, cache: Cache) -> Head:
    """A head with a cache beside its words."""
    return Head(head.classnames, head.weights, head.bias, cache=cache, multi_label=head.multi_label)


PUBLISHED_SCALE = 100.0

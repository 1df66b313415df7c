"""What goes wrong in a run, in plain words with a remedy, while it can still be mended."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_WINDOW = 50  # steps whose mean loss is compared with the mean of the first so many after the warm-up
_PATIENCE = 300  # steps beyond the warm-up before a loss may be called stuck
_COLLAPSED = 0.95  # mean cosine of different pictures' embeddings; 1 when all are equal
_SCALE = 99.0  # CLIP clamps the factor on cosines at 100
_DUPLICATES = 0.3


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a run.

    Attributes:
        step: When it was noticed.
        problem: A short and stable name.
        words: What was seen.
        remedy: What to try.
    """

    step: int
    problem: str
    words: str
    remedy: str


class Diagnosis:
    """Watches the numbers of a run; each problem is told once.

    Args:
        warmup_steps: Before whose end nothing is expected of the loss.
    """

    def __init__(self, warmup_steps: int) -> None:
        self._warmup = warmup_steps
        self._watched = 0
        self._lowest_scale = math.inf
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._told: set[str] = set()

    def observe(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Look at the numbers of one step.

        Args:
            step: Counted from 1.
            values: ``loss``; where they are there also ``gradient_norm``, ``chance_loss`` (what guessing costs),
                ``logit_scale``, ``image_similarity`` and ``text_similarity`` (mean cosine of different ones),
                ``duplicates`` (share of pairs in a batch whose picture or text is there twice).

        Returns:
            What is new.
        """
        found = [finding for finding in self._look(step, values) if finding.problem not in self._told]
        self._told |= {finding.problem for finding in found}
        return found

    def _look(self, step: int, values: Mapping[str, float]) -> Iterator[Finding]:
        loss = values["loss"]
        norm = values.get("gradient_norm", 0.0)
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradients' norm is {norm}"
            yield Finding(
                step,
                "not finite",
                f"{what}; this step changed nothing",
                "lower learning_rate, keep gradient_clip at 1, or compute in float32",
            )
            return
        yield from self._stuck(step, loss, values.get("chance_loss"))
        for side in ("image", "text"):
            similarity = values.get(f"{side}_similarity", 0.0)
            if similarity > _COLLAPSED and step > self._warmup:
                yield Finding(
                    step,
                    f"{side} embeddings collapsed",
                    f"different {side}s have a mean similarity of {similarity:.2f}: nearly all get the same embedding",
                    "lower learning_rate, lengthen the warm-up, take a larger batch, check that pairs differ",
                )
        scale = values.get("logit_scale", 0.0)
        self._lowest_scale = min(self._lowest_scale, scale)
        if scale >= _SCALE > self._lowest_scale:  # a start may have been there already
            yield Finding(
                step,
                "logit scale at its limit",
                f"the factor on similarities grew to {values['logit_scale']:.0f}, where it is held",
                "the batch is learned by heart: take more data or stronger augmentation, or fewer steps",
            )
        if values.get("duplicates", 0.0) > _DUPLICATES:
            yield Finding(
                step,
                "duplicate-heavy data",
                f"{values['duplicates']:.0%} of a batch share their picture or their text with another pair",
                "run `nunbit curate` first; duplicates are no negatives here, but they teach little",
            )

    def _stuck(self, step: int, loss: float, chance: float | None) -> Iterator[Finding]:
        self._recent.append(loss)
        if step <= self._warmup:
            return
        self._watched += 1  # a run that goes on is watched anew
        if len(self._first) < _WINDOW:
            self._first.append(loss)
        if self._watched < _PATIENCE:
            return
        before, now = sum(self._first) / len(self._first), sum(self._recent) / len(self._recent)
        if now > before * 0.99 and (chance is None or now > 0.5 * chance):
            guessing = "" if chance is None else f"; guessing costs {chance:.2f}"
            yield Finding(
                step,
                "loss not falling",
                f"the loss was {before:.2f} {self._watched:,} steps ago and is {now:.2f} now{guessing}",
                "try a learning_rate three times lower or higher; check that texts belong to their pictures",
            )

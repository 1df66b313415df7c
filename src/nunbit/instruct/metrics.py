"""How good answers are: questions with one answer, yes and no, captions.

Shapes: N pictures.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_GRAMS = 4
_SIGMA = 6.0


def exact_match(answers: Sequence[str], truth: Sequence[str]) -> float:
    """Share of answers that are the truth, out of 100; case, spaces around and a full stop do not count."""
    return 100 * sum(_plain(one) == _plain(other) for one, other in zip(answers, truth, strict=True)) / len(truth)


@dataclass(frozen=True, slots=True)
class YesNo:
    """Answers to questions of presence, as POPE measures them (arXiv 2305.10355); yes is what is to be found.

    Attributes:
        accuracy: In [0, 1], as all others.
        precision: Of those that are answered with yes, so many are.
        recall: Of those that are, so many are answered with yes.
        f1: Their harmonic mean.
        yes_ratio: Share of answers that are yes.
        neither: Share of answers that are neither; they count as no.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    neither: float


def yes_no(answers: Sequence[str], truth: Sequence[bool]) -> YesNo:
    """Measure; ``Yes.`` and ``yes, there is`` are yes."""
    firsts = [(re.findall(r"\w+", answer.lower()) or [""])[0] for answer in answers]
    said = [first == "yes" for first in firsts]
    hits = sum(one and other for one, other in zip(said, truth, strict=True))
    precision, recall = hits / max(1, sum(said)), hits / max(1, sum(truth))
    count = len(truth)
    return YesNo(
        accuracy=sum(one == other for one, other in zip(said, truth, strict=True)) / count,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / max(1e-12, precision + recall),
        yes_ratio=sum(said) / count,
        neither=sum(first not in ("yes", "no") for first in firsts) / count,
    )


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D (arXiv 1411.5726): 10 times the mean cosine of tf-idf vectors of 1- to 4-grams.

    ``g(c, s) = min(c, s) . s / (|c| |s|) * exp(-(len(c) - len(s))^2 / (2 * 6^2))``, averaged over a picture's
    references and the four lengths; document frequencies are those of the references. Words are letters and digits in
    lower case, where the published script has a tokenizer in Java; so figures are comparable here and not with papers.

    Args:
        candidates: N captions.
        references: Of each picture, at least one.
    """
    documents = [[_counts(text) for text in group] for group in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for group in documents:
        frequency.update({gram for counts in group for gram in counts})
    scale = math.log(len(references))

    def vectors(counts: Counter[tuple[str, ...]]) -> list[dict[tuple[str, ...], float]]:
        found: list[dict[tuple[str, ...], float]] = [{} for _ in range(_GRAMS)]
        for gram, count in counts.items():
            found[len(gram) - 1][gram] = count * (scale - math.log(max(1, frequency[gram])))
        return found

    total = 0.0
    for candidate, group in zip(candidates, documents, strict=True):
        counts = _counts(candidate)
        said = vectors(counts)
        scores = [_similarity(said, vectors(one), _length(counts) - _length(one)) for one in group]
        total += sum(scores) / len(scores)
    return 10 * total / len(candidates)


def _similarity(
    said: Sequence[dict[tuple[str, ...], float]], meant: Sequence[dict[tuple[str, ...], float]], longer: int
) -> float:
    total = 0.0
    for one, other in zip(said, meant, strict=True):
        product = sum(min(weight, other[gram]) * other[gram] for gram, weight in one.items() if gram in other)
        lengths = math.sqrt(sum(w * w for w in one.values())) * math.sqrt(sum(w * w for w in other.values()))
        total += product / lengths if lengths else 0.0
    return total / _GRAMS * math.exp(-(longer**2) / (2 * _SIGMA**2))


def _counts(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return Counter(
        tuple(words[start : start + size]) for size in range(1, _GRAMS + 1) for start in range(len(words) - size + 1)
    )


def _length(counts: Counter[tuple[str, ...]]) -> int:
    return sum(count for gram, count in counts.items() if len(gram) == 1)


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").strip().lower()

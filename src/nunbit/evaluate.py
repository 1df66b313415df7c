"""How good an encoder is on pictures and classes that taught it nothing, beside a baseline that needs no training.

Shapes: N pictures, M texts, C ImageNet classes 1000, K WordNet concepts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nunbit.contrastive.starter_lessons import encode_photos, imagenet_offsets
from nunbit.data import Split, read_captioned_photos
from nunbit.encode import Encoder
from nunbit.starter.model import SHIPPED, Starter
from nunbit.wordnet import ancestors, read_nouns

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray

Scorer: TypeAlias = "Callable[[Sequence[Path], Sequence[str]], FloatArray]"
"""Pictures and texts → (N, M) scores, higher is nearer."""

TEMPERATURE = 20.0
"""Sharpness of the soft baseline's text-to-concept weights; chosen on the dev split."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Percentages, each out of 100.

    Attributes:
        clothing: Top-1 accuracy, 10 garment classes.
        grocery: Top-1 accuracy, 43 coarse grocery classes.
        retrieval: Recall@5 of caption → photograph among the split's photographs.
    """

    clothing: float
    grocery: float
    retrieval: float

    @property
    def mean(self) -> float:
        """The mean of the three."""
        return (self.clothing + self.grocery + self.retrieval) / 3


def encoder_scorer(encoder: Encoder) -> Scorer:
    """Cosines of an encoder."""
    return lambda paths, texts: encoder.encode_image(paths) @ encoder.encode_text(texts).T


class ConceptBaseline:
    """Zero-shot recognition without training: class probabilities carried over WordNet to the texts' concepts.

    A concept's probability is the sum over the ImageNet classes below it. ``hard``: a text takes the probability of
    the one concept whose name is nearest to it. ``soft``: it takes the mean over all concepts, weighted by a softmax
    of 20 times the similarity of their names.

    Args:
        wordnet: WordNet 3.0's database files.
        soft: Which of the two.
    """

    def __init__(self, wordnet: Path, *, soft: bool) -> None:
        nouns = read_nouns(wordnet)
        above = [ancestors(nouns, offset) for offset in imagenet_offsets()]
        concepts = list(dict.fromkeys(concept for chain in above for concept in chain))
        row = {concept: number for number, concept in enumerate(concepts)}
        self._membership = np.zeros((len(above), len(concepts)), np.float32)  # (C, K)
        for number, chain in enumerate(above):
            self._membership[number, [row[concept] for concept in chain]] = 1
        self._soft = soft
        self._starter = Starter(SHIPPED)
        names = [name for concept in concepts for name in nouns[concept].lemmas]
        self._owner = np.repeat(np.arange(len(concepts)), [len(nouns[concept].lemmas) for concept in concepts])
        self._name_rows = self._starter.text_tower.encode(names)

    def __call__(self, paths: Sequence[Path], texts: Sequence[str]) -> FloatArray:
        """Scores (N, M): the probability mass that the pictures give to the texts' concepts."""
        _, logits = encode_photos(self._starter, paths)
        concepts = logits.softmax(-1).numpy() @ self._membership  # (N, K)
        similarity = np.full((len(texts), concepts.shape[1]), -1.0, np.float32)
        by_name = self._starter.text_tower.encode(texts) @ self._name_rows.T
        np.maximum.at(similarity.T, self._owner, by_name.T)
        if not self._soft:
            nearest: FloatArray = concepts[:, similarity.argmax(1)]
            return nearest
        weights = np.exp(TEMPERATURE * (similarity - similarity.max(1, keepdims=True)))
        weighted: FloatArray = concepts @ (weights / weights.sum(1, keepdims=True)).T
        return weighted


def evaluate(scorer: Scorer, shared: Path, *, split: Split = "test") -> Figures:
    """Measure a scorer.

    Args:
        scorer: Pictures and texts → scores.
        shared: The folder that holds ``clothing``, ``grocery`` and ``coco``.
        split: Of the captioned photographs. Clothing and grocery teach nothing, so all their test pictures count.
    """
    return Figures(
        clothing=_accuracy(scorer, list(_by_folder(shared / "clothing" / "test"))),
        grocery=_accuracy(scorer, list(_groceries(shared / "grocery"))),
        retrieval=_recall(scorer, shared / "coco", split),
    )


def recall_at(scores: FloatArray, owners: npt.NDArray[np.int64], k: int) -> float:
    """Share of texts whose own picture is among the ``k`` that score highest, in percent.

    Args:
        scores: (N, M) pictures by texts.
        owners: (M,) each text's picture. A picture that ties with it counts as ahead, so equal scores win nothing.
        k: At least 1.
    """
    own = scores[owners, np.arange(scores.shape[1])]
    ahead = (scores >= own).sum(0) - 1
    return float(100 * (ahead < k).mean())


def _accuracy(scorer: Scorer, items: list[tuple[Path, str]]) -> float:
    labels = sorted({label for _, label in items})
    truth = np.array([labels.index(label) for _, label in items])
    best = scorer([path for path, _ in items], labels).argmax(1)
    return float(100 * (best == truth).mean())


def _recall(scorer: Scorer, coco: Path, split: Split) -> float:
    photos = [photo for photo in read_captioned_photos(coco) if photo.split == split]
    captions = [caption for photo in photos for caption in photo.captions]
    owners = np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos])
    return recall_at(scorer([photo.path for photo in photos], captions), owners, 5)


def _by_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.glob("*/*")):
        yield path, path.parent.name


def _groceries(folder: Path) -> Iterator[tuple[Path, str]]:
    rows = [json.loads(line) for line in (folder / "classes.jsonl").read_text(encoding="utf-8").splitlines()]
    coarse = {row["name"].replace(" ", "-"): row["coarse"].lower() for row in rows}
    for path, product in _by_folder(folder / "test"):
        yield path, coarse[product]

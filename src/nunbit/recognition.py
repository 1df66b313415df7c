"""Pictures + labels → probabilities. The labels are any words, in any language that the encoder reads.

Shapes: N pictures, C labels, D width.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nunbit.encode import Encoder
from nunbit.errors import UsageError
from nunbit.types import Prediction, Recognition

if TYPE_CHECKING:
    from nunbit.types import FloatArray, ImageSource


def recognize(
    encoder: Encoder, images: Sequence[ImageSource], classnames: Sequence[str], *, top_k: int | None = None
) -> list[Recognition]:
    """Say which of the labels fits each picture best.

    Args:
        encoder: Any encoder.
        images: N pictures, as ``Encoder.encode_image`` takes them.
        classnames: C labels, at least one, no two alike.
        top_k: Keep that many labels a picture; all by default.

    Returns:
        For each picture its labels, most probable first.

    Raises:
        UsageError: No label, an empty one, the same one twice, or ``top_k`` below 1.
        ImageError: A picture cannot be read.

    Example:
        >>> nunbit.recognize(encoder, ["a.jpg"], ["cat", "dog"])[0].predictions[0].label
        'cat'
    """
    labels = Labels(encoder, classnames)
    rows = encoder.encode_image(images)
    names = [os.fspath(image) if isinstance(image, (str, os.PathLike)) else "" for image in images]
    return [Recognition(name, labels.predict(row, top_k)) for name, row in zip(names, rows, strict=True)]


class Labels:
    """Labels, embedded once and compared with any number of pictures.

    Args:
        encoder: Embeds the labels and gives the scale of the probabilities.
        classnames: C labels, at least one, no two alike.

    Raises:
        UsageError: No label, an empty one, or the same one twice.
    """

    def __init__(self, encoder: Encoder, classnames: Sequence[str]) -> None:
        self.classnames = check_labels(classnames)
        self._embeddings = encoder.encode_text(self.classnames)
        self._logit_scale = encoder.logit_scale

    def predict(self, embedding: FloatArray, top_k: int | None = None) -> tuple[Prediction, ...]:
        """The labels of one picture.

        Args:
            embedding: (D,) unit row of the same encoder.
            top_k: Keep that many; all by default.

        Returns:
            Predictions, most probable first; probabilities are over all labels, so those kept may sum to less than 1.
        """
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}, it must be at least 1")
        similarity = self._embeddings @ embedding  # (C,)
        logits = self._logit_scale * similarity.astype(np.float64)
        odds = np.exp(logits - logits.max())
        probability = odds / odds.sum()
        best = np.argsort(-probability, kind="stable")[:top_k]
        return tuple(Prediction(self.classnames[i], float(probability[i]), float(similarity[i])) for i in best)


def check_labels(classnames: Sequence[str]) -> list[str]:
    """Labels without surrounding space.

    Raises:
        UsageError: No label, an empty one, or the same one twice.
    """
    if isinstance(classnames, str):
        raise UsageError("classnames is one string, expected a list of labels", hint=f"write {classnames.split(',')}")
    labels = [label.strip() for label in classnames]
    if not labels:
        raise UsageError("there are no labels", hint="give at least one, better two")
    if "" in labels:
        raise UsageError(f"label {labels.index('') + 1} of {len(labels)} is empty", hint="remove it")
    label, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise UsageError(f"the label {label!r} is given twice", hint="remove one of them")
    return labels

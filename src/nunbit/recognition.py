"""Pictures + labels → probabilities. The labels are any words, in any language that the encoder reads.

Shapes: N pictures, C labels, T templates, D width.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from nunbit.encode import Encoder
from nunbit.errors import UsageError
from nunbit.head.head import Judged, probability_of
from nunbit.labels.embedding import embed_labels
from nunbit.text.templates import get_templates
from nunbit.types import Prediction, Recognition

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.types import FloatArray, ImageSource


def recognize(
    encoder: Encoder,
    images: Sequence[ImageSource],
    classnames: Sequence[str],
    *,
    top_k: int | None = None,
    templates: str | Sequence[str] = "none",
    exact: bool = False,
) -> list[Recognition]:
    """Say which of the labels fits each picture best.

    Args:
        encoder: Any encoder.
        images: N pictures, as ``Encoder.encode_image`` takes them.
        classnames: C labels, at least one, no two alike.
        top_k: Keep that many labels a picture; all by default.
        templates: Sentences to put the labels into, as in `Labels`.
        exact: Decode large JPEGs in full, as in ``Encoder.encode_image``.

    Returns:
        For each picture its labels, most probable first.

    Raises:
        UsageError: No label, an empty one, the same one twice, ``top_k`` below 1, or templates that cannot be meant.
        ImageError: A picture cannot be read.

    Example:
        >>> nunbit.recognize(encoder, ["a.jpg"], ["cat", "dog"])[0].predictions[0].label
        'cat'
    """
    labels = Labels(encoder, classnames, templates=templates)
    rows = encoder.encode_image(images, exact=exact)
    names = [os.fspath(image) if isinstance(image, (str, os.PathLike)) else "" for image in images]
    return [labels.recognize(row, top_k, path=name) for name, row in zip(names, rows, strict=True)]


class Labels:
    """Labels, embedded once and compared with any number of pictures.

    A label that is put into several templates is embedded as the mean of its unit rows, made unit again (arXiv
    2103.00020, section 3.1.4).

    Args:
        encoder: Embeds the labels, and says how similarities become probabilities.
        classnames: C labels, at least one, no two alike.
        templates: The name of a set (`nunbit.text.templates.TEMPLATE_SETS`), or own strings with one ``{}`` each.

    Raises:
        UsageError: No label, an empty one, the same one twice, or templates that cannot be meant.

    Example:
        >>> Labels(encoder, ["고양이", "개"], templates="korean")
    """

    def __init__(self, encoder: Encoder, classnames: Sequence[str], *, templates: str | Sequence[str] = "none") -> None:
        names = check_labels(classnames)
        self._hold(
            names, embed_labels(encoder, names, get_templates(templates)), encoder.logit_scale, encoder.logit_bias
        )

    @classmethod
    def from_embeddings(
        cls, classnames: Sequence[str], embeddings: FloatArray, *, logit_scale: float, logit_bias: float | None = None
    ) -> Self:
        """Labels whose embeddings were made elsewhere: a published head, a mean of pictures.

        Args:
            classnames: C labels, at least one, no two alike.
            embeddings: (C, D) float, rows of any length but zero; they are made unit.
            logit_scale: Factor on similarities.
            logit_bias: None for a softmax over the labels; a number for a sigmoid of each label by itself.

        Raises:
            UsageError: Labels that cannot be meant, another number of rows, or a row without a direction.
        """
        labels = cls.__new__(cls)
        labels._hold(check_labels(classnames), np.asarray(embeddings, np.float32, order="C"), logit_scale, logit_bias)
        return labels

    def _hold(self, classnames: list[str], rows: FloatArray, logit_scale: float, logit_bias: float | None) -> None:
        if rows.ndim != 2 or len(rows) != len(classnames):
            raise UsageError(f"the embeddings have shape {rows.shape}, expected ({len(classnames)}, D): a row a label")
        length = np.linalg.norm(rows, axis=1, keepdims=True)  # (C, 1)
        for name, size in zip(classnames, length[:, 0], strict=True):
            if not 0 < size < np.inf:
                raise UsageError(f"the embedding of label {name!r} has length {size}, expected a positive number")
        self.classnames = classnames
        self._embeddings = rows / length
        self._logit_scale = logit_scale
        self._logit_bias = logit_bias

    def similarity(self, embedding: FloatArray) -> FloatArray:
        """Cosines with one picture.

        Args:
            embedding: (D,) unit row of the same encoder.

        Returns:
            (C,) float32 in [-1, 1], in the order of ``classnames``. Labels with equal embeddings get equal numbers,
            wherever they stand; a matrix product does not promise that, and ties would be decided by its rounding.
        """
        cosines: FloatArray = np.einsum("cd,d->c", self._embeddings, embedding)
        return cosines

    def similarities(self, embeddings: FloatArray) -> FloatArray:
        """Cosines with many pictures, by a product of matrices: quicker than `similarity`, and ties may be rounded.

        Args:
            embeddings: (N, D) unit rows of the same encoder.

        Returns:
            (N, C) float32 in [-1, 1].
        """
        cosines: FloatArray = embeddings @ self._embeddings.T
        return cosines

    def probability(self, similarity: FloatArray) -> npt.NDArray[np.float64]:
        """What `Prediction.probability` says, for similarities (..., C) of pictures: float64 in [0, 1]."""
        logits = self._logit_scale * similarity.astype(np.float64)
        if self._logit_bias is None:
            return probability_of(logits, None, multi_label=False)
        return probability_of(logits + self._logit_bias, None, multi_label=True)

    def judge(self, embeddings: FloatArray) -> Judged:
        """(N, D) unit rows of the same encoder → all that the labels say of them; nothing is unknown to labels."""
        similarity = self.similarities(embeddings)
        return Judged(similarity.argmax(1), self.probability(similarity), similarity)

    def recognize(self, embedding: FloatArray, top_k: int | None = None, *, path: str = "") -> Recognition:
        """`predict`, as a value that says which picture it is of."""
        return Recognition(path, self.predict(embedding, top_k))

    def predict(self, embedding: FloatArray, top_k: int | None = None) -> tuple[Prediction, ...]:
        """The labels of one picture.

        Args:
            embedding: (D,) unit row of the same encoder.
            top_k: Keep that many; all by default.

        Returns:
            Predictions, most probable first; probabilities are made from all labels, kept or not.

        Raises:
            UsageError: ``top_k`` is below 1.
        """
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}, it must be at least 1")
        similarity = self.similarity(embedding)
        probability = self.probability(similarity)
        best = np.argsort(-similarity, kind="stable")[:top_k]
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

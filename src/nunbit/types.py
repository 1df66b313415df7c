"""Frozen values that travel between steps.

``similarity`` is always a cosine in [-1, 1]; ``probability`` is always in [0, 1] and its docstring says over what.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    FloatArray: TypeAlias = npt.NDArray[np.float32]
    ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any]"


@dataclass(frozen=True, slots=True)
class ImageText:
    """One picture and the texts that belong to it: a record of a data stream.

    Attributes:
        key: Names the record for good, however the stream is shuffled or divided: its source, then what identifies
            it there (a relative path, a row, a member of a tar shard).
        image: A path, or the bytes of an image file.
        texts: At least one; what several people or fields say about the picture.
        source: The name of the source it came from.
        metadata: Whatever else the source says: plain JSON values.
    """

    key: str
    image: str | bytes
    texts: tuple[str, ...]
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label for one picture.

    Attributes:
        label: As the caller wrote it.
        probability: Not calibrated. Of an encoder without ``logit_bias`` (CLIP): softmax over the given labels of
            ``logit_scale * similarity``, so it says nothing about labels that were not given. Of one with it (SigLIP):
            ``sigmoid(logit_scale * similarity + logit_bias)``, each label by itself; their sum means nothing.
        similarity: Cosine of picture and label.
    """

    label: str
    probability: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """The labels of one picture, most probable first.

    Attributes:
        path: Empty for a picture given as pixels or bytes.
        predictions: The labels.
        unknown: Whether it seems to show none of them; None where nothing was learned that could tell.
        answers: The labels that are possible at the coverage that a head promises, most probable first; none where no
            single one is probable enough. None where nothing was measured that could promise it.
    """

    path: str
    predictions: tuple[Prediction, ...]
    unknown: bool | None = None
    answers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """One hit of a search. ``rank`` counts from 1; ``metadata`` holds the index's other columns."""

    rank: int
    id: str
    path: str
    similarity: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One picture that was set aside: a line of the ledger.

    Attributes:
        path: Where it was.
        reason: Short and stable, for counting: ``"truncated"``, ``"not an image"``, ...
        detail: What was found in this very file.
    """

    path: str
    reason: str
    detail: str

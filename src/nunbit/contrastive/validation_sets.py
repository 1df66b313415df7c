"""Validation sources, read once: as what a student takes in, and with a few of them to look at.

Shapes: N pictures, M different texts.
"""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nunbit.contrastive.batches import Pictures, identity
from nunbit.contrastive.config import DataConfig
from nunbit.contrastive.students import Student
from nunbit.contrastive.validation import Pairs
from nunbit.data import SourceConfig, open_source
from nunbit.data.source import Source
from nunbit.encode import Encoded, encode_stream
from nunbit.errors import TrainingError
from nunbit.images import open_image
from nunbit.types import ImageText, Rejected

if TYPE_CHECKING:
    from nunbit.contrastive.batches import Pixels
    from nunbit.types import FloatArray

SHOWN = 16
_THUMBNAIL = 72


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """One source, ready to be measured on.

    Attributes:
        name: Of the source.
        images: What the student takes of N pictures.
        text_inputs: What it takes of M texts.
        pairs: What belongs together.
        records: The first few, to be shown.
    """

    name: str
    images: Tensor
    text_inputs: Tensor
    pairs: Pairs
    records: tuple[ImageText, ...]


def read_validation(
    source: SourceConfig, student: Student, config: DataConfig, set_aside: Callable[[Rejected], None]
) -> ValidationSet:
    """Read the first pairs of a source.

    Raises:
        TrainingError: None of its pictures can be read.
    """
    opened = open_source(source)
    records: list[ImageText] = []
    inputs: list[Any] = []
    for record, found in _image_inputs(_good(opened, set_aside), student):
        if isinstance(found, Rejected):
            set_aside(replace(found, path=found.path or record.key))  # bytes have no path
            continue
        records.append(record)
        inputs.append(found)
        if len(records) == config.validation_pairs:
            break
    if not records:
        raise TrainingError(f"no picture of {source.path} can be read", hint="the run's ledger says why")
    pairs = Pairs.of([record.texts for record in records], [identity(record, config.positives) for record in records])
    texts = list(pairs.texts)
    locked = student.locked.text is not None
    words = torch.from_numpy(student.locked_text_rows(texts)) if locked else student.token_ids(texts)
    images = torch.from_numpy(np.stack(inputs))
    return ValidationSet(opened.name, images, words, pairs, tuple(records[:SHOWN]))


def _good(source: Source, set_aside: Callable[[Rejected], None]) -> Iterator[ImageText]:
    for item in source.records():
        if isinstance(item, Rejected):
            set_aside(item)
        else:
            yield item


def _image_inputs(
    records: Iterator[ImageText], student: Student
) -> Iterator[tuple[ImageText, FloatArray | Pixels | Rejected]]:
    """What a student takes of each picture, in order; a locked tower is asked in batches."""
    if student.locked.image is None:
        pictures = Pictures(student.preprocessing, 0)
        for record in records:
            yield record, pictures.get(record)
        return
    taken: deque[ImageText] = deque()

    def images() -> Iterator[str | bytes]:
        for record in records:
            taken.append(record)
            yield record.image

    for found in encode_stream(student.locked_image_encoder(), images()):
        yield taken.popleft(), found.embedding if isinstance(found, Encoded) else found


def show_examples(
    part: ValidationSet, images: FloatArray, texts: FloatArray, step: int, *, top: int = 5
) -> Mapping[str, Any]:
    """What the report shows of a step: similarities of the first pictures and their texts, and what each finds.

    Args:
        part: Of what.
        images: (N, E) unit rows.
        texts: (M, E) unit rows.
        step: Its number.
        top: Texts that are shown for each picture.
    """
    count = len(part.records)
    own = [part.pairs.texts_of[number][0] for number in range(count)]
    similarity = images[:count] @ texts.T  # (count, M)
    nearest = np.argsort(-similarity, axis=1)[:, :top]
    retrieval = [
        {
            "picture": number,
            "truth": part.pairs.texts[own[number]],
            "top": [
                [part.pairs.texts[text], round(float(similarity[number, text]), 4), text in part.pairs.texts_of[number]]
                for text in map(int, nearest[number])
            ],
        }
        for number in range(count)
    ]
    return {
        "step": step,
        "matrix": [[round(float(value), 4) for value in row] for row in similarity[:, own]],
        "pictures": [_thumbnail(record.image) for record in part.records],
        "texts": [part.pairs.texts[number] for number in own],
        "retrieval": retrieval,
    }


def _thumbnail(image: str | bytes) -> str:
    picture, _ = open_image(image)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Labels → rows: each label in several sentences, and the mean of their unit rows.

Place in the river: words → templates → `embedding` → the store, or recognition.

Shapes: C labels, T templates, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nunbit.row_cache import RowCache
from nunbit.text.templates import fill

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

TEXTS_AT_ONCE = 1024
"""Filled templates held at a time: 1,000 labels in 80 templates would be 80,000 rows."""


def embed_labels(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> FloatArray:
    """Embed labels, each only the first time that this user meets it with this encoder and these templates.

    What is in the cache is read from there; the rest is computed, and put there `TEXTS_AT_ONCE` texts at a time, so
    that a long run that was stopped goes on where it was. Where nothing is left to compute, the encoder is not asked
    for any text, and its text tower need not even be read.

    Returns:
        (C, D) float32, each row as `embed_labels_uncached` gave it when it was computed, bit for bit.
    """
    cache = RowCache("labels", encoder, templates)
    wanted = list(dict.fromkeys(names))
    rows = cache.read(wanted)
    missing = [name for name in wanted if name not in rows]
    are_kept = cache.has_room(len(missing))
    for some, computed in _embed_parts(encoder, missing, templates):
        rows.update(zip(some, computed, strict=True))
        if are_kept:
            cache.write(some, computed)
    return np.stack([rows[name] for name in names], dtype=np.float32)


def embed_labels_uncached(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> FloatArray:
    """Embed labels as the mean of their unit rows over the templates (arXiv 2103.00020, section 3.1.4).

    For label sets, which keep rows themselves: a million labels would push all others out of the cache.

    Returns:
        (C, D) float32, not unit again where there are several templates.
    """
    return np.concatenate([rows for _, rows in _embed_parts(encoder, names, templates)])


def _embed_parts(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str]
) -> Iterator[tuple[Sequence[str], FloatArray]]:
    step = max(1, TEXTS_AT_ONCE // len(templates))
    for start in range(0, len(names), step):
        some = names[start : start + step]
        rows = encoder.encode_text([fill(template, name) for name in some for template in templates])
        yield some, rows.reshape(len(some), len(templates), -1).mean(1)  # (some of C, T, D) → (some of C, D)

"""Labels → unit rows: each label in several sentences, and the mean of those.

Place in the river: words → templates → `embedding` → the store, or recognition.

Shapes: C labels, T templates, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nunbit.text.templates import fill

if TYPE_CHECKING:
    from nunbit.encode import Encoder
    from nunbit.types import FloatArray

TEXTS_AT_ONCE = 1024
"""Filled templates held at a time: 1,000 labels in 80 templates would be 80,000 rows."""


def embed_labels(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> FloatArray:
    """Embed labels as the mean of their unit rows over the templates (arXiv 2103.00020, section 3.1.4).

    Returns:
        (C, D) float32, not unit again where there are several templates.
    """
    step = max(1, TEXTS_AT_ONCE // len(templates))
    parts = []
    for start in range(0, len(names), step):
        some = names[start : start + step]
        rows = encoder.encode_text([fill(template, name) for name in some for template in templates])
        parts.append(rows.reshape(len(some), len(templates), -1).mean(1))  # (some of C, T, D) → (some of C, D)
    return np.concatenate(parts)

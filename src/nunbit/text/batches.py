"""Token ids → batches of texts of like length.

Shapes: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.text.tokenizer import TokenizerConfig

TEXTS_PER_BATCH = 64


def batches_by_length(
    ids: npt.NDArray[np.int64], config: TokenizerConfig
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Cut texts into batches.

    Where padding changes nothing (CLIP: causal, read at the end token), texts of like length go together and nobody
    reads padding. Where padding is part of the answer (SigLIP), all of it is kept.

    Args:
        ids: (N, T) as the tokenizer gives them.
        config: Of the tokenizer.

    Yields:
        The numbers of a batch's texts, and their ids, (some of N, at most T).
    """
    lengths = np.full(len(ids), ids.shape[1])
    if config.padding == "longest":
        lengths = (ids == config.end_token_id).argmax(1) + 1
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(ids), TEXTS_PER_BATCH):
        numbers = order[start : start + TEXTS_PER_BATCH]
        yield numbers, ids[numbers, : int(lengths[numbers].max())]

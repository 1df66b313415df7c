"""Which pairs of a batch belong together: the same picture twice, or the same words.

An identical caption of another picture is no negative, and no loss may call it one.

Shapes: N pairs, M pairs of another block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def same(pictures: Tensor, texts: Tensor) -> Tensor:
    """Which of N pairs are positives of each other: they share the picture or the text.

    Two pairs that share nothing are negatives, even where a third one shares something with both.

    Args:
        pictures: (N,) int64, the same number for the same picture.
        texts: (N,) int64, the same number for the same text.

    Returns:
        (N, N) bool, symmetric, true on the diagonal.
    """
    return (pictures[:, None] == pictures[None]) | (texts[:, None] == texts[None])


class Identities(NamedTuple):
    """Numbers that tell pictures and texts of a batch apart; pairs are positives as in `same`.

    Attributes:
        pictures: (N,) int64, the same number for the same picture.
        texts: (N,) int64, the same number for the same text.
    """

    pictures: Tensor
    texts: Tensor

    def tile(self, rows: slice, others: Identities, columns: slice) -> tuple[Tensor, Tensor] | None:
        """The positives between some pairs of this block and some of another one, which may be this one.

        Args:
            rows: R pairs of this block.
            others: The numbers of the other block's pairs.
            columns: C of these.

        Returns:
            Row and column in the tile of each positive, (P,) int64 both; None where there is none.
        """
        ours = Identities(self.pictures[rows], self.texts[rows])
        theirs = Identities(others.pictures[columns], others.texts[columns])
        # Most tiles have no positive, and sorting R + C numbers is far quicker than comparing R times C.
        if not (torch.isin(ours.pictures, theirs.pictures).any() or torch.isin(ours.texts, theirs.texts).any()):
            return None
        match = ours.pictures[:, None] == theirs.pictures[None]  # (R, C)
        match |= ours.texts[:, None] == theirs.texts[None]
        found, places = match.nonzero(as_tuple=True)
        return found, places

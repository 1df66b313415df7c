"""Train, validation and test, so that nothing in one is also in another.

Near duplicates and records with the same text are one group, directly or through others, and a group is on one side.
A text that many records share joins none: the title of a page would put all of its pictures on one side.
Which side is decided by a hash of the seed and of one picture of the group, that with the smallest hash of its bytes:
what comes later moves nothing, but for a group that gets a new smallest one or grows together with another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from nunbit.curate.balance import stable_order
from nunbit.curate.near import Groups, Search
from nunbit.curate.words import plain

COMMON = 10
"""A text that more records share says nothing of any of them."""


def group_records(texts: Sequence[Sequence[str]] | None, same: Sequence[str], searches: Sequence[Search]) -> list[int]:
    """Find what belongs together.

    Args:
        texts: Of each of N records; None when the same text may be on several sides.
        same: For each of N records what only the same picture shares.
        searches: How near pictures are found, by rows 0 to N - 1.

    Returns:
        For each of N records, the first record of its group.
    """
    groups = Groups(len(same))
    common = _common(texts or ())
    first: dict[tuple[str, str], int] = {}
    for row, pixels in enumerate(same):
        shared = [("picture", pixels), *(("text", plain(text)) for text in (texts[row] if texts else ()))]
        for thing in shared:
            if thing[0] == "text" and thing[1] in common:
                continue
            groups.join(row, first.setdefault(thing, row))
    for search in searches:
        groups.join_near(range(len(same)), search)
    return [groups.find(row) for row in range(len(same))]


def _common(texts: Sequence[Sequence[str]]) -> set[str]:
    counts = Counter(text for some in texts for text in {plain(text) for text in some})
    return {text for text, count in counts.items() if count > COMMON}


def choose_sides(groups: Sequence[int], hashes: Sequence[str], shares: Sequence[float], seed: int) -> list[int]:
    """Put each group on a side.

    Args:
        groups: As `group_records` gives them.
        hashes: The sha256 of each record's picture.
        shares: Of the sides; they add up to 1. What comes of them is near to it, for groups are not divided.
        seed: Decides, with the hashes.

    Returns:
        For each record, the place of its side in ``shares``.
    """
    smallest: defaultdict[int, str] = defaultdict(lambda: "g")  # behind every hexadecimal digit
    for group, sha256 in zip(groups, hashes, strict=True):
        smallest[group] = min(smallest[group], sha256)
    sides = {group: _side(stable_order(seed, sha256), shares) for group, sha256 in smallest.items()}
    return [sides[group] for group in groups]


def _side(order: bytes, shares: Sequence[float]) -> int:
    place = int.from_bytes(order[:8], "big") / (1 << 64)
    for side, share in enumerate(shares[:-1]):
        if place < share:
            return side
        place -= share
    return len(shares) - 1

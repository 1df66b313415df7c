"""Questions and answers by rule, from boxes and captions: what is there, how many, where, of which color.

Nothing is asked that the records do not decide. What a box names is there; what no box names is not, where a picture's
boxes are all there are, as COCO's are for its 80 categories. Of presence there are as many no as yes, and of the no one
third each are chosen as POPE does (arXiv 2305.10355): at random, among the most frequent, among those that come most
often with what is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from nunbit.errors import UsageError

Negatives: TypeAlias = Literal["random", "popular", "adversarial"]
_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
_COLORS = ("black", "white", "red", "green", "blue", "yellow", "orange", "brown", "pink", "purple", "gray", "silver")
_IRREGULAR = {"person": "people", "mouse": "mice", "sheep": "sheep", "scissors": "scissors", "skis": "skis"}
_ALREADY_MANY = ("scissors", "skis")
Question: TypeAlias = tuple[str, str]
"""What is asked, and the answer."""


@dataclass(frozen=True, slots=True)
class Box:
    """One thing in a picture.

    Attributes:
        category: What it is.
        left: Of its box, 0-1.
        right: Of its box, 0-1.
        crowd: It stands for many.
    """

    category: str
    left: float
    right: float
    crowd: bool


class Statistics:
    """How often categories come, and come together, in training pictures.

    Args:
        pictures: Categories of each.
        categories: All that there are, also those that no picture has.
    """

    def __init__(self, pictures: Sequence[set[str]], categories: Sequence[str]) -> None:
        self.categories = tuple(categories)
        place = {name: number for number, name in enumerate(categories)}
        table = np.zeros((len(pictures), len(categories)), np.float64)
        for row, names in enumerate(pictures):
            table[row, [place[name] for name in names]] = 1
        self._place, self._frequency, self._together = place, table.sum(0), table.T @ table

    def absent(self, present: set[str], count: int, kind: Negatives, rng: np.random.Generator) -> list[str]:
        """So many categories that are not there.

        Args:
            present: Those that are.
            count: How many; fewer where there are no more.
            kind: Which: at random, the most frequent, or those that come most often with what is present.
            rng: For the first.

        Raises:
            UsageError: No such kind.
        """
        if kind not in get_args(Negatives):
            raise UsageError(f"there are no {kind!r} negatives", hint=f"one of: {', '.join(get_args(Negatives))}")
        others = [name for name in self.categories if name not in present]
        if kind == "random":
            return [others[number] for number in rng.permutation(len(others))[:count]]
        rows = [self._place[name] for name in present]
        weight = self._frequency if kind == "popular" else self._together[rows].sum(0)
        return sorted(others, key=lambda name: -weight[self._place[name]])[:count]


def presence_question(category: str) -> str:
    """POPE's form: ``Is there a dog in the image?``."""
    return f"Is there {with_article(category)} in the image?"


def presence(
    present: set[str],
    statistics: Statistics,
    rng: np.random.Generator,
    *,
    kinds: Sequence[Negatives] = get_args(Negatives),
    most: int = 9,
) -> list[Question]:
    """As many questions that are answered with yes as with no, in a shuffled order.

    Args:
        present: Categories that are there.
        statistics: Of the training pictures.
        rng: Of every choice.
        kinds: The absent ones are taken from these in turn.
        most: Categories that are asked about, of those that are there.
    """
    asked = list(rng.permutation(sorted(present)).tolist())[:most]
    absent: list[str] = []
    for number in range(len(asked)):
        kind = kinds[number % len(kinds)]
        absent += statistics.absent(present | set(absent), 1, kind, rng)
    questions = [(presence_question(name), "yes") for name in asked]
    questions += [(presence_question(name), "no") for name in absent]
    return [questions[number] for number in rng.permutation(len(questions))]


def counts(boxes: Sequence[Box]) -> list[Question]:
    """How many there are, where that is up to six and no box stands for a crowd."""
    numbers = Counter(box.category for box in boxes)
    crowds = {box.category for box in boxes if box.crowd}
    return [
        (f"How many {plural(name)} are there?", _WORDS[number])
        for name, number in sorted(numbers.items())
        if number < len(_WORDS) and name not in crowds
    ]


def listing(boxes: Sequence[Box]) -> str | None:
    """A caption by template, the largest numbers last, as in ``A picture of a dog, two people and many cars``.

    Returns:
        None where there is no box.
    """
    numbers = Counter(box.category for box in boxes)
    crowds = {box.category for box in boxes if box.crowd}
    things = []
    for name, number in sorted(numbers.items(), key=lambda one: (one[0] in crowds, one[1], one[0])):
        if name in crowds or number >= len(_WORDS):
            things.append(f"many {plural(name)}")
        else:
            one = name if name in _ALREADY_MANY else with_article(name)
            things.append(f"{_WORDS[number]} {plural(name)}" if number > 1 else one)
    if not things:
        return None
    return f"A picture of {' and '.join(filter(None, (', '.join(things[:-1]), things[-1])))}."


def positions(boxes: Sequence[Box]) -> list[Question]:
    """In which third the middle of a thing lies, where there is one of its kind, and it fills less than half."""
    numbers = Counter(box.category for box in boxes)
    found = []
    for box in boxes:
        middle = (box.left + box.right) / 2
        if numbers[box.category] == 1 and not box.crowd and box.right - box.left < 0.5:
            where = "left" if middle < 1 / 3 else "right" if middle > 2 / 3 else "middle"
            found.append((f"Where is the {box.category}, left, middle or right?", where))
    return found


def colors(categories: set[str], captions: Sequence[str]) -> list[Question]:
    """The color of a thing, where captions name it and agree."""
    found = []
    for name in sorted(categories):
        pattern = re.compile(rf"\b({'|'.join(_COLORS)}) {re.escape(name)}\b", re.IGNORECASE)
        named = {match.lower() for caption in captions for match in pattern.findall(caption)}
        if len(named) == 1:
            found.append((f"What color is the {name}?", named.pop()))
    return found


def mentioned(categories: Sequence[str], captions: Sequence[str], words: Mapping[str, Sequence[str]]) -> set[str]:
    """Categories that captions name, in one or in many.

    Args:
        categories: Names.
        captions: Of one picture.
        words: Other names of categories.
    """
    text = " ".join(captions).lower()
    return {
        name
        for name in categories
        if any(
            re.search(rf"\b(?:{re.escape(word)}|{re.escape(plural(word))})\b", text)
            for word in (name, *words.get(name, ()))
        )
    }


def with_article(noun: str) -> str:
    """``a dog``, ``an apple``; of what is many already, ``any skis``."""
    if noun in _ALREADY_MANY:
        return f"any {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """``dogs``, ``benches``, ``knives``."""
    head, _, last = noun.rpartition(" ")
    many = _IRREGULAR.get(last)
    if many is None:
        if last.endswith(("s", "x", "ch", "sh")):
            many = last + "es"
        elif last.endswith("fe"):
            many = last[:-2] + "ves"
        elif last.endswith("y") and last[-2] not in "aeiou":
            many = last[:-1] + "ies"
        else:
            many = last + "s"
    return f"{head} {many}" if head else many
